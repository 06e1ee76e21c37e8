"""Every catalogue model against figures read off the real classes (tests/data/README.md says how)."""

from typing import Any

import pytest

from llmcalc import resolve
from llmcalc.engines import flops, kv, params
from llmcalc.specs import catalogue
from tests.conftest import records

MODELS = records("models.jsonl")
COUNTS = records("counts.jsonl")


def named(rows: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(row, id=row["model"]) for row in rows]


@pytest.mark.parametrize("row", named(MODELS))
def test_parameters(row: dict[str, Any]) -> None:
    counted = params.count(resolve.model(row["model"]).blueprint)
    fields = ("total", "active", "embedding", "lm_head", "router_buffers")
    assert {f: getattr(counted, f) for f in fields} == {f: row[f] for f in fields}


@pytest.mark.parametrize("row", named([row for row in MODELS if "kv" in row]))
def test_kv_cache(row: dict[str, Any]) -> None:
    blueprint, expected = resolve.model(row["model"]).blueprint, row["kv"]
    sizes = {context: kv.size(blueprint, int(context)) for context in expected["bytes"]}
    assert {context: size.kv_bytes for context, size in sizes.items()} == expected["bytes"]
    assert {size.state_bytes for size in sizes.values()} == {expected["state"]}
    assert {size.bytes_per_token for size in sizes.values()} == {expected["per_token"]}
    assert kv.size(blueprint, 1, encoder_context=1000).cross_bytes == 1000 * expected.get("cross", 0)


@pytest.mark.parametrize("row", named([row for row in MODELS if "flops" in row]))
def test_forward_flops(row: dict[str, Any]) -> None:
    """Within 0.1%: transformers multiplies a few things that are no matrix product of the model (rotary tables).

    What is measured of a scan is what a fallback in plain torch multiplies: within 5%.
    """
    at = row["flops"]
    got = flops.count(resolve.model(row["model"]).blueprint, at["tokens"], encoder_context=at["encoder_tokens"])
    assert got.forward_full == pytest.approx(at["forward"], rel=0.05 if at["loose"] else 1e-3)


@pytest.mark.parametrize(
    ("tokens", "batch", "measured"), [(128, 1, 6_543_114_240), (512, 1, 20_132_659_200), (512, 2, 37_849_399_296)]
)
def test_flops_of_disentangled_attention(tokens: int, batch: int, measured: int) -> None:
    """FlopCounterMode on a DebertaV2Model of two layers of DeBERTa-v3 base: positions are projected once per pass."""
    from llmcalc.blueprint.lower import lower
    from llmcalc.specs.model import ModelSpec

    data = {**catalogue.entries("models")["deberta-v3-base"].data, "layers": 2}
    two_layers = lower(catalogue.build(ModelSpec, data), "two layers")
    assert flops.count(two_layers, tokens, batch).forward == measured


@pytest.mark.parametrize("row", named(COUNTS))
def test_counts_of_other_catalogue_models(row: dict[str, Any]) -> None:
    assert params.count(resolve.model(row["model"]).blueprint).total == row["total"]


@pytest.mark.parametrize(
    ("model", "total", "tolerance", "source"),
    [
        ("palm-540b", 540.35e9, 1e-4, "Chowdhery et al. 2022, table 1"),
        ("gpt3-175b", 174_604_259_328, 0, "Brown et al. 2020, table D.1 prints 174,600M"),
        ("gpt3-13b", 12_850e6, 0.01, "Brown et al. 2020, table D.1; its width 5140 is no multiple of 128"),
        ("switch-xxl-128", 395e9, 1e-2, "Fedus et al. 2021, table 9"),
        ("switch-c-2048", 1571e9, 1e-2, "Fedus et al. 2021, table 9"),
        ("gpt-4", 1.8e12, 0.02, "the reported estimate, which the spec is marked as"),
    ],
)
def test_published_counts_without_a_class(model: str, total: float, tolerance: float, source: str) -> None:
    assert params.count(resolve.model(model).blueprint).total == pytest.approx(total, rel=tolerance), source


def test_published_figures_of_every_spec() -> None:
    """What a spec says the makers publish is what the spec comes to, to the rounding of such figures."""
    rounded_by_makers = {
        "phi-1",
        "phi-1.5",
        "phi-2",
        "t5-large",
        "t5-11b",
        "flan-t5-small",
        "flan-t5-xl",
        "albert-base-v2",
        "falcon-40b",
    }
    off = {}
    for name, entry in catalogue.entries("models").items():
        published = entry.data.get("published", {}).get("params")
        if published and name not in rounded_by_makers:
            total = params.count(resolve.model(name).blueprint).total
            if abs(total / published - 1) > 0.02:
                off[name] = (total, published)
    assert off == {}


def test_every_catalogue_model_is_checked_against_something() -> None:
    checked = {row["model"] for row in (*MODELS, *COUNTS)}
    elsewhere = {"palm-8b", "palm-62b", "palm-540b", "gpt3-13b", "switch-xxl-128", "switch-c-2048", "gpt-4"}
    closed = {e.name for e in catalogue.entries("models").values() if e.data.get("status") == "unpublished"}
    assert set(catalogue.entries("models")) - checked - closed == elsewhere - checked
