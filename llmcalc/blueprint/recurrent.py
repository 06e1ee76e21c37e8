"""Recurrent mixers: Mamba, Mamba-2, delta nets, RG-LRU, RWKV, lightning attention, short convolution, mLSTM.

Each has projections, mostly a short causal convolution, and a state of fixed size. What is counted of a
recurrence is its matrix products: per token the reading and writing of the state, and where a long sequence is computed in
chunks also the products inside a chunk (rows ``scan_token``, which decoding does not have). States are kept in fp32,
the convolution's last inputs in the model's dtype, as transformers does.
"""

from __future__ import annotations

from llmcalc.blueprint.draft import Draft, Place
from llmcalc.blueprint.layers import Mixer, Norm
from llmcalc.blueprint.parts import ONE
from llmcalc.quantity import Dim

PART = "recurrent"
# The last chunk of a sequence is filled up; the others compute a part of one.
PADDED = ("mamba2", "gated-delta", "kimi-delta")


class _Lowering:
    """One mixer in one place: what the kinds of mixer have in common."""

    def __init__(self, draft: Draft, at: Place, spec: Mixer, h: Dim, reads: str) -> None:
        self.draft, self.at, self.spec, self.h, self.reads = draft, at, spec, h, reads
        self.inner, self.a, self.d = Dim(spec.width, "h_i"), Dim(spec.heads, "a_r"), Dim(spec.head_dim, "d_r")
        self.k, self.d_k = Dim(spec.key_heads, "k_r"), Dim(spec.key_dim, "d_k")
        if spec.key_heads == spec.heads:
            self.k = self.a
        self.n, self.g, self.r = Dim(spec.state, "N"), Dim(spec.groups, "G"), Dim(spec.rank, "r")

    def linear(self, role: str, out: Dim, into: Dim, reads: str = "", writes: str = "", *, bias: bool | None = None) -> None:
        """A projection; it has a bias where the mixer's have, unless said."""
        biased = self.spec.bias if bias is None else bias
        self.draft.linear(self.at, role, PART, out, into, reads or self.reads, writes or role, bias=biased)

    def per_head(self, role: str, out: Dim, into: Dim, reads: str, writes: str) -> None:
        """A projection within each head, block-diagonal over all of them."""
        shape = (out, into) if self.a == 1 else (self.a, out, into)
        name = self.draft.weight(self.at, role, PART, "matrix", shape)
        self.draft.op(self.at, role, PART, "matmul", reads, writes, out, inner=into, repeats=self.a, weight=name)

    def vector(self, role: str, *shape: Dim) -> None:
        """Parameters that are no matrix product: decays, skips, step biases."""
        kind = "bias" if len(shape) == 1 else "table"
        self.draft.weight(self.at, role, PART, kind, shape)

    def gain(self, role: str, width: Dim, of: str) -> None:
        """A norm with a gain."""
        self.draft.norm(self.at, role, Norm("rmsnorm", True, False), width, of, of, part=PART)

    def conv(self, width: Dim, of: str, *, bias: bool | None = None, newest: bool = True) -> None:
        """A depthwise causal convolution and the inputs it has to remember; none where the mixer has no convolution.

        It has a bias where the mixer says so, unless ``bias`` does; its state holds the ``newest`` input too, or those before it.
        """
        if not self.spec.conv:
            return
        taps = Dim(self.spec.conv, "K")
        name = self.draft.weight(self.at, "conv", PART, "conv", (width, taps))
        if self.spec.conv_bias if bias is None else bias:
            self.draft.weight(self.at, "conv.bias", PART, "bias", (width,))
        self.draft.op(self.at, "conv", PART, "matmul", of, of, width, inner=taps, weight=name)
        self.draft.state(self.at, "conv_state", (width, taps if newest else taps - 1))

    def scan(self, reads: tuple[str, ...], out: Dim, products: list[tuple[str, Dim, Dim, Dim]]) -> None:
        """The recurrence: products of (name, repeats, inner, width), inside chunks where the name says so."""
        padded = Dim(self.spec.chunk, "Q") if self.spec.chunk and self.spec.type in PADDED else ONE
        for name, repeats, inner, width in products:
            rows = "scan_token" if name.startswith("chunk") else self.at.rows
            self.draft.op(self.at, name, PART, "matmul", reads, "scanned", width, inner=inner, repeats=repeats, rows=rows,
                          chunk=padded)  # fmt: skip
        self.draft.op(self.at, "scan", PART, "multiply", reads, "scanned", out)

    def state(self, *shape: Dim) -> None:
        """The recurrent state, in fp32."""
        self.draft.state(self.at, "state", shape, "fp32", self.a)

    def chunks(self, qk: Dim, v: Dim, *further: tuple[str, Dim, Dim]) -> list[tuple[str, Dim, Dim, Dim]]:
        """Scores and weighted sums inside a chunk, and ``further`` products (name, inner, width); reading and writing the state.

        A state is handed from chunk to chunk. (transformers' fallback for Mamba-2 sums over all pairs of chunks at once: more by
        (s/Q + 1)^2 state sizes, which no kernel does.)
        """
        q = Dim(self.spec.chunk, "Q")
        inside = [("chunk_scores", qk, q), ("chunk_values", q, v)]
        said = [product for product in (*inside, *further) if self.spec.chunk or not product[0].startswith("chunk")]
        return [(name, self.a, inner, width) for name, inner, width in (*said, ("state_write", qk, v), ("state_read", qk, v))]


def _mamba(low: _Lowering) -> None:
    """Selective state space (Gu and Dao 2023, section 3.6): step size of rank r, B and C of N from the inner state.

    With heads (Zamba) the inner state is split into them, and each has its own step size, B and C.
    """
    spec, i, n, r, d = low.spec, low.inner, low.n, low.r, low.d
    low.linear("in", 2 * i, low.h, writes="inner")
    low.conv(i, "inner")
    low.per_head("x", r + 2 * n, d, "inner", "selection")
    if spec.norm == "inputs":
        for role, width in (("dt_norm", r), ("b_norm", n), ("c_norm", n)):
            low.gain(role, width, "selection")
    low.per_head("dt", d, r, "selection", "step")
    low.vector("dt.bias", i)
    low.vector("A_log", i, n)
    low.vector("D", i)
    low.scan(("inner", "selection", "step"), i, [("state_read", i, n, ONE)])
    low.state(i, n)
    low.linear("out", low.h, i, "scanned", "recurrent_out")


def _mamba2(low: _Lowering) -> None:
    """State space duality (Dao and Gu 2024, section 6): one decay a head, B and C shared in groups."""
    i, mixed = low.inner, low.inner + 2 * low.g * low.n
    low.linear("in", i + mixed + low.a, low.h, writes="inner")
    low.conv(mixed, "inner")
    for role in ("A_log", "D", "dt_bias"):
        low.vector(role, low.a)
    low.scan(("inner",), i, low.chunks(low.n, low.d))
    low.state(low.a, low.d, low.n)
    if low.spec.norm == "gated":
        low.gain("gate_norm", i, "scanned")
    low.linear("out", low.h, i, "scanned", "recurrent_out")


def _gated_delta(low: _Lowering) -> None:
    """Gated delta rule (Yang et al. 2024), as in Qwen3-Next: queries and keys of fewer heads, gate z, step beta, decay a."""
    keys, values = low.k * low.d_k, low.a * low.d
    mixed = 2 * keys + values
    low.linear("qkvz", mixed + values, low.h, writes="inner")
    low.linear("ba", 2 * low.a, low.h, writes="gates")
    low.conv(mixed, "inner")
    low.vector("dt_bias", low.a)
    low.vector("A_log", low.a)
    # Inside a chunk the deltas are a triangular system, solved and not multiplied.
    rule = (("chunk_keys", low.d_k, Dim(low.spec.chunk, "Q")), ("state_old", low.d_k, low.d))
    low.scan(("inner", "gates"), values, low.chunks(low.d_k, low.d, *rule))
    low.state(low.a, low.d_k, low.d)
    low.gain("gate_norm", low.d, "scanned")
    low.linear("out", low.h, values, "scanned", "recurrent_out")


def _kimi_delta(low: _Lowering) -> None:
    """Kimi delta attention (Kimi Linear, section 3): the gated delta rule with a decay per channel, of rank r or full."""
    wide = low.a * low.d
    for role in ("q", "k", "v"):
        low.linear(role, wide, low.h, writes="inner")
    low.conv(3 * wide, "inner")
    for role in ("decay", "gate"):
        if low.r:
            low.linear(f"{role}_a", low.r, low.h, writes=f"{role}_low")
            low.linear(f"{role}_b", wide, low.r, f"{role}_low", role)
        else:
            low.linear(role, wide, low.h)
    low.linear("beta", low.a, low.h)
    low.vector("dt_bias", wide)
    low.vector("A_log", low.a)
    # Decays per channel keep the scores from being matrix products; the triangular system is inverted, and multiplies both sides.
    q = Dim(low.spec.chunk, "Q")
    rule = (("chunk_updates", q, 2 * low.d), ("state_old", low.d, low.d))
    products = [each for each in low.chunks(low.d, low.d, *rule) if each[0] != "chunk_scores"]
    low.scan(("inner", "decay", "beta", "gate"), wide, products)
    low.state(low.a, low.d, low.d)
    low.gain("gate_norm", low.d, "scanned")
    low.linear("out", low.h, wide, "scanned", "recurrent_out")


def _rg_lru(low: _Lowering) -> None:
    """Real-gated linear recurrent unit (Griffin, section 2.4): gates are block-diagonal, one block a head."""
    i = low.inner
    low.linear("y", i, low.h, writes="branch")
    low.linear("x", i, low.h, writes="inner")
    # Remembers the inputs before the newest, one fewer than the convolution is wide.
    low.conv(i, "inner", bias=True, newest=False)
    low.vector("decay", i)
    for role in ("input_gate", "recurrence_gate"):
        low.per_head(role, low.d, low.d, "inner", role)
        low.vector(f"{role}.bias", low.a, low.d)
    low.draft.op(low.at, "scan", PART, "multiply", ("inner", "branch", "input_gate", "recurrence_gate"), "scanned", i)
    low.state(i)
    low.linear("out", low.h, i, "scanned", "recurrent_out")


def _rwkv(low: _Lowering) -> None:
    """RWKV-4 time mixing (Peng et al. 2023, section 3.1). The state also holds the last input of the channel mixing."""
    i, h = low.inner, low.h
    for role in ("time_decay", "time_first"):
        low.vector(role, i)
    for role in ("mix_k", "mix_v", "mix_r"):
        low.vector(role, h)
    for role in ("k", "v", "r"):
        low.linear(role, i, h)
    low.draft.op(low.at, "scan", PART, "multiply", ("k", "v", "r"), "scanned", i)
    low.draft.state(low.at, "token_shift", (2 * h,))
    low.state(3 * i)
    low.linear("out", h, i, "scanned", "recurrent_out")


def _lightning(low: _Lowering) -> None:
    """Lightning attention (MiniMax-01, section 2.2): linear attention with a fixed decay, gated."""
    wide = low.a * low.d
    low.linear("qkv", 3 * wide, low.h, writes="inner")
    low.linear("gate", wide, low.h)
    low.scan(("inner",), wide, low.chunks(low.d, low.d))
    low.state(low.a, low.d, low.d)
    low.gain("output_norm", wide, "scanned")
    low.draft.op(low.at, "gated", PART, "multiply", ("scanned", "gate"), "scanned", wide)
    low.linear("out", low.h, wide, "scanned", "recurrent_out")


def _short_conv(low: _Lowering) -> None:
    """Gated short convolution (LFM2): two gates around a depthwise convolution; the convolution's inputs are the state."""
    i = low.inner
    low.linear("in", 3 * i, low.h, writes="inner")
    low.conv(i, "inner")
    low.linear("out", low.h, i, "inner", "recurrent_out")


def _mlstm(low: _Lowering) -> None:
    """Matrix LSTM (Beck et al. 2024, xLSTM 7B, section 3): a state of d_k x d a head with a normaliser and a maximum."""
    values, keys = low.a * low.d, low.a * low.d_k
    for role, width in (("q", keys), ("k", keys), ("v", values), ("output_gate", values)):
        low.linear(role, width, low.h)
    for role in ("input_gate", "forget_gate"):
        low.linear(role, low.a, low.h, bias=True)
    low.scan(("q", "k", "v", "input_gate", "forget_gate"), values, low.chunks(low.d_k, low.d, ("normaliser_read", low.d_k, ONE)))
    low.draft.state(low.at, "state", (low.a, low.d_k, low.d), heads=low.a)
    low.draft.state(low.at, "normaliser", (low.a, low.d_k + 1), heads=low.a)
    low.gain("output_norm", values, "scanned")
    low.draft.op(low.at, "gated", PART, "multiply", ("scanned", "output_gate"), "scanned", values)
    low.linear("out", low.h, values, "scanned", "recurrent_out")


LOWERINGS = {
    "mamba": _mamba, "mamba2": _mamba2, "gated-delta": _gated_delta, "kimi-delta": _kimi_delta, "rg-lru": _rg_lru,
    "rwkv": _rwkv, "lightning": _lightning, "short-conv": _short_conv, "mlstm": _mlstm,
}  # fmt: skip


def mixer(draft: Draft, at: Place, spec: Mixer, h: Dim, reads: str) -> None:
    """A recurrent mixer of any kind. Writes ``recurrent_out``."""
    LOWERINGS[spec.type](_Lowering(draft, at, spec, h, reads))
