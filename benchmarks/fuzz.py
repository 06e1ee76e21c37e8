"""Broken files against every reader: each is accepted or refused with an LlmcalcError, whatever is in it.

    python benchmarks/fuzz.py [--inputs 100000] [--seed 0] [--jobs 4] [--reader NAME] [--keep FOLDER]

Valid files are mutated (bits, lengths, cuts, splices, tokens, nesting) and read in processes with a limit on memory and
an alarm for each input. Anything but an answer or an LlmcalcError is a failure: its input and traceback are kept in
FOLDER, and the exit code is 1. The same seed gives the same inputs, whatever the number of jobs.
"""

import argparse
import faulthandler
import json
import multiprocessing
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from model_files import (
    config_seeds,
    gguf_parts,
    gguf_seeds,
    index_seeds,
    safetensors_file,
    safetensors_header,
    safetensors_seeds,
    spec_seeds,
)

from llmcalc import resolve
from llmcalc.blueprint.lower import lower
from llmcalc.engines import flops, kv, params
from llmcalc.errors import LlmcalcError
from llmcalc.importers import gguf, json_text, safetensors
from llmcalc.importers.config import Source
from llmcalc.importers.config_json import from_config
from llmcalc.importers.tensors import Checkpoint
from llmcalc.specs import read, validate

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"

MEMORY, SECONDS = 1 << 30, 5
LONGEST_MESSAGE = 1500
LARGEST = 500_000  # what is mutated no further
NUMBERS = (0, 1, 2, 3, 7, 8, 9, 31, 32, 64, 127, 128, 255, 256, 4096, 4097, 65_535, 65_536, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
           2**32, 2**40, 2**53, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1)  # fmt: skip


# Mutations: bytes of a valid file -> bytes.

Mutation = Callable[[bytes, random.Random, Sequence[bytes]], bytes]
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\w.+-]+|\s+|.', re.DOTALL)
JSON_TOKENS = [
    b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"9223372036854775808", b"1" * 50, b"1" * 5000, b"true", b"null", b'""',
    b'"\\ud800"', b'".."', b"[]", b"{}", b"[", b"}", b",", b":", b'"', b"\\", b"\0", b"\xff", b"1.0", b"01", b'"BF16"',
    b'"dtype"', b'"a":1,', b"\xef\xbb\xbf",
]  # fmt: skip
YAML_TOKENS = [
    *JSON_TOKENS, b"&a ", b"*a", b"!!python/object/apply:os.system ", b"- ", b"? ", b"|\n", b">\n", b"---\n", b"\t", b"\n",
    b"  ", b"yes", b"1_000", b"0x10", b"%YAML 1.1\n", b"<<: ", b"'", b"#", b"~", b".inf", b"layers: 3\n", b"...\n", b"\xc2\x85",
    b"1e5", b"80GB", b"@", b"`",
]  # fmt: skip


def _slice(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 16, 64, 256)))


def flip(data: bytes, rng: random.Random, _seeds: Sequence[bytes]) -> bytes:
    """Some bits turned over."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def inflate(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """A length, a count or an offset that is another: 4 or 8 bytes, mostly where a small number stands."""
    width = rng.choice((4, 8))
    small = [at for at in range(len(data) - 3) if data[at + 1 : at + 4] == b"\0\0\0" or data[at : at + 3] == b"\0\0\0"]
    at = rng.choice(small) if small and rng.random() < 0.9 else rng.randrange(len(data) + 1)
    value = max(0, rng.choice((*NUMBERS, len(data), len(data) - at)) + rng.choice((0, 0, 0, -1, 1)))
    return data[:at] + (value % (1 << 8 * width)).to_bytes(width, rng.choice(("little", "little", "big"))) + data[at + width :]


def cut(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """The end gone, or too much of it."""
    if rng.random() < 0.7:
        return data[: rng.randrange(len(data) + 1)]
    return data + rng.choice((b"\0", b"\xff", b" ", data)) * rng.choice((1, 8, 1000))


def splice(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A piece taken out, doubled, repeated, or put in from another file."""
    start, end = _slice(data, rng)
    other = rng.choice(seeds)
    there = _slice(other, rng)
    times = rng.choice((0, 2, 2, 100, 5000)) if end - start < 64 else rng.choice((0, 2))
    piece = data[start:end] * times if rng.random() < 0.5 else other[slice(*there)]
    return data[:start] + piece + data[end:]


def _tokens(words: Sequence[bytes]) -> Mutation:
    def mutate(data: bytes, rng: random.Random, _seeds: Sequence[bytes]) -> bytes:
        """Tokens dropped, doubled, exchanged, replaced, or nested deeply."""
        tokens = TOKEN.findall(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4)) if tokens else 0):
            at, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
            match rng.randrange(6):
                case 0:
                    tokens[at] = b""
                case 1:
                    tokens[at] += tokens[at]
                case 2:
                    tokens[at], tokens[other] = tokens[other], tokens[at]
                case 3 | 4:
                    tokens[at] = rng.choice(words)
                case _:
                    left, right = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"- ", b""), (b"[", b""), (b"{a: ", b"}")))
                    depth = rng.choice((1, 2, 99, 101, 10_000))
                    tokens[at] = left * depth + tokens[at] + right * depth
        return b"".join(tokens)

    return mutate


def _header(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """The JSON of a safetensors header changed by tokens, with a length that fits."""
    length = int.from_bytes(data[:8], "little")
    header = _tokens(JSON_TOKENS)(data[8 : 8 + length], rng, seeds)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


BINARY: list[Mutation] = [flip, inflate, inflate, cut, splice]
JSON: list[Mutation] = [flip, cut, splice, *[_tokens(JSON_TOKENS)] * 4]
YAML: list[Mutation] = [flip, cut, splice, *[_tokens(YAML_TOKENS)] * 4]


# Readers: what is fed.


class Reader(NamedTuple):
    """Valid files, how they are broken, and what reads them from a folder of its own."""

    seeds: Callable[[], list[bytes]]
    mutations: list[Mutation]
    read: Callable[[Path, bytes], object]


def _written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def _spec(kind: str) -> Callable[[Path, bytes], object]:
    return lambda _, data: validate.validate(read.decode(data, "x.yaml"), kind)


def _sharded(folder: Path, data: bytes) -> Checkpoint:
    for number, name in enumerate("ab"):
        _written(
            folder / f"model-0000{number + 1}-of-00002.safetensors", safetensors_file(safetensors_header(**{name: ("F32", [1])}))
        )
    return safetensors.read_folder(_written(folder / safetensors.INDEX, data).parent)


def _split(folder: Path, data: bytes) -> Checkpoint:
    _written(folder / "m-00002-of-00002.gguf", gguf_parts()[1])
    return gguf.read(_written(folder / "m-00001-of-00002.gguf", data))


def model_seeds() -> list[bytes]:
    """Configs of every architecture: the published ones and the small ones that the oracle built."""
    published = [json.loads(line)["config"] for line in (DATA / "models.jsonl").read_text(encoding="utf-8").splitlines()]
    small = [json.loads(line) for line in (DATA / "oracle" / "matrix.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
    configs = (*published, *({**row["config"], "model_type": row["model_type"]} for row in small))
    return [json.dumps(config, indent=1).encode() for config in configs if _is_read(config)]


def _is_read(config: dict[str, Any]) -> bool:
    """Whether a config is one that llmcalc takes: some are of architectures that it refuses by name."""
    try:
        resolve.built(from_config(config, Source("x.json")).spec, "x.json")
    except LlmcalcError:
        return False
    return True


def _model(_: Path, data: bytes) -> Any:
    """A config as the commands take it: to the spec, the blueprint and its figures."""
    found = from_config(json_text.loads(data, "x.json"), Source("x.json", data.decode("utf-8", "replace")))
    blueprint = lower(resolve.built(found.spec, "x.json"), "x")
    count = params.count(blueprint)
    assert count.total >= count.active >= 0
    assert blueprint.unknown_cache or kv.size(blueprint, 4096).total >= 0
    assert flops.count(blueprint, 4096).forward >= 0
    return None


# A reader joins in one line.
READERS = {
    "model spec": Reader(spec_seeds("models"), YAML, _spec("models")),
    "gpu spec": Reader(spec_seeds("gpus"), YAML, _spec("gpus")),
    "quant spec": Reader(spec_seeds("quants"), YAML, _spec("quants")),
    "json": Reader(config_seeds, JSON, lambda _, data: json_text.loads(data, "x.json")),
    "config": Reader(model_seeds, JSON, _model),
    "safetensors": Reader(
        safetensors_seeds, [*BINARY, *[_header] * 5], lambda at, data: safetensors.read(_written(at / "x", data))
    ),
    "safetensors index": Reader(index_seeds, JSON, _sharded),
    "gguf": Reader(gguf_seeds, BINARY, lambda at, data: gguf.read(_written(at / "x", data))),
    "gguf set": Reader(lambda: gguf_parts()[:1], BINARY, _split),
}


def mutant(reader: Reader, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """A valid file, changed once or a few times."""
    data = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if len(data) > LARGEST:
            break
        data = rng.choice(reader.mutations)(data, rng, seeds)
    return data


def feed(reader: Reader, folder: Path, data: bytes) -> str:
    """``accepted`` or ``refused``; whatever else a reader raises goes through, and so does an answer that cannot be."""
    try:
        found, message = reader.read(folder, data), ""
    except LlmcalcError as error:
        found, message = None, str(error) or "no message"
    assert len(message) < LONGEST_MESSAGE, f"a message of {len(message)} characters"
    assert message != "no message"
    if isinstance(found, Checkpoint):
        assert all(size >= 0 for tensor in found.tensors for size in (tensor.bytes, *tensor.shape))
        assert sum(tensor.bytes for tensor in found.tensors) <= found.file_bytes
    return "refused" if message else "accepted"


class TooSlow(BaseException):
    """The alarm went off; no reader may catch it by accident."""


def _alarm(*_: object) -> None:
    raise TooSlow(f"more than {SECONDS} s")


def _work(names: list[str], inputs: int, seed: int, job: int, jobs: int, work: Path, keep: Path) -> None:
    """One process: every ``jobs``-th input of each reader. Writes its counts beside its inputs."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _alarm)
    counts: Counter[str] = Counter()
    for name in names:
        reader = READERS[name]
        seeds = reader.seeds()
        for index in range(job, inputs, jobs):
            data = mutant(reader, seeds, random.Random(f"{seed} {name} {index}"))
            current = _written(work / f"job-{job}" / "current", data)
            # A second alarm for code that does not come back to Python: it ends the process, which the parent sees.
            faulthandler.dump_traceback_later(4 * SECONDS, exit=True)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                outcome = feed(reader, work / f"job-{job}" / name.replace(" ", "-"), data)
            except BaseException:
                outcome = "failed"
                signal.setitimer(signal.ITIMER_REAL, 0)
                kept = keep / f"{name.replace(' ', '-')}-{seed}-{index}"
                current.rename(kept)
                kept.with_suffix(".txt").write_text(traceback.format_exc(limit=-20), encoding="utf-8")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            counts[f"{name}/{outcome}"] += 1
    faulthandler.cancel_dump_traceback_later()
    (work / f"counts-{job}.json").write_text(json.dumps(counts), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a line per reader, and say how many failed by the exit code."""
    parser = argparse.ArgumentParser(description="Broken files against every reader.")
    parser.add_argument("--inputs", type=int, default=100_000, help="over all readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--reader", action="append", choices=READERS, help="only this one; may be repeated")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for inputs that fail")
    options = parser.parse_args(arguments)
    names = options.reader or list(READERS)
    each = -(-options.inputs // len(names))
    options.keep.mkdir(exist_ok=True)
    start = time.perf_counter()
    counts: Counter[str] = Counter()
    died = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shared = (work, options.keep)
        tasks = [(names, each, options.seed, job, options.jobs, *shared) for job in range(options.jobs)]
        workers = [multiprocessing.get_context("spawn").Process(target=_work, args=task) for task in tasks]
        for worker in workers:
            worker.start()
        for job, worker in enumerate(workers):
            worker.join()
            counted = work / f"counts-{job}.json"
            if counted.is_file():
                counts.update(json.loads(counted.read_text(encoding="utf-8")))
            else:
                died.append(job)
                last = work / f"job-{job}" / "current"
                if last.is_file():
                    (options.keep / f"died-{options.seed}-{job}").write_bytes(last.read_bytes())
    spent = time.perf_counter() - start
    for name in names:
        told = [f"{counts[f'{name}/{outcome}']:8,} {outcome}" for outcome in ("accepted", "refused", "failed")]
        print(f"{name:18} {each:8,} inputs {' '.join(told)}")
    failed = sum(count for name, count in counts.items() if name.endswith("/failed"))
    print(f"{sum(counts.values()):,} inputs in {spent:.0f} s, {sum(counts.values()) / spent:,.0f} per second, seed {options.seed}")
    if failed or died:
        print(f"FAILURES: {failed} inputs, {len(died)} processes died; kept in {options.keep}")
    elif not any(options.keep.iterdir()):
        options.keep.rmdir()
    return 1 if failed or died else 0


if __name__ == "__main__":
    sys.exit(main())
