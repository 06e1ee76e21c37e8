"""What torch.compile makes of the operations of a layer: neighbours that go element by element, and sums over rows, are one kernel
(Ansel et al. 2024), so nothing between them is ever in memory, and a backward kernel computes it again from what goes in.
"""

from typing import Any

from llmcalc.engines.eager import FP32, Eager
from llmcalc.engines.tape import Operand, Tensor


class Fused(Eager):
    """Kernels of a compiled layer."""

    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: Any, _form: str) -> Tensor:
        """One kernel whatever the form, that keeps its input and a mean and a deviation of each row."""
        return self._norm(x, weight, bias, 2 * groups)

    def rms_norm(self, x: Tensor, weight: Tensor | None, groups: Any, _form: str) -> Tensor:
        """The same with one statistic."""
        return self._norm(x, weight, None, groups)

    def _norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, statistics: Any) -> Tensor:
        rows = self.make(statistics, FP32, "statistics")
        out = self.make(x.elements, x.item, "normalised")
        operands = [Operand(t, (x, rows), t.size) for t in (x, weight, bias) if t is not None]
        self.tape.run("norm", operands, [out], also=[rows])
        return out

    def gelu_new(self, x: Tensor) -> Tensor:
        """Keeps its input."""
        return self.unary(x, "gelu", keeps="input")

    def activation(self, x: Tensor, function: str) -> Tensor:
        """Keeps its input, whatever the function."""
        return self.unary(x, function, keeps="input")

    def rotary(self, x: Tensor, _tables: tuple[Tensor, Tensor]) -> Tensor:
        """One kernel; its gradient is the turn back."""
        out = self.make(x.elements, x.item, "rotated")
        self.tape.run("rotary", [Operand(x, grad=x.size)], [out])
        return out
