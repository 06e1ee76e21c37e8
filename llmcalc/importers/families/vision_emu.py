"""Emu 3's autoencoder of images and videos: convolutions over space, then over time. Parameters alone, no FLOPs."""

from __future__ import annotations

from math import log2

from llmcalc.importers.config import Config
from llmcalc.importers.families.tensors import Tensors, conv, norm, table
from llmcalc.importers.families.vision_conv import coded_norm, middle, mixing, numbers, resnet


def _over_time(name: str, width: int, blocks: int, steps: int, kernel: int) -> Tensors:
    """Residual blocks over three dims, and convolutions that halve or double the frames."""
    tensors: Tensors = []
    for index in range(1, blocks + 1):
        tensors += norm(f"{name}_{index}_norm1", width) + conv(f"{name}_{index}_conv1", width, width, 3, 3, 3)
        tensors += norm(f"{name}_{index}_norm2", width) + conv(f"{name}_{index}_conv2", width, width, 3, 3, 3)
    for index in range(1, steps + 1):
        tensors += conv(f"{name}_scale_{index}", width, width, kernel, 3, 3)
    return tensors


def emu3_vq(c: Config) -> Tensors:
    """Encoder, codes and decoder."""
    base, blocks, latent, dim = (
        c.count("base_channels"),
        c.count("num_res_blocks"),
        c.count("latent_channels"),
        c.count("embed_dim"),
    )
    scale, hidden = numbers(c, "channel_multiplier"), c.count("hidden_size")
    widths, last, where = [base * factor for factor in scale], len(scale) - 1, set(c.chosen("attn_resolutions"))
    steps = int(log2(c.count("temporal_downsample_factor")))
    out = 2 * latent if c.flag("double_latent") else latent

    tensors = conv("vq_in", base, c.count("in_channels"), 3, 3)
    for level, width in enumerate(widths):
        into = base * [1, *scale][level]
        for block in range(1, blocks + 1):
            name = f"vq_down_{level}_{block}"
            tensors += resnet(name, into, width)
            into = width
            if level in where:
                tensors += mixing(f"{name}_attention", width, hidden)
        if level != last:
            tensors += conv(f"vq_down_{level}", width, width, 3, 3)
    tensors += middle("vq_middle", widths[last], hidden)
    tensors += norm("vq_norm", widths[last]) + conv("vq_out", out, widths[last], 3, 3)
    tensors += _over_time("vq_time", out, blocks, steps, 4)

    tensors += table("vq_codes", c.count("codebook_size"), dim)
    tensors += conv("vq_quantise", dim, latent, 3, 1, 1) + conv("vq_restore", latent, dim, 3, 1, 1)

    tensors += _over_time("vq_decoder_time", latent, blocks, steps, 3)
    tensors += conv("vq_decoder_in", widths[last], latent, 3, 3) + middle("vq_decoder_middle", widths[last], hidden, dim)
    into = widths[last]
    for level in range(last, -1, -1):
        for block in range(1, blocks + 2):
            name = f"vq_up_{level}_{block}"
            tensors += resnet(name, into, widths[level], dim)
            into = widths[level]
            if level in where:
                tensors += mixing(f"{name}_attention", into, hidden, dim)
        if level:
            tensors += conv(f"vq_up_{level}", into, into, 3, 3)
    tensors += coded_norm("vq_decoder_norm", widths[0], dim)
    return tensors + conv("vq_decoder_out", c.count("out_channels"), widths[0], 3, 3)
