"""BART and the encoder-decoders that are built like it: LayerNorm, biases, absolute positions; and their decoders alone."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.heads import idle_cross_attention
from llmcalc.importers.families.seq2seq import apart, finished
from llmcalc.importers.shape import Spec

# What differs: where norms stand, whether one follows the embedding and the last layer, and rows that positions have beside
# those of the context. Sinusoidal positions are tables that are not trained, yet parameters, where they are called learned here.
POST: Spec = {"norm_placement": "post", "embedding_norm": True, "final_norm": False}
THREE_LABELS = ("bart",)
PRE: Spec = {"norm_placement": "pre", "embedding_norm": False, "final_norm": True}


def both(c: Config, **more: Any) -> Spec:
    """Both stacks, as BART's config has them."""
    rows = more.pop("rows", 0)
    context = c.count("max_position_embeddings", more.get("context"))
    spec = {
        "type": "encoder-decoder",
        "layers": c.layers("decoder_layers"),
        "hidden": c.count("d_model"),
        "heads": c.count("decoder_attention_heads"),
        "ffn": c.count("decoder_ffn_dim"),
        "gated": False,
        "activation": c.text("activation_function"),
        "biases": ["all"],
        "norm": "layernorm",
        "vocab": c.count("vocab_size", more.pop("vocab", None)),
        "context": context,
        "positions": "learned",
        "position_rows": context + rows,
        "encoder": {
            "layers": c.layers("encoder_layers"),
            "heads": c.count("encoder_attention_heads"),
            "ffn": c.count("encoder_ffn_dim"),
        },
        "tied_head": c.flag("tie_word_embeddings", True),
    }
    if more.get("positions", "learned") != "learned":
        del spec["position_rows"]
    return {**spec, **more}


def decoder_alone(spec: Spec, *, norm_bias: bool = True, bias: bool = True) -> Spec:
    """The decoder without its encoder: cross-attention has weights and no work."""
    hidden = spec["hidden"]
    idle = idle_cross_attention(hidden, hidden, hidden, bias=bias, norm_bias=norm_bias)
    return {**spec, "type": "decoder", "encoder": None, "extra": [*spec.get("extra", ()), *idle]}


def classes(c: Config, task: Any, spec: Spec, **more: Any) -> Spec:
    """The class of such a model: both stacks, or the decoder alone."""
    if task.name == "ForCausalLM":
        return {**decoder_alone(spec, **more), "head": True}
    if not c.says("num_labels") and not c.says("id2label") and c.model_type in THREE_LABELS:
        task = task._replace(labels=3)
    return finished(c, task, apart(spec), labels=2)


def bart(c: Config, task: Any) -> Spec:
    """BART (Lewis et al. 2019): norms behind the sub-layers; two rows of its positions are never used."""
    return classes(c, task, both(c, rows=2, **POST))


# Files from before the class was one of its own say where its norms stand.
PRE_NORM = {"normalize_before", "add_final_layer_norm", "normalize_embedding"}


def mbart(c: Config, task: Any) -> Spec:
    """mBART: BART with norms before the sub-layers, one behind the embedding and one behind the last layer."""
    c.asked |= PRE_NORM
    return classes(c, task, both(c, rows=2, norm_placement="pre", embedding_norm=True, final_norm=True))


def blenderbot(c: Config, task: Any) -> Spec:
    """Blenderbot: norms before the sub-layers."""
    c.asked |= PRE_NORM
    return classes(c, task, both(c, **PRE))


def blenderbot_small(c: Config, task: Any) -> Spec:
    """Blenderbot small: BART without spare rows."""
    return classes(c, task, both(c, **POST))


def m2m_100(c: Config, task: Any) -> Spec:
    """M2M-100, NLLB: norms before the sub-layers, sinusoidal positions."""
    return classes(c, task, both(c, positions="sinusoidal", **PRE))


FAMILIES = {
    "bart": bart,
    "plbart": bart,
    "mbart": mbart,
    "pegasus": blenderbot,
    "blenderbot": blenderbot,
    "blenderbot-small": blenderbot_small,
    "m2m_100": m2m_100,
}
