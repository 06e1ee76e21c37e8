"""Late models that read images or hear: towers around language models of other modules."""

from __future__ import annotations

from math import log2
from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.gemma import gemma4_text
from llmcalc.importers.families.tensors import Tensors, attention, conv, every, linear, mlp, norm, table
from llmcalc.importers.families.towers import vit
from llmcalc.importers.families.vision import model, text_of, width
from llmcalc.importers.families.vision_early import gemma4_tower
from llmcalc.importers.shape import Spec, biases, extra


def diffusion_text(c: Config, task: Any) -> Spec:
    """DiffusionGemma's: Gemma 4's layers, each with a mixture beside its FFN. Encoder and decoder share them."""
    if c.text("use_bidirectional_attention") == "all":
        raise c.error("use_bidirectional_attention", "'all' is not understood")
    known = {"enable_moe_block": True, "attention_k_eq_v": True, "hidden_size_per_layer_input": 0, "global_head_dim": 512}
    return gemma4_text(c.over({**known, "num_kv_shared_layers": 0, "use_double_wide_mlp": False}), task)


def diffusion(c: Config, task: Any) -> Spec:
    """DiffusionGemma: one set of layers reads the prompt and denoises a canvas; the canvas's own guess comes in through an FFN."""
    if not c.flag("tie_word_embeddings", True):
        raise c.error("tie_word_embeddings", "false gives encoder and decoder layers of their own, which is not understood")
    text = c.sub("text_config")
    hidden = text.count("hidden_size")
    vision = gemma4_tower(c.sub("vision_config"))
    vision["outside"] = linear("projector", hidden, vision["hidden"], bias=False, rows="image_token")
    guess = [
        *mlp("self_conditioning", hidden, text.count("intermediate_size"), gated=True, bias=False, part="ffn"),
        *norm("self_conditioning_norm", hidden, bias=False, part="norm"),
    ]
    spec = model(c, task, vision)
    return {**spec, "outside": [*(spec.get("outside") or []), *guess]}


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


def parakeet(a: Config) -> Tensors:
    """Parakeet's conformer behind convolutions that thin out the frames."""
    hidden, heads, kv = (
        a.count("hidden_size"),
        a.count("num_attention_heads"),
        a.count("num_key_value_heads", a.count("num_attention_heads")),
    )
    dim, bias, more = hidden // heads, a.flag("attention_bias", True), a.flag("convolution_bias", True)
    kernel, channels, steps = (
        a.count("subsampling_conv_kernel_size"),
        a.count("subsampling_conv_channels"),
        int(log2(a.count("subsampling_factor"))),
    )
    layer = [
        *(t for name in ("ffn_1", "ffn_2") for t in mlp(name, hidden, a.count("intermediate_size"), bias=bias)),
        *attention("conformer", hidden, inner=heads * dim, keys=kv * dim, bias=bias),
        *linear("relative_positions", heads * dim, hidden, bias=False),
        *table("content_bias", heads, dim),
        *table("position_bias", heads, dim),
        *conv("conv_in", 2 * hidden, hidden, 1, bias=more),
        *conv("conv_depth", hidden, 1, a.count("conv_kernel_size"), bias=more),
        *norm("conv_batch_norm", hidden),
        *conv("conv_out", hidden, hidden, 1, bias=more),
        *(t for index in range(1, 6) for t in norm(f"norm_{index}", hidden)),
    ]
    thin = conv("subsample_1", channels, 1, kernel, kernel)
    for index in range(2, steps + 1):
        thin += conv(f"subsample_{index}", channels, 1, kernel, kernel) + conv(f"subsample_{index}_point", channels, channels, 1, 1)
    left = a.count("num_mel_bins") // a.count("subsampling_conv_stride") ** steps
    return [*every(layer, copies=a.layers()), *thin, *linear("frames", hidden, channels * left)]


def _projector(name: str, into: int, inner: int, out: int, bias: bool = False) -> Tensors:
    """RMSNorm and two matrices."""
    return [
        *norm(f"{name}_norm", into, bias=False),
        *linear(f"{name}_1", inner, into, bias=bias),
        *linear(f"{name}_2", out, inner, bias=bias),
    ]


def _renamed(c: Config) -> Config:
    """Nemotron's released configs name three things otherwise."""
    names = {"llm_config": "text_config", "sound_config": "audio_config", "vit_hidden_size": "vision_hidden_size"}
    more = {new: c.data[old] for old, new in names.items() if c.data.get(old) is not None and c.data.get(new) is None}
    found = Config({**c.data, **more}, c.model_type, c.source, c.prefix) if more else c
    c.asked |= {*names, *found.known.sub_configs}
    c.inner = found.inner
    return found


def nemotron(c: Config, task: Any) -> Spec:
    """Nemotron H omni: RADIO and, where there is one, Parakeet before a hybrid language model."""
    c = _renamed(c)
    text, h = c.sub("text_config"), width(c)
    vision = radio(c.sub("vision_config"))
    wide = c.count("vision_hidden_size")
    square = int(1 / c.number("downsample_ratio")) ** 2
    projector = _projector("projector", wide * square, c.count("projector_hidden_size"), h)
    if text.count("num_nextn_predict_layers", 0, least=0):
        projector += norm("vision_norm", wide)
    spec = text_of(c, task, text)
    spec["vision"] = {**vision, "outside": [*vision["outside"], *projector]}
    if not c.says("audio_config"):
        return spec
    # The file's own names of types are none that transformers has.
    heard = {"attention_bias": False, **{key: value for key, value in c.sub("audio_config").data.items() if key != "model_type"}}
    a = Config(heard, "parakeet_encoder", c.source, "audio_config.")
    c.inner["audio_config"] = a
    sound = _projector("audio_projector", a.count("hidden_size"), a.count("projection_hidden_size"), h, a.flag("projection_bias"))
    return {**spec, "outside": [*(spec.get("outside") or []), *every([*parakeet(a), *sound], part="audio")]}


def timm(c: Config, _: Any) -> Spec:
    """Models whose tower is one of timm's: its layers are named, not described, by the config."""
    v = c.sub("vision_config")
    name = v.text("architecture", "a timm model")
    raise v.error(
        "architecture", f"{name}: the config names this timm tower but does not describe it; count the language model alone"
    )


FAMILIES = {
    "diffusion_gemma_text": diffusion_text,
    "diffusion_gemma": diffusion,
    "nemotron_h_omni": nemotron,
    "gemma3n": timm,
    "perception_lm": timm,
}
