"""Models that give a number instead of the next token: reward and value models are a model with another head.

``scored`` puts a linear from h to 1, without bias, in the place of the head, as transformers' classes for the classification of
sequences have it with one label. ``valued`` leaves the head and puts a linear from h to 1 with bias beside it: a policy that
estimates its own value.
"""

from __future__ import annotations

from typing import Any

from llmcalc.blueprint.parts import ONE, Blueprint, Op, Weight
from llmcalc.quantity import Dim

HEAD = "lm_head"
SCORES = ("score", "score.bias")


def _width(blueprint: Blueprint) -> Any:
    """What the head reads."""
    heads = [w for w in blueprint.weights if w.role == HEAD]
    return heads[0].shape[1] if heads else Dim(blueprint.stacks[-1].hidden, "h")


def _linear(blueprint: Blueprint, part: str, *, bias: bool) -> tuple[list[Weight], Op]:
    """The weights and the product of a head with one output. It reads every token's hidden state."""
    stack, into = blueprint.stacks[-1].name, _width(blueprint)
    name = f"{stack}.{SCORES[0]}"
    weights = [Weight(name, part, SCORES[0], "matrix", (ONE, into), stack, (), ONE, last=True)]
    if bias:
        weights.append(Weight(f"{name}.bias", part, SCORES[1], "bias", (ONE,), stack, (), ONE, last=True))
    return weights, Op(name, part, "matmul", "logit", ONE, (), ("x",), "scores", ONE, inner=into, weight=name)


def scored(blueprint: Blueprint) -> Blueprint:
    """The model with a head of one output in place of its own; its loss is over one number a token."""
    weights, op = _linear(blueprint, HEAD, bias=False)
    loss = Op(f"{op.name}_loss", HEAD, "loss", "logit", ONE, (), ("scores", "labels"), "loss", ONE)
    return blueprint._replace(
        weights=(*(w for w in blueprint.weights if w.part != HEAD), *weights),
        ops=(*(o for o in blueprint.ops if o.part != HEAD), op, loss),
    )


def valued(blueprint: Blueprint) -> Blueprint:
    """The model with a head of one output beside its own."""
    weights, op = _linear(blueprint, "other", bias=True)
    at = next((index for index, found in enumerate(blueprint.ops) if found.part == HEAD), len(blueprint.ops))
    return blueprint._replace(weights=(*blueprint.weights, *weights), ops=(*blueprint.ops[:at], op, *blueprint.ops[at:]))
