"""fit, solved backwards: the largest context, batch or model, the fewest or cheapest GPUs, the best quantisation that fits.

Each answer is the row of a plain question, put again with what was found, so that the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmcalc import hardware, resolve
from llmcalc.cli import fit_rows
from llmcalc.cli.fit_rows import Question, Row
from llmcalc.errors import NoAnswer, UsageError
from llmcalc.specs import catalogue

if TYPE_CHECKING:
    from llmcalc.engines.weights import Method

# What fit_rows.prepared made of a model.
Ready = Any
Solver = Callable[[Question, resolve.Model, list[hardware.Gpu]], list[Row]]


def solved(
    question: Question, what: str, models: list[resolve.Model], cards: list[hardware.Gpu], *, named: bool
) -> tuple[list[Row], list[str]]:
    """The rows that answer, and notes. Raises UsageError for a question that has what it asks for already, or cannot be put."""
    if what == "gpus" and (question.gpus is not None or question.given):
        raise UsageError("--solve gpus looks for how many; leave --gpus, --tp, --pp and --dp out")
    if what == "gpu":
        cards = [card for card in cards if card.usd_per_hour is not None]
        if not cards:
            raise UsageError("--solve gpu goes by the price of an hour, and the catalogue has none of these GPUs")
    if what == "model":
        return _largest_models(question, models, cards)
    found: list[Row] = []
    said: list[str] = []
    solver: Solver = {"context": _largest("context"), "batch": _largest("batch"), "gpus": _gpus, "gpu": _gpu, "quant": _quant}[what]
    for m in models:
        try:
            found += solver(question, m, cards)
        except (UsageError, NoAnswer) as error:
            if named:
                raise
            said.append(str(error))
    notes = [f"left out: {'; '.join(dict.fromkeys(said))}"] if said else []
    if what == "gpu":
        for row in found if len(found) == 1 else []:
            notes.append(f"{row.result['gpus']} x {row.card.name}: ${row.result['dollars_per_hour']:.2f} an hour")
        notes += [
            f"{name}: {words}" for name, words in {r.card.name: hardware.hourly_prices(r.card, None)[1] for r in found}.items()
        ]
    return found, notes


def _method(question: Question, m: resolve.Model) -> Method:
    return resolve.stored_as(m, question.quant, question.dtype)[0]


def _largest(field: str) -> Solver:
    """The question again at the largest context or batch; as it was where not even the least fits, or nothing bounds it."""

    def solve(question: Question, m: resolve.Model, cards: list[hardware.Gpu]) -> list[Row]:
        method, found = _method(question, m), []
        ready = fit_rows.prepared(question, m, method)
        for card in cards:
            row = fit_rows.answer(question, m, card, method, ready=ready)
            most = row.result[f"max_{field}"]
            found.append(fit_rows.answer(question._replace(**{field: most}), m, card, method, ready=ready) if most else row)
        return found

    return solve


def _on_fewest(question: Question, m: resolve.Model, card: hardware.Gpu, method: Method, ready: Ready) -> Row:
    """The question again on the fewest GPUs; as it was where no number is enough."""
    row = fit_rows.answer(question, m, card, method, ready=ready)
    fewest = row.result["min_gpus"]
    return fit_rows.answer(question, m, card, method, gpus=fewest, ready=ready) if fewest and fewest != row.result["gpus"] else row


def _gpus(question: Question, m: resolve.Model, cards: list[hardware.Gpu]) -> list[Row]:
    method = _method(question, m)
    ready = fit_rows.prepared(question, m, method)
    return [_on_fewest(question, m, card, method, ready) for card in cards]


def _gpu(question: Question, m: resolve.Model, cards: list[hardware.Gpu]) -> list[Row]:
    """The cheapest that fits, by the hour: on the number asked for, else on as few as it takes.

    Where none fits it is the one that lacks least. All of them have a price.
    """
    method, found = _method(question, m), []
    ready = fit_rows.prepared(question, m, method)
    for card in cards:
        pinned = question.gpus is not None or bool(question.given)
        ask = fit_rows.answer if pinned else _on_fewest
        found.append(ask(question, m, card, method, ready=ready))
    fitting = [row for row in found if row.result["fits"]]
    if not fitting:
        return [max(found, key=lambda row: row.result["spare_bytes"])]
    return [min(fitting, key=lambda row: row.result["dollars_per_hour"])]


def methods(question: Question) -> list[Method]:
    """The quantisations that a runtime takes; all of them without one."""
    name = question.runtime.name if question.runtime else None
    found = []
    for quant in catalogue.entries("quants"):
        spec = catalogue.quant_spec(quant)[1]
        # What a file may be made as; plain types, as which anything loads, are always there.
        if spec.kind == "float" or name is None or name in spec.runtimes:
            found.append(resolve.method(quant))
    return found


def _quant(question: Question, m: resolve.Model, cards: list[hardware.Gpu]) -> list[Row]:
    """The quantisation with most bits that fits, of those with no more than the model's own dtype."""
    from llmcalc.engines import weights

    own = weights.size(m.blueprint, resolve.unquantised()).weight_bytes
    sized = [(weights.size(m.blueprint, method).weight_bytes, method) for method in methods(question)]
    order = sorted((item for item in sized if item[0] <= own), key=lambda item: -item[0])
    found = []
    for card in cards:
        row = None
        for _, method in order:
            row = fit_rows.answer(question, m, card, method)
            if row.result["fits"]:
                break
        if row is not None:
            found.append(row)
    return found


def _largest_models(question: Question, models: list[resolve.Model], cards: list[hardware.Gpu]) -> tuple[list[Row], list[str]]:
    """The model with most parameters that fits, on each kind of GPU; and a note where none does."""
    order = sorted(models, key=lambda m: -sum(w.elements for w in m.blueprint.weights))
    found, notes = [], []
    for card in cards:
        for m in order:
            try:
                row = fit_rows.answer(question, m, card, _method(question, m))
            except (UsageError, NoAnswer):
                continue
            if row.result["fits"]:
                found.append(row)
                break
        else:
            notes.append(f"{card.name}: none of the models fits")
    return found, notes
