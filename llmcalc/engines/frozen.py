"""What models that are not trained take: copies that stand, and passes without gradients.

A pass without gradients runs the same kernels and keeps nothing: the forward half of the replay of a tape that needs no gradient.
There Python's own references count, which a training step has among what it keeps: while a layer runs, its callers hold the
embeddings, the layer's input and its normalised input, and with eager attention the probabilities.
"""

from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, product
from llmcalc.engines.eager import FP32
from llmcalc.engines.forward import Forward
from llmcalc.engines.parameters import Parameters
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.replay import Replay
from llmcalc.engines.tape import Tape


class Copy(NamedTuple):
    """A frozen model that stands beside the one that is trained: what it is for, its name, its bytes, and why it is there."""

    role: str
    model: str
    bytes: int
    why: str


class Scoring(Forward):
    """Log-probabilities of tokens that are there: whole logits in the model's type, and the log-softmax of one sequence after the
    other, which only the tokens' own entries outlive. With a fused or chunked loss the logits are never whole either.

    ``trunk`` is the number of kernels before the head, ``frames`` what callers hold meanwhile, ``after`` what stands once the model
    has returned its logits."""

    trunk = frames = after = 0

    def _matmul(self, op: Op) -> None:
        if op.part == "lm_head" and not self.trunk:
            x = self.read(op)
            self.trunk, self.frames = len(self.tape.kernels), 3 * int(x.size)
            attention = next((found for found in self.blueprint.ops if found.kind == "attention"), None)
            if self.recipe.attention == "eager" and attention is not None:
                self.frames += x.item * int(product((self.batch, attention.heads, self.seq, self.seq)))
        super()._matmul(op)

    def _loss(self, op: Op) -> None:
        if self.recipe.loss == "plain":
            logits = self.read(op)
            item = FP32 if self.recipe.autocast else logits.item
            self.after = int(logits.size) + int(product((item, self.seq, op.width))) + FP32 * int(self.tokens)


class Sampling(Scoring):
    """The next token: the logits of each sequence's last token alone, then in fp32, and their softmax."""

    def rows(self, op: Op) -> Any:
        """One row of logits a sequence."""
        return self.batch if op.rows == "logit" else super().rows(op)

    def _loss(self, op: Op) -> None:
        logits = self.read(op)
        self.after = int(logits.size) + 2 * FP32 * int(logits.elements)


def transient(way: type[Scoring], blueprint: Blueprint, recipe: Recipe, *, seq: int, batch: int) -> int:
    """The highest point of a pass without gradients, beside the weights and what it reads. Raises NoAnswer as ``Forward`` does."""
    forward = way(blueprint, recipe, Parameters(blueprint, recipe), seq=seq, batch=batch)
    tape = forward.run()
    tape.kernels = [kernel._replace(keeps=(), needs_grad=False) for kernel in tape.kernels]
    tape.segments = []
    for kernel in tape.kernels:
        for tensor in (*kernel.outputs, *(operand.tensor for operand in kernel.operands)):
            tensor.needs_grad = False
    whole = _highest(tape)
    tape.kernels = tape.kernels[: forward.trunk]
    return max(whole, _highest(tape) + forward.frames if tape.kernels else 0, forward.after)


def _highest(tape: Tape) -> int:
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
