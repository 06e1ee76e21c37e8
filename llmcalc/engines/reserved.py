"""What torch's allocator reserves on a rank: steps followed allocation by allocation.

Reserved memory is more than what is in use: blocks of one step are cut up for the optimizer's states, and the next finds
them too small; FSDP gathers layers in a stream of its own, whose memory nothing else can use. ``caching`` has the allocator,
``replay`` the step, ``local`` the rank's part of it; here is what FSDP adds (Zhao et al. 2023, arXiv:2304.11277; FSDP2 in
torch.distributed.fsdp), and what waits on a stage of a pipeline.
"""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, without_formulas
from llmcalc.engines import local
from llmcalc.engines.layout import Layout, chunks, in_flight
from llmcalc.engines.optimizers import states
from llmcalc.engines.recipe import ITEMS, Recipe
from llmcalc.engines.replay import Gradient, Replay
from llmcalc.engines.shards import NF4, Share, cut, tensors
from llmcalc.engines.training import Step
from llmcalc.engines.watched import Watched
from llmcalc.errors import NoAnswer

STEPS = 3
GATHER, REDUCE, COPY = "gather", "reduce", "copy"
INT64 = 8


class Unit:
    """Parameters that are gathered together: a layer, or the root, which is what stands outside of layers.

    ``whole`` are bytes of each gathered tensor, ``parts`` of each of the rank's, ``moments`` of each optimizer state.
    """

    def __init__(self) -> None:
        self.whole: list[int] = []
        self.parts: list[int] = []
        self.moments: list[int] = []


class Reserved(NamedTuple):
    """Of a stage: the most in use, in all and in each phase, what that is made of, and what is reserved after some steps. ``kept``
    are the activations of one micro-batch, of each chunk of layers."""

    allocated: int
    reserved: int
    peaks: dict[str, int]
    parts: dict[str, int]
    kept: tuple[int, ...]


def _units(shares: list[Share], recipe: Recipe, layout: Layout) -> dict[str, Unit]:
    found: dict[str, Unit] = {"": Unit()}
    for share in shares:
        item = ITEMS[layout.shard_dtype] if layout.shard_dtype and share.item != NF4 else share.item
        one = share.trained._replace(item=int(item) or 1, tensors=1)
        part = cut(share._replace(trained=one), layout) if layout.level == 3 else one
        for layer in share.layers or ("",):
            unit = found.setdefault(f"{share.trained.name.partition('.')[0]}.{layer}" if share.layers else "", Unit())
            unit.whole.append(int(share.item * int(one.elements)))
            unit.parts.append(int(item * int(part.elements)))
            if share.learns:
                unit.moments += [int(states([part], recipe).states.value) // 2] * 2
    return found


class _Rank:
    """What FSDP does on a rank, from pass to pass. ``flat``: FSDP1, which gathers a layer as one parameter and in place; FSDP2
    gathers into a buffer and copies out of it."""

    def __init__(self, units: dict[str, Unit], recipe: Recipe, layout: Layout, allocator: Watched, *, flat: bool) -> None:
        self.units, self.layout, self.allocator, self.flat = units, layout, allocator, flat
        self.divided = layout.level == 3 and layout.sharers(experts=False) > 1
        self.item = 4 if recipe.precision == "fp32" else 2
        self.summed_item = ITEMS[layout.reduce_dtype] if layout.reduce_dtype else self.item
        self.standing: set[str] = set()
        self.ahead: dict[str, object] = {}
        self.held: object = None  # the buffer of the layer before, in the forward pass
        self.left = ""  # the layer that has been let go last
        self.summed: object = None  # gradients of the layer before, on their way
        self.made: set[object] = set()  # gradients that stand until the optimizer's step

    def wrap(self) -> None:
        """Parameters, as they are divided at the start. FSDP1 makes a flat copy of each layer on the way."""
        for name, unit in self.units.items():
            if self.flat:
                for size in unit.whole:
                    self.allocator.take("wrapped", size)
                self.allocator.take("flat", sum(unit.whole))
                self.allocator.give("wrapped")
            if self.layout.offload != "all":
                for size in [sum(unit.parts)] if self.flat else unit.parts:
                    self.allocator.take(("part", name), size)
            self.allocator.give("flat")

    def fetch(self, name: str) -> None:
        """Begin to gather a layer, from the host where its parts are there."""
        if name in self.standing or name in self.ahead or name not in self.units:
            return  # of layers that share their weights the first has them
        unit = self.units[name]
        if self.layout.offload == "all":
            self.allocator.take(("copied", name), sum(unit.parts), COPY)
        self.ahead[name] = ("whole", name) if self.flat else ("buffer", name)
        self.allocator.take(self.ahead[name], sum(unit.whole), GATHER)

    def gather(self, name: str, phase: str) -> None:
        """A layer whole. In the forward pass FSDP2 holds its buffer until the next layer has one."""
        if name in self.standing or name not in self.units:
            return
        self.fetch(name)
        self.standing.add(name)
        buffer = self.ahead.pop(name)
        self.allocator.give(self.held)
        if self.flat:
            return
        for size in self.units[name].whole:
            self.allocator.take(("whole", name), size)
        if phase == "forward":
            self.held = buffer
        else:
            self.allocator.give(buffer)

    def release(self, name: str) -> None:
        """Only the rank's part of a layer is left. The host is ahead of the GPU: of FSDP1's layers, which another stream fills,
        the last is still at work when memory for the next is asked for (its rate limiter waits for the one before)."""
        self.standing.discard(name)
        if self.flat:
            self.left, name = name, self.left
            for what in ("whole", "copied"):
                self.allocator.leave((what, self.left))
        for what in ("whole", "copied"):
            self.allocator.give((what, name))

    def reduce(self, name: str, size: int) -> None:
        """Gradients of a layer, of so many bytes, go into a buffer in the type that they are summed in, which stands until the next
        layer's; the rank's part stays."""
        size = size // self.item * self.summed_item
        self.allocator.give(self.summed)
        self.summed = ("summed", name)
        self.allocator.take(self.summed, size)
        if not self.layout.offload:
            self.keep(("gradient", name), size // self.layout.sharers(experts=False), REDUCE)

    def keep(self, thing: object, size: int, stream: str = "") -> None:
        """A gradient that stands until the optimizer's step, or what is added to it."""
        if thing in self.made:
            self.allocator.take("added", size, stream)
            self.allocator.give("added")
            return
        self.made.add(thing)
        self.allocator.take(thing, size, stream)

    def step(self, *, foreach: bool) -> None:
        """The optimizer's step, and what stood until then goes."""
        allocator = self.allocator
        allocator.phase = "step"
        for name, unit in self.units.items() if not self.layout.offload else ():
            if ("states", name) not in allocator.blocks:
                for size in unit.moments:
                    allocator.take(("states", name), size)
        if foreach and not self.layout.offload:
            for unit in self.units.values():
                for size in unit.moments[::2]:
                    allocator.take("copies", size)
            allocator.give("copies")
        for thing in (*self.made, self.summed, self.held, "inputs"):
            allocator.give(thing)
        for name in (*self.standing, self.left):
            self.release(name)
        self.made.clear()


class _Pass(Replay):
    """A micro-batch, forward and backward. On a pipeline gathered layers and their gradients stand from pass to pass."""

    def __init__(self, step: Step, rank: _Rank) -> None:
        self.rank, self.piped = rank, rank.layout.pp > 1
        spans = step.tape.spans
        self.starts = {start: f"{stack}.{layer}" for stack, layer, start, _ in spans}
        self.stops = {stop - 1: f"{stack}.{layer}" for stack, layer, _, stop in spans}
        self.order = [f"{stack}.{layer}" for stack, layer, _, _ in spans]
        self.ready: dict[str, list[Gradient]] = {}
        super().__init__(step.tape, keep_gradients=not step.resident and not rank.divided and step.recipe.optimizer != "lomo")
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


def reserved(blueprint: Blueprint, recipe: Recipe, layout: Layout, *, flat: bool = False, limit: int = 0) -> Reserved:
    """The stage of a layout that reserves most; the rest as ``stages``."""
    return max(stages(blueprint, recipe, layout, flat=flat, limit=limit), key=lambda one: one.reserved)


def stages(blueprint: Blueprint, recipe: Recipe, layout: Layout, *, flat: bool = False, limit: int = 0) -> list[Reserved]:
    """A rank of each stage. ``flat``: FSDP1. ``limit``: what a GPU has for torch, 0 for no end.

    Raises as ``training.Step`` and ``local.rank`` do, and NoAnswer for Megatron and DeepSpeed, whose buffers are their own.
    """
    recipe.check()
    layout.check(blueprint, recipe)
    if recipe.precision == "megatron" or layout.zero not in ("0", "fsdp"):
        raise NoAnswer(f"{blueprint.name}: what Megatron and DeepSpeed reserve is not known; --zero 0 or fsdp, another --precision")
    if layout.pp == 1:
        layout = layout._replace(schedule="1f1b", chunks=1)  # one stage has no schedule
    blueprint = without_formulas(blueprint)
    return [_stage(blueprint, recipe, layout, stage, Watched(limit), flat=flat) for stage in range(layout.pp)]


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


def _stage(blueprint: Blueprint, recipe: Recipe, layout: Layout, stage: int, allocator: Watched, *, flat: bool) -> Reserved:
    # torch's pipelines keep the outputs of the last stage, of all micro-batches, and join them at the end.
    recipe = recipe._replace(seq=recipe.seq // layout.cp, keep_logits=recipe.keep_logits or layout.pp > 1)
    held = [blueprint]
    if layout.tp > 1 or layout.pp > 1:
        held = [local.rank(blueprint, layout, chunk) for chunk in chunks(blueprint, layout)[stage]]
    steps = [Step(one, recipe, seq=recipe.seq, batch=recipe.micro_batch, whole=layout.pp == 1) for one in held]
    units: dict[str, Unit] = {}
    for step in steps:
        for name, unit in _units(tensors(step.parameters), recipe, layout).items():
            before = units.setdefault(name, Unit())
            before.whole += unit.whole
            before.parts += unit.parts
            before.moments += unit.moments
    rank = _Rank(units, recipe, layout, allocator, flat=flat)
    rank.wrap()
    allocator.take("buffers", sum(int(step.parameters.buffer_bytes().value) for step in steps))
    if not rank.divided:
        for step in steps:
            if step.resident:
                allocator.take("gradients", int(step.gradients().value))
    for step in steps if layout.pp > 1 else ():
        for size in _links(step) * layout.micro_batches:
            allocator.take("links", size)
    flying = in_flight(layout, stage)
    again = min(layout.micro_batches, 2)
    outputs = [int(s.size) for s in steps[-1].tape.to_stay] if layout.pp > 1 and stage == layout.pp - 1 else []
    for _ in range(STEPS):
        allocator.phase = "forward"
        for _ in range(2 * layout.micro_batches):
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
                rank.reduce(name, sum(units[name].whole))
                rank.release(name)
        for size in outputs:
            allocator.take("joined", size * layout.micro_batches)
        allocator.give("outputs")
        rank.step(foreach=recipe.foreach)
    kept = tuple(step.replay.saved_bytes for step in steps)
    return Reserved(allocator.peak, allocator.most, allocator.peaks, allocator.parts, kept)
