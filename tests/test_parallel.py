"""Training on many GPUs: published and measured figures, and what holds of every layout."""

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmcalc import resolve
from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint, StackShape, Weight
from llmcalc.cli.train_parallel import figures, tables
from llmcalc.engines import deepspeed, reserved, training
from llmcalc.engines.layout import SCHEDULES, ZERO, Layout, chunks, in_flight
from llmcalc.engines.parallel import Planner, plan
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.shards import hold, on_rank
from llmcalc.engines.stages import Parallel
from llmcalc.engines.traffic import traffic
from llmcalc.errors import LlmcalcError, NoAnswer, UsageError
from llmcalc.quantity import Dim
from llmcalc.specs import catalogue, read, validate
from tests.conftest import records
from tests.test_properties import specs

ROWS = records("parallel.jsonl")
SETTINGS = settings(max_examples=60, deadline=None)
GIB = 2**30


def rows(test: str) -> list[Any]:
    return [pytest.param(row, id=row["id"]) for row in ROWS if row["test"] == test]


def made(**fields: Any) -> Blueprint:
    document = read.parse(json.dumps({"family": "invented", "sources": ["a test"], **fields}), "made.yaml")
    return lower(validate.validate(document, "models"), "made")


def gpt(row: dict[str, Any]) -> Blueprint:
    """GPT as in Megatron's papers: learned positions, a tied head, dropout on everything."""
    return made(layers=row["layers"], hidden=row["hidden"], heads=row["heads"], ffn=4 * row["hidden"], gated=False,
                activation="gelu", biases=["all"], norm="layernorm", dropout=["embedding", "attention", "residual"], vocab=51200,
                context=2048, positions="learned", tied_head=True)  # fmt: skip


def korthikanti(row: dict[str, Any], tp: int, recompute: str, *, sequence_parallel: bool = False) -> Parallel:
    schedule = "interleaved" if row["vp"] > 1 else "1f1b"
    layout = Layout(tp, row["pp"], sequence_parallel=sequence_parallel, schedule=schedule, chunks=row["vp"],
                    micro_batches=row["global_batch"])  # fmt: skip
    return plan(gpt(row), Recipe(2048, precision="megatron", attention="eager", recompute=recompute), layout)


WAYS = {
    "bytes_per_layer_no_parallel": (1, "none", False),
    "bytes_per_layer_tp": (8, "none", False),
    "bytes_per_layer_tp_sp": (8, "none", True),
    "bytes_per_layer_tp_selective": (8, "selective", False),
    "bytes_per_layer_tp_sp_selective": (8, "selective", True),
    "bytes_per_layer_full_recompute": (8, "full", False),
    "activation_gib_tp_only_no_recompute": (8, "none", False),
    "activation_gib_tp_sp_selective": (8, "selective", True),
    "pct_of_baseline_sequence_parallel": (8, "none", True),
    "pct_selective_recompute": (8, "selective", False),
    "pct_sp_plus_selective": (8, "selective", True),
    "pct_full_recompute": (8, "full", False),
}


@pytest.mark.parametrize("row", rows("korthikanti"))
def test_activations_as_korthikanti(row: dict[str, Any]) -> None:
    base = korthikanti(row, 8, "none").stages[0].activations.layers
    for key, expected in row["measured"].items():
        if key == "params_plus_optimizer_gib":
            continue
        tp, recompute, sequence_parallel = WAYS[key]
        first = korthikanti(row, tp, recompute, sequence_parallel=sequence_parallel).stages[0]
        at_once = sum(first.in_flight) * row["layers"] // (row["pp"] * row["vp"])
        if key.startswith("bytes_per_layer"):
            assert first.activations.layers == expected * at_once
        elif key.startswith("activation_gib"):
            assert first.activations.layers == expected * GIB
        else:
            assert 100 * first.activations.layers / base == pytest.approx(expected, abs=0.2)  # read off a figure


@pytest.mark.parametrize("row", [row for row in rows("korthikanti") if "fig1" in str(row.id)])
def test_model_states_as_korthikanti(row: dict[str, Any]) -> None:
    """18 bytes for each element of a stage's matrices."""
    layout = Layout(row["tp"], row["pp"])
    rank = on_rank(gpt(row), layout, chunks(gpt(row), layout)[1])
    matrices = sum(weight.elements for weight in rank.weights if weight.kind == "matrix")
    assert 18 * matrices == row["measured"]["params_plus_optimizer_gib"] * GIB
    assert hold(rank, Recipe(2048, precision="megatron"), layout).states == pytest.approx(18 * matrices, rel=2e-4)


def test_head_and_embedding_as_korthikanti() -> None:
    """Equation 4.3's further terms: masks of the embedding's dropout; the final norm, the head's input, fp32 logits."""
    row = {"layers": 4, "hidden": 1024, "heads": 16}
    s, h, t = 2048, 1024, 8
    layout = Layout(t, 4, sequence_parallel=True, micro_batches=8)
    stages = plan(gpt(row), Recipe(s, precision="megatron", attention="eager"), layout).stages
    assert stages[0].activations.embedding == s * h * 4 // t
    assert stages[3].activations.head == 4 * s * h // t + 4 * s * 51200 // t
    assert [stage.activations.head for stage in stages[:3]] == [0, 0, 0]


@pytest.mark.parametrize("row", rows("narayanan"))
def test_parameters_as_narayanan(row: dict[str, Any]) -> None:
    blueprint = gpt(row)
    assert round(sum(weight.elements for weight in blueprint.weights) / 1e9, 1) == row["measured"]["params_billion"]


@pytest.mark.parametrize("row", rows("deepspeed"))
def test_deepspeed_estimates(row: dict[str, Any]) -> None:
    found = deepspeed.estimate(row["params"], row["largest"], stage=3, gpus=row["gpus"], zero_init=row["zero_init"])
    assert round(found.gpu / GIB, 2) == row["measured"]["per_gpu_gib"]
    assert round(found.host / GIB, 2) == row["measured"]["per_cpu_gib"]


@pytest.mark.parametrize(
    ("stage", "offload", "zero_init", "gpu", "host"),
    [
        (2, "", True, 4 * 100 + 16 * 100 / 8, 1.5 * 4 * 100 * 4),
        (2, "optimizer", True, 2 * 100, 1.5 * 4 * 8 * 100),
        (3, "optimizer", True, 4 * 7 + 2 * 100 / 8, 1.5 * 16 * 100 / 2),
        (3, "optimizer", False, 4 * 7 + 2 * 100 / 8, 1.5 * 4 * 4 * 100),
        (3, "all", True, 4 * 7, 1.5 * 18 * 100 / 2),
        (3, "all", False, 4 * 7, 1.5 * 4 * 4 * 100),
    ],
)
def test_deepspeed_estimates_by_hand(stage: int, offload: str, zero_init: bool, gpu: float, host: float) -> None:
    """100 parameters, 7 of them in the largest layer, on 2 hosts of 4 GPUs."""
    assert deepspeed.estimate(100, 7, stage=stage, gpus=4, nodes=2, offload=offload, zero_init=zero_init) == (gpu, host)


@pytest.mark.parametrize(("zero", "expected"), [("0", 120), ("1", 31.41), ("2", 16.64), ("3", 1.88), ("fsdp", 1.88)])
def test_zero_table(zero: str, expected: float) -> None:
    """Rajbhandari et al. 2020, figure 1: 7.5 billion parameters, 64 ranks, 12 bytes of optimizer states, decimal GB."""
    shape = (Dim(75_000, "r"), Dim(100_000, "c"))
    weight = Weight("decoder.w", "ffn", "up", "matrix", shape, "decoder", (0,), Dim(1, "L"))
    blueprint = Blueprint("one", (StackShape("decoder", 1, 1),), (weight,), (), (), None, "bf16", False, False, False, 0, 0)
    recipe = Recipe(1, precision="megatron")
    held = hold(blueprint, recipe, Layout(dp=64, zero=zero, reduce_dtype="bf16"))
    assert held.states / 1e9 == pytest.approx(expected, abs=0.005)
    ranks = 64 if zero != "0" else 1
    assert held.optimizer == 12 * -(-7_500_000_000 // ranks) + 4 or zero == "fsdp"


@pytest.mark.parametrize("row", rows("megatron"))
def test_measured_with_megatron(row: dict[str, Any]) -> None:
    """The highest ``max_memory_allocated`` of eight GPUs; models with most of their layers taken out."""
    data = {**catalogue.entries("models")[row["model"]].data, "layers": row["layers"]}
    blueprint = lower(validate.validate(read.parse(json.dumps(data), "cut.yaml"), "models"), row["model"])
    layout = Layout(row["tp"], row["pp"], row["dp"], row["cp"], row["ep"], "1", row["tp"] > 1, micro_batches=row["micro_batches"])
    found = plan(blueprint, Recipe(row["seq_len"], precision="megatron"), layout)
    assert found.fullest.peak_bytes / GIB == pytest.approx(row["measured"]["max_memory_allocated_gib"], rel=0.025)


@pytest.mark.parametrize(
    ("schedule", "pp", "chunk", "micro_batches", "expected"),
    [
        ("gpipe", 4, 1, 6, [6, 6, 6, 6]),
        ("1f1b", 4, 1, 6, [4, 3, 2, 1]),
        ("1f1b", 4, 1, 2, [2, 2, 2, 1]),
        ("interleaved", 4, 2, 8, [4 * 2 + 3, 9, 7, 5]),
        ("interleaved", 4, 3, 8, [4 * 3 + 3, 13, 11, 9]),
        ("interleaved", 4, 2, 4, [8, 8, 7, 5]),
    ],
)
def test_micro_batches_in_flight(schedule: str, pp: int, chunk: int, micro_batches: int, expected: list[int]) -> None:
    layout = Layout(pp=pp, schedule=schedule, chunks=chunk, micro_batches=micro_batches)
    assert [sum(in_flight(layout, stage)) for stage in range(pp)] == expected
    assert in_flight(layout, pp - 1)[-1] == (micro_batches if schedule == "gpipe" else 1)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"tp": 5}, "--tp 5 does not divide the 12 heads"),
        ({"tp": 0}, "--tp 0: at least 1"),
        ({"pp": 13}, "12 layers are too few"),
        ({"zero": "4"}, "--zero 4: one of 0, 1"),
        ({"chunks": 2}, "--chunks goes with"),
        ({"pp": 2, "schedule": "interleaved", "micro_batches": 3}, "do not divide by --pp 2"),
        ({"dp": 4, "ep": 3}, "--ep 3 does not divide"),
        ({"dp": 4, "shard": 2}, "--shard 2"),
        ({"dp": 4, "zero": "2", "offload": "all"}, "--offload all"),
        ({"cp": 3}, "64 tokens do not divide"),
        ({"reduce_dtype": "fp8"}, "--reduce-dtype fp8"),
    ],
)
def test_layouts_that_make_no_sense(layout: dict[str, Any], message: str) -> None:
    blueprint = resolve.model("gpt2").blueprint
    with pytest.raises(UsageError, match=message):
        plan(blueprint, Recipe(64, precision="megatron"), Layout(**layout))


def test_whole_matrices_and_divided_layers_are_refused() -> None:
    blueprint = resolve.model("gpt2").blueprint
    with pytest.raises(UsageError, match="needs whole matrices"):
        plan(blueprint, Recipe(64, optimizer="muon"), Layout(dp=2, zero="1"))
    with pytest.raises(NoAnswer, match="lora"):
        plan(blueprint, Recipe(64, method="lora"), Layout(tp=2, dp=2, zero="3"))


S, H, V, ROW = 64, 768, 50257, 2 * 2 * 64 * 768  # a micro-batch of 2 x 64 tokens of GPT-2 in 16 bits


def rows_of(blueprint: Blueprint, layout: Layout, stage: int = 0, **recipe: Any) -> dict[tuple[str, str], tuple[int, int]]:
    """Calls and bytes by what is carried and how, of micro-batches of 2 x 64 tokens."""
    found = traffic(blueprint, Recipe(S, 2, "megatron", **recipe), layout, stage)
    return {(row.what, row.collective): (row.calls, row.carried) for row in found}


def test_sums_of_tensor_parallelism() -> None:
    """Two all-reduces of a layer in either direction (Megatron-LM, figure 4), and one for embedding and head; three of the loss."""
    gpt2 = resolve.model("gpt2").blueprint
    sums, again = 3 * (12 * 4 + 2), 3 * 12 * 2
    assert rows_of(gpt2, Layout(tp=4, micro_batches=3)) == {
        ("activations", "all-reduce"): (sums, sums * ROW), ("loss", "all-reduce"): (9, 9 * 4 * 2 * S)
    }  # fmt: skip
    recomputed = rows_of(gpt2, Layout(tp=4, micro_batches=3), recompute="full")
    assert recomputed["activations", "all-reduce"] == (sums + again, (sums + again) * ROW)
    divided = rows_of(gpt2, Layout(tp=4, micro_batches=3, sequence_parallel=True))
    inputs = 3 * (12 * 2 + 1)
    assert divided["activations", "reduce-scatter"] == (sums, sums * ROW)
    assert divided["activations", "all-gather"] == (sums + inputs, (sums + inputs) * ROW)


def test_a_ring_sends_what_its_ranks_do_not_hold() -> None:
    found = traffic(resolve.model("gpt2").blueprint, Recipe(S, 2, "megatron"), Layout(tp=4))
    assert [row.sent for row in found if row.what == "activations"] == [2 * 50 * ROW * 3 // 4]


@pytest.mark.parametrize(("zero", "parts"), [("0", 2), ("1", 2), ("2", 2), ("3", 3), ("fsdp", 3)])
def test_stages_of_zero_send(zero: str, parts: int) -> None:
    """Rajbhandari et al. 2020, section 7: twice the parameters, three times at stage 3."""
    gpt2 = resolve.model("gpt2").blueprint
    found = traffic(gpt2, Recipe(S, precision="bf16"), Layout(dp=8, zero=zero))
    assert sum(row.sent for row in found) == pytest.approx(parts * 2 * sum(w.elements for w in gpt2.weights) * 7 / 8, abs=parts)


@pytest.mark.parametrize(
    ("recipe", "layout", "item"),
    [
        ({}, {}, 2), ({"precision": "amp"}, {}, 4), ({"precision": "amp"}, {"zero": "3"}, 2), ({"precision": "megatron"}, {}, 4),
        ({"optimizer": "lomo"}, {}, 2),
        ({"precision": "megatron"}, {"reduce_dtype": "bf16"}, 2), ({}, {"zero": "fsdp", "shard_dtype": "fp32"}, 2),
        ({}, {"zero": "fsdp", "shard_dtype": "fp32", "reduce_dtype": "fp32"}, 4),
    ],
)  # fmt: skip
def test_gradients_are_sent_as_they_are_summed(recipe: dict[str, Any], layout: dict[str, Any], item: int) -> None:
    gpt2 = resolve.model("gpt2").blueprint
    found = traffic(gpt2, Recipe(S, **recipe), Layout(dp=4, **layout))
    assert [row.carried for row in found if row.what == "gradients"] == [item * sum(w.elements for w in gpt2.weights)]


def test_hybrid_sharding_sums_its_parts_over_the_groups() -> None:
    gpt2 = resolve.model("gpt2").blueprint
    size = sum(w.elements for w in gpt2.weights)
    found = rows_of(gpt2, Layout(dp=8, zero="fsdp", shard=4, micro_batches=2))
    assert found == {
        ("gradients", "reduce-scatter"): (2, 2 * 4 * size), ("gradients", "all-reduce"): (1, size),
        ("parameters", "all-gather"): (4, 4 * 2 * size),
    }  # fmt: skip


def test_pipelines_pass_activations_on_and_gradients_back() -> None:
    gpt2 = resolve.model("gpt2").blueprint
    on, back = ("activations", "point-to-point"), ("gradients of activations", "point-to-point")
    assert [rows_of(gpt2, Layout(pp=3, micro_batches=5), stage) for stage in range(3)] == [
        {on: (5, 5 * ROW)}, {on: (5, 5 * ROW), back: (5, 5 * ROW)}, {back: (5, 5 * ROW)}
    ]  # fmt: skip
    turns = Layout(pp=3, schedule="interleaved", chunks=2, micro_batches=3)
    assert rows_of(gpt2, turns) == {on: (6, 6 * ROW), back: (3, 3 * ROW)}


def test_tokens_go_to_experts_and_back() -> None:
    """Each layer sends a row per expert that a token goes through, there and back, forward and backward."""
    mixture = made(layers=3, hidden=16, heads=2, ffn=8, vocab=32, moe={"experts": 8, "top_k": 3, "ffn": 8})
    found = rows_of(mixture, Layout(dp=4, ep=4))
    assert found["tokens", "all-to-all"] == (3 * 4, 3 * 4 * 3 * 2 * 2 * S * 16)
    experts = 3 * 8 * 3 * 8 * 16
    rest = sum(weight.elements for weight in mixture.weights) - experts
    assert found["gradients", "all-reduce"] == (1, 4 * rest)  # an expert stands on one rank alone


def test_keys_and_values_go_around() -> None:
    """7 of 8 parts of keys and values pass each rank, forward and again backward, with their gradients."""
    grouped = made(layers=3, hidden=32, heads=4, kv_heads=2, ffn=8, vocab=32)
    found = rows_of(grouped, Layout(cp=8, micro_batches=2))
    part = 2 * 2 * (S // 8) * 2 * (8 + 8)
    assert found["keys and values", "ring"] == (3 * 3 * 2, 3 * 3 * 2 * 7 * part)


@pytest.mark.parametrize("zero", ["1", "2", "3", "fsdp"])
@pytest.mark.parametrize("offload", ["", "optimizer"])
def test_shares_of_all_ranks_are_the_whole(zero: str, offload: str) -> None:
    """Bytes by hand: GPT-2 over seven ranks, which divide nothing evenly."""
    gpt2, recipe, ranks = resolve.model("gpt2").blueprint, Recipe(S, precision="megatron"), 7
    whole = hold(on_rank(gpt2, Layout(), chunks(gpt2, Layout())[0]), recipe, Layout())
    held = hold(on_rank(gpt2, Layout(), chunks(gpt2, Layout())[0]), recipe, Layout(dp=ranks, zero=zero, offload=offload))
    divided = {"1": 12, "2": 16, "3": 18, "fsdp": 18}[zero]
    steps = 4 * (1 if zero in ("1", "2") else 148)
    share = divided * (whole.elements + held.padding) // ranks + (18 - divided) * whole.elements + steps
    assert held.states + held.host == share + held.buffers
    assert 0 < held.padding < (7 if zero in ("1", "2") else 6 * 148 if zero == "3" else 6 * 148 * 3072)
    assert (held.host > 0) == (offload != "")
    assert (held.gathered > 0) == (zero in ("3", "fsdp"))


LAYER, ENDS, POSITIONS = 12 * H * H + 13 * H, V * H + 2 * H, 1024 * H


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        # DeepSpeed: the embedding and a layer beside it, and the embedding's gradient.
        ({"zero": "3"}, 2 * (V * H + LAYER) + 2 * V * H),
        ({"zero": "3", "prefetch": 0}, 2 * V * H + 2 * V * H),
        # FSDP: the root, two layers, gradients of the root and of a layer.
        ({"zero": "fsdp"}, 2 * (ENDS + POSITIONS + 2 * LAYER) + 2 * (ENDS + POSITIONS + LAYER)),
        ({"zero": "fsdp", "prefetch": 0}, 2 * (ENDS + POSITIONS + LAYER) + 2 * (ENDS + POSITIONS + LAYER)),
        # Summed in fp32, the root's copy is the largest.
        ({"zero": "fsdp", "reduce_dtype": "fp32"}, 2 * (ENDS + POSITIONS + 2 * LAYER) + (2 + 4) * (ENDS + POSITIONS)),
        # A stage of a pipeline keeps all of it.
        ({"zero": "fsdp", "pp": 2, "reduce_dtype": "fp32"}, (2 + 4) * (V * H + POSITIONS + 6 * LAYER)),
    ],
)
def test_gathered_layers(layout: dict[str, Any], expected: int) -> None:
    """GPT-2's layers and what is outside of them, in 16 bits."""
    gpt2 = resolve.model("gpt2").blueprint
    assert plan(gpt2, Recipe(S), Layout(dp=4, **layout)).stages[0].held.gathered == expected


def test_the_step_works_on_what_a_rank_has() -> None:
    """A foreach AdamW takes a copy of the states that it has, which ZeRO divides."""
    gpt2, recipe = resolve.model("gpt2").blueprint, Recipe(S, foreach=True)
    alone, divided = (plan(gpt2, recipe, Layout(dp=dp, zero="2")).stages[0] for dp in (1, 8))
    assert divided.held.scratch == pytest.approx(alone.held.scratch / 8, rel=1e-3)
    saved = alone.training.peaks["step"] - divided.training.peaks["step"]
    assert saved == pytest.approx(7 / 8 * (alone.held.scratch + alone.held.gradients + alone.held.optimizer), rel=1e-3)


def test_shards_in_fp32() -> None:
    """FSDP's mixed precision: 16 bytes of each element are divided, and layers gathered in 16 bits."""
    gpt2 = resolve.model("gpt2").blueprint
    alike, mixed = (plan(gpt2, Recipe(S), Layout(dp=4, zero="fsdp", shard_dtype=dtype)).stages[0].held for dtype in ("", "fp32"))
    assert (mixed.parameters, mixed.gradients, mixed.gathered) == (2 * alike.parameters, 2 * alike.gradients, alike.gathered)
    assert mixed.optimizer - 4 * 148 == 2 * (alike.optimizer - 4 * 148)
    with pytest.raises(UsageError, match="--shard-dtype"):
        plan(gpt2, Recipe(S), Layout(dp=4, zero="2", shard_dtype="fp32"))


@SETTINGS
@given(spec=specs(), precision=st.sampled_from(["fp32", "bf16", "amp", "megatron"]))
def test_one_gpu_is_one_gpu(spec: dict[str, Any], precision: str) -> None:
    blueprint, recipe = made(**spec), Recipe(8, precision=precision, attention="efficient")
    try:
        alone = training.count(blueprint, recipe)
        found = plan(blueprint, recipe, Layout())
    except NoAnswer:
        assume(False)
    (stage,) = found.stages
    held = stage.held
    assert (held.parameters, held.gradients) == (alone.parameter_bytes, alone.gradient_bytes)
    assert (held.optimizer, held.buffers) == (alone.optimizer_bytes, alone.buffer_bytes)
    assert (held.padding, held.gathered, held.host) == (0, 0, 0)
    assert stage.training == alone


@st.composite
def layouts(draw: Any) -> Layout:
    pp, schedule = draw(st.integers(1, 4)), draw(st.sampled_from(SCHEDULES))
    return Layout(
        tp=draw(st.integers(1, 4)), pp=pp, dp=draw(st.integers(1, 8)), ep=draw(st.integers(1, 4)), schedule=schedule,
        chunks=draw(st.integers(1, 3)) if schedule == "interleaved" else 1, micro_batches=pp * draw(st.integers(1, 3)),
        zero=draw(st.sampled_from(ZERO)),
    )  # fmt: skip


def fits(blueprint: Blueprint, recipe: Recipe, layout: Layout) -> bool:
    try:
        layout.check(blueprint, recipe)
    except LlmcalcError:
        return False
    return True


def test_keys_and_logits_are_kept_as_wide_as_they_are_held() -> None:
    """Two heads of keys and values over four ranks: each holds one. 50 logits padded to 64: 16 on each."""
    grouped = made(layers=1, hidden=32, heads=4, kv_heads=2, ffn=64, vocab=50)
    recipe = Recipe(S, precision="megatron")
    (stage,) = plan(grouped, recipe, Layout(tp=4, vocab_multiple=16)).stages
    # Both norms' and both blocks' inputs; q, k, v and the output; the log-sum-exp; gate and up, and their product.
    assert stage.activations.layers == S * (2 * 4 * 32 + 2 * (8 + 8 + 8 + 8) + 4 + 2 * 3 * 16)
    assert stage.activations.head == S * (2 * 2 * 32 + 4 * 16)
    held = {
        weight.role: [int(side) for side in weight.shape]
        for weight in on_rank(grouped, Layout(tp=4), chunks(grouped, Layout())[0]).weights
    }
    assert (held["k"], held["q"], held["o"], held["embedding"]) == ([8, 32], [8, 32], [32, 8], [13, 32])


@SETTINGS
@given(spec=specs(), layout=layouts())
def test_one_gpu_sends_nothing_and_many_do(spec: dict[str, Any], layout: Layout) -> None:
    blueprint, recipe = made(**spec), Recipe(64, precision="megatron")
    assume(fits(blueprint, recipe, layout))
    assert traffic(blueprint, recipe, Layout()) == []
    found = [row for stage in range(layout.pp) for row in traffic(blueprint, recipe, layout, stage)]
    assert all(row.ranks > 1 and row.calls > 0 and 0 <= row.sent <= 2 * row.carried for row in found)
    degrees = {"tp": layout.tp, "pp": layout.pp, "dp": layout.dp, "ep": layout.ep}
    assert {row.link for row in found} <= {name for name, ranks in degrees.items() if ranks > 1}
    assert {name for name in ("pp", "dp") if degrees[name] > 1} - {"dp" if layout.ep > 1 else ""} <= {row.link for row in found}


@SETTINGS
@given(spec=specs(), layout=layouts())
def test_ranks_sum_to_the_whole(spec: dict[str, Any], layout: Layout) -> None:
    """Every element is on some stage; what tensor and expert parallelism divide is there once."""
    blueprint = made(**spec)
    assume(fits(blueprint, Recipe(64), layout))
    found: dict[str, int] = {}
    by_name = {weight.name: weight for weight in blueprint.weights}
    for held in chunks(blueprint, layout):
        for weight in on_rank(blueprint, layout, held).weights:
            ranks = layout.ep if by_name[weight.name].part == "experts" else 1
            divided = [int(side) for side in weight.shape] != [int(side) for side in by_name[weight.name].shape]
            found[weight.name] = found.get(weight.name, 0) + weight.elements * ranks * (layout.tp if divided else 1)
    for name, weight in by_name.items():
        assert found.get(name, 0) >= weight.elements, name
        narrow = min((int(side) for side in weight.shape), default=1)
        if (layout.pp == 1 or weight.layers) and weight.role not in ("k", "v", "k.bias", "v.bias") and narrow >= layout.tp:
            assert found.get(name, 0) < weight.elements * (1 + (layout.tp - 1) / narrow) + 1, name


@SETTINGS
@given(spec=specs(), layout=layouts(), optimizer=st.sampled_from(["adamw", "lion", "sgd", "adamw8bit"]))
def test_zero_takes_less_stage_by_stage(spec: dict[str, Any], layout: Layout, optimizer: str) -> None:
    """Apart from padding, which tensors smaller than the ranks need, and of 8-bit states' rules for small tensors."""
    blueprint, recipe = made(**spec), Recipe(64, precision="bf16", optimizer=optimizer)
    assume(fits(blueprint, recipe, layout))
    for held in chunks(blueprint, layout):
        rank = on_rank(blueprint, layout, held)
        before = None
        steps = 4 * sum(len(weight.layers) or 1 for weight in rank.weights)  # AdamW's, one for each tensor or for all
        for zero in ZERO[:4]:
            now = hold(rank, recipe, layout._replace(zero=zero))
            size = now.states - now.padding * 16
            assert before is None or optimizer == "adamw8bit" or size <= before.states + steps
            assert now.elements == (before or now).elements
            before = now


@SETTINGS
@given(spec=specs(), layout=layouts(), eager=st.booleans())
def test_recomputing_keeps_less(spec: dict[str, Any], layout: Layout, eager: bool) -> None:
    blueprint = made(**spec)
    recipe = Recipe(64, precision="megatron", attention="eager" if eager else "flash")
    assume(fits(blueprint, recipe, layout))
    try:
        ways = [plan(blueprint, recipe._replace(recompute=how), layout) for how in ("full", "selective", "none")]
    except NoAnswer:
        assume(False)
    for full, selective, none in zip(*(way.stages for way in ways), strict=True):
        assert full.activations.kept <= selective.activations.kept <= none.activations.kept
        # A single layer that runs again on one GPU has its input beside it.
        assert layout.gpus == 1 or full.peak_bytes <= none.peak_bytes
    assert ways[0].fullest.peak_bytes == max(stage.peak_bytes for stage in ways[0].stages)


@SETTINGS
@given(spec=specs(), layout=layouts(), more=layouts(), precision=st.sampled_from(["bf16", "megatron"]))
def test_parts_sum_to_the_peak_and_nothing_is_remembered_wrongly(
    spec: dict[str, Any], layout: Layout, more: Layout, precision: str
) -> None:  # fmt: skip
    """A planner that has answered other questions answers as a new one does."""
    blueprint = made(**spec)
    assume(any(op.kind == "loss" for op in blueprint.ops))
    planner = Planner(blueprint)
    for recipe in (Recipe(64, precision=precision), Recipe(128, 2, precision, recompute="full")):
        for asked in (layout, more, more._replace(micro_batches=4 * more.pp, sequence_parallel=more.tp > 1)):
            if not fits(blueprint, recipe, asked):
                continue
            try:
                found = planner.plan(recipe, asked)
            except NoAnswer:
                assume(False)
            assert found == plan(blueprint, recipe, asked)
            for stage in found.stages:
                assert sum(stage.training.parts.values()) == stage.peak_bytes
                assert min(stage.training.parts.values()) >= 0


@pytest.mark.parametrize("layout", [Layout(tp=2, pp=2, dp=4, zero="1", micro_batches=4), Layout(cp=2, dp=2, ep=2, zero="fsdp")])
def test_every_model_of_the_catalogue(layout: Layout) -> None:
    """A figure or a clear refusal for each, and no stage without weights."""
    answered = 0
    for name, entry in catalogue.entries("models").items():
        if entry.data.get("status") == "unpublished":
            continue
        blueprint, recipe = resolve.as_trained(resolve.model(name)), Recipe(64, precision="megatron")
        try:
            found = plan(blueprint, recipe, layout)
        except (NoAnswer, UsageError):
            continue
        answered += 1
        assert all(stage.held.states > 0 and stage.peak_bytes > stage.held.states for stage in found.stages), name
        assert traffic(blueprint, recipe, layout), name
    assert answered > 250


def test_tables() -> None:
    """The table has a row for each stage, marks the one that decides, and results add up to what it shows."""
    layout = Layout(tp=2, pp=2, dp=4, zero="1", sequence_parallel=True, micro_batches=4)
    blueprint, recipe = resolve.model("gpt2").blueprint, Recipe(1024, precision="megatron")
    result = figures(blueprint, recipe, plan(blueprint, recipe, layout))
    memory, _ = tables(result, "GiB")
    assert json.loads(json.dumps(result)) == result
    assert [row[0] for row in memory.rows] == ["0", "1"]
    assert [row[-1] for row in memory.rows].count("decides") == 1
    assert memory.strong == {result["fullest_stage"]}
    assert memory.title == "16 GPUs: tensor 2, pipeline 2, data 4, ZeRO-1, 1f1b"
    for stage in result["stages"]:
        states = sum(stage[f"{name}_bytes"] for name in ("parameter", "gradient", "optimizer", "buffer", "gathered", "input"))
        assert stage["peak_bytes"] == states + sum(stage[f"{name}_bytes"] for name in ("placeholder", "activation", "passing"))


@pytest.mark.parametrize("zero", ["0", "1", "2"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lomo"])
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize(("offload", "reduce_dtype"), [("", ""), ("", "fp32"), ("optimizer", "")])
def test_a_rank_that_is_followed_is_one_gpu_that_holds_a_part(
    zero: str, optimizer: str, accumulate: int, offload: str, reduce_dtype: str
) -> None:
    """Two ways to the same figures: an allocator asked by every kernel, and a step on one GPU less what is divided."""
    blueprint = resolve.model("llama3.2-1b").blueprint
    recipe = Recipe(128, optimizer=optimizer, accumulate=accumulate)
    layout = Layout(dp=4, zero=zero, micro_batches=accumulate, offload=offload, reduce_dtype=reduce_dtype)
    (found,) = reserved.stages(blueprint, recipe, layout, settled=True)
    alone = plan(blueprint, recipe, layout).fullest.training.peaks
    # ZeRO-2's parts are made in the backward pass, and on one GPU said to stand all along.
    made = zero == "2" and accumulate == 1
    for phase in ("step",) if made else training.PHASES:
        assert found.peaks[phase] == pytest.approx(alone[phase], rel=0.005)
    assert all(found.peaks[phase] <= 1.005 * alone[phase] for phase in training.PHASES)
