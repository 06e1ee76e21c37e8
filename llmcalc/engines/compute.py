"""What a training run takes: FLOPs, GPU-hours, days, energy, CO2 and money, and back from a deadline or a budget.

Conventions of the FLOPs of a token (backward is twice forward, so training is three forwards):

    6nd         6 N: every parameter that a token uses in one multiply and add, attention left out (Kaplan et al. 2020)
    attention   6 N and attention's scores and sums: 12 L a d s with the full mask (PaLM, arXiv:2204.02311, appendix B)
    matmul      the matrix products and attention that run, as ``flops`` counts them: no look-ups, norms or biases

Recomputation adds work that is not the model's. Utilisation of the model's FLOPs is MFU, of all that run HFU:

    selective   attention's share once more, as Korthikanti et al. 2022 count (arXiv:2205.05198, equation 8: all three forwards'
                worth of it; one more forward pass of attention alone would be a third of that)
    full        one more forward pass: 8 N (Narayanan et al. 2021, arXiv:2104.04473, section 5.1), the head but for ``matmul``
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import flops
from llmcalc.errors import UsageError
from llmcalc.quantity import Dim, Kind, Quantity, Real, ceil, plain

Convention = Literal["6nd", "attention", "matmul"]
Recompute = Literal["none", "selective", "full"]


class Spread(NamedTuple):
    """An assumption and how far published figures lie around it."""

    low: float
    likely: float
    high: float
    source: str


# Quartiles of published figures, recomputed by tests/test_compute.py from tests/data/compute.jsonl.
MFU = Spread(
    0.25, 0.40, 0.56,
    "low: lower quartile of 19 published runs, 6 N D over all their GPU-hours (median 0.28); high: upper quartile of 138 published"
    " benchmarks (median 0.51)",
)  # fmt: skip


class Grid(NamedTuple):
    """Carbon intensity of electricity, kg CO2 per kWh."""

    kg_per_kwh: float
    source: str


_EMBER = "Ember, 2023, life cycle (CC-BY 4.0)"
GRIDS = {
    "us": Grid(0.385, "US average as in LLaMA, arXiv:2302.13971, section 6"),
    "us-2020": Grid(0.429, "US average as in Patterson et al. 2021, arXiv:2104.10350, table 4 (GPT-3)"),
    "world": Grid(0.481, _EMBER), "australia": Grid(0.549, _EMBER), "canada": Grid(0.170, _EMBER), "china": Grid(0.582, _EMBER),
    "denmark": Grid(0.152, _EMBER), "finland": Grid(0.079, _EMBER), "france": Grid(0.056, _EMBER), "germany": Grid(0.381, _EMBER),
    "india": Grid(0.713, _EMBER), "ireland": Grid(0.291, _EMBER), "norway": Grid(0.030, _EMBER),
}  # fmt: skip


class Shape(NamedTuple):
    """FLOPs of one forward pass over a sequence: all of it, its attention and its head, and the tokens it is of."""

    forward: int
    attention: int
    head: int
    tokens: int


def shape(blueprint: Blueprint, seq: int, *, causal: bool) -> Shape:
    """A sequence of ``seq`` tokens; with an encoder as many again on its side, and both count as tokens."""
    costs = flops.Costs(blueprint)
    encoder = seq if blueprint.has_encoder else 0

    def work(logits: int) -> flops.Workload:
        return flops.workload(seq, 1, encoder, causal=causal, logits=logits)

    whole = costs.forward(work(seq))
    return Shape(whole, costs.forward(work(seq), ("attention",)), whole - costs.forward(work(0)), seq + encoder)


class Work(NamedTuple):
    """FLOPs of training on one token: the model's, and with recomputation the hardware's. Numbers with their formulas."""

    model: Any
    hardware: Any


def per_token(convention: Convention, recompute: Recompute, params: Any, of: Shape | None) -> Work:
    """FLOPs of a token by convention. Raises UsageError where the convention needs a model's shape and there is none."""
    if of is None:
        if convention != "6nd" or recompute == "selective":
            raise UsageError("attention and selective recomputation need a MODEL; --params alone goes with --convention 6nd")
        return Work(6 * params, (8 if recompute == "full" else 6) * params)
    s, attention = Dim(of.tokens, "s"), Dim(of.attention, "F_att")
    forward, head = Dim(of.forward, "F_fwd"), Dim(of.head, "F_head")
    if convention == "matmul":
        extra = {"none": 0, "selective": 3 * attention, "full": forward - head}[recompute]
        return Work(3 * forward / s, (3 * forward + extra) / s if extra else 3 * forward / s)
    seen = 3 * attention / s if convention == "attention" else None
    model = 6 * params if seen is None else 6 * params + seen
    if recompute == "none":
        return Work(model, model)
    if recompute == "selective":
        return Work(model, model + 3 * attention / s)
    return Work(model, 8 * params if seen is None else 8 * params + 4 * attention / s)


class Speed(NamedTuple):
    """How fast one GPU works: MFU or HFU as shares, hardware FLOP/s, or tokens per second."""

    unit: Literal["mfu", "hfu", "hardware_flops", "tokens"]
    value: float


class Site(NamedTuple):
    """A GPU and where it stands: peak FLOP/s, watts, overhead of the data centre, kg CO2 per kWh. None where not known."""

    peak: float | None
    watts: float | None
    pue: float
    kg_per_kwh: float


class Question(NamedTuple):
    """What is known of a run; the rest follows. ``days`` is a deadline where the time follows from work and speed."""

    work: Work | None
    site: Site
    tokens: int | float | None = None
    flops: int | float | None = None
    gpu_hours: int | float | None = None
    gpus: int | None = None
    days: float | None = None
    budget: float | None = None
    speed: Speed | None = None
    batch_tokens: int | float | None = None


class Answer(NamedTuple):
    """A run in figures that carry their formulas; None where nothing says them. ``assumed``: the MFU is not of this run."""

    tokens: Any = None
    training_flops: Any = None
    hardware_flops: Any = None
    mfu: Any = None
    hfu: Any = None
    tokens_per_second_per_gpu: Any = None
    gpu_hours: Any = None
    gpus: Any = None
    days: Any = None
    iterations: Any = None
    iteration_seconds: Any = None
    energy_mwh: Any = None
    co2_tonnes: Any = None
    cost_dollars: Any = None
    within_deadline: bool | None = None
    within_budget: bool | None = None
    assumed: bool = False


def _named(value: Any, symbol: str) -> Any:
    """A figure under a symbol of its own, exact where it is whole."""
    return Dim(int(value), symbol) if isinstance(value, int) else Real(float(value), symbol)


def _rate(speed: Speed, work: Work | None, peak: float | None) -> Any:
    """The model's FLOP/s of one GPU. Raises UsageError where something is missing to know it."""
    share = 1 if work is None else _named(work.model, "F_model") / _named(work.hardware, "F_hw")
    if speed.unit == "hardware_flops":
        rate = Real(speed.value, "achieved")
    elif speed.unit == "tokens":
        if work is None:
            raise UsageError("tokens per second are FLOP/s only of a MODEL or --params")
        return Real(speed.value, "tokens_per_second") * _named(work.model, "F_token")
    elif peak is None:
        raise UsageError("a share of the peak needs a --gpu that has one")
    else:
        rate = Real(speed.value, speed.unit) * Real(peak, "peak")
    return rate if speed.unit == "mfu" or share == 1 else rate * share


def answer(q: Question, price: float | None, assumed_mfu: float = MFU.likely) -> Answer:
    """Everything that follows, at this price of a GPU-hour and, where nothing tells the speed, at this MFU. Raises UsageError."""
    peak, hours = q.site.peak, None if q.gpu_hours is None else _named(q.gpu_hours, "gpu_hours")
    tokens = None if q.tokens is None else _named(q.tokens, "D")
    total = None if q.flops is None else _named(q.flops, "F")
    if tokens is not None and q.work is not None:
        total = tokens * q.work.model
    rate = None if q.speed is None else _rate(q.speed, q.work, peak)
    assumed = False
    if hours is None and q.gpus is not None and q.days is not None and (total is None or rate is None):
        hours = _named(q.gpus, "n_gpu") * Real(q.days, "days") * 24
    if hours is None and total is None and q.budget is not None:
        if price is None:
            raise UsageError("--budget buys GPU-hours at a --price; the catalogue has none for this GPU")
        hours = Real(q.budget, "budget") / Real(price, "price")
    if rate is None and peak is not None and (hours is None if total is not None else hours is not None and q.work is not None):
        rate, assumed = Real(assumed_mfu, "mfu") * Real(peak, "peak"), True
    timed = q.gpu_hours is not None or (total is not None and rate is not None)
    if total is not None and rate is not None:
        if q.gpu_hours is not None:
            raise UsageError("work, speed and --gpu-hours are one too many: two of them give the third")
        hours = _named(total, "F") / (3600 * rate)
    elif hours is not None and rate is not None:
        total = _named(hours, "gpu_hours") * 3600 * rate
    elif hours is not None and total is not None:
        rate = _named(total, "F") / (3600 * _named(hours, "gpu_hours"))
    if hours is None and rate is None and total is None:
        raise UsageError(
            "nothing to compute with: give work (MODEL or --params, with --tokens, or --flops) and a --gpu, or --gpu-hours"
        )
    if tokens is None and total is not None and q.work is not None:
        tokens = _named(total, "F") / _named(q.work.model, "F_token")
    found = Answer(tokens=tokens, training_flops=total, gpu_hours=hours, assumed=assumed)
    return _verdict(q, _costs(q, price, _schedule(q, rate, found)), timed)


def _verdict(q: Question, a: Answer, timed: bool) -> Answer:
    """Whether the limits hold that nothing was solved for. ``timed``: the hours follow from work and speed, or were given."""
    if timed and q.days is not None and q.gpus is not None and a.days is not None:
        a = a._replace(within_deadline=float(a.days) <= q.days * (1 + 1e-9))
    if timed and q.budget is not None and a.cost_dollars is not None:
        a = a._replace(within_budget=float(a.cost_dollars) <= q.budget * (1 + 1e-9))
    return a


def _schedule(q: Question, rate: Any, a: Answer) -> Answer:
    """Utilisation, GPUs, days and iterations of a run whose work and speed are known."""
    a = a._replace(gpus=None if q.gpus is None else _named(q.gpus, "n_gpu"))
    if a.training_flops is not None and q.work is not None and a.tokens is not None:
        a = a._replace(hardware_flops=_named(a.tokens, "D") * q.work.hardware)
    if rate is not None and q.site.peak is not None:
        mfu = rate / Real(q.site.peak, "peak")
        share = 1 if q.work is None else _named(q.work.hardware, "F_hw") / _named(q.work.model, "F_model")
        a = a._replace(mfu=mfu, hfu=mfu if share == 1 else _named(mfu, "mfu") * share)
    if rate is not None and q.work is not None:
        a = a._replace(tokens_per_second_per_gpu=_named(rate, "rate") / _named(q.work.model, "F_token"))
    if a.gpu_hours is not None:
        hours = _named(a.gpu_hours, "gpu_hours")
        if q.gpus is None and q.days is not None:
            a = a._replace(gpus=ceil(hours / (24 * Real(q.days, "days"))))
        if a.gpus is not None:
            a = a._replace(days=hours / (24 * _named(a.gpus, "n_gpu")))
    if q.batch_tokens is not None:
        batch = _named(q.batch_tokens, "batch")
        if a.tokens is not None:
            a = a._replace(iterations=ceil(_named(a.tokens, "D") / batch))
        if a.gpus is not None and a.tokens_per_second_per_gpu is not None:
            each = _named(a.tokens_per_second_per_gpu, "tokens_per_second")
            a = a._replace(iteration_seconds=batch / (each * _named(a.gpus, "n_gpu")))
    return a


def _costs(q: Question, price: float | None, a: Answer) -> Answer:
    """Energy, CO2 and money of GPU-hours."""
    if a.gpu_hours is None:
        return a
    hours = _named(a.gpu_hours, "gpu_hours")
    if q.site.watts is not None:
        energy = hours * Real(q.site.watts, "watts") * Real(q.site.pue, "pue") / 1_000_000
        a = a._replace(energy_mwh=energy, co2_tonnes=_named(energy, "MWh") * Real(q.site.kg_per_kwh, "kg_per_kwh"))
    if price is not None:
        a = a._replace(cost_dollars=hours * Real(price, "price"))
    return a


def explain(a: Answer, sources: dict[str, str], kinds: dict[str, Kind]) -> list[Quantity]:
    """Each figure with its formula."""
    units = {
        "tokens": "tokens", "training_flops": "FLOP", "hardware_flops": "FLOP", "mfu": "of_peak", "hfu": "of_peak",
        "tokens_per_second_per_gpu": "tokens/s", "gpu_hours": "hours", "gpus": "GPUs", "days": "days", "iterations": "iterations",
        "iteration_seconds": "s", "energy_mwh": "MWh", "co2_tonnes": "t", "cost_dollars": "USD",
    }  # fmt: skip
    values = a._asdict()
    return [
        Quantity(name, plain(values[name]), unit, kind=kinds[name], source="as given")
        if values[name].text.isidentifier()
        else Quantity.of(name, values[name], unit, kind=kinds[name], source=sources.get(name, ""))
        for name, unit in units.items()
        if values[name] is not None
    ]
