"""Small GGUF and safetensors files, written by the formats' own descriptions: what tests read, and what fuzzing starts from."""

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llmcalc.importers import gguf, safetensors
from llmcalc.specs import catalogue


def gguf_string(text: str | bytes, order: str = "<") -> bytes:
    """A GGUF string: its length and its bytes."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack(f"{order}Q", len(raw)) + raw


def gguf_value(kind: str, value: Any, order: str = "<") -> bytes:
    """A GGUF value without its type; ``kind`` is a type's name, for arrays ``ARRAY of KIND``."""
    numbers = {name: (number, code) for number, (name, code) in gguf.VALUES.items()}
    if kind == "STRING":
        return gguf_string(value, order)
    if kind.startswith("ARRAY of "):
        inner = kind.removeprefix("ARRAY of ")
        number = numbers[inner.split(" ")[0]][0]
        return struct.pack(f"{order}IQ", number, len(value)) + b"".join(gguf_value(inner, item, order) for item in value)
    return struct.pack(order + numbers[kind][1], value)


class Ggml(NamedTuple):
    """A tensor to write: its ``ne``, innermost first, and ggml type."""

    name: str
    ne: tuple[int, ...]
    kind: int = 0
    offset: int | None = None


def gguf_file(
    pairs: Sequence[tuple[str, str, Any]] = (), tensors: Sequence[Ggml] = (), *, version: int = 3, order: str = "<", cut: int = 0
) -> bytes:
    """A GGUF file of (key, kind, value) and tensors with zeros for data; ``cut`` bytes are missing at the end."""
    numbers = {name: number for number, (name, _) in gguf.VALUES.items()}
    alignment = next((value for key, _, value in pairs if key == gguf.ALIGNMENT), 32)
    raw = b"GGUF" + struct.pack(f"{order}IQQ", version, len(tensors), len(pairs))
    for key, kind, value in pairs:
        raw += gguf_string(key, order) + struct.pack(f"{order}I", numbers[kind.split(" ")[0]]) + gguf_value(kind, value, order)
    at = 0
    for tensor in tensors:
        offset = at if tensor.offset is None else tensor.offset
        raw += gguf_string(tensor.name, order) + struct.pack(f"{order}I{len(tensor.ne)}Q", len(tensor.ne), *tensor.ne)
        raw += struct.pack(f"{order}IQ", tensor.kind, offset)
        _, block, size = gguf.TYPES.get(tensor.kind, ("", 1, 4))
        elements = 1
        for extent in tensor.ne:
            elements *= extent
        at += -(-(elements // block * size) // alignment) * alignment
    raw += b"\0" * (-len(raw) % alignment + at)
    return raw[: len(raw) - cut]


def safetensors_file(header: Any, data: int | None = None) -> bytes:
    """A safetensors file of this header (an object, or its text) and ``data`` zeros, by default as many as the offsets say."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if data is None:
        data = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    return struct.pack("<Q", len(text)) + text + b"\0" * data


def safetensors_header(**tensors: tuple[str, list[int]]) -> dict[str, Any]:
    """A header of tensors given as dtype and shape, one after another."""
    header: dict[str, Any] = {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        bits = safetensors.BITS[dtype]
        for extent in shape:
            bits *= extent
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + bits // 8]}
        at += bits // 8
    return header


PAIRS = [
    ("general.architecture", "STRING", "llama"), ("general.alignment", "UINT32", 32), ("llama.block_count", "UINT32", 2),
    ("llama.rope.freq_base", "FLOAT32", 10000.0), ("a.bool", "BOOL", True), ("a.i8", "INT8", -1), ("a.u16", "UINT16", 7),
    ("a.i16", "INT16", -7), ("a.i32", "INT32", -9), ("a.u64", "UINT64", 2**63), ("a.i64", "INT64", -5), ("a.f64", "FLOAT64", 0.5),
    ("tokenizer.ggml.tokens", "ARRAY of STRING", ["<s>", "a", "é"]), ("tokenizer.ggml.scores", "ARRAY of FLOAT32", [0.0, -1.0]),
    ("a.flags", "ARRAY of BOOL", [True, False]), ("a.nested", "ARRAY of ARRAY of UINT8", [[1, 2], [], [3]]),
]  # fmt: skip
TENSORS = [Ggml("token_embd.weight", (256, 4), 12), Ggml("blk.0.ffn_up.weight", (64, 3), 8), Ggml("output_norm.weight", (64,), 0)]
SPLIT = [("split.count", "UINT16", 2), ("split.tensors.count", "INT32", 4)]
HEADER = safetensors_header(
    embed=("BF16", [8, 4]), norm=("F32", [4]), packed=("F4", [2, 8]), scalar=("I64", []), none=("U8", [0, 3])
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "layers": 2, "rope_scaling": {"factor": 8.0, "type": "yarn"},
    "tie_word_embeddings": False, "eos_token_id": [1, 2], "rms_norm_eps": 1e-06, "torch_dtype": "bfloat16", "max": float("inf"),
    "name": 'h\u00e9 "quoted" \\ \U0001f600', "nothing": None,
}  # fmt: skip


def gguf_seeds() -> list[bytes]:
    """GGUF files of both versions and byte orders, and one with a vocabulary that is not kept."""
    return [
        gguf_file(PAIRS, TENSORS), gguf_file(PAIRS, TENSORS, version=2), gguf_file(PAIRS, TENSORS, order=">"), gguf_file(),
        gguf_file([("tokens", "ARRAY of STRING", ["t"] * 4100), ("types", "ARRAY of INT32", [1] * 4100)], TENSORS[:1]),
    ]  # fmt: skip


def gguf_parts() -> list[bytes]:
    """A split set of two files."""
    return [
        gguf_file([*SPLIT, ("split.no", "UINT16", number)], [Ggml(f"{number}.{i}", (64, 2)) for i in (0, 1)]) for number in (0, 1)
    ]


def safetensors_seeds() -> list[bytes]:
    """safetensors files."""
    return [
        safetensors_file({"__metadata__": {"format": "pt"}, **HEADER}), safetensors_file(HEADER), safetensors_file({}),
        safetensors_file(json.dumps(HEADER, indent=1).encode(), 96),
    ]  # fmt: skip


def config_seeds() -> list[bytes]:
    """JSON as in config.json."""
    return [json.dumps(CONFIG).encode(), json.dumps(CONFIG, indent=2, ensure_ascii=False).encode(), b"[]"]


def index_seeds() -> list[bytes]:
    """The index of two shards, of a tensor each."""
    index = {
        "metadata": {"total_size": 8},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    return [json.dumps(index).encode(), json.dumps(index, indent=2).encode()]


def spec_seeds(kind: str) -> Callable[[], list[bytes]]:
    """Some files of the catalogue."""
    return lambda: [path.read_bytes() for path in sorted((catalogue.folder() / kind).glob("*.yaml"))[::7]]
