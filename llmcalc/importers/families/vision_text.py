"""Language models that exist only inside models that read images or sound."""

from __future__ import annotations

from typing import Any

from llmcalc.importers import families
from llmcalc.importers.config import Config
from llmcalc.importers.families.mixture import qwen3_moe
from llmcalc.importers.families.tensors import attention, every, linear, mlp, norm
from llmcalc.importers.shape import Spec, biases, by_type, decoder, extra, layer_types, usual_biases

# Built like another type, with names of keys that are the same.
SAME = {
    "qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen2_5_omni_text": "qwen2", "qwen3_vl_text": "qwen3",
    "glm4v_moe_text": "glm4_moe", "granite4_vision_text": "granite",
    "paddleocr_vl_text": "ernie4_5", "hunyuan_vl_text": "hunyuan_v1_dense", "emu3_text_model": "llama",
}  # fmt: skip


def same(c: Config, task: Any) -> Spec:
    """Read by the function of the type that this one is built like."""
    family = families.find(SAME[c.model_type])
    if family is None:
        raise c.error("model_type", f"{c.model_type!r} is a language model that llmcalc does not know")
    return family(c, task)


def omni3(c: Config, task: Any) -> Spec:
    """Qwen3-Omni's: Qwen 3's mixture, with a window on every layer where one is said."""
    spec = qwen3_moe(c, task)
    window = c.maybe("sliding_window")
    return {**spec, "blocks": [{**block, "window": window} for block in spec.get("blocks") or [{}] * spec["layers"]]}


def glm4v(c: Config, _: Any) -> Spec:
    """GLM-4.1V's: norms before and after each sub-layer, biases on queries, keys and values."""
    if c.model_type == "glm_ocr_text":
        return decoder(c, norm_placement="sandwich")
    return decoder(c, biases=["qkv"], norm_placement="sandwich", head_dim=None)


def mllama(c: Config, task: Any) -> Spec:
    """Llama 3.2 Vision's: in some layers a text attends to the image alone; without an image those are skipped."""
    depth, hidden, heads, kv = c.layers(), c.count("hidden_size"), c.count("num_attention_heads"), c.count("num_key_value_heads")
    dim, ffn, vocab = hidden // heads, c.count("intermediate_size"), c.count("vocab_size")
    crossing = [
        *attention("cross", hidden, inner=heads * dim, keys=kv * dim, bias=False, part="cross_attention"),
        *norm("cross_q_norm", dim, bias=False, part="norm"),
        *norm("cross_k_norm", dim, bias=False, part="norm"),
        *norm("cross_norm", hidden, bias=False, part="norm"),
        *norm("ffn_norm", hidden, bias=False, part="norm"),
        *mlp("cross", hidden, ffn, gated=True, bias=False, part="ffn"),
        extra("attention_gate", 1, part="cross_attention"),
        extra("ffn_gate", 1, part="ffn"),
    ]
    said = c.chosen("cross_attention_layers")
    image = {"attention": False, "ffn": 0, "extra": crossing, "image_cache": 2 * kv * dim}
    blocks: list[Spec] = [image if index in said else {"ffn": ffn} for index in range(depth)]
    # Eight rows more than the head has: the image's own tokens are read, never predicted.
    head = linear("lm_head", vocab, hidden, bias=False, rows="logit", part="lm_head", after=True) if task.has_head else []
    return decoder(c, vocab=vocab + 8, head_dim=None, tied_head=None, head=False, blocks=blocks, outside=head)


def aria(c: Config, _: Any) -> Spec:
    """Aria's: Llama with a mixture in every layer; ``intermediate_size`` is one expert's."""
    ffn, shared = c.count("intermediate_size"), c.count("moe_num_shared_experts")
    moe = {"experts": c.count("moe_num_experts"), "top_k": c.count("moe_topk"), "ffn": ffn, "shared": shared}
    return decoder(c, ffn=None, moe=moe, biases=usual_biases(c))


def molmo2(c: Config, _: Any) -> Spec:
    """Molmo 2's: Qwen 3 with further rows in the embedding, norms of queries and keys of two kinds."""
    return decoder(
        c, vocab=c.count("vocab_size") + c.count("additional_vocab_size", 0, least=0), biases=biases(qkv=c.flag("attention_bias")),
        qk_norm="head" if c.text("qk_norm_type") == "qwen3" else "full", norm_placement="output" if c.flag("norm_after") else None,
    )  # fmt: skip


def ernie(c: Config, _: Any) -> Spec:
    """ERNIE 4.5 VL's: two mixtures of as many experts, for text and for images; a text's token goes through the first alone."""
    depth, hidden, bias = c.layers(), c.count("hidden_size"), c.flag("use_bias")
    sizes = c.chosen("moe_intermediate_size") or [1536, 512]
    if len(sizes) < 2 or min(sizes) < 1:
        raise c.error("moe_intermediate_size", f"found {sizes}, allowed: two widths, for text and for images")
    experts, top_k, shared = c.count("moe_num_experts"), c.count("moe_k"), c.count("moe_num_shared_experts", least=0)
    image = every(
        mlp("image_expert", hidden, sizes[1], gated=True, bias=False), copies=experts, used=min(top_k, experts), part="experts"
    )  # fmt: skip
    router = [
        extra("image_router", experts, hidden, part="router", rows="none"),
        extra("image_router.correction", experts, part="router"),
    ]
    sparse: Spec = {
        "moe": {"experts": experts, "top_k": top_k, "ffn": sizes[0], "shared": shared, "correction_bias": "parameter"},
        "extra": [*image, *router],
    }
    dense: Spec = {"ffn": c.count("intermediate_size")}
    types = layer_types(c, depth, ["dense"] + ["sparse"] * (depth - 1), "mlp_layer_types")
    blocks = by_type(types, {"dense": dense, "sparse": sparse}, c, "mlp_layer_types")
    return decoder(c, ffn=None, biases=biases(attention=bias, ffn=bias), blocks=blocks)


FAMILIES = {
    **dict.fromkeys(SAME, same),
    "qwen3_omni_moe_text": omni3,
    "glm4v_text": glm4v,
    "glm_ocr_text": glm4v,
    "mllama_text_model": mllama,
    "aria_text": aria,
    "molmo2_text": molmo2,
    "ernie4_5_vl_moe_text": ernie,
}
