"""How a training step is spread over many GPUs: the degrees of parallelism, and which layers stand on which stage."""

from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op
from llmcalc.engines.optimizers import PAGED
from llmcalc.engines.ranks import stages
from llmcalc.engines.recipe import ITEMS, Recipe
from llmcalc.errors import UsageError

ZERO = ("0", "1", "2", "3", "fsdp")
SCHEDULES = ("gpipe", "1f1b", "interleaved")
OFFLOADS = ("", "optimizer", "all")
DTYPES = ("", *ITEMS)
# States of these are made of whole matrices, which a flat partition cuts anywhere.
WHOLE = ("adafactor", "galore", "muon")


class Layout(NamedTuple):
    """How a step is spread over ``tp * pp * dp * cp`` GPUs.

    ``dp`` and ``cp`` together are who shares gradients (``copies``); ``ep`` divides it and spreads the experts over it. ``zero``:
    1, 2 and 3 are DeepSpeed's stages, flat and padded to the ranks; fsdp is stage 3 that divides each tensor by its rows (FSDP2).
    ``shard`` is how many ranks share one set (hybrid sharding; Megatron's distributed-optimizer instances), 0 for all. ``offload``
    to the host: the optimizer with its gradients, or the parameters too. ``reduce_dtype`` is what gradients are held and
    summed in, as the recipe has them unless said. ``shard_dtype`` is what stage 3 holds its parts and their states in, gathering
    layers in the recipe's type (FSDP's mixed precision). ``prefetch`` counts layers gathered ahead of the one at work.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    cp: int = 1
    ep: int = 1
    zero: str = "0"
    sequence_parallel: bool = False
    schedule: str = "1f1b"
    chunks: int = 1
    micro_batches: int = 1
    offload: str = ""
    shard: int = 0
    reduce_dtype: str = ""
    shard_dtype: str = ""
    vocab_parallel: bool = True
    vocab_multiple: int = 1
    prefetch: int = 1

    @property
    def gpus(self) -> int:
        """All ranks."""
        return self.tp * self.pp * self.dp * self.cp

    @property
    def copies(self) -> int:
        """Ranks that hold the same weights and sum their gradients."""
        return self.dp * self.cp

    @property
    def level(self) -> int:
        """ZeRO's stage."""
        return 3 if self.zero == "fsdp" else int(self.zero)

    @property
    def stays(self) -> bool:
        """Whether gathered weights stay, and gradients wait, until the last micro-batch: FSDP on a pipeline (torchtitan)."""
        return self.zero == "fsdp" and self.pp > 1

    @property
    def loaded(self) -> int:
        """Micro-batches whose inputs stand at once: a pipeline has all of a step's."""
        return self.micro_batches if self.pp > 1 else 1

    def group(self, *, experts: bool) -> int:
        """Ranks that hold the same weights, of experts those that hold the same ones."""
        return self.copies // self.ep if experts else self.copies

    def sharers(self, *, experts: bool) -> int:
        """Ranks that divide one set of states."""
        group = self.group(experts=experts)
        return min(group, self.shard or group) if self.level else 1

    @property
    def dividing(self) -> tuple[object, ...]:
        """What decides which weights stand on a stage's rank, before data parallelism."""
        return self.tp, self.pp, self.ep, self.chunks, self.vocab_parallel, self.vocab_multiple

    @property
    def holding(self) -> tuple[object, ...]:
        """What decides the bytes of model states: everything but the schedule and who has which tokens."""
        return (
            *self.dividing,
            self.copies,
            self.zero,
            self.offload,
            self.shard,
            self.reduce_dtype,
            self.shard_dtype,
            self.prefetch,
        )

    @property
    def keeping(self) -> tuple[object, ...]:
        """What decides the activations of a micro-batch."""
        return self.dividing, self.cp, self.sequence_parallel

    @property
    def shares_evenly(self) -> bool:
        """Whether experts and hybrid shards divide the ranks that have copies."""
        groups, rest = divmod(self.copies, self.ep)
        return rest == 0 and (not self.shard or (self.level > 0 and groups % self.shard == 0))

    def check(self, blueprint: Blueprint, recipe: Recipe) -> None:
        """Raises UsageError for what does not go together, or does not divide."""
        self.check_words(recipe)
        self.check_divides(blueprint)

    def check_words(self, recipe: Recipe) -> None:
        """What any model must hold to."""
        least = (self.tp, self.pp, self.dp, self.cp, self.ep, self.chunks, self.micro_batches, self.vocab_multiple)
        if min(least) < 1:
            at = least.index(min(least))
            name = ("tp", "pp", "dp", "cp", "ep", "chunks", "micro-batches", "vocab-multiple")[at]
            raise UsageError(f"--{name} {least[at]}: at least 1")
        for name, word, allowed in (
            ("zero", self.zero, ZERO), ("schedule", self.schedule, SCHEDULES), ("offload", self.offload, OFFLOADS),
            ("reduce-dtype", self.reduce_dtype, DTYPES), ("shard-dtype", self.shard_dtype, DTYPES),
        ):  # fmt: skip
            if word not in allowed:
                raise UsageError(f"--{name} {word}: one of {', '.join(filter(None, allowed))}")
        if self.copies % self.ep:
            raise UsageError(f"--ep {self.ep} does not divide --dp x --cp, {self.copies}")
        if recipe.seq % (self.cp * (self.tp if self.sequence_parallel else 1)):
            raise UsageError(f"{recipe.seq} tokens do not divide over --cp {self.cp} and sequence parallelism")
        if self.chunks > 1 and self.schedule != "interleaved":
            raise UsageError("--chunks goes with --schedule interleaved")
        if self.schedule == "interleaved" and self.micro_batches % self.pp:
            raise UsageError(f"--schedule interleaved: {self.micro_batches} micro-batches do not divide by --pp {self.pp}")
        if not self.shares_evenly:
            raise UsageError(f"--shard {self.shard}: needs --zero, and to divide the {self.copies // self.ep} ranks that share")
        if self.shard_dtype and (self.level != 3 or recipe.precision == "megatron"):
            raise UsageError("--shard-dtype is of what --zero 3 or fsdp gathers, and Megatron has a master copy besides")
        if self.offload == "all" and self.level != 3:
            raise UsageError("--offload all moves parameters that --zero 3 or fsdp gathers")
        if self.zero in ("1", "2", "3") and recipe.optimizer.removeprefix(PAGED) in WHOLE and self.copies > 1:
            raise UsageError(
                f"--optimizer {recipe.optimizer} needs whole matrices, --zero {self.zero} cuts them anywhere: --zero fsdp"
            )

    def check_divides(self, blueprint: Blueprint) -> None:
        """Heads, experts and layers of this model: a question of tp, ep, pp and chunks alone."""
        for op in blueprint.ops:
            if op.kind == "attention" and int(op.heads) % self.tp and op.rows in ("token", "encoder_token"):
                raise UsageError(f"--tp {self.tp} does not divide the {int(op.heads)} heads of {op.name}")
        for weight in blueprint.weights:
            if weight.part == "experts" and int(weight.copies) % self.ep:
                raise UsageError(f"--ep {self.ep} does not divide the {int(weight.copies)} experts of {weight.name}")
        depth = sum(stack.depth for stack in spread(blueprint))
        if self.pp * self.chunks > depth:
            raise UsageError(f"{depth} layers are too few for --pp {self.pp} of {self.chunks} chunks")


def spread(blueprint: Blueprint) -> list[Any]:
    """The stacks that pipelines divide; towers before the decoder stand on the first stage."""
    return [stack for stack in blueprint.stacks if stack.name in ("encoder", "decoder")] or list(blueprint.stacks)


class Chunk(NamedTuple):
    """Layers that follow each other on one stage, by stack, and whether the stack begins and ends here."""

    layers: dict[str, range]
    begins: frozenset[str]
    ends: frozenset[str]


def chunks(blueprint: Blueprint, layout: Layout) -> list[list[Chunk]]:
    """The chunks of each stage: chunk c of all goes to stage c mod pp (Narayanan et al. 2021, section 2.2)."""
    stacks = spread(blueprint)
    found: list[list[Chunk]] = [[] for _ in range(layout.pp)]
    for index, (start, stop) in enumerate(stages(sum(s.depth for s in stacks), layout.pp * layout.chunks)):
        layers, first = {}, 0
        for stack in stacks:
            low, high = max(start - first, 0), min(stop - first, stack.depth)
            if low < high:
                layers[stack.name] = range(low, high)
            first += stack.depth
        begins = {name for name, held in layers.items() if held.start == 0}
        ends = {stack.name for stack in stacks if stack.name in layers and layers[stack.name].stop == stack.depth}
        for tower in blueprint.stacks if index == 0 else ():
            if tower not in stacks:
                layers[tower.name] = range(tower.depth)
                begins.add(tower.name)
                ends.add(tower.name)
        found[index % layout.pp].append(Chunk(layers, frozenset(begins), frozenset(ends)))
    return found


def outside(blueprint: Blueprint) -> dict[str, bool]:
    """Operations outside of layers, by name: whether they come after their stack's."""
    found: dict[str, bool] = {}
    passed: set[str] = set()
    for op in blueprint.ops:
        stack = op.name.partition(".")[0]
        if op.layers:
            passed.add(stack)
        else:
            found[op.name] = stack in passed
    return found


def runs(chunk: Chunk, op: Op, after: dict[str, bool]) -> bool:
    """Whether an operation runs in a chunk, in one of its layers at least."""
    stack = op.name.partition(".")[0]
    if op.layers:
        return any(layer in chunk.layers.get(stack, ()) for layer in op.layers)
    return stack in (chunk.ends if after[op.name] else chunk.begins)


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
