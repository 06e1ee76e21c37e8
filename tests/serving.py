"""Logs of runtimes beside what llmcalc makes of them: one figure of each row of ``tests/data/inference.jsonl``.

python -m tests.serving        prints every row, and the errors by figure
"""

import statistics
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from llmcalc import hardware, resolve
from llmcalc.engines.runtime_llamacpp import HOST, LlamaCppPlan
from llmcalc.engines.runtime_sglang import SglangPlan
from llmcalc.engines.runtime_transformers import TransformersPlan
from llmcalc.engines.runtime_vllm import VllmPlan
from llmcalc.engines.runtimes import Card, Case, Settings, Split
from llmcalc.units import GiB, MiB
from tests.conftest import DATA, records

ROWS = [row for row in records("inference.jsonl") if row["ours"]]
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "f16": "fp16", "fp8_e5m2": "fp8", "fp8_e4m3": "fp8"}
# How logs of ik_llama.cpp and of llama.cpp at different times keep latents.
FORMS = {"mha expanded": "@b5000", "mla latent (K 576 + V 512)": "@b6000"}


class Figure(NamedTuple):
    """A figure of a log and ours. ``of``, where it is not the figure itself that the error is a share of."""

    row: str
    what: str
    ours: float
    logged: float
    of: float = 0.0

    @property
    def error(self) -> float:
        """How far off, as a share."""
        return (self.ours - self.logged) / (self.of or self.logged)


@cache
def model(name: str) -> resolve.Model:
    """A model of the catalogue, or a sketch of one that it does not have."""
    kind, _, sketch = name.rpartition(":")
    return resolve.model(str(Path(DATA) / "sketches" / f"{sketch}.yaml") if kind else name)


def dtype(name: str | None) -> str:
    """A dtype of a log in our words."""
    return DTYPES.get(name or "bf16", name or "bf16")


def card(row: dict[str, Any]) -> Card:
    """The GPU of a row; where the catalogue has none, as large as the log says."""
    if row.get("our_gpu"):
        found = hardware.gpu(row["our_gpu"])
        return Card(found.usable_bytes, found.spec.driver_bytes or found.usable_bytes, found.spec.architecture)
    size = int(row["measured"].get("total_gpu_memory_gib", 80) * GiB)
    return Card(size, size)


def case(row: dict[str, Any], **settings: Any) -> Case:
    """A row as a question."""
    found, quant = model(row["ours"]), row.get("our_quant")
    version = row.get("vllm_version", "").removeprefix("v")
    name = {"llamacpp": "llama.cpp"}.get(row["kind"], row["kind"])
    runtime = hardware.runtime(name + (f"@{version}" if version else FORMS.get(row.get("kv_form", ""), "")))
    if row.get("enforce_eager"):
        runtime = runtime._replace(rules=runtime.rules._replace(graphs_in_budget=False))
    method = resolve.method(quant) if quant else resolve.unquantised()
    own = dtype(row["dtype"]) if row.get("dtype") else ""
    return Case(found.blueprint, method, own, runtime, card(row), Split(tp=row.get("tp", 1)), Settings(**settings))


def of_vllm(row: dict[str, Any]) -> list[Figure]:
    """Weights and cache of a rank, and the pool from the memory that the row has for it."""
    said = {"kv_dtype": dtype(row.get("kv_cache_dtype")), "utilization": row.get("gpu_memory_utilization"),
            "sequences": row.get("max_num_seqs"), "prompt_tokens": row.get("max_num_batched_tokens")}  # fmt: skip
    logged, found = row["measured"], []
    plan = VllmPlan(case(row, **said))
    length = row.get("max_model_len", 4096)
    if "weights" in row["use"]:
        found.append(Figure(row["id"], "weights", plan.stages[0].weight_bytes / GiB, logged["model_load_gib"]))
    if "available" in row["use"]:
        found.append(Figure(row["id"], "available", plan.pool_bytes(plan.stages[0]) / GiB, logged["available_kv_cache_gib"],
                            plan.case.card.bytes / GiB))  # fmt: skip
    if "pool" in row["use"]:
        given = VllmPlan(case(row, **said, pool_bytes=int(logged["available_kv_cache_gib"] * GiB)))
        pages = given.stages[0].pages
        if pages is not None and len(pages.groups) > 1:
            found.append(Figure(row["id"], "pool", given.concurrency(length) or 0, logged["max_concurrency_x"]))
        else:
            found.append(Figure(row["id"], "pool", given.tokens(length) or 0, logged["kv_cache_tokens"]))
    return found


def of_sglang(row: dict[str, Any]) -> list[Figure]:
    """Bytes of a token on a rank."""
    plan, logged = SglangPlan(case(row, kv_dtype=dtype(row.get("kv_cache_dtype")))), row["measured"]
    pool = logged["kv_gib"] if "kv_gib" in logged else logged["k_gib"] + logged["v_gib"]
    return [Figure(row["id"], "bytes_per_token", plan.stages[0].full, pool * GiB / logged["kv_tokens"])]


def of_llamacpp(row: dict[str, Any]) -> list[Figure]:
    """Buffers of cells and states over all devices, of weights on GPUs, and the largest compute buffer."""
    logged, found = row["measured"], []
    computed = logged.get("compute_buffers_mib", {})
    on_gpus = {name: size for name, size in computed.items() if name[-1].isdigit()}
    values = row.get("type_v", "f16")
    layers = row.get("ngl") if on_gpus else None
    asked = case(
        row, kv_dtype=dtype(row.get("type_k", "f16")), value_dtype=None if values == "-" else dtype(values),
        prompt_tokens=row.get("n_ubatch"), gpu_layers=layers, flash_attention=row.get("flash_attn") != "0",
    )  # fmt: skip
    if row.get("arch") == "gemma3":
        # ik_llama.cpp kept every cell of layers with a window then.
        blueprint = asked.blueprint
        asked = asked._replace(blueprint=blueprint._replace(caches=tuple(c._replace(window=None) for c in blueprint.caches)))
    gpus = len(on_gpus) or row.get("gpus") or 1
    plan = LlamaCppPlan(asked._replace(split=Split(pp=gpus if on_gpus or not computed else 1)))
    sequences = row.get("n_seq_max", 1)
    context = row.get("ctx", 4096) // sequences
    devices, host = plan.devices(context, sequences), plan.cached(HOST, context, sequences)
    if "cache" in row["use"]:
        cells, states = sum(d.kv_bytes for d in devices) + host[0], sum(d.state_bytes for d in devices) + host[1]
        found += [
            Figure(row["id"], "cache", ours / MiB, logged[key])
            for key, ours in (("kv_buffer_mib", cells), ("rs_buffer_mib", states))
            if key in logged
        ]
    if "model_buffer" in row["use"]:
        buffers = logged.get("model_buffers_mib", {"CUDA0": logged.get("model_gpu_mib", 0)})
        ours = sum(device.model_bytes for device in devices) / MiB
        found.append(Figure(row["id"], "model_buffer", ours, sum(size for name, size in buffers.items() if "CPU" not in name)))
    if "compute_buffer" in row["use"]:
        largest = max(on_gpus.values()) if on_gpus else computed["CPU"]
        name = "compute_buffer" if row.get("flash_attn") != "0" else "compute_buffer without flash attention"
        found.append(Figure(row["id"], name, max(device.compute_bytes for device in devices) / MiB, largest))
    return found


def of_transformers(row: dict[str, Any]) -> list[Figure]:
    """The sum of torch's peaks on all GPUs: weights, cache at the end, and the prompt's working set on each."""
    plan = TransformersPlan(case(row)._replace(split=Split(pp=row["gpus"])))
    last, first = plan.loads(row["input_len"] + row["output_len"], row["batch"]), plan.loads(row["input_len"], row["batch"])
    ours = sum(load.weight_bytes + load.kv_bytes for load in last) + sum(load.activation_bytes for load in first)
    return [Figure(row["id"], "peak", ours / GiB, row["measured"]["peak_gib"])]


def figures() -> list[Figure]:
    """Every comparison that the rows are fit for."""
    made = {"vllm": of_vllm, "sglang": of_sglang, "llamacpp": of_llamacpp, "transformers": of_transformers}
    return [figure for row in ROWS for figure in made[row["kind"]](row)]


def summary(found: list[Figure]) -> dict[str, tuple[int, float, float]]:
    """By figure: how many, the median and the worst error."""
    errors: dict[str, list[float]] = {}
    for figure in found:
        errors.setdefault(figure.what, []).append(abs(figure.error))
    return {what: (len(e), statistics.median(e), max(e)) for what, e in errors.items()}


if __name__ == "__main__":
    everything = figures()
    for each in everything:
        sys.stdout.write(f"{each.row:16} {each.what:40} {each.ours:14,.2f} {each.logged:14,.2f} {each.error:+9.2%}\n")
    for what, (count, middle, worst) in summary(everything).items():
        sys.stdout.write(f"{what:40} {count:3} rows, median {middle:.3%}, worst {worst:.3%}\n")
