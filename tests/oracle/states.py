"""What a model keeps between tokens, read off the cache that it returns after a short forward pass."""

from __future__ import annotations

import json
from typing import Any

from tests.oracle.oracle import choose_experts, full_data, text_inputs

# Where outputs keep their caches: transformers' caches, RWKV's state, XLNet's memories, Reformer's buckets.
ATTRIBUTES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states")
SHORT, LONG = 16, 24


def cache(model: Any) -> list[dict[str, Any]]:
    """Cache entries of one sequence, layers that keep the same in one record; empty where the model keeps nothing.

    A record has ``layers`` (indexes), ``kind`` (the cache layer's class, or the output it was found in), ``side`` (``self`` or
    ``cross`` for encoder-decoders), ``window`` (where the layer has one, else absent), ``per_token`` (name -> elements that a
    token adds, in the encoder for ``cross``), ``fixed`` (name -> shape of what does not grow) and ``dtype`` (name -> dtype where
    it differs from the model's, which is bfloat16 here).
    """
    short, long = read(run(model, SHORT)), read(run(model, LONG))
    records: dict[str, dict[str, Any]] = {}
    for key, (kind, side, window, tensors) in short.items():
        record: dict[str, Any] = {"kind": kind} | ({"side": side} if side else {}) | ({"window": window} if window else {})
        for name, tensor in sorted(tensors.items()):
            shape = list(tensor.shape)
            if name in ("keys", "values") and len(shape) == 4:
                record.setdefault("per_token", {})[name] = tensor.numel() // shape[2] if shape[2] else 0
            elif grown := long[key][3][name].numel() - tensor.numel():
                per_token = grown / (LONG - SHORT)
                record.setdefault("per_token", {})[name] = int(per_token) if per_token.is_integer() else per_token
            else:
                record.setdefault("fixed", {})[name] = shape
            if (dtype := str(tensor.dtype)[6:]) != "bfloat16":
                record.setdefault("dtype", {})[name] = dtype
        records.setdefault(json.dumps(record, sort_keys=True), {"layers": [], **record})["layers"].append(key[1])
    return list(records.values())


def run(model: Any, tokens: int) -> Any:
    """The outputs of a forward pass over that many tokens, a cache asked for; the model is bfloat16 from then on."""
    import torch

    model.to(torch.bfloat16)
    choose_experts(model)
    arguments = text_inputs(model, tokens)
    for name, value in arguments.items():
        if value.is_floating_point():
            arguments[name] = value.to(torch.bfloat16)
    with torch.no_grad(), full_data():
        return model(**arguments, use_cache=True)


def read(outputs: Any) -> dict[tuple[str, int], tuple[str, str, int | None, dict[str, Any]]]:
    """(side, layer) -> kind, side, window and the layer's floating-point tensors by name."""
    found: dict[tuple[str, int], tuple[str, str, int | None, dict[str, Any]]] = {}
    for attribute in ATTRIBUTES:
        value = getattr(outputs, attribute, None)
        if value is None:
            continue
        sides = {"": value}
        if hasattr(value, "self_attention_cache"):
            sides = {"self": value.self_attention_cache, "cross": value.cross_attention_cache}
        for side, each in sides.items():
            layers = getattr(each, "layers", None)
            if layers is None:
                layers = list(each) if isinstance(each, list | tuple) else [each]
            for index, layer in enumerate(layers):
                tensors = {} if layer is None else tensors_of(layer)
                kind = type(layer).__name__ if hasattr(layer, "__dict__") and not hasattr(layer, "shape") else attribute
                window = getattr(layer, "sliding_window", None)
                if tensors:
                    found[side, index] = (kind, side, int(window) if window is not None else None, tensors)
    return found


def tensors_of(value: Any) -> dict[str, Any]:
    """Name -> floating-point tensor, in attributes, dicts, lists and tuples, at any depth."""
    import torch

    if isinstance(value, torch.Tensor):
        return {"state": value} if value.is_floating_point() else {}
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list | tuple):
        inside = [("keys", value[0]), ("values", value[1])] if len(value) == 2 else list(enumerate(value))
    elif hasattr(value, "__dict__"):
        inside = [(name, each) for name, each in vars(value).items() if not name.startswith("_")]
    else:
        return {}
    found = {}
    for name, each in inside:
        for below, tensor in tensors_of(each).items():
            found[str(name) if below in ("state", "0") else f"{name}.{below}"] = tensor
    return found
