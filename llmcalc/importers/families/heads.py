"""What encoders have in common: BERT's layers as a spec, and what their classes set on top of the last one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.tensors import linear, norm, table
from llmcalc.importers.shape import Spec, extra

POOLED = ("Model", "ForSequenceClassification", "ForMultipleChoice", "ForPreTraining", "ForNextSentencePrediction")
LANGUAGE = ("ForMaskedLM", "ForCausalLM", "ForPreTraining")
SPARSE = "forward FLOPs count the whole square of attention, of which the model computes blocks alone"


def boxes(rows: int, width: int) -> list[Spec]:
    """The tables for a word's place on the page."""
    return [each for name in ("x", "y", "height", "width") for each in table(f"{name}_positions", rows, width, part="positions")]


def purpose(task: Any) -> str:
    """What a class is for; a text encoder is the bare model."""
    return "Model" if task.name == "ForTextEncoding" else str(task.name)


def refused(c: Config, task: Any) -> Exception:
    """The error for a class that has something on top that nobody here has read."""
    return c.error("architectures", f"{task.architecture} has a head that llmcalc does not know; name the bare model's class")


def headless(spec: Spec, outside: list[Spec]) -> Spec:
    """The spec with these tensors behind the layers in place of the vocabulary's matrix."""
    return {**spec, "head": False, "tied_head": None, "head_bias": None, "outside": outside}


def discriminator(spec: Spec) -> Spec:
    """ELECTRA's pre-training: a linear, and whether each token was replaced."""
    dense = linear("head_dense", spec["hidden"], spec["hidden"], rows=None, after=True)
    return headless(spec, [*dense, *linear("classifier", 1, spec["hidden"], rows=None, after=True)])


def said_windows(c: Config, depth: int) -> list[Spec]:
    """Longformer's blocks: one window for all layers, or one for each."""
    said = c.get("attention_window")
    widths = c.each("attention_window", depth, int) if isinstance(said, list) else [c.count("attention_window")] * depth
    return [{"window": width} for width in widths or ()]


def unfit(c: Config, key: str, why: str) -> Exception:
    """The error for a value that cannot be counted."""
    return c.error(key, f"{c.get(key)!r} cannot be counted: {why}")


def generates(c: Config, task: Any) -> bool:
    """Whether a class that may be encoder or decoder keeps a cache: language models do, and bare decoders."""
    use = purpose(task)
    return use == "ForCausalLM" or (use == "Model" and c.flag("is_decoder"))


def encoder(c: Config, task: Any, **more: Any) -> Spec:
    """BERT's layers: post-norm, biases everywhere, a plain FFN, tables of positions and of token types.

    As a decoder the same weights look back only and keep a cache. Cross-attention in such a decoder has weights and no
    work: there is no encoder to look at.
    """
    hidden = c.count("hidden_size")
    spec = {
        "type": "decoder" if generates(c, task) else "encoder",
        "layers": more.get("layers") or c.layers(),
        "hidden": hidden,
        "heads": None if more.get("attention") is False else c.count("num_attention_heads"),
        "ffn": c.count("intermediate_size", more.get("ffn")),
        "gated": False,
        "activation": c.text("hidden_act"),
        "biases": ["all"],
        "norm": "layernorm",
        "norm_placement": "post",
        "vocab": c.count("vocab_size"),
        "context": c.maybe("max_position_embeddings"),
        "positions": "learned",
        "token_types": c.count("type_vocab_size", 0, least=0) or None,
        "embedding_norm": True,
        "tied_head": c.flag("tie_word_embeddings", True),
        "head_bias": True,
    }
    if c.flag("is_decoder") and c.flag("add_cross_attention"):
        spec["extra"] = idle_cross_attention(hidden, hidden, hidden)
    return {**spec, **more}


def idle_cross_attention(hidden: int, encoded: int, inner: int, *, bias: bool = True, norm_bias: bool = True) -> list[Spec]:
    """The weights of a decoder's cross-attention where it has no encoder beside it, and its norm."""
    more: Spec = {"part": "cross_attention", "bias": bias}
    return [
        *linear("cross_q", inner, hidden, **more),
        *linear("cross_k", inner, encoded, **more),
        *linear("cross_v", inner, encoded, **more),
        *linear("cross_o", hidden, inner, **more),
        *norm("cross_norm", hidden, bias=norm_bias, part="norm"),
    ]


def pooler(spec: Spec, width: int | None = None) -> Spec:
    """A linear on the first token."""
    if spec.get("type") == "encoder" and width is None:
        return {"pooler": True}
    into = width or spec["hidden"]
    return {"outside": [*spec.get("outside", ()), *linear("pooler", into, into, part="pooler", rows="sequence", after=True)]}


def transform(spec: Spec, width: int | None = None) -> list[Spec]:
    """BERT's linear and norm before the vocabulary's matrix."""
    width = width or spec["hidden"]
    return [
        *linear("head_dense", width, spec["hidden"], rows="logit", after=True),
        *norm("head_norm", width, part="norm", after=True),
    ]


def narrow_head(spec: Spec, narrow: int) -> list[Spec]:
    """What stands before a head as narrow as the embedding: BERT's linear and norm, or where the widths differ the norm alone."""
    return norm("head_norm", narrow, part="norm", after=True) if narrow != spec["hidden"] else transform(spec)


def topped(
    c: Config, task: Any, spec: Spec, *,
    pooled: Iterable[str] = POOLED, head: list[Spec] | None = None, dense: bool | Iterable[str] = False,
    known: Iterable[str] | None = None, sentence: int = 2, width: int | None = None, spare_bias: bool = True,
) -> Spec:  # fmt: skip
    """The spec with what the class has behind the last layer.

    ``pooled`` are the uses with a pooler, ``head`` what stands before the vocabulary's matrix (BERT's transform unless said),
    ``dense`` the uses whose classifier has a linear of the hidden width before it (or whether sequence classification does);
    ``sentence`` the outputs of the second task of pre-training, ``width`` what the last layer gives where that is not hidden.
    With ``spare_bias`` the head's bias stands in two places, which are one only where the head is tied.

    Raises SpecError for a class whose head is not known.
    """
    use, hidden = purpose(task), width or spec["hidden"]
    uses = {"Model", *LANGUAGE, "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice",
            "ForNextSentencePrediction"} if known is None else {"Model", *known}  # fmt: skip
    if use not in uses:
        raise refused(c, task)
    spec = {"head": use in LANGUAGE, **spec}
    outside = list(spec.get("outside", ()))
    before = {"ForSequenceClassification"} if dense is True else set(dense or ())
    rows = "token" if use in ("ForTokenClassification", "ForQuestionAnswering") else "sequence"
    if use in LANGUAGE:
        outside += transform(spec) if head is None else head
        if spare_bias and spec["head_bias"] and not spec["tied_head"]:
            outside.append(extra("spare_head_bias", spec["vocab"], part="lm_head", after=True))
    if use in before:
        outside += linear("classifier_dense", hidden, hidden, rows=rows, after=True)
    outputs = {
        "ForSequenceClassification": task.labels,
        "ForTokenClassification": task.labels,
        "ForQuestionAnswering": task.labels,
        "ForMultipleChoice": 1,
        "ForNextSentencePrediction": sentence,
        "ForPreTraining": sentence,
    }.get(use)
    if outputs:
        outside += linear("classifier", outputs, hidden, rows=rows, after=True)
    if not spec["head"]:
        spec = {**spec, "tied_head": None, "head_bias": None}
    spec = {**spec, "outside": outside}
    return {**spec, **pooler(spec, width)} if use in pooled else spec
