"""What a linear runs where a method adapts or quantises it, as peft and bitsandbytes write it."""

from typing import Any

from llmcalc.blueprint.parts import product
from llmcalc.engines.eager import HALF, Eager
from llmcalc.engines.parameters import Parameters
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.tape import Operand, Tensor


class Tuning:
    """Linears of a model under a method."""

    def __init__(self, eager: Eager, parameters: Parameters, recipe: Recipe) -> None:
        self.eager, self.parameters, self.recipe = eager, parameters, recipe

    def linear(
        self, x: Tensor, name: str, layer: int | None, weight: Tensor, bias: Tensor | None, elements: Any
    ) -> Tensor:  # fmt: skip
        """x W' + b and the adapter's part; ``elements`` are of the output."""
        key = self.parameters.weights[name].fused or name
        base = self._ia3_input(x, key, layer) if self.recipe.method == "ia3" else x
        return self.adapted(
            x, self._base(base, name, weight, bias, elements), key, layer, quantised=name in self.parameters.quantised
        )

    def adapted(self, x: Tensor, result: Tensor, key: str, layer: int | None, *, quantised: bool) -> Tensor:
        """The output of a linear, or of a part of a fused one, with what the method adds; as it is where it adds nothing."""
        beside = self.parameters.beside.get(key, [])
        tensors = [self.parameters.extra(added, layer) for added in beside]
        if not beside:
            return result
        if self.recipe.method != "ia3":
            return self._lora(x, result, tensors, beside, quantised=quantised)
        if beside[0].feeds:
            return result
        return self.eager.cast(self.eager.multiply(result, tensors[0], "ia3"), result.item, "ia3")

    def _ia3_input(self, x: Tensor, key: str, layer: int | None) -> Tensor:
        """The input of a linear of an FFN, times its learned vector."""
        beside = self.parameters.beside.get(key, [])
        if not beside or not beside[0].feeds:
            return x
        return self.eager.cast(self.eager.multiply(x, self.parameters.extra(beside[0], layer), "ia3"), x.item, "ia3")

    def _base(self, x: Tensor, name: str, weight: Tensor, bias: Tensor | None, elements: Any) -> Tensor:
        """The layer's own product. A 4-bit weight is unpacked to 16 bits for each pass, and nothing of the input is kept."""
        eager = self.eager
        if name not in self.parameters.quantised:
            return eager.matmul(x, weight, elements, name, weight=True, bias=bias)
        item = x.item
        x = eager.cast(x, HALF, "compute copy")
        out = eager.make(elements, HALF, name)
        unpacked = HALF * int(weight.elements)
        eager.tape.run(name, [Operand(x, grad=x.size)], [out], scratch=(unpacked, unpacked), heavy=True)
        return eager.cast(out, item, name)

    def _lora(self, x: Tensor, result: Tensor, tensors: list[Tensor], beside: list[Any], *, quantised: bool) -> Tensor:
        """result + B A x, the input cast to the adapter's type (a quantised layer under autocast leaves that to autocast)."""
        eager, part = self.eager, self.eager.part
        eager.part = "adapter"
        down, up = tensors[:2]
        item = result.item
        rows = x.elements // int(beside[0].shape[1])
        if not (quantised and eager.autocast):
            x = eager.cast(x, down.item, "adapter input")
        if self.recipe.lora_dropout:
            x = eager.dropout(x, "adapter dropout")
        inner = eager.matmul(x, down, product((rows, beside[0].shape[0])), "lora_A", weight=True)
        outer = eager.matmul(inner, up, product((rows, beside[1].shape[0])), "lora_B", weight=True)
        if len(tensors) > 2:
            outer = self._dora(result, outer, tensors, beside)
        total = eager.add(result, eager.same(outer, "scaled"), "adapted")
        eager.part = part
        return eager.cast(total, item, "adapted")

    def _dora(self, result: Tensor, outer: Tensor, tensors: list[Tensor], beside: list[Any]) -> Tensor:
        """Base and adapter scaled by magnitude over norm; the norm of W + BA is computed on the spot and has no gradient."""
        eager = self.eager
        whole = eager.make(product((beside[0].shape[1], beside[1].shape[0])), tensors[2].item, "adapted weight")
        eager.tape.run("weight norm", [], [whole])
        norm = eager.make(tensors[2].elements, tensors[2].item, "weight norm")
        eager.tape.run("weight norm", [Operand(whole)], [norm])
        scale = eager.make(tensors[2].elements, tensors[2].item, "magnitude over norm")
        eager.tape.run("divide", [Operand(tensors[2], (norm,), tensors[2].size)], [scale])
        base = eager.multiply(result, eager.shift(scale, "less one"), "scaled base")
        return eager.add(base, eager.multiply(outer, scale, "scaled adapter"))

    def bottleneck(self, x: Tensor, name: str, layer: int | None) -> Tensor:
        """x + up(relu(down(x))) on what a sub-layer adds to the residual stream."""
        beside = self.parameters.beside.get(name, []) if self.recipe.method == "adapter" else []
        if not beside:
            return x
        eager = self.eager
        down, down_bias, up, up_bias = (self.parameters.extra(a, layer) for a in beside)
        rows = x.elements // int(beside[0].shape[1])
        wide = eager.cast(x, down.item, "adapter input")
        inner = eager.matmul(wide, down, product((rows, beside[0].shape[0])), "adapter_down", weight=True, bias=down_bias)
        inner = eager.unary(inner, "relu", keeps="output")
        return eager.cast(
            eager.add(x, eager.matmul(inner, up, x.elements, "adapter_up", weight=True, bias=up_bias)), x.item, "adapted"
        )
