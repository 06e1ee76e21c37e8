"""Encoders that put something of their own beside BERT's parts: languages, entities, convolutions, Fourier transforms."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.heads import LANGUAGE, POOLED, SPARSE, encoder, narrow_head, purpose, refused, topped, unfit
from llmcalc.importers.families.tensors import linear, norm, table
from llmcalc.importers.shape import Spec, extra


def xlm(c: Config, task: Any) -> Spec:
    """XLM and FlauBERT (Lample and Conneau 2019): a table of languages where there are several."""
    if not c.flag("is_encoder", True):
        raise unfit(c, "is_encoder", "the class is an encoder only")
    if c.flag("asm"):
        raise unfit(c, "asm", "an adaptive softmax is not known here")
    hidden = c.count("emb_dim")
    # Sequences are classified by one linear on their first token, with or without this projection's other forms.
    if purpose(task) not in ("Model", *LANGUAGE, "ForTokenClassification"):
        raise refused(c, task)
    spec = encoder(c, task, ffn=4 * hidden, activation="gelu" if c.flag("gelu_activation", True) else "relu", type="encoder")
    spec["token_types"] = None
    if c.flag("pre_norm"):
        spec = {**spec, "norm_placement": "pre", "final_norm": False}
    if c.count("n_langs") > 1 and c.flag("use_lang_emb", True):
        spec["outside"] = table("languages", c.count("n_langs"), hidden, part="positions")
    return topped(c, task, spec, pooled=(), head=[], spare_bias=False)


def fnet(c: Config, task: Any) -> Spec:
    """FNet (Lee-Thorp et al. 2021): Fourier transforms, which have no weights, in place of attention."""
    if c.flag("use_tpu_fourier_optimizations"):
        raise unfit(c, "use_tpu_fourier_optimizations", "the transform as products of matrices is not known here")
    hidden = c.count("hidden_size")
    mixing = norm("mixing_norm", hidden, part="norm")
    spec = encoder(c, task, attention=False, extra=mixing)
    spec["outside"] = linear("projection", hidden, hidden, part="projection", rows=None)
    pooled = [*POOLED, "ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering"]
    return topped(c, task, spec, pooled=pooled)


def luke(c: Config, task: Any) -> Spec:
    """LUKE (Yamada et al. 2020): tables of entities, and queries of their own for pairs of words and entities."""
    spec = encoder(c, task)
    hidden, narrow, entities = spec["hidden"], c.count("entity_emb_size"), c.count("entity_vocab_size")
    tied = spec["tied_head"]
    outside = [
        *table("entities", entities, narrow, part="embedding"),
        *([extra("entity_projection", hidden, narrow, part="projection", rows="none")] if narrow != hidden else []),
        *table("entity_positions", c.count("max_position_embeddings"), hidden, part="positions"),
        *table("entity_types", c.count("type_vocab_size"), hidden, part="positions"),
        *norm("entity_norm", hidden, part="norm"),
    ]
    if c.flag("use_entity_aware_attention", True):
        pairs = ("w2e", "e2w", "e2e")
        spec["extra"] = [each for name in pairs for each in linear(f"{name}_query", hidden, hidden, part="attention")]
    if purpose(task) == "ForMaskedLM":
        # The words' head is never tied; the entities' is, to their table.
        outside += [
            *linear("entity_dense", narrow, hidden, rows="none", after=True),
            *norm("entity_head_norm", narrow, part="norm", after=True),
            *([] if tied else [extra("entity_head", entities, narrow, part="lm_head", rows="none", after=True)]),
            extra("entity_head_bias", entities, part="lm_head", after=True),
            *([] if tied else [extra("spare_head_bias", spec["vocab"], part="lm_head", after=True)]),
        ]
    spec = {**spec, "outside": outside, "tied_head": False}
    pooled = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForMultipleChoice")
    return topped(c, task, spec, pooled=pooled, spare_bias=False)


def roc_bert(c: Config, task: Any) -> Spec:
    """RoCBert: tables for the sound and the shape of characters beside their meaning."""
    if purpose(task) == "ForPreTraining":
        raise refused(c, task)
    spec = encoder(c, task)
    hidden = spec["hidden"]
    sound, shape = c.count("pronunciation_embed_dim"), c.count("shape_embed_dim")
    outside = [
        *table("sounds", c.count("pronunciation_vocab_size"), sound, part="embedding"),
        *table("shapes", c.count("shape_vocab_size"), shape, part="embedding"),
    ]
    if c.flag("concat_input", True):
        into = hidden + sound * c.flag("enable_pronunciation", True) + shape * c.flag("enable_shape", True)
        outside += linear("map_inputs", hidden, into, part="projection", rows=None)
    return topped(c, task, {**spec, "outside": outside})


def xmod(c: Config, task: Any) -> Spec:
    """X-MOD (Pfeiffer et al. 2022): an adapter for each language behind the FFN, of which a token takes its own."""
    languages = c.get("languages")
    if not isinstance(languages, list) or not 0 < len(languages) <= 10_000:
        raise c.error("languages", "allowed: a list of languages")
    pre = c.flag("pre_norm")
    spec = encoder(c, task, norm_placement="pre" if pre else "post")
    hidden, count = spec["hidden"], len(set(map(str, languages)))
    factor = c.number("adapter_reduction_factor")
    if not 1 <= factor <= hidden:
        raise unfit(c, "adapter_reduction_factor", "it must be at least 1 and no more than the width")
    narrow = int(hidden // factor)
    own = [*linear("adapter_down", narrow, hidden, rows=None), *linear("adapter_up", hidden, narrow, rows=None)]
    others = [{**each, "name": f"other_{each['name']}", "copies": count - 1, "rows": "none"} for each in own]
    gains = norm("adapter_norm", hidden, part="norm") if c.flag("adapter_layer_norm") else []
    spec = {**spec, "extra": [*spec.get("extra", ()), *own, *(others if count > 1 else []), *gains]}
    return topped(c, task, spec, pooled=("Model", "ForMultipleChoice"), dense=True)


def tapas(c: Config, task: Any) -> Spec:
    """TAPAS (Herzig et al. 2020): tables of rows, columns and ranks beside the token types."""
    sizes = c.chosen("type_vocab_sizes")
    if not sizes or any(not 0 < size <= 10**8 for size in sizes):
        raise c.error("type_vocab_sizes", "allowed: a list of sizes")
    spec = encoder(c, task, token_types=None, type="encoder")
    spec["outside"] = [
        each for index, size in enumerate(sizes) for each in table(f"token_types_{index}", size, spec["hidden"], part="positions")
    ]
    return topped(c, task, spec, known=("ForMaskedLM", "ForSequenceClassification"))


def approximated(c: Config, task: Any) -> Spec:
    """Nystromformer, YOSO, MRA: BERT whose attention is approximated, some with a convolution over the values."""
    spec = encoder(c, task, note=SPARSE, type="encoder")
    spec["position_rows"] = c.count("max_position_embeddings") + 2
    width = c.maybe("conv_kernel_size") if c.model_type == "nystromformer" else c.maybe("conv_window")
    if width:
        spec["extra"] = [extra("conv", spec["heads"], width, part="attention", times=spec["hidden"] // spec["heads"])]
    return topped(c, task, spec, pooled=(), dense=("ForSequenceClassification", "ForMultipleChoice"))


def xlnet(c: Config, task: Any) -> Spec:
    """XLNet (Yang et al. 2019): relative positions with weights of their own in each layer, and a memory of hidden states."""
    spec = encoder(c, task, ffn=c.count("d_inner"), activation=c.text("ff_activation"), positions="none", embedding_norm=False)
    hidden, heads = spec["hidden"], spec["heads"]
    if purpose(task) not in ("Model", *LANGUAGE):
        raise refused(c, task)
    biases = [extra(f"{name}_bias", heads, hidden // heads, part="attention", times=0) for name in ("r_r", "r_s", "r_w")]
    own = [extra("r", hidden, hidden, part="attention", times=2), *biases, extra("seg_embed", 2, hidden, part="attention", times=0)]
    changes = {"type": "encoder", "biases": ["ffn"], "extra": own, "context": None, "token_types": None}
    spec = {**spec, **changes, "outside": [extra("mask_emb", hidden, part="embedding")]}
    spec["unknown_cache"] = "XLNet keeps the hidden states of earlier segments, as many as it is told to"
    spec["note"] = "forward FLOPs leave out the scores of relative positions"
    return topped(c, task, spec, pooled=(), head=[], spare_bias=False)


def convbert(c: Config, task: Any) -> Spec:
    """ConvBERT (Jiang et al. 2020): half of each attention is a convolution whose kernel each token chooses."""
    if c.count("num_groups") != 1:
        raise unfit(c, "num_groups", "an FFN in groups is not known here")
    if c.flag("is_decoder") and c.flag("add_cross_attention"):
        raise unfit(c, "add_cross_attention", "cross-attention beside convolutions is not known here")
    use, narrow = purpose(task), c.count("embedding_size")
    spec = encoder(c, task, type="encoder")
    hidden, said = spec["hidden"], spec["heads"]
    heads = max(said // c.count("head_ratio"), 1)
    if hidden % heads:
        raise unfit(c, "num_attention_heads", "heads must fill the width")
    head_dim, width = hidden // heads // 2, c.count("conv_kernel_size")
    inner = heads * head_dim
    part: Spec = {"part": "attention", "rows": None}
    own = [
        extra("depthwise", hidden, width, part="attention"),
        extra("pointwise", inner, hidden, part="attention"),
        # The convolution itself: as many products for each output as the kernel is wide.
        extra("conv_bias", inner, part="attention", times=width),
        *linear("kernel", heads * width, inner, **part),
        *linear("conv_values", inner, hidden, **part),
        *([extra("o_of_conv", hidden, hidden - inner, part="attention")] if hidden > inner else []),
    ]
    spec = {**spec, "heads": heads, "head_dim": head_dim, "extra": own}
    if narrow != hidden:
        spec["embedding_dim"] = narrow
    if use == "ForMultipleChoice":
        spec["outside"] = linear("summary", hidden, hidden, rows="sequence", after=True) if c.flag("summary_use_proj") else []
    return topped(c, task, spec, pooled=(), head=narrow_head(spec, narrow), dense=True, spare_bias=False)


def mobilebert(c: Config, task: Any) -> Spec:
    """MobileBERT (Sun et al. 2020): layers work in a bottleneck, whose input and output are linears of their own.

    Here ``hidden`` is the bottleneck's width. Values are made of the wide stream, so their matrix stands in two pieces.
    """
    inner, wide, narrow = c.count("intra_bottleneck_size"), c.count("hidden_size"), c.count("embedding_size")
    for key, wanted in (("use_bottleneck", True), ("key_query_shared_bottleneck", True), ("use_bottleneck_attention", False)):
        if c.flag(key, wanted) is not wanted:
            raise unfit(c, key, "only the published form of the bottleneck is known here")
    if narrow != inner or wide < inner:
        raise unfit(c, "embedding_size", "the embedding must be as wide as the bottleneck, and no wider than the layers")
    if c.text("normalization_type", "no_norm") not in ("no_norm", "layer_norm"):
        raise unfit(c, "normalization_type", "known are no_norm and layer_norm")
    spec = encoder(c, task, type="encoder", positions="none", embedding_norm=False)
    types, ffn = spec.pop("token_types"), spec["ffn"]
    rest = wide - inner
    own = [
        *linear("bottleneck_in", inner, wide, rows=None),
        *norm("bottleneck_in_norm", inner, part="norm"),
        *linear("bottleneck_attention", inner, wide, part="attention", rows=None),
        *norm("bottleneck_attention_norm", inner, part="norm"),
        *linear("bottleneck_out", wide, inner, rows=None),
        *norm("bottleneck_out_norm", wide, part="norm"),
        *([extra("v_of_rest", inner, rest, part="attention")] if rest else []),
    ]
    for index in range(1, c.count("num_feedforward_networks", most=100)):
        own += linear(f"up{index}", ffn, inner, part="ffn", rows=None)
        own += linear(f"down{index}", inner, ffn, part="ffn", rows=None)
        own += norm(f"ffn{index}_norm", inner, part="norm")
    outside = [
        *table("positions", c.count("max_position_embeddings"), wide, part="positions"),
        *(table("token_types", types, wide, part="positions") if types else []),
        *linear("embedding_projection", wide, narrow * (3 if c.flag("trigram_input", True) else 1), part="projection", rows=None),
        *norm("embedding_norm", wide, part="norm"),
    ]
    head = [*linear("head_dense", wide, wide, rows="logit", after=True), *norm("head_norm", wide, part="norm", after=True)]
    if rest:
        head.append(extra("head_of_rest", spec["vocab"], rest, part="lm_head", rows="logit", after=True))
    spec = {**spec, "hidden": inner, "extra": own, "outside": outside}
    pooled = POOLED if c.flag("classifier_activation", True) else ()
    return topped(c, task, spec, pooled=pooled, head=head, width=wide)


FAMILIES = {
    "xlm": xlm, "flaubert": xlm, "fnet": fnet, "luke": luke, "roc_bert": roc_bert, "xmod": xmod, "tapas": tapas,
    "nystromformer": approximated, "yoso": approximated, "mra": approximated, "xlnet": xlnet, "convbert": convbert,
    "mobilebert": mobilebert,
}  # fmt: skip
