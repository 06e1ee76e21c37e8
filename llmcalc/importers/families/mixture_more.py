"""Further decoders with mixtures of experts."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.dense import windows
from llmcalc.importers.families.mixture import after, both, experts, gated_sandwich, sparse_layers
from llmcalc.importers.shape import Spec, biases, by_type, decoder, every, extra, layer_types, usual_biases


def gate_of(c: Config) -> str:
    """An attention gate of one number per head, or over all of the output."""
    return "head" if c.get("gating", True) in (True, "per-head") else "full"


def laguna(c: Config, _: Any) -> Spec:
    """Laguna: gated attention, query heads counted layer by layer, one shared expert; the router's bias is a parameter."""
    spec = decoder(c, qk_norm="head", output_gate=gate_of(c), biases=biases(attention=c.flag("attention_bias")))
    layers = spec["layers"]
    if c.flag("moe_apply_router_weight_on_input"):
        raise c.error("moe_apply_router_weight_on_input", "the class does not have it")
    heads = c.each("num_attention_heads_per_layer", layers, int) or [spec["heads"]] * layers
    moe = experts(c, c.count("moe_intermediate_size"), shared_ffn=c.count("shared_expert_intermediate_size"),
                  correction_bias="parameter")  # fmt: skip
    return {
        **spec,
        "blocks": both(
            [{"heads": count} for count in heads],
            windows(c, ["full_attention"] * layers, c.maybe("sliding_window")),
            sparse_layers(c, after(layers, 1), moe),
        ),
    }


def mellum(c: Config, _: Any) -> Spec:
    """Mellum 2: Qwen 3's mixtures; its layer for several tokens at once is left out, as everywhere."""
    spec = decoder(c, qk_norm="head", biases=biases(attention=c.flag("attention_bias")))
    layers = spec["layers"]
    slides = windows(c, ["full_attention"] * layers, c.maybe("sliding_window"))
    return {**spec, "blocks": both(slides, sparse_layers(c, after(layers, 0), experts(c, c.count("moe_intermediate_size"))))}


def hy_v3(c: Config, _: Any) -> Spec:
    """Hunyuan 3: DeepSeek's mixture under grouped queries, the first layer dense."""
    spec = decoder(c, qk_norm="head", biases=usual_biases(c))
    shared = c.count("num_shared_experts", 0, least=0)
    moe = experts(c, c.count("moe_intermediate_size"), shared=shared, correction_bias="buffer")
    return {**spec, "blocks": sparse_layers(c, after(spec["layers"], 1), moe)}


def cohere2_moe(c: Config, _: Any) -> Spec:
    """Command A's mixtures: side by side on one norm, dense layers first, windows in three layers of four."""
    rms = c.get("rms_norm_eps") is not None
    spec = decoder(
        c,
        norm=None if rms else "layernorm",
        norm_bias=None if rms else False,
        parallel="one-norm",
        biases=biases(attention=c.flag("attention_bias")),
        ffn=c.count("prefix_dense_intermediate_size", c.count("intermediate_size")),
    )
    layers, first = spec["layers"], min(c.count("first_k_dense_replace", 0, least=0), c.layers())
    kinds = ("sliding_attention", "full_attention")
    usual = [
        *every(first, c.count("prefix_dense_sliding_window_pattern", 1), *kinds),
        *every(layers - first, c.count("sliding_window_pattern", 4), *kinds),
    ]
    moe = experts(c, c.count("intermediate_size"), shared=c.count("num_shared_experts", 0, least=0))
    return {
        **spec,
        "blocks": both(windows(c, usual, c.maybe("sliding_window")), sparse_layers(c, after(layers, first), moe)),
    }


def flint(c: Config, _: Any) -> Spec:
    """Flint: sinks, a norm on each head, windows, one shared expert; the first two layers dense."""
    spec = decoder(c, qk_norm="head", sinks=True, biases=biases(attention=c.flag("attention_bias")))
    layers, step = spec["layers"], c.count("decoder_sparse_step", 1)
    dense = set(c.chosen("mlp_only_layers")) if c.get("mlp_only_layers") is not None else {0, 1}
    full = [index < 2 or index % 4 == 1 or index == layers - 1 for index in range(layers)]
    slides = windows(c, ["full_attention" if at else "sliding_attention" for at in full], c.maybe("sliding_window"))
    moe = experts(c, c.count("moe_intermediate_size"), shared_ffn=c.count("shared_expert_intermediate_size"))
    sparse: list[Spec] = [{"moe": moe} if i not in dense and (i + 1) % step == 0 else {} for i in range(layers)]
    return {**spec, "blocks": both(slides, sparse)}


def kolibri1(c: Config, _: Any) -> Spec:
    """Kolibri: norms on both sides and on each head, every fifth layer full, one shared expert in every layer."""
    moe = experts(c, c.count("moe_intermediate_size"), shared_ffn=c.count("shared_expert_intermediate_size"),
                  correction_bias="buffer")  # fmt: skip
    spec = decoder(c, ffn=None, qk_norm="head", norm_placement="sandwich", moe=moe)
    usual = every(spec["layers"], 5, "sliding_attention", "full_attention")
    return {**spec, "blocks": windows(c, usual, c.maybe("sliding_window"))}


def beam(c: Config, _: Any) -> Spec:
    """Beam: gated attention with one bias per head on the gate, norms on both sides, every sixth layer and the last one full."""
    spec = gated_sandwich(c)
    layers = spec["layers"]
    usual = every(layers, 6, "sliding_attention", "full_attention")
    usual[-1] = "full_attention"
    moe = experts(c, c.count("moe_intermediate_size"), correction_bias="buffer")
    gate = [extra("output_gate_bias", spec["heads"], part="attention")]
    return {
        **spec,
        "extra": gate,
        "blocks": both(windows(c, usual, c.maybe("sliding_window")), sparse_layers(c, after(layers, 3), moe)),
    }


def step3p5(c: Config, _: Any) -> Spec:
    """Step 3.5: gated attention, windows with a number of heads of their own, one shared expert beside each mixture."""
    spec = decoder(c, qk_norm="head", output_gate=gate_of(c), biases=usual_biases(c))
    layers = spec["layers"]
    other = c.get("attention_other_setting") or {}
    heads = c.maybe("num_sliding_attention_heads") or (
        c.sub("attention_other_setting").count("num_attention_heads", spec["heads"]) if other else spec["heads"]
    )
    said = c.get("moe_layers_enum")
    if said is None:
        sparse = set(range(3, layers))
    else:
        listed = said.split(",") if isinstance(said, str) else said
        if not isinstance(listed, list) or not all(str(item).strip().isdecimal() for item in listed if str(item).strip()):
            raise c.error("moe_layers_enum", f"found {said!r}, allowed: layer indices with commas between")
        sparse = {int(item) for item in listed if str(item).strip()}
    moe = experts(c, c.count("moe_intermediate_size"), count="n_routed_experts", shared_ffn=c.count("share_expert_dim"),
                  correction_bias="buffer")  # fmt: skip
    slides = windows(c, ["full_attention"] * layers, c.maybe("sliding_window"))
    own = [
        {**block, "heads": heads if kind == "sliding_attention" else spec["heads"]}
        for block, kind in zip(slides, layer_types(c, layers, ["full_attention"] * layers), strict=True)
    ]
    return {**spec, "blocks": both(own, sparse_layers(c, [index in sparse for index in range(layers)], moe))}


def minimax_m3(c: Config, _: Any) -> Spec:
    """MiniMax-M3's text model: an index picks blocks of tokens in sparse layers; dense layers and one shared expert."""
    spec = decoder(c, qk_norm="head", ffn=c.count("dense_intermediate_size"))
    layers, older = spec["layers"], c.sub("sparse_attention_config")

    def index_count(key: str, legacy: str) -> int:
        return older.count(legacy) if older.says(legacy) else c.count(key)

    # A block is as good as the best of its tokens: all are scored, and top_k counts those of the blocks that are chosen.
    block = index_count("index_block_size", "sparse_block_size")
    index = {
        "heads": index_count("index_n_heads", "sparse_num_index_heads"),
        "dim": index_count("index_head_dim", "sparse_index_dim"),
        "top_k": block * index_count("index_topk_blocks", "sparse_topk_blocks"),
        "type": "blocks",
    }
    flags = older.each("sparse_attention_freq", layers, int)
    usual = ["minimax_m3_sparse" if flag else "full_attention" for flag in flags or [0] * layers]
    attends = by_type(layer_types(c, layers, usual), {"full_attention": {}, "minimax_m3_sparse": {"index": index}}, c)
    mixed = c.each("moe_layer_freq", layers, int) or [1] * layers
    moe = experts(c, c.count("intermediate_size"), count="num_local_experts", shared_ffn=c.count("shared_intermediate_size"),
                  correction_bias="buffer")  # fmt: skip
    return {**spec, "blocks": both(attends, sparse_layers(c, [bool(flag) for flag in mixed], moe))}


def jetmoe(c: Config, _: Any) -> Spec:
    """JetMoE: mixtures of query and output projections, and of FFNs; a token's query heads are those of its experts."""
    kv_heads, used = c.count("num_key_value_heads"), c.count("num_experts_per_tok")
    hidden, count = c.count("hidden_size"), c.count("num_local_experts")
    return {
        "layers": c.layers(),
        "hidden": hidden,
        "heads": kv_heads * used,
        "kv_heads": kv_heads,
        "head_dim": c.count("kv_channels"),
        "attention_experts": count,
        "biases": ["o"],
        "moe": {"experts": count, "top_k": used, "ffn": c.count("intermediate_size")},
        "extra": [extra("expert_sum.bias", hidden, part="experts")],
        "vocab": c.count("vocab_size"),
        "context": c.maybe("max_position_embeddings"),
        "activation": c.text("activation_function") or None,
        "tied_head": c.flag("tie_word_embeddings", True),
    }


FAMILIES = {
    "laguna": laguna,
    "mellum": mellum,
    "hy_v3": hy_v3,
    "cohere2_moe": cohere2_moe,
    "flint": flint,
    "kolibri1": kolibri1,
    "beam": beam,
    "step3p5": step3p5,
    "minimax_m3_vl_text": minimax_m3,
    "jetmoe": jetmoe,
}
