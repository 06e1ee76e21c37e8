"""Earlier and odder models that read images: text decoders that attend to images, tokens of images, encoders of one matrix."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.tensors import Tensors, attention, every, linear, mlp, norm, table
from llmcalc.importers.families.towers import tower
from llmcalc.importers.families.vision import alone, text_of, tied, width
from llmcalc.importers.families.vision_conv import vq
from llmcalc.importers.families.vision_emu import emu3_vq
from llmcalc.importers.shape import Spec, decoder, extra, usual_biases


def with_tensors(spec: Spec, tensors: Tensors, part: str = "vision") -> Spec:
    """The spec with tensors that stand outside of any stack."""
    return {**spec, "outside": [*(spec.get("outside") or []), *every(tensors, part=part)]}


def fuyu(c: Config, task: Any) -> Spec:
    """Fuyu: one matrix from the pixels of a patch to the language model's width."""
    patch, channels = c.count("patch_size"), c.count("num_channels")
    spec = with_tensors(text_of(c, task), linear("patch", width(c), patch * patch * channels))
    return {**spec, "tied_head": c.flag("tie_word_embeddings")}


def chameleon(c: Config, _: Any) -> Spec:
    """Chameleon: images are tokens, made by an autoencoder; LayerNorms with gains and biases for each head."""
    hidden, heads, kv = c.count("hidden_size"), c.count("num_attention_heads"), c.count("num_key_value_heads")
    dim = hidden // heads
    extras = [*norm("q_norm", heads * dim, part="norm"), *norm("k_norm", kv * dim, part="norm")]
    spec = decoder(
        c, head_dim=None, biases=usual_biases(c), extra=extras,
        norm_placement="output" if c.flag("swin_norm") else None,
    )  # fmt: skip
    return with_tensors(spec, vq(c.sub("vq_config"), decodes=False))


def emu3(c: Config, task: Any) -> Spec:
    """Emu 3: images and videos are tokens, made by an autoencoder."""
    spec = text_of(c, task)
    if alone(c, task):
        return spec
    return {**with_tensors(spec, emu3_vq(c.sub("vq_config"))), "tied_head": c.flag("tie_word_embeddings")}


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
        "norm": "layernorm", "norm_placement": "post", "vocab": c.count("vocab_size"),
        "context": c.count("max_position_embeddings"), "positions": "learned", "embedding_norm": True, **more,
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
    spec = {**text_of(c, task), "tied_head": tied(c, t)}
    return {**spec, "vision": {**vision, "outside": projector}}


FAMILIES = {
    "fuyu": fuyu, "chameleon": chameleon, "emu3": emu3, "idefics": idefics, "blip": blip, "git": git, "kosmos-2": kosmos2,
    "kosmos_2_text_model": kosmos2_text,
}  # fmt: skip
