"""What plans of runtimes ask of a model: what each layer caches, its weights on a rank, its widest activations.

All of it is read off weights, caches and operations of the blueprint, never its name.
"""

from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, without_formulas
from llmcalc.engines import ranks
from llmcalc.engines.mixes import Method, assign
from llmcalc.errors import NoAnswer
from llmcalc.quantity import ceil_div


class Entry(NamedTuple):
    """What one layer caches of one kind: elements per token (of a state: in all), keys and values apart.

    ``heads`` is what tensor parallelism may divide by, ``dtype`` its own where it has one, ``expanded`` the keys and values
    of all heads that a latent stands for.
    """

    kind: str
    keys: int
    values: int
    heads: int
    window: int | None = None
    chunked: bool = False
    per: str = "token"
    dtype: str = ""
    expanded: tuple[int, int] = (0, 0)


class Known:
    """What plans ask of a model under a quantisation, worked out once however many GPUs and splits are asked about.

    Raises NoAnswer where its cache or its operations are not known.
    """

    def __init__(self, blueprint: Blueprint, method: Method, dtype: str) -> None:
        if blueprint.unknown_cache:
            raise NoAnswer(f"{blueprint.name}: the cache is not known: {blueprint.unknown_cache}")
        if not blueprint.ops:
            raise NoAnswer(f"{blueprint.name}: the operations are not known, only its weights are")
        self.blueprint, self.method, self.dtype = without_formulas(blueprint), method, dtype or blueprint.dtype
        self.hidden, self.depth = int(blueprint.stacks[-1].hidden), blueprint.stacks[-1].depth
        self.shares = assign(self.blueprint, method)
        self.entries = layer_entries(self.blueprint)
        self.before = len(self.entries) - self.depth
        self.vocabulary = vocabulary(self.blueprint)
        self.rope_bytes = rope_bytes(self.blueprint)
        heads = (w.part == "lm_head" and w.kind == "matrix" and not w.tied_to for w in blueprint.weights)
        self.tied = blueprint.generates and not any(heads)
        self._held: dict[Any, ranks.Held] = {}
        self._widest: dict[int, int] = {}

    def held(self, tp: int, over: int, groups: int, vocab_multiple: int, multiples: dict[str, tuple[int, int, int]]) -> ranks.Held:
        """Weights of one of ``tp`` ranks, experts in ``groups`` and each divided over ``over``."""
        key = tp, over, groups, vocab_multiple, tuple(multiples.items())
        if key not in self._held:
            self._held[key] = ranks.rank_layers(
                self.blueprint, self.method, tp, self.dtype, vocab_multiple=vocab_multiple, expert_multiples=multiples,
                expert_ranks=over, expert_groups=groups,
            )  # fmt: skip
        return self._held[key]

    def widest(self, tp: int) -> int:
        """Activations of one token at the widest point of a layer, on one rank."""
        if tp not in self._widest:
            self._widest[tp] = widest_bytes(self.blueprint, tp)
        return self._widest[tp]

    def stage_entries(self, start: int, stop: int) -> list[list[Entry]]:
        """What the layers of a pipeline stage cache; the first has those of other stacks too."""
        return self.entries[self.before + start : self.before + stop] if start else self.entries[: self.before + stop]


def layer_entries(blueprint: Blueprint) -> list[list[Entry]]:
    """What each layer caches, in the order of the stacks; the last stack's layers are the last."""
    first, count = {}, 0
    for stack in blueprint.stacks:
        first[stack.name] = count
        count += stack.depth
    found: list[list[Entry]] = [[] for _ in range(count)]
    scores = {(_place(op.name), bool(op.cross)): op for op in blueprint.ops if op.kind == "attention" and int(op.v) > 1}
    taps = {_place(w.name): int(w.shape[-1]) for w in blueprint.weights if w.kind == "conv"}
    for cache in blueprint.caches:
        place = _place(cache.name)
        entry = _entry(cache, scores.get((place, cache.kind == "cross")), taps.get(place, 0))
        for layer in cache.layers:
            found[first[cache.stack] + layer].append(entry)
    return found


def _place(name: str) -> str:
    """What the names of all that stands in one kind of layer begin with."""
    return name.rpartition(".")[0]


def _entry(cache: Any, op: Any, taps: int) -> Entry:
    width, heads = int(cache.width), int(cache.heads)
    window = None if cache.window is None else int(cache.window)
    if cache.per == "sequence":
        # Runtimes keep the inputs before the newest; a state that has it too is as wide as the convolution.
        newest = width // taps if taps and width % taps == 0 and not cache.dtype and cache.name.endswith("conv_state") else 0
        return Entry("state", width - newest, 0, 0, per="sequence", dtype=cache.dtype)
    if cache.kind in ("kv", "cross") and op is not None:
        values = min(heads * int(op.v), width)
        return Entry(cache.kind, width - values, values, heads, window, bool(op.chunked), cache.per, cache.dtype)
    if cache.kind == "latent" and op is not None:
        expanded = int(op.heads) * int(op.qk), int(op.heads) * int(op.v)
        return Entry("latent", width, int(op.cached_v), 1, window, False, cache.per, cache.dtype, expanded)
    return Entry(cache.kind, width, 0, heads, window, False, cache.per, cache.dtype)


def text_products(blueprint: Blueprint) -> list[Op]:
    """The matrix products of the layers that text goes through."""
    apart = ("patch", "image_token", "pass", "audio")
    return [op for op in blueprint.ops if op.kind == "matmul" and op.layers and op.rows not in apart]


def widest_bytes(blueprint: Blueprint, tp: int) -> int:
    """Activations of one token at the widest point of a layer, 16 bits: the residual twice, and what an FFN makes.

    Gate and up stand together; of experts, every one that a token uses, and their outputs before they are summed.
    """
    hidden = int(blueprint.stacks[-1].hidden)
    widest = 0
    for op in text_products(blueprint):
        wide, narrow = int(op.width), int(op.inner)
        if wide == hidden:
            # A projection back: three of what it reads (gate, up and their product), of experts what they wrote too.
            made = 3 * ceil_div(narrow, tp) + (wide if int(op.repeats) > 1 else 0)
            widest = max(widest, int(op.repeats) * made)
        else:
            widest = max(widest, int(op.repeats) * ceil_div(wide, tp))
    return 2 * (2 * hidden + widest)


def vocabulary(blueprint: Blueprint) -> int:
    """Logits of a token; 0 where the model has no head."""
    return next((int(op.width) for op in blueprint.ops if op.rows == "logit" and op.part == "lm_head"), 0)


def rope_bytes(blueprint: Blueprint) -> int:
    """Tables of sines and cosines in 16 bits, one for each kind of window, up to the trained context.

    None where positions have a table of their own. A blueprint does not say how much of a head is rotated: all of it.
    """
    if any(w.part == "positions" for w in blueprint.weights):
        return 0
    kinds = {}
    for op in blueprint.ops:
        if op.kind == "attention" and op.part == "attention" and not op.cross and op.causal and int(op.v) > 1:
            rotated = int(op.qk) if op.cached_qk is None else int(op.cached_qk) - int(op.cached_v)
            kinds[op.window is None] = rotated
    return sum(2 * (blueprint.context or 0) * dim for dim in kinds.values())
