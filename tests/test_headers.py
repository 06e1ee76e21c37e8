"""Headers of safetensors and GGUF files, and strict JSON: what good files say, and that bad ones are refused clearly."""

import contextlib
import json
import math
import random
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llmcalc.errors import SpecError
from llmcalc.importers import gguf, json_text, safetensors
from llmcalc.importers.tensors import Checkpoint, Tensor, joined

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import fuzz
from model_files import PAIRS, TENSORS, Ggml, gguf_file, gguf_parts, gguf_string, safetensors_file, safetensors_header

Files = dict[str, bytes]
MIB = 1024 * 1024


def write(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def refusal(read: Callable[[Path], object], path: Path) -> SpecError:
    """The error that this must be refused with: one line, not long, with the file in front."""
    with pytest.raises(SpecError) as caught:
        read(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500 + len(str(path))
    assert message.startswith(str(path.parent))
    return caught.value


# JSON


class BadJson(NamedTuple):
    """Text that is refused, where, and words of the message."""

    name: str
    text: str | bytes
    at: str
    says: str


BAD_JSON = [
    BadJson("empty", "", "1:1", "expecting value"),
    BadJson("cut", '{"a": [1, 2', "1:12", "not valid JSON"),
    BadJson("two values", "{} {}", "1:4", "extra data"),
    BadJson("comma at the end", '{"a": 1,}', "1:9", "not valid JSON"),
    BadJson("comment", "{} // none", "1:4", "extra data"),
    BadJson("one quote", "{'a': 1}", "1:2", "property name enclosed in double quotes"),
    BadJson("leading zero", "[01]", "1:3", "not valid JSON"),
    BadJson("string that ends nowhere", '{"a": "b', "1:7", "unterminated string"),
    BadJson("tab in a string", '["a\tb"]', "1:4", "control character"),
    BadJson("unknown escape", '["\\x41"]', "1:3", "escape"),
    BadJson("undefined", '{"a": undefined}', "1:7", "expecting value"),
    BadJson("key twice", '{"a": 1,\n "b": {"a": 2},\n "a": 3}', "3:2", "the key 'a' stands twice, first on line 1"),
    BadJson("key twice, inside", '{"a": {"b": 1, "c": {"b": 2}, "b": 3}}', "1:31", "the key 'b' stands twice"),
    BadJson("key twice, in a list", '[{"a": 1}, {"a": 1, "a": 1}]', "1:21", "the key 'a' stands twice"),
    BadJson("key twice, spelt in two ways", '{"a": 1, "\\u0061": 2}', "1:1", "the key 'a' stands twice"),
    BadJson("key twice, spelt in two ways, and then nonsense", '{"a": 1, "\\u0061": 2}]]}"a":', "1:1", "the key 'a' stands twice"),
    BadJson("key twice, after a mark of byte order", '\ufeff{"a": 1, "a": 2}', "1:10", "the key 'a' stands twice"),
    BadJson("deep, after a mark of byte order", "\ufeff" + "[" * 200, "1:101", "more than 100 deep"),
    BadJson(
        "key twice, of five million letters", "{" + ",".join(['"' + "k" * 5_000_000 + '": 1'] * 2) + "}", "1:1", "kkk...' stands"
    ),
    BadJson("key twice, a value like it", '{"k": "\\"k\\":", "k" : 2}', "1:17", "the key 'k' stands twice"),
    BadJson("key twice that a terminal obeys", '{"\\u001b[1m": 1, "\\u001b[1m": 2}', "1:18", "'\\x1b[1m' stands twice"),
    BadJson("whole number of 41 digits", '{"a":\n ' + "1" * 41 + "}", "2:2", "41 digits, allowed: 40"),
    BadJson("whole number of 5,000 digits", '["' + "1" * 50 + '", -' + "9" * 5000 + "]", "1:56", "5,000 digits"),
    BadJson("whole number of 41 digits, and a point", "[0.5, 1e5, -" + "1" * 41 + ".]", "1:12", "41 digits, allowed: 40"),
    BadJson("not UTF-8", b'{"a": "\xff"}', "1:8", "not UTF-8"),
    BadJson("UTF-16", '{"a": 1}'.encode("utf-16"), "1:1", "not UTF-8"),
    BadJson("half a surrogate pair", '["\\ud800"]', "1:1", "surrogate"),
    BadJson("half a surrogate pair as a key", '{"\\udc00": 1}', "1:1", "surrogate"),
    BadJson("lists 101 deep", "[" * 101 + "]" * 101, "1:101", "more than 100 deep"),
    BadJson("lists 10,000 deep", "[" * 10_000 + "]" * 10_000, "1:101", "more than 100 deep"),
    BadJson("mappings 10,000 deep", '{"a":\n' * 10_000, "101:1", "more than 100 deep"),
    BadJson("brackets in strings do not count", '["[[[", ' * 101, "1:801", "more than 100 deep"),
    BadJson("a million brackets", "[" * 1_000_000, "1:1", "more than 400,000 values"),
    BadJson("a million lists", "[" + "[]," * 1_000_000 + "1]", "1:1", "more than 400,000 values"),
    BadJson("a million keys", '{"":' * 400_001, "1:1", "more than 400,000 values"),
    BadJson("quotes alone", '"' * 8_000_000, "1:1", "more than 400,000 values"),
    BadJson("a string of escaped quotes that ends nowhere", '"' + '\\"' * 500_000, "1:1", "unterminated string"),
    BadJson("too large", " " * 16 * MIB + "{}", "1:1", "16,777,218 bytes of JSON, allowed: 16,777,216"),
    BadJson("only NUL bytes", b"\0" * 1000, "1:1", "expecting value"),
]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in BAD_JSON])
def test_json_refused(row: BadJson) -> None:
    with pytest.raises(SpecError) as caught:
        json_text.loads(row.text if isinstance(row.text, bytes) else row.text.encode(), "dir/config.json")
    message = str(caught.value)
    assert row.says in message
    assert message.startswith(f"dir/config.json:{row.at}: ")
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": [1, -2.5, true, null, "é"]}', {"a": [1, -2.5, True, None, "é"]}),
        ("[Infinity, -Infinity, 1e999]", [math.inf, -math.inf, math.inf]),
        ("\ufeff{}", {}),
        ('"\\ud83d\\ude00 \\\\ud800"', "😀 \\ud800"),
        ("9" * 40, int("9" * 40)),
        ("[" * 100 + "]" * 100, json.loads("[" * 100 + "]" * 100)),
        ('"' + "[" * 1000 + '"', "[" * 1000),
        ("0.1000000000000000055511151231257827021181583404541015625", 0.1),
        ("[0." + "0" * 50 + ", 1e-" + "0" * 50 + "1]", [0.0, 0.1]),
        ('[{"a": 1}, {"a": 2}, {"b": {"a": 3}, "a": 4}]', [{"a": 1}, {"a": 2}, {"b": {"a": 3}, "a": 4}]),
    ],
)
def test_json_accepted(text: str, expected: Any) -> None:
    assert json_text.loads(text.encode(), "config.json") == expected


def test_json_not_a_number() -> None:
    assert math.isnan(json_text.loads(b"NaN", "config.json"))


def test_json_limit_in_bytes() -> None:
    assert json_text.loads(b"[1, 2]", "x.json", limit=6) == [1, 2]
    with pytest.raises(SpecError, match=r"7 bytes of JSON, allowed: 6"):
        json_text.loads(b"[1, 22]", "x.json", limit=6)


# safetensors


def entry(dtype: Any = "F32", shape: Any = (2, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("dtype", safetensors.BITS)
def test_every_dtype(dtype: str, tmp_path: Path) -> None:
    """Bits of an element as safetensors 0.8 has them (Dtype::bitsize)."""
    path = write(tmp_path, {"x": safetensors_file(safetensors_header(w=(dtype, [3, 8])))}) / "x"
    found = safetensors.read(path)
    digits = "".join(c if c.isdigit() else " " for c in dtype.replace("BOOL", "8")).split()[0]
    assert found.tensors == (Tensor("w", (3, 8), dtype, 24 * int(digits) // 8),)
    assert found.elements == 24


def test_a_safetensors_file(tmp_path: Path) -> None:
    """Tensors come in the order of their data, whatever the header's; spaces at its end pad it."""
    header = {
        "z": entry("BF16", [3], [16, 22]), "__metadata__": {"format": "pt"}, "a": entry("F32", [2, 2], [0, 16]),
        "none": entry("I8", [0, 5], [22, 22]), "one": entry("U8", [], [22, 23]),
    }  # fmt: skip
    data = safetensors_file(json.dumps(header).encode() + b"   ", 23)
    path = write(tmp_path, {"model.safetensors": data}) / "model.safetensors"
    found = safetensors.read(path)
    assert [(t.name, t.shape, t.dtype, t.bytes, t.elements) for t in found.tensors] == [
        ("a", (2, 2), "F32", 16, 4), ("z", (3,), "BF16", 6, 3), ("none", (0, 5), "I8", 0, 0), ("one", (), "U8", 1, 1),
    ]  # fmt: skip
    assert found.metadata == {"format": "pt"}
    assert (found.source, found.files, found.file_bytes) == (str(path), (str(path),), len(data))
    assert safetensors.read_folder(tmp_path) == found


def test_nothing_but_the_header_is_read(tmp_path: Path) -> None:
    """A terabyte of weights, of which the disk has none."""
    path = tmp_path / "x"
    with path.open("wb") as stream:
        size = stream.write(safetensors_file(safetensors_header(w=("F32", [2**19, 2**19])), 0))
        stream.truncate(size + 2**40)
    assert safetensors.read(path).tensors == (Tensor("w", (2**19, 2**19), "F32", 2**40),)


class Bad(NamedTuple):
    """A file that is refused: the tensor or key that the message is about, and words of it."""

    name: str
    data: bytes
    field: str
    says: str


def header(**entries: Any) -> bytes:
    return safetensors_file(json.dumps(entries).encode(), 16)


def changed(**values: Any) -> bytes:
    """One tensor of 16 bytes, with this changed."""
    return header(w={**entry(), **values})


BAD_SAFETENSORS = [
    Bad("empty", b"", "", "0 bytes; a safetensors file has at least 8"),
    Bad("seven bytes", b"\0" * 7, "", "7 bytes"),
    Bad("a length of 0", b"\0" * 8, "", "the header starts with b''"),
    Bad("a length of 2^64 - 1", b"\xff" * 8, "", "a header of 18,446,744,073,709,551,615 bytes, allowed: 100,000,000"),
    Bad("a length past the format's limit", struct.pack("<Q", 100_000_001), "", "allowed: 100,000,000"),
    Bad("header cut", header(w=entry())[:50], "", "bytes of the header are missing"),
    Bad("a picture", b"\x89PNG\r\n\x1a\n" * 4, "", "no safetensors file"),
    Bad("a GGUF file", gguf_file(PAIRS, TENSORS), "", "no safetensors file"),
    Bad("zeros", struct.pack("<Q", 8) + b"\0" * 8, "", "starts with b'\\x00'"),
    Bad("blanks first", safetensors_file(b" {}", 0), "", "starts with b' '"),
    Bad("a list", safetensors_file(b"[]", 0), "", "starts with b'['"),
    Bad("not JSON", safetensors_file(b"{w}", 0), "", "not valid JSON"),
    Bad("not UTF-8", safetensors_file(b'{"\xff": 1}', 0), "", "not UTF-8"),
    Bad("nested", safetensors_file(b'{"w":' + b"[" * 10_000, 0), "", "more than 100 deep"),
    Bad(
        "tensor twice", safetensors_file(b'{"w": %b, "w": %b}' % ((json.dumps(entry()).encode(),) * 2), 16), "", "'w' stands twice"
    ),
    Bad("tensor of nothing", header(w=None), "w", "found null, allowed: a mapping of dtype, shape, data_offsets"),
    Bad("no dtype", header(w={"shape": [1], "data_offsets": [0, 4]}), "w", "dtype missing"),
    Bad("no shape", header(w={"dtype": "U8", "data_offsets": [0, 4]}), "w", "shape missing"),
    Bad("no offsets", header(w={"dtype": "U8", "shape": [4]}), "w", "data_offsets missing"),
    Bad("unknown dtype", changed(dtype="FP8"), "w", "dtype: found 'FP8', allowed: BOOL, F4,"),
    Bad("dtype of PyTorch", changed(dtype="bfloat16"), "w", "did you mean BF16?"),
    Bad("dtype in lower case", changed(dtype="f32"), "w", "did you mean F32?"),
    Bad("dtype as a number", changed(dtype=32), "w", "dtype: found 32"),
    Bad("dtype that a terminal obeys", changed(dtype="\x1b[31m"), "w", "dtype: found '\\x1b[31m'"),
    Bad("dtype without end", changed(dtype="F" * 5000), "w", "dtype: found 'FFF"),
    Bad("shape as a number", changed(shape=4), "w", "shape: found 4"),
    Bad("negative dimension", changed(shape=[-2, -2]), "w", "shape: found [-2, -2], allowed: up to 64 whole numbers from 0"),
    Bad("dimension with a point", changed(shape=[2.0, 2]), "w", "shape: found [2.0, 2]"),
    Bad("dimension true", changed(shape=[True, 4]), "w", "shape: found [True, 4]"),
    Bad("dimension as text", changed(shape=["2", 2]), "w", "shape: found ['2', 2]"),
    Bad("dimension of 2^63", changed(shape=[2**63]), "w", "shape: found [9223372036854775808]"),
    Bad("65 dimensions", changed(shape=[1] * 65), "w", "up to 64 whole numbers"),
    Bad("absurd product", changed(shape=[2**62, 2**62]), "w", "of F32 is 2^60 bytes or more"),
    Bad("product that wraps to 16 bytes", changed(shape=[2**62 + 1, 4]), "w", "of F32 is 2^60 bytes or more"),
    Bad("half a byte", changed(dtype="F4", shape=[3]), "w", "12 bits, not whole bytes"),
    Bad("three offsets", changed(data_offsets=[0, 8, 16]), "w", "data_offsets: found [0, 8, 16], allowed: [start, end]"),
    Bad("offsets backwards", changed(data_offsets=[16, 0]), "w", "start <= end"),
    Bad("negative offsets", changed(data_offsets=[-16, 0]), "w", "data_offsets: found [-16, 0]"),
    Bad("offsets too wide", changed(data_offsets=[0, 20]), "w", "span 20 bytes, shape [2, 2] of F32 takes 16"),
    Bad("hole at the start", changed(data_offsets=[4, 20]), "w", "leaves a hole after the header, which ends at 0"),
    Bad("hole", header(v=entry(), w=entry(offsets=[17, 33])), "w", "leaves a hole after 'v', which ends at 16"),
    Bad("overlap", header(v=entry(), w=entry(offsets=[8, 24])), "w", "overlaps 'v', which ends at 16"),
    Bad("same data twice", header(v=entry(), w=entry()), "w", "overlaps 'v'"),
    Bad("data cut", header(w=entry())[:-5], "", "truncated: 5 bytes of 16 bytes of tensors are missing"),
    Bad("data in excess", header(w=entry()) + b"\0", "", "1 bytes after the last tensor, allowed: none"),
    Bad("metadata of numbers", header(__metadata__={"a": 1}, w=entry()), "__metadata__", "a mapping of text to text"),
    Bad("metadata as a list", header(__metadata__=["a"], w=entry()), "__metadata__", "a mapping of text to text"),
    Bad("name that a terminal obeys", header(**{"a\x1b]0;b\n": 1}), "a\\x1b]0;b\\n", "found 1"),
]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in BAD_SAFETENSORS])
def test_safetensors_refused(row: Bad, tmp_path: Path) -> None:
    error = refusal(safetensors.read, write(tmp_path, {"bad.safetensors": row.data}) / "bad.safetensors")
    assert row.says in str(error)
    assert error.field == row.field


def test_header_length_without_a_file() -> None:
    """As bytes that came over a network: the size may be unknown."""
    assert safetensors.header_length(struct.pack("<Q", 500), "hub", None) == 500
    assert safetensors.header_length(struct.pack("<Q", 500), "hub", 508) == 500
    with pytest.raises(SpecError, match=r"^hub: truncated: 1 bytes of the header are missing"):
        safetensors.header_length(struct.pack("<Q", 500), "hub", 507)


@pytest.mark.parametrize("read", [safetensors.read, gguf.read])
def test_what_is_no_file(read: Callable[[Path], Checkpoint], tmp_path: Path) -> None:
    assert "cannot be read: No such file" in str(refusal(read, tmp_path / "none"))
    assert "is no regular file" in str(refusal(read, write(tmp_path, {}) / "."))
    assert "is no regular file" in str(refusal(read, Path("/dev/zero")))


# Folders of safetensors


def shards(*names: str, stem: str = "model", count: int = 0) -> Files:
    """Numbered shards of one tensor each."""
    count = count or len(names)
    return {
        f"{stem}-{number:05}-of-{count:05}.safetensors": safetensors_file(safetensors_header(**{name: ("F32", [number])}))
        for number, name in enumerate(names, 1)
    }


def index(**weight_map: Any) -> Files:
    return {safetensors.INDEX: json.dumps({"metadata": {"total_size": 12}, "weight_map": weight_map}).encode()}


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SINGLE = {"model.safetensors": safetensors_file(safetensors_header(a=("F32", [1]), b=("F32", [2])))}
GOOD_FOLDERS: dict[str, Files] = {
    "one file": SINGLE,
    "one file beside stale shards": SINGLE | shards("x"),
    "one file of another name": {"weights.safetensors": SINGLE["model.safetensors"]},
    "shards and an index": shards("a", "b") | index(a=ONE, b=TWO),
    "shards without an index": shards("a", "b"),
    "files without numbers": {"x.safetensors": shards("a", "b")[ONE], "y.safetensors": shards("a", "b")[TWO]},
    "an index, and the same weights by other names": shards("a", "b") | index(a=ONE, b=TWO)
    | shards("c", "d", stem="consolidated") | {"consolidated.safetensors": SINGLE["model.safetensors"]},
    "an index, and an adapter": shards("a", "b") | index(a=ONE, b=TWO) | {"adapter_model.safetensors": SINGLE["model.safetensors"]},
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD_FOLDERS)
def test_a_folder(name: str, tmp_path: Path) -> None:
    found = safetensors.read_folder(write(tmp_path, GOOD_FOLDERS[name]))
    assert found.tensors == (Tensor("a", (1,), "F32", 4), Tensor("b", (2,), "F32", 8))
    assert found.file_bytes == sum(Path(file).stat().st_size for file in found.files)


class BadFolder(NamedTuple):
    """A folder that is refused: the file that the message names, the tensor, and words of it."""

    name: str
    files: Files
    file: str
    field: str
    says: str


INDEX = safetensors.INDEX
BAD_FOLDERS = [
    BadFolder("empty", {}, "", "", "no model.safetensors, no model.safetensors.index.json"),
    BadFolder("a shard missing", shards("a")
        | index(a="model-00001-of-00001.safetensors", b="model-00009-of-00001.safetensors"),
        INDEX, "", "1 of 2 shards missing: 'model-00009-of-00001.safetensors'"),
    BadFolder("tensor in no shard", shards("a", "b") | index(a=ONE, b=TWO, c=TWO), INDEX, "c", f"is not in '{TWO}'"),
    BadFolder("tensor that the index does not know", shards("a", "b", "c", count=3)
        | index(a="model-00001-of-00003.safetensors", b="model-00002-of-00003.safetensors", x="model-00003-of-00003.safetensors"),
        INDEX, "c", "is in 'model-00003-of-00003.safetensors', the index says nothing"),
    BadFolder("tensor in another shard", shards("a", "b") | index(a=TWO, b=ONE), INDEX, "a",
        f"is in '{ONE}', the index says '{TWO}'"),
    BadFolder("tensor twice", shards("a", "a") | index(a=ONE, b=TWO), TWO, "a", f"is in {ONE} too"),
    BadFolder("tensor twice, no index", shards("a", "a"), TWO, "a", f"is in {ONE} too"),
    BadFolder("shard that the index does not name", shards("a", "b") | index(a=ONE), INDEX, "", f"'{TWO}' is a part of the set"),
    BadFolder("index without a map", {INDEX: b'{"metadata": {}}'}, INDEX, "weight_map", "missing or empty"),
    BadFolder("index with an empty map", index(), INDEX, "weight_map", "missing or empty"),
    BadFolder("index as a list", {INDEX: b"[1]"}, INDEX, "weight_map", "missing or empty"),
    BadFolder("map of numbers", index(a=1), INDEX, "a", "found 1, allowed: the name of a .safetensors file in the folder"),
    BadFolder("map out of the folder", index(a="../x.safetensors"), INDEX, "a", "allowed: the name of a .safetensors file"),
    BadFolder("map to the root", index(a="/etc/x.safetensors"), INDEX, "a", "allowed: the name of a .safetensors file"),
    BadFolder("map with a NUL", index(a="\0.safetensors"), INDEX, "a", "allowed: the name of a .safetensors file"),
    BadFolder("map to a name too long", index(a="x" * 300 + ".safetensors"), INDEX, "a", "allowed: the name of"),
    BadFolder("map to a pickle", index(a="x.bin"), INDEX, "a", "found 'x.bin'"),
    BadFolder("index that is no JSON", {INDEX: b"{"}, INDEX, "", "not valid JSON"),
    BadFolder("tensor twice in the index", {INDEX: b'{"weight_map": {"a": "x", "a": "y"}}'}, INDEX, "", "'a' stands twice"),
    BadFolder("bad shard", shards("a") | index(a="model-00001-of-00001.safetensors", b="x.safetensors")
        | {"x.safetensors": b"\0" * 9}, "x.safetensors", "", "no safetensors file"),
    BadFolder("set without an index, incomplete", shards("a", "b", count=5), "", "",
        "3 of 5 files missing: model-00003-of-00005.safetensors, model-00004-of-00005.safetensors"),
    BadFolder("set and another file, no index", shards("a", "b") | {"consolidated.safetensors": SINGLE["model.safetensors"]},
        "", "", "'consolidated.safetensors' stands beside the set"),
    BadFolder("two sets, no index", shards("a") | shards("a", "b"), "", "", f"'{ONE}' stands beside the set"),
]  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in BAD_FOLDERS])
def test_a_folder_refused(row: BadFolder, tmp_path: Path) -> None:
    error = refusal(safetensors.read_folder, write(tmp_path, row.files))
    assert row.says in str(error)
    assert error.file == str(tmp_path / row.file if row.file else tmp_path)
    assert error.field == row.field


# GGUF


@pytest.mark.parametrize(("version", "order"), [(2, "<"), (3, "<"), (3, ">")])
def test_a_gguf_file(version: int, order: str, tmp_path: Path) -> None:
    data = gguf_file(PAIRS, TENSORS, version=version, order=order)
    found = gguf.read(write(tmp_path, {"x.gguf": data}) / "x.gguf")
    assert [(t.name, t.shape, t.dtype, t.bytes, t.elements) for t in found.tensors] == [
        ("token_embd.weight", (4, 256), "Q4_K", 4 * 144, 1024), ("blk.0.ffn_up.weight", (3, 64), "Q8_0", 6 * 34, 192),
        ("output_norm.weight", (64,), "F32", 256, 64),
    ]  # fmt: skip
    assert found.file_bytes == len(data)
    expected: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, _, value in PAIRS}
    assert found.metadata == expected | {"a.nested": ((1, 2), (), (3,))}
    assert found.metadata["a.bool"] is True


def test_long_values_are_counted_not_kept(tmp_path: Path) -> None:
    """Vocabularies, merges, a whole tokenizer.json."""
    pairs = [
        ("tokens", "ARRAY of STRING", ["token"] * 200_000), ("types", "ARRAY of INT32", [1] * 4097),
        ("short", "ARRAY of INT32", [1] * 4096), ("json", "STRING", "{" * (MIB + 1)), ("template", "STRING", "t" * MIB),
    ]  # fmt: skip
    path = write(tmp_path, {"x.gguf": gguf_file(pairs, TENSORS)}) / "x.gguf"
    found = gguf.read(path)
    assert found.metadata["tokens"] == gguf.LongArray("STRING", 200_000)
    assert found.metadata["types"] == gguf.LongArray("INT32", 4097)
    assert found.metadata["json"] == gguf.LongArray("BYTE", MIB + 1)
    assert found.metadata["short"] == (1,) * 4096
    assert found.metadata["template"] == "t" * MIB
    assert [tensor.name for tensor in found.tensors] == [tensor.name for tensor in TENSORS]


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (Ggml("scalar", ()), Tensor("scalar", (), "F32", 4)),
        (Ggml("none", (0, 3), 2), Tensor("none", (3, 0), "Q4_0", 0)),
        (Ggml("experts", (512, 3, 2, 5), 19), Tensor("experts", (5, 2, 3, 512), "IQ1_S", 60 * 50)),
    ],
)
def test_shapes(tensor: Ggml, expected: Tensor, tmp_path: Path) -> None:
    assert gguf.read(write(tmp_path, {"x": gguf_file([], [tensor])}) / "x").tensors == (expected,)


def test_padding_at_the_end_may_be_missing(tmp_path: Path) -> None:
    """Some writers do not pad the last tensor; loaders do not ask for it."""
    whole = gguf_file([], [Ggml("a", (3,)), Ggml("b", (3,))])
    assert len(gguf.read(write(tmp_path, {"x": whole[:-20]}) / "x").tensors) == 2
    assert "truncated: 1 bytes of 44" in str(refusal(gguf.read, write(tmp_path, {"x": whole[:-21]}) / "x"))


def raw(count: int, pairs: bytes, tensors: int = 0) -> bytes:
    """A GGUF file of these bytes."""
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, count) + pairs


def pair(kind: int, value: bytes, key: str = "k") -> bytes:
    return gguf_string(key) + struct.pack("<I", kind) + value


def tensors(*each: Ggml, **options: Any) -> bytes:
    return gguf_file([], each, **options)


BAD_GGUF = [
    Bad("empty", b"", "", "no GGUF file: starts with b''"),
    Bad("two bytes", b"GG", "", "no GGUF file"),
    Bad("magic alone", b"GGUF", "version", "needs 4 bytes at byte 4, where the file has 0 left; 4 bytes are missing"),
    Bad("a picture", b"\x89PNG\r\n\x1a\n", "", "no GGUF file: starts with b'\\x89PNG', allowed: b'GGUF'"),
    Bad("GGML, its forerunner", b"ggjt" + b"\0" * 50, "", "no GGUF file"),
    Bad("version 1", tensors(version=1), "version", "found 1, allowed: 2, 3; convert the model again"),
    Bad("version 4", tensors(version=4), "version", "found 4, allowed: 2, 3"),
    Bad("version 0", tensors(version=0), "version", "found 0"),
    Bad("big-endian version 2", tensors(version=2, order=">"), "version", "found 2"),
    Bad("no counts", raw(0, b"")[:20], "tensor and key counts", "4 bytes are missing"),
    Bad("2^63 tensors", raw(0, b"", 2**63), "", "9,223,372,036,854,775,808 tensors, allowed: 65,536"),
    Bad("more tensors than bytes", raw(0, b"\0" * 100, 5), "tensors", "20 bytes are missing"),
    Bad("2^64 - 1 keys", raw(2**64 - 1, b""), "", "keys, allowed: 65,536"),
    Bad("more keys than bytes", raw(2, pair(0, b"\1")), "keys", "12 bytes are missing"),
    Bad("key of 2^40 bytes", raw(1, struct.pack("<Q", 2**40) + b"\0" * 99), "key 1 of 1", "a name of 1,099,511,627,776 bytes"),
    Bad("key longer than the file", raw(1, struct.pack("<Q", 500) + b"\0" * 99), "key 1 of 1", "401 bytes are missing"),
    Bad("empty key", raw(1, pair(0, b"\1", "")), "", "key 1 of 1 is empty"),
    Bad("key twice", raw(2, pair(0, b"\1") * 2), "k", "stands twice"),
    Bad("key that is not UTF-8", raw(1, gguf_string(b"\xff") + b"\0" * 9), "key 1 of 1", "the name is not UTF-8"),
    Bad("unknown value type", raw(1, pair(13, b"\0" * 8)), "k", "value type 13, allowed: 0 to 12"),
    Bad("unknown element type", raw(1, pair(9, struct.pack("<IQ", 99, 0))), "k", "an array of value type 99"),
    Bad("truth of 2", raw(1, pair(7, b"\2")), "k", "a truth value of 2, allowed: 0, 1"),
    Bad("truth of 255 in a list", raw(1, pair(9, struct.pack("<IQ", 7, 2) + b"\1\xff")), "k", "a truth value of 255"),
    Bad("value cut", raw(1, pair(10, b"\0" * 4)), "k", "4 bytes are missing"),
    Bad("string of 2^40 bytes", raw(1, pair(8, struct.pack("<Q", 2**40))), "k", "1,099,511,627,776 bytes are missing"),
    Bad("string of 2^64 - 1 bytes", raw(1, pair(8, struct.pack("<Q", 2**64 - 1))), "k", "bytes are missing"),
    Bad("array of 2^60 numbers", raw(1, pair(9, struct.pack("<IQ", 10, 2**60))), "k", "needs 9,223,372,036,854,775,808 bytes"),
    Bad("array of 2^60 strings", raw(1, pair(9, struct.pack("<IQ", 8, 2**60))), "k", "bytes are missing"),
    Bad("array of 2^60 arrays", raw(1, pair(9, struct.pack("<IQ", 9, 2**60))), "k", "bytes are missing"),
    Bad("long array of strings that ends early", raw(1, pair(9, struct.pack("<IQ", 8, 5000) + b"\1" + b"\0" * 39_990)),
        "k", "bytes are missing"),
    Bad("long array with a string of 2^63 bytes", raw(1, pair(9, struct.pack("<IQ", 8, 5000) + b"\0" * 8 + b"\xff" * 50_000)),
        "k", "bytes are missing"),
    Bad("four million strings", raw(1, pair(9, struct.pack("<IQ", 8, 4_000_000) + b"\0" * 32_000_000)),
        "k", "4,000,000 strings in long arrays, allowed: 3,000,000"),
    Bad("arrays in arrays 10,000 deep", raw(1, pair(9, struct.pack("<IQ", 9, 1) * 10_000)), "k", "arrays nested more than 4 deep"),
    Bad("5,000 arrays", raw(1, pair(9, struct.pack("<IQ", 9, 5000) + struct.pack("<IQ", 0, 0) * 5000)),
        "k", "an array of 5,000 arrays, allowed: 4,096"),
    Bad("many values", raw(100, b"".join(pair(9, struct.pack("<IQ", 0, 4096) + b"\0" * 4096, f"k{i}") for i in range(100))),
        "k61", "more than 250,000 values"),
    Bad("much text", raw(20, b"".join(pair(8, gguf_string(b"\0" * MIB), f"k{i}") for i in range(20))),
        "k15", "more than 16,777,216 bytes of names and text"),
    Bad("alignment 0", raw(1, pair(4, struct.pack("<I", 0), gguf.ALIGNMENT)), gguf.ALIGNMENT, "found '0', allowed: a power of 2"),
    Bad("alignment 48", raw(1, pair(4, struct.pack("<I", 48), gguf.ALIGNMENT)), gguf.ALIGNMENT, "found '48'"),
    Bad("alignment as text", raw(1, pair(8, gguf_string("32"), gguf.ALIGNMENT)), gguf.ALIGNMENT, "found '32'"),
    Bad("alignment past the file", gguf_file([(gguf.ALIGNMENT, "UINT32", 2**20)], [Ggml("a", (0,))])[:999], "", "truncated"),
    Bad("tensor cut", tensors(Ggml("a", (4,), 0))[:48], "a", "bytes are missing"),
    Bad("tensor name that is not UTF-8", raw(0, gguf_string(b"\xff") + b"\0" * 40, 1), "tensor 1 of 1", "not UTF-8"),
    Bad("tensor twice", tensors(Ggml("a", (4,)), Ggml("a", (4,))), "a", "stands twice"),
    Bad("five dimensions", tensors(Ggml("a", (1, 1, 1, 1, 1))), "a", "5 dimensions, allowed: 4"),
    Bad("2^32 - 1 dimensions", raw(0, gguf_string("a") + b"\xff" * 64, 1), "a", "4,294,967,295 dimensions, allowed: 4"),
    Bad("dimension of 2^63", raw(0, gguf_string("a") + struct.pack("<IQIQ", 1, 2**63, 0, 0), 1), "a", "2^60 elements or more"),
    Bad("dimension of 2^63 beside 0", raw(0, gguf_string("a") + struct.pack("<IQQIQ", 2, 0, 2**63, 0, 0), 1), "a", "2^60"),
    Bad("product that wraps to 4", raw(0, gguf_string("a") + struct.pack("<IQQIQ", 2, 2**62 + 1, 4, 0, 0), 1), "a", "2^60"),
    Bad("unknown ggml type", tensors(Ggml("a", (4,), 99)), "a", "ggml type 99; allowed: 0 to 42"),
    Bad("ggml type of the past", tensors(Ggml("a", (32,), 31)), "a", "ggml type 31, which was Q4_0_4_4 and is no longer"),
    Bad("row that is no whole blocks", tensors(Ggml("a", (100, 256), 12)), "a",
        "rows of 100 elements, allowed for Q4_K: multiples of its block, 256"),
    Bad("offset that is not aligned", tensors(Ggml("a", (4,), 0, 4)), "a", "offset: found 4, allowed: 0"),
    Bad("overlap", tensors(Ggml("a", (16,)), Ggml("b", (4,), 0, 32)), "b", "offset: found 32, allowed: 64"),
    Bad("hole", tensors(Ggml("a", (16,)), Ggml("b", (4,), 0, 128)), "b", "offset: found 128, allowed: 64"),
    Bad("offset past everything", tensors(Ggml("a", (4,), 0, 2**63)), "a", "offset: found 9,223,372,036,854,775,808, allowed: 0"),
    Bad("data cut", tensors(Ggml("a", (256, 4), 12), cut=100), "", "truncated: 100 bytes of 576 bytes of tensors are missing"),
    Bad("no data", tensors(Ggml("a", (4096, 4096), 1))[:100], "", "bytes of 33,554,432 bytes of tensors are missing"),
    Bad("name that a terminal obeys", tensors(Ggml("a\x1b[2J", (4,), 99)), "a\\x1b[2J", "ggml type 99"),
]  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in BAD_GGUF])
def test_gguf_refused(row: Bad, tmp_path: Path) -> None:
    error = refusal(gguf.read, write(tmp_path, {"bad.gguf": row.data}) / "bad.gguf")
    assert row.says in str(error)
    assert error.field == row.field


def test_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    """Lengths that fit a file of terabytes, and still are nothing that a header has."""
    path = tmp_path / "x.gguf"
    for start, says in (
        (raw(1, pair(8, struct.pack("<Q", 2**40))), "a header of more than 536,870,912 bytes"),
        (raw(1, pair(9, struct.pack("<IQ", 0, 2**40))), "a header of more than 536,870,912 bytes"),
        (raw(1, pair(9, struct.pack("<IQ", 8, 2**35))), "a header of more than 536,870,912 bytes"),
        (raw(60_000, b""), "key 1 of 60000 is empty"),
    ):
        with path.open("wb") as stream:
            stream.write(start)
            stream.truncate(2**41)
        assert says in str(refusal(gguf.read, path))


# Split sets of GGUF


def parts(count: int = 2, **changed: Any) -> Files:
    """A set of two tensors a file; ``no``, ``count`` and ``tensors`` (values) or ``name`` (of its tensors) change the last."""
    files = {}
    for number in range(count):
        last = changed if number == count - 1 else {}
        pairs = [
            ("split.no", "UINT16", last.get("no", number)), ("split.count", "UINT16", last.get("count", count)),
            ("split.tensors.count", "INT32", changed.get("tensors", 2 * count)), ("from", "UINT16", number),
        ]  # fmt: skip
        name = last.get("name", str(number))
        files[f"m-{number + 1:05}-of-{count:05}.gguf"] = gguf_file(pairs, [Ggml(f"{name}.{i}", (64, 2)) for i in (0, 1)])
    return files


@pytest.mark.parametrize("start", [1, 2, 3])
def test_a_split_set(start: int, tmp_path: Path) -> None:
    """Any of its files stands for the whole; the first has the metadata."""
    files = parts(3)
    found = gguf.read(write(tmp_path, files) / f"m-0000{start}-of-00003.gguf")
    assert [tensor.name for tensor in found.tensors] == ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1"]
    assert found.file_bytes == sum(map(len, files.values()))
    assert found.metadata["from"] == 0
    assert found.source == str(tmp_path / "m-00001-of-00003.gguf")


FIRST, LAST = "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"
BAD_SETS = [
    BadFolder("part missing", {FIRST: parts()[FIRST]}, "", "", f"1 of 2 files missing: {LAST}"),
    BadFolder("many missing", {"m-00002-of-00009.gguf": parts(9)["m-00002-of-00009.gguf"]}, "", "",
        "8 of 9 files missing: m-00001-of-00009.gguf, "),
    BadFolder("another number", parts(no=0), LAST, "split.no", "found 0, allowed: 1, by its name"),
    BadFolder("another count", parts() | {LAST: parts(3)["m-00002-of-00003.gguf"]}, LAST, "split.count",
        "found 3, allowed: 2"),
    BadFolder("no count", parts() | {LAST: tensors(Ggml("x", (4,)))}, LAST, "split.count", "found 1, allowed: 2"),
    BadFolder("tensors missing", parts(tensors=5), FIRST, "split.tensors.count", "found 5, but the 2 files hold 4 tensors"),
    BadFolder("tensor twice", parts(name="0"), LAST, "0.0", f"is in {FIRST} too"),
    BadFolder("renamed", {"model.gguf": parts()[FIRST]}, "model.gguf", "split.count", "is not named like a part of 2"),
    BadFolder("named for another count", {"m-00001-of-00003.gguf": parts()[FIRST]}, "m-00001-of-00003.gguf", "split.count",
        "found 2, but the file is not named like a part of 2"),
    BadFolder("part 3 of 2", {"m-00003-of-00002.gguf": parts()[FIRST]}, "m-00003-of-00002.gguf", "", "is part 3 of 2"),
    BadFolder("count as text", {FIRST: gguf_file([("split.count", "STRING", "2")])}, FIRST, "split.count", "is no whole number"),
    BadFolder("cut", parts() | {LAST: parts()[LAST][:-32]}, LAST, "", "truncated"),
]  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in BAD_SETS])
def test_a_split_set_refused(row: BadFolder, tmp_path: Path) -> None:
    first = min(row.files)
    error = refusal(gguf.read, write(tmp_path, row.files) / first)
    assert row.says in str(error)
    assert error.file == str(tmp_path / row.file if row.file else tmp_path)
    assert error.field == row.field


def test_joined_keeps_the_first_metadata() -> None:
    one = Checkpoint("a", (Tensor("x", (1,), "F32", 4),), {"k": 1}, 10, ("a",))
    two = Checkpoint("b", (Tensor("y", (2,), "F16", 4),), {"k": 2, "l": 3}, 20, ("b",))
    assert joined("all", [one, two]) == Checkpoint("all", one.tensors + two.tensors, {"k": 1, "l": 3}, 30, ("a", "b"))


# Memory, other implementations, fuzzing


HOSTILE: dict[str, tuple[Callable[[Path, bytes], object], bytes]] = {
    "keys of JSON": (lambda _, data: json_text.loads(data, "x"), b"{" + b",".join(b'"%06x":1' % i for i in range(399_000)) + b"}"),
    "header of a safetensors file": (
        fuzz.READERS["safetensors"].read,
        safetensors_file(b'{"__metadata__":{' + b",".join(b'"%054x":""' % i for i in range(399_000)) + b"}}", 0),
    ),
    "keys of a GGUF file": (fuzz.READERS["gguf"].read, raw(65_536, b"".join(pair(0, b"\1", f"k{i}") for i in range(65_536)))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_memory_is_bounded(name: str, tmp_path: Path) -> None:
    """The most that the limits let through takes less than 200 MB."""
    read, data = HOSTILE[name]
    tracemalloc.start()
    try:
        assert fuzz.feed(fuzz.Reader(list, [], read), tmp_path, data) == "accepted"
        assert tracemalloc.get_traced_memory()[1] < 200_000_000
    finally:
        tracemalloc.stop()


def test_types_of_the_gguf_package() -> None:
    constants = pytest.importorskip("gguf.constants")
    theirs = {int(kind): (kind.name, *size) for kind, size in constants.GGML_QUANT_SIZES.items()}
    assert {number: gguf.TYPES[number] for number in theirs} == theirs
    assert {number: name for number, (name, _) in gguf.VALUES.items()} == {int(kind): kind.name for kind in constants.GGUFValueType}


@pytest.mark.parametrize("split", [0, 2])
def test_files_of_the_gguf_package(split: int, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    package = pytest.importorskip("gguf")
    writer = package.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=split)
    writer.add_block_count(2)
    writer.add_token_list([f"t{i}" for i in range(5000)])
    writer.add_array("list", [1, 2, 3])
    for i in range(5):
        writer.add_tensor(f"blk.{i}", numpy.zeros((3, 5), numpy.float16))
    writer.add_tensor(
        "q", package.quants.quantize(numpy.zeros((4, 256), numpy.float32), package.GGMLQuantizationType.Q8_0), raw_dtype=8
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = gguf.read(tmp_path / ("m-00002-of-00003.gguf" if split else "m.gguf"))
    assert [(t.name, t.shape, t.dtype, t.bytes) for t in found.tensors] == [
        *[(f"blk.{i}", (3, 5), "F16", 30) for i in range(5)], ("q", (4, 256), "Q8_0", 1088),
    ]  # fmt: skip
    assert found.metadata["llama.block_count"] == 2
    assert found.metadata["tokenizer.ggml.tokens"] == gguf.LongArray("STRING", 5000)
    assert found.metadata["list"] == (1, 2, 3)


def test_the_gguf_package_reads_our_files(tmp_path: Path) -> None:
    package = pytest.importorskip("gguf")
    reader = package.GGUFReader(write(tmp_path, {"x": gguf_file(PAIRS, TENSORS)}) / "x")
    ours = gguf.read(tmp_path / "x")
    assert [(t.name, tuple(map(int, t.shape))[::-1], int(t.n_bytes), int(t.n_elements)) for t in reader.tensors] == [
        (t.name, t.shape, t.bytes, t.elements) for t in ours.tensors
    ]


def test_the_safetensors_package_agrees(tmp_path: Path) -> None:
    """Of two thousand broken files it accepts the same, and reads the same in them."""
    package = pytest.importorskip("safetensors")
    rng = random.Random(7)
    reader = fuzz.READERS["safetensors"]
    seeds = reader.seeds()
    for number in range(2000):
        data = fuzz.mutant(reader, seeds, rng)
        theirs, ours = None, None
        with contextlib.suppress(package.SafetensorError):
            said = package.deserialize(data)
            theirs = sorted((name, tuple(t["shape"]), t["dtype"], len(t["data"])) for name, t in said)
        with contextlib.suppress(SpecError):
            path = write(tmp_path, {"x": data}) / "x"
            ours = sorted((t.name, t.shape, t.dtype, t.bytes) for t in safetensors.read(path).tensors)
        assert ours == theirs, f"input {number}"


@pytest.mark.parametrize("name", fuzz.READERS)
def test_broken_files_are_refused_or_read(name: str, tmp_path: Path) -> None:
    """A short run of benchmarks/fuzz.py: no other exception than LlmcalcError, no answer that cannot be."""
    reader = fuzz.READERS[name]
    seeds = reader.seeds()
    outcomes = {fuzz.feed(reader, tmp_path, fuzz.mutant(reader, seeds, random.Random(f"{name} {i}"))) for i in range(300)}
    assert outcomes == {"accepted", "refused"}
    assert {fuzz.feed(reader, tmp_path, seed) for seed in seeds} == {"accepted"}


def test_fuzzing_notices() -> None:
    """A reader that fails is not taken for one that refuses."""
    failing = fuzz.Reader(list, [], lambda _, data: data[99])
    with pytest.raises(IndexError):
        fuzz.feed(failing, Path(), b"")
    impossible = Checkpoint("x", (Tensor("a", (2,), "F32", 8),), {}, 4, ("x",))
    with pytest.raises(AssertionError):
        fuzz.feed(failing._replace(read=lambda *_: impossible), Path(), b"")
    assert gguf_parts()[0] != gguf_parts()[1]
