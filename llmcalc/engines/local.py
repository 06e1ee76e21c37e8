"""The operations of one rank: those of its layers, as narrow as tensor parallelism leaves them, and what ranks send each other.

A column-parallel product reads all rows and leaves its part of the columns, a row-parallel one reads that part and leaves a sum
over the ranks (Megatron-LM, arXiv:1909.08053, section 3). With sequence parallelism what is between them is divided by rows
(Korthikanti et al. 2022, section 4.2.2): they are gathered before the one, and scattered after the other.
"""

from typing import Any

from llmcalc.blueprint.parts import Blueprint, Op, Weight
from llmcalc.engines.layout import Chunk, Layout, outside, runs, spread
from llmcalc.engines.ranks import split_of
from llmcalc.engines.shards import narrowed, on_rank
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Dim, ceil_div

WHOLE, ROWS, DIVIDED = "whole", "rows", "divided"


def rank(blueprint: Blueprint, layout: Layout, chunk: Chunk) -> Blueprint:
    """A chunk of layers on a rank.

    Raises NoAnswer for experts, whose tokens go where nobody can say beforehand, and for stages that would need more of each
    other than the residual stream.
    """
    held = on_rank(blueprint, layout, [chunk])
    after = outside(blueprint)
    if (layout.ep > 1 or layout.tp > 1) and any(weight.part == "experts" for weight in held.weights):
        raise NoAnswer(f"{blueprint.name}: what ranks hold of each other's tokens is not known for experts")
    ops = []
    for stack in chunk.layers.keys() - chunk.begins:
        first = next(op for op in blueprint.ops if op.layers and op.name.startswith(f"{stack}."))
        over = Dim(layout.tp if layout.sequence_parallel else 1, "t")
        name = f"{stack}.receive"
        ops.append(first._replace(name=name, kind="receive", weight="", layers=(), reads=("x",), writes="x", inner=over))
    for op in blueprint.ops:
        if runs(chunk, op, after):
            own = chunk.layers.get(op.name.partition(".")[0], range(0))
            layers = tuple(layer for layer in op.layers if layer in own)
            ops.append(op._replace(layers=layers, depth=Dim(max(len(layers), 1), "layers")))
    if layout.pp > 1 and _reach_out(blueprint, ops):
        raise NoAnswer(f"{blueprint.name}: layers read more of other stages than a pipeline passes on")
    return held._replace(ops=tuple(ops) if layout.tp == 1 else tuple(_Narrow(blueprint, layout).run(ops)))


def _reach_out(blueprint: Blueprint, ops: list[Op]) -> bool:
    """Whether layers read what their stage does not make: encoded text, tables of positions, keys of earlier layers."""
    made = {"x", *(op.writes for op in ops)}
    inner = [op for op in ops if op.layers]
    shared = any(op.kind == "attention" and len(op.reads) == 1 for op in inner)
    return shared or len(spread(blueprint)) > 1 or any(not made.issuperset(op.reads) for op in inner)


class _Narrow:
    """Follows what is divided how, by the names of activations."""

    def __init__(self, blueprint: Blueprint, layout: Layout) -> None:
        self.blueprint, self.layout = blueprint, layout
        self.weights: dict[str, Weight] = {weight.name: weight for weight in blueprint.weights}
        self.state: dict[str, str] = {"x": ROWS if layout.sequence_parallel else WHOLE}
        self.widths: dict[str, Any] = {}
        self.made: list[Op] = []

    def run(self, ops: list[Op]) -> list[Op]:
        """All operations, with those between ranks."""
        for op in ops:
            getattr(self, f"_{op.kind}", self._other)(op)
        return self.made

    def _wrote(self, op: Op, state: str) -> None:
        self.made.append(op)
        self.state[op.writes], self.widths[op.writes] = state, op.width

    def _over(self, value: Any) -> Any:
        return ceil_div(value, self.layout.tp)

    def _whole(self, op: Op, name: str, width: Any) -> None:
        """Rows of all ranks, gathered once for all that read them."""
        if self.state.get(name) == ROWS:
            own = f"{op.name}.gather"
            self._wrote(op._replace(name=own, kind="gather", reads=(name,), writes=name, width=width, weight=""), WHOLE)

    def _sum(self, op: Op) -> None:
        """A sum over ranks: each keeps all of it, or its rows."""
        self._wrote(op, WHOLE)
        if self.layout.sequence_parallel:
            name, inner = f"{op.name}.scatter", Dim(self.layout.tp, "t")
            self._wrote(op._replace(name=name, kind="scatter", reads=(op.writes,), weight="", inner=inner), ROWS)

    def _lookup(self, op: Op) -> None:
        if split_of(self.weights[op.weight]) == "vocab" and self.layout.vocab_parallel:
            self._sum(op)
        else:
            self._wrote(op, WHOLE)

    def _matmul(self, op: Op) -> None:
        weight = self.weights.get(op.weight)
        split = split_of(weight) if weight is not None else ""
        column = split == "column" or (split == "vocab" and self.layout.vocab_parallel)
        state = self.state.get(op.reads[0], WHOLE)
        if column and weight is not None:
            self._whole(op, op.reads[0], op.inner)
            shape = narrowed(self.blueprint, weight, self.layout).get("shape", weight.shape)
            self._wrote(op._replace(width=shape[0]), DIVIDED)
        elif split == "row":
            self._sum(op._replace(inner=self._over(op.inner)))
        else:
            self._wrote(op if state == WHOLE else op._replace(width=self._over(op.width)), state)

    def _receive(self, op: Op) -> None:
        self.made.append(op)

    def _loss(self, op: Op) -> None:
        if self.state.get(op.reads[0]) == DIVIDED:
            op = op._replace(form=(*op.form, "parallel"), width=self._over(op.width))
        self._wrote(op, WHOLE)

    def _attention(self, op: Op) -> None:
        self._wrote(op._replace(heads=self._over(op.heads), width=self._over(op.width)), DIVIDED)

    def _other(self, op: Op) -> None:
        state = self.state.get(op.reads[0], WHOLE)
        if state == DIVIDED:
            op = op._replace(width=self.widths.get(op.reads[0], self._over(op.width)), heads=self._over(op.heads))
        self._wrote(op, state)
