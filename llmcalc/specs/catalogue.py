"""The specs that ship with llmcalc, found by name.

A spec file is data: dropping one into ``specs/`` is all it takes. Reading and validating one costs milliseconds
and importing pydantic far more, so a build also writes ``compiled/*.json``: for every file its validated data under the
checksum of its bytes, and for every name the file that it means. An entry is only taken from there if its file still has
those bytes; whatever is new or changed is read and validated, and so is everything where nothing was compiled.
"""

import json
import os
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from llmcalc.errors import SpecError, UnknownName, UsageError

if TYPE_CHECKING:
    from llmcalc.specs.gpu import GpuSpec
    from llmcalc.specs.model import ModelSpec
    from llmcalc.specs.quant import QuantSpec
    from llmcalc.specs.runtime import RuntimeSpec

KINDS = ("models", "gpus", "quants", "runtimes")
NOUNS = {"models": "model", "gpus": "GPU", "quants": "quantisation", "runtimes": "runtime"}
T = TypeVar("T")


class Entry(NamedTuple):
    """A catalogue file: its name, its validated data as plain JSON, and where it stands."""

    name: str
    data: dict[str, Any]
    path: Path


def folder() -> Path:
    """``specs/`` of a source tree, or its copy inside an installed package."""
    inside = Path(__file__).with_name("data")
    return inside if inside.is_dir() else Path(__file__).parents[2] / "specs"


def compiled_folder() -> Path:
    """Where a build puts what it compiled: beside this module."""
    return Path(__file__).with_name("compiled")


@cache
def _compiled(kind: str) -> dict[str, dict[str, Any]]:
    try:
        found: dict[str, dict[str, Any]] = json.loads((compiled_folder() / f"{kind}.json").read_bytes())
    except (OSError, ValueError):
        return {"files": {}, "names": {}}
    return found


@cache
def _files(kind: str) -> frozenset[str]:
    """The names of a kind's spec files."""
    return frozenset(name[:-5] for name in os.listdir(folder() / kind) if name.endswith(".yaml"))  # noqa: PTH208 - twice as fast


def path(kind: str, name: str) -> Path:
    """Where a file of the catalogue stands."""
    return folder() / kind / f"{name}.yaml"


def _checked(kind: str, file: Path, raw: bytes) -> dict[str, Any]:
    """Read and validate one file; the slow way, which imports pydantic."""
    from llmcalc.specs import read, validate

    document = read.decode(raw, str(file))
    validate.validate(document, kind)
    return document.data


def _unchanged(kind: str, name: str, raw: bytes) -> dict[str, Any] | None:
    """The compiled data of a file with these bytes, if there is any."""
    known = _compiled(kind)["files"].get(name)
    if known is None or known["size"] != len(raw) or known["crc"] != zlib.crc32(raw):
        return None
    # Data is kept as text of its own, so that one model's is parsed and not everybody's.
    data: dict[str, Any] = json.loads(known["data"])
    return data


@cache
def entry(kind: str, name: str) -> Entry:
    """One file of the catalogue. Raises SpecError for one that is not valid."""
    file = path(kind, name)
    raw = file.read_bytes()
    data = _unchanged(kind, name, raw)
    return Entry(name, _checked(kind, file, raw) if data is None else data, file)


@cache
def entries(kind: str) -> dict[str, Entry]:
    """Every file of a kind by its name. Raises SpecError for one that is not valid."""
    return {name: entry(kind, name) for name in sorted(_files(kind))}


def plain(name: str) -> str:
    """A name as it is compared: lower case, without what people write differently. A point between digits stays (1.3b)."""
    text = name.lower()
    inner_point = (i for i in range(1, len(text) - 1) if text[i] == "." and text[i - 1].isdigit() and text[i + 1].isdigit())
    points = set(inner_point)
    return "".join(c for i, c in enumerate(text) if not (c.isspace() or c in "_-/:.") or i in points)


@cache
def index(kind: str) -> dict[str, str]:
    """Compared name -> file. File names win over aliases and hub ids, those over the tails of hub ids."""
    everything = entries(kind).values()
    found = {plain(e.name): e.name for e in everything}
    for position in ("aliases", "hub"):
        for e in everything:
            for name in e.data.get(position, ()):
                found.setdefault(plain(name), e.name)
    for e in everything:
        for name in e.data.get("hub", ()):
            found.setdefault(plain(name.rsplit("/", 1)[-1]), e.name)
    return found


@cache
def groups(kind: str) -> dict[str, list[str]]:
    """Names that stand for several variants (``a100``), with those."""
    found: dict[str, list[str]] = {}
    for e in entries(kind).values():
        for name in e.data.get("group", ()):
            found.setdefault(plain(name), []).append(e.name)
    return found


def compile_kind(kind: str) -> dict[str, Any]:
    """What ``compiled/KIND.json`` holds, from the files as they are. Raises SpecError."""
    made = {}
    for name in sorted(_files(kind)):
        raw = path(kind, name).read_bytes()
        data = json.dumps(_checked(kind, path(kind, name), raw), separators=(",", ":"))
        made[name] = {"crc": zlib.crc32(raw), "size": len(raw), "data": data}
    return {"files": made, "names": index(kind)}


def _quickly(kind: str, wanted: str) -> Entry | None:
    """The entry that the compiled names give, if its file is unchanged; else somebody has to look properly."""
    compiled = _compiled(kind)
    name = compiled["names"].get(wanted)
    # A new file may have taken the name for itself.
    if name is None or name not in _files(kind) or _files(kind) - compiled["files"].keys():
        return None
    file = path(kind, name)
    data = _unchanged(kind, name, file.read_bytes())
    return None if data is None else Entry(name, data, file)


def find(kind: str, name: str) -> Entry:
    """The entry that a name means. Raises UnknownName with the nearest, UsageError for a name of several variants."""
    wanted = plain(name)
    found = _quickly(kind, wanted)
    if found is not None:
        return found
    known = index(kind)
    if wanted in known:
        return entry(kind, known[wanted])
    variants = groups(kind).get(wanted)
    if variants:
        raise UsageError(f"{name} comes in several variants; name one: {', '.join(variants)}")
    raise UnknownName(NOUNS[kind], name, nearest(kind, wanted), hint(kind))


def hint(kind: str) -> str:
    """Where all names of a kind are found."""
    return f"there are {', '.join(sorted(_files(kind)))}" if kind == "runtimes" else f"llmcalc {kind} lists them"


def knows(kind: str, name: str) -> bool:
    """Whether a name means one entry."""
    wanted = plain(name)
    return _quickly(kind, wanted) is not None or wanted in index(kind)


def nearest(kind: str, wanted: str) -> list[str]:
    """Up to three entries whose names look most like what was typed."""
    from difflib import get_close_matches

    known = index(kind)
    longer = sorted((name for name in known if wanted and name.startswith(wanted)), key=lambda name: (len(name), name))
    close = get_close_matches(wanted[:60], list(known), n=8)
    return list(dict.fromkeys(known[name] for name in (*longer, *close)))[:3]


def build(kind: type[T], data: dict[str, Any]) -> T:
    """A record from data that was validated before."""
    nested: dict[str, Any] = getattr(kind, "NESTED", {})
    values = {}
    for name, value in data.items():
        inner = nested.get(name)
        if inner is None or value is None:
            values[name] = value
        elif isinstance(value, list):
            values[name] = [build(inner, item) for item in value]
        elif name == "kinds":
            values[name] = {key: build(inner, item) for key, item in value.items()}
        else:
            values[name] = build(inner, value)
    return kind(**values)


def model_spec(name: str) -> "tuple[str, ModelSpec]":
    """A model of the catalogue and the name of its file."""
    from llmcalc.specs.model import ModelSpec

    found = find("models", name)
    return found.name, build(ModelSpec, found.data)


def gpu_spec(name: str) -> "tuple[str, GpuSpec]":
    """A GPU of the catalogue and the name of its file."""
    from llmcalc.specs.gpu import GpuSpec

    found = find("gpus", name)
    return found.name, build(GpuSpec, found.data)


def quant_spec(name: str) -> "tuple[str, QuantSpec]":
    """A quantisation of the catalogue and the name of its file."""
    from llmcalc.specs.quant import QuantSpec

    found = find("quants", name)
    return found.name, build(QuantSpec, found.data)


def runtime_spec(name: str) -> "tuple[str, RuntimeSpec]":
    """A runtime of the catalogue and the name of its file."""
    from llmcalc.specs.runtime import RuntimeSpec

    found = find("runtimes", name)
    return found.name, build(RuntimeSpec, found.data)


def check_names() -> None:
    """No two files of a kind may answer to one name. Raises SpecError."""
    for kind in KINDS:
        seen: dict[str, str] = {}
        for e in entries(kind).values():
            for name in {plain(n) for n in (e.name, *e.data.get("aliases", ()), *e.data.get("hub", ()))}:
                if name in seen:
                    raise SpecError(f"{name!r} is a name of {seen[name]} too", str(e.path), field="aliases")
                seen[name] = e.name
