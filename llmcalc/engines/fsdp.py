"""Fully sharded data parallelism on a rank: what it gathers, sums and holds, asked of an allocator in torch's order.

Zhao et al. 2023, arXiv:2304.11277 (FSDP1: a layer's parameters as one, gathered in place); FSDP2 (torch.distributed.fsdp)
divides each tensor by its rows, gathers into a buffer and copies out of it.
"""

from llmcalc.engines.layout import Layout
from llmcalc.engines.optimizers import states
from llmcalc.engines.recipe import ITEMS, Recipe
from llmcalc.engines.shards import NF4, Share, cut
from llmcalc.engines.watched import Watched
from llmcalc.quantity import ceil_div

GATHER, REDUCE, COPY = "gather", "reduce", "copy"


class Unit:
    """Parameters that are gathered together: a layer, or the root, which is what stands outside of layers.

    ``whole`` are bytes of each gathered tensor, ``parts`` of each of the rank's, ``moments`` of each optimizer state; ``learns`` is
    how many bytes of the whole are trained.
    """

    def __init__(self) -> None:
        self.whole: list[int] = []
        self.parts: list[int] = []
        self.moments: list[int] = []
        self.learns = 0


def units_of(shares: list[Share], recipe: Recipe, layout: Layout) -> dict[str, Unit]:
    """What is gathered together, by layer; the root has no name."""
    found: dict[str, Unit] = {"": Unit()}
    for share in shares:
        item = ITEMS[layout.shard_dtype] if layout.shard_dtype and share.item != NF4 else share.item
        one = share.trained._replace(item=int(item) or 1, tensors=1)
        stepped = cut(share._replace(trained=one), layout)
        part = stepped if layout.level == 3 else one
        for layer in share.layers or [""] * int(share.trained.tensors):
            unit = found.setdefault(f"{share.trained.name.partition('.')[0]}.{layer}" if share.layers else "", Unit())
            unit.whole.append(int(share.item * int(one.elements)))
            unit.parts.append(int(item * int(part.elements)))
            if share.learns:
                unit.learns += unit.whole[-1]
                unit.moments += [int(states([stepped], recipe).states.value) // 2] * 2
    return found


class Rank:
    """What FSDP does on a rank, from pass to pass. ``flat``: FSDP1, which gathers a layer as one parameter and in place; FSDP2
    gathers into a buffer and copies out of it."""

    def __init__(self, units: dict[str, Unit], recipe: Recipe, layout: Layout, allocator: Watched, *, flat: bool) -> None:
        self.units, self.layout, self.allocator, self.flat = units, layout, allocator, flat
        sharers = layout.sharers(experts=False)
        self.divided = layout.level == 3 and sharers > 1
        self.parted = sharers if layout.level == 2 else 1  # how many divide gradients of whole weights
        self.item = recipe.computed_item
        self.own_item = recipe.adapter_item if recipe.adapts else recipe.base_item  # of gradients of whole weights
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

    def part_of(self, size: int) -> int:
        """What a rank holds of so many bytes of gradients of whole weights, in the type that they are held in."""
        reduced = self.layout.reduce_dtype
        return int(ceil_div(size // self.own_item * ITEMS[reduced] if reduced else size, self.parted))

    def keep(self, thing: object, size: int, stream: str = "") -> None:
        """A gradient that stands until the optimizer's step, or what is added to it."""
        if thing in self.made:
            self.allocator.take("added", size, stream)
            self.allocator.give("added")
            return
        self.made.add(thing)
        self.allocator.take(thing, size, stream)

    def settle(self) -> None:
        """The optimizer's states, which stand from the first step on."""
        for name, unit in self.units.items() if not self.layout.offload else ():
            if ("states", name) not in self.allocator.blocks:
                for size in unit.moments:
                    self.allocator.take(("states", name), size)

    def step(self, *, foreach: bool) -> None:
        """The optimizer's step, and what stood until then goes."""
        allocator = self.allocator
        for thing in self.made if self.layout.offload else ():
            allocator.give(thing)
        allocator.phase = "step"
        self.settle()
        allocator.mark()
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
