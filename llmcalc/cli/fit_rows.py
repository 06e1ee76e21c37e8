"""What fit answers for a model on a kind of GPU, as the rows of its JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llmcalc import hardware, resolve
from llmcalc.cli import options as o
from llmcalc.engines import fit as engine
from llmcalc.engines.demand import RESERVE_BYTES as RESERVE
from llmcalc.engines.weights import Method
from llmcalc.errors import NoAnswer, UsageError
from llmcalc.quantity import Quantity
from llmcalc.units import show_bytes

if TYPE_CHECKING:
    from llmcalc.engines.runtime_model import Known
    from llmcalc.engines.runtimes import Case, Runtime

__all__ = ["RESERVE", "Question", "Row", "answer", "figure", "notes", "rows"]
# What is exact without a runtime is modelled with one: how it is laid out is the runtime's.
KINDS = {
    False: {"weight_bytes": "exact", "kv_bytes": "exact", "activation_bytes": "estimated", "overhead_bytes": "estimated"},
    True: {"weight_bytes": "modelled", "kv_bytes": "modelled", "activation_bytes": "estimated", "overhead_bytes": "estimated"},
}


class Question(NamedTuple):
    """What was asked, of every model and GPU alike; None is not said."""

    quant: str | None
    dtype: str | None
    context: int | None
    batch: int
    kv_dtype: str
    value_dtype: str | None
    state_dtype: str | None
    encoder: int | None
    reserve: int
    gpus: int | None
    runtime: Runtime | None
    utilization: float | None
    degrees: dict[str, int | None]
    ngl: int | None
    ubatch: int | None
    sequences: int | None
    pool: int | None
    flash: bool
    eager: bool

    @property
    def given(self) -> tuple[str, ...]:
        """Which degrees of parallelism were said."""
        return tuple(name for name, value in self.degrees.items() if value is not None)


class Row(NamedTuple):
    """An answer, and what it was asked of."""

    result: dict[str, Any]
    model: resolve.Model
    card: hardware.Gpu
    method: Method
    demand: engine.Demand | None = None
    case: Case | None = None


def rows(question: Question, models: list[resolve.Model], cards: list[hardware.Gpu], *, named: bool) -> tuple[list[Row], list[str]]:
    """A row for every model and GPU. In a run over the catalogue, models that a runtime cannot have are left out, with a note."""
    found, left_out = [], []
    for m in models:
        method, _ = resolve.stored_as(m, question.quant, question.dtype)
        try:
            ready = prepared(question, m, method)
            found += [answer(question, m, card, method, ready=ready) for card in cards]
        except (UsageError, NoAnswer) as error:
            if named:
                raise
            left_out.append(str(error))
    return found, [f"left out: {'; '.join(dict.fromkeys(left_out))}"] if left_out else []


def prepared(question: Question, m: resolve.Model, method: Method) -> engine.Demand | Known:
    """A model under a quantisation, ready to be asked about many GPUs. Raises NoAnswer where its cache is not known."""
    if question.runtime is not None:
        from llmcalc.cli import fit_served

        return fit_served.known_of(question, m, method)
    return engine.Demand(m.blueprint, method, question.dtype or "", question.kv_dtype, question.reserve, question.encoder)


def answer(
    question: Question,
    m: resolve.Model,
    card: hardware.Gpu,
    method: Method,
    *,
    gpus: int | None = None,
    ready: engine.Demand | Known | None = None,
) -> Row:
    """The row of one model on one kind of GPU. Raises NoAnswer, UsageError."""
    tokens = resolve.context_of(question.context, m.blueprint)
    ready = ready or prepared(question, m, method)
    head = {
        "model": m.name, "family": m.spec.family, "estimate": m.blueprint.estimate, "gpu": card.name, "quant": method.name,
        "dtype": question.dtype or m.blueprint.dtype, "runtime": question.runtime.label if question.runtime else "transformers",
        "ctx": tokens, "batch": question.batch,
    }  # fmt: skip
    if question.runtime is None:
        assert isinstance(ready, engine.Demand)
        return _alone(question, m, card, method, head, gpus or question.gpus or 1, ready)
    from llmcalc.cli import fit_served

    assert not isinstance(ready, engine.Demand)
    return fit_served.row(question, question.runtime, m, card, method, head, gpus, ready)


def cost(card: hardware.Gpu, gpus: int) -> float | None:
    """Dollars for an hour of so many, by the median of the catalogue's quotes; None where it has none."""
    return None if card.usd_per_hour is None else card.usd_per_hour * gpus


def filled(head: dict[str, Any], load: engine.Load, available: int, *, fits: bool, modelled: bool) -> dict[str, Any]:
    """What every row has, whoever holds the model."""
    required = load.required_bytes
    return {
        **head, "fits": fits, "required_bytes": required, "available_bytes": available, "spare_bytes": available - required,
        **load._asdict(), "kinds": KINDS[modelled],
    }  # fmt: skip


def _alone(
    question: Question,
    m: resolve.Model,
    card: hardware.Gpu,
    method: Method,
    head: dict[str, Any],
    gpus: int,
    demand: engine.Demand,
) -> Row:
    tokens, batch = head["ctx"], question.batch
    found = engine.fit(demand, card.usable_bytes, gpus=gpus, context=tokens, batch=batch)
    result = filled(head, found.load, found.available_bytes, fits=found.fits, modelled=False)
    result |= {
        "deciding_gpu": found.deciding_gpu + 1, "total_weight_bytes": demand.weight_bytes,
        "total_kv_bytes": demand.cache_bytes(tokens, batch), "kv_tokens": found.kv_tokens,
        "trained_context": m.blueprint.context, "max_context": found.max_context, "max_batch": found.max_batch,
        "gpus": gpus, "min_gpus": found.min_gpus, "dollars_per_hour": cost(card, gpus),
    }  # fmt: skip
    return Row(result, m, card, method, demand=demand)


def figure(row: Row) -> tuple[str, Quantity]:
    """What is required on the GPU that decides, opened."""
    if row.case is not None:
        from llmcalc.engines import serving

        opened = serving.explain(row.case, row.result["ctx"], row.result["batch"])
    else:
        assert row.demand is not None
        opened = engine.explain(
            row.demand, row.card.usable_bytes, gpus=row.result["gpus"], context=row.result["ctx"], batch=row.result["batch"]
        )
    return o.figure(row.model, opened, f" on {row.card.name}")


def notes(
    question: Question, models: list[resolve.Model], found: list[Row], cards: list[hardware.Gpu], unit: str, *, named: bool
) -> list[str]:
    """What is taken for granted, once."""
    said: list[str] = []
    if named:
        for row in {row.model.name: row for row in found}.values():
            said += o.beyond(row.model.name, row.result["ctx"], row.model.blueprint)
    native: dict[str, list[str]] = {}
    for m in models if question.quant is None else []:
        method, stored = resolve.stored_as(m, None, question.dtype)
        if method.rules and any(row.model is m and row.method.name == method.name for row in found):
            native.setdefault(stored, []).append(m.name)
    said += [f"{', '.join(names)}: published in {stored}; --dtype bf16 for 16 bits" for stored, names in native.items()]
    used = {row.card.name for row in found}
    shown = [card for card in cards if card.name in used]
    said += [f"{card.name}: {show_bytes(card.usable_bytes, unit)} usable, {card.usable_source}" for card in shown]
    said += [f"{card.name}: {card.spec.note}" for card in shown if card.spec.note and not card.is_measured]
    said.append(_certainty(question, unit))
    return said + o.about(models)


def _certainty(question: Question, unit: str) -> str:
    """How far the figures can be trusted."""
    if question.runtime is None:
        gpus = question.gpus or 1
        spread = f"; the layers stand on {gpus} GPUs in order, and the fullest decides" if gpus > 1 else ""
        exact = "weights and cache are exact, the working set of a forward pass is an estimate, the reserve of "
        return f"{exact}{show_bytes(question.reserve, unit)} per GPU is stated{spread}"
    errors = ", ".join(
        f"{name.removesuffix('_bytes').replace('_', ' ')} {value:g}%" for name, value in question.runtime.errors.items()
    )
    known = f"median errors against logs: {errors}" if errors else "not measured against logs"
    return f"{question.runtime.label}: weights and cache are modelled, working memory and overhead are estimates; {known}"
