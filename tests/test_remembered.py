"""What remembers answers as what was never asked does: planners, clocks and searches, over every field of recipes and layouts."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import preference
from llmcalc.engines.layout import DTYPES, OFFLOADS, SCHEDULES, ZERO, Layout
from llmcalc.engines.objectives import SFT, Objective
from llmcalc.engines.parallel import Planner, plan
from llmcalc.engines.recipe import LOSSES, METHODS, PRECISIONS, RECOMPUTES, Recipe
from llmcalc.engines.step_links import Machine
from llmcalc.engines.step_time import Clock, Efficiency
from llmcalc.engines.step_work import StepWork
from llmcalc.engines.train_solve import Ask
from llmcalc.errors import LlmcalcError
from llmcalc.specs import catalogue
from tests.test_parallel import made

SEQ = 64
RECIPE: dict[str, tuple[Any, ...]] = {
    "seq": (SEQ, 2 * SEQ), "micro_batch": (1, 2), "precision": PRECISIONS, "foreach": (False, True),
    "state_embeddings": ("", "fp32"),
    "optimizer": ("adamw", "adamw8bit", "paged-adamw", "adafactor", "lion", "sgd", "sgd-momentum", "muon", "galore", "lomo"),
    "method": METHODS, "rank": (8, 4), "targets": (("q", "v"), ("all",)), "adapter_item": (4, 2), "lora_dropout": (0.0, 0.1),
    "kbit_prepare": (False, True), "attention": ("flash", "efficient", "eager"), "recompute": RECOMPUTES, "accumulate": (1, 2),
    "keep_logits": (False, True), "dropout": (True, False), "loss": LOSSES, "compile": (False, True),
}  # fmt: skip
LAYOUT: dict[str, tuple[Any, ...]] = {
    "tp": (1, 2), "pp": (1, 2), "dp": (1, 2, 4), "cp": (1, 2), "ep": (1, 2), "zero": ZERO, "sequence_parallel": (False, True),
    "schedule": SCHEDULES, "chunks": (1, 2), "micro_batches": (1, 2, 4), "offload": OFFLOADS, "shard": (0, 2),
    "reduce_dtype": DTYPES, "shard_dtype": DTYPES, "vocab_parallel": (True, False), "vocab_multiple": (1, 16),
    "prefetch": (1, 0, 2),
}  # fmt: skip
# Bases that more of the other fields go with.
STARTS = (
    (Recipe(SEQ), Layout()),
    (Recipe(SEQ, method="qlora"), Layout(dp=4, zero="fsdp")),
    (Recipe(SEQ), Layout(dp=4, zero="3")),
    (Recipe(SEQ, precision="megatron"), Layout(2, 2, 4, 2, zero="1", micro_batches=4)),
    (Recipe(SEQ), Layout(2, 2, 2, zero="fsdp", schedule="interleaved", chunks=2, micro_batches=4)),
)  # fmt: skip
GPU = Machine(1e15, 9e14, 3e12, 4e11, 5e10, 8)
REACHED = Efficiency("half", 0.5, 0.45, 0.6, 0.4, 0.02, 0.6, 0.8, 0.5, 0.3, 3e-6, 5e-5, (0.9, 1.2), (0.8, 1.3))
GOALS = (SFT, Objective("dpo"), Objective("ppo", value="separate"))
Question = tuple[Recipe, Layout]


@cache
def model(name: str) -> Blueprint:
    """A dense one with dropout, and one with routed experts of which most layers are taken out."""
    if name == "dense":
        return made(layers=4, hidden=32, heads=4, kv_heads=2, ffn=64, vocab=50, context=256, dropout=["attention", "residual"])
    return made(**{**catalogue.entries("models")[name].data, "layers": 4})


def changed(question: Question, name: str, value: Any) -> Question:
    """The question with a field of its recipe or its layout changed."""
    recipe, layout = question
    return (recipe._replace(**{name: value}), layout) if name in RECIPE else (recipe, layout._replace(**{name: value}))


def neighbours() -> list[Question]:
    """Every start, and all that differs from it in one field."""
    fields = [(name, value) for name, values in {**RECIPE, **LAYOUT}.items() for value in values]
    return list(dict.fromkeys(question for start in STARTS for question in (start, *(changed(start, *field) for field in fields))))


@st.composite
def questions(draw: st.DrawFn) -> list[Question]:
    """A walk: each question differs from one before in a field or a few."""
    found = list(STARTS)
    for _ in range(draw(st.integers(1, 12))):
        question = draw(st.sampled_from(found))
        for _ in range(draw(st.integers(1, 3))):
            name = draw(st.sampled_from([*RECIPE, *LAYOUT]))
            question = changed(question, name, draw(st.sampled_from({**RECIPE, **LAYOUT}[name])))
        found.append(question)
    return found[len(STARTS) :]


def said(ask: Any, *question: Any) -> Any:
    """An answer, or the words of a refusal."""
    try:
        return ask(*question)
    except LlmcalcError as error:
        return str(error)


def test_every_field_is_asked() -> None:
    assert RECIPE.keys() == set(Recipe._fields)
    assert LAYOUT.keys() == set(Layout._fields)


BOTH = pytest.mark.parametrize("name", ["dense", "qwen3-30b-a3b"])


def planned(name: str, asked: list[Question]) -> None:
    """One planner against a new one for each question."""
    planner = Planner(model(name))
    for recipe, layout in asked:
        assert said(planner.plan, recipe, layout) == said(plan, model(name), recipe, layout), (recipe, layout)


def timed(name: str, asked: list[Question]) -> None:
    """One clock against a new one for each question."""
    work = StepWork(model(name), SEQ)
    clock = Clock(work, GPU, REACHED)
    for recipe, layout in asked:
        recipe = recipe._replace(seq=SEQ)
        try:
            recipe.check()
            layout.check(model(name), recipe)
        except LlmcalcError:
            continue
        fresh = Clock(StepWork(model(name), SEQ), GPU, REACHED)
        assert said(clock.time, recipe, layout) == said(fresh.time, recipe, layout), (recipe, layout)


@BOTH
@pytest.mark.parametrize("check", [planned, timed])
def test_a_field_changed(name: str, check: Callable[[str, list[Question]], None]) -> None:
    check(name, neighbours())


@BOTH
@pytest.mark.parametrize("check", [planned, timed])
@settings(max_examples=15, deadline=None)
@given(asked=questions())
def test_a_walk(name: str, check: Callable[[str, list[Question]], None], asked: list[Question]) -> None:
    check(name, asked)


@settings(max_examples=20, deadline=None)
@given(asked=questions(), goal=st.sampled_from(GOALS))
def test_a_search(asked: list[Question], goal: Objective) -> None:
    ask = Ask(model("dense"), Layout(), objective=goal)
    for recipe, layout in asked:
        fresh = Ask(model("dense"), layout, objective=goal)
        assert said(ask.over(layout), recipe) == said(fresh, recipe), (recipe, layout)
        assert said(ask.over(layout).plan, recipe) == said(fresh.plan, recipe), (recipe, layout)


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.name)
def test_models_that_are_trained_together_are_told_apart(goal: Objective) -> None:
    """The policy and the value model have the same recipe and layout."""
    recipe = Recipe(SEQ, 2)
    assert Ask(model("dense"), Layout(), objective=goal).aligned(recipe) == preference.count(model("dense"), recipe, goal)
