"""The records of a blueprint: weights, cache entries, operations. Plain data and its own arithmetic.

Sizes are ``Dim``s, ints that know their symbol, so each record can say its formula. Records stand for all the
layers that are built alike: ``layers`` lists those that hold one, and is empty for what stands outside of layers.

Symbols: h hidden, a heads, k KV heads, d head dim, f FFN dim, V vocab, L layers, E experts, E_k experts a token
uses, s tokens of a sequence, b batch, w window, r_q and r_kv MLA's ranks, d_n, d_r, d_v its head dims.
"""

import math
from typing import Any, NamedTuple

from llmcalc.quantity import Dim, least

ONE = Dim(1, "1", names={})


def product(factors: Any) -> Any:
    """Factors multiplied in order, ones left out of the formula."""
    result: Any = 1
    for factor in factors:
        if factor == 1:
            continue
        result = factor if result == 1 else result * factor
    return result


class Weight(NamedTuple):
    """A tensor of parameters, one in each of ``layers`` (or one in all), ``copies`` of it there (experts).

    ``shape`` is as the checkpoint stores it, rows (outputs) first. ``used`` is how many of the copies a token
    goes through. A tied tensor has no elements of its own. ``split`` is the axis that tensor parallelism divides.
    """

    name: str
    part: str
    role: str
    kind: str  # matrix, bias, gain, table, conv
    shape: tuple[Dim, ...]
    stack: str
    layers: tuple[int, ...]
    depth: Dim
    copies: Dim = ONE
    used: Dim = ONE
    split: str = ""  # column, row, vocab; empty: replicated. Expert parallelism divides the copies
    tied_to: str = ""
    buffer: bool = False
    dtype: str = ""  # kept in this one whatever the model's, unless a quantiser takes it
    last: bool = False  # outside of layers and after them, on the last pipeline stage
    fused: str = ""  # stored and computed as one tensor with those of the same group

    @property
    def size(self) -> Any:
        """Elements of one copy in one layer."""
        return product(self.shape)

    @property
    def count(self) -> Any:
        """Elements in all copies and layers; 0 where tied."""
        return product((self.depth, self.copies, *self.shape)) if not self.tied_to else 0

    @property
    def active(self) -> Any:
        """Elements that one token uses; routed experts by the share ``used`` of ``copies``."""
        return product((self.depth, self.used, *self.shape)) if not self.tied_to else 0

    @property
    def elements(self) -> int:
        """``count`` as a plain int, without the formula."""
        return 0 if self.tied_to else int(self.depth) * int(self.copies) * math.prod(map(int, self.shape))

    @property
    def active_elements(self) -> int:
        """``active`` as a plain int, without the formula."""
        return 0 if self.tied_to else int(self.depth) * int(self.used) * math.prod(map(int, self.shape))


class Cache(NamedTuple):
    """What inference keeps: ``width`` elements per token (or per sequence) in each of ``layers``.

    ``per`` is token (of the decoder, up to ``window``), encoder_token, or sequence (states of fixed size).
    ``heads`` is the number that tensor parallelism may divide by, 1 for latents, which every rank holds whole.
    """

    name: str
    kind: str  # kv, latent, cross, index, state
    stack: str
    width: Any
    layers: tuple[int, ...]
    depth: Dim
    heads: Dim
    window: Any = None
    per: str = "token"
    dtype: str = ""  # of the cache unless said

    def tokens(self, context: Any) -> Any:
        """Tokens held at this context: all of them, or the window's."""
        if self.per == "sequence":
            return ONE
        return context if self.window is None else least(context, self.window)

    def elements(self, context: Any) -> Any:
        """Elements held for one sequence at this context (of the encoder, for cross-attention)."""
        return product((self.depth, self.width, self.tokens(context)))


class Op(NamedTuple):
    """One operation of a layer's forward pass, applied ``repeats`` times to each row.

    kind        cost                                               dims
    matmul      2 x rows x inner x width                           inner: k, width: n
    attention   2 x pairs x heads x (qk + v)                       heads, qk, v: per head
    norm, activation, multiply, lookup, add, rotary, dropout,      not counted, they are no matrix products; listed for what
    scale, softcap, loss                                           a backward pass keeps of them

    ``rows`` says what a row is: token, encoder_token, patch and image_token (of an image), sequence (one per sequence),
    logit (one per token that needs a prediction), scan_token (a token, where a sequence is computed in chunks and not step by
    step), pass (one, whatever the batch). ``reads`` and ``writes`` name the
    activations within the layer; ``width`` is the elements per row written. ``form`` says how it is computed, where there are
    several ways that cost alike and keep different things: the kind of a norm, the function of an activation.
    """

    name: str
    part: str
    kind: str
    rows: str
    depth: Dim
    layers: tuple[int, ...]
    reads: tuple[str, ...]
    writes: str
    width: Any
    inner: Any = ONE
    repeats: Dim = ONE
    weight: str = ""
    heads: Any = ONE
    qk: Any = ONE
    v: Any = ONE
    window: Any = None
    causal: bool = False
    cross: bool = False
    chunked: bool = False
    pool: Any = ONE  # keys that are scored as one
    chunk: Any = ONE  # a sequence is padded to a multiple of it
    # Attention over latents costs more per pair when it reads them from the cache (absorbed form).
    cached_qk: Any = None
    cached_v: Any = None
    form: tuple[str, ...] = ()

    def matmul_flops(self, rows: Any) -> Any:
        """FLOPs of a matrix product over ``rows`` rows: a multiply and an add count 2."""
        return product((2, rows, self.depth, self.repeats, self.inner, self.width))

    def attention_flops(self, pairs: Any, *, cached: bool = False) -> Any:
        """FLOPs of scores and weighted sum over ``pairs`` query-key pairs."""
        qk, v = (self.cached_qk, self.cached_v) if cached and self.cached_qk is not None else (self.qk, self.v)
        return product((2, pairs, self.depth, self.heads)) * (qk + v)


class StackShape(NamedTuple):
    """Name, depth and width of a stack of layers, in the order data flows."""

    name: str
    depth: int
    hidden: int


class Blueprint(NamedTuple):
    """A model, lowered: everything an engine may know of it.

    ``generates``: one token after the other, from a cache. ``patches`` and ``image_tokens`` are of one image, 0 without
    a vision tower. ``unknown_cache`` says why the cache cannot be told, where it cannot. ``fused`` are roles that the files keep
    several weights under (qkv), where files are known.
    """

    name: str
    stacks: tuple[StackShape, ...]
    weights: tuple[Weight, ...]
    caches: tuple[Cache, ...]
    ops: tuple[Op, ...]
    context: int | None
    dtype: str
    estimate: bool
    has_encoder: bool
    generates: bool
    patches: int
    image_tokens: int
    unknown_cache: str = ""
    fused: tuple[str, ...] = ()

    def encoder_tokens(self, asked: int | None, context: int) -> int:
        """What the encoder beside a decoder reads: as asked, else as much as the decoder has.

        A decoder that attends to images (Llama 3.2 Vision) has as many of their tokens as asked, else none; all others 0.
        """
        if self.has_encoder:
            return context if asked is None else asked
        return asked or 0 if any(cache.per == "encoder_token" for cache in self.caches) else 0


def without_formulas(blueprint: Blueprint) -> Blueprint:
    """The same blueprint in plain ints: every engine computes the same on it, several times as fast, and explains nothing."""

    def bare(record: tuple[Any, ...]) -> list[Any]:
        return [int(value) if isinstance(value, Dim) else tuple(bare(value)) if type(value) is tuple else value for value in record]

    return blueprint._replace(
        weights=tuple(Weight(*bare(weight)) for weight in blueprint.weights),
        caches=tuple(Cache(*bare(cache)) for cache in blueprint.caches),
        ops=tuple(Op(*bare(op)) for op in blueprint.ops),
    )


def pairs(op: Op, queries: Any, keys: Any, *, causal_mask: bool) -> Any:
    """Query-key pairs of one sequence that an attention computes.

    With the full mask every query meets every key, in windowed layers too, as eager kernels do. With the causal
    one, ``s (s + 1) / 2`` pairs, and of a window w only the last w keys of each query. A layer that looks both ways
    keeps the square, and of a window half on each side.
    """
    if op.pool != 1:
        return (queries * keys if not causal_mask else keys * (keys + 1) // 2) // op.pool
    if op.cross or not causal_mask:
        return queries * keys
    if not op.causal:
        side = None if op.window is None else op.window // 2
        if side is None or side >= keys:
            return queries * keys
        return keys * (2 * side + 1) - side * (side + 1)
    if op.window is None or op.window >= keys:
        return keys * (keys + 1) // 2
    if op.chunked:
        whole = keys // op.window
        rest = keys - whole * op.window
        return whole * (op.window * (op.window + 1) // 2) + rest * (rest + 1) // 2
    return op.window * keys - op.window * (op.window - 1) // 2
