"""Encoders that change more of BERT: narrow embeddings, relative positions, windows, rotary positions."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.heads import (
    LANGUAGE,
    POOLED,
    SPARSE,
    discriminator,
    encoder,
    headless,
    narrow_head,
    purpose,
    refused,
    said_windows,
    topped,
    transform,
    unfit,
)
from llmcalc.importers.families.tensors import conv, linear, norm, table
from llmcalc.importers.shape import Spec, every, extra, layer_types, usual_biases


def electra(c: Config, task: Any) -> Spec:
    """ELECTRA (Clark et al. 2020): a narrow embedding; pre-training tells replaced tokens apart, the generator predicts them."""
    narrow, use = c.count("embedding_size"), purpose(task)
    spec = encoder(c, task)
    hidden = spec["hidden"]
    if narrow != hidden:
        spec["embedding_dim"] = narrow
    if use == "ForPreTraining":
        return discriminator(spec)
    if use == "ForMultipleChoice":
        if c.flag("summary_use_proj"):
            spec["outside"] = linear("summary", hidden, hidden, rows="sequence", after=True)
        elif c.text("summary_type") == "attn":
            raise unfit(c, "summary_type", "no class has it")
    return topped(c, task, spec, pooled=(), head=narrow_head(spec, narrow), dense=True, spare_bias=False)


def _disentangled(spec: Spec, kinds: list[str], *, projected: dict[str, bool], span: int, normed: bool) -> Spec:
    """Relative positions of DeBERTa, where their projections are each layer's own: ``projected`` says which have a bias."""
    rows, hidden, layers = 2 * span, spec["hidden"], spec["layers"]
    scores = [kind for kind in projected if kind in kinds]
    # Queries and keys meet the projected table, so each score multiplies a token by as many numbers as the table has.
    times = {"times": layers * len(scores)} if scores else {"rows": "none"}
    outside = [extra("relative_positions", rows, hidden, part="positions", **times)]
    if normed:
        outside += norm("relative_norm", hidden, part="norm")
    own: list[Spec] = []
    for kind in scores:
        more: Spec = {"part": "attention", "rows": "sequence", "times": rows, "bias": projected[kind]}
        own += linear(f"positions_{kind}", hidden, hidden, **more)
    return {**spec, "outside": [*spec.get("outside", ()), *outside], "extra": own}


def _deberta_ends(c: Config, task: Any, spec: Spec, *, biased: bool) -> Spec:
    """Embedding and heads of both versions: the norm has the full width even where the embedding is narrow."""
    hidden, narrow = spec["hidden"], c.count("embedding_size", spec["hidden"])
    outside = list(spec.get("outside", ()))
    if biased:
        outside += table("positions", c.count("max_position_embeddings"), narrow, part="positions")
    if narrow == hidden:
        head = transform(spec)
    else:
        types = spec.pop("token_types")
        outside += [
            *norm("embedding_norm", hidden, part="norm"),
            *(table("token_types", types, narrow, part="positions") if types else []),
        ]
        spec = {**spec, "embedding_dim": narrow, "embedding_norm": False}
        spec["biases"] = ["attention", "ffn"] if spec["biases"] == ["all"] else ["q", "v", "o", "ffn"]
        head = [extra("head_projection_bias", narrow, after=True), *norm("head_norm", narrow, part="norm", after=True)]
    spec = {**spec, "outside": outside}
    if not c.flag("legacy", True):
        # The head of the original code: the embedding itself gives the logits.
        if narrow != hidden and purpose(task) == "ForMaskedLM":
            raise unfit(c, "legacy", "its head does not go with a narrow embedding")
        spec["tied_head"] = True
    pooled = ("ForSequenceClassification", "ForMultipleChoice")
    width = c.count("pooler_hidden_size", hidden)
    if purpose(task) in pooled and width != hidden:
        raise unfit(c, "pooler_hidden_size", "the classifier behind the pooler is as wide as the layers")
    return topped(c, task, spec, pooled=pooled, head=head)


def _kinds(c: Config) -> list[str]:
    """What takes part in the scores beside the content: c2p, p2c."""
    said = c.get("pos_att_type") or []
    words = said.split("|") if isinstance(said, str) else said
    if not isinstance(words, list) or any(not isinstance(word, str) for word in words):
        raise c.error("pos_att_type", f"found {said!r}, allowed: a list of c2p and p2c")
    return [word.strip().lower() for word in words]


def _span(c: Config) -> int:
    """Relative distances to one side that have an embedding of their own."""
    most = c.count("max_relative_positions", -1, least=-1)
    return most if most > 0 else c.count("max_position_embeddings")


def deberta(c: Config, task: Any) -> Spec:
    """DeBERTa (He et al. 2020): further scores between content and relative positions."""
    spec = encoder(c, task, biases=["q", "v", "o", "ffn", "projection"], positions="none")
    if c.flag("talking_head"):
        raise unfit(c, "talking_head", "heads that mix their scores are not known here")
    if c.flag("relative_attention"):
        spec = _disentangled(spec, _kinds(c), projected={"c2p": False, "p2c": True}, span=_span(c), normed=False)
    return _deberta_ends(c, task, spec, biased=c.flag("position_biased_input", True))


def deberta_v2(c: Config, task: Any) -> Spec:
    """DeBERTa v2 and v3: relative positions in buckets, through the layers' own projections where those are shared."""
    spec = encoder(c, task, positions="none")
    hidden = spec["hidden"]
    if c.maybe("attention_head_size") not in (None, hidden // spec["heads"]):
        raise unfit(c, "attention_head_size", "heads must fill the width")
    if c.flag("relative_attention"):
        kinds, buckets = _kinds(c), c.count("position_buckets", -1, least=-1)
        span = buckets if buckets > 0 else _span(c)
        normed = "layer_norm" in c.text("norm_rel_ebd", "none").lower()
        if not c.flag("share_att_key"):
            spec = _disentangled(spec, kinds, projected={"c2p": True, "p2c": True}, span=span, normed=normed)
        elif normed and {"c2p", "p2c"} <= set(kinds):
            spec = {**spec, "positions": "disentangled", "position_rows": 2 * span}
        else:
            raise unfit(c, "share_att_key", "shared projections are known with c2p, p2c and a norm of the positions only")
    width = c.count("conv_kernel_size", 0, least=0)
    if width:
        groups = c.count("conv_groups", 1)
        kernel = conv("conv", hidden, hidden // groups, width, rows=None)
        spec["outside"] = [*spec.get("outside", ()), *kernel, *norm("conv_norm", hidden, part="norm")]
    return _deberta_ends(c, task, spec, biased=c.flag("position_biased_input", True))


def longformer(c: Config, task: Any) -> Spec:
    """Longformer (Beltagy et al. 2020): windows, and further projections for the few tokens that see all."""
    spec = encoder(c, task, global_attention=True, note=SPARSE)
    spec["blocks"] = said_windows(c, spec["layers"])
    return topped(c, task, spec, pooled=("Model", "ForMultipleChoice"), dense=True)


def big_bird(c: Config, task: Any) -> Spec:
    """BigBird (Zaheer et al. 2020): every class has the pooler but those that predict tokens."""
    use = purpose(task)
    spec = encoder(c, task)
    hidden, inner = spec["hidden"], spec["ffn"]
    if not c.flag("use_bias", True):
        spec["biases"] = ["o", "ffn"]
    if c.text("attention_type", "block_sparse") == "block_sparse" and spec["type"] == "encoder":
        spec["note"] = SPARSE
    pooled = [*POOLED, "ForTokenClassification", "ForMaskedLM", "ForCausalLM"]
    if use == "ForQuestionAnswering":
        between = [
            *linear("answer_up", inner, hidden, rows=None, after=True),
            *linear("answer_down", hidden, inner, rows=None, after=True),
            *norm("answer_norm", hidden, part="norm", after=True),
        ]
        spec["outside"] = between
    return topped(c, task, spec, pooled=pooled, dense=True)


def modernbert(c: Config, task: Any) -> Spec:
    """ModernBERT (Warner et al. 2024): rotary positions, gated FFN, windows in two layers of three, few biases."""
    causal = c.model_type == "modernbert-decoder"
    layers = c.layers()
    # To one side of a token: all that the decoder sees, and half of what the encoder does.
    side = c.count("sliding_window", c.count("local_attention") // 2)
    window = side if causal else 2 * side
    usual = every(layers, c.count("global_attn_every_n_layers", 3), "sliding_attention", "full_attention", 0)
    kinds = layer_types(c, layers, usual)
    blocks = [
        {"window": window if kind == "sliding_attention" else None, "attention_norm": None if index else False}
        for index, kind in enumerate(kinds)
    ]
    bias, own = c.flag("norm_bias"), c.flag("classifier_bias")
    spec = encoder(
        c, task, activation=c.text("hidden_activation"), gated=True, positions="rotary", norm_placement="pre", norm_bias=bias,
        biases=usual_biases(c), blocks=blocks, token_types=None,
        head_bias=c.flag("decoder_bias", True), type="decoder" if causal else "encoder",
    )  # fmt: skip
    hidden = spec["hidden"]
    use = purpose(task)
    if causal and use not in ("Model", "ForCausalLM", "ForSequenceClassification"):
        raise refused(c, task)
    per_token = causal or use in ("ForTokenClassification", "ForQuestionAnswering")
    rows = "logit" if use in LANGUAGE else "token" if per_token else "sequence"
    head = [
        *linear("head_dense", hidden, hidden, bias=own, rows=rows, after=True),
        *norm("head_norm", hidden, bias=bias, part="norm", after=True),
    ]
    if causal and use == "ForSequenceClassification":
        outside = [*head, *linear("classifier", task.labels, hidden, bias=own, rows=None, after=True)]
        return headless(spec, outside)
    if use not in (*LANGUAGE, "Model"):
        spec["outside"] = head
    return topped(c, task, spec, pooled=(), head=head, spare_bias=False)


FAMILIES = {
    "electra": electra,
    "deberta": deberta,
    "deberta-v2": deberta_v2,
    "longformer": longformer,
    "big_bird": big_bird,
    "modernbert": modernbert,
    "modernbert-decoder": modernbert,
}
