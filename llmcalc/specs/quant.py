"""What a quantisation spec file may say: tensor formats as exact bits, and which tensors get which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from llmcalc.specs.record import STRICT, Count, Record, Strings, Text, Within

Bits = Annotated[int, Within(1, 64)]
Tensor = Literal[
    "all", "linears", "attention", "q", "k", "v", "o", "ffn", "gate", "up", "down", "experts", "shared_experts",
    "router", "embedding", "lm_head", "norms", "biases", "others", "vision",
]  # fmt: skip


class Overhead(Record):
    """What a format stores beside the weights themselves: ``bits`` for every ``per`` elements of a row or tensor."""

    __pydantic_config__ = STRICT

    name: Text
    """scale, zero point, second-level scale ..."""
    bits: Bits
    per: Annotated[int, Within(1, 10**6)] | Literal["row", "tensor", "block"]
    """Elements that share one; or row (one per output), tensor, or block (one per square of the format's ``tile``)."""


class Format(Record):
    """How a tensor's elements are stored."""

    __pydantic_config__ = STRICT
    NESTED = {"overhead": Overhead}

    bits: Bits
    """Bits of one element."""
    overhead: Sequence[Overhead] = ()
    block: Count | None = None
    """Elements that are packed together: rows that are not a multiple of it cannot have this format."""
    tile: Count | None = None
    """Side of the square tile that shares an overhead ``per: block``."""


class Rule(Record):
    """Tensors that get a format. The first rule that fits decides; a format whose blocks do not divide the rows does not fit."""

    __pydantic_config__ = STRICT

    tensors: list[Tensor]
    format: Text
    """The name of a quantisation (this file's, or another's), whose format is meant."""
    layers: Literal["more-bits", "first-eighth"] | None = None
    """Only these layers of each stack: more-bits is llama.cpp's use_more_bits, first-eighth the first n/8."""
    tied: bool | None = None
    """Only where the head is (or is not) tied to the embedding."""
    moe: bool | None = None
    """Only in models with (or without) a mixture of experts."""


class QuantSpec(Record):
    """A quantisation spec file. Its name is the file's name without ``.yaml``."""

    __pydantic_config__ = STRICT
    NESTED = {"format": Format, "rules": Rule}

    title: Text
    kind: Text
    """What it belongs to, for listing: gguf, gptq ...; float is a plain type, which leaves nothing for --dtype to say."""
    aliases: Sequence[Text] = ()
    format: Format
    """The format that gives the quantisation its name."""
    rules: list[Rule]
    """Which tensors get which format; what no rule fits keeps the model's own dtype."""
    runtimes: Sequence[Text] = ()
    sources: Strings
    note: Text | None = None
