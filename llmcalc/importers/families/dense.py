"""Plain decoders: attention and a dense FFN in every layer."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.shape import Spec, biases, decoder, layer_types


def llama(c: Config, _: Any) -> Spec:
    """Llama and what is built like it."""
    attention, mlp = c.flag("attention_bias"), c.flag("mlp_bias")
    return decoder(c, biases=biases(attention=attention, ffn=mlp))


def mistral(c: Config, _: Any) -> Spec:
    """Llama with a window on every layer, where it is said."""
    return decoder(c, window=c.maybe("sliding_window"))


def _windowed(c: Config, layers: int) -> list[Spec]:
    """Qwen's layers: from ``max_window_layers`` on they have a window, where windows are used at all."""
    window = c.maybe("sliding_window") if c.flag("use_sliding_window") else None
    first = c.count("max_window_layers", layers, least=0)
    usual = ["sliding_attention" if window and index >= first else "full_attention" for index in range(layers)]
    types = layer_types(c, layers, usual)
    return [{"window": window if kind == "sliding_attention" else None} for kind in types]


def qwen2(c: Config, _: Any) -> Spec:
    """Qwen 2: biases on queries, keys and values."""
    spec = decoder(c, biases=["qkv"])
    return {**spec, "blocks": _windowed(c, spec["layers"])}


def qwen3(c: Config, _: Any) -> Spec:
    """Qwen 3: a norm on each head's queries and keys."""
    spec = decoder(c, biases=biases(attention=c.flag("attention_bias")), qk_norm="head")
    return {**spec, "blocks": _windowed(c, spec["layers"])}


FAMILIES = {"llama": llama, "mistral": mistral, "qwen2": qwen2, "qwen3": qwen3}
