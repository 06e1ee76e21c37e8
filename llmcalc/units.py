"""Parse and print quantities: 128k, 80GB, 15T, 3.14e23.

Two readings of the same suffix letters, as the field uses them:

    context lengths     binary      128k = 131,072 tokens, 1m = 1,048,576
    everything else     decimal     15T tokens = 15e12, 70B parameters = 70e9

Bytes carry their unit in full: GB = 1e9, GiB = 2**30.
"""

from __future__ import annotations

import re

from llmcalc.errors import UnitError

KiB, MiB, GiB, TiB = 2**10, 2**20, 2**30, 2**40
BINARY = {"": 1, "k": KiB, "m": MiB, "ki": KiB, "mi": MiB}
DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12, "p": 10**15, "e": 10**18}
BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": KiB, "mib": MiB, "gib": GiB, "tib": TiB,
}  # fmt: skip
# No value anybody means is longer than this; int() of a long digit string is slow and then refused.
MAX_TEXT = 40
NUMBER = r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9](?:_?[0-9])*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3}))?\s*([A-Za-z]*)"


def _split(text: str, what: str, example: str) -> tuple[str, int, str]:
    match = re.fullmatch(NUMBER, text.strip(), re.ASCII) if len(text) <= MAX_TEXT else None
    if match is None:
        raise UnitError(f"{what}: {text[:MAX_TEXT]!r} is not a number; write {example}")
    digits, exponent, suffix = match.groups()
    return digits.replace("_", "").replace(",", ""), int(exponent or 0), suffix


def _scaled(digits: str, exponent: int, factor: int) -> int | float:
    """digits x 10^exponent x factor, an exact int where the result is whole."""
    whole, _, fraction = digits.partition(".")
    shift = exponent - len(fraction)
    mantissa = int((whole + fraction) or "0") * factor
    if shift >= 0:
        return mantissa * int(10 ** min(shift, 400))
    divisor = int(10**-shift)
    quotient, rest = divmod(mantissa, divisor)
    return quotient if rest == 0 else mantissa / divisor


def parse_context(text: str, what: str = "context") -> int:
    """Tokens of one sequence; ``128k`` is 131,072. Raises UnitError unless a positive whole number."""
    digits, exponent, suffix = _split(text, what, "8192 or 128k (k = 1024)")
    if suffix.lower() not in BINARY:
        raise UnitError(f"{what}: {text!r} has the unit {suffix!r}; allowed: k (1024), m (1048576)")
    value = _scaled(digits, exponent, BINARY[suffix.lower()])
    if not isinstance(value, int) or value < 1:
        raise UnitError(f"{what}: {text!r} is not a positive whole number of tokens")
    if value > 2**40:
        raise UnitError(f"{what}: {text!r} is beyond any context (2^40 tokens)")
    return value


def parse_count(text: str, what: str = "count") -> int | float:
    """A decimal quantity; ``15T`` is 15e12. Raises UnitError unless above 0 and at most 1e40."""
    digits, exponent, suffix = _split(text, what, "a number such as 70B, 1.4T or 3.8e25")
    if suffix.lower() not in DECIMAL:
        raise UnitError(f"{what}: {text!r} has the unit {suffix!r}; allowed: k, M, B (or G), T, P, E")
    value = _scaled(digits, exponent, DECIMAL[suffix.lower()])
    if not 0 < value <= 10**40:
        raise UnitError(f"{what}: {text!r} is not between 0 and 1e40")
    return value


def parse_bytes(text: str, what: str = "memory") -> int:
    """Bytes with their unit; ``80GB`` is 80e9, ``79.25GiB`` is 79.25 x 2^30. Raises UnitError."""
    digits, exponent, suffix = _split(text, what, "80GB or 79.25GiB")
    if suffix.lower() not in BYTES:
        raise UnitError(f"{what}: {text!r} needs a unit: B, kB, MB, GB (decimal) or KiB, MiB, GiB (binary)")
    value = _scaled(digits, exponent, BYTES[suffix.lower()])
    if value < 0 or value > 2**80:
        raise UnitError(f"{what}: {text!r} is out of range")
    return int(value)


def _significant(value: float, digits: int = 4) -> str:
    """Four significant digits without an exponent, trailing zeros kept off."""
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    if "e" in text:
        return f"{value:,.0f}" if abs(value) >= 1 else text
    return text


def show_count(value: float) -> str:
    """70,553,706,496 -> ``70.55B``: four significant digits, decimal suffix."""
    for suffix, factor in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if abs(value) >= factor * 0.99995:
            return _significant(value / factor) + suffix
    return _significant(value)


def show_bytes(value: float, unit: str = "GiB") -> str:
    """Bytes in the unit asked for (GiB or GB), or the largest of the same kind of which there is a whole one."""
    base, names = (1024, ("B", "KiB", "MiB", "GiB")) if unit == "GiB" else (1000, ("B", "kB", "MB", "GB"))
    power = 3
    # What would round up to 1,024.00 MiB is 1.00 GiB; plain bytes are not rounded.
    while power and (abs(value) < base if power == 1 else round(abs(value) / base**power, 2) < 1):
        power -= 1
    scaled = value / base**power
    return (f"{scaled:,.2f}" if power else f"{scaled:,.0f}") + f" {names[power]}"


def show_flops(value: float) -> str:
    """FLOPs with a decimal prefix up to exa, then scientific: ``141.3 TFLOP``, ``3.14e+23 FLOP``."""
    for prefix, factor in (("E", 10**18), ("P", 10**15), ("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if abs(value) >= factor * 0.99995:
            scaled = value / factor
            return f"{value:.4g} FLOP" if scaled >= 10**4 else f"{_significant(scaled)} {prefix}FLOP"
    return f"{_significant(value)} FLOP"


def show_context(tokens: int) -> str:
    """131072 -> ``128k`` where that is exact, else ``100,000``."""
    return f"{tokens // 1024}k" if tokens >= 1024 and tokens % 1024 == 0 else f"{tokens:,}"
