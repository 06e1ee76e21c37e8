"""What files hold against what a config predicts: buffers, copies, packings, further and missing layers; tensors alone."""

import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcalc import resolve
from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import flops, kv, params, weights
from llmcalc.errors import LlmcalcError, NoAnswer, SpecError
from llmcalc.importers import safetensors, stored
from llmcalc.importers.tensors import Checkpoint, Tensor
from tests.conftest import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from model_files import safetensors_file, safetensors_header

H, F, V, LAYERS, KV = 64, 192, 160, 3, 32  # hidden, FFN, vocabulary, layers, rows of keys
LINEARS = {
    "self_attn.q_proj": (H, H), "self_attn.k_proj": (KV, H), "self_attn.v_proj": (KV, H), "self_attn.o_proj": (H, H),
    "mlp.gate_proj": (F, H), "mlp.up_proj": (F, H), "mlp.down_proj": (H, F),
}  # fmt: skip
LAYER = 2 * H + sum(math.prod(shape) for shape in LINEARS.values())
TOTAL = 2 * V * H + H + LAYERS * LAYER
Shapes = dict[str, tuple[str, tuple[int, ...]]]


def spec(**more: Any) -> dict[str, Any]:
    """The spec of a small Llama."""
    plain = {"family": "llama", "sources": "test", "layers": LAYERS, "hidden": H, "heads": 4, "kv_heads": 2, "ffn": F, "vocab": V}
    return {**plain, **more}


def blueprint(**more: Any) -> Blueprint:
    return lower(resolve.built(spec(**more), "test"), "small")


def llama(layers: int = LAYERS, dtype: str = "BF16") -> Shapes:
    """The tensors of a small Llama as its checkpoint has them."""
    found = {"model.embed_tokens.weight": (dtype, (V, H)), "model.norm.weight": (dtype, (H,)), "lm_head.weight": (dtype, (V, H))}
    for index in range(layers):
        at = f"model.layers.{index}."
        found |= {f"{at}{name}.weight": (dtype, shape) for name, shape in LINEARS.items()}
        found |= {f"{at}{name}.weight": (dtype, (H,)) for name in ("input_layernorm", "post_attention_layernorm")}
    return found


def checkpoint(tensors: Shapes, source: str = "model.safetensors") -> Checkpoint:
    bits = safetensors.BITS
    made = tuple(Tensor(name, shape, dtype, math.prod(shape) * bits[dtype] // 8) for name, (dtype, shape) in tensors.items())
    return Checkpoint(source, made, {"format": "pt"}, sum(t.bytes for t in made) + 8, (source,))


def packed(name: str, out: int, into: int, form: str) -> Shapes:
    """One linear as a quantiser stores it: what each names its tensors, and their shapes, is transformers'."""
    groups = into // 32
    if form in ("gptq", "gptq-3", "gptq-8"):
        bits = {"gptq": 4, "gptq-3": 3, "gptq-8": 8}[form]
        return {
            f"{name}.qweight": ("I32", (into * bits // 32, out)), f"{name}.qzeros": ("I32", (groups, out * bits // 32)),
            f"{name}.scales": ("F16", (groups, out)), f"{name}.g_idx": ("I32", (into,)),
        }  # fmt: skip
    if form == "gptq without g_idx":
        return {key: value for key, value in packed(name, out, into, "gptq").items() if not key.endswith("g_idx")}
    if form == "awq":
        return {
            f"{name}.qweight": ("I32", (into, out // 8)), f"{name}.qzeros": ("I32", (groups, out // 8)),
            f"{name}.scales": ("F16", (groups, out)),
        }  # fmt: skip
    if form == "nf4":
        at = f"{name}.weight"
        return {
            at: ("U8", (out * into // 2, 1)), f"{at}.absmax": ("U8", (out * into // 64,)), f"{at}.quant_map": ("F32", (16,)),
            f"{at}.nested_absmax": ("F32", (out * into // 64 // 256 + 1,)), f"{at}.nested_quant_map": ("F32", (256,)),
            f"{at}.quant_state.bitsandbytes__nf4": ("U8", (99,)),
        }  # fmt: skip
    if form == "int8":
        return {f"{name}.weight": ("I8", (out, into)), f"{name}.SCB": ("F32", (out,)), f"{name}.weight_format": ("U8", ())}
    if form == "fp8":
        return {f"{name}.weight": ("F8_E4M3", (out, into)), f"{name}.weight_scale_inv": ("F32", (-(-out // 128), -(-into // 128)))}
    if form == "fp8 of ModelOpt":
        scale = {f"{name}.{each}": ("F32", ()) for each in ("weight_scale", "input_scale")}
        return {f"{name}.weight": ("F8_E4M3", (out, into)), **scale, f"{name}.k_scale": ("F32", (1,))}
    if form == "nvfp4":
        return {
            f"{name}.weight": ("U8", (out, into // 2)), f"{name}.weight_scale": ("F8_E4M3", (out, into // 16)),
            f"{name}.weight_scale_2": ("F32", ()), f"{name}.input_scale": ("F32", ()),
        }  # fmt: skip
    if form == "nvfp4 of compressed-tensors":
        return {
            f"{name}.weight_packed": ("U8", (out, into // 2)), f"{name}.weight_scale": ("F8_E4M3", (out, into // 16)),
            f"{name}.weight_global_scale": ("F32", (1,)), f"{name}.input_global_scale": ("F32", (1,)),
        }  # fmt: skip
    if form in ("pack-quantized", "pack-quantized, 8 bits"):
        each = 8 if form == "pack-quantized" else 4
        return {
            f"{name}.weight_packed": ("I32", (out, into // each)), f"{name}.weight_scale": ("BF16", (out, groups)),
            f"{name}.weight_shape": ("I64", (2,)),
        }  # fmt: skip
    if form == "pack-quantized, zero points":
        return {**packed(name, out, into, "pack-quantized"), f"{name}.weight_zero_point": ("I32", (out // 8, groups))}
    if form == "bitnet":
        return {f"{name}.weight": ("U8", (out // 4, into)), f"{name}.weight_scale": ("BF16", (1,))}
    if form.startswith("mlx"):
        bits = int(form.removeprefix("mlx "))
        groups_of_32 = {f"{name}.{each}": ("BF16", (out, groups)) for each in ("scales", "biases")}
        return {f"{name}.weight": ("U32", (out, into * bits // 32)), **groups_of_32}
    assert form == "int8 of compressed-tensors"
    return {f"{name}.weight": ("I8", (out, into)), f"{name}.weight_scale": ("BF16", (out, 1))}


PACKINGS = (
    "gptq", "gptq-3", "gptq-8", "gptq without g_idx", "awq", "nf4", "int8", "fp8", "fp8 of ModelOpt", "nvfp4",
    "nvfp4 of compressed-tensors", "pack-quantized", "pack-quantized, 8 bits", "pack-quantized, zero points", "bitnet",
    "int8 of compressed-tensors", "mlx 4", "mlx 6",
)  # fmt: skip
ONLY_WITH_A_CONFIG = ("pack-quantized", "pack-quantized, 8 bits", "mlx 4", "mlx 6")


def quantised(form: str) -> Shapes:
    """A small Llama with its linears packed, the rest in fp16."""
    found = {
        name: value for name, value in llama(dtype="F16").items() if name.removesuffix(".weight").split(".", 3)[-1] not in LINEARS
    }
    for index in range(LAYERS):
        for name, (out, into) in LINEARS.items():
            found |= packed(f"model.layers.{index}.{name}", out, into, form)
    return found


@pytest.mark.parametrize("form", PACKINGS)
def test_packed_weights_count_as_what_they_unpack_to(form: str) -> None:
    compared = stored.compare(blueprint(), checkpoint(quantised(form)))
    assert compared.stored == compared.predicted == TOTAL
    assert params.count(compared.blueprint).total == TOTAL
    assert compared.blueprint.dtype == "fp16"
    words = " ".join(compared.notes)
    assert "scales and zero points" in words
    assert "packed weights" in words
    assert f"{checkpoint(quantised(form)).file_bytes:,} of files" in words


@pytest.mark.parametrize("form", [form for form in PACKINGS if form not in ONLY_WITH_A_CONFIG])
def test_packed_weights_without_a_config(form: str) -> None:
    assert params.count(stored.bare(checkpoint(quantised(form)), "x")).total == TOTAL


def test_mxfp4_experts() -> None:
    """gpt-oss: 32 values in 16 bytes, a scale for each; biases stay."""
    more = {"moe": {"experts": 4, "top_k": 2, "ffn": F}, "biases": ["experts", "router"], "ffn": None}
    found = {name: value for name, value in llama().items() if "mlp" not in name}
    for index in range(LAYERS):
        at = f"model.layers.{index}.mlp."
        found |= {
            f"{at}router.weight": ("BF16", (4, H)), f"{at}router.bias": ("BF16", (4,)),
            f"{at}experts.gate_up_proj_blocks": ("U8", (4, 2 * F, H // 32, 16)),
            f"{at}experts.gate_up_proj_scales": ("U8", (4, 2 * F, H // 32)), f"{at}experts.gate_up_proj_bias": ("BF16", (4, 2 * F)),
            f"{at}experts.down_proj_blocks": ("U8", (4, H, F // 32, 16)), f"{at}experts.down_proj_scales": ("U8", (4, H, F // 32)),
            f"{at}experts.down_proj_bias": ("BF16", (4, H)),
        }  # fmt: skip
    predicted = blueprint(**more)
    compared = stored.compare(predicted, checkpoint(found))
    assert compared.stored == compared.predicted == params.count(predicted).total
    assert compared.blueprint.dtype == "bf16"


def without(tensors: Shapes, *marks: str) -> Shapes:
    return {name: value for name, value in tensors.items() if not any(mark in name for mark in marks)}


class Case(NamedTuple):
    """Files of a small Llama with something about them: what is stored beyond the config's, and words of the notes."""

    name: str
    tensors: Shapes
    more: int
    says: str
    spec: dict[str, Any] = {}


MTP = {name.replace("layers.0", f"layers.{LAYERS}"): value for name, value in llama(1).items() if "layers.0" in name}
CASES = [
    Case("just so", llama(), 0, f"the files hold the {TOTAL:,} parameters that the config predicts"),
    Case("a copy of the tied head", llama(), 0, f"a copy of the tied token table {V * H:,}", {"tied_head": True}),
    Case("tied, and no copy", without(llama(), "lm_head"), 0, "that the config predicts", {"tied_head": True}),
    Case("GPT-2's masks", {**llama(), **{f"h.{i}.attn.bias": ("F32", (1, 1, 128, 128)) for i in range(LAYERS)},
                           **{f"h.{i}.attn.masked_bias": ("F32", ()) for i in range(LAYERS)}},
         0, f"attention masks {3 * 128 * 128 + 3:,}"),
    Case("masks of bytes", {**llama(), "a.attention.bias": ("U8", (1, 1, 64, 64)), "b.attention.bias": ("BOOL", (1, 1, 64, 64))},
         0, f"attention masks {2 * 64 * 64:,}"),
    Case("rotary tables", {**llama(), "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (8,)), "rope.freqs": ("F32", (8,))},
         0, "rotary tables 16"),
    Case("positions and counters", {**llama(), "embeddings.position_ids": ("I64", (1, 512)), "bn.num_batches_tracked": ("I64", ()),
                                    "bn.running_mean": ("F32", (7,))}, 0, "integers 513, running statistics 7"),
    Case("another layer, which predicts further tokens", {**llama(), **MTP, f"model.layers.{LAYERS}.eh_proj": ("BF16", (H, 2 * H))},
         LAYER + 2 * H * H, f"layers past the {LAYERS} that are said (multi-token prediction, most likely) {LAYER + 2 * H * H:,}"),
    Case("a module that predicts further tokens", {**llama(), "mtp.fc.weight": ("BF16", (H, 2 * H))}, 2 * H * H,
         f"multi-token prediction {2 * H * H:,}"),
    Case("towers", {**llama(), "vision_tower.patch": ("BF16", (H, 3, 14, 14)), "audio_tower.conv1": ("BF16", (H, 80))},
         H * 588 + H * 80, f"vision tower {H * 588:,}, audio tower {H * 80:,}"),
    Case("weights that nobody knows",
         {**llama(), **dict.fromkeys((f"model.layers.{i}.gizmo.weight" for i in (0, 1)), ("BF16", (7, H)))},
         14 * H, f"largest that no weight of the config matches: model.layers.*.gizmo.weight {14 * H:,}"),
    Case("adapters among the weights", {**llama(), "model.layers.0.self_attn.q_proj.lora_A.weight": ("BF16", (8, H))}, 8 * H,
         f"LoRA adapters {8 * H:,}"),
    Case("a missing layer", without(llama(), "layers.1."), -LAYER,
         f"the files lack {LAYER:,} parameters that the config predicts; they have no tensors of layers 1"),
    Case("a missing norm", without(llama(), "model.norm"), -H, f"the files lack {H:,} parameters"),
    Case("a further layer, and one missing", without({**llama(), **MTP, "mtp.fc.weight": ("BF16", (H, 2 * H))}, "layers.1."),
         2 * H * H, f"of what the config predicts they lack {LAYER:,}"),
]  # fmt: skip


FUSED = {
    f"model.layers.{i}.{name}.weight": ("BF16", shape)
    for i in range(LAYERS)
    for name, shape in {"self_attn.qkv_proj": (H + 2 * KV, H), "mlp.gate_up_proj": (2 * F, H)}.items()
}
CASES += [
    Case("fused, and a weight that nobody knows",
         {**without(llama(), "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), **FUSED, "gizmo": ("BF16", (7, H))}, 7 * H,
         f"counted as unexplained; largest that no weight of the config matches: gizmo {7 * H:,}"),
    Case("a tied table by no usual name", {**without(llama(), "embed_tokens"), "tokens": ("BF16", (V, H))}, 0,
         f"a copy of the tied token table {V * H:,}", {"tied_head": True}),
    Case("constants", {**llama(), "final_logits_bias": ("F32", (1, V)), "x.act_fn.beta": ("F32", ())}, 0, f"constants {V + 1:,}"),
]  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_differences_are_shown_and_named(case: Case) -> None:
    predicted = blueprint(**case.spec)
    compared = stored.compare(predicted, checkpoint(case.tensors))
    assert compared.predicted == params.count(predicted).total
    assert compared.stored - compared.predicted == case.more
    assert case.says in " | ".join(compared.notes)
    counted = params.count(compared.blueprint)
    assert counted.total == compared.predicted + max(case.more, 0)
    assert counted.parts["other"] == max(case.more, 0)
    assert weights.size(compared.blueprint, resolve.unquantised()).weight_bytes == 2 * counted.total
    assert kv.size(compared.blueprint, 100) == kv.size(predicted, 100)


MIXTURE = {"experts": 4, "top_k": 2, "ffn": F}


@pytest.mark.parametrize("kind", ["buffer", "parameter"])
def test_biases_of_routers_count_as_the_model_has_them(kind: str) -> None:
    found = without(llama(), "mlp")
    for index in range(LAYERS):
        at = f"model.layers.{index}.mlp."
        found |= {f"{at}gate.weight": ("BF16", (4, H)), f"{at}gate.e_score_correction_bias": ("F32", (4,))}
        for number in range(4):
            found |= {
                f"{at}experts.{number}.{name.split('.')[1]}.weight": ("BF16", shape)
                for name, shape in LINEARS.items()
                if "mlp" in name
            }
    predicted = blueprint(moe={**MIXTURE, "correction_bias": kind}, ffn=None)
    compared = stored.compare(predicted, checkpoint(found))
    assert compared.stored == compared.predicted
    assert ("biases of the routers 12" in compared.notes[0]) == (kind == "buffer")


def test_copies_of_a_shared_table() -> None:
    """T5's files may hold its one table as shared, in both stacks and as the head."""
    more = {"type": "encoder-decoder", "encoder": {"layers": LAYERS}, "tied_head": True, "positions": "relative"}
    predicted = lower(resolve.built(spec(**more), "test"), "t5")
    rest = params.count(predicted).total - V * H
    tables = dict.fromkeys(
        ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"), ("F32", (V, H))
    )
    compared = stored.compare(predicted, checkpoint({**tables, "all.the.rest": ("F32", (rest,))}))
    assert compared.stored == compared.predicted
    assert f"a copy of the tied token table {3 * V * H:,}" in compared.notes[0]
    assert compared.blueprint.dtype == "fp32"


def test_a_bias_stored_twice() -> None:
    """BERT's head has its bias under two names."""
    predicted = blueprint(head_bias=True)
    head: Shapes = {"decoder.weight": ("F32", (V, H)), "bias": ("F32", (V,)), "decoder.bias": ("F32", (V,))}
    found = {**without(llama(), "lm_head"), **{f"cls.predictions.{name}": value for name, value in head.items()}}
    assert stored.compare(predicted, checkpoint(found)).stored == TOTAL + V


@pytest.mark.parametrize(("dtype", "expected"), [("BF16", "bf16"), ("F16", "fp16"), ("F32", "fp32"), ("F64", "bf16")])
def test_the_dtype_of_most_elements(dtype: str, expected: str) -> None:
    found = {**llama(dtype=dtype), "model.norm.weight": ("F32", (H,))}
    assert stored.compare(blueprint(), checkpoint(found)).blueprint.dtype == expected


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"a.q_weight": ("I32", (64, 64)), "a.q_scale": ("I32", (64,))}, "a packing that is not known (q_scale, q_weight)"),
        (
            {"a.weight_packed": ("I32", (64, 64)), "a.weight_scale": ("BF16", (64, 2))},
            "unpack to no count that the config predicts",
        ),
    ],
)
def test_what_cannot_be_unpacked_leaves_the_configs_count(tensors: Shapes, says: str) -> None:
    compared = stored.compare(blueprint(), checkpoint({**without(llama(), "self_attn"), **tensors}))
    assert params.count(compared.blueprint).total == TOTAL
    assert says in compared.notes[-1]
    with pytest.raises(SpecError, match=r"only a config\.json beside them tells"):
        stored.bare(checkpoint(tensors), "x")


ADAPTER = {
    f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{side}.weight": ("F32", (8, H)) for i in range(3) for side in "AB"
}


@pytest.mark.parametrize(
    ("tensors", "says"), [(ADAPTER, "a LoRA adapter (6 of 6 tensors are its), no model"), ({}, "holds no tensors")]
)
def test_no_models_are_refused(tensors: Shapes, says: str) -> None:
    for ask in (lambda: stored.compare(blueprint(), checkpoint(tensors)), lambda: stored.bare(checkpoint(tensors), "x")):
        with pytest.raises(SpecError) as caught:
            ask()
        assert says in str(caught.value)


def test_tensors_alone() -> None:
    """One weight for layers that are alike; parts by clear names; no cache, no operations."""
    found = {**llama(), "model.layers.0.gizmo": ("BF16", (5,)), "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (8,))}
    alone = stored.bare(checkpoint(found), "alone")
    assert {w.name: (w.part, w.role, tuple(w.shape), len(w.layers)) for w in alone.weights} == {
        "model.embed_tokens.weight": ("embedding", "embedding", (V, H), 0),
        "model.norm.weight": ("norm", "norm", (H,), 0),
        "lm_head.weight": ("lm_head", "lm_head", (V, H), 0),
        "model.layers.*.self_attn.q_proj.weight": ("attention", "q", (H, H), 3),
        "model.layers.*.self_attn.k_proj.weight": ("attention", "k", (KV, H), 3),
        "model.layers.*.self_attn.v_proj.weight": ("attention", "v", (KV, H), 3),
        "model.layers.*.self_attn.o_proj.weight": ("attention", "o", (H, H), 3),
        "model.layers.*.mlp.gate_proj.weight": ("ffn", "gate", (F, H), 3),
        "model.layers.*.mlp.up_proj.weight": ("ffn", "up", (F, H), 3),
        "model.layers.*.mlp.down_proj.weight": ("ffn", "down", (H, F), 3),
        "model.layers.*.input_layernorm.weight": ("norm", "input_layernorm", (H,), 3),
        "model.layers.*.post_attention_layernorm.weight": ("norm", "post_attention_layernorm", (H,), 3),
        "model.layers.*.gizmo": ("other", "gizmo", (5,), 1),
    }
    counted = params.count(alone)
    assert (counted.total, counted.embedding, counted.lm_head) == (TOTAL + 5, V * H, V * H)
    assert alone.stacks[0].depth == LAYERS
    with pytest.raises(NoAnswer, match="tensors only"):
        kv.size(alone, 100)
    with pytest.raises(NoAnswer, match="tensors only"):
        flops.count(alone, 100)


def test_experts_alone_are_copies() -> None:
    found: Shapes = {f"model.layers.{i}.mlp.experts.{n}.up_proj.weight": ("BF16", (F, H)) for i in range(3) for n in range(4)}
    (weight,) = stored.bare(checkpoint(found), "x").weights
    assert (weight.part, weight.layers, int(weight.copies), weight.elements) == ("experts", (0, 1, 2), 4, 12 * F * H)


WORDS = [
    "weight_packed",
    "weight_scale",
    "weight_scales",
    "weight_blocks",
    "weight_zero_point",
    "qzeros",
    "g_idx",
    "layers",
    "0",
    "1",
    "7",
    "experts",
    "attn",
    "mlp",
    "norm",
    "weight",
    "qweight",
    "scales",
    "bias",
    "x",
]


@given(st.dictionaries(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(".".join),
    st.tuples(st.sampled_from(sorted(safetensors.BITS)), st.lists(st.sampled_from([0, 1, 2, 8, 16, 64]), max_size=4).map(tuple)),
    min_size=1, max_size=12))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_tensors_add_up_or_are_refused(tensors: Shapes) -> None:
    """The adjusted blueprint's total is the stored count, or the config's where the files hold less."""
    files = checkpoint(tensors)
    compared = stored.compare(blueprint(), files)
    unclear = compared.notes[-1].endswith("counts are those that the config predicts")
    assert params.count(compared.blueprint).total == (compared.predicted if unclear else max(compared.stored, compared.predicted))
    try:
        alone = stored.bare(files, "x")
    except LlmcalcError:
        return
    assert params.count(alone).total <= 8 * files.elements


CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": H, "intermediate_size": F, "vocab_size": V,
    "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip


def folder(path: Path, tensors: Shapes, config: bool = True) -> Path:
    """A model's folder in two shards with an index."""
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        header = safetensors_header(**{name: (tensors[name][0], list(tensors[name][1])) for name in part})
        (path / shard).write_bytes(safetensors_file(header))
        weight_map |= dict.fromkeys(part, shard)
    (path / safetensors.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    if config:
        (path / "config.json").write_text(json.dumps(CONFIG))
    return path


def test_a_folder_answers_with_what_it_holds(tmp_path: Path, run: Run) -> None:
    extra = {"mtp.fc.weight": ("F16", (H, 2 * H))}
    outcome = run("params", str(folder(tmp_path, {**llama(dtype="F16"), **extra})), "--json")
    assert outcome.results[0]["total"] == TOTAL + 2 * H * H
    assert any("multi-token prediction" in note for note in outcome.json["notes"])
    assert run("weights", str(tmp_path), "--json").results[0]["weight_bytes"] == 2 * (TOTAL + 2 * H * H)
    assert run("kv", str(tmp_path), "--ctx", "10", "--json").results[0]["kv_bytes"] == LAYERS * 2 * KV * 2 * 10


def test_a_folder_without_a_config(tmp_path: Path, run: Run) -> None:
    path = str(folder(tmp_path, llama(), config=False))
    assert run("params", path, "--json").results[0]["total"] == TOTAL
    refused = run("kv", path)
    assert refused.code == 2
    assert "put config.json beside it" in refused.err
