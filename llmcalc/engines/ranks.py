"""Bytes of the weights that one rank holds under tensor, pipeline and expert parallelism.

Column-parallel matrices are divided by their outputs, row-parallel ones by their inputs, embedding and head by the
vocabulary; what is not divided every rank has whole (Megatron-LM, arXiv:1909.08053, section 3).
"""

from itertools import pairwise
from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, Weight
from llmcalc.engines.mixes import Method, assign
from llmcalc.engines.weights import format_of, tensor_bytes
from llmcalc.quantity import ceil_div


class Held(NamedTuple):
    """Bytes of one rank by where they stand: before the layers of the last stack, in each of them, after them.

    ``first`` also has every other stack (towers, an encoder); ``table`` is the token embedding's part of it.
    """

    first: int
    layers: tuple[int, ...]
    last: int
    table: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.first + sum(self.layers) + self.last

    def stage(self, start: int, stop: int, *, tied: bool = False) -> int:
        """What a pipeline stage of these layers holds; a tied head is a second copy where it is not the first stage too."""
        held = sum(self.layers[start:stop])
        if start == 0:
            held += self.first
        if stop == len(self.layers):
            held += self.last + (self.table if tied and start > 0 else 0)
        return held


def split_of(weight: Weight) -> str:
    """The axis that is divided. Runtimes divide recurrent mixers as well: all they make of the input by its outputs."""
    if weight.part == "recurrent" and not weight.split and weight.kind != "gain":
        return "row" if weight.role == "out" else "column"
    return weight.split


def rank_layers(
    blueprint: Blueprint,
    method: Method,
    ranks: int,
    dtype: str = "",
    *,
    vocab_multiple: int = 1,
    expert_multiples: dict[str, tuple[int, int, int]] | None = None,
    expert_ranks: int | None = None,
    expert_groups: int = 1,
) -> Held:
    """Bytes of the fullest of so many ranks, by layer; ``dtype`` as for ``weights.size``.

    Runtimes pad: the vocabulary up to ``vocab_multiple`` before it is divided (vLLM: 64), and what kernels take experts in,
    ``expert_multiples`` by format: of the dim that is divided (after that), of the width as read and as written. Experts stand
    whole in ``expert_groups``, and each is divided over ``expert_ranks`` (as all else is, unless said).
    """
    heads = {layer: int(op.qk) for op in blueprint.ops if op.kind == "attention" and not op.cross for layer in op.layers}
    stack = blueprint.stacks[-1]

    def whole(weight: Weight) -> int:
        """Rows that are never divided: a head of keys or values."""
        return heads.get(weight.layers[0], 1) if weight.role in ("k", "v", "k.bias", "v.bias") and weight.layers else 1

    def shape_on(weight: Weight, form: str) -> tuple[Any, ...]:
        """The shape of a tensor on one rank."""
        sides = [int(side) for side in weight.shape]
        split = split_of(weight)
        divided = -1 if split == "row" else 0 if split else None
        over = ranks if weight.part != "experts" or expert_ranks is None else expert_ranks
        if split == "vocab":
            sides[0] = _up(sides[0], vocab_multiple)
        if divided is not None:
            sides[divided] = max(ceil_div(sides[divided], over), min(sides[divided], whole(weight)))
        if weight.part == "experts" and weight.kind == "matrix":
            multiples = (expert_multiples or {}).get(form, (1, 1, 1))
            inner, outer = (len(sides) - 1, multiples[2]) if divided == -1 else (0, multiples[1])
            sides = [_up(side, multiples[0] if axis == inner else outer) for axis, side in enumerate(sides)]
        return tuple(sides)

    first = last = table = 0
    layers = [0] * stack.depth
    for share in assign(blueprint, method):
        weight = share.weight
        form = format_of(share, method, dtype or blueprint.dtype)
        copies = ceil_div(int(weight.copies), expert_groups) if weight.part == "experts" else int(weight.copies)
        one = copies * int(tensor_bytes(shape_on(weight, share.format), form))
        if share.layers and weight.stack == stack.name:
            for layer in share.layers:
                layers[layer] += one
        elif weight.last and weight.stack == stack.name:
            last += one
        else:
            first += one * int(share.depth)
            table += one if weight.role == "embedding" else 0
    return Held(first, tuple(layers), last, table)


def rank_bytes(
    blueprint: Blueprint,
    method: Method,
    ranks: int,
    dtype: str = "",
    *,
    vocab_multiple: int = 1,
    expert_multiples: tuple[int, int] = (1, 1),
) -> int:
    """Bytes of the fullest of so many ranks of tensor parallelism; the same multiples for experts of any format."""
    inner, outer = expert_multiples
    multiples = dict.fromkeys((*method.formats, ""), (inner, outer, outer))
    return rank_layers(blueprint, method, ranks, dtype, vocab_multiple=vocab_multiple, expert_multiples=multiples).total


def stages(layers: int, count: int) -> list[tuple[int, int]]:
    """The layers of so many pipeline stages: as even as can be, what remains to the stages before the last.

    The last has the head besides (vLLM, ``get_pp_indices``).
    """
    share, more = divmod(layers, count)
    sizes = [share] * count
    for index in range(more):
        sizes[count - 2 - index if count > 1 else 0] += 1
    edges = [sum(sizes[:index]) for index in range(count + 1)]
    return list(pairwise(edges))


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
