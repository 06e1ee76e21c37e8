"""Numbers that remember their formula: the text says the value, whatever was computed."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmcalc.quantity import Dim, Kind, Number, Quantity, Real, ceil, ceil_div, least, plain

FUNCTIONS: dict[str, Any] = {"min": min, "max": max, "ceil": math.ceil, "log": math.log, "exp": math.exp, "__builtins__": {}}
SYMBOLS = {"h": 64, "a": 8, "k": 2, "d": 7, "f": 31, "V": 101, "L": 3, "E_k": 1, "zero": 0, "less": -5}
a, b, c = Dim(5, "a"), Dim(7, "b"), Dim(2, "c")
x, y = Real(2.5, "x"), Real(0.3, "y")


def evaluated(number: Any) -> Any:
    """What the text of a Dim or Real comes to, over the numbers that it says are in it."""
    return eval(number.text, FUNCTIONS, dict(number.names))


class Made(NamedTuple):
    """The same expression over Dims and over plain ints."""

    dims: Any
    ints: Any


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "//": lambda left, right: left // right,
    "least": least,
    "ceil_div": ceil_div,
}
LEAVES = st.one_of(
    st.sampled_from(sorted(SYMBOLS)).map(lambda name: Made(Dim(SYMBOLS[name], name), SYMBOLS[name])),
    st.integers(-4, 40).map(lambda value: Made(value, value)),
)


def node(operator: str, left: Made, right: Made) -> Made:
    """Left and right combined; just one of them where it would divide by 0, or leave what floats can hold."""
    if operator in ("//", "ceil_div") and right.ints == 0:
        return left
    value = OPERATORS[operator](left.ints, right.ints)
    return left if abs(value) > 2**50 else Made(OPERATORS[operator](left.dims, right.dims), value)


EXPRESSIONS = st.recursive(
    LEAVES, lambda inner: st.builds(node, st.sampled_from(sorted(OPERATORS)), inner, inner), max_leaves=12
)  # fmt: skip


@given(EXPRESSIONS)
@settings(max_examples=2000, deadline=None)
def test_the_text_says_the_value(made: Made) -> None:
    assume(isinstance(made.dims, Dim))
    assert evaluated(made.dims) == made.dims == made.ints
    assert made.dims.names == {name: SYMBOLS[name] for name in made.dims.names}


@given(EXPRESSIONS)
@settings(max_examples=500, deadline=None)
def test_plain_numbers_give_the_same(made: Made) -> None:
    assert int(made.dims) == made.ints
    assert isinstance(made.ints, int)
    assert not isinstance(made.ints, Dim)


@given(st.lists(st.tuples(st.sampled_from("+*/"), st.floats(0.01, 100)), min_size=1, max_size=8), st.booleans())
@settings(max_examples=500, deadline=None)
def test_the_text_of_floats_says_the_value(steps: list[tuple[str, float]], from_the_left: bool) -> None:
    made: Any = Real(1.5, "r")
    for index, (sign, value) in enumerate(steps):
        left, right = (made, Real(value, f"r{index}")) if from_the_left else (Real(value, f"r{index}"), made)
        made = left + right if sign == "+" else left * right if sign == "*" else left / right
    assert isinstance(made, Real)
    assert evaluated(made) == pytest.approx(float(made), rel=1e-12)


@pytest.mark.parametrize(
    ("number", "text", "value"),
    [
        (a, "a", 5),
        (a + b, "a + b", 12),
        (a - b, "a - b", -2),
        (a * b, "a * b", 35),
        (b // c, "b // c", 3),
        (a / c, "a / c", 2.5),
        (a**c, "a ** c", 25),
        (a + 3, "a + 3", 8),
        (3 + a, "3 + a", 8),
        (3 - a, "3 - a", -2),
        (3 * a, "3 * a", 15),
        (11 // a, "11 // a", 2),
        (11 / a, "11 / a", 2.2),
        (2**a, "2 ** a", 32),
        (a * -3, "a * (-3)", -15),
        (a - -3, "a - (-3)", 8),
        ((a + b) * c, "(a + b) * c", 24),
        (c * (a + b), "c * (a + b)", 24),
        (a + b * c, "a + b * c", 19),
        (a - (b - c), "a - (b - c)", 0),
        (a - (b + c), "a - (b + c)", -4),
        ((a - b) - c, "a - b - c", -4),
        ((a + b) // c, "(a + b) // c", 6),
        (a * b // c, "a * b // c", 17),
        (a * (b // c), "a * (b // c)", 15),
        (a // (b // c), "a // (b // c)", 1),
        (b // (a * c), "b // (a * c)", 0),
        (a / (b / c), "a / (b / c)", 5 / 3.5),
        ((a + b) ** c, "(a + b) ** c", 144),
        (a ** (b - a), "a ** (b - a)", 25),
        ((a**c) ** c, "(a ** c) ** c", 625),
        (c ** (c**c), "c ** (c ** c)", 16),
        (least(a, b), "min(a, b)", 5),
        (least(a + b, 3), "min(a + b, 3)", 3),
        (least(a, b, c), "min(a, b, c)", 2),
        (least(-1, c), "min((-1), c)", -1),
        (c * least(a, b), "c * min(a, b)", 10),
        (ceil_div(b, c), "ceil(b / c)", 4),
        (ceil_div(a + b, c), "ceil((a + b) / c)", 6),
        (ceil_div(a * b, c), "ceil(a * b / c)", 18),
        (ceil_div(b, a * c), "ceil(b / (a * c))", 1),
        (ceil_div(7, c), "ceil(7 / c)", 4),
        (ceil_div(b, 2), "ceil(b / 2)", 4),
        (ceil_div(b, c) * c, "ceil(b / c) * c", 8),
        (ceil(x), "ceil(x)", 3),
        (ceil(x * y), "ceil(x * y)", 1),
        (x + a, "x + a", 7.5),
        (a + x, "a + x", 7.5),
        (x * a, "x * a", 12.5),
        (a / x, "a / x", 2.0),
        (1.5 * x, "1.5 * x", 3.75),
        (x**2, "x ** 2", 6.25),
        (a * 0.5, "a * 0.5", 2.5),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_brackets(number: Any, text: str, value: float) -> None:
    """As few as are needed, and all of those."""
    assert number.text == text
    assert number == value
    assert evaluated(number) == number
    assert isinstance(number, Dim if isinstance(value, int) else Real)


def test_of_plain_numbers_nothing_is_written() -> None:
    found = (least(3, 2), ceil_div(7, 2), ceil(2.5), ceil_div(-7, 2), least(2.5, 3))
    assert found == (2, 4, 3, -3, 2.5)
    assert [type(value) for value in found] == [int, int, int, int, float]


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**20))
def test_ceil_div_is_exact(whole: int, by: int) -> None:
    up = ceil_div(whole, by)
    assert (up - 1) * by < whole <= up * by
    assert ceil_div(Dim(whole, "n"), Dim(by, "m")) == up


def test_a_dim_is_its_int() -> None:
    assert (a == 5, hash(a) == hash(5), str(a), repr(a), f"{Dim(70_000, 'n'):,}") == (True, True, "5", "5", "70,000")
    assert {5: "found"}[a] == "found"
    assert list(range(10))[a] == 5
    assert (type(plain(a)), type(plain(x))) == (int, float)


@pytest.mark.parametrize("number", [a, a * b + c, (a + b) // c], ids=lambda number: str(number.text))
def test_copies_keep_the_formula(number: Any) -> None:
    for again in (copy.copy(number), copy.deepcopy(number), pickle.loads(pickle.dumps(number))):
        assert (again, again.text, again.strength, again.names) == (number, number.text, number.strength, number.names)
        assert type(again) is type(number)


@pytest.mark.parametrize(
    "compute",
    [
        lambda: Dim(5, "n") + Dim(6, "n"),
        lambda: Dim(5, "n") * (Dim(2, "m") - Dim(6, "n")),
        lambda: least(Dim(5, "n"), Dim(6, "n")),
        lambda: ceil_div(Dim(5, "n"), Dim(6, "n")),
        lambda: Dim(5, "n") * Real(5.5, "n"),
        lambda: (Dim(5, "n") + Dim(1, "m")) // (Dim(2, "m") + 1),
    ],
)
def test_a_symbol_stands_for_one_number(compute: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"symbol [nm] stands for both [0-9.]+ and [0-9.]+ in one formula"):
        compute()


def test_the_same_symbol_twice() -> None:
    square = Dim(5, "n") * Dim(5, "n")
    assert (square, square.text, square.names) == (25, "n * n", {"n": 5})


@pytest.mark.parametrize("compute", [lambda: a // 0, lambda: a / Dim(0, "z"), lambda: ceil_div(a, 0), lambda: x / 0])
def test_division_by_zero_is_python_s(compute: Callable[[], Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        compute()


def figure(value: Number, kind: Kind = "exact") -> Quantity:
    return Quantity("part", value, "bytes", kind=kind)


@given(st.lists(st.tuples(st.integers(0, 10**15), st.sampled_from(["exact", "modelled", "estimated"])), max_size=8))
def test_sums(parts: list[tuple[int, Kind]]) -> None:
    total = Quantity.sum("total", "bytes", (figure(value, kind) for value, kind in parts))
    assert total.value == sum(value for value, _ in parts)
    kinds = {kind for _, kind in parts}
    assert total.kind == ("estimated" if "estimated" in kinds else "modelled" if "modelled" in kinds else "exact")
    assert [(part.value, part.kind) for part in total.parts] == parts
    assert (total.label, total.unit, total.formula, dict(total.numbers)) == ("total", "bytes", "", {})


def test_a_sum_of_sums() -> None:
    inner = Quantity.sum("inner", "bytes", [figure(1), figure(2, "estimated")])
    outer = Quantity.sum("outer", "bytes", [inner, figure(4)], source="a test", note="all of it")
    assert (outer.value, outer.kind, outer.source, outer.note) == (7, "estimated", "a test", "all of it")
    assert Quantity.sum("said", "bytes", [figure(1)], kind="modelled").kind == "modelled"


@pytest.mark.parametrize(
    ("value", "formula", "numbers", "kept"),
    [(a * b, "a * b", {"a": 5, "b": 7}, int), (x * a, "x * a", {"x": 2.5, "a": 5}, float), (35, "", {}, int), (2.5, "", {}, float)],
)
def test_a_figure_of_a_number(value: Any, formula: str, numbers: dict[str, Number], kept: type) -> None:
    made = Quantity.of("figure", value, "tokens", source="a test")
    assert (made.value, made.formula, dict(made.numbers), made.unit, made.source) == (value, formula, numbers, "tokens", "a test")
    assert type(made.value) is kept


def test_as_plain_data() -> None:
    inner = Quantity.of("inner", a * b, "bytes", note="why")
    bare = {"source": "", "note": "", "kind": "exact", "unit": "bytes"}
    part = {**bare, "label": "inner", "value": 35, "formula": "a * b", "numbers": {"a": 5, "b": 7}, "note": "why", "parts": []}
    whole = {**bare, "label": "whole", "value": 35, "formula": "", "numbers": {}, "parts": [part]}
    assert Quantity.sum("whole", "bytes", [inner]).as_dict() == whole
