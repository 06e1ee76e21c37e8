"""A training step on many GPUs: what each pipeline stage's ranks hold, which of them decides, and where the memory goes.

Model states are exact (``shards``). Activations are Megatron's (``kept``) where a layer or the depth is divided, or the recipe is
Megatron's; else torch's eager mode is followed kernel by kernel, as on one GPU. How many micro-batches stand at once is the
schedule's.
"""

from collections import Counter
from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, without_formulas
from llmcalc.engines.kept import HALF, Kept
from llmcalc.engines.layout import Chunk, Layout, chunks, in_flight, outside, runs
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.replay import Moment, Replay
from llmcalc.engines.shards import Held, hold, on_rank
from llmcalc.engines.training import PHASES, Step, Training
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Quantity

INT64 = 8
KERNELS = "Megatron's kernels"
SOURCE = "docs/conventions.md, Training on many GPUs"


class Activations(NamedTuple):
    """Bytes kept on a rank at the fullest moment, and what stands beside them for a while."""

    layers: int
    embedding: int
    head: int
    passing: int

    @property
    def kept(self) -> int:
        """All that waits for the backward pass."""
        return self.layers + self.embedding + self.head


class Stage(NamedTuple):
    """One rank of a pipeline stage, and all ``ranks`` of it are alike; ``training`` has its figures as those of one GPU.

    ``in_flight`` are the micro-batches whose activations stand at once, by chunk of layers. ``placeholders``: where weight
    gradients are added to fp32 ones in the product's own kernel, TransformerEngine gives autograd an empty tensor in their stead,
    and keeps one of each shape.
    """

    stage: int
    ranks: int
    layers: int
    in_flight: tuple[int, ...]
    held: Held
    activations: Activations
    placeholders: int
    training: Training

    @property
    def peak_bytes(self) -> int:
        """Everything on the GPU at the highest point of the step."""
        return self.training.peak_bytes


class Parallel(NamedTuple):
    """All stages; ``fullest`` decides whether the step fits."""

    layout: Layout
    stages: tuple[Stage, ...]

    @property
    def fullest(self) -> Stage:
        """The first of those with the highest peak."""
        return max(self.stages, key=lambda stage: stage.peak_bytes)

    @property
    def imbalance(self) -> float:
        """The highest peak over the mean."""
        peaks = [stage.peak_bytes for stage in self.stages]
        return max(peaks) * len(peaks) / sum(peaks)


class Rank(NamedTuple):
    """A GPU of a stage before data parallelism: its chunks and its share as a blueprint. Stages that hold the same weights of as
    many layers hold the same bytes. ``placeholders`` are the empty gradients of Megatron's kernels."""

    chunks: list[Chunk]
    layers: int
    blueprint: Blueprint
    holds: tuple[tuple[str, int], ...]
    placeholders: int


class Share(NamedTuple):
    """A rank and what it holds."""

    rank: Rank
    held: Held


class Pass(NamedTuple):
    """Bytes that one micro-batch leaves on a stage, for each of its chunks; and what passes beside them."""

    chunks: tuple[tuple[int, int, int], ...]
    passing: int

    def standing(self, flying: tuple[int, ...]) -> Activations:
        """With so many micro-batches of each chunk at once."""
        layers = embedding = head = 0
        for (layer, before, after), many in zip(self.chunks, flying, strict=True):
            layers, embedding, head = layers + many * layer, embedding + many * before, head + many * after
        return Activations(layers, embedding, head, self.passing)


class Planner:
    """Steps of one model, over any number of GPUs. What several of them have in common is made once.

    A layout is four questions that know little of each other: what each stage holds (``_shares``: not of the length, or the
    micro-batches), what a micro-batch leaves there (``_passes``: not of data parallelism), how many stand at once (the
    schedule), and, where layers are whole, how one GPU's step goes (``_steps``: of the recipe alone).

    Raises NoAnswer for a model without a loss.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = without_formulas(blueprint)
        if not any(op.kind == "loss" for op in blueprint.ops):
            raise NoAnswer(f"{blueprint.name}: no head, and so no loss to train with")
        self.after = outside(self.blueprint)
        self.total = sum(w.elements for w in self.blueprint.weights if not w.buffer)
        self.divided: set[Layout] = set()
        self.ranks: dict[Layout, list[Rank]] = {}
        self.shares: dict[tuple[Recipe, Layout], list[Share]] = {}
        self.passes: dict[tuple[Recipe, Layout], list[Pass]] = {}
        self.layers: dict[tuple[str, range], list[tuple[tuple[Op, ...], int]]] = {}
        self.steps: dict[tuple[Recipe, bool], tuple[Step, dict[str, Moment], Training]] = {}

    def plan(self, recipe: Recipe, layout: Layout) -> Parallel:
        """Every stage's rank. Raises UsageError and NoAnswer as ``training.Step`` does, and for what does not divide."""
        recipe.check()
        layout.check_words(recipe)
        degrees = Layout(layout.tp, layout.pp, ep=layout.ep, chunks=layout.chunks)
        if degrees not in self.divided:
            degrees.check_divides(self.blueprint)
            self.divided.add(degrees)
        eager = layout.tp == layout.pp == layout.ep == 1 and (recipe.precision != "megatron" or layout.gpus == 1)
        if not eager and recipe.method != "full":
            name = self.blueprint.name
            raise NoAnswer(f"{name}: what {recipe.method} keeps of divided layers is not known; --tp, --pp and --ep 1")
        inputs = 2 * INT64 * recipe.micro_batch * (recipe.seq // layout.cp)
        ranks = layout.gpus // layout.pp
        shares = self._shares(recipe, layout)
        if eager:
            ((rank, held),) = shares
            kept, training = self._eager(recipe, layout, held, inputs)
            return Parallel(layout, (Stage(0, ranks, rank.layers, (1,), held, kept, 0, training),))
        stages = []
        for index, ((rank, held), one) in enumerate(zip(shares, self._passes(recipe, layout), strict=True)):
            flying = in_flight(layout, index)
            kept = one.standing(flying)
            empty = rank.placeholders if recipe.precision == "megatron" else 0
            training = _figures(held, kept, inputs, empty, self.total)
            stages.append(Stage(index, ranks, rank.layers, flying, held, kept, empty, training))
        return Parallel(layout, tuple(stages))

    def _shares(self, recipe: Recipe, layout: Layout) -> list[Share]:
        """What the ranks of each stage hold: not a question of the tokens, nor of the schedule."""
        key = (
            recipe._replace(seq=1, micro_batch=1, accumulate=1, recompute="none", attention="", keep_logits=False, loss="plain"),
            layout._replace(micro_batches=1, schedule="", sequence_parallel=False),
        )  # fmt: skip
        if key not in self.shares:
            ranks, alike = self._ranks(layout), dict[tuple[tuple[str, int], ...], Held]()
            for rank in ranks:
                if rank.holds not in alike:
                    alike[rank.holds] = hold(rank.blueprint, recipe, layout)
            self.shares[key] = [Share(rank, alike[rank.holds]) for rank in ranks]
        return self.shares[key]

    def _ranks(self, layout: Layout) -> list[Rank]:
        """A rank of each stage: not a question of data parallelism."""
        key = layout._replace(dp=1, cp=1, zero="", sequence_parallel=False, schedule="", micro_batches=1, offload="", shard=0,
                              reduce_dtype="", shard_dtype="", prefetch=1)  # fmt: skip
        if key not in self.ranks:
            self.ranks[key] = []
            for own in chunks(self.blueprint, layout):
                rank = on_rank(self.blueprint, layout, own)
                holds = tuple((weight.name, int(weight.depth)) for weight in rank.weights)
                layers = sum(len(layers) for chunk in own for layers in chunk.layers.values())
                self.ranks[key].append(Rank(own, layers, rank, holds, placeholders(rank)))
        return self.ranks[key]

    def _passes(self, recipe: Recipe, layout: Layout) -> list[Pass]:
        """What a micro-batch leaves on each stage: not a question of the optimizer, nor of data parallelism."""
        key = (
            recipe._replace(optimizer="", foreach=False, state_embeddings="", accumulate=1, keep_logits=False),
            layout._replace(dp=1, ep=1, zero="0", micro_batches=1, schedule="", offload="", shard=0, reduce_dtype="",
                            shard_dtype="", prefetch=1),
        )  # fmt: skip
        if key not in self.passes:
            kept = Kept(self.blueprint, recipe, layout)
            self.passes[key] = [self._pass(kept, rank.chunks) for rank in self._ranks(layout)]
        return self.passes[key]

    def _pass(self, kept: Kept, held: list[Chunk]) -> Pass:
        """By Korthikanti's rules; a recomputed layer stands whole while it is at work, one at a time."""
        found, passing = [], 0
        for chunk in held:
            layers = 0
            for stack, own in chunk.layers.items():
                for ops, many in self._alike(stack, own):
                    one = kept.layer(ops, kept.recipe.recompute)
                    layers += many * one
                    passing = max(passing, kept.layer(ops, "none") - one)
            alone = [op for op in self.blueprint.ops if not op.layers and runs(chunk, op, self.after)]
            behind: list[Op] = [op for op in alone if self.after[op.name]]
            found.append((layers, kept.outside(op for op in alone if not self.after[op.name]), kept.outside(behind)))
            passing = max(passing, kept.at_the_loss(behind))
        return Pass(tuple(found), passing)

    def _alike(self, stack: str, own: range) -> list[tuple[tuple[Op, ...], int]]:
        """The layers of a chunk by what runs in them, and how many run the same."""
        if (stack, own) not in self.layers:
            ops = [op for op in self.blueprint.ops if op.layers and op.name.partition(".")[0] == stack]
            kinds = Counter(tuple(index for index, op in enumerate(ops) if layer in op.layers) for layer in own)
            self.layers[stack, own] = [(tuple(ops[index] for index in kind), many) for kind, many in kinds.items()]
        return self.layers[stack, own]

    def _step(self, recipe: Recipe, *, divided: bool) -> tuple[Step, dict[str, Moment], Training]:
        """One GPU's step kernel by kernel; gradients that are divided leave as soon as their layer is done."""
        if (recipe, divided) not in self.steps:
            step = Step(self.blueprint, recipe, seq=recipe.seq, batch=recipe.micro_batch)
            replay = Replay(step.tape, keep_gradients=False) if divided and not step.resident else step.replay
            moments = {**step.moments, **replay.peaks}
            self.steps[recipe, divided] = step, {phase: moments[phase] for phase in PHASES}, step.count()
        return self.steps[recipe, divided]

    def _eager(self, recipe: Recipe, layout: Layout, held: Held, inputs: int) -> tuple[Activations, Training]:
        """A rank with whole layers: one GPU's step, of which it holds a part of the states and gathers the rest."""
        divided = layout.level >= 2 and layout.copies > 1
        step, moments, alone = self._step(recipe._replace(seq=recipe.seq // layout.cp), divided=divided)
        standing = {
            "parameters": held.parameters, "buffers": held.buffers, "inputs": inputs, "optimizer": held.optimizer,
            "gradients": held.gradients if step.resident or divided else 0,
        }  # fmt: skip
        base, found = sum(standing.values()), {}
        for phase, moment in moments.items():
            gone = moment.gradients if phase == "step" and (divided or layout.offload) else 0
            gathered = held.gathered if phase != "step" else 0
            found[phase] = {
                **standing, "gradients": standing["gradients"] + moment.gradients - gone, "gathered": gathered,
                "activations": moment.activations, "temporaries": moment.passing,
            }  # fmt: skip
        peaks = {phase: sum(parts.values()) for phase, parts in found.items()}
        phase = max(peaks, key=peaks.__getitem__)
        parts, saved = found[phase], step.replay.saved_bytes
        passing = max(peaks[phase] - base - parts["gathered"] - saved, 0)
        training = alone._replace(
            parameter_bytes=held.parameters, gradient_bytes=held.gradients, optimizer_bytes=held.optimizer,
            buffer_bytes=held.buffers, peaks=peaks, parts={name: parts[name] for name in alone.parts}, kernel=moments[phase].kernel,
        )  # fmt: skip
        return Activations(saved, 0, 0, passing), training


def plan(blueprint: Blueprint, recipe: Recipe, layout: Layout) -> Parallel:
    """One step; a ``Planner`` for many. Raises UsageError and NoAnswer as that does."""
    return Planner(blueprint).plan(recipe, layout)


def placeholders(rank: Blueprint) -> int:
    """Empty 16-bit gradients, one for each shape of a layer's matrices; column-parallel ones that read the same are one."""
    named = {weight.name: weight for weight in rank.weights}
    rows: dict[tuple[object, ...], tuple[int, int]] = {}
    for op in rank.ops:
        weight = named.get(op.weight)
        if op.kind == "matmul" and op.layers and weight is not None and weight.layers and weight.part != "router":
            key = (weight.layers, op.reads) if weight.split == "column" else (weight.name,)
            rows[key] = (rows.get(key, (0, 0))[0] + int(weight.shape[0]), int(weight.shape[-1]))
    return sum(HALF * many * width for many, width in set(rows.values()))


def _figures(held: Held, kept: Activations, inputs: int, empty: int, total: int) -> Training:
    """A stage where Megatron's kernels run: all gradients stand through the step, and the head passes in the backward phase."""
    states = held.states + inputs + empty
    forward = states + held.gathered + kept.kept
    peaks = {"forward": forward, "backward": forward + kept.passing, "step": states}
    parts = {
        "parameters": held.parameters, "buffers": held.buffers, "inputs": inputs, "optimizer": held.optimizer,
        "gradients": held.gradients, "gathered": held.gathered, "activations": kept.kept,
        "temporaries": kept.passing + empty,
    }  # fmt: skip
    return Training(
        held.parameters, held.buffers, inputs, held.gradients, held.optimizer, kept.kept, peaks, parts, KERNELS, total, total
    )


def explain(stage: Stage) -> Quantity:
    """The peak of a stage's rank, opened."""
    held, kept, parts = stage.held, stage.activations, stage.training.parts
    said = {
        "parameters": f"{held.elements:,} of the rank's elements, those that ZeRO-3 divides by the ranks that do",
        "optimizer": "what the optimizer keeps of each trained element, by the ranks that ZeRO divides it over",
        "gathered": "whole layers of weights, and gradients before they are summed",
        "temporaries": "what passes at the highest point",
    }  # fmt: skip
    figures = [Quantity(name, size, "bytes", source=said.get(name, "")) for name, size in parts.items() if name != "activations"]
    flying = "+".join(map(str, stage.in_flight))
    opened = [
        Quantity("layers", kept.layers, "bytes", source=f"{stage.layers} layers, {flying} micro-batches in flight"),
        Quantity("embedding", kept.embedding, "bytes"), Quantity("head", kept.head, "bytes"),
    ]  # fmt: skip
    if kept.kept == parts["activations"]:
        figures.append(Quantity.sum("activations", "bytes", opened, source="Korthikanti et al. 2022, section 4"))
    else:
        figures.append(Quantity("activations", parts["activations"], "bytes", source="kernel by kernel, as on one GPU"))
    return Quantity.sum("peak_bytes", "bytes", figures, source=f"a GPU of stage {stage.stage}; {SOURCE}", kind="modelled")
