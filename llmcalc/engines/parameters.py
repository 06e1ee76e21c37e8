"""What stands in memory all through a step: parameters with their types, their gradients, buffers, inputs.

A quantised base follows bitsandbytes: nf4 in half a byte, per 64 elements one scale in 8 bits, per 256 scales one in fp32, and
the code books of each tensor; the statistics are buffers.
"""

from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, Weight, product
from llmcalc.engines import adapters
from llmcalc.engines.adapters import Added
from llmcalc.engines.eager import INT64
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.tape import Storage, Tensor
from llmcalc.quantity import Quantity, ceil_div

NF4_BLOCK, NF4_GROUP, NF4_BOOKS = 64, 256, 1092


class Trained(NamedTuple):
    """A parameter that is trained, as the optimizer sees it: ``tensors`` of ``elements`` of ``item`` bytes each.

    ``shape`` is that of one of them, with the experts that are stacked in it.
    """

    name: str
    part: str
    shape: tuple[Any, ...]
    tensors: Any
    item: int

    @property
    def elements(self) -> Any:
        """Of one tensor."""
        return product(self.shape)

    @property
    def count(self) -> Any:
        """Of all."""
        return product((self.tensors, *self.shape))

    @property
    def embedding(self) -> bool:
        """Whether it is looked up, which transformers' Trainer keeps out of 8-bit states."""
        return self.part in ("embedding", "positions") and len(self.shape) == 2


class Parameters:
    """The parameters of a model under a recipe."""

    def __init__(self, blueprint: Blueprint, recipe: Recipe) -> None:
        self.blueprint, self.recipe = blueprint, recipe
        self.weights = {w.name: w for w in blueprint.weights}
        self.added = adapters.added(blueprint, recipe)
        self.beside: dict[str, list[Added]] = {}
        for extra in self.added:
            self.beside.setdefault(extra.beside, []).append(extra)
        self.own_trained = {w.name for w in adapters.trained(blueprint, recipe)}
        quantised = adapters.linears(blueprint) if recipe.method == "qlora" else []
        self.quantised = {w.name for linear in quantised for w in linear.weights}
        self.packed = quantised
        self.groups: dict[str, list[Weight]] = {}
        for weight in blueprint.weights:
            if weight.fused:
                self.groups.setdefault(weight.fused, []).append(weight)
        self.made: dict[str, Tensor] = {}

    @property
    def item(self) -> int:
        """Bytes of an element of the model's own that is not quantised."""
        return self.recipe.rest_item if self.recipe.method == "qlora" else self.recipe.base_item

    def tensor(self, name: str, layer: int | None) -> Tensor:
        """A weight of a layer (or of none), those fused with it included; a tied one is what it is tied to."""
        weight = self.weights[name]
        if weight.tied_to:
            return self.tensor(weight.tied_to, None)
        if layer is not None and weight.layers:
            layer = weight.layers[layer % len(weight.layers)] if layer not in weight.layers else layer
        group = self.groups.get(weight.fused, [weight])
        leaf = f"{weight.fused or name}@{layer if weight.layers else ''}"
        if leaf not in self.made:
            elements = product((group[0].copies, *group[0].shape))
            for other in group[1:]:
                elements = elements + product((other.copies, *other.shape))
            storage = Storage(0, leaf, weight.part, held=True)
            self.made[leaf] = Tensor(elements, self.item, storage, needs_grad=name in self.own_trained, leaf=leaf)
        return self.made[leaf]

    def extra(self, added: Added, layer: int | None) -> Tensor:
        """An added parameter of a layer, with all its copies."""
        leaf = f"{added.name}@{layer}"
        if leaf not in self.made:
            elements = product((added.copies, *added.shape))
            self.made[leaf] = Tensor(elements, self.recipe.adapter_item, Storage(0, leaf, "adapter", held=True), needs_grad=True,
                                     leaf=leaf)  # fmt: skip
        return self.made[leaf]

    def trained(self) -> list[Trained]:
        """What the optimizer gets, fused tensors as one."""
        found = []
        groups: dict[str, list[Weight]] = {}
        for weight in self.blueprint.weights:
            if weight.name in self.own_trained:
                groups.setdefault(weight.fused or weight.name, []).append(weight)
        for name, group in groups.items():
            first = group[0]
            rows = first.shape[0]
            for weight in group[1:]:
                rows = rows + weight.shape[0]
            shape = (rows, *first.shape[1:]) if first.copies == 1 else (first.copies, rows, *first.shape[1:])
            found.append(Trained(name, first.part, shape, first.depth, self.item))
        for extra in self.added:
            shape = extra.shape if extra.copies == 1 else (extra.copies, *extra.shape)
            found.append(Trained(extra.name, "adapter", shape, extra.depth, self.recipe.adapter_item))
        return found

    def parameter_bytes(self) -> Quantity:
        """All parameters, packed ones in their half bytes."""
        parts: dict[str, list[Quantity]] = {}
        for weight in self.blueprint.weights:
            if weight.tied_to or weight.buffer:
                continue
            size = product((self.item, weight.count))
            if weight.name in self.quantised:  # each tensor is packed by itself
                size = product((weight.depth, ceil_div(product((weight.copies, *weight.shape)), 2)))
            note = "nf4" if weight.name in self.quantised else ("fp32" if self.item == 4 else "bf16")
            parts.setdefault(weight.part, []).append(Quantity.of(weight.name, size, "bytes", note=note))
        for extra in self.added:
            size = product((self.recipe.adapter_item, extra.elements))
            parts.setdefault("adapter", []).append(Quantity.of(extra.name, size, "bytes"))
        return Quantity.sum("parameter_bytes", "bytes", [Quantity.sum(part, "bytes", tensors) for part, tensors in parts.items()])

    def buffer_bytes(self) -> Quantity:
        """Buffers: rotary frequencies (twice, as transformers keeps them), router corrections, statistics of a quantised base."""
        parts = []
        rotary = next((op for op in self.blueprint.ops if op.kind == "rotary"), None)
        if rotary is not None:
            parts.append(Quantity.of("rotary frequencies", product((2, 4, rotary.inner // 2)), "bytes"))
        for weight in self.blueprint.weights:
            if weight.buffer:
                parts.append(Quantity.of(weight.name, product((4, weight.depth, weight.copies, *weight.shape)), "bytes"))
            elif weight.role == "token_types":
                positions = self.weights.get(f"{weight.name.partition('.')[0]}.positions")
                if positions is not None:
                    parts.append(Quantity.of("position and type ids", product((2 * INT64, positions.shape[0])), "bytes"))
        for linear in self.packed:
            first = linear.weights[0]
            blocks = ceil_div(product((linear.out, linear.into)), NF4_BLOCK)
            one = blocks + 4 * ceil_div(blocks, NF4_GROUP) + NF4_BOOKS
            parts.append(Quantity.of(f"{linear.name} scales", product((first.depth, first.copies, one)), "bytes"))
        return Quantity.sum("buffer_bytes", "bytes", parts)
