"""Parameter counts: every weight of the blueprint, by component, in total and as one token uses them.

Conventions: tied weights once; norms and biases in; buffers out (router correction biases that
transformers keeps as buffers are told apart). Active parameters are the total less the routed experts that a token
does not use; embeddings and the head are counted in full (model cards often leave the embedding out).
"""

from collections.abc import Iterable
from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, Weight
from llmcalc.quantity import Quantity

# The order in which components are shown; a token meets them so.
PARTS = (
    "vision", "audio", "embedding", "positions", "projection", "attention", "cross_attention", "recurrent", "ffn", "experts",
    "shared_experts", "router", "norm", "pooler", "other", "lm_head",
)  # fmt: skip


class Params(NamedTuple):
    """Counts of elements.

    ``parts`` has every component, 0 where the model has none, and adds up to ``total``; ``embedding`` and ``lm_head`` are
    the bare matrices.
    """

    total: int
    active: int
    embedding: int
    lm_head: int
    router_buffers: int
    parts: dict[str, int]
    active_parts: dict[str, int]

    @property
    def non_embedding(self) -> int:
        """``active`` without embedding, positions and head, as Kaplan et al. 2020 count."""
        return self.active - sum(self.active_parts[part] for part in ("embedding", "positions", "lm_head"))


def _by_part(weights: Iterable[Weight]) -> dict[str, list[Weight]]:
    found: dict[str, list[Weight]] = {}
    for weight in weights:
        if not weight.buffer and not weight.tied_to:
            found.setdefault(weight.part, []).append(weight)
    return {part: found[part] for part in sorted(found, key=PARTS.index)}


def count(blueprint: Blueprint) -> Params:
    """Parameters of a model."""
    by_part = _by_part(blueprint.weights)
    parts = {part: sum(w.elements for w in by_part.get(part, ())) for part in PARTS}
    active = {part: sum(w.active_elements for w in by_part.get(part, ())) for part in PARTS}
    weights = blueprint.weights
    return Params(
        total=sum(parts.values()),
        active=sum(active.values()),
        embedding=sum(w.elements for w in weights if w.role == "embedding"),
        lm_head=sum(w.elements for w in weights if w.role == "lm_head"),
        router_buffers=sum(w.elements for w in weights if w.buffer),
        parts=parts,
        active_parts=active,
    )


def explain(blueprint: Blueprint, *, active: bool = False) -> Quantity:
    """The total, or the active parameters, as a tree: components, then tensors with their shapes."""

    def opened(weight: Weight) -> Quantity:
        return Quantity.of(weight.name, weight.active if active else weight.count, "params")

    parts = [Quantity.sum(part, "params", map(opened, weights)) for part, weights in _by_part(blueprint.weights).items()]
    if active:
        rule = "total less the routed experts that a token does not use; embedding and head counted"
        return Quantity.sum("active", "params", parts, source=rule)
    return Quantity.sum("total", "params", parts, source="one term per tensor of the model, tied tensors once")
