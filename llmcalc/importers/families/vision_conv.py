"""Towers that are no plain stack of layers: SAM's encoder, autoencoders of convolutions, DaViT. Parameters alone, no FLOPs."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.tensors import Tensors, attention, conv, linear, mlp, norm, table


def numbers(c: Config, key: str, least: int = 1) -> list[int]:
    """A list of whole numbers, at least one of them."""
    found = c.chosen(key)
    if not found or any(not least <= each <= 10**6 for each in found):
        raise c.error(key, f"found {found}, allowed: whole numbers from {least}")
    return found


def sam_neck(name: str, c: Config) -> Tensors:
    """Two convolutions to fewer channels, a norm after each."""
    hidden, out = c.count("hidden_size"), c.count("output_channels")
    return [
        *conv(f"{name}_1", out, hidden, 1, 1, bias=False),
        *norm(f"{name}_1_norm", out),
        *conv(f"{name}_2", out, out, 3, 3, bias=False),
        *norm(f"{name}_2_norm", out),
    ]


def sam(c: Config) -> Tensors:
    """SAM's encoder: windowed layers with relative positions, a few global ones, and a neck."""
    depth, hidden, heads = c.layers(), c.count("hidden_size"), c.count("num_attention_heads")
    grid, patch = c.count("image_size") // c.count("patch_size"), c.count("patch_size")
    window = c.count("window_size", least=0)
    inner = c.maybe("mlp_dim")
    if inner is None:
        inner = int(hidden * c.number("mlp_ratio"))
    whole = len({index for index in c.chosen("global_attn_indexes") if 0 <= index < depth})
    whole = whole if window else depth
    tensors = [
        *conv("sam_patch", hidden, c.count("num_channels"), patch, patch),
        *(table("sam_positions", grid, grid, hidden) if c.flag("use_abs_pos", True) else []),
        *attention("sam", hidden, bias=(*(c.flag("qkv_bias", True),) * 3, True), copies=depth),
        *mlp("sam", hidden, inner, copies=depth),
        *norm("sam_norm1", hidden, copies=depth),
        *norm("sam_norm2", hidden, copies=depth),
        *sam_neck("sam_neck", c),
    ]
    if c.flag("use_rel_pos"):
        for name, side, count in (("global", grid, whole), ("window", window, depth - whole)):
            if count:
                tensors += table(f"sam_{name}_relative", 2, 2 * side - 1, hidden // heads, copies=count)
    return tensors


def coded_norm(name: str, width: int, codes: int = 0) -> Tensors:
    """GroupNorm; where ``codes`` says how wide they are, with a scale and a shift from them (two convolutions of side 1)."""
    scales = conv(f"{name}_scale", width, codes, 1, 1) + conv(f"{name}_shift", width, codes, 1, 1) if codes else []
    return norm(name, width) + scales


def resnet(name: str, into: int, out: int, codes: int = 0) -> Tensors:
    """Two convolutions with norms before them, and a matrix on the way round where widths differ."""
    return [
        *coded_norm(f"{name}_norm1", into, codes),
        *conv(f"{name}_conv1", out, into, 3, 3),
        *coded_norm(f"{name}_norm2", out, codes),
        *conv(f"{name}_conv2", out, out, 3, 3),
        *(conv(f"{name}_shortcut", out, into, 1, 1) if into != out else []),
    ]


def mixing(name: str, width: int, inner: int | None = None, codes: int = 0) -> Tensors:
    """A norm and attention over positions, ``inner`` wide where that is not the width."""
    return [*coded_norm(f"{name}_norm", width, codes), *attention(name, inner or width)]


def middle(name: str, width: int, inner: int | None = None, codes: int = 0, *, attends: bool = True) -> Tensors:
    """Two residual blocks, and attention between them."""
    return [
        *resnet(f"{name}_1", width, width, codes),
        *(mixing(f"{name}_attention", width, inner, codes) if attends else []),
        *resnet(f"{name}_2", width, width, codes),
    ]


def vq(c: Config, *, decodes: bool) -> Tensors:
    """A VQ autoencoder (Chameleon, Janus): levels of residual blocks, each of half the side; attention at the last (Janus), or at
    the resolutions that are said (Chameleon)."""
    base, blocks, latent = c.count("base_channels"), c.count("num_res_blocks"), c.count("latent_channels")
    scale, dim = numbers(c, "channel_multiplier"), c.count("embed_dim")
    widths, last = [base * factor for factor in scale], len(scale) - 1
    plain = c.text("attn_type", "vanilla") == "vanilla"
    where = c.chosen("attn_resolutions")

    def attends(level: int) -> bool:
        return level == last if decodes else plain and c.count("resolution") // 2**level in where

    tensors = conv("vq_in", base, c.count("in_channels"), 3, 3)
    width = base
    for level, out in enumerate(widths):
        # The first block of a level takes what the level before is wide.
        width = base * ([1, *scale][level])
        for block in range(1, blocks + 1):
            tensors += resnet(f"vq_down_{level}_{block}", width, out)
            width = out
            if attends(level):
                tensors += mixing(f"vq_down_{level}_{block}_attention", out)
        if level != last:
            tensors += conv(f"vq_down_{level}", out, out, 3, 3)
    tensors += middle("vq_middle", width, attends=decodes or plain)
    latents = 2 * latent if c.flag("double_latent") else latent
    tensors += norm("vq_norm", width) + conv("vq_out", latents, width, 3, 3)
    tensors += table("vq_codes", c.count("num_embeddings"), dim)
    tensors += conv("vq_quantise", dim, latent, 1, 1) + conv("vq_restore", latent, dim, 1, 1)
    if not decodes:
        return tensors
    width = widths[last]
    tensors += conv("vq_decoder_in", width, latent, 3, 3) + middle("vq_decoder_middle", width)
    for level in range(last, -1, -1):
        for block in range(1, blocks + 2):
            tensors += resnet(f"vq_up_{level}_{block}", width, widths[level])
            width = widths[level]
            if attends(level):
                tensors += mixing(f"vq_up_{level}_{block}_attention", width)
        if level:
            tensors += conv(f"vq_up_{level}", width, width, 3, 3)
    return tensors + norm("vq_decoder_norm", width) + conv("vq_decoder_out", c.count("out_channels"), width, 3, 3)


def davit(c: Config) -> Tensors:
    """DaViT (Florence 2): four stages of blocks that attend within windows, then between channels; the projector."""
    widths, depths, kernels = numbers(c, "embed_dim"), numbers(c, "depths", 0), numbers(c, "patch_size")
    first: Any = c.get("patch_prenorm")
    if len({len(widths), len(depths), len(kernels)}) != 1 or not isinstance(first, list) or len(first) != len(widths):
        raise c.error("depths", "embed_dim, depths, patch_size and patch_prenorm differ in length")
    ratio, bias, tensors, into = c.number("mlp_ratio"), c.flag("qkv_bias", True), [], c.count("in_channels")
    for stage, (width, depth, kernel) in enumerate(zip(widths, depths, kernels, strict=True), 1):
        tensors += conv(f"davit_{stage}_patch", width, into, kernel, kernel)
        tensors += norm(f"davit_{stage}_patch_norm", into if first[stage - 1] else width)
        for kind in ("window", "channel") if depth else ():
            name = f"davit_{stage}_{kind}"
            for index in (1, 2):
                tensors += conv(f"{name}_conv{index}", width, 1, 3, 3, copies=depth) + norm(
                    f"{name}_norm{index}", width, copies=depth
                )
            tensors += attention(name, width, bias=(bias, bias, bias, True), copies=depth)
            tensors += mlp(name, width, int(width * ratio), copies=depth)
        into = width
    out, rows = c.count("projection_dim"), c.count("max_position_embeddings")
    return [
        *tensors,
        *linear("projector", out, into, bias=False),
        *norm("projector_norm", out),
        *table("row_positions", rows, into // 2),
        *table("column_positions", rows, into - into // 2),
    ]
