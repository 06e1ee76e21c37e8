"""Speech to text: encoder-decoders behind a convolutional front."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.heads import refused, table
from llmcalc.importers.families.seq2seq import finished
from llmcalc.importers.families.seq2seq_bart import PRE, both, decoder_alone
from llmcalc.importers.shape import Spec, extra


def convolution(name: str, out: int, into: int, width: int, *, times: int = 1, bias: bool = True) -> list[Spec]:
    """A convolution over time before the layers; ``times`` its outputs for each token that the encoder sees."""
    kernel = extra(name, out, into, width, part="other", times=times)
    return [kernel, *([extra(f"{name}_bias", out, part="other")] if bias else [])]


def whisper(c: Config, task: Any) -> Spec:
    """Whisper (Radford et al. 2022): two convolutions over the mel spectrogram, the second halving its length.

    Keys have no bias. The encoder's sinusoidal positions are a table of parameters.
    """
    hidden = c.count("d_model")
    target = c.count("max_target_positions")
    own = [table("positions", target, hidden)]
    spec = both(c, context=target, biases=["q", "v", "o", "ffn"], positions="none", outside=own, **PRE)
    spec["encoder"]["outside"] = [
        *convolution("conv1", hidden, c.count("num_mel_bins"), 3, times=2),
        *convolution("conv2", hidden, hidden, 3),
        table("positions", c.count("max_source_positions"), hidden),
    ]
    if task.name == "ForCausalLM":
        alone = decoder_alone(spec)
        alone["extra"] = [each for each in alone["extra"] if each["name"] != "cross_k_bias"]
        return {**alone, "head": True}
    if task.name == "ForAudioClassification":
        raise refused(c, task)
    return finished(c, task._replace(name="ForSeq2SeqLM" if task.name == "ForSpeechSeq2Seq" else task.name), spec)


FAMILIES = {"whisper": whisper}
