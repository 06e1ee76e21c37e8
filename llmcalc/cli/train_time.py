"""The time of a training step as a result and a table: seconds, tokens a second, MFU, what it goes to and what bounds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcalc.engines.optimizers import PAGED
from llmcalc.errors import NoAnswer, UsageError

if TYPE_CHECKING:
    from llmcalc.blueprint.parts import Blueprint
    from llmcalc.engines.layout import Layout
    from llmcalc.engines.recipe import Recipe
    from llmcalc.engines.step_time import StepTime
    from llmcalc.hardware import Gpu, Trainer
    from llmcalc.report.document import Table

LABELS = {
    "products": "matrix products",
    "attention": "attention",
    "memory": "norms, activations, sums, logits",
    "host": "waiting for launches",
    "recompute": "computed again",
    "tensor": "messages of tensor parallelism",
    "context": "messages of context parallelism",
    "expert": "messages of expert parallelism",
    "data": "messages of data parallelism",
    "pipeline": "messages between stages",
    "optimizer": "optimizer",
    "bubble": "bubble of the pipeline",
}


KEYS = (
    "step_seconds", "step_seconds_low", "step_seconds_high", "step_tokens", "tokens_per_second_per_gpu",
    "tokens_per_second_per_gpu_low", "tokens_per_second_per_gpu_high", "mfu", "mfu_low", "mfu_high", "hfu", "bubble_share",
    "communication_seconds", "bound", "step_parts",
)  # fmt: skip
NOTHING: dict[str, Any] = dict.fromkeys(KEYS)


class Timer:
    """Times steps on a kind of GPU; without one, and where the time is not known, every figure is None.

    Raises UsageError for a rate that the GPU does not have. ``why`` says why there is no figure.
    """

    def __init__(self, card: Gpu | None, recipe: Recipe, objective: str) -> None:
        from llmcalc import hardware

        self.card, self.why = card, ""
        self.trainer: Trainer | None = None
        if card is None:
            return
        if objective != "sft":
            self.why = f"the time of a step of {objective} is not known: roll-outs and scoring are not in what was measured"
        else:
            try:
                precision = "fp32" if recipe.precision == "fp32" else "16-bit"
                self.trainer = hardware.trainer(card, precision, megatron=recipe.precision == "megatron")
            except UsageError as error:
                self.why = str(error)

    def time(self, blueprint: Blueprint, recipe: Recipe, layout: Layout) -> StepTime | None:
        """A step, by the causal mask; None where it is not known."""
        from llmcalc.engines.step_time import step_time

        if self.trainer is None:
            return None
        if layout.offload or recipe.optimizer.startswith(PAGED):
            self.why = "the time of a step that moves its states to the host is not known"
            return None
        try:
            return step_time(blueprint, recipe, layout, self.trainer.machine, self.trainer.efficiency)
        except NoAnswer as error:
            self.why = str(error)
            return None

    def notes(self, *, shown: bool, gpus: int) -> list[str]:
        """Where the time is from, or why there is none."""
        if self.why:
            return [f"no time: {self.why}"]
        return notes(self.card, self.trainer, gpus) if shown and self.card and self.trainer else []


def figures(found: StepTime | None) -> dict[str, Any]:
    """The keys of a result."""
    if found is None:
        return NOTHING
    each = found.tokens_per_second_per_gpu
    return {
        "step_seconds": found.seconds, "step_seconds_low": found.low, "step_seconds_high": found.high, "step_tokens": found.tokens,
        "tokens_per_second_per_gpu": each, "tokens_per_second_per_gpu_low": each * found.seconds / found.high,
        "tokens_per_second_per_gpu_high": each * found.seconds / found.low, "mfu": found.mfu(), "mfu_low": found.mfu(found.high),
        "mfu_high": found.mfu(found.low), "hfu": found.hfu, "bubble_share": found.bubble_share,
        "communication_seconds": found.parts.communication, "bound": found.bound, "step_parts": found.parts._asdict(),
    }  # fmt: skip


def table(found: StepTime, where: str) -> Table:
    """A line for each thing that the step's time goes to."""
    from llmcalc.report.document import Table

    rows = [
        (LABELS[name], _seconds(seconds), f"{100 * seconds / found.seconds:.1f}%")
        for name, seconds in found.parts._asdict().items()
        if seconds / found.seconds > 5e-4
    ]
    rows.append(("a step", _seconds(found.seconds), f"{_seconds(found.low)} to {_seconds(found.high)}"))
    each = found.tokens_per_second_per_gpu
    rows.append(("tokens per second and GPU", f"{each:,.0f}", f"{each * found.seconds / found.high:,.0f} to "
                 f"{each * found.seconds / found.low:,.0f}"))  # fmt: skip
    rows.append(("MFU", f"{100 * found.mfu():.1f}%", f"{100 * found.mfu(found.high):.1f}% to {100 * found.mfu(found.low):.1f}%"))
    if found.hardware_flops > found.model_flops:
        rows.append(("HFU", f"{100 * found.hfu:.1f}%", ""))
    title = f"Time of a step on {where}, {found.tokens:,} tokens: bound by {found.bound}"
    return Table(title, ("", ">time", ">share, or from, to"), rows)


def notes(card: Gpu, trainer: Trainer, gpus: int) -> list[str]:
    """Where the time is from; of links where there is somebody to talk to."""
    e = trainer.efficiency
    said = f"step: efficiencies of {e.name}, fitted on published steps (docs/train-speed.md)"
    if not trainer.measured:
        said += f"; none was on {card.name}, so from {e.spread[0]:g} to {e.spread[1]:g} times as long"
    near, far, domain = trainer.machine.nvlink / 1e9, trainer.machine.network / 1e9, trainer.machine.domain
    links = (
        f"links: {near:g} GB/s among {domain} GPUs, {far:g} GB/s of a GPU beyond" if domain > 1 else f"links: {far:g} GB/s of a GPU"
    )
    return [said, *([links] if gpus > 1 else []), "MFU of the step: products and attention that run, causal mask"]


def _seconds(value: float) -> str:
    return f"{1000 * value:,.4g} ms" if value < 1 else f"{value:,.4g} s"
