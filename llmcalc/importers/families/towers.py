"""Vision towers: a tower's config -> what a spec says under ``vision``, projector apart. One function for each kind of tower.

A tower's function knows nothing of the model around it, so any tower goes with any language model.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.tensors import linear, mlp, norm, pooling_head, table
from llmcalc.importers.shape import Spec, biases, extra


def side(c: Config, key: str) -> int | None:
    """A side in pixels; a pair of equal ones is one side. None where the config has none."""
    value = c.get(key)
    if isinstance(value, list) and len(value) == 2:
        if value[0] != value[1] or not isinstance(value[0], int):
            raise c.error(key, f"{value} is not square; only square images and patches are understood")
        c = Config({key: value[0]}, "", c.source, c.prefix)
    return c.maybe(key)


def vit(c: Config, **more: Any) -> Spec:
    """The plain vision transformer: norms before, biases everywhere, a learned position for each patch."""
    spec = {
        "layers": more["layers"] if "layers" in more else c.layers(),
        "hidden": more["hidden"] if "hidden" in more else c.count("hidden_size"),
        "heads": c.count("num_attention_heads"),
        "ffn": more["ffn"] if "ffn" in more else c.count("intermediate_size"),
        "gated": False,
        "activation": c.text("hidden_act", "gelu"),
        "norm": "layernorm",
        "biases": ["all"],
        "image": None if "image" in more else side(c, "image_size") or c.count("image_size"),
        "patch": side(c, "patch_size") or c.count("patch_size"),
        "channels": c.count("num_channels", 3),
        "projector": "none",
    }
    return {**spec, **more}


def siglip(c: Config, **more: Any) -> Spec:
    """SigLIP: no class token; its pooling head is there unless switched off."""
    spec = vit(c, **more)
    head = pooling_head("head", spec["hidden"], spec["ffn"]) if c.flag("vision_use_head", True) else []
    return {**spec, "outside": head}


def siglip2(c: Config) -> Spec:
    """SigLIP 2 for images of any shape: ``num_patches`` positions, resampled to each image."""
    return siglip(c, image=None, position_rows=c.count("num_patches"))


def bare_siglip(c: Config) -> Spec:
    """SigLIP without a head, as Idefics, Phi and Paddle took it over."""
    return vit(c)


def clip(c: Config) -> Spec:
    """CLIP: a class token, a norm before the layers, patches without bias."""
    return vit(c, class_token=True, patch_bias=False, embedding_norm=True)


def blip(c: Config) -> Spec:
    """BLIP and EVA: a class token, one matrix for queries, keys and values, whose bias may be absent."""
    bias = True if c.model_type == "blip_vision_model" else c.flag("qkv_bias", True)
    return vit(c, class_token=True, biases=biases(qkv=bias, o=True, ffn=True))


def llama4(c: Config) -> Spec:
    """Llama 4: rotary and learned positions, and an MLP that takes four patches for one token."""
    spec = clip(c)
    ratio = c.number("pixel_shuffle_ratio")
    inner = c.count("projector_input_dim")
    out = c.count("projector_output_dim")
    tokens = int(((spec["image"] // spec["patch"]) * ratio) ** 2)
    adapter = [
        *linear("adapter_up", inner, spec["ffn"], bias=False, rows="image_token"),
        *linear("adapter_down", out, out, bias=False, rows="image_token"),
    ]
    return {**spec, "tokens": tokens, "outside": adapter}


def merger(name: str, width: int, out: int, wide_norm: bool = False, gain_only: bool = False, square: int = 4) -> list[Spec]:
    """Qwen's merger: ``square`` patches side by side through two matrices; the norm before or after they are put together."""
    wide = width * square
    return [
        *norm(f"{name}_norm", wide if wide_norm else width, bias=not gain_only),
        *linear(f"{name}_up", wide, wide, rows="image_token"),
        *linear(f"{name}_down", out, wide, rows="image_token"),
    ]


def _qwen(c: Config, hidden: int, ffn: int, **more: Any) -> Spec:
    return vit(
        c, layers=c.layers("depth"), hidden=hidden, ffn=ffn, heads=c.count("num_heads"), channels=c.count("in_channels", 3),
        frames=c.count("temporal_patch_size"), image=None, final_norm=False, **{"position_rows": 0, **more},
    )  # fmt: skip


def qwen2(c: Config) -> Spec:
    """Qwen2-VL: rotary positions, images of any size; here ``hidden_size`` is the language model's."""
    hidden = c.count("embed_dim")
    spec = _qwen(c, hidden, int(hidden * c.number("mlp_ratio")), patch_bias=False)
    return {**spec, "outside": merger("merger", hidden, c.count("hidden_size"), square=c.count("spatial_merge_size") ** 2)}


def qwen2_5(c: Config) -> Spec:
    """Qwen2.5-VL: RMSNorm, a gated FFN with biases, windows but in a few layers."""
    hidden = c.count("hidden_size")
    spec = _qwen(c, hidden, c.count("intermediate_size"), patch_bias=False, gated=True, norm="rmsnorm")
    kv_heads = c.maybe("num_key_value_heads")
    outside = merger("merger", hidden, c.count("out_hidden_size"), gain_only=True, square=c.count("spatial_merge_size") ** 2)
    return {**spec, "kv_heads": kv_heads, "outside": outside}


def qwen3(c: Config) -> Spec:
    """Qwen3-VL: a grid of learned positions; mergers of their own for some layers' outputs (DeepStack)."""
    hidden, out = c.count("hidden_size"), c.count("out_hidden_size")
    rows = c.count("num_position_embeddings")
    square = c.count("spatial_merge_size") ** 2
    spec = _qwen(c, hidden, c.count("intermediate_size"), position_rows=rows)
    deep = len(c.chosen("deepstack_visual_indexes"))
    more = [
        tensor
        for index in range(1, deep + 1)
        for tensor in merger(f"deepstack_{index}", hidden, out, wide_norm=True, square=square)
    ]
    return {**spec, "outside": [*merger("merger", hidden, out, square=square), *more]}


def glm4v(c: Config) -> Spec:
    """GLM-4.1V: RMSNorm, gated FFN without biases, a convolution that takes a square of patches for one token."""
    hidden, out = c.count("hidden_size"), c.count("out_hidden_size")
    image, patch, merge = c.count("image_size"), c.count("patch_size"), c.count("spatial_merge_size")
    spec = _qwen(
        c, hidden, out, norm="rmsnorm", gated=True, biases=biases(qkv=c.flag("attention_bias")),
        position_rows=(image // patch) ** 2,
    )  # fmt: skip
    return {
        **spec,
        "embedding_norm": True,
        "final_norm": True,
        "outside": _downsampled(hidden, out, merge, c.count("intermediate_size")),
    }


def glm_ocr(c: Config) -> Spec:
    """GLM-OCR: GLM-4.1V's tower without learned positions, with norms of queries and keys and biases throughout."""
    hidden, out, merge = c.count("hidden_size"), c.count("out_hidden_size"), c.count("spatial_merge_size")
    bias = c.flag("attention_bias")
    spec = _qwen(c, hidden, c.count("intermediate_size"), norm="rmsnorm", gated=True, biases=biases(all=bias), qk_norm="head")
    return {**spec, "final_norm": True, "outside": _downsampled(hidden, out, merge, out * c.count("in_channels"))}


def _downsampled(hidden: int, out: int, merge: int, inner: int) -> list[Spec]:
    """GLM's way to fewer tokens: a convolution over a square of patches, a matrix with a norm, a gated MLP."""
    return [
        extra("downsample", out, hidden, merge, merge, rows="image_token"),
        extra("downsample.bias", out),
        *linear("merger", out, out, bias=False, rows="image_token"),
        *norm("merger_norm", out),
        *mlp("merger", out, inner, gated=True, bias=False, rows="image_token"),
    ]


def video_llama(c: Config) -> Spec:
    """VideoLLaMA 3: SigLIP with rotary positions alone."""
    return vit(c, image=None, position_rows=0)


def pixtral(c: Config) -> Spec:
    """Pixtral: Llama's layers without biases, rotary positions, a norm before the layers and none after."""
    return vit(
        c, gated=True, norm="rmsnorm", biases=[], patch_bias=False, position_rows=0, embedding_norm=True, final_norm=False
    )  # fmt: skip


def internvl(c: Config) -> Spec:
    """InternViT: gains on what attention and FFN add, norms of queries and keys where said."""
    hidden = c.count("hidden_size")
    kind = {"layer_norm": "layernorm", "rms_norm": "rmsnorm"}.get(c.text("norm_type", "layer_norm"))
    if kind is None:
        raise c.error("norm_type", f"{c.get('norm_type')!r} is neither layer_norm nor rms_norm")
    qk_norm = c.flag("use_qk_norm")
    scales = [extra("attention_scale", hidden), extra("ffn_scale", hidden)]
    if qk_norm:
        # Norms of queries and keys are RMSNorms whatever the others are.
        scales += [extra("q_norm", hidden), extra("k_norm", hidden)]
    return vit(
        c, class_token=True, norm=kind, biases=biases(qkv=c.flag("attention_bias"), o=True, ffn=True), extra=scales,
        final_norm=not c.flag("use_mean_pooling", True),
        position_rows=None if c.flag("use_absolute_position_embeddings", True) else 0,
        outside=table("mask_token", hidden) if c.flag("use_mask_token") else [],
    )  # fmt: skip


def kimi(c: Config) -> Spec:
    """MoonViT as in Kimi K2.5: a grid of learned positions and rotary ones."""
    theirs = {
        "hidden_size": "vt_hidden_size", "intermediate_size": "vt_intermediate_size", "num_hidden_layers": "vt_num_hidden_layers",
        "num_attention_heads": "vt_num_attention_heads", "pos_emb_height": "init_pos_emb_height",
        "pos_emb_width": "init_pos_emb_width", "pos_emb_time": "init_pos_emb_time",
    }  # fmt: skip
    for name, other in theirs.items():
        c.names.setdefault(name, []).append(other)
    c.asked |= {*theirs.values(), "mm_hidden_size", "projector_hidden_act"}
    rows = c.count("pos_emb_height") * c.count("pos_emb_width")
    return vit(c, image=None, position_rows=rows, channels=3)


def ernie(c: Config) -> Spec:
    """ERNIE 4.5 VL: Qwen2-VL's tower on single frames."""
    hidden = c.count("hidden_size")
    spec = vit(
        c, layers=c.layers("depth"), heads=c.count("num_heads"), channels=c.count("in_channels"), image=None, position_rows=0,
        patch_bias=False,
    )  # fmt: skip
    return {**spec, "hidden": hidden}


def idefics(c: Config) -> Spec:
    """CLIP with another name for its width."""
    return vit(c, hidden=c.count("embed_dim"), class_token=True, patch_bias=False, embedding_norm=True)


def janus(c: Config) -> Spec:
    """Janus: SigLIP with switches, its FFN a multiple of its width."""
    hidden = c.count("hidden_size")
    qk = norm("q_norm", hidden) + norm("k_norm", hidden) if c.flag("use_qk_norm") else []
    return vit(
        c, ffn=int(hidden * c.number("mlp_ratio")), extra=qk, biases=biases(qkv=c.flag("attention_bias"), o=True, ffn=True)
    )  # fmt: skip


def molmo2(c: Config) -> Spec:
    """Molmo 2: heads of their own dim, learned positions for the default size, no norm at the end."""
    bias = c.flag("attention_bias", True)
    sides = c.get("image_size")
    patch = c.count("patch_size")
    said = c.maybe("num_position_embeddings") if c.says("num_position_embeddings") else None
    if not isinstance(sides, list) or any(not isinstance(each, int) for each in sides):
        raise c.error("image_size", f"found {sides!r}, allowed: height and width")
    return vit(
        c, kv_heads=c.count("num_key_value_heads"), head_dim=c.count("head_dim"), biases=biases(attention=bias, ffn=True),
        image=None, position_rows=said or prod(each // patch for each in sides), final_norm=False,
    )  # fmt: skip


def ovis2(c: Config) -> Spec:
    """Ovis 2 (AIMv2): RMSNorm, gated FFN; a head that turns patches into weights over a visual vocabulary."""
    hidden, vocab = c.count("hidden_size"), c.count("vocab_size") - c.count("num_visual_indicator_tokens")
    stride = c.count("hidden_stride")
    qkv, feed = c.flag("qkv_bias"), c.flag("mlp_bias")
    head = [*linear("head", vocab, hidden * stride**2, bias=False, rows="image_token"), *norm("head_norm", vocab)]
    return vit(c, gated=True, norm="rmsnorm", biases=biases(qkv=qkv, o=qkv, ffn=feed), embedding_norm=True, outside=head)


def minimax(c: Config) -> Spec:
    """MiniMax M3 VL: CLIP's layers with rotary positions, patches of two frames, no norm at the end."""
    return vit(
        c, image=None, position_rows=0, patch_bias=False, embedding_norm=True, final_norm=False,
        frames=c.count("temporal_patch_size"),
    )  # fmt: skip


def radio(v: Config) -> Spec:
    """RADIO: class and register tokens, a grid of positions that is cropped to the image, gains on what each part adds."""
    hidden, ratio = v.count("hidden_size"), v.number("mlp_ratio")
    ffn, gated = int(hidden * ratio), v.flag("use_swiglu_ffn")
    if gated:
        # SwiGLU keeps two thirds of the width, rounded up to a multiple of 8.
        ffn = (int(ffn * 2 / 3) + 7) // 8 * 8
    patch, channels, frames = v.count("patch_size"), v.count("num_channels"), v.maybe("video_temporal_patch_size")
    outside = table("tokens", v.count("num_cls_tokens") + v.count("num_registers", least=0), hidden)
    if frames:
        outside += linear("video_patch", hidden, frames * channels * patch * patch, bias=False)
    return vit(
        v, ffn=ffn, gated=gated, biases=biases(qkv=v.flag("qkv_bias", True), o=True, ffn=True), image=None, patch_bias=False,
        position_rows=(v.count("max_img_size") // patch) ** 2, final_norm=False, outside=outside,
        extra=[extra("attention_scale", hidden), extra("ffn_scale", hidden)],
    )  # fmt: skip


TOWERS: dict[str, Callable[[Config], Spec]] = {
    "siglip_vision_model": siglip, "siglip2_vision_model": siglip2, "clip_vision_model": clip, "llama4_vision_model": llama4,
    "qwen2_vl_vision": qwen2, "qwen2_5_vl_vision": qwen2_5, "qwen3_vl_vision": qwen3, "qwen3_vl_moe_vision": qwen3,
    "qwen3_5_vision": qwen3, "qwen3_5_moe_vision": qwen3, "glm4v_vision": glm4v, "glm4v_moe_vision": glm4v, "pixtral": pixtral,
    "internvl_vision": internvl, "idefics2_vision": bare_siglip, "idefics3_vision": bare_siglip, "smolvlm_vision": bare_siglip,
    "paddleocr_vl_vision": bare_siglip, "kimi_k25_vision": kimi, "ernie4_5_vl_moe_vision": ernie, "idefics_vision": idefics,
    "blip_vision_model": blip, "blip_2_vision_model": blip, "instructblip_vision_model": blip, "git_vision_model": clip,
    "kosmos_2_vision_model": clip, "janus_vision_model": janus, "molmo2_vision": molmo2, "ovis2_vision": ovis2,
    "qwen2_5_omni_vision_encoder": qwen2_5, "qwen3_omni_moe_vision_encoder": qwen3, "exaone4_5_vision": qwen2_5,
    "minimax_m3_vl_vision": minimax,
    "glm_ocr_vision": glm_ocr, "video_llama_3_vision": video_llama, "instructblipvideo_vision_model": blip,
    "qianfan_ocr_vision": internvl,
}  # fmt: skip


def tower(c: Config, key: str = "vision_config") -> Spec:
    """The tower of a model. Raises SpecError for one that nobody knows."""
    inside = c.sub(key)
    if inside.model_type not in TOWERS:
        raise inside.error("model_type", f"{inside.model_type!r} is a vision tower that llmcalc does not know")
    # Files carry keys of the classes that the towers were cut out of.
    inside.asked |= {"vocab_size", "projection_dim", "in_chans", "spatial_patch_size"}
    return TOWERS[inside.model_type](inside)
