"""Compute-optimal training: from parameters, tokens or a compute budget to the other two, and the predicted loss.

Every law here says how the best N grows with compute, ``N = k C^a``, and takes C = 6 N D.

    approach-1, approach-2    Hoffmann et al. 2022 (arXiv:2203.15556), tables 3 and A3: the power law through the tables' rows
    approach-3                the same, equation 10, with the constants as printed: L = E + A / N^alpha + B / D^beta
    approach-3-unrounded      the same fit with exponents before rounding, from the paper's source: nearer to its table A3
    besiroglu                 Besiroglu et al. 2024 (arXiv:2404.10102), the refit of approach 3
    kaplan                    Kaplan et al. 2020 (arXiv:2001.08361): N without embeddings, loss on WebText2
    tokens-20                 the rule of thumb: 20 tokens per parameter
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from llmcalc.quantity import Quantity, Real

PF_DAY = 8.64e19
# Symbols of what a question may give.
GIVEN = ("N", "D", "C")


class Parametric(NamedTuple):
    """L(N, D) = E + A / N^alpha + B / D^beta, loss in nats per token."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    source: str

    def loss(self, params: Any, tokens: Any) -> Any:
        """L(N, D) in nats per token."""
        return (
            Real(self.E, "E_0")
            + Real(self.A, "A") / params ** Real(self.alpha, "alpha")
            + Real(self.B, "B") / tokens ** Real(self.beta, "beta")
        )

    @property
    def exponent(self) -> float:
        """a of N = k C^a."""
        return self.beta / (self.alpha + self.beta)

    @property
    def factor(self) -> float:
        """k of N = k C^a: G / 6^a, with G = (alpha A / (beta B))^(1 / (alpha + beta)) (Hoffmann et al., eq. 4)."""
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return float(g / 6**self.exponent)


class Kaplan(NamedTuple):
    """L(N, D) = ((Nc / N)^(aN / aD) + Dc / D)^aD, Kaplan et al., equation 1.5 and table 2."""

    Nc: float = 6.4e13
    Dc: float = 1.8e13
    aN: float = 0.076
    aD: float = 0.103
    source: str = "Kaplan et al. 2020, eq. 1.5; N without embeddings, WebText2"

    def loss(self, params: Any, tokens: Any) -> Any:
        """L(N, D) in nats per token."""
        a_n, a_d = Real(self.aN, "a_N"), Real(self.aD, "a_D")
        return ((Real(self.Nc, "N_c") / params) ** (a_n / a_d) + Real(self.Dc, "D_c") / tokens) ** a_d


HOFFMANN = Parametric(1.69, 406.4, 410.7, 0.34, 0.28, "Hoffmann et al. 2022, eq. 10")
UNROUNDED = Parametric(1.6934, 406.4, 410.7, 0.3392, 0.2849, "Hoffmann et al. 2022, fit before rounding")
BESIROGLU = Parametric(1.8172, 482.01, 2085.43, 0.3478, 0.3658, "Besiroglu et al. 2024")


class Law(NamedTuple):
    """N = factor * C^exponent, and the loss that goes with it."""

    name: str
    factor: float
    exponent: float
    loss: Parametric | Kaplan
    source: str


def _through(n1: float, c1: float, n2: float, c2: float) -> tuple[float, float]:
    """Factor and exponent of the power law through two rows of a table."""
    exponent = math.log(n2 / n1) / math.log(c2 / c1)
    return n1 / c1**exponent, exponent


def _power(name: str, rows: tuple[float, float, float, float], source: str) -> Law:
    factor, exponent = _through(*rows)
    return Law(name, factor, exponent, HOFFMANN, source)


LAWS = {
    law.name: law
    for law in (
        _power("approach-1", (1e9, 1.21e20, 10e12, 1.30e28), "Hoffmann et al. 2022, table 3 (prints a = 0.50)"),
        _power("approach-2", (1e9, 1.20e20, 10e12, 1.75e28), "Hoffmann et al. 2022, table A3 (prints a = 0.49)"),
        Law("approach-3", HOFFMANN.factor, HOFFMANN.exponent, HOFFMANN, "Hoffmann et al. 2022, eq. 4 and 10"),
        Law("approach-3-unrounded", UNROUNDED.factor, UNROUNDED.exponent, UNROUNDED, UNROUNDED.source),
        Law("besiroglu", BESIROGLU.factor, BESIROGLU.exponent, BESIROGLU, "Besiroglu et al. 2024, table 1"),
        Law("kaplan", 1.3e9 / PF_DAY**0.73, 0.73, Kaplan(), "Kaplan et al. 2020, N = 1.3e9 C^0.73, C in PF-days"),
        Law("tokens-20", (1 / 120) ** 0.5, 0.5, HOFFMANN, "rule of thumb: D = 20 N"),
    )
}  # fmt: skip


class Optimum(NamedTuple):
    """Parameters, tokens and compute that belong together, and the loss they predict."""

    law: Law
    params: Any
    tokens: Any
    flops: Any
    loss: Any

    @property
    def tokens_per_param(self) -> float:
        """D / N."""
        return float(self.tokens) / float(self.params)


def _law(law: Law) -> tuple[Any, Any]:
    return Real(law.factor, "k"), Real(law.exponent, "a")


def from_flops(law: Law, flops: Any) -> Optimum:
    """The best N and D for a compute budget."""
    k, a = _law(law)
    params = k * flops**a
    tokens = flops / (6 * params)
    return Optimum(law, params, tokens, flops, _loss(law, params, tokens))


def from_params(law: Law, params: Any) -> Optimum:
    """The compute at which N parameters are the best choice, and the tokens it buys."""
    k, a = _law(law)
    flops = (params / k) ** (1 / a)
    tokens = flops / (6 * params)
    return Optimum(law, params, tokens, flops, _loss(law, params, tokens))


def from_tokens(law: Law, tokens: Any) -> Optimum:
    """The compute at which D tokens are the best choice: D = C^(1 - a) / (6 k)."""
    k, a = _law(law)
    flops = (6 * k * tokens) ** (1 / (1 - a))
    params = flops / (6 * tokens)
    return Optimum(law, params, tokens, flops, _loss(law, params, tokens))


def of_run(law: Law, params: Any, tokens: Any) -> Optimum:
    """A run as it is: its compute and the loss the law predicts, optimal or not."""
    return Optimum(law, params, tokens, 6 * params * tokens, _loss(law, params, tokens))


def _loss(law: Law, params: Any, tokens: Any) -> Any:
    """The loss, from N and D as figures of their own so that its formula stays readable."""
    return law.loss.loss(Real(float(params), "N"), Real(float(tokens), "D"))


def explain(optimum: Optimum) -> list[Quantity]:
    """Each figure with its formula; what was given stands as it is."""
    law = optimum.law
    rows = (("params", optimum.params, "params"), ("tokens", optimum.tokens, "tokens"), ("flops", optimum.flops, "FLOP"))
    figures = [
        Quantity(name, float(value), unit, source="as given")
        if getattr(value, "text", "") in GIVEN
        else Quantity.of(name, value, unit, kind="estimated", source=law.source)
        for name, value, unit in rows
    ]
    return [*figures, Quantity.of("loss", optimum.loss, "nats/token", kind="estimated", source=law.loss.source)]
