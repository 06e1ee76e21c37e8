"""Bytes of the weights that one rank of tensor parallelism holds.

Column-parallel matrices are divided by their outputs, row-parallel ones by their inputs, embedding and head by the
vocabulary; what is not divided every rank has whole (Megatron-LM, arXiv:1909.08053, section 3).
"""

from typing import Any

from llmcalc.blueprint.parts import Blueprint, Weight
from llmcalc.engines.mixes import Method, assign
from llmcalc.engines.weights import format_of, tensor_bytes
from llmcalc.quantity import ceil_div


def rank_bytes(
    blueprint: Blueprint,
    method: Method,
    ranks: int,
    dtype: str = "",
    *,
    vocab_multiple: int = 1,
    expert_multiples: tuple[int, int] = (1, 1),
) -> int:
    """Bytes of the fullest of so many ranks; ``dtype`` as for ``weights.size``.

    Runtimes pad: the vocabulary up to ``vocab_multiple`` before it is divided (vLLM: 64), and what kernels take experts in,
    ``expert_multiples`` of the dim that is divided (after that) and of the other.
    """
    heads = {layer: int(op.qk) for op in blueprint.ops if op.kind == "attention" and not op.cross for layer in op.layers}

    def whole(weight: Weight) -> int:
        """Rows that are never divided: a head of keys or values."""
        return heads.get(weight.layers[0], 1) if weight.role in ("k", "v", "k.bias", "v.bias") and weight.layers else 1

    def shape_on(weight: Weight) -> tuple[Any, ...]:
        """The shape of a tensor on one rank."""
        sides = [int(side) for side in weight.shape]
        divided = -1 if weight.split == "row" else 0 if weight.split else None
        if weight.split == "vocab":
            sides[0] = _up(sides[0], vocab_multiple)
        if divided is not None:
            sides[divided] = max(ceil_div(sides[divided], ranks), min(sides[divided], whole(weight)))
        if weight.part == "experts" and weight.kind == "matrix":
            inner = len(sides) - 1 if divided == -1 else 0
            sides = [_up(side, expert_multiples[0 if axis == inner else 1]) for axis, side in enumerate(sides)]
        return tuple(sides)

    total = 0
    for share in assign(blueprint, method):
        weight = share.weight
        form = format_of(share, method, dtype or blueprint.dtype)
        total += int(share.depth) * int(weight.copies) * int(tensor_bytes(shape_on(weight), form))
    return total


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
