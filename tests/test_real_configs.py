"""Configs as their repositories publish them, old names and keys without effect included, against the counts published there."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import kv, params
from llmcalc.errors import LlmcalcError
from llmcalc.importers.config import Source
from llmcalc.importers.config_json import Imported, from_config
from llmcalc.resolve import built, method

DATA = Path(__file__).parent / "data" / "real_configs.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
CONFIGS: dict[str, dict[str, Any]] = {row["model"]: row["config"] for row in ROWS}


def read(config: dict[str, Any]) -> Imported:
    return from_config(config, Source("config.json", json.dumps(config)))


def blueprint(config: dict[str, Any]) -> Blueprint:
    return lower(built(read(config).spec, "config.json"), "it")


@pytest.mark.parametrize("row", [pytest.param(row, id=row["model"]) for row in ROWS])
def test_published(row: dict[str, Any]) -> None:
    """The count of the repository's files (``apart``: correction biases and rotary tables, buffers here), cache, quantisation."""
    found = blueprint(row["config"])
    assert params.count(found).total + row.get("apart", 0) == row["published"]
    if "kv_per_token" in row:
        assert kv.size(found, 4096).bytes_per_token == row["kv_per_token"]
    assert read(row["config"]).spec.get("native_quant") == row.get("quant")


@pytest.mark.parametrize("row", [pytest.param(row, id=row["model"]) for row in ROWS])
def test_nothing_is_reported_without_need(row: dict[str, Any]) -> None:
    """A false alarm teaches people to overlook the true one."""
    quiet = {"mlx-community/Meta-Llama-3.1-8B-Instruct-4bit": "mlx, 4 bits, groups of 64"}
    for note in read(row["config"]).notes:
        assert "predict further tokens" in note or quiet.get(row["model"], "nothing") in note, note


QUANTISED = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
             "num_attention_heads": 4, "vocab_size": 512}  # fmt: skip
EXPERTS = {**QUANTISED, "model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128,
           "head_dim": 64, "num_key_value_heads": 4, "mlp_only_layers": []}  # fmt: skip
GROUP = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}


def tensors(weights: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A config of compressed-tensors with one group."""
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}, **more}


METHODS: list[tuple[str, dict[str, Any], dict[str, Any], str | None]] = [
    ("fp8 per tensor", QUANTISED, {"quant_method": "fp8"}, "fp8"),
    ("fp8 in other tiles", QUANTISED, {"quant_method": "fp8", "weight_block_size": [64, 64]}, None),
    ("gptq in 32", QUANTISED, {"quant_method": "gptq", "bits": 4, "group_size": 32}, "gptq-g32"),
    ("gptq of 8 bits", QUANTISED, {"quant_method": "gptq", "bits": 8, "group_size": 128}, "gptq-8bit"),
    ("gptq of 3 bits", QUANTISED, {"quant_method": "gptq", "bits": 3, "group_size": 128}, None),
    ("gptq, one group a row", QUANTISED, {"quant_method": "gptq", "bits": 4, "group_size": -1}, None),
    ("gptq, some modules otherwise", QUANTISED,
     {"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"-:.*mlp.*": {}}}, None),
    ("awq in 64", QUANTISED, {"quant_method": "awq", "bits": 4, "group_size": 64}, None),
    ("a list for a number", QUANTISED, {"quant_method": "awq", "bits": [4], "group_size": 64}, None),
    ("bitsandbytes of 8 bits", QUANTISED, {"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
    ("nf4 once", QUANTISED, {"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4-single"),
    ("w4a16", QUANTISED, tensors({**GROUP, "group_size": 128}), "int4"),
    ("with zero points", QUANTISED, tensors({**GROUP, "group_size": 128, "symmetric": False}), None),
    ("fp8 per channel", QUANTISED, tensors({"num_bits": 8, "type": "float", "strategy": "channel"}, ignore=["lm_head"]),
     "fp8-channel"),
    ("without attention", QUANTISED, tensors({"num_bits": 8, "type": "float", "strategy": "channel"},
     ignore=["re:.*self_attn.*"]), None),
    ("nvfp4", QUANTISED, {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head", "visual*"]}, "nvfp4"),
    ("nvfp4 experts", EXPERTS, {"quant_algo": "NVFP4", "ignore": ["lm_head", "model.layers.0.self_attn*"]}, "nvfp4-experts"),
    ("int4 experts", EXPERTS, tensors(GROUP, ignore=["lm_head", "re:.*self_attn.*"]), "int4-g32-experts"),
    ("int4 in 32 throughout", EXPERTS, tensors(GROUP), None),
    ("mxfp4", EXPERTS, {"quant_method": "mxfp4"}, "mxfp4"),
    ("several schemes", QUANTISED, {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, None),
    ("another method", QUANTISED, {"quant_method": "aqlm"}, None),
    ("no method", QUANTISED, {"bits": 4, "group_size": 64}, None),
]  # fmt: skip


@pytest.mark.parametrize(("config", "said", "name"), [pytest.param(*case[1:], id=case[0]) for case in METHODS])
def test_quantisations(config: dict[str, Any], said: dict[str, Any], name: str | None) -> None:
    """A quantisation of the catalogue, or a note that there is none."""
    found = read({**config, "quantization_config": said})
    assert found.spec.get("native_quant") == name
    assert any("published quantised" in note for note in found.notes) == (name is None)
    if name is not None:
        assert method(name).formats


REWARD = {"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "vocab_size": 100}  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "score"),
    [("Qwen2ForRewardModel", 64 * 64 + 64 + 64 + 1), ("Qwen2ForProcessRewardModel", 64 * 64 + 64 + 2 * 64 + 2)],
)
def test_rewards(architecture: str, score: int) -> None:
    """Two linear layers where the head was."""
    bare, rewarded = ({**REWARD, "architectures": [name]} for name in ("Qwen2Model", architecture))
    assert params.count(blueprint(rewarded)).total - params.count(blueprint(bare)).total == score


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("a reward model nobody read", {**REWARD, "architectures": ["Qwen2ForPairRewardModel"]}, "no model class"),
    ("GPT-2's names in a Llama", {**QUANTISED, "n_layer": 12}, "does not read this name"),
    ("a tower under Qwen", {**CONFIGS["Qwen/Qwen-7B-Chat"], "visual": {"layers": 48}}, "with a tower"),
    ("text numbers", {**QUANTISED, "num_attention_heads": "4"}, "a whole number"),
    ("a flat LLaVA", {"model_type": "llava", "mm_vision_tower": "openai/clip", "num_hidden_layers": 40, "hidden_size": 5120},
     "does not read this name"),
    ("InternVL on an earlier layer", {**CONFIGS["OpenGVLab/InternVL2_5-1B"], "select_layer": -4}, "select_layer"),
    ("Nomic's experts", {**CONFIGS["nomic-ai/nomic-embed-text-v1.5"], "num_experts": 8}, "num_experts"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "message"), [pytest.param(*case[1:], id=case[0]) for case in WRONG])
def test_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(LlmcalcError, match=message):
        blueprint(config)


def test_names_of_its_authors_count() -> None:
    """Nomic's files say GPT-2's names; half the layers are half the layers."""
    config = CONFIGS["nomic-ai/nomic-embed-text-v1.5"]
    whole, half = (params.count(blueprint({**config, "n_layer": layers})).total for layers in (12, 6))
    layer = 4 * 768**2 + 3 * 768 * 3072 + 4 * 768
    assert whole - half == 6 * layer


def test_windows_of_mimo() -> None:
    """MiMo-V2's own keys say which layers slide, and their heads."""
    base = {"model_type": "mimo_v2_flash", "num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4,
            "num_key_value_heads": 1, "head_dim": 24, "v_head_dim": 16, "intermediate_size": 96, "moe_intermediate_size": 32,
            "n_routed_experts": 4, "num_experts_per_tok": 2, "vocab_size": 100, "sliding_window": 128,
            "sliding_window_size": 128, "moe_layer_freq": [0, 1, 1]}  # fmt: skip
    said = {**base, "hybrid_layer_pattern": [1, 0, 0], "swa_num_key_value_heads": 4}
    found = blueprint(said)
    assert kv.size(found, 1000).bytes_per_token == 2 * 2 * (24 + 16)
    assert kv.size(found, 1000).kv_bytes == 2 * (2 * 1000 * 1 + 128 * 4) * (24 + 16)
