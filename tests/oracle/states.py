"""What a model keeps between tokens, read off the cache that it returns after a short forward pass."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from tests.oracle.oracle import choose_experts, full_data, text_inputs

# Where outputs keep their caches: transformers' caches, RWKV's state, XLNet's memories, Reformer's buckets.
ATTRIBUTES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states")
# What the library's own layers call them: [batch, heads, tokens, width], and states that no token adds to.
PER_TOKEN = ("keys", "values")
FIXED = ("conv_states", "recurrent_states")
SHORT, LONG = 16, 24  # tokens: what differs between the two grows


def cache(model: Any) -> list[dict[str, Any]]:
    """Cache entries of one sequence, layers that keep the same in one record; empty where the model keeps nothing.

    A record has ``layers`` (indexes), ``kind`` (the cache layer's class, or the output it was found in), ``side`` (``self`` or
    ``cross`` for encoder-decoders), ``window`` (where the layer has one, else absent), ``per_token`` (name -> elements that a
    token adds, in the encoder for ``cross``), ``fixed`` (name -> shape of what does not grow) and ``dtype`` (name -> dtype where
    it differs from the model's, which is bfloat16 here).
    """
    short = run(model, SHORT)
    known = all(
        name in FIXED or (name in PER_TOKEN and tensor.dim() == 4) for *_, each in short.values() for name, tensor in each.items()
    )
    long = short if known else run(model, LONG)
    records: dict[str, dict[str, Any]] = {}
    for key, (kind, side, window, tensors) in short.items():
        record: dict[str, Any] = {"kind": kind} | ({"side": side} if side else {}) | ({"window": window} if window else {})
        for name, tensor in sorted(tensors.items()):
            shape = list(tensor.shape)
            if name in PER_TOKEN and len(shape) == 4:
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


Kept = dict[tuple[str, int], tuple[str, str, int | None, dict[str, Any]]]


def run(model: Any, tokens: int) -> Kept:
    """What the model keeps of that many tokens; the model is bfloat16 from then on.

    Outputs are asked first. RecurrentGemma returns no cache: it fills one that it is given, and its modules hold the rest.
    """
    import torch
    from transformers import DynamicCache

    model.to(torch.bfloat16)
    choose_experts(model)
    arguments = text_inputs(model, tokens)
    for name, value in arguments.items():
        if value.is_floating_point():
            arguments[name] = value.to(torch.bfloat16)
    if not model.config.is_encoder_decoder:  # an encoder may refuse it; decoders have it set
        arguments["use_cache"] = True
    names = inspect.signature(model.forward).parameters
    with torch.no_grad(), full_data(), experts_see_all():
        found = read(model(**arguments))
        if not found and "past_key_values" in names and type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
            given = DynamicCache(config=model.config)
            model(**arguments, past_key_values=given)
            found = read(given)
    held(model, found)
    return found


def experts_see_all() -> Any:
    """Lets experts that look for their tokens run without data, as if every token were theirs."""
    import torch.fx.experimental._config as config

    return config.patch(meta_nonzero_assume_all_nonzero=True)


def held(model: Any, found: Kept) -> None:
    """Adds the states that the model's own modules hold, by the first number in the module's name."""
    for name, module in model.named_modules():
        tensors = {key: each for key, value in vars(module).items() if "state" in key for each in tensors_of(value).values()}
        number = re.search(r"\.(\d+)\.", name)
        if tensors and number:
            entry = found.setdefault(("", int(number[1])), (type(module).__name__, "", None, {}))
            entry[3].update(tensors)
            for key in tensors:
                setattr(module, key, None)


def read(value: Any) -> Kept:
    """(side, layer) -> kind, side, window and floating-point tensors by name, of outputs or of a cache."""
    found: Kept = {}
    caches = {name: getattr(value, name) for name in ATTRIBUTES if getattr(value, name, None) is not None}
    for attribute, each in (caches or {"": value} if hasattr(value, "layers") else caches).items():
        sides = {"": each}
        if hasattr(each, "self_attention_cache"):
            sides = {"self": each.self_attention_cache, "cross": each.cross_attention_cache}
        for side, kept in sides.items():
            read_side(attribute, side, kept, found)
    return found


def read_side(attribute: str, side: str, kept: Any, found: Kept) -> None:
    """Adds the layers of one cache: its ``layers``, other lists that it has per layer, or a plain list."""
    banks: list[tuple[str, dict[int, Any]]] = [("", dict(enumerate(kept if isinstance(kept, list | tuple) else [kept])))]
    if hasattr(kept, "layers") or any(numbered(each) for each in getattr(kept, "__dict__", {}).values()):
        lists = {name: each for name, each in vars(kept).items() if isinstance(each, list) or numbered(each)}
        banks = [
            ("" if name == "layers" else name, dict(enumerate(each)) if isinstance(each, list) else each)
            for name, each in lists.items()
        ]
    for bank, layers in banks:
        for index, layer in layers.items():
            tensors = tensors_of(layer)
            if not tensors:
                continue
            kind = bank or (attribute if isinstance(layer, list | tuple) or hasattr(layer, "shape") else type(layer).__name__)
            window = getattr(layer, "sliding_window", None)
            own = {f"{bank}.{name}" if bank and len(tensors) > 1 else bank or name: each for name, each in tensors.items()}
            entry = found.setdefault((side, index), (kind, side, None if window is None else int(window), {}))
            entry[3].update(own)


def numbered(value: Any) -> bool:
    """Whether the value is a dict with an entry per layer."""
    return isinstance(value, dict) and bool(value) and all(isinstance(key, int) for key in value)


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
