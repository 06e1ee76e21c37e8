"""Language models that exist only inside models that read images or sound."""

from __future__ import annotations

from typing import Any

from llmcalc.importers import families
from llmcalc.importers.config import Config
from llmcalc.importers.families.tensors import attention, linear, mlp, norm
from llmcalc.importers.shape import Spec, biases, decoder, extra

# Built like another type, with names of keys that are the same.
SAME = {
    "qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen2_5_omni_text": "qwen2", "qwen3_vl_text": "qwen3",
    "qwen3_omni_moe_text": "qwen3_moe", "glm4v_moe_text": "glm4_moe", "granite4_vision_text": "granite",
    "paddleocr_vl_text": "ernie4_5", "hunyuan_vl_text": "hunyuan_v1_dense",
}  # fmt: skip


def same(c: Config, task: Any) -> Spec:
    """Read by the function of the type that this one is built like."""
    family = families.find(SAME[c.model_type])
    if family is None:
        raise c.error("model_type", f"{c.model_type!r} is a language model that llmcalc does not know")
    return family(c, task)


def glm4v(c: Config, _: Any) -> Spec:
    """GLM-4.1V's: norms before and after each sub-layer, biases on queries, keys and values."""
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
    attention_bias, feed = c.flag("attention_bias"), c.flag("mlp_bias")
    ffn, shared = c.count("intermediate_size"), c.count("moe_num_shared_experts")
    extras = []
    if feed:
        wide = ffn * shared
        extras = [extra("shared_gate.bias", wide, part="shared_experts"), extra("shared_up.bias", wide, part="shared_experts"),
                  extra("shared_down.bias", c.count("hidden_size"), part="shared_experts")]  # fmt: skip
    moe = {"experts": c.count("moe_num_experts"), "top_k": c.count("moe_topk"), "ffn": ffn, "shared": shared}
    return decoder(c, ffn=None, moe=moe, biases=biases(attention=attention_bias), extra=extras)


def molmo2(c: Config, _: Any) -> Spec:
    """Molmo 2's: Qwen 3 with further rows in the embedding, norms of queries and keys of two kinds."""
    return decoder(
        c, vocab=c.count("vocab_size") + c.count("additional_vocab_size", 0, least=0), biases=biases(qkv=c.flag("attention_bias")),
        qk_norm="head" if c.text("qk_norm_type") == "qwen3" else "full", norm_placement="output" if c.flag("norm_after") else None,
    )  # fmt: skip


def emu3(c: Config, _: Any) -> Spec:
    """Emu 3's: Llama."""
    return decoder(c, biases=biases(attention=c.flag("attention_bias"), ffn=c.flag("mlp_bias")))


FAMILIES = {
    **dict.fromkeys(SAME, same),
    "glm4v_text": glm4v,
    "mllama_text_model": mllama,
    "aria_text": aria,
    "molmo2_text": molmo2,
    "emu3_text_model": emu3,
}
