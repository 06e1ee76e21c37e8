"""What inference keeps: keys and values, latents, recurrent states, cross-attention, sparse-attention indexes.

Conventions: windowed layers are capped at min(context, window); multi-head latent attention stores its
latent and one rotary key (DeepSeek-V2, section 2.1.4), not the expanded heads; states keep their own dtype. Cross-attention,
states and indexes are counted beside the attention cache, not in it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, Cache, product
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Dim, Quantity, ceil_div, like

# Bits of one element, block scales included: what runtimes offer for the cache.
CACHE_BITS = {
    "fp32": (32, 1), "bf16": (16, 1), "fp16": (16, 1), "fp8": (8, 1), "int8": (8, 1),
    "q8_0": (17, 2), "q5_1": (6, 1), "q5_0": (11, 2), "q4_1": (5, 1), "q4_0": (9, 2), "int4": (4, 1),
}  # fmt: skip
ATTENTION = ("kv", "latent")
GROUPS = {"kv": ATTENTION, "cross": ("cross",), "state": ("state",), "index": ("index",)}


class CacheSize(NamedTuple):
    """Bytes for the whole batch, and per token of one sequence.

    ``bytes_per_token`` is what one more token adds once every window is full;
    ``bytes_per_token_windowed`` what it adds before, with the windowed layers.
    """

    kv_bytes: int
    bytes_per_token: int
    bytes_per_token_windowed: int
    state_bytes: int
    cross_bytes: int
    index_bytes: int

    @property
    def total(self) -> int:
        """Everything that is kept."""
        return self.kv_bytes + self.state_bytes + self.cross_bytes + self.index_bytes


def _bits(cache: Cache, dtype: str) -> tuple[int, int]:
    return CACHE_BITS[cache.dtype or dtype]


def _bytes(cache: Cache, elements: Any, dtype: str) -> Any:
    """Elements -> bytes. Whole bytes for the plain dtypes; block formats are rounded up to one."""
    over, under = _bits(cache, dtype)
    if over % (8 * under) == 0:
        return product((elements, like(elements, over // (8 * under), "bytes_per_element")))
    bits = elements * over if under == 1 else ceil_div(elements * over, under)
    return ceil_div(bits, 8)


def _held(cache: Cache, context: Any, encoder_context: Any) -> Any:
    return cache.elements(encoder_context if cache.per == "encoder_token" else context)


def entry_bytes(cache: Cache, context: int, batch: int, dtype: str, encoder_context: int = 0) -> int:
    """Bytes of one entry, in all its layers, for the whole batch."""
    return int(_bytes(cache, batch * _held(cache, context, encoder_context), dtype))


def entries(blueprint: Blueprint, group: str) -> Iterator[Cache]:
    """The blueprint's cache entries of a group: kv, cross, state, index."""
    return (cache for cache in blueprint.caches if cache.kind in GROUPS[group])


def size(blueprint: Blueprint, context: int, batch: int = 1, dtype: str = "bf16", encoder_context: int = 0) -> CacheSize:
    """Cache of ``batch`` sequences at ``context`` tokens each. Raises NoAnswer where its layout is not known."""
    if blueprint.unknown_cache:
        raise NoAnswer(f"{blueprint.name}: the cache is not known: {blueprint.unknown_cache}")

    def total(group: str) -> int:
        return sum(entry_bytes(c, context, batch, dtype, encoder_context) for c in entries(blueprint, group))

    def rate(windowed: bool) -> int:
        growing = (c for c in entries(blueprint, "kv") if windowed or c.window is None)
        return sum(int(_bytes(c, int(c.depth) * int(c.width), dtype)) for c in growing)

    return CacheSize(total("kv"), rate(False), rate(True), total("state"), total("cross"), total("index"))


def convention(blueprint: Blueprint) -> str:
    """What the figures take for granted about this model, in words."""
    kinds = {cache.kind for cache in blueprint.caches}
    said = []
    if not kinds:
        return "no cache: the model keeps nothing between tokens"
    if "kv" in kinds:
        keeping = {layer for cache in blueprint.caches if cache.kind == "kv" for layer in cache.layers}
        depth = blueprint.stacks[-1].depth
        said.append(
            "keys and values of every layer" if len(keeping) == depth else f"keys and values of {len(keeping)} of {depth} layers"
        )
    if "latent" in kinds:
        said.append("the latent and rotary key of multi-head latent attention, not the expanded heads")
    windows = sorted({int(c.window) for c in blueprint.caches if c.window is not None})
    if windows:
        said.append("windowed layers capped at min(context, " + "/".join(map(str, windows)) + ")")
    if "state" in kinds:
        said.append("recurrent states in their own dtype")
    if "index" in kinds:
        said.append("keys of the sparse attention's index apart")
    if "cross" in kinds:
        said.append("cross-attention apart, per token of the encoder")
    return "; ".join(said)


def explain(
    blueprint: Blueprint, context: int, batch: int = 1, dtype: str = "bf16", encoder_context: int = 0, group: str = "kv"
) -> Quantity:
    """A group's bytes as a tree, one part for each kind of layer."""
    b, s, s_enc = Dim(batch, "b"), Dim(context, "s"), Dim(encoder_context, "s_enc")
    parts = [
        Quantity.of(c.name, _bytes(c, product((b, _held(c, s, s_enc))), dtype), "bytes",
                    note=f"{c.dtype or dtype} elements" + (f"; window {int(c.window)}" if c.window else ""))
        for c in entries(blueprint, group)
    ]  # fmt: skip
    names = {"kv": "kv_bytes", "cross": "cross_bytes", "state": "state_bytes", "index": "index_bytes"}
    return Quantity.sum(names[group], "bytes", parts, source=convention(blueprint))


def explain_rate(blueprint: Blueprint, dtype: str = "bf16") -> Quantity:
    """Growth per token past every window, as a tree."""
    parts = [
        Quantity.of(c.name, _bytes(c, product((c.depth, c.width)), dtype), "bytes")
        for c in entries(blueprint, "kv")
        if c.window is None
    ]
    return Quantity.sum("bytes_per_token", "bytes", parts, source="layers without a window; the others stop growing")
