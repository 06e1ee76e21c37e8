"""A training step on many GPUs: what each pipeline stage's ranks hold, which of them decides, and where the memory goes.

Model states are exact (``shards``). Torch's eager mode is followed kernel by kernel: as on one GPU where layers are whole, else on
each stage's rank (``reserved``). Activations are Megatron's (``kept``) where the recipe is, and where layers are divided in a way
that is not followed. How many micro-batches stand at once is the schedule's.
"""

from collections import Counter

from llmcalc.blueprint.parts import Blueprint, Op, without_formulas
from llmcalc.engines import reserved
from llmcalc.engines.eager import INT64
from llmcalc.engines.kept import HALF, Kept
from llmcalc.engines.layout import Chunk, Layout, chunks, in_flight, outside, runs
from llmcalc.engines.parameters import Parameters
from llmcalc.engines.recipe import Recipe, check_loss
from llmcalc.engines.replay import Moment, Replay
from llmcalc.engines.shards import Held, Holding, on_rank
from llmcalc.engines.stages import Activations, Parallel, Pass, Rank, Stage
from llmcalc.engines.training import PHASES, Step, Training
from llmcalc.errors import NoAnswer


class Planner:
    """Steps of one model, over any number of GPUs. What several of them have in common is made once.

    A layout is four questions that know little of each other: what each stage holds (``_shares``: not of the length, or the
    micro-batches), what a micro-batch leaves there (``_passes``: not of data parallelism), how many stand at once (the
    schedule), and, where layers are whole, how one GPU's step goes (``_steps``: of the recipe alone).

    Raises NoAnswer for a model without a loss.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = without_formulas(blueprint)
        check_loss(blueprint)
        self.after = outside(self.blueprint)
        self.total = sum(w.elements for w in self.blueprint.weights if not w.buffer)
        self.routed = any(w.part == "experts" for w in self.blueprint.weights)
        self.divided: set[tuple[int, ...]] = set()
        self.ranks: dict[tuple[object, ...], list[Rank]] = {}
        self.holdings: dict[tuple[object, ...], Holding] = {}
        self.shares: dict[tuple[Recipe, tuple[object, ...]], list[tuple[Rank, Held, int]]] = {}
        self.passes: dict[tuple[Recipe, tuple[object, ...]], list[Pass]] = {}
        self.models: dict[Recipe, Parameters] = {}
        self.flights: dict[tuple[object, ...], list[tuple[int, ...]]] = {}
        self.recipes: dict[Recipe, tuple[Recipe, Recipe]] = {}
        self.layers: dict[tuple[str, range], list[tuple[tuple[Op, ...], int]]] = {}
        self.steps: dict[tuple[Recipe, bool], tuple[Step, dict[str, Moment], Training]] = {}

    def plan(self, recipe: Recipe, layout: Layout) -> Parallel:
        """Every stage's rank. Raises UsageError and NoAnswer as ``training.Step`` does, and for what does not divide."""
        recipe.check()
        layout.check_words(recipe)
        if layout.ep > 1 and not self.routed:
            layout = layout._replace(ep=1)  # there is nothing to divide so
        if layout.pp == 1 and layout.schedule != "1f1b":
            layout = layout._replace(schedule="1f1b", chunks=1)  # one stage has no schedule
        degrees = layout.tp, layout.pp, layout.ep, layout.chunks
        if degrees not in self.divided:
            layout.check_divides(self.blueprint)
            self.divided.add(degrees)
        eager = layout.tp == layout.pp == layout.ep == 1 and (recipe.precision != "megatron" or layout.gpus == 1)
        walked = not eager or (layout.level == 3 and layout.sharers(experts=False) > 1)
        if walked and reserved.runs(recipe, layout) and layout.ep == 1:
            try:
                return self._walked(recipe, layout)
            except NoAnswer:
                if recipe.compile or recipe.recompute == "op":
                    raise
        if not eager and recipe.method != "full":
            name = self.blueprint.name
            raise NoAnswer(f"{name}: what {recipe.method} keeps of divided layers is not known; --tp, --pp and --ep 1")
        if not eager and recipe.precision == "fp32":
            name = self.blueprint.name
            raise NoAnswer(
                f"{name}: what divided layers keep in fp32 is not known so; --zero 0, 1, 2 or fsdp, or another --precision"
            )
        if not eager and (recipe.recompute == "op" or recipe.compile):
            raise NoAnswer(f"{self.blueprint.name}: Megatron's kernels are neither compiled nor recomputed one by one")
        inputs = self._inputs(recipe, layout)
        ranks = layout.gpus // layout.pp
        shares = self._shares(recipe, layout)
        if eager:
            ((rank, held, _),) = shares
            kept, training = self._eager(recipe, layout, held, inputs)
            return Parallel(
                layout, (Stage(0, ranks, rank.layers, (1,), held, kept, 0, inputs, self.total, training.peak_bytes, training),)
            )
        fused, stages = recipe.precision == "megatron", []
        flights, passes = self._flights(layout), self._passes(recipe, layout)
        for index, (rank, held, base) in enumerate(shares):
            flying = flights[index]
            empty = rank.placeholders if fused else 0
            kept = passes[index].standing(flying)
            peak = base + empty + inputs + kept.layers + kept.embedding + kept.head + kept.passing
            stages.append(Stage(index, ranks, rank.layers, flying, held, kept, empty, inputs, self.total, peak))
        return Parallel(layout, tuple(stages))

    @staticmethod
    def _inputs(recipe: Recipe, layout: Layout) -> int:
        """Ids and labels."""
        return 2 * INT64 * recipe.micro_batch * (recipe.seq // layout.cp) * layout.loaded

    def _walked(self, recipe: Recipe, layout: Layout) -> Parallel:
        """Every stage's step as torch runs it, with what FSDP gathers and what a rank's narrow layers keep."""
        trained = sum(int(tensor.count) for tensor in self.whole(recipe).trained())
        if not trained:
            raise NoAnswer(f"{self.blueprint.name}: --method {recipe.method} finds nothing to train")
        found, stages = reserved.stages(self.blueprint, recipe, layout, settled=True), []
        inputs = self._inputs(recipe, layout)
        added = sum(int(extra.elements) for extra in self.whole(recipe).added)
        for index, ((rank, held, _), one) in enumerate(zip(self._shares(recipe, layout), found, strict=True)):
            flying = self._flights(layout)[index]
            kept = sum(many * size for many, size in zip(flying, one.kept, strict=True))
            figures = Training(
                held.parameters, held.buffers, inputs, held.gradients, held.optimizer, kept, one.peaks, one.parts, "", trained,
                self.total + added,
            )  # fmt: skip
            passing = one.parts["temporaries"]
            ranks = layout.gpus // layout.pp
            stages.append(
                Stage(index, ranks, rank.layers, flying, held, Activations(kept, 0, 0, passing), 0, inputs, self.total,
                      figures.peak_bytes, figures)
            )  # fmt: skip
        return Parallel(layout, tuple(stages))

    def whole(self, recipe: Recipe) -> Parameters:
        """The parameters of the whole model."""
        states = self._recipes(recipe)[0]
        if states not in self.models:
            self.models[states] = Parameters(self.blueprint, recipe)
        return self.models[states]

    def _shares(self, recipe: Recipe, layout: Layout) -> list[tuple[Rank, Held, int]]:
        """What the ranks of each stage hold, and the bytes of it all: not a question of the tokens, nor of the schedule."""
        states = self._recipes(recipe)[0]
        key = states, layout.holding
        if key not in self.shares:
            found: dict[tuple[tuple[str, int], ...], Held] = {}
            for rank in self._ranks(layout):
                if rank.holds not in found:
                    name = states, layout.dividing, rank.holds
                    if name not in self.holdings:
                        self.holdings[name] = Holding(rank.blueprint, recipe)
                    found[rank.holds] = self.holdings[name].under(layout)
            sizes = {holds: held.states + held.gathered for holds, held in found.items()}
            self.shares[key] = [(rank, found[rank.holds], sizes[rank.holds]) for rank in self._ranks(layout)]
        return self.shares[key]

    def _recipes(self, recipe: Recipe) -> tuple[Recipe, Recipe]:
        """The recipe as far as states are concerned, and as far as activations are."""
        if recipe not in self.recipes:
            self.recipes[recipe] = (
                recipe._replace(
                    seq=1, micro_batch=1, accumulate=1, recompute="none", attention="", keep_logits=False, loss="plain"
                ),
                recipe._replace(optimizer="", foreach=False, state_embeddings="", accumulate=1, keep_logits=False),
            )
        return self.recipes[recipe]

    def _flights(self, layout: Layout) -> list[tuple[int, ...]]:
        """Micro-batches in flight on each stage."""
        key = layout.schedule, layout.pp, layout.chunks, layout.micro_batches
        if key not in self.flights:
            self.flights[key] = [in_flight(layout, stage) for stage in range(layout.pp)]
        return self.flights[key]

    def _ranks(self, layout: Layout) -> list[Rank]:
        """A rank of each stage: not a question of data parallelism."""
        key = layout.dividing
        if key not in self.ranks:
            self.ranks[key] = []
            for own in chunks(self.blueprint, layout):
                rank = on_rank(self.blueprint, layout, own)
                holds = tuple((weight.name, int(weight.depth)) for weight in rank.weights)
                layers = sum(len(layers) for chunk in own for layers in chunk.layers.values())
                self.ranks[key].append(Rank(own, layers, rank, holds, self._runs(own), placeholders(rank)))
        return self.ranks[key]

    def _runs(self, held: list[Chunk]) -> tuple[object, ...]:
        """What tells what chunks run from what others do."""
        found = []
        for chunk in held:
            kinds = [kind for stack, own in chunk.layers.items() for kind in self._alike(stack, own)]
            found.append((tuple((tuple(op.name for op in ops), many) for ops, many in kinds), chunk.begins, chunk.ends))
        return tuple(found)

    def _passes(self, recipe: Recipe, layout: Layout) -> list[Pass]:
        """What a micro-batch leaves on each stage: not a question of the optimizer, nor of data parallelism."""
        key = self._recipes(recipe)[1], layout.keeping
        if key not in self.passes:
            kept, found = Kept(self.blueprint, recipe, layout), dict[tuple[object, ...], Pass]()
            for rank in self._ranks(layout):
                if rank.runs not in found:
                    found[rank.runs] = self._pass(kept, rank.chunks)
            self.passes[key] = [found[rank.runs] for rank in self._ranks(layout)]
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
                "activations": moment.activations, "temporaries": held.scratch if phase == "step" else moment.passing,
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
