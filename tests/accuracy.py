"""Every figure of the tests' data beside what llmcalc makes of it, with the error.

python -m tests.accuracy        writes docs/accuracy.md anew

The page sums the figures up, and prints every one but those of the small invented models, of which it prints what differs.
"""

import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

from llmcalc.units import GiB
from tests import peaks
from tests.conftest import DATA, records
from tests.figures import Figure, figures
from tests.oracle import results
from tests.test_import import UNREAD

PAGE = DATA.parents[1] / "docs" / "accuracy.md"

# Group: the title of its section, what the truth is, and what is said of it.
GROUPS = {
    "models": ("Parameters of the catalogue", "the class of transformers",
               "The note is how the class agrees with the count that is published: exact, rounded, explained or unverified."),
    "caches": ("Caches of the catalogue", "the class's cache", "Bytes in 16 bits, states in their own dtypes."),
    "work": ("FLOPs of the catalogue", "torch's FlopCounterMode",
             "The whole square of attention. The counter also sees rotary tables, and scans as plain torch computes them."),
    "counts": ("Parameters of the rest of the catalogue", "class, or published", ""),
    "printed": ("What makers print", "the makers, rounded",
                "What a spec says that its makers publish, mostly rounded. Whatever has a class or files is among "
                "the other tables too."),
    "configs": ("Published configs", "the repository's files", "config.json as published, beside the count of the files."),
    "files": ("Files, and what loading takes", "listings, logs", "Rounded as printed there, which is part of the error."),
    "runtimes": ("What runtimes log", "logs",
                 "Room for the cache is off by a share of the GPU's memory, all else by a share of what is logged. What is known "
                 "of those that are far off is in [conventions](conventions.md#serving)."),
    "steps": ("What a step of training holds", "a step on fake CUDA tensors", "Bytes; `trainable` is parameters."),
    "peaks": ("Peaks of a step of training", "a step on fake CUDA tensors", "Bytes, and the phase of the highest."),
    "measured": ("Measured peaks of training", "torch's counters, as published",
                 "GiB, of the rank that has most unless it is a total. Nothing is fitted: steps are followed through torch's "
                 "caching allocator (`engines/reserved.py`), or for Megatron counted by its kernels. The note is what the source "
                 "leaves unsaid and is assumed, and what is known of a figure that is more than 10% off."),
    "adapters": ("Adapters", "litgpt, PEFT", ""),
    "saved": ("What autograd saves", "hooks on a forward pass", "Eager attention, nothing recomputed."),
    "matrix": ("", "the class of transformers", ""),
    "recurrent": ("", "the class of transformers", ""),
    "gguf": ("", "the class of transformers", ""),
    "towers": ("", "the class of transformers", ""),
}  # fmt: skip
INVENTED = {"matrix": "oracle/matrix.jsonl", "recurrent": "recurrent.jsonl", "gguf": "gguf_tables.jsonl", "towers": "towers.jsonl"}


def percent(share: float) -> str:
    """An error, always with as many digits; nothing for none."""
    return "" if share == 0 else f"{100 * share:+.3f}%" if share < math.inf else "of 0"


def number(value: float) -> str:
    """Whole numbers in full, others to six digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def line(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def head(texts: Iterable[str], numbers: Iterable[str], last: Iterable[str] = ()) -> list[str]:
    """The head of a table whose columns in the middle are numbers."""
    texts, numbers, last = list(texts), list(numbers), list(last)
    return [line(*texts, *numbers, *last), line(*["---"] * len(texts), *["---:"] * len(numbers), *["---"] * len(last))]


def summed() -> Iterator[str]:
    """The errors, by figure."""
    yield from head(["figures", "beside", "ours is"], ["rows", "same", "median error", "90th percentile", "worst"])
    by: dict[tuple[str, str, str], list[Figure]] = {}
    for each in figures():
        by.setdefault((each.group, each.what, each.kind), []).append(each)
    for (group, what, kind), found in sorted(by.items(), key=lambda item: list(GROUPS).index(item[0][0])):
        off = [abs(each.error) for each in found]
        most = statistics.quantiles(off, n=10, method="inclusive")[-1] if len(off) > 1 else off[0]
        title = GROUPS[group][0] or INVENTED[group]
        shares = (percent(share).removeprefix("+") or "0" for share in (statistics.median(off), most, max(off)))
        yield line(f"{title}: {what.replace('_', ' ')}", GROUPS[group][1], kind, str(len(found)),
                   str(sum(each.same for each in found)), *shares)  # fmt: skip


def wide(group: str) -> Iterator[str]:
    """A row for each of the rows, with several figures."""
    rows: dict[str, dict[str, Figure]] = {}
    for each in figures():
        if each.group == group:
            rows.setdefault(each.row, {})[each.what] = each
    names = list(dict.fromkeys(what for found in rows.values() for what in found))
    yield from head(["row"], [f"{name.replace('_', ' ')}, {said}" for name in names for said in ("ours", "truth")], ["off", "note"])
    for row, found in rows.items():
        cells = [
            text
            for name in names
            for text in ((number(found[name].ours), number(found[name].truth)) if name in found else ("", ""))
        ]
        off = ", ".join(percent(each.error) for each in found.values() if each.error)
        yield line(row, *cells, off, next(iter(found.values())).note)


def long(group: str) -> Iterator[str]:
    """A row for each figure."""
    found = [each for each in figures() if each.group == group]
    told = [name for name in ("about", "note") if any(getattr(each, name) for each in found)]
    yield from head(["row", *(["of"] if "about" in told else []), "figure"], ["ours", "truth", "off"], ["note"] * ("note" in told))
    for each in found:
        about, note = ([each.about] if "about" in told else []), ([each.note] if "note" in told else [])
        yield line(each.row, *about, each.what, number(each.ours), number(each.truth), percent(each.error), *note)


def asked() -> str:
    """How many rows there are of the oracle's, and what becomes of them."""
    types = [row["model_type"] for row in results.rows()]
    compared = sum(each.group == "matrix" and each.what == "total" for each in figures())
    unread = sum(name in UNREAD for name in types)
    refused = len(types) - unread - compared
    return (
        f"`oracle/matrix.jsonl` has {len(types):,} rows of {len(set(types))} types. {compared:,} are compared, {unread:,} are of "
        f"types that llmcalc refuses by name, and {refused:,} are refused for their values.\n\n"
        "What differs, FLOPs by more than 0.1%. The reasons are those that `tests/test_import.py` states for a type:"
    )


def exceptions() -> Iterator[str]:
    """Figures of invented models that differ, by type and reason."""
    yield from head(["file", "type", "figure"], ["rows", "differing", "worst"], ["why"])
    rows = Counter((each.group, each.row, each.what) for each in figures())
    differing: dict[tuple[str, str, str, str], list[float]] = {}
    for each in figures():
        if each.group in INVENTED and abs(each.error) > (1e-3 if each.what == "FLOPs" else 0):
            differing.setdefault((each.group, each.row, each.what, each.note), []).append(each.error)
    for (group, row, what, why), errors in sorted(differing.items()):
        worst = max(errors, key=abs)
        yield line(
            INVENTED[group], row, what, str(rows[group, row, what]), str(len(errors)), percent(worst), why or "not explained"
        )


# Keys of a log that could be compared, and the comparison that a row's "use" names.
COMPARED = {
    "model_load_gib": "weights", "available_kv_cache_gib": "available", "kv_cache_tokens": "pool", "kv_tokens": "bytes_per_token",
    "kv_buffer_mib": "cache", "model_buffers_mib": "model_buffer", "compute_buffers_mib": "compute_buffer", "peak_gib": "peak",
}  # fmt: skip


def unused() -> Iterator[str]:
    """Logs without a model of ours, and figures that rows are not used for."""
    yield "\nNot compared, as the log does not name a model whose spec is known:\n"
    yield from head(["row", "model", "note"], [])
    rows = records("inference.jsonl")
    for row in rows:
        if not row["ours"]:
            yield line(row["id"], row["model"], row.get("note", ""))
    yield "\nNot every figure of a log is compared: `use` of a row names those that its log says enough about.\n"
    yield from head(["logged"], ["rows", "compared"])
    for key, use in COMPARED.items():
        logged = [row for row in rows if key in row["measured"]]
        yield line(key, str(len(logged)), str(sum(use in row["use"] and bool(row["ours"]) for row in logged)))


def measured() -> Iterator[str]:
    """Shares of the rows whose settings are all there, and the rows that cannot be put."""
    frameworks = {"titan": "torchtitan, FSDP2", "fsdpqlora": "fsdp_qlora, FSDP1", "simumax": "Megatron-LM"}
    yield "\nThose whose settings are all there:\n"
    yield from head(["framework"], ["rows", "median error", "worst", "within 15%"])
    complete = [figure for figure in figures() if figure.group == "measured" and "all there" in figure.what]
    for start, name in {**frameworks, "": "all"}.items():
        own = [figure.error for figure in complete if figure.row.startswith(start)]
        median, worst, within = peaks.summed(own)
        yield line(name, str(len(own)), f"{median:.1%}", f"{worst:.1%}", f"{within:.0%}")
    yield "\nNot compared:\n"
    yield from head(["row", "of"], ["measured"], ["why"])
    for peak in peaks.left_out():
        yield line(peak.row["id"], peak.about, number(round(peak.truth / GiB, 2)), peak.left)


INTRO = """# How far off

Every figure that llmcalc is compared with beside its own, with the error, and nothing left out. Written by
`python -m tests.accuracy` from `tests/data`, whose README says where each figure comes from; a test holds the page to the rows.
Errors are shares of the truth: ours is too large where they are positive.

Speeds are in [measured speeds](speed.md), training runs and scaling laws in [published runs](runs.md). **Measurements on a GPU
are missing so far**: `validation/measure_gpu.py` makes them, and no GPU was at hand.

## In sum

"Same" is equal, to the last digit that is printed where the truth has decimals; "of 0", something of ours where the truth is 0.
What exact, modelled and estimated mean is said in [conventions](conventions.md#kinds-of-truth). Files named in the last rows
hold small invented models, among them some whose classes are not followed on purpose: what differs there stands
[at the end](#small-invented-models), with the reason.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRO, *summed()]
    for group, (title, _, said) in GROUPS.items():
        if title:
            table = wide if group in ("models", "caches", "configs", "steps", "peaks") else long
            parts += [f"\n## {title}\n", *([said + "\n"] if said else []), *table(group)]
        if group == "runtimes":
            parts += unused()
        if group == "measured":
            parts += measured()
    parts += ["\n## Small invented models\n", asked() + "\n", *exceptions()]
    return "\n".join([*parts, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
