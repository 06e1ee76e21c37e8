"""Does a model fit on GPUs: weights, cache, working memory and a stated reserve against what a process gets.

As transformers holds a model: the layers are spread over the GPUs in order (device_map="auto"), each whole on one of them,
with the cache of its tokens; the embedding (and a head tied to it) stands with the first, a head of its own with the last.
The GPU that needs most decides.

The working set of the forward pass and the reserve are estimates, and say so; weights and cache are exact.
"""

from collections.abc import Callable
from typing import NamedTuple

from llmcalc.engines import kv
from llmcalc.engines.demand import CHUNK_TOKENS, MOST_SEQUENCES, MOST_TOKENS, Demand, working_set
from llmcalc.engines.weights import explain as explain_weights
from llmcalc.quantity import Dim, Quantity

__all__ = ["Demand", "Fit", "Load", "explain", "fit", "held_by", "largest", "longest", "spread"]


class Load(NamedTuple):
    """Bytes on the GPU that decides."""

    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    overhead_bytes: int

    @property
    def required_bytes(self) -> int:
        """All of it together."""
        return sum(self)


def _pack(loads: list[int], capacity: int) -> int | None:
    """GPUs that the units need in order, or None where one unit alone is too large."""
    gpus, free = 1, capacity
    for load in loads:
        if load > capacity:
            return None
        if load > free:
            gpus, free = gpus + 1, capacity
        free -= load
    return gpus


def spread(loads: list[int], gpus: int) -> list[tuple[int, int]]:
    """The units' ranges per GPU that make the fullest GPU as empty as it can be."""
    if gpus == 1:
        return [(0, len(loads))]
    low, high = max(loads), sum(loads)
    while low < high:
        middle = (low + high) // 2
        needed = _pack(loads, middle)
        if needed is not None and needed <= gpus:
            high = middle
        else:
            low = middle + 1
    ranges, start, free = [], 0, low
    for index, load in enumerate(loads):
        if load > free:
            ranges.append((start, index))
            start, free = index, low
        free -= load
    return [*ranges, (start, len(loads))]


class Fit(NamedTuple):
    """The answer for one model on one kind of GPU.

    ``units`` is the range of layers on the GPU that decides. ``max_context`` and ``max_batch`` are None where nothing
    bounds them; ``max_context`` is at most what the model was trained for. ``kv_tokens`` is the longest sequence whose cache
    fits, trained for or not, None where the cache does not grow.
    """

    fits: bool
    load: Load
    available_bytes: int
    deciding_gpu: int
    used_gpus: int
    units: tuple[int, int]
    min_gpus: int | None
    max_context: int | None
    max_batch: int | None
    kv_tokens: int | None


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest n up to ``most`` that fits (0 where none does), for a condition that once failed stays failed."""
    if not fits(1):
        return 0
    low, step = 1, 1
    while low + step <= most and fits(low + step):
        low += step
        step *= 2
    high = min(low + step, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def held_by(demand: Demand, units: tuple[int, int], context: int, batch: int) -> tuple[int, int]:
    """Weights and cache of a range of units."""
    start, stop = units
    weights = sum(demand.weights[start:stop])
    if stop - start == demand.units:
        return weights, demand.cache_bytes(context, batch)
    return weights, sum(demand.unit_bytes(context, batch)[start:stop]) - weights


class _Search:
    """The largest context and batch on so many GPUs: in closed form on one, by trial on several."""

    def __init__(self, demand: Demand, available: int, gpus: int) -> None:
        self.demand, self.available, self.gpus = demand, available, gpus

    def room(self, context: int, batch: int) -> int:
        """What a GPU has for weights and cache."""
        return self.available - self.demand.reserve - self.demand.working_bytes(context, batch)

    def enough(self, context: int, batch: int) -> bool:
        """Whether everything fits."""
        if self.gpus == 1:
            return self.demand.total_bytes(context, batch) <= self.available
        needed = _pack(self.demand.unit_bytes(context, batch), self.room(context, batch))
        return needed is not None and needed <= self.gpus

    def context(self, batch: int, most: int) -> int:
        """The largest context up to ``most``."""
        if self.gpus == 1:
            return min(most, self.demand.contexts(batch).largest(self.available))
        return largest(lambda n: self.enough(n, batch), most)

    def batch(self, context: int) -> int:
        """The largest batch."""
        if self.gpus == 1:
            return self.demand.batches(context).largest(self.available)
        return largest(lambda n: self.enough(context, n), MOST_SEQUENCES)


def fit(demand: Demand, available: int, *, gpus: int = 1, context: int, batch: int = 1) -> Fit:
    """The verdict on ``gpus`` equal GPUs of ``available`` bytes, with what would fit and how many it takes."""
    search = _Search(demand, available, gpus)
    loads = demand.unit_bytes(context, batch)
    ranges = spread(loads, gpus)
    start, stop = ranges[0] if len(ranges) == 1 else max(ranges, key=lambda r: sum(loads[r[0] : r[1]]))
    weight_bytes, cached = held_by(demand, (start, stop), context, batch)
    working = demand.working_bytes(context, batch)
    load = Load(weight_bytes, cached, working, demand.reserve)
    fits = load.required_bytes <= available
    trained = demand.blueprint.context
    max_context = search.context(batch, MOST_TOKENS if trained is None else trained)
    max_batch = search.batch(context)
    return Fit(
        fits=fits,
        load=load,
        available_bytes=available,
        deciding_gpu=ranges.index((start, stop)),
        used_gpus=len(ranges),
        units=(start, stop),
        min_gpus=1 if gpus == 1 and fits else _pack(loads, available - demand.reserve - working),
        max_context=None if trained is None and max_context == MOST_TOKENS else max_context,
        max_batch=None if max_batch == MOST_SEQUENCES else max_batch,
        kv_tokens=longest(demand, available, gpus),
    )


def longest(demand: Demand, available: int, gpus: int) -> int | None:
    """The longest single sequence that fits, trained for or not; None where the cache does not grow."""
    return _Search(demand, available, gpus).context(1, MOST_TOKENS) if demand.growing else None


def explain(demand: Demand, available: int, *, gpus: int, context: int, batch: int) -> Quantity:
    """What is required on the GPU that decides, as a tree."""
    answer = fit(demand, available, gpus=gpus, context=context, batch=batch)
    s, b = Dim(context, "s"), Dim(batch, "b")
    alone = answer.used_gpus == 1
    held = _held(demand, context, batch) if alone else _held_by_layers(demand, context, batch, answer.units)
    working_on = working_set(demand.blueprint)
    encoder = demand.encoder_tokens(context)
    working = working_on.bytes(Dim(encoder, "s_enc") if encoder > context else s, b)
    piece = f"a piece of at most {CHUNK_TOKENS} tokens" if working_on.in_pieces else "all tokens, which look both ways"
    widest = f"widest operation over {piece}, 16-bit, and fp32 logits"
    stated = "stated reserve: CUDA context, library workspaces, allocator slack"
    return Quantity.sum(
        "required_bytes",
        "bytes",
        [
            *held,
            Quantity.of("activation_bytes", working, "bytes", kind="estimated", source=widest),
            Quantity("overhead_bytes", answer.load.overhead_bytes, "bytes", kind="estimated", source=stated),
        ],
    )


def _held(demand: Demand, context: int, batch: int) -> list[Quantity]:
    """Weights and cache of the whole model, opened down to tensors."""
    blueprint, encoder = demand.blueprint, demand.encoder_tokens(context)
    groups = [
        kv.explain(blueprint, context, batch, demand.kv_dtype, encoder, group)
        for group in kv.GROUPS
        if any(kv.entries(blueprint, group))
    ]
    cache = groups[0] if len(groups) == 1 else Quantity.sum("kv_bytes", "bytes", groups, source=kv.convention(blueprint))
    return [explain_weights(blueprint, demand.method, demand.dtype), cache]


def _held_by_layers(demand: Demand, context: int, batch: int, units: tuple[int, int]) -> list[Quantity]:
    """Weights and cache of the layers on the GPU that decides."""
    first, last = units
    loads = demand.unit_bytes(context, batch)
    names = [f"{stack.name} layer {layer + 1}" for stack in demand.blueprint.stacks for layer in range(stack.depth)]
    weights = [Quantity(names[i], demand.weights[i], "bytes") for i in range(first, last)]
    cache = [Quantity(names[i], loads[i] - demand.weights[i], "bytes") for i in range(first, last)]
    where = f"layers {first + 1} to {last} of {demand.units}, the fullest GPU's; the ends stand with the first and the last"
    return [
        Quantity.sum("weight_bytes", "bytes", weights, source=where),
        Quantity.sum("kv_bytes", "bytes", cache, source=kv.convention(demand.blueprint)),
    ]
