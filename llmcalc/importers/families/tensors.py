"""Tensors that stand outside of layers, or in layers no other field can say: linears, norms, convolutions, whole blocks.

Each function gives a list of ``extra`` entries. ``rows`` says what a matrix is multiplied by, and ``times`` how often by each;
unless said it is nothing, so that the tensor counts as parameters and adds no FLOPs, and with None every token of its stack.
Further arguments (``part``, ``copies``, ``after`` the layers) hold for a bias too.
"""

from __future__ import annotations

from math import prod
from typing import Any

from llmcalc.importers.shape import Spec, extra

Tensors = list[Spec]


def linear(
    name: str, out: int, into: int, *, bias: bool = True, rows: str | None = "none", times: int | None = None, **more: Any
) -> Tensors:
    """A matrix and its bias."""
    return conv(name, out, into, bias=bias, rows=rows, times=times, **more)


def conv(
    name: str, out: int, into: int, *kernel: int,
    bias: bool = True, rows: str | None = "none", times: int | None = None, **more: Any,
) -> Tensors:  # fmt: skip
    """A convolution's kernel and its bias; ``into`` is the channels of one group."""
    whole = extra(name, out, into, *kernel, rows=rows, times=times, **more)
    return [whole, *([extra(f"{name}.bias", out, **more)] if bias else [])]


def norm(name: str, width: int, *, bias: bool = True, **more: Any) -> Tensors:
    """A norm's gain, and its bias where it is a LayerNorm."""
    return [extra(name, width, **more), *([extra(f"{name}.bias", width, **more)] if bias else [])]


def table(name: str, *shape: int, **more: Any) -> Tensors:
    """Rows that are looked up, or a learned tensor that is added."""
    return [extra(name, *shape, times=0, **more)]


def attention(
    name: str, width: int, *, keys_from: int | None = None, inner: int | None = None, keys: int | None = None,
    bias: bool | tuple[bool, bool, bool, bool] = True, **more: Any,
) -> Tensors:  # fmt: skip
    """Query, key, value and output projections, ``inner`` wide (``keys`` for keys and values); biases for all or one by one."""
    inner = inner or width
    keys = keys or inner
    source = keys_from or width
    has = bias if isinstance(bias, tuple) else (bias,) * 4
    shapes = (("q", inner, width), ("k", keys, source), ("v", keys, source), ("o", width, inner))
    return [
        tensor
        for (role, out, into), one in zip(shapes, has, strict=True)
        for tensor in linear(f"{name}_{role}", out, into, bias=one, **more)
    ]


def mlp(
    name: str, width: int, inner: int, *, out: int | None = None, gated: bool = False, bias: bool = True, **more: Any
) -> Tensors:
    """Up and down, and a gate where it is gated; the last gives ``out``, ``width`` unless said."""
    roles = (("gate", inner, width), ("up", inner, width), ("down", out or width, inner))
    return [
        tensor
        for role, rows, into in roles[0 if gated else 1 :]
        for tensor in linear(f"{name}_{role}", rows, into, bias=bias, **more)
    ]


def pooling_head(name: str, width: int, inner: int, **more: Any) -> Tensors:
    """SigLIP's attention pooling: a probe attends to all patches, then an MLP."""
    return [
        *table(f"{name}_probe", width, **more),
        *attention(name, width, **more),
        *norm(f"{name}_norm", width, **more),
        *mlp(name, width, inner, **more),
    ]


def every(tensors: Tensors, **more: Any) -> Tensors:
    """The tensors with ``more`` said of each that says nothing of it: ``every(tensors, part="vision", copies=12)``."""
    return [{**more, **tensor} for tensor in tensors]


def tower_tensors(tower: Spec, name: str, part: str) -> Tensors:
    """A plain tower as tensors, for a model that has two; its FLOPs are not told."""
    depth, hidden, ffn = tower["layers"], tower["hidden"], tower["ffn"]
    patch = (tower.get("channels", 3), tower.get("frames", 1), tower["patch"], tower["patch"])
    patches = (tower["image"] // tower["patch"]) ** 2 + bool(tower.get("class_token"))
    layers = every(
        [
            *attention(f"{name}_layers", hidden),
            *mlp(f"{name}_layers", hidden, ffn),
            *norm(f"{name}_layers_norm1", hidden),
            *norm(f"{name}_layers_norm2", hidden),
        ],
        copies=depth,
    )
    ends = [
        *linear(f"{name}_patch", hidden, prod(patch), bias=tower.get("patch_bias", True)),
        *table(f"{name}_positions", tower.get("position_rows", patches), hidden),
        *(table(f"{name}_class_token", hidden) if tower.get("class_token") else []),
        *(norm(f"{name}_embedding_norm", hidden) if tower.get("embedding_norm") else []),
        *(norm(f"{name}_final_norm", hidden) if tower.get("final_norm", True) else []),
    ]
    return every([*ends, *layers, *tower.get("outside", [])], part=part)
