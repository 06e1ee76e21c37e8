"""Attention: multi-head, grouped and multi-query; latent (MLA); cross-attention; with windows, sinks, QK-norms."""

from __future__ import annotations

from llmcalc.blueprint.draft import Draft, Place
from llmcalc.blueprint.layers import Attention, Norm
from llmcalc.blueprint.parts import ONE, Cache
from llmcalc.quantity import Dim

PART = "attention"


def _window(spec: Attention) -> Dim | None:
    return Dim(spec.window, "w") if spec.window else None


def _qk_norm(draft: Draft, at: Place, spec: Attention, norm: Norm, a: Dim, k: Dim, d: Dim) -> None:
    """Gains over one head (shared by all), over each head, or over all heads at once."""
    if spec.qk_norm_bias is not None:
        norm = norm._replace(bias=spec.qk_norm_bias)
    for name, heads in (("q", a), ("k", k)):
        if spec.qk_norm == "head":
            # The gain is shared, the norm still runs over every head.
            draft.norm(at, f"{name}_norm", norm, d, name, name, heads=heads, shared=True)
        elif spec.qk_norm == "per-head":
            draft.norm(at, f"{name}_norm", norm, d, name, name, heads=heads)
        elif spec.qk_norm == "full":
            draft.norm(at, f"{name}_norm", norm, heads * d, name, name)


def self_attention(draft: Draft, at: Place, spec: Attention, norm: Norm, h: Dim, reads: str, into: Dim | None = None) -> None:
    """Queries, keys and values from the hidden state, softmax(QK')V, output projection. Writes ``attention_out``.

    ``into`` is the width of what it reads, where that is not the hidden state's.
    """
    into = h if into is None else into
    if spec.kv_rank:
        latent_attention(draft, at, spec, norm, h, reads)
        return
    a, k, d = Dim(spec.heads, "a"), Dim(spec.kv_heads, "k"), Dim(spec.qk_dim, "d")
    if spec.kv_heads == spec.heads:
        k = a
    v = d if spec.v_dim == spec.qk_dim else Dim(spec.v_dim, "d_v")
    made = [("q", a * d), ("k", k * d), ("v", k * v)]
    if spec.reuses_kv == "projections":
        made = made[:1]
    elif spec.values_are_keys:
        made = made[:2]
    if spec.experts:
        _query_experts(draft, at, spec, k * d, into, reads)
        made = made[1:]
    for role, width in made:
        draft.linear(at, role, PART, width, into, reads, role, bias=role in spec.biases, split="column",
                     fused="qkv" if spec.fused else "")  # fmt: skip
    if spec.global_projections:
        # Longformer: global tokens have projections of their own; few rows go through them, none are counted.
        for role, width in (("q_global", a * d), ("k_global", k * d), ("v_global", k * v)):
            draft.weight(at, role, PART, "matrix", (width, into), split="column")
            if role[0] in spec.biases:
                draft.weight(at, f"{role}.bias", PART, "bias", (width,), split="column")
    _qk_norm(draft, at, spec, norm, a, k, d)
    if spec.rotary:
        turned = d if spec.rotary == spec.qk_dim else Dim(spec.rotary, "d_r")
        for (role, width), heads in zip(made[:2], (a, k), strict=False):
            draft.op(at, f"{role}_rotary", PART, "rotary", role, role, width, inner=turned, heads=heads)
    if spec.sinks:
        draft.weight(at, "sinks", PART, "table", (a,), split="column")
    # Keys that serve as values, and those of an earlier layer, are read and not made.
    scored = [*(["q"] if spec.experts else []), *(role for role, _ in made)]
    if spec.relative_rows:
        scored += _disentangled(draft, at, Dim(spec.relative_rows, "P"), h, a, d)
    scored += _index(draft, at, spec, h, into, "x")
    if spec.differential:
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            draft.weight(at, name, PART, "bias", (d,))
    # A differential attention runs once for each half of the value heads.
    draft.op(at, "scores", PART, "attention", scored, "mixed", a * v, heads=2 * a if spec.differential else a, qk=d, v=v,
             window=_window(spec), causal=spec.causal, chunked=spec.chunked, form=spec.form)  # fmt: skip
    if spec.causal and spec.reuses_kv == "none":
        width = 2 * k * d if v is d else k * (d + v)
        draft.caches.append(Cache(f"{at.prefix}.kv", "kv", at.stack, width, at.run, at.depth, k, _window(spec)))
    if spec.experts:
        _output_experts(draft, at, spec, h, k * v)
    else:
        _output(draft, at, spec, h, a * v, a, into, reads)


def _chosen(spec: Attention) -> tuple[Dim, Dim]:
    """Experts of an attention, and those that a token uses: all its query heads are theirs, one for each KV head."""
    return Dim(spec.experts, "E_a"), Dim(spec.heads // spec.kv_heads, "E_ak")


def _query_experts(draft: Draft, at: Place, spec: Attention, width: Dim, into: Dim, reads: str) -> None:
    """A mixture of query projections (JetMoE, section 2.3): each gives one query per KV head."""
    copies, used = _chosen(spec)
    draft.linear(at, "attention_router", "router", copies, into, reads, "attention_routed")
    draft.linear(at, "q", PART, width, into, reads, "q", split="column", copies=copies, used=used)


def _output_experts(draft: Draft, at: Place, spec: Attention, h: Dim, width: Dim) -> None:
    """The output projections of the same experts, summed by the router's weights, and one bias after the sum."""
    copies, used = _chosen(spec)
    draft.linear(at, "o", PART, h, width, "mixed", "o", split="row", copies=copies, used=used)
    if "o" in spec.biases:
        draft.weight(at, "o.bias", PART, "bias", (h,))
    draft.op(at, "attention_combine", PART, "add", ("o", "attention_routed"), "attention_out", h)


def _output(draft: Draft, at: Place, spec: Attention, h: Dim, mixed: Dim, a: Dim, into: Dim, reads: str) -> None:
    """The output projection, behind a gate where there is one."""
    if spec.output_gate != "none":
        width = mixed if spec.output_gate == "full" else a
        draft.linear(at, "output_gate", PART, width, into, reads, "output_gate", split="column", bias="output_gate" in spec.biases)
        draft.op(at, "gated", PART, "multiply", ("mixed", "output_gate"), "mixed", mixed)
    draft.linear(at, "o", PART, h, mixed, "mixed", "attention_out", bias="o" in spec.biases, split="row")


def _index(draft: Draft, at: Place, spec: Attention, h: Dim, queries_from: Dim, reads: str) -> list[str]:
    """The index of sparse attention (DeepSeek-V3.2, section 2.1): a few small heads score all tokens, the best are attended to.

    One key per token is cached for it; pools by a learned average also keep the weights of their tokens, and which are real.
    The figures count the scores over all tokens and, with the full mask, attention over all. Gives what it writes, if there is one.
    """
    index = spec.sparse_index
    if index is None:
        return []
    a_i, d_i, p_i = Dim(index.heads, "a_i"), Dim(index.dim, "d_i"), Dim(index.pool, "p_i") if index.pool > 1 else ONE
    width, weighted = d_i, index.type != "blocks"
    draft.linear(at, "index_q", PART, a_i * d_i, queries_from, reads, "index_q")
    draft.linear(at, "index_k", PART, d_i, h, "x", "index_k")
    if not weighted:
        draft.norm(at, "index_q_norm", Norm("rmsnorm", True, False), d_i, "index_q", "index_q", part=PART)
    draft.norm(
        at, "index_k_norm", Norm("layernorm" if weighted else "rmsnorm", True, weighted), d_i, "index_k", "index_k", part=PART
    )
    scored = ["index_q", "index_k"]
    if weighted:
        draft.linear(at, "index_weights", PART, a_i, h, "x", "index_weights")
        scored.append("index_weights")
    if index.type == "pools":
        draft.linear(at, "index_pool_gate", PART, d_i, h, "x", "index_pool_gate")
        draft.weight(at, "index_pool_positions", PART, "table", (p_i, d_i))
        scored.append("index_pool_gate")
        width = 2 * d_i + 1
    # Where the heads are weighted by a product, it is one more per head and pair.
    draft.op(at, "index_scores", PART, "attention", scored, "indexed", a_i, heads=a_i, qk=d_i,
             v=ONE if weighted else Dim(0, "0"), causal=spec.causal, pool=p_i)  # fmt: skip
    draft.caches.append(Cache(f"{at.prefix}.index", "index", at.stack, width, at.run, at.depth, Dim(1, "1")))
    return ["indexed"]


def _disentangled(draft: Draft, at: Place, rows: Dim, h: Dim, a: Dim, d: Dim) -> list[str]:
    """DeBERTa's two further scores (He et al. 2020, section 3.1): content to position and position to content.

    The table of relative positions goes through the layer's own query and key projections, once per pass.
    """
    for role in ("q", "k"):
        draft.op(at, f"{role}_positions", PART, "matmul", "positions", f"{role}_positions", a * d,
                 inner=h, repeats=rows, rows="pass", weight=f"{at.prefix}.{role}")  # fmt: skip
    for name, content, position in (("c2p", "q", "k_positions"), ("p2c", "k", "q_positions")):
        draft.op(at, name, PART, "matmul", (content, position), name, rows, inner=d, repeats=a)
    return ["c2p", "p2c"]


def cross_attention(draft: Draft, at: Place, spec: Attention, h: Dim, encoded: Dim, reads: str) -> None:
    """Queries from the decoder, keys and values from the encoder's output, ``encoded`` wide, computed once and cached."""
    a, k, d = Dim(spec.heads, "a"), Dim(spec.kv_heads, "k"), Dim(spec.qk_dim, "d")
    part = "cross_attention"
    draft.linear(at, "cross_q", part, a * d, h, reads, "cross_q", bias="q" in spec.biases, split="column")
    for role in ("k", "v"):
        draft.linear(at, f"cross_{role}", part, k * d, encoded, "encoded", f"cross_{role}",
                     bias=role in spec.biases, split="column", rows="encoder_token")  # fmt: skip
    draft.op(at, "cross_scores", part, "attention", ("cross_q", "cross_k", "cross_v"), "cross_mixed", a * d,
             heads=a, qk=d, v=d, cross=True, form=spec.form)  # fmt: skip
    draft.caches.append(Cache(f"{at.prefix}.cross", "cross", at.stack, 2 * k * d, at.run, at.depth, k, per="encoder_token"))
    draft.linear(at, "cross_o", part, h, a * d, "cross_mixed", "cross_attention_out", bias="o" in spec.biases, split="row")


def latent_attention(draft: Draft, at: Place, spec: Attention, norm: Norm, h: Dim, reads: str) -> None:
    """Multi-head latent attention (DeepSeek-V2, section 2.1): the cache holds one latent and one rotary key a token.

    Read back from the cache, the up-projections are absorbed into queries and outputs, so a pair costs
    ``(r_kv + d_r) + r_kv`` per head in place of ``(d_n + d_r) + d_v``.
    """
    a = Dim(spec.heads, "a")
    d_n, d_r, d_v = Dim(spec.nope_dim, "d_n"), Dim(spec.rope_dim, "d_r"), Dim(spec.v_dim, "d_v")
    r_kv = Dim(spec.kv_rank, "r_kv")
    if spec.q_rank:
        r_q = Dim(spec.q_rank, "r_q")
        draft.linear(at, "q_a", PART, r_q, h, reads, "q_latent", bias="q" in spec.biases)
        draft.norm(at, "q_a_norm", norm, r_q, "q_latent", "q_latent")
        draft.linear(at, "q_b", PART, a * (d_n + d_r), r_q, "q_latent", "q", split="column")
    else:
        draft.linear(at, "q", PART, a * (d_n + d_r), h, reads, "q", split="column", bias="q" in spec.biases)
    draft.linear(at, "kv_a", PART, r_kv + d_r, h, reads, "kv_latent", bias="k" in spec.biases)
    draft.norm(at, "kv_a_norm", norm, r_kv, "kv_latent", "kv_latent")
    draft.linear(at, "kv_b", PART, a * (d_n + d_v), r_kv, "kv_latent", "kv", split="column")
    # The index takes its queries from the compressed ones.
    found = _index(draft, at, spec, h, Dim(spec.q_rank, "r_q") if spec.q_rank else h, "q_latent" if spec.q_rank else reads)
    # The rotary part goes beside the other in queries, and beside the up-projected one in the keys of every head.
    draft.op(at, "q_rotary", PART, "rotary", "q", "q", a * (d_n + d_r), inner=d_r, heads=a)
    draft.op(at, "k_rotary", PART, "rotary", ("kv", "kv_latent"), "k", a * (d_n + d_r), inner=d_r, heads=a)
    draft.op(at, "scores", PART, "attention", ("q", "k", "kv", *found), "mixed", a * d_v, heads=a, qk=d_n + d_r, v=d_v,
             window=_window(spec), causal=spec.causal, cached_qk=r_kv + d_r, cached_v=r_kv, form=spec.form)  # fmt: skip
    # One latent for all heads: no rank of tensor parallelism can do with less than the whole.
    draft.caches.append(Cache(f"{at.prefix}.latent", "latent", at.stack, r_kv + d_r, at.run, at.depth, Dim(1, "1"), _window(spec)))
    if spec.sinks:
        draft.weight(at, "sinks", PART, "table", (a,), split="column")
    _output(draft, at, spec, h, a * d_v, a, h, reads)
