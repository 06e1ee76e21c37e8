"""The time of a training step: against measurements, against arithmetic, and what holds of every layout."""

import json
import math
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcalc import hardware, resolve
from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.cli import train_options, train_time
from llmcalc.engines import compute, flops
from llmcalc.engines.layout import Layout
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.step_links import Machine
from llmcalc.engines.step_time import Clock, Efficiency, step_bytes, step_time
from llmcalc.engines.step_work import StepWork
from llmcalc.engines.traffic import traffic
from llmcalc.errors import LlmcalcError, NoAnswer, UsageError
from llmcalc.specs import catalogue, read, train_efficiency, validate
from tests.conftest import Run
from tests.train_speed import PAGE, ROWS, cases, far, page, summary

MEGATRON = Recipe(256, precision="megatron")
ALL = Efficiency()
FAST = Machine(1e12, 1e12, 1e30, 1e30, 1e30)  # nothing but FLOPs takes time
SLOW = Machine(1e30, 1e30, 1e30, 1.0, 1.0, domain=64)  # a byte sent takes a second
# Of both halves: the median error, and the share of steps within 20%.
BARS = {True: (0.05, 0.85), False: (0.09, 0.85)}


def made(**fields: Any) -> Blueprint:
    document = read.parse(json.dumps({"family": "invented", "sources": ["a test"], **fields}), "made.yaml")
    return lower(validate.validate(document, "models"), "made")


def gpt(layers: int = 8, hidden: int = 1024, heads: int = 16, vocab: int = 64) -> Blueprint:
    """GPT without biases and dropout, and nearly without a vocabulary: its stages are alike."""
    return made(layers=layers, hidden=hidden, heads=heads, ffn=4 * hidden, gated=False, activation="gelu", norm="layernorm",
                norm_bias=False, vocab=vocab, context=8192, positions="none", tied_head=False)  # fmt: skip


@pytest.mark.parametrize("fitted", [True, False], ids=["fitted", "other"])
def test_errors_against_measurements(fitted: bool) -> None:
    count, middle, _, within = summary([case for case in cases() if case.fitted is fitted])
    assert count >= 100
    assert middle <= BARS[fitted][0]
    assert within >= BARS[fitted][1]


def test_spreads_hold_three_in_four() -> None:
    held = [step.low <= case.measured <= step.high for case in cases() for step in [case.predicted()]]
    assert sum(held) / len(held) >= 0.75


def test_the_page_is_what_the_rows_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_step_that_is_far_off_has_a_reason() -> None:
    assert [case.row["id"] for case in cases() if far(case.measured / case.predicted().seconds) and "why" not in case.row] == []


def test_releases_of_the_same_settings_share_a_half() -> None:
    halves: dict[str, set[bool]] = {}
    for case in cases():
        halves.setdefault(case.settings, set()).add(case.fitted)
    assert all(len(half) == 1 for half in halves.values())
    assert len({row["id"] for row in ROWS}) == len(ROWS)


def test_rows_name_layouts_that_make_sense() -> None:
    for case in cases():
        if case.recipe.method == "full":  # what Megatron's kernels keep of LoRA is not known, how long it takes is
            case.recipe.check()
        case.layout.check(case.work.blueprint, case.recipe)
        assert case.layout.gpus == case.row["gpus"], case.row["id"]
        assert case.layout.dp * case.layout.micro_batches * case.row["micro_batch"] == case.row["global_batch"], case.row["id"]


@pytest.mark.parametrize(
    ("p", "v", "m", "expected"),
    # Narayanan et al. 2021, section 2.2: (p - 1) / (v m) of the time without it
    [(1, 1, 5, 0), (2, 1, 4, 1 / 4), (4, 1, 8, 3 / 8), (8, 1, 64, 7 / 64), (4, 2, 8, 3 / 16), (2, 4, 16, 1 / 64), (8, 1, 1, 7)],
)
def test_the_bubble(p: int, v: int, m: int, expected: float) -> None:
    layout = Layout(pp=p, chunks=v, schedule="interleaved" if v > 1 else "1f1b", micro_batches=m)
    step = step_time(gpt(), MEGATRON, layout, FAST, ALL)
    assert step.parts.bubble / (step.seconds - step.parts.bubble) == pytest.approx(expected, rel=2e-2)
    assert step.bubble_share == pytest.approx(expected / (1 + expected), rel=2e-2)


LAYERS, S, H, V, B = 2, 128, 64, 512, 2
PRODUCTS, HEAD = 24 * B * S * H**2 * LAYERS, 2 * B * S * H * V  # forward: 4 h^2 of attention and 8 h^2 of the FFN, 2 FLOPs each
SCORES = 4 * B * H * LAYERS * S * (S + 1) // 2
SQUARE = 4 * B * H * LAYERS * S * S


@pytest.mark.parametrize(
    ("recipe", "layout", "expected"),
    [
        ({}, {}, 3 * (PRODUCTS + HEAD) + 3.5 * SCORES),
        ({}, {"micro_batches": 7}, 7 * (3 * (PRODUCTS + HEAD) + 3.5 * SCORES)),
        ({"recompute": "full"}, {}, 4 * PRODUCTS + 3 * HEAD + 4.5 * SCORES),
        ({"recompute": "selective"}, {}, 3 * (PRODUCTS + HEAD) + 4.5 * SCORES),
        ({"attention": "eager"}, {}, 3 * (PRODUCTS + HEAD) + 3 * SQUARE),
        ({"attention": "eager", "recompute": "selective"}, {}, 3 * (PRODUCTS + HEAD) + 4 * SQUARE),
        ({"method": "lora", "precision": "bf16"}, {}, 2 * (PRODUCTS + HEAD) + 3.5 * SCORES),
        ({}, {"tp": 4}, (3 * (PRODUCTS + HEAD) + 3.5 * SCORES) / 4),
        ({}, {"cp": 2}, (3 * (PRODUCTS + HEAD) + 3.5 * SCORES) / 2),
        ({}, {"dp": 8}, 3 * (PRODUCTS + HEAD) + 3.5 * SCORES),
        # The second stage has the head: m times it, and the first once more.
        ({}, {"pp": 2, "micro_batches": 3}, 3 * (1.5 * PRODUCTS + 3 * HEAD + 1.75 * SCORES) + 1.5 * PRODUCTS + 1.75 * SCORES),
    ],
)
def test_a_worked_step(recipe: dict[str, Any], layout: dict[str, Any], expected: float) -> None:
    own = Recipe(S, B, **{"precision": "megatron", **recipe})
    step = step_time(gpt(LAYERS, H, 4, V), own, Layout(**layout), FAST, ALL)
    assert step.seconds == pytest.approx(expected / 1e12, rel=1e-9)
    copies = layout.get("dp", 1) * layout.get("micro_batches", 1)
    passes = 2 if own.method == "lora" else 3
    assert step.model_flops == (passes * (PRODUCTS + HEAD) + 3 * SCORES) * copies
    assert step.tokens == B * S * copies


def test_low_precision_speeds_up_the_products_of_layers() -> None:
    machine = FAST._replace(flops=4e12)
    step = step_time(gpt(LAYERS, H, 4, V), Recipe(S, B, "megatron"), Layout(), machine, ALL)
    assert step.seconds == pytest.approx((3 * PRODUCTS / 4 + 3 * HEAD + 3.5 * SCORES) / 1e12, rel=1e-9)


def test_weights_are_read_and_gradients_added_to() -> None:
    """With few rows: 12 h^2 parameters a layer and a head of h V, twice 2 bytes read and fp32 gradients read and written."""
    step = step_time(gpt(LAYERS, H, 4, V), Recipe(1, 1, "megatron"), Layout(), Machine(1e30, 1e30, 1.0, 1.0, 1.0), ALL)
    assert step.parts.products == 12 * (12 * H**2 * LAYERS + H * V)  # the embedding is looked up
    # AdamW on fp32 master copies: 4 + 12 bytes read, 12 + 2 written; norms besides.
    assert step.parts.optimizer == 30 * (12 * H**2 * LAYERS + 2 * H * V + (2 * LAYERS + 1) * H)


@pytest.mark.parametrize("name", ["llama3-8b", "deepseek-v3", "nemotron-3-nano-30b-a3b", "t5-base", "gemma3-27b", "gpt-oss-20b"])
def test_layers_add_up_to_the_model(name: str) -> None:
    blueprint, s = resolve.model(name).blueprint, 1024
    work = StepWork(blueprint, s)
    kinds = [work.kinds[at] for at in (*work.of_layer.values(), *work.ends.values())]
    for causal in (True, False):
        encoder = s if blueprint.has_encoder else 0
        expected = flops.Costs(blueprint).forward(flops.workload(s, 1, encoder, causal=causal, logits=s))
        assert work.forward_flops(causal=causal) == expected
        assert sum(kind.causal if causal else kind.full for kind in kinds) == expected
    assert sum(k.split + k.routed + k.whole + k.head + k.attention + k.scan for k in kinds) == work.forward_flops(causal=True)


@pytest.mark.parametrize(
    "name", ["llama3-8b", "mixtral-8x7b", "gpt2", "t5-base", "albert-base-v2", "zamba2-1.2b", "gemma3n-e4b-text", "deepseek-v3"]
)
def test_parameters_add_up_to_the_model(name: str) -> None:
    """Tied and shared ones once, whoever uses them; a remainder of one per place is lost."""
    blueprint = resolve.as_trained(resolve.model(name))
    work = StepWork(blueprint, 64)
    kinds = [work.kinds[at] for at in (*work.of_layer.values(), *work.ends.values())]
    found = sum(k.split_parameters + k.whole_parameters + k.expert_parameters + k.vocab_parameters for k in kinds)
    assert found == pytest.approx(sum(weight.elements for weight in blueprint.weights if not weight.buffer), rel=1e-5)


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize(
    ("name", "layout", "links"),
    [
        ("gpt2", {"tp": 4}, {"tensor": "tp"}),
        ("gpt2", {"tp": 4, "sequence_parallel": True}, {"tensor": "tp"}),
        ("llama3.2-1b", {"tp": 2, "vocab_parallel": False}, {"tensor": "tp"}),
        ("llama3-8b", {"cp": 4}, {"context": "cp"}),
        ("llama3-8b", {"cp": 4, "tp": 2}, {"context": "cp", "tensor": "tp"}),
        ("qwen3-30b-a3b", {"dp": 8, "ep": 8}, {"expert": "ep"}),
        ("deepseek-v3", {"dp": 8, "ep": 4, "tp": 2, "sequence_parallel": True}, {"expert": "ep", "tensor": "tp"}),
        ("mixtral-8x7b", {"dp": 8, "zero": "1"}, {"data": "dp"}),
        ("mixtral-8x7b", {"dp": 8, "ep": 4, "zero": "1"}, {"data": "dp", "expert": "ep"}),
        ("llama3-8b", {"dp": 8}, {"data": "dp"}),
        ("llama3-8b", {"dp": 8, "zero": "fsdp"}, {"data": "dp"}),
        ("llama3-8b", {"dp": 8, "zero": "2"}, {"data": "dp"}),
        ("llama3-8b", {"dp": 8, "zero": "1", "reduce_dtype": "bf16"}, {"data": "dp"}),
        ("llama3-8b", {"dp": 16, "zero": "1", "shard": 4}, {"data": "dp"}),
        ("mixtral-8x7b", {"dp": 16, "ep": 2, "zero": "fsdp", "shard": 4}, {"data": "dp"}),
        ("llama3-8b", {"pp": 4}, {"pipeline": "pp"}),
    ],
)
@pytest.mark.parametrize("precision", ["megatron", "bf16", "amp"])
def test_messages_are_those_of_traffic(
    name: str, layout: dict[str, Any], links: dict[str, str], recompute: str, precision: str
) -> None:
    """At a byte a second, a step's messages take as many seconds as a rank sends bytes (the loss's few sums left out)."""
    blueprint, own = resolve.model(name).blueprint, MEGATRON._replace(recompute=recompute, micro_batch=2, precision=precision)
    spread = Layout(**layout, micro_batches=3)
    parts = step_time(blueprint, own, spread, SLOW, ALL).parts
    stage = 1 if spread.pp > 1 else 0
    rows = [row for row in traffic(blueprint, own, spread, stage) if row.what != "loss"]
    for part, link in links.items():
        sent = sum(row.sent for row in rows if row.link == link)
        assert getattr(parts, part) == pytest.approx(sent, rel=1e-3), part


def test_rings_leave_a_domain_through_all_its_ranks() -> None:
    """16 copies on nodes of 8, and 8 of them with two ranks of tensor parallelism between: 8 and 4 networks of a node's rings."""
    work, machine = StepWork(resolve.model("llama3-8b").blueprint, 256), Machine(1e30, 1e30, 1e30, 100.0, 1.0)

    def sent(layout: Layout, on: Machine) -> float:
        return Clock(work, on, ALL).time(MEGATRON, layout).parts.data

    near, far_off = sent(Layout(dp=8), machine), sent(Layout(dp=16), machine)
    assert far_off / near == pytest.approx((15 / 16 / 8) / (7 / 8 / 100))
    assert sent(Layout(tp=2, dp=8), machine) / sent(Layout(tp=2, dp=8), machine._replace(domain=16)) == pytest.approx(100 / 4)


def test_a_row_goes_to_a_domain_once() -> None:
    """8 experts a token over two nodes: with 255/256 a row crosses, not four times."""
    work = StepWork(resolve.model("qwen3-30b-a3b").blueprint, 256)
    machine = Machine(1e30, 1e30, 1e30, 1e30, 1.0)
    crossed = Clock(work, machine, ALL).time(MEGATRON, Layout(dp=16, ep=16)).parts.expert
    whole = sum(work.kinds[at].routed_rows for at in work.of_layer.values())
    # Rows leave for their experts and come back, forward and backward, in 16 bits; half of a row's experts are on the other node.
    assert crossed == pytest.approx(2 * 2 * whole / 2 * (1 - 0.5**8) / 4)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("causal", [True, False])
def test_mfu_and_hfu_follow_the_conventions_of_runs(recompute: str, causal: bool) -> None:
    blueprint = resolve.model("llama3-8b").blueprint
    step = step_time(blueprint, MEGATRON._replace(recompute=recompute), Layout(dp=2), FAST, ALL, causal=causal)
    shape = compute.shape(blueprint, 256, causal=causal)
    work = compute.per_token("matmul", recompute, None, shape)  # type: ignore[arg-type]
    assert step.mfu() == pytest.approx(step.tokens_per_second_per_gpu * float(work.model) / FAST.flops)
    assert step.hfu == pytest.approx(step.tokens_per_second_per_gpu * float(work.hardware) / FAST.flops)


MODELS = {
    name: StepWork(resolve.model(name).blueprint, 512)
    for name in ("llama3-8b", "deepseek-v3", "gpt2-xl", "nemotron-3-nano-30b-a3b")
}


@st.composite
def questions(draw: st.DrawFn) -> tuple[StepWork, Recipe, Layout]:
    work = MODELS[draw(st.sampled_from(sorted(MODELS)))]
    tp, pp, cp, ep = (
        draw(st.sampled_from([1, 2, 4])),
        draw(st.integers(1, 8)),
        draw(st.sampled_from([1, 2])),
        draw(st.sampled_from([1, 4])),
    )
    chunks = draw(st.sampled_from([1, 2])) if pp > 1 else 1
    layout = Layout(
        tp, pp, 4 * draw(st.integers(1, 40)), cp, ep, draw(st.sampled_from(["0", "1", "3"])), tp > 1 and draw(st.booleans()),
        "interleaved" if chunks > 1 else "1f1b", chunks, pp * draw(st.integers(1, 20)),
    )  # fmt: skip
    recipe = Recipe(
        512, draw(st.integers(1, 4)), draw(st.sampled_from(["megatron", "bf16"])),
        attention=draw(st.sampled_from(["flash", "eager"])), recompute=draw(st.sampled_from(["none", "selective", "full"])),
    )  # fmt: skip
    return work, recipe, layout


GPU = Machine(1e15, 1e15, 3e12, 4e11, 5e10)
REACHED = Efficiency("half", 0.5, 0.5, 0.6, 0.4, 0.02, 0.6, 0.8, 0.5, 0.3, 3e-4, 5e-3, (0.9, 1.2), (0.8, 1.3))


@settings(max_examples=150, deadline=None)
@given(questions(), st.sampled_from([*Machine._fields]), st.floats(1.0, 20.0))
def test_what_holds_of_every_layout(asked: tuple[StepWork, Recipe, Layout], field: str, by: float) -> None:
    work, recipe, layout = asked
    step = Clock(work, GPU, REACHED).time(recipe, layout)
    assert 0 < step.mfu() <= 1
    assert step.hfu >= step.mfu()
    assert min(step.parts) >= 0
    assert sum(step.parts) == pytest.approx(step.seconds)
    assert step.low < step.seconds < step.high
    assert (layout.pp == 1) == (step.parts.bubble == 0)
    better = GPU._replace(**{field: int(getattr(GPU, field) * by) if field == "domain" else getattr(GPU, field) * by})
    assert Clock(work, better, REACHED).time(recipe, layout).seconds <= step.seconds * (1 + 1e-9)
    more = Clock(work, GPU, REACHED).time(recipe, layout._replace(micro_batches=2 * layout.micro_batches))
    assert more.tokens_per_second_per_gpu >= step.tokens_per_second_per_gpu * (1 - 1e-9)
    assert Clock(work, GPU, REACHED).time(recipe._replace(recompute="none"), layout).seconds <= step.seconds * (1 + 1e-9)


def test_a_clock_remembers_no_other_question() -> None:
    clock = Clock(MODELS["deepseek-v3"], GPU, REACHED)
    asked = [
        (
            Recipe(512, size, "megatron", recompute=again),
            Layout(tp, pp, 8, 1, ep, zero, micro_batches=8),
        )
        for size, again, tp, pp, ep, zero in product((1, 2), ("none", "full"), (1, 2), (1, 4), (1, 8), ("1", "fsdp"))
    ]
    first = [clock.time(*question) for question in asked]
    assert first == [clock.time(*question) for question in asked]
    assert first == [Clock(MODELS["deepseek-v3"], GPU, REACHED).time(*question) for question in asked]


@pytest.mark.parametrize(
    ("field", "machine", "bound"),
    [
        ("compute", Machine(1e12, 1e12, 1e30, 1e30, 1e30), "compute"),
        ("memory", Machine(1e30, 1e30, 1e9, 1e30, 1e30), "memory"),
        ("links", Machine(1e30, 1e30, 1e30, 1e9, 1e9), "communication"),
    ],
)
def test_what_bounds_a_step(field: str, machine: Machine, bound: str) -> None:
    step = step_time(resolve.model("gpt2").blueprint, MEGATRON, Layout(tp=2, dp=4), machine, ALL)
    assert step.bound == bound, field


def test_small_micro_batches_wait_for_the_host() -> None:
    efficiency = Efficiency(layer_seconds=1.0, routing_seconds=10.0)
    step = step_time(resolve.model("qwen3-30b-a3b").blueprint, MEGATRON, Layout(), GPU, efficiency)
    assert step.bound == "host"
    assert step.seconds == pytest.approx(48 * 11, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "recipe", "layout", "error"),
    [
        ("gpt2", {"method": "head"}, {}, NoAnswer),
        ("gpt2", {}, {"tp": 5}, UsageError),
        ("gpt2", {}, {"pp": 40}, UsageError),
        ("bert-base", {}, {}, NoAnswer),
    ],
)
def test_what_is_refused(name: str, recipe: dict[str, Any], layout: dict[str, Any], error: type[LlmcalcError]) -> None:
    with pytest.raises(error):
        step_time(resolve.model(name).blueprint, Recipe(256, **recipe), Layout(**layout), GPU, ALL)


def test_every_gpu_trains_or_says_why_not() -> None:
    for name in catalogue.entries("gpus"):
        card = hardware.gpu(name)
        if card.spec.tflops.bf16 is None and card.spec.tflops.fp16 is None:
            with pytest.raises(UsageError, match="no 16-bit rate"):
                hardware.trainer(card)
            continue
        for megatron in (True, False):
            trainer = hardware.trainer(card, megatron=megatron)
            e = trainer.efficiency
            assert all(0 < share <= 1 for share in (e.products, e.products16, e.experts, e.attention, e.bandwidth, e.link)), name
            assert all(0 <= share <= 1 for share in (e.hidden, e.tensor_hidden)), name
            assert trainer.machine.domain >= 1, name
            assert trainer.measured or e.spread == (0.85, 2.0), name


def test_the_file_of_efficiencies_names_gpus_and_all_that_is_reached() -> None:
    """A name that no GPU has would never be found, and what is not said would count as all of it."""
    data, known = train_efficiency.data(), catalogue.entries("gpus").keys()
    assert known >= {*data["networks"], *data["domains"], *data["measured_on"]}
    reached = set(Efficiency._fields) - {"name", "spread", "experts_spread"}
    for name in known:
        card = hardware.gpu(name)
        for kernels, precision in product(("megatron", "torch"), ("16-bit", "fp8", "fp4")):
            assert train_efficiency.find(name, card.spec, kernels, precision).values.keys() == reached, name


TRAIN = "llama3-8b --precision megatron --seq 4k --recompute full --tp 2 --pp 2 --dp 2 --zero 1 --accumulate 8 --method full"


def test_a_result_and_its_table(run: Run) -> None:
    outcome = run("train", *TRAIN.split(), "--gpu", "h100-sxm", "--json")
    (found,) = outcome.results
    assert found["step_seconds_low"] < found["step_seconds"] < found["step_seconds_high"]
    assert found["mfu_low"] < found["mfu"] < found["mfu_high"] < found["mfu"] * 4 / 3
    assert found["tokens_per_second_per_gpu"] == pytest.approx(2 * 8 * 4096 / 8 / found["step_seconds"])
    assert found["mfu"] < found["hfu"] <= found["mfu"] * 4 / 3
    assert sum(found["step_parts"].values()) == pytest.approx(found["step_seconds"])
    assert found["communication_seconds"] == pytest.approx(
        sum(found["step_parts"][name] for name in ("tensor", "context", "expert", "data", "pipeline"))
    )
    assert found["bound"] == "compute"
    out = run("train", *TRAIN.split(), "--gpu", "h100-sxm").out
    for word in ("Time of a step on 8 x h100-sxm, 65,536 tokens: bound by compute", "matrix products", "bubble of the pipeline",
                 "computed again", "MFU", "HFU", "450 GB/s among 8 GPUs"):  # fmt: skip
        assert word in out
    assert "none was on mi300x" in run("train", *TRAIN.split(), "--gpu", "mi300x").out


def test_an_adapter_takes_two_forwards() -> None:
    """Of frozen weights no gradient is taken: the model's FLOPs are two forwards, and of attention three."""
    blueprint = resolve.model("llama3-8b").blueprint
    full, lora = (step_time(blueprint, Recipe(2048, method=method), Layout(), FAST, ALL) for method in ("full", "lora"))
    work = StepWork(blueprint, 2048)
    forward, attention = work.forward_flops(causal=True), work.attention_flops(causal=True)
    assert (full.model_flops, lora.model_flops) == (3 * forward, 2 * forward + attention)
    assert lora.mfu() <= 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("", None),
        ("--gpu h100-sxm --objective dpo", "the time of a step of dpo is not known"),
        ("--gpu h100-sxm --method prefix", "the time of a step of prefix is not known"),
        ("--gpu h100-sxm --optimizer paged-adamw", "moves its states to the host"),
        ("--gpu h100-sxm --gpus 2 --zero 2 --offload optimizer", "moves its states to the host"),
        ("--gpu p100-pcie --precision fp32 --objective reward", "the time of a step of reward is not known"),
    ],
)
def test_no_time_is_said_to_be_none(options: str, why: str | None, run: Run) -> None:
    outcome = run("train", "gpt2", *options.split(), "--json")
    assert [outcome.results[0][key] for key in train_time.KEYS] == [None] * len(train_time.KEYS)
    assert [note for note in outcome.json["notes"] if "no time" in note] == ([note] if (note := why and next(
        (said for said in outcome.json["notes"] if why in said), "missing")) else [])  # fmt: skip


def test_what_does_not_fit_has_no_table(run: Run) -> None:
    outcome = run("train", "llama3-70b", "--gpu", "h100-sxm", "--method", "full")
    assert outcome.code == 1
    assert "Time of a step" not in outcome.out


def result(run: Run, *arguments: str) -> dict[str, Any]:
    outcome = run("compute", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return outcome.results[0]


LLAMA = ("llama3-8b", "--gpu", "h100-sxm", "--tokens", "1T")


def test_compute_takes_mfu_from_a_layout(run: Run) -> None:
    arguments = (
        *LLAMA,
        "--gpus",
        "64",
        "--tp",
        "2",
        "--pp",
        "2",
        "--batch-tokens",
        "4M",
        "--convention",
        "matmul",
        "--mask",
        "causal",
    )
    found = result(run, *arguments)
    layout = Layout(2, 2, 16, zero="1", sequence_parallel=True, micro_batches=30)  # 4M tokens in micro-batches of 8,192 on 16 ranks
    trainer = hardware.trainer(hardware.gpu("h100-sxm"))
    step = step_time(
        resolve.model("llama3-8b").blueprint, Recipe(8192, precision="megatron"), layout, trainer.machine, trainer.efficiency
    )
    assert found["mfu"] == pytest.approx(step.mfu())
    assert (found["mfu_low"], found["mfu_high"]) == (pytest.approx(step.mfu(step.high)), pytest.approx(step.mfu(step.low)))
    assert found["tokens_per_second_per_gpu"] == pytest.approx(step.tokens_per_second_per_gpu)
    assert found["gpu_hours"] == pytest.approx(1e12 / step.tokens_per_second_per_gpu / 3600)
    assert found["gpu_hours_low"] < found["gpu_hours"] < found["gpu_hours_high"]
    assert found["layout"] == layout._asdict()
    assert found["bound"] == step.bound
    assert found["kinds"]["mfu"] == found["kinds"]["gpu_hours"] == "estimated"
    assert found["mfu_assumed"] is False
    outcome = run("compute", *arguments)
    assert "MFU from the layout (tp 2, pp 2, dp 16)" in outcome.out
    assert "is assumed, from" not in outcome.out


def test_compute_without_a_layout_is_as_before(run: Run) -> None:
    found = result(run, *LLAMA, "--gpus", "64")
    assert found["mfu"] == compute.MFU.likely
    assert found["layout"] is found["bound"] is found["bubble_share"] is None


def test_compute_counts_gpus_from_the_degrees(run: Run) -> None:
    assert result(run, *LLAMA, "--dp", "8", "--tp", "4")["gpus"] == 32
    wide = result(run, "llama3-8b", "--gpu", "mi300x", "--tokens", "1T", "--dp", "8")
    assert wide["mfu_high"] == pytest.approx(wide["mfu"] / 0.85)
    experts = result(run, "mixtral-8x7b", "--gpu", "b200", "--precision", "fp8", "--tokens", "1T", "--dp", "8", "--ep", "8")
    assert 0 < experts["mfu_low"] < experts["mfu"] < experts["mfu_high"] < 1


def test_a_card_of_two_devices_has_two_ranks(run: Run) -> None:
    """MFU is of the card's peak, and so are tokens a second, hours and watts: as many as of the ranks' own time."""
    (result,) = run("compute", "llama3-8b", "--tokens", "1T", "--gpu", "mi250x", "--gpus", "16", "--tp", "2", "--json").results
    assert (result["gpus"], result["layout"]["dp"], result["layout"]["tp"]) == (16, 16, 2)
    trainer = hardware.trainer(hardware.gpu("mi250x"))
    recipe, layout = Recipe(8192, precision="megatron"), Layout(**result["layout"])
    step = step_time(resolve.model("llama3-8b").blueprint, recipe, layout, trainer.machine, trainer.efficiency)
    assert result["gpu_hours"] == pytest.approx(1e12 / (2 * step.tokens_per_second_per_gpu) / 3600)
    assert trainer.machine.domain == 8


def test_a_deadline_is_kept_or_not_by_a_layout(run: Run) -> None:
    arguments = ("compute", *LLAMA, "--gpus", "64", "--tp", "2")
    days = run(*arguments, "--json").results[0]["days"]
    assert run(*arguments, "--days", str(math.ceil(days) + 1)).code == 0
    assert run(*arguments, "--days", str(math.floor(days) - 1)).code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--params 8B --gpu h100-sxm --gpus 8 --tp 2 --tokens 1T", "a layout tells"),
        ("llama3-8b --gpus 8 --tp 2", "a layout tells"),
        ("llama3-8b --gpu h100-sxm --gpus 8 --tp 2 --mfu 0.4", "a layout tells"),
        ("llama3-8b --gpu h100-sxm --gpus 8 --tp 2 --gpu-hours 1000", "a layout tells"),
        ("llama3-8b --gpu h100-sxm --tp 2", "--dp"),
        ("llama3-8b --gpu h100-sxm --gpus 8 --tp 3", "--gpus 8: tp x pp x cp is 3"),
        ("llama3-8b --gpu h100-sxm --gpus 8 --tp 2 --dp 2", "x dp is 4"),
        ("llama3-8b --gpu mi250x --tp 3 --dp 1", "is 3, and a card has 2 devices"),
        ("llama3-8b --gpu h100-sxm --gpus 24 --tp 3 --seq 6144", "does not divide the 32 heads"),
        ("llama3-8b --gpu h100-sxm --gpus 64 --pp 64", "too few"),
        ("llama3-8b --gpu h100-sxm --gpus 64 --micro-batch 2 --batch-tokens 1M", "--batch-tokens"),
        ("llama3-8b --gpu h100-sxm --gpus 64 --tp 0", "--tp"),
        ("qwen3-30b-a3b --gpu h100-sxm --gpus 64 --ep 5", "--ep 5"),
    ],
)
def test_layouts_that_compute_refuses(arguments: str, message: str, run: Run) -> None:
    outcome = run("compute", *arguments.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


@pytest.mark.parametrize(
    ("optimizer", "precision", "expected"),
    [
        ("adamw", "megatron", 30), ("adamw", "bf16", 14), ("adamw", "fp32", 28), ("adamw", "amp", 28), ("adamw8bit", "bf16", 10),
        ("sgd", "bf16", 6), ("sgd", "fp32", 12), ("lion", "bf16", 10), ("paged-adamw", "bf16", 14), ("lomo", "bf16", 6),
    ],
)  # fmt: skip
def test_what_the_optimizer_moves(optimizer: str, precision: str, expected: int) -> None:
    """Gradient, weight read and written, states read and written; Megatron's master copy and the 16-bit weight."""
    assert step_bytes(Recipe(1, optimizer=optimizer, precision=precision)) == expected


def test_every_optimizer_has_a_time() -> None:
    choices = get_args(get_args(train_options.Optimizer)[0])
    for name in choices:
        assert step_bytes(Recipe(1, optimizer=name)) > 0


def test_fsdp_on_a_pipeline_gathers_once() -> None:
    """More micro-batches send no more of weights and gradients; without stages they do."""
    blueprint, recipe = gpt(LAYERS, H, 4, V), Recipe(S, B)
    for pp, same in ((2, True), (1, False)):
        few, many = (
            [row for row in traffic(blueprint, recipe, Layout(pp=pp, dp=4, zero="fsdp", micro_batches=m)) if row.link == "dp"]
            for m in (2, 8)
        )  # fmt: skip
        assert (sum(row.sent for row in few) == sum(row.sent for row in many)) is same
