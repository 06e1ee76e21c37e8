"""Measured training steps beside what llmcalc makes of them.

    python -m tests.train_speed        writes docs/train-speed.md anew

A row of ``tests/data/throughput.jsonl`` has a step that was measured, with its settings in our names, or why it is left out. Of
each kind of row (GPU, kernels, precision, experts or not) every other one, in the order of a hash of their ids, is what
``benchmarks/fit_train_speed.py`` fits the efficiencies on; the others are only scored.
"""

import hashlib
import json
import re
import statistics
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from llmcalc import hardware
from llmcalc.blueprint.lower import lower
from llmcalc.engines.layout import Layout
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.step_time import Clock, StepTime
from llmcalc.engines.step_work import StepWork
from llmcalc.specs import catalogue, read, train_efficiency, validate
from tests.conftest import DATA, records

ROWS = records("throughput.jsonl")
PAGE = DATA.parents[1] / "docs" / "train-speed.md"


class Case(NamedTuple):
    """A step that was measured: seconds."""

    row: dict[str, Any]
    measured: float
    fitted: bool

    @property
    def settings(self) -> str:
        """The row's id without the release of a container: runs that differ in nothing else share a half."""
        return re.sub(r"^mbridge-[\d.]+-", "", str(self.row["id"]))

    @property
    def layout(self) -> Layout:
        """As the row says; what is left of the GPUs is data parallelism."""
        row = self.row
        tp, pp, cp, chunks = (row.get(key, 1) for key in ("tp", "pp", "cp", "chunks"))
        dp = row["gpus"] // (tp * pp * cp)
        return Layout(
            tp, pp, dp, cp, row.get("ep", 1), row["zero"], row.get("sequence_parallel", False),
            "interleaved" if chunks > 1 else "1f1b", chunks, row["global_batch"] // (dp * row["micro_batch"]),
        )  # fmt: skip

    @property
    def recipe(self) -> Recipe:
        """As the row says."""
        row = self.row
        return Recipe(
            row["seq"], row["micro_batch"], row["kernels"], attention=row.get("attention", "flash"),
            recompute=row.get("recompute", "none"), method=row.get("method", "full"), loss=row.get("loss", "plain"),
        )  # fmt: skip

    @property
    def work(self) -> StepWork:
        """The model at the row's length."""
        return work(self.row.get("ours", ""), self.row.get("layers", 0), self.row.get("spec", ""), self.row["seq"])

    @property
    def routed(self) -> bool:
        """Whether the model has routed experts."""
        return any(kind.routed for kind in self.work.kinds)

    def predicted(self) -> StepTime:
        """Ours."""
        card = hardware.gpu(self.row["gpu"])
        trainer = hardware.trainer(card, self.row["precision"], megatron=self.row["kernels"] == "megatron")
        return Clock(self.work, trainer.machine, trainer.efficiency).time(self.recipe, self.layout)


@cache
def work(ours: str, layers: int, spec: str, seq: int) -> StepWork:
    """A model of the catalogue (with most of its layers taken out), or one that a row spells out."""
    if not spec:
        data = dict(catalogue.entries("models")[ours].data)
        spec = json.dumps({**data, "layers": layers} if layers else data)
    return StepWork(lower(validate.validate(read.parse(spec, "row.yaml"), "models"), ours or "spec"), seq)


def _seconds(row: dict[str, Any]) -> float:
    measured = row["measured"]
    if "step_seconds" in measured:
        return float(measured["step_seconds"])
    if "tokens_per_second_per_gpu" in measured:
        return float(row["global_batch"] * row["seq"] / (measured["tokens_per_second_per_gpu"] * row["gpus"]))
    forward = work(row.get("ours", ""), 0, row.get("spec", ""), row["seq"]).forward_flops(causal=True)
    return float(3 * forward * row["global_batch"] / (measured["model_flops_per_second_per_gpu"] * row["gpus"]))


@cache
def cases() -> tuple[Case, ...]:
    """Every step that can be compared."""
    all_ = [Case(row, _seconds(row), fitted=False) for row in ROWS if "left_out" not in row]
    kinds: dict[str, dict[str, None]] = {}
    for case in all_:
        kinds.setdefault(kind_of(case), {})[case.settings] = None
    fitted = {
        settings
        for names in kinds.values()
        for settings in sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[::2]
    }
    return tuple(case._replace(fitted=case.settings in fitted) for case in all_)


def summary(found: list[Case]) -> tuple[int, float, float, float]:
    """How many, median and 90th percentile of the absolute error of the time, and the share within 20%."""
    errors = sorted(abs(case.predicted().seconds / case.measured - 1) for case in found)
    return (
        len(errors), statistics.median(errors), errors[min(len(errors) - 1, int(0.9 * len(errors)))],
        sum(e <= 0.2 for e in errors) / len(errors),
    )  # fmt: skip


def kind_of(case: Case) -> str:
    """What a row is a case of: class of GPU, precision, dense or with experts."""
    card = hardware.gpu(case.row["gpu"])
    kernels = "megatron" if case.row["kernels"] == "megatron" else "torch"
    name = train_efficiency.find(card.name, card.spec, kernels, "16-bit").name.partition(",")[0]
    return f"{name}, {kernels}, {case.row['precision']}, {'experts' if case.routed else 'dense'}"


INTRO = """# Measured training steps, and what llmcalc makes of them

Every published step time or throughput whose settings are known, beside ours; what is left out stands at the end. Written by
`python -m tests.train_speed` from `tests/data/throughput.jsonl`, which names the source of each row; a test holds the page to it.

A step is the work of the slowest pipeline stage, its messages, the bubble, and the optimizer (`llmcalc/engines/step_time.py`,
[conventions](conventions.md#time-of-a-training-step)). The shares of the peaks that training reaches are fitted by
`python -m benchmarks.fit_train_speed` on half of the rows and scored on the other half: of each kind of row every other one, in
the order of a hash of their ids, runs that differ in nothing but the release of a container together. Nothing is fitted per
model. What is minimised is the mean of |log(ours / measured)|, cut off at log 2. Errors are of the time of a step.
"""
EFFICIENCIES = """
## Efficiencies

Shares of the dense rate that 16-bit products reach (`fp8`, `fp4`: of their own rates), what of that products of routed experts
reach, shares of the 16-bit rate that flash attention and the scan of recurrent mixers reach, of the bandwidth, and of the links'
rates; `hidden` is the share of ZeRO's messages that runs behind computation, `tensor_hidden` that of tensor parallelism's. `layer`
is the least time that a layer's kernels take to be launched, forward and backward, `routing` what a layer with routed experts takes
more: with a small micro-batch that decides. Fitted values are effective: what a term leaves out is in its neighbour.
"""


def percent(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f}%"


def scores() -> Iterator[str]:
    """The errors of both halves."""
    yield "| kind | half | steps | median error | 90th percentile | within 20% | measured / ours, median |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    kinds = sorted({kind_of(case) for case in cases()})
    for kind in ("all", *kinds):
        for fitted in (True, False):
            found = [c for c in cases() if c.fitted is fitted and kind in ("all", kind_of(c))]
            if found:
                count, middle, most, within = summary(found)
                ratio = statistics.median(case.measured / case.predicted().seconds for case in found)
                yield (f"| {kind} | {'fitted' if fitted else 'other'} | {count} | {percent(middle)} | {percent(most)} | "
                       f"{percent(within)} | {ratio:.2f} |")  # fmt: skip


def constants() -> Iterator[str]:
    """Every efficiency, fitted or stated."""
    data = train_efficiency.data()
    yield "| class | fitted | stated | network of a GPU | |"
    yield "| --- | --- | --- | ---: | --- |"
    yield f"| all | {_values(data['fitted'])} | {_values(data['stated'])} | | {data['stated_why']} |"
    for part in data["classes"]:
        fitted = _values({**part["fitted"], **part["rates"]})
        yield f"| {part['name']} | {fitted} | {_values(part['stated'])} | {part['network_gb_s']:g} GB/s | {part.get('note', '')} |"
    yield ""
    yield f"Networks are {data['networks_why']}."
    low, high = data["range_of_other_gpus"]["range"]
    dense, routed = (f"{data[key][0]} to {data[key][1]}" for key in ("spread", "experts_spread"))
    yield (
        f"A step takes {dense} times the likely time (10th to 90th percentile of measured / ours, of steps that are only scored), "
        f"with routed experts {routed} times; on a GPU that nobody measured {low} to {high} times "
        f"({data['range_of_other_gpus']['why']})."
    )


def _values(values: dict[str, float]) -> str:
    shown = {k.removesuffix("_seconds"): f"{1e3 * v:.3g} ms" if k.endswith("_seconds") else f"{v:g}" for k, v in values.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def table() -> Iterator[str]:
    """Every step."""
    columns = ("row", "on", "layout", "measured, s", "ours, s", "from, to", "measured / ours", "MFU", "bubble", "bound", "half",
               "assumed", "why")  # fmt: skip
    yield f"| {' | '.join(columns)} |"
    yield "| --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: | --- | --- | --- | --- |"
    for case in cases():
        row, step, layout = case.row, case.predicted(), case.layout
        ratio = case.measured / step.seconds
        degrees = {"tp": layout.tp, "pp": layout.pp, "v": layout.chunks, "cp": layout.cp, "ep": layout.ep, "dp": layout.dp}
        said = " ".join(f"{name} {ranks}" for name, ranks in degrees.items() if ranks > 1) or "one"
        zero = "" if layout.level == 0 else " fsdp" if layout.zero == "fsdp" else f" ZeRO-{layout.zero}"
        cells = (
            row["id"], f"{row['gpus']} x {row['gpu']}, {row['precision']}",
            f"{said}{zero}, {layout.micro_batches} x {row['micro_batch']}", f"{case.measured:.4g}", f"{step.seconds:.4g}",
            f"{step.low:.4g} to {step.high:.4g}", f"{ratio:.2f}", percent(step.mfu()), percent(step.bubble_share), step.bound,
            "fitted" if case.fitted else "other", row.get("assumed", ""), row.get("why", "") if far(ratio) else "",
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def far(ratio: float) -> bool:
    """Whether a row is so far off that it wants a reason."""
    return not 1 / 1.3 <= ratio <= 1.3


def page() -> str:
    """The page."""
    left = (f"| {row['id']} | {row['model']} | {row['left_out']} |" for row in ROWS if "left_out" in row)
    parts: list[str] = [INTRO, "## How far off\n", *scores(), EFFICIENCIES, *constants(), "\n## Steps\n", *table()]
    return "\n".join([*parts, "\n## Left out\n", "| row | model | why |", "| --- | --- | --- |", *left, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
