"""Decoders of the GPT-2 line: LayerNorm, an FFN that is not gated, learned positions or ALiBi or early rotary ones."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.shape import Spec, biases, usual_biases


def _classic(c: Config, **more: Any) -> Spec:
    """What the line has in common; configs name it through aliases (n_embd, n_layer, n_head)."""
    hidden, heads = c.count("hidden_size"), c.count("num_attention_heads")
    spec = {
        "layers": c.layers(),
        "hidden": hidden,
        "heads": heads,
        "head_dim": hidden // heads if hidden % heads else None,
        "gated": False,
        "norm": "layernorm",
        "vocab": c.count("vocab_size"),
        "context": c.maybe("max_position_embeddings"),
        "tied_head": c.flag("tie_word_embeddings", True),
    }
    return {**spec, **more}


def _refuse_cross_attention(c: Config) -> None:
    if c.flag("add_cross_attention"):
        raise c.error("add_cross_attention", "a decoder with cross-attention of its own is not counted here; write a spec")


def gpt2(c: Config, _: Any) -> Spec:
    """GPT-2: everything has a bias."""
    _refuse_cross_attention(c)
    ffn = c.count("n_inner", 4 * c.count("n_embd"))
    return _classic(c, ffn=ffn, activation=c.text("activation_function") or None, biases=["all"], positions="learned")


def gpt_bigcode(c: Config, task: Any) -> Spec:
    """StarCoder: GPT-2 with one KV head."""
    return {**gpt2(c, task), "kv_heads": 1 if c.flag("multi_query") else None}


def opt(c: Config, _: Any) -> Spec:
    """OPT: positions start at 2; the 350M model has post-norms and a narrower embedding."""
    hidden, width = c.count("hidden_size"), c.count("word_embed_proj_dim", c.count("hidden_size"))
    before, bias = c.flag("do_layer_norm_before", True), c.flag("enable_bias", True)
    affine = c.flag("layer_norm_elementwise_affine", True)
    return _classic(
        c,
        ffn=c.count("ffn_dim"),
        activation=c.text("activation_function") or None,
        biases=biases(attention=bias, ffn=bias),
        norm="layernorm" if affine else "none",
        norm_placement="pre" if before else "post",
        final_norm=before and not c.flag("_remove_final_layer_norm"),
        positions="learned",
        position_rows=c.count("max_position_embeddings") + 2,
        embedding_dim=width if width != hidden else None,
    )


def gptj(c: Config, _: Any) -> Spec:
    """GPT-J: attention and FFN side by side on one norm; the head has a bias even where its matrix is tied."""
    ffn = c.count("n_inner", 4 * c.count("n_embd"))
    rotary = c.maybe("rotary_dim")
    return _classic(c, ffn=ffn, activation=c.text("activation_function") or None, biases=["ffn"], parallel="one-norm",
                    rotary_dim=rotary, head_bias=True)  # fmt: skip


def codegen(c: Config, task: Any) -> Spec:
    """CodeGen: GPT-J's block."""
    return gptj(c, task)


def gpt_neo(c: Config, _: Any) -> Spec:
    """GPT-Neo: local layers are masked, not capped, so the cache keeps them whole."""
    ffn = c.count("intermediate_size", 4 * c.count("hidden_size"))
    return _classic(c, ffn=ffn, activation=c.text("activation_function") or None, biases=["o", "ffn"], positions="learned")


def gpt_neox(c: Config, _: Any) -> Spec:
    """GPT-NeoX and Pythia: side by side on two norms."""
    bias = c.flag("attention_bias", True)
    return _classic(
        c,
        ffn=c.count("intermediate_size"),
        activation=c.text("hidden_act") or None,
        biases=biases(attention=bias, ffn=True),
        parallel="two-norms" if c.flag("use_parallel_residual", True) else None,
    )


def gpt_neox_japanese(c: Config, _: Any) -> Spec:
    """GPT-NeoX Japanese: no biases but one after the last layer's attention; the norms one after the other."""
    layers = c.layers()
    last = {"biases": ["o"]}
    spec = _classic(
        c, ffn=int(c.count("hidden_size") * c.number("intermediate_multiple_size")), activation=c.text("hidden_act") or None
    )
    return {**spec, "blocks": [{}] * (layers - 1) + [last]}


def bloom(c: Config, _: Any) -> Spec:
    """BLOOM: ALiBi and a norm after the embedding."""
    hidden = c.count("n_embed", c.count("hidden_size"))  # older files say n_embed
    spec = _classic(c, ffn=4 * hidden, activation="gelu_tanh", biases=["all"], positions="alibi")
    return {**spec, "hidden": hidden, "embedding_norm": True, "context": c.maybe("seq_length")}


def mpt(c: Config, _: Any) -> Spec:
    """MPT: ALiBi, and no bias anywhere, not even in the norms."""
    # The class has its FFN four times as wide as the model whatever expansion_ratio says.
    spec = _classic(
        c, ffn=4 * c.count("d_model"), activation="gelu", norm_bias=False, positions="alibi", context=c.maybe("max_seq_len")
    )
    attention = c.get("attn_config", {})
    return {**spec, "positions": "alibi" if not isinstance(attention, dict) or attention.get("alibi", True) else "none"}


def falcon(c: Config, _: Any) -> Spec:
    """Falcon: one KV head (7B), or groups with two norms (40B, 180B), or one after the other with ALiBi (RW)."""
    heads, bias = c.count("num_attention_heads"), c.flag("bias")
    new, side_by_side = c.flag("new_decoder_architecture"), c.flag("parallel_attn", True)
    kv_heads = c.count("num_kv_heads", heads) if new or not c.flag("multi_query", True) else 1
    norms = c.count("num_ln_in_parallel_attn", 2 if new else 1)
    if not new and kv_heads not in (1, heads):
        # The class splits queries, keys and values evenly then, whatever it was told.
        kv_heads = heads
    return _classic(
        c,
        kv_heads=kv_heads,
        ffn=c.count("ffn_hidden_size", 4 * c.count("hidden_size")),
        activation=c.text("activation") or None,
        biases=biases(attention=bias, ffn=bias),
        parallel=None if not side_by_side else "two-norms" if norms == 2 else "one-norm",
        positions="alibi" if c.flag("alibi") else "rotary",
    )


def phi(c: Config, _: Any) -> Spec:
    """Phi-1 to Phi-2: GPT-J's block with biases everywhere."""
    heads = c.count("num_attention_heads")
    return _classic(
        c,
        kv_heads=c.count("num_key_value_heads", heads),
        ffn=c.count("intermediate_size"),
        activation=c.text("hidden_act") or None,
        biases=["all"],
        parallel="one-norm",
        qk_norm="head" if c.flag("qk_layernorm") else None,
        head_bias=True,
    )


def persimmon(c: Config, _: Any) -> Spec:
    """Persimmon: biases everywhere, norms on queries and keys."""
    norm = "head" if c.flag("qk_layernorm", True) else None
    return _classic(c, ffn=c.count("intermediate_size"), activation=c.text("hidden_act") or None, biases=["all"], qk_norm=norm)


def stablelm(c: Config, _: Any) -> Spec:
    """StableLM 2: gated FFN with LayerNorm; the 12B model runs side by side and normalises each head."""
    heads = c.count("num_attention_heads")
    return _classic(
        c,
        kv_heads=c.count("num_key_value_heads", heads),
        ffn=c.count("intermediate_size"),
        gated=True,
        activation=c.text("hidden_act") or None,
        biases=biases(qkv=c.flag("use_qkv_bias")),
        parallel="one-norm" if c.flag("use_parallel_residual") else None,
        qk_norm="per-head" if c.flag("qk_layernorm") else None,
        qk_norm_bias=False if c.flag("qk_layernorm") else None,
    )


def starcoder2(c: Config, _: Any) -> Spec:
    """StarCoder 2: grouped queries, a window on every layer, biases."""
    bias, heads = c.flag("use_bias", True), c.count("num_attention_heads")
    return _classic(
        c,
        kv_heads=c.count("num_key_value_heads", heads),
        ffn=c.count("intermediate_size"),
        activation=c.text("hidden_act") or None,
        biases=biases(attention=bias, ffn=bias),
        window=c.maybe("sliding_window"),
    )


def nemotron(c: Config, _: Any) -> Spec:
    """Nemotron-3 and 4, Minitron: squared ReLU without a gate, LayerNorm."""
    heads = c.count("num_attention_heads")
    return _classic(c, kv_heads=c.count("num_key_value_heads", heads), head_dim=c.maybe("head_dim"),
                    ffn=c.count("intermediate_size"), activation=c.text("hidden_act") or None, biases=usual_biases(c))  # fmt: skip


FAMILIES = {
    "gpt2": gpt2,
    "gpt-sw3": gpt2,
    "gpt_bigcode": gpt_bigcode,
    "opt": opt,
    "gptj": gptj,
    "codegen": codegen,
    "gpt_neo": gpt_neo,
    "gpt_neox": gpt_neox,
    "gpt_neox_japanese": gpt_neox_japanese,
    "bloom": bloom,
    "mpt": mpt,
    "falcon": falcon,
    "phi": phi,
    "persimmon": persimmon,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
    "nemotron": nemotron,
}
