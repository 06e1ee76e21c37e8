"""Spec -> blueprint, once. Every engine reads the result; none reads the spec."""

from __future__ import annotations

from llmcalc.blueprint import attention, ends, ffn
from llmcalc.blueprint.draft import Draft, Place, after
from llmcalc.blueprint.parts import Blueprint, StackShape
from llmcalc.blueprint.plan import Layer, StackPlan, image_tokens, stacks, trained_context
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
    """One layer: norms where the placement has them, attention, cross-attention, FFN, and the sums between."""
    norm_before = layer.placement in ("pre", "sandwich")

    def enter(name: str, *, wanted: bool = True) -> str:
        """The norm before a sub-layer, if there is one; gives what the sub-layer reads."""
        if not (norm_before and wanted):
            return "x"
        draft.norm(at, f"{name}_norm", layer.norm, h, "x", f"{name}_in")
        return f"{name}_in"

    def leave(name: str, *, also: str = "") -> None:
        """Back to the residual stream: the output's norm and the sum (sandwich, output), or the sum and its norm (post)."""
        out = f"{name}_out"
        if layer.placement in ("sandwich", "output"):
            draft.norm(at, f"{name}_post_norm", layer.norm, h, out, out)
        draft.op(at, f"{name}_residual", name, "add", ("x", out, also) if also else ("x", out), "x", h)
        if layer.placement == "post":
            draft.norm(at, f"{name}_post_norm", layer.norm, h, "x", "x")

    side_by_side = layer.parallel != "none"
    reads = enter("attention", wanted=layer.attention_norm)
    attention.self_attention(draft, at, layer.attention, layer.norm, h, reads)
    if not side_by_side:
        leave("attention")
    if layer.cross:
        attention.cross_attention(draft, at, layer.attention, h, enter("cross_attention"))
        leave("cross_attention")
    if layer.parallel != "one-norm":
        reads = enter("ffn")
    ffn.feed_forward(draft, at, layer.ffn, h, reads)
    leave("ffn", also="attention_out" if side_by_side else "")


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
        context=trained_context(spec),
        dtype=spec.dtype,
        estimate=spec.status == "estimate",
        has_encoder=spec.encoder is not None,
        generates=spec.type != "encoder",
        patches=vision.patches if vision else 0,
        image_tokens=image_tokens(vision) if vision else 0,
    )
