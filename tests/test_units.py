"""Numbers with units, read and shown."""

import math
import re
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcalc.errors import UnitError
from llmcalc.units import (
    parse_bytes,
    parse_context,
    parse_count,
    show_bytes,
    show_context,
    show_count,
    show_flops,
)

CONTEXTS = [
    ("1", 1), ("8192", 8192), ("8,192", 8192), ("8_192", 8192), ("128k", 131_072), ("128K", 131_072), ("128 k", 131_072),
    (" 128k ", 131_072), ("128ki", 131_072), ("128Ki", 131_072), ("1m", 1_048_576), ("1M", 1_048_576), ("1.5m", 1_572_864),
    ("1Mi", 1_048_576), ("0.5k", 512), (".5k", 512), ("4.k", 4096), ("1e3", 1000), ("1E3", 1000), ("1e+3", 1000), ("1.5e1", 15),
    ("2000e-3k", 2048), ("1048576m", 2**40), ("001", 1), ("100000", 100_000),
]  # fmt: skip
COUNTS: list[tuple[str, int | float]] = [
    ("70B", 70 * 10**9), ("70b", 70 * 10**9), ("70G", 70 * 10**9), ("15T", 15 * 10**12), ("1.4T", 14 * 10**11),
    ("5k", 5000), ("5K", 5000), ("7m", 7_000_000), ("7M", 7_000_000), ("2P", 2 * 10**15), ("2E", 2 * 10**18),
    ("3.8e25", 38 * 10**24),
    ("3.8E25", 38 * 10**24), ("3.14e23", 314 * 10**21), ("2e18", 2 * 10**18), ("2e3k", 2_000_000), ("1e-3k", 1), ("1", 1),
    ("1.0", 1),
    ("0.5", 0.5), (".25", 0.25), ("12.", 12), ("1e-3", 0.001), ("1e40", 10**40), ("70_553_706_496", 70_553_706_496),
    ("70,553,706,496", 70_553_706_496), ("70 B", 70_000_000_000), ("0.1k", 100), ("1.23456789B", 1_234_567_890),
    ("9007199254740993", 9_007_199_254_740_993),
]  # fmt: skip
BYTES = [
    ("80GB", 80 * 10**9), ("80GiB", 85_899_345_920), ("80gb", 80 * 10**9), ("80gib", 85_899_345_920), ("80 GB", 80 * 10**9),
    ("79.25GiB", 85_094_039_552), ("1kB", 1000), ("1KB", 1000), ("1KiB", 1024), ("1MB", 10**6), ("1MiB", 2**20), ("1TB", 10**12),
    ("1TiB", 2**40), ("512B", 512), ("0B", 0), ("0GiB", 0), ("1.5kB", 1500), ("1e3GB", 10**12), ("24_000MB", 24 * 10**9),
    ("85,030,076,416B", 85_030_076_416), ("0.001kB", 1),
    ("1208925819614629174706176B", 2**80),
]  # fmt: skip
# Nobody's number, whatever it counts.
NO_NUMBER = [
    "", " ", "k", "GB", "B", ".", ",", "_", "-", "+", "e5", "-5", "-5k", "+5", "-0", "- 5", "nan", "NaN", "inf", "-inf", "Infinity",
    "∞", "0x10", "0b1", "1..5", "1.2.3", "1 2", "1k k", "k1", "1/2", "1+1", "1*2", "(1)", "$5", "5%", "true", "None", "null",
    "１２８", "１２８k", "١٢٨", "१२८", "²", "½", "5\N{KELVIN SIGN}", "5µ", "5\0", "\0", "5\x00k", "5\nk\n5", "a" * 10_000,
    "1" * 10_000, "1" * 41, "1\xa0k", "1\u2003k",
    "0." + "0" * 10_000 + "1", "1e" + "9" * 10_000, "1e1000", "1e-1000", "1e-" + "9" * 30, "1e99999", "1e1.5", "1e 5", "1e--5",
    " " * 10_000 + "1", "1" + " " * 10_000 + "k", "1_" * 5_000, "1e+",
]  # fmt: skip


@pytest.mark.parametrize(("text", "tokens"), CONTEXTS)
def test_context(text: str, tokens: int) -> None:
    got = parse_context(text)
    assert got == tokens
    assert type(got) is int


@pytest.mark.parametrize(("text", "count"), COUNTS)
def test_count(text: str, count: float) -> None:
    got = parse_count(text)
    assert got == count
    assert type(got) is type(count)


@pytest.mark.parametrize(("text", "size"), BYTES)
def test_bytes(text: str, size: int) -> None:
    got = parse_bytes(text)
    assert got == size
    assert type(got) is int


@pytest.mark.parametrize("parse", [parse_context, parse_count, parse_bytes])
@pytest.mark.parametrize("text", NO_NUMBER, ids=lambda text: ascii(text[:12]) + (f" of {len(text)}" if len(text) > 12 else ""))
def test_no_number(parse: Callable[[str, str], float], text: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse(text, "--option")
    message = str(caught.value)
    assert message.startswith("--option: ")
    assert " is not a number; write " in message
    assert len(message) < 200
    assert message.isprintable()


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        (parse_context, "0", "not a positive whole number of tokens"),
        (parse_context, "0k", "not a positive whole number of tokens"),
        (parse_context, "1.5", "not a positive whole number of tokens"),
        (parse_context, "1.1k", "not a positive whole number of tokens"),
        (parse_context, "1e-3", "not a positive whole number of tokens"),
        (parse_context, "1e-999", "not a positive whole number of tokens"),
        (parse_context, "1g", "has the unit 'g'; allowed: k (1024), m (1048576)"),
        (parse_context, "1T", "has the unit 'T'"),
        (parse_context, "128kB", "has the unit 'kB'"),
        (parse_context, "128 tokens", "has the unit 'tokens'"),
        (parse_context, "1048577m", "beyond any context"),
        (parse_context, "1e999", "beyond any context"),
        (parse_context, "9" * 40, "beyond any context"),
        (parse_count, "0", "not between 0 and 1e40"),
        (parse_count, "0.0T", "not between 0 and 1e40"),
        (parse_count, "1e-999", "not between 0 and 1e40"),
        (parse_count, "1e41", "not between 0 and 1e40"),
        (parse_count, "1.1e40", "not between 0 and 1e40"),
        (parse_count, "1e999", "not between 0 and 1e40"),
        (parse_count, "1e999E", "not between 0 and 1e40"),
        (parse_count, "1.5e999", "not between 0 and 1e40"),
        (parse_count, "70Bn", "has the unit 'Bn'; allowed: k, M, B (or G), T, P, E"),
        (parse_count, "70GB", "has the unit 'GB'"),
        (parse_count, "5Ki", "has the unit 'Ki'"),
        (parse_count, "1kk", "has the unit 'kk'"),
        (parse_count, "1x", "has the unit 'x'"),
        (parse_bytes, "80", "needs a unit: B, kB, MB, GB (decimal) or KiB, MiB, GiB (binary)"),
        (parse_bytes, "80G", "needs a unit"),
        (parse_bytes, "80k", "needs a unit"),
        (parse_bytes, "80GBs", "needs a unit"),
        (parse_bytes, "80Gi", "needs a unit"),
        (parse_bytes, "1e999GB", "out of range"),
        (parse_bytes, "1.5e999TiB", "out of range"),
        (parse_bytes, "1e25B", "out of range"),
        (parse_bytes, "1208925819614629174706177B", "out of range"),
        (parse_bytes, "9" * 38 + "GB", "out of range"),
    ],
)
def test_refused(parse: Callable[[str, str], float], text: str, says: str) -> None:
    with pytest.raises(UnitError, match=re.escape(says)) as caught:
        parse(text, "--option")
    assert str(caught.value).startswith(f"--option: {text!r}")


DIGITS = st.from_regex(r"[0-9]{1,12}(\.[0-9]{0,6})?|\.[0-9]{1,6}", fullmatch=True)
EXPONENTS = st.one_of(st.just(""), st.integers(-9, 12).map(lambda e: f"e{e}"), st.integers(0, 12).map(lambda e: f"E+{e}"))
FACTORS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}


def as_fraction(digits: str, exponent: str) -> Fraction:
    return Fraction((digits if digits[0] != "." else f"0{digits}").rstrip(".") + exponent)


@given(DIGITS, EXPONENTS, st.sampled_from(sorted(FACTORS)))
@settings(max_examples=500, deadline=None)
def test_counts_are_exact(digits: str, exponent: str, suffix: str) -> None:
    """A count is the nearest number there is: an int where it is whole, whatever was multiplied to get there."""
    exact = as_fraction(digits, exponent) * FACTORS[suffix]
    if not 0 < exact <= 10**40:
        with pytest.raises(UnitError):
            parse_count(digits + exponent + suffix)
        return
    got = parse_count(digits + exponent + suffix)
    assert got == (exact if exact.denominator == 1 else float(exact))
    assert isinstance(got, int) == (exact.denominator == 1)


@given(DIGITS, EXPONENTS, st.sampled_from([("", 1), ("k", 1024), ("m", 1024**2), ("Ki", 1024), ("M", 1024**2)]))
@settings(max_examples=500, deadline=None)
def test_contexts_are_exact(digits: str, exponent: str, unit: tuple[str, int]) -> None:
    exact = as_fraction(digits, exponent) * unit[1]
    text = digits + exponent + unit[0]
    if exact.denominator == 1 and 1 <= exact <= 2**40:
        assert parse_context(text) == exact
    else:
        with pytest.raises(UnitError):
            parse_context(text)


@given(DIGITS, EXPONENTS, st.sampled_from([("B", 1), ("kB", 1000), ("GB", 10**9), ("KiB", 1024), ("GiB", 2**30), ("TiB", 2**40)]))
@settings(max_examples=500, deadline=None)
def test_bytes_are_exact(digits: str, exponent: str, unit: tuple[str, int]) -> None:
    """Whole bytes: what is left of one is dropped."""
    exact = as_fraction(digits, exponent) * unit[1]
    text = digits + exponent + unit[0]
    if exact > 2**80:
        with pytest.raises(UnitError):
            parse_bytes(text)
        return
    got = parse_bytes(text)
    assert type(got) is int
    # A fraction of a byte goes through a float, which has 53 bits.
    assert got == math.floor(exact) or (exact.denominator > 1 and got == int(float(exact)))


@given(st.text(max_size=50) | st.text("0123456789.,_eEkKmMgGbBtTi+- ", max_size=45))
@settings(max_examples=1000, deadline=None)
def test_any_text_is_a_number_or_refused(text: str) -> None:
    for parse in (parse_context, parse_count, parse_bytes):
        try:
            got = parse(text)
        except UnitError:
            continue
        assert got >= 0
        assert math.isfinite(got)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (1, "1"), (999, "999"), (1000, "1k"), (1234, "1.234k"), (70_553_706_496, "70.55B"), (124_439_808, "124.4M"),
        (15e12, "15T"), (999_949, "999.9k"), (999_960, "1M"), (999_999_999, "1B"), (10**16, "10,000T"), (0.5, "0.5"), (1.5, "1.5"),
        (-70e9, "-70B"), (671_026_419_200, "671B"), (999.96, "1k"), (0.00001, "1e-05"),
    ],
)  # fmt: skip
def test_show_count(value: float, shown: str) -> None:
    assert show_count(value) == shown


@pytest.mark.parametrize(
    ("value", "binary", "decimal"),
    [
        (0, "0 B", "0 B"), (1, "1 B", "1 B"), (999, "999 B", "999 B"), (1000, "1,000 B", "1.00 kB"), (1023, "1,023 B", "1.02 kB"),
        (1024, "1.00 KiB", "1.02 kB"), (1_048_576, "1.00 MiB", "1.05 MB"), (2**30, "1.00 GiB", "1.07 GB"),
        (85_030_076_416, "79.19 GiB", "85.03 GB"), (5 * 2**40, "5,120.00 GiB", "5,497.56 GB"), (-(2**30), "-1.00 GiB", "-1.07 GB"),
    ],
)  # fmt: skip
def test_show_bytes(value: int, binary: str, decimal: str) -> None:
    assert show_bytes(value) == show_bytes(value, "GiB") == binary
    assert show_bytes(value, "GB") == decimal


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 FLOP"), (1, "1 FLOP"), (999, "999 FLOP"), (1000, "1 kFLOP"), (2.5e6, "2.5 MFLOP"), (141.3e12, "141.3 TFLOP"),
        (1e15, "1 PFLOP"), (1e18, "1 EFLOP"), (3.14e20, "314 EFLOP"), (5e21, "5000 EFLOP"), (1e22, "1e+22 FLOP"),
        (3.14e23, "3.14e+23 FLOP"), (10**25, "1e+25 FLOP"), (1.5, "1.5 FLOP"),
    ],
)  # fmt: skip
def test_show_flops(value: float, shown: str) -> None:
    assert show_flops(value) == shown


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [(1, "1"), (512, "512"), (1000, "1,000"), (1024, "1k"), (1536, "1,536"), (131_072, "128k"), (100_000, "100,000")],
)
def test_show_context(tokens: int, shown: str) -> None:
    assert show_context(tokens) == shown


@given(st.integers(1, 2**40))
def test_a_context_survives_being_shown(tokens: int) -> None:
    assert parse_context(show_context(tokens)) == tokens


@given(st.integers(1, 10**18) | st.floats(1e-3, 1e18))
@settings(max_examples=500, deadline=None)
def test_a_count_survives_within_its_digits(value: float) -> None:
    """Four significant digits: half a unit of the fourth is the most that may be lost."""
    assert parse_count(show_count(value)) == pytest.approx(value, rel=5.001e-4)


@given(st.integers(0, 2**60), st.sampled_from(["GiB", "GB"]))
@settings(max_examples=500, deadline=None)
def test_bytes_survive_within_their_digits(value: int, unit: str) -> None:
    shown = show_bytes(value, unit)
    step = parse_bytes("1" + shown.rsplit(" ", 1)[1])
    assert abs(parse_bytes(shown) - value) <= step * 0.005 + 1
    if step == 1:
        assert parse_bytes(shown) == value


@given(st.floats(1, 1e30))
@settings(max_examples=500, deadline=None)
def test_flops_survive_within_their_digits(value: float) -> None:
    number, unit = show_flops(value).split(" ")
    assert parse_count(number + unit.removesuffix("FLOP")) == pytest.approx(value, rel=5.001e-4)
