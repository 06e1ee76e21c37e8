"""Laws under a further condition: data that must be repeated (Muennighoff et al.), a model that must be served (Sardana et al.).

Both have an optimum without a closed form; it is looked for along N, on a logarithmic scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llmcalc.engines.laws import MUENNIGHOFF, SARDANA, Law
from llmcalc.engines.scaling import LEAST, MOST, Optimum, solve
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Real

# Muennighoff et al. 2023, section 3.1 and appendix A: how fast repeated data and excess parameters lose their worth.
R_D, R_N = 15.387756, 5.309743


def smallest(cost: Callable[[float], float], low: float, high: float) -> float:
    """Where between two bounds a function with one valley is smallest: a coarse look, then thirds, on a logarithmic scale."""
    low, high = math.log(low), math.log(high)
    steps = 60
    points = [low + (high - low) * i / steps for i in range(steps + 1)]
    at = min(range(steps + 1), key=lambda i: cost(math.exp(points[i])))
    low, high = points[max(at - 1, 0)], points[min(at + 1, steps)]
    for _ in range(60):
        third = (high - low) / 3
        if cost(math.exp(low + third)) < cost(math.exp(high - third)):
            high -= third
        else:
            low += third
    return math.exp((low + high) / 2)


def worth(value: Any, unique: Any, decay: Any) -> Any:
    """What ``value`` is worth of which only ``unique`` is new: U + U R (1 - exp(-(value / U - 1) / R)) (Muennighoff, eq. 5)."""
    if value <= unique:
        return value
    e = Real(math.e, "e") if isinstance(value, Real) else math.e
    return unique + unique * decay * (1 - e ** ((1 - value / unique) / decay))


def unique_params(unique: float) -> float:
    """U_N, the parameters that suit U unique tokens: N = G^2 D where alpha = beta."""
    fit = MUENNIGHOFF
    return float((fit.A / fit.B) ** (1 / fit.alpha)) * unique


def repeated_loss(params: float, tokens: float, unique: float) -> float:
    """The loss of a run on ``unique`` tokens, seen as often as it takes; excess parameters count for less too (eq. 6)."""
    unique, fit = min(unique, tokens), MUENNIGHOFF
    n, d = worth(params, unique_params(unique), R_N), worth(tokens, unique, R_D)
    return float(fit.E + fit.A / n**fit.alpha + fit.B / d**fit.beta)


def _run(law: Law, params: Any, tokens: Any, flops: Any, unique: float) -> Optimum:
    new = min(unique, float(tokens))
    n = float(worth(float(params), unique_params(new), R_N))
    d = worth(Real(float(tokens), "D"), Real(new, "U"), Real(R_D, "R_D"))
    extra = {"unique_tokens": unique, "epochs": float(tokens) / unique, "effective_tokens": d, "effective_params": n}
    return Optimum(law, params, tokens, flops, MUENNIGHOFF.loss(Real(n, "N_eff"), Real(float(d), "D_eff")), extra)


def repeated(law: Law, unique: float, *, params: Any = None, tokens: Any = None, flops: Any = None, loss: Any = None) -> Optimum:
    """A run on unique tokens, or the best one for parameters, tokens, compute or loss. Raises NoAnswer for a loss out of reach."""
    if params is not None and tokens is not None:
        return _run(law, params, tokens, 6 * params * tokens, unique)

    def best(compute: float) -> float:
        # From 22,000 epochs, when another is worth nothing, to a single token.
        return smallest(lambda n: repeated_loss(n, compute / (6 * n), unique), compute / (6 * unique * 22_000), compute / 6)

    if params is not None:
        flops = Real(solve(best, float(params)), "C")
    elif tokens is not None:
        flops = Real(solve(lambda c: c / (6 * best(c)), float(tokens)), "C")
    elif loss is not None:
        found = solve(lambda c: -repeated_loss(best(c), c / (6 * best(c)), unique), -float(loss))
        if not LEAST * 2 < found < MOST / 2:
            raise NoAnswer(f"{law.name}: {unique:.4g} unique tokens never reach a loss of {float(loss):g}, however often repeated")
        flops = Real(found, "C")
    n = params if params is not None else Real(best(float(flops)), "N")
    found_run = _run(law, n, flops / (6 * n) if tokens is None else tokens, flops, unique)
    return found_run if loss is None else found_run._replace(loss=loss)


def served(best: Optimum, demand: float) -> Optimum:
    """The cheapest model of the same loss once it has read and written ``demand`` tokens: least 6 N D + 2 N D_inf.

    ``best`` is the training optimum of that loss (Sardana et al. 2024, eq. 3 and 5).
    """
    fit, loss = SARDANA, float(best.loss)

    def tokens(n: float) -> float:
        return float((fit.B / (loss - fit.E - fit.A / n**fit.alpha)) ** (1 / fit.beta))

    def total(n: float, d: float) -> float:
        return 6 * n * d + 2 * n * demand

    least = (fit.A / (loss - fit.E)) ** (1 / fit.alpha)
    n = smallest(lambda n: total(n, tokens(n)), least * (1 + 1e-9), float(best.params))
    d = tokens(n)
    before = total(float(best.params), float(best.tokens))
    extra = {
        "inference_tokens": demand, "inference_flops": 2 * n * demand, "total_flops": total(n, d),
        "training_optimal_params": float(best.params), "training_optimal_tokens": float(best.tokens),
        "training_optimal_total_flops": before, "saved": 1 - total(n, d) / before,
    }  # fmt: skip
    return best._replace(params=Real(n, "N"), tokens=Real(d, "D"), flops=6 * Real(n, "N") * Real(d, "D"), extra=extra)


def serving(run: Optimum, demand: float) -> Optimum:
    """A run as it is, with what serving it costs."""
    inference = 2 * float(run.params) * demand
    extra = {"inference_tokens": demand, "inference_flops": inference, "total_flops": float(run.flops) + inference}
    return run._replace(extra=extra)
