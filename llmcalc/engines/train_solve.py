"""A training step solved backwards: the largest micro-batch, sequence or rank, the method, or the fewest GPUs that so many
bytes on each are enough for.

The peak of a step never falls when any of the three grows, so one search serves them: the two ends are put first, and then
the place where a straight line between them would cross the budget, since a peak is close to linear in pieces; every third time
the middle of their magnitudes, which bounds the search whatever the curve. Each answer has been put: it fits, and the next one
does not. (8-bit states fall once, where a tensor reaches 4096 elements and leaves 32 bits; there a
larger rank may fit as well.)
"""

from collections.abc import Callable, Iterable
from copy import copy
from math import isqrt
from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import adapters
from llmcalc.engines.layout import Layout
from llmcalc.engines.objectives import SFT, Aligned, Objective
from llmcalc.engines.parallel import Planner
from llmcalc.engines.preference import Asking
from llmcalc.engines.recipe import PROMPTS, Recipe
from llmcalc.engines.stages import Parallel
from llmcalc.engines.training import Training
from llmcalc.errors import NoAnswer, UsageError
from llmcalc.quantity import ceil_div

SEQ_STEP = 64
MOST = 2**20
RANKED = ("lora", "dora", "qlora", "adapter", *PROMPTS)
# In order of preference: as much trained as fits, and the base as exact as it can be.
BY_PREFERENCE = ("full", "lora", "qlora")
MOST_RANKS = 2**16


class Ask:
    """Counts a step of a model over a layout, each once. ``seen`` is told before each count. With an objective other than sft
    the answer's phases are those of the whole step, roll-out and scoring too.

    Raises NoAnswer for a model without a loss.
    """

    def __init__(
        self, blueprint: Blueprint, layout: Layout, seen: Callable[[Recipe, Layout], None] = lambda *_: None,
        objective: Objective = SFT,
    ) -> None:  # fmt: skip
        self.layout, self.seen, self.objective = layout, seen, objective
        self.aligning = Asking(blueprint, objective, self._asking)
        self.known: dict[tuple[int, Recipe, Layout], Parallel] = {}
        self.planners: dict[int, Planner] = {}

    def __call__(self, recipe: Recipe) -> Training:
        """The rank that decides."""
        return self.plan(recipe).fullest.training if self.objective == SFT else self.aligned(recipe).training

    def plan(self, recipe: Recipe) -> Parallel:
        """All stages, of the update."""
        return self._plan(self.aligning.policy, self.objective.updated(recipe))

    def aligned(self, recipe: Recipe) -> Aligned:
        """The phases of a step that is more than an update."""
        return self.aligning(recipe)

    def over(self, layout: Layout) -> "Ask":
        """The same model over another layout."""
        found = copy(self)
        found.layout, found.aligning = layout, self.aligning.counted(found._asking)
        return found

    def _asking(self, blueprint: Blueprint) -> Callable[[Recipe], Training]:
        return lambda recipe: self._plan(blueprint, recipe).fullest.training

    def _plan(self, blueprint: Blueprint, recipe: Recipe) -> Parallel:
        layout = self.layout._replace(micro_batches=recipe.accumulate)
        key = id(blueprint), recipe, layout
        if key not in self.known:
            self.seen(recipe, layout)
            if id(blueprint) not in self.planners:
                self.planners[id(blueprint)] = Planner(blueprint)
            self.known[key] = self.planners[id(blueprint)].plan(recipe, layout)
        return self.known[key]


class Solution(NamedTuple):
    """``value`` is the largest that fits (the smallest number of GPUs), None where nothing does; ``limit`` the largest that was
    looked at. ``answer`` is the step of ``recipe`` over ``layout``: that of the solution; where none fits that of the smallest
    (of the most GPUs).
    """

    value: int | str | None
    limit: int | None
    recipe: Recipe
    layout: Layout
    answer: Training


class Way(NamedTuple):
    """A way to train, as people name it, and its recipe."""

    name: str
    recipe: Recipe


def largest(peak: Callable[[int], int], budget: int, first: int, last: int) -> int | None:
    """The largest n from ``first`` to ``last`` whose peak is within the budget; None where that of ``first`` is not.

    ``peak`` must not fall. Asked O(log n) times at worst, five or six where it is linear in pieces.
    """
    low, at_low = first, peak(first)
    if at_low > budget:
        return None
    high, at_high = last, peak(last)
    if at_high <= budget:
        return last
    asked = 0
    while high - low > 1:
        asked += 1
        guess = low + (high - low) * (budget - at_low) // (at_high - at_low) if asked % 3 else isqrt(low * high)
        guess = min(max(guess, low + 1), high - 1)
        found = peak(guess)
        if found <= budget:
            low, at_low = guess, found
        else:
            high, at_high = guess, found
    return low


def micro_batch(ask: Ask, recipe: Recipe, budget: int) -> Solution:
    """The largest micro-batch."""
    return _solved(ask, budget, MOST, lambda n: n, lambda n: recipe._replace(micro_batch=n))


def seq(ask: Ask, recipe: Recipe, budget: int, limit: int) -> Solution:
    """The longest sequence: a multiple of 64 tokens, or the limit itself."""
    return _solved(
        ask, budget, ceil_div(limit, SEQ_STEP), lambda n: min(n * SEQ_STEP, limit),
        lambda n: recipe._replace(seq=min(n * SEQ_STEP, limit)),
    )  # fmt: skip


def rank(ask: Ask, recipe: Recipe, budget: int, blueprint: Blueprint) -> Solution:
    """The largest rank, width or number of virtual tokens. Raises UsageError for a method that has none."""
    if recipe.method not in RANKED:
        raise UsageError(f"--solve rank is for --method {', '.join(RANKED)}")
    return _solved(ask, budget, most_rank(blueprint, recipe), lambda n: n, lambda n: recipe._replace(rank=n))


def most_rank(blueprint: Blueprint, recipe: Recipe) -> int:
    """The largest rank that says anything: of LoRA the shorter side of the largest adapted linear, of a bottleneck the width of
    the model, of virtual tokens the trained context."""
    if recipe.method in PROMPTS:
        return blueprint.context or MOST
    if recipe.method == "adapter":
        return max(int(stack.hidden) for stack in blueprint.stacks)
    return max(min(int(linear.out), int(linear.into)) for linear in adapters.targeted(blueprint, recipe.targets))


def gpus(ask: Ask, recipe: Recipe, budget: int) -> Solution:
    """The fewest GPUs, by data parallelism over the other degrees as they are. More of it never takes more of one GPU, but for
    padding; without ZeRO it takes the same."""
    layout = ask.layout
    step = next(n for n in range(1, layout.ep * (layout.shard or 1) + 1) if layout._replace(dp=n).shares_evenly)
    last = max(MOST_RANKS // (layout.gpus * step), 1)

    def over(n: int) -> Ask:
        return ask.over(layout._replace(dp=step * n))

    def needed(n: int) -> int:
        return over(n)(recipe).peak_bytes

    # The largest number that is too few, and one more; more GPUs take less, so what is compared is turned around.
    few = largest(lambda n: -needed(n), -budget - 1, 1, last)
    fits = few is None or few < last
    found = over(1 if few is None else min(few + 1, last))
    return Solution(found.layout.gpus if fits else None, layout.gpus * step * last, recipe, found.layout, found(recipe))


def method(ask: Ask, recipes: Iterable[Recipe], budget: int) -> Solution:
    """The first of these that fits; the last where none does. Those that the model cannot be trained with are passed over.

    Raises NoAnswer where that is all of them.
    """
    found: Solution | None = None
    why = "no method to choose from"
    for recipe in recipes:
        try:
            answer = ask(recipe)
        except (NoAnswer, UsageError) as error:
            why = str(error)
            continue
        fits = answer.peak_bytes <= budget
        found = Solution(recipe.method if fits else None, None, recipe, ask.layout, answer)
        if fits:
            break
    if found is None:
        raise NoAnswer(why)
    return found


def _solved(ask: Ask, budget: int, last: int, shown: Callable[[int], int], made: Callable[[int], Recipe]) -> Solution:
    n = largest(lambda n: ask(made(n)).peak_bytes, budget, 1, last)
    recipe = made(n or 1)
    return Solution(None if n is None else shown(n), shown(last), recipe, ask.layout, ask(recipe))


def ways(blueprint: Blueprint, recipe: Recipe, layout: Layout, *, targets_said: bool) -> list[Way]:
    """The usual ways to train, each with and without recomputing whole layers; what they do not name is as in ``recipe``. Where
    weights are divided nobody trains all of them under autocast, whose copies are whole (``shard_dtype`` is in its place).

    Adapters are trained as trainers do it: under autocast, over a bf16 base, or one of 4 bits.
    """
    plain = recipe._replace(method="full", precision="bf16", optimizer="adamw", kbit_prepare=False)
    adapted = plain._replace(precision="amp", targets=reachable(blueprint, recipe, targets_said=targets_said))
    rows = {
        "full, bf16": plain,
        "full, amp": plain._replace(precision="amp"),
        "full, bf16, 8-bit AdamW": plain._replace(optimizer="adamw8bit", foreach=False),
        "LoRA, amp": adapted._replace(method="lora"),
        "QLoRA, amp": adapted._replace(method="qlora", kbit_prepare=recipe.kbit_prepare),
    }
    if layout.sharers(experts=False) > 1 and layout.level == 3:
        del rows["full, amp"]
    return [Way(name, own._replace(recompute=how)) for name, own in rows.items() for how in ("none", "full")]


def reachable(blueprint: Blueprint, recipe: Recipe, *, targets_said: bool) -> tuple[str, ...]:
    """The recipe's targets; every linear where nobody asked for them and the model has none (latent attention has no v)."""
    try:
        adapters.targeted(blueprint, recipe.targets)
    except NoAnswer:
        if targets_said:
            raise
        return ("all",)
    return recipe.targets


def longest(ask: Ask, recipe: Recipe, budget: int, limit: int) -> int | None:
    """The longest sequence at one sequence a pass; None where none is short enough."""
    there = ask(recipe)
    if there.parameter_bytes + there.buffer_bytes + there.optimizer_bytes > budget:  # and so whatever is read
        return None
    found = seq(ask, recipe._replace(micro_batch=1), budget, limit).value
    return None if found is None else int(found)
