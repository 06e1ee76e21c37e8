"""Encoder-decoders put together of an encoder and a decoder that have configs of their own."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families import encoders, encoders_rotary
from llmcalc.importers.families.heads import refused
from llmcalc.importers.families.seq2seq import SEQ2SEQ, finished
from llmcalc.importers.families.seq2seq_more import two_vocabularies
from llmcalc.importers.families.tensors import linear, norm, table
from llmcalc.importers.shape import Spec, biases, decoder, every, layer_types, trimmed

JOINED = {name: {**encoders.FAMILIES, **encoders_rotary.FAMILIES}[name] for name in (
    "bert", "roberta", "xlm-roberta", "camembert", "data2vec-text", "bert-generation", "ernie",
)}  # fmt: skip
# What an encoder of BERT's kind says of its layers, and what stands before them.
LAYERS = ("layers", "hidden", "heads", "ffn", "activation", "biases", "norm_placement", "final_norm")


def _front(spec: Spec) -> list[Spec]:
    """What stands before the layers of BERT's kind, but for the token table."""
    hidden = spec["hidden"]
    types = spec.get("token_types")
    return [
        *table("positions", spec.get("position_rows") or spec["context"], hidden, part="positions"),
        *(table("token_types", types, hidden, part="positions") if types else []),
        *(norm("embedding_norm", hidden, part="norm") if spec.get("embedding_norm") else []),
    ]


def encoder_decoder(c: Config, task: Any) -> Spec:
    """Two of BERT's kind, the second with cross-attention (Rothe et al. 2019)."""
    sides = []
    for key, use in (("encoder", "Model"), ("decoder", "ForCausalLM")):
        sub = c.sub(key)
        if sub.model_type not in JOINED:
            raise sub.error("model_type", f"{sub.model_type!r} as {key} is not known here; known: {', '.join(JOINED)}")
        name = sub.known.classes[use]
        sides.append(JOINED[sub.model_type](sub, task._replace(name=use, architecture=name)))
    first, second = sides
    own, seen = second["hidden"], first["hidden"]
    behind = c.sub("decoder")
    if c.says("decoder") and not (behind.flag("is_decoder") and behind.flag("add_cross_attention")):
        raise behind.error("add_cross_attention", "a decoder that does not see its encoder is not known here (is_decoder too)")
    if c.sub("encoder").flag("is_decoder"):
        raise c.sub("encoder").error("is_decoder", "true, allowed: false; an encoder looks both ways")
    outside = [each for each in second.get("outside", ()) if not each["name"].startswith("cross_")]
    encoder = {key: first[key] for key in LAYERS if key in first}
    encoder["outside"] = [
        *table("encoder_embedding", first["vocab"], seen, part="embedding"),
        *_front(first),
        *first.get("outside", ()),
        *(linear("pooler", seen, seen, part="pooler", rows="sequence", after=True) if first.get("pooler") else []),
    ]
    if seen != own:
        if behind.maybe("cross_attention_hidden_size") is not None:
            raise behind.error("cross_attention_hidden_size", "an encoder of another width is not known here")
        raise c.error("encoder", f"an encoder {seen} wide and a decoder {own} wide go through a projection that is not known here")
    drop = ("extra", "position_rows", "token_types", "embedding_norm", "pooler")
    spec = {key: value for key, value in second.items() if key not in drop}
    return {
        **spec, "type": "encoder-decoder", "encoder": encoder, "positions": "none", "embedding_norm": False,
        "outside": [*_front(second), *outside], "head": True,
    }  # fmt: skip


def _gemma(c: Config) -> Spec:
    """A stack of Gemma 2's layers."""
    spec = decoder(c, norm_placement="sandwich", biases=biases(attention=c.flag("attention_bias")))
    depth, window = spec["layers"], c.maybe("sliding_window")
    kinds = layer_types(c, depth, every(depth, 2, "sliding_attention", "full_attention"))
    letters = "".join("S" if kind == "sliding_attention" and window else "L" for kind in kinds)
    return {**spec, "window": window if "S" in letters else None, "pattern": letters}


def t5gemma(c: Config, task: Any) -> Spec:
    """T5Gemma (Zhang et al. 2025): two stacks of Gemma 2's layers, each with a token table of its own."""
    first, second = _gemma(c.sub("encoder")), _gemma(c.sub("decoder"))
    outer = ("vocab", "context", "tied_head")
    encoder = {key: value for key, value in first.items() if key not in outer}
    encoder["outside"] = table("encoder_embedding", first["vocab"], first["hidden"], part="embedding")
    if task.name not in (*SEQ2SEQ, "Model", "ForTextEncoding"):
        raise refused(c, task)
    if task.name == "ForTextEncoding":
        alone = {**first, "type": "encoder", "head": False}
        return {key: value for key, value in alone.items() if key != "tied_head"}
    if second["biases"] != first["biases"]:
        # Said kind by kind, so that the encoder does not have the decoder's.
        kinds = {letter: {"biases": second["biases"] or None, "windowed": letter == "S"} for letter in set(second["pattern"])}
        second = {**second, "biases": [], "kinds": {letter: trimmed(kind) for letter, kind in sorted(kinds.items())}}
    tied = c.flag("tie_word_embeddings", True)
    both = {**second, "type": "encoder-decoder", "encoder": encoder, "tied_head": tied}
    if first["hidden"] != second["hidden"]:
        return finished(c, task, both)
    # The encoder's table counts as the embedding.
    encoder["outside"] = []
    spec = finished(c, task, {**both, "vocab": first["vocab"]})
    return {**spec, **two_vocabularies(task, spec, second["vocab"], tied=tied)}


FAMILIES = {"encoder-decoder": encoder_decoder, "t5gemma": t5gemma}
