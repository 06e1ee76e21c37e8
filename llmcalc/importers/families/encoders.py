"""BERT and the encoders that are built like it."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.heads import encoder, topped
from llmcalc.importers.families.tensors import norm, table
from llmcalc.importers.shape import Spec


def bert(c: Config, task: Any) -> Spec:
    """BERT (Devlin et al. 2018)."""
    return topped(c, task, encoder(c, task))


def roberta(c: Config, task: Any) -> Spec:
    """RoBERTa and its relatives: sequences are classified through a further linear, without the pooler."""
    return topped(c, task, encoder(c, task), pooled=("Model", "ForMultipleChoice"), dense=True)


def roberta_prelayernorm(c: Config, task: Any) -> Spec:
    """RoBERTa with norms before the sub-layers."""
    spec = encoder(c, task, norm_placement="pre")
    return topped(c, task, spec, pooled=("Model", "ForMultipleChoice"), dense=True)


def xlm_roberta_xl(c: Config, task: Any) -> Spec:
    """XLM-RoBERTa XL: norms before the sub-layers, none behind the embedding."""
    spec = encoder(c, task, norm_placement="pre", embedding_norm=False)
    return topped(c, task, spec, pooled=("Model", "ForMultipleChoice"), dense=True)


def megatron_bert(c: Config, task: Any) -> Spec:
    """Megatron-LM's BERT: norms before the sub-layers, none behind the embedding."""
    return topped(c, task, encoder(c, task, norm_placement="pre", embedding_norm=False))


def ernie(c: Config, task: Any) -> Spec:
    """ERNIE 2: a table of task types where they are used."""
    spec = encoder(c, task)
    if c.flag("use_task_id"):
        spec["outside"] = table("task_types", c.count("task_type_vocab_size"), spec["hidden"], part="positions")
    return topped(c, task, spec)


def distilbert(c: Config, task: Any) -> Spec:
    """DistilBERT (Sanh et al. 2019): no token types and no pooler."""
    spec = encoder(c, task, ffn=c.count("hidden_dim"), activation=c.text("activation"), token_types=None)
    return topped(c, task, spec, pooled=(), dense=("ForSequenceClassification", "ForMultipleChoice"), spare_bias=False)


def albert(c: Config, task: Any) -> Spec:
    """ALBERT (Lan et al. 2019): groups of layers that are run again and again, behind a narrow embedding."""
    narrow, inner = c.count("embedding_size"), c.count("inner_group_num", most=100)
    groups, layers = c.count("num_hidden_groups", most=10_000), c.layers()
    spec = encoder(c, task, embedding_dim=narrow, layers=layers * inner, distinct_layers=groups * inner)
    head = [*norm("head_norm", narrow, part="norm", after=True)]
    pooled = ("Model", "ForSequenceClassification", "ForMultipleChoice", "ForPreTraining")
    return topped(c, task, spec, pooled=pooled, head=head, sentence=task.labels)


FAMILIES = {
    "bert": bert,
    "roberta": roberta,
    "xlm-roberta": roberta,
    "camembert": roberta,
    "ibert": roberta,
    "data2vec-text": roberta,
    "roberta-prelayernorm": roberta_prelayernorm,
    "xlm-roberta-xl": xlm_roberta_xl,
    "megatron-bert": megatron_bert,
    "ernie": ernie,
    "distilbert": distilbert,
    "albert": albert,
}
