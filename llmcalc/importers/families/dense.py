"""Plain decoders of the Llama line: RMSNorm, rotary positions, a gated FFN in every layer."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.shape import Spec, biases, decoder, every, extra, layer_types, usual_biases


def llama(c: Config, _: Any) -> Spec:
    """Llama and what is built like it."""
    return decoder(c, biases=usual_biases(c))


def plain(c: Config, _: Any) -> Spec:
    """Llama without a word on biases."""
    return decoder(c)


def mistral(c: Config, _: Any) -> Spec:
    """Llama with a window on every layer, where it is said."""
    return decoder(c, window=c.maybe("sliding_window"))


def windows(c: Config, usual: list[str], window: int | None, key: str = "layer_types") -> list[Spec]:
    """A block for each layer, with the window in those that slide."""
    types = layer_types(c, len(usual), usual, key)
    for kind in types:
        if kind not in ("sliding_attention", "full_attention"):
            raise c.error(key, f"{kind!r} is no kind of layer; known: full_attention, sliding_attention")
    return [{"window": window if kind == "sliding_attention" else None} for kind in types]


def used_window(c: Config) -> int | None:
    """The window, where the switch beside it lets it be used."""
    return c.maybe("sliding_window") if c.flag("use_sliding_window") else None


def shorter_window(c: Config) -> int | None:
    """The window, where it is shorter than the context."""
    window, context = c.maybe("sliding_window"), c.maybe("max_position_embeddings")
    return None if window is None or (context and window >= context) else window


def pattern_period(c: Config) -> int:
    """Layers after which ``sliding_window_pattern`` comes round: a number, or text with a letter for each layer (LLLG); else 0."""
    pattern = c.get("sliding_window_pattern")
    return pattern if isinstance(pattern, int) else len(pattern) if isinstance(pattern, str) else 0


def rotated_layers(c: Config, layers: int) -> list[int]:
    """1 for a layer with rotary positions and 0 for one without, the last of every few unless they are listed."""
    return c.each("no_rope_layers", layers, int) or every(layers, c.count("no_rope_layer_interval", 4), 1, 0)


def late_windows(c: Config, window: int | None) -> list[Spec]:
    """Qwen's layers: from ``max_window_layers`` on they have a window, where windows are used at all."""
    layers = c.layers()
    first = c.count("max_window_layers", layers, least=0)
    return windows(c, ["sliding_attention" if window and i >= first else "full_attention" for i in range(layers)], window)


def qwen2(c: Config, _: Any) -> Spec:
    """Qwen 2: biases on queries, keys and values."""
    return decoder(c, biases=["qkv"], blocks=late_windows(c, used_window(c)))


def qwen3(c: Config, _: Any) -> Spec:
    """Qwen 3: a norm on each head's queries and keys."""
    return decoder(c, biases=biases(attention=c.flag("attention_bias")), qk_norm="head", blocks=late_windows(c, used_window(c)))


def phi3(c: Config, _: Any) -> Spec:
    """Phi-3 and Phi-4-mini: fused projections without biases; a window no shorter than the context is none."""
    return decoder(c, head_dim=None, window=shorter_window(c))


def olmo(c: Config, _: Any) -> Spec:
    """OLMo 1: a norm without parameters."""
    return decoder(c, norm="none", head_dim=None, biases=biases(attention=c.flag("attention_bias")))


def olmo2(c: Config, _: Any) -> Spec:
    """OLMo 2: norms on what the sub-layers give, and over all queries and keys at once."""
    return decoder(c, norm_placement="output", qk_norm="full", biases=biases(attention=c.flag("attention_bias")))


def olmo3(c: Config, task: Any) -> Spec:
    """OLMo 3: OLMo 2 with windows in three layers of four."""
    spec = olmo2(c, task)
    usual = every(spec["layers"], 4, "sliding_attention", "full_attention")
    return {**spec, "blocks": windows(c, usual, c.maybe("sliding_window"))}


def glm(c: Config, _: Any) -> Spec:
    """GLM-4 9B (0414's predecessor): biases on queries, keys and values."""
    return decoder(c, biases=biases(qkv=c.flag("attention_bias")))


def glm4(c: Config, _: Any) -> Spec:
    """GLM-4 0414: norms before and after each sub-layer."""
    return decoder(c, norm_placement="sandwich", biases=biases(qkv=c.flag("attention_bias")))


def cohere(c: Config, _: Any) -> Spec:
    """Command R: attention and FFN side by side on one LayerNorm without bias."""
    norm = "per-head" if c.flag("use_qk_norm") else None
    return decoder(c, norm="layernorm", norm_bias=False, parallel="one-norm", qk_norm=norm,
                   biases=biases(attention=c.flag("attention_bias")))  # fmt: skip


def cohere2(c: Config, task: Any) -> Spec:
    """Command R7B and A: windows in three layers of four."""
    spec = cohere(c, task)
    usual = every(spec["layers"], c.count("sliding_window_pattern", 4), "sliding_attention", "full_attention")
    return {**spec, "qk_norm": None, "blocks": windows(c, usual, c.maybe("sliding_window"))}


def ernie4_5(c: Config, _: Any) -> Spec:
    """ERNIE 4.5's dense model: one switch for all biases."""
    bias = c.flag("use_bias")
    return decoder(c, biases=biases(attention=bias, ffn=bias))


def exaone4(c: Config, _: Any) -> Spec:
    """EXAONE 4: norms on what the sub-layers give and on each head; windows in all but every fourth layer of the 32B."""
    spec, window = decoder(c, norm_placement="output", qk_norm="head"), c.maybe("sliding_window")
    period = pattern_period(c)
    usual = every(spec["layers"], period if window else 0, "sliding_attention" if window else "full_attention", "full_attention")
    return {**spec, "blocks": windows(c, usual, window)}


def smollm3(c: Config, _: Any) -> Spec:
    """SmolLM 3: every fourth layer has no positions, which costs nothing; windows where they are used."""
    layers, window = c.layers(), used_window(c)
    usual = ["sliding_attention" if window and not rope else "full_attention" for rope in rotated_layers(c, layers)]
    return decoder(c, biases=usual_biases(c), blocks=windows(c, usual, window))


def ministral(c: Config, _: Any) -> Spec:
    """Ministral 8B: windows in the layers that say so, all of them unless said."""
    spec, window = decoder(c), c.maybe("sliding_window")
    return {**spec, "blocks": windows(c, ["sliding_attention" if window else "full_attention"] * spec["layers"], window)}


def cwm(c: Config, _: Any) -> Spec:
    """Code World Model: every fourth layer full, the others windowed."""
    spec = decoder(c, biases=biases(ffn=c.flag("mlp_bias")))
    usual = every(spec["layers"], 4, "sliding_attention", "full_attention", 0)
    return {**spec, "blocks": windows(c, usual, c.maybe("sliding_window"))}


def apertus(c: Config, _: Any) -> Spec:
    """Apertus: xIELU, an activation with two learned numbers, and a norm on each head."""
    learned = [extra(name, 1, part="ffn") for name in ("activation_alpha_p", "activation_alpha_n")]
    xielu = c.get("hidden_act") == "xielu"
    return decoder(
        c, gated=False, qk_norm="head", biases=biases(attention=c.flag("attention_bias")), extra=learned if xielu else None
    )


def seed_oss(c: Config, _: Any) -> Spec:
    """Seed-OSS: biases on queries, keys and values apart from the output's."""
    return decoder(c, biases=biases(qkv=c.flag("attention_bias"), o=c.flag("attention_out_bias"), ffn=c.flag("mlp_bias")))


def arcee(c: Config, _: Any) -> Spec:
    """Arcee: squared ReLU without a gate."""
    return decoder(c, gated=False, biases=usual_biases(c))


def nanochat(c: Config, _: Any) -> Spec:
    """nanochat: norms without parameters, squared ReLU without a gate."""
    return decoder(c, gated=False, norm="none", biases=biases(qkv=c.flag("attention_bias"), o=c.flag("attention_bias")))


def helium(c: Config, _: Any) -> Spec:
    """Helium: no bias on the output projection."""
    return decoder(c, biases=biases(qkv=c.flag("attention_bias"), ffn=c.flag("mlp_bias")))


def bitnet(c: Config, _: Any) -> Spec:
    """BitNet b1.58: a norm before each output projection."""
    norms = [
        extra("attention_sub_norm", c.count("hidden_size"), part="norm"),
        extra("ffn_sub_norm", c.count("intermediate_size"), part="norm"),
    ]
    return decoder(c, biases=biases(attention=c.flag("attention_bias")), extra=norms)


def diffllama(c: Config, _: Any) -> Spec:
    """DiffLlama: two softmaxes, subtracted."""
    return decoder(c, differential=True, biases=biases(attention=c.flag("attention_bias")))


def internlm3(c: Config, _: Any) -> Spec:
    """InternLM 3: one switch for queries, keys and values, one for the rest."""
    bias = c.flag("bias")
    return decoder(c, biases=biases(qkv=c.flag("qkv_bias"), o=bias, ffn=bias))


def jais2(c: Config, _: Any) -> Spec:
    """Jais 2: LayerNorm, squared ReLU without a gate, biases."""
    return decoder(c, gated=False, norm="layernorm", biases=usual_biases(c))


def hunyuan(c: Config, _: Any) -> Spec:
    """Hunyuan's dense models: a norm on each head."""
    return decoder(c, qk_norm="head", biases=biases(attention=c.flag("attention_bias")))


FAMILIES = {
    "llama": llama,
    "granite": llama,
    "mistral": mistral,
    "ministral": ministral,
    "ministral3": mistral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "phi3": phi3,
    "olmo": olmo,
    "olmo2": olmo2,
    "olmo3": olmo3,
    "glm": glm,
    "glm4": glm4,
    "cohere": cohere,
    "cohere2": cohere2,
    "ernie4_5": ernie4_5,
    "exaone4": exaone4,
    "smollm3": smollm3,
    "cwm": cwm,
    "apertus": apertus,
    "seed_oss": seed_oss,
    "arcee": arcee,
    "nanochat": nanochat,
    "helium": helium,
    "bitnet": bitnet,
    "diffllama": diffllama,
    "internlm3": internlm3,
    "iquestcoder": llama,
    "jais2": jais2,
    "hunyuan_v1_dense": hunyuan,
}
