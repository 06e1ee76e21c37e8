"""What the GPUs of a training step tell each other: collectives by what they carry and along which degree of parallelism.

Tensor parallelism sums the results of row-parallel products, and in the backward pass the gradients of what column-parallel ones
read (Megatron-LM, section 3); with sequence parallelism each sum is a reduce-scatter and an all-gather, and inputs are gathered
once more for their weights' gradients (Korthikanti et al. 2022, section 4.2.2). Gradients and parameters follow ZeRO (section 7
of its paper: stages 0 to 2 move as much as an all-reduce, stage 3 half as much again). Rings are assumed: an all-reduce of n
bytes over r ranks sends 2 n (r - 1) / r from each, the other collectives half of that.
"""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, without_formulas
from llmcalc.engines.kept import FP32, HALF, SKIPPED
from llmcalc.engines.layout import Chunk, Layout, chunks, outside, runs
from llmcalc.engines.parameters import Parameters
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.shards import on_rank, summed_item, tensors

LOSS_SUMS = 3  # the highest logit, that of the label, the sum of exponentials


class Traffic(NamedTuple):
    """What one rank takes part in during a step. ``carried`` is the whole tensor, all calls together; ``sent`` leaves the rank."""

    what: str
    collective: str
    link: str
    ranks: int
    calls: int
    carried: int

    @property
    def sent(self) -> int:
        """Bytes that one rank sends."""
        if self.collective in ("point-to-point", "ring"):
            return self.carried
        times = 2 if self.collective == "all-reduce" else 1
        return times * self.carried * (self.ranks - 1) // self.ranks


class _Ledger:
    """Sums calls that are alike; those among one rank cost nothing."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str, int], tuple[int, int]] = {}

    def add(self, what: str, collective: str, link: str, ranks: int, carried: int, calls: int = 1) -> None:
        """``calls`` of this many bytes each."""
        if ranks > 1 and carried and calls:
            key = (what, collective, link, ranks)
            before = self.rows.get(key, (0, 0))
            self.rows[key] = (before[0] + calls, before[1] + calls * carried)


def traffic(blueprint: Blueprint, recipe: Recipe, layout: Layout, stage: int = 0) -> list[Traffic]:
    """Of a rank of this pipeline stage, per step. Raises UsageError for a layout that makes no sense."""
    layout.check(blueprint, recipe)
    blueprint = without_formulas(blueprint)
    held = chunks(blueprint, layout)[stage]
    ledger = _Ledger()
    _states(ledger, on_rank(blueprint, layout, held), recipe, layout)
    after = outside(blueprint)
    for chunk in held:
        for stack, layers in chunk.layers.items():
            for layer in layers:
                ops = [op for op in blueprint.ops if layer in op.layers and op.name.partition(".")[0] == stack]
                _ops(ledger, blueprint, ops, recipe, layout, again=recipe.recompute == "full")
        _ops(ledger, blueprint, [op for op in blueprint.ops if not op.layers and runs(chunk, op, after)], recipe, layout)
    _pipeline(ledger, blueprint, held, recipe, layout, stage)
    return [Traffic(*key, *sums) for key, sums in ledger.rows.items()]


def _states(ledger: _Ledger, rank: Blueprint, recipe: Recipe, layout: Layout) -> None:
    """Gradients are summed once a step, where they are divided (stages 2 and 3) after each micro-batch; weights of stage 3 are
    gathered twice for each. FSDP on a pipeline does either once."""
    parameters = Parameters(rank, recipe)
    found = tensors(parameters)
    item = recipe.computed_item
    for experts in (False, True):
        own = [tensor for tensor in found if tensor.experts == experts]
        learning = [tensor for tensor in own if tensor.learns]
        gradients = sum(summed_item(t.trained.item, recipe, layout) * int(t.trained.count) for t in learning)
        group, sharers = layout.group(experts=experts), layout.sharers(experts=experts)
        passes = layout.micro_batches if layout.level >= 2 and not layout.stays else 1
        if layout.level == 0:
            ledger.add("gradients", "all-reduce", "dp", group, gradients)
            continue
        ledger.add("gradients", "reduce-scatter", "dp", sharers, gradients, passes)
        ledger.add("gradients", "all-reduce", "dp", group // sharers, gradients // sharers)
        if layout.level == 3:
            size = sum(int(min(t.item, item) * int(t.trained.count)) for t in own)
            ledger.add("parameters", "all-gather", "dp", sharers, size, 1 if layout.stays else 2 * passes)
        else:
            ledger.add("parameters", "all-gather", "dp", sharers, sum(item * int(t.trained.count) for t in learning))


def _ops(
    ledger: _Ledger, blueprint: Blueprint, ops: list[Op], recipe: Recipe, layout: Layout, *, again: bool = False
) -> None:  # fmt: skip
    """Within layers: sums of tensor parallelism, tokens on their way to experts and back, keys and values around the ring."""
    weights = {weight.name: weight for weight in blueprint.weights}
    m, tokens = layout.micro_batches, recipe.micro_batch * recipe.seq // layout.cp
    forward = 2 * m if again else m
    gathered: set[tuple[str, bool]] = set()
    for op in ops:
        if op.rows in SKIPPED:
            continue
        rows = {"sequence": recipe.micro_batch, "pass": 1}.get(op.rows, tokens)
        out, into = (HALF * rows * int(op.repeats) * int(width) for width in (op.width, op.inner))
        split = weights[op.weight].split if op.weight else ""
        experts = op.part == "experts" and bool(op.weight)
        if split == "row" or (op.kind == "lookup" and split == "vocab" and layout.vocab_parallel):
            _summed(ledger, layout, out, forward, m)
            if experts:
                _routed(ledger, layout, out, forward + m)
        elif op.kind == "matmul" and (split == "column" or (split == "vocab" and layout.vocab_parallel)):
            if (op.reads[0], experts) not in gathered:
                gathered.add((op.reads[0], experts))
                _spread(ledger, layout, into, forward, m)
                if experts:
                    _routed(ledger, layout, into, forward + m)
        elif op.kind == "loss" and layout.vocab_parallel:
            ledger.add("loss", "all-reduce", "tp", layout.tp, FP32 * rows, LOSS_SUMS * m)
        elif op.kind == "attention" and not op.cross and len(op.reads) > 1:  # keys of another layer have been around
            writer = next((o for o in ops if o.writes == op.reads[1]), op)
            heads = max(int(writer.width) // int(op.qk), 1)
            around = HALF * rows * heads * (int(op.qk) + int(op.v)) // layout.tp
            # Keys and values go around forward and again backward, then with their gradients.
            ledger.add("keys and values", "ring", "cp", layout.cp, around * (layout.cp - 1), forward + 2 * m)


def _summed(ledger: _Ledger, layout: Layout, size: int, forward: int, backward: int) -> None:
    """The result of a row-parallel product."""
    if layout.sequence_parallel:
        ledger.add("activations", "reduce-scatter", "tp", layout.tp, size, forward)
        ledger.add("activations", "all-gather", "tp", layout.tp, size, backward)
    else:
        ledger.add("activations", "all-reduce", "tp", layout.tp, size, forward)


def _spread(ledger: _Ledger, layout: Layout, size: int, forward: int, backward: int) -> None:
    """What column-parallel products read."""
    if layout.sequence_parallel:
        ledger.add("activations", "all-gather", "tp", layout.tp, size, forward + backward)
        ledger.add("activations", "reduce-scatter", "tp", layout.tp, size, backward)
    else:
        ledger.add("activations", "all-reduce", "tp", layout.tp, size, backward)


def _routed(ledger: _Ledger, layout: Layout, size: int, calls: int) -> None:
    """Tokens on their way to experts elsewhere, or back; with sequence parallelism each rank sends its own part of them."""
    ledger.add("tokens", "all-to-all", "ep", layout.ep, size // (layout.tp if layout.sequence_parallel else 1), calls)


def _pipeline(
    ledger: _Ledger, blueprint: Blueprint, held: list[Chunk], recipe: Recipe, layout: Layout, stage: int
) -> None:  # fmt: skip
    """Activations to the next stage, their gradients to the one before; only the very first and last have no neighbour."""
    size = HALF * recipe.micro_batch * recipe.seq // layout.cp * blueprint.stacks[-1].hidden
    size //= layout.tp if layout.sequence_parallel else 1
    on, back = len(held) - (stage == layout.pp - 1), len(held) - (stage == 0)
    ledger.add("activations", "point-to-point", "pp", layout.pp, size, on * layout.micro_batches)
    ledger.add("gradients of activations", "point-to-point", "pp", layout.pp, size, back * layout.micro_batches)
