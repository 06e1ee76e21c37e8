"""How ``llmcalc chinchilla`` shows what the laws say: results, tables and notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llmcalc.cli.options import marked
from llmcalc.engines import scaling as engine
from llmcalc.report.document import Table
from llmcalc.units import show_count

if TYPE_CHECKING:
    from llmcalc.engines.laws import Law
    from llmcalc.engines.scaling import Optimum


# Figures of laws under a condition, as they are called in tables.
CONDITIONS = {
    "unique_tokens": "unique tokens", "epochs": "epochs", "effective_tokens": "tokens, as if all were new",
    "effective_params": "parameters, as if none were in excess", "inference_tokens": "tokens served",
    "inference_flops": "FLOP of serving", "total_flops": "FLOP of training and serving",
    "training_optimal_params": "parameters that only training would ask for",
    "training_optimal_tokens": "tokens that only training would ask for",
    "training_optimal_total_flops": "FLOP with those, served", "saved": "share of FLOP saved",
}  # fmt: skip


class Run(NamedTuple):
    """A run to be judged: its name (None for the only one asked about), parameters as each law counts them, tokens.

    ``estimate``: a model whose architecture is hearsay.
    """

    name: str | None
    params: dict[str, Any]
    tokens: Any
    estimate: bool = False


def title(run: Run | None, x: Optimum) -> str:
    """What a figure to be explained is of."""
    return x.law.name if run is None or run.name is None else f"{marked(run.name, run.estimate)}, {x.law.name}"


def result(run: Run | None, x: Optimum) -> dict[str, Any]:
    """One law's answer as JSON has it; for a run also the optimum of its compute."""
    found = {
        "law": x.law.name, "params": whole(x.params), "tokens": whole(x.tokens), "flops": number(x.flops),
        "loss": None if x.loss is None else float(x.loss), "tokens_per_param": x.tokens_per_param,
        "source": x.law.source, "loss_source": x.law.loss_source, "note": x.law.note, "constants": x.law.constants,
        "batch_tokens": x.advised(x.law.batch), "learning_rate": x.advised(x.law.learning_rate),
        **{key: number(value) for key, value in x.extra.items()},
    }  # fmt: skip
    if run is None:
        return found
    far = None if x.extra else engine.distance(x)
    best = None if far is None else far.best
    return {
        **found, "run": run.name, "estimate": run.estimate,
        "optimal_params": best and whole(best.params), "optimal_tokens": best and whole(best.tokens),
        "optimal_loss": float(best.loss) if best and x.law.is_least else None,
        "params_ratio": far and far.params_ratio, "tokens_ratio": far and far.tokens_ratio,
        "excess_loss": far and far.excess_loss, "matching_flops": far and far.matching_flops,
    }  # fmt: skip


def advice(x: Optimum) -> list[str]:
    """The note on the batch and the learning rate that a law finds best."""
    batch, rate = x.advised(x.law.batch), x.advised(x.law.learning_rate)
    said = [] if batch is None else [f"a batch of {show_count(batch)} tokens"]
    said += [] if rate is None else [f"a learning rate of {rate:.3g}"]
    return [f"{x.law.name}: at {float(x.flops):.3g} FLOP {' and '.join(said)}"] if said else []


def compare(results: list[dict[str, Any]]) -> None:
    """Beside each run's loss, how far it is from the first run's under the same law."""
    first: dict[str, float | None] = {}
    for r in results:
        if "run" in r:
            base = first.setdefault(r["law"], r["loss"])
            r["loss_difference"] = None if base is None or r["loss"] is None else r["loss"] - base


def _shown(value: float | None, form: str = "") -> str:
    """A figure, or a dash where there is none; a count without a form."""
    if value is None:
        return "-"
    return format(value, form) if form else show_count(value)


def tables(results: list[dict[str, Any]]) -> list[Table]:
    """A row per law (and run); below, what a law's condition adds."""
    several = any(r.get("run") for r in results)
    judged = any("run" in r for r in results)
    columns = ["law", ">params", ">tokens", ">FLOP", ">loss", ">tokens/param"]
    if judged:
        columns += [">?best N", ">?best D", ">?best loss", ">?same loss from"]
    rows = []
    for r in results:
        row = [r["law"], _shown(r["params"]), _shown(r["tokens"]), _shown(r["flops"], ".2e"), _shown(r["loss"], ".4f"),
               _shown(r["tokens_per_param"], ".3g")]  # fmt: skip
        if judged:
            row += [_shown(r["optimal_params"]), _shown(r["optimal_tokens"]), _shown(r["optimal_loss"], ".4f"),
                    _shown(r["matching_flops"], ".2e")]  # fmt: skip
        rows.append((marked(str(r["run"]), r["estimate"]), *row) if several else tuple(row))
    name = "Runs and the optimum of their compute" if judged else "Compute-optimal training"
    found = [Table(name, ("run", *columns) if several else tuple(columns), rows)]
    conditions = [
        (r["law"], label, _shown(r[key], ".4g")) for r in results for key, label in CONDITIONS.items() if r.get(key) is not None
    ]
    if conditions:
        found.append(Table("Under the condition", ("law", "figure", ">value"), conditions))
    return found


def notes(runs: list[Run], silent: list[str], laws: list[Law], unique: Any, demand: Any) -> list[str]:
    """What is to be said: about runs, laws that have no answer, and conditions that no law heeds."""
    found = []
    if any(run.name is None for run in runs):
        found.append("params and tokens as given: the loss that each law predicts for this run, optimal or not")
    if runs:
        found.append(
            "best N, D and loss: what the run's FLOP could have bought; same loss from: the FLOP that would have been enough"
        )
    if any(run.name is not None and ":" not in run.name for run in runs):
        found.append("N of a model is what a token uses, by each law's count; the laws were fitted to dense models")
    if silent:
        found.append("no answer to this from " + ", ".join(dict.fromkeys(silent)))
    if unique is not None and not any(law.condition == "repeated" for law in laws):
        found.append("--unique-tokens matters to the law muennighoff alone")
    if demand is not None and not any(law.condition == "served" for law in laws):
        found.append("--inference-tokens matters to the law sardana alone")
    return [*found, "C = 6 N D; every figure is an estimate from a fit; loss in nats per token on that fit's own data"]


def whole(value: object) -> int | None:
    """A count as JSON has it: there are no parts of a parameter or a token."""
    return None if value is None else round(float(value))  # type: ignore[arg-type]


def number(value: object) -> int | float | None:
    """A figure as JSON has it: whole where it is."""
    if value is None:
        return None
    plain = float(value)  # type: ignore[arg-type]
    return int(plain) if plain.is_integer() and plain < 2**53 else plain
