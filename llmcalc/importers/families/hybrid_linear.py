"""Hybrids of attention with delta rules, short convolutions, RG-LRU or lightning attention (Qwen3-Next, LFM2, Kimi Linear ...)."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.recurrent import kinds
from llmcalc.importers.shape import Spec, biases, by_type, decoder, every, trimmed

CHUNK = 64  # tokens of a chunk in the delta rules, where no config says


def delta_net(c: Config, **sizes: int) -> Spec:
    """A gated delta net, by the names that Qwen and OLMo have for its sizes."""
    return {
        "type": "gated-delta", "heads": c.count("linear_num_value_heads", sizes.get("heads")),
        "head_dim": c.count("linear_value_head_dim", sizes.get("head_dim")),
        "key_heads": c.count("linear_num_key_heads", sizes.get("key_heads")),
        "key_dim": c.count("linear_key_head_dim", sizes.get("key_dim")), "conv": c.count("linear_conv_kernel_dim"), "chunk": CHUNK,
    }  # fmt: skip


def _qwen_layers(c: Config, depth: int) -> list[str]:
    usual = every(depth, c.count("full_attention_interval", 4), "linear_attention", "full_attention")
    return kinds(c, depth, usual)


def gated_attention(c: Config) -> Spec:
    """Gated attention: the query projection makes a gate as well, and has one bias for both."""
    biased = c.flag("attention_bias")
    return {"qk_norm": "head", "output_gate": "full", "biases": biases(attention=biased, output_gate=biased)}


def qwen_mixture(c: Config) -> Spec:
    """A mixture with a gated shared expert."""
    return {
        "experts": c.count("num_experts"), "top_k": c.count("num_experts_per_tok"), "ffn": c.count("moe_intermediate_size"),
        "shared_ffn": c.count("shared_expert_intermediate_size"), "shared_gate": True,
    }  # fmt: skip


def _qwen(c: Config, ffn: Spec) -> Spec:
    spec = decoder(c, **ffn)
    blocks = {"linear_attention": {"recurrent": delta_net(c)}, "full_attention": gated_attention(c)}
    return {**spec, "blocks": by_type(_qwen_layers(c, spec["layers"]), blocks, c)}


def qwen3_next(c: Config, _: Any) -> Spec:
    """Qwen3-Next: gated delta nets, every fourth layer gated attention; mixtures but where the config says."""
    spec = _qwen(c, {"ffn": None})
    dense, step, experts = c.chosen("mlp_only_layers"), c.count("decoder_sparse_step"), c.count("num_experts", least=0)
    for index, block in enumerate(spec["blocks"]):
        routed = index not in dense and experts > 0 and (index + 1) % step == 0
        spec["blocks"][index] = {**block, **({"moe": qwen_mixture(c)} if routed else {"ffn": c.count("intermediate_size")})}
    return spec


def qwen3_5_text(c: Config, _: Any) -> Spec:
    """The text model of Qwen 3.5, dense."""
    return _qwen(c, {})


def qwen3_5_moe_text(c: Config, _: Any) -> Spec:
    """The text model of Qwen 3.5 with a mixture in every layer."""
    return _qwen(c, {"ffn": None, "moe": qwen_mixture(c)})


def _short_conv(c: Config) -> Spec:
    """Liquid's gated convolution; one flag for all its biases."""
    bias = c.flag("conv_bias")
    return {"type": "short-conv", "conv": c.count("conv_L_cache"), "conv_bias": bias, "bias": bias}


def _lfm(c: Config, types: list[str], **more: Any) -> Spec:
    """Liquid's layers: a convolution where the type says so, attention in all others."""
    conv = {"recurrent": _short_conv(c)}
    tied = c.flag("tie_embedding" if c.says("tie_embedding") else "tie_word_embeddings")
    return decoder(c, tied_head=tied, qk_norm="head", blocks=[conv if kind == "conv" else {} for kind in types], **more)


def lfm2(c: Config, _: Any) -> Spec:
    """LFM2: the FFN dim is cut to two thirds and rounded up where the config lets it."""
    depth = c.layers()
    ffn = c.count("block_ff_dim" if c.says("block_ff_dim") else "intermediate_size")
    if c.flag("block_auto_adjust_ff_dim"):
        ffn = int(2 * ffn / 3)
        if c.get("block_ffn_dim_multiplier") is not None:
            multiple = c.count("block_multiple_of")
            ffn = -(-int(c.number("block_ffn_dim_multiplier") * ffn) // multiple) * multiple
    if ffn < 1:
        raise c.error("intermediate_size", "leaves no FFN after the adjustment")
    attends = c.chosen("full_attn_idxs") if c.says("full_attn_idxs") else list(range(depth))
    return _lfm(c, kinds(c, depth, ["full_attention" if index in attends else "conv" for index in range(depth)]), ffn=ffn)


def lfm2_moe(c: Config, _: Any) -> Spec:
    """LFM2 with mixtures after the first layers."""
    if c.get("layer_types") is None:
        raise c.error("layer_types", "missing; the type of each layer")
    moe = trimmed({
        "experts": c.count("num_experts"), "top_k": c.count("num_experts_per_tok"), "ffn": c.count("moe_intermediate_size"),
        "correction_bias": "buffer" if c.flag("use_expert_bias") else None,
    })  # fmt: skip
    spec = _lfm(c, kinds(c, c.layers(), []), ffn=None)
    dense: Spec = {"ffn": c.count("intermediate_size")}
    first = c.count("num_dense_layers", least=0)
    blocks = [{**block, **(dense if index < first else {"moe": moe})} for index, block in enumerate(spec["blocks"])]
    return {**spec, "blocks": blocks}


def lfm3(c: Config, _: Any) -> Spec:
    """LFM3: convolutions, windowed and full attention, a gate per head, a norm on both sides of each sub-layer."""
    depth = c.layers()
    usual = ["full_attention" if i % 4 == 2 else "sliding_attention" if i % 4 == 0 and i > 0 else "conv" for i in range(depth)]
    types = kinds(c, depth, usual)
    spec = _lfm(c, types, biases=biases(attention=c.flag("attention_bias")), norm_placement="sandwich" if
                c.flag("use_sandwich_norm") else "pre", output_gate="head" if c.flag("use_attention_gate") else None)  # fmt: skip
    window = {"window": c.count("sliding_window") if "sliding_attention" in types else None}
    blocks = [
        {**block, **(window if kind == "sliding_attention" else {})} for block, kind in zip(spec["blocks"], types, strict=True)
    ]
    return {**spec, "blocks": blocks}


def recurrent_gemma(c: Config, _: Any) -> Spec:
    """RecurrentGemma (Griffin): RG-LRU blocks and windowed attention; the FFN is half as wide as the config says."""
    said = c.get("block_types")
    if not isinstance(said, list) or not said or not all(isinstance(name, str) for name in said):
        raise c.error("block_types", f"found {said!r}, allowed: a list of recurrent and attention")
    depth, hidden = c.layers(), c.count("hidden_size")
    types = [said[index % len(said)] for index in range(depth)]
    if len(said) * 100 < depth:
        raise c.error("num_hidden_layers", f"{depth} layers are more than 100 times the {len(said)} block types")
    lru = {
        "type": "rg-lru", "width": c.count("lru_width", hidden), "heads": c.count("num_attention_heads"),
        "conv": c.count("conv1d_width"), "conv_bias": True, "bias": True,
    }  # fmt: skip
    attention = {"window": c.count("attention_window_size"), "biases": biases(qkv=c.flag("attention_bias"), o=True, ffn=True)}
    blocks = [{"recurrent": lru, "biases": ["ffn"]} if kind == "recurrent" else attention for kind in types]
    head_dim = c.count("head_dim", hidden // c.count("num_attention_heads"))
    return decoder(c, ffn=c.count("intermediate_size", least=2) // 2, head_dim=head_dim, blocks=blocks)


def minimax(c: Config, _: Any) -> Spec:
    """MiniMax-01: lightning attention, and softmax attention in between; a mixture in every layer."""
    moe = {"experts": c.count("num_local_experts"), "top_k": c.count("num_experts_per_tok"), "ffn": c.count("intermediate_size")}
    spec = decoder(c, ffn=None, moe=moe)
    usual = every(spec["layers"], 2, "full_attention", "linear_attention")
    head_dim = spec["head_dim"] or spec["hidden"] // spec["heads"]
    mixer = {"type": "lightning", "heads": spec["heads"], "head_dim": head_dim, "chunk": c.count("block_size")}
    blocks = [{"recurrent": mixer} if kind == "linear_attention" else {} for kind in kinds(c, spec["layers"], usual)]
    return {**spec, "blocks": blocks}


def kimi_layers(c: Config, types: list[str], dense: list[str], mixer: Spec, **attention: Any) -> Spec:
    """Kimi's layers: delta attention or MLA without compressed queries; dense FFNs first, then mixtures. The head is never tied."""
    shared = c.count("n_shared_experts", least=0) * c.count("moe_intermediate_size")
    moe = trimmed({
        "experts": c.count("num_local_experts"), "top_k": c.count("num_experts_per_tok"), "ffn": c.count("moe_intermediate_size"),
        "shared_ffn": shared or None, "correction_bias": "buffer",
    })  # fmt: skip
    biased, q_rank = c.flag("attention_bias"), attention.pop("q_rank", None)
    mla = trimmed({
        "kv_rank": c.count("kv_lora_rank"), "q_rank": q_rank, "nope_dim": c.count("qk_nope_head_dim"),
        "rope_dim": c.count("qk_rope_head_dim", least=0), "v_dim": c.count("v_head_dim"),
    })  # fmt: skip
    mixers: dict[str, Spec] = {
        "linear_attention": {"recurrent": mixer},
        "full_attention": {"mla": mla, "biases": biases(q=biased and q_rank is not None, k=biased, o=biased), **attention},
    }
    ffns: dict[str, Spec] = {"dense": {"ffn": c.count("intermediate_size")}, "sparse": {"moe": moe}}
    first, second = by_type(types, mixers, c), by_type(dense, ffns, c, "mlp_layer_types")
    blocks = [{**mixing, **ffn} for mixing, ffn in zip(first, second, strict=True)]
    return {
        "layers": c.layers(), "hidden": c.count("hidden_size"), "heads": c.count("num_attention_heads"),
        "vocab": c.count("vocab_size"), "context": c.maybe("max_position_embeddings"), "activation": c.text("hidden_act"),
        "tied_head": False, "blocks": blocks,
    }  # fmt: skip


def first_dense(c: Config, depth: int, first: int) -> list[str]:
    """The kind of FFN of each layer as the config lists them, else dense in the first ones."""
    return c.each("mlp_layer_types", depth) or ["dense" if index < first else "sparse" for index in range(depth)]


def kimi_delta(c: Config, older: Config) -> Spec:
    """Kimi's delta attention with decays of low rank; ``older`` is the part of the config that first files have for it."""
    head_dim = older.count("head_dim", c.count("linear_head_dim"))
    return {
        "type": "kimi-delta", "heads": older.count("num_heads", c.count("linear_num_heads")), "head_dim": head_dim,
        "rank": head_dim, "conv": older.count("short_conv_kernel_size", c.count("linear_conv_kernel_dim")), "chunk": CHUNK,
    }  # fmt: skip


def kimi_linear(c: Config, _: Any) -> Spec:
    """Kimi Linear: delta attention with decays per channel, and MLA without positions."""
    depth, old = c.layers(), c.sub("linear_attn_config")
    usual = ["full_attention" if index and index % 4 == 0 else "linear_attention" for index in range(depth)]
    if old.says("full_attn_layers") and old.says("kda_layers"):
        full = [number - 1 for number in old.chosen("full_attn_layers")]
        rest = [number - 1 for number in old.chosen("kda_layers")]
        if sorted(full + rest) != list(range(depth)):
            raise c.error("linear_attn_config", f"full_attn_layers and kda_layers are not the {depth} layers, each once")
        usual = ["full_attention" if index in full else "linear_attention" for index in range(depth)]
    dense = first_dense(c, depth, c.count("first_k_dense_replace", 1, least=0))
    return {**kimi_layers(c, kinds(c, depth, usual), dense, kimi_delta(c, old), q_rank=c.maybe("q_lora_rank")), "positions": "none"}


def bailing_hybrid(c: Config, _: Any) -> Spec:
    """Ling 3: Kimi's delta attention with gates of full rank, and MLA with a gate per head."""
    depth = c.layers()
    usual = every(depth, c.count("layer_group_size"), "linear_attention", "full_attention")
    mixer = {
        "type": "kimi-delta", "heads": c.count("linear_num_heads", c.count("num_attention_heads")),
        "head_dim": c.count("linear_head_dim", c.count("head_dim")),
        "conv": c.count("linear_conv_kernel_dim", c.count("short_conv_kernel_size")), "chunk": CHUNK,
    }  # fmt: skip
    dense = first_dense(c, depth, c.count("first_k_dense_replace", least=0))
    return kimi_layers(c, kinds(c, depth, usual), dense, mixer, output_gate="head")


def olmo_hybrid(c: Config, _: Any) -> Spec:
    """OLMo Hybrid: gated delta nets with norms before, attention with norms after each sub-layer."""
    spec = decoder(c)
    depth = spec["layers"]
    usual = every(depth, 4, "linear_attention", "full_attention")
    if "full_attention" not in usual:
        usual[-1] = "full_attention"
    heads = c.count("linear_num_key_heads", spec["heads"])
    key_dim = c.count("linear_key_head_dim", int(0.75 * spec["hidden"] / heads))
    mixer = delta_net(c, heads=spec["heads"], key_heads=spec["heads"], key_dim=key_dim, head_dim=2 * key_dim)
    attention = {"qk_norm": "full", "norm_placement": "output", "biases": biases(attention=c.flag("attention_bias"))}
    blocks = [{"recurrent": mixer} if kind == "linear_attention" else attention for kind in kinds(c, depth, usual)]
    return {**spec, "blocks": blocks}


FAMILIES = {
    "qwen3_next": qwen3_next, "qwen3_5_text": qwen3_5_text, "qwen3_5_moe_text": qwen3_5_moe_text, "lfm2": lfm2,
    "lfm2_moe": lfm2_moe, "lfm3": lfm3, "recurrent_gemma": recurrent_gemma, "minimax": minimax, "kimi_linear": kimi_linear,
    "bailing_hybrid": bailing_hybrid, "olmo_hybrid": olmo_hybrid,
}  # fmt: skip
