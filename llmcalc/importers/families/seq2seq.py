"""T5 and the encoder-decoders that are built like it: relative positions, RMSNorm, no biases."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.heads import SPARSE, refused
from llmcalc.importers.families.tensors import linear, table
from llmcalc.importers.shape import Spec, trimmed

SEQ2SEQ = ("ForSeq2SeqLM", "ForPreTraining", "ForConditionalGeneration")


def finished(c: Config, task: Any, spec: Spec, *, encoder_alone: tuple[str, ...] = ("ForTextEncoding",), labels: int = 0) -> Spec:
    """An encoder-decoder as its class has it: with the vocabulary's matrix, bare, with a classifier, or the encoder alone.

    Raises SpecError for a class whose head is not known.
    """
    use, hidden = task.name, spec["hidden"]
    outside = list(spec.get("outside", ()))
    if use not in (*SEQ2SEQ, *encoder_alone, "Model", "ForSequenceClassification", "ForQuestionAnswering"):
        raise refused(c, task)
    if use in encoder_alone:
        encoder = {key: value for key, value in spec["encoder"].items() if key != "outside"}
        outside = [{**each, "rows": None} for each in spec["encoder"].get("outside", ())]
        spec = {**spec, **encoder, "type": "encoder", "encoder": None}
        if use == "ForTokenClassification":
            outside += linear("classifier", task.labels, hidden, rows=None, after=True)
    elif use == "ForSequenceClassification":
        outside += linear("classifier_dense", hidden, hidden, rows="sequence", after=True)
        outside += linear("classifier", task.labels, hidden, rows="sequence", after=True)
    elif use == "ForQuestionAnswering":
        outside += linear("classifier", labels or task.labels, hidden, rows=None, after=True)
    head = use in SEQ2SEQ
    if not head:
        spec = {**spec, "tied_head": None, "head_bias": None}
    return trimmed({**spec, "head": head, "outside": [trimmed(each) for each in outside]})


def apart(spec: Spec) -> Spec:
    """Where nothing is tied, each stack has a token table of its own, and the one they would share stands unused."""
    if spec["tied_head"]:
        return spec
    shape = spec["vocab"], spec["hidden"]
    own = [*table("encoder_embedding", *shape, part="embedding"), *table("decoder_embedding", *shape, part="embedding")]
    return {**spec, "outside": [*spec.get("outside", ()), *own]}


def _t5(c: Config, **more: Any) -> Spec:
    """Both stacks of T5 (Raffel et al. 2019): heads x d_kv need not be the width."""
    layers = c.layers("num_layers")
    projection = c.text("feed_forward_proj", "relu").split("-")
    return {
        "type": "encoder-decoder",
        "layers": c.count("num_decoder_layers", layers, most=10_000),
        "hidden": c.count("d_model"),
        "heads": c.count("num_heads"),
        "head_dim": c.count("d_kv"),
        "ffn": c.count("d_ff"),
        "gated": c.flag("is_gated_act", projection[0] == "gated"),
        "activation": projection[-1],
        "vocab": c.count("vocab_size"),
        "context": c.maybe("n_positions"),
        "positions": "relative",
        "relative_buckets": c.count("relative_attention_num_buckets"),
        "encoder": {"layers": layers},
        "tied_head": c.flag("tie_word_embeddings", True),
        **more,
    }


def t5(c: Config, task: Any) -> Spec:
    """T5, T5 v1.1, mT5: the first layer's table of relative positions serves all."""
    return finished(c, task, _t5(c), encoder_alone=("ForTextEncoding", "ForTokenClassification"))


def umt5(c: Config, task: Any) -> Spec:
    """UMT5: a table of relative positions in every layer."""
    buckets, heads = c.count("relative_attention_num_buckets"), c.count("num_heads")
    own = table("relative_bias", buckets, heads, part="positions")
    spec = _t5(c, positions="none", relative_buckets=None, extra=own)
    return finished(c, task, spec, encoder_alone=("ForTextEncoding", "ForTokenClassification"))


def longt5(c: Config, task: Any) -> Spec:
    """LongT5: an encoder whose tokens see their neighbourhood, and summaries of blocks beside it where it is transient-global."""
    spec = _t5(c)
    kind = c.text("encoder_attention_type", "local")
    if kind not in ("local", "transient-global"):
        raise c.error("encoder_attention_type", f"found {kind!r}, allowed: local, transient-global")
    encoder: Spec = {**spec["encoder"], "window": 2 * c.count("local_radius") + 1}
    if kind == "transient-global":
        hidden = spec["hidden"]
        encoder["outside"] = table("global_relative_bias", spec["relative_buckets"], spec["heads"], part="positions")
        encoder["extra"] = [{"name": "global_norm", "shape": [hidden], "part": "norm"}]
    return finished(c, task, {**spec, "encoder": encoder, "note": SPARSE})


def mixtures(layers: int, step: int, moe: Spec) -> Spec:
    """A pattern with a mixture in each ``step``-th layer, the second of them first as Switch Transformers counts."""
    letters = "".join("E" if step == 1 or (step > 0 and index % step == 1) else "L" for index in range(layers))
    return {"pattern": letters, **({"kinds": {"E": {"moe": moe}}} if "E" in letters else {})}


def switch_transformers(c: Config, task: Any) -> Spec:
    """Switch Transformers (Fedus et al. 2021): mixtures of which a token uses one expert."""
    spec = _t5(c, gated=False, activation=c.text("dense_act_fn"))
    moe = {"experts": c.count("num_experts"), "top_k": 1, "ffn": spec["ffn"]}
    stacks = []
    for name, depth in (("encoder", spec["encoder"]["layers"]), ("decoder", spec["layers"])):
        sparse = c.count(f"num_sparse_{name}_layers", least=0)
        step = c.count(f"{name}_sparse_step", depth // sparse if sparse else depth, least=0)
        stacks.append(mixtures(depth, step, moe))
    encoder, decoder = stacks
    spec = {**spec, **decoder, "encoder": {**spec["encoder"], **encoder}}
    if c.flag("router_bias"):
        spec["biases"] = ["router"]
    return finished(c, task, apart(spec))


FAMILIES = {"t5": t5, "mt5": t5, "umt5": umt5, "longt5": longt5, "switch_transformers": switch_transformers}
