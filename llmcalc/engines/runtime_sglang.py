"""SGLang: a static share of the memory holds weights and a pool of tokens; the rest is for activations and CUDA graphs.

The pool is what is free once the weights stand, less the part of what was free before that is not static
(``model_runner.py``, ``profile_max_num_token``). Pages are of one token; layers with a window have a pool of their own, and
each running request a slot of recurrent state, with one to spare.
"""

from collections import Counter
from typing import Any, NamedTuple

from llmcalc.engines import ranks
from llmcalc.engines.fit import Load
from llmcalc.engines.runtimes import Case, check_split, held, known, kv_rank_bytes, state_bytes
from llmcalc.quantity import Dim, ceil_div
from llmcalc.units import MiB


class Reach(NamedTuple):
    """What SGLang prepares for on GPUs of up to so many MiB: tokens of a chunk, and sequences in the largest graph."""

    most_mib: float
    chunk: int
    graph: int
    graph_wide: int  # with four GPUs or more


# server_args.py, _handle_gpu_memory_settings.
REACHES = (
    Reach(20 * 1024, 2048, 8, 8),
    Reach(35 * 1024, 2048, 24, 80),
    Reach(60 * 1024, 4096, 32, 160),
    Reach(160 * 1024, 8192, 256, 512),
    Reach(float("inf"), 16384, 512, 512),
)


def static_share(driver_bytes: int, tp: int, pp: int) -> float:
    """mem_fraction_static where it is not given: all but metadata, a chunk's activations and CUDA graphs."""
    total = driver_bytes / MiB
    reach = next(reach for reach in REACHES if total < reach.most_mib)
    graph = reach.graph_wide if tp >= 4 else reach.graph
    kept = 512 + 1.5 * max(reach.chunk, 2048) + 2 * graph + tp * pp / 8 * 1024
    if total > 60 * 1024:
        kept = max(kept, 10 * 1024)
    return max(0.0, round((total - kept) / total, 3)) if total else 0.0


class Stage(NamedTuple):
    """One pipeline stage on one rank: bytes of a token in layers without and with a window, and of a sequence's states."""

    weight_bytes: int
    full: int
    windowed: int
    state: int


class SglangPlan:
    """SGLang on so many GPUs. Raises UsageError where heads cannot be divided, NoAnswer where the cache is not known."""

    def __init__(self, case: Case) -> None:
        model, rules, split = known(case), case.runtime.rules, case.split.checked()
        check_split(model.blueprint, split.tp, split.pp)
        self.case, self.replicas = case, split.dp
        weights, own, settings = held(case, model), model.dtype, case.settings
        self.stages = []
        for start, stop in ranks.stages(model.depth, split.pp):
            mine = Counter(entry for layer in model.stage_entries(start, stop) for entry in layer)
            states = [(e, n) for e, n in mine.items() if e.kind == "state"]
            windows = [(e, n) for e, n in mine.items() if e.kind != "state" and e.window is not None]
            full = [(e, n) for e, n in mine.items() if e.kind != "state" and e.window is None]
            if not full:
                # Without layers that see everything there is one pool, and nothing is given back.
                full, windows = windows, []
            self.stages.append(Stage(
                weights.stage(start, stop, tied=model.tied) + model.rope_bytes,
                sum(n * kv_rank_bytes(e, settings.kv_dtype, settings.value_dtype, split.tp) for e, n in full),
                sum(n * kv_rank_bytes(e, settings.kv_dtype, settings.value_dtype, split.tp) for e, n in windows),
                sum(n * state_bytes(e, settings.state_dtype, own, split.tp) for e, n in states),
            ))  # fmt: skip
        given = settings.utilization
        if given is None and rules.utilization_percent is not None:
            given = rules.utilization_percent / 100
        self.share = given if given is not None else static_share(case.card.driver_bytes, split.tp, split.pp)
        self.overhead = rules.process_bytes + (rules.peer_bytes if split.gpus > 1 else 0)
        self.free = max(0, case.card.bytes - self.overhead)
        self.apart = self.free - int(self.free * self.share)
        self.available = case.card.bytes
        if settings.pool_bytes is not None:
            asked = max(s.weight_bytes for s in self.stages) + self.apart + self.overhead + settings.pool_bytes
            self.available = min(asked, case.card.bytes)

    def cache_bytes(self, stage: Stage, tokens: int, requests: int) -> int:
        """Pools for so many tokens of so many requests on a rank."""
        share = self.case.runtime.rules.window_share_percent
        windowed = int(ceil_div(share * tokens, 100)) if stage.windowed else 0
        states = (requests + 1) * stage.state if stage.state else 0
        return tokens * stage.full + windowed * stage.windowed + states

    def loads(self, context: int, batch: int) -> list[Load]:
        """Bytes on a rank of each pipeline stage."""
        requests = ceil_div(batch, self.replicas)
        encoder = self.case.blueprint.encoder_tokens(self.case.settings.encoder_context, context)
        tokens = requests * max(context, encoder)
        return [Load(s.weight_bytes, self.cache_bytes(s, tokens, requests), self.apart, self.overhead) for s in self.stages]

    def formulas(self, context: int, batch: int, gpu: int) -> dict[str, Any]:
        """How the figures of a stage come about."""
        stage, requests = self.stages[gpu], ceil_div(batch, self.replicas)
        tokens = Dim(
            requests * max(context, self.case.blueprint.encoder_tokens(self.case.settings.encoder_context, context)), "tokens"
        )
        cached = tokens * Dim(stage.full, "bytes_per_token")
        if stage.windowed:
            share = Dim(self.case.runtime.rules.window_share_percent, "window_share")
            cached += ceil_div(share * tokens, 100) * Dim(stage.windowed, "bytes_per_window_token")
        if stage.state:
            cached += (Dim(requests, "requests") + 1) * Dim(stage.state, "state_bytes")
        return {"kv_bytes": cached, "activation_bytes": Dim(self.free, "free") - Dim(self.free - self.apart, "static")}

    def pool_bytes(self, stage: Stage) -> int:
        """What is left for the cache on a rank."""
        return max(0, self.available - stage.weight_bytes - self.apart - self.overhead)

    def tokens(self, _context: int) -> int | None:
        """Tokens of the pool, of the stage that has room for fewest; one request's states are taken out."""
        found = []
        for stage in self.stages:
            percent = self.case.runtime.rules.window_share_percent if stage.windowed else 0
            per_100 = 100 * stage.full + percent * stage.windowed
            if per_100:
                tokens = max(0, 100 * (self.pool_bytes(stage) - self.cache_bytes(stage, 0, 1)) // per_100)
                # The pool of windows is rounded up.
                found.append(max(0, tokens - (self.cache_bytes(stage, tokens, 1) > self.pool_bytes(stage))))
        return min(found, default=None)
