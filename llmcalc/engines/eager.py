"""What each kind of operation runs in torch's eager mode, and what its backward pass needs: the table behind training memory.

One method per kernel or small group of kernels, as transformers writes them. Types follow torch's promotion and, under
autocast, its lists: products run in 16 bits on casts of their operands (a weight's cast is made once and kept until the
context ends), softmax, powers and layer norms in fp32.
"""

from collections.abc import Sequence
from typing import Any

from llmcalc.blueprint.parts import product
from llmcalc.engines.tape import Operand, Tape, Tensor

FP32, HALF, BOOL, INT64 = 4, 2, 1, 8


class Eager:
    """Kernels on a tape. ``part`` labels what they make."""

    def __init__(self, tape: Tape, *, autocast: bool) -> None:
        self.tape, self.autocast = tape, autocast
        self.part = ""
        self.casts: dict[str, Tensor] = {}

    def make(self, elements: Any, item: int, label: str) -> Tensor:
        """An empty tensor in a storage of its own."""
        return self.tape.new(elements, item, label, self.part)

    def cast(self, x: Tensor, item: int, label: str) -> Tensor:
        """``x.to(type)``: x itself where it has the type."""
        if x.item == item:
            return x
        out = self.make(x.elements, item, label)
        self.tape.run("cast", [Operand(x, grad=x.size)], [out])
        return out

    def lowered(self, x: Tensor) -> Tensor:
        """An operand of a product under autocast: in 16 bits. The cast of a parameter lives as long as the context."""
        if not self.autocast or x.item != FP32:
            return x
        if not (x.leaf and x.needs_grad):
            return self.cast(x, HALF, "autocast copy")
        found = self.casts.get(x.leaf)
        if found is None:
            found = self.casts[x.leaf] = self.cast(x, HALF, "autocast copy of a weight")
            self.tape.to_the_end.add(found.storage)
        return found

    def raised(self, x: Tensor) -> Tensor:
        """An operand of what autocast runs in fp32."""
        return self.cast(x, FP32, "fp32 copy") if self.autocast else x

    def same(self, x: Tensor, label: str, *, item: int = 0, scratch: tuple[int, int] = (0, 0)) -> Tensor:
        """A kernel of one operand whose gradient needs nothing kept: scaling, negation, a sum with a constant."""
        out = self.make(x.elements, item or x.item, label)
        self.tape.run(label, [Operand(x, grad=x.size)], [out], scratch=scratch)
        return out

    def shift(self, x: Tensor, label: str) -> Tensor:
        """A sum with a number: the gradient is passed on."""
        out = self.make(x.elements, x.item, label)
        self.tape.run(label, [Operand(x)], [out])
        return out

    def unary(self, x: Tensor, label: str, *, keeps: str, scratch: int = 0) -> Tensor:
        """A function that keeps its ``input`` or its ``output``; ``scratch``: further tensors of its backward formula."""
        out = self.make(x.elements, x.item, label)
        kept = x if keeps == "input" else out
        self.tape.run(label, [Operand(x, (kept,), x.size)], [out], scratch=(0, scratch * int(x.size)))
        return out

    def add(self, a: Tensor, b: Tensor, label: str = "sum") -> Tensor:
        """a + b, of which either may be broadcast or of a narrower type."""
        item = max(a.item, b.item)
        elements = a.elements if int(a.elements) >= int(b.elements) else b.elements
        out = self.make(elements, item, label)
        # A gradient of the output's shape and type is passed on, another is summed or cast from it.
        passed = [Operand(t, grad=None if int(t.size) == int(out.size) else t.size) for t in (a, b)]
        self.tape.run(label, passed, [out])
        return out

    def multiply(self, a: Tensor, b: Tensor, label: str = "product") -> Tensor:
        """a * b, broadcast and promoted likewise; each is kept for the other's gradient."""
        item = max(a.item, b.item)
        elements = a.elements if int(a.elements) >= int(b.elements) else b.elements
        out = self.make(elements, item, label)
        full = product((item, elements))
        self.tape.run(label, [Operand(a, (b,), full), Operand(b, (a,), full)], [out])
        return out

    def matmul(
        self, a: Tensor, b: Tensor, elements: Any, label: str, *, weight: bool = False, bias: Tensor | None = None
    ) -> Tensor:
        """A product of matrices, with a bias where there is one. ``weight``: b is one, and its gradient comes transposed."""
        a, b = self.lowered(a), self.lowered(b)
        out = self.make(elements, max(a.item, b.item), label)
        operands = [Operand(a, (b,), a.size), Operand(b, (a,), b.size)]
        if bias is not None:
            bias = self.lowered(bias)
            operands.append(Operand(bias, grad=bias.size))
        self.tape.run(label, operands, [out], transposed=weight, heavy=True)
        return out

    def dropout(self, x: Tensor, label: str = "dropout") -> Tensor:
        """Keeps a mask of a byte an element."""
        out = self.make(x.elements, x.item, label)
        mask = self.make(x.elements, BOOL, "dropout mask")
        self.tape.run(label, [Operand(x, (mask,), x.size)], [out], also=[mask], heavy=True)
        return out

    def split(self, x: Tensor, sizes: Sequence[Any], label: str) -> list[Tensor]:
        """Views of parts; their gradients are joined."""
        outs = [self.tape.view(x, size) for size in sizes]
        self.tape.run(label, [Operand(x, grad=x.size)], outs)
        return outs

    def slice(self, x: Tensor, elements: Any) -> Tensor:
        """A view of a part; its gradient is padded to the whole."""
        out = self.tape.view(x, elements)
        self.tape.run("slice", [Operand(x, grad=x.size)], [out])
        return out

    def copied(self, x: Tensor, elements: Any, label: str) -> Tensor:
        """A contiguous or expanded copy: the gradient is passed on, or summed."""
        out = self.make(elements, x.item, label)
        self.tape.run(label, [Operand(x, grad=None if int(x.elements) == int(elements) else x.size)], [out])
        return out

    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: Any, form: str) -> Tensor:
        """One kernel, in fp32 where the form is upcast: keeps its input, and a mean and a deviation in fp32 for each row."""
        item = x.item
        if form == "written":
            return self.written_norm(x, weight, groups)
        x = self.cast(x, FP32, "fp32 copy") if form == "upcast" else self.raised(x)
        out = self.make(x.elements, x.item, "normalised")
        statistics = self.make(product((2, groups)), FP32, "mean and deviation")
        parameters = [self.raised(parameter) for parameter in (weight, bias) if parameter is not None]
        kept = (x, statistics, *parameters)
        operands = [Operand(x, kept, x.size), *(Operand(parameter, kept, parameter.size) for parameter in parameters)]
        self.tape.run("layer_norm", operands, [out], also=[statistics])
        return self.cast(out, item, "normalised") if form == "upcast" else out

    def written_norm(self, x: Tensor, weight: Tensor | None, groups: Any) -> Tensor:
        """A LayerNorm in Python, in fp32: the centred input is made, and kept, for the variance and again for the result."""
        wide = self.cast(x, FP32, "fp32 copy")
        mean = self._mean(wide, groups)
        square = self.unary(self.add(wide, mean, "centred"), "square", keeps="input", scratch=2)
        deviation = self.unary(self.shift(self._mean(square, groups), "epsilon"), "rsqrt", keeps="output")
        normal = self.multiply(self.add(wide, mean, "centred"), deviation, "normalised")
        if weight is not None:
            normal = self.multiply(normal, self.cast(weight, FP32, "gain"), "normalised")
        return self.cast(normal, x.item, "normalised")

    def _mean(self, x: Tensor, groups: Any) -> Tensor:
        mean = self.make(groups, FP32, "mean")
        self.tape.run("mean", [Operand(x, grad=x.size)], [mean])
        return mean

    def rms_norm(self, x: Tensor, weight: Tensor | None, groups: Any, form: str) -> Tensor:
        """Written out in Python: fp32 from the square on, the gain multiplied in the input's type (plain), in fp32 by one
        plus it (offset) or by it (upcast), or with the input not upcast before it is scaled (half)."""
        wide = self.cast(x, FP32, "fp32 copy")
        # grad * (2 * x ** 1): the power and the scaled power stand beside the gradient.
        square = self.unary(wide, "square", keeps="input", scratch=2)
        deviation = self.unary(self.shift(self._mean(square, groups), "epsilon"), "rsqrt", keeps="output")
        normal = self.multiply(x if form == "half" else wide, deviation, "normalised")
        if form in ("offset", "upcast"):
            if weight is not None:
                gain = self.shift(self.cast(weight, FP32, "gain"), "gain") if form == "offset" else weight
                normal = self.multiply(normal, gain, "normalised")
            return self.cast(normal, x.item, "normalised")
        normal = self.cast(normal, weight.item if form == "half" and weight is not None else x.item, "normalised")
        return normal if weight is None else self.multiply(normal, weight, "normalised")

    def gelu_new(self, x: Tensor) -> Tensor:
        """0.5 x (1 + tanh(c (x + 0.044715 x^3))) in Python, which keeps four tensors where a fused kernel keeps one."""
        cube = self.unary(self.raised(x), "cube", keeps="input", scratch=2)
        inner = self.add(x, self.same(cube, "scaled"))
        tanh = self.unary(self.same(inner, "scaled"), "tanh", keeps="output")
        return self.multiply(self.same(x, "halved"), self.shift(tanh, "one more"), "activated")

    def activation(self, x: Tensor, function: str) -> Tensor:
        """The function of an FFN: one kernel, but for what is written out."""
        if function == "gelu_new":
            return self.gelu_new(x)
        if function == "relu2":
            return self.unary(self.unary(x, "relu", keeps="output"), "square", keeps="input", scratch=2)
        return self.unary(x, function, keeps="output" if function == "relu" else "input")

    def softcap(self, x: Tensor) -> Tensor:
        """cap * tanh(x / cap)."""
        return self.same(self.unary(self.same(x, "scaled"), "tanh", keeps="output"), "capped")

    def softmax(self, x: Tensor, *, upcast: bool) -> Tensor:
        """Keeps its output; in fp32, of a copy, where it upcasts or autocast says so (only fp16 has a kernel that does both)."""
        return self.unary(self.cast(x, FP32, "fp32 scores") if upcast else self.raised(x), "softmax", keeps="output")

    def rotary(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """x cos + rotate_half(x) sin."""
        cos, sin = tables
        half = x.elements // 2
        straight = self.multiply(x, cos, "rotary")
        low, high = self.slice(x, half), self.slice(x, half)
        turned = self.make(x.elements, x.item, "rotated half")
        minus = self.same(high, "negative")
        # The gradients of what is joined are views of the join's.
        self.tape.run("cat", [Operand(minus), Operand(low)], [turned])
        return self.add(straight, self.multiply(turned, sin, "rotary"), "rotated")
