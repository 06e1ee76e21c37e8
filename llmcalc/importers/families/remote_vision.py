"""Models that read images and are no transformers type: their authors' code travels with the weights."""

from __future__ import annotations

from typing import Any, NamedTuple

from llmcalc.importers.config import Config
from llmcalc.importers.families.tensors import linear, norm, table
from llmcalc.importers.families.towers import internvl as intern_vit
from llmcalc.importers.families.towers import kimi as moon_vit
from llmcalc.importers.families.vision import merged, shrunk, text_of, two_linears
from llmcalc.importers.shape import Spec, decoder


class Whole(NamedTuple):
    """The use of a class that is called a model and has a head."""

    name: str = "ForCausalLM"
    architecture: str = ""
    labels: int = 0
    has_head: bool = True


def internvl_chat(c: Config, _: Any) -> Spec:
    """InternVL 1.5 to 3.5: InternViT, a square of patches side by side, a norm and two matrices, any language model."""
    inside = c.get("llm_config")
    kind = inside.get("model_type") if isinstance(inside, dict) else None
    # Its type may be one that transformers does not have either.
    language = c.sub("llm_config", kind if isinstance(kind, str) else "")
    v = c.sub("vision_config", "internvl_vision")
    v.known = v.known._replace(defaults={**v.known.defaults, **INTERN_VIT})
    v.names["attention_bias"], v.names["use_qk_norm"] = ["qkv_bias"], ["qk_normalization"]
    v.asked |= {"drop_path_rate", "dropout", "use_flash_attn", "capacity_factor", "eval_capacity_factor", "shared_expert"}
    v.asked |= {"ep_size", "laux_allreduce", "moe_coeff_ratio", "moe_intermediate_size", "moe_output_scale", "noisy_gate_policy"}
    v.asked |= {"num_routed_experts", "num_shared_experts", "use_moe", "use_residual", "use_rts", "use_weighted_residual"}
    if v.flag("use_moe"):
        raise v.error("use_moe", "a vision tower with experts is not read here; write a spec")
    layer = c.get("select_layer", -1)
    if layer != -1:
        raise c.error("select_layer", f"found {layer!r}, allowed: -1, the last layer; how many layers are kept is not established")
    c.asked |= {
        "use_backbone_lora", "use_llm_lora", "pad2square", "template", "dynamic_image_size", "use_thumbnail", "ps_version",
        "min_dynamic_patch", "max_dynamic_patch", "system_message", "hidden_size", "output_attentions", "tie_word_embeddings",
    }  # fmt: skip
    if c.count("use_llm_lora", 0, least=0) or c.count("use_backbone_lora", 0, least=0):
        raise c.error("use_llm_lora", "adapters are not counted; write a spec")
    vision = {**intern_vit(v), "image": c.maybe("force_image_size") or v.maybe("image_size"), "final_norm": False}
    factor = shrunk(c, "downsample_ratio")
    text = text_of(c, Whole(), language)
    into = vision["hidden"] * factor**2
    projector = [*norm("projector_norm", into), *two_linears(text["hidden"], into)]
    return {**text, "head": True, "vision": {**merged(vision, factor), "outside": [*vision["outside"], *projector]}}


# What InternVisionConfig has, where it is not what transformers' class for it has.
INTERN_VIT = {"attention_bias": False, "use_qk_norm": True, "norm_type": "rms_norm", "image_size": 224, "hidden_size": 3200,
              "intermediate_size": 12800, "num_attention_heads": 25, "num_hidden_layers": 48}  # fmt: skip


def phi3_v(c: Config, _: Any) -> Spec:
    """Phi-3 and Phi-3.5 Vision: CLIP's large tower at 336 pixels, four patches side by side, two learned separators."""
    processor, embedding = c.sub("img_processor"), c.sub("embd_layer")
    out = processor.count("image_dim_out")
    if processor.text("name") != "clip_vision_model" or not processor.text("model_name").endswith("clip-vit-large-patch14-336"):
        raise processor.error("model_name", "a tower other than CLIP's large one at 336 pixels is not read here; write a spec")
    if embedding.text("projection_cls") != "mlp" or not embedding.flag("use_hd_transform"):
        raise embedding.error("projection_cls", "a projector other than the MLP on four patches is not read here; write a spec")
    processor.asked |= {"num_img_tokens", "type_feature", "layer_idx"}
    embedding.asked |= {"embedding_cls", "hd_transform_order", "image_embd_layer"}
    c.known = c.known._replace(defaults={"hidden_act": "silu", "tie_word_embeddings": False, **c.known.defaults})
    spec = decoder(c)
    window, context = c.maybe("sliding_window"), spec["context"]
    wide = 4 * out
    projector = two_linears(spec["hidden"], wide)
    if embedding.flag("with_learnable_separator"):
        projector += table("separators", 2 if embedding.text("hd_transform_order", "glb_sub") else 1, wide)
    vision = {
        "layers": 24, "hidden": 1024, "heads": 16, "ffn": 4096, "gated": False, "activation": "quick_gelu", "norm": "layernorm",
        "biases": ["all"], "image": 336, "patch": 14, "channels": 3, "class_token": True, "patch_bias": False,
        "embedding_norm": True, "projector": "none", "outside": projector,
    }  # fmt: skip
    window = None if window is None or (context and window >= context) else window
    return {**spec, "window": window, "vision": merged(vision, 2)}


def kimi_vl(c: Config, task: Any) -> Spec:
    """Kimi-VL: MoonViT, a norm, a square of patches side by side, two matrices, DeepSeek-V3's layers."""
    text = c.sub("text_config")
    v = c.sub("vision_config", "kimi_k25_vision")
    vision, kernel = moon_vit(v), v.chosen("merge_kernel_size") or [2, 2]
    if len(kernel) != 2 or min(kernel) < 1:
        raise v.error("merge_kernel_size", f"found {kernel}, allowed: height and width")
    wide = vision["hidden"] * kernel[0] * kernel[1]
    spec = text_of(c, task, text)
    projector = [
        *norm("projector_norm", vision["hidden"]),
        *linear("projector_1", wide, wide, rows="image_token"),
        *linear("projector_2", spec["hidden"], wide, rows="image_token"),
    ]
    return {**spec, "vision": {**vision, "outside": projector}}


FAMILIES = {"internvl_chat": internvl_chat, "phi3_v": phi3_v, "kimi_vl": kimi_vl}
