"""Encoders of pages and pools: layouts, mark-up, layers over fewer and fewer tokens, grouped convolutions."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.heads import LANGUAGE, POOLED, boxes, discriminator, encoder, purpose, refused, topped, unfit
from llmcalc.importers.families.tensors import linear, norm, table
from llmcalc.importers.shape import Spec, extra


def lilt(c: Config, task: Any) -> Spec:
    """LiLT (Wang et al. 2022): a narrow second stream for the places of words beside the text's."""
    spec = encoder(c, task, type="encoder")
    hidden, ffn, ratio = spec["hidden"], spec["ffn"], c.count("channel_shrink_ratio")
    narrow, inner = hidden // ratio, ffn // ratio
    rows = c.count("max_2d_position_embeddings")
    part: Spec = {"part": "attention", "rows": None}
    spec["extra"] = [
        *(each for name in ("q", "k", "v") for each in linear(f"layout_{name}", narrow, narrow, **part)),
        *linear("layout_o", narrow, narrow, **part),
        *norm("layout_attention_norm", narrow, part="norm"),
        *linear("layout_up", inner, narrow, part="ffn", rows=None),
        *linear("layout_down", narrow, inner, part="ffn", rows=None),
        *norm("layout_ffn_norm", narrow, part="norm"),
    ]
    spec["outside"] = [
        *boxes(rows, hidden // 6),
        *table("box_positions", c.count("max_position_embeddings"), narrow, part="positions"),
        *linear("boxes", narrow, hidden, part="projection", rows=None),
        *norm("boxes_norm", narrow, part="norm"),
    ]
    spec["note"] = "forward FLOPs leave out the scores of the layout's stream"
    known = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
    return topped(c, task, spec, pooled=("Model",), dense=True, known=known)


def markuplm(c: Config, task: Any) -> Spec:
    """MarkupLM (Li et al. 2021): the place of each word in the tree of a page, made of tables for each depth."""
    spec = encoder(c, task, type="encoder")
    hidden, unit, depth = spec["hidden"], c.count("xpath_unit_hidden_size"), c.count("max_depth")
    spec["outside"] = [
        # Built, and used by no class.
        *linear("unused_xpath", hidden, unit * depth, rows="none"),
        *linear("xpath_inner", 4 * hidden, unit * depth, part="projection", rows=None),
        *linear("xpath", hidden, 4 * hidden, part="projection", rows=None),
        *table("tags", c.count("max_xpath_tag_unit_embeddings"), unit, part="positions", copies=depth),
        *table("subscripts", c.count("max_xpath_subs_unit_embeddings"), unit, part="positions", copies=depth),
    ]
    known = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
    return topped(c, task, spec, pooled=("Model", "ForSequenceClassification"), known=known)


def funnel(c: Config, task: Any) -> Spec:
    """Funnel Transformer (Dai et al. 2020): blocks of layers over half the tokens each, and a decoder over all again."""
    use = purpose(task)
    base = "Base" in task.architecture or use in ("ForSequenceClassification", "ForMultipleChoice")
    sizes = c.chosen("block_sizes")
    if not sizes or any(size < 1 for size in sizes) or sum(sizes) > 5_000:
        raise c.error("block_sizes", "allowed: a list of layers for each block")
    # Layers of a block that runs again share their weights.
    c.get("block_repeats")
    layers = sum(sizes) + (0 if base else c.count("num_decoder_layers", least=0, most=5_000))
    spec = encoder(
        c, task, layers=layers, head_dim=c.count("d_head"), ffn=c.count("d_inner"), positions="none",
        biases=["k", "v", "o", "ffn"], type="encoder", token_types=None,
    )  # fmt: skip
    heads, head_dim, hidden = spec["heads"], spec["head_dim"], spec["hidden"]
    biases = [extra(f"{name}_bias", heads, head_dim, part="attention", times=0) for name in ("r_w", "r_r", "r_s")]
    segments = extra("segments", 2, heads, head_dim, part="attention", times=0)
    spec["extra"] = [*biases, segments, extra("r_kernel", hidden, heads, head_dim, part="attention", times=0)]
    spec["note"] = "forward FLOPs count every layer over all tokens, and leave out relative positions"
    if use == "ForPreTraining":
        return discriminator(spec)
    dense = ("ForSequenceClassification", "ForMultipleChoice")
    return topped(c, task, spec, pooled=(), head=[], dense=dense, spare_bias=False)


def squeezebert(c: Config, task: Any) -> Spec:
    """SqueezeBERT (Iandola et al. 2020): BERT whose linears are convolutions in groups."""
    spec = encoder(c, task, type="encoder")
    hidden, ffn = spec["hidden"], spec["ffn"]
    if c.count("embedding_size") != hidden:
        raise unfit(c, "embedding_size", "the class needs an embedding as wide as the layers")
    own: list[Spec] = []
    shapes = (
        ("q", hidden, hidden, "q_groups", "attention"), ("k", hidden, hidden, "k_groups", "attention"),
        ("v", hidden, hidden, "v_groups", "attention"), ("o", hidden, hidden, "post_attention_groups", "attention"),
        ("up", ffn, hidden, "intermediate_groups", "ffn"), ("down", hidden, ffn, "output_groups", "ffn"),
    )  # fmt: skip
    for name, out, into, key, part in shapes:
        groups = c.count(key)
        if into % groups or out % groups:
            raise unfit(c, key, "groups must divide both widths")
        own += linear(name, out, into // groups, part=part, rows=None)
    own += [*norm("attention_norm", hidden, part="norm"), *norm("ffn_norm", hidden, part="norm")]
    spec = {**spec, "attention": False, "heads": None, "ffn": 0, "extra": own}
    spec["note"] = "forward FLOPs leave out the scores of attention"
    if purpose(task) == "ForPreTraining":
        raise refused(c, task)
    # Every class has the pooler.
    return topped(c, task, spec, pooled=(*LANGUAGE, *POOLED, "ForTokenClassification", "ForQuestionAnswering"))


FAMILIES = {"lilt": lilt, "markuplm": markuplm, "funnel": funnel, "squeezebert": squeezebert}
