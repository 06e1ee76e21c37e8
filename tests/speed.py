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

from llmcalc import hardware, resolve
from llmcalc.engines.roofline import Roofline, Work
from llmcalc.engines.speed import Efficiency, speed
from llmcalc.specs import efficiency
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
        card, name, quant = hardware.gpu(self.row["our_gpu"]), self.row["our_runtime"], self.row["our_quant"]
        e = e or hardware.efficiency(name, card, quant)
        machine = hardware.machine(name, card, quant, self.row.get("tp") or self.row["gpus"])
        roof = roofline(self.row["ours"], quant, machine.ranks)
        found = speed(roof, machine, e, self.prompt, self.output)
        if self.counted == "prompt":
            return found.prefill, e.prefill_range
        tokens = self.output + (self.prompt if self.counted == "all" else 0)
        return tokens / (found.ttft + self.output * found.tpot), e.decode_range


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
    found: list[Case] = []
    turn: dict[str, bool] = {}
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
            yield Case(
                row, f"{row['input_len']}+{row['output_len']}", kind, counted, row["input_len"], row["output_len"], value, fitted
            )


def summary(found: list[Case]) -> tuple[int, float, float, float]:
    """How many, median and 90th percentile of the absolute error, and the share within 30%."""
    errors = sorted(abs(case.predicted() / case.measured - 1) for case in found)
    return (
        len(errors), statistics.median(errors), errors[min(len(errors) - 1, int(0.9 * len(errors)))],
        sum(e <= 0.3 for e in errors) / len(errors),
    )  # fmt: skip


INTRO = """# Measured speeds, and what llmcalc makes of them

Every published speed that names its model, GPU and runtime, beside ours, and nothing left out. Written by `python -m tests.speed`
from `tests/data/inference_speed.jsonl`, which names the source of each row; a test holds the page to it.

A pass takes as long as its slower side, memory or arithmetic, plus what neither hides: all-reduces under tensor parallelism and
a fixed time per layer (`llmcalc/engines/speed.py`). The shares of the peaks that a runtime reaches on a class of GPUs are fitted by
`python -m benchmarks.fit_speed` on half of the rows (every other one, in the order of their ids within a source) and scored on the
other half. Nothing is fitted per model. What is minimised is the mean of |log(ours / measured)|, cut off at log 2.

Decode is one answer from an empty prompt; prefill a prompt from an empty cache; a request is both, and counts the time of both.
"""
EFFICIENCIES = """
## Efficiencies

Shares of the bandwidth for weights and for the cache, of the dense rate, and the time that each layer adds. Those of formats
are factors. `score_bytes` are moved for each score of a head in a prompt without flash attention; `hop` is the time from one GPU's
layers to the next one's. Stated values are assumptions: `expert_tile` is the rows of an expert that a kernel computes in vain
(half of a tile of 128 in llama.cpp, a small tile in Triton), `reduce` the latency of an all-reduce. In transformers the small share
of the cache is what `DynamicCache` makes of it: it is copied with each token.
"""
KINDS = ("decode", "prefill", "request")


def percent(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f}%"


def scores() -> Iterator[str]:
    """The errors of both halves."""
    yield "| figure | runtime | half | figures | median error | 90th percentile | within 30% | of predicted, 10th to 90th |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |"
    for kind in KINDS:
        for name in ("", *efficiency.runtimes()):
            for fitted in (True, False):
                found = [c for c in cases() if (c.kind, c.fitted) == (kind, fitted) and name in ("", c.row["our_runtime"])]
                if found:
                    count, middle, most, within = summary(found)
                    ratios = statistics.quantiles([c.predicted() / c.measured for c in found], n=10, method="inclusive")
                    yield (f"| {kind} | {name or 'all'} | {'fitted' if fitted else 'other'} | {count} | {percent(middle)} | "
                           f"{percent(most)} | {percent(within)} | {ratios[0]:.2f} to {ratios[-1]:.2f} |")  # fmt: skip


def fitted_values() -> Iterator[str]:
    """Every efficiency, fitted or stated."""
    yield "| runtime | class | fitted | stated | computes at the rate of |"
    yield "| --- | --- | --- | --- | --- |"
    for name, part in efficiency.runtimes().items():
        if "like" in part:
            yield f"| {name} | as {part['like']} | | | |"
            continue
        yield f"| {name} | all | {_values(part['fitted'])} | {_values(part['stated'])} | |"
        for each in part["classes"]:
            note = f" ({each['note']})" if each.get("note") else ""
            yield f"| {name} | {each['name']}{note} | {_values(each['fitted'])} | {_values(each['stated'])} | {each['rate']} |"
        for each in part["formats"]:
            yield f"| {name} | factors for {each['name']} | {_values(each['fitted'])} | | |"


def _values(values: dict[str, float]) -> str:
    shown = {
        k.removesuffix("_seconds"): f"{1e6 * v:.3g} us" if k.endswith("_seconds") and v < 0.1 else f"{v:g}"
        for k, v in values.items()
    }
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def table(kind: str) -> Iterator[str]:
    """Every figure of a kind."""
    yield "| row | model | on | figure | measured | ours | range | ours / measured | half | why |"
    yield "| --- | --- | --- | --- | ---: | ---: | --- | ---: | --- | --- |"
    for case in cases():
        if case.kind != kind:
            continue
        row, (ours, (low, high)) = case.row, case.predicted_and_range()
        ratio = ours / case.measured
        why = row.get("why", "") if abs(ratio - 1) > 0.3 else ""
        cells = (
            row["id"], f"{row['model']}, {row['our_quant']}", f"{row['gpus']} x {row['our_gpu']}, {row['our_runtime']}", case.what,
            f"{case.measured:,.4g}", f"{ours:,.4g}", f"{ours * low:,.4g} to {ours * high:,.4g}", f"{ratio:.2f}",
            "fitted" if case.fitted else "other", why,
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def page() -> str:
    """The page."""
    left = (f"| {row['id']} | {row['model']} | {row['left_out']} |" for row in ROWS if "left_out" in row)
    parts: list[str] = [INTRO, "## How far off\n", *scores(), EFFICIENCIES, *fitted_values()]
    for kind in KINDS:
        parts += [f"\n## {kind.capitalize()}, tokens per second\n", *table(kind)]
    return "\n".join([*parts, "\n## Not comparable\n", "| row | model | why |", "| --- | --- | --- |", *left, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
