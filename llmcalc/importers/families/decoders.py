"""Decoders alone, of the early kind or cut from an encoder-decoder: LayerNorm, biases, absolute positions."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.heads import idle_cross_attention, refused
from llmcalc.importers.shape import Spec


def openai_gpt(c: Config, task: Any) -> Spec:
    """GPT (Radford et al. 2018): norms behind the sub-layers, none behind the embedding or the last layer."""
    if task.architecture.endswith("DoubleHeadsModel"):
        raise refused(c, task)
    hidden = c.count("n_embd")
    return {
        "layers": c.layers("n_layer"), "hidden": hidden, "heads": c.count("n_head"), "ffn": 4 * hidden, "gated": False,
        "activation": c.text("afn"), "biases": ["all"], "norm": "layernorm", "norm_placement": "post", "final_norm": False,
        "vocab": c.count("vocab_size"), "context": c.count("n_positions"), "positions": "learned",
        "tied_head": c.flag("tie_word_embeddings", True),
    }  # fmt: skip


def xglm(c: Config, _: Any) -> Spec:
    """XGLM: norms before the sub-layers, sinusoidal positions."""
    hidden = c.count("d_model")
    return {
        "layers": c.layers("num_layers"), "hidden": hidden, "heads": c.count("attention_heads"), "ffn": c.count("ffn_dim"),
        "gated": False, "activation": c.text("activation_function"), "biases": ["all"], "norm": "layernorm",
        "vocab": c.count("vocab_size"), "context": c.maybe("max_position_embeddings"), "positions": "sinusoidal",
        "tied_head": c.flag("tie_word_embeddings", True),
        "extra": idle_cross_attention(hidden, hidden, hidden) if c.flag("add_cross_attention") else None,
    }  # fmt: skip


def biogpt(c: Config, _: Any) -> Spec:
    """BioGPT: norms before the sub-layers, learned positions with two rows that are never used."""
    context = c.count("max_position_embeddings")
    return {
        "layers": c.layers(), "hidden": c.count("hidden_size"), "heads": c.count("num_attention_heads"),
        "ffn": c.count("intermediate_size"), "gated": False, "activation": c.text("hidden_act"), "biases": ["all"],
        "norm": "layernorm", "vocab": c.count("vocab_size"), "context": context, "positions": "learned",
        "position_rows": context + 2, "tied_head": c.flag("tie_word_embeddings", True),
    }  # fmt: skip


def ctrl(c: Config, _: Any) -> Spec:
    """CTRL (Keskar et al. 2019): norms before the sub-layers, sinusoidal positions, a bias on the head."""
    return {
        "layers": c.layers("n_layer"), "hidden": c.count("n_embd"), "heads": c.count("n_head"), "ffn": c.count("dff"),
        "gated": False, "activation": "relu", "biases": ["all"], "norm": "layernorm", "vocab": c.count("vocab_size"),
        "context": c.maybe("n_positions"), "positions": "sinusoidal", "tied_head": c.flag("tie_word_embeddings", True),
        "head_bias": True,
    }  # fmt: skip


def trocr(c: Config, _: Any) -> Spec:
    """TrOCR's decoder: BART's, with a norm behind the embedding and learned positions as said. Its encoder sees images."""
    hidden, context = c.count("d_model"), c.count("max_position_embeddings")
    learned = c.flag("use_learned_position_embeddings", True)
    seen = c.count("cross_attention_hidden_size", hidden)
    return {
        "layers": c.layers("decoder_layers"), "hidden": hidden, "heads": c.count("decoder_attention_heads"),
        "ffn": c.count("decoder_ffn_dim"), "gated": False, "activation": c.text("activation_function"), "biases": ["all"],
        "norm": "layernorm", "norm_placement": "post", "embedding_norm": c.flag("layernorm_embedding", True), "final_norm": False,
        "vocab": c.count("vocab_size"), "context": context, "positions": "learned" if learned else "sinusoidal",
        "position_rows": context + 2 if learned else None, "tied_head": c.flag("tie_word_embeddings", True),
        "extra": idle_cross_attention(hidden, seen, hidden),
    }  # fmt: skip


FAMILIES = {"openai-gpt": openai_gpt, "xglm": xglm, "biogpt": biogpt, "ctrl": ctrl, "trocr": trocr}
