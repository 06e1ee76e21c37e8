"""Decoders with mixtures of experts and plain attention."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.dense import late_windows, pattern_period, rotated_layers, shorter_window, used_window, windows
from llmcalc.importers.shape import Spec, biases, decoder, every, trimmed


def experts(c: Config, ffn: int, *, count: str = "num_experts", top_k: str = "num_experts_per_tok", **more: Any) -> Spec:
    """A mixture: so many experts, of which a token uses some."""
    return trimmed({"experts": c.count(count), "top_k": c.count(top_k), "ffn": ffn, **more})


def sparse_layers(c: Config, usual: list[bool], moe: Spec, key: str = "mlp_layer_types") -> list[Spec]:
    """A block for each layer: the mixture in those that are sparse, as the config lists them or as ``usual``."""
    said = c.each(key, len(usual))
    for kind in said or ():
        if kind not in ("sparse", "dense"):
            raise c.error(key, f"{kind!r} is no kind of layer; known: dense, sparse")
    sparse = usual if said is None else [kind == "sparse" for kind in said]
    return [{"moe": moe} if at else {} for at in sparse]


def after(layers: int, first: int) -> list[bool]:
    """Mixtures in all layers but the first ones."""
    return [index >= first for index in range(layers)]


def both(*lists: list[Spec]) -> list[Spec]:
    """Layers that are said in several respects."""
    return [{key: value for part in parts for key, value in part.items()} for parts in zip(*lists, strict=True)]


def mixtral(c: Config, _: Any) -> Spec:
    """Mixtral: eight experts in every layer."""
    return decoder(
        c, ffn=None, window=c.maybe("sliding_window"), moe=experts(c, c.count("intermediate_size"), count="num_local_experts")
    )


def phimoe(c: Config, _: Any) -> Spec:
    """Phi-3.5-MoE: LayerNorm, biases on the attention and the head; a window no shorter than the context is none."""
    return decoder(
        c,
        ffn=None,
        norm="layernorm",
        window=shorter_window(c),
        moe=experts(c, c.count("intermediate_size"), count="num_local_experts"),
        biases=biases(attention=c.flag("attention_bias")),
        head_bias=c.flag("lm_head_bias"),
    )


def _qwen_moe(c: Config, **more: Any) -> list[Spec]:
    """Every ``decoder_sparse_step``-th layer but for those named dense."""
    layers, step, dense = c.layers(), c.count("decoder_sparse_step", 1), set(c.chosen("mlp_only_layers"))
    moe = experts(c, c.count("moe_intermediate_size"), **more)
    return [{"moe": moe} if index not in dense and (index + 1) % step == 0 else {} for index in range(layers)]


def qwen2_moe(c: Config, _: Any) -> Spec:
    """Qwen1.5-MoE and Qwen2-57B-A14B: a shared expert behind a gate."""
    sparse = _qwen_moe(c, shared_ffn=c.count("shared_expert_intermediate_size"), shared_gate=True)
    layers, window = c.layers(), used_window(c)
    first = c.count("max_window_layers", layers, least=0)
    # Other than Qwen 2's, this class has windows in every other layer, and in the first ones.
    usual = ["sliding_attention" if window and index % 2 == 0 and index < first else "full_attention" for index in range(layers)]
    return decoder(c, biases=biases(qkv=c.flag("qkv_bias")), blocks=both(sparse, windows(c, usual, window)))


def qwen3_moe(c: Config, _: Any) -> Spec:
    """Qwen 3's mixtures: no shared expert, a norm on each head."""
    spec = decoder(c, qk_norm="head", biases=biases(attention=c.flag("attention_bias")))
    return {**spec, "blocks": both(_qwen_moe(c), [{"window": used_window(c)}] * spec["layers"])}


def olmoe(c: Config, _: Any) -> Spec:
    """OLMoE: norms over all queries and keys at once."""
    moe = experts(c, c.count("intermediate_size"))
    return decoder(c, ffn=None, qk_norm="full", moe=moe, biases=biases(attention=c.flag("attention_bias")))


def flex_olmo(c: Config, task: Any) -> Spec:
    """FlexOlmo: OLMoE with the norms behind the sub-layers."""
    return {**olmoe(c, task), "norm_placement": "output"}


def granitemoe(c: Config, _: Any) -> Spec:
    """Granite 3's mixtures."""
    moe = experts(c, c.count("intermediate_size"), count="num_local_experts")
    return decoder(c, ffn=None, moe=moe, biases=biases(attention=c.flag("attention_bias")))


def gpt_oss(c: Config, _: Any) -> Spec:
    """gpt-oss: biases everywhere, sinks, a window in every other layer."""
    spec = decoder(c, ffn=None, sinks=True, biases=biases(attention=c.flag("attention_bias", True), experts=True, router=True))
    usual = every(spec["layers"], 2, "sliding_attention", "full_attention")
    moe = experts(c, c.count("intermediate_size"), count="num_local_experts")
    return {**spec, "moe": moe, "blocks": windows(c, usual, c.maybe("sliding_window"))}


def minimax_m2(c: Config, _: Any) -> Spec:
    """MiniMax M2: norms over all queries and keys at once, a correction bias in the router."""
    moe = experts(c, c.count("intermediate_size"), count="num_local_experts", correction_bias="buffer")
    if 0 in (c.each("attn_type_list", c.layers(), int) or []):
        raise c.error("attn_type_list", "layers of linear attention (0) are MiniMax-Text-01's, not M2's; is the type right?")
    return decoder(c, ffn=None, qk_norm="full", moe=moe)


def ernie4_5_moe(c: Config, _: Any) -> Spec:
    """ERNIE 4.5's mixtures: from one layer to another, every so many; the router's bias is a parameter."""
    layers, bias = c.layers(), c.flag("use_bias")
    first, last = c.count("moe_layer_start_index", least=0), c.count("moe_layer_end_index", layers - 1, least=-1)
    last = layers - 1 if last == -1 else last
    step = c.count("moe_layer_interval", 1)
    moe = experts(c, c.count("moe_intermediate_size"), count="moe_num_experts", top_k="moe_k",
                  shared=c.count("moe_num_shared_experts", 0, least=0), correction_bias="parameter")  # fmt: skip
    usual = [(index + 1) % step == 0 and first <= index <= last for index in range(layers)]
    return decoder(c, biases=biases(attention=bias, ffn=bias), head_bias=bias, blocks=sparse_layers(c, usual, moe))


def hunyuan_v1_moe(c: Config, _: Any) -> Spec:
    """Hunyuan A13B: one shared expert, a norm on each head; counts may be listed by layer."""
    layers, ffn = c.layers(), c.count("intermediate_size")

    def listed(key: str, default: int | None = None) -> list[int]:
        if isinstance(c.get(key), list):
            return c.each(key, layers, int) or []
        return [c.count(key, default)] * layers

    # The authors' own code reads more than transformers; published files say the same in both.
    for key, usual in (("moe_intermediate_size", ffn), ("num_shared_expert", 1), ("moe_layer_num_skipped", 0)):
        said = c.get(key, usual)
        if (said if isinstance(said, list) else [said]) not in ([usual], [usual] * layers):
            raise c.error(key, f"found {str(said)[:60]}, allowed: {usual} in every layer")
    c.asked |= {"attention_head_dim", "norm_type", "use_mixed_mlp_moe"}
    count, used = listed("num_experts"), listed("moe_topk", 1)
    blocks: list[Spec] = [{"moe": {"experts": n, "top_k": k, "ffn": ffn, "shared": 1}} for n, k in zip(count, used, strict=True)]
    return decoder(c, ffn=None, qk_norm="head", biases=biases(attention=c.flag("attention_bias")), blocks=blocks)


def dbrx(c: Config, _: Any) -> Spec:
    """DBRX: LayerNorm without bias, sixteen experts of which four are used."""
    ffn, attention = c.sub("ffn_config"), c.sub("attn_config")
    heads = c.count("num_attention_heads")
    moe = {"experts": ffn.count("moe_num_experts"), "top_k": ffn.count("moe_top_k"), "ffn": ffn.count("ffn_hidden_size")}
    return {
        "layers": c.layers(),
        "hidden": c.count("hidden_size"),
        "heads": heads,
        "kv_heads": attention.count("kv_n_heads", heads),
        "moe": moe,
        "norm": "layernorm",
        "norm_bias": False,
        "vocab": c.count("vocab_size"),
        "context": c.maybe("max_seq_len"),
        "tied_head": c.flag("tie_word_embeddings"),
    }


def glm4_moe(c: Config, _: Any) -> Spec:
    """GLM-4.5 and 4.6: dense layers first, one shared expert, a correction bias in the router."""
    spec = decoder(c, biases=biases(qkv=c.flag("attention_bias")), qk_norm="head" if c.flag("use_qk_norm") else None)
    return {**spec, "moe": routed(c, first_dense=c.count("first_k_dense_replace", 0, least=0))}


def routed(c: Config, **more: Any) -> Spec:
    """DeepSeek's mixture: routed experts, shared ones, a correction bias kept as a buffer."""
    shared = c.count("n_shared_experts", 0, least=0)
    count = "num_experts" if c.says("num_experts") else "n_routed_experts"  # as older files have it
    return experts(c, c.count("moe_intermediate_size"), count=count, shared=shared or None,
                   **{"correction_bias": "buffer", **more})  # fmt: skip


def dots1(c: Config, _: Any) -> Spec:
    """dots.llm1: DeepSeek's mixture under Qwen 3's attention."""
    spec = decoder(c, qk_norm="head", biases=biases(attention=c.flag("attention_bias")))
    first, moe = c.count("first_k_dense_replace", 0, least=0), routed(c)
    sparse: list[Spec] = [{"moe": moe} if at else {} for at in after(spec["layers"], first)]
    return {**spec, "blocks": both(sparse, late_windows(c, c.maybe("sliding_window")))}


def solar_open(c: Config, _: Any) -> Spec:
    """Solar Open: DeepSeek's mixture in every layer."""
    return decoder(c, ffn=None, biases=biases(qkv=c.flag("attention_bias")), moe=routed(c))


def gated_sandwich(c: Config) -> Spec:
    """A decoder with a gate on its attention, a norm on each head, and norms on both sides of each sub-layer."""
    said = biases(attention=c.flag("attention_bias"))
    return decoder(c, qk_norm="head", output_gate="full", norm_placement="sandwich", biases=said)


def afmoe(c: Config, _: Any) -> Spec:
    """Trinity (Arcee): gated attention, norms on both sides, every fourth layer full."""
    spec = gated_sandwich(c)
    layers = spec["layers"]
    usual = every(layers, c.count("global_attn_every_n_layers", 4), "sliding_attention", "full_attention")
    moe = experts(c, c.count("moe_intermediate_size"), shared=c.count("num_shared_experts", 0, least=0),
                  correction_bias="parameter")  # fmt: skip
    dense = c.count("num_dense_layers", 0, least=0)
    blocks: list[Spec] = [{"moe": moe} if index >= dense else {} for index in range(layers)]
    return {**spec, "blocks": both(blocks, windows(c, usual, c.maybe("sliding_window")))}


def exaone_moe(c: Config, _: Any) -> Spec:
    """K-EXAONE: windows in three layers of four, DeepSeek's mixture after the first layers."""
    spec = decoder(c, qk_norm="head")
    layers = spec["layers"]
    usual = every(layers, pattern_period(c), "sliding_attention", "full_attention")
    shared = c.count("num_shared_experts", 0, least=0)
    moe = experts(c, c.count("moe_intermediate_size"), shared=shared, correction_bias="buffer")
    dense = c.count("first_k_dense_replace", 1, least=0)
    sparse = sparse_layers(c, [index >= dense for index in range(layers)], moe)
    return {**spec, "blocks": both(sparse, windows(c, usual, c.maybe("sliding_window")))}


def mimo_v2_flash(c: Config, _: Any) -> Spec:
    """MiMo-V2-Flash: windows with sinks and twice the KV heads in five layers of six, values narrower than keys.

    The class's window counts the token itself beside the 128 before it; the published one does not.
    """
    spec = decoder(c, v_head_dim=c.maybe("v_head_dim"), biases=biases(qkv=c.flag("attention_bias")))
    layers, window = spec["layers"], c.maybe("sliding_window_size")
    if window is None:
        window = max(1, c.count("sliding_window") - 1)
    said = c.each("hybrid_layer_pattern", layers, int) or [int(index > 0 and (index + 1) % 6 > 0) for index in range(layers)]
    usual = ["sliding_attention" if slides else "full_attention" for slides in said]
    slide = {
        "sinks": c.flag("add_swa_attention_sink_bias", True) or None,
        "kv_heads": c.count("swa_num_key_value_heads", 2 * spec["kv_heads"]),
    }
    for key, name in (("swa_num_attention_heads", "heads"), ("swa_head_dim", "head_dim"), ("swa_v_head_dim", "v_head_dim")):
        if c.says(key) and c.count(key) != spec[name]:
            raise c.error(key, f"found {c.get(key)}, but {spec[name]} in the other layers; write a spec")
    if c.flag("add_full_attention_sink_bias"):
        raise c.error("add_full_attention_sink_bias", "sinks in the layers without a window are not read here; write a spec")
    c.asked |= {"attention_chunk_size", "swa_rope_theta"}
    experts_at = c.each("moe_layer_freq", layers, int) or [int(index > 0) for index in range(layers)]
    sparse = sparse_layers(c, [bool(at) for at in experts_at], routed(c))
    return {
        **spec,
        "blocks": both(sparse, [{**block, **(slide if block["window"] else {})} for block in windows(c, usual, window)]),
    }


def llama4_text(c: Config, _: Any) -> Spec:
    """Llama 4: chunks of attention in three layers of four, one shared expert beside each mixture."""
    layers, chunk = c.layers(), c.maybe("attention_chunk_size")
    usual = ["chunked_attention" if rope else "full_attention" for rope in rotated_layers(c, layers)]
    types = c.each("layer_types", layers) or usual
    step = c.count("interleave_moe_layer_step", 1, least=0)
    moe_at = set(c.chosen("moe_layers") if c.says("moe_layers") else range(step - 1, layers, step) if step else ())
    moe = experts(c, c.count("intermediate_size"), count="num_local_experts", shared=1)
    chunked: Spec = {"window": chunk, "chunked": True if chunk else None}
    blocks = [
        {**(chunked if kind == "chunked_attention" else {}), "moe": moe if index in moe_at else None}
        for index, kind in enumerate(types)
    ]
    bias = biases(attention=c.flag("attention_bias"))
    return decoder(c, ffn=c.count("intermediate_size_mlp"), biases=bias, blocks=blocks)


FAMILIES = {
    "mixtral": mixtral,
    "phimoe": phimoe,
    "qwen2_moe": qwen2_moe,
    "qwen3_moe": qwen3_moe,
    "qwen3_vl_moe_text": qwen3_moe,
    "olmoe": olmoe,
    "flex_olmo": flex_olmo,
    "granitemoe": granitemoe,
    "gpt_oss": gpt_oss,
    "minimax_m2": minimax_m2,
    "ernie4_5_moe": ernie4_5_moe,
    "hunyuan_v1_moe": hunyuan_v1_moe,
    "dbrx": dbrx,
    "glm4_moe": glm4_moe,
    "dots1": dots1,
    "solar_open": solar_open,
    "afmoe": afmoe,
    "exaone_moe": exaone_moe,
    "mimo_v2_flash": mimo_v2_flash,
    "llama4_text": llama4_text,
}
