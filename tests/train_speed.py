"""Measured training steps beside what llmcalc makes of them.

    python -m tests.train_speed        writes docs/train-speed.md anew

A row of ``tests/data/throughput.jsonl`` has a step that was measured, with its settings in our names, or why it is left out. Which half
it belongs to, the one that ``benchmarks/fit_train_speed.py`` fits on or the one that is only scored, a hash of its id says; runs that
differ in nothing but the release of a container share a half.
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
    found = []
    for row in ROWS:
        if "left_out" not in row:
            name = re.sub(r"^mbridge-[\d.]+-", "", row["id"])
            half = hashlib.sha256(name.encode()).digest()[-1] % 2
            found.append(Case(row, _seconds(row), half == 0))
    return tuple(found)


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
