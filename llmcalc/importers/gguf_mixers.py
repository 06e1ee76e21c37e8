"""Recurrent mixers of a GGUF file's layers, by the names and shapes of their tensors."""

from __future__ import annotations

from llmcalc.importers.gguf_model import Layer
from llmcalc.importers.shape import Spec, trimmed


def recurrent(t: Layer) -> Spec | None:
    """The layer's mixer, None where it has none."""
    if t.has("shortconv.conv"):
        return {"type": "short-conv", "width": t.shape("shortconv.out_proj")[1], "conv": t.shape("shortconv.conv")[-1]}
    if t.has("ssm_conv1d_q"):
        return _kimi_delta(t)
    if t.any("ssm_ba", "ssm_beta"):
        return _gated_delta(t)
    if t.has("ssm_x"):
        return _mamba(t)
    return _mamba2(t) if t.has("ssm_in") else None


def _mamba(t: Layer) -> Spec:
    """Mamba; Jamba adds norms of step size, B and C."""
    width, rank = t.shape("ssm_dt")
    spec = {
        "type": "mamba", "width": width, "rank": rank, "state": t.shape("ssm_a")[1], "conv": t.shape("ssm_conv1d")[1],
        "conv_bias": t.has("ssm_conv1d.bias"), "bias": t.has("ssm_in.bias"), "norm": "inputs" if t.has("ssm_dt_norm") else None,
    }  # fmt: skip
    return trimmed(spec)


def _mamba2(t: Layer) -> Spec:
    """Mamba-2: as many heads as there are decays."""
    heads, channels = t.elements("ssm_a"), t.shape("ssm_conv1d")[0]
    width, groups = t.shape("ssm_out")[1], t.model.count("ssm.group_count", 1, least=1)
    state = t.split("ssm_conv1d", max(channels - width, 0), 2 * groups, "pairs of B and C")
    spec = {
        "type": "mamba2", "heads": heads, "head_dim": t.split("ssm_out", width, heads, "heads"), "state": state, "groups": groups,
        "conv": t.shape("ssm_conv1d")[1], "conv_bias": t.has("ssm_conv1d.bias"), "bias": t.has("ssm_in.bias"),
        "norm": "gated" if t.has("ssm_norm") else None, "chunk": t.model.arch.chunk,
    }  # fmt: skip
    return trimmed(spec)


def _gated_delta(t: Layer) -> Spec:
    """Gated delta nets (Qwen3-Next): heads of the values from the decays, heads of the keys from the metadata."""
    heads, width = t.elements("ssm_a"), t.shape("ssm_out")[1]
    key_heads = t.model.count("ssm.group_count", least=1)
    channels, taps = t.shape("ssm_conv1d")
    key_dim = t.split("ssm_conv1d", max(channels - width, 0), 2 * key_heads, "query and key heads")
    spec = {
        "type": "gated-delta", "heads": heads, "head_dim": t.split("ssm_out", width, heads, "heads"), "key_heads": key_heads,
        "key_dim": key_dim, "conv": taps, "chunk": t.model.arch.chunk,
    }  # fmt: skip
    return trimmed(spec)


def _kimi_delta(t: Layer) -> Spec:
    """Kimi's delta attention: three convolutions, gates of low rank."""
    heads, width = t.elements("ssm_a"), t.shape("attn_output")[1]
    spec = {
        "type": "kimi-delta", "heads": heads, "head_dim": t.split("attn_output", width, heads, "heads"),
        "rank": t.shape("ssm_f_a")[0], "conv": t.whole("ssm_conv1d_q")[-1], "chunk": t.model.arch.chunk,
    }  # fmt: skip
    return trimmed(spec)
