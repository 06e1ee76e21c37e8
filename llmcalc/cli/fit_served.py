"""The row of fit for a model as a runtime serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcalc import hardware
from llmcalc.cli.fit_rows import Question, Row, cost, filled
from llmcalc.engines import serving
from llmcalc.engines.runtime_llamacpp import LlamaCppPlan
from llmcalc.engines.runtime_model import Known
from llmcalc.engines.runtime_sglang import SglangPlan
from llmcalc.engines.runtime_vllm import VllmPlan
from llmcalc.engines.runtimes import Case, Plan, Runtime, Settings, Split
from llmcalc.errors import UsageError

if TYPE_CHECKING:
    from llmcalc import resolve
    from llmcalc.engines.weights import Method


def known_of(question: Question, m: resolve.Model, method: Method) -> Known:
    """What plans ask of a model. Raises NoAnswer where its cache is not known."""
    return Known(m.blueprint, method, question.dtype or "")


def settings(question: Question) -> Settings:
    """What the runtime is told."""
    return Settings(
        kv_dtype=question.kv_dtype, value_dtype=question.value_dtype, utilization=question.utilization,
        sequences=question.sequences, prompt_tokens=question.ubatch, pool_bytes=question.pool, gpu_layers=question.ngl,
        flash_attention=question.flash, encoder_context=question.encoder, state_dtype=question.state_dtype,
    )  # fmt: skip


def row(
    question: Question,
    runtime: Runtime,
    m: resolve.Model,
    card: hardware.Gpu,
    method: Method,
    head: dict[str, Any],
    gpus: int | None,
    known: Known | None,
) -> Row:
    """The row of one model on one kind of GPU; ``gpus``, where it is not the question that says how many.

    ``known`` is what is known of the model already.

    Raises UsageError for a split that the runtime cannot have, NoAnswer for a cache that nobody knows.
    """
    split = _split(question, runtime, m, gpus)
    if question.eager:
        runtime = runtime._replace(rules=runtime.rules._replace(graphs_in_budget=False))
    case = Case(m.blueprint, method, question.dtype or "", runtime, hardware.seen(card), split, settings(question), known)
    made = serving.plan(case)
    tokens, batch = head["ctx"], question.batch
    degrees = split if runtime.kind in serving.DIVIDING else Split()
    found = serving.serve(made, m.blueprint, tokens, batch)
    fewest = serving.fewest(case, tokens, batch, split.gpus if found.fits else None)
    result = filled(head, found.load, found.available, fits=found.fits, modelled=True)
    result |= {
        "deciding_gpu": found.deciding + 1, "kv_tokens": found.kv_tokens, "trained_context": m.blueprint.context,
        "max_context": found.max_context, "max_batch": found.max_batch, "gpus": split.gpus,
        "min_gpus": fewest, "dollars_per_hour": cost(card, split.gpus), **degrees._asdict(), "errors_percent": runtime.errors,
        "per_gpu": [{"gpu": i + 1, **load._asdict(), "required_bytes": load.required_bytes} for i, load in enumerate(found.loads)],
        **_more(made, tokens, batch),
    }  # fmt: skip
    return Row(result, m, card, method, case=case)


def _more(made: Plan, tokens: int, batch: int) -> dict[str, Any]:
    """What one kind of runtime alone has."""
    if isinstance(made, VllmPlan):
        return {
            "concurrency": made.concurrency(tokens), "num_gpu_blocks": made.blocks(),
            "bytes_per_token": made.token_bytes(),
            "pool_bytes": min(made.pool_bytes(stage) for stage in made.stages),
        }  # fmt: skip
    if isinstance(made, LlamaCppPlan):
        return {
            "devices": [device._asdict() for device in made.devices(tokens, batch)],
            "host_bytes": made.host_bytes(tokens, batch),
        }
    if isinstance(made, SglangPlan):
        return {"bytes_per_token": max(stage.full for stage in made.stages)}
    return {}


def _split(question: Question, runtime: Runtime, m: resolve.Model, gpus: int | None) -> Split:
    """How many GPUs, and how the model is divided over them. Raises UsageError for degrees that do not come to --gpus."""
    said = Split(**{name: value or 1 for name, value in question.degrees.items()})
    if gpus is not None:
        return serving.split_over(m.blueprint, runtime.kind, gpus)
    if runtime.kind not in serving.DIVIDING and question.given:
        raise UsageError(f"--runtime {runtime.name} spreads layers over --gpus; --{question.given[0]} is not for it")
    return serving.split_over(m.blueprint, runtime.kind, question.gpus or said.gpus, said, question.given)
