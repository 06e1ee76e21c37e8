"""Follows a tape through forward and backward pass, allocation by allocation, and finds where the memory peaks.

The rules are those of torch's eager mode: an activation dies with its last reader unless kept; the backward pass runs the
kernels in reverse, a kernel's gradients stand beside the gradient it got and what it kept, which go when it is done;
gradients of one tensor are summed in place where nothing else holds them; a checkpointed segment runs again, up to the last
kernel that keeps something, when its backward begins.
"""

from collections import Counter
from typing import NamedTuple

from llmcalc.engines.tape import Kernel, Operand, Segment, Storage, Tape, Tensor


class Moment(NamedTuple):
    """The highest point of a phase: bytes beside what stands all through the step, and of these activations and finished
    gradients; the rest are gradients on their way and what the kernel at work takes for itself."""

    size: int = 0
    kernel: str = ""
    activations: int = 0
    gradients: int = 0

    @property
    def passing(self) -> int:
        """What is neither an activation nor a finished gradient."""
        return self.size - self.activations - self.gradients


class Inside(NamedTuple):
    """What stood at a moment: activations, and finished gradients by parameter."""

    activations: tuple[Storage, ...] = ()
    gradients: tuple[tuple[str, int], ...] = ()


class Gradient:
    """A gradient on its way: bytes, how many hold it, whether it may be summed into."""

    __slots__ = ("holders", "in_place", "size")

    def __init__(self, size: int, in_place: bool) -> None:
        self.size, self.holders, self.in_place = size, 0, in_place


class Replay:
    """One step. ``keep_gradients``: finished ones stay until the optimizer's step; else each goes when it is there (it is
    added to one that stands all the time, or its parameter is updated at once). ``look`` is the phase and size of a moment
    to look into.
    """

    def __init__(self, tape: Tape, *, keep_gradients: bool, look: tuple[str, int] = ("", 0)) -> None:
        self.tape, self.keep_gradients, self.look = tape, keep_gradients, look
        self.phase = "forward"
        self.live = self.activations = self.done = self.highest = 0
        self.peaks = {"forward": Moment(), "backward": Moment()}
        self.inside = Inside()
        self.sizes: dict[Storage, int] = {}
        self.alive: dict[Storage, None] = {}
        self.kept: Counter[Storage] = Counter()
        self.grads: dict[Tensor, Gradient] = {}
        self.finished: dict[str, int] = {}
        self.waiting: Counter[str] = Counter()
        self.leaves: dict[str, Gradient] = {}
        self.segment_of: dict[int, Segment] = {s.stop - 1: s for s in tape.segments}
        inside = {i for s in tape.segments for i in range(s.start, s.stop)}
        self.last_read: dict[Storage, int] = {}
        for index, kernel in enumerate(tape.kernels):
            for operand in kernel.operands:
                self.last_read[operand.tensor.storage] = index
                leaf = operand.tensor.leaf
                if leaf and operand.tensor.needs_grad:
                    self.waiting[leaf] += 1
            for tensor in kernel.outputs:
                self.last_read.setdefault(tensor.storage, index)
            if index not in inside:
                self.kept.update(tensor.storage for tensor in kernel.keeps)
        for segment in tape.segments:
            self.kept.update(segment.captured + segment.saved)
        self.kept.update(tape.to_stay)
        self.saved: tuple[Storage, ...] = ()
        self.saved_bytes = self._forward()
        self.phase, self.highest = "backward", 0
        self._backward()

    def _grow(self, size: int, kernel: str) -> None:
        self.live += size
        if self.live > self.highest:
            self._mark(self.live, kernel)

    def _mark(self, size: int, kernel: str) -> None:
        self.highest = size
        self.peaks[self.phase] = Moment(size, kernel, self.activations, self.done)
        if (self.phase, size) == self.look:
            self.inside = Inside(tuple(self.alive), tuple(self.finished.items()))

    def _taken(self, thing: object, size: int) -> None:
        """Memory is taken for a storage or a gradient. For those who follow an allocator, as the next three."""

    def _given(self, thing: object) -> None:
        """It is given back."""

    def _before(self, index: int) -> None:
        """A kernel runs, forward or backward (``phase``)."""

    def _after(self, index: int) -> None:
        """It has run."""

    def _size(self, storage: Storage) -> int:
        found = self.sizes.get(storage)
        if found is None:
            found = self.sizes[storage] = int(storage.size)
        return found

    def _allocate(self, kernel: Kernel) -> None:
        for tensor in kernel.outputs:
            storage = tensor.storage
            if not storage.held and storage not in self.alive:
                self.alive[storage] = None
                self.activations += self._size(storage)
                self._taken(storage, self._size(storage))
                self._grow(self._size(storage), kernel.label)
        self._work(kernel, kernel.scratch[0], kernel.pieces[0])

    def _work(self, kernel: Kernel, scratch: int, pieces: int) -> None:
        if scratch:
            for _ in range(pieces):
                self._taken(kernel, scratch // pieces)
            if self.live + scratch > self.highest:
                self._mark(self.live + scratch, kernel.label)
            self._given(kernel)

    def _free(self, storage: Storage) -> None:
        if storage in self.alive:
            del self.alive[storage]
            self._given(storage)
            self.live -= self._size(storage)
            self.activations -= self._size(storage)

    def _let_go(self, index: int, kernel: Kernel) -> None:
        """Free what has been read for the last time and is not kept."""
        for tensor in (*(o.tensor for o in kernel.operands), *kernel.outputs):
            storage = tensor.storage
            if self.last_read[storage] <= index and not self.kept[storage] and storage not in self.tape.to_the_end:
                self._free(storage)

    def _forward(self) -> int:
        for index, kernel in enumerate(self.tape.kernels):
            self._before(index)
            self._allocate(kernel)
            self._let_go(index, kernel)
            self._after(index)
        for storage in self.tape.to_the_end:
            if not self.kept[storage]:
                self._free(storage)
        self.saved = tuple(self.alive)
        return self.live

    def _recompute(self, segment: Segment) -> None:
        kernels = self.tape.kernels[segment.start : segment.stop]
        stop = max((i for i, kernel in enumerate(kernels) if kernel.keeps), default=-1)
        for kernel in kernels:
            self.kept.update(tensor.storage for tensor in kernel.keeps)
        for i, kernel in enumerate(kernels[: stop + 1]):
            made = {tensor.storage for tensor in kernel.outputs}
            if i == stop and not any(tensor.storage in made for tensor in kernel.keeps):
                break  # what it keeps is there before it runs, and nothing after it is wanted
            self._allocate(kernel)
            for tensor in (*(o.tensor for o in kernel.operands), *kernel.outputs):
                storage = tensor.storage
                if self.last_read[storage] <= segment.start + i and not self.kept[storage]:
                    self._free(storage)
        for kernel in kernels:
            for tensor in kernel.outputs:
                if not self.kept[tensor.storage]:
                    self._free(tensor.storage)
        for storage in segment.saved:
            self._release(storage)

    def _backward(self) -> None:
        self._mark(self.live, "start")
        kernels = self.tape.kernels
        last = kernels[-1].outputs[0]
        # The loss's own gradient is the caller's.
        root = Gradient(int(last.size), True)
        root.holders = 2
        self.grads[last] = root
        self.live += root.size
        segments = {s.start: s for s in self.tape.segments}
        for index in range(len(kernels) - 1, -1, -1):
            segment = self.segment_of.get(index)
            self._before(index)
            if segment is not None:
                self._recompute(segment)
            self._reverse(kernels[index])
            if index in segments:
                for storage in segments[index].captured:
                    self._release(storage)
            self._after(index)

    def _drop(self, grad: Gradient) -> None:
        grad.holders -= 1
        if not grad.holders:
            self.live -= grad.size
            self._given(grad)

    def _release(self, storage: Storage) -> None:
        self.kept[storage] -= 1
        if not self.kept[storage]:
            self._free(storage)

    def _reverse(self, kernel: Kernel) -> None:
        got = [grad for tensor in kernel.outputs if (grad := self.grads.pop(tensor, None)) is not None]
        new: list[tuple[Operand, Gradient]] = []
        if got:
            for operand in kernel.operands:
                if not operand.tensor.needs_grad:
                    continue
                if operand.grad is None:
                    grad = got[0]
                else:
                    grad = Gradient(int(operand.grad), not (kernel.transposed and operand.tensor.leaf))
                    self._taken(grad, grad.size)
                    self._grow(grad.size, kernel.label)
                grad.holders += 1
                new.append((operand, grad))
            self._work(kernel, kernel.scratch[1], kernel.pieces[1])
        for tensor in kernel.keeps:
            self._release(tensor.storage)
        ready = []
        for operand, grad in new:
            own = int(operand.tensor.size)
            if operand.grad is not None and grad.size != own:
                reduced = Gradient(own, True)
                self._taken(reduced, own)
                self._grow(own, kernel.label)
                reduced.holders = 1
                self._drop(grad)
                ready.append((operand.tensor, reduced))
            else:
                ready.append((operand.tensor, grad))
        for grad in got:
            self._drop(grad)
        for tensor, grad in ready:
            self._accumulate(tensor, grad, kernel)

    def _accumulate(self, tensor: Tensor, grad: Gradient, kernel: Kernel) -> None:
        """Add a gradient to what the tensor has got so far."""
        leaf = tensor.leaf
        before = self.leaves.get(leaf) if leaf else self.grads.get(tensor)
        if before is not None:
            if before.in_place and before.holders == 1:
                self._drop(grad)
                grad = before
            else:
                total = Gradient(before.size, True)
                total.holders = 1
                self._taken(total, total.size)
                self._grow(total.size, kernel.label)
                self._drop(before)
                self._drop(grad)
                grad = total
        if not leaf:
            self.grads[tensor] = grad
            return
        self.waiting[leaf] -= 1
        if self.waiting[leaf]:
            self.leaves[leaf] = grad
            return
        self.leaves.pop(leaf, None)
        self._finish(leaf, grad)

    def _finish(self, leaf: str, grad: Gradient) -> None:
        """A parameter has its gradient."""
        if self.keep_gradients:
            self.finished[leaf] = grad.size
            self.done += grad.size
        else:
            self._drop(grad)
