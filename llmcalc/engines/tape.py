"""A training step as autograd records it: kernels in order, what each reads, writes and keeps for the backward pass.

The rule of what is kept is autograd's own (torch's ``derivatives.yaml``): a kernel keeps, for each operand that needs a
gradient, the tensors that this gradient is computed from. Tensors that share a storage are kept once. So nothing here asks
whether a base is frozen or an adapter is there: what needs no gradient keeps nothing by itself.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from llmcalc.blueprint.parts import product


class Storage:
    """A block of memory. ``held``: there before the step and after it (weights, buffers, inputs)."""

    __slots__ = ("held", "label", "part", "size")

    def __init__(self, size: Any, label: str, part: str, *, held: bool = False) -> None:
        self.size, self.label, self.part, self.held = size, label, part, held


class Tensor:
    """``elements`` of ``item`` bytes in a storage. ``leaf`` names the parameter that it is."""

    __slots__ = ("elements", "item", "leaf", "needs_grad", "storage")

    def __init__(self, elements: Any, item: int, storage: Storage, *, needs_grad: bool = False, leaf: str = "") -> None:
        self.elements, self.item, self.storage = elements, item, storage
        self.needs_grad, self.leaf = needs_grad, leaf

    @property
    def size(self) -> Any:
        """Bytes."""
        return product((self.item, self.elements))


class Operand(NamedTuple):
    """What a kernel reads. ``keeps``: what its gradient is computed from.

    ``grad`` is the bytes that the gradient takes when it is computed; where that is more than the operand's own (a
    broadcast operand, a wider type) it is summed or cast afterwards. None: the output's gradient is passed on as it is.
    """

    tensor: Tensor
    keeps: tuple[Tensor, ...] = ()
    grad: Any = None


class Kernel(NamedTuple):
    """One kernel. ``scratch`` is bytes that stand only while it runs, forward and backward, in so many ``pieces``.

    ``transposed``: its gradients may not be summed into, as the weight's gradient of a product is a transposed view. ``heavy``:
    not worth computing twice, or not to be computed twice alike (products, attention, dropout).
    """

    label: str
    operands: tuple[Operand, ...]
    outputs: tuple[Tensor, ...]
    keeps: tuple[Tensor, ...]
    needs_grad: bool
    scratch: tuple[int, int] = (0, 0)
    transposed: bool = False
    heavy: bool = False
    pieces: tuple[int, int] = (1, 1)


class Segment(NamedTuple):
    """Kernels ``start`` to ``stop`` that run again in the backward pass: what they read is ``captured``, and of what they made
    ``saved`` is there already, which goes when they have run unless it is kept."""

    start: int
    stop: int
    captured: tuple[Storage, ...]
    saved: tuple[Storage, ...] = ()


class Tape:
    """The kernels of a forward pass, growing."""

    def __init__(self) -> None:
        self.kernels: list[Kernel] = []
        self.segments: list[Segment] = []
        # Kernels of each layer: its stack, its number, where they start and stop.
        self.spans: list[tuple[str, int, int, int]] = []
        # Alive to the end of the forward pass whether kept or not: outputs, autocast's copies of weights.
        self.to_the_end: set[Storage] = set()
        # Alive until the next step, because the caller has them: the loss.
        self.to_stay: set[Storage] = set()
        self.made_at: dict[Storage, int] = {}

    def new(self, elements: Any, item: int, label: str, part: str) -> Tensor:
        """A tensor with a storage of its own."""
        return Tensor(elements, item, Storage(product((item, elements)), label, part))

    def view(self, of: Tensor, elements: Any = None) -> Tensor:
        """The same storage, or a part of it, under another shape."""
        return Tensor(of.elements if elements is None else elements, of.item, of.storage)

    def run(
        self, label: str, operands: Sequence[Operand], outputs: Sequence[Tensor], *,
        also: Sequence[Tensor] = (), scratch: tuple[int, int] = (0, 0), transposed: bool = False, heavy: bool = False,
        pieces: tuple[int, int] = (1, 1),
    ) -> None:  # fmt: skip
        """Record a kernel. ``also`` are tensors that it makes beside its outputs, for its own backward (masks, statistics)."""
        needs = any(operand.tensor.needs_grad for operand in operands)
        kept: dict[Storage, Tensor] = {}
        if needs:
            for tensor in (*(t for o in operands if o.tensor.needs_grad for t in o.keeps), *also):
                if not tensor.storage.held:
                    kept.setdefault(tensor.storage, tensor)
        for tensor in outputs:
            tensor.needs_grad = needs
        for tensor in (*outputs, *also):
            self.made_at.setdefault(tensor.storage, len(self.kernels))
        made = tuple(outputs) if not also else (*outputs, *also)
        self.kernels.append(Kernel(label, tuple(operands), made, tuple(kept.values()), needs, scratch, transposed, heavy, pieces))

    def checkpoint(self, start: int, also: Sequence[Tensor] = (), saved: Sequence[Storage] = ()) -> None:
        """Recompute from ``start`` to here in the backward pass, but for ``saved``; what it reads from before it is kept. Where
        nothing needs a gradient there is nothing to run again, and nothing is kept."""
        if not any(kernel.needs_grad for kernel in self.kernels[start:]):
            return
        captured = dict.fromkeys(t.storage for t in also)
        for kernel in self.kernels[start:]:
            for operand in kernel.operands:
                storage = operand.tensor.storage
                if not storage.held and self.made_at[storage] < start:
                    captured[storage] = None
        self.segments.append(Segment(start, len(self.kernels), tuple(captured), tuple(saved)))

    def wanted(self, start: int, saved: Sequence[Storage]) -> list[Storage]:
        """Of what is ``saved`` since ``start`` that which something kept is, or is computed from without the rest of it."""
        wanted = {tensor.storage for kernel in self.kernels[start:] for tensor in kernel.keeps}
        there = set(saved)
        for kernel in reversed(self.kernels[start:]):
            if any(tensor.storage in wanted and tensor.storage not in there for tensor in kernel.outputs):
                wanted.update(operand.tensor.storage for operand in kernel.operands)
        return [storage for storage in saved if storage in wanted]
