"""Measured peaks of training steps beside ours: a row of ``tests/data/peak_memory.jsonl`` as a model, a recipe and a layout.

    python -m tests.peaks        prints every row

A function per framework says what its rows leave unsaid; ``assumed`` is printed beside the figure. What a row ``shows`` is torch's
allocated or reserved peak of a rank, or a total over all of them.
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

from llmcalc import hardware, resolve
from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import training
from llmcalc.engines.layout import Layout
from llmcalc.engines.parallel import plan
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.reserved import reserved
from llmcalc.specs import catalogue, read, validate
from llmcalc.units import GiB
from tests.conftest import records

MEASURED = records("peak_memory.jsonl")
MEGATRON = [row for row in records("parallel.jsonl") if row["test"] == "megatron"]
# What the driver takes for a process before torch gets anything: the upper end of what is usual.
CONTEXT = 600_000_000
NAMES = {
    "llama-2-7b": "llama2-7b", "llama-2-13b": "llama2-13b", "llama-2-70b": "llama2-70b", "llama 2 7b": "llama2-7b",
    "llama 2 13b": "llama2-13b", "llama-3-8b": "llama3-8b", "llama-3.1-8b": "llama3.1-8b", "llama-3-70b": "llama3-70b",
    "llama-3.1-70b": "llama3.1-70b", "llama-3.1-405b": "llama3.1-405b", "llama-3-405b": "llama3.1-405b",
    "llama-3.2-1b": "llama3.2-1b", "llama-3.2-3b": "llama3.2-3b", "phi-1.5 1.3b": "phi-1.5", "mistral-7b": "mistral-7b-v0.1",
    "llama-3-like 7b": "llama3-8b", "llama-3-like 70b": "llama3-70b",
}  # fmt: skip
NEOX_3B = {
    "layers": 16, "hidden": 4096, "heads": 32, "ffn": 16384, "gated": False, "activation": "gelu", "biases": ["all"],
    "norm": "layernorm", "parallel": "two-norms", "vocab": 50688, "context": 4096,
}  # fmt: skip


class Step(NamedTuple):
    """What a row means."""

    model: str | dict[str, Any]
    recipe: Recipe
    layout: Layout = Layout()
    flat: bool = False
    limit: int = 0
    assumed: str = ""
    off: str = ""


class Left(Exception):
    """A row that cannot be put, and why."""


class Peak(NamedTuple):
    """A row's figure and ours, in bytes; ``left`` says why there is none of ours."""

    row: dict[str, Any]
    truth: float
    ours: float = 0.0
    assumed: str = ""
    off: str = ""
    left: str = ""

    @property
    def error(self) -> float:
        """How far off, as a share."""
        return self.ours / self.truth - 1

    @property
    def complete(self) -> bool:
        """Whether all settings are there."""
        return "test" in self.row or bool(self.row.get("complete"))

    @property
    def about(self) -> str:
        """The settings in short."""
        row, gpus = self.row, self.row.get("gpus", 8 if "test" in self.row else 1)
        tokens = row.get("seq_len") or row.get("max_seq_len") or row.get("longest_example_tokens")
        batch = next((row[key] for key in ("local_batch", "batch_per_gpu", "micro_batch", "batch") if key in row), 1)
        degrees = ", ".join(f"{name} {row[name]}" for name in ("tp", "pp", "cp", "ep") if row.get(name, 1) > 1)
        said = (
            row["model"], row.get("method", ""), f"{batch} x {tokens} tokens" if tokens else "",
            f"{gpus} GPUs" if gpus > 1 else "1 GPU", degrees,
            f"checkpoints {row['ac']}" if "ac" in row else "", "compiled" if row.get("compile") else "",
            "float8" if row.get("float8") else "", "offloaded" if row.get("cpu_offload") else "", row.get("schedule", ""),
            row.get("shows", "allocated"),
        )  # fmt: skip
        return ", ".join(filter(None, said))


def named(row: dict[str, Any]) -> str:
    """The model in our words. Raises Left where the catalogue has none of the name."""
    name: str = NAMES.get(row["model"].lower(), row["model"].lower())
    if name not in catalogue.entries("models"):
        raise Left(f"the shape of {row['model']} is not at hand")
    return name


@cache
def _blueprint(model: str) -> Blueprint:
    return lower(validate.validate(read.parse(model, "row.yaml"), "models"), "row")


def blueprint(model: str | dict[str, Any]) -> Blueprint:
    """A model of the catalogue, or fields of one that it has not."""
    if isinstance(model, str):
        return resolve.model(model).blueprint
    return _blueprint(json.dumps({"family": "invented", "sources": ["a row"], **model}))


def usable(row: dict[str, Any]) -> int:
    """What is left for torch on the GPU of a row."""
    return hardware.gpu(row["gpu"].lower().replace(" ", "")).usable_bytes - CONTEXT


def titan(row: dict[str, Any]) -> Step:
    """torchtitan: FSDP2 with fp32 shards and reduction, a foreach AdamW, blocks compiled, the loss since 2025."""
    tp, pp = row.get("tp", 1), row.get("pp", 1)
    chunks = 2 if row.get("schedule", "").startswith("Interleaved") else 1
    many = pp * chunks if pp > 1 else 1
    layout = Layout(
        tp, pp, row["dp_shard"], row.get("cp", 1), sequence_parallel=tp > 1, micro_batches=many, chunks=chunks,
        schedule="interleaved" if chunks > 1 else "1f1b", zero="fsdp", shard_dtype="fp32", reduce_dtype="fp32",
    )  # fmt: skip
    later = "2025" in row["source"]
    recipe = Recipe(
        row["seq_len"], row["local_batch"] // many, foreach=True, compile=row["compile"],
        recompute="full" if row["ac"] == "full" else "op", loss="compiled" if later and row["compile"] else "plain",
    )  # fmt: skip
    assumed = "foreach AdamW; loss " + ("compiled" if recipe.loss == "compiled" else "not compiled")
    if pp > 1:
        assumed += f"; {many} micro-batches, as many as stages"
    off = "buffers of ring attention and of asynchronous tensor parallelism are not counted"
    return Step(named(row), recipe, layout, assumed=assumed, off=off)


def fsdp_qlora(row: dict[str, Any]) -> Step:
    """AnswerDotAI's fsdp_qlora: FSDP1, everything in bf16, transformers of March 2024."""
    recipe = Recipe(
        row["seq_len"], row["batch_per_gpu"], method=row["method"].lower(), rank=row["lora_rank"], foreach=True,
        targets=tuple(row["lora_targets"].split(",")), adapter_item=2, lora_dropout=0.1, attention="efficient",
        recompute="full" if row["activation_checkpointing"] else "none", loss="copied", keep_logits=True,
    )  # fmt: skip
    layout = Layout(dp=row["gpus"], zero="fsdp", offload="all" if row["cpu_offload"] else "")
    assumed = "dropout 0.1, the default; fp32 logits kept and copied, as transformers of March 2024; a full GPU gives back"
    return Step(named(row), recipe, layout, flat=True, limit=usable(row), assumed=assumed)


def litgpt(row: dict[str, Any]) -> Step:
    """litgpt: bf16-true, nothing recomputed on one GPU."""
    method = row["method"].lower()
    if "adapter" in method:
        raise Left("LLaMA-Adapter is not modelled")
    seq = row.get("max_seq_len") or row["longest_example_tokens"]
    quantised = method == "qlora" or row.get("quantization", "None") != "None"
    how = "full" if method == "full" else "qlora" if quantised else "lora"
    rank = row.get("lora_rank", 32)
    recipe = Recipe(seq, row["micro_batch"], method=how, rank=rank, adapter_item=2, lora_dropout=0.05 if "lora" in how else 0)
    if "gemma2" in row["id"]:
        row = {**row, "model": "gemma2-2b"}  # two rows of the table are of Gemma 2, as its files are named
    model: str | dict[str, Any] = NEOX_3B if "stablelm" in row["model"].lower() and "lpha" in row["model"] else named(row)
    assumed = f"the longest sequence {seq} tokens; rank {rank} on q and v" if how != "full" else f"sequences of {seq} tokens"
    off = "logits stay in 16 bits and go in chunks; litgpt's own model code"
    if quantised:
        off = "bitsandbytes of 2023 also kept the input of each linear"
    if how == "full":
        off = "weights, gradients and AdamW's states in 16 bits take more on one GPU: divided, or not AdamW"
    if row["gpus"] > 1:
        if "strategy" not in row:
            return Step(model, recipe, assumed=f"{assumed}; each GPU as one alone", off=off)
        layout = Layout(dp=row["gpus"], zero="fsdp")
        off = "of each GPU: the whole model before it is divided, and more"
        return Step(model, recipe._replace(recompute="full"), layout, flat=True, assumed=f"{assumed}; layers recomputed", off=off)
    return Step(model, recipe, assumed=assumed, off=off)


def peft(row: dict[str, Any]) -> Step:
    """PEFT's method comparison: batches of up to 768 tokens, bf16 base, fp32 adapters."""
    if "peft_config" not in row:
        raise Left("neither batch nor sequence said")
    config, method = row["peft_config"], row["method"]
    known = {"lora": "lora", "ia3": "ia3", "prefixtuning": "prefix", "prompt_tuning": "prompt"}
    if method not in known:
        raise Left(f"{method} is not modelled")
    rank = config.get("r") or config.get("num_virtual_tokens") or 8
    targets = tuple(name.removesuffix("_proj") for name in config.get("target_modules", ("q", "v")))
    recipe = Recipe(row["max_seq_len"], row["batch"], method=known[method], rank=rank, targets=targets, attention="efficient",
                    foreach=True, keep_logits=True)  # fmt: skip
    return Step("llama3.2-3b", recipe, assumed="the longest batch 4 x 768 tokens; what stood at the start not taken off",
                off="lengths vary, so blocks are cut up; how long the longest batch was is not said")  # fmt: skip


def qwen(row: dict[str, Any]) -> Step:
    """Qwen's finetuning scripts: transformers and DeepSpeed, one sequence, layers recomputed."""
    method, gpus = row["method"], row["gpus"]
    if "emb" in method:
        raise Left("embedding and head trained beside the adapters is not modelled")
    how = "full" if method.startswith("Full") else "qlora" if method.startswith("Q") else "lora"
    zero = "3" if "Zero3" in method or (how == "full" and gpus > 1) else "2" if gpus > 1 else "0"
    recipe = Recipe(row["seq_len"], row["batch"], "amp", method=how, rank=64, targets=("all",), recompute="full", lora_dropout=0.05,
                    keep_logits=True)  # fmt: skip
    assumed = f"rank 64 on all linears; {'ZeRO-' + zero if zero != '0' else 'one GPU'}"
    off = "what the figure counts is not said; DeepSpeed's buckets are not counted"
    if how == "qlora":
        off = f"{off}; the base is GPTQ's, whose kernels are not followed"
    return Step(named(row), recipe, Layout(dp=gpus, zero=zero), assumed=assumed, off=off)


def kempner(row: dict[str, Any]) -> Step:
    """KempnerForge: FSDP2 and tensor parallelism, compiled, layers recomputed."""
    model: str | dict[str, Any] = named(row) if "13B" not in row["model"] else {
        "layers": 40, "hidden": 5120, "heads": 40, "kv_heads": 8, "ffn": 17920, "vocab": 128256, "context": 4096
    }  # fmt: skip
    layout = Layout(row["tp"], dp=row["fsdp"], zero="fsdp" if row["fsdp"] > 1 else "0", sequence_parallel=row["tp"] > 1)
    recipe = Recipe(row["seq_len"], row["micro_batch"], recompute="full", compile=True)
    return Step(model, recipe, layout, assumed="weights, gradients and states in bf16; the reserved peak",
                off="precision and what the figure counts are not said")  # fmt: skip


def torchtune(row: dict[str, Any]) -> Step:
    """torchtune: bf16 throughout, packed sequences."""
    done = row.get("cumulative_techniques", [])
    if "opt_in_bwd" in done or row["method"] == "Full finetune":
        raise Left("an optimizer in the backward pass is not modelled")
    if "seq_len" not in row:
        raise Left("neither how long the sequences are nor which layers are adapted is said" if "init" in row["method"]
                   else "how long the sequences are is not said")  # fmt: skip
    compiled = "compile" in done or row.get("compile", False)
    recipe = Recipe(row["seq_len"], row["batch"], compile=compiled, loss="compiled" if compiled else "plain")
    if row["method"] == "full":
        off = "logits are cast to fp32 before the compiled loss" if compiled else ""
        return Step(named(row), recipe, assumed="fused AdamW", off=off)
    big = row["gpus"] > 1
    targets = ("q", "v", "o") if big else ("q", "v", "o", "gate", "up", "down")
    recipe = recipe._replace(method="lora", rank=16 if big else 8, adapter_item=2, targets=targets, loss="chunked",
                             recompute="none" if row["gpu"] == "A6000" else "full")  # fmt: skip
    layout = Layout(dp=row["gpus"], zero="fsdp") if big else Layout()
    return Step(named(row), recipe, layout, assumed=f"rank {recipe.rank} on {', '.join(targets)}; recomputed: {recipe.recompute}",
                off="the recipe's options are not said")  # fmt: skip


def longlora(row: dict[str, Any]) -> Step:
    """LongLoRA: LoRA under ZeRO-2."""
    recipe = Recipe(row["seq_len"], row["batch_per_gpu"], "amp", method="lora", targets=("q", "k", "v", "o"), recompute="full")
    return Step(named(row), recipe, Layout(dp=row["gpus"], zero="2"), assumed="rank 8 on q, k, v, o",
                off="embedding and norms were trained too, and DeepSpeed's buckets are not counted")  # fmt: skip


def left(reason: str) -> Callable[[dict[str, Any]], Step]:
    """Rows that cannot be put."""

    def read(_: dict[str, Any]) -> Step:
        raise Left(reason)

    return read


READERS: dict[str, Callable[[dict[str, Any]], Step]] = {
    "titan": titan, "fsdpqlora": fsdp_qlora, "litgpt": litgpt, "peft": peft, "qwen": qwen, "kempner": kempner, "tune": torchtune,
    "longlora": longlora,
    "axolotl": left("batch, sequence and adapter are in files that are not at hand"), "badam": left("BAdam is not modelled"),
    "galore": left("updates of a layer at a time with states of rank 1024 in 8 bits are not modelled"),
    "dpo": left("pairs of answers are another step"), "nanotron": left("neither the model's shape nor the ZeRO stage is said"),
}  # fmt: skip


def ours(row: dict[str, Any], step: Step) -> float:
    """Bytes of what a row shows."""
    it = blueprint(step.model)
    alone = step.layout.gpus == 1
    if row["shows"] == "allocated" and alone:
        return training.count(it, step.recipe).peak_bytes
    if step.layout.zero in ("1", "2", "3"):
        each = plan(it, step.recipe, step.layout).fullest.peak_bytes
        return row["gpus"] * each if row["shows"] == "total" else each
    found = reserved(it, step.recipe, step.layout, flat=step.flat, limit=step.limit)
    return found.allocated if row["shows"] == "allocated" else found.reserved


def megatron(row: dict[str, Any]) -> float:
    """The highest ``max_memory_allocated`` of eight GPUs; models with most of their layers taken out."""
    data = {**catalogue.entries("models")[row["model"]].data, "layers": row["layers"]}
    layout = Layout(row["tp"], row["pp"], row["dp"], row["cp"], row["ep"], "1", row["tp"] > 1, micro_batches=row["micro_batches"])
    it = lower(validate.validate(read.parse(json.dumps(data), "cut.yaml"), "models"), row["model"])
    return plan(it, Recipe(row["seq_len"], precision="megatron"), layout).fullest.peak_bytes


def put(row: dict[str, Any]) -> Step:
    """A row in our words. Raises Left."""
    return READERS[row["id"].partition("-")[0]](row)


def left_out() -> list[Peak]:
    """Rows that cannot be put."""
    found = []
    for row in MEASURED:
        try:
            put(row)
        except Left as why:
            found.append(Peak(row, row["figure"] * row["unit"], left=str(why)))
    return found


def complete() -> list[Peak]:
    """The rows whose settings are all there."""
    found = [
        Peak(row, row["measured"]["max_memory_allocated_gib"] * GiB, megatron(row), "sequence parallelism") for row in MEGATRON
    ]
    return found + [_compared(row) for row in MEASURED if row.get("complete")]


def others() -> list[Peak]:
    """The rest of those that can be put."""
    left = {peak.row["id"] for peak in left_out()}
    return [_compared(row) for row in MEASURED if not row.get("complete") and row["id"] not in left]


def _compared(row: dict[str, Any]) -> Peak:
    step = put(row)
    return Peak(row, row["figure"] * row["unit"], ours(row, step), step.assumed, step.off)


def summed(errors: Iterable[float]) -> tuple[float, float, float]:
    """Median and worst error, and the share of them within 15%."""
    sizes = [abs(error) for error in errors]
    return statistics.median(sizes), max(sizes), sum(size <= 0.15 for size in sizes) / len(sizes)


if __name__ == "__main__":
    for peak in (*complete(), *others(), *left_out()):
        line = f"{peak.error:+7.1%}" if not peak.left else "   left"
        sys.stdout.write(f"{peak.row['id']:66} {peak.truth / 1e9:8.2f} {peak.ours / 1e9:8.2f} {line} {peak.left}\n")
