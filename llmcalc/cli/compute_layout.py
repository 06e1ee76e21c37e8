"""How fast ``llmcalc compute`` takes a run to be where a layout says how it is spread over its GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llmcalc.engines.compute import Speed
from llmcalc.errors import UsageError

if TYPE_CHECKING:
    from llmcalc.engines.layout import Layout
    from llmcalc.engines.step_time import StepTime
    from llmcalc.hardware import Gpu
    from llmcalc.resolve import Model

WAVES = 8  # micro-batches for each pipeline stage, where nothing says how many: a bubble of an eighth at most


class Spread(NamedTuple):
    """Degrees of parallelism as asked for; None where not."""

    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    cp: int | None = None
    ep: int | None = None
    micro_batch: int | None = None

    @property
    def asked(self) -> bool:
        """Whether there is a layout at all."""
        return any(value is not None for value in self)

    def gpus(self, given: int | None, devices: int = 1) -> int | None:
        """How many cards it takes: as given, or with --dp the product. A rank is a device, of which a card may have several.

        Raises UsageError where they do not agree.
        """
        if not self.asked:
            return given
        each = (self.tp or 1) * (self.pp or 1) * (self.cp or 1)
        ranks = each * self.dp if self.dp is not None else None if given is None else given * devices
        if ranks is None:
            raise UsageError("a layout needs --gpus, or --dp beside the other degrees")
        if ranks % each or ranks % devices or (given is not None and ranks != given * devices):
            degrees = f"{each}" if self.dp is None else f"{each * self.dp}"
            said = f"{degrees}, and a card has {devices} devices" if devices > 1 else degrees
            raise UsageError(f"--gpus {given or ranks / devices:g}: tp x pp x cp{' x dp' if self.dp else ''} is {said}")
        return ranks // devices


def layout_of(spread: Spread, gpus: int, seq: int, batch_tokens: float | None) -> Layout:
    """Megatron's: 1F1B, sequence parallelism with --tp, optimizer states divided. Raises UsageError for too small a batch."""
    from llmcalc.engines.layout import Layout

    tp, pp, cp, size = spread.tp or 1, spread.pp or 1, spread.cp or 1, spread.micro_batch or 1
    dp = gpus // (tp * pp * cp)
    passes = WAVES * pp if batch_tokens is None else int(batch_tokens // (seq * size * dp))
    if passes < 1:
        raise UsageError(
            f"--batch-tokens {batch_tokens:g}: a micro-batch on each of {dp} data-parallel ranks is {seq * size * dp:,}"
        )
    zero = "1" if dp * cp > 1 else "0"
    return Layout(tp, pp, dp, cp, spread.ep or 1, zero, sequence_parallel=tp > 1, micro_batches=passes)


class Estimate(NamedTuple):
    """A run's speed from its layout: likely, fastest, slowest, as shares of the peak; and what to say of it."""

    speeds: tuple[Speed, Speed, Speed]
    step: StepTime
    layout: Layout
    notes: list[str]


def estimate(
    model: Model, card: Gpu, spread: Spread, gpus: int, seq: int, batch_tokens: float | None, recompute: str, precision: str,
    token_flops: Any, peak: float,
) -> Estimate:  # fmt: skip
    """``gpus`` are whole cards, ``peak`` is of one; ``token_flops`` are the model's of a token by the convention that MFU goes by.

    Raises UsageError and NoAnswer.
    """
    from llmcalc import hardware, resolve
    from llmcalc.cli.train_time import notes
    from llmcalc.engines.recipe import Recipe
    from llmcalc.engines.step_time import step_time

    devices = card.spec.devices
    layout = layout_of(spread, gpus * devices, seq, batch_tokens)
    recipe = Recipe(seq, spread.micro_batch or 1, "fp32" if precision in ("fp32", "tf32") else "megatron", recompute=recompute)
    if recipe.precision == "fp32":
        recipe = recipe._replace(attention="efficient")
    trainer = hardware.trainer(card, precision)
    step = step_time(resolve.as_trained(model), recipe, layout, trainer.machine, trainer.efficiency)
    likely = step.tokens_per_second_per_gpu * devices * float(token_flops) / peak

    def speed(seconds: float) -> Speed:
        return Speed("mfu", likely * step.seconds / seconds)

    degrees = {"tp": layout.tp, "pp": layout.pp, "dp": layout.dp, "cp": layout.cp, "ep": layout.ep}
    said = ", ".join(f"{name} {ranks}" for name, ranks in degrees.items() if ranks > 1) or "one GPU"
    batch = f"{layout.micro_batches} micro-batches of {recipe.micro_batch} x {seq:,} tokens on each data-parallel rank"
    if batch_tokens is None:
        batch += f" are assumed ({WAVES} for each stage); --batch-tokens"
    low, high = 100 * speed(step.high).value, 100 * speed(step.low).value
    told = (
        f"{model.name}: MFU from the layout ({said}): {100 * likely:.1f}%, from {low:.1f} to {high:.1f}%; bound by {step.bound}, "
        f"bubble {100 * step.bubble_share:.1f}%; {batch}; memory is not looked at"
    )
    return Estimate(
        (speed(step.seconds), speed(step.low), speed(step.high)), step, layout, [told, *notes(card, trainer, layout.gpus)[:-1]]
    )
