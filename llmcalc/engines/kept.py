"""What Megatron's kernels keep of a layer for the backward pass, in 16 bits (Korthikanti et al. 2022, arXiv:2205.05198, section 4).

The rules of its table, by kind of operation: a product and a norm keep what they read, a dropout its mask in one byte, attention
its queries, keys, values and, where no flash kernel runs, two 16-bit squares of scores and a mask; a gate is one kernel with its
activation; the loss keeps fp32 logits. Statistics of norms (4 bytes a row) are left out, as there. Of GPT's layer that is
s b h (34 + 5 a s / h).

Tensor parallelism divides what stands between a column-parallel and a row-parallel product, sequence parallelism the rest.
"""

from collections.abc import Iterable
from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, Weight
from llmcalc.engines.layout import Layout
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.shards import narrowed
from llmcalc.errors import NoAnswer
from llmcalc.quantity import ceil_div

HALF, FP32, BYTE = 2, 4, 1
SKIPPED = ("patch", "image_token", "audio", "pair")


class Value(NamedTuple):
    """An activation: elements per row, how many rows it was made with (0: as many as who reads it), and whether tensor
    parallelism divides it. ``key`` tells tensors apart."""

    key: tuple[str, ...]
    width: int
    divided: bool
    activation: bool = False
    rows: int = 0


class Kept:
    """Bytes that one rank keeps of one micro-batch."""

    def __init__(self, blueprint: Blueprint, recipe: Recipe, layout: Layout) -> None:
        self.blueprint, self.recipe, self.layout = blueprint, recipe, layout
        self.weights: dict[str, Weight] = {weight.name: weight for weight in blueprint.weights}
        self.tokens = recipe.micro_batch * recipe.seq // layout.cp
        self.hidden = blueprint.stacks[-1].hidden
        self.plain_loss = recipe.loss in ("plain", "copied")  # Megatron's own makes no copy of its logits
        self.done: dict[tuple[str, ...], int] = {}

    def layer(self, ops: Iterable[Op], recompute: str) -> int:
        """Bytes of a layer. ``recompute``: none; selective, without what attention makes of scores; full, its input."""
        ops = [op for op in ops if op.rows not in SKIPPED]
        key = (recompute, *(op.name for op in ops))
        if key not in self.done:
            if recompute == "full":
                self.done[key] = self._size(self.tokens, HALF, self.hidden, divided=False) if ops else 0
            else:
                self.done[key] = sum(self._walk(ops, recompute).values())
        return self.done[key]

    def outside(self, ops: Iterable[Op]) -> int:
        """Bytes of what runs before a stack's layers, or after them."""
        return sum(self._walk([op for op in ops if op.rows not in SKIPPED], "none").values())

    def at_the_loss(self, ops: Iterable[Op]) -> int:
        """What stands for a while beside what is kept.

        The 16-bit logits; then, in the head's backward pass, their gradient in 16 bits in the place of the fp32 logits, and an
        empty gradient of the weight.
        """
        heads = [op for op in ops if op.kind == "matmul" and op.part == "lm_head" and self.weights[op.weight].split == "vocab"]
        if not self.plain_loss or not heads:
            return 0
        width = self._out(heads[0])
        logits = self._size(self.tokens, HALF, width, divided=self.layout.vocab_parallel)
        gradient = HALF * int(heads[0].inner) * width // (self.layout.tp if self.layout.vocab_parallel else 1)
        return max(logits, gradient - logits if self.recipe.precision == "megatron" else 0)

    def _size(self, rows: int, item: int, width: int, *, divided: bool) -> int:
        over = self.layout.tp if divided or self.layout.sequence_parallel else 1
        return int(ceil_div(item * rows * width, over))

    def _rows(self, op: Op) -> int:
        return {"sequence": self.recipe.micro_batch, "pass": 1}.get(op.rows, self.tokens)

    def _walk(self, ops: list[Op], recompute: str) -> dict[tuple[str, ...], int]:
        values: dict[str, Value] = {}
        kept: dict[tuple[str, ...], int] = {}

        def read(name: str, op: Op) -> Value:
            width = int(op.inner) if op.kind == "matmul" else int(op.width)
            return values.setdefault(name, Value((name, "entering"), self.hidden if name == "x" else width, divided=False))

        def keep(value: Value, op: Op, item: int = HALF) -> None:
            rows = min(self._rows(op), value.rows or self._rows(op))  # a table of positions is made once for all tokens
            kept[value.key] = self._size(rows, item, value.width, divided=value.divided)

        for op in ops:
            if op.part == "recurrent":
                raise NoAnswer(f"{self.blueprint.name}: what training keeps of a recurrent mixer is not known")
            first = read(op.reads[0], op)
            divided, width, activation = first.divided, int(op.width) * int(op.repeats), False
            if op.kind == "norm":
                keep(first, op)
            elif op.kind == "matmul" and not op.weight:
                for name in op.reads:
                    keep(read(name, op), op)
            elif op.kind == "matmul":
                wide = int(op.inner) * int(op.repeats)
                # Experts read copies of the rows, one for each that a token goes through.
                keep(first if wide == first.width else Value((*first.key, "permuted"), wide, divided), op)
                divided = self._divides(self.weights[op.weight], divided)
                width = self._out(op) * int(op.repeats)
            elif op.kind == "attention":
                for name in op.reads:
                    keep(read(name, op), op)
                kept[(op.name, "scores")] = self._scores(op, recompute)
            elif op.kind == "activation":
                keep(first, op)
                activation = True
            elif op.kind == "multiply":
                for name in op.reads:
                    if not read(name, op).activation:
                        keep(read(name, op), op)
            elif op.kind == "dropout" and self.recipe.dropout:
                kept[(op.name, "mask")] = self._size(self._rows(op), BYTE, width, divided=divided)
            elif op.kind == "softcap":
                keep(Value((op.name,), width, divided), op)
            elif op.kind == "loss":
                if self.plain_loss:
                    keep(first, op, FP32)
            elif op.kind not in ("lookup", "add", "rotary", "dropout", "scale"):
                raise NoAnswer(f"{self.blueprint.name}: what training keeps of a {op.kind} is not known")
            if op.kind == "rotary" and len(op.reads) == 1:
                width = first.width
            if op.kind in ("lookup", "add"):
                divided = False
            values[op.writes] = Value((op.name,), width, divided, activation, self._rows(op))
        return kept

    def _out(self, op: Op) -> int:
        """Outputs of a product over all ranks, with what is padded or held by several (heads of keys, fewer than the ranks)."""
        weight = self.weights[op.weight]
        ranks = self.layout.tp if weight.split == "column" or (weight.split == "vocab" and self.layout.vocab_parallel) else 1
        return max(int(narrowed(self.blueprint, weight, self.layout).get("shape", weight.shape)[0]) * ranks, int(op.width))

    def _divides(self, weight: Weight, before: bool) -> bool:
        """Whether a product leaves its result divided."""
        if weight.split == "vocab":
            return self.layout.vocab_parallel
        return weight.split == "column" or (before and weight.split != "row")

    def _scores(self, op: Op, recompute: str) -> int:
        """What attention keeps beside its operands, over the rank's heads."""
        heads = int(ceil_div(int(op.heads), self.layout.tp))
        if self.recipe.attention != "eager":
            return FP32 * heads * self.tokens
        if recompute == "selective":
            return 0
        per_score = HALF + (BYTE + HALF if "dropout" in op.form and self.recipe.dropout else 0)
        return per_score * heads * self.tokens * self.recipe.seq
