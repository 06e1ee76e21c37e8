"""What a model takes at any context and batch: weights by layer, cache, and the working set of a forward pass.

Summed once by what grows alike, so that a question costs a few products and the largest context or batch is read off a line.
"""

from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, product, without_formulas
from llmcalc.engines import kv
from llmcalc.engines.curves import Curve
from llmcalc.engines.weights import Method, assign, share_bytes
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Dim, least
from llmcalc.units import GiB

# What a CUDA process takes before it holds a tensor (0.3 to 0.8 GiB of context), library workspaces and allocator slack.
RESERVE_BYTES = GiB
# A prompt is read in pieces of at most so many tokens (vLLM's and SGLang's default order of size).
CHUNK_TOKENS = 2048
MOST_SEQUENCES, MOST_TOKENS = 2**20, 2**40


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
        self.growing = any(c.per == "token" and c.window is None for c in blueprint.caches)
        self._lines, self._rounded = self._cache_lines()
        self._loads: dict[tuple[int, int], list[int]] = {}
        self._working = 0, 0, 0
        self._curves: dict[tuple[str, int], Curve] = {}

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

    def _cache_lines(self) -> tuple[dict[tuple[str, int | None], int], list[Any]]:
        """Cached bytes per token (or sequence) of a sequence, entries that grow alike together; and those that need rounding."""
        if self.bare.unknown_cache:
            kv.size(self.bare, 1)  # raises NoAnswer
        lines: dict[tuple[str, int | None], int] = {}
        rounded = []
        for cache in self.bare.caches:
            over, under = kv.CACHE_BITS[cache.dtype or self.kv_dtype]
            if over % (8 * under):
                rounded.append(cache)
                continue
            key = cache.per, cache.window
            lines[key] = lines.get(key, 0) + cache.width * cache.depth * (over // (8 * under))
        return lines, rounded

    def cache_bytes(self, context: int, batch: int) -> int:
        """All that is cached, over all GPUs."""
        total = 0
        for (per, window), rate in self._lines.items():
            if per == "sequence":
                total += rate
            else:
                tokens = context if per == "token" else self.encoder_tokens(context)
                total += rate * (tokens if window is None or tokens < window else window)
        total *= batch
        for cache in self._rounded:
            total += kv.entry_bytes(cache, context, batch, self.kv_dtype, self.encoder_tokens(context))
        return total

    def total_bytes(self, context: int, batch: int) -> int:
        """What one GPU for everything would need."""
        return self.weight_bytes + self.cache_bytes(context, batch) + self.working_bytes(context, batch) + self.reserve

    def contexts(self, batch: int) -> Curve:
        """What one GPU needs by context. It turns where windows are full, a prompt is cut, or the encoder reads less."""
        if ("context", batch) not in self._curves:
            turns = [window for _, window in self._lines if window] + [int(c.window) for c in self._rounded if c.window]
            turns += [CHUNK_TOKENS // batch, CHUNK_TOKENS // batch + 1, self.encoder_context or 1]
            self._curves["context", batch] = Curve(
                lambda n: self.total_bytes(n, batch), turns, MOST_TOKENS, exact=not self._rounded
            )
        return self._curves["context", batch]

    def batches(self, context: int) -> Curve:
        """What one GPU needs by batch."""
        if ("batch", context) not in self._curves:
            reads = max(context, self.encoder_tokens(context))
            turns = CHUNK_TOKENS // reads, CHUNK_TOKENS // reads + 1
            self._curves["batch", context] = Curve(
                lambda n: self.total_bytes(context, n), turns, MOST_SEQUENCES, exact=not self._rounded
            )
        return self._curves["batch", context]

    def encoder_tokens(self, context: int) -> int:
        """What the encoder reads when the decoder stands at ``context``."""
        return self.blueprint.encoder_tokens(self.encoder_context, context)

    def unit_bytes(self, context: int, batch: int) -> list[int]:
        """Weights and cache of every unit. Asked again for each GPU, so the last answer is kept."""
        if (context, batch) not in self._loads:
            self._loads = {(context, batch): self._unit_bytes(context, batch)}
        return self._loads[context, batch]

    def _unit_bytes(self, context: int, batch: int) -> list[int]:
        loads = list(self.weights)
        for cache in self.bare.caches:
            first = self.first_unit[cache.stack]
            one = -(-kv.entry_bytes(cache, context, batch, self.kv_dtype, self.encoder_tokens(context)) // len(cache.layers))
            for layer in cache.layers:
                loads[first + layer] += one
        return loads

    def working_bytes(self, context: int, batch: int) -> int:
        """What the forward pass holds beside weights and cache. Asked again for each GPU, so the last answer is kept."""
        if self._working[:2] != (context, batch):
            reads = max(context, self.encoder_tokens(context))
            self._working = context, batch, int(self.working.bytes(reads, batch))
        return self._working[2]
