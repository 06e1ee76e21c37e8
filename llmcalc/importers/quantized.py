"""What a config's ``quantization_config`` says of the weights: the quantisation of the catalogue that its files hold.

Only what the catalogue says exactly is named; anything else is a note. Modules that the file leaves in 16 bits are looked at:
embedding, head, norms and routers are left out by every quantisation here, others make it a different one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# Bits of a weight that share one scale -> the quantisation, by method.
GROUPED = {
    ("gptq", 4, 128): "gptq-g128", ("gptq", 4, 32): "gptq-g32", ("gptq", 8, 128): "gptq-8bit", ("awq", 4, 128): "awq-g128",
}  # fmt: skip
# ModelOpt's names, which stand in the file in place of a method or beside it.
ALGORITHMS = {"FP8": "fp8", "NVFP4": "nvfp4"}
# Methods that have a quantisation of the routed experts alone; MXFP4 is that in every model with experts.
EXPERTS = {"int4-g32": "int4-g32-experts", "nvfp4": "nvfp4-experts", "mxfp4": "mxfp4"}
ASK = "sizes are those of the plain dtype unless --quant says otherwise"
NOT_ALL = ("int4-g32",)  # of no linear layers but the experts
PARTS = ("attention", "experts", "shared experts", "dense FFNs")
# What every quantisation of the catalogue leaves alone, by a part of a module's name.
NEVER = (
    "lm_head", "embed", "norm", "router", "correction_bias", "indexers_proj", "weights_proj", "vision", "visual", "projector",
    "patch_merge", "mtp", "nextn", "eh_proj", "conv1d", "in_proj_ba", "in_proj_a", "in_proj_b",
)  # fmt: skip


class Stored(NamedTuple):
    """``name`` in the catalogue, or None with the reason in ``note``; both None where the weights are plain."""

    name: str | None = None
    note: str | None = None


def _left_out(config: Mapping[str, Any]) -> set[str]:
    """Kinds of modules that stay in 16 bits beside those that always do."""
    listed: list[Any] = []
    for key in ("modules_to_not_convert", "ignore", "exclude_modules", "llm_int8_skip_modules", "ignored_layers"):
        value = config.get(key)
        listed += value if isinstance(value, list) else []
    return {kind for name in listed if isinstance(name, str) for kind in _kind(name.removeprefix("re:").lower())}


def _kind(name: str) -> Iterable[str]:
    if any(word in name for word in NEVER) or name in ("head", "model.head"):
        return ()
    last = [part for part in name.rstrip("*.").replace("*", "").split(".") if part][-1:]
    if last in (["gate"], ["shared_expert_gate"]):
        return ()
    if "attn" in name or "attention" in name or "mixer" in name:
        return ("attention",)
    if "shared_expert" in name:
        return ("shared experts",)
    if "expert" in name:
        return ("experts",)
    if "mlp" in name or "ffn" in name or "feed_forward" in name:
        return ("dense FFNs",)
    return ("whole layers",) if "layers" in name else (last[0] if last else name,)


def _weights(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The one scheme of ``config_groups``; None where there are several."""
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping) or len(groups) != 1:
        return None
    group = next(iter(groups.values()))
    found = group.get("weights") if isinstance(group, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _compressed(config: Mapping[str, Any]) -> str | None:
    """compressed-tensors: bits, type and strategy of the one group."""
    weights = _weights(config)
    if weights is None:
        return None
    scheme = (weights.get("num_bits"), weights.get("type"), weights.get("strategy"))
    group, symmetric = weights.get("group_size"), weights.get("symmetric") is not False
    if scheme == (8, "float", "channel"):
        return "fp8-channel"
    if scheme == (8, "float", "tensor"):
        return "fp8"
    if scheme == (8, "float", "block") and weights.get("block_structure") in ([128, 128], "128x128"):
        return "fp8-block"
    if scheme == (4, "int", "group") and group in (32, 128) and symmetric:
        return "int4" if group == 128 else "int4-g32"
    if (weights.get("num_bits"), weights.get("type"), group) == (4, "float", 16):
        return "nvfp4"
    return "mxfp4" if (weights.get("num_bits"), weights.get("type"), group) == (4, "float", 32) else None


def _method(config: Mapping[str, Any], method: str) -> str | None:
    """The quantisation of all linear layers, as the method names it."""
    algorithm = config.get("quant_algo")
    if isinstance(algorithm, str):
        return ALGORITHMS.get(algorithm)
    if method == "fp8":
        block = config.get("weight_block_size")
        return "fp8" if block is None else "fp8-block" if block == [128, 128] else None
    if method in ("gptq", "awq"):
        if config.get("dynamic") or config.get("lm_head") or config.get("zero_point") is False:
            return None  # other bits for some modules, a head with them, or no zero points
        return GROUPED.get((method, config.get("bits"), config.get("group_size")))  # type: ignore[arg-type]
    if method == "bitsandbytes":
        if config.get("load_in_8bit"):
            return "int8"
        if config.get("load_in_4bit"):
            return "nf4" if config.get("bnb_4bit_use_double_quant") else "nf4-single"
    if method == "compressed-tensors":
        return _compressed(config)
    return {"mxfp4": "mxfp4", "fbgemm_fp8": "fp8-channel"}.get(method)


def stored(data: Mapping[str, Any], modules: frozenset[str]) -> Stored:
    """The quantisation of a config's weights; ``modules`` are those of PARTS that the model has."""
    inner = data.get("text_config")
    holders = [data, *([inner] if isinstance(inner, Mapping) else [])]
    keys = ("quantization_config", "compression_config", "quantization")
    config = next((found for holder in holders for key in keys if isinstance(found := holder.get(key), Mapping) and found), None)
    if config is None:
        return Stored()
    method = config.get("quant_method", config.get("quant_algo"))
    method = method if isinstance(method, str) else "mlx" if {"bits", "group_size"} <= config.keys() else "an unnamed method"
    kind = next((value for holder in holders if isinstance(value := holder.get("expert_dtype"), str)), None)
    try:
        name = _method(config, method.lower())
    except TypeError:  # a list where a number belongs
        name = None
    details = f"{method}{_details(config)}"
    if name is None or kind not in (None, "fp8"):
        also = f", experts in {kind}" if kind else ""
        return _unnamed(f"{details}{also}")
    # Whole layers are those before the mixtures, as a rule.
    left = {"dense FFNs" if kind == "whole layers" else kind for kind in _left_out(config)}
    left = {kind for kind in left if kind in modules or kind not in PARTS}
    if "experts" in modules and (left == modules - {"experts"} or method == "mxfp4"):
        name = EXPERTS.get(name)
    elif left or name in NOT_ALL:
        name = None
    if name is None:
        kept = f" but for {', '.join(sorted(left)[:4])}" if left else ""
        return _unnamed(f"{details}{kept}")
    return Stored(name)


def _unnamed(what: str) -> Stored:
    return Stored(None, f"the weights are published quantised ({what}), which no quantisation of the catalogue says; {ASK}")


def _details(config: Mapping[str, Any]) -> str:
    """Bits and group, where the file has them."""
    bits, group = config.get("bits"), config.get("group_size")
    weights = _weights(config)
    if weights is not None:
        bits, group = weights.get("num_bits"), weights.get("group_size")
    return "".join(
        f", {value} {word}" if word == "bits" else f", {word} {value}"
        for value, word in ((bits, "bits"), (group, "groups of"))
        if isinstance(value, int) and not isinstance(value, bool)
    )
