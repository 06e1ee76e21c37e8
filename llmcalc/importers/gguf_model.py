"""A GGUF file as a model: its keys under the architecture's name, checked as they are taken, and its tensors layer by layer."""

from __future__ import annotations

import re
from typing import Any

from llmcalc.errors import SpecError
from llmcalc.importers.gguf_arch import Arch
from llmcalc.importers.tensors import Checkpoint, Tensor, fault, shown

MAX_COUNT, MAX_LAYERS = 10**8, 512  # llama.cpp's LLAMA_MAX_LAYERS
# blk.3.attn_q.weight; T5 has two stacks, enc.blk and dec.blk. One tensor for each expert is how Mixtral was first converted.
OF_LAYER = re.compile(r"((?:enc\.|dec\.)?blk)\.([0-9]{1,5})\.(.+)")
OF_EXPERT = re.compile(r"(ffn_(?:gate|up|down))\.([0-9]{1,4})")


class Model:
    """Metadata and tensors of one file."""

    def __init__(self, checkpoint: Checkpoint, name: str, arch: Arch) -> None:
        self.source, self.metadata, self.name, self.arch = checkpoint.source, checkpoint.metadata, name, arch
        self.outside: dict[str, Tensor] = {}
        self.layers: dict[tuple[str, int], dict[str, Tensor]] = {}
        for tensor in checkpoint.tensors:
            found = OF_LAYER.fullmatch(tensor.name)
            if found is None:
                self.outside[tensor.name.removesuffix(".weight")] = tensor
            else:
                self.layers.setdefault((found[1], int(found[2])), {})[found[3].removesuffix(".weight")] = tensor

    def error(self, key: str, message: str) -> SpecError:
        """An error at a key or a tensor."""
        return fault(message, self.source, key)

    def key(self, key: str) -> str:
        """A key's whole name."""
        return f"{self.name}.{key}"

    def says(self, key: str) -> bool:
        """Whether the file has the key."""
        return self.key(key) in self.metadata

    def count(self, key: str, default: int | None = None, *, most: int = MAX_COUNT, least: int = 0) -> int:
        """A whole number. Raises SpecError where it is missing without a default, or out of bounds."""
        value = self.metadata.get(self.key(key), default)
        if value is None:
            raise self.error(self.key(key), "missing")
        return self._checked(self.key(key), value, least, most)

    def flag(self, key: str) -> bool:
        """A truth value; false unless said."""
        return self.metadata.get(self.key(key)) is True

    def each(self, key: str, index: int, default: int | None = None) -> int:
        """A whole number that may be an array with one for each layer."""
        value = self.metadata.get(self.key(key), default)
        if type(value) is tuple:
            if index >= len(value):
                raise self.error(self.key(key), f"{len(value)} entries, and there is a layer {index + 1}")
            value = value[index]
        if value is None:
            raise self.error(self.key(key), "missing")
        return self._checked(self.key(key), value, 0, MAX_COUNT)

    def _checked(self, key: str, value: Any, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            raise self.error(key, f"found {shown(str(value))}, allowed: a whole number from {least} to {most:,}")
        return value

    def depth(self, stack: str = "blk", key: str = "block_count") -> int:
        """Layers of a stack, without those that predict further tokens. Raises SpecError where one has no tensors."""
        depth = self.count(key, most=MAX_LAYERS, least=1) - self.count("nextn_predict_layers", 0)
        if depth < 1:
            raise self.error(self.key("nextn_predict_layers"), "leaves no layer")
        missing = next((index for index in range(depth) if (stack, index) not in self.layers), None)
        if missing is not None:
            raise self.error(self.key(key), f"{depth} layers, but the file has no tensor of {stack}.{missing}")
        return depth

    def layer(self, stack: str, index: int) -> Layer:
        """One layer."""
        return Layer(self, stack, index, _stacked(self, self.layers.get((stack, index), {})))


class Layer:
    """The tensors of one layer, by their names without number and ``.weight``; sizes that do not fit each other are errors."""

    def __init__(self, model: Model, stack: str, index: int, tensors: dict[str, Tensor]) -> None:
        self.model, self.stack, self.index, self.tensors = model, stack, index, tensors

    def has(self, name: str) -> bool:
        """Whether the layer has this tensor."""
        return name in self.tensors

    def any(self, *names: str) -> str | None:
        """The first of these that the layer has."""
        return next((name for name in names if self.has(name)), None)

    def shape(self, name: str, dims: int = 2) -> tuple[int, ...]:
        """A tensor's shape, outermost first. Raises SpecError where it is missing or has other dimensions."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise self.error(name, "missing")
        if len(tensor.shape) != dims or not all(tensor.shape):
            raise self.error(name, f"shape {list(tensor.shape)}, where {dims} dimensions are expected")
        return tensor.shape

    def elements(self, name: str) -> int:
        """How many elements a tensor has, whatever its shape. Raises SpecError where there is none."""
        found = self.tensors[name].elements if name in self.tensors else 0
        if not found:
            raise self.error(name, "missing or empty")
        return found

    def whole(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, whatever its dimensions; one number is a vector of one. Raises SpecError where there is none."""
        self.elements(name)
        return self.tensors[name].shape or (1,)

    def split(self, name: str, size: int, into: int, what: str) -> int:
        """``size`` of a tensor in ``into`` equal parts. Raises SpecError where that leaves a rest."""
        if not into or size % into:
            raise self.error(name, f"{size:,} rows are not for {into:,} {what}")
        return size // into

    def each(self, key: str, default: int | None = None) -> int:
        """A key's value for this layer."""
        return self.model.each(key, self.index, default)

    def error(self, name: str, message: str) -> SpecError:
        """An error at one of the layer's tensors."""
        return self.model.error(f"{self.stack}.{self.index}.{name}", message)


def _stacked(model: Model, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with those of single experts as one, as newer files have them."""
    experts: dict[str, list[Tensor]] = {}
    rest = {}
    for name, tensor in tensors.items():
        found = OF_EXPERT.fullmatch(name)
        if found is None:
            rest[name] = tensor
        else:
            experts.setdefault(found[1], []).append(tensor)
    for name, single in experts.items():
        if any(tensor.shape != single[0].shape for tensor in single):
            raise model.error(single[0].name, "the experts of this layer have different shapes")
        shape = (len(single), *single[0].shape)
        rest[f"{name}_exps"] = Tensor(name, shape, single[0].dtype, sum(tensor.bytes for tensor in single))
    return rest
