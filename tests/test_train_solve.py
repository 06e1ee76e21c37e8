"""llmcalc train solved backwards: what is found fits, one step more does not; and the ways to train beside each other."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmcalc import resolve
from llmcalc.engines import train_solve as solve
from llmcalc.engines import train_trace, training
from llmcalc.engines.layout import Layout
from llmcalc.engines.recipe import Recipe
from llmcalc.errors import LlmcalcError, UsageError
from tests.conftest import Run
from tests.test_properties import specs
from tests.test_training import SETTINGS, invented, recipes

GIB = 2**30


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=300), st.integers(-10, 100_000), st.integers(1, 50),
)  # fmt: skip
@SETTINGS
def test_the_search_finds_what_a_scan_finds(rises: list[int], budget: int, first: int) -> None:
    """Whatever curve that never falls: steps, plateaus, bends."""
    peaks = [sum(rises[: n + 1]) for n in range(len(rises))]
    last = first + len(peaks) - 1
    fitting = [n for n in range(first, last + 1) if peaks[n - first] <= budget]
    assert solve.largest(lambda n: peaks[n - first], budget, first, last) == (fitting[-1] if fitting else None)


@pytest.mark.parametrize(
    ("peak", "budget", "expected", "most"),
    [
        (lambda n: 7 * n + 3, 7 * 123_456 + 9, 123_456, 8),
        (lambda n: max(10**9, 5000 * n), 3 * 10**9, 600_000, 10),
        (lambda n: n * n, 10**6, 1000, 24),
        (lambda n: n**3, 10**6, 100, 32),
        (lambda n: 2**n if n < 64 else 2**64, 2**40 + 1, 40, 48),
        (lambda _: 5, 5, 2**20, 2),
        (lambda _: 5, 4, None, 1),
    ],
    ids=["line", "bend", "square", "cube", "steep", "all", "none"],
)
def test_few_are_asked(peak: Any, budget: int, expected: int | None, most: int) -> None:
    asked: list[int] = []

    def counted(n: int) -> int:
        asked.append(n)
        found: int = peak(n)
        return found

    assert solve.largest(counted, budget, 1, 2**20) == expected
    assert len(asked) <= most


def peak_of(blueprint: Any, recipe: Recipe) -> int:
    return training.count(blueprint, recipe).peak_bytes


@given(specs(), recipes, st.sampled_from(["micro_batch", "seq", "rank"]), st.floats(0.5, 8.0))
@SETTINGS
def test_the_solution_fits_and_one_more_does_not(spec: dict[str, Any], recipe: Recipe, what: str, room: float) -> None:
    blueprint = invented(spec)
    assume(what != "rank" or recipe.method in solve.RANKED)
    try:
        budget = int(peak_of(blueprint, recipe) * room)
        ask = solve.Ask(blueprint, Layout())
        found = {
            "micro_batch": lambda: solve.micro_batch(ask, recipe, budget),
            "seq": lambda: solve.seq(ask, recipe, budget, 1000),
            "rank": lambda: solve.rank(ask, recipe, budget, blueprint),
        }[what]()
    except LlmcalcError:
        assume(False)
        return
    step = 64 if what == "seq" else 1
    limit = {"micro_batch": 2**20, "seq": 1000, "rank": found.limit}[what]
    assert found.limit == limit
    assert found.answer == training.count(blueprint, found.recipe)
    if found.value is None:
        assert getattr(found.recipe, what) == min(step, 1000)
        assert found.answer.peak_bytes > budget
        return
    assert getattr(found.recipe, what) == found.value
    assert found.answer.peak_bytes <= budget
    if found.value != limit:
        assert int(found.value) % step == 0
        change: dict[str, Any] = {what: min(int(found.value) + step, int(limit or 0))}
        assert peak_of(blueprint, recipe._replace(**change)) > budget


@given(specs(), recipes)
@SETTINGS
def test_a_larger_rank_never_takes_less(spec: dict[str, Any], recipe: Recipe) -> None:
    assume(recipe.method in solve.RANKED)
    blueprint = invented(spec)
    try:
        assert peak_of(blueprint, recipe) <= peak_of(blueprint, recipe._replace(rank=recipe.rank + 1))
    except LlmcalcError:
        assume(False)


@pytest.mark.parametrize(
    ("command", "key", "step"),
    [
        ("llama3.2-1b --gpu rtx4090 --solve micro-batch", "micro_batch", 1),
        ("llama3.2-1b --gpu rtx4090 --solve seq", "seq", 64),
        ("llama3.2-1b --gpu rtx4090 --solve seq --attention eager --method lora", "seq", 64),
        ("llama3-8b --gpu rtx4090 --solve seq --method lora --precision amp", "seq", 64),
        ("llama3-8b --gpu rtx4090 --solve rank --method qlora --targets all --precision amp --recompute full --seq 4k", "rank", 1),
        ("t5-large --gpu a100-40 --solve micro-batch --precision amp", "micro_batch", 1),
    ],
)
def test_put_again_it_agrees(command: str, key: str, step: int, run: Run) -> None:
    """The result at the solution is that of the plain question, and the plain question with more does not fit."""
    words = command.split()
    at = words.index("--solve")
    plain = words[:at] + words[at + 2 :] + ([] if "--method" in words else ["--method", "full"])
    outcome = run("train", *words, "--json")
    (result,) = outcome.results
    assert outcome.code == 0
    assert 0 < result["solved"] < result["solve_limit"]
    option = f"--{key.replace('_', '-')}"
    again = run("train", *plain, option, str(result[key]), "--json").results[0]
    assert {**again, "solved": result["solved"], "solve_limit": result["solve_limit"]} == result
    assert (result["solved"], result["fits"]) == (result[key], True)
    more = run("train", *plain, option, str(result[key] + step), "--json")
    assert (more.code, more.results[0]["fits"]) == (1, False)


@pytest.mark.parametrize(
    ("command", "solved", "limit", "note"),
    [
        ("gpt2 --gpu h100-sxm --solve seq", 1024, 1024, "up to 1,024, which fits"),
        ("gpt2 --gpu h100-sxm --solve seq --seq 1000", 1000, 1000, "up to 1,000, which fits"),
        ("gpt2 --gpu h100-sxm --solve rank --method lora", 768, 768, "up to 768, which fits"),
        ("gpt2 --gpu h100-sxm --solve rank --method adapter", 768, 768, "up to 768, which fits"),
        ("gpt2 --gpu h100-sxm --solve rank --method prefix --seq 64", 1024, 1024, "up to 1,024, which fits"),
        ("llama3-8b --gpu h100-sxm --solve method", "full", None, "of full, lora, qlora the first that fits"),
        ("llama3-8b --gpu rtx4090 --solve method --recompute full", "lora", None, "the first that fits"),
        ("llama3-8b --gpu rtx4090 --solve method --precision amp", "qlora", None, "the first that fits"),
        # Every linear, where nobody asked for some and latent attention has neither q nor v.
        ("deepseek-v2-lite --gpu a100-80 --solve method --recompute full", "lora", None, "the first that fits"),
    ],
)
def test_solutions(command: str, solved: int | str, limit: int | None, note: str, run: Run) -> None:
    outcome = run("train", *command.split(), "--json")
    (result,) = outcome.results
    assert (outcome.code, result["solved"], result["solve_limit"], result["fits"]) == (0, solved, limit, True)
    assert any(note in said for said in outcome.json["notes"])


@pytest.mark.parametrize(
    ("command", "key", "smallest"),
    [
        ("llama3-8b --gpu rtx4090 --solve micro-batch", "micro_batch", 1),
        ("llama3-8b --gpu rtx4090 --solve seq", "seq", 64),
        ("llama3-70b --gpu rtx4090 --solve rank --method lora", "rank", 1),
        ("llama3-70b --gpu rtx4090 --solve method", "method", "qlora"),
        # Megatron's precision trains all weights or nothing.
        ("llama3-8b --gpu rtx4090 --solve method --precision megatron", "method", "full"),
    ],
)
def test_nothing_fits(command: str, key: str, smallest: int | str, run: Run) -> None:
    outcome = run("train", *command.split(), "--json")
    (result,) = outcome.results
    assert (outcome.code, result["solved"], result["fits"], result[key]) == (1, None, False, smallest)
    assert "none" in run("train", *command.split()).out


def test_over_the_catalogue(run: Run) -> None:
    outcome = run("train", "--family", "gpt2", "--gpu", "rtx4090", "--solve", "micro-batch", "--json")
    solved = {result["model"]: result["solved"] for result in outcome.results}
    assert outcome.code == 0
    assert solved["gpt2"] > solved["gpt2-medium"] > solved["gpt2-large"] > 0
    assert "largest micro-batch" in run("train", "--family", "gpt2", "--gpu", "rtx4090", "--solve", "micro-batch").out


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("gpt2 --solve seq", "--solve seq needs a GPU to fit into"),
        ("gpt2 --gpu h100-sxm --solve micro-batch --micro-batch 2", "leave --micro-batch out"),
        ("gpt2 --gpu h100-sxm --solve rank --rank 2 --method lora", "leave --rank out"),
        ("gpt2 --gpu h100-sxm --solve method --method lora", "leave --method out"),
        ("gpt2 --gpu h100-sxm --solve rank", "--solve rank needs a method that has one: --method lora"),
        ("gpt2 --gpu h100-sxm --solve rank --method ln", "--solve rank needs a method that has one"),
        ("--family gpt2 --methods", "--methods compares the ways to train a model: name one"),
        ("gpt2 --gpu h100-sxm --targets q,w", "gpt2 has no w to adapt"),
        ("gpt2 --gpu h100-sxm --solve method --targets q,w", "gpt2 has no w to adapt"),
    ],
)
def test_mistakes(command: str, expected: str, run: Run) -> None:
    outcome = run("train", *command.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert expected in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_engine_refuses_a_rank_that_is_none() -> None:
    blueprint = resolve.model("gpt2").blueprint
    with pytest.raises(UsageError, match="--solve rank is for --method lora"):
        solve.rank(solve.Ask(blueprint, Layout()), Recipe(64), GIB, blueprint)


def test_the_ways_to_train(run: Run) -> None:
    """A GPU and no method: the answer for full, as ever, and each way beside it, which the plain question confirms."""
    arguments = ["train", "llama3-8b", "--gpu", "rtx4090", "--seq", "1k"]
    outcome = run(*arguments, "--json")
    (result,) = outcome.results
    named = run(*arguments, "--method", "full", "--json").results[0]
    assert outcome.code == 1
    assert named["methods"] == []
    assert {**result, "methods": []} == named
    ways = result["methods"]
    assert len(ways) == 10
    for way in ways:
        options = ["--method", way["method"], "--precision", way["precision"], "--optimizer", way["optimizer"]]
        options += ["--recompute", way["recompute"], "--json"]
        again = run(*arguments, *options).results[0]
        assert {key: again[key] for key in ("peak_bytes", "fits", "trainable", "required_bytes")} == {
            key: way[key] for key in ("peak_bytes", "fits", "trainable", "required_bytes")
        }
        (longest,) = run("train", "llama3-8b", "--gpu", "rtx4090", *options, "--solve", "seq").results
        assert longest["solved"] == way["max_seq"]
    fits = {(way["method"], way["recompute"]): way["max_seq"] for way in ways}
    assert fits["full", "full"] is None
    assert 0 < fits["lora", "none"] < fits["lora", "full"] < fits["qlora", "full"]
    assert all(way["targets"] == (["q", "v"] if "lora" in way["method"] else []) for way in ways)
    out = run(*arguments).out
    assert "llama3-8b on rtx4090: ways to train, 1 x 1,024 tokens" in out
    assert f"{fits['qlora', 'none']:,}" in out


def test_ways_without_a_gpu_or_beside_a_method(run: Run) -> None:
    ways = run("train", "gpt2", "--methods", "--precision", "fp32", "--json").results[0]["methods"]
    assert {(way["fits"], way["max_seq"]) for way in ways} == {(None, None)}
    beside = run("train", "gpt2", "--methods", "--method", "lora", "--gpu", "rtx4090", "--json").results[0]
    assert (beside["method"], len(beside["methods"])) == ("lora", 10)
    latent = run("train", "deepseek-v2-lite", "--methods", "--json").results[0]["methods"]
    assert [way["targets"] for way in latent if way["method"] == "lora"] == [["all"], ["all"]]


@pytest.mark.parametrize(
    ("method", "rank", "title"), [("lora", 8, "lora of rank 8"), ("ia3", None, "ia3, bf16"), ("ln", None, "ln, bf16")]
)
def test_a_rank_is_named_where_there_is_one(method: str, rank: int | None, title: str, run: Run) -> None:
    arguments = ["train", "llama3.2-1b", "--method", method]
    assert run(*arguments, "--json").results[0]["rank"] == rank
    assert title in run(*arguments).out


def test_nobody_watches(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcalc.cli.train_solve.QUIET_SECONDS", 0.0)
    assert run("train", "gpt2", "--gpu", "h100-sxm", "--solve", "seq").err == ""


def test_somebody_watches(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcalc.cli.train_solve.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    outcome = run("train", "gpt2", "--gpu", "h100-sxm", "--solve", "seq", "--json")
    assert json.loads(outcome.out)["results"][0]["solved"] == 1024
    assert "full, 1 x 64 tokens ..." in outcome.err
    assert outcome.err.endswith("\r\x1b[K")


@given(specs(), recipes, st.integers(1, 400))
@SETTINGS
def test_the_course_of_a_step(spec: dict[str, Any], recipe: Recipe, most: int) -> None:
    """Its highest points are the peaks, its parts are theirs; forward ends with what is kept for backward."""
    blueprint = invented(spec)
    try:
        answer = training.count(blueprint, recipe)
    except LlmcalcError:
        assume(False)
        return
    found = train_trace.course(blueprint, recipe, most)
    totals, starts = found.totals, found.starts
    bounds = [*starts.values(), len(totals)]
    assert [*starts] == ["forward", "backward", "step"]
    assert {phase: max(totals[a:b]) for phase, a, b in zip(starts, bounds, bounds[1:], strict=False)} == answer.peaks
    assert answer.parts in [dict(zip(found.parts, sizes, strict=True)) for sizes in zip(*found.parts.values(), strict=True)]
    assert all(min(sizes) >= 0 for sizes in found.parts.values())
    assert starts["backward"] <= most
    assert found.parts["activations"][starts["backward"]] >= 0
    whole = train_trace.course(blueprint, recipe, 10**9)
    assert whole.parts["activations"][whole.starts["backward"]] == answer.activation_bytes


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("gpt2 --plot step.pdf", "--plot step.pdf: found '.pdf', allowed: .svg, .png"),
        ("gpt2 --plot step", "allowed: .svg, .png"),
        ("gpt2 gpt2-medium --plot step.svg", "--plot draws one step: name one model"),
        ("--family gpt2 --plot step.svg", "--plot draws one step: name one model"),
    ],
)
def test_what_is_not_drawn(command: str, expected: str, run: Run) -> None:
    outcome = run("train", *command.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert expected in outcome.err


def test_without_matplotlib(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("llmcalc.cli.train_plot.import_module", absent)
    outcome = run("train", "gpt2", "--plot", str(tmp_path / "step.svg"))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "llmcalc: --plot needs matplotlib: pip install 'llmcalc-sizing[plot]'\n"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("form", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
@pytest.mark.parametrize(
    "options", ["", "--gpu rtx4090 --method lora", "--precision megatron --unit GB", "--gpu h100-sxm --solve seq"]
)
def test_a_picture(form: str, magic: bytes, options: str, run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = [tmp_path / f"{name}.{form}" for name in ("one", "two")]
    for file in files:
        outcome = run("train", "gpt2", *options.split(), "--plot", str(file), "--json")
        assert (outcome.code, outcome.err) == (0, "")
    one, two = (file.read_bytes() for file in files)
    assert one.startswith(magic)
    assert one == two


def test_a_picture_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    outcome = run("train", "gpt2", "--plot", str(tmp_path / "absent" / "step.png"))
    assert (outcome.code, outcome.out) == (2, "")
    assert "No such file or directory" in outcome.err
