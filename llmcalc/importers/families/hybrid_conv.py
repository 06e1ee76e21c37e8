"""Attention with small convolutions beside it (Zaya, Inkling 1 and 2), and stacks that run in cycles (HRM)."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.recurrent import kinds
from llmcalc.importers.shape import Spec, biases, by_type, decoder, every, extra


def zaya(c: Config, _: Any) -> Spec:
    """ZAYA: convolutions over queries and keys, values half of which are the last token's, a router that is an MLP."""
    spec = decoder(c, head_dim=c.count("head_dim"), tied_head=c.flag("tie_word_embeddings"), head_bias=c.flag("lm_head_bias"))
    depth, hidden, heads, kv_heads, dim = (spec[name] for name in ("layers", "hidden", "heads", "kv_heads", "head_dim"))
    if c.count("num_experts_per_tok") != 1:
        raise c.error("num_experts_per_tok", "ZAYA's tokens use one expert")
    if kv_heads * dim % 2:
        raise c.error("head_dim", f"{kv_heads} x {dim} values cannot be halved")
    channels, first, second = (heads + kv_heads) * dim, c.count("cca_time0"), c.count("cca_time1")
    rank, experts, ffn = c.count("router_hidden_size"), c.count("num_experts"), c.count("moe_intermediate_size")
    # A token may also use no expert: that row of the router computes nothing.
    extras = [
        extra("qk_conv", channels, first, part="attention"), extra("qk_conv.bias", channels, part="attention"),
        extra("qk_head_conv", channels, dim, second, part="attention"), extra("qk_head_conv.bias", channels, part="attention"),
        extra("k_temperature", kv_heads, part="attention"), extra("ffn_norm", hidden, part="norm"),
        *(extra(f"{place}_scale", 4, hidden, times=0) for place in ("attention", "ffn")),
        extra("router_down", rank, hidden, part="router"), extra("router_down.bias", rank, part="router"),
        extra("router_norm", rank, part="router"),
        *(extra(f"router_{n}", rank, rank, part="router") for n in (1, 2)), extra("router.bias", 2, rank, part="router", times=0),
        extra("router", experts + 1, rank, part="router"),
        *(extra(f"expert_{name}", ffn, hidden, part="experts", copies=experts, used=1) for name in ("gate", "up")),
        extra("expert_down", hidden, ffn, part="experts", copies=experts, used=1),
    ]  # fmt: skip
    # Convolutions of one tap remember nothing.
    remembered = first + second - 2
    states = [{"name": "conv_state", "shape": [channels, remembered]}] if remembered else []
    common = {
        "ffn": 0, "biases": biases(attention=c.flag("attention_bias")), "extra": extras,
        "states": [*states, {"name": "last_values", "shape": [kv_heads * dim // 2]}],
    }  # fmt: skip
    later = {**common, "extra": [*extras, extra("router_states_scale", rank, part="router")]}
    types = kinds(c, depth, ["hybrid"] * depth)
    window = {"window": c.count("sliding_window") if "hybrid_sliding" in types else None}
    mixing = by_type(types, {"hybrid": {}, "hybrid_sliding": window}, c)
    outside = [extra("input_scale", 2, hidden, times=0)]
    blocks = [{**(later if index else common), **block} for index, block in enumerate(mixing)]
    return {**spec, "ffn": None, "outside": outside, "blocks": blocks}


def _conv(name: str, width: int, taps: int, part: str) -> tuple[list[Spec], list[Spec]]:
    """A depthwise convolution kept in fp32, and what it remembers."""
    return [extra(name, width, taps, part=part)], [{"name": f"{name}_state", "shape": [width, taps], "dtype": "fp32"}]


def _inkling_attention(c: Config, windowed: bool) -> Spec:
    """Heads and window of one kind of layer, with its relative positions: queries of their own against a table of distances."""
    prefix = "swa_" if windowed else ""
    heads, kv_heads, dim = (c.count(prefix + name) for name in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    reach, rank, hidden = c.count("sliding_window_size" if windowed else "rel_extent"), c.count("d_rel"), c.count("hidden_size")
    return {
        "heads": heads, "kv_heads": kv_heads, "head_dim": dim, "window": reach if windowed else None,
        "extra": [
            extra("relative_queries", heads * rank, hidden, part="attention"),
            extra("relative_distances", rank, reach, part="attention", times=heads),
        ],
    }  # fmt: skip


def _inkling(c: Config, types: list[str], ffns: list[Spec], own: dict[str, Spec], **more: Any) -> Spec:
    """Inkling's layers: attention with convolved keys and values, an FFN, and a convolution after each."""
    hidden, taps = c.count("hidden_size"), c.count("conv_kernel_size")
    made: dict[str, Spec] = {}
    for kind in dict.fromkeys(types):
        if kind not in own:
            raise c.error("layer_types", f"{kind!r} is no kind of layer; known: {', '.join(own)}")
        block = _inkling_attention(c, kind == "hybrid_sliding")
        kv = block["kv_heads"] * block["head_dim"]
        convs = [_conv(f"{name}_conv", kv, taps, "attention") for name in ("k", "v")]
        convs += [_conv("attention_conv", hidden, taps, "attention"), _conv("ffn_conv", hidden, taps, "ffn")]
        states = [state for _, remembered in convs for state in remembered]
        if own[kind].get("dynamic"):
            convs[:2] = [(own[kind]["dynamic"](name, block), []) for name in ("k", "v")]
        block["extra"] += [tensor for weights, _ in convs for tensor in weights]
        block["extra"] += own[kind]["extra"](block) if "extra" in own[kind] else []
        made[kind] = {**block, "states": states}
    blocks = [
        {**made[kind], **ffn, "extra": [*made[kind]["extra"], *ffn.get("extra", [])]} for kind, ffn in zip(types, ffns, strict=True)
    ]
    return decoder(c, kv_heads=None, heads=None, head_dim=None, ffn=None, tied_head=False, embedding_norm=True, positions="none",
                   blocks=blocks, **more)  # fmt: skip


def inkling_text(c: Config, _: Any) -> Spec:
    """The text model of Inkling."""
    depth = c.layers()
    if c.says("local_layer_ids"):
        local = c.chosen("local_layer_ids")
        usual = ["hybrid_sliding" if index in local else "hybrid" for index in range(depth)]
    else:
        usual = every(depth, 6, "hybrid_sliding", "hybrid")
    first = c.count("dense_mlp_idx", 0, least=0)
    usual_ffns = ["dense" if index < first else "sparse" for index in range(depth)]
    dense_said = c.get("dense_intermediate_size") is not None
    ffn = c.count("dense_intermediate_size" if dense_said else "intermediate_size")
    routed = c.count("intermediate_size" if dense_said else "moe_intermediate_size")
    experts, shared = c.count("n_routed_experts"), c.count("n_shared_experts", least=0)
    # The router has rows for the shared experts too; its correction has not.
    moe = {"experts": experts, "top_k": c.count("num_experts_per_tok"), "ffn": routed, "shared": shared, "idle": shared}
    scale = extra("global_scale", 1, part="ffn")
    ffns: dict[str, Spec] = {
        "dense": {"ffn": ffn, "extra": [scale]},
        "sparse": {"moe": moe, "extra": [scale, extra("router.correction", experts, part="router", buffer=True)]},
    }
    chosen = by_type(c.each("mlp_layer_types", depth) or usual_ffns, ffns, c, "mlp_layer_types")
    return _inkling(c, kinds(c, depth, usual), chosen, {"hybrid": {}, "hybrid_sliding": {}}, qk_norm="head")


def inkling2_text(c: Config, _: Any) -> Spec:
    """The text model of Inkling 2: gated attention, and each sub-layer reads a mix of what earlier blocks of layers wrote."""
    depth, hidden, taps = c.layers(), c.count("hidden_size"), c.count("conv_kernel_size")
    types = kinds(c, depth, every(depth, 6, "hybrid_sliding", "hybrid"))
    moe = {
        "experts": c.count("n_routed_experts"), "top_k": c.count("num_experts_per_tok"), "ffn": c.count("moe_intermediate_size"),
        "correction_bias": "buffer",
    }  # fmt: skip

    def gated(block: Spec) -> list[Spec]:
        heads, dim = block["heads"], block["head_dim"]
        return [
            extra("sink_projection", heads, hidden, part="attention"), extra("q_scale", heads, dim, part="attention", times=0),
            extra("relative_scale", heads, c.count("d_rel"), part="attention", times=0),
        ]  # fmt: skip

    def full(block: Spec) -> list[Spec]:
        return [*gated(block), extra("k_input_norm", hidden, part="norm"), extra("v_input_norm", hidden, part="norm")]

    def dynamic(name: str, block: Spec) -> list[Spec]:
        kv_heads, dim = block["kv_heads"], block["head_dim"]
        static = extra(f"{name}_conv", taps, kv_heads * dim, part="attention", times=0)
        return [static, extra(f"{name}_conv_weights", kv_heads * taps, hidden, part="attention")]

    own: dict[str, Spec] = {"hybrid_sliding": {"extra": gated}, "hybrid": {"extra": full, "dynamic": dynamic}}
    ffns, blocks = [], 0
    every_so_many = c.count("n_layers_per_attn_res_block")
    for index, kind in enumerate(types):
        # Each query scores and sums the blocks so far and the one being written.
        wide = extra("attention_input", 3 if kind == "hybrid" else 1, hidden, part="attention", times=2 * (blocks + 1))
        blocks += index % every_so_many == 0
        ffns.append(
            {"moe": moe, "extra": [*([wide] if index else []), extra("ffn_input", hidden, part="ffn", times=2 * (blocks + 1))]}
        )
    last = extra("final_input", hidden, times=2 * (blocks + 1), after=True)
    return _inkling(c, types, ffns, own, output_gate="full", outside=[last])


def hrm_text(c: Config, _: Any) -> Spec:
    """HRM: a low and a high stack of layers alike, run in cycles, every run with a cache of its own; norms without parameters."""
    hidden, biased = c.count("hidden_size"), c.flag("attention_bias")
    own = c.count("num_layers_per_stack", c.layers())
    runs = own * c.count("H_cycles") * (c.count("L_cycles") + 1)
    if runs > 10_000:
        raise c.error("H_cycles", f"{runs} runs of layers, allowed: 10,000")
    said = biases(attention=biased, output_gate=biased, ffn=c.flag("mlp_bias"))
    return decoder(c, layers=runs, distinct_layers=2 * own, kv_heads=None, norm="none", output_gate="full", biases=said,
                   outside=[extra("low_state", hidden)])  # fmt: skip


FAMILIES = {"zaya": zaya, "inkling_text": inkling_text, "inkling2_text": inkling2_text, "hrm_text": hrm_text}
