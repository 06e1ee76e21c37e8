"""A training step as a course of memory: every allocation of the replay in order, for a picture of it."""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, without_formulas
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.replay import Moment, Replay
from llmcalc.engines.tape import Kernel
from llmcalc.engines.training import PHASES, Step

# The optimizer's step is one moment, drawn as wide as this share of all others.
STEP_SHARE = 12


class Course(NamedTuple):
    """Bytes at each moment by part, parts in the order of ``Training.parts``; ``starts`` is where each phase begins."""

    parts: dict[str, list[int]]
    starts: dict[str, int]

    @property
    def totals(self) -> list[int]:
        """All parts together at each moment."""
        return [sum(sizes) for sizes in zip(*self.parts.values(), strict=True)]


class Traced(Replay):
    """A replay that remembers what stood after each allocation and each kernel."""

    def __init__(self, step: Step) -> None:
        self.course: dict[str, list[Moment]] = {"forward": [], "backward": []}
        super().__init__(step.tape, keep_gradients=step.replay.keep_gradients)

    def _note(self, size: int, kernel: str) -> None:
        self.course[self.phase].append(Moment(size, kernel, self.activations, self.done))

    def _grow(self, size: int, kernel: str) -> None:
        super()._grow(size, kernel)
        self._note(self.live, kernel)

    def _mark(self, size: int, kernel: str) -> None:
        super()._mark(size, kernel)
        self._note(size, kernel)

    def _let_go(self, index: int, kernel: Kernel) -> None:
        super()._let_go(index, kernel)
        self._note(self.live, kernel.label)

    def _reverse(self, kernel: Kernel) -> None:
        super()._reverse(kernel)
        self._note(self.live, kernel.label)


def thinned(moments: list[Moment], most: int) -> list[Moment]:
    """No more than so many moments: of neighbours the highest, so that no peak is lost."""
    width = max(1, -(-len(moments) // most))
    return [max(moments[i : i + width], key=lambda moment: moment.size) for i in range(0, len(moments), width)]


def course(blueprint: Blueprint, recipe: Recipe, most: int = 1000) -> Course:
    """The memory through a step, ``most`` moments of forward and of backward. Raises as ``Step`` does."""
    step = Step(without_formulas(blueprint), recipe, seq=recipe.seq, batch=recipe.micro_batch)
    phases = {phase: thinned(moments, most) for phase, moments in Traced(step).course.items()}
    width = max(1, sum(map(len, phases.values())) // STEP_SHARE)
    phases["step"] = [step.moments["step"]] * width
    standing = {name: int(figure.value) for name, figure in step.standing().items()}
    parts: dict[str, list[int]] = {name: [] for name in step.count().parts}
    starts: dict[str, int] = {}
    for phase in PHASES:
        starts[phase] = len(parts["parameters"])
        for moment in phases[phase]:
            now = {"gradients": moment.gradients, "activations": moment.activations, "temporaries": moment.passing}
            for name, sizes in parts.items():
                sizes.append(standing.get(name, 0) + now.get(name, 0))
    return Course(parts, starts)
