"""Overrides: a block laid over another, field by field; the kind of every layer of a stack, and which are mixtures."""

from __future__ import annotations

from llmcalc.specs.blocks import Block, Kind, Moe, Stack
from llmcalc.specs.model import ModelSpec

BLOCK_FIELDS = tuple(Block.__annotations__)
# Letters of a pattern that need no definition: windowed and full attention.
BUILT_IN = {"S": Kind(windowed=True), "L": Kind(windowed=False)}


def merged(*blocks: Block) -> Block:
    """One block: for each field, what the last block that says something says."""
    values = {}
    for name in BLOCK_FIELDS:
        for block in reversed(blocks):
            value = getattr(block, name)
            if value is not None:
                values[name] = value
                break
    return Block(**values)


def all_kinds(stack: ModelSpec | Stack) -> dict[str, Kind]:
    """Letter -> kind. A stack that redefines S or L changes what it says of them; windowed or not they stay."""
    known = dict(BUILT_IN)
    for letter, kind in (stack.kinds or {}).items():
        known[letter] = kind
        if letter in BUILT_IN and kind.windowed is None:
            known[letter] = Kind(**{**vars(kind), "windowed": BUILT_IN[letter].windowed})
    return known


def layer_kinds(stack: ModelSpec | Stack, depth: int) -> list[tuple[str, Kind]]:
    """Letter and kind of each of ``depth`` layers; the letter is empty where there is no pattern.

    Raises KeyError for a letter that is neither built in nor among the stack's kinds.
    """
    if stack.pattern is None:
        return [("", Kind())] * depth
    known = all_kinds(stack)
    return [(letter, known[letter]) for letter in (stack.pattern[i % len(stack.pattern)] for i in range(depth))]


def is_mixture(moe: Moe | None, index: int) -> bool:
    """Whether layer ``index`` (from 0) is a mixture: past the dense ones, every n-th, the n-th first."""
    return moe is not None and index >= (moe.first_dense or 0) and (index + 1) % (moe.every or 1) == 0
