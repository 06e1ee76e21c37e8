"""Gemma 1 to 4: wide heads, norms on both sides, alternating windows; then per-layer embeddings and shared caches."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.dense import windows
from llmcalc.importers.shape import Spec, biases, decoder, every, extra


def gemma(c: Config, _: Any) -> Spec:
    """Gemma 1: heads wider than hidden / heads."""
    return decoder(c, biases=biases(attention=c.flag("attention_bias")))


def _alternating(c: Config, period: int) -> list[Spec]:
    usual = every(c.layers(), period, "sliding_attention", "full_attention")
    return windows(c, usual, c.maybe("sliding_window"))


def gemma2(c: Config, _: Any) -> Spec:
    """Gemma 2: every other layer windowed."""
    return decoder(c, norm_placement="sandwich", biases=biases(attention=c.flag("attention_bias")), blocks=_alternating(c, 2))


def vaultgemma(c: Config, _: Any) -> Spec:
    """VaultGemma: Gemma 2 without the norms behind the sub-layers."""
    return decoder(c, biases=biases(attention=c.flag("attention_bias")), blocks=_alternating(c, 2))


def gemma3_text(c: Config, task: Any) -> Spec:
    """Gemma 3: five layers of six windowed, a norm on each head."""
    period = c.count("_sliding_window_pattern", c.count("sliding_window_pattern", 6))
    spec = {**gemma2(c, task), "qk_norm": "head", "blocks": _alternating(c, period)}
    if c.flag("use_bidirectional_attention"):
        # Looking both ways, half of the window is on each side (EmbeddingGemma).
        spec["blocks"] = [{"window": block["window"] and block["window"] // 2 + 1} for block in spec["blocks"]]
    return spec


def _shares(layers: int, shared: int) -> list[Spec]:
    """The last layers read the keys and values of earlier ones."""
    return [{"reuses_kv": "projections"} if index >= layers - shared and shared else {} for index in range(layers)]


def _layer_inputs(c: Config, layers: int, hidden: int, width: int) -> tuple[list[Spec], list[Spec]]:
    """An embedding for each layer: what each layer has to take its own in, and the tables of all of them."""
    each = [
        extra("layer_input_gate", width, hidden),
        extra("layer_input", hidden, width),
        extra("layer_input_norm", hidden, part="norm"),
    ]
    tables = [
        extra("layer_embedding", c.count("vocab_size_per_layer_input"), layers * width, part="positions", times=0),
        extra("layer_projection", layers * width, hidden),
        extra("layer_projection_norm", width, part="norm"),
    ]
    return each, tables


def gemma3n_text(c: Config, _: Any) -> Spec:
    """Gemma 3n: alternating updates (AltUp), low-rank residuals (LAuReL), an embedding for each layer, shared caches."""
    layers, hidden = c.layers(), c.count("hidden_size")
    inputs, rank, width = c.count("altup_num_inputs"), c.count("laurel_rank"), c.count("hidden_size_per_layer_input")
    inputs_of_layer, embeddings = _layer_inputs(c, layers, hidden, width)
    per_layer = [
        extra("altup_scale", hidden),
        extra("altup_correction", inputs, inputs),
        extra("altup_prediction", inputs * inputs, inputs),
        extra("altup_router", inputs, hidden, times=2),
        extra("altup_router_norm", hidden, part="norm"),
        extra("laurel_left", rank, hidden),
        extra("laurel_right", hidden, rank),
        extra("laurel_norm", hidden, part="norm"),
        *inputs_of_layer,
    ]
    outside = [
        *embeddings,
        *(extra(f"altup_in_{number}", hidden, hidden) for number in range(1, inputs)),
        *(extra(f"altup_out_{number}", hidden, hidden, after=True) for number in range(1, inputs)),
    ]
    ffn = (
        c.each("intermediate_size", layers, int)
        if isinstance(c.get("intermediate_size"), list)
        else [c.count("intermediate_size")] * layers
    )
    usual = every(layers, 5, "sliding_attention", "full_attention")
    window = windows(c, usual, c.maybe("sliding_window"))
    shares = _shares(layers, c.count("num_kv_shared_layers", 0, least=0))
    # Queries have a norm of their own where keys and values come from elsewhere.
    dim = c.count("head_dim")
    blocks = []
    for dense, slide, share in zip(ffn or [], window, shares, strict=True):
        norms: Spec = {"qk_norm": "head"} if not share else {"extra": [*per_layer, extra("q_norm", dim, part="norm")]}
        blocks.append({"ffn": dense, **slide, **share, "extra": per_layer, **norms})
    return {
        "layers": layers,
        "hidden": hidden,
        "heads": c.count("num_attention_heads"),
        "kv_heads": c.count("num_key_value_heads"),
        "head_dim": dim,
        "biases": biases(attention=c.flag("attention_bias")),
        "activation": c.text("hidden_activation") or None,
        "norm_placement": "sandwich",
        "vocab": c.count("vocab_size"),
        "context": c.maybe("max_position_embeddings"),
        "tied_head": c.flag("tie_word_embeddings", True),
        "outside": outside,
        "blocks": blocks,
    }


def gemma4_text(c: Config, _: Any) -> Spec:
    """Gemma 4: wider heads and fewer KV heads in the full layers, where keys may serve as values; mixtures beside FFNs."""
    layers, hidden = c.layers(), c.count("hidden_size")
    width, ffn = c.count("hidden_size_per_layer_input", 0, least=0), c.count("intermediate_size")
    per_layer, outside = _layer_inputs(c, layers, hidden, width) if width else ([], [])
    moe: Spec | None = None
    if c.flag("enable_moe_block"):
        count = c.count("num_experts")
        moe = {"experts": count, "top_k": c.count("top_k_experts"), "ffn": c.count("moe_intermediate_size"), "dense": ffn}
        per_layer = [
            *per_layer,
            *(extra(f"ffn_norm_{name}", hidden, part="norm") for name in ("dense_out", "experts_in", "experts_out")),
            extra("router_scale", hidden, part="router"),
            extra("router_expert_scale", count, part="router"),
        ]
    usual = every(layers, 6, "sliding_attention", "full_attention")
    window = windows(c, usual, c.maybe("sliding_window"))
    window[-1] = {"window": None}  # the class has the last layer full whatever the list says
    shared = c.count("num_kv_shared_layers", 0, least=0)
    shares = _shares(layers, shared)
    kv_heads, dim = c.count("num_key_value_heads"), c.count("head_dim")
    alike = c.flag("attention_k_eq_v")
    full: Spec = {"head_dim": c.count("global_head_dim", dim)}
    if alike:
        full |= {"kv_heads": c.count("num_global_key_value_heads", kv_heads), "values_are_keys": True}
    wide = c.flag("use_double_wide_mlp")
    # Newer files say the same of each layer by its index.
    single = c.per_layer(layers, ("head_dim", "num_key_value_heads"))
    blocks = []
    for index, (slide, share) in enumerate(zip(window, shares, strict=True)):
        heads: Spec = {"kv_heads": kv_heads, "head_dim": dim} if slide["window"] else {"kv_heads": kv_heads, **full}
        said = single.get(index, {})
        heads |= {name: said[key] for name, key in (("head_dim", "head_dim"), ("kv_heads", "num_key_value_heads")) if key in said}
        further = per_layer
        if share:
            heads |= {"values_are_keys": None}
            further = [*per_layer, extra("q_norm", heads["head_dim"], part="norm")]
        block = {**slide, **share, **heads, "qk_norm": None if share else "head", "extra": further, "moe": moe}
        blocks.append({**block, "ffn": 2 * ffn if share and wide else ffn} if moe is None else block)
    return {
        "layers": layers,
        "hidden": hidden,
        "heads": c.count("num_attention_heads"),
        "biases": biases(attention=c.flag("attention_bias")),
        "activation": c.text("hidden_activation") or None,
        "norm_placement": "sandwich",
        "vocab": c.count("vocab_size"),
        "context": c.maybe("max_position_embeddings"),
        "tied_head": c.flag("tie_word_embeddings", True),
        "outside": outside or None,
        "blocks": blocks,
    }


FAMILIES = {
    "gemma": gemma,
    "gemma2": gemma2,
    "vaultgemma": vaultgemma,
    "gemma3_text": gemma3_text,
    "gemma3n_text": gemma3n_text,
    "gemma4_text": gemma4_text,
}
