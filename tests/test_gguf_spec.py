"""GGUF metadata and tensor tables as specs: real classes' tables, catalogue models, window patterns, and what is refused."""

import random
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcalc import resolve
from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import flops, kv, params
from llmcalc.errors import LlmcalcError, SpecError, UnknownArchitecture
from llmcalc.importers import gguf, stored
from llmcalc.importers.gguf_arch import ARCHITECTURES, FILE_TYPES
from llmcalc.importers.gguf_spec import from_gguf
from llmcalc.importers.tensors import Checkpoint, Tensor
from llmcalc.specs import catalogue
from tests.conftest import Run, records
from tests.gguf_tables import Table, table_of

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from model_files import Ggml, gguf_file

ROWS = records("gguf_tables.jsonl")


def checkpoint_of(row: dict[str, Any]) -> Checkpoint:
    """A row of gguf_tables.jsonl: tensor -> shape -> layers, as a list or FIRST-LAST."""
    tensors = []
    for pattern, shapes in row["tensors"].items():
        for shape, said in shapes.items():
            layers = said
            if isinstance(said, str):
                first, last = map(int, said.split("-"))
                layers = range(first, last + 1)
            names = [pattern] if layers is None else [pattern.replace("*", str(layer)) for layer in layers]
            tensors += [Tensor(name, tuple(map(int, shape.split())), "F16", 0) for name in names]
    keys = {f"{row['arch']}.{key}": tuple(value) if isinstance(value, list) else value for key, value in row["keys"].items()}
    return Checkpoint("model.gguf", tuple(tensors), {"general.architecture": row["arch"], **keys}, 0, ("model.gguf",))


def lowered(checkpoint: Checkpoint) -> Blueprint:
    return lower(resolve.built(from_gguf(checkpoint).spec, checkpoint.source), "model")


@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in ROWS])
def test_tables_of_real_classes(row: dict[str, Any]) -> None:
    blueprint = lowered(checkpoint_of(row))
    counted = params.count(blueprint)
    fields = ("total", "active", "embedding", "lm_head", "router_buffers")
    assert {f: getattr(counted, f) for f in fields} == {f: row[f] for f in fields}
    assert {n: kv.size(blueprint, int(n)).kv_bytes for n in row.get("kv_bytes", ())} == row.get("kv_bytes", {})
    assert kv.size(blueprint, 100).state_bytes == row.get("state_bytes", 0)
    if "flops" in row:
        at = row["flops"]["seq_len"]
        got = flops.count(blueprint, at, encoder_context=at if blueprint.has_encoder else 0)
        assert got.forward_full == pytest.approx(row["flops"]["forward"], rel=1e-3)


@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in ROWS])
def test_nothing_of_a_table_is_left_unread(row: dict[str, Any]) -> None:
    checkpoint = checkpoint_of(row)
    compared = stored.compare(lowered(checkpoint), checkpoint)
    assert compared.stored == compared.predicted == row["total"]


CATALOGUE: list[tuple[str, str, dict[str, Any]]] = [
    ("llama3-8b", "llama", {}),
    ("llama3.2-1b", "llama", {}),
    ("mixtral-8x7b", "llama", {}),
    ("mixtral-8x7b", "llama", {"single": True}),
    ("qwen-7b", "qwen", {}),
    ("qwen2.5-7b", "qwen2", {}),
    ("qwen1.5-moe-a2.7b", "qwen2moe", {}),
    ("qwen3-8b", "qwen3", {}),
    ("qwen3-30b-a3b", "qwen3moe", {}),
    ("gemma-2b", "gemma", {}),
    ("gemma2-9b", "gemma2", {}),
    ("gemma3-4b-text", "gemma3", {}),
    ("gemma3-4b-text", "gemma3", {"attention.sliding_window_pattern": 6}),
    ("phi-2", "phi2", {}),
    ("phi-3-mini-4k", "phi3", {}),
    ("phi-3.5-mini", "phi3", {"attention.sliding_window": 262144}),
    ("phi-3.5-moe", "phimoe", {}),
    ("falcon-7b", "falcon", {}),
    ("falcon-40b", "falcon", {}),
    ("pythia-1b", "gptneox", {"use_parallel_residual": True}),
    ("gpt2", "gpt2", {}),
    ("gpt-j-6b", "gptj", {}),
    ("bloom-560m", "bloom", {}),
    ("mpt-7b", "mpt", {}),
    ("starcoderbase-1b", "starcoder", {}),
    ("starcoder2-3b", "starcoder2", {}),
    ("stablelm-2-1.6b", "stablelm", {}),
    ("command-r-35b", "command-r", {}),
    ("command-r7b", "cohere2", {}),
    ("olmo-7b", "olmo", {}),
    ("olmo2-7b", "olmo2", {}),
    ("olmo3-7b", "olmo2", {}),
    ("olmoe-1b-7b", "olmoe", {}),
    ("deepseek-v2-lite", "deepseek2", {}),
    ("deepseek-v3", "deepseek2", {}),
    ("deepseek-v3", "deepseek2", {"split": True}),
    ("glm4-9b-0414", "glm4", {}),
    ("glm4-9b", "chatglm", {}),
    ("glm-4.5", "glm4moe", {}),
    ("granite-3.3-8b", "granite", {}),
    ("granite-3.0-1b-a400m", "granitemoe", {}),
    ("nemotron-4-15b", "nemotron", {}),
    ("internlm2-7b", "internlm2", {}),
    ("exaone3.5-7.8b", "exaone", {}),
    ("exaone4-32b", "exaone4", {}),
    ("gpt-oss-20b", "gpt-oss", {}),
    ("ernie-4.5-21b-a3b", "ernie4_5-moe", {}),
    ("hunyuan-a13b", "hunyuan-moe", {}),
    ("minimax-m2", "minimax-m2", {}),
    ("dbrx-132b", "dbrx", {}),
    ("ling-mini-2.0", "bailingmoe2", {}),
    ("baichuan2-7b", "baichuan", {}),
]


def made(model: str, arch: str, said: dict[str, Any]) -> Checkpoint:
    options = {key: said[key] for key in ("split", "single") if key in said}
    table = table_of(model, arch, **options)
    keys = {f"{arch}.{key}": value for key, value in said.items() if key not in options}
    return table._replace(metadata={**table.metadata, **keys})


@pytest.mark.parametrize(("model", "arch", "said"), [pytest.param(*row, id=f"{row[0]} {'+'.join(row[2])}") for row in CATALOGUE])
def test_catalogue_models_as_gguf(model: str, arch: str, said: dict[str, Any]) -> None:
    checkpoint = made(model, arch, said)
    imported, expected = from_gguf(checkpoint), resolve.model(model).blueprint
    blueprint = lower(resolve.built(imported.spec, "model.gguf"), model)
    assert imported.notes == ()
    assert params.count(blueprint) == params.count(expected)
    assert [kv.size(blueprint, n) for n in (100, 4096, 131072)] == [kv.size(expected, n) for n in (100, 4096, 131072)]
    assert flops.count(blueprint, 2048) == flops.count(expected, 2048)
    assert blueprint.context == expected.context
    compared = stored.compare(blueprint, checkpoint)
    assert compared.stored == compared.predicted == params.count(expected).total


def small(arch: str, layers: int = 6, **keys: Any) -> Checkpoint:
    """A plain decoder of this architecture."""
    table = Table(arch)
    table.add("token_embd", 100, 32)
    table.add("output_norm", 32)
    for index in range(layers):
        for name, shape in {"attn_norm": (32,), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32),
                            "ffn_norm": (32,), "ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}.items():  # fmt: skip
            table.add(f"blk.{index}.{name}", *shape)
    table.key(block_count=layers, embedding_length=32, context_length=4096, attention__head_count=4, attention__head_count_kv=2)
    return table.done(**keys)


WINDOWS: list[tuple[str, str, dict[str, Any], str]] = [
    ("none said", "llama", {}, "LLLLLL"),
    ("every second, the first windowed", "gemma2", {"attention__sliding_window": 8}, "SLSLSL"),
    ("its own where the file says none", "gemma2", {"context_length": 8192}, "SLSLSL"),
    ("five of six", "gemma3", {"attention__sliding_window": 8}, "SSSSSL"),
    ("the file's period", "gemma3", {"attention__sliding_window": 8, "attention__sliding_window_pattern": 3}, "SSLSSL"),
    ("three of four", "cohere2", {"attention__sliding_window": 8}, "SSSLSS"),
    ("the first of four is full", "smallthinker", {"attention__sliding_window": 8}, "LSSSLS"),
    ("all", "phi3", {"attention__sliding_window": 8}, "SSSSSS"),
    ("no longer than the context", "phi3", {"attention__sliding_window": 4096}, "LLLLLL"),
    ("a list", "mimo2", {"attention__sliding_window": 8, "attention__sliding_window_pattern": (True, False) * 3}, "SLSLSL"),
    ("no pattern known", "llama", {"attention__sliding_window": 8}, "SSSSSS"),
    ("period 1: none", "olmo2", {"attention__sliding_window": 8, "attention__sliding_window_pattern": 1}, "LLLLLL"),
    ("chunks", "llama4", {"context_length": 10**6}, "SSSLSS"),
    ("chunks switched off", "llama4", {"context_length": 10**6, "attention__sliding_window": 0}, "LLLLLL"),
]


@pytest.mark.parametrize(("arch", "keys", "expected"), [pytest.param(*row[1:], id=row[0]) for row in WINDOWS])
def test_windows(arch: str, keys: dict[str, Any], expected: str) -> None:
    """llama.cpp's set_swa_pattern: il % n < n - 1 slides, or il % n != 0 where the first is full."""
    blueprint = lowered(small(arch, **keys))
    sliding = {layer for cache in blueprint.caches if cache.window is not None for layer in cache.layers}
    assert "".join("S" if layer in sliding else "L" for layer in range(6)) == expected


def test_a_window_without_a_pattern_is_said() -> None:
    assert "no pattern says in which layers" in from_gguf(small("llama", attention__sliding_window=8)).notes[0]


def test_layers_that_differ_are_kinds() -> None:
    """Heads and FFN by layer, as OpenELM and DeciLM have them; a layer without attention, one with a matrix in its place."""
    checkpoint = small("deci", attention__head_count=(4, 4, 2, 0, 0, 4), attention__head_count_kv=(2, 2, 2, 0, 0, 2))
    drop = {"blk.3": ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"), "blk.4": ("attn_q", "attn_k", "attn_v")}
    gone = {f"{layer}.{name}.weight" for layer, names in drop.items() for name in names}
    shapes = {"blk.2.attn_q.weight": (16, 32), "blk.2.attn_output.weight": (32, 16)}
    tensors = tuple(t._replace(shape=shapes.get(t.name, t.shape)) for t in checkpoint.tensors if t.name not in gone)
    checkpoint = checkpoint._replace(tensors=tensors)
    blueprint = lowered(checkpoint)
    assert stored.compare(blueprint, checkpoint).predicted == sum(t.elements for t in tensors)
    assert kv.size(blueprint, 10).kv_bytes == 4 * 2 * (16 + 16) * 10


def test_layers_that_predict_further_tokens_are_no_layers() -> None:
    """GLM-4.5's block_count has them in."""
    checkpoint = small("glm4moe", layers=6, nextn_predict_layers=1)
    blueprint = lowered(checkpoint)
    assert blueprint.stacks[0].depth == 5
    compared = stored.compare(blueprint, checkpoint)
    assert compared.stored - compared.predicted == 2 * 32 + 32 * (32 + 16 + 16 + 32) + 3 * 32 * 64
    assert params.count(compared.blueprint).total == compared.stored
    assert "layers past the 5 that are said" in compared.notes[-1]


def test_the_halves_of_a_latent_projection_count_once() -> None:
    whole, split = (table_of("deepseek-v2-lite", "deepseek2", split=split) for split in (False, True))
    halves = tuple(t for t in split.tensors if "attn_k_b" in t.name or "attn_v_b" in t.name)
    both = whole._replace(tensors=(*whole.tensors, *halves))
    compared = stored.compare(lowered(both), both)
    assert compared.stored == compared.predicted
    assert "halves of attn_kv_b, stored twice" in compared.notes[0]


def test_index_of_sparse_attention() -> None:
    """DeepSeek-V3.2: queries of the index from the compressed ones, one key of 16 a token."""
    table = table_of("deepseek-v3", "deepseek32")
    q_rank, hidden, extra = 1536, 7168, []
    for index in range(61):
        for name, *shape in (("attn_q_b", 4 * 16, q_rank), ("attn_k", 16, hidden), ("k_norm", 16), ("proj", 4, hidden)):
            extra.append(Tensor(f"blk.{index}.indexer.{name}.weight", tuple(shape), "F16", 0))
        extra.append(Tensor(f"blk.{index}.indexer.k_norm.bias", (16,), "F32", 0))
    keys = {**table.metadata, "deepseek32.attention.indexer.top_k": 2048}
    checkpoint = table._replace(tensors=(*table.tensors, *extra), metadata=keys)
    blueprint = lowered(checkpoint)
    compared = stored.compare(blueprint, checkpoint)
    assert compared.stored == compared.predicted
    assert kv.size(blueprint, 1000).index_bytes == 61 * 16 * 2 * 1000


def test_kimi_delta_attention() -> None:
    """Kimi Linear: convolutions apart, gates of rank 8, beside latent attention in every second layer."""
    table = small("kimi-linear", layers=4, rope__dimension_count=4)
    delta = {
        "attn_q": (32, 32), "attn_k": (32, 32), "attn_v": (32, 32), "ssm_conv1d_q": (32, 1, 4), "ssm_conv1d_k": (32, 1, 4),
        "ssm_conv1d_v": (32, 1, 4), "ssm_f_a": (8, 32), "ssm_f_b": (32, 8), "ssm_g_a": (8, 32), "ssm_g_b": (32, 8),
        "ssm_beta": (4, 32), "ssm_a": (4, 1), "ssm_norm": (8,), "attn_output": (32, 32),
    }  # fmt: skip
    latent = {
        "attn_q": (4 * 12, 32), "attn_kv_a_mqa": (20, 32), "attn_kv_a_norm": (16,), "attn_k_b": (4, 16, 8), "attn_v_b": (4, 8, 16),
        "attn_output": (32, 32),
    }  # fmt: skip
    kept = [t for t in table.tensors if not t.name.split(".")[-2].startswith(("attn_q", "attn_k", "attn_v", "attn_o"))]
    for index in range(4):
        made = delta if index % 2 == 0 else latent
        kept += [
            Tensor(f"blk.{index}.{name}" + ("" if name == "ssm_a" else ".weight"), shape, "F16", 0) for name, shape in made.items()
        ]
        kept += [Tensor(f"blk.{index}.ssm_dt.bias", (32,), "F32", 0)] if index % 2 == 0 else []
    checkpoint = table._replace(tensors=tuple(kept))
    blueprint = lowered(checkpoint)
    compared = stored.compare(blueprint, checkpoint)
    assert compared.stored == compared.predicted
    assert kv.size(blueprint, 100).kv_bytes == 2 * 20 * 2 * 100
    assert kv.size(blueprint, 100).state_bytes == 2 * (4 * 8 * 8 * 4 + 96 * 4 * 2)


class Bad(NamedTuple):
    """Changes to a good file, and words of the message."""

    name: str
    says: str
    keys: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...] | None] = {}  # None: the tensor is not there
    arch: str = "llama"
    kind: type[LlmcalcError] = SpecError


BAD = [
    Bad("unknown architecture", "'lama' is an architecture that llmcalc does not know; nearest: llama",
        {"general.architecture": "lama"}, kind=UnknownArchitecture),
    Bad("no architecture", "general.architecture: missing", {"general.architecture": 7}, kind=UnknownArchitecture),
    Bad("an adapter", "a LoRA adapter, no model", {"general.type": "adapter"}),
    Bad("an importance matrix", "an importance matrix", {"general.type": "imatrix"}),
    Bad("no depth", "llama.block_count: missing", {"llama.block_count": None}),
    Bad("no layers", "allowed: a whole number from 1 to 512", {"llama.block_count": 0}),
    Bad("a billion layers", "allowed: a whole number from 1 to 512", {"llama.block_count": 10**9}),
    Bad("a depth in words", "found 'six'", {"llama.block_count": "six"}),
    Bad("more layers than tensors", "7 layers, but the file has no tensor of blk.6", {"llama.block_count": 7}),
    Bad("only further layers", "leaves no layer", {"llama.nextn_predict_layers": 6}),
    Bad("no width", "llama.embedding_length: missing", {"llama.embedding_length": None}),
    Bad("another width", "rows of 32, where llama.embedding_length is 64", {"llama.embedding_length": 64}),
    Bad("no table", "token_embd.weight: missing", shapes={"token_embd.weight": None}),
    Bad("a table of three dimensions", "token_embd.weight: missing or no table", shapes={"token_embd.weight": (1, 100, 32)}),
    Bad("heads that do not divide", "blk.0.attn_q: 32 rows are not for 5 heads", {"llama.attention.head_count": 5}),
    Bad("no heads at all", "blk.0.attn_q: 32 rows are not for 0 heads", {"llama.attention.head_count": 0}),
    Bad("a short list of heads", "2 entries, and there is a layer 3", {"llama.attention.head_count": (4, 4)}),
    Bad("a list too long to keep", "found", {"llama.attention.head_count": gguf.LongArray("UINT32", 5000)}),
    Bad("keys of another dim", "blk.0.attn_k: 4 KV heads of 4, where 4 query heads are of 8",
        {"llama.attention.head_count_kv": 4}),
    Bad("an output that does not fit", "blk.3.attn_output: 16 columns are not for 4 heads of 8",
        shapes={"blk.3.attn_output.weight": (32, 16)}),
    Bad("a vector for a matrix", "blk.2.ffn_down: shape [64], where 2 dimensions are expected",
        shapes={"blk.2.ffn_down.weight": (64,)}),
    Bad("an empty matrix", "shape [32, 0]", shapes={"blk.2.ffn_down.weight": (32, 0)}),
    Bad("no output", "blk.1.attn_output: missing", shapes={"blk.1.attn_output.weight": None}),
    Bad("experts without a number used", "llama.expert_used_count: missing",
        shapes={"blk.0.ffn_gate_inp.weight": (4, 32), "blk.0.ffn_down_exps.weight": (4, 32, 8)}),
    Bad("more experts than the router knows", "2 rows for 4 experts", {"llama.expert_used_count": 1},
        shapes={"blk.0.ffn_gate_inp.weight": (2, 32), "blk.0.ffn_down_exps.weight": (4, 32, 8)}),
    Bad("experts of different shapes", "have different shapes",
        shapes={"blk.0.ffn_down.0.weight": (32, 8), "blk.0.ffn_down.1.weight": (32, 9)}),
    Bad("a short list of windows", "2 entries for 6 layers",
        {"llama.attention.sliding_window": 8, "llama.attention.sliding_window_pattern": (True, False)}),
    Bad("norms of no heads", "blk.0.attn_q_norm: shape [7]",
        shapes={"blk.0.attn_q_norm.weight": (7,), "blk.0.attn_k_norm.weight": (7,)}),
    Bad("fused queries that do not fit", "blk.0.attn_qkv: 40 rows are not for 4 heads and 2 KV heads of 8",
        shapes={"blk.0.attn_qkv.weight": (40, 32)}),
    Bad("latents that do not fit", "where latent and rotary key have 8 and 4", {"llama.rope.dimension_count": 4},
        shapes={"blk.0.attn_kv_a_mqa.weight": (9, 32), "blk.0.attn_kv_a_norm.weight": (8,)}),
]  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in BAD])
def test_refused(row: Bad) -> None:
    checkpoint = small(row.arch)
    metadata = {key: value for key, value in {**checkpoint.metadata, **row.keys}.items() if value is not None}
    there = {t.name: t.shape for t in checkpoint.tensors}
    shapes = {name: shape for name, shape in {**there, **row.shapes}.items() if shape is not None}
    tensors = tuple(Tensor(name, shape, "F16", 0) for name, shape in shapes.items())
    with pytest.raises(row.kind) as caught:
        from_gguf(checkpoint._replace(metadata=metadata, tensors=tensors))
    message = str(caught.value)
    assert row.says in message
    assert message.startswith("model.gguf: ")
    assert message.isprintable()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(ROWS) - 1), st.randoms(use_true_random=False))
def test_damaged_tables_are_refused_or_read(which: int, chance: random.Random) -> None:
    """Whatever stands in a file, there is a spec or one clear error."""
    checkpoint = checkpoint_of(ROWS[which])
    tensors, metadata = list(checkpoint.tensors), dict(checkpoint.metadata)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(tensors))
        shape = list(tensors[at].shape)
        what = chance.randrange(5)
        if what == 0:
            del tensors[at]
        elif what == 1 and shape:
            shape[chance.randrange(len(shape))] = chance.choice([0, 1, 3, 7, 128, 2**40])
            tensors[at] = tensors[at]._replace(shape=tuple(shape))
        elif what == 2:
            tensors[at] = tensors[at]._replace(shape=tuple(shape[1:] if chance.random() < 0.5 else [*shape, 2]))
        elif what == 3:
            tensors[at] = tensors[at]._replace(
                name=f"blk.{chance.choice([0, 3, 99999])}.{chance.choice(['attn_q', 'x', 'ssm_a'])}.weight"
            )
        else:
            key = chance.choice(sorted(metadata))
            metadata[key] = chance.choice([0, -1, 1, 7, 10**12, True, "x", 0.5, (), (1, "x"), gguf.LongArray("UINT8", 9999)])
    try:
        blueprint = lowered(checkpoint._replace(tensors=tuple(tensors), metadata=metadata))
        stored.compare(blueprint, checkpoint._replace(tensors=tuple(tensors), metadata=metadata))
    except LlmcalcError as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    params.count(blueprint)
    kv.size(blueprint, 100)


def written(folder: Path, arch: str, kind: int = 1, **keys: int) -> Path:
    """A small decoder as a file; ggml type 1 is F16."""
    checkpoint = small(arch)
    pairs: list[tuple[str, str, Any]] = [("general.architecture", "STRING", arch)]
    pairs += [(f"{arch}.{key.removeprefix(f'{arch}.')}", "UINT32", value) for key, value in checkpoint.metadata.items()
              if key != "general.architecture"]  # fmt: skip
    pairs += [(key.replace("__", "."), "UINT32", value) for key, value in keys.items()]
    path = folder / "small.gguf"
    path.write_bytes(gguf_file(pairs, [Ggml(t.name, t.shape[::-1], kind if len(t.shape) > 1 else 0) for t in checkpoint.tensors]))
    return path


def test_a_file_answers_like_a_model(tmp_path: Path, run: Run) -> None:
    path = str(written(tmp_path, "llama"))
    layer = 2 * 32 + 32 * (32 + 16 + 16 + 32) + 3 * 32 * 64
    assert run("params", path, "--json").results[0]["total"] == 100 * 32 + 32 + 6 * layer
    assert run("kv", path, "--ctx", "10", "--json").results[0]["kv_bytes"] == 6 * (16 + 16) * 2 * 10
    assert run("flops", path, "--ctx", "10", "--json").results[0]["forward_flops"] > 0
    outcome = run("weights", path, "--json")
    assert outcome.results[0]["dtype"] == "fp16"
    assert any("hold the" in note and "that the metadata predicts" in note for note in outcome.json["notes"])


def test_a_quantised_file_is_weighed_as_such(tmp_path: Path, run: Run) -> None:
    """general.file_type 7 is Q8_0: 34 bytes for 32 weights; norms stay in fp32."""
    path = written(tmp_path, "llama", kind=8, general__file_type=7)
    result = run("weights", str(path), "--json").results[0]
    assert result["quant"] == "q8_0"
    assert result["weight_bytes"] == sum(tensor.bytes for tensor in gguf.read(path).tensors)


@pytest.mark.parametrize(("model", "arch", "fused"), [("gpt2", "gpt2", ("qkv",)), ("llama3.2-1b", "llama", ())])
def test_fused_queries_keys_and_values_are_known_to_quantisations(model: str, arch: str, fused: tuple[str, ...]) -> None:
    """llama-quantize gives attn_qkv a type of its own (mixes.traits_of)."""
    checkpoint = table_of(model, arch)
    assert stored.compare(lowered(checkpoint), checkpoint).blueprint.fused == fused


def test_an_unknown_architecture_still_counts(tmp_path: Path, run: Run) -> None:
    path = str(written(tmp_path, "nobody"))
    outcome = run("params", path, "--json")
    assert outcome.results[0]["total"] == 100 * 32 + 32 + 6 * (2 * 32 + 32 * (32 + 16 + 16 + 32) + 3 * 32 * 64)
    for command in ("kv", "flops"):
        refused = run(command, path)
        assert refused.code == 2
        assert "tensors only" in refused.err


def test_file_types_are_quantisations_of_the_catalogue() -> None:
    assert set(FILE_TYPES.values()) <= set(catalogue.entries("quants"))


def test_every_architecture_reads_its_own_plain_decoder() -> None:
    """The table's rows are well-formed: each serves a decoder with the usual tensors, but for T5's two stacks."""
    for arch in ARCHITECTURES:
        if arch not in ("t5", "t5encoder") and not ARCHITECTURES[arch].query_gate:
            checkpoint = small(arch)
            compared = stored.compare(lowered(checkpoint), checkpoint)
            assert compared.stored == compared.predicted, arch
