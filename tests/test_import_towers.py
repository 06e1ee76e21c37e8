"""Models with towers for images and sound: combinations that nobody published, older files, one image's FLOPs, refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import flops, kv, params
from llmcalc.errors import SpecError
from llmcalc.importers.config import Source
from llmcalc.importers.config_json import from_config
from llmcalc.resolve import built

ROWS = [json.loads(line) for line in (Path(__file__).parent / "data" / "towers.jsonl").read_text(encoding="utf-8").splitlines()]
FIGURES = ("total", "embedding", "lm_head", "active")

LAYERS = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 96}
TEXT = {"model_type": "llama", **LAYERS, "num_hidden_layers": 2, "num_key_value_heads": 2, "vocab_size": 320}
SIGLIP = {"model_type": "siglip_vision_model", **LAYERS, "image_size": 64, "patch_size": 8, "vision_use_head": False}


def blueprint(config: dict[str, Any]) -> Blueprint:
    return lower(built(from_config(config, Source("config.json", json.dumps(config))).spec, "config.json"), "it")


@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in ROWS])
def test_any_tower_goes_with_any_language_model(row: dict[str, Any]) -> None:
    count = params.count(blueprint({**row["config"], "architectures": [row["architecture"]]}))
    assert {name: getattr(count, name) for name in FIGURES} == {name: row[name] for name in FIGURES}


# FLOPs of ``get_image_features`` on one image, by FlopCounterMode with eager attention.
IMAGES: list[tuple[str, dict[str, Any], int]] = [
    (
        "LLaVA",
        {"model_type": "llava", "text_config": TEXT, "vision_config": SIGLIP, "vision_feature_select_strategy": "full"},
        21_495_808,
    ),
    (
        "LLaVA, an image that patches do not fill",
        {"model_type": "llava_onevision", "text_config": TEXT, "vision_config": {**SIGLIP, "image_size": 66}},
        21_495_808,
    ),
    (
        "Gemma 3, pooled",
        {"model_type": "gemma3", "mm_tokens_per_image": 16, "text_config": LAYERS, "vision_config": SIGLIP},
        20_578_304,
    ),
    (
        "Aya, shuffled",
        {"model_type": "aya_vision", "text_config": {**TEXT, "model_type": "cohere2"}, "vision_config": SIGLIP},
        21_037_056,
    ),
    ("DeepSeek-VL", {"model_type": "deepseek_vl", "text_config": TEXT, "vision_config": SIGLIP}, 21_495_808),
]


@pytest.mark.parametrize(("config", "expected"), [pytest.param(config, expected, id=name) for name, config, expected in IMAGES])
def test_flops_of_one_image(config: dict[str, Any], expected: int) -> None:
    assert flops.count(blueprint(config), 32).vision_per_image == expected


def test_a_tower_for_images_of_any_size_has_no_flops_per_image() -> None:
    it = blueprint({"model_type": "qwen3_vl", "text_config": {**LAYERS, "num_key_value_heads": 2}})
    assert params.count(it).parts["vision"] > 0
    assert (it.patches, it.image_tokens, flops.count(it, 32).vision_per_image) == (0, 0, 0)


def test_layers_that_attend_to_images_cache_them_apart() -> None:
    text = {**LAYERS, "num_key_value_heads": 2, "vocab_size": 320, "cross_attention_layers": [1]}
    it = blueprint({"model_type": "mllama", "architectures": ["MllamaForConditionalGeneration"], "text_config": text})
    size = kv.size(it, 100, 1, "bf16", 7)
    # Three layers keep 2 heads of 16 for keys and for values of each token, one keeps them of each of the image's 7.
    assert (size.kv_bytes, size.cross_bytes) == (3 * 100 * 2 * 2 * 16 * 2, 7 * 2 * 2 * 16 * 2)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("a tower nobody knows", {"model_type": "llava", "vision_config": {"model_type": "bert"}}, "'bert' is a vision tower that"),
    (
        "a language model nobody knows",
        {"model_type": "llava", "text_config": {"model_type": "sam_vision_model"}},
        "is a language model that",
    ),
    ("a tower of timm's", {"model_type": "gemma3n"}, "names this timm tower but does not describe it"),
    ("a tower alone", {"model_type": "llama4", "architectures": ["Llama4VisionModel"]}, "is a vision tower, no language model"),
    ("pixels that are not square", {"model_type": "internvl", "vision_config": {"image_size": [448, 224]}}, "is not square"),
    (
        "queries without a number",
        {"model_type": "aria", "projector_patch_to_query_dict": {"1": "x"}},
        "found no numbers of queries",
    ),
    ("gates of another kind", {"model_type": "idefics", "alpha_type": "matrix"}, "'matrix' is neither float nor vector"),
    ("stages of two lengths", {"model_type": "florence2", "vision_config": {"depths": [1]}}, "differ in length"),
    ("one width of experts", {"model_type": "ernie4_5_vl_moe", "text_config": {"moe_intermediate_size": [9]}}, "two widths"),
    ("windows that are no text", {"model_type": "granite4_vision", "downsample_rate": "8"}, "downsample_rate like 4/8"),
]


@pytest.mark.parametrize(("config", "says"), [pytest.param(config, says, id=name) for name, config, says in REFUSED])
def test_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        blueprint(config)
    assert says in str(caught.value)
    assert str(caught.value).startswith("config.json:")
