"""What torch's allocator reserves on a rank: steps followed allocation by allocation.

Reserved memory is more than what is in use: blocks of one step are cut up for the optimizer's states, and the next finds
them too small; FSDP gathers layers in a stream of its own, whose memory nothing else can use. ``caching`` has the allocator,
``replay`` the step, ``local`` the rank's part of it, ``fsdp`` what sharding adds; here they come together, with what waits on a
stage of a pipeline.
"""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, without_formulas
from llmcalc.engines import local
from llmcalc.engines.eager import INT64
from llmcalc.engines.fsdp import Rank, Unit, units_of
from llmcalc.engines.layout import Layout, chunks, in_flight
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.replay import Gradient, Replay
from llmcalc.engines.shards import tensors
from llmcalc.engines.training import Step
from llmcalc.engines.watched import Watched
from llmcalc.errors import NoAnswer

STEPS = 3


class Reserved(NamedTuple):
    """Of a stage: the most in use, in all and in each phase, what that is made of, and what is reserved after some steps. ``kept``
    are the activations of one micro-batch, of each chunk of layers."""

    allocated: int
    reserved: int
    peaks: dict[str, int]
    parts: dict[str, int]
    kept: tuple[int, ...]


class _Pass(Replay):
    """A micro-batch, forward and backward. On a pipeline gathered layers and their gradients stand from pass to pass."""

    def __init__(self, step: Step, rank: Rank) -> None:
        self.rank, self.piped = rank, rank.layout.pp > 1
        spans = step.tape.spans
        self.starts = {start: f"{stack}.{layer}" for stack, layer, start, _ in spans}
        self.stops = {stop - 1: f"{stack}.{layer}" for stack, layer, _, stop in spans}
        self.order = [f"{stack}.{layer}" for stack, layer, _, _ in spans]
        self.ready: dict[str, list[Gradient]] = {}
        keeps = not step.resident and not rank.divided and step.recipe.optimizer != "lomo"
        self.parts_stay = keeps and rank.parted > 1 and not rank.layout.offload
        super().__init__(step.tape, keep_gradients=keeps and rank.parted == 1)
        if not self.piped:
            self._reduce("")
        for thing in self.alive:
            rank.allocator.give(thing)

    def _taken(self, thing: object, size: int) -> None:
        self.rank.allocator.take(thing, size)

    def _given(self, thing: object) -> None:
        self.rank.allocator.give(thing)

    def _before(self, index: int) -> None:
        rank, forward = self.rank, self.phase == "forward"
        rank.allocator.phase = self.phase
        if not rank.divided:
            return
        if forward and index == 0:
            rank.gather("", self.phase)
        name = (self.starts if forward else self.stops).get(index)
        if name is None:
            return
        rank.gather(name, self.phase)
        at = self.order.index(name)
        for other in () if forward else self.order[max(at - rank.layout.prefetch, 0) : at]:
            rank.fetch(other)

    def _after(self, index: int) -> None:
        forward = self.phase == "forward"
        name = (self.stops if forward else self.starts).get(index)
        if not self.rank.divided or self.piped or name is None:
            return
        # FSDP2 lets the last layer stand: its backward pass is next.
        if not forward or self.rank.flat or name != self.order[-1]:
            self.rank.release(name)
        if not forward:
            self._reduce(name)

    def _finish(self, leaf: str, grad: Gradient) -> None:
        name, _, layer = leaf.partition("@")
        unit = f"{name.partition('.')[0]}.{layer}"
        if not self.rank.divided:
            if self.parts_stay:
                self.rank.keep(("gradient", leaf), self.rank.part_of(grad.size))
            super()._finish(leaf, grad)
            if self.keep_gradients:
                self.rank.made.add(grad)
                self.rank.allocator.finish(grad)
        elif self.piped:
            self.rank.keep(("accumulated", leaf), grad.size // self.rank.item * self.rank.summed_item)
            self._drop(grad)
        else:
            self.ready.setdefault(unit if unit in self.rank.units else "", []).append(grad)

    def _reduce(self, name: str) -> None:
        ready = self.ready.pop(name, [])
        if ready:
            self.rank.reduce(name, sum(grad.size for grad in ready))
        for grad in ready:
            self._drop(grad)


def runs(recipe: Recipe, layout: Layout) -> bool:
    """Whether ranks run torch's kernels, and what divides them is followed: not what DeepSpeed gathers in stage 3."""
    return recipe.precision != "megatron" and layout.zero != "3"


def follows(recipe: Recipe, layout: Layout) -> bool:
    """Whether torch's allocator is all there is: DeepSpeed's buffers are its own."""
    return runs(recipe, layout) and layout.zero in ("0", "fsdp")


def reserved(blueprint: Blueprint, recipe: Recipe, layout: Layout, *, flat: bool = False, limit: int = 0) -> Reserved:
    """The stage of a layout that reserves most; the rest as ``stages``, and NoAnswer for DeepSpeed."""
    if not follows(recipe, layout):
        raise NoAnswer(f"{blueprint.name}: what Megatron and DeepSpeed reserve is not known; --zero 0 or fsdp, another --precision")
    return max(stages(blueprint, recipe, layout, flat=flat, limit=limit), key=lambda one: one.reserved)


def stages(
    blueprint: Blueprint, recipe: Recipe, layout: Layout, *, flat: bool = False, limit: int = 0, settled: bool = False
) -> list[Reserved]:  # fmt: skip
    """A rank of each stage. ``flat``: FSDP1. ``limit``: what a GPU has for torch, 0 for no end. ``settled``: one step, with the
    optimizer's states there from its start, which is all that memory in use asks for.

    Raises as ``training.Step`` and ``local.rank`` do, and NoAnswer for Megatron and DeepSpeed's stage 3.
    """
    recipe.check()
    layout.check(blueprint, recipe)
    if not runs(recipe, layout):
        raise NoAnswer(f"{blueprint.name}: what Megatron and DeepSpeed's stage 3 run is not followed")
    if layout.pp == 1:
        layout = layout._replace(schedule="1f1b", chunks=1)  # one stage has no schedule
    blueprint = without_formulas(blueprint)
    return [
        _stage(blueprint, recipe, layout, stage, Watched(limit), flat=flat, settled=settled) for stage in range(layout.pp)
    ]  # fmt: skip


def _waiting(flying: tuple[int, ...], at: int, turn: int, layout: Layout) -> list[int]:
    """Micro-batches of each chunk that wait while one of chunk ``at`` is at work, the first time or later.

    The one at work is not among them. The last chunk's backward pass begins as soon as all are in flight, so while others are
    at work it has one less; and there is one less in all, later, where no more are to come.
    """
    last = len(flying) - 1
    done = turn > 0 and layout.micro_batches * len(flying) <= sum(flying)
    return [max(many - (chunk in (at, last)) - (done and chunk == at), 0) for chunk, many in enumerate(flying)]


def _links(step: Step) -> list[int]:
    """What a stage receives in, of each micro-batch: activations from the stage before, gradients from the next."""
    first = [tensor.storage for kernel in step.tape.kernels[:1] if kernel.label == "receive" for tensor in kernel.outputs]
    sent = [] if any(op.kind == "loss" for op in step.blueprint.ops) else list(step.tape.to_stay)
    return [int(storage.size) for storage in first + sent]


def _stage(
    blueprint: Blueprint, recipe: Recipe, layout: Layout, stage: int, allocator: Watched, *, flat: bool, settled: bool
) -> Reserved:  # fmt: skip
    # torch's pipelines keep the outputs of the last stage, of all micro-batches, and join them at the end.
    recipe = recipe._replace(seq=recipe.seq // layout.cp, keep_logits=recipe.keep_logits or layout.pp > 1)
    held = [blueprint]
    if layout.tp > 1 or layout.pp > 1:
        held = [local.rank(blueprint, layout, chunk) for chunk in chunks(blueprint, layout)[stage]]
    steps = [Step(one, recipe, seq=recipe.seq, batch=recipe.micro_batch, whole=layout.pp == 1) for one in held]
    units: dict[str, Unit] = {}
    for step in steps:
        for name, unit in units_of(tensors(step.parameters), recipe, layout).items():
            before = units.setdefault(name, Unit())
            before.whole += unit.whole
            before.parts += unit.parts
            before.moments += unit.moments
            before.learns += unit.learns
    rank = Rank(units, recipe, layout, allocator, flat=flat)
    rank.wrap()
    allocator.take("buffers", sum(int(step.parameters.buffer_bytes().value) for step in steps))
    if not rank.divided and not layout.offload:
        for step in steps:
            if step.resident:
                allocator.take("gradients", rank.part_of(int(step.gradients().value)))
    for step in steps if layout.pp > 1 else ():
        for size in _links(step) * layout.micro_batches:
            allocator.take("links", size)
    flying = in_flight(layout, stage)
    again = min(layout.micro_batches, 2)
    outputs = [int(s.size) for s in steps[-1].tape.to_stay] if layout.pp > 1 and stage == layout.pp - 1 else []
    if settled:
        rank.settle()
    for _ in range(1 if settled else STEPS):
        allocator.phase = "forward"
        for _ in range(2 * layout.loaded):
            allocator.take("inputs", INT64 * recipe.micro_batch * recipe.seq)
        allocator.give("joined")
        for size in outputs * (layout.micro_batches - 1):
            allocator.take("outputs", size)
        for turn in range(again):
            for index, step in enumerate(steps):
                for beside, many in zip(steps, _waiting(flying, index, turn, layout), strict=True):
                    for storage in beside.replay.saved * many:
                        allocator.take("waiting", int(storage.size))
                _Pass(step, rank)
                allocator.give("waiting")
        if layout.pp > 1 and rank.divided:
            for name in units:
                rank.reduce(name, units[name].learns)
                rank.release(name)
        for size in outputs:
            allocator.take("joined", size * layout.micro_batches)
        allocator.give("outputs")
        rank.step(foreach=recipe.foreach)
    kept = tuple(step.replay.saved_bytes for step in steps)
    return Reserved(allocator.peak, allocator.most, allocator.peaks, allocator.parts, kept)
