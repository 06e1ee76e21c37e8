"""Does a model fit as a runtime serves it: the GPU that decides, the largest context and batch, the fewest GPUs."""

from collections.abc import Callable
from math import gcd
from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines.demand import MOST_SEQUENCES, MOST_TOKENS
from llmcalc.engines.fit import Load, largest
from llmcalc.engines.runtime_llamacpp import LlamaCppPlan
from llmcalc.engines.runtime_sglang import SglangPlan
from llmcalc.engines.runtime_transformers import TransformersPlan
from llmcalc.engines.runtime_vllm import VllmPlan
from llmcalc.engines.runtimes import Case, Plan, Split
from llmcalc.errors import UsageError
from llmcalc.quantity import Kind, Quantity, ceil_div

PLANS: dict[str, Callable[[Case], Plan]] = {
    "paged": VllmPlan, "static": SglangPlan, "cells": LlamaCppPlan, "eager": TransformersPlan,
}  # fmt: skip
# Runtimes that divide matrices; the others spread layers.
DIVIDING = ("paged", "static")
NODE = 8
MOST_GPUS = 1024


class Served(NamedTuple):
    """The answer: the GPU that decides (from 0), and what would fit. None as for ``fit.Fit``."""

    fits: bool
    loads: list[Load]
    deciding: int
    available: int
    kv_tokens: int | None
    max_context: int | None
    max_batch: int | None

    @property
    def load(self) -> Load:
        """What stands on the GPU that decides."""
        return self.loads[self.deciding]


def plan(case: Case) -> Plan:
    """The plan of a case's runtime. Raises UsageError for a split that it cannot have, NoAnswer for an unknown cache."""
    return PLANS[case.runtime.kind](case)


def fitting(made: Plan, context: int, batch: int) -> bool:
    """Whether everything fits."""
    return all(load.required_bytes <= made.available for load in made.loads(context, batch))


def serve(made: Plan, blueprint: Blueprint, context: int, batch: int) -> Served:
    """The verdict on a plan, and the largest context and batch that it has room for."""
    loads = made.loads(context, batch)
    trained = blueprint.context
    longest = largest(lambda n: fitting(made, n, batch), MOST_TOKENS if trained is None else trained)
    most = largest(lambda n: fitting(made, context, n), MOST_SEQUENCES)
    return Served(
        fits=all(load.required_bytes <= made.available for load in loads),
        loads=loads,
        deciding=max(range(len(loads)), key=lambda index: loads[index].required_bytes),
        available=made.available,
        kv_tokens=made.tokens(context),
        max_context=None if trained is None and longest == MOST_TOKENS else longest,
        max_batch=None if most == MOST_SEQUENCES else most,
    )


def heads_of(blueprint: Blueprint) -> int:
    """What tensor parallelism has to divide: the greatest number that all layers' heads are a multiple of; 0 without attention."""
    heads = 0
    for op in blueprint.ops:
        if op.kind == "attention" and op.part == "attention" and not op.cross and int(op.v) > 1:
            heads = gcd(heads, int(op.heads))
    return heads


def split_over(blueprint: Blueprint, kind: str, gpus: int, asked: Split | None = None, given: tuple[str, ...] = ()) -> Split:
    """How a runtime divides a model over so many GPUs, as far as it is not said (``given`` names what is).

    Tensor parallelism within a node as far as the heads allow, pipeline stages for the rest. Raises UsageError where what is
    said does not come to ``gpus``.
    """
    if kind not in DIVIDING:
        return (asked or Split())._replace(pp=gpus)
    split = asked or Split()
    rest, odd = divmod(gpus, split.gpus)
    if odd or (rest > 1 and "tp" in given and "pp" in given):
        raise UsageError(f"--tp x --pp x --dp is {split.gpus}, which is not --gpus {gpus}")
    if "tp" in given:
        return split._replace(pp=split.pp * rest)
    heads = heads_of(blueprint)
    if "pp" in given:
        return split._replace(tp=rest)
    tp = next(n for n in range(min(rest, NODE), 0, -1) if rest % n == 0 and heads % n == 0)
    return split._replace(tp=tp, pp=rest // tp)


def fewest(case: Case, context: int, batch: int, enough: int | None = None) -> int | None:
    """The fewest GPUs that are enough, within a node one by one and then by nodes; None where no number is.

    ``enough`` is a number that is known to be.
    """
    alone = plan(case._replace(split=Split()))
    # Weights divided over GPUs come to no less than on one.
    least = ceil_div(sum(load.weight_bytes for load in alone.loads(context, batch)), alone.available)
    stacks = case.blueprint.stacks[-1:] if case.runtime.kind in DIVIDING else case.blueprint.stacks
    counts: tuple[int, ...] = (*range(1, NODE + 1), *range(2 * NODE, MOST_GPUS + 1, NODE))
    for count in (count for count in counts if count >= least):
        if enough is not None and count >= enough:
            return enough
        split = split_over(case.blueprint, case.runtime.kind, count)
        if split.pp > sum(stack.depth for stack in stacks):
            return enough
        made = plan(case._replace(split=split))
        loads = made.loads(context, batch)
        if all(load.required_bytes <= made.available for load in loads):
            return count
        if any(load.activation_bytes + load.overhead_bytes >= made.available for load in loads):
            return enough
    return enough


SAID = {
    "weight_bytes": "weights of one GPU, with what the runtime pads",
    "kv_bytes": "cache of one GPU as the runtime lays it out",
    "activation_bytes": "working memory that the runtime sets apart",
    "overhead_bytes": "CUDA context, communication, graphs",
}


def explain(case: Case, context: int, batch: int) -> Quantity:
    """What is required on the GPU that decides, as a tree."""
    made = plan(case)
    loads = made.loads(context, batch)
    deciding = max(range(len(loads)), key=lambda index: loads[index].required_bytes)
    formulas, error = made.formulas(context, batch, deciding), case.runtime.errors
    parts = []
    for label, value in loads[deciding]._asdict().items():
        shown = formulas.get(label)
        # A line that leaves something out (an encoder's cache) is not shown.
        shown = shown if shown is not None and int(shown) == value else value
        kind: Kind = "modelled" if label in ("weight_bytes", "kv_bytes") else "estimated"
        note = f"median error against logs {error[label]:g}%" if label in error else ""
        parts.append(Quantity.of(label, shown, "bytes", kind=kind, source=SAID[label], note=note))
    where = f"{case.runtime.label}: {'; '.join(case.runtime.sources)}"
    return Quantity.sum("required_bytes", "bytes", parts, source=where)
