"""An allocator that knows what its memory is for: the parts of the highest point of a step, and the highest point of each phase."""

from llmcalc.engines.caching import Allocator
from llmcalc.engines.replay import Gradient
from llmcalc.engines.tape import Kernel, Storage
from llmcalc.engines.training import PARTS, PHASES

# What a thing is counted as, by its name or its kind.
PART: dict[object, str] = {
    "part": "parameters", "buffers": "buffers", "inputs": "inputs", "states": "optimizer",
    **dict.fromkeys(("gradient", "gradients", "accumulated"), "gradients"),
    **dict.fromkeys(("wrapped", "flat", "copied", "whole", "buffer", "summed"), "gathered"),
    **dict.fromkeys((Storage, "waiting", "outputs", "joined", "links"), "activations"),
    **dict.fromkeys((Gradient, Kernel, "added", "copies"), "temporaries"),
}  # fmt: skip


class Watched(Allocator):
    """An allocator that knows what its memory is for, and in which phase it is asked."""

    def __init__(self, limit: int = 0) -> None:
        super().__init__(limit)
        self.phase = PHASES[0]
        self.peaks = dict.fromkeys(PHASES, 0)
        self.now = dict.fromkeys(PARTS, 0)
        self.parts = dict(self.now)
        self.finished: set[object] = set()

    def take(self, thing: object, size: int, stream: str = "") -> None:
        """As the allocator does."""
        before, highest = self.allocated, self.peak
        super().take(thing, size, stream)
        self.now[self._part(thing)] += self.allocated - before
        self.mark()
        if self.peak > highest:
            self.parts = dict(self.now)

    def mark(self) -> None:
        """What stands as a phase begins is of the phase, even where nothing is taken in it."""
        self.peaks[self.phase] = max(self.peaks[self.phase], self.allocated)

    def leave(self, thing: object) -> None:
        """As the allocator does."""
        before, there = self.allocated, thing in self.blocks
        super().leave(thing)
        if not there:
            return
        self.now[self._part(thing)] -= before - self.allocated
        self.finished.discard(thing)

    def finish(self, thing: object) -> None:
        """A gradient is no longer on its way."""
        size = sum(block.size for block in self.blocks.get(thing, ()))
        self.now[self._part(thing)] -= size
        self.finished.add(thing)
        self.now["gradients"] += size

    def _part(self, thing: object) -> str:
        if thing in self.finished:
            return "gradients"
        return PART.get(type(thing)) or PART[thing[0] if isinstance(thing, tuple) else thing]
