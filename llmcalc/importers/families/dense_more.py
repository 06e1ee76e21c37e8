"""Further decoders with dense FFNs."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.dense import windows
from llmcalc.importers.families.gemma import gemma4_text
from llmcalc.importers.shape import Spec, biases, decoder, extra, usual_biases


def hyperclovax(c: Config, _: Any) -> Spec:
    """HyperCLOVA X: Granite's multipliers; norms behind the sub-layers too where it says so."""
    return decoder(c, norm_placement="sandwich" if c.flag("use_post_norm", True) else None, biases=usual_biases(c))


def cohere_compass(c: Config, _: Any) -> Spec:
    """Cohere Compass's text model: Command R's block; all layers full unless they are listed."""
    spec = decoder(c, norm="layernorm", norm_bias=False, parallel="one-norm",
                   biases=biases(attention=c.flag("attention_bias")))  # fmt: skip
    return {**spec, "blocks": windows(c, ["full_attention"] * spec["layers"], c.maybe("sliding_window"))}


def gemma4_unified(c: Config, task: Any) -> Spec:
    """Gemma 4's unified text model: Gemma 4 without the embeddings of each layer; attention to both sides halves the window."""
    spec = gemma4_text(c, task)
    if c.get("use_bidirectional_attention") == "all":
        window = c.count("sliding_window") // 2 + 1
        spec["blocks"] = [{**block, "window": window if block["window"] else None} for block in spec["blocks"]]
    return spec


def gemma4_assistant(c: Config, task: Any) -> Spec:
    """Gemma 4's drafter: every layer reads the keys and values of the model it drafts for, so it keeps no cache of its own."""
    if c.flag("use_ordered_embeddings"):
        raise c.error("use_ordered_embeddings", "a head that scores a part of the vocabulary is not counted here; write a spec")
    text = c.sub("text_config", "gemma4_text")
    shared = text.count("num_kv_shared_layers", 0, least=0) or text.layers()
    inner = Config({**text.data, "num_kv_shared_layers": shared}, text.model_type, text.source, text.prefix)
    c.inner["text_config"] = inner
    spec, wide = gemma4_text(inner, task), c.count("backbone_hidden_size")
    around = [
        extra("draft_in", spec["hidden"], 2 * wide, part="projection"),
        extra("draft_out", wide, spec["hidden"], part="projection", after=True),
    ]
    return {**spec, "tied_head": c.flag("tie_word_embeddings", True), "outside": [*(spec["outside"] or []), *around]}


def doge(c: Config, _: Any) -> Spec:
    """Doge: a learned mask from the values, gains on the residuals, and single-neuron experts beside the FFN where it says so.

    The mask reads all values that are cached, so a step of decoding pays for the whole context again; that is not counted.
    """
    spec = decoder(c, qk_norm="head", window=c.maybe("sliding_window"), biases=usual_biases(c))
    hidden, k = spec["hidden"], spec["kv_heads"]
    dim = spec["head_dim"] or hidden // spec["heads"]
    further = [
        extra("mask", k, k * dim, part="attention"),
        extra("mask_rate", k, part="attention"),
        *([extra("mask.bias", k, part="attention")] if c.flag("attention_bias") else []),
        extra("attention_residual", hidden, part="norm"),
        extra("ffn_residual", hidden, part="norm"),
    ]
    if c.flag("is_moe"):
        count, used = c.count("num_experts"), c.count("num_experts_per_tok")
        # Product keys: an expert is a row and a column of a square, and one neuron.
        side = int(count**0.5)
        if used > side * side:
            raise c.error("num_experts_per_tok", f"{used} is more than the {side * side} experts")
        further += [
            extra("router", 2 * side, hidden, part="router"),
            *(extra(f"expert_{name}", 1, hidden, part="experts", copies=count, used=used) for name in ("down", "up")),
        ]
    return {**spec, "extra": further}


def moshi(c: Config, task: Any) -> Spec:
    """Moshi's language model: ``ffn_dim`` is gate and up together; the embedding has one row more."""
    if task.architecture.endswith("ForConditionalGeneration"):
        raise c.error("architectures", "Moshi with its audio codec and depth decoder is not counted here; MoshiForCausalLM is")
    vocab = c.count("vocab_size")
    spec = decoder(c, ffn=c.count("ffn_dim") // 2, vocab=vocab + 1, window=c.maybe("sliding_window"), tied_head=None, head=False)
    if task.has_head:
        spec["outside"] = [extra("lm_head", vocab, spec["hidden"], part="lm_head", rows="logit", after=True)]
    return spec


FAMILIES = {
    "hyperclovax": hyperclovax,
    "cohere_compass_text": cohere_compass,
    "gemma4_unified_text": gemma4_unified,
    "gemma4_assistant": gemma4_assistant,
    "doge": doge,
    "moshi": moshi,
}
