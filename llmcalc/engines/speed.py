"""How fast a model reads a prompt and writes an answer: a roofline with measured efficiencies.

A pass takes as long as its slower side, memory or arithmetic, and what neither hides (S. Williams et al., "Roofline", CACM 2009;
Pope et al. 2022, arXiv:2211.05102, for transformers):

    memory      weights / (bandwidth x e_w) + cache / (bandwidth x e_c)
    compute     FLOPs / (dense rate x e_f)
    link        two all-reduces a layer under tensor parallelism, each 2 (n - 1) / n of its message over the link, and a latency
    experts     kernels of routed experts have few rows each and do not hide their reading behind their arithmetic: both add up
    overhead    a fixed time per layer: launches, and kernels too small to fill a GPU

The efficiencies are of a runtime and a class of GPUs, fitted on published measurements (docs/speed.md). Where layers are
spread over GPUs one after the other, a token goes through all of them in turn, and pieces of a prompt form a pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from llmcalc.engines.roofline import Roofline, Work

MOST_PIECES = 512  # of a prompt that are added up one by one


class Efficiency(NamedTuple):
    """What a runtime reaches on a class of GPUs. Shares of the peak, seconds, and ranges of measured / predicted."""

    name: str
    bandwidth: float
    cache: float
    compute: float
    layer_seconds: float
    expert_tile: float = 0.0  # rows that a kernel works through for each expert beyond those it was sent
    score_bytes: float = 0.0  # moved for each score of a head in prompts; 0: flash attention, none are stored
    hop_seconds: float = 0.0  # from one GPU's layers to the next one's
    reduce_seconds: float = 0.0  # latency of an all-reduce
    link: float = 0.8  # share of the link's rate
    host_bound: bool = False  # launches run ahead of the GPU: the slower of the two decides, not their sum
    prompt_tokens: int = 2048  # of a prompt that one pass reads
    pipeline_tokens: int = 2048  # of a prompt that pass through GPUs behind each other without waiting
    decode_range: tuple[float, float] = (1.0, 1.0)
    prefill_range: tuple[float, float] = (1.0, 1.0)


class Machine(NamedTuple):
    """Peaks of one GPU per second, and how many work on a model: ``ranks`` together on each layer, or ``stages`` in turn."""

    bandwidth: float
    flops: float
    link: float | None
    ranks: int = 1
    stages: int = 1


class Time(NamedTuple):
    """Seconds of one pass by what they go to. ``compute`` and memory (``weights`` and ``cache``) overlap; the rest adds up.

    ``experts`` is what of routed experts does not overlap.
    """

    weights: float
    cache: float
    compute: float
    experts: float
    link: float
    overhead: float
    host_bound: bool = False

    @property
    def total(self) -> float:
        """How long the pass takes."""
        gpu = max(self.weights + self.cache, self.compute) + self.experts + self.link
        return max(gpu, self.overhead) if self.host_bound else gpu + self.overhead

    @property
    def bound(self) -> str:
        """What takes most of it: weights, cache, compute, link or overhead."""
        sides: Mapping[str, float] = self._asdict()
        if self.compute > self.weights + self.cache:
            names: tuple[str, ...] = ("compute", "link", "overhead")
        else:
            names = ("weights", "cache", "link", "overhead")
        return max(names, key=lambda name: sides[name])


def pass_time(work: Work, layers: int, machine: Machine, e: Efficiency) -> Time:
    """One pass of one rank through all layers."""
    rate, bandwidth = machine.flops * e.compute, machine.bandwidth * e.bandwidth
    routed = (work.expert_flops + work.tile_flops * e.expert_tile) / rate
    attended = work.scores * e.score_bytes / bandwidth if e.score_bytes else work.attention_flops / rate
    link = (machine.stages - 1) * e.hop_seconds
    if machine.ranks > 1:
        moved = (
            0.0 if machine.link is None else 2 * (machine.ranks - 1) / machine.ranks * work.message_bytes / (machine.link * e.link)
        )
        link += 2 * layers * (moved + e.reduce_seconds)
    return Time(
        work.weight_bytes / bandwidth,
        work.cache_bytes / (machine.bandwidth * e.cache),
        work.dense_flops / rate + routed + attended,
        min(work.expert_bytes / bandwidth, routed),
        link,
        layers * e.layer_seconds,
        e.host_bound,
    )


def decode_time(roof: Roofline, machine: Machine, e: Efficiency, context: float, batch: int = 1, tokens: int = 1) -> Time:
    """One step for every sequence at this context. Scores of a single query are kept on the chip."""
    work = roof.decode(context, batch, tokens)
    return pass_time(work._replace(scores=0.0), roof.layers, machine, e)


def prefill_seconds(roof: Roofline, machine: Machine, e: Efficiency, tokens: int, batch: int = 1) -> float:
    """A prompt of every sequence, piece by piece.

    With layers in turn, pieces of a batch follow each other: m pieces through n GPUs take (m + n - 1) / n times one.
    """
    piece = max(1, min(tokens, e.prompt_tokens // batch))
    whole, rest = divmod(tokens, piece)

    def seconds(start: int, count: int) -> float:
        return pass_time(roof.prefill(start, count, batch), roof.layers, machine, e).total

    if whole <= MOST_PIECES:
        total = sum(seconds(index * piece, piece) for index in range(whole))
    else:
        # What a piece takes grows evenly with what stands before it, so of very many some are enough.
        starts = [piece * (whole - 1) * sample // MOST_PIECES for sample in range(MOST_PIECES + 1)]
        times = [seconds(start, piece) for start in starts]
        total = whole * (sum(times) - (times[0] + times[-1]) / 2) / MOST_PIECES
    if rest:
        total += seconds(whole * piece, rest)
    if machine.stages > 1:
        pieces, most = -(-tokens // piece), max(1, e.pipeline_tokens // (piece * batch))
        full, left = divmod(pieces, most)
        waves = full * (most + machine.stages - 1) + (left + machine.stages - 1 if left else 0)
        total *= waves / (machine.stages * pieces)
    return total


def prefill_bound(roof: Roofline, machine: Machine, e: Efficiency, tokens: int, batch: int = 1) -> str:
    """What takes most of a prompt's last piece."""
    piece = min(tokens, max(1, e.prompt_tokens // batch))
    return pass_time(roof.prefill(tokens - piece, piece, batch), roof.layers, machine, e).bound


class Draft(NamedTuple):
    """Speculative decoding: a draft model writes ``tokens`` tokens, each accepted with probability ``acceptance``.

    Leviathan et al. 2023, arXiv:2211.17192, section 3.1: a step yields (1 - a^(k+1)) / (1 - a) tokens in expectation.
    """

    roof: Roofline
    acceptance: float
    tokens: int

    @property
    def expected(self) -> float:
        """Tokens that a step is expected to yield."""
        a, k = self.acceptance, self.tokens
        return float(k + 1) if a == 1 else (1 - a ** (k + 1)) / (1 - a)


class Step(NamedTuple):
    """A decoding step: the target's pass, seconds of the draft before it, tokens that each sequence gets from it."""

    time: Time
    draft_seconds: float
    tokens: float

    @property
    def seconds_per_token(self) -> float:
        """Time per token of one sequence."""
        return (self.time.total + self.draft_seconds) / self.tokens


def step(roof: Roofline, machine: Machine, e: Efficiency, context: float, batch: int = 1, draft: Draft | None = None) -> Step:
    """One step at this context, with a draft or without. The draft runs on the same GPUs."""
    if draft is None:
        return Step(decode_time(roof, machine, e, context, batch), 0.0, 1.0)
    drafted = draft.tokens * decode_time(draft.roof, machine, e, context, batch).total
    return Step(decode_time(roof, machine, e, context, batch, draft.tokens + 1), drafted, draft.expected)


class Speed(NamedTuple):
    """The answer: tokens per second over the whole batch, seconds to the first token and per token of one sequence."""

    prefill: float
    decode: float
    ttft: float
    tpot: float
    first: Step
    mean: Step
    prefill_bound: str


def speed(
    roof: Roofline, machine: Machine, e: Efficiency, prompt: int, output: int, batch: int = 1, draft: Draft | None = None
) -> Speed:
    """``batch`` requests at once, each a prompt of so many tokens and an answer of so many.

    Time per step grows evenly with the context, so the middle of the answer is its mean; of a window the ends are asked too.
    """
    filled = prefill_seconds(roof, machine, e, prompt, batch)
    steps = [step(roof, machine, e, prompt + output * share, batch, draft) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    weights = (1, 4, 2, 4, 1)  # Simpson's rule
    tpot = sum(w * s.seconds_per_token for w, s in zip(weights, steps, strict=True)) / sum(weights)
    bound = prefill_bound(roof, machine, e, prompt, batch)
    return Speed(batch * prompt / filled, batch / tpot, filled, tpot, steps[0], steps[2], bound)


def knee(roof: Roofline, machine: Machine, e: Efficiency, context: float) -> int:
    """The least batch whose step takes at least twice as long as that of one sequence: up to it, sequences come half free."""
    alone = decode_time(roof, machine, e, context).total
    low, high = 1, 2
    while high < 2**30 and decode_time(roof, machine, e, context, high).total < 2 * alone:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decode_time(roof, machine, e, context, middle).total >= 2 * alone else (middle, high)
    return high
