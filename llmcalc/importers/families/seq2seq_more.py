"""Encoder-decoders that change more of BART: two vocabularies, sinusoidal tables, mixtures, global tokens, n-grams."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.heads import SPARSE, idle_cross_attention, said_windows, unfit
from llmcalc.importers.families.seq2seq import SEQ2SEQ, apart, finished
from llmcalc.importers.families.seq2seq_bart import POST, PRE, both, classes
from llmcalc.importers.families.tensors import linear, norm, table
from llmcalc.importers.shape import Spec, extra


def two_vocabularies(task: Any, spec: Spec, rows: int, *, tied: bool) -> Spec:
    """The spec with a token table of the decoder's own, of so many rows, which gives the logits where the head is tied."""
    hidden, head = spec["hidden"], task.name in SEQ2SEQ
    use = {"rows": "logit", "times": 1} if tied and head else {"times": 0}
    # Tied to each other but not to the table that is counted as the embedding, it is the head's matrix.
    name = "lm_head" if tied and head else "decoder_embedding"
    outside = [*spec.get("outside", ()), extra(name, rows, hidden, part="embedding", after=True, **use)]
    if head and not tied:
        outside += linear("lm_head", rows, hidden, bias=False, part="lm_head", rows="logit", after=True)
    return {**spec, "tied_head": None, "head": False, "outside": outside}


def marian(c: Config, task: Any) -> Spec:
    """Marian: norms behind the sub-layers, none behind the embedding; sinusoidal positions as parameters."""
    spec = both(c, norm_placement="post", embedding_norm=False, final_norm=False)
    rows = c.count("decoder_vocab_size", spec["vocab"])
    shared = c.flag("share_encoder_decoder_embeddings", True)
    if task.name == "ForCausalLM":
        return classes(c, task, {**spec, "vocab": rows})
    if shared:
        return finished(c, task, apart(spec))
    return {**finished(c, task, spec), **two_vocabularies(task, spec, rows, tied=spec["tied_head"])}


def fsmt(c: Config, task: Any) -> Spec:
    """FSMT: a vocabulary for each side; where all is tied, the decoder's table serves the encoder too."""
    tied, target = c.flag("tie_word_embeddings"), c.count("tgt_vocab_size")
    source = target if tied else c.count("src_vocab_size")
    context = c.count("max_position_embeddings")
    spec = both(c, norm_placement="post", embedding_norm=False, final_norm=False, vocab_size=source)
    spec = {**spec, "vocab": source, "context": context, "position_rows": context + c.count("pad_token_id", 1, least=0) + 1}
    spec = finished(c, task, spec)
    if tied:
        # The bare model has an output projection too.
        return {**spec, "head": True, "tied_head": True}
    spec = two_vocabularies(task, spec, target, tied=False)
    if task.name not in SEQ2SEQ:
        spec["outside"] += linear("lm_head", target, spec["hidden"], bias=False, part="lm_head", rows="logit", after=True)
    return spec


def led(c: Config, task: Any) -> Spec:
    """LED: BART behind Longformer's encoder, with tables of positions of different length."""
    hidden = c.count("d_model")
    rows = c.count("max_decoder_position_embeddings")
    own = table("positions", rows, hidden, part="positions")
    spec = both(c, context=rows, positions="none", outside=own, **POST)
    encoder = spec["encoder"]
    encoder["blocks"] = said_windows(c, encoder["layers"])
    encoder["global_attention"] = True
    encoder["outside"] = table("positions", c.count("max_encoder_position_embeddings"), hidden, part="positions")
    spec = {**spec, "global_attention": False, "note": SPARSE}
    return finished(c, task, apart(spec), labels=2)


def mvp(c: Config, task: Any) -> Spec:
    """MVP: BART, with prompts before the keys of each layer where they are used."""
    if c.flag("use_prompt"):
        raise unfit(c, "use_prompt", "prompts in every layer are not known here")
    return classes(c, task, both(c, rows=2, **POST))


def pegasus_x(c: Config, task: Any) -> Spec:
    """Pegasus-X: an encoder of blocks beside global tokens, no biases in attention."""
    hidden = c.count("d_model")
    spec = both(c, positions="sinusoidal", biases=["ffn"], **PRE)
    spec["encoder"]["outside"] = table("global_embedding", c.count("num_global_tokens"), hidden, part="other")
    spec["encoder"]["extra"] = norm("global_norm", hidden, part="norm")
    spec["encoder"]["window"] = c.count("block_size")
    spec["note"] = SPARSE + "; global tokens are left out"
    return finished(c, task, apart(spec))


def bigbird_pegasus(c: Config, task: Any) -> Spec:
    """BigBird-Pegasus: norms before the sub-layers, one behind the embedding, biases of attention as said."""
    bias = c.flag("use_bias")
    spec = both(c, norm_placement="pre", embedding_norm=True, final_norm=False, biases=["all"] if bias else ["ffn"])
    if c.text("attention_type", "block_sparse") == "block_sparse" and task.name != "ForCausalLM":
        spec["note"] = SPARSE
    # The decoder alone ties nothing.
    return classes(c, task, {**spec, "tied_head": spec["tied_head"] and task.name != "ForCausalLM"}, bias=bias)


def nllb_moe(c: Config, task: Any) -> Spec:
    """NLLB-MoE: M2M-100 with mixtures of which a token uses two experts."""
    spec = both(c, positions="sinusoidal", **PRE)
    experts, bias = c.count("num_experts"), c.flag("router_bias")
    encoder = spec["encoder"]
    for stack, name in ((spec, "decoder"), (encoder, "encoder")):
        depth, step = stack["layers"], c.count(f"{name}_sparse_step", least=0)
        letters = "".join("E" if step and (index + 1) % step == 0 else "L" for index in range(depth))
        moe = {"experts": experts, "top_k": min(2, experts), "ffn": stack["ffn"]}
        stack["pattern"] = letters
        if "E" in letters:
            stack["kinds"] = {"E": {"moe": moe, "biases": ["all", "experts", "router"] if bias else ["all", "experts"]}}
    return finished(c, task, apart(spec))


def prophetnet(c: Config, task: Any) -> Spec:
    """ProphetNet (Qi et al. 2020): the decoder predicts several tokens at once, in a stream for each."""
    hidden, context = c.count("hidden_size"), c.count("max_position_embeddings")
    heads, streams = c.count("num_decoder_attention_heads"), c.count("ngram")
    spec: Spec = {
        "type": "encoder-decoder",
        "layers": c.layers("num_decoder_layers"),
        "hidden": hidden,
        "heads": heads,
        "ffn": c.count("decoder_ffn_dim"),
        "gated": False,
        "activation": c.text("activation_function"),
        "biases": ["all"],
        "norm": "layernorm",
        "vocab": c.count("vocab_size"),
        "context": context,
        "positions": "learned",
        "tied_head": c.flag("tie_word_embeddings", True),
        "encoder": {
            "layers": c.layers("num_encoder_layers"),
            "heads": c.count("num_encoder_attention_heads"),
            "ffn": c.count("encoder_ffn_dim"),
        },
        **POST,
    }
    wide, copies = c.count("num_buckets") * heads, spec["layers"]
    spec["outside"] = [
        *table("streams", streams, hidden, part="embedding"),
        *linear("relative_buckets", wide, hidden, part="attention", rows=None, copies=copies),
    ]
    spec["note"] = "forward FLOPs count one stream of the decoder; it computes one more for each token that it looks ahead"
    if task.name == "ForCausalLM":
        idle = idle_cross_attention(hidden, hidden, hidden) if c.flag("add_cross_attention", True) else []
        if not spec["tied_head"]:
            spec["outside"] += table("unused_embedding", spec["vocab"], hidden, part="embedding")
        return {**spec, "type": "decoder", "encoder": None, "extra": idle, "head": True}
    if not c.flag("add_cross_attention", True):
        raise unfit(c, "add_cross_attention", "a decoder that does not see its encoder is not known here")
    return finished(c, task, apart(spec))


FAMILIES = {
    "marian": marian, "fsmt": fsmt, "led": led, "mvp": mvp, "pegasus_x": pegasus_x, "bigbird_pegasus": bigbird_pegasus,
    "nllb-moe": nllb_moe, "prophetnet": prophetnet,
}  # fmt: skip
