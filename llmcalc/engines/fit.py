"""Does a model fit on GPUs: weights, cache, working memory and a stated reserve against what a process gets.

As transformers holds a model: the layers are spread over the GPUs in order (device_map="auto"), each whole on one of them,
with the cache of its tokens; the embedding (and a head tied to it) stands with the first, a head of its own with the last.
The GPU that needs most decides.

The working set of the forward pass and the reserve are estimates, and say so; weights and cache are exact.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, product, without_formulas
from llmcalc.engines import kv
from llmcalc.engines.weights import Method, assign, share_bytes
from llmcalc.engines.weights import explain as explain_weights
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Dim, Quantity, least
from llmcalc.units import GiB

# What a CUDA process takes before it holds a tensor (0.3 to 0.8 GiB of context), library workspaces and allocator slack.
RESERVE_BYTES = GiB
# A prompt is read in pieces of at most so many tokens (vLLM's and SGLang's default order of size).
CHUNK_TOKENS = 2048
MOST_SEQUENCES, MOST_TOKENS = 2**20, 2**40


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


class WorkingSet(NamedTuple):
    """What a forward pass holds at its widest operation: the residual, what the operation reads and what it writes."""

    width: Any
    logits: Any
    in_pieces: bool

    def bytes(self, tokens: Any, batch: Any) -> Any:
        """16-bit activations of ``tokens`` per sequence, and each sequence's logits in fp32.

        A causal stack may read a prompt piece by piece; one that looks both ways needs all of it at once.
        """
        live = product((batch, tokens))
        if self.in_pieces:
            live = least(live, Dim(CHUNK_TOKENS, "chunk") if isinstance(live, Dim) else CHUNK_TOKENS)
        live = product((2, live)) * self.width
        return live if self.logits is None else live + product((4, batch, self.logits))


def working_set(blueprint: Blueprint) -> WorkingSet:
    """The widest operation of a model's layers. Raises NoAnswer for a blueprint of which tensors alone are known."""
    if not blueprint.ops:
        raise NoAnswer(f"{blueprint.name}: the operations are not known: {blueprint.unknown_cache or 'only its weights are'}")
    inner = [op for op in blueprint.ops if op.kind == "matmul" and op.layers and op.rows not in ("patch", "pass")]
    widest = max(inner, key=lambda op: int(op.repeats) * (int(op.inner) + int(op.width)))
    heads = [op for op in blueprint.ops if op.rows == "logit" and op.part == "lm_head"]
    width = Dim(blueprint.stacks[-1].hidden, "h") + product((widest.repeats, widest.inner + widest.width))
    return WorkingSet(width, heads[0].width if heads else None, blueprint.generates and not blueprint.has_encoder)


class Demand:
    """A model under a quantisation, ready to be asked at many contexts and batches.

    ``encoder_context`` is what an encoder beside a decoder reads; as much as the decoder unless said. ``units`` cannot be
    divided: they are the layers, with the ends attached to the first and the last.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        method: Method,
        dtype: str = "",
        kv_dtype: str = "bf16",
        reserve: int = RESERVE_BYTES,
        encoder_context: int | None = None,
    ) -> None:
        self.blueprint, self.method, self.dtype = blueprint, method, dtype or blueprint.dtype
        self.kv_dtype, self.reserve, self.encoder_context = kv_dtype, reserve, encoder_context
        self.bare = without_formulas(blueprint)
        symbolic = working_set(blueprint)
        self.working = symbolic._replace(width=int(symbolic.width), logits=symbolic.logits and int(symbolic.logits))
        self.first_unit: dict[str, int] = {}
        self.units = 0
        for stack in blueprint.stacks:
            self.first_unit[stack.name] = self.units
            self.units += stack.depth
        self.weights = self._unit_weights()
        self.weight_bytes = sum(self.weights)

    def _unit_weights(self) -> list[int]:
        depth = {stack.name: stack.depth for stack in self.blueprint.stacks}
        weights = [0] * self.units
        for share in assign(self.bare, self.method):
            first, last = self.first_unit[share.weight.stack], share.weight.last
            total = int(share_bytes(share, self.method, self.dtype))
            if not share.layers:
                # The token table serves the first layer that runs, whichever stack names it.
                unit = first + depth[share.weight.stack] - 1 if last else (0 if share.weight.role == "embedding" else first)
                weights[unit] += total
            else:
                for layer in share.layers:
                    weights[first + layer] += total // len(share.layers)
        return weights

    def cache_bytes(self, context: int, batch: int) -> int:
        """All that is cached, over all GPUs."""
        return kv.size(self.bare, context, batch, self.kv_dtype, self.encoder_tokens(context)).total

    def encoder_tokens(self, context: int) -> int:
        """What the encoder reads when the decoder stands at ``context``."""
        return self.blueprint.encoder_tokens(self.encoder_context, context)

    def unit_bytes(self, context: int, batch: int) -> list[int]:
        """Weights and cache of every unit."""
        loads = list(self.weights)
        for cache in self.bare.caches:
            first = self.first_unit[cache.stack]
            one = -(-kv.entry_bytes(cache, context, batch, self.kv_dtype, self.encoder_tokens(context)) // len(cache.layers))
            for layer in cache.layers:
                loads[first + layer] += one
        return loads

    def working_bytes(self, context: int, batch: int) -> int:
        """What the forward pass holds beside weights and cache."""
        return int(self.working.bytes(max(context, self.encoder_tokens(context)), batch))


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


def _spread(loads: list[int], gpus: int) -> list[tuple[int, int]]:
    """The units' ranges per GPU that make the fullest GPU as empty as it can be."""
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


def fit(demand: Demand, available: int, *, gpus: int = 1, context: int, batch: int = 1) -> Fit:
    """The verdict on ``gpus`` equal GPUs of ``available`` bytes, with what would fit and how many it takes."""

    def room(at_context: int, at_batch: int) -> int:
        return available - demand.reserve - demand.working_bytes(at_context, at_batch)

    def enough(at_context: int, at_batch: int) -> bool:
        capacity = room(at_context, at_batch)
        if gpus == 1:
            return demand.weight_bytes + demand.cache_bytes(at_context, at_batch) <= capacity
        needed = _pack(demand.unit_bytes(at_context, at_batch), capacity)
        return needed is not None and needed <= gpus

    loads = demand.unit_bytes(context, batch)
    ranges = _spread(loads, gpus)
    start, stop = max(ranges, key=lambda r: sum(loads[r[0] : r[1]]))
    weight_bytes = sum(demand.weights[start:stop])
    cached = demand.cache_bytes(context, batch) if len(ranges) == 1 else sum(loads[start:stop]) - weight_bytes
    load = Load(weight_bytes, cached, demand.working_bytes(context, batch), demand.reserve)
    trained = demand.blueprint.context
    growing = any(c.per == "token" and c.window is None for c in demand.blueprint.caches)
    bounded = trained if trained is not None else (MOST_TOKENS if growing else None)
    max_context = largest(lambda n: enough(n, batch), bounded) if bounded else (None if enough(context, batch) else 0)
    growing_tokens = largest(lambda n: enough(n, 1), MOST_TOKENS) if growing else None
    max_batch = largest(lambda n: enough(context, n), MOST_SEQUENCES)
    unbounded = max_batch == MOST_SEQUENCES
    return Fit(
        fits=load.required_bytes <= available,
        load=load,
        available_bytes=available,
        deciding_gpu=ranges.index((start, stop)),
        used_gpus=len(ranges),
        units=(start, stop),
        min_gpus=_pack(loads, room(context, batch)),
        max_context=max_context,
        max_batch=None if unbounded else max_batch,
        kv_tokens=growing_tokens,
    )


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
