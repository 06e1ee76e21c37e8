"""A training step on many GPUs: what each pipeline stage's ranks hold, which of them decides, and where the memory goes.

Model states are exact (``shards``). Activations are Megatron's (``kept``) where a layer or the depth is divided, or the recipe is
Megatron's; else torch's eager mode is followed kernel by kernel, as on one GPU. How many micro-batches stand at once is the
schedule's.
"""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, without_formulas
from llmcalc.engines.kept import HALF, Kept
from llmcalc.engines.layout import Chunk, Layout, chunks, outside, runs
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.replay import Replay
from llmcalc.engines.shards import Held, hold, on_rank
from llmcalc.engines.training import PHASES, Step
from llmcalc.errors import NoAnswer

INT64 = 8


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
    """One rank of a pipeline stage, and all ``ranks`` of it are alike.

    ``in_flight`` are the micro-batches whose activations stand at once, by chunk of layers. ``peak_bytes`` counts
    everything on the GPU; it is the sum of the rest where Megatron's kernels run, and elsewhere less, for gradients come as
    activations go. ``placeholders``: where weight gradients are added to fp32 ones in the product's own kernel,
    TransformerEngine gives autograd an empty tensor in their stead, and keeps one of each shape.
    """

    stage: int
    ranks: int
    layers: int
    in_flight: tuple[int, ...]
    held: Held
    activations: Activations
    input_bytes: int
    placeholders: int
    peak_bytes: int


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


def in_flight(layout: Layout, stage: int) -> tuple[int, ...]:
    """Micro-batches that stand at once on a stage, for each of its chunks.

    GPipe: all. 1F1B: as many as the stages from here to the last (Narayanan et al. 2019). Interleaved:
    ``2 (p - i - 1) + (v - 1) p`` forward passes of a chunk run before the first backward pass, p of each chunk in turn (Narayanan
    et al. 2021, section 2.2); on the first stage that is ``1 + (p - 1) / (p v)`` times 1F1B's memory (Korthikanti et al. 2022,
    section 4.2.3).
    """
    p, v, m = layout.pp, layout.chunks, layout.micro_batches
    if layout.schedule == "gpipe":
        return (m,)
    if layout.schedule == "1f1b":
        return (min(p - stage, m),)
    started = min(2 * (p - stage - 1) + (v - 1) * p + 1, m * v)
    counts = [started // (p * v) * p] * v
    rest = started % (p * v)
    return tuple(count + max(min(rest - index * p, p), 0) for index, count in enumerate(counts))


def plan(blueprint: Blueprint, recipe: Recipe, layout: Layout) -> Parallel:
    """Every stage's rank. Raises UsageError and NoAnswer as ``training.Step`` does, and for what does not divide."""
    recipe.check()
    layout.check(blueprint, recipe)
    blueprint = without_formulas(blueprint)
    if not any(op.kind == "loss" for op in blueprint.ops):
        raise NoAnswer(f"{blueprint.name}: no head, and so no loss to train with")
    eager = layout.tp == layout.pp == layout.ep == 1 and recipe.precision != "megatron"
    if not eager and recipe.method != "full":
        raise NoAnswer(f"{blueprint.name}: what {recipe.method} keeps of divided layers is not known; --tp, --pp and --ep 1")
    if not eager and (recipe.recompute == "op" or recipe.compile):
        raise NoAnswer(f"{blueprint.name}: Megatron's kernels are neither compiled nor recomputed one by one")
    found = []
    for index, held in enumerate(chunks(blueprint, layout)):
        rank = on_rank(blueprint, layout, held)
        states = hold(rank, recipe, layout)
        flying = in_flight(layout, index)
        inputs = 2 * INT64 * recipe.micro_batch * (recipe.seq // layout.cp)
        layers = sum(len(layers) for chunk in held for layers in chunk.layers.values())
        if eager:
            kept, peak = _eager(blueprint, recipe, layout, states, inputs)
            empty = 0
        else:
            kept = _megatron(blueprint, recipe, layout, held, flying)
            empty = _placeholders(rank) if recipe.precision == "megatron" else 0
            peak = states.states + empty + inputs + states.gathered + kept.kept + kept.passing
        found.append(Stage(index, layout.gpus // layout.pp, layers, flying, states, kept, inputs, empty, peak))
    return Parallel(layout, tuple(found))


def _placeholders(rank: Blueprint) -> int:
    """Empty 16-bit gradients, one for each shape of a layer's matrices; column-parallel ones that read the same are one."""
    named = {weight.name: weight for weight in rank.weights}
    rows: dict[tuple[object, ...], tuple[int, int]] = {}
    for op in rank.ops:
        weight = named.get(op.weight)
        if op.kind == "matmul" and op.layers and weight is not None and weight.layers and weight.part != "router":
            key = (weight.layers, op.reads) if weight.split == "column" else (weight.name,)
            rows[key] = (rows.get(key, (0, 0))[0] + int(weight.shape[0]), int(weight.shape[-1]))
    return sum(HALF * many * width for many, width in set(rows.values()))


def _eager(blueprint: Blueprint, recipe: Recipe, layout: Layout, held: Held, inputs: int) -> tuple[Activations, int]:
    """One rank with whole layers, its step followed kernel by kernel.

    Gradients that are divided leave as soon as their layer is done, and only the rank's part stays; with those of one GPU the
    figures are ``training.count``'s.
    """
    step = Step(blueprint, recipe._replace(seq=recipe.seq // layout.cp), seq=recipe.seq // layout.cp, batch=recipe.micro_batch)
    divided = layout.level >= 2 and layout.copies > 1
    replay = Replay(step.tape, keep_gradients=False) if divided and not step.resident else step.replay
    moments = {**step.moments, **replay.peaks}
    moments = {phase: moments[phase] for phase in PHASES}
    standing = held.parameters + held.buffers + held.optimizer + inputs
    if step.resident or divided:
        standing += held.gradients
    sizes = {phase: moment.size for phase, moment in moments.items()}
    if divided or layout.offload:
        sizes["step"] -= moments["step"].gradients
    for phase in ("forward", "backward"):
        sizes[phase] += held.gathered
    phase = max(sizes, key=sizes.__getitem__)
    saved = step.replay.saved_bytes
    passing = sizes[phase] - saved - (held.gathered if phase != "step" else 0)
    return Activations(saved, 0, 0, max(passing, 0)), standing + sizes[phase]


def _megatron(blueprint: Blueprint, recipe: Recipe, layout: Layout, held: list[Chunk], flying: tuple[int, ...]) -> Activations:
    """Activations of a stage by Korthikanti's rules; a recomputed layer stands whole while it is at work, one at a time."""
    kept = Kept(blueprint, recipe, layout)
    after = outside(blueprint)
    layers = embedding = head = passing = 0
    for chunk, many in zip(held, flying, strict=True):
        for stack, own in chunk.layers.items():
            for layer in own:
                ops = [op for op in blueprint.ops if layer in op.layers and op.name.partition(".")[0] == stack]
                one = kept.layer(ops, recipe.recompute)
                layers += many * one
                passing = max(passing, kept.layer(ops, "none") - one)
        alone = [op for op in blueprint.ops if not op.layers and runs(chunk, op, after)]
        behind: list[Op] = [op for op in alone if after[op.name]]
        embedding += many * kept.outside(op for op in alone if not after[op.name])
        head += many * kept.outside(behind)
        passing = max(passing, kept.at_the_loss(behind))
    return Activations(layers, embedding, head, passing)
