"""Models that hear: a language model behind a tower for sound."""

from __future__ import annotations

from math import log2
from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.tensors import Tensors, attention, conv, every, linear, mlp, norm, table
from llmcalc.importers.families.towers import TOWERS
from llmcalc.importers.families.vision import text_of, tied, width
from llmcalc.importers.families.vision_more import qformer
from llmcalc.importers.shape import Spec, biases


def whisper(a: Config, *, outside: Tensors | None = None, key_bias: bool = False) -> Spec:
    """Whisper's encoder: LayerNorms before each sub-layer, biases on all but the keys."""
    return {
        "layers": a.layers("encoder_layers"), "hidden": a.count("d_model"), "heads": a.count("encoder_attention_heads"),
        "ffn": a.count("encoder_ffn_dim"), "gated": False, "activation": a.text("activation_function", "gelu"), "norm": "layernorm",
        "biases": ["all"] if key_bias else biases(q=True, v=True, o=True, ffn=True), "outside": outside or [],
    }  # fmt: skip


def frames(a: Config) -> Tensors:
    """Whisper's two convolutions over the spectrum."""
    hidden = a.count("d_model")
    return conv("conv_1", hidden, a.count("num_mel_bins"), 3) + conv("conv_2", hidden, hidden, 3)


def heard(c: Config, task: Any) -> Spec:
    """Qwen2-Audio, Voxtral, Audio Flamingo 3: Whisper's encoder, a projector of one or two matrices; heads are never tied."""
    if c.model_type == "voxtral" and c.says("text_config"):
        # What this type's language model has by default holds in a config that says only a part of it, too.
        c.inner["text_config"] = c.sub("text_config").over(c.known.sub_defaults.get("text_config", {}))
    a, h = c.sub("audio_config"), width(c)
    hidden = a.count("d_model")
    if c.model_type == "qwen2_audio":
        projector = linear("projector", h, hidden)
    else:
        voxtral = c.model_type == "voxtral"
        bias = not voxtral and c.flag("projector_bias", True)
        into = a.count("encoder_ffn_dim") if voxtral else hidden
        projector = linear("projector_1", h, into, bias=bias) + linear("projector_2", h, h, bias=bias)
    positions = table("positions", a.count("max_source_positions"), hidden)
    spec = text_of(c, task)
    return {**spec, "audio": whisper(a, outside=[*frames(a), *positions, *projector]), "tied_head": False}


def omni2_5(c: Config, task: Any) -> Spec:
    """Qwen2.5-Omni's thinker: towers for images and for sound, whose positions are sinusoidal."""
    a, v = c.sub("audio_config"), c.sub("vision_config")
    out = a.count("output_dim")
    ends = [*frames(a), *table("marks", 2, out), *linear("projector", out, a.count("d_model"))]
    return _omni(c, task, v, whisper(a, outside=ends))


def omni3(c: Config, task: Any) -> Spec:
    """Qwen3-Omni's thinker: three convolutions of two dims before the layers, two matrices behind."""
    return _omni(c, task, c.sub("vision_config"), late_whisper(c.sub("audio_config")))


def asr(c: Config, task: Any) -> Spec:
    """Qwen3-ASR: the same tower for sound without one for images."""
    if task.name == "ForTokenClassification":
        raise c.error("architectures", f"{task.architecture} marks times in sound, which is not understood")
    return {**text_of(c, task), "audio": late_whisper(c.sub("audio_config")), "tied_head": tied(c, c.sub("text_config"))}


def late_whisper(a: Config) -> Spec:
    """Qwen3-Omni's tower for sound."""
    hidden, channels, bins = a.count("d_model"), a.count("downsample_hidden_size"), a.count("num_mel_bins")
    for _ in range(3):
        bins = (bins + 1) // 2
    ends = [
        *conv("conv_1", channels, 1, 3, 3),
        *conv("conv_2", channels, channels, 3, 3),
        *conv("conv_3", channels, channels, 3, 3),
        *linear("conv_out", hidden, channels * bins, bias=False),
        *linear("projector_1", hidden, hidden),
        *linear("projector_2", a.count("output_dim"), hidden),
    ]
    return whisper(a, outside=ends, key_bias=True)


def _omni(c: Config, task: Any, v: Config, audio: Spec) -> Spec:
    spec = text_of(c, task)
    return {**spec, "vision": TOWERS[v.model_type](v), "audio": audio, "tied_head": tied(c, c.sub("text_config"))}


def granite_speech(c: Config, task: Any) -> Spec:
    """Granite Speech: a conformer, then a query transformer over windows of frames. Adapters count where they are merged: not."""
    e, q = c.sub("encoder_config"), c.sub("projector_config")
    hidden, heads, depth = e.count("hidden_dim"), e.count("num_heads"), e.layers("num_layers")
    dim = e.count("dim_head", hidden // heads) if e.says("dim_head") else hidden // heads
    inner, wide, out = heads * dim, hidden * e.count("conv_expansion_factor"), e.count("output_dim")
    feed = hidden * e.count("feedforward_mult")
    layer = [
        *(t for name in ("ff1", "ff2") for t in (*norm(f"{name}_norm", hidden), *mlp(name, hidden, feed))),
        *norm("attention_norm", hidden),
        *attention("conformer", hidden, inner=inner, bias=(False, False, False, True)),
        *table("relative_positions", 2 * e.count("max_pos_emb") + 1, dim),
        *norm("conv_norm", hidden),
        *conv("conv_up", 2 * wide, hidden, 1),
        *conv("conv_depth", wide, 1, e.count("conv_kernel_size"), bias=False),
        *norm("conv_batch_norm", wide),
        *conv("conv_down", hidden, wide, 1),
        *norm("layer_norm", hidden),
    ]
    ends = [
        *linear("frames", hidden, e.count("input_dim")),
        *linear("middle_out", out, hidden),
        *linear("middle_in", hidden, out),
        *table("queries", c.count("window_size") // c.count("downsample_rate"), q.count("hidden_size")),
        *qformer(q),
        *linear("projector", width(c), q.count("hidden_size")),
    ]
    spec = text_of(c, task)
    tensors = every([*every(layer, copies=depth), *ends], part="audio")
    return {**spec, "outside": [*spec.get("outside", []), *tensors], "tied_head": tied(c, c.sub("text_config"))}


def gemma4_audio(a: Config) -> Tensors:
    """Gemma 4's conformer: RMSNorms around each part, a depthwise convolution between attention and the second FFN."""
    hidden, heads, depth = a.count("hidden_size"), a.count("num_attention_heads"), a.layers()
    inner = hidden // heads * heads
    first, second = (*a.chosen("subsampling_conv_channels"), 0, 0)[:2]
    if not (first and second):
        raise a.error("subsampling_conv_channels", "two numbers of channels are needed")
    return [
        *every(_conformer(hidden, inner, a.count("conv_kernel_size"), hidden // heads), copies=depth),
        *(
            t
            for name, out, into in (("subsample_1", first, 1), ("subsample_2", second, first))
            for t in (*conv(name, out, into, 3, 3, bias=False), *norm(f"{name}_norm", out, bias=False))
        ),
        *linear("frames", hidden, first // 4 * second, bias=False),
        *linear("audio_out", a.count("output_proj_dims"), hidden),
    ]


def _conformer(hidden: int, inner: int, kernel: int, dim: int) -> Tensors:
    """A layer of Gemma's conformers."""
    feeds = [
        t
        for name in ("ffn_1", "ffn_2")
        for t in (
            *norm(f"{name}_norm", hidden, bias=False),
            *norm(f"{name}_post_norm", hidden, bias=False),
            *mlp(name, hidden, 4 * hidden, bias=False),
        )
    ]
    return [
        *feeds,
        *attention("conformer", hidden, inner=inner, bias=False),
        *linear("relative_positions", inner, hidden, bias=False),
        *table("dim_scale", dim),
        *(t for name in ("attention_norm", "attention_post_norm", "layer_norm") for t in norm(name, hidden, bias=False)),
        *linear("conv_in", 2 * hidden, hidden, bias=False),
        *conv("conv_depth", hidden, 1, kernel, bias=False),
        *linear("conv_out", hidden, hidden, bias=False),
        *norm("conv_norm", hidden, bias=False),
        *norm("conv_post_norm", hidden, bias=False),
    ]


def phi4_audio(a: Config) -> Tensors:
    """Phi-4 multimodal's conformer: gated FFNs on both sides of attention and a separable convolution."""
    hidden, depth, ffn = a.count("hidden_size"), a.layers("num_blocks"), a.count("intermediate_size")
    out, times, made = a.count("ext_pw_out_channel"), a.count("depthwise_multiplier"), a.count("depthwise_separable_out_channel")
    channels, reduction = a.count("nemo_conv_channels"), a.count("time_reduction")
    size, heads = a.count("input_size"), a.count("num_attention_heads")
    steps = reduction.bit_length() - 1
    final = a.count("nemo_final_size") if a.says("nemo_final_size") else _halved(size, steps)
    layer = [
        *(t for name in ("ffn_in", "ffn_out") for t in (*norm(f"{name}_norm", hidden), *mlp(name, hidden, ffn, gated=True))),
        *attention("conformer", hidden, inner=hidden // heads * heads),
        *(t for name in ("attention_norm", "layer_norm", "conv_norm") for t in norm(name, hidden)),
        *linear("conv_gate", 2 * out, hidden),
        *table("conv_gate_bias_1", out),
        *table("conv_gate_bias_2", out),
        *conv("conv_depth", hidden * times, 1, a.count("kernel_size")),
        *linear("conv_point", made, hidden * times),
        *linear("conv_out", out, hidden),
    ]
    subsample = conv("subsample_1", channels, 1, 3, 3)
    for index in range(2, steps + 1):
        subsample += conv(f"subsample_{index}", channels, 1, 3, 3) + conv(f"subsample_{index}_point", channels, channels, 1, 1)
    buckets = a.count("bias_max_distance") * (1 if a.flag("bias_symmetric") else 2)
    return [
        *every(layer, copies=depth),
        *subsample,
        *linear("frames", hidden, channels * final),
        *table("relative_bias", buckets, heads),
    ]


def _halved(size: int, steps: int) -> int:
    """Bins left after so many convolutions of stride 2."""
    for _ in range(steps):
        size = (size + 1) // 2
    return size


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


FAMILIES = {
    **dict.fromkeys(("qwen2_audio", "voxtral", "audioflamingo3", "musicflamingo"), heard),
    "qwen2_5_omni_thinker": omni2_5,
    "qwen3_omni_moe_thinker": omni3,
    "granite_speech": granite_speech,
    "granite_speech_plus": granite_speech,
    "qwen3_asr": asr,
}
