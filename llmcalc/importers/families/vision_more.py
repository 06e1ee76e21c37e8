"""More models that read images: projectors of many kinds, query transformers, towers side by side."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.tensors import Tensors, attention, every, linear, mlp, norm, table
from llmcalc.importers.families.towers import merger, tower
from llmcalc.importers.families.vision import alone, merged, model, own_head, text_of, ties_inside, width
from llmcalc.importers.families.vision_conv import davit, sam, sam_neck, vq
from llmcalc.importers.shape import Spec


def _tower_outside(spec: Spec, tensors: Tensors) -> Spec:
    """The spec with further tensors of a tower that is no stack of layers."""
    return {**spec, "outside": [*(spec.get("outside") or []), *every(tensors, part="vision", rows="none")]}


def aya(c: Config, task: Any) -> Spec:
    """Aya Vision: a square of patches side by side, a norm, a gated projector in two matrices."""
    vision, factor = tower(c), c.count("downsample_factor")
    into, inner = vision["hidden"] * factor**2, c.count("alignment_intermediate_size", width(c))
    projector = [
        *(norm("projector_norm", into) if c.model_type == "aya_vision" else []),
        *linear("projector_1", inner, into, rows="image_token"),
        *linear("projector_2", width(c), inner // 2, rows="image_token"),
    ]
    return model(c, task, merged(vision, factor), projector)


def lfm2(c: Config, task: Any) -> Spec:
    """LFM2-VL: a square of patches side by side, a norm unless switched off, two matrices."""
    vision, factor = tower(c), c.count("downsample_factor")
    into, inner, bias = vision["hidden"] * factor**2, c.count("projector_hidden_size"), c.flag("projector_bias", True)
    projector = [
        *(norm("projector_norm", into) if c.flag("projector_use_layernorm", True) else []),
        *linear("projector_1", inner, into, bias=bias, rows="image_token"),
        *linear("projector_2", width(c), inner, bias=bias, rows="image_token"),
    ]
    spec = model(c, task, merged(vision, factor), projector)
    return {**spec, "tied_head": c.flag("tie_embedding")} if c.says("tie_embedding") and not alone(c, task) else spec


def kimi(c: Config, task: Any) -> Spec:
    """Kimi K2.5: a norm, a square of patches side by side, two matrices."""
    vision, kernel = tower(c), c.sub("vision_config").chosen("merge_kernel_size")
    if len(kernel) != 2:
        raise c.error("vision_config.merge_kernel_size", f"found {kernel}, allowed: height and width")
    wide = vision["hidden"] * kernel[0] * kernel[1]
    projector = [
        *norm("projector_norm", c.sub("vision_config").count("mm_hidden_size", c.count("projection_hidden_size"))),
        *linear("projector_1", wide, wide, rows="image_token"),
        *linear("projector_2", width(c), wide, rows="image_token"),
    ]
    return model(c, task, vision, projector)


def ernie(c: Config, task: Any) -> Spec:
    """ERNIE 4.5 VL: squares of patches, then pairs of frames, each through an MLP with a norm."""
    vision, v = tower(c), c.sub("vision_config")
    square = vision["hidden"] * v.count("spatial_merge_size") ** 2
    projector: Tensors = []
    for name, into in (("spatial", square), ("temporal", square * v.count("temporal_merge_size"))):
        projector += linear(f"{name}_1", square, into, rows="image_token") + linear(f"{name}_2", square, square, rows="image_token")
        projector += norm(f"{name}_norm", square)
    projector += linear("projector", width(c), square, rows="image_token") + norm("projector_norm", width(c), bias=False)
    return model(c, task, vision, projector)


def aria(c: Config, task: Any) -> Spec:
    """Aria: as many learned queries as an image shall have tokens attend to the patches, twice projected."""
    vision = tower(c)
    hidden = vision["hidden"]
    said = c.get("projector_patch_to_query_dict")
    if not isinstance(said, dict) or not said or any(not isinstance(each, int) or each < 1 for each in said.values()):
        raise c.error("projector_patch_to_query_dict", "found no numbers of queries")
    most = "max_value_projector_patch_to_query_dict"
    projector = [
        *table("queries", c.count(most) if c.says(most) else max(said.values()), hidden),
        *attention("projector", hidden),
        *(tensor for role in "qkv" for tensor in linear(f"projector_in_{role}", hidden, hidden, bias=False)),
        *linear("projector_out", hidden, hidden),
        *(tensor for name in ("projector_norm", "projector_kv_norm", "projector_ffn_norm") for tensor in norm(name, hidden)),
        *mlp("projector", hidden, width(c), out=width(c), bias=False),
    ]
    return model(c, task, vision, projector)


def paddle(c: Config, task: Any) -> Spec:
    """PaddleOCR-VL: Qwen's merger behind SigLIP."""
    vision, factor, text = tower(c), c.sub("vision_config").count("spatial_merge_size"), c.flat("text_config")
    projector = merger("merger", vision["hidden"], text.count("hidden_size"), square=factor**2)
    return model(c, task, merged(vision, factor), projector, text)


def minimax(c: Config, task: Any) -> Spec:
    """MiniMax M3 VL: every patch through two matrices, then four side by side through two more."""
    v = c.sub("vision_config")
    if v.model_type == "clip_vision_model":
        # Files say the type that the tower was cut out of, and what merges patches one level deeper.
        kind = c.known.sub_configs["vision_config"]
        deeper = v.sub("img_token_compression_config")
        sizes = {key: deeper.count(key) for key in ("spatial_merge_size", "temporal_patch_size") if deeper.says(key)}
        c.inner["vision_config"] = Config({**sizes, **v.data}, kind, c.source, v.prefix)
        c.inner["vision_config"].asked |= {"img_token_compression_config", "model_type", "position_embedding_type"}
    vision, inner = tower(c), c.count("projector_hidden_size")
    projector = [
        *linear("projector_1", inner, vision["hidden"], rows="patch"),
        *linear("projector_2", width(c), inner, rows="patch"),
        *linear("merger_1", inner, width(c) * c.sub("vision_config").count("spatial_merge_size") ** 2, rows="image_token"),
        *linear("merger_2", width(c), inner, rows="image_token"),
    ]
    return model(c, task, vision, projector)


def ovis2(c: Config, task: Any) -> Spec:
    """Ovis 2: the tower's weights over a visual vocabulary mix the rows of a table."""
    vision, rows, out = tower(c), c.sub("vision_config").count("vocab_size"), c.count("hidden_size")
    spec = model(c, task, vision, table("visual_vocabulary", rows, out))
    untied = task.has_head and not alone(c, task) and not spec["tied_head"]
    return own_head(spec, c.count("vocab_size"), out) if untied else spec


def molmo2(c: Config, task: Any) -> Spec:
    """Molmo 2: patches pooled by attention over several layers' features, then a gated MLP."""
    vision, a = tower(c), c.sub("adapter_config")
    heads, kv, dim = a.count("num_attention_heads"), a.count("num_key_value_heads"), a.count("head_dim")
    hidden, into, bias = (
        a.count("hidden_size"),
        a.count("hidden_size") * len(a.chosen("vision_feature_layer")),
        a.flag("attention_bias"),
    )
    inner, mlp_bias = a.count("intermediate_size"), a.flag("mlp_bias")
    projector = [
        *linear("pooling_q", heads * dim, into, bias=bias),
        *linear("pooling_k", kv * dim, into, bias=bias),
        *linear("pooling_v", kv * dim, into, bias=bias),
        *linear("pooling_o", hidden, heads * dim, bias=bias),
        *linear("projector_gate", inner, hidden, bias=mlp_bias),
        *linear("projector_up", inner, hidden, bias=mlp_bias),
        *linear("projector_down", a.count("text_hidden_size"), inner, bias=False),
    ]
    spec = model(c, task, vision, projector)
    if not task.has_head:
        return spec
    # The embedding has rows for marks of images that the head never predicts; they are never tied.
    return own_head(spec, c.sub("text_config").count("vocab_size"), width(c))


def got(c: Config, task: Any) -> Spec:
    """GOT-OCR 2: SAM's encoder, two convolutions that halve each side, a matrix."""
    v, h = c.sub("vision_config"), width(c)
    channels = v.count("output_channels")
    tensors = [
        *sam(v),
        {"name": "upsampler_1", "shape": [2 * channels, channels, 3, 3]},
        {"name": "upsampler_2", "shape": [h, 2 * channels, 3, 3]},
        *linear("projector", h, h),
    ]
    spec = model(c, task, None)
    return spec if alone(c, task) else _tower_outside(spec, tensors)


def janus(c: Config, task: Any) -> Spec:
    """Janus: SigLIP to read images, an autoencoder with a head of its own to make them."""
    vision, v, q = tower(c), c.sub("vision_config"), c.sub("vq_config")
    out, made = v.count("projection_dim"), q.count("projection_dim")
    depth, image_depth = v.count("depth"), q.layers()
    aligner = [
        *linear("aligner", out, vision["hidden"], rows="image_token"),
        *(t for index in range(2, depth + 1) for t in linear(f"aligner_{index}", out, out, rows="image_token")),
    ]
    codes, dim = q.count("num_embeddings"), q.count("embed_dim")
    making = [
        *vq(q, decodes=True),
        *table("generation_embedding", codes, dim),
        *linear("generation_aligner", made, dim),
        *(t for index in range(2, image_depth + 1) for t in linear(f"generation_aligner_{index}", made, made)),
        *linear("generation_projection", made, q.count("image_token_embed_dim")),
        *linear("generation_head", codes, made),
    ]
    spec = model(c, task, vision, aligner)
    return spec if alone(c, task) else _tower_outside(spec, making)


def deepseek_hybrid(c: Config, task: Any) -> Spec:
    """DeepSeek-VL with SAM beside SigLIP for high resolution; each gives half of the projector's input."""
    vision, high, h = tower(c), c.sub("high_res_vision_config"), width(c)
    channels = high.count("output_channels")
    aligner = [
        *linear("aligner", h // 2, vision["hidden"], rows="image_token"),
        *linear("high_res_aligner", h // 2, 4 * channels, rows="image_token"),
        *linear("aligner_2", h, h, rows="image_token"),
    ]
    second = [
        *sam(high),
        *sam_neck("high_res_neck", high),
        {"name": "high_res_1", "shape": [2 * channels, channels, 3, 3]},
        {"name": "high_res_2", "shape": [4 * channels, 2 * channels, 3, 3]},
        *table("high_res_alpha", 1),
    ]
    spec = model(c, task, vision, aligner)
    return spec if alone(c, task) else _tower_outside(spec, second)


def mllama(c: Config, task: Any) -> Spec:
    """Llama 3.2 Vision: a tower with gated global layers behind its plain ones; the language model attends to what it gives."""
    v = c.sub("vision_config")
    spec = text_of(c, task)
    if alone(c, task):
        return spec
    hidden, ffn, heads = v.count("hidden_size"), v.count("intermediate_size"), v.count("num_attention_heads")
    plain, last = v.layers(), v.layers("num_global_layers")
    rows = (v.count("image_size") // v.count("patch_size")) ** 2 + 1
    shapes = v.get("supported_aspect_ratios")
    ratios, tiles = (len(shapes) if isinstance(shapes, list) else 8) + 1, v.count("max_num_tiles")
    gates = [*table("attention_gate", 1), *table("ffn_gate", 1)]
    tables = [
        *table("positions_gate", 1),
        *table("tile_positions", ratios, tiles * rows * hidden),
        *(t for name in ("pre_tile", "post_tile") for t in (*table(name, ratios, tiles * hidden), *table(f"{name}_gate", 1))),
    ]
    projector = linear("projector", width(c), v.count("vision_output_dim"), rows="image_token")
    spec["vision"] = {
        "layers": plain + last, "hidden": hidden, "heads": heads, "ffn": ffn, "gated": False, "norm": "layernorm",
        "biases": ["ffn"], "activation": v.text("hidden_act", "gelu"), "image": v.count("image_size"),
        "patch": v.count("patch_size"), "channels": v.count("num_channels"), "class_token": True, "patch_bias": False,
        "embedding_norm": True, "projector": "none", "outside": [*tables, *projector],
        "blocks": [{} for _ in range(plain)] + [{"extra": gates} for _ in range(last)],
    }  # fmt: skip
    return spec


def qformer(q: Config, name: str = "qformer", *, into: int | None = None, text: bool | None = None) -> Tensors:
    """BLIP-2's query transformer: learned queries attend to each other, and in every so many layers to the image."""
    depth, hidden, inner = q.layers(), q.count("hidden_size"), q.count("intermediate_size")
    into = into or q.count("encoder_hidden_size")
    crossing = len(range(0, depth, q.count("cross_attention_frequency")))
    reads_text = q.flag("use_qformer_text_input") if text is None else text
    layer = [
        *attention(f"{name}_self", hidden, copies=depth),
        *norm(f"{name}_self_norm", hidden, copies=depth),
        *attention(f"{name}_cross", hidden, keys_from=into, copies=crossing),
        *norm(f"{name}_cross_norm", hidden, copies=crossing),
        *mlp(f"{name}_query", hidden, inner, copies=depth),
        *norm(f"{name}_query_norm", hidden, copies=depth),
    ]
    if reads_text:
        layer += mlp(f"{name}_text", hidden, inner, copies=depth) + norm(f"{name}_text_norm", hidden, copies=depth)
    return [*layer, *norm(f"{name}_norm", hidden)]


def blip2(c: Config, task: Any) -> Spec:
    """BLIP-2 and InstructBLIP: a query transformer between a tower and a language model with a head of its own."""
    vision, q, text = tower(c), c.sub("qformer_config"), c.sub("text_config")
    hidden, instructs = q.count("hidden_size"), c.model_type.startswith("instructblip")
    between = [
        *table("query_tokens", c.count("num_query_tokens"), hidden),
        *qformer(q, into=vision["hidden"], text=True if instructs else None),
    ]
    if instructs:
        between += table("qformer_words", q.count("vocab_size"), hidden) + table(
            "qformer_positions", q.count("max_position_embeddings"), hidden
        )
    out = text.count("hidden_size")
    between += linear("projector", out, hidden)
    spec = text_of(c, task)
    if alone(c, task):
        return spec
    return {**spec, "vision": {**vision, "outside": between}, "tied_head": ties_inside(c, text)}


def florence2(c: Config, task: Any) -> Spec:
    """Florence 2: DaViT before an encoder-decoder."""
    tensors = davit(c.sub("vision_config"))
    spec = _tower_outside(text_of(c, task), tensors)
    return {**spec, "tied_head": c.flag("tie_word_embeddings", True)}


FAMILIES = {
    **dict.fromkeys(("aya_vision", "cohere2_vision"), aya),
    **dict.fromkeys(("blip-2", "instructblip", "instructblipvideo"), blip2),
    "lfm2_vl": lfm2, "kimi_k25": kimi, "ernie4_5_vl_moe": ernie, "aria": aria, "paddleocr_vl": paddle, "minimax_m3_vl": minimax,
    "ovis2": ovis2, "molmo2": molmo2, "got_ocr2": got, "pp_chart2table": got, "janus": janus,
    "deepseek_vl_hybrid": deepseek_hybrid, "mllama": mllama, "florence2": florence2,
}  # fmt: skip
