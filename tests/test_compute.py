"""Training runs against what was published about them, and against arithmetic."""

import math
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcalc.engines import compute as engine
from llmcalc.quantity import Dim
from tests.conftest import Run, records
from tests.runs import PAGE, answer, page

ROWS = records("compute.jsonl")
ASKED = [pytest.param(row, id=row["id"]) for row in ROWS if "command" in row]
KEYS = {
    "model", "params", "flops_convention", "training_flops", "hardware_flops", "flops_per_token", "tokens", "mfu", "hfu", "gpu",
    "gpus", "gpu_hours", "days", "tokens_per_second_per_gpu", "iterations", "iteration_seconds", "energy_mwh", "co2_tonnes",
    "cost_dollars", "within_deadline", "within_budget", "kinds",
}  # fmt: skip


@pytest.mark.parametrize("row", ASKED)
def test_published_figures(row: dict[str, Any]) -> None:
    result = answer("compute", row)
    for key, expected in row["measured"].items():
        assert result[key] == pytest.approx(expected, **row["within"]), (key, row.get("explanation"))


def test_what_is_off_by_more_than_rounding_is_explained() -> None:
    for row in ROWS:
        if "command" in row and row["within"].get("rel", 0) > 0.005:
            result = answer("compute", row)
            assert max(abs(result[key] / expected - 1) for key, expected in row["measured"].items()) > 9e-4, row["id"]
            assert row["explanation"], row["id"]


def test_the_page_of_published_runs_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.runs writes it anew"


def test_the_assumed_mfu_and_its_spread_are_those_of_the_published_figures() -> None:
    runs = [6 * r["params"] * r["tokens"] / (3600 * r["gpu_hours"] * r["peak_flops"]) for r in ROWS if r.get("kind") == "run"]
    benchmarks = [r["mfu"] for r in ROWS if r.get("kind") == "benchmark"]
    assert (len(runs), len(benchmarks)) == (19, 138)
    lower, _, _ = quantiles(runs, n=4, method="inclusive")
    _, _, upper = quantiles(benchmarks, n=4, method="inclusive")
    assert (round(lower, 2), round(upper, 2)) == (engine.MFU.low, engine.MFU.high)
    assert (round(median(runs), 2), round(median(benchmarks), 2)) == (0.28, 0.51)
    assert median(runs) < engine.MFU.likely < median(benchmarks)
    assert f"{len(runs)} published runs" in engine.MFU.source
    assert f"{len(benchmarks)} published benchmarks" in engine.MFU.source


# Layers, hidden, heads, vocabulary, sequence of a GPT with a 4 h FFN.
GPTS = [(48, 6144, 64, 51200, 2048), (96, 12288, 96, 51200, 2048), (80, 12288, 96, 51200, 2048), (24, 2048, 16, 50304, 4096)]


@pytest.mark.parametrize(("layers", "h", "heads", "vocab", "s"), GPTS)
def test_formulas_of_the_papers(layers: int, h: int, heads: int, vocab: int, s: int, run: Run, tmp_path: Path) -> None:
    """Narayanan et al. 2021, section 5.1, and Korthikanti et al. 2022, equations 7 and 8, of one sequence; PaLM, appendix B."""
    path = tmp_path / "gpt.yaml"
    path.write_text(
        f"{{family: gpt, layers: {layers}, hidden: {h}, heads: {heads}, ffn: {4 * h}, vocab: {vocab}, context: {s}, gated: false, "
        "biases: [all], norm: layernorm, positions: learned, tied_head: true, sources: [paper]}",
        encoding="utf-8",
    )

    def flops(*options: str) -> dict[str, Any]:
        return run("compute", str(path), "--tokens", str(s), "--seq", str(s), *options, "--json").results[0]

    base = 72 * layers * s * h * h
    selective = flops("--convention", "matmul", "--recompute", "selective")
    assert selective["training_flops"] == pytest.approx(base * (1 + s / (6 * h) + vocab / (12 * h * layers)), rel=1e-12)
    assert selective["hardware_flops"] == pytest.approx(base * (1 + s / (3 * h) + vocab / (12 * h * layers)), rel=1e-12)
    full = flops("--convention", "matmul", "--recompute", "full")
    assert full["hardware_flops"] == pytest.approx(4 / 3 * base * (1 + s / (6 * h) + vocab / (16 * h * layers)), rel=1e-12)
    n = 12 * layers * h * h * (1 + 13 / (12 * h) + (vocab + s) / (12 * layers * h)) + 2 * h
    palm = flops("--convention", "attention")
    assert palm["params"] == round(n)
    assert palm["flops_per_token"] == pytest.approx(6 * n + 12 * layers * h * s, rel=1e-12)
    causal = flops("--convention", "attention", "--mask", "causal")
    assert causal["flops_per_token"] == pytest.approx(6 * n + 6 * layers * h * (s + 1), rel=1e-12)
    plain = flops()
    assert plain["training_flops"] == 6 * round(n) * s
    assert flops("--recompute", "full")["hardware_flops"] == 8 * round(n) * s
    without = flops("--count", "non-embedding")
    assert without["params"] == round(n) - (vocab + s) * h


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("gpt3-175b --gpu a100-80 --gpus 1024 --tflops 140 --recompute full", {"days": 33.8}),  # Narayanan et al. 2021, section 5.2
        ("--params 671B --active 37B --tokens 14.8T --gpu h800 --gpu-hours 2.788M --price 2", {"cost_dollars": 5.576e6}),
        ("llama3.1-405b --tokens 15.6T", {"training_flops": 3.8e25}),  # arXiv:2407.21783, section 3.2
        ("palm-540b --gpu tpu-v4 --gpus 6144 --tokens-per-second 38.8 --seq 2048", {"mfu": 0.457}),  # PaLM, section 4.1
        ("palm-540b --gpu tpu-v4 --gpus 6144 --tokens-per-second 38.8 --seq 2048 --convention attention", {"mfu": 0.462}),
        ("--flops 3.14e23 --gpu v100-32 --tflops 28 --price 1.5", {"cost_dollars": 4.67e6}),
    ],
)
def test_well_known_figures(arguments: str, expected: dict[str, float], run: Run) -> None:
    result = run("compute", *arguments.split(), "--json").results[0]
    for key, value in expected.items():
        assert result[key] == pytest.approx(value, rel=0.003)


def test_json_keys_and_kinds(run: Run) -> None:
    command = "llama3-8b --tokens 15T --gpu h100-sxm --gpus 1024 --mfu 0.4 --price 2.5 --power 700 --pue 1.1 --batch-tokens 4M"
    result = run("compute", *command.split(), "--json").results[0]
    assert set(result) >= KEYS
    assert result["training_flops"] == 6 * 8_030_261_248 * 15 * 10**12
    hours = result["training_flops"] / (3600 * 0.4 * 989.4e12)
    assert result["gpu_hours"] == pytest.approx(hours)
    assert result["days"] == pytest.approx(hours / 1024 / 24)
    assert result["energy_mwh"] == pytest.approx(hours * 700 * 1.1 / 1e6)
    assert result["cost_dollars"] == pytest.approx(2.5 * hours)
    assert result["iterations"] == 3_750_000
    assert result["iteration_seconds"] * result["iterations"] == pytest.approx(86400 * result["days"])
    assert result["gpu_hours_low"] == result["gpu_hours"] == result["gpu_hours_high"]
    assert (result["kinds"]["training_flops"], result["kinds"]["gpu_hours"]) == ("exact", "estimated")


def test_an_assumed_mfu_is_said_and_spread(run: Run) -> None:
    outcome = run("compute", "llama3-8b", "--gpu", "h100-sxm", "--gpus", "64", "--price", "2", "--json")
    result = outcome.results[0]
    assert (result["mfu"], result["mfu_low"], result["mfu_high"], result["mfu_assumed"]) == (0.4, 0.25, 0.56, True)
    assert result["gpu_hours_low"] == pytest.approx(result["gpu_hours"] * 0.4 / 0.56)
    assert result["cost_dollars_high"] == pytest.approx(result["cost_dollars"] * 0.4 / 0.25)
    assert any("assumed" in note and "quartile" in note for note in outcome.json["notes"])
    assert any("as published" in note for note in outcome.json["notes"])


def test_the_catalogue_s_price_and_power_are_named_and_marked(run: Run) -> None:
    outcome = run("compute", "llama3-8b", "--gpu", "h100-sxm", "--gpu-hours", "1000", "--tokens", "15B", "--json")
    result = outcome.results[0]
    assert result["cost_dollars_low"] < result["cost_dollars"] < result["cost_dollars_high"]
    assert (result["kinds"]["gpu_hours"], result["kinds"]["cost_dollars"], result["kinds"]["energy_mwh"]) == (
        "exact", "estimated", "estimated",
    )  # fmt: skip
    notes = " ".join(outcome.json["notes"])
    assert "Nebius" in notes
    assert "TDP" in notes
    assert "2024-12" in notes


@given(
    params=st.integers(10**6, 10**13), tokens=st.integers(10**6, 10**14), gpus=st.integers(1, 10**5), mfu=st.floats(0.01, 1),
    price=st.floats(0.1, 20),
)  # fmt: skip
def test_inverse_questions_lead_back(params: int, tokens: int, gpus: int, mfu: float, price: float) -> None:
    """Time from MFU and MFU from time; tokens from hours, days or money; GPUs from a deadline."""
    work = engine.per_token("6nd", "none", Dim(params, "N"), None)
    site = engine.Site(1e15, 700.0, 1.1, 0.4)
    q = engine.Question(work, site, tokens=tokens, gpus=gpus, speed=engine.Speed("mfu", mfu))
    run = engine.answer(q, price)
    assert run.training_flops == 6 * params * tokens
    given_hours = engine.answer(q._replace(speed=None, gpu_hours=float(run.gpu_hours)), price)
    assert float(given_hours.mfu) == pytest.approx(mfu, rel=1e-9)
    measured = q._replace(speed=engine.Speed("tokens", float(run.tokens_per_second_per_gpu)))
    assert float(engine.answer(measured, price).gpu_hours) == pytest.approx(float(run.gpu_hours), rel=1e-9)
    open_ended = q._replace(tokens=None)
    for limited in (
        open_ended._replace(gpu_hours=float(run.gpu_hours)),
        open_ended._replace(days=float(run.days)),
        open_ended._replace(budget=float(run.cost_dollars)),
    ):
        bought = engine.answer(limited, price)
        assert float(bought.tokens) == pytest.approx(tokens, rel=1e-9)
        assert float(bought.cost_dollars) == pytest.approx(float(run.cost_dollars), rel=1e-9)
    deadline = engine.answer(q._replace(gpus=None, days=float(run.days)), price)
    assert gpus - 1 <= deadline.gpus <= gpus + 1
    assert float(deadline.days) <= float(run.days) * (1 + 1e-9) or deadline.gpus >= gpus


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ("--gpus 1024 --mfu 0.4 --days 30", 0), ("--gpus 64 --mfu 0.4 --days 30", 1), ("--gpus 64 --days 30", 1),
        ("--gpus 1024 --days 60", 0), ("--budget 2M --price 2 --mfu 0.4", 0), ("--budget 1M --price 2 --mfu 0.4", 1),
        ("--days 30", 0), ("--mfu 0.9 --hfu 0.9", 2), ("--gpu-hours 500k --mfu 0.5", 2),
    ],
)  # fmt: skip
def test_limits_decide_the_exit_code(limits: str, code: int, run: Run) -> None:
    assert run("compute", "llama3-8b", "--tokens", "15T", "--gpu", "h100-sxm", *limits.split()).code == code


def test_a_deadline_asks_for_gpus(run: Run) -> None:
    result = run("compute", "llama3-8b", "--tokens", "15T", "--gpu", "h100-sxm", "--mfu", "0.4", "--days", "30", "--json").results[
        0
    ]
    assert result["gpus"] == math.ceil(result["gpu_hours"] / 720)
    assert 29 < result["days"] <= 30
    assert result["within_deadline"] is None


@pytest.mark.parametrize("convention", ["6nd", "attention", "matmul"])
@pytest.mark.parametrize("model", ["t5-base", "bert-base", "mixtral-8x7b", "gemma3-4b", "deepseek-v3", "mistral-7b-v0.1"])
def test_recomputation_adds_work_and_never_takes_any(model: str, convention: str, run: Run) -> None:
    def result(recompute: str) -> dict[str, Any]:
        command = f"{model} --tokens 1T --gpu a100-80 --mfu 0.3 --convention {convention} --recompute {recompute} --json"
        return run("compute", *command.split()).results[0]

    none, selective, full = result("none"), result("selective"), result("full")
    assert none["training_flops"] == selective["training_flops"] == full["training_flops"]
    assert none["hardware_flops"] == none["training_flops"] < selective["hardware_flops"]
    assert none["training_flops"] < full["hardware_flops"] <= 4 / 3 * none["training_flops"] * (1 + 1e-12)
    assert none["hfu"] == none["mfu"] < full["hfu"] <= 0.4 * (1 + 1e-12)


def test_matmul_is_what_flops_counts(run: Run) -> None:
    for model in ("llama3-8b", "deepseek-v3", "bert-base"):
        training = run("flops", model, "--ctx", "512", "--mask", "causal", "--json").results[0]["training_flops"]
        command = f"{model} --tokens 512 --seq 512 --convention matmul --mask causal --json"
        assert run("compute", *command.split()).results[0]["training_flops"] == training


def test_several_models_are_rows_in_order(run: Run) -> None:
    outcome = run("compute", "llama3-70b", "llama3-8b", "--gpu", "h100-sxm", "--json")
    assert [r["model"] for r in outcome.results] == ["llama3-70b", "llama3-8b"]
    assert "llama3-70b" in run("compute", "llama3-70b", "llama3-8b", "--gpu", "h100-sxm").out


def test_grids_have_sources() -> None:
    assert all(0 < grid.kg_per_kwh < 1.5 and grid.source for grid in engine.GRIDS.values())


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ("", ["nothing to compute"]),
        ("--tokens 1T", ["--tokens", "MODEL"]),
        ("llama3-8b --params 8B", ["one of"]),
        ("--active 3B --flops 1e20", ["--active"]),
        ("--params 8B --active 9B --tokens 1T", ["--active"]),
        ("--params 8B --tokens 1T --convention attention", ["MODEL"]),
        ("--params 8B --tokens 1T --recompute selective", ["MODEL"]),
        ("--params 8B --tokens 1T --count non-embedding", ["--count"]),
        ("--flops 1e24 --recompute full --gpu a100-80", ["--recompute"]),
        ("llama3-8b --gpu a100-80 --precision fp8", ["a100-80", "fp8"]),
        ("llama3-8b --mfu 0.4", ["--gpu"]),
        ("llama3-8b --gpu h100-sxm --iteration 3", ["--batch-tokens"]),
        ("llama3-8b --gpu h100-sxm --mfu 1.5", ["--mfu"]),
        ("llama3-8b --gpu h100-sxm --carbon 400", ["0.4"]),
        ("llama3-8b --gpu h100-sxm --carbon franc", ["france"]),
        ("llama3-8b --gpu h100-sxm --pue 0.5", ["--pue"]),
        ("--gpu gb200 --params 1B --budget 100", ["--price"]),
        ("llama3-8b --gpu h100-sxm --days nan", ["--days", "nan"]),
        ("gpt2-xl --gpu h100-sxm", ["--tokens"]),
        ("gemini --gpu h100-sxm", ["published"]),
    ],
)
def test_mistakes(arguments: str, fragments: list[str], run: Run) -> None:
    outcome = run("compute", *arguments.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    for fragment in fragments:
        assert fragment in outcome.err
