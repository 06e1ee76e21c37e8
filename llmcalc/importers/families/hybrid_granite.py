"""IBM's Granite: hybrids with Mamba-2 (4.0), mixtures beside a shared expert, and sliding windows with sinks."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.recurrent import kinds, mamba2_mixer
from llmcalc.importers.shape import Spec, biases, by_type, decoder, trimmed


def _mixture(c: Config) -> Spec:
    """The mixture, with its shared expert where there is one."""
    return trimmed({
        "experts": c.count("num_local_experts"), "top_k": c.count("num_experts_per_tok"), "ffn": c.count("intermediate_size"),
        "shared_ffn": c.count("shared_intermediate_size", least=0) or None,
    })  # fmt: skip


def _attention_biases(c: Config) -> list[str]:
    return biases(attention=c.flag("attention_bias"))


def hybrid(c: Config, _: Any) -> Spec:
    """Granite 4: Mamba-2 or attention, then a mixture beside a shared expert, which alone is the FFN where there are no experts."""
    experts = c.count("num_local_experts", least=0)
    ffn: Spec = {"ffn": None, "moe": _mixture(c)} if experts else {"ffn": c.count("shared_intermediate_size")}
    spec = decoder(c, biases=_attention_biases(c), **ffn)
    types = kinds(c, spec["layers"], ["linear_attention"] * spec["layers"])
    # Whatever is no recurrent layer is attention.
    blocks = [{"recurrent": mamba2_mixer(c)} if kind == "linear_attention" else {} for kind in types]
    return {**spec, "positions": "rotary" if c.get("position_embedding_type") == "rope" else "none", "blocks": blocks}


def shared(c: Config, _: Any) -> Spec:
    """Granite MoE with a shared expert."""
    return decoder(c, ffn=None, moe=_mixture(c), biases=_attention_biases(c))


def _windowed(c: Config, depth: int) -> list[Spec]:
    """Three windowed layers after each full one, and a sink for each head in all of them."""
    types = kinds(c, depth, ["sliding_attention" if index % 4 else "full_attention" for index in range(depth)])
    window = c.count("sliding_window") if "sliding_attention" in types else None
    return by_type(types, {"full_attention": {}, "sliding_attention": {"window": window}}, c)


def swa(c: Config, _: Any) -> Spec:
    """Granite with sliding windows."""
    spec = decoder(c, biases=[*_attention_biases(c), *biases(ffn=c.flag("mlp_bias"))], sinks=True)
    return {**spec, "blocks": _windowed(c, spec["layers"])}


def moe_swa(c: Config, _: Any) -> Spec:
    """Granite MoE with sliding windows."""
    spec = decoder(c, ffn=None, moe=_mixture(c), biases=_attention_biases(c), sinks=True)
    return {**spec, "blocks": _windowed(c, spec["layers"])}


FAMILIES = {"granitemoehybrid": hybrid, "granitemoeshared": shared, "granite_swa": swa, "granitemoe_swa": moe_swa}
