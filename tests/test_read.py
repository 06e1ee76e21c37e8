"""The YAML reader: what scalars mean, where values stand, and that nothing a file holds gets past it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcalc.errors import SpecError
from llmcalc.specs import read

SCALARS: list[tuple[str, Any]] = [
    # Words: only these are no text, and only in lower case.
    ("true", True), ("false", False), ("null", None), ("~", None), ("", None),
    ("True", "True"), ("TRUE", "TRUE"), ("False", "False"), ("Null", "Null"), ("NULL", "NULL"), ("None", "None"),
    ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("Yes", "Yes"), ("y", "y"), ("n", "n"),
    # Whole numbers.
    ("0", 0), ("7", 7), ("-7", -7), ("+7", 7), ("-0", 0), ("1000", 1000), ("1_000", 1000), ("1_000_000", 1_000_000),
    ("9" * 40, 10**40 - 1), ("9" * 41, "9" * 41),
    ("064", "064"), ("00", "00"), ("0_1", "0_1"), ("0x10", "0x10"), ("0o17", "0o17"), ("0b11", "0b11"), ("_1", "_1"),
    ("1,000", "1,000"), ("1 000", "1 000"), ("--5", "--5"), ("5k", "5k"), ("70B", "70B"), ("12:30", "12:30"),
    ("１２", "１２"), ("٣", "٣"),
    # Fractions: with a point, and digits before it.
    ("1.5", 1.5), ("-1.5", -1.5), ("+1.5", 1.5), ("0.25", 0.25), ("1.", 1.0), ("1_000.5", 1000.5), ("1.5e3", 1500.0),
    ("1.5E3", 1500.0), ("1.5e+3", 1500.0), ("1.5e-3", 0.0015), ("1.e2", 100.0), ("1.0e999", float("inf")),
    (".5", ".5"), ("-.5", "-.5"), ("1e6", "1e6"), ("1E6", "1E6"), ("1e-3", "1e-3"), ("1.5e", "1.5e"), ("1.2.3", "1.2.3"),
    (".inf", ".inf"), ("-.inf", "-.inf"), (".nan", ".nan"), ("inf", "inf"), ("nan", "nan"), ("NaN", "NaN"),
    ("1." + "0" * 39, "1." + "0" * 39),
    # Quoted and in blocks: text, whatever it looks like.
    ("'5'", "5"), ('"5"', "5"), ("'true'", "true"), ('"null"', "null"), ("''", ""), ('""', ""), ("'~'", "~"), ("'1.5'", "1.5"),
    ('"a\\tb"', "a\tb"), ('"\\u00e9"', "é"), ("'it''s'", "it's"), ("|\n  5", "5"), (">\n  5\n", "5\n"), ("|\n  a\n  b\n", "a\nb\n"),
    (">-\n  a\n  b\n", "a b"),
    # Text.
    ("a paper", "a paper"), ("2024-01-31", "2024-01-31"), ("=", "="), ("<<", "<<"), ("a # comment", "a"), ("a#b", "a#b"),
    ("http://x.y", "http://x.y"), ("通义千问", "通义千问"), ("two\n  lines", "two lines"),
    # Collections.
    ("[]", []), ("{}", {}), ("[1, a, true]", [1, "a", True]), ("{a: 1, b: {c: []}}", {"a": 1, "b": {"c": []}}),
    ("\n  - 1\n  - b: 2\n    c: 3\n", [1, {"b": 2, "c": 3}]), ("\n- 1\n- 2\n", [1, 2]), ("[[1, 2], [3]]", [[1, 2], [3]]),
    ("{1: a, true: b, ~: c}", {"1": "a", "true": "b", "~": "c"}), ("[a,]", ["a"]), ("{a}", {"a": None}),
]  # fmt: skip


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down (True is not 1, and 1 not 1.0)."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both of PyYAML's parsers: the one on libyaml, and the one in Python where that is missing."""
    if request.param == "SafeLoader":
        monkeypatch.delattr(yaml, "CSafeLoader")
    return str(request.param)


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(("text", "value"), SCALARS, ids=lambda x: ascii(x)[:20])
def test_values(text: str, value: Any) -> None:
    data = read.parse(f"key: {text}", "file.yaml").data
    assert same(data, {"key": value}), data


PLACES = """\
# A comment
title: A model

moe:
  experts: 8
  top_k:
    2
aliases: [one, two,
  three]
prices:
  - {usd: 2, by: a}
  -   usd: 3
      by: b
kinds: {A: {heads: 4}}
deep:
    - - x
      - y
"""


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), (2, 1)),
        (("title",), (2, 1)),
        (("moe",), (4, 1)),
        (("moe", "experts"), (5, 3)),
        (("moe", "top_k"), (6, 3)),
        (("aliases",), (8, 1)),
        (("aliases", 0), (8, 11)),
        (("aliases", 1), (8, 16)),
        (("aliases", 2), (9, 3)),
        (("prices",), (10, 1)),
        (("prices", 0), (11, 5)),
        (("prices", 0, "usd"), (11, 6)),
        (("prices", 0, "by"), (11, 14)),
        (("prices", 1), (12, 7)),
        (("prices", 1, "usd"), (12, 7)),
        (("prices", 1, "by"), (13, 7)),
        (("kinds", "A"), (14, 9)),
        (("kinds", "A", "heads"), (14, 13)),
        (("deep", 0), (16, 7)),
        (("deep", 0, 0), (16, 9)),
        (("deep", 0, 1), (17, 9)),
    ],
    ids=str,
)
def test_places(path: read.Path, place: tuple[int, int]) -> None:
    """A field of a mapping stands where its key does, an item of a list where it begins itself."""
    document = read.parse(PLACES, "file.yaml")
    assert document.places[path] == place
    error = document.error(path, "wrong")
    assert (error.line, error.column, error.field) == (*place, ".".join(map(str, path)))


def test_every_value_has_a_place() -> None:
    def paths(value: Any, at: read.Path) -> list[read.Path]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [at] + [path for key, inner in items for path in paths(inner, (*at, key))]

    document = read.parse(PLACES, "file.yaml")
    assert sorted(document.places, key=str) == sorted(paths(document.data, ()), key=str)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("none",), (2, 1)),
        (("moe", "shared"), (4, 1)),
        (("moe", "shared", "more"), (4, 1)),
        (("prices", 1, "kind"), (12, 7)),
        (("aliases", 7), (8, 1)),
    ],
    ids=str,
)
def test_what_is_missing_stands_at_the_nearest_around_it(path: read.Path, place: tuple[int, int]) -> None:
    error = read.parse(PLACES, "dir/file.yaml").error(path, "missing")
    assert (error.line, error.column) == place
    assert str(error) == f"dir/file.yaml:{place[0]}:{place[1]}: {'.'.join(map(str, path))}: missing"


@pytest.mark.parametrize(
    "text", ["a: é\nb: 1\n", "a: 1\r\nb: 1\r\n", "a: 1\rb: 1\r", "\ufeffa: 1\nb: 1\n", "a: 𝔸 # 𝔸\nb: 1\n"], ids=ascii
)
def test_lines_are_counted_as_editors_do(text: str) -> None:
    assert read.decode(text.encode(), "file.yaml").places[("b",)] == (2, 1)


def test_columns_are_characters() -> None:
    assert read.decode("{é𝔸é: 1, b: 2}".encode(), "file.yaml").places[("b",)] == (1, 10)


@pytest.mark.usefixtures("loader")
def test_text_that_utf8_cannot_say() -> None:
    with pytest.raises(SpecError, match=r"^file\.yaml:1:4: .*YAML"):
        read.parse("a: \ud800", "file.yaml")


def test_read(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    document = read.read(file)
    assert (document.file, document.data, document.places[("a",)]) == (str(file), {"a": 1}, (1, 1))


@pytest.mark.parametrize("letter", ["x", "é", "𝔸"])
def test_the_limit_is_in_bytes_and_nothing_is_cut_off(letter: str, tmp_path: Path) -> None:
    """What comes after the limit is not silently left out, whatever it is made of."""
    file = tmp_path / "file.yaml"
    size = len(letter.encode())
    filler = "# " + letter * ((read.MAX_BYTES - 20) // size)
    fits = f"{filler}\nb: 1\n".encode()
    file.write_bytes(fits)
    assert len(fits) <= read.MAX_BYTES
    assert read.read(file).data == {"b": 1}
    file.write_bytes(f"a: 1\n{filler}{letter * 20}\nb: 1\n".encode())
    with pytest.raises(SpecError, match="larger than 256 KiB"):
        read.read(file)


def outcome(raw: bytes) -> str:
    """What decoding comes to: ok, or the message of its SpecError. Any other exception is the test's failure."""
    refused = None
    try:
        document = read.decode(raw, "file.yaml")
    except SpecError as error:
        refused = error
    if refused is not None:
        assert refused.file == "file.yaml"
        assert min(refused.line, refused.column) >= 1
        assert str(refused).startswith(f"file.yaml:{refused.line}:{refused.column}: ")
        return str(refused)
    assert isinstance(document.data, dict)
    assert document.places.keys() >= {(key,) for key in document.data}
    json.dumps(document.data)
    return "ok"


INDICATORS = "[]{}&*!|>-:#'\"%@`,?~=<\\ \t\n\r.01aé_"
TEXTS = st.one_of(
    st.text(max_size=200),
    st.text(INDICATORS, max_size=200),
    st.lists(
        st.sampled_from(
            ["a: ", "- ", "? ", "[", "]", "{", "}", ", ", "\n", "\n  ", "\n    ", "&a ", "*a", "!b ", "!!str ", "'", '"', "|", ">",
             "#", "---\n", "...\n", "%TAG ! x\n", "%YAML 1.1\n", "<<: ", "1", "true", "x", "\t", ": ", "\\u", "\0", "\x85",
             "\u2028", "\ufeff"]
        ),
        max_size=60,
    ).map("".join),
)  # fmt: skip


@given(TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=300))
@settings(max_examples=2000, deadline=None)
def test_any_bytes_are_a_document_or_refused(raw: bytes) -> None:
    outcome(raw)


@given(TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(max_examples=500, deadline=None)
def test_any_bytes_without_libyaml(raw: bytes) -> None:
    with patch.object(yaml, "CSafeLoader", yaml.SafeLoader):
        outcome(raw)


WRITABLE = st.characters(exclude_categories=["Cc", "Cs", "Cn", "Cf", "Co", "Zl", "Zp"])
PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**38), 10**38) | st.text(WRITABLE, max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(WRITABLE, max_size=10), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(WRITABLE, max_size=10), PLAIN, max_size=5), st.sampled_from([None, 2]))
@settings(max_examples=200, deadline=None)
def test_json_is_read_as_it_is(data: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=indent)
    assert same(read.parse(text, "file.yaml").data, data)


@given(st.dictionaries(st.text(WRITABLE, max_size=10), PLAIN, max_size=5))
@settings(max_examples=200, deadline=None)
def test_yaml_is_read_as_written(data: dict[str, Any]) -> None:
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    if "&id" not in text:  # an empty list in two places is written once, with an alias
        assert same(read.parse(text, "file.yaml").data, data)


# The worst that fits, and some that does not. Each is read with little memory and refused (or not) in no time.
BYTES = read.MAX_BYTES
WORST: dict[str, Callable[[], bytes]] = {
    "10,000 open lists": lambda: b"[" * 10_000,
    "lists to the limit": lambda: b"[" * BYTES,
    "10,000 open mappings": lambda: b"{a: " * 10_000,
    "mappings to the limit": lambda: b"{a: " * (BYTES // 4),
    "10,000 list items in each other": lambda: b"- " * 10_000,
    "keys of keys": lambda: b"? " * (BYTES // 2),
    "colons": lambda: b":" * BYTES,
    "single quotes": lambda: b"'" * BYTES,
    "double quotes": lambda: b'"' * BYTES,
    "open quotes": lambda: b"a: 'b" + b" b" * (BYTES // 2 - 5),
    "folded lines": lambda: b"a: >\n" + b" b\n\n" * (BYTES // 4 - 5),
    "plain lines": lambda: b"a\n" * (BYTES // 2),
    "empty lines": lambda: b"\n" * BYTES,
    "tabs": lambda: b"\t" * BYTES,
    "one comment": lambda: b"#" * BYTES,
    "escapes": lambda: b'a: "' + b"\\x41" * (BYTES // 4 - 5) + b'"',
    "one long key": lambda: b"? " + b"k" * (BYTES - 10) + b"\n: 1",
    "one long number": lambda: b"a: " + b"1" * (BYTES - 5),
    "underscores": lambda: b"a: 1" + b"_" * (BYTES - 5),
    "one long fraction": lambda: b"a: 1." + b"1" * (BYTES - 6),
    "many keys": lambda: b"".join(b"%x:\n" % n for n in range(BYTES // 8)),
    "many items": lambda: b"a: [" + b"[]," * (BYTES // 3 - 3) + b"]",
    "many documents": lambda: b"---\n" * (BYTES // 4),
    "many tag handles": lambda: b"".join(b"%%TAG !%x! x\n" % n for n in range(BYTES // 15)),
    "indentation": lambda: b"".join(b" " * n + b"a:\n" for n in range(700)),
    "billion laughs": lambda: (
        b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 30))
    ),
    "quadratic aliases": lambda: b"a: &a " + b"x" * 100_000 + b"\nb: [" + b"*a, " * 10_000 + b"]\n",
    "an alias of itself": lambda: b"a: &a [*a]\n",
    "merged without end": lambda: b"a: &a\n  <<: *a\n",
    "NUL": lambda: b"\0" * BYTES,
    "two bytes a letter": lambda: "é".encode() * (BYTES // 2),
    "16 MiB": lambda: b"a: 1\n" * (16 * 2**20 // 5),
}
MEMORY = 400 * 2**20
CHILD = """\
import json, resource, sys, time
from llmcalc.errors import SpecError
from llmcalc.specs import read
resource.setrlimit(resource.RLIMIT_AS, (%d, %d))
for path in sys.argv[1:]:
    begun = time.monotonic()
    try:
        read.read(read.FilePath(path))
        said = "ok"
    except SpecError as error:
        said = str(error).removeprefix(path)
    print(json.dumps([said, time.monotonic() - begun]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited the way Linux does")
def test_the_worst_in_little_memory(tmp_path: Path) -> None:
    """No input takes the memory or the time of a bomb. A gigabyte is refused by its first bytes."""
    files = []
    for name, made in WORST.items():
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_bytes(made())
    files.append(tmp_path / "sparse.yaml")
    with files[-1].open("wb") as stream:
        stream.truncate(2**30)
    child = CHILD % (MEMORY, MEMORY)
    root = Path(read.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", child, *map(str, files)],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    said = dict(zip([file.stem for file in files], map(json.loads, done.stdout.splitlines()), strict=True))
    slow = {name: seconds for name, (_, seconds) in said.items() if seconds > 20}
    assert not slow
    accepted = {name for name, (message, _) in said.items() if message == "ok"}
    assert accepted == {"folded lines", "escapes", "one long key", "one long number", "underscores", "one long fraction"}
    for name in ("16 MiB", "sparse"):
        assert said[name][0] == ":1:1: larger than 256 KiB; a spec is a page"
    for name in ("billion laughs", "quadratic aliases", "an alias of itself", "merged without end"):
        assert "anchors and aliases are not allowed" in said[name][0]


@pytest.mark.parametrize("name", WORST)
def test_the_worst_without_libyaml(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's own parser is slower, and no less careful."""
    monkeypatch.delattr(yaml, "CSafeLoader")
    begun = time.monotonic()
    outcome(WORST[name]())
    assert time.monotonic() - begun < 20
