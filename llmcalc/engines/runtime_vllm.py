"""vLLM: a share of each GPU is the budget; what weights, a profiled peak and CUDA graphs leave of it is cut into blocks.

Layers are grouped by what they cache. All groups have as many layers as the smallest kind (or the largest, where that is less
than half as much more), and one size of page: layers that cache less per token have larger blocks, recurrent states are padded
to a page (vLLM documentation, docs/design/hybrid_kv_cache_manager.md; v1/core/kv_cache_utils.py).
"""

from typing import Any, NamedTuple

from llmcalc.engines import ranks
from llmcalc.engines.fit import Load
from llmcalc.engines.runtime_model import Entry, Known
from llmcalc.engines.runtimes import Case, check_split, held, known, kv_rank_bytes, state_bytes
from llmcalc.quantity import Dim, ceil_div

# Attention kernels take blocks of multiples of so many tokens.
KERNEL_TOKENS = 16


class Kind(NamedTuple):
    """Layers that cache alike: bytes of a token, or (``state``) of a sequence."""

    size: int
    state: bool
    window: int | None = None


class Group(NamedTuple):
    """Layers that share a table of blocks: their kind and the tokens of a block."""

    kind: Kind
    block: int


class Pages(NamedTuple):
    """How a stage's cache is cut: ``bytes`` of a block in all the layers of a group."""

    bytes: int
    groups: tuple[Group, ...]

    def blocks(self, context: int, prompt: int, states: int, encoder: int) -> int:
        """Blocks that a request of this length holds at most."""
        held = 0
        for kind, block in self.groups:
            if kind.state:
                held += states
            elif kind.window is None:
                held += ceil_div(max(context, encoder), block)
            else:
                held += ceil_div(min(context, kind.window - 1 + prompt), block) + 1
        return held


def _kind(entries: tuple[Entry, ...], case: Case, own: str) -> Kind | None:
    """What a layer caches, as one kind. None where it caches nothing."""
    tp, settings = case.split.tp, case.settings
    states = [state_bytes(entry, settings.state_dtype, own, tp) for entry in entries if entry.kind == "state"]
    tokens = [entry for entry in entries if entry.kind != "state"]
    if tokens:
        size = sum(kv_rank_bytes(entry, settings.kv_dtype, settings.value_dtype, tp) for entry in tokens)
        whole = not case.runtime.rules.hybrid_groups
        # Attention in chunks is given the whole context: with groups of its own it is slower, and off unless asked for.
        seen = whole or any(entry.window is None or entry.chunked for entry in tokens)
        return Kind(size, False, None if seen else tokens[0].window)
    return Kind(sum(states), True) if states else None


def pages_of(kinds: list[Kind], block: int) -> Pages | None:
    """How the caches of these layers are cut into blocks; None where there are none."""
    if not kinds:
        return None
    alike = {(kind.state, kind.window) for kind in kinds}
    if len(alike) == 1:
        # One kind of attention: a block has its tokens in every layer, however wide each is.
        if kinds[0].state:
            return Pages(sum(kind.size for kind in kinds), (Group(kinds[0], 1),))
        return Pages(block * sum(kind.size for kind in kinds), (Group(kinds[0], block),))
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    attention = [kind for kind in counts if not kind.state]
    states = [kind.size for kind in counts if kind.state]
    if states and attention:
        least = min(kind.size for kind in attention)
        block = max(block, KERNEL_TOKENS * ceil_div(max(states), KERNEL_TOKENS * least))
    page = max([block * kind.size for kind in attention] + states)
    fewest, most = min(counts.values()), max(counts.values())
    layers = most if most < 1.5 * fewest else fewest
    groups: list[Group] = []
    for kind, count in counts.items():
        tokens = 1 if kind.state else page // (block * kind.size) * block
        groups += [Group(kind, tokens)] * ceil_div(count, layers)
    return Pages(page * layers, tuple(groups))


def absorbed_bytes(model: Known, tp: int) -> int:
    """Latent attention reads its up-projection in 16 bits: of a quantised one each layer keeps a copy (mla/common.py)."""
    total = sum(
        2 * share.weight.elements // int(share.weight.depth) * len(share.layers)
        for share in model.shares
        if share.format and share.weight.role in ("kv_b", "k_b", "v_b")
    )
    return int(ceil_div(total, tp * model.depth))


class Stage(NamedTuple):
    """One pipeline stage on one rank."""

    weight_bytes: int
    pages: Pages | None


class VllmPlan:
    """vLLM on so many GPUs. Raises UsageError where heads cannot be divided, NoAnswer where the cache is not known."""

    def __init__(self, case: Case) -> None:
        self.model, rules, split = known(case), case.runtime.rules, case.split.checked()
        model = self.model
        check_split(model.blueprint, split.tp, split.pp)
        self.case, self.rules, self.replicas = case, rules, split.dp
        weights, absorbed = held(case, model), absorbed_bytes(model, split.tp)
        self.stages = []
        for start, stop in ranks.stages(model.depth, split.pp):
            layers = [tuple(layer) for layer in model.stage_entries(start, stop)]
            alike = {layer: _kind(layer, case, model.dtype) for layer in set(layers)}
            kinds = [kind for layer in layers if (kind := alike[layer]) is not None]
            weight = weights.stage(start, stop, tied=model.tied) + model.rope_bytes + absorbed * (stop - start)
            self.stages.append(Stage(weight, pages_of(kinds, rules.block)))
        large = case.card.large
        self.prompt = case.settings.prompt_tokens or (rules.prompt_tokens_large if large else rules.prompt_tokens)
        self.sequences = case.settings.sequences or (rules.sequences_large if large else rules.sequences)
        self.kept = Dim(rules.process_bytes, "process")
        if split.gpus > 1:
            self.kept += Dim(rules.peer_bytes, "peers")
        if rules.graphs_in_budget:
            self.kept += Dim(rules.graph_bytes, "graphs")
        self.overhead = int(self.kept)
        asked = case.settings.utilization
        self.budget = int(case.card.bytes * ((rules.utilization_percent or 100) / 100 if asked is None else asked))
        self.available = self.budget
        pool = case.settings.pool_bytes
        if pool is not None:
            asked = max(s.weight_bytes for s in self.stages) + self.activation_bytes(1) + self.overhead + pool
            self.available = min(asked, case.card.bytes)

    def activation_bytes(self, batch: int) -> int:
        """The profiled peak: the widest layer over a full step of prompts, or the sampler over all sequences."""
        layer = self.prompt * self.model.widest(self.case.split.tp)
        sampler = self.rules.logit_bytes * max(self.sequences, batch) * self.model.vocabulary
        return max(layer, 2 * self.prompt * self.model.hidden + sampler if sampler else 0)

    def _activation(self, batch: int) -> Any:
        """The same with its formula."""
        step, sequences = Dim(self.prompt, "tokens"), Dim(max(self.sequences, batch), "sequences")
        layer = step * Dim(self.model.widest(self.case.split.tp), "widest_bytes")
        if int(layer) == self.activation_bytes(batch):
            return layer
        sampler = Dim(self.rules.logit_bytes, "logit_bytes") * sequences * Dim(self.model.vocabulary, "V")
        return 2 * step * Dim(self.model.hidden, "h") + sampler

    def request_blocks(self, stage: Stage, context: int) -> int:
        """Blocks of a request on a stage."""
        encoder = self.case.blueprint.encoder_tokens(self.case.settings.encoder_context, context)
        return stage.pages.blocks(context, self.prompt, self.rules.state_blocks, encoder) if stage.pages else 0

    def loads(self, context: int, batch: int) -> list[Load]:
        """Bytes on a rank of each pipeline stage."""
        share = ceil_div(batch, self.replicas)
        active = self.activation_bytes(share)
        found = []
        for stage in self.stages:
            cached = share * self.request_blocks(stage, context) * stage.pages.bytes if stage.pages else 0
            found.append(Load(stage.weight_bytes, cached, active, self.overhead))
        return found

    def formulas(self, context: int, batch: int, gpu: int) -> dict[str, Any]:
        """How the figures of a stage come about."""
        share, stage = ceil_div(batch, self.replicas), self.stages[gpu]
        found = {"activation_bytes": self._activation(share), "overhead_bytes": self.kept}
        if stage.pages:
            blocks = Dim(self.request_blocks(stage, context), "blocks")
            found["kv_bytes"] = Dim(share, "requests") * blocks * Dim(stage.pages.bytes, "block_bytes")
        return found

    def pool_bytes(self, stage: Stage) -> int:
        """What is left for the cache on a rank."""
        if self.case.settings.pool_bytes is not None:
            return self.case.settings.pool_bytes
        return max(0, self.budget - stage.weight_bytes - self.activation_bytes(1) - self.overhead)

    def token_bytes(self) -> int:
        """What one more token of a long request takes on a rank; None of it for windows and states."""
        sizes = [
            sum(stage.pages.bytes // block for kind, block in stage.pages.groups if not kind.state and kind.window is None)
            for stage in self.stages
            if stage.pages
        ]
        return max(sizes, default=0)

    def blocks(self) -> int | None:
        """Blocks of the cache: as many as the stage with the fewest has."""
        return min((self.pool_bytes(stage) // stage.pages.bytes for stage in self.stages if stage.pages), default=None)

    def concurrency(self, context: int) -> float | None:
        """Requests of this length that the cache holds, as the log prints it; of one replica."""
        blocks, held = self.blocks(), max(self.request_blocks(stage, context) for stage in self.stages)
        return None if blocks is None or not held else blocks / held

    def tokens(self, context: int) -> int | None:
        """Tokens of the pool: blocks times their tokens, of a hybrid what requests of this length come to."""
        blocks = self.blocks()
        if blocks is None:
            return None
        grown = [stage.pages.groups for stage in self.stages if stage.pages]
        if all(len(groups) == 1 and not groups[0].kind.state and groups[0].kind.window is None for groups in grown):
            return blocks * grown[0][0].block
        return int(context * (self.concurrency(context) or 0))
