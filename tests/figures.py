"""Every figure of the tests' data beside ours, as records.

Each function reads one kind of data with the evaluators of the tests that hold it, and yields a ``Figure`` for each figure of each
row. ``tests/accuracy.py`` makes a page of them.
"""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from llmcalc import resolve
from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import files, flops, kv, params, ranks, training
from llmcalc.engines.recipe import Recipe
from llmcalc.errors import LlmcalcError
from llmcalc.quantity import Kind
from llmcalc.specs import catalogue
from llmcalc.units import GiB
from tests import peaks, runs, serving, test_gguf_spec, test_import, test_import_towers, test_real_configs, test_recurrent
from tests import test_training as steps
from tests import test_weights as sizes
from tests.conftest import records
from tests.oracle import results

COUNTS = ("total", "active", "embedding", "lm_head", "router_buffers")
CONTEXTS = (4096, 32768, 131072)
# What is further off is told why.
FAR = 0.1
CACHED = ("cache", "cross-attention", "states")


class Figure(NamedTuple):
    """One figure: ours and the truth. ``of``, where it is not the truth itself that the error is a share of."""

    group: str
    row: str
    what: str
    ours: float
    truth: float
    note: str = ""
    kind: Kind = "exact"
    of: float = 0.0
    about: str = ""

    @property
    def error(self) -> float:
        """How far off, as a share."""
        if self.ours == self.truth:
            return 0.0
        base = self.of or self.truth
        return (self.ours - self.truth) / base if base else float("inf")

    @property
    def same(self) -> bool:
        """Equal; a truth with decimals, to as many as it has."""
        if isinstance(self.truth, int):
            return self.ours == self.truth
        return round(self.ours, len(repr(self.truth).partition(".")[2])) == self.truth


def counted(group: str, row: str, it: Blueprint, truth: dict[str, Any], note: str = "") -> Iterator[Figure]:
    """Parameters."""
    found = params.count(it)
    for name in COUNTS:
        if truth.get(name) is not None:
            yield Figure(group, row, name, getattr(found, name), truth[name], note)


def models() -> Iterator[Figure]:
    """The catalogue beside the classes of transformers."""
    for row in records("models.jsonl"):
        name, it = row["model"], resolve.model(row["model"]).blueprint
        yield from counted("models", name, it, row, row["confidence"])
        if "kv" in row:
            for context in CONTEXTS:
                ours = kv.size(it, context).kv_bytes
                yield Figure("caches", name, f"cache of {context // 1024}k tokens", ours, row["kv"]["bytes"][str(context)])
            one = kv.size(it, 1, encoder_context=1)
            yield Figure("caches", name, "bytes of a token", one.bytes_per_token, row["kv"]["per_token"])
            yield Figure("caches", name, "states", one.state_bytes, row["kv"]["state"])
            yield Figure("caches", name, "cross-attention, of a token", one.cross_bytes, row["kv"].get("cross", 0))
        if "flops" in row:
            at = row["flops"]
            ours = flops.count(it, at["tokens"], encoder_context=at["encoder_tokens"]).forward_full
            note = f"{at['tokens']} tokens" + (", a scan" if at["loose"] else "")
            yield Figure("work", name, "FLOPs of a forward pass", ours, at["forward"], note)


def others() -> Iterator[Figure]:
    """The rest of the catalogue, and what the makers of all print."""
    for row in records("counts.jsonl"):
        total = params.count(resolve.model(row["model"]).blueprint).total
        yield Figure("counts", row["model"], "total", total, row["total"], row["source"])
    for name, entry in sorted(catalogue.entries("models").items()):
        if printed := entry.data.get("published", {}).get("params"):
            kind: Kind = "estimated" if entry.data.get("status") == "estimate" else "exact"
            total = params.count(resolve.model(name).blueprint).total
            yield Figure("printed", name, "total, as printed", total, printed, kind=kind)


def configs() -> Iterator[Figure]:
    """Published configs."""
    for row in test_real_configs.ROWS:
        it, note = test_real_configs.blueprint(row["config"]), f"{row['apart']:,} are buffers" if "apart" in row else ""
        yield Figure("configs", row["model"], "total", params.count(it).total + row.get("apart", 0), row["published"], note)
        if "kv_per_token" in row:
            yield Figure("configs", row["model"], "bytes of a token", kv.size(it, 4096).bytes_per_token, row["kv_per_token"])


def of_work(model_type: str) -> str:
    """Why a class's FLOPs are not followed, if they are not."""
    return test_import.OTHERWISE.get(model_type) or test_import.FLOPS_OFF.get(model_type, (0, ""))[1]


def otherwise(row: dict[str, Any]) -> str:
    """Why a class is not followed in parameters, if it is not."""
    t, keys = row["model_type"], test_import.KEYS_OTHERWISE
    said = [keys[t, key.rpartition(".")[2]] for key in row["set"] if (t, key.rpartition(".")[2]) in keys]
    headless = "the class does not say which of its matrices is the head" if t in test_import.HEADLESS else ""
    return test_import.OTHERWISE.get(t) or next(iter(said), "") or test_import.ACTIVE_OTHERWISE.get(t, "") or headless


def matrix() -> Iterator[Figure]:
    """Small invented configs of every type that is read."""
    for row in results.rows():
        t = row["model_type"]
        try:
            it = test_import.blueprint(row["config"])
        except LlmcalcError:
            continue
        yield from counted("matrix", t, it, row, otherwise(row))
        if row["flops"] and not row["set"]:
            ours = flops.count(it, results.FLOPS_TOKENS, mask="full", encoder_context=results.FLOPS_TOKENS).forward
            yield Figure("matrix", t, "FLOPs", ours, row["flops"], of_work(t))
        if row["cache"] is not None and not it.unknown_cache:
            size = kv.size(it, 1000, 1, "bf16", 700)
            held = (size.kv_bytes + size.index_bytes, size.cross_bytes, size.state_bytes)
            note = test_import.OTHERWISE.get(t) or test_import.CACHE_OTHERWISE.get(t) or otherwise(row)
            for what, ours, truth in zip(CACHED, held, test_import.kept(row["cache"], 1000, 700), strict=True):
                yield Figure("matrix", t, what, ours, truth, note)


def invented() -> Iterator[Figure]:
    """Small invented models of other files."""
    for row in test_recurrent.ROWS:
        name, it = row["config"]["model_type"], test_recurrent.imported(row["config"])
        yield from counted("recurrent", name, it, row)
        if "grows" in row:
            grows = sum(int(cache.depth) * int(cache.width) for cache in it.caches if cache.per == "token")
            yield Figure("recurrent", name, "elements of a token", grows, sum(row["grows"].values()))
        if "state_bytes" in row:
            times = test_recurrent.OTHER_STATES.get(name, 1)
            note = test_import.CACHE_OTHERWISE.get(name, "")
            yield Figure("recurrent", name, "states", kv.size(it, 1).state_bytes, row["state_bytes"], note if times > 1 else "")
        if "flops_256" in row:
            yield Figure("recurrent", name, "FLOPs", flops.count(it, 256).forward, row["flops_256"], of_work(name))
    for row in test_gguf_spec.ROWS:
        it = test_gguf_spec.lowered(test_gguf_spec.checkpoint_of(row))
        yield from counted("gguf", row["name"], it, row)
        for tokens, truth in row.get("kv_bytes", {}).items():
            yield Figure("gguf", row["name"], "cache", kv.size(it, int(tokens)).kv_bytes, truth)
        yield Figure("gguf", row["name"], "states", kv.size(it, 100).state_bytes, row["state_bytes"])
        if "flops" in row:
            at = row["flops"]["seq_len"]
            ours = flops.count(it, at, encoder_context=at if it.has_encoder else 0).forward_full
            yield Figure("gguf", row["name"], "FLOPs", ours, row["flops"]["forward"])
    for row in test_import_towers.ROWS:
        it = test_import_towers.blueprint({**row["config"], "architectures": [row["architecture"]]})
        yield from counted("towers", row["name"], it, row)


def published_files() -> Iterator[Figure]:
    """Files, and what vLLM says that loading took."""
    what = {"bits_per_weight": "bits of a weight", "tensor_bytes": "bytes of all tensors", "file_bytes": "bytes of the file"}
    for row in sizes.SIZES:
        quant, container = resolve.method(row["quant"]), catalogue.quant_spec(row["quant"])[1].container
        file = files.file_of(resolve.model(row["model"]).blueprint, quant, container=container or "safetensors")
        made = {"bits_per_weight": file.bits_per_weight, "tensor_bytes": file.weight_bytes, "file_bytes": file.file_bytes}
        about = f"{row['model']}, {row['quant']}"
        yield Figure("files", row["id"], what[row["key"]], made[row["key"]], row["value"], row.get("note", ""), about=about)
    for row in sizes.LOADED:
        quant = resolve.method(row["quant"]) if row["quant"] else resolve.unquantised()
        held = ranks.rank_bytes(resolve.model(row["model"]).blueprint, quant, row["tp"], vocab_multiple=64,
                                expert_multiples=tuple(row["expert_multiples"]))  # fmt: skip
        ours, about = (held + sizes.rope_bytes(row)) / GiB, f"{row['model']}, {row['quant'] or 'as published'}, tp {row['tp']}"
        yield Figure("files", row["id"], "loaded by vLLM, GiB", ours, row["gib"], row.get("note", ""), "modelled", about=about)


# Figures of tests/serving.py: what they are called here, and of what kind.
LOGGED: dict[str, tuple[str, Kind]] = {
    "weights": ("weights, GiB", "modelled"), "available": ("room for the cache, GiB", "estimated"),
    "pool": ("tokens, or requests, that the pool holds", "modelled"), "bytes_per_token": ("bytes of a token", "modelled"),
    "cache": ("cache and states, MiB", "modelled"), "model_buffer": ("model buffers, MiB", "modelled"),
    "compute_buffer": ("compute buffer, MiB", "estimated"),
    "compute_buffer without flash attention": ("compute buffer without flash attention, MiB", "estimated"),
    "peak": ("torch's peak, GiB", "estimated"),
}  # fmt: skip


def runtimes() -> Iterator[Figure]:
    """What runtimes logged."""
    rows = {row["id"]: row for row in serving.ROWS}
    for each in serving.figures():
        row, (what, kind) = rows[each.row], LOGGED[each.what]
        about = ", ".join(filter(None, (row["kind"], row["model"], row.get("quant"))))
        logged = round(each.logged, 6)
        yield Figure("runtimes", each.row, what, each.ours, logged, row.get("note", ""), kind, each.of, about)


def trained() -> Iterator[Figure]:
    """Steps of training, and adapters."""
    with tempfile.TemporaryDirectory() as folder:
        for row in steps.STEPS:
            answer = runs.answer("train", {"id": row["id"], "command": f"{steps.argument(row, Path(folder))} {row['options']}"})
            phase = row["measured"]["peak_phase"]
            note = phase if answer["peak_phase"] == phase else f"{phase}; ours in {answer['peak_phase']}"
            for key, truth in row["measured"].items():
                kind: Kind = "modelled" if "peak" in key or key == "activation_bytes" else "exact"
                if key != "peak_phase":
                    group = "peaks" if "peak" in key else "steps"
                    yield Figure(group, row["id"], key, answer[key], truth, note if group == "peaks" else "", kind)
        for row in steps.PEFT:
            command = f"{steps.argument(row, Path(folder))} --seq 64 {row['options']}"
            ours = runs.answer("train", {"id": row["id"], "command": command})["trainable"]
            yield Figure(
                "adapters", row["id"], "trained parameters", ours, row["trainable"], about=f"{row['model']} {row['options']}"
            )


def saved() -> Iterator[Figure]:
    """What autograd saves."""
    for row in steps.SAVED:
        it = resolve.as_trained(resolve.model(row["model"]))
        loss = 2 if row["precision"] == "bf16" and (it.has_encoder or not it.generates) else 4
        recipe = Recipe(row["seq"], row["micro_batch"], row["precision"], attention="eager")
        ours = training.count(it, recipe).activation_bytes - loss
        about = f"{row['precision']}, {row['micro_batch']} x {row['seq']} tokens"
        yield Figure("saved", row["model"], "bytes that autograd saves", ours, row["saved_bytes"], "", "modelled", about=about)


def measured_peaks() -> Iterator[Figure]:
    """Published peaks of training steps."""
    for peak in (*peaks.complete(), *peaks.others()):
        what = f"peak, settings {'all there' if peak.complete else 'in part'}, GiB"
        note = f"{peak.assumed}; {peak.off}" if peak.off and abs(peak.error) > FAR else peak.assumed
        yield Figure("measured", peak.row["id"], what, round(peak.ours / GiB, 2), round(peak.truth / GiB, 2), note,
                     "modelled" if peak.complete else "estimated", about=peak.about)  # fmt: skip


READERS = (measured_peaks, models, others, configs, published_files, runtimes, trained, saved, matrix, invented)


def read(reader: Callable[[], Iterator[Figure]]) -> list[Figure]:
    """All that one function finds."""
    return list(reader())


@cache
def figures() -> list[Figure]:
    """All of them, each kind in a process of its own: together they take a while."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return [figure for part in pool.map(read, READERS) for figure in part]
