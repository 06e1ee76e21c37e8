"""Spec -> blueprint, once. Every engine reads the result; none reads the spec."""

from __future__ import annotations

from llmcalc.blueprint import attention, ends, ffn, recurrent
from llmcalc.blueprint.draft import Draft, Place, after, before
from llmcalc.blueprint.layers import Layer, StackPlan
from llmcalc.blueprint.parts import ONE, Blueprint, Cache, StackShape
from llmcalc.blueprint.plan import image_tokens, patch_rows, stacks, trained_context
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Dim
from llmcalc.specs.model import ModelSpec

TOWERS = ("vision", "audio")


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


class _Layers:
    """Lowers the layers of one place: norms where the placement has them, the sub-layers, and the sums between."""

    def __init__(self, draft: Draft, at: Place, layer: Layer, h: Dim, encoded: Dim) -> None:
        self.draft, self.at, self.layer, self.h, self.encoded = draft, at, layer, h, encoded

    def enter(self, at: Place, name: str, *, wanted: bool = True, width: Dim | None = None) -> str:
        """The norm before a sub-layer, if there is one; gives what the sub-layer reads."""
        if not (wanted and self.layer.placement in ("pre", "sandwich")):
            return "x"
        self.draft.norm(at, f"{name}_norm", self.layer.norm, width or self.h, "x", f"{name}_in")
        return f"{name}_in"

    def leave(self, at: Place, name: str, *outputs: str) -> None:
        """Back to the residual stream: the output's norm and the sum (sandwich, output), or the sum and its norm (post)."""
        layer, draft, h = self.layer, self.draft, self.h
        if layer.placement in ("sandwich", "output"):
            draft.norm(at, f"{name}_post_norm", layer.norm, h, outputs[0], outputs[0])
        if name in layer.dropout:
            draft.op(at, f"{name}_dropout", name, "dropout", outputs[0], outputs[0], h)
        draft.op(at, f"{name}_residual", name, "add", ("x", *outputs), "x", h)
        if layer.placement == "post":
            draft.norm(at, f"{name}_post_norm", layer.norm, h, "x", "x")

    def mixers(self) -> tuple[str, ...]:
        """Attention, recurrent mixer, or both side by side on one norm; what they write."""
        layer, at = self.layer, self.at
        if layer.attention is None and layer.recurrent is None:
            return ()
        reads = self.enter(at, "attention", wanted=layer.attention_norm)
        wrote = []
        if layer.attention is not None:
            attention.self_attention(self.draft, at, layer.attention, layer.norm, self.h, reads)
            wrote.append("attention_out")
        if layer.recurrent is not None:
            recurrent.mixer(self.draft, at, layer.recurrent, self.h, reads)
            wrote.append("recurrent_out")
        return tuple(wrote)

    def shared(self) -> None:
        """Attention and FFN blocks that the layers take in turn, then each layer's own recurrent mixer (Zamba)."""
        layer, count = self.layer, self.layer.shared_blocks
        at = self.at._replace(owned=self.at.owned[:count], owned_depth=Dim(min(count, len(self.at.owned)), "L_shared"))
        wide = 2 * self.h
        if layer.attention is not None:
            reads = self.enter(at, "attention", width=wide)
            attention.self_attention(self.draft, at, layer.attention, layer.norm, self.h, reads, wide)
        self.ffn(at, "attention_out")
        if layer.recurrent is not None:
            reads = self.enter(self.at, "recurrent")
            recurrent.mixer(self.draft, self.at, layer.recurrent, self.h, reads)
            self.leave(self.at, "recurrent", "recurrent_out")

    def ffn(self, at: Place, *beside: str) -> None:
        """The FFN, with what ran beside it where the block is parallel."""
        layer = self.layer
        if layer.ffn is None:
            return
        if layer.parallel == "one-norm":
            reads = "attention_in" if layer.placement in ("pre", "sandwich") else "x"
        else:
            reads = self.enter(at, "ffn", wanted=layer.ffn_norm)
        ffn.feed_forward(self.draft, at, layer.ffn, self.h, reads)
        self.leave(at, "ffn", "ffn_out", *beside)

    def lower(self) -> None:
        """The whole layer."""
        layer, at = self.layer, self.at
        for tensor in layer.further:
            self.draft.further(at, tensor)
        for state in layer.states:
            self.draft.state(at, state.name, tuple(Dim(size, str(size), names={}) for size in state.shape), state.dtype)
        if layer.image_cache:
            kept = Dim(layer.image_cache, str(layer.image_cache), names={})
            cache = Cache(f"{at.prefix}.image", "cross", at.stack, kept, at.run, at.depth, ONE, per="encoder_token")
            self.draft.caches.append(cache)
        if layer.shared_blocks:
            self.shared()
        else:
            self.blocks()
        made = [f"{tensor.name}_out" for tensor in layer.further if tensor.times]
        if made:
            self.draft.op(at, "further", "other", "add", ("x", *made), "x", self.h)

    def blocks(self) -> None:
        """Mixers, cross-attention and FFN one after the other, or side by side."""
        layer, at = self.layer, self.at
        wrote = self.mixers()
        side_by_side = layer.parallel != "none"
        if wrote and not (side_by_side and layer.ffn is not None):
            self.leave(at, "attention", *wrote)
        if layer.cross and layer.attention is not None:
            reads = self.enter(at, "cross_attention")
            attention.cross_attention(self.draft, at, layer.attention, self.h, self.encoded, reads)
            self.leave(at, "cross_attention", "cross_attention_out")
        self.ffn(at, *(wrote if side_by_side else ()))


def _widths(plans: tuple[StackPlan, ...]) -> dict[str, Dim]:
    """Each stack's width: h the model's, and symbols of their own where a stack differs."""
    h = Dim(plans[-1].hidden, "h")
    symbols = {"vision": "h_v", "audio": "h_a", "encoder": "h_enc"}
    alike = {plan.name for plan in plans if plan.hidden == h and plan.name not in TOWERS}
    return {plan.name: h if plan.name in alike else Dim(plan.hidden, symbols.get(plan.name, "h")) for plan in plans}


def _rows(stack: str, alone: bool) -> str:
    if stack in TOWERS:
        return "patch" if stack == "vision" else stack
    return "encoder_token" if stack == "encoder" and not alone else "token"


def lower(spec: ModelSpec, name: str, *, masked: bool = False) -> Blueprint:
    """The blueprint of a model; ``masked`` as it is trained, where that is an encoder without a head.

    Raises NoAnswer for a spec without an architecture (status ``unpublished``).
    """
    if spec.hidden is None or spec.layers is None:
        raise NoAnswer(f"{name}: the spec has no architecture to compute with")
    draft = Draft()
    plans = stacks(spec)
    widths = _widths(plans)
    h = widths[plans[-1].name]
    text = [plan.name for plan in plans if plan.name not in TOWERS]
    ends.embedding(draft, spec, text, h)
    if spec.vision is not None:
        ends.patches(draft, spec.vision, h)
    for plan in plans:
        own = Draft()
        rows = _rows(plan.name, len(text) == 1)
        for at, layer in _groups(plan, rows):
            _Layers(own, at, layer, widths[plan.name], widths.get("encoder", h)).lower()
        for tensor in plan.outside:
            own.further((after if tensor.after else before)(plan.name, rows), tensor)
        if plan.final_norm and plan.name != "vision":
            own.norm(after(plan.name, rows), "final_norm", plan.norm, widths[plan.name], "x", "x")
            if "final" in plan.dropout:
                own.op(after(plan.name, rows), "final_dropout", "norm", "dropout", "x", "x", widths[plan.name])
        if plan.name in TOWERS:
            # A tower is one part of the model, however it is built inside.
            own.weights = [weight._replace(part=plan.name) for weight in own.weights]
            own.ops = [op._replace(part=plan.name) for op in own.ops]
        draft.weights += own.weights
        draft.caches += own.caches
        draft.ops += own.ops
    ends.head(draft, spec, after(text[-1], "token"), h, masked=masked)
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
        patches=patch_rows(vision) if vision else 0,
        image_tokens=image_tokens(vision) if vision else 0,
        unknown_cache=spec.unknown_cache or "",
    )
