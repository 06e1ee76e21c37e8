"""Which tensor of a model gets which format of a quantisation, layer by layer.

A quantisation is a list of rules, which are data: words for tensors, conditions on the model, conditions on the layer.
The first that fits a tensor gives its format; a tensor that none fits keeps the model's own dtype.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from llmcalc.blueprint.parts import Blueprint, Weight
from llmcalc.quantity import Dim

PREFIXES = ("expert_", "shared_", "dense_", "cross_")
TEXT = ("encoder", "decoder")  # every other stack is a tower for images or sound


class FormatLike(Protocol):
    """How elements are stored."""

    bits: int
    overhead: Sequence[Any]
    block: int | None
    tile: int | None


class Method(NamedTuple):
    """A quantisation ready to apply: its rules, and the formats that they name."""

    name: str
    rules: tuple[Any, ...]
    formats: Mapping[str, FormatLike]
    sources: tuple[str, ...] = ()


class Share(NamedTuple):
    """Some layers of a tensor, stored in one format (empty: the model's own dtype)."""

    weight: Weight
    layers: tuple[int, ...]
    format: str

    @property
    def depth(self) -> Dim:
        """How many layers (1 outside of them); the tensor's own symbol where it is all of them."""
        count = len(self.layers) or 1
        return self.weight.depth if count == self.weight.depth else Dim(count, "n")


class Traits(NamedTuple):
    """What rules may ask of a model.

    ``tied``: there is no head but the embedding. ``experts`` are those of a layer (0: dense), ``groups`` query heads per
    key and value head, ``depth`` the layers of its last stack of text, ``depths`` those of every stack.
    """

    tied: bool
    experts: int
    groups: int
    depth: int
    roles: frozenset[str]
    depths: Mapping[str, int]


def traits_of(blueprint: Blueprint) -> Traits:
    """The traits of a model, from its tensors and operations."""
    roles = {w.role for w in blueprint.weights}
    # A checkpoint that keeps queries, keys and values as one tensor says so; nothing else can tell.
    roles |= set(getattr(blueprint, "fused", ()))
    return Traits(
        tied=not any(w.part == "lm_head" and w.kind == "matrix" and not w.tied_to for w in blueprint.weights),
        experts=max((int(w.copies) for w in blueprint.weights if w.part == "experts"), default=0),
        groups=_groups(blueprint),
        depth=next((s.depth for s in reversed(blueprint.stacks) if s.name in TEXT), 0),
        roles=frozenset(roles),
        depths={stack.name: stack.depth for stack in blueprint.stacks},
    )


def _groups(blueprint: Blueprint) -> int:
    """Query heads for each key and value head, in the first layer of text that attends; MLA has one latent for all."""
    for op in blueprint.ops:
        if op.kind == "attention" and op.part == "attention" and not op.cross:
            if op.cached_qk is not None:
                return int(op.heads)
            keys = next((w for w in blueprint.weights if w.role == "k" and set(w.layers) & set(op.layers)), None)
            return int(op.heads) * int(op.qk) // int(keys.shape[0]) if keys else 0
    return 0


def in_tower(weight: Weight) -> bool:
    """Whether a tensor is of a tower for images or sound rather than of the text model."""
    return weight.stack not in TEXT


def categories(weight: Weight, traits: Traits) -> set[str]:
    """The words by which a rule can mean this tensor."""
    if weight.kind == "gain":
        return {"norms", "all"}
    if weight.kind == "bias":
        return {"biases", "all"}
    if weight.role == "embedding":
        # A tied embedding is the head too, and formats chosen for the head win where it is.
        return {"embedding", "all"} | ({"lm_head"} if traits.tied else set())
    if in_tower(weight) and weight.kind != "table":
        return {"vision", "all"} | ({"vision_linears"} if weight.kind == "matrix" else set())
    outside = weight.part in ("positions", "pooler", "projection") and not weight.layers
    if weight.kind in ("table", "conv") or outside:
        return {"others", "all"}
    if weight.part in ("lm_head", "router"):
        return {weight.part, "all"}
    if weight.role == "shared_expert_gate":
        # It weighs the shared expert as the router weighs the others, and is left alone like it.
        return {"router", "all"}
    role = weight.role
    for prefix in PREFIXES:
        role = role.removeprefix(prefix)
    if "qkv" in traits.roles and weight.part == "attention" and role in ("q", "k", "v"):
        role = "qkv"
    found = {"all", "linears", weight.part, role}
    if weight.part == "recurrent" and role in ("gate", "up", "down", "o"):
        # Names that mean other matrices there than in an FFN or an attention.
        return found - {role}
    if weight.part == "cross_attention":
        found.add("attention")
    if role in ("gate", "up", "down"):
        found.add("ffn")
    return found


def stored_tensors(blueprint: Blueprint, method: Method) -> list[Weight]:
    """The tensors as the method stores them: one for each there is.

    MLA's up-projection of the latent is one tensor to most; a method whose rules know ``k_b`` and ``v_b`` keeps its
    two halves apart, the keys' transposed: rows of d_n for every head and latent dim, and rows of r_kv.
    """
    own = [w for w in blueprint.weights if not w.tied_to]
    if not any("k_b" in rule.tensors for rule in method.rules):
        return own
    scores = {layer: op for op in blueprint.ops if op.cached_qk is not None for layer in op.layers}
    found = []
    for weight in own:
        op = scores.get(weight.layers[0]) if weight.role == "kv_b" and weight.layers else None
        if op is None:
            found.append(weight)
            continue
        rank = weight.shape[-1]
        key, value = Dim(int(op.qk) - int(op.cached_qk) + int(op.cached_v), "d_n"), Dim(int(op.v), "d_v")
        heads = Dim(int(op.heads), "a")
        stem = weight.name.removesuffix("kv_b")
        found.append(weight._replace(name=f"{stem}k_b", role="k_b", shape=(heads * rank, key)))
        found.append(weight._replace(name=f"{stem}v_b", role="v_b", shape=(heads * value, rank)))
    return found


def fits(weight: Weight, form: FormatLike) -> bool:
    """Whether a tensor's rows can be cut into the format's blocks."""
    return form.block is None or not weight.shape or int(weight.shape[-1]) % form.block == 0


def _holds(rule: Any, traits: Traits) -> bool:
    """Whether a rule is for this model."""
    return (
        rule.tied in (None, traits.tied)
        and rule.moe in (None, traits.experts > 0)
        and rule.experts in (None, traits.experts)
        and traits.experts >= (rule.min_experts or 0)
        and traits.groups >= (rule.min_groups or 0)
        and rule.depth in (None, traits.depth)
        and traits.roles >= set(rule.having)
        and not traits.roles & set(rule.lacking)
    )


def _takes(rule: Any, index: int, count: int) -> bool:
    """Whether a rule takes number ``index`` of ``count``."""
    if rule.first is not None and index >= rule.first:
        return False
    if rule.layers == "first-eighth":
        return index < count // 8
    if rule.layers == "first-sixteenth":
        return index < count // 16
    if rule.layers == "middle":
        return count // 8 <= index < 7 * count // 8
    if rule.layers == "more-bits":
        # llama.cpp's use_more_bits: the first and the last eighth, and every third in between.
        return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2
    return True


class _Mix:
    """The rules that are for a model, and its tensors in the words of rules."""

    def __init__(self, blueprint: Blueprint, method: Method) -> None:
        self.traits = traits_of(blueprint)
        self.method = method
        self.weights = stored_tensors(blueprint, method)
        self.means = {w.name: categories(w, self.traits) for w in self.weights}
        rules = [rule for rule in method.rules if _holds(rule, self.traits)]
        self.rules = [rule for rule in rules if rule.instead_of is None]
        self.stand_ins = [rule for rule in rules if rule.instead_of is not None]

    def format(self, rule: Any, weight: Weight) -> str | None:
        """The format that a rule comes to for a tensor: its own, or what stands in for it; None if nothing fits."""
        name: str | None = rule.format
        tried: set[str] = set()
        while name is not None and name not in tried:
            if fits(weight, self.method.formats[name]):
                return name
            tried.add(name)
            asked = (r for r in self.stand_ins if r.instead_of == name and self.means[weight.name] & set(r.tensors))
            name = next((r.format for r in asked), None)
        return None

    def picked(self, rule: Any, weight: Weight) -> set[int]:
        """The layers of a tensor that a rule takes."""
        if rule.layers is None and rule.first is None:
            return set(weight.layers) or {-1}
        depth = self.traits.depths.get(weight.stack, 0)
        if rule.counted in (None, "layers"):
            return {layer for layer in weight.layers if _takes(rule, layer, depth)}
        counted = sorted(
            (layer, w.name)
            for w in self.weights
            if w.stack == weight.stack and self.means[w.name] & set(rule.tensors)
            for layer in w.layers
        )
        count = len(counted) if rule.counted == "tensors" else depth
        order = {place: index for index, place in enumerate(counted)}
        return {layer for layer in weight.layers if _takes(rule, order[layer, weight.name], count)}

    def shares(self, weight: Weight) -> list[Share]:
        """A tensor's layers, shared out among the rules."""
        remaining = set(weight.layers) or {-1}
        found = []
        for rule in self.rules:
            if not remaining:
                break
            if not self.means[weight.name] & set(rule.tensors):
                continue
            form = self.format(rule, weight)
            layers = remaining & self.picked(rule, weight)
            if form is not None and layers:
                found.append(Share(weight, _indices(layers), form))
                remaining -= layers
        return [*found, Share(weight, _indices(remaining), "")] if remaining else found


def _indices(layers: set[int]) -> tuple[int, ...]:
    return tuple(sorted(layers - {-1}))


def assign(blueprint: Blueprint, method: Method) -> list[Share]:
    """Which format every tensor gets, split by layers where a rule picks some of them."""
    mix = _Mix(blueprint, method)
    return [share for weight in mix.weights for share in mix.shares(weight)]
