"""The page of errors, and what it must say."""

from collections import Counter

import pytest

from tests import peaks
from tests.accuracy import GROUPS, INVENTED, PAGE, exceptions, page
from tests.conftest import records
from tests.figures import Figure, figures


def test_the_page_is_what_the_rows_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.accuracy writes it anew"


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("models", "models.jsonl"), ("counts", "counts.jsonl"), ("configs", "real_configs.jsonl"),
        ("steps", "training-memory.jsonl"), ("peaks", "training-memory.jsonl"), ("adapters", "peft.jsonl"),
        ("files", "inference_sizes.jsonl"),
    ],
)  # fmt: skip
def test_no_row_is_left_out(group: str, name: str) -> None:
    rows = {row.get("id", row.get("model")) for row in records(name)}
    assert {figure.row for figure in figures() if figure.group == group} == rows


def test_as_many_as_there_are() -> None:
    """Where ids are not unique, or some rows are not of the catalogue."""
    found = Counter(figure.group for figure in figures())
    assert found["measured"] == len(peaks.MEGATRON) + len(peaks.MEASURED) - len(peaks.left_out())
    assert found["saved"] == len(records("saved.jsonl"))
    assert found["caches"] == 6 * sum("kv" in row for row in records("models.jsonl"))
    assert {f.row for f in figures() if f.group == "runtimes"} == {row["id"] for row in records("inference.jsonl") if row["ours"]}
    assert set(found) == set(GROUPS)


def test_exact_is_exact() -> None:
    """Counts and bytes that follow from the architecture, beside an exact truth."""
    exact = ("models", "caches", "counts", "configs", "steps", "adapters")
    assert [figure for figure in figures() if figure.group in exact and figure.error] == []


def test_what_differs_among_invented_models_has_a_reason() -> None:
    """But for one, of a type that the oracle could not be asked about."""
    lines = list(exceptions())[2:]
    assert {line.split(" | ")[0].removeprefix("| ") for line in lines} <= set(INVENTED.values())
    assert [line.split(" | ")[1] for line in lines if "not explained" in line] == ["qwen4_exp_text"]


@pytest.mark.parametrize(
    ("ours", "truth", "of", "error", "same"),
    [
        (100, 100, 0, 0, True), (101, 100, 0, 0.01, False), (99, 100, 200, -0.005, False), (0, 0, 0, 0, True),
        (1, 0, 0, float("inf"), False), (0.6249, 0.62, 0, 0.0049 / 0.62, True), (0.6251, 0.62, 0, 0.0051 / 0.62, False),
    ],
)  # fmt: skip
def test_errors(ours: float, truth: float, of: float, error: float, same: bool) -> None:
    figure = Figure("models", "a row", "a figure", ours, truth, of=of)
    assert figure.error == pytest.approx(error)
    assert figure.same is same
