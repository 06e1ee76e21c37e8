"""Bytes of quantised weights: rules against llama-quantize, types against the gguf package, totals against real files."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcalc import resolve
from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint, Weight
from llmcalc.engines import files, mixes, ranks, weights
from llmcalc.quantity import Dim
from llmcalc.specs import catalogue, read, validate
from tests.llama_quantize import FTYPES, Quantize, Shape, Tensor, block, spec, tensors
from tests.test_properties import blueprint as blueprint_of
from tests.test_properties import specs

ROWS = [json.loads(line) for line in (Path(__file__).parent / "data" / "inference_sizes.jsonl").read_text("utf-8").splitlines()]


class Fused(Blueprint):
    """A model whose checkpoint has queries, keys and values in one tensor."""

    fused = ("qkv",)


def lowered(shape: Shape) -> Blueprint:
    plain = lower(validate.validate(read.parse(json.dumps(spec(shape)), "invented.yaml"), "models"), "invented")
    return Fused(*plain) if shape.fused else plain


GGUF_NAMES = {
    "embedding": "token_embd", "lm_head": "output", "final_norm": "output_norm", "attention_norm": "attn_norm", "q": "attn_q",
    "k": "attn_k", "v": "attn_v", "o": "attn_output", "kv_a": "attn_kv_a_mqa", "kv_a_norm": "attn_kv_a_norm",
    "k_b": "attn_k_b", "v_b": "attn_v_b", "router": "ffn_gate_inp", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
    "ffn_norm": "ffn_norm",
    **{f"expert_{role}": f"ffn_{role}_exps" for role in ("gate", "up", "down")},
    **{f"shared_{role}": f"ffn_{role}_shexp" for role in ("gate", "up", "down")},
}  # fmt: skip
FORMATS = {"fp32": "F32", "fp16": "F16", "mxfp4-moe": "MXFP4"}


def ours(b: Blueprint, quant: str) -> dict[str, str]:
    """Every tensor's type by its GGUF name, as the rules have it."""
    found: dict[str, str] = {}
    for share in weights.assign(b, resolve.method(quant)):
        role, dot, tail = share.weight.role.partition(".")
        name = GGUF_NAMES[role] + (f".{tail}" if dot else ".weight")
        if isinstance(b, Fused) and role in ("q", "k", "v"):
            name = "attn_qkv.weight"
        kind = FORMATS.get(share.format, share.format.upper())
        for layer in share.layers or (None,):
            full = name if layer is None else f"blk.{layer}.{name}"
            assert found.setdefault(full, kind) == kind
    return found


def catalogue_name(ftype: str) -> str:
    return ftype.lower().replace("mxfp4_moe", "mxfp4-moe")


DENSE = Shape(layers=17, heads=8, kv_heads=4, head_dim=32)
SHAPES = {
    "dense": DENSE,
    "dense, four queries a key": DENSE._replace(kv_heads=2),
    "tied head": DENSE._replace(tied=True),
    "odd width": DENSE._replace(hidden=320, ffn=864),
    "odd width, tied": DENSE._replace(hidden=288, head_dim=36, tied=True),
    "no block fits": DENSE._replace(hidden=72, head_dim=9, ffn=200),
    "8 experts": DENSE._replace(experts=8),
    "8 experts, four queries a key": DENSE._replace(experts=8, kv_heads=2),
    "16 experts, shared, two dense layers": DENSE._replace(layers=33, experts=16, shared=2, first_dense=2),
    "3 experts of odd width": DENSE._replace(experts=3, expert_ffn=96),
    "latent attention": DENSE._replace(latent=(256, 64, 32, 48)),
    "latent attention, experts, shared": DENSE._replace(latent=(512, 128, 64, 128), experts=64, shared=1, first_dense=1),
    "80 layers": DENSE._replace(layers=80),
    "80 layers, eight queries a key": DENSE._replace(layers=80, kv_heads=1),
    "80 layers, multi-head": DENSE._replace(layers=80, kv_heads=8),
    "80 layers, multi-head with biases": DENSE._replace(layers=80, kv_heads=8, qkv_bias=True),
    "80 layers, 8 experts": DENSE._replace(layers=80, experts=8),
    "one tensor for q, k, v": DENSE._replace(fused=True),
    "Falcon": DENSE._replace(layers=33, fused=True, falcon=True, kv_heads=1),
    "Falcon of odd width": DENSE._replace(layers=33, fused=True, falcon=True, kv_heads=1, hidden=320),
    "two layers": DENSE._replace(layers=2),
}  # fmt: skip


@pytest.mark.parametrize("ftype", FTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_tensor_has_the_type_that_llama_quantize_gives_it(shape: Shape, ftype: str) -> None:
    assert ours(lowered(shape), catalogue_name(ftype)) == Quantize(shape, ftype, imatrix=ftype.startswith("IQ")).types()


@pytest.mark.parametrize(
    ("quant", "ftype", "imatrix"),
    [
        ("q4_0-imatrix", "Q4_0", True),
        ("q5_0-imatrix", "Q5_0", True),
        ("iq4_nl-static", "IQ4_NL", False),
        ("iq4_xs-static", "IQ4_XS", False),
    ],
)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_with_and_without_an_importance_matrix(shape: Shape, quant: str, ftype: str, imatrix: bool) -> None:
    assert ours(lowered(shape), quant) == Quantize(shape, ftype, imatrix=imatrix).types()


@st.composite
def shapes(draw: Any) -> Shape:
    kv_heads = draw(st.integers(1, 4))
    experts = draw(st.sampled_from((0, 0, 2, 4, 8, 16)))
    layers = draw(st.integers(1, 41))
    heads = kv_heads * draw(st.integers(1, 6))
    # Latent attention of a single head, which nobody has, would have no third axis to tell it by.
    latent = draw(st.none() | st.tuples(*[st.sampled_from((32, 64, 96, 128, 256))] * 4)) if heads > 1 else None
    return Shape(
        layers=layers, hidden=draw(st.sampled_from((64, 96, 256, 320, 512))), kv_heads=kv_heads,
        heads=heads, head_dim=draw(st.sampled_from((16, 64, 100))),
        ffn=draw(st.sampled_from((128, 256, 300, 768))), vocab=draw(st.integers(1, 99)), tied=draw(st.booleans()),
        experts=experts, expert_ffn=draw(st.sampled_from((64, 256))), shared=draw(st.integers(0, 2)),
        first_dense=draw(st.integers(0, layers - 1)) if experts else 0, latent=latent,
        fused=latent is None and draw(st.booleans()), qkv_bias=latent is None and draw(st.booleans()),
    )  # fmt: skip


@given(shapes(), st.sampled_from(FTYPES))
@settings(max_examples=150, deadline=None)
def test_types_of_any_model(shape: Shape, ftype: str) -> None:
    # Biases of a fused tensor are fused too.
    shape = shape._replace(qkv_bias=shape.qkv_bias and not shape.fused)
    assert ours(lowered(shape), catalogue_name(ftype)) == Quantize(shape, ftype, imatrix=ftype.startswith("IQ")).types()


WRITTEN = {
    "dense": Shape(layers=8),
    "tied head": Shape(tied=True, vocab=96),
    "mixture": Shape(experts=4, shared=1, first_dense=1),
    "odd width": Shape(hidden=320, ffn=96, head_dim=80),
    "latent": Shape(latent=(256, 96, 32, 64), experts=8),
}


def packed(gguf: Any, tensor: Tensor, kind: Any) -> Any:
    """A tensor's bytes in a type: quantised by the package where it can, zeros of its own count where not."""
    np = pytest.importorskip("numpy")
    shape = tensor.dims[::-1]
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    try:
        return gguf.quants.quantize(values, kind)
    except NotImplementedError:
        return np.zeros(gguf.quants.quant_shape_to_byte_shape(shape, kind), dtype=np.uint8)


@pytest.mark.parametrize("ftype", FTYPES)
@pytest.mark.parametrize("shape", WRITTEN.values(), ids=WRITTEN)
def test_bytes_of_files_that_the_gguf_package_writes(shape: Shape, ftype: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    types = Quantize(shape, ftype, imatrix=ftype.startswith("IQ")).types()
    for tensor in tensors(shape):
        kind = gguf.GGMLQuantizationType[types[tensor.name]]
        data = packed(gguf, tensor, kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind if data.dtype == "uint8" else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    reader = gguf.GGUFReader(path)
    written = {str(tensor.name): int(tensor.n_bytes) for tensor in reader.tensors}
    b, method = lowered(shape), resolve.method(catalogue_name(ftype))
    counted: dict[str, int] = {}
    for share in weights.assign(b, method):
        role, dot, tail = share.weight.role.partition(".")
        name = GGUF_NAMES[role] + (f".{tail}" if dot else ".weight")
        one = int(weights.share_bytes(share, method, b.dtype)) // int(share.depth)
        counted |= {name if layer is None else f"blk.{layer}.{name}": one for layer in share.layers or (None,)}
    assert counted == written
    file = files.file_of(b, method, container="gguf")
    assert file.tensor_bytes == path.stat().st_size - reader.data_offset
    assert file.weight_bytes == sum(written.values())
    # The record of a tensor: what the estimate takes for it holds for names as these.
    head = reader.data_offset
    assert files.GGUF_TENSOR_BYTES * len(written) == pytest.approx(head, rel=0.2)


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    known = {kind.name: sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    found = {}
    for name, entry in catalogue.entries("quants").items():
        upper = {"mxfp4-moe": "MXFP4"}.get(name, name.upper())
        if entry.data["kind"] == "gguf" and upper in known:
            form = catalogue.quant_spec(name)[1].format
            assert form.block is not None
            assert block(upper) == form.block
            found[upper] = (form.block, int(weights.tensor_bytes((form.block,), form)))
    assert found == {name: known[name] for name in found}
    assert len(found) == 22


def off(row: dict[str, Any]) -> float:
    """How far a figure is from what was measured, as a share of it."""
    model = resolve.model(row["model"])
    quant, container = resolve.method(row["quant"]), catalogue.quant_spec(row["quant"])[1].container
    file = files.file_of(model.blueprint, quant, container=container or "safetensors")
    figure = {"bits_per_weight": file.bits_per_weight, "tensor_bytes": file.weight_bytes, "file_bytes": file.file_bytes}
    return float(figure[row["key"]] / row["value"] - 1)


SIZES = [row for row in ROWS if row["kind"] == "size"]


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in SIZES])
def test_sizes_of_published_files(row: dict[str, Any]) -> None:
    assert abs(off(row)) <= 0.02


def test_most_published_files_to_three_in_a_thousand() -> None:
    assert statistics.median(abs(off(row)) for row in SIZES) <= 0.001


def rope_bytes(row: dict[str, Any]) -> int:
    """The tables of sines and cosines that vLLM keeps with the weights, in 16 bits, one for each base."""
    found = resolve.model(row["model"]).spec
    dim = found.rotary_dim or found.head_dim or (found.hidden or 0) // (found.heads or 1)
    return int(row["ropes"]) * (found.context or 0) * dim * 2


LOADED = [row for row in ROWS if row["kind"] == "vllm"]


def off_vllm(row: dict[str, Any]) -> float:
    model = resolve.model(row["model"])
    method = resolve.method(row["quant"]) if row["quant"] else resolve.unquantised()
    multiples = tuple(row["expert_multiples"])
    held = ranks.rank_bytes(model.blueprint, method, row["tp"], vocab_multiple=64, expert_multiples=multiples)
    return float((held + rope_bytes(row)) / 2**30 / row["gib"] - 1)


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in LOADED])
def test_weights_that_vllm_loads(row: dict[str, Any]) -> None:
    assert abs(off_vllm(row)) <= 0.02


def test_most_that_vllm_loads_to_five_in_a_thousand() -> None:
    assert statistics.median(abs(off_vllm(row)) for row in LOADED) <= 0.005


QUANTS = sorted(catalogue.entries("quants"))


def nominal_bits(form: Any) -> float:
    """Bits of an element with what groups of elements share."""
    return float(form.bits + sum(o.bits / o.per for o in form.overhead if isinstance(o.per, int)))


@given(specs(), st.sampled_from(QUANTS))
@settings(max_examples=200, deadline=None)
def test_nothing_takes_less_than_its_nominal_bits(data: dict[str, Any], quant: str) -> None:
    b, method = blueprint_of(data), resolve.method(quant)
    shares = weights.assign(b, method)
    for share in shares:
        form = weights.format_of(share, method, b.dtype)
        elements = math.prod(int(side) for side in share.weight.shape)
        assert 8 * int(weights.tensor_bytes(share.weight.shape, form)) >= elements * nominal_bits(form)
    # Every layer of every tensor is stored once, and the halves of a tensor are as large as the whole.
    stored = sum(int(s.depth) * int(s.weight.copies) * math.prod(int(side) for side in s.weight.shape) for s in shares)
    assert stored == sum(w.elements for w in b.weights)


@given(specs(), st.sampled_from(QUANTS))
@settings(max_examples=100, deadline=None)
def test_files_hold_what_is_loaded(data: dict[str, Any], quant: str) -> None:
    b, method = blueprint_of(data), resolve.method(quant)
    container = catalogue.quant_spec(quant)[1].container or "safetensors"
    file, size = files.file_of(b, method, container=container), weights.size(b, method)
    assert file.weight_bytes == size.weight_bytes
    assert file.tensor_bytes >= size.weight_bytes
    assert file.file_bytes > file.tensor_bytes
    assert file.bits_per_weight == pytest.approx(size.bits_per_weight)


@given(specs(), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_ranks_hold_together_at_least_the_model(data: dict[str, Any], count: int) -> None:
    b = blueprint_of(data)
    whole = weights.size(b, resolve.unquantised()).weight_bytes
    held = [ranks.rank_bytes(b, resolve.unquantised(), n) for n in (1, count)]
    assert held[0] == whole
    assert held[1] <= whole <= count * held[1]


@pytest.mark.parametrize(
    ("quant", "shape", "loaded", "on_disk", "source"),
    [
        ("nf4", (512, 640), 163_840 + 5120 + 80 + 4, 163_840 + 5120 + 80 + 4 + 1088, "absmax, its scales, offset; two maps"),
        ("nf4-single", (512, 640), 163_840 + 20_480, 163_840 + 20_480 + 64, "absmax; a map"),
        ("int8", (512, 640), 327_680 + 2048, 327_680 + 2048, "CB, and SCB of each row"),
        ("gptq-g128", (512, 640), 163_840 + 5120 + 1280, 163_840 + 5120 + 1280 + 2560, "qweight, scales, qzeros; g_idx"),
        ("gptq-g32", (512, 640), 163_840 + 20_480 + 5120, 163_840 + 20_480 + 5120 + 2560, "the same in groups of 32"),
        ("awq-g128", (512, 640), 163_840 + 5120 + 1280, 163_840 + 5120 + 1280, "qweight, scales, qzeros"),
        ("fp8", (512, 640), 327_680 + 4, 327_680 + 4, "one fp32 scale"),
        ("fp8-channel", (512, 640), 327_680 + 2048, 327_680 + 2048, "one fp32 scale of each output"),
        ("fp8-block", (512, 640), 327_680 + 4 * 4 * 5, 327_680 + 80, "one fp32 scale of each 128 x 128"),
        ("fp8-block", (130, 129), 16_770 + 4 * 2 * 2, 16_770 + 16, "edges have scales too"),
        ("mxfp4", (512, 640), 163_840 + 10_240, 163_840 + 10_240, "8 bits of 32"),
        ("nvfp4", (512, 640), 163_840 + 20_480 + 4, 163_840 + 20_480 + 8, "8 bits of 16 and one fp32; input scale"),
    ],
)  # fmt: skip
def test_bytes_of_one_matrix(quant: str, shape: tuple[int, ...], loaded: int, on_disk: int, source: str) -> None:
    form = catalogue.quant_spec(quant)[1].format
    assert int(weights.tensor_bytes(shape, form)) == loaded, source
    assert int(weights.tensor_bytes(shape, form, on_disk=True)) == on_disk, source


@pytest.mark.parametrize(
    ("model", "quant", "untouched"),
    [
        ("gpt-oss-20b", "mxfp4", {"embedding", "attention", "router", "norm", "lm_head"}),
        ("qwen3-30b-a3b", "fp8-block", {"embedding", "router", "norm", "lm_head"}),
        ("gemma3-4b", "nf4", {"embedding", "norm"}),
        ("llama3.1-8b", "awq-g128", {"embedding", "norm", "lm_head"}),
    ],
)
def test_what_is_left_in_16_bits(model: str, quant: str, untouched: set[str]) -> None:
    shares = weights.assign(resolve.model(model).blueprint, resolve.method(quant))
    quantised = {s.weight.part for s in shares if s.format}
    left = {
        s.weight.part for s in shares if not s.format and s.weight.kind in ("matrix", "table", "gain") and s.weight.role != "sinks"
    }
    assert left - quantised - {"vision"} == untouched


@pytest.mark.parametrize(
    ("model", "quant", "role", "format"),
    [
        ("bert-base", "q4_k_m", "embedding", "q6_k"),  # no head, so the embedding is taken for it
        ("qwen3-0.6b", "q4_k_m", "embedding", "q6_k"),
        ("qwen3-8b", "q4_k_m", "embedding", "q4_k"),
        ("smollm2-135m", "q4_k_m", "embedding", "q8_0"),  # rows of 576
        ("smollm2-135m", "iq2_xs", "q", "iq4_nl"),
        ("smollm2-135m", "iq2_xs", "embedding", "q8_0"),
        ("deepseek-v3", "q4_k_m", "k_b", "q5_0"),  # rows of 128
        ("deepseek-v3", "q4_k_m", "v_b", "q4_k"),
        ("deepseek-v3", "mxfp4-moe", "v_b", "mxfp4-moe"),
        ("deepseek-v3", "fp8-block", "kv_b", "fp8-block"),
        ("gpt-oss-120b", "mxfp4-moe", "q", "q8_0"),
        ("gemma3-4b", "nf4", "patch", ""),
    ],
)
def test_the_format_of_a_tensor(model: str, quant: str, role: str, format: str) -> None:
    shares = weights.assign(resolve.model(model).blueprint, resolve.method(quant))
    assert {s.format for s in shares if s.weight.role == role and s.weight.stack in ("decoder", "encoder", "vision")} == {format}


@pytest.mark.parametrize(
    ("part", "role", "kind", "stack", "words"),
    [
        ("recurrent", "in", "matrix", "decoder", {"all", "linears", "recurrent", "in"}),
        ("recurrent", "v", "matrix", "decoder", {"all", "linears", "recurrent", "v"}),
        ("recurrent", "gate", "matrix", "decoder", {"all", "linears", "recurrent"}),
        ("recurrent", "conv", "conv", "decoder", {"all", "others"}),
        ("recurrent", "A_log", "table", "decoder", {"all", "others"}),
        ("ffn", "dense_down", "matrix", "decoder", {"all", "linears", "ffn", "down"}),
        ("projection", "latent_down", "matrix", "decoder", {"all", "linears", "projection", "latent_down"}),
        ("audio", "q", "matrix", "audio", {"all", "vision", "vision_linears"}),
        ("audio", "conv", "conv", "audio", {"all", "vision"}),
        ("attention", "q", "matrix", "encoder", {"all", "linears", "attention", "q"}),
        ("cross_attention", "cross_v", "matrix", "decoder", {"all", "linears", "attention", "cross_attention", "v"}),
    ],
)
def test_words_that_mean_a_tensor(part: str, role: str, kind: str, stack: str, words: set[str]) -> None:
    side = Dim(64, "h")
    weight = Weight(f"{stack}.{role}", part, role, kind, (side, side), stack, (0, 1), Dim(2, "L"))
    traits = mixes.Traits(tied=False, experts=0, groups=1, depth=2, roles=frozenset(), depths={})
    assert mixes.categories(weight, traits) == words


def test_a_table_of_all_quantisations_is_sorted_by_size(run: Any) -> None:
    code, out, _ = run("weights", "llama3.1-8b", "--quant", "all", "--json")
    results = json.loads(out)["results"]
    assert code == 0
    assert {r["quant"] for r in results} == set(QUANTS)
    sizes = [r["weight_bytes"] for r in results]
    assert sizes == sorted(sizes, reverse=True)
    assert all(r["file_bytes"] > r["weight_bytes"] for r in results)


def test_a_tower_stands_in_a_file_of_its_own(run: Any) -> None:
    code, out, _ = run("weights", "gemma3-4b", "gemma3-4b-text", "--quant", "q4_k_m", "--json")
    both, text = json.loads(out)["results"]
    assert code == 0
    assert both["projector_file_bytes"] > 0 == text["projector_file_bytes"]
    assert both["file_bytes"] == text["file_bytes"]
    assert both["weight_bytes"] > text["weight_bytes"]


@pytest.mark.parametrize("row", [row for row in SIZES if str(row["quant"]).endswith("-2023") and row["key"] == "file_bytes"])
def test_the_stock_name_tells_the_older_size_too(row: dict[str, Any], run: Any) -> None:
    """Files made before the mix changed are still about: their size stands beside today's, and in a note where it is another."""
    name = row["quant"].removesuffix("-2023")
    outcome = run("weights", row["model"], "--quant", name, "--json")
    (result,) = outcome.results
    assert result["earlier_file_bytes"] == pytest.approx(row["value"], rel=0.02)
    assert result["file_bytes"] < 0.95 * result["earlier_file_bytes"]
    assert any(f"(--quant {row['quant']})" in note for note in outcome.json["notes"])
    assert run("weights", row["model"], "--quant", "q8_0", "--json").results[0]["earlier_file_bytes"] is None


def test_every_older_quantisation_exists() -> None:
    for name, entry in catalogue.entries("quants").items():
        earlier = entry.data.get("earlier")
        assert earlier is None or earlier in catalogue.entries("quants"), name
