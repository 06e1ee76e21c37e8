"""What models that are not trained take: copies that stand, and passes without gradients.

A pass without gradients runs the same kernels and keeps nothing: the forward half of the replay of a tape that needs no gradient.
"""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, product
from llmcalc.engines.eager import FP32
from llmcalc.engines.forward import Forward
from llmcalc.engines.parameters import Parameters
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.replay import Replay
from llmcalc.engines.tape import Operand


class Copy(NamedTuple):
    """A frozen model that stands beside the one that is trained: what it is for, its name, its bytes, and why it is there."""

    role: str
    model: str
    bytes: int
    why: str


class Scoring(Forward):
    """Log-probabilities of tokens that are there: whole logits in the model's type, and the log-softmax of one sequence after the
    other, which only the tokens' own entries outlive. With a fused or chunked loss the logits are never whole either."""

    def _loss(self, op: Op) -> None:
        if self.recipe.loss != "plain":
            return
        logits = self.read(op)
        item = FP32 if self.recipe.autocast else logits.item
        one = int(product((item, self.seq, op.width)))
        found = self.eager.make(self.tokens, FP32, "log-probabilities")
        self.tape.run("log_softmax", [Operand(logits)], [found], scratch=(one, 0))


class Sampling(Forward):
    """The next token: the logits of each sequence's last token alone, in fp32, and their softmax."""

    def rows(self, op: Op) -> int:
        """One logit row a sequence."""
        return int(self.batch if op.rows == "logit" else super().rows(op))

    def _loss(self, op: Op) -> None:
        logits = self.read(op)
        self.tape.to_the_end.add(logits.storage)
        self.eager.unary(self.eager.cast(logits, FP32, "fp32 logits"), "softmax", keeps="output")


def transient(way: type[Forward], blueprint: Blueprint, recipe: Recipe, *, seq: int, batch: int) -> int:
    """The highest point of a pass without gradients, beside the weights and what it reads. Raises NoAnswer as ``Forward`` does."""
    tape = way(blueprint, recipe, Parameters(blueprint, recipe), seq=seq, batch=batch).run()
    tape.kernels = [kernel._replace(keeps=(), needs_grad=False) for kernel in tape.kernels]
    tape.segments = []
    for kernel in tape.kernels:
        for tensor in (*kernel.outputs, *(operand.tensor for operand in kernel.operands)):
            tensor.needs_grad = False
    return Replay(tape, keep_gradients=False).peaks["forward"].size


def held_as(recipe: Recipe, item: int) -> Recipe:
    """The recipe of a frozen model of so many bytes an element: no adapter, nothing recomputed, no autocast."""
    kernel = "efficient" if item == FP32 and recipe.attention == "flash" else recipe.attention
    return recipe._replace(
        method="full", precision="fp32" if item == FP32 else "bf16", kbit_prepare=False, recompute="none", attention=kernel,
        keep_logits=False, dropout=False, accumulate=1,
    )  # fmt: skip


def copy(role: str, blueprint: Blueprint, recipe: Recipe, why: str) -> Copy:
    """A frozen model's weights and buffers in the type of ``recipe``."""
    parameters = Parameters(blueprint, recipe)
    return Copy(role, blueprint.name, int(parameters.parameter_bytes().value + parameters.buffer_bytes().value), why)
