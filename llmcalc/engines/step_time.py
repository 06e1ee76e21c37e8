"""How long a training step takes on many GPUs: work over measured efficiencies, messages over links, and the pipeline's bubble.

A rank's micro-batch takes, forward and backward (twice the products, 5/2 of flash attention, twice the rest):

    products    FLOPs / (dense rate x e), or as long as their weights take to be read and gradients to be added to
    attention   FLOPs below the causal mask / (16-bit rate x e)
    memory      elements of norms, activations, sums, logits / (bandwidth x e)
    host        a layer takes no less than its kernels take to be launched; routed experts have a time of their own
    messages    of tensor, context and expert parallelism (``traffic``), each over the link that its ranks share, less what is
                hidden behind computation

and a step, with m micro-batches through p stages in v chunks (Narayanan et al. 2021, arXiv:2104.04473, section 2.2):

    m x the slowest stage + (the other stages, forward and backward, once) / v + what is left of the gradients' sum + the optimizer

which for like stages is the bubble's share (p - 1) / (v m). Efficiencies are fitted on published steps (docs/train-speed.md).
"""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines.kept import FP32, HALF
from llmcalc.engines.layout import Layout
from llmcalc.engines.optimizers import PAGED
from llmcalc.engines.recipe import ADAPTERS, Recipe
from llmcalc.engines.step_links import Links, Machine, elements_of
from llmcalc.engines.step_work import FUSED_LOGIT_PASSES, LOGIT_PASSES, SCORE_BACKWARD, SCORE_PASSES, Counts, Kind, StepWork
from llmcalc.errors import NoAnswer

FLASH_BACKWARD = 2.5  # five products for two (Dao 2023, arXiv:2307.08691, section 4.1)
REPEATED = {"none": 0.0, "selective": 0.0, "op": 0.5, "full": 1.0}  # of the products
# What an optimizer keeps of an element, in values of the type that it steps in. Low-rank and factored states are next to nothing.
MOMENTS = {"adamw": 2, "lion": 1, "sgd-momentum": 1, "muon": 1, "sgd": 0, "adafactor": 0, "galore": 0, "lomo": 0}


class Efficiency(NamedTuple):
    """What is reached: shares of peaks, seconds of a layer on the host, the shares of ZeRO's and of tensor
    parallelism's messages that computation hides.

    ``products`` is of ``Machine.flops`` and ``products16`` of ``flops16``; ``experts`` is what of ``products`` those of routed
    experts reach. ``spread`` is measured / predicted time, low and high; ``experts_spread`` that of models with routed experts.
    """

    name: str = "all of it"
    products: float = 1.0
    products16: float = 1.0
    experts: float = 1.0
    attention: float = 1.0
    scan: float = 1.0
    bandwidth: float = 1.0
    link: float = 1.0
    hidden: float = 0.0
    tensor_hidden: float = 0.0
    layer_seconds: float = 0.0
    routing_seconds: float = 0.0
    spread: tuple[float, float] = (1.0, 1.0)
    experts_spread: tuple[float, float] = (1.0, 1.0)


class Parts(NamedTuple):
    """Seconds of a step by what they go to, on the slowest stage; ``bubble`` is its wait for the others. They add up."""

    products: float
    attention: float
    memory: float
    host: float
    recompute: float
    tensor: float
    context: float
    expert: float
    data: float
    pipeline: float
    optimizer: float
    bubble: float

    @property
    def communication(self) -> float:
        """Messages that nothing hides."""
        return self.tensor + self.context + self.expert + self.data + self.pipeline


class StepTime(NamedTuple):
    """A step: seconds (as likely, and from low to high), tokens, and the FLOPs of the model and of the hardware."""

    seconds: float
    low: float
    high: float
    tokens: int
    gpus: int
    model_flops: int
    hardware_flops: int
    peak: float
    parts: Parts

    @property
    def tokens_per_second_per_gpu(self) -> float:
        """Of all GPUs the mean."""
        return self.tokens / (self.seconds * self.gpus)

    def mfu(self, seconds: float = 0.0) -> float:
        """The model's FLOPs over the peak of all GPUs for that long; the likely time unless said."""
        return self.model_flops / ((seconds or self.seconds) * self.gpus * self.peak)

    @property
    def hfu(self) -> float:
        """With what is computed again."""
        return self.hardware_flops / (self.seconds * self.gpus * self.peak)

    @property
    def bubble_share(self) -> float:
        """Of the step."""
        return self.parts.bubble / self.seconds

    @property
    def bound(self) -> str:
        """What takes most of it."""
        sides = {
            "compute": self.parts.products + self.parts.attention + self.parts.recompute,
            "memory": self.parts.memory + self.parts.optimizer,
            "host": self.parts.host, "communication": self.parts.communication, "bubble": self.parts.bubble,
        }  # fmt: skip
        return max(sides, key=lambda side: sides[side])


class _Layer(NamedTuple):
    """Seconds of a micro-batch in a layer, but for messages of data parallelism: products, attention, memory, recomputed, tensor,
    context, expert; what may hide further messages; and how long the host keeps the GPU waiting, below 0 where it does not."""

    parts: tuple[float, float, float, float, float, float, float]
    window: float
    waits: float


class Clock:
    """Times steps of one model on one kind of machine. Asked many times, it remembers what layers take."""

    def __init__(self, work: StepWork, machine: Machine, efficiency: Efficiency) -> None:
        self.work, self.machine, self.efficiency = work, machine, efficiency
        self.links = Links(machine, efficiency.link)
        self.alone: dict[tuple[object, ...], list[_Layer]] = {}
        self.layers: dict[tuple[object, ...], list[tuple[float, ...]]] = {}
        self.stepped: dict[tuple[object, ...], tuple[float, float]] = {}
        self.passed: dict[tuple[object, ...], tuple[float, tuple[float, ...], Counts]] = {}
        self.routed = any(kind.routed for kind in work.kinds)

    def time(self, recipe: Recipe, layout: Layout, *, causal: bool = True) -> StepTime:
        """A step with ``layout.micro_batches`` micro-batches of ``recipe.micro_batch`` sequences on each data-parallel rank.

        ``causal``: the mask of MFU's convention; what takes time is below the causal one in either case. The layout is taken to
        make sense (``Layout.check``). Raises NoAnswer for methods that train some of the model's own weights.
        """
        if recipe.method != "full" and recipe.method not in ADAPTERS:
            raise NoAnswer(f"{self.work.blueprint.name}: the time of a step of {recipe.method} is not known")
        m, work = layout.micro_batches, self.work
        total, slowest, counts = self._pass(recipe, layout)
        steady = sum(slowest)
        sent, optimizer = self._states(recipe, layout, counts, steady)
        bubble = (total - steady) / layout.chunks
        seconds = m * steady + sent + optimizer + bubble
        products, attention, memory, host, again, tensor, context, expert, data, pipeline = (m * part for part in slowest)
        parts = Parts(
            products, attention, memory, host, again, tensor, context, expert, data + sent, pipeline, optimizer, bubble
        )  # fmt: skip
        sequences = m * recipe.micro_batch * layout.dp
        forward, attended = work.forward_flops(causal=causal), work.attention_flops(causal=causal)
        layers = forward - work.head_flops
        repeated = {"none": 0, "selective": 3 * attended, "op": (layers - attended) // 2, "full": layers}
        # Of frozen weights no gradient is taken, so backward is a forward's worth of products, and twice attention's.
        model = 3 * forward if recipe.method == "full" else 2 * forward + attended
        low, high = self.efficiency.experts_spread if self.routed else self.efficiency.spread
        return StepTime(
            seconds, seconds * low, seconds * high, sequences * work.tokens, layout.gpus, model * sequences,
            (model + repeated[recipe.recompute]) * sequences, self.machine.flops, parts,
        )  # fmt: skip

    def _pass(self, recipe: Recipe, layout: Layout) -> tuple[float, tuple[float, ...], Counts]:
        """Seconds of a micro-batch through all stages, through the slowest by what they go to, and what that one holds."""
        key = (
            recipe.micro_batch, recipe.recompute, recipe.method, recipe.attention, recipe.loss, recipe.precision, layout.tp,
            layout.cp, layout.ep, layout.sequence_parallel, layout.vocab_parallel,
        )  # fmt: skip
        shared = *key, (layout.dp, layout.zero, layout.shard, layout.reduce_dtype, layout.stays) if layout.level >= 2 else 0
        whole = *shared, layout.pp, layout.chunks, layout.gpus <= self.machine.domain
        if whole in self.passed:
            return self.passed[whole]
        if key not in self.alone:
            self.alone[key] = [self._kind(kind, recipe, layout) for kind in self.work.kinds]
        if shared not in self.layers:
            pairs = zip(self.work.kinds, self.alone[key], strict=True)
            self.layers[shared] = [self._sharded(kind, found, recipe, layout) for kind, found in pairs]
        each, hop = self.layers[shared], self.links.hop(layout, recipe.micro_batch / layout.cp, self.work.seq * self.work.hidden)
        seen: dict[Counts, tuple[float, ...]] = {}
        stages: list[tuple[float, tuple[float, ...], Counts]] = []
        for index, counts in enumerate(self.work.stages(layout)):
            if counts not in seen:
                seen[counts] = tuple(sum(many * each[at][part] for at, many in counts) for part in range(len(each[0])))
            found = *seen[counts], hop * ((index > 0) + (index < layout.pp - 1))
            stages.append((sum(found), found, counts))
        _, slowest, held = max(stages, key=lambda stage: stage[0])
        self.passed[whole] = sum(stage[0] for stage in stages), slowest, held
        return self.passed[whole]

    def _sharded(self, kind: Kind, found: _Layer, recipe: Recipe, layout: Layout) -> tuple[float, ...]:
        """Seconds of a micro-batch in one layer of a kind: products, attention ... as in ``Parts``, up to ``data``."""
        data = self.links.gathered(kind, recipe, layout) if layout.level >= 2 else 0.0
        data -= min(data * self.efficiency.hidden, found.window)
        products, attention, memory, again, tensor, context, expert = found.parts
        return products, attention, memory, max(0.0, found.waits - data), again, tensor, context, expert, data

    def _kind(self, kind: Kind, recipe: Recipe, layout: Layout) -> _Layer:
        """A layer of a kind before data parallelism."""
        e, machine, t = self.efficiency, self.machine, layout.tp
        share, frozen = recipe.micro_batch / layout.cp, recipe.method != "full"
        beside, vocab = t if layout.sequence_parallel else 1, t if layout.vocab_parallel else 1
        again, eager = recipe.recompute == "full" and kind.layers > 0, recipe.attention == "eager"
        share_again = REPEATED[recipe.recompute] if kind.layers > 0 else 0.0
        passes = 2 if frozen else 3
        # A micro-batch reads weights for each product and adds to gradients.
        item = recipe.computed_item
        gradient = 0 if frozen else 2 * (FP32 if recipe.precision == "megatron" else item)
        moved = (item * (2 + share_again) + gradient) / (machine.bandwidth * e.bandwidth)
        rate, rate16 = machine.flops * e.products, machine.flops16 * e.products16
        once = products = 0.0
        for flops, reached, parameters in (
            (kind.split / t, rate, kind.split_parameters / t),
            (kind.routed / t, rate * e.experts, kind.expert_parameters / (t * layout.ep)),
            (kind.whole / beside, rate16, kind.whole_parameters),
            (kind.head / vocab, rate16, kind.vocab_parameters / vocab),
        ):
            if not flops:
                continue  # look-ups read a row, gains of norms are few
            forward = flops * share / reached
            recomputed = forward * share_again
            once += recomputed
            products += max(passes * forward + recomputed, parameters * moved) - recomputed
        # Eager kernels compute the square, of which the causal mask then throws half away.
        square = kind.attention + (kind.full - kind.causal if eager else 0)
        attended = square * share / (t * (rate16 if eager else machine.flops16 * e.attention))
        scanned = kind.scan * share / (t * machine.flops16 * e.scan)
        byte = share * HALF / (machine.bandwidth * e.bandwidth)
        logits = (LOGIT_PASSES if recipe.loss == "plain" else FUSED_LOGIT_PASSES) * kind.logits
        between = (kind.inside / t + kind.outside / beside + logits / vocab) * byte
        scores = SCORE_PASSES * kind.scores / t * byte if eager else 0.0
        attention = attended * (1 + (2 if eager else FLASH_BACKWARD)) + passes * scanned
        memory = 3 * between + (1 + SCORE_BACKWARD) * scores
        repeated = attended + scanned + scores + between + once if again else 0.0
        if recipe.recompute == "selective":
            repeated = attended + scores
        elif recipe.recompute == "op" and share_again:
            repeated = between + once
        busy = products + attention + memory + repeated
        # What hides one message cannot hide another. The next keys and values come while attention is at the ones before.
        links, window = self.links, busy
        context = links.context(kind, layout, share, again=again)
        hidden = min(context, attention + (attended if again else 0.0))
        context, window = context - hidden, window - hidden
        tensor = links.tensor(kind, layout, share, again=again)
        hidden = min(tensor * e.tensor_hidden, window)
        tensor, window = tensor - hidden, window - hidden
        expert = links.expert(kind, layout, share, self.work.picked, again=again)
        launched = kind.layers * (e.layer_seconds + (e.routing_seconds if kind.routed else 0.0)) * (4 / 3 if again else 1)
        waits = launched - busy - tensor - context - expert
        return _Layer((products, attention, memory, repeated, tensor, context, expert), window, waits)

    def _states(self, recipe: Recipe, layout: Layout, counts: Counts, window: float) -> tuple[float, float]:
        """Once a step: gradients summed and parameters gathered, less what a micro-batch hides; the optimizer."""
        if recipe.method != "full":
            return 0.0, 0.0
        key = counts, layout.holding, recipe.precision, recipe.optimizer
        if key not in self.stepped:
            shared = routed = 0.0
            for at, many in counts:
                (own, _), (experts, _) = elements_of(self.work.kinds[at], layout)
                shared, routed = shared + many * own, routed + many * experts
            elements = shared / layout.sharers(experts=False) + routed / layout.sharers(experts=True)
            moved = elements * step_bytes(recipe) / (self.machine.bandwidth * self.efficiency.bandwidth)
            self.stepped[key] = self.links.states((shared, routed), recipe, layout), moved
        sent, moved = self.stepped[key]
        return sent - min(sent * self.efficiency.hidden, window), moved


def step_bytes(recipe: Recipe) -> int:
    """What a step of the optimizer reads and writes for an element: its gradient, its states twice, the weight twice; with a master
    copy that twice, and the weight. AdamW: 14 bytes in bf16, 28 in fp32, 30 with Megatron's master copy."""
    item = 4 if recipe.precision == "megatron" else recipe.base_item
    states = 2 if recipe.optimizer.endswith("8bit") else MOMENTS[recipe.optimizer.removeprefix(PAGED)] * item
    return item + 2 * states + 2 * item + (2 if recipe.precision == "megatron" else 0)


def step_time(
    blueprint: Blueprint, recipe: Recipe, layout: Layout, machine: Machine, efficiency: Efficiency, *, causal: bool = True
) -> StepTime:  # fmt: skip
    """One step. Raises UsageError for what does not go together or does not divide, and NoAnswer as ``Clock`` and ``StepWork``."""
    recipe.check()
    layout.check(blueprint, recipe)
    return Clock(StepWork(blueprint, recipe.seq), machine, efficiency).time(recipe, layout, causal=causal)
