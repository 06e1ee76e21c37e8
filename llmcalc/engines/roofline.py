"""What a forward pass moves and computes on one GPU: weights and cache read, products, scores. No times.

Every weight is read once in a pass, whatever the batch; of routed experts only those that some token picks, in expectation
E (1 - (1 - k/E)^n) of E experts for n tokens that pick k each. Look-ups read a row and count nothing; a head tied to the
embedding reads its table. The cache is read once for each sequence. Under tensor parallelism a rank reads its part.
"""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, pairs, product, without_formulas
from llmcalc.engines import flops, kv
from llmcalc.engines.mixes import TEXT, Method, assign
from llmcalc.engines.ranks import rank_bytes
from llmcalc.engines.weights import share_bytes
from llmcalc.errors import NoAnswer


class Work(NamedTuple):
    """One pass on one rank: bytes read, FLOPs by kind, elements of attention scores, bytes of one all-reduce.

    ``expert_bytes`` is the part of the weights that are routed experts. ``tile_flops`` is what one more row for each expert that is
    touched adds: a kernel works through whole tiles, and pays for rows that nobody sent (a single row needs no tile).
    """

    weight_bytes: float
    expert_bytes: float
    cache_bytes: float
    dense_flops: float
    expert_flops: float
    tile_flops: float
    attention_flops: float
    scores: float
    message_bytes: float


class Group(NamedTuple):
    """Routed experts of one geometry: how many stand in a layer, how many a token picks, bytes and FLOPs per row of one."""

    copies: int
    used: int
    weight_bytes: int
    row_flops: int

    def touched(self, tokens: float) -> float:
        """Experts of a layer that so many tokens are expected to pick."""
        missed: float = (1 - self.used / self.copies) ** tokens
        return self.copies * (1 - missed)


class Roofline:
    """A model under a quantisation on so many ranks, ready to be asked for many passes.

    Raises NoAnswer for a model whose operations or cache are not known, or that generates nothing.
    """

    def __init__(self, blueprint: Blueprint, method: Method, dtype: str = "", kv_dtype: str = "bf16", ranks: int = 1) -> None:
        if not blueprint.generates:
            raise NoAnswer(f"{blueprint.name}: it generates nothing, so there is no speed of decoding")
        if blueprint.unknown_cache:
            raise NoAnswer(f"{blueprint.name}: the cache is not known: {blueprint.unknown_cache}")
        self.blueprint, self.kv_dtype, self.ranks = without_formulas(blueprint), kv_dtype, ranks
        self.costs = flops.Costs(self.blueprint)
        self.layers = self.blueprint.stacks[-1].depth
        self.hidden = self.blueprint.stacks[-1].hidden
        own = dtype or blueprint.dtype
        whole = rank_bytes(self.blueprint, method, 1, own)
        self.part = rank_bytes(self.blueprint, method, ranks, own) / whole if ranks > 1 else 1.0
        self._weigh(method, own)
        self.attentions = [op for op in self.blueprint.ops if op.kind == "attention" and op.rows in ("token", "scan_token")]

    def _weigh(self, method: Method, own: str) -> None:
        """Sum the weights by when they are read: with every pass of the decoder, with the encoder, by some experts."""
        tied = {w.tied_to for w in self.blueprint.weights if w.tied_to}
        tables = {op.weight for op in self.blueprint.ops if op.kind == "lookup"} - tied
        self.dense_bytes = self.encoder_bytes = 0
        expert_bytes: dict[tuple[int, int], int] = {}
        for share in assign(self.blueprint, method):
            weight = share.weight
            if weight.stack not in TEXT or weight.name in tables:
                continue
            held = int(share_bytes(share, method, own)) if not weight.tied_to else 0
            if int(weight.used) < int(weight.copies):
                key = int(weight.copies), int(weight.used)
                expert_bytes[key] = expert_bytes.get(key, 0) + held
            elif weight.stack == self.blueprint.stacks[-1].name or weight.name in tied:
                self.dense_bytes += held
            else:
                self.encoder_bytes += held
        routed = {w.name: (int(w.copies), int(w.used)) for w in self.blueprint.weights if int(w.used) < int(w.copies)}
        row_flops: dict[tuple[int, int], int] = {}
        for op in self.blueprint.ops:
            if op.kind == "matmul" and op.weight in routed:
                key = routed[op.weight]
                row_flops[key] = row_flops.get(key, 0) + int(op.matmul_flops(1)) // key[1]
        self.groups = [Group(*key, held, row_flops.get(key, 0)) for key, held in expert_bytes.items()]

    def weight_bytes(self, tokens: float) -> float:
        """Read by a rank in a pass over so many tokens of all sequences."""
        return self.dense_bytes * self.part + self.expert_bytes(tokens)

    def expert_bytes(self, tokens: float) -> float:
        """Of them those of routed experts."""
        return self.part * sum(g.weight_bytes * g.touched(tokens) / g.copies for g in self.groups)

    def cache_bytes(self, context: float, batch: int) -> float:
        """Read by a rank to decode at this context; states are read and written. Heads are divided, latents are not."""
        total = 0.0
        for cache in self.blueprint.caches:
            one = kv.entry_bytes(
                cache, max(1, int(context)), batch, self.kv_dtype, int(context) if self.blueprint.has_encoder else 0
            )
            total += one * (2 if cache.kind == "state" else 1) / min(self.ranks, int(cache.heads))
        return total

    def decode(self, context: float, batch: int = 1, tokens: int = 1) -> Work:
        """One step for every sequence, of ``tokens`` tokens each (more than one where a draft is verified)."""
        at = flops.workload(max(1, int(context)), batch, int(context) if self.blueprint.has_encoder else 0, causal=True, logits=1)
        total = (self.costs.decode(at) or 0) * tokens
        attended = sum(int(op.attention_flops(self._keys(op, context), cached=True)) for op in self.attentions) * batch * tokens
        rows = batch * tokens
        routed, tiles = self._experts(rows)
        scores = sum(int(op.depth) * int(op.heads) * self._keys(op, context) for op in self.attentions) * rows
        return self._on_rank(rows, self.cache_bytes(context, batch), total - attended - routed, routed, tiles, attended, scores)

    def prefill(self, start: int, tokens: int, batch: int = 1) -> Work:
        """A piece of a prompt: ``tokens`` more tokens of each sequence behind ``start`` that are cached."""
        rows = batch * tokens
        encoder = tokens if self.blueprint.has_encoder else 0
        at = flops.workload(tokens, batch, encoder, causal=True, logits=1)
        products = self.costs.forward(at, ("matmul",))
        attended = scores = 0
        for op in self.attentions:
            meeting = pairs(op, start + tokens, start + tokens, causal_mask=True)
            if start:
                meeting -= pairs(op, start, start, causal_mask=True)
            attended += int(op.attention_flops(batch * meeting))
            keys = start + tokens if op.window is None else min(start + tokens, int(op.window) + tokens)
            scores += int(op.depth) * int(op.heads) * rows * keys
        routed, tiles = self._experts(rows)
        work = self._on_rank(
            rows, self.cache_bytes(start, batch) if start else 0, products - routed, routed, tiles, attended, scores
        )
        return work._replace(weight_bytes=work.weight_bytes + (self.encoder_bytes * self.part if not start else 0))

    def _experts(self, rows: int) -> tuple[float, float]:
        """FLOPs of routed experts, and what one more row for each that is touched adds."""
        routed = sum(g.row_flops * g.used * rows for g in self.groups)
        return routed, sum(g.row_flops * g.touched(rows) for g in self.groups) if rows > 1 else 0.0

    def _on_rank(self, rows: int, cache: float, dense: float, routed: float, tiles: float, attended: float, scores: float) -> Work:
        n = self.ranks
        message = float(product((2, rows, self.hidden)))
        return Work(
            self.weight_bytes(rows),
            self.expert_bytes(rows),
            cache,
            dense / n,
            routed / n,
            tiles / n,
            attended / n,
            scores / n,
            message,
        )

    def _keys(self, op: Op, context: float) -> int:
        keys = int(context) if op.window is None else min(int(context), int(op.window))
        return max(1, keys) // int(op.pool) if op.pool != 1 else max(1, keys)
