"""Spec -> blueprint, once. Every engine reads the result; none reads the spec."""

from __future__ import annotations

from llmcalc.blueprint import attention, ends, ffn
from llmcalc.blueprint.draft import Draft, Place, after
from llmcalc.blueprint.parts import Blueprint, StackShape
from llmcalc.blueprint.plan import Layer, StackPlan, image_tokens, patch_count, stacks
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Dim
from llmcalc.specs.model import ModelSpec


def _groups(stack: StackPlan, rows: str) -> list[tuple[Place, Layer]]:
    """The stack's layers, those built alike together, in order of first appearance."""
    alike: dict[Layer, list[int]] = {}
    for index, layer in enumerate(stack.layers):
        alike.setdefault(layer, []).append(index)
    groups = []
    for number, (layer, indices) in enumerate(alike.items(), 1):
        owned = tuple(i for i in indices if i < stack.distinct)
        symbol = "L" if len(alike) == 1 else f"L_{number}"
        prefix = stack.name if len(alike) == 1 else f"{stack.name}.{number}"
        depth = Dim(len(indices), symbol)
        owned_depth = depth if len(owned) == len(indices) else Dim(len(owned), f"{symbol}_own")
        groups.append((Place(stack.name, prefix, owned, owned_depth, tuple(indices), depth, rows), layer))
    return groups


def _layer(draft: Draft, at: Place, layer: Layer, h: Dim) -> None:
    """One layer: norms where the placement has them, attention, cross-attention, FFN."""
    norm_before = layer.placement in ("pre", "sandwich")
    norm_after = layer.placement in ("post", "sandwich", "output")

    def sublayer(name: str, reads: str, wanted: bool = True) -> str:
        if norm_before and wanted:
            draft.norm(at, f"{name}_norm", layer.norm, h, "x", reads)
            return reads
        return "x"

    def close(name: str) -> None:
        if norm_after:
            draft.norm(at, f"{name}_post_norm", layer.norm, h, f"{name}_out", f"{name}_out")
        draft.op(at, f"{name}_residual", name, "add", ("x", f"{name}_out"), "x", h)

    reads = sublayer("attention", "attention_in", layer.attention_norm)
    attention.self_attention(draft, at, layer.attention, layer.norm, h, reads)
    if layer.parallel == "none":
        close("attention")
    if layer.cross:
        cross_reads = sublayer("cross_attention", "cross_in")
        attention.cross_attention(draft, at, layer.attention, h, cross_reads)
        close("cross")
    if layer.parallel != "one-norm":
        reads = sublayer("ffn", "ffn_in")
    ffn.feed_forward(draft, at, layer.ffn, h, reads)
    close("ffn")


def _rows(stack: str, alone: bool) -> str:
    if stack == "vision":
        return "patch"
    return "encoder_token" if stack == "encoder" and not alone else "token"


def lower(spec: ModelSpec, name: str) -> Blueprint:
    """The blueprint of a model.

    Raises NoAnswer for a spec without an architecture (status ``unpublished``).
    """
    if spec.hidden is None or spec.layers is None:
        raise NoAnswer(f"{name}: the spec has no architecture to compute with")
    draft = Draft()
    plans = stacks(spec)
    h = Dim(spec.hidden, "h")
    text = [plan.name for plan in plans if plan.name != "vision"]
    ends.embedding(draft, spec, text, h)
    if spec.vision is not None:
        ends.patches(draft, spec.vision, h)
    for plan in plans:
        width = Dim(plan.hidden, "h_v") if plan.name == "vision" else h
        alone = len(text) == 1
        layers = Draft()
        for at, layer in _groups(plan, _rows(plan.name, alone)):
            _layer(layers, at, layer, width)
        if plan.name == "vision":
            # A tower is one part of the model, however it is built inside.
            layers.weights = [weight._replace(part="vision") for weight in layers.weights]
            layers.ops = [op._replace(part="vision") for op in layers.ops]
        draft.weights += layers.weights
        draft.caches += layers.caches
        draft.ops += layers.ops
        if plan.final_norm and plan.name != "vision":
            at = after(plan.name, _rows(plan.name, alone))
            draft.norm(at, "final_norm", plan.norm, h, "x", "x")
    ends.head(draft, spec, after(text[-1], "token"), h)
    vision = spec.vision
    return Blueprint(
        name,
        stacks=tuple(StackShape(plan.name, len(plan.layers), plan.hidden) for plan in plans),
        weights=tuple(draft.weights),
        caches=tuple(draft.caches),
        ops=tuple(draft.ops),
        context=spec.context,
        dtype=spec.dtype,
        estimate=spec.status == "estimate",
        has_encoder=spec.encoder is not None,
        generates=spec.type != "encoder",
        patches=patch_count(vision) if vision else 0,
        image_tokens=image_tokens(vision) if vision else 0,
    )
