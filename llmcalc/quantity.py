"""Numbers that remember how they were made, and the tree of figures that results are.

``Dim`` is an int and ``Real`` a float that carry their formula: multiply ``Dim(8192, "h")`` by
``Dim(28672, "f")`` and you have 234881024, the text ``h * f`` and the numbers put in. An engine writes
its formula once; called with plain ints it computes, called with Dims it also explains, so a printed
formula cannot drift from the code.

``Quantity`` is one figure: label, value, unit, formula, numbers, source, kind of truth, and the parts
that add up to it. Tables, JSON and ``--explain`` are renderings of it.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

Number = int | float
Kind = Literal["exact", "modelled", "estimated"]
# Binding strength of what a text is made of; a weaker text is put in brackets inside a stronger one.
SUM, QUOTIENT, PRODUCT, ATOM = 1, 2, 3, 4


class _Written:
    """What Dim and Real share: the formula's text, its binding strength and the numbers behind its symbols."""

    text: str
    strength: int
    names: Mapping[str, Number]

    def _bracketed(self, strength: int) -> str:
        return self.text if self.strength >= strength else f"({self.text})"

    def __mul__(self, other: Any) -> Any:
        return _combine(self, other, "*")

    def __rmul__(self, other: Any) -> Any:
        return _combine(other, self, "*")

    def __add__(self, other: Any) -> Any:
        return _combine(self, other, "+")

    def __radd__(self, other: Any) -> Any:
        return _combine(other, self, "+")

    def __sub__(self, other: Any) -> Any:
        return _combine(self, other, "-")

    def __rsub__(self, other: Any) -> Any:
        return _combine(other, self, "-")

    def __floordiv__(self, other: Any) -> Any:
        return _combine(self, other, "//")

    def __rfloordiv__(self, other: Any) -> Any:
        return _combine(other, self, "//")

    def __truediv__(self, other: Any) -> Any:
        return _combine(self, other, "/")

    def __rtruediv__(self, other: Any) -> Any:
        return _combine(other, self, "/")

    def __pow__(self, other: Any, mod: None = None) -> Any:
        return _combine(self, other, "**")

    def __rpow__(self, other: Any, mod: None = None) -> Any:
        return _combine(other, self, "**")


class Dim(_Written, int):  # type: ignore[misc]
    """A whole number with its formula. Equal to, hashed and printed as the int that it is."""

    def __new__(cls, value: int, text: str, strength: int = ATOM, names: Mapping[str, Number] | None = None) -> "Dim":
        """A symbol, or with ``names`` a formula over symbols."""
        self = int.__new__(cls, value)
        self.text, self.strength = text, strength
        self.names = {text: int(value)} if names is None else names
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Dim, (int(self), self.text, self.strength, dict(self.names))


class Real(_Written, float):
    """A float with its formula."""

    def __new__(cls, value: float, text: str, strength: int = ATOM, names: Mapping[str, Number] | None = None) -> "Real":
        """A symbol, or with ``names`` a formula over symbols."""
        self = float.__new__(cls, value)
        self.text, self.strength = text, strength
        self.names = {text: float(value)} if names is None else names
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Real, (float(self), self.text, self.strength, dict(self.names))


_RULES: dict[str, tuple[Any, int, int, int]] = {
    # sign: function, strength of the result, strength wanted of the left side and of the right
    "*": (lambda a, b: a * b, PRODUCT, QUOTIENT, PRODUCT),
    "//": (lambda a, b: a // b, QUOTIENT, QUOTIENT, ATOM),
    "/": (lambda a, b: a / b, QUOTIENT, QUOTIENT, ATOM),
    "+": (lambda a, b: a + b, SUM, SUM, SUM),
    "-": (lambda a, b: a - b, SUM, SUM, QUOTIENT),
    "**": (lambda a, b: a**b, PRODUCT, ATOM, ATOM),
}


def plain(value: Any) -> Any:
    """The bare int or float of a Dim or Real."""
    return int(value) if isinstance(value, int) else float(value)


def _text(value: Any, strength: int) -> str:
    if isinstance(value, _Written):
        return value._bracketed(strength)
    return repr(value) if value >= 0 else f"({value!r})"


def _names(*values: Any) -> dict[str, Number]:
    names: dict[str, Number] = {}
    for value in values:
        if isinstance(value, _Written):
            for name, number in value.names.items():
                if names.setdefault(name, number) != number:
                    raise ValueError(f"symbol {name} stands for both {names[name]} and {number} in one formula")
    return names


def written(value: Number, text: str, strength: int, *of: Any) -> Any:
    """A Dim or Real of this value whose formula is ``text`` over the numbers in ``of``."""
    make: Any = Dim if isinstance(value, int) else Real
    return make(value, text, strength, _names(*of))


def _combine(left: Any, right: Any, sign: str) -> Any:
    apply, strength, left_wants, right_wants = _RULES[sign]
    if sign == "*" and isinstance(left, _Written) and left.strength == QUOTIENT:
        strength = QUOTIENT  # a // b * c: no factor may be moved in front of it
    value = apply(plain(left), plain(right))
    text = f"{_text(left, left_wants)} {sign} {_text(right, right_wants)}"
    return written(value, text, strength, left, right)


def _call(name: str, value: Number, *arguments: Any) -> Any:
    if not any(isinstance(a, _Written) for a in arguments):
        return value
    return written(value, f"{name}({', '.join(_text(a, SUM) for a in arguments)})", ATOM, *arguments)


def like(pattern: Any, value: int, text: str) -> Any:
    """``value`` as a Dim named ``text`` where ``pattern`` carries its formula, bare where that is bare."""
    return Dim(value, text) if isinstance(pattern, _Written) else value


def least(*values: Any) -> Any:
    """min() that remembers."""
    return _call("min", min(plain(v) for v in values), *values)


def ceil_div(a: Any, b: Any) -> Any:
    """a / b rounded up, in whole numbers."""
    value = -(-plain(a) // plain(b))
    if not isinstance(a, _Written) and not isinstance(b, _Written):
        return value
    return written(value, f"ceil({_text(a, PRODUCT)} / {_text(b, ATOM)})", ATOM, a, b)


def ceil(value: Any) -> Any:
    """The next whole number, that remembers."""
    return _call("ceil", math.ceil(plain(value)), value)


class Quantity(NamedTuple):
    """One figure of an answer, which opens into the parts that add up to it.

    ``formula`` is Python arithmetic over the symbols in ``numbers`` (with min, max, ceil, log, exp), or
    empty where the figure is the sum of its parts or is a fact taken from ``source``.
    """

    label: str
    value: Number
    unit: str
    formula: str = ""
    numbers: Mapping[str, Number] = {}
    source: str = ""
    kind: Kind = "exact"
    parts: tuple["Quantity", ...] = ()
    note: str = ""

    @classmethod
    def of(cls, label: str, value: Any, unit: str, **rest: Any) -> "Quantity":
        """A figure from a number that remembers its formula (or a plain one, which has none)."""
        if isinstance(value, _Written):
            rest = {"formula": value.text, "numbers": dict(value.names), **rest}
        return cls(label, plain(value), unit, **rest)

    @classmethod
    def sum(cls, label: str, unit: str, parts: Iterable["Quantity"], **rest: Any) -> "Quantity":
        """The figure that its parts add up to. It is as uncertain as its most uncertain part."""
        parts = tuple(parts)
        order = ("exact", "modelled", "estimated")
        kind = max((p.kind for p in parts), key=order.index, default="exact")
        return cls(label, sum(p.value for p in parts), unit, parts=parts, **{"kind": kind, **rest})

    def as_estimate(self) -> "Quantity":
        """The same figure of something that is itself an estimate."""
        return self._replace(kind="estimated", parts=tuple(part.as_estimate() for part in self.parts))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "label": self.label, "value": self.value, "unit": self.unit, "kind": self.kind, "formula": self.formula,
            "numbers": dict(self.numbers), "source": self.source, "note": self.note,
            "parts": [part.as_dict() for part in self.parts],
        }  # fmt: skip
