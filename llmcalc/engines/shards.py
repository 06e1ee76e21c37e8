"""Training on many GPUs: what one rank holds of the weights, gradients and optimizer states.

A rank's share is a blueprint as well: tensor parallelism narrows the weights (Megatron-LM, arXiv:1909.08053, section 3), expert
parallelism leaves it fewer experts, pipeline stages fewer layers. Everything that counts a model therefore counts a rank. What
data-parallel ranks then divide among them is ZeRO's (arXiv:1910.02054, section 5): optimizer states, gradients, parameters.
"""

from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, Weight, without_formulas
from llmcalc.engines.layout import Chunk, Layout, outside, runs
from llmcalc.engines.optimizers import states
from llmcalc.engines.parameters import Parameters, Trained
from llmcalc.engines.ranks import split_of
from llmcalc.engines.recipe import ITEMS, Recipe
from llmcalc.quantity import ceil_div

NF4 = 0.5  # bytes of an element


def on_rank(blueprint: Blueprint, layout: Layout, held: list[Chunk]) -> Blueprint:
    """What a rank of the stage with these chunks holds, as a blueprint in plain ints.

    A weight outside of layers stands on every stage that computes with it, so a tied head is a copy where the embedding is not.
    """
    blueprint = without_formulas(blueprint)
    after = outside(blueprint)
    named = {weight.name: weight for weight in blueprint.weights}
    used: dict[str, set[int]] = {}
    for op in blueprint.ops:
        weight = named.get(op.weight)
        if weight is None:
            continue
        weight = named[weight.tied_to] if weight.tied_to else weight
        here = used.setdefault(weight.name, set())
        for chunk in held:
            if runs(chunk, op, after):
                stack = op.name.partition(".")[0]
                layers = [layer for layer in op.layers if layer in chunk.layers.get(stack, op.layers)]
                own = weight.layers
                here.update((at if at in own else own[at % len(own)] for at in layers) if own else (-1,))
    weights = []
    for weight in blueprint.weights:
        if weight.tied_to:
            continue
        found = used.get(weight.name, used.get(weight.name.removesuffix(".bias")))
        layers = _beside(weight, held) if found is None else sorted(found)
        if layers:
            own = tuple(at for at in layers if at >= 0)
            fields = {**narrowed(blueprint, weight, layout), "layers": own, "depth": len(layers)}
            weights.append(weight._replace(**fields))
    there = {weight.name for weight in weights}

    done: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {}

    def narrow(stack: str, layers: tuple[int, ...]) -> dict[str, Any]:
        if (stack, layers) not in done:
            own = tuple(at for at in layers if any(at in chunk.layers.get(stack, ()) for chunk in held))
            done[stack, layers] = {"layers": own, "depth": max(len(own), 1)}
        return done[stack, layers]

    ops = []
    for op in blueprint.ops:
        kept = narrow(op.name.partition(".")[0], op.layers)
        if kept["layers"] or (not op.layers and any(runs(chunk, op, after) for chunk in held)):
            ops.append(op._replace(**kept))
    caches = tuple(cache._replace(**kept) for cache in blueprint.caches if (kept := narrow(cache.stack, cache.layers))["layers"])
    tied = tuple(w for w in blueprint.weights if w.tied_to in there)
    return blueprint._replace(weights=(*weights, *tied), ops=tuple(ops), caches=caches)


def _beside(weight: Weight, held: list[Chunk]) -> list[int]:
    """Where a weight stands that no product uses (sinks, class tokens): with its layer, or its stack's begin or end."""
    if weight.layers:
        return [at for at in weight.layers if any(at in c.layers.get(weight.stack, ()) for c in held)]
    ends = any(weight.stack in c.ends for c in held) if weight.last else any(weight.stack in c.begins for c in held)
    return [-1] if ends else []


def narrowed(blueprint: Blueprint, weight: Weight, layout: Layout) -> dict[str, Any]:
    """The fields of a weight that tensor and expert parallelism change; a dim that does not divide is padded.

    Heads of keys and values stay whole: with fewer of them than ranks each rank has one, and some have the same.
    """
    split = split_of(weight)
    sides: list[int] = [int(side) for side in weight.shape]
    fields: dict[str, Any] = {}
    if weight.part == "experts":
        fields["copies"] = int(weight.copies) // layout.ep
    if layout.tp == 1 or not split or (split == "vocab" and not layout.vocab_parallel):
        return fields
    at = -1 if split == "row" else 0
    if split == "vocab":
        sides[0] = ceil_div(sides[0], layout.vocab_multiple * layout.tp) * layout.vocab_multiple * layout.tp
    least = 1
    if weight.role in ("k", "v", "k.bias", "v.bias") and weight.layers:
        ops = (op for op in blueprint.ops if op.kind == "attention" and not op.cross and weight.layers[0] in op.layers)
        least = next((int(op.qk if weight.role[0] == "k" else op.v) for op in ops), 1)
    sides[at] = max(ceil_div(sides[at], layout.tp), min(sides[at], least))
    return {**fields, "shape": tuple(sides)}


def gradient_item(tensor: Trained, recipe: Recipe, layout: Layout) -> int:
    """Bytes of an element of a gradient, as it is held; LOMO holds none."""
    if recipe.optimizer == "lomo":
        return 0
    return tensor.item if layout.shard_dtype else _reduced(tensor.item, recipe, layout)


def summed_item(item: int, recipe: Recipe, layout: Layout) -> int:
    """Bytes of an element of a gradient as ranks sum it, of a weight of ``item`` bytes; ZeRO-3 has gradients of what it gathers."""
    return _reduced(min(item, recipe.computed_item) if layout.level == 3 else item, recipe, layout)


def _reduced(item: int, recipe: Recipe, layout: Layout) -> int:
    return ITEMS[layout.reduce_dtype] if layout.reduce_dtype else 4 if recipe.precision == "megatron" else item


class Held(NamedTuple):
    """Bytes of a rank's model states. ``gathered`` stands for a while: whole layers of ZeRO-3. ``host`` has been moved there.

    ``elements`` are the rank's own before data parallelism divides them, ``padding`` what all sharers hold for nothing, ``scratch``
    what the optimizer's step takes for a while.
    """

    elements: int
    parameters: int
    gradients: int
    optimizer: int
    buffers: int
    gathered: int
    host: int
    padding: int
    scratch: int

    @property
    def states(self) -> int:
        """What stands on the GPU all through the step."""
        return self.parameters + self.gradients + self.optimizer + self.buffers


class Share(NamedTuple):
    """Parameters of one name on a rank, fused ones as one."""

    trained: Trained
    experts: bool
    item: float
    layers: tuple[int, ...]
    learns: bool


def tensors(parameters: Parameters) -> list[Share]:
    """All parameters of a rank, adapters included."""
    trains = {tensor.name for tensor in parameters.trained()}
    groups: dict[str, list[Weight]] = {}
    for weight in parameters.blueprint.weights:
        if not weight.tied_to and not weight.buffer:
            groups.setdefault(weight.fused or weight.name, []).append(weight)
    found = []
    for name, group in groups.items():
        first, rows = group[0], sum(int(w.shape[0]) for w in group)
        shape: tuple[Any, ...] = (rows, *first.shape[1:]) if first.copies == 1 else (first.copies, rows, *first.shape[1:])
        item = NF4 if first.name in parameters.quantised else parameters.item
        tensor = Trained(name, first.part, shape, first.depth, parameters.item)
        found.append(Share(tensor, first.part == "experts", item, first.layers, name in trains))
    parts = {name: weight for weight in parameters.blueprint.weights for name in (weight.name, weight.fused)}
    for extra in parameters.added:
        shape = extra.shape if extra.copies == 1 else (extra.copies, *extra.shape)
        tensor = Trained(extra.name, "adapter", shape, extra.depth, parameters.recipe.adapter_item)
        beside = parts.get(extra.beside)
        experts = beside is not None and beside.part == "experts"
        found.append(Share(tensor, experts, parameters.recipe.adapter_item, extra.layers, learns=True))
    return found


def cut(tensor: Share, layout: Layout) -> Trained:
    """A rank's part of a tensor that ZeRO divides."""
    ranks, whole = layout.sharers(experts=tensor.experts), tensor.trained
    if ranks == 1:
        return whole
    if layout.zero == "fsdp":
        return whole._replace(shape=(ceil_div(int(whole.shape[0]), ranks), *whole.shape[1:]))
    return whole._replace(shape=(ceil_div(int(whole.elements), ranks),))


def _flat(tensors: list[Share], layout: Layout) -> list[Trained]:
    """Stages 1 and 2 lay all tensors of a type end to end and cut that."""
    sums: dict[tuple[bool, int], int] = {}
    for tensor in tensors:
        key = (tensor.experts, tensor.trained.item)
        sums[key] = sums.get(key, 0) + int(tensor.trained.count)
    return [
        Trained("experts" if experts else "flat", "flat", (ceil_div(count, layout.sharers(experts=experts)),), 1, item)
        for (experts, item), count in sums.items()
    ]  # fmt: skip


def hold(rank: Blueprint, recipe: Recipe, layout: Layout) -> Held:
    """The model states of a rank, ``rank`` being its blueprint."""
    return Holding(rank, recipe).under(layout)


class Holding:
    """The tensors of a rank, before data parallelism divides them."""

    def __init__(self, rank: Blueprint, recipe: Recipe) -> None:
        self.recipe = recipe
        parameters = Parameters(rank, recipe)
        self.tensors = tensors(parameters)
        self.buffers = int(parameters.buffer_bytes().value)
        self.elements = sum(int(tensor.trained.count) for tensor in self.tensors)

    def under(self, layout: Layout) -> Held:
        """What stands on the rank."""
        found, recipe = self.tensors, self.recipe
        gathered = _gathered(found, recipe, layout)
        if layout.shard_dtype:
            item = ITEMS[layout.shard_dtype]
            found = [t if t.item == NF4 else t._replace(item=item, trained=t.trained._replace(item=item)) for t in found]
        learning = [tensor for tensor in found if tensor.learns]
        divided = [cut(tensor, layout) for tensor in learning]
        alone = all(layout.sharers(experts=tensor.experts) == 1 for tensor in learning)
        flat = divided if alone or layout.level == 3 else _flat(learning, layout)
        whole = [tensor.trained for tensor in learning]

        def gradient(held: list[Trained]) -> int:
            return sum(gradient_item(tensor, recipe, layout) * int(tensor.count) for tensor in held)

        stepped = flat if layout.level else whole
        made = states(stepped, recipe) if stepped else None
        optimizer, scratch = (int(made.states.value), int(made.scratch)) if made else (0, 0)
        gradients = gradient(flat if layout.level >= 2 else whole)
        size = sum(_bytes(tensor, cut(tensor, layout) if layout.level == 3 else tensor.trained) for tensor in found)
        own = sum(int(t.count) * ranks for t, ranks in zip(divided, _ranks(learning, layout), strict=True))
        if not alone and layout.level in (1, 2):
            own = sum(int(t.count) * layout.sharers(experts=t.name == "experts") for t in flat)
        padding = 0 if layout.level == 0 else own - sum(int(tensor.count) for tensor in whole)
        moved = (optimizer + gradients if layout.offload else 0) + (size if layout.offload == "all" else 0)
        if layout.offload:
            optimizer = gradients = 0
        size = 0 if layout.offload == "all" else size
        return Held(self.elements, size, gradients, optimizer, self.buffers, gathered, moved, padding, scratch)


def _ranks(tensors: list[Share], layout: Layout) -> list[int]:
    return [layout.sharers(experts=tensor.experts) for tensor in tensors]


def _bytes(tensor: Share, held: Trained) -> int:
    each = int(held.elements)
    return int(held.tensors) * (ceil_div(each, 2) if tensor.item == NF4 else int(tensor.item) * each)


def _gathered(tensors: list[Share], recipe: Recipe, layout: Layout) -> int:
    """What stage 3 has whole for a while, in the type that is computed in: weights at work, and gradients before they are summed.

    Each layer is a unit. DeepSpeed gathers each tensor outside of layers by itself; for FSDP they are one, the root, which stays
    from its first use to its last, its gradients too. Between pipeline stages nothing is divided anew before the last micro-batch:
    all weights stay, and all gradients (torchtitan).
    """
    if layout.level < 3 or all(ranks == 1 for ranks in _ranks(tensors, layout)):
        return 0
    item = recipe.computed_item
    summed = _reduced(item, recipe, layout)
    weights: dict[str, int] = {}
    learning: dict[str, int] = {}
    for tensor in tensors:
        each, name = int(tensor.trained.elements), tensor.trained.name
        alone = "" if layout.zero == "fsdp" else name
        for unit in [f"{name.partition('.')[0]}.{layer}" for layer in tensor.layers] or [alone]:
            weights[unit] = weights.get(unit, 0) + (ceil_div(each, 2) if tensor.item == NF4 else item * each)
            learning[unit] = learning.get(unit, 0) + (each if tensor.learns else 0)
    if layout.pp > 1:
        return sum(weights.values()) + summed * sum(learning.values())
    # Summing in another type takes a copy in that type.
    copied = item + (summed if summed != item else 0)
    root, most = item * learning.pop("", 0), copied * max(learning.values(), default=0)
    whole = weights.pop("", 0)
    ahead = sum(sorted(weights.values())[-1 - layout.prefetch :])
    return whole + ahead + max(root + most, root * copied // item)
