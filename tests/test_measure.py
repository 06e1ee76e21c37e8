"""Measurements on a GPU, as far as they can be tested without one: the table of cases, rows, and what is left to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import records
from validation import cases, rows, self_test
from validation.cases import DECODE, MODELS, TRAIN, Case

ALL = cases.cases()
HERE: rows.Row = dict.fromkeys(rows.PLACE) | {"device": "cuda", "gpu": "Some GPU", "torch": "2.13.0"}
RECORDED = {record["model"]: record for record in records("models.jsonl")}


def made(case: Case, **changed: Any) -> rows.Row:
    """A row as a card would give it, with figures that are easy to follow."""
    kind = case.kind
    points = {name: dict.fromkeys(rows.POINT, 100) for name in rows.POINTS}
    points |= {"workspace": dict.fromkeys(rows.POINT, 40), "ready": dict.fromkeys(rows.POINT, 1000)}
    phases = {name: dict.fromkeys(rows.PHASE, 2000) for name in rows.PHASES[kind]}
    rates = ("tokens_per_second",) if kind == TRAIN else ("prefill_tokens_per_second", "decode_tokens_per_second")
    measured: dict[str, Any] = {
        "model_class": RECORDED[case.model]["architecture"], "parameters": 7, "trainable": 7, "kernels": [], "losses": [2.0, 1.0],
        "cache_class": "DynamicCache", "cache_bytes": 512, "points": points, "phases": phases,
        "times": {f"{name}_seconds": 0.5 for name in rows.TIMES[kind]}, "rates": dict.fromkeys(rates, 12345.6),
    }  # fmt: skip
    measured = {name: measured[name] for name in rows.MEASURED[kind]}
    row = {
        "id": case.id, "status": "ok", "reason": None, "date": "2026-01-01T00:00:00+00:00", "seconds": 1.0,
        "case": case._asdict(), "config": case.config, **HERE, "measured": measured,
    }  # fmt: skip
    return {**row, **changed}


# The table of cases


@pytest.mark.parametrize("model", MODELS)
def test_models_are_those_that_were_published(model: str) -> None:
    """Totals and caches of the real classes: tests/data/README.md."""
    record = RECORDED[model]
    row = {"id": model, "config": MODELS[model][1], "measured": {"model_class": record["architecture"]}}
    assert self_test.parameters(row) == record["total"]


def test_models_stand_from_small_to_large() -> None:
    sizes = []
    for model, (layers, _) in MODELS.items():
        case = Case(TRAIN, model, layers)
        sizes.append(
            self_test.parameters({"id": model, "config": case.config, "measured": {"model_class": RECORDED[model]["architecture"]}})
        )
    assert sizes == sorted(sizes)
    assert max(sizes) * 16 < 64 * 2**30, "fp32 weights, gradients and states of the largest leave room on a card of 80 GB"


def test_cases_are_told_apart() -> None:
    assert len({case.id for case in ALL}) == len(set(ALL)) == len(ALL)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.id)
def test_cases_can_be(case: Case) -> None:
    assert case.kind in cases.KINDS
    assert case.precision in cases.PRECISIONS
    assert case.attention in cases.ATTENTIONS
    assert case.optimizer in cases.OPTIMIZERS
    assert case.method in cases.METHODS
    assert case.targets in cases.TARGETS
    assert (case.method == "lora") == (case.rank > 0) == bool(case.targets) == bool(case.adapter_dtype)
    assert (case.kind == DECODE) == (case.new_tokens > 0)
    longest: int = case.config["n_positions" if "n_positions" in case.config else "max_position_embeddings"]
    assert case.seq + case.new_tokens <= longest
    assert case.precision != "fp32" or case.attention != "flash", "that kernel knows no fp32"
    assert Case(**json.loads(json.dumps(case._asdict()))) == case


# (what every run should show, a test of a case)
WANTED: tuple[tuple[str, Any], ...] = (
    ("all in bf16", lambda c: c.precision == "bf16" and c.method == "full"),
    ("autocast over fp32", lambda c: c.precision == "amp" and c.method == "full"),
    ("fp32", lambda c: c.precision == "fp32"),
    ("adapters of q and v", lambda c: c.targets == "q,v" and c.rank == 16),
    ("adapters of all linears", lambda c: c.targets == "all" and c.rank == 16),
    ("8-bit states", lambda c: c.optimizer == "adamw8bit"),
    ("recomputation", lambda c: c.recompute == "full"),
    ("eager attention", lambda c: c.attention == "eager"),
    ("flash attention", lambda c: c.attention == "flash"),
    ("the kernel that torch takes", lambda c: c.attention == "sdpa" and c.kind == TRAIN),
    ("accumulation", lambda c: c.accumulate > 1),
    ("several sequences", lambda c: c.micro_batch > 1 and c.kind == TRAIN),
    ("decoding alone", lambda c: c.kind == DECODE and c.micro_batch == 1),
    ("decoding eight at once", lambda c: c.kind == DECODE and c.micro_batch == 8),
    ("experts", lambda c: "num_experts_per_tok" in c.config and c.layers > 0),
)


@pytest.mark.parametrize(("what", "holds"), WANTED, ids=[what for what, _ in WANTED])
def test_cases_cover(what: str, holds: Any) -> None:
    assert any(holds(case) for case in ALL), what


def test_layers_are_cut_in_the_config() -> None:
    assert Case(TRAIN, "llama3-8b", 4).config["num_hidden_layers"] == 4
    assert Case(TRAIN, "gpt2-xl", 5).config["n_layer"] == 5
    assert MODELS["gpt2-xl"][1]["n_layer"] == 48


def test_patterns() -> None:
    assert {case.model for case in cases.chosen("gemma")} == {"gemma-2b"}
    assert all(case.kind == DECODE for case in cases.chosen("decode/*"))
    assert cases.chosen("*") == ALL
    assert cases.chosen("nothing is called so") == []


# Rows

STEP, TOKENS = next(case for case in ALL if case.kind == TRAIN), next(case for case in ALL if case.kind == DECODE)


@pytest.mark.parametrize("case", [STEP, TOKENS], ids=["train", "decode"])
def test_a_whole_row_has_no_fault(case: Case) -> None:
    assert rows.faults(made(case)) == []
    assert rows.faults(made(case, status="oom", reason="forward: no memory", measured={})) == []


def without(record: dict[str, Any], *path: str) -> dict[str, Any]:
    """A copy that lacks what stands at the path."""
    if len(path) == 1:
        return {name: value for name, value in record.items() if name != path[0]}
    return {**record, path[0]: without(record[path[0]], *path[1:])}


def with_null(record: dict[str, Any], *path: str) -> dict[str, Any]:
    """A copy with null at the path."""
    return {**record, path[0]: None if len(path) == 1 else with_null(record[path[0]], *path[1:])}


# (name, a row, what is said of it)
FAULTS: tuple[tuple[str, rows.Row, str], ...] = (
    ("no card", without(made(STEP), "gpu"), "gpu is missing"),
    ("unknown key", made(STEP) | {"extra": 1}, "extra is unknown"),
    ("status", made(STEP, status="fine"), "status 'fine'"),
    ("no reason", made(STEP, status="failed"), "says why"),
    ("no losses", without(made(STEP), "measured", "losses"), "measured.losses is missing"),
    ("no cache", without(made(TOKENS), "measured", "cache_bytes"), "measured.cache_bytes is missing"),
    ("no phase", without(made(STEP), "measured", "phases", "backward"), "measured.phases.backward.peak_allocated_bytes is missing"),
    ("no peak", with_null(made(STEP), "measured", "phases", "whole", "peak_allocated_bytes"), "peak_allocated_bytes is no number"),
    ("no driver", with_null(made(STEP), "measured", "points", "end", "cuda_used_bytes"), "end.cuda_used_bytes is no number"),
    ("no time", without(made(STEP), "measured", "times", "step_seconds"), "times.step is no time"),
)


@pytest.mark.parametrize(("row", "said"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS])
def test_faults(row: rows.Row, said: str) -> None:
    assert any(said in fault for fault in rows.faults(row)), rows.faults(row)


def test_older_releases_may_lack_requested_bytes() -> None:
    row = with_null(made(STEP), "measured", "phases", "whole", "peak_requested_bytes")
    assert rows.faults(with_null(row, "measured", "points", "end", "smi_used_bytes")) == []


def test_without_a_card_bytes_are_null() -> None:
    row = made(STEP, device="cpu")
    for group in ("points", "phases"):
        for name, record in row["measured"][group].items():
            row["measured"][group][name] = dict.fromkeys(record)
    assert rows.faults(row) == []
    assert rows.faults({**row, "device": "cuda"})


def test_rows_are_added_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert rows.load(file) == []
    rows.append(file, made(STEP))
    rows.append(file, made(TOKENS))
    assert rows.load(file) == [made(STEP), made(TOKENS)]


@pytest.mark.parametrize("tail", ['{"id": "cut o', '{"id"', "{"])
def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path, tail: str) -> None:
    file = tmp_path / "rows.jsonl"
    rows.append(file, made(STEP))
    with file.open("a", encoding="utf-8") as handle:
        handle.write(tail)
    assert rows.load(file) == [made(STEP)]
    rows.append(file, made(TOKENS))
    assert rows.load(file) == [made(STEP), made(TOKENS)]


def test_a_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(made(STEP)), encoding="utf-8")
    rows.append(file, made(TOKENS))
    assert rows.load(file) == [made(STEP), made(TOKENS)]


@pytest.mark.parametrize("text", ["{\n{}\n", "[]\n", "nonsense\n{}\n"])
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows.jsonl, line 1"):
        rows.load(file)


def test_no_row_holds_what_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        rows.append(tmp_path / "rows.jsonl", made(STEP, seconds=float("nan")))
    assert not (tmp_path / "rows.jsonl").exists()


# Going on

# (name, status of the row that is there, what differs in it, retry, whether the case is run)
GOING_ON: tuple[tuple[str, str, dict[str, Any], bool, bool], ...] = (
    ("done", "ok", {}, False, False),
    ("done, retry", "ok", {}, True, False),
    ("no memory is an answer", "oom", {}, True, False),
    ("failed", "failed", {}, False, False),
    ("failed, retry", "failed", {}, True, True),
    ("skipped, retry", "skipped", {}, True, True),
    ("timeout, retry", "timeout", {}, True, True),
    ("another card", "ok", {"gpu": "Other GPU"}, False, True),
    ("another torch", "ok", {"torch": "2.11.0"}, False, True),
    ("another peft", "ok", {"peft": "0.1"}, False, True),
    ("another date", "ok", {"date": "2020-01-01T00:00:00+00:00"}, False, False),
)


@pytest.mark.parametrize(("status", "other", "retry", "again"), [each[1:] for each in GOING_ON], ids=[each[0] for each in GOING_ON])
def test_what_is_left(status: str, other: dict[str, Any], retry: bool, again: bool) -> None:
    there = [made(STEP, status=status, **other)]
    assert rows.left([STEP, TOKENS], there, HERE, retry=retry) == ([STEP, TOKENS] if again else [TOKENS])


def test_the_last_row_of_a_measurement_counts() -> None:
    first, last = made(STEP, status="failed"), made(STEP)
    assert rows.latest([first, made(TOKENS), last]) == [last, made(TOKENS)]
    assert rows.left([STEP], [last, first], HERE, retry=True) == [STEP]
