"""Small configurations of every model type, and single changes to them."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

DEFAULTS = json.loads((Path(__file__).parents[2] / "llmcalc" / "importers" / "defaults.json").read_text(encoding="utf-8"))["types"]

# Name -> small value, the first that matches; values are chosen to differ, so that one cannot pass for another.
SMALL: tuple[tuple[str, int], ...] = (
    (r"vocab_size|^n_vocab|vocabulary_size", 320),
    (r"token_id$|token_index$", 3),
    (r"(position|context_length|^n_ctx|seq_len|seq_length|max_length|target_len)", 64),
    (r"(per_tok|top_?k|topk|num_selected_experts|moe_k)", 2),
    (r"^n_group$", 2),
    (r"shared.*(intermediate|hidden|ffn)|(intermediate|ffn).*shared", 56),
    (r"(moe|expert).*(intermediate|ffn|hidden|_dim|size)", 40),
    (r"experts?$|num_experts|n_expert", 4),
    (r"(window|local_attention)", 8),
    (r"(chunk|block)_(size|length|len)", 16),
    (r"(kv|key_value|key).*heads?$", 2),
    (r"mamba.*heads?$", 8),
    (r"heads?$", 4),
    (r"qk_rope|rope_head_dim", 8),
    (r"v_head_dim", 12),
    (r"(head_dim|head_size|d_head|d_kv|attention_head)", 16),
    (r"kv_lora", 20),
    (r"lora", 24),
    (r"(^|_)(rank|dt_rank)$|_rank", 6),
    (r"(state_size|d_state|ssm_state)", 8),
    (r"(intermediate|ffn|d_ff|n_inner|mlp_dim|hidden_dim|feed_?forward|inner_dim)", 96),
    (r"(layers?|depth|num_blocks|n_layer)$", 4),
    (r"image_size|^resolution", 32),
    (r"patch_size", 8),
    (r"(embedding_size|embed_proj_dim)", 32),
    (r"(hidden|d_model|n_embd|embed|^dim$|_dim$|width|d_embed|size$|channels$)", 64),
)
# Left alone: small anyway, or tied to other values.
KEEP = re.compile(
    r"(num_channels|in_channels|temporal|mel|merge|kernel|type_vocab|factor|bucket|conv|period|offset|theta|seed|loss|stride|span)"
)
# What patterns need that no rule on names can know.
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("full_attention", "sliding_attention")
        }
    },
    "bailing_hybrid": {"layer_group_size": 2, "num_expert_group": 2},
    "dbrx": {
        "attn_config": {"clip_qkv": 8.0, "kv_n_heads": 2, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "chameleon": {"vocabulary_map": {"<image>": 4}},
    "emu3": {"vocabulary_map": {"<image>": 4}},
    "xmod": {"default_language": "en_XX"},
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 40},
    **{key: {"hidden_size": 512} for key in ("qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text")},
    "glm4v_text": {"head_dim": 64},
    "glm4v_moe_text": {"head_dim": 128},
    "glm_ocr_text": {"head_dim": 64},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2},
    "esm": {"vocab_size": 33, "hidden_size": 64, "num_hidden_layers": 4, "pad_token_id": 1, "mask_token_id": 32},
    "granitemoehybrid": {"layer_types": ["mamba", "mamba", "attention", "mamba"]},
    "hunyuan_v1_moe": {"num_experts": 4, "moe_topk": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
    },
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"]},
}
STRINGS = {
    "feed_forward_proj": ["gated-gelu"],
    "position_embedding_type": ["relative_key", "relative_key_query", "rope", "alibi"],
    "layer_norm_type": ["layer_norm"],
}
TRIES = 44


def small(name: str, value: Any) -> int | None:
    """A small value in place of a large one, None where the value stays."""
    if name == "topk_group" and value:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or value <= 4 or KEEP.search(name):
        return None
    for pattern, number in SMALL:
        if re.search(pattern, name):
            return min(number, value)
    return None


def shrink(model_type: str) -> dict[str, Any]:
    """Keys for a small model of the type; configurations inside are dicts with their own model type."""
    record = DEFAULTS[model_type]
    config: dict[str, Any] = {
        name: number for name, value in record["defaults"].items() if (number := small(name, value)) is not None
    }
    for name in record["derived"]:
        if re.search(r"(kv|key_value).*heads?$", name) and name not in record.get("aliases", {}):
            config[name] = 2
    config |= {name: 16 for name in ("head_dim",) if record["defaults"].get(name, 0) is None}
    config |= {name: 2 for name in ("num_key_value_heads",) if record["defaults"].get(name, 0) is None}
    if "kv_lora_rank" in config and "num_attention_heads" in config and "num_key_value_heads" in config:
        config["num_key_value_heads"] = config["num_attention_heads"]  # MLA has no groups
    sections = (record["defaults"].get("rope_parameters") or {}).get("mrope_section")
    if sections and ("head_dim" in record["defaults"] or "head_dim" in record["derived"]):
        config["head_dim"] = 2 * sum(sections)
    for name, inside in record.get("sub_configs", {}).items():
        if name not in record.get("optional", []) and inside in DEFAULTS:
            config[name] = ({} if "." in inside else {"model_type": inside}) | shrink(inside)
    return config | OVERRIDES.get(model_type, {})


def profiles(model_type: str) -> list[dict[str, Any]]:
    """Configs to try as the base, best first: all small, more heads, a key or a kind of key left at its default, layers only."""
    full = shrink(model_type)
    flat = [path for path in paths(full) if not path.endswith("model_type")]
    found = [full]
    more_heads = {path: 8 for path in flat if path.endswith(("heads", "head")) and not re.search("kv|key", path)}
    found.append(assign(full, more_heads))
    found.append(assign(full, {path: 4 for path in flat if path.endswith("heads")}))
    for pattern in (
        r"head",
        r"size$|dim$",
        r"window|chunk|block",
        r"expert|top_?k|group|per_tok",
        r"lora|rank",
        r"image|patch|position",
    ):
        found.append(without(full, [path for path in flat if re.search(pattern, path.rpartition(".")[2])]))
    found += [without(full, [path]) for path in flat]
    found.append(without(full, [path for path in flat if not re.search(r"layers?$|depth$", path)]))
    found.append({})
    unique: list[dict[str, Any]] = []
    for config in found:
        if config not in unique:
            unique.append(config)
    return unique


def paths(config: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths of the values that are no dicts."""
    found: list[str] = []
    for name, value in config.items():
        found += paths(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return found


def assign(config: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy with the values at the dotted paths set."""
    from tests.oracle.results import changed

    return changed(config, values)


def without(config: dict[str, Any], gone: list[str], prefix: str = "") -> dict[str, Any]:
    """A copy without the dotted paths."""
    return {
        name: without(value, gone, f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in config.items()
        if f"{prefix}{name}" not in gone
    }


def values_for(name: str, value: Any) -> list[Any]:
    """Other values for one key, by what stands there now."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        if re.search(r"theta|token|seed|max_(source_|target_)?position", name):
            return [value * 2] if "position" in name else []
        if value == 0:
            return [1, 2]
        one = [1] if value > 1 and re.search(r"heads?$|experts?|layers?$|group|top_?k|per_tok|window", name) else []
        return [value * 2, value + 1, *one, *([100_000] if "sliding" in name else [])]
    if isinstance(value, float):
        return [value * 2, value / 2] if re.search(r"(factor|ratio|multiplier|expand|mult)$", name) and "rotary" not in name else []
    if isinstance(value, str):
        return list(STRINGS.get(name, []))
    if value is None:
        if re.search(r"token|theta|prob|path|name|dtype|scal", name):
            return []
        return [7, True] if re.search(r"^use|^is_|bias$|norm$", name) else [2, 24]
    return []


def changes(model_type: str, base: dict[str, Any], config: dict[str, Any]) -> list[dict[str, Any]]:
    """Single changes to the base, then a few mixes; ``config`` is the built configuration's dict, with what the class derived."""
    chance = random.Random(model_type)
    own, inside = head_mixes(model_type, base) + one_by_one(model_type, "", base, config), []
    for name, sub in DEFAULTS[model_type].get("sub_configs", {}).items():
        if isinstance(base.get(name), dict) and isinstance(config.get(name), dict) and sub in DEFAULTS:
            below = one_by_one(sub, f"{name}.", base[name], config[name])
            inside += chance.sample(below, min(len(below), 12))
    return own + inside


def head_mixes(model_type: str, base: dict[str, Any]) -> list[dict[str, Any]]:
    """Odd head counts that divide, one KV head, as many as query heads; a single expert."""
    record = DEFAULTS[model_type]
    names = [name for name in [*record["defaults"], *record["derived"]] if name not in record.get("aliases", {})]
    found: list[dict[str, Any]] = []
    width = next((name for name in ("hidden_size", "d_model", "n_embd", "dim") if name in base), None)
    heads = next((name for name in ("num_attention_heads", "n_head", "num_heads", "n_heads") if name in base), None)
    groups = next((name for name in names if re.search(r"^(num|n)_(kv|key_value)_heads$", name)), None)
    if heads:
        for count, kv in ((6, 3), (3, 1), (5, 5)):
            found.append({heads: count} | ({groups: kv} if groups else {}) | ({width: count * 16} if width else {}))
    experts = next((name for name in base if re.search(r"^(num|n)_(local_|routed_)?experts$", name)), None)
    chosen = next((name for name in base if re.search(r"per_tok|top_?k", name)), None)
    if experts:
        found += [{experts: 1} | ({chosen: 1} if chosen else {}), {experts: 8} | ({chosen: 3} if chosen else {})]
    return found


def one_by_one(model_type: str, prefix: str, base: dict[str, Any], config: dict[str, Any]) -> list[dict[str, Any]]:
    """Changes of one key each, for the type's own keys below ``prefix``."""
    record = DEFAULTS[model_type]
    first: list[dict[str, Any]] = []
    later: list[dict[str, Any]] = []
    for name in [*record["defaults"], *record["derived"]]:
        if name in record.get("aliases", {}) or name in ("use_cache", "is_encoder_decoder", "is_decoder", "add_cross_attention"):
            continue
        value = base.get(name, config.get(name, record["defaults"].get(name)))
        if name in record["derived"] and isinstance(value, list) and name.endswith("types") and len(set(map(str, value))) > 1:
            first.append({f"{prefix}{name}": value[::-1]})
        tries = values_for(name, value)
        first += [{f"{prefix}{name}": each} for each in tries[:2]]
        later += [{f"{prefix}{name}": each} for each in tries[2:]]
        if name in record.get("when_null", {}):
            later.append({f"{prefix}{name}": None})
    return first + later
