"""Collects weights, caches and operations while a model is lowered.

``linear`` is the way to add a linear layer: it writes the weight, its bias and the matrix product together, so
no engine can see one without the other.
"""

from typing import Any, NamedTuple

from llmcalc.blueprint.layers import Further, Norm
from llmcalc.blueprint.parts import ONE, Cache, Op, Weight, product
from llmcalc.quantity import Dim


class Place(NamedTuple):
    """Where records go: the layers of a stack that are built alike, or outside of layers.

    ``owned`` are the layers with weights of their own, ``run`` those that compute (ALBERT runs one twelve times).
    ``prefix`` names the group where a stack has several.
    """

    stack: str
    prefix: str
    owned: tuple[int, ...]
    owned_depth: Dim
    run: tuple[int, ...]
    depth: Dim
    rows: str  # token, encoder_token, patch
    last: bool = False


def before(stack: str, rows: str) -> Place:
    """Before a stack's layers: embeddings, patches. There is one of each."""
    return Place(stack, stack, (), ONE, (), ONE, rows)


def after(stack: str, rows: str) -> Place:
    """After a stack's layers: the final norm, the head."""
    return Place(stack, stack, (), ONE, (), ONE, rows, last=True)


class Draft:
    """The three lists of a blueprint, growing."""

    def __init__(self) -> None:
        self.weights: list[Weight] = []
        self.caches: list[Cache] = []
        self.ops: list[Op] = []

    def weight(self, at: Place, role: str, part: str, kind: str, shape: tuple[Dim, ...], **rest: Any) -> str:
        """Add a tensor and give back its name."""
        name = f"{at.prefix}.{role}"
        self.weights.append(Weight(name, part, role, kind, shape, at.stack, at.owned, at.owned_depth, last=at.last, **rest))
        return name

    def op(self, at: Place, name: str, part: str, kind: str, reads: Any, writes: str, width: Any, **rest: Any) -> None:
        """Add an operation; it runs on the place's rows unless ``rows`` says otherwise."""
        reads = (reads,) if isinstance(reads, str) else tuple(reads)
        rows = rest.pop("rows", at.rows)
        self.ops.append(Op(f"{at.prefix}.{name}", part, kind, rows, at.depth, at.run, reads, writes, width, **rest))

    def linear(
        self, at: Place, role: str, part: str, out: Dim, into: Dim, reads: str, writes: str, *,
        bias: bool = False, split: str = "", copies: Dim = ONE, used: Dim = ONE, rows: str = "", tied_to: str = "",
        fused: str = "", form: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """``y[out] = W[out, into] x[into] (+ b[out])``: weight, bias and product.

        ``copies`` and ``used`` count experts: stored, and gone through by one row.
        """
        group = f"{at.prefix}.{fused}" if fused else ""
        name = self.weight(
            at, role, part, "matrix", (out, into), split=split, copies=copies, used=used, tied_to=tied_to, fused=group
        )
        if bias:
            # A row-split linear adds its bias once, after the sum over ranks.
            self.weight(at, f"{role}.bias", part, "bias", (out,), split="" if split == "row" else split, copies=copies, used=used,
                        fused=f"{group}.bias" if fused else "")  # fmt: skip
        self.op(at, role, part, "matmul", reads, writes, out, inner=into, repeats=used, weight=name, rows=rows or at.rows,
                form=form)  # fmt: skip

    def norm(
        self, at: Place, role: str, norm: Norm, width: Dim, reads: str, writes: str, *, heads: Dim = ONE,
        shared: bool = False, part: str = "norm",
    ) -> None:  # fmt: skip
        """A normalisation over ``width``, for each of ``heads``, with a gain and bias for each where they are not shared."""
        shape = (width,) if heads == 1 or shared else (heads, width)
        if norm.gain:
            self.weight(at, role, part, "gain", shape)
        if norm.bias:
            self.weight(at, f"{role}.bias", part, "bias", shape)
        gain = f"{at.prefix}.{role}" if norm.gain else ""
        self.op(at, role, part, "norm", reads, writes, width if heads == 1 else heads * width, weight=gain, heads=heads,
                form=(norm.kind, norm.form))  # fmt: skip

    def further(self, at: Place, spec: Further, part: str = "") -> None:
        """A tensor that is known by its shape alone, and the products with it."""
        symbols = tuple(Dim(size, str(size), names={}) for size in spec.shape)
        copies, used = (Dim(n, str(n), names={}) for n in (spec.copies, spec.used))
        kind = "matrix" if len(symbols) > 1 and spec.times else "table" if len(symbols) > 1 else "bias"
        part = part or spec.part
        name = self.weight(at, spec.name, part, kind, symbols, copies=copies, used=used, buffer=spec.buffer)
        if spec.times:
            inner = product(symbols[1:])
            repeats = used * spec.times if spec.times > 1 else used
            self.op(at, spec.name, part, "matmul", "x", f"{spec.name}_out", symbols[0], inner=inner, repeats=repeats,
                    weight=name, rows=spec.rows or at.rows)  # fmt: skip

    def state(self, at: Place, role: str, shape: tuple[Dim, ...], dtype: str = "", heads: Dim = ONE) -> None:
        """A state of fixed size that a sequence keeps in each layer."""
        name = f"{at.prefix}.{role}"
        self.caches.append(Cache(name, "state", at.stack, product(shape), at.run, at.depth, heads, per="sequence", dtype=dtype))
