"""The libraries themselves, where they are installed: published counts, and a sample of what is kept."""

from typing import Any

import pytest

from tests.oracle.results import FIGURES, rows

pytest.importorskip("torch")
pytest.importorskip("transformers")

# (name, config, architecture, total, active, what one token adds to the cache in elements, source of the count)
MIXTRAL = {"model_type": "mixtral", "num_key_value_heads": 8, "vocab_size": 32000}
LLAMA3 = {"model_type": "llama", "vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8}
FLAN = {
    "model_type": "t5",
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
PUBLISHED: tuple[tuple[str, dict[str, Any], str | None, int, int, int], ...] = (
    ("bert-base-uncased", {"model_type": "bert"}, "BertModel", 109_482_240, 109_482_240, 0),
    ("gpt2", {"model_type": "gpt2"}, None, 124_439_808, 124_439_808, 18_432),
    ("Meta-Llama-3-8B", LLAMA3, None, 8_030_261_248, 8_030_261_248, 65_536),
    ("Mixtral-8x7B", MIXTRAL, None, 46_702_792_704, 12_879_925_248, 65_536),
    ("flan-t5-small", FLAN, None, 76_961_152, 76_961_152, 6_144),
)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", PUBLISHED, ids=[each[0] for each in PUBLISHED])
def test_published(case: tuple[str, dict[str, Any], str | None, int, int, int]) -> None:
    """Counts of the hub's safetensors files; active experts and cache by the formulas of the papers."""
    from tests.oracle.oracle import build, counts
    from tests.oracle.states import cache

    name, config, architecture, total, active, per_token = case
    model = build(config, architecture)
    figures = counts(model)
    assert (figures["total"], figures["active"]) == (total, active), name
    entries = [entry for entry in cache(model) if entry.get("side") != "cross"]
    assert sum(len(entry["layers"]) * sum(entry["per_token"].values()) for entry in entries) == per_token


BASES = [row for row in rows() if not row["set"] and row["flops"] is not None]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("row", BASES[::12], ids=lambda row: row["model_type"])
def test_kept_rows_are_what_the_library_says(row: dict[str, Any]) -> None:
    from tests.oracle.matrix import ask

    figures = ask(row["config"], row["architecture"], with_flops=True)
    for name in (*FIGURES, "flops", "cache"):
        assert figures[name] == row[name], name
