"""Models that read images: a language model's spec, a vision tower's, and what stands between them.

The language model is read by the function that reads its own type, the tower by the one in ``towers``; here are projectors.
"""

from __future__ import annotations

from typing import Any

from llmcalc.importers import families
from llmcalc.importers.config import Config
from llmcalc.importers.families.tensors import Tensors, attention, linear, mlp, norm, table, tower_tensors
from llmcalc.importers.families.towers import tower
from llmcalc.importers.shape import Spec

# Types whose classes take ``tie_word_embeddings`` from the language model's config too.
EITHER_TIES = (
    "glm4v", "glm4v_moe", "glm_ocr", "hunyuan_vl", "kosmos-2", "llava", "llava_next_video", "llava_onevision", "minimax_m3_vl",
    "paddleocr_vl", "qwen2_5_vl", "qwen2_vl", "video_llama_3",
)  # fmt: skip


def text_of(c: Config, task: Any, inner: Config | None = None) -> Spec:
    """The language model's spec. Raises SpecError for one that nobody knows."""
    inner = c.sub("text_config") if inner is None else inner
    family = families.find(inner.model_type)
    if family is None:
        raise inner.error("model_type", f"{inner.model_type!r} is a language model that llmcalc does not know")
    return family(inner, task)


def alone(c: Config, task: Any) -> bool:
    """Whether the class is the language model without the towers."""
    name = str(task.architecture)
    whole = c.known.classes.get("ForImageTextToText", c.known.classes.get("ForMultimodalLM"))
    if name == c.known.classes.get("Model"):
        return False
    if name.endswith("VisionModel"):
        raise c.error("architectures", f"{name} is a vision tower, no language model")
    return name.endswith(("TextModel", "TextForCausalLM")) or (name.endswith("ForCausalLM") and name != whole)


def tied(c: Config, inner: Config) -> bool:
    """Whether the head is the embedding: the outer config's word; of some types the inner one's too, where the file has it.

    Until transformers 5 the inner one alone decided, and files from then often leave the outer one out.
    """
    outer = c.flag("tie_word_embeddings")
    written = c.get("transformers_version")
    if isinstance(written, str) and written.startswith("4.") and not c.says("tie_word_embeddings"):
        return inner.flag("tie_word_embeddings", True)
    if c.model_type not in EITHER_TIES or outer:
        return outer
    return inner.flag("tie_word_embeddings") and (inner.says("tie_word_embeddings") or not c.says("tie_word_embeddings"))


def ties_inside(c: Config, inner: Config) -> bool:
    """Whether the head is the embedding where the whole language model is a class inside: its own word, else the outer's."""
    said = c if c.says("tie_word_embeddings") and not inner.says("tie_word_embeddings") else inner
    return said.flag("tie_word_embeddings", True)


def own_head(spec: Spec, rows: int, width: int) -> Spec:
    """The spec with a head whose shape is not the embedding's."""
    head = linear("lm_head", rows, width, bias=False, rows="logit", part="lm_head", after=True)
    return {**spec, "head": False, "tied_head": None, "outside": [*(spec.get("outside") or []), *head]}


def model(c: Config, task: Any, vision: Spec | None, projector: Tensors | None = None, inner: Config | None = None) -> Spec:
    """Language model, tower and projector as one spec."""
    inner = c.sub("text_config") if inner is None else inner
    spec = text_of(c, task, inner)
    if alone(c, task):
        return spec
    if vision is not None:
        spec["vision"] = {**vision, "outside": [*vision.get("outside", []), *(projector or [])]}
    return {**spec, "tied_head": tied(c, inner)}


def width(c: Config) -> int:
    """The language model's width."""
    return c.sub("text_config").count("hidden_size")


def features(c: Config) -> int:
    """Layers of the tower whose outputs are taken side by side."""
    said = c.get("vision_feature_layer", -1)
    return len(said) if isinstance(said, list) else 1


def two_linears(out: int, into: int, bias: bool = True) -> Tensors:
    """LLaVA 1.5's projector: two matrices with an activation between."""
    return [
        *linear("projector_1", out, into, bias=bias, rows="image_token"),
        *linear("projector_2", out, out, bias=bias, rows="image_token"),
    ]


def merged(vision: Spec, factor: float) -> Spec:
    """The tower with ``factor`` x ``factor`` patches for one token."""
    if not vision.get("image"):
        return vision
    return {**vision, "tokens": int((vision["image"] // vision["patch"]) / factor) ** 2 or 1}


def llava(c: Config, task: Any) -> Spec:
    """LLaVA 1.5 and its descendants; those for many tiles or frames have a learned end of line."""
    vision = tower(c)
    projector = two_linears(width(c), vision["hidden"] * features(c), c.flag("multimodal_projector_bias", True))
    if c.model_type in ("llava_next", "llava_next_video", "llava_onevision"):
        projector += table("image_newline", width(c))
    return model(c, task, vision, projector)


def video_llava(c: Config, task: Any) -> Spec:
    """Two towers of one config, for images and for videos, before one projector."""
    vision = tower(c)
    spec = llava(c, task)
    if "vision" in spec:
        spec["outside"] = [*spec.get("outside", []), *tower_tensors(vision, "video", "vision")]
    return spec


def vipllava(c: Config, task: Any) -> Spec:
    """LLaVA on several layers' outputs, with a norm before the projector."""
    vision = tower(c)
    into = vision["hidden"] * features(c)
    return model(c, task, vision, [*norm("projector_norm", into), *two_linears(width(c), into)])


def gemma3(c: Config, task: Any) -> Spec:
    """Gemma 3: patches pooled to ``mm_tokens_per_image``, RMSNorm and one matrix."""
    vision = tower(c)
    tokens = min(c.count("mm_tokens_per_image"), (vision["image"] // vision["patch"]) ** 2)
    return model(c, task, {**vision, "tokens": tokens, "projector": "norm-linear"})


def paligemma(c: Config, task: Any) -> Spec:
    """PaliGemma: one matrix, to ``projection_dim``."""
    vision = tower(c)
    out = c.sub("vision_config").count("projection_dim", c.count("projection_dim"))
    return model(c, task, vision, linear("projector", out, vision["hidden"], rows="image_token"))


def llama4(c: Config, task: Any) -> Spec:
    """Llama 4: one matrix behind the tower's own adapter. The head is the inner model's, and so is its tying."""
    into = c.sub("vision_config").count("vision_output_dim")
    spec = model(c, task, tower(c), linear("projector", width(c), into, bias=False, rows="image_token"))
    return {**spec, "tied_head": c.sub("text_config").flag("tie_word_embeddings", True)}


def qwen(c: Config, task: Any) -> Spec:
    """Qwen's: the tower's merger is the projector."""
    return model(c, task, tower(c), inner=c.flat("text_config"))


def mistral3(c: Config, task: Any) -> Spec:
    """Mistral Small 3.1: a norm, a square of patches merged into one, two matrices."""
    vision = tower(c)
    hidden, merge = vision["hidden"], c.count("spatial_merge_size")
    count = features(c) if c.model_type == "mistral3" else 1
    projector = [
        *norm("projector_norm", hidden, bias=False),
        *linear("patch_merger", hidden, hidden * merge**2, bias=False, rows="image_token"),
        *two_linears(width(c), hidden * count, c.flag("multimodal_projector_bias")),
    ]
    return model(c, task, merged(vision, merge), projector)


def idefics2(c: Config, task: Any) -> Spec:
    """Idefics 2: a gated MLP to the language model's width, then a perceiver of a few latents."""
    vision, p = tower(c), c.sub("perceiver_config")
    text = c.sub("text_config")
    h, heads, dim = width(c), p.count("resampler_n_heads"), p.count("resampler_head_dim")
    depth, kv = p.layers("resampler_depth"), p.count("num_key_value_heads")
    layer = [
        *norm("perceiver_latents_norm", h, bias=False, copies=depth),
        *norm("perceiver_context_norm", h, bias=False, copies=depth),
        *norm("perceiver_ffn_norm", h, bias=False, copies=depth),
        *attention("perceiver", h, inner=heads * dim, keys=kv * dim, bias=False, copies=depth),
        *mlp("perceiver", h, 4 * h, gated=True, bias=False, copies=depth),
    ]
    projector = [
        *mlp("projector", vision["hidden"], text.count("intermediate_size"), out=h, gated=True, bias=False, rows="patch"),
        *table("perceiver_latents", p.count("resampler_n_latents"), h),
        *layer,
        *norm("perceiver_norm", h, bias=False),
    ]
    return model(c, task, vision, projector)


def idefics3(c: Config, task: Any) -> Spec:
    """Idefics 3 and SmolVLM: a square of patches put side by side, one matrix."""
    vision, factor = tower(c), c.count("scale_factor")
    into = vision["hidden"] * factor**2
    return model(c, task, merged(vision, factor), linear("projector", width(c), into, bias=False, rows="image_token"))


def shrunk(c: Config, key: str) -> int:
    """How many patches of a side become one token, from the ratio that the config has."""
    ratio = c.number(key)
    if not 0.001 < ratio <= 1:
        raise c.error(key, f"found {ratio}, allowed: over 0 to 1")
    return int(1 / ratio)


def internvl(c: Config, task: Any) -> Spec:
    """InternVL: a square of patches put side by side, a norm, two matrices."""
    vision, factor = tower(c), shrunk(c, "downsample_ratio")
    into = vision["hidden"] * factor**2
    return model(c, task, merged(vision, factor), [*norm("projector_norm", into), *two_linears(width(c), into)])


def glm4v(c: Config, task: Any) -> Spec:
    """GLM-4.1V and its kin: the tower's merger is the projector."""
    return model(c, task, tower(c))


def two_matrices(c: Config, task: Any) -> Spec:
    """VideoLLaMA 3, DeepSeek-VL: two matrices."""
    vision = tower(c)
    return model(c, task, vision, two_linears(width(c), vision["hidden"]))


def hyperclovax(c: Config, task: Any) -> Spec:
    """HyperCLOVA X: one matrix behind Qwen's merger."""
    out = c.sub("vision_config").count("out_hidden_size")
    return model(c, task, tower(c), linear("projector", width(c), out, rows="image_token"))


FAMILIES = {
    **dict.fromkeys(("llava", "llava_next", "llava_next_video", "llava_onevision"), llava),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), qwen),
    **dict.fromkeys(("exaone4_5", "cosmos3_omni"), qwen),
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm46v", "glmga", "glm_ocr"), glm4v),
    **dict.fromkeys(("mistral3", "lighton_ocr"), mistral3),
    **dict.fromkeys(("idefics3", "smolvlm"), idefics3),
    **dict.fromkeys(("gemma3", "shieldgemma2"), gemma3),
    "video_llava": video_llava,
    "vipllava": vipllava,
    "paligemma": paligemma,
    "llama4": llama4,
    "idefics2": idefics2,
    "internvl": internvl,
    "qianfan_ocr": internvl,
    "video_llama_3": two_matrices,
    "deepseek_vl": two_matrices,
    "hyperclovax_vision_v2": hyperclovax,
}  # fmt: skip
