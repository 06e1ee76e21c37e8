"""What a quantisation spec file may say: tensor formats as exact bits, and which tensors get which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from llmcalc.specs.record import STRICT, Count, Record, Strings, Text, Within

Bits = Annotated[int, Within(1, 64)]
OverheadBits = Annotated[int, Within(1, 10**6)]
Tensor = Literal[
    "all", "linears", "attention", "q", "k", "v", "qkv", "k_b", "v_b", "o", "ffn", "gate", "up", "down", "experts",
    "shared_experts", "router", "embedding", "lm_head", "norms", "biases", "others", "vision", "vision_linears",
]  # fmt: skip


class Overhead(Record):
    """What a format stores beside the weights themselves: ``bits`` for every ``per`` elements of a row or tensor."""

    __pydantic_config__ = STRICT

    name: Text
    """scale, zero point, second-level scale ..."""
    bits: OverheadBits
    per: Annotated[int, Within(1, 10**6)] | Literal["row", "column", "tensor", "block"]
    """Elements that share one; or row (one per output), column (per input), tensor, or block (per square of ``tile``)."""
    file_only: bool | None = None
    """It stands in the file, and what loads the file does not keep it."""


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
    """Tensors that get a format. The first rule that fits decides.

    A format whose blocks do not divide the rows gives way to the rule that stands ``instead_of`` it, and else to the
    rules that follow. All conditions of a rule must hold.
    """

    __pydantic_config__ = STRICT

    tensors: list[Tensor]
    format: Text
    """The name of a quantisation (this file's, or another's), whose format is meant."""
    instead_of: Text | None = None
    """Only where another rule chose this format and its blocks do not divide the rows."""
    layers: Literal["more-bits", "first-eighth", "first-sixteenth", "middle"] | None = None
    """Only these of n: more-bits is llama.cpp's use_more_bits, first-eighth the first n/8, middle all but both outer eighths."""
    first: Count | None = None
    """Only the first so many."""
    counted: Literal["layers", "tensors", "running"] | None = None
    """What ``layers`` and ``first`` count: layers of the stack (unless said), the tensors that the rule means, or these in
    a running count against the number of layers."""
    tied: bool | None = None
    """Only where there is no head but the embedding (or with false, where there is)."""
    moe: bool | None = None
    """Only in models with (or without) a mixture of experts."""
    experts: Count | None = None
    """Only in models of exactly so many routed experts."""
    min_experts: Count | None = None
    """Only in models of at least so many routed experts."""
    min_groups: Count | None = None
    """Only in models with at least so many query heads for each key and value head."""
    depth: Count | None = None
    """Only in models of exactly so many layers."""
    having: Sequence[Text] = ()
    """Only in models with a tensor of each of these roles (v.bias); qkv is there if queries, keys and values are one tensor."""
    lacking: Sequence[Text] = ()
    """Only in models without any tensor of these roles."""


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
    container: Literal["safetensors", "gguf"] | None = None
    """What its files are (safetensors unless said): decides header, alignment, and where a vision tower stands."""
    earlier: Text | None = None
    """The quantisation that older files of the same name are in."""
    runtimes: Sequence[Text] = ()
    sources: Strings
    note: Text | None = None
