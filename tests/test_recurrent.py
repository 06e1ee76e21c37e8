"""Models with recurrent layers against small models of their classes (tests/data/README.md says how the figures were made)."""

import json
from collections import Counter
from typing import Any

import pytest

from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import flops, kv, params
from llmcalc.errors import SpecError
from llmcalc.importers.config import Source
from llmcalc.importers.config_json import from_config
from llmcalc.specs import catalogue
from llmcalc.specs.model import ModelSpec
from llmcalc.specs.rules import check_model
from tests.conftest import records

ROWS = records("recurrent.jsonl")
# Kept in bf16 there; the published figure keeps MiniMax's states exact.
OTHER_STATES = {"minimax": 2}
# The share of the class's figure that is not counted: chunks of Mamba-2 are also summed over all pairs of them.
NOT_COUNTED = {
    "mamba2": 0.06, "bamba": 0.03, "granitemoehybrid": 0.03, "falcon_h1": 0.05, "nemotron_h": 0.05, "zamba2": 0.03,
    "qwen4_exp_text": -0.01,
}  # fmt: skip


def imported(config: dict[str, Any]) -> Blueprint:
    found = from_config(config, Source("config.json", json.dumps(config)))
    assert all("predict further tokens" in note for note in found.notes)
    spec = catalogue.build(ModelSpec, found.spec)
    assert list(check_model(spec)) == []
    return lower(spec, "small")


def named(rows: list[dict[str, Any]]) -> list[Any]:
    numbers: Counter[str] = Counter()
    found = []
    for row in rows:
        name = row["config"]["model_type"]
        found.append(pytest.param(row, id=f"{name}-{numbers[name]}"))
        numbers[name] += 1
    return found


@pytest.mark.parametrize("row", named(ROWS))
def test_parameters(row: dict[str, Any]) -> None:
    counted = params.count(imported(row["config"]))
    fields = ("total", "active", "embedding", "lm_head", "router_buffers")
    assert {f: getattr(counted, f) for f in fields} == {f: row[f] for f in fields}


@pytest.mark.parametrize("row", named([row for row in ROWS if "grows" in row]))
def test_cache(row: dict[str, Any]) -> None:
    """Elements that a token adds, by window, and bytes of states."""
    blueprint = imported(row["config"])
    grows: Counter[str] = Counter()
    for cache in blueprint.caches:
        if cache.per == "token":
            grows[str(cache.window or "all")] += int(cache.depth) * int(cache.width)
    assert grows == row["grows"]
    states = kv.size(blueprint, 1).state_bytes
    assert states == row["state_bytes"] * OTHER_STATES.get(row["config"]["model_type"], 1)


@pytest.mark.parametrize("row", named([row for row in ROWS if "flops_256" in row]))
def test_forward_flops(row: dict[str, Any]) -> None:
    """Within 0.1%: convolutions are padded by a few tokens there."""
    got = flops.count(imported(row["config"]), 256).forward
    missing = NOT_COUNTED.get(row["config"]["model_type"], 0)
    assert row["flops_256"] * (1 - max(missing, 0.001)) <= got <= row["flops_256"] * (1 + max(-missing, 0.001))


BASES = {row["config"]["model_type"]: row["config"] for row in reversed(ROWS)}


@pytest.mark.parametrize(
    ("model_type", "changes", "key"),
    [
        ("mamba2", {"num_heads": 7}, "num_heads"),
        ("rwkv", {"attention_hidden_size": 32}, "attention_hidden_size"),
        ("jamba", {"attn_layer_offset": 4}, "attn_layer_offset"),
        ("nemotron_h", {"hybrid_override_pattern": "MX"}, "hybrid_override_pattern"),
        ("nemotron_h", {"hybrid_override_pattern": None, "layers_block_type": []}, "layers_block_type"),
        ("granite_swa", {"layer_types": ["full_attention", "unheard_of"] * 2}, "layer_types"),
        ("lfm2_moe", {"layer_types": None}, "layer_types"),
        ("lfm3", {"sliding_window": None}, "sliding_window"),
        ("recurrent_gemma", {"block_types": []}, "block_types"),
        ("zamba", {"attention_hidden_size": 64}, "attention_hidden_size"),
        ("zamba2", {"n_mamba_heads": 5}, "n_mamba_heads"),
        ("xlstm", {"num_heads": 3}, "num_heads"),
        ("zaya", {"num_experts_per_tok": 2}, "num_experts_per_tok"),
        ("kimi_linear", {"linear_attn_config": {"full_attn_layers": [9], "kda_layers": [1]}}, "linear_attn_config"),
        ("qwen4_exp_text", {"ple_layer_ids": [99]}, "ple_layer_ids"),
        ("qwen4_exp_text", {"ple_layer_ids": [1], "heads_per_ngram": 10**6, "ple_embed_dim": 2 * 10**6}, "ple_layer_ids"),
        ("hrm_text", {"H_cycles": 10**7}, "H_cycles"),
        ("glm5_next_text", {"qk_rope_head_dim": 8}, "qk_rope_head_dim"),
        ("glm5_next_text", {"indexer_types": ["half"] * 6}, "indexer_types"),
    ],
)
def test_what_is_refused(model_type: str, changes: dict[str, Any], key: str) -> None:
    config = {**BASES[model_type], **changes}
    with pytest.raises(SpecError, match=key):
        from_config(config, Source("config.json", json.dumps(config)))
