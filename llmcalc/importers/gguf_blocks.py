"""One layer of a GGUF file -> the block of a spec, by the shapes of its tensors: attention, FFN or mixture, norms."""

from __future__ import annotations

from llmcalc.importers.gguf_arch import FURTHER, TWICE
from llmcalc.importers.gguf_mixers import recurrent
from llmcalc.importers.gguf_model import Layer
from llmcalc.importers.shape import Spec, extra, trimmed

ATTENTION_BIASES = {"q": "attn_q.bias", "k": "attn_k.bias", "v": "attn_v.bias", "o": "attn_output.bias"}
FFN_BIASES = {"gate": "ffn_gate.bias", "up": "ffn_up.bias", "down": "ffn_down.bias"}


def attention(t: Layer, hidden: int) -> Spec | None:
    """Attention of any kind, None where the layer has none."""
    if t.has("attn_kv_a_mqa"):
        return _latent(t)
    if t.has("attn_qkv") and not t.any("attn_gate", "ssm_in", "ssm_conv1d"):
        return _fused(t, hidden)
    if t.has("attn_q") and not t.has("ssm_conv1d_q"):
        return _separate(t)
    return None


def _norms(t: Layer, heads: int, dim: int) -> Spec:
    """Norms of queries and keys: one gain for every head, one for each, or one over all."""
    if not t.has("attn_q_norm"):
        return {}
    elements, shape = t.elements("attn_q_norm"), t.whole("attn_q_norm")
    biased = t.has("attn_q_norm.bias")
    if not t.has("attn_k_norm"):
        # Keys of an earlier layer come normalised.
        return {"extra": [extra("q_norm", *shape, part="norm", times=0)]}
    if elements not in (dim, heads * dim):
        raise t.error("attn_q_norm", f"shape {list(shape)}, allowed: {dim} or {heads} x {dim}")
    kind = "head" if elements == dim else "per-head" if len(shape) == 2 else "full"
    return {"qk_norm": kind, "qk_norm_bias": biased}


def _fused(t: Layer, hidden: int) -> Spec:
    """Queries, keys and values in one matrix, head counts from the metadata."""
    heads, rows = t.each("attention.head_count"), t.shape("attn_qkv")[0]
    kv_heads = t.each("attention.head_count_kv", heads)
    dim = t.model.count("attention.key_length", 0) or t.split("attn_qkv", hidden, heads, "heads")
    if not heads or not kv_heads or rows != (heads + 2 * kv_heads) * dim:
        raise t.error("attn_qkv", f"{rows:,} rows are not for {heads} heads and {kv_heads} KV heads of {dim}")
    biases = [*(["qkv"] if t.has("attn_qkv.bias") else []), *(["o"] if t.has("attn_output.bias") else [])]
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": dim, "biases": biases, **_norms(t, heads, dim)}


def _separate(t: Layer) -> Spec:
    """A matrix each. Head dims are told by the shapes, since layers with and without windows may differ in them."""
    heads, rows = t.each("attention.head_count"), t.shape("attn_q")[0]
    kv_heads = t.each("attention.head_count_kv", heads)
    dim = t.split("attn_q", rows, heads * (2 if t.model.arch.query_gate else 1), "heads")
    value = dim
    spec: Spec = {"heads": heads, "head_dim": dim}
    gate = t.shape("attn_gate")[0] if t.has("attn_gate") else 0
    if t.has("attn_k"):
        keys = t.split("attn_k", t.shape("attn_k")[0], kv_heads, "KV heads")
        if keys != dim:
            raise t.error("attn_k", f"{kv_heads} KV heads of {keys}, where {heads} query heads are of {dim}")
        if t.has("attn_v"):
            value = t.split("attn_v", t.shape("attn_v")[0], kv_heads, "KV heads")
        else:
            spec["values_are_keys"] = True
    spec |= {"kv_heads": kv_heads, "v_head_dim": value if value != dim else None}
    mixed = t.shape("attn_output")[1]
    if mixed != heads * value:
        raise t.error("attn_output", f"{mixed:,} columns are not for {heads} heads of {value}")
    if t.model.arch.query_gate or gate:
        if gate not in (0, heads, mixed):
            raise t.error("attn_gate", f"{gate:,} rows are not for {heads} heads of {value}")
        spec["output_gate"] = "head" if gate == heads and heads != mixed else "full"
    if not t.has("attn_k"):
        spec["reuses_kv"] = "projections"
    biases = [name for name, tensor in ATTENTION_BIASES.items() if t.has(tensor)]
    return {**spec, "sinks": t.has("attn_sinks") or None, "biases": biases, **_norms(t, heads, dim)}


def _latent(t: Layer) -> Spec:
    """Multi-head latent attention; newer files split the up-projection of the latents into keys' and values'."""
    heads, rope, rank = t.each("attention.head_count"), t.model.count("rope.dimension_count"), t.shape("attn_kv_a_norm", 1)[0]
    if t.shape("attn_kv_a_mqa")[0] != rank + rope:
        raise t.error("attn_kv_a_mqa", f"{t.shape('attn_kv_a_mqa')[0]:,} rows, where latent and rotary key have {rank} and {rope}")
    compressed = t.has("attn_q_b")
    query = "attn_q_b" if compressed else "attn_q"
    per_head = t.split(query, t.shape(query)[0], heads, "heads")
    value = t.split("attn_output", t.shape("attn_output")[1], heads, "heads")
    nope = per_head - rope
    if nope < 1:
        raise t.error(query, f"{heads} heads of {per_head}, of which {rope} are rotary")
    up = t.elements("attn_kv_b") if t.has("attn_kv_b") else t.elements("attn_k_b") + t.elements("attn_v_b") if t.has(
        "attn_k_b") and t.has("attn_v_b") else 0  # fmt: skip
    if up != heads * (nope + value) * rank:
        raise t.error("attn_kv_b", f"{up:,} elements are not for {heads} heads of {nope} and {value} from {rank}")
    q_rank = t.shape("attn_q_b")[1] if compressed else None
    index = None
    if t.has("indexer.attn_q_b"):
        key = t.shape("indexer.attn_k")[0]
        index = {
            "heads": t.split("indexer.attn_q_b", t.shape("indexer.attn_q_b")[0], key, "dims"),
            "dim": key,
            "top_k": t.model.count("attention.indexer.top_k", least=1),
        }
    mla = {"kv_rank": rank, "q_rank": q_rank, "nope_dim": nope, "rope_dim": rope, "v_dim": value}
    return {"heads": heads, "mla": trimmed(mla), "index": index}


def feed_forward(t: Layer) -> Spec:
    """Dense FFN, mixture, both side by side, or none."""
    dense = t.shape("ffn_down")[1] if t.has("ffn_down") else 0
    biases = [name for name, tensor in FFN_BIASES.items() if t.has(tensor)]
    fused = dense > 0 and not t.has("ffn_gate") and t.shape("ffn_up")[0] == 2 * dense
    gated = fused or t.has("ffn_gate")
    if fused and "up" in biases:
        biases.append("gate")
    if not t.has("ffn_gate_inp"):
        return {"ffn": dense, "gated": False if dense and not gated else None, "biases": biases}
    experts, out, width = t.shape("ffn_down_exps", 3)
    router = t.shape("ffn_gate_inp")[0]
    if router < experts:
        raise t.error("ffn_gate_inp", f"{router} rows for {experts} experts")
    of_experts = t.any("ffn_gate_exps", "ffn_gate_up_exps") is not None
    shared = t.shape("ffn_down_shexp")[1] if t.has("ffn_down_shexp") else None
    moe = {
        "experts": experts,
        "top_k": t.model.count("expert_used_count", least=1),
        "ffn": width,
        "shared_ffn": shared,
        "shared_gate": t.has("ffn_gate_inp_shexp") or None,
        "correction_bias": t.model.arch.correction if t.any("exp_probs_b.bias", "exp_probs_b") else None,
        "dense": dense or None,
        "latent": out if t.has("ffn_latent_down") else None,
        "gated": of_experts if dense and of_experts != gated else None,
        "idle": router - experts or None,
    }
    biases += [name for name, tensor in (("router", "ffn_gate_inp.bias"), ("experts", "ffn_down_exps.bias")) if t.has(tensor)]
    return {"moe": trimmed(moe), "gated": None if (gated if dense else of_experts) else False, "biases": biases}


def norms(t: Layer, *, mixes: bool, has_ffn: bool, encoder: bool) -> Spec:
    """Where the norms stand: before the sub-layers, after them, on both sides, or before both at once."""
    before, after = t.has("attn_norm"), t.any("post_attention_norm", "attn_output_norm") is not None
    ffn_before, ffn_after = t.has("ffn_norm"), t.any("post_ffw_norm", "layer_output_norm") is not None
    if after and before and has_ffn and not ffn_before and not ffn_after:
        # The norm after attention is the one before the FFN (Qwen3-Next, GLM-4.5, gpt-oss, DBRX).
        ffn_before, after = True, False
    if not mixes:
        # A layer that is an FFN alone has one norm, by the first's name (Nemotron-H).
        ffn_before, before = before or ffn_before, False
    if after or ffn_after:
        placement = "sandwich" if before or ffn_before else "post" if encoder else "output"
        return {"norm_placement": placement}
    if mixes and has_ffn and before:
        if t.has("attn_norm_2") or (ffn_before and t.model.flag("use_parallel_residual")):
            return {"parallel": "two-norms"}
        if not ffn_before:
            return {"parallel": "one-norm"}
    return {"attention_norm": False if mixes and not before else None, "ffn_norm": False if has_ffn and not ffn_before else None}


def block(t: Layer, hidden: int) -> Spec:
    """Everything that one layer is made of."""
    attends, mixer, ffn = attention(t, hidden), recurrent(t), feed_forward(t)
    has_ffn = bool(ffn.get("ffn")) or "moe" in ffn
    placed = norms(t, mixes=attends is not None or mixer is not None, has_ffn=has_ffn, encoder=t.model.arch.encoder)
    made: Spec = {**ffn, **(attends or {}), **placed}
    made["biases"] = [*(attends or {}).get("biases", []), *ffn["biases"]]
    if mixer is not None:
        made |= {"recurrent": mixer, "attention": True if attends else None}
    elif attends is None:
        made["attention"] = False
    shared = t.model.count("attention.shared_kv_layers", 0)
    if shared and attends and "reuses_kv" not in attends and t.index >= t.model.depth() - shared:
        made["reuses_kv"] = "cache"
    further = [
        extra(role, *t.whole(name), part=part, times=2 if name in TWICE else None)
        for name, (role, part) in FURTHER.items()
        if t.has(name)
    ]
    if attends is None and t.has("attn_output") and mixer is None:
        # DeciLM replaces some attentions by one matrix.
        further += [extra("attention_norm", hidden, part="norm"), extra("attention", *t.shape("attn_output"), part="attention")]
    made["extra"] = [*(attends or {}).get("extra", []), *further]
    return trimmed(made)
