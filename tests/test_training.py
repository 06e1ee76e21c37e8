"""llmcalc train: the memory of a step against measured ones, to the byte, and what holds of every step."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcalc import resolve
from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import training
from llmcalc.engines.parameters import Parameters
from llmcalc.engines.recipe import Recipe
from llmcalc.errors import LlmcalcError
from llmcalc.specs import catalogue, read, validate
from tests.conftest import Run, records
from tests.test_properties import specs

STEPS = records("training-memory.jsonl")
PEFT = records("peft.jsonl")
SAVED = records("saved.jsonl")
SETTINGS = settings(max_examples=60, deadline=None)
KIB = 1024


def argument(row: dict[str, Any], folder: Path) -> str:
    """The MODEL of a row: a catalogue name, or a spec file of fewer layers or of a model that the catalogue has not."""
    spec = row.get("spec")
    if "layers" in row:
        spec = {**catalogue.entries("models")[row["model"]].data, "layers": row["layers"]}
    if spec is None:
        return str(row["model"])
    path = folder / f"{row['model']}.yaml"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return str(path)


def test_every_step_is_here() -> None:
    assert (len(STEPS), len(PEFT)) == (73, 27)


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in STEPS])
def test_measured_steps(row: dict[str, Any], run: Run, tmp_path: Path) -> None:
    result = run("train", argument(row, tmp_path), *row["options"].split(), "--json").results[0]
    assert {key: result[key] for key in row["measured"]} == row["measured"]


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in PEFT])
def test_trained_parameters(row: dict[str, Any], run: Run, tmp_path: Path) -> None:
    result = run("train", argument(row, tmp_path), "--seq", "64", *row["options"].split(), "--json").results[0]
    assert result["trainable"] == row["trainable"]


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row['model']}-{row['precision']}") for row in SAVED])
def test_what_autograd_saves(row: dict[str, Any]) -> None:
    """The bytes that autograd saved of a real forward pass with eager attention, nothing recomputed."""
    blueprint = resolve.as_trained(resolve.model(row["model"]))
    recipe = Recipe(row["seq"], row["micro_batch"], row["precision"], attention="eager")
    loss = 2 if row["precision"] == "bf16" and (blueprint.has_encoder or not blueprint.generates) else 4
    saved = training.count(blueprint, recipe).activation_bytes - loss
    assert saved == pytest.approx(row["saved_bytes"], rel=row["within"])


# One layer of width 8 with a plain FFN of 16 and a vocabulary of 32, nothing tied: two tables of 256, two matrices of 128, four of
# 64, three gains of 8.
TINY = {
    "family": "invented", "sources": ["a test"], "layers": 1, "hidden": 8, "heads": 2, "ffn": 16, "gated": False, "vocab": 32,
    "context": 64,
}  # fmt: skip
COUNT = 2 * 256 + 2 * 128 + 4 * 64 + 3 * 8


def tiny(**fields: Any) -> Blueprint:
    document = read.parse(json.dumps({**TINY, **fields}), "tiny.yaml")
    return lower(validate.validate(document, "models"), "tiny")


@pytest.mark.parametrize(
    ("optimizer", "precision", "expected"),
    [
        ("adamw", "fp32", 8 * COUNT + 4 * 11),
        ("adamw", "bf16", 4 * COUNT + 4 * 11),
        ("adamw", "megatron", 12 * COUNT + 4 * 11),
        ("adamw8bit", "bf16", 8 * COUNT + 2048),  # every tensor is under 4096 elements and stays in 32 bits
        ("sgd", "bf16", 0),
        ("sgd-momentum", "bf16", 2 * COUNT),
        ("lion", "bf16", 2 * COUNT),
        ("adafactor", "bf16", 4 * (2 * (32 + 8) + 2 * (16 + 8) + 4 * (8 + 8) + 3 * 8)),
        ("muon", "bf16", 2 * (2 * 128 + 4 * 64) + 4 * (2 * 256 + 3 * 8) + 4 * 5),
        ("galore", "bf16", 2 * 8 * (2 * (2 * 16 + 8) + 4 * (2 * 8 + 8)) + 4 * (2 * 256 + 3 * 8) + 4 * 11),
        ("lomo", "bf16", 0),
        ("paged-adamw", "bf16", 0),
    ],
)
def test_optimizer_states(optimizer: str, precision: str, expected: int) -> None:
    answer = training.count(tiny(), Recipe(16, precision=precision, optimizer=optimizer, attention="efficient"))
    assert answer.trainable == COUNT
    assert answer.optimizer_bytes == expected


def test_no_gradient_outlives_its_tensor_with_lomo() -> None:
    blueprint = resolve.model("llama3.2-1b").blueprint
    with_all = training.count(blueprint, Recipe(16, optimizer="sgd"))
    one_by_one = training.count(blueprint, Recipe(16, optimizer="lomo"))
    assert (with_all.gradient_bytes, one_by_one.gradient_bytes) == (2 * 1_235_814_400, 0)
    assert one_by_one.peaks["backward"] < with_all.peaks["backward"]


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("lora", {"rank": 4}, 2 * 4 * (8 + 8)),
        ("lora", {"rank": 4, "targets": ("all",)}, 4 * (4 * (8 + 8) + 2 * (16 + 8))),
        ("lora", {"rank": 4, "targets": ("o_proj", "down")}, 4 * (8 + 8 + 16 + 8)),
        ("dora", {"rank": 4}, 2 * 4 * (8 + 8) + 2 * 8),
        ("qlora", {"rank": 4}, 2 * 4 * (8 + 8)),
        ("ia3", {"targets": ("k", "v", "down")}, 8 + 8 + 16),
        ("prefix", {"rank": 5}, 5 * 2 * 8),
        ("prompt", {"rank": 5}, 5 * 8),
        ("adapter", {"rank": 3}, 2 * (2 * 3 * 8 + 3 + 8)),
        ("ln", {}, 3 * 8),
        ("head", {}, 256),
        ("full", {}, COUNT),
    ],
)
def test_methods(method: str, options: dict[str, Any], expected: int) -> None:
    recipe = Recipe(16, method=method, precision="amp" if method == "qlora" else "bf16", **options)
    assert training.count(tiny(), recipe).trainable == expected


def test_a_fused_linear_is_adapted_as_one_or_in_parts() -> None:
    """GPT-2's c_attn has one adapter in peft; litgpt adapts its queries and values by themselves."""
    fused = tiny(fused=["qkv"])
    whole = training.count(fused, Recipe(16, method="lora", rank=4, targets=("q", "k", "v")))
    parts = training.count(fused, Recipe(16, method="lora", rank=4, targets=("q", "v")))
    assert (whole.trainable, parts.trainable) == (4 * (8 + 24), 2 * 4 * (8 + 8))


def test_a_quantised_base() -> None:
    """Half a byte for each element of the linears, one of a scale per 64, four of theirs per 256 scales, and the code books."""
    found = Parameters(tiny(), Recipe(16, method="qlora", precision="amp"))
    linears = 2 * 128 + 4 * 64
    adapters = 2 * 8 * (8 + 8) * 4
    assert found.parameter_bytes().value == linears // 2 + 2 * (COUNT - linears) + adapters
    scales = 2 * (2 + 4 + 1092) + 4 * (1 + 4 + 1092)
    rotary = 2 * 4 * (4 // 2)
    assert found.buffer_bytes().value == scales + rotary


recipes = st.builds(
    Recipe,
    seq=st.integers(1, 200),
    micro_batch=st.integers(1, 3),
    precision=st.sampled_from(["fp32", "bf16", "amp"]),
    optimizer=st.sampled_from(["adamw", "sgd", "lomo", "adafactor"]),
    method=st.sampled_from(["full", "lora", "dora", "qlora", "ia3", "adapter", "ln"]),
    foreach=st.just(False),
    state_embeddings=st.just(""),
    rank=st.integers(1, 9),
    targets=st.just(("all",)),
    adapter_item=st.sampled_from([2, 4]),
    kbit_prepare=st.just(False),
    lora_dropout=st.sampled_from([0.0, 0.1]),
    attention=st.sampled_from(["efficient", "eager"]),
    recompute=st.sampled_from(["none", "selective", "op", "full"]),
    accumulate=st.integers(1, 2),
    keep_logits=st.booleans(),
    dropout=st.booleans(),
    loss=st.sampled_from(["plain", "copied", "compiled", "fused", "chunked"]),
    compile=st.booleans(),
)


def invented(spec: dict[str, Any]) -> Blueprint:
    return lower(validate.validate(read.parse(json.dumps(spec), "invented.yaml"), "models"), "invented", masked=True)


def answered(blueprint: Blueprint, recipe: Recipe) -> training.Training | None:
    try:
        return training.count(blueprint, recipe)
    except LlmcalcError:
        return None


@given(specs(), recipes)
@SETTINGS
def test_parts_add_up_to_the_peak(spec: dict[str, Any], recipe: Recipe) -> None:
    blueprint = invented(spec)
    answer = answered(blueprint, recipe)
    if answer is None:
        return
    assert sum(answer.parts.values()) == answer.peak_bytes == answer.peaks[answer.peak_phase]
    assert all(size >= 0 for size in answer.parts.values())
    assert answer.peaks["step"] >= answer.parameter_bytes + answer.gradient_bytes + answer.optimizer_bytes
    trainable, kept, peak = training.explain(blueprint, recipe)
    assert (trainable.value, kept.value, peak.value) == (answer.trainable, answer.activation_bytes, answer.peak_bytes)


@given(specs(), recipes)
@SETTINGS
def test_recomputing_never_keeps_more(spec: dict[str, Any], recipe: Recipe) -> None:
    """Where all is trained. (A frozen base keeps nothing of the first layers that a checkpoint would keep the input of.)"""
    blueprint, recipe = invented(spec), recipe._replace(method="full")
    kept = [answered(blueprint, recipe._replace(recompute=how)) for how in ("full", "op", "none")]
    # What a checkpoint holds beside its input (positions, the mask) counts little but in models of no size.
    beside = 16 * recipe.seq * recipe.seq * recipe.micro_batch * 8 + 64 * recipe.seq
    for less in kept[:2] if not recipe.compile else kept[:1]:
        if less is not None and kept[2] is not None:
            assert less.activation_bytes <= kept[2].activation_bytes + beside
    if kept[0] is not None and kept[1] is not None:
        assert kept[0].activation_bytes <= kept[1].activation_bytes


@given(specs(), recipes)
@SETTINGS
def test_longer_or_more_sequences_never_take_less(spec: dict[str, Any], recipe: Recipe) -> None:
    blueprint = invented(spec)
    less = answered(blueprint, recipe)
    for more in (recipe._replace(seq=recipe.seq + 1), recipe._replace(micro_batch=recipe.micro_batch + 1)):
        larger = answered(blueprint, more)
        if less is not None and larger is not None:
            assert larger.activation_bytes >= less.activation_bytes
            assert larger.peak_bytes >= less.peak_bytes


def test_fits_or_not(run: Run) -> None:
    assert run("train", "llama3-8b", "--gpu", "h100-sxm").code == 0
    outcome = run("train", "llama3-8b", "--gpu", "rtx4090", "--json")
    assert (outcome.code, outcome.results[0]["fits"]) == (1, False)
    assert run("train", "llama3-8b", "--json").results[0]["fits"] is None
    # Over the catalogue nothing is refused.
    assert run("train", "--family", "llama", "--gpu", "rtx4090").code == 0


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("llama3-8b --precision fp32 --attention flash", "flash attention has no fp32 kernel: --attention efficient"),
        ("llama3-8b --kbit-prepare", "--kbit-prepare goes with --method qlora"),
        ("llama3-8b --precision megatron --method lora", "--precision megatron trains all weights"),
        ("llama3-8b --optimizer sgd --foreach", "--foreach is a form of adamw"),
        ("llama3-8b --method lora --targets q,w", "llama3-8b has no w to adapt; --targets down,gate,k,o,q,up,v or all"),
        ("llama3-8b --targets all,q", "--targets all is every linear"),
        ("llama3-8b --targets ,", "--targets is empty"),
        ("llama3-8b --method bitfit", "finds nothing to train"),
        ("bert-base --method prefix", "prefix tuning needs keys and values"),
        ("llama3-8b --seq 0", "--seq"),
        ("llama3-8b --gpu h101", "h101"),
    ],
)
def test_mistakes(command: str, expected: str, run: Run) -> None:
    outcome = run("train", *command.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert expected in outcome.err
    assert outcome.err.count("\n") == 1


def test_one_model_opens_into_parts(run: Run) -> None:
    out = run("train", "gpt2", "--seq", "512").out
    for word in ("parameters", "optimizer", "activations", "temporaries", "peak, ", "step peak", "##"):
        assert word in out


def test_an_encoder_is_trained_with_a_head(run: Run) -> None:
    outcome = run("train", "bert-large", "--json")
    assert outcome.results[0]["trainable"] == 335_174_458  # BertForMaskedLM
    assert "with the head of masked language modelling" in outcome.json["notes"][0]


def test_a_chunked_loss_takes_less(run: Run) -> None:
    peaks = [
        run("train", "llama3.2-1b", "--loss", loss, "--json").results[0]["peak_bytes"] for loss in ("plain", "chunked", "fused")
    ]
    assert peaks[0] > peaks[1] > 0
    assert peaks[0] > peaks[2] > 0
