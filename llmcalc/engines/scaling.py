"""Compute-optimal training: from parameters, tokens, compute or loss to the others, under the laws of ``laws``.

Every law says how the best N grows with compute, ``N = k C^a``, and takes C = 6 N D; those of one variable say the loss alone.
Laws with a further condition (repeated data, a demand for inference) are in ``conditions``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from llmcalc.engines.laws import Alone, Law, Power
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Quantity, Real

# Symbols of what a question may give.
GIVEN = ("N", "D", "C", "loss")
# Where an answer is looked for: from one FLOP to far beyond anything.
LEAST, MOST = 1.0, 1e60


class Optimum(NamedTuple):
    """Parameters, tokens and compute that belong together, and the loss they predict; None where the law has none.

    ``extra`` are figures of a further condition, by the key they have in JSON.
    """

    law: Law
    params: Any
    tokens: Any
    flops: Any
    loss: Any
    extra: dict[str, Any] = {}

    @property
    def tokens_per_param(self) -> float | None:
        """D / N."""
        return None if self.params is None or self.tokens is None else float(self.tokens) / float(self.params)

    def advised(self, power: Power | None) -> float | None:
        """A batch in tokens or a learning rate, by a law that has one, at this compute or loss."""
        of = None if power is None else {"C": self.flops, "loss": self.loss}[power.of]
        return None if power is None or of is None else float(power.factor * float(of) ** power.exponent)


def solve(rising: Callable[[float], float], target: float, low: float = LEAST, high: float = MOST) -> float:
    """The x between two bounds at which a function that rises with x meets ``target``, by halving on a logarithmic scale."""
    low, high = math.log(low), math.log(high)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(math.exp(middle)) < target else (low, middle)
    return math.exp((low + high) / 2)


def _law(law: Law) -> tuple[Any, Any]:
    return Real(law.factor, "k"), Real(law.exponent, "a")


def _alone(law: Law, formula: Alone, **given: Any) -> Optimum:
    """A law of one variable: the loss from the variable, or the variable from the loss. Raises NoAnswer for another's."""
    field = {"N": "params", "D": "tokens", "C": "flops"}[formula.symbol]
    if given.get(field) is None and given.get("loss") is None:
        raise NoAnswer(f"{law.name} is a law of {field} alone; give --{field} or --loss")
    value = formula.value_at(given["loss"]) if given.get(field) is None else given[field]
    known = {"params": None, "tokens": None, "flops": None, field: value}
    return Optimum(law, **known, loss=given.get("loss") or formula.loss_at(_figure(value, formula.symbol)))


def from_flops(law: Law, flops: Any) -> Optimum:
    """The best N and D for a compute budget."""
    if law.alone is not None:
        return _alone(law, law.alone, flops=flops)
    k, a = _law(law)
    params = k * flops**a
    tokens = flops / (6 * params)
    return Optimum(law, params, tokens, flops, _loss(law, params, tokens))


def from_params(law: Law, params: Any) -> Optimum:
    """The compute at which N parameters are the best choice, and the tokens it buys."""
    if law.alone is not None:
        return _alone(law, law.alone, params=params)
    k, a = _law(law)
    flops = (params / k) ** (1 / a)
    tokens = flops / (6 * params)
    return Optimum(law, params, tokens, flops, _loss(law, params, tokens))


def from_tokens(law: Law, tokens: Any) -> Optimum:
    """The compute at which D tokens are the best choice: D = C^(1 - a) / (6 k)."""
    if law.alone is not None:
        return _alone(law, law.alone, tokens=tokens)
    k, a = _law(law)
    flops = (6 * k * tokens) ** (1 / (1 - a))
    params = flops / (6 * tokens)
    return Optimum(law, params, tokens, flops, _loss(law, params, tokens))


def from_loss(law: Law, loss: Any) -> Optimum:
    """The least compute whose optimum has this loss. Raises NoAnswer where the law prints no loss, or none so low."""
    if law.alone is not None:
        return _alone(law, law.alone, loss=loss)
    if law.loss is None:
        raise NoAnswer(f"{law.name} prints no loss")
    if float(loss) <= law.loss.floor:
        raise NoAnswer(f"{law.name}: no compute reaches a loss of {float(loss):g}; the law ends at {law.loss.floor:g}")
    flops = solve(lambda c: -float(from_flops(law, c).loss), -float(loss))
    if not LEAST * 2 < flops < MOST / 2:
        raise NoAnswer(f"{law.name} has a loss of {float(loss):g} nowhere near any compute")
    return from_flops(law, Real(flops, "C"))._replace(loss=loss)


def of_run(law: Law, params: Any, tokens: Any) -> Optimum:
    """A run as it is: its compute and the loss the law predicts, optimal or not."""
    flops = 6 * params * tokens
    if law.alone is not None:
        return _alone(law, law.alone, params=params, tokens=tokens, flops=flops)
    return Optimum(law, params, tokens, flops, _loss(law, params, tokens))


class Distance(NamedTuple):
    """How far a run is from the optimum of its compute.

    ``matching_flops`` is the least compute of a run with the same predicted loss. This and ``excess_loss`` are None under a law
    whose optimum is not where its loss is least.
    """

    best: Optimum
    params_ratio: float
    tokens_ratio: float
    excess_loss: float | None
    matching_flops: float | None


def distance(run: Optimum) -> Distance | None:
    """A run beside the best that its compute could have bought."""
    if run.law.alone is not None:
        return None
    best = from_flops(run.law, Real(float(run.flops), "C"))
    excess = matching = None
    if run.law.is_least:
        excess = float(run.loss) - float(best.loss)
        matching = float(from_loss(run.law, float(run.loss)).flops)
    return Distance(best, float(run.params) / float(best.params), float(run.tokens) / float(best.tokens), excess, matching)


def _figure(value: Any, symbol: str) -> Any:
    """A number under a symbol of its own, so that formulas over it stay readable."""
    return Real(float(value), symbol)


def _loss(law: Law, params: Any, tokens: Any) -> Any:
    return None if law.loss is None else law.loss.loss(_figure(params, "N"), _figure(tokens, "D"))


def explain(optimum: Optimum) -> list[Quantity]:
    """Each figure with its formula; what was given stands as it is."""
    law = optimum.law
    rows = (
        ("params", optimum.params, "params", law.source),
        ("tokens", optimum.tokens, "tokens", law.source),
        ("flops", optimum.flops, "FLOP", law.source),
        ("loss", optimum.loss, "nats/token", law.loss_source),
    )
    return [
        Quantity(name, float(value), unit, source="as given")
        if getattr(value, "text", "") in GIVEN
        else Quantity.of(name, value, unit, kind="estimated", source=source)
        for name, value, unit, source in rows
        if value is not None
    ]
