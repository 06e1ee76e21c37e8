"""Measured speeds beside what llmcalc makes of them.

    python -m tests.speed        writes docs/speed.md anew

A row of ``tests/data/inference_speed.jsonl`` has figures that were measured, and the model, GPU, quantisation and runtime that they
are of in our names. Every other row, in the order of their ids within a source, is what ``benchmarks/fit_speed.py`` fits the
efficiencies on; the others are only scored.
"""

import re
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from llmcalc import resolve
from llmcalc.engines.roofline import Roofline, Work
from llmcalc.engines.speed import Efficiency, Machine, speed
from llmcalc.resolve import efficiency, machine
from tests.conftest import DATA, records

ROWS = records("inference_speed.jsonl")
PAGE = DATA.parents[1] / "docs" / "speed.md"


class Remembering(Roofline):
    """A roofline that answers the same question once: a fit asks it many thousand times."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.known: dict[tuple[Any, ...], Work] = {}

    def decode(self, context: float, batch: int = 1, tokens: int = 1) -> Work:
        key = ("decode", context, batch, tokens)
        if key not in self.known:
            self.known[key] = super().decode(context, batch, tokens)
        return self.known[key]

    def prefill(self, start: int, tokens: int, batch: int = 1) -> Work:
        key = ("prefill", start, tokens, batch)
        if key not in self.known:
            self.known[key] = super().prefill(start, tokens, batch)
        return self.known[key]


class Case(NamedTuple):
    """One measured figure: tokens per second that a prompt and an answer of so many tokens make."""

    row: dict[str, Any]
    what: str
    kind: str  # decode, prefill, request
    counted: str  # output, prompt, all: the tokens that are divided by the time
    prompt: int
    output: int
    measured: float
    fitted: bool

    def predicted(self, e: Efficiency | None = None) -> float:
        """The same in tokens per second of ours."""
        return self.predicted_and_range(e)[0]

    def predicted_and_range(self, e: Efficiency | None = None) -> tuple[float, tuple[float, float]]:
        """With the range that is printed beside it."""
        name, parallel, spec, in_turn = self.setting()
        e = e or efficiency(name, spec, self.row["our_quant"])
        roof = roofline(self.row["ours"], self.row["our_quant"], 1 if in_turn else parallel)
        found = speed(roof, machine(name, spec, self.row["our_quant"], parallel), e, self.prompt, self.output)
        if self.counted == "prompt":
            return found.prefill, e.prefill_range
        tokens = self.output + (self.prompt if self.counted == "all" else 0)
        return tokens / (found.ttft + self.output * found.tpot), e.decode_range

    def setting(self) -> tuple[str, int, Any, bool]:
        """Runtime, GPUs, the GPU's spec, and whether the GPUs work in turn."""
        name, spec = self.row["our_runtime"], resolve.gpu(self.row["our_gpu"]).spec
        return name, self.row.get("tp") or self.row["gpus"], spec, resolve.efficiencies(name, spec, self.row["our_quant"]).layers_in_turn


@cache
def blueprint(name: str) -> Any:
    """A model of the catalogue, or a sketch of one that it does not have."""
    kind, _, sketch = name.rpartition(":")
    return resolve.model(str(Path(DATA) / "sketches" / f"{sketch}.yaml") if kind else name).blueprint


@cache
def roofline(name: str, quant: str, ranks: int) -> Remembering:
    """What its passes cost."""
    return Remembering(blueprint(name), resolve.method(quant), "", "bf16", ranks)


@cache
def cases() -> tuple[Case, ...]:
    """Every figure that can be compared."""
    found, turn = [], {}
    for row in sorted(ROWS, key=lambda r: r["id"]):
        if "left_out" in row:
            continue
        source = "-".join(row["id"].split("-")[:2]) + row["use"][0]
        turn[source] = not turn.get(source, False)
        found += list(_of(row, turn[source]))
    return tuple(found)


def _of(row: dict[str, Any], fitted: bool) -> Iterator[Case]:
    for key, value in row["measured"].items():
        bench = re.fullmatch(r"(pp|tg)(\d+)_tok_s", key)
        if bench and bench[1] == "pp":
            yield Case(row, f"pp{bench[2]}", "prefill", "prompt", int(bench[2]), 1, value, fitted)
        elif bench:
            yield Case(row, f"tg{bench[2]}", "decode", "output", 1, int(bench[2]), value, fitted)
        elif key in ("gen_tok_s", "total_tok_s"):
            kind = "decode" if row["input_len"] == 1 else "request"
            counted = "output" if key == "gen_tok_s" else "all"
            yield Case(row, f"{row['input_len']}+{row['output_len']}", kind, counted, row["input_len"], row["output_len"], value, fitted)


def summary(found: list[Case]) -> tuple[int, float, float, float]:
    """How many, median and 90th percentile of the absolute error, and the share within 30%."""
    errors = sorted(abs(case.predicted() / case.measured - 1) for case in found)
    return (
        len(errors), statistics.median(errors), errors[min(len(errors) - 1, int(0.9 * len(errors)))],
        sum(e <= 0.3 for e in errors) / len(errors),
    )  # fmt: skip
