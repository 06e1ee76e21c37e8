"""--gpu, --runtime and what they are worth together: the machine side of a question."""

import re
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from llmcalc.errors import UsageError
from llmcalc.specs import catalogue
from llmcalc.units import MiB

if TYPE_CHECKING:
    from llmcalc.engines import step_links, step_time
    from llmcalc.engines.runtimes import Card, Runtime
    from llmcalc.engines.speed import Efficiency, Machine
    from llmcalc.specs.efficiency import Found
    from llmcalc.specs.gpu import GpuSpec


class Gpu(NamedTuple):
    """A GPU that was asked for: what a process gets of its memory, where that figure comes from, and what an hour of it costs.

    Of a card with several devices it is one of them.
    """

    name: str
    spec: "GpuSpec"
    usable_bytes: int
    usable_source: str
    usd_per_hour: float | None = None

    @property
    def is_measured(self) -> bool:
        """Whether the memory is more than what stands on the box."""
        return self.spec.cuda_bytes is not None or self.spec.driver_bytes is not None


def gpu(text: str) -> Gpu:
    """A GPU by name. Its memory is what CUDA reports, else what the driver lists, else what the box says."""
    name, spec = catalogue.gpu_spec(text)
    if spec.cuda_bytes is not None:
        bytes_, source = spec.cuda_bytes, f"what {'CUDA' if spec.vendor == 'NVIDIA' else 'the runtime'} reports to a process"
    elif spec.driver_bytes is not None:
        bytes_, source = spec.driver_bytes, "what the driver lists; a process gets a little less"
    else:
        bytes_, source = marketed_bytes(spec), "as marketed, in GiB; what a process gets is not known"
    if spec.devices > 1:
        bytes_, source = bytes_ // spec.devices, f"{source}; one of its {spec.devices} devices"
    likely = median(quote.usd_per_hour for quote in spec.prices) / spec.devices if spec.prices else None
    return Gpu(name, spec, bytes_, source, likely)


def hourly_prices(card: Gpu | None, price: float | None) -> tuple[tuple[float | None, float | None, float | None], str]:
    """The price as given, or the median, lowest and highest of the catalogue's quotes for a whole card; and in words."""
    if price is not None:
        return (price, price, price), "price as given"
    quotes = sorted(card.spec.prices, key=lambda quote: quote.usd_per_hour) if card is not None else []
    if not quotes:
        return (None, None, None), ""
    likely, low, high = median(q.usd_per_hour for q in quotes), quotes[0].usd_per_hour, quotes[-1].usd_per_hour
    said = ", ".join(
        f"${q.usd_per_hour:g} {q.provider}" + (f" {q.kind}" if q.kind else "") + f" ({q.date or 'undated'})" for q in quotes
    )
    middle = f"${likely:g} per GPU-hour, the median of the catalogue's quotes: " if len(quotes) > 1 else "the catalogue's quote: "
    return (likely, low, high), middle + said


def seen(card: Gpu) -> "Card":
    """A GPU as a runtime sees it."""
    from llmcalc.engines.runtimes import Card

    listed = card.spec.driver_bytes or card.usable_bytes * card.spec.devices
    return Card(card.usable_bytes, listed // card.spec.devices, card.spec.architecture)


def runtime(text: str) -> "Runtime":
    """A serving runtime, NAME or NAME@VERSION. Raises UnknownName, UsageError for a version that is none."""
    from llmcalc.engines.runtimes import Padding, Rules, Runtime

    asked, mark, version = text.partition("@")
    name, spec = catalogue.runtime_spec(asked)
    if mark and not _version(version):
        raise UsageError(f"--runtime {text}: found {version!r}, allowed: a version, as {name}@0.10.1")
    rules = {key: value for key, value in vars(spec.allocation).items() if value is not None}
    for change in spec.versions:
        if mark and _holds(version, change.before, change.since):
            rules |= {key: value for key, value in vars(change).items() if key in Rules._fields and value is not None}
    paddings = tuple(Padding(tuple(p.quants), tuple(p.architectures), p.inner, p.read, p.written) for p in spec.expert_padding)
    return Runtime(name, version, spec.kind, Rules(**rules), paddings, tuple(spec.sources), dict(spec.error_percent or {}))


def _version(text: str) -> tuple[int, ...]:
    """The numbers of a version: v0.10.1, 0.6.3.post1, b5280."""
    return tuple(int(part) for part in re.findall(r"\d+", text[:40]))


def _holds(version: str, before: str | None, since: str | None) -> bool:
    return (before is None or _version(version) < _version(before)) and (since is None or _version(version) >= _version(since))


def marketed_bytes(spec: "GpuSpec") -> int:
    """The box's gigabytes read as GiB, as memory chips are made."""
    return round(spec.marketed_gb * 1024) * MiB


def efficiencies(runtime: str, card: Gpu, quant: str) -> "Found":
    """What is known of a runtime's speed on a GPU. Raises UnknownName, UsageError for a GPU of which only the memory is known."""
    from llmcalc.specs import efficiency

    if not card.spec.bandwidth_gb_s:
        raise UsageError(f"{card.name}: no bandwidth is known, so there is no speed to tell")
    return efficiency.find(runtime, card.name, card.spec, quant)


def efficiency(runtime: str, card: Gpu, quant: str) -> "Efficiency":
    """The efficiencies that speed takes."""
    from llmcalc.engines.speed import Efficiency

    found = efficiencies(runtime, card, quant)
    return Efficiency(
        found.name, host_bound=found.host_bound, decode_range=found.decode_range, prefill_range=found.prefill_range,
        **found.values,  # type: ignore[arg-type]
    )  # fmt: skip


def machine(runtime: str, card: Gpu, quant: str, gpus: int = 1, tp: int | None = None) -> "Machine":
    """So many GPUs as this runtime uses them: at the rate of the type that it computes in.

    Raises UsageError for a GPU without that rate, or a --tp that does not divide the GPUs.
    """
    from llmcalc.engines.speed import Machine

    found = efficiencies(runtime, card, quant)
    spec = card.spec
    rate = getattr(spec.tflops, found.rate) or spec.tflops.bf16 or spec.tflops.fp16 or spec.tflops.fp32
    if rate is None:
        raise UsageError(f"{spec.title}: no rate of 16-bit arithmetic is known, so there is no speed to tell")
    ranks = tp or (1 if found.layers_in_turn else gpus)
    if gpus % ranks:
        raise UsageError(f"--tp {ranks} does not divide --gpus {gpus}")
    if found.layers_in_turn and ranks > 1:
        raise UsageError(f"--tp {ranks}: {found.runtime} was measured with its layers on GPUs in turn; leave --tp out")
    link = spec.interconnect.gb_s if spec.interconnect else None
    each = spec.devices
    return Machine(spec.bandwidth_gb_s * 1e9 / each, rate * 1e12 / each, link and link * 1e9, ranks, gpus // ranks)


def peak_flops(card: Gpu, precision: str) -> float:
    """Dense FLOP/s of a whole card (16-bit, fp8, fp4, tf32, fp32). Raises UsageError for a rate that is not in the catalogue."""
    rates = card.spec.tflops
    rate = rates.bf16 or rates.fp16 if precision == "16-bit" else getattr(rates, precision)
    if rate is None:
        raise UsageError(f"{card.name} has no {precision} rate in the catalogue")
    return float(rate) * 1e12


class Trainer(NamedTuple):
    """A GPU as training steps see it. ``measured``: whether its spread is of steps on this very GPU."""

    machine: "step_links.Machine"
    efficiency: "step_time.Efficiency"
    measured: bool
    note: str


def trainer(card: Gpu, precision: str = "16-bit", *, megatron: bool = True) -> Trainer:
    """A GPU that computes products in ``precision`` (16-bit, fp8, fp4, tf32, fp32), with Megatron's kernels or torch's.

    Of a card with several devices it is one of them, with its part of the links.
    Raises UsageError for a rate that the catalogue does not have.
    """
    from llmcalc.engines.step_links import Machine
    from llmcalc.engines.step_time import Efficiency
    from llmcalc.specs import train_efficiency

    found = train_efficiency.find(card.name, card.spec, "megatron" if megatron else "torch", precision)
    rate, each = peak_flops(card, precision), card.spec.devices
    whole = precision in ("tf32", "fp32") or not (card.spec.tflops.bf16 or card.spec.tflops.fp16)
    other = rate if whole else peak_flops(card, "16-bit")
    machine = Machine(
        rate / each, other / each, card.spec.bandwidth_gb_s * 1e9 / each, found.nvlink * 1e9 / each,
        found.network * 1e9 / each, found.domain * each,
    )  # fmt: skip
    efficiency = Efficiency(found.name, spread=found.spread, experts_spread=found.experts_spread, **found.values)
    return Trainer(machine, efficiency, found.measured, found.note)
