"""What ``llmcalc compute`` makes of its options, and how it shows a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llmcalc.engines import compute as engine
from llmcalc.errors import UnitError, UnknownName, UsageError
from llmcalc.hardware import hourly_prices, peak_flops
from llmcalc.report.document import Table
from llmcalc.units import parse_count, show_count, show_flops

if TYPE_CHECKING:
    from llmcalc.hardware import Gpu
    from llmcalc.quantity import Kind
    from llmcalc.resolve import Model

# Figures that an assumption spreads, with the key of each and how it is shown.
SPREAD = ("tokens", "mfu", "gpu_hours", "gpus", "days", "energy_mwh", "co2_tonnes", "cost_dollars")


class Terms(NamedTuple):
    """A GPU-hour: its prices (likely, lowest, highest), the site, where each is from, and what there is to say."""

    prices: tuple[float | None, float | None, float | None]
    site: engine.Site
    sources: dict[str, str]
    notes: list[str]


def terms(card: Gpu | None, price: float | None, power: float | None, pue: float | None, carbon: str, precision: str) -> Terms:
    """The terms of a run, from options or the catalogue. Raises UsageError, UnknownName, UnitError."""
    notes, sources = [], {}
    prices, sources["cost_dollars"] = hourly_prices(card, price)
    if price is None and prices[0] is not None:
        notes.append(f"price: {sources['cost_dollars']}")
    watts = power
    if power is not None:
        sources["energy_mwh"] = "power as given"
    elif card is not None and card.spec.tdp_w is not None:
        watts = float(card.spec.tdp_w)
        sources["energy_mwh"] = f"TDP of {card.name}, {watts:g} W: GPUs draw less on average, their hosts and network are not in it"
        notes.append(f"power: {sources['energy_mwh']}; --power")
    if watts is not None and pue is None:
        notes.append("PUE 1: the energy of the GPUs alone; --pue adds the data centre's")
    kg, sources["co2_tonnes"] = _carbon(carbon)
    peak = None if card is None else peak_flops(card, precision)
    if watts is not None:
        notes.append(f"carbon: {kg:g} kg CO2 per kWh, {sources['co2_tonnes']}")
    return Terms(prices, engine.Site(peak, watts, pue or 1.0, kg), sources, notes)


def _carbon(text: str) -> tuple[float, str]:
    """kg CO2 per kWh, from a number or the name of a grid."""
    grid = engine.GRIDS.get(text.lower())
    if grid is not None:
        return grid.kg_per_kwh, grid.source
    try:
        value = 0.0 if text.strip() == "0" else float(parse_count(text, "--carbon"))
    except UnitError:
        from difflib import get_close_matches

        known = "kg per kWh, or one of " + ", ".join(engine.GRIDS)
        raise UnknownName("grid", text, get_close_matches(text, engine.GRIDS, n=2), known) from None
    if value > 3:
        raise UsageError(f"--carbon {text}: kg per kWh, and no grid is above 3; {text} g are {value / 1000:g} kg")
    return value, "as given"


def speed(ways: dict[str, float], batch: float | None, gpus: int | None) -> engine.Speed | None:
    """The one way in which the speed was given. Raises UsageError for several."""
    if len(ways) > 1:
        raise UsageError("give the speed once: --mfu, --hfu, --tflops, --tokens-per-second or --iteration")
    for unit, value in ways.items():
        if unit:
            return engine.Speed(unit, value)  # type: ignore[arg-type]
        if batch is None or gpus is None:
            raise UsageError("--iteration needs --batch-tokens and --gpus")
        return engine.Speed("tokens", batch / (value * gpus))
    return None


def size(
    model: Model | None, params: str | None, active: str | None, count: str, seq: int | None, *, causal: bool
) -> tuple[Any, engine.Shape | None, int | None]:
    """N of 6 N D, the shape of a sequence, and its length; None for what there is none of. Raises UsageError, UnitError."""
    from llmcalc import resolve
    from llmcalc.engines import params as counting
    from llmcalc.quantity import Dim

    if model is not None:
        found = counting.count(model.blueprint)
        length = resolve.context_of(seq, model.blueprint)
        n = Dim(found.active if count == "total" else found.non_embedding, "N")
        return n, engine.shape(model.blueprint, length, causal=causal), length
    if params is None:
        return None, None, seq
    if count != "total":
        raise UsageError("--count takes the embedding off a MODEL; --params is N as given")
    total = parse_count(params, "--params")
    used = total if active is None else parse_count(active, "--active")
    if not 1 <= used <= total:
        raise UsageError("--params is at least 1, and --active no more than it")
    return Dim(round(used), "N"), None, seq


def kinds(
    q: engine.Question, a: engine.Answer, hearsay: bool, power: float | None, price: float | None, carbon: str
) -> dict[str, Kind]:
    """What kind of truth each figure is: exact where arithmetic on what was given, estimated where something was assumed."""
    guessed = a.assumed or (q.speed is not None and q.speed.unit in ("mfu", "hfu"))
    solved = q.tokens is None and q.flops is None

    def kind(*assumptions: bool) -> Kind:
        return "estimated" if hearsay or any(assumptions) else "exact"

    bought = solved and q.gpu_hours is None and q.gpus is None
    time = kind(guessed and not solved, bought and price is None)
    work = kind(solved and (guessed or (bought and price is None)))
    energy = kind(time == "estimated", power is None)
    found: dict[str, Kind] = dict.fromkeys(engine.Answer._fields, time)
    for key in ("tokens", "training_flops", "hardware_flops", "iterations"):
        found[key] = work
    for key in ("mfu", "hfu", "tokens_per_second_per_gpu", "iteration_seconds"):
        found[key] = kind(guessed)
    if q.gpus is not None:
        found["gpus"] = "exact"
    found["energy_mwh"] = energy
    found["co2_tonnes"] = kind(energy == "estimated", carbon.lower() in engine.GRIDS)
    found["cost_dollars"] = kind(time == "estimated", price is None)
    return {key: value for key, value in found.items() if getattr(a, key) is not None and not isinstance(getattr(a, key), bool)}


def plain(value: Any) -> Any:
    """A figure as JSON has it: whole where it is; None and yes or no as they are."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)


def figures(three: list[engine.Answer]) -> dict[str, Any]:
    """The likely answer, and of what an assumption spreads the lowest and the highest."""
    likely = three[0]._asdict()
    likely["mfu_assumed"] = likely.pop("assumed")
    found = {key: plain(value) for key, value in likely.items()}
    for key in SPREAD:
        values = [getattr(a, key) for a in three]
        known = None not in values
        found[f"{key}_low"], found[f"{key}_high"] = (plain(min(values)), plain(max(values))) if known else (None, None)
    return found


def rule(convention: str, count: str, mask: str, recompute: str, seq: int | None) -> str:
    """The convention of the FLOPs in a sentence."""
    n = "N is what a token uses" if count == "total" else "N is what a token uses, without embedding, positions and head"
    attention = f"attention over {seq:,} tokens, {mask} mask" if seq else "attention"
    how = {
        "6nd": f"C = 6 N D; {n}; attention left out",
        "attention": f"C = 6 N D and {attention} (PaLM, appendix B); {n}",
        "matmul": f"matrix products and {attention}, three forward passes",
    }[convention]
    again = {
        "none": "", "full": "; HFU with one more forward pass",
        "selective": "; HFU with attention once more (Korthikanti et al., eq. 8)",
    }[recompute]  # fmt: skip
    return how + again


def _shown(key: str, value: Any) -> str:
    """A figure as people read it."""
    if value is None:
        return "-"
    if key.endswith("flops"):
        return show_flops(value)
    if key in ("mfu", "hfu"):
        return f"{100 * value:.1f}%"
    if key == "tokens":
        return show_count(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


LABELS = {
    "tokens": "tokens", "training_flops": "training FLOPs", "hardware_flops": "with recomputation", "mfu": "MFU", "hfu": "HFU",
    "tokens_per_second_per_gpu": "tokens per second and GPU", "gpu_hours": "GPU-hours", "gpus": "GPUs", "days": "days",
    "iterations": "iterations", "iteration_seconds": "seconds an iteration", "energy_mwh": "energy, MWh",
    "co2_tonnes": "CO2, tonnes", "cost_dollars": "cost, $",
}  # fmt: skip


def one(result: dict[str, Any]) -> Table:
    """A single run, a line for each figure."""
    rows = []
    for key, label in LABELS.items():
        same = (key == "hfu" and result["hfu"] == result["mfu"]) or (
            key == "hardware_flops" and result[key] == result["training_flops"]
        )
        if result[key] is None or same:
            continue
        low, high = (_shown(key, result.get(f"{key}_{end}")) for end in ("low", "high"))
        spread = f"{low} to {high}" if low != high else ""
        rows.append((label, _shown(key, result[key]), spread, result["kinds"][key]))
    for key, label in (("within_deadline", "in time"), ("within_budget", "in the budget")):
        if result[key] is not None:
            rows.append((label, "yes" if result[key] else "no", "", ""))
    where = f" on {result['gpus'] or ''} {result['gpu']}".replace("  ", " ") if result["gpu"] else ""
    name = result["model"] or (f"{show_count(result['params'])} parameters" if result["params"] else "A run")
    estimate = " (estimate)" if result["estimate"] else ""
    return Table(f"{name}{estimate}{where}", ("figure", ">value", ">?from, to", "kind"), rows)


def many(results: list[dict[str, Any]]) -> Table:
    """Several models, a row for each."""
    keys = ("tokens", "training_flops", "mfu", "gpu_hours", "days", "energy_mwh", "co2_tonnes", "cost_dollars")
    columns = ("model", *(f">?{LABELS[key]}" if key in ("energy_mwh", "co2_tonnes", "mfu") else f">{LABELS[key]}" for key in keys))
    rows = [(r["model"] + (" (estimate)" if r["estimate"] else ""), *(_shown(key, r[key]) for key in keys)) for r in results]
    return Table("Training runs", columns, rows)
