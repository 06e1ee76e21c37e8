"""What the oracle left in the repository holds together; needs neither torch nor transformers."""

import json
from typing import Any

import pytest

from tests.oracle.results import FIGURES, MATRIX, changed, pack, rows, versions
from tests.oracle.shrink import DEFAULTS

ROWS = list(rows())


def test_configurations_inside_are_there() -> None:
    for name, record in DEFAULTS.items():
        for inside in record.get("sub_configs", {}).values():
            assert inside in DEFAULTS, f"{name} holds {inside}"


def test_what_is_derived_is_no_default() -> None:
    for name, record in DEFAULTS.items():
        assert not record["defaults"].keys() & record["derived"].keys(), name
        assert record.get("adjusted", {}).keys() <= record["defaults"].keys(), name


DERIVED: tuple[tuple[str, str, list[str]], ...] = (
    ("llama", "head_dim", ["hidden_size", "num_attention_heads"]),
    ("llama", "num_key_value_heads", ["num_attention_heads"]),
    ("gemma3_text", "layer_types", ["num_hidden_layers"]),
    ("t5", "num_decoder_layers", ["num_layers"]),
    ("rwkv", "attention_hidden_size", ["hidden_size"]),
)


@pytest.mark.parametrize(("name", "attribute", "sources"), DERIVED)
def test_derived(name: str, attribute: str, sources: list[str]) -> None:
    """Configuration classes of transformers 5.23, ``__post_init__``."""
    assert DEFAULTS[name]["derived"][attribute] == sources


def test_versions() -> None:
    assert versions().keys() >= {"transformers", "torch", "failed"}


def test_every_row_is_a_whole_answer() -> None:
    for row in ROWS:
        assert row.keys() >= {*FIGURES, "config", "architecture", "cache", "flops"}
        assert 0 < row["active"] <= row["total"], row["config"]
        assert 0 <= row["embedding"] + row["lm_head"] <= row["total"], row["config"]
        assert row["config"]["model_type"] in DEFAULTS


def test_every_type_has_several_rows() -> None:
    each: dict[str, int] = {}
    for row in ROWS:
        each[row["model_type"]] = each.get(row["model_type"], 0) + 1
    assert len(each) > 300
    assert min(each.values()) >= 3


def test_the_file_is_small() -> None:
    assert MATRIX.stat().st_size < 3_000_000


def test_packing_loses_nothing(tmp_path: Any) -> None:
    figures = {"total": 9, "embedding": 2, "lm_head": 0, "active": 9, "router_buffers": 0}
    base = {
        "model_type": "llama",
        "config": {"a": 1, "b": {"c": 2}},
        "architecture": "X",
        "set": {},
        **figures,
        "cache": [],
        "flops": 5,
    }
    other = {"set": {"b.c": 3}, "architecture": "X", **figures, "total": 8, "active": 8, "cache": []}
    file = tmp_path / "matrix.jsonl"
    file.write_text(json.dumps({}) + "\n" + json.dumps(pack([base, other])) + "\n", encoding="utf-8")
    first, second = rows(file)
    assert (first["total"], first["flops"], first["config"]["b"]) == (9, 5, {"c": 2})
    assert (second["total"], second["flops"], second["config"]["b"], second["cache"]) == (8, None, {"c": 3}, [])


def test_changes_reach_inside() -> None:
    assert changed({"a": {"b": 1}}, {"a.b": 2, "c": None}) == {"a": {"b": 2}, "c": None}
