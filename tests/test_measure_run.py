"""Running the measurements: workers that answer, fail and hang, the time that is left, the table, and tiny cases on the CPU."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmcalc.cli.main import main as llmcalc
from tests.test_measure import ALL, HERE, STEP, TOKENS, made
from validation import cases, measure_gpu, rows, run, self_test, summary
from validation.cases import Case

Monkey = pytest.MonkeyPatch
WHERE = {name: HERE[name] for name in rows.PLACE}


def silent(_: str) -> None:
    """Says nothing."""


def answers(monkeypatch: Monkey, **by_kind: dict[str, Any]) -> list[str]:
    """Workers that answer by the kind of case; the ids they were asked, in order."""
    asked: list[str] = []

    def ask(what: str, device: str, limit: float) -> dict[str, Any]:
        assert device == "cuda"
        assert limit > 0
        case = Case(**json.loads(what))
        asked.append(case.id)
        row = made(case)
        return by_kind.get(case.kind, {"status": "ok", "reason": None, "measured": row["measured"]})

    monkeypatch.setattr(run, "ask", ask)
    return asked


def test_every_case_gets_a_row_and_is_not_run_again(monkeypatch: Monkey, tmp_path: Path) -> None:
    asked, file = answers(monkeypatch), tmp_path / "rows.jsonl"
    assert run.all_of(ALL[:3], WHERE, file, 1, 10, silent) == 0
    assert run.all_of(ALL[:5], WHERE, file, 1, 10, silent) == 0
    assert asked == [case.id for case in ALL[:5]]
    found = rows.load(file)
    assert [row["id"] for row in found] == asked
    assert all(rows.faults(row) == [] for row in found)
    assert found[0]["config"] == ALL[0].config


def test_what_gave_no_figures_is_counted(monkeypatch: Monkey, tmp_path: Path) -> None:
    broken = {"status": "failed", "reason": "forward: no kernel", "measured": {}}
    full = {"status": "oom", "reason": "forward: out of memory", "measured": {}}
    answers(monkeypatch, train=broken, decode=full)
    assert run.all_of([STEP, TOKENS], WHERE, tmp_path / "rows.jsonl", 1, 10, silent) == 1
    assert [row["status"] for row in rows.load(tmp_path / "rows.jsonl")] == ["failed", "oom"]


def test_a_row_with_a_fault_is_a_failure(monkeypatch: Monkey, tmp_path: Path) -> None:
    answers(monkeypatch, train={"status": "ok", "reason": None, "measured": {}})
    assert run.all_of([STEP], WHERE, tmp_path / "rows.jsonl", 1, 10, silent) == 1
    (row,) = rows.load(tmp_path / "rows.jsonl")
    assert row["status"] == "failed"
    assert "measured.losses is missing" in row["reason"]


def test_no_time_is_left(monkeypatch: Monkey, tmp_path: Path) -> None:
    asked, said = answers(monkeypatch), list[str]()
    assert run.all_of(ALL[:4], WHERE, tmp_path / "rows.jsonl", 0, 10, said.append) == 4
    assert asked == []
    assert "4 left" in said[-1]


def test_a_case_that_the_end_cut_off_has_no_row(monkeypatch: Monkey, tmp_path: Path) -> None:
    answers(monkeypatch, train={"status": "timeout", "reason": "no answer", "measured": {}})
    assert run.all_of([STEP], WHERE, tmp_path / "rows.jsonl", 1, 100, silent) == 1
    assert rows.load(tmp_path / "rows.jsonl") == []
    assert run.all_of([STEP], WHERE, tmp_path / "rows.jsonl", 10, 100, silent) == 1
    assert [row["status"] for row in rows.load(tmp_path / "rows.jsonl")] == ["timeout"]


def worker(monkeypatch: Monkey, folder: Path, lines: str) -> None:
    """A worker of these lines of shell; $5 is the file for its answer."""
    script = folder / "worker"
    script.write_text(f"#!/bin/sh\n{lines}\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


# (name, what the worker does, seconds it is given, status, what is said)
WORKERS: tuple[tuple[str, str, float, str, str], ...] = (
    ("answers", """echo '{"status": "ok", "reason": "as asked", "measured": {}}' > $5""", 60, "ok", "as asked"),
    ("dies", "echo 'first line' >&2; echo 'the last words' >&2; exit 9", 60, "failed", "exit 9: the last words"),
    ("is killed", "kill -9 $$", 60, "failed", "exit -9: said nothing"),
    ("hangs", "exec sleep 60", 0.2, "timeout", "no answer"),
    ("sees no network", """echo "offline=$HF_HUB_OFFLINE" >&2; exit 1""", 60, "failed", "offline=1"),
)


@pytest.mark.parametrize(("lines", "limit", "status", "said"), [each[1:] for each in WORKERS], ids=[each[0] for each in WORKERS])
def test_workers(monkeypatch: Monkey, tmp_path: Path, lines: str, limit: float, status: str, said: str) -> None:
    worker(monkeypatch, tmp_path, lines)
    answer = run.ask("{}", "cuda", limit)
    assert answer["status"] == status
    assert said in answer["reason"]


def test_without_a_card_nothing_is_measured(monkeypatch: Monkey, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worker(monkeypatch, tmp_path, "echo 'AssertionError: no CUDA here' >&2; exit 1")
    assert measure_gpu.main(["--out", str(tmp_path / "rows.jsonl")]) == 2
    assert capsys.readouterr().err == "cannot measure on cuda: exit 1: AssertionError: no CUDA here\n"
    assert not (tmp_path / "rows.jsonl").exists()


def test_the_command(monkeypatch: Monkey, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked, file = answers(monkeypatch), tmp_path / "rows.jsonl"
    monkeypatch.setattr(run, "place", lambda device: {**WHERE, "device": device})
    assert measure_gpu.main(["--out", str(file), "--only", "decode/pythia"]) == 0
    assert asked == [case.id for case in cases.chosen("decode/pythia")]
    assert measure_gpu.main(["--list", "--only", "decode/pythia"]) == 0
    assert capsys.readouterr().out.splitlines()[-len(asked) :] == asked
    assert measure_gpu.main(["--list", "--only", "no such case"]) == 2
    assert measure_gpu.main(["--summary", str(tmp_path / "no such file")]) == 2
    with pytest.raises(SystemExit) as stopped:
        measure_gpu.main([])
    assert stopped.value.code == 2


# The table

# (kernels that ran, attention of the case, what llmcalc is asked for)
KERNELS: tuple[tuple[list[str], str, str | None], ...] = (
    ([], "eager", "eager"),
    (["_scaled_dot_product_flash_attention"], "flash", "flash"),
    (["_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_backward"], "sdpa", "flash"),
    (["_scaled_dot_product_cudnn_attention"], "sdpa", "flash"),
    (["_grouped_mm", "_scaled_dot_product_efficient_attention"], "sdpa", "efficient"),
    (["_scaled_dot_product_attention_math"], "sdpa", None),
    ([], "sdpa", None),
)


@pytest.mark.parametrize(("called", "attention", "asked"), KERNELS)
def test_attention_that_is_asked_for(called: list[str], attention: str, asked: str | None) -> None:
    row = made(STEP._replace(attention=attention))
    row["measured"]["kernels"] = called
    assert summary.kernel(row) == asked
    if asked is None:
        assert summary.predicted(row) is None


def test_questions_name_every_choice() -> None:
    case = next(case for case in ALL if case.method == "lora" and case.recompute == "full")
    words = " ".join(summary.question(made(case), "c.json") or [])
    assert words.startswith("train c.json --seq 4096 --micro-batch 1 --precision amp --optimizer adamw --method lora")
    assert "--recompute full" in words
    assert "--rank 16 --targets q,v --adapter-dtype fp32" in words
    foreach = next(case for case in ALL if case.optimizer == "adamw-foreach")
    words = " ".join(summary.question(made(foreach), "c.json") or [])
    assert "--optimizer adamw --" in words
    assert words.endswith("--foreach")


def test_a_cache_is_predicted_to_the_byte() -> None:
    """2 tensors of 2 bytes, 24 layers, 2 heads of 64: qwen2.5-0.5b's config."""
    said = summary.predicted(made(TOKENS))
    assert said is not None
    assert said["kv_bytes"] == 2 * 2 * 24 * 2 * 64 * (TOKENS.seq + TOKENS.new_tokens) * TOKENS.micro_batch


def test_what_llmcalc_refuses_has_a_dash() -> None:
    row = made(TOKENS)
    row["config"] = {"model_type": "nobody knows this"}
    assert summary.predicted(row) is None
    assert summary.line(row, None)[6] == "-"


def test_workspaces_are_taken_off_and_errors_are_of_what_was_measured() -> None:
    line = summary.line(made(STEP), {"peak_bytes": 2156, "activation_bytes": 900})
    assert summary.measured(made(STEP)) == {"peak": 1960, "kept": 1000}
    assert (line[4], line[7], line[-1]) == ("+10.00%", "-10.00%", "12,346")
    assert summary.measured(made(STEP._replace(accumulate=4)))["kept"] is None


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    for row in (made(TOKENS), made(TOKENS, status="failed", reason="no kernel", gpu="Other GPU", measured={})):
        rows.append(file, row)
    assert measure_gpu.main(["--summary", str(file)]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["case", "status"]
    assert first.startswith(f"{TOKENS.id}  ok ")
    assert second.split()[1:3] == ["failed", "-"]
    assert measure_gpu.main(["--summary", str(file), "--only", "train/"]) == 2


def has_train() -> bool:
    """Whether this llmcalc sizes training."""
    try:
        llmcalc(["train", "--help"])
    except SystemExit as stopped:
        return not stopped.code
    return False


def test_every_case_can_be_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """llmcalc train takes the arguments of every case."""
    if not has_train():
        pytest.skip("llmcalc train is not there")
    for case in {case._replace(seq=128, micro_batch=1): case for case in ALL if case.kind == "train"}:
        row = made(case, measured={"kernels": ["_scaled_dot_product_efficient_attention"]})
        config = tmp_path / "config.json"
        config.write_text(json.dumps(case.config), encoding="utf-8")
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            llmcalc(summary.question(row, str(config)) or [])
        assert not stopped.value.code, capsys.readouterr().err


# With torch


def test_tiny_cases_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    assert self_test.main() == 0, capsys.readouterr().out


@pytest.mark.filterwarnings("default")
def test_peaks_of_phases_that_come_again(monkeypatch: Monkey) -> None:
    """The largest peak of each, what stood at the end of the last, and the largest of all."""
    torch = pytest.importorskip("torch")
    from validation.meters import Meter

    figures = iter([(5, 9), (6, 8), (7, 20), (3, 4)])

    def stats() -> dict[str, int]:
        held, peak = next(figures)
        return {"allocated_bytes.all.current": held, "allocated_bytes.all.peak": peak, "reserved_bytes.all.peak": 2 * peak}

    event = SimpleNamespace(record=lambda: None, elapsed_time=lambda _: 250.0)
    for name, fake in {
        "memory_stats": stats, "reset_peak_memory_stats": lambda: None, "synchronize": lambda: None,
        "Event": lambda enable_timing: event if enable_timing else None,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    meter = Meter("cuda")
    for name in ("forward", "forward", "backward", "step"):
        meter.start(name)
        meter.stop(name)
    assert meter.phases["forward"]["allocated_bytes"] == 6
    assert meter.phases["forward"]["peak_allocated_bytes"] == 9
    whole = meter.whole("forward", "backward", "step")
    assert (whole["allocated_bytes"], whole["peak_allocated_bytes"], whole["peak_reserved_bytes"]) == (3, 20, 40)
    assert whole["peak_requested_bytes"] is None
    assert meter.seconds("forward") == [0.25, 0.25]
