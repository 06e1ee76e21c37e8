"""What importers build specs from: the plain decoder's fields, and layers one by one, folded into a pattern of kinds."""

from __future__ import annotations

from typing import Any, TypeVar

from llmcalc.importers.config import Config

Spec = dict[str, Any]
T = TypeVar("T")
LETTERS = "ABCDEFGHIJKMNOPQRTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"  # S and L are the format's own


class TooManyKinds(Exception):
    """More kinds of layer than a pattern has letters for."""


def trimmed(spec: Spec) -> Spec:
    """A spec without what it does not say."""
    return {key: value for key, value in spec.items() if value is not None and value != []}


def heads_of(c: Config) -> Spec:
    """Query heads, KV heads and head dim, by their usual names; KV heads as many as heads unless said."""
    heads = c.count("num_attention_heads")
    hidden = c.count("hidden_size")
    head_dim = c.maybe("head_dim")
    if head_dim is None and hidden % heads:
        head_dim = hidden // heads
    kv_heads = c.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise c.error("num_key_value_heads", f"{kv_heads} KV heads do not divide {heads} heads")
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}


def decoder(c: Config, **more: Any) -> Spec:
    """The plain decoder that most models are, with the names that Llama's config has for its parts."""
    spec = {
        "layers": c.layers(),
        "hidden": c.count("hidden_size"),
        **heads_of(c),
        "ffn": c.count("intermediate_size", 0),
        "vocab": c.count("vocab_size"),
        "context": c.maybe("max_position_embeddings"),
        "activation": c.text("hidden_act") or c.text("hidden_activation") or None,
        "tied_head": c.flag("tie_word_embeddings", True),
    }
    return {**spec, **more}


def biases(**said: bool) -> list[str]:
    """The linears that have a bias: ``biases(qkv=True, o=False)``."""
    return [name for name, has in said.items() if has]


def usual_biases(c: Config) -> list[str]:
    """Biases by the two switches that most configs have."""
    return biases(attention=c.flag("attention_bias"), ffn=c.flag("mlp_bias"))


def layer_types(c: Config, depth: int, otherwise: list[str], key: str = "layer_types") -> list[str]:
    """The kind of each layer as the config lists them, else as its class would derive them."""
    return c.each(key, depth) or otherwise


def every(depth: int, period: int, common: T, other: T, offset: int | None = None) -> list[T]:
    """``common`` layers, and at every ``period``-th (the last of each period unless ``offset`` says) the ``other``."""
    at = period - 1 if offset is None else offset
    return [other if index % period == at % period else common for index in range(depth)] if period > 0 else [common] * depth


def by_type(types: list[str], blocks: dict[str, Spec], c: Config, key: str = "layer_types") -> list[Spec]:
    """A block for each layer from its type. Raises SpecError for a type nobody knows."""
    for name in types:
        if name not in blocks:
            raise c.error(key, f"{name!r} is no kind of layer; known: {', '.join(sorted(blocks))}")
    return [blocks[name] for name in types]


def _period(letters: str) -> str:
    """The shortest text that repeats to ``letters``, the last time perhaps in part: by the longest border (Knuth et al. 1977)."""
    border = [0] * len(letters)
    for index in range(1, len(letters)):
        length = border[index - 1]
        while length and letters[index] != letters[length]:
            length = border[length - 1]
        border[index] = length + (letters[index] == letters[length])
    return letters[: len(letters) - border[-1]] if letters else letters


def fold(blocks: list[Spec]) -> Spec:
    """Layers one by one -> what they share, and a pattern of kinds for what they do not.

    Layers that differ in their window alone need no kinds: the pattern's S and L say it. Raises TooManyKinds.
    """
    blocks = [trimmed(block) for block in blocks]
    distinct: list[Spec] = []
    for block in blocks:
        if block not in distinct:
            distinct.append(block)
        if len(distinct) > len(LETTERS):
            raise TooManyKinds
    if len(distinct) == 1:
        return distinct[0]
    rest = [{key: value for key, value in block.items() if key != "window"} for block in distinct]
    windows = [block.get("window") for block in distinct]
    if len(distinct) == 2 and rest[0] == rest[1] and None in windows:
        letters = ["L" if window is None else "S" for window in windows]
        common = {**rest[0], "window": next(window for window in windows if window is not None)}
        kinds: Spec = {}
    else:
        letters = list(LETTERS[: len(distinct)])
        shared = {key for key in distinct[0] if key != "window" and all(block.get(key) == distinct[0][key] for block in distinct)}
        common = {key: distinct[0][key] for key in distinct[0] if key in shared}
        own = [{key: value for key, value in block.items() if key not in shared} for block in distinct]
        # A layer that is the stack's own block is what the format calls L where no window is said.
        letters = ["L" if not kind else letter for letter, kind in zip(letters, own, strict=True)]
        kinds = {letter: kind for letter, kind in zip(letters, own, strict=True) if kind}
    pattern = _period("".join(letters[distinct.index(block)] for block in blocks))
    return {**common, "pattern": pattern, **({"kinds": kinds} if kinds else {})}


def extra(name: str, *shape: int, part: str | None = None, **more: Any) -> Spec:
    """A further tensor, for ``extra`` and ``outside``."""
    return trimmed({"name": name, "shape": list(shape), "part": part, **more})
