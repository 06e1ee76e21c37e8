"""llmcalc train, solved backwards and compared: what --solve looks for, the ways to train, and how far the search is."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

from llmcalc.engines import train_solve as engine
from llmcalc.errors import NoAnswer, UsageError

if TYPE_CHECKING:
    from llmcalc.blueprint.parts import Blueprint
    from llmcalc.engines.layout import Layout
    from llmcalc.engines.recipe import Recipe
    from llmcalc.engines.train_solve import Ask, Solution

QUIET_SECONDS = 1.0
LONGEST = (
    f"longest sequence: one sequence in a pass, in steps of {engine.SEQ_STEP} tokens, up to the trained context; "
    "AdamW in the weights' type where no other is named, all else as asked"
)
CLEAR = "\r\x1b[K"


class Progress:
    """What is being counted, in one line on stderr: only where somebody watches, and only when it takes a while."""

    def __init__(self) -> None:
        self.began, self.shown = monotonic(), False

    def __call__(self, recipe: Recipe, layout: Layout) -> None:
        """Say which step is counted."""
        if sys.stderr is None or not sys.stderr.isatty() or monotonic() - self.began < QUIET_SECONDS:
            return
        self.shown = True
        adapted = f" of rank {recipe.rank}" if recipe.method in engine.RANKED else ""
        over = f" on {layout.gpus:,} GPUs" if layout.gpus > 1 else ""
        sys.stderr.write(f"{CLEAR}{recipe.method}{adapted}, {recipe.micro_batch:,} x {recipe.seq:,} tokens{over} ...")
        sys.stderr.flush()

    def done(self) -> None:
        """Take the line away."""
        if self.shown:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()


def check(solve: str | None, given: dict[str, Any], gpu: str | None) -> None:
    """Raises UsageError for a question that has what it asks for already, or nothing to fit into."""
    if solve is None:
        return
    if gpu is None:
        raise UsageError(f"--solve {solve} needs a GPU to fit into: --gpu rtx4090 (llmcalc gpus lists them)")
    if given.get(solve) is not None:
        options = "--gpus and --dp" if solve == "gpus" else f"--{solve}"
        raise UsageError(f"--solve {solve} looks for it; leave {options} out")
    if solve == "rank" and given["method"] not in engine.RANKED:
        raise UsageError(f"--solve rank needs a method that has one: --method {', '.join(engine.RANKED)}")


def solved(
    solve: str, ask: Ask, blueprint: Blueprint, recipe: Recipe, budget: int, *, limit: int | None, targets_said: bool
) -> Solution:
    """What fits into the budget. ``limit`` is the longest sequence that was asked for, the trained context where none was."""
    if solve == "micro-batch":
        return engine.micro_batch(ask, recipe, budget)
    if solve == "rank":
        return engine.rank(ask, recipe, budget, blueprint)
    if solve == "gpus":
        return engine.gpus(ask, recipe, budget)
    if solve == "seq":
        return engine.seq(ask, recipe, budget, limit or blueprint.context or engine.MOST)
    adapted = recipe._replace(targets=engine.reachable(blueprint, recipe, targets_said=targets_said))
    return engine.method(ask, [adapted._replace(method=name) for name in engine.BY_PREFERENCE], budget)


def note(name: str, solve: str, solution: Solution) -> str:
    """What the answer is the largest of."""
    if solve == "method":
        said = f"of {', '.join(engine.BY_PREFERENCE)} the first that fits"
        return f"{name}: {said}" if solution.value else f"{name}: {said}, and none does"
    if solve == "gpus":
        degrees = (
            "data parallelism alone" if solution.layout.gpus == solution.layout.dp else "more --dp, the other degrees as they are"
        )
        whole = "; --zero 0 keeps whole copies on each" if solution.layout.zero == "0" else ""
        none = "; none is enough, and the most is shown" if solution.value is None else ""
        return f"{name}: --solve gpus looked at up to {solution.limit:,}, by {degrees}{whole}{none}"
    step = f"multiples of {engine.SEQ_STEP} tokens " if solve == "seq" else ""
    found = "; not even the smallest fits, which is shown" if solution.value is None else ""
    if solution.value == solution.limit:
        found = ", which fits"
    return f"{name}: --solve {solve} looked at {step}up to {solution.limit:,}{found}"


def ways(
    ask: Ask, blueprint: Blueprint, recipe: Recipe, budget: int | None, reserve: int, attention: str | None, *, targets_said: bool
) -> list[dict[str, Any]]:
    """The usual ways to train as JSON has them; without those that the model cannot be trained in. None of them is in fp32, so
    that flash attention does for all where no other was asked for."""
    found = []
    recipe = recipe._replace(attention=attention or "flash")
    for name, own in engine.ways(blueprint, recipe, ask.layout, targets_said=targets_said):
        try:
            answer = ask(own)
            limit = blueprint.context or engine.MOST
            longest = None if budget is None else engine.longest(ask, own, budget, limit)
        except (NoAnswer, UsageError):
            continue
        found.append({
            "name": name, "method": own.method, "precision": own.precision, "optimizer": own.optimizer, "recompute": own.recompute,
            "targets": list(own.targets) if own.method != "full" else [], "trainable": answer.trainable,
            "peak_bytes": answer.peak_bytes, "peak_phase": answer.peak_phase, "required_bytes": answer.peak_bytes + reserve,
            "fits": None if budget is None else answer.peak_bytes <= budget, "max_seq": longest,
        })  # fmt: skip
    return found
