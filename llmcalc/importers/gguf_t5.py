"""T5 in GGUF: an encoder and a decoder, or an encoder alone, each with names of its own."""

from __future__ import annotations

from llmcalc.importers.gguf_model import Layer, Model
from llmcalc.importers.shape import Spec


def _block(t: Layer) -> Spec:
    """A layer of T5: heads by the metadata, the rest by the shapes."""
    heads = t.each("attention.head_count")
    gated = t.has("ffn_gate")
    dim = t.split("attn_q", t.shape("attn_q")[0], heads, "heads")
    return {"heads": heads, "head_dim": dim, "ffn": t.shape("ffn_down")[1], "gated": gated or False}


def stacks(m: Model) -> Spec:
    """The fields of both stacks, all layers of which are built alike. Raises SpecError where they are not."""
    depth = m.depth("enc.blk")
    encoder = _alike(m, "enc.blk", depth)
    buckets = m.count("attention.relative_buckets_count", 0) or None
    common: Spec = {"relative_buckets": buckets, "final_norm": "enc.output_norm" in m.outside}
    if ("dec.blk", 0) not in m.layers:
        return {"type": "encoder", "layers": depth, **encoder, **common, "tied_head": None}
    layers = m.depth("dec.blk", "decoder_block_count" if m.says("decoder_block_count") else "block_count")
    decoder = _alike(m, "dec.blk", layers)
    differing = {key: value for key, value in encoder.items() if decoder[key] != value}
    return {"type": "encoder-decoder", "layers": layers, **decoder, **common, "encoder": {"layers": depth, **differing}}


def _alike(m: Model, stack: str, depth: int) -> Spec:
    """The one block that all layers of a stack are."""
    first = _block(m.layer(stack, 0))
    for index in range(1, depth):
        if _block(m.layer(stack, index)) != first:
            raise m.error(f"{stack}.{index}", "is built otherwise than the first layer, which T5 does not know")
    return first
