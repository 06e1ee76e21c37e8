"""Encoders of later years: rotary positions, gated FFNs, grouped heads; and BERTs with other positions or embeddings."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.heads import (
    LANGUAGE,
    boxes,
    encoder,
    headless,
    narrow_head,
    purpose,
    refused,
    topped,
    transform,
    unfit,
)
from llmcalc.importers.families.tensors import linear, norm, table
from llmcalc.importers.shape import Spec, every, heads_of, layer_types, usual_biases


def wide_head(spec: Spec, width: int) -> list[Spec]:
    """A head that is not as wide as the layers: a linear to its width, a norm, and its own matrix to the vocabulary."""
    return [*transform(spec, width), *linear("lm_head", spec["vocab"], width, part="lm_head", rows="logit", after=True)]


def mpnet(c: Config, task: Any) -> Spec:
    """MPNet (Song et al. 2020): a table of relative positions for all layers beside the absolute ones."""
    spec = encoder(c, task, token_types=None)
    spec["outside"] = table("relative_bias", c.count("relative_attention_num_buckets"), spec["heads"], part="positions")
    return topped(c, task, spec, pooled=("Model", "ForMultipleChoice"), dense=True)


def esm(c: Config, task: Any) -> Spec:
    """ESM-2: norms before the sub-layers, rotary or absolute positions; a head that predicts contacts is always there."""
    if c.flag("is_folding_model"):
        raise c.error("is_folding_model", "models that fold proteins are not known here")
    # Whatever else is said there, the class has no positions for it.
    positions = {"absolute": "learned", "rotary": "rotary"}.get(c.text("position_embedding_type", "absolute"), "none")
    spec = encoder(
        c, task, norm_placement="pre", token_types=None, embedding_norm=c.flag("emb_layer_norm_before"),
        positions=positions, type="encoder",
    )  # fmt: skip
    spec["outside"] = linear("contacts", 1, spec["layers"] * spec["heads"], rows="none", after=True)
    return topped(c, task, spec, pooled=("Model",), dense=True, spare_bias=False)


def _head_dim(c: Config) -> int | None:
    """Dim of a head where heads do not fill the width: what is left over is not used."""
    hidden, heads = c.count("hidden_size"), c.count("num_attention_heads")
    return hidden // heads if hidden % heads else None


def nomic_bert(c: Config, task: Any) -> Spec:
    """Nomic BERT: rotary positions, gated FFN, no biases. Its authors' files have GPT-2's names."""
    theirs = {
        "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "intermediate_size": "n_inner",
        "max_position_embeddings": "n_positions",
    }  # fmt: skip
    for name, other in theirs.items():
        c.names.setdefault(name, []).append(other)
    for key in (
        "qkv_proj_bias",
        "mlp_fc1_bias",
        "mlp_fc2_bias",
        "prenorm",
        "parallel_block",
        "use_rms_norm",
        "num_experts",
        "causal",
    ):
        if c.get(key):
            raise unfit(c, key, "only the models without biases and experts, with LayerNorm behind each sub-layer, are read here")
    if c.text("activation_function", "swiglu") not in ("swiglu", "silu"):
        raise unfit(c, "activation_function", "only the gated FFN is read here")
    c.asked |= {"dense_seq_output", "fused_bias_fc", "fused_dropout_add_ln", "max_trained_positions", "pad_vocab_size_multiple"}
    c.asked |= {"parallel_block_tied_norm", "rotary_emb_fraction", "use_xentropy", "moe_every_n_layers"}
    spec = encoder(c, task, positions="rotary", gated=True, biases=[], head_dim=c.maybe("head_dim") or _head_dim(c))
    return topped(c, task, spec, pooled=("ForSequenceClassification",))


def gte(c: Config, task: Any) -> Spec:
    """GTE: rotary positions, gated FFN with a bias on its output alone. Its authors call the type ``new``."""
    if c.says("pack_qkv") and c.text("position_embedding_type", "rope") != "rope":
        raise unfit(c, "position_embedding_type", "only rotary positions are read here")
    c.asked |= {"pack_qkv", "position_embedding_type", "layer_norm_type", "logn_attention_clip1", "logn_attention_scale"}
    c.asked |= {"unpad_inputs", "use_memory_efficient_attention"}
    if c.text("layer_norm_type", "layer_norm") != "layer_norm":
        raise unfit(c, "layer_norm_type", "only LayerNorm is read here")
    spec = encoder(c, task, positions="rotary", gated=True, biases=["attention", "down"], head_dim=_head_dim(c))
    return topped(c, task, spec, pooled=("ForSequenceClassification",), spare_bias=False)


def jina_v3(c: Config, task: Any) -> Spec:
    """Jina embeddings v3: XLM-RoBERTa with rotary positions."""
    spec = encoder(c, task, positions="rotary", head_dim=_head_dim(c))
    return topped(c, task, spec, pooled=("Model",), dense=True)


def _llama(c: Config, task: Any, **more: Any) -> Spec:
    """Llama's layers, looking both ways."""
    sides = usual_biases(c)
    return encoder(
        c, task, positions="rotary", gated=True, biases=sides, norm="rmsnorm", norm_placement="pre", embedding_norm=False,
        token_types=None, head_bias=False, **heads_of(c), **more,
    )  # fmt: skip


def eurobert(c: Config, task: Any) -> Spec:
    """EuroBERT: Llama's layers; sequences are classified token by token unless pooled before."""
    spec = _llama(c, task)
    spec["head_bias"] = c.flag("mlp_bias")
    if purpose(task) == "ForSequenceClassification":
        rows = "token" if c.text("classifier_pooling") == "late" else "sequence"
        hidden = spec["hidden"]
        dense = linear("classifier_dense", hidden, hidden, rows=rows, after=True)
        return headless(spec, [*dense, *linear("classifier", task.labels, hidden, rows=rows, after=True)])
    return topped(c, task, spec, pooled=(), head=[], spare_bias=False)


def ultrabert(c: Config, task: Any) -> Spec:
    """UltraBERT: Llama's layers, two of three with a window; a narrow linear there and back before the head."""
    spec = _llama(c, task)
    hidden, layers = spec["hidden"], spec["layers"]
    window, usual = c.maybe("sliding_window"), every(layers, 3, "sliding_attention", "full_attention")
    said = c.get("attention_windows")
    if said is not None:
        windows = c.each("attention_windows", layers, int) or []
        window = next((each for each in windows if each), window)
        usual = ["sliding_attention" if each else "full_attention" for each in windows]
    kinds = layer_types(c, layers, usual)
    spec["blocks"] = [{"window": window if kind == "sliding_attention" else None} for kind in kinds]
    narrow = c.count("prediction_head_size")
    head = [
        *linear("head_down", narrow, hidden, bias=False, rows="logit", after=True),
        *linear("head_up", hidden, narrow, bias=False, rows="logit", after=True),
    ]
    return topped(c, task, spec, pooled=(), head=head, spare_bias=False)


def esmc(c: Config, task: Any) -> Spec:
    """ESM C: Llama's layers with LayerNorm, another over all queries and over all keys; a head that is never tied."""
    spec = _llama(c, task)
    hidden = spec["hidden"]
    gains = [*norm("q_norm", hidden, bias=False, part="norm"), *norm("k_norm", hidden, bias=False, part="norm")]
    outside = norm("final_norm", hidden, bias=False, part="norm", after=True)
    changes = {"norm": "layernorm", "extra": gains, "final_norm": False, "outside": outside, "tied_head": False, "head_bias": True}
    return topped(c, task, {**spec, **changes}, pooled=(), dense=True, spare_bias=False)


def rembert(c: Config, task: Any) -> Spec:
    """RemBERT (Chung et al. 2020): a narrow embedding, and a wide head that is never tied to it."""
    spec = encoder(c, task, embedding_dim=c.count("input_embedding_size"))
    if purpose(task) in LANGUAGE:
        return headless(spec, wide_head(spec, c.count("output_embedding_size")))
    return topped(c, task, spec, pooled=("Model", "ForSequenceClassification", "ForMultipleChoice"))


def roformer(c: Config, task: Any) -> Spec:
    """RoFormer (Su et al. 2021): rotary positions, whose sines are a table of parameters."""
    spec = encoder(c, task, positions="rotary")
    hidden, narrow = spec["hidden"], c.count("embedding_size", spec["hidden"])
    spec["outside"] = table("sines", c.count("max_position_embeddings"), hidden // spec["heads"], part="positions")
    if narrow != hidden:
        spec["embedding_dim"] = narrow
    return topped(c, task, spec, pooled=(), head=narrow_head(spec, narrow), dense=True)


def bert_generation(c: Config, task: Any) -> Spec:
    """BERT for generation (Rothe et al. 2019): no token types, no pooler, a bare head."""
    spec = encoder(c, task, token_types=None, type="decoder" if c.flag("is_decoder") else "encoder")
    return topped(c, task, spec, pooled=(), head=[], known=("ForCausalLM",))


def layoutlm(c: Config, task: Any) -> Spec:
    """LayoutLM: tables for the place of each word on the page."""
    spec = encoder(c, task)
    rows, hidden = c.count("max_2d_position_embeddings"), spec["hidden"]
    spec["outside"] = boxes(rows, hidden)
    if purpose(task) == "ForDocumentQuestionAnswering":
        task = task._replace(name="ForQuestionAnswering")
    pooled = ("Model", *LANGUAGE, "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
    return topped(c, task, spec, pooled=pooled)


def splinter(c: Config, task: Any) -> Spec:
    """Splinter: BERT without a pooler."""
    if purpose(task) != "Model":
        raise refused(c, task)
    return topped(c, task, encoder(c, task), pooled=(), known=())


FAMILIES = {
    "mpnet": mpnet, "esm": esm, "nomic_bert": nomic_bert, "gte": gte, "jina_embeddings_v3": jina_v3, "eurobert": eurobert,
    "ultrabert": ultrabert, "esmc": esmc, "rembert": rembert, "roformer": roformer, "bert-generation": bert_generation,
    "layoutlm": layoutlm, "splinter": splinter,
}  # fmt: skip
