"""Bytes of the weights under a quantisation, tensor by tensor.

A quantisation is a list of rules: the first that fits a tensor gives its format, and a tensor that none fits keeps
the model's own dtype. A format is bits per element and what it stores beside them (scales, zero points, second-level
scales), each rounded up to whole blocks and bytes per tensor.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from llmcalc.blueprint.parts import Blueprint, Weight, product
from llmcalc.quantity import Dim, Quantity, ceil_div, like

DTYPE_BITS = {"fp32": 32, "fp16": 16, "bf16": 16}
PREFIXES = ("expert_", "shared_", "cross_")


class OverheadLike(Protocol):
    """What a format stores beside the elements: ``bits`` per so many elements, per row, per tensor or per tile."""

    name: str
    bits: int
    per: Any


class FormatLike(Protocol):
    """How elements are stored."""

    bits: int
    overhead: Sequence[Any]
    block: int | None
    tile: int | None


class Method(NamedTuple):
    """A quantisation ready to apply: its rules, and the formats that they name."""

    name: str
    rules: tuple[Any, ...]
    formats: Mapping[str, FormatLike]
    sources: tuple[str, ...] = ()


class Share(NamedTuple):
    """Some layers of a tensor, stored in one format (empty: the model's own dtype)."""

    weight: Weight
    layers: tuple[int, ...]
    format: str

    @property
    def depth(self) -> Dim:
        """How many layers (1 outside of them); the tensor's own symbol where it is all of them."""
        count = len(self.layers) or 1
        return self.weight.depth if count == self.weight.depth else Dim(count, "n")


class WeightBytes(NamedTuple):
    """``bits_per_weight`` is over all stored parameters, the unquantised ones too."""

    weight_bytes: int
    bits_per_weight: float
    parts: dict[str, int]


def categories(weight: Weight, tied_head: bool) -> set[str]:
    """The words by which a rule can mean this tensor."""
    if weight.kind == "gain":
        return {"norms", "all"}
    if weight.kind == "bias":
        return {"biases", "all"}
    if weight.role == "embedding":
        # A tied embedding is the head too, and formats chosen for the head win where it is.
        return {"embedding", "all"} | ({"lm_head"} if tied_head else set())
    if weight.kind == "table" or weight.part in ("positions", "pooler", "projection"):
        return {"others", "all"}
    if weight.part in ("lm_head", "router", "vision"):
        return {weight.part, "all"}
    if weight.role == "shared_expert_gate":
        # It weighs the shared expert as the router weighs the others, and is left alone like it.
        return {"router", "all"}
    role = weight.role
    for prefix in PREFIXES:
        role = role.removeprefix(prefix)
    found = {"all", "linears", weight.part, role}
    if weight.part == "cross_attention":
        found.add("attention")
    if role in ("gate", "up", "down"):
        found.add("ffn")
    return found


def _chosen_layers(condition: str | None, weight: Weight, depth: int) -> set[int]:
    """The layers of a tensor that a rule's condition picks."""
    layers = set(weight.layers)
    if condition == "first-eighth":
        return {i for i in layers if i < depth // 8}
    if condition == "more-bits":
        # llama.cpp's use_more_bits: the first and the last eighth, and every third in between.
        return {i for i in layers if i < depth // 8 or i >= 7 * depth // 8 or (i - depth // 8) % 3 == 2}
    return layers


def assign(blueprint: Blueprint, method: Method) -> list[Share]:
    """Which format every tensor gets, split by layers where a rule picks some of them."""
    depths = {stack.name: stack.depth for stack in blueprint.stacks}
    mixture = any(w.part == "experts" for w in blueprint.weights)
    tied = any(w.tied_to for w in blueprint.weights)
    shares = []
    for weight in blueprint.weights:
        if weight.tied_to:
            continue
        means = categories(weight, tied)
        remaining = set(weight.layers) if weight.layers else {-1}
        for rule in method.rules:
            if not remaining:
                break
            if not means & set(rule.tensors) or rule.tied not in (None, tied) or rule.moe not in (None, mixture):
                continue
            if not fits(weight, method.formats[rule.format]):
                continue
            picked = remaining
            if weight.layers and rule.layers:
                picked = remaining & _chosen_layers(rule.layers, weight, depths[weight.stack])
            elif rule.layers:
                continue
            if picked:
                shares.append(Share(weight, _indices(picked), rule.format))
            remaining = remaining - picked
        if remaining:
            shares.append(Share(weight, _indices(remaining), ""))
    return shares


def _indices(layers: set[int]) -> tuple[int, ...]:
    return tuple(sorted(layers - {-1}))


def fits(weight: Weight, form: FormatLike) -> bool:
    """Whether a tensor's rows can be cut into the format's blocks."""
    return form.block is None or not weight.shape or int(weight.shape[-1]) % form.block == 0


def tensor_bytes(shape: tuple[Any, ...], form: FormatLike) -> Any:
    """Bytes of one tensor in a format: elements and overheads, in whole bytes."""
    elements = product(shape)
    total = _packed(elements, form.bits, name="element")
    for overhead in form.overhead:
        if overhead.per == "tensor":
            groups: Any = 1
        elif overhead.per == "row":
            groups = product(shape[:-1])
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
        self.overhead: Sequence[OverheadLike] = []
        self.block: int | None = None
        self.tile: int | None = None


def share_bytes(share: Share, method: Method, dtype: str) -> Any:
    """Bytes of a share, all its layers and copies; ``dtype`` is of what the method leaves alone."""
    weight = share.weight
    form: Any = method.formats[share.format] if share.format else _Own(weight.dtype or dtype)
    return product((share.depth, weight.copies, tensor_bytes(weight.shape, form)))


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
