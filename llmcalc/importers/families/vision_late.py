"""Late models that read images or hear: towers around language models of other modules."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.audio import gemma4_audio, parakeet, phi4_audio
from llmcalc.importers.families.gemma import gemma4_text
from llmcalc.importers.families.tensors import Tensors, every, linear, mlp, norm, pooling_head, table
from llmcalc.importers.families.towers import radio, tower, vit
from llmcalc.importers.families.vision import alone, model, shrunk, text_of, width
from llmcalc.importers.families.vision_early import with_tensors
from llmcalc.importers.families.vision_more import qformer
from llmcalc.importers.shape import Spec, decoder, extra


def gemma4_tower(v: Config) -> Spec:
    """Gemma 4's tower: norms around each sub-layer, two tables of positions (rows and columns), patches without bias."""
    hidden = v.count("hidden_size")
    return {
        "layers": v.layers(), "hidden": hidden, "heads": v.count("num_attention_heads"), "kv_heads": v.count("num_key_value_heads"),
        "head_dim": v.count("head_dim"), "ffn": v.count("intermediate_size"), "activation": v.text("hidden_activation", "gelu"),
        "norm": "rmsnorm", "norm_placement": "sandwich", "qk_norm": "head", "patch": v.count("patch_size"), "patch_bias": False,
        "position_rows": 2 * v.count("position_embedding_size"), "final_norm": False, "projector": "none",
    }  # fmt: skip


def gemma4(c: Config, task: Any) -> Spec:
    """Gemma 4: one matrix each from the towers that there are."""
    vision = None
    if c.says("vision_config"):
        vision = gemma4_tower(c.sub("vision_config"))
        vision["outside"] = linear("projector", width(c), vision["hidden"], bias=False, rows="image_token")
    spec = model(c, task, vision)
    if alone(c, task) or not c.says("audio_config"):
        return spec
    a = c.sub("audio_config")
    projector = linear("audio_projector", width(c), a.count("output_proj_dims"), bias=False)
    return with_tensors(spec, [*gemma4_audio(a), *projector], "audio")


def phi4(c: Config, _: Any) -> Spec:
    """Phi-4 multimodal: SigLIP and a conformer, with two matrices from each (two pairs for sound)."""
    v, a = c.sub("vision_config"), c.sub("audio_config")
    hidden = c.count("hidden_size")
    vision = vit(v)
    vision["tokens"] = ((vision["image"] // vision["patch"] + 1) // 2) ** 2
    wide = vision["hidden"]
    vision["outside"] = [
        *pooling_head("head", wide, vision["ffn"]),
        *linear("projector_1", hidden, wide, rows="image_token"),
        *linear("projector_2", hidden, hidden, rows="image_token"),
        *table("global_separator", wide),
        *table("crop_separator", wide),
    ]
    sound = phi4_audio(a)
    for name in ("speech", "vision_speech"):
        sound += linear(f"{name}_1", hidden, a.count("hidden_size") * a.count("downsample_rate"))
        sound += linear(f"{name}_2", hidden, hidden)
    return {**with_tensors(decoder(c, window=c.maybe("sliding_window")), sound, "audio"), "vision": vision}


def granite4(c: Config, task: Any) -> Spec:
    """Granite 4 Vision: query transformers over windows of the image, one for each layer that is fed and four for space."""
    vision, q = tower(c), c.sub("qformer_config")
    said, rate = c.get("deepstack_layer_map"), c.text("downsample_rate").split("/")
    if not isinstance(said, list) or len(rate) != 2 or not all(side.isdigit() and 0 < int(side) < 10**4 for side in rate):
        raise c.error("deepstack_layer_map", "needs a list of layer pairs, and downsample_rate like 4/8 beside it")
    hidden, count = vision["hidden"], len(said) + 4
    one = [
        *qformer(q),
        *norm("sampler_norm", hidden),
        *table("sampler_queries", int(rate[0]) ** 2, hidden),
        *table("sampler_positions", int(rate[1]) ** 2, hidden),
        *linear("sampler_out", width(c), hidden),
    ]
    many = [{**tensor, "copies": tensor.get("copies", 1) * count} for tensor in one]
    return model(c, task, vision, [*many, *table("image_newline", width(c))])


def hunyuan(c: Config, task: Any) -> Spec:
    """HunyuanVL: convolutions that take a square of patches for one token, and learned marks of line and image."""
    v, text = c.sub("vision_config"), c.flat("text_config")
    hidden, out, merge = v.count("hidden_size"), text.count("hidden_size"), v.count("spatial_merge_size")
    rows = (v.count("max_image_size") // v.count("patch_size")) ** 2 + 1
    vision = vit(v, image=None, position_rows=rows, final_norm=False)
    marks = [table("image_newline", 4 * hidden), *(table(name, out) for name in ("image_begin", "image_end", "image_separator"))]
    projector = [
        extra("merger", 2 * hidden, hidden, merge, merge, rows="image_token"),
        extra("merger.bias", 2 * hidden),
        *linear("merger_2", 4 * hidden, 2 * hidden, rows="image_token"),
        *linear("projector", out, 4 * hidden, rows="image_token"),
        *(tensor for mark in marks for tensor in mark),
        *norm("merger_norm", hidden, bias=False),
        *norm("projector_norm", out, bias=False),
    ]
    return model(c, task, vision, projector, text)


def step(c: Config, task: Any) -> Spec:
    """Step 3.7: a tower with learned and rotary positions, two convolutions that halve each side, one matrix."""
    v = c.sub("vision_config")
    hidden = v.count("width") if v.says("width") else v.count("hidden_size")
    depth = v.layers("layers") if v.says("layers") else v.layers()
    heads = v.count("heads") if v.says("heads") else v.count("num_attention_heads")
    vision = vit(
        v, hidden=hidden, layers=depth, heads=heads, ffn=int(hidden * v.number("mlp_ratio")), patch_bias=False, embedding_norm=True,
        final_norm=False, extra=[extra("attention_scale", hidden), extra("ffn_scale", hidden)],
    )  # fmt: skip
    projector = [
        extra("downsample_1", 2 * hidden, hidden, 3, 3, times=0),
        extra("downsample_1.bias", 2 * hidden),
        extra("downsample_2", 4 * hidden, 2 * hidden, 3, 3, times=0),
        extra("downsample_2.bias", 4 * hidden),
        *linear("projector", width(c), 4 * hidden, bias=c.flag("projector_bias"), rows="image_token"),
    ]
    return model(c, task, vision, projector)


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
    square = shrunk(c, "downsample_ratio") ** 2
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
    "gemma4": gemma4,
    "phi4_multimodal": phi4,
    "granite4_vision": granite4,
    "hunyuan_vl": hunyuan,
    "step3p7": step,
    "diffusion_gemma_text": diffusion_text,
    "diffusion_gemma": diffusion,
    "nemotron_h_omni": nemotron,
    "gemma3n": timm,
    "perception_lm": timm,
}
