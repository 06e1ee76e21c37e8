"""Speech to text: encoder-decoders behind a convolutional front."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.heads import refused, unfit
from llmcalc.importers.families.seq2seq import finished
from llmcalc.importers.families.seq2seq_bart import PRE, both, decoder_alone
from llmcalc.importers.families.tensors import conv, norm, table
from llmcalc.importers.shape import Spec, biases


def convolution(name: str, out: int, into: int, width: int, *, times: int = 1, bias: bool = True) -> list[Spec]:
    """A convolution over time before the layers; ``times`` its outputs for each token that the encoder sees."""
    return conv(name, out, into, width, bias=bias, rows=None, times=times, part="other")


def whisper(c: Config, task: Any) -> Spec:
    """Whisper (Radford et al. 2022): two convolutions over the mel spectrogram, the second halving its length.

    Keys have no bias. The encoder's sinusoidal positions are a table of parameters.
    """
    hidden = c.count("d_model")
    target = c.count("max_target_positions")
    own = table("positions", target, hidden, part="positions")
    spec = both(c, context=target, biases=["q", "v", "o", "ffn"], positions="none", outside=own, **PRE)
    spec["encoder"]["outside"] = [
        *convolution("conv1", hidden, c.count("num_mel_bins"), 3, times=2),
        *convolution("conv2", hidden, hidden, 3),
        *table("positions", c.count("max_source_positions"), hidden, part="positions"),
    ]
    if task.name == "ForCausalLM":
        alone = decoder_alone(spec)
        alone["extra"] = [each for each in alone["extra"] if each["name"] != "cross_k.bias"]
        return {**alone, "head": True}
    if task.name == "ForAudioClassification":
        raise refused(c, task)
    return finished(c, _spoken(task), spec)


def speech_to_text(c: Config, task: Any) -> Spec:
    """Speech2Text (Wang et al. 2020): convolutions that halve the length, each with a gated linear unit behind it."""
    hidden, middle, count = c.count("d_model"), c.count("conv_channels"), c.count("num_conv_layers", most=20)
    widths = c.each("conv_kernel_sizes", count, int) or []
    if len(c.get("conv_kernel_sizes", [])) != count or 0 in widths:
        raise c.error("conv_kernel_sizes", f"found {widths}, allowed: a width for each of {count} layers")
    into, front = c.count("input_feat_per_channel") * c.count("input_channels"), []
    for index, width in enumerate(widths):
        out = middle if index < count - 1 else 2 * hidden
        front += convolution(f"conv{index + 1}", out, into, width, times=2 ** (count - 1 - index))
        into = middle // 2
    target = c.count("max_target_positions")
    spec = both(c, context=target, positions="sinusoidal", **PRE)
    spec["encoder"]["outside"] = front
    return finished(c, _spoken(task), spec)


def _spoken(task: Any) -> Any:
    return task._replace(name="ForSeq2SeqLM") if task.name == "ForSpeechSeq2Seq" else task


def moonshine(c: Config, task: Any) -> Spec:
    """Moonshine (Jeffries et al. 2024): rotary positions, norms without biases, three convolutions over the sound itself.

    They make a token of 384 samples, so each token takes six outputs of the first and two of the second.
    """
    hidden, inner = c.count("hidden_size"), c.count("intermediate_size")
    # The class builds its decoder with the encoder's heads.
    heads = c.count("encoder_num_attention_heads")
    kv_heads = c.count("encoder_num_key_value_heads", heads)
    if c.maybe("pad_head_dim_to_multiple_of"):
        raise unfit(c, "pad_head_dim_to_multiple_of", "heads that are padded are not known here")
    front = [
        *convolution("conv1", hidden, 1, 127, times=6, bias=False),
        *convolution("conv2", 2 * hidden, hidden, 7, times=2),
        *convolution("conv3", hidden, 2 * hidden, 3),
        *norm("conv_norm", hidden, part="norm"),
    ]
    sides = biases(qkv=c.flag("attention_bias"), ffn=True)
    spec = {
        "type": "encoder-decoder",
        "layers": c.layers("decoder_num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": hidden // heads,
        "ffn": inner,
        "gated": True,
        "activation": c.text("decoder_hidden_act"),
        "biases": sides,
        "norm": "layernorm",
        "norm_bias": False,
        "vocab": c.count("vocab_size"),
        "context": c.maybe("max_position_embeddings"),
        "tied_head": c.flag("tie_word_embeddings", True),
        "encoder": {
            "layers": c.layers("encoder_num_hidden_layers"),
            "gated": False,
            "activation": c.text("encoder_hidden_act"),
            "outside": front,
        },
    }
    return finished(c, _spoken(task), spec)


FAMILIES = {"whisper": whisper, "speech_to_text": speech_to_text, "moonshine": moonshine}
