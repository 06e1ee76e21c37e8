"""Overrides: a block laid over another, field by field, and the kind of every layer of a stack."""

from __future__ import annotations

from dataclasses import fields

from llmcalc.specs.model import Block, Kind, ModelSpec, Stack

BLOCK_FIELDS = tuple(f.name for f in fields(Block))
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


def layer_kinds(stack: ModelSpec | Stack, depth: int) -> list[tuple[str, Kind]]:
    """Letter and kind of each of ``depth`` layers; the letter is empty where there is no pattern.

    Raises KeyError for a letter that is neither built in nor among the stack's kinds.
    """
    if stack.pattern is None:
        return [("", Kind())] * depth
    known = {**BUILT_IN, **(stack.kinds or {})}
    return [(letter, known[letter]) for letter in (stack.pattern[i % len(stack.pattern)] for i in range(depth))]
