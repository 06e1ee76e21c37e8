"""Scaling laws as records: constants, where they are printed, and what they hold for.

approach-1, approach-2   Hoffmann et al. 2022 (arXiv:2203.15556), tables 3 and A3: the power law through the tables' rows
approach-3               the same, equation 10, with the constants as printed: L = E + A / N^alpha + B / D^beta
approach-3-unrounded     the same fit with exponents before rounding, from the paper's source
approach-3-table         the power law through the rows of table A3 that the paper computed with that fit
besiroglu                Besiroglu et al. 2024 (arXiv:2404.10102), the refit of approach 3
sardana                  Sardana et al. 2024 (arXiv:2401.00448): approach 3 with a demand for inference to serve
muennighoff              Muennighoff et al. 2023 (arXiv:2305.16264): unique data that is repeated
deepseek                 DeepSeek LLM 2024 (arXiv:2401.02954): model scale in non-embedding FLOPs per token
llama3                   Llama 3 2024 (arXiv:2407.21783): D = A C^alpha with the constants of figure 3's legend
llama3-as-printed        the same with the constants of the text, which do not give the paper's own figures
kaplan                   Kaplan et al. 2020 (arXiv:2001.08361): N without embeddings, loss on WebText2
kaplan-n, -d, -c, -cmin  the same, the loss by N, D or C alone where nothing else limits it
tokens-20                the rule of thumb: 20 tokens per parameter
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from llmcalc.quantity import Real

PF_DAY = 8.64e19


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
    def floor(self) -> float:
        """The loss that no compute goes below."""
        return self.E

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

    @property
    def floor(self) -> float:
        """A pure power law has none."""
        return 0.0


class Alone(NamedTuple):
    """L(x) = (scale / x)^exponent of one of N, D and C, where neither of the others limits the loss."""

    symbol: str
    scale: float
    exponent: float
    source: str

    def loss_at(self, value: Any) -> Any:
        """L(x) in nats per token."""
        return (Real(self.scale, f"{self.symbol}_c") / value) ** Real(self.exponent, f"a_{self.symbol}")

    def value_at(self, loss: Any) -> Any:
        """The x with this loss."""
        return Real(self.scale, f"{self.symbol}_c") / loss ** (1 / Real(self.exponent, f"a_{self.symbol}"))


class Power(NamedTuple):
    """factor * x^exponent of a run's compute C in FLOP, or of its loss."""

    factor: float
    exponent: float
    of: str = "C"


class Law(NamedTuple):
    """How the best N grows with compute, ``N = factor * C^exponent`` and C = 6 N D, and the loss that goes with it.

    A law of one variable has no such growth (``alone``); some have no loss. ``counts`` is what N stands for: total, or
    non-embedding.
    """

    name: str
    source: str
    note: str
    factor: float = 0.0
    exponent: float = 0.0
    loss: Parametric | Kaplan | None = None
    alone: Alone | None = None
    counts: str = "total"
    condition: str = ""  # repeated, served: what the law can take into account besides
    batch: Power | None = None  # tokens of the batch that the paper finds best
    learning_rate: Power | None = None

    @property
    def is_least(self) -> bool:
        """Whether the growth is where the loss is least. Approaches 1 and 2 borrow a loss, Kaplan's growth was fitted apart."""
        return isinstance(self.loss, Parametric) and (self.factor, self.exponent) == (self.loss.factor, self.loss.exponent)

    @property
    def loss_source(self) -> str:
        """Where the loss formula is printed; empty where there is none."""
        formula = self.alone or self.loss
        return "" if formula is None else formula.source

    @property
    def constants(self) -> dict[str, float]:
        """Every number of the law by its symbol."""
        formula = self.alone or self.loss
        found = {"k": self.factor, "a": self.exponent} if self.alone is None else {}
        values = {} if formula is None else formula._asdict()
        return {**found, **{name: value for name, value in values.items() if isinstance(value, float)}}


HOFFMANN = Parametric(1.69, 406.4, 410.7, 0.34, 0.28, "Hoffmann et al. 2022, eq. 10")
UNROUNDED = Parametric(1.6934, 406.4, 410.7, 0.3392, 0.2849, "Hoffmann et al. 2022, fit before rounding")
BESIROGLU = Parametric(1.8172, 482.01, 2085.43, 0.3478, 0.3658, "Besiroglu et al. 2024")
SARDANA = Parametric(1.69, 406.4, 410.7, 0.336, 0.283, "Sardana et al. 2024, section 2")
MUENNIGHOFF = Parametric(1.87, 521.0, 1488.0, 0.3526596, 0.3526596, "Muennighoff et al. 2023, appendix A")


def _through(name: str, rows: tuple[float, float, float, float], loss: Parametric, source: str, note: str) -> Law:
    """The power law through two rows of a table: N and C of the first, N and C of the second."""
    n1, c1, n2, c2 = rows
    exponent = math.log(n2 / n1) / math.log(c2 / c1)
    return Law(name, source, note, n1 / c1**exponent, exponent, loss)


def _parametric(name: str, loss: Parametric, source: str, note: str, condition: str = "") -> Law:
    return Law(name, source, note, loss.factor, loss.exponent, loss, condition=condition)


def _tokens(name: str, factor: float, exponent: float, source: str, note: str) -> Law:
    """A law printed as D = factor C^exponent, turned round with C = 6 N D."""
    return Law(name, source, note, 1 / (6 * factor), 1 - exponent)


def _alone(name: str, formula: Alone, note: str) -> Law:
    return Law(name, formula.source, note, alone=formula, counts="non-embedding")


_KAPLAN = "N without embeddings; WebText2 and its tokenizer, models up to 1.5B"
_FITTED = "fitted from 70M to 16B parameters and 5B to 500B tokens"

LAWS = {
    law.name: law
    for law in (
        _through("approach-1", (1e9, 1.21e20, 10e12, 1.30e28), HOFFMANN, "Hoffmann et al. 2022, table 3 (prints a = 0.50)",
                 f"through the first and the last round row of the table; {_FITTED}"),
        _through("approach-2", (1e9, 1.20e20, 10e12, 1.75e28), HOFFMANN, "Hoffmann et al. 2022, table A3 (prints a = 0.49)",
                 f"through the first and the last round row of the table; {_FITTED}"),
        _parametric("approach-3", HOFFMANN, "Hoffmann et al. 2022, eq. 4 and 10",
                    "constants as printed, rounded: at a given N they ask for up to 2.2 times the tokens of the paper's table A3"),
        _parametric("approach-3-unrounded", UNROUNDED, UNROUNDED.source,
                    "exponents to four digits, A and B still rounded: within 19% of the paper's table A3"),
        _through("approach-3-table", (1e9, 1.62e20, 10e12, 8.55e28), UNROUNDED, "Hoffmann et al. 2022, table A3 (prints a = 0.46)",
                 f"through two rows that the paper computed with all digits; {_FITTED}"),
        _parametric("besiroglu", BESIROGLU, "Besiroglu et al. 2024, table 1",
                    "refitted to points read off figure 4 of Hoffmann et al."),
        _parametric("sardana", SARDANA, SARDANA.source,
                    "with --inference-tokens the cheapest of equal quality over training and serving, 6 N D + 2 N D_inf", "served"),
        _parametric("muennighoff", MUENNIGHOFF, MUENNIGHOFF.source,
                    "models up to 9B on C4; with --unique-tokens repeated data counts less and less (eq. 5)", "repeated"),
        Law("deepseek", "DeepSeek LLM 2024, section 3.2",
            "M = 0.1715 C^0.5243 FLOPs per token without embeddings, shown as N = M / 6, which holds attention too; prints no loss",
            0.1715 / 6, 0.5243, counts="non-embedding", batch=Power(0.2920, 0.3271), learning_rate=Power(0.3118, -0.1250)),
        _tokens("llama3", 0.299, 0.537, "Llama 3 2024, section 3.2.1, D = 0.299 C^0.537 (legend of figure 3)",
                "gives 16.3T at 3.8e25 FLOP, where the paper reports 16.55T and 402B; prints no loss in nats"),
        _tokens("llama3-as-printed", 0.29, 0.53, "Llama 3 2024, section 3.2.1, D = 0.29 C^0.53 (text)",
                "rounded: gives 10.5T at 3.8e25 FLOP, against the paper's own 16.55T; prints no loss in nats"),
        Law("kaplan", "Kaplan et al. 2020, N = 1.3e9 C^0.73, C in PF-days",
            f"{_KAPLAN}; D = C / (6 N), though training at the critical batch takes twice that",
            1.3e9 / PF_DAY**0.73, 0.73, Kaplan(), counts="non-embedding", batch=Power(2.1e8, -1 / 0.21, "loss")),
        _alone("kaplan-n", Alone("N", 8.8e13, 0.076, "Kaplan et al. 2020, eq. 1.1"), f"{_KAPLAN}; data without end"),
        _alone("kaplan-d", Alone("D", 5.4e13, 0.095, "Kaplan et al. 2020, eq. 1.2"), f"{_KAPLAN}; a model as large as it takes"),
        _alone("kaplan-c", Alone("C", 1.6e7 * PF_DAY, 0.057, "Kaplan et al. 2020, appendix A, L(C)"),
               f"{_KAPLAN}; at a fixed batch size"),
        _alone("kaplan-cmin", Alone("C", 3.1e8 * PF_DAY, 0.050, "Kaplan et al. 2020, eq. 1.3, L(C_min)"),
               f"{_KAPLAN}; compute at a small batch"),
        Law("tokens-20", "rule of thumb: D = 20 N", "no fit", (1 / 120) ** 0.5, 0.5, HOFFMANN),
    )
}  # fmt: skip
