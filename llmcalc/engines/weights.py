"""Bytes of the weights under a quantisation, tensor by tensor.

Rules say which tensor gets which format (``engines.mixes``). A format is bits per element and what it stores beside them
(scales, zero points, second-level scales), each rounded up to whole blocks and bytes per tensor.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, product
from llmcalc.engines.mixes import FormatLike, Method, Share, assign
from llmcalc.quantity import Quantity, ceil_div, like

__all__ = ["Method", "Share", "WeightBytes", "assign", "explain", "share_bytes", "size", "tensor_bytes"]

DTYPE_BITS = {"fp32": 32, "fp16": 16, "bf16": 16}


class WeightBytes(NamedTuple):
    """``bits_per_weight`` is over all stored parameters, the unquantised ones too."""

    weight_bytes: int
    bits_per_weight: float
    parts: dict[str, int]


def tensor_bytes(shape: tuple[Any, ...], form: FormatLike, *, on_disk: bool = False) -> Any:
    """Bytes of one tensor in a format: elements and overheads, in whole bytes; ``on_disk``, those that only files have too."""
    elements = product(shape)
    total = _packed(elements, form.bits, name="element")
    for overhead in form.overhead:
        if overhead.file_only and not on_disk:
            continue
        if overhead.per == "tensor":
            groups: Any = 1
        elif overhead.per == "row":
            groups = product(shape[:-1])
        elif overhead.per == "column":
            groups = shape[-1]
        elif overhead.per == "block":
            groups = product([ceil_div(side, form.tile or 1) for side in shape[-2:]])
        else:
            groups = ceil_div(elements, overhead.per)
        total = total + _packed(groups, overhead.bits)
    return total


def _packed(count: Any, bits: int, name: str = "") -> Any:
    """Whole bytes of ``count`` values of so many bits; the values named, they have a symbol."""
    if bits % 8 == 0:
        width = like(count, bits // 8, f"bytes_per_{name}") if name else bits // 8
        return product((count, width))
    return ceil_div(count * (like(count, bits, f"bits_per_{name}") if name else bits), 8)


class _Own:
    """The model's own dtype as a format."""

    def __init__(self, dtype: str) -> None:
        self.bits = DTYPE_BITS[dtype]
        self.overhead: Sequence[Any] = []
        self.block: int | None = None
        self.tile: int | None = None


def format_of(share: Share, method: Method, dtype: str) -> FormatLike:
    """The format of a share; ``dtype`` is of what the method leaves alone."""
    return method.formats[share.format] if share.format else _Own(share.weight.dtype or dtype)


def share_bytes(share: Share, method: Method, dtype: str) -> Any:
    """Bytes of a share, all its layers and copies; ``dtype`` is of what the method leaves alone."""
    weight = share.weight
    return product((share.depth, weight.copies, tensor_bytes(weight.shape, format_of(share, method, dtype))))


def size(blueprint: Blueprint, method: Method, dtype: str = "") -> WeightBytes:
    """Bytes of all tensors; what no rule touches is in ``dtype`` (the model's own unless given)."""
    parts: dict[str, int] = {}
    elements = 0
    for share in assign(blueprint, method):
        stored = int(share_bytes(share, method, dtype or blueprint.dtype))
        parts[share.weight.part] = parts.get(share.weight.part, 0) + stored
        if not share.weight.buffer:
            elements += share.weight.elements // int(share.weight.depth) * int(share.depth)
    total = sum(parts.values())
    return WeightBytes(total, 8 * total / elements, parts)


def explain(blueprint: Blueprint, method: Method, dtype: str = "") -> Quantity:
    """The weight bytes as a tree: components, then tensors with their format."""
    own = dtype or blueprint.dtype
    parts: dict[str, list[Quantity]] = {}
    for share in assign(blueprint, method):
        label = share.weight.name
        if share.depth != share.weight.depth:
            label += f" ({int(share.depth)} of {int(share.weight.depth)} layers)"
        parts.setdefault(share.weight.part, []).append(
            Quantity.of(label, share_bytes(share, method, own), "bytes", note=share.format or own)
        )
    rows = [Quantity.sum(part, "bytes", tensors) for part, tensors in parts.items()]
    source = "; ".join((f"{method.name}, and {own} where it leaves a tensor alone", *method.sources))
    return Quantity.sum("weight_bytes", "bytes", rows, source=source if method.rules else f"every tensor in {own}")
