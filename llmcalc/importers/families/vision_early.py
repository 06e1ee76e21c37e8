"""Earlier and odder models that read images: text decoders that attend to images, tokens of images, encoders of one matrix."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.tensors import Tensors, attention, every, linear, mlp, norm, pooling_head, table
from llmcalc.importers.families.towers import tower, vit
from llmcalc.importers.families.vision import alone, model, text_of, ties_inside, width
from llmcalc.importers.families.vision_conv import vq
from llmcalc.importers.families.vision_emu import emu3_vq
from llmcalc.importers.shape import Spec, biases, decoder, extra


def _with(spec: Spec, tensors: Tensors, part: str = "vision") -> Spec:
    return {**spec, "outside": [*spec.get("outside", []), *every(tensors, part=part)]}


def fuyu(c: Config, task: Any) -> Spec:
    """Fuyu: one matrix from the pixels of a patch to the language model's width."""
    patch, channels = c.count("patch_size"), c.count("num_channels")
    spec = _with(text_of(c, task), linear("patch", width(c), patch * patch * channels))
    return {**spec, "tied_head": c.flag("tie_word_embeddings")}


def chameleon(c: Config, _: Any) -> Spec:
    """Chameleon: images are tokens, made by an autoencoder; LayerNorms with gains and biases for each head."""
    hidden, heads, kv = c.count("hidden_size"), c.count("num_attention_heads"), c.count("num_key_value_heads")
    dim = hidden // heads
    extras = [*norm("q_norm", heads * dim, part="norm"), *norm("k_norm", kv * dim, part="norm")]
    spec = decoder(
        c, head_dim=None, biases=biases(attention=c.flag("attention_bias"), ffn=c.flag("mlp_bias")), extra=extras,
        norm_placement="output" if c.flag("swin_norm") else None,
    )  # fmt: skip
    return _with(spec, vq(c.sub("vq_config"), decodes=False))


def emu3(c: Config, task: Any) -> Spec:
    """Emu 3: images and videos are tokens, made by an autoencoder."""
    spec = text_of(c, task)
    if alone(c, task):
        return spec
    return {**_with(spec, emu3_vq(c.sub("vq_config"))), "tied_head": c.flag("tie_word_embeddings")}


def _perceiver(c: Config, hidden: int) -> Tensors:
    """Idefics' resampler: a few latents attend to the image in every layer."""
    p = c.sub("perceiver_config")
    depth, heads, dim = p.layers("resampler_depth"), p.count("resampler_n_heads"), p.count("resampler_head_dim")
    layer = [
        *norm("perceiver_context_norm", hidden),
        *norm("perceiver_latents_norm", hidden),
        *attention("perceiver", hidden, inner=heads * dim, bias=False),
        *norm("perceiver_ffn_norm", hidden),
        *mlp("perceiver", hidden, 4 * hidden, bias=False),
    ]
    if p.flag("qk_layer_norms_perceiver"):
        layer += norm("perceiver_q_norm", dim) + norm("perceiver_k_norm", dim)
    latents = table("perceiver_latents", p.count("resampler_n_latents"), hidden)
    return [*latents, *every(layer, copies=depth), *norm("perceiver_norm", hidden)]


def idefics(c: Config, _: Any) -> Spec:
    """Idefics: Llama, with a gated layer that attends to images before every so many of its own. Those run with images alone."""
    vision = tower(c)
    hidden, heads, ffn = c.count("hidden_size"), c.count("num_attention_heads"), c.count("intermediate_size")
    dim, added = hidden // heads, c.count("additional_vocab_size", 0, least=0)
    gates = {"float": 1, "vector": hidden}.get(c.text("alpha_type", "float"))
    if gates is None:
        raise c.error("alpha_type", f"{c.get('alpha_type')!r} is neither float nor vector")
    if c.flag("tie_word_embeddings") and added:
        raise c.error("tie_word_embeddings", "tied embeddings with an additional vocabulary are not understood")
    count = c.layers() // c.count("cross_layer_interval")
    crossing = [
        *attention("cross", hidden, keys_from=vision["hidden"], bias=False, part="cross_attention"),
        *mlp("cross", hidden, ffn, gated=True, bias=False, part="ffn"),
        *norm("cross_norm", hidden, bias=False, part="norm"),
        *norm("cross_ffn_norm", hidden, bias=False, part="norm"),
        extra("cross_gate", gates, part="cross_attention"),
        extra("cross_ffn_gate", gates, part="ffn"),
    ]
    if c.flag("qk_layer_norms"):
        crossing += norm("cross_q_norm", dim, bias=False, part="norm") + norm("cross_k_norm", dim, bias=False, part="norm")
    outside = every(crossing, copies=count) if count else []
    if added:
        outside += table("additional_embedding", added, hidden, part="positions")
        outside += linear("additional_head", added, hidden, bias=False, rows="logit", part="other", after=True)
    spec = decoder(c, kv_heads=None, head_dim=None, outside=outside)
    resampler = _perceiver(c, vision["hidden"]) if c.flag("use_resampler") else []
    return {**spec, "vision": {**vision, "outside": resampler}}


def _bert(c: Config, **more: Any) -> Spec:
    """BERT as a decoder: norms after each sum, biases everywhere, learned positions and a norm behind them."""
    return {
        "layers": c.layers(), "hidden": c.count("hidden_size"), "heads": c.count("num_attention_heads"),
        "ffn": c.count("intermediate_size"), "gated": False, "activation": c.text("hidden_act", "gelu"), "biases": ["all"],
        "norm": "layernorm", "norm_placement": "post", "vocab": c.count("vocab_size"), "context": c.count("max_position_embeddings"),
        "positions": "learned", "embedding_norm": True, **more,
    }  # fmt: skip


def blip(c: Config, task: Any) -> Spec:
    """BLIP for captions: a BERT decoder whose every layer attends to the image too, before a head with a transform."""
    if task.architecture not in ("", "BlipForConditionalGeneration"):
        raise c.error("architectures", f"{task.architecture} has no language model that llmcalc could count")
    vision, t = tower(c), c.sub("text_config")
    hidden, seen = t.count("hidden_size"), vision["hidden"]
    crossing = [
        *attention("cross", hidden, keys_from=seen, part="cross_attention"),
        *norm("cross_norm", hidden, part="norm"),
    ]
    vocab = t.count("vocab_size")
    head = [
        *linear("head_transform", hidden, hidden, rows="logit", part="other", after=True),
        *norm("head_norm", hidden, part="norm", after=True),
        extra("head.bias", vocab, part="lm_head", after=True),
    ]
    tied = c.flag("tie_word_embeddings", True) or t.flag("tie_word_embeddings", True)
    if not tied:
        head.append(extra("head_decoder.bias", vocab, part="lm_head", after=True))
    spec = _bert(t, extra=crossing, image_cache=2 * hidden, outside=head, tied_head=tied)
    return {**spec, "vision": vision}


def git(c: Config, _: Any) -> Spec:
    """GIT: CLIP, one matrix with a norm, and a BERT decoder over image and text."""
    vision = tower(c)
    hidden, frames = c.count("hidden_size"), c.get("num_image_with_embedding")
    projector = [*linear("projector", hidden, vision["hidden"], rows="patch"), *norm("projector_norm", hidden)]
    if frames is not None:
        projector += table("frame_positions", c.count("num_image_with_embedding"), vision["hidden"])
    spec = _bert(c, head_bias=True, tied_head=c.flag("tie_word_embeddings"))
    return {**spec, "vision": {**vision, "outside": projector}}


def kosmos2_text(c: Config, _: Any) -> Spec:
    """Kosmos 2's: sinusoidal positions, a further norm inside attention and FFN."""
    if c.flag("add_cross_attention"):
        raise c.error("add_cross_attention", "cross-attention without an encoder is not understood")
    hidden, ffn = c.count("embed_dim"), c.count("ffn_dim")
    inner = [*norm("inner_attention_norm", hidden, part="norm"), *norm("inner_ffn_norm", ffn, part="norm")]
    return {
        "layers": c.layers("layers"), "hidden": hidden, "heads": c.count("attention_heads"), "ffn": ffn, "gated": False,
        "activation": c.text("activation_function", "gelu"), "biases": ["all"], "norm": "layernorm", "vocab": c.count("vocab_size"),
        "context": c.count("max_position_embeddings"), "positions": "sinusoidal", "extra": inner,
        "tied_head": c.flag("tie_word_embeddings", True),
    }  # fmt: skip


def kosmos2(c: Config, task: Any) -> Spec:
    """Kosmos 2: a matrix, then learned queries that attend to the image and to themselves."""
    vision, t = tower(c), c.sub("text_config")
    hidden = t.count("embed_dim")
    projector = [
        *linear("projector", hidden, vision["hidden"], rows="patch"),
        *table("queries", c.count("latent_query_num"), hidden),
        *attention("resampler", hidden),
    ]
    spec = {**text_of(c, task), "tied_head": ties_inside(c, t)}
    return {**spec, "vision": {**vision, "outside": projector}}


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
    from llmcalc.importers.families.audio import gemma4_audio

    vision = None
    if c.says("vision_config"):
        vision = gemma4_tower(c.sub("vision_config"))
        vision["outside"] = linear("projector", width(c), vision["hidden"], bias=False, rows="image_token")
    spec = model(c, task, vision)
    if alone(c, task) or not c.says("audio_config"):
        return spec
    a = c.sub("audio_config")
    return _with(spec, [*gemma4_audio(a), *linear("audio_projector", width(c), a.count("output_proj_dims"), bias=False)], "audio")


def phi4(c: Config, _: Any) -> Spec:
    """Phi-4 multimodal: SigLIP and a conformer, with two matrices from each (two pairs for sound)."""
    from llmcalc.importers.families.audio import phi4_audio

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
    return {**_with(decoder(c, window=c.maybe("sliding_window")), sound, "audio"), "vision": vision}


def granite4(c: Config, task: Any) -> Spec:
    """Granite 4 Vision: query transformers over windows of the image, one for each layer that is fed and four for space."""
    from llmcalc.importers.families.vision_more import qformer

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


FAMILIES = {
    "fuyu": fuyu, "chameleon": chameleon, "emu3": emu3, "idefics": idefics, "blip": blip, "git": git, "kosmos-2": kosmos2,
    "kosmos_2_text_model": kosmos2_text, "hunyuan_vl": hunyuan, "step3p7": step, "gemma4": gemma4, "phi4_multimodal": phi4,
    "granite4_vision": granite4,
}  # fmt: skip
