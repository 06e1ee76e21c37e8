"""What the models of serving runtimes share: the question, and what a layer caches on one GPU.

A runtime's plan says what stands on each GPU at a context and a batch; ``engines.serving`` asks it. Plans read weights, caches
and operations of a blueprint, never its name.
"""

from typing import Any, NamedTuple, Protocol

from llmcalc.blueprint.parts import Blueprint, Op, without_formulas
from llmcalc.engines import kv
from llmcalc.engines.fit import Load
from llmcalc.engines.weights import DTYPE_BITS, Method
from llmcalc.errors import NoAnswer, UsageError
from llmcalc.quantity import ceil_div
from llmcalc.units import GiB

LARGE_BYTES = 70 * GiB


class Card(NamedTuple):
    """A GPU as a runtime sees it: what CUDA reports, what the driver lists, and its architecture."""

    bytes: int
    driver_bytes: int
    architecture: str = ""

    @property
    def large(self) -> bool:
        """Whether vLLM prepares for more on it: 70 GiB or more, and no A100."""
        return self.bytes >= LARGE_BYTES and self.architecture != "Ampere"


class Split(NamedTuple):
    """How a model is divided: tensor, pipeline, expert and data parallelism."""

    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1

    @property
    def gpus(self) -> int:
        """GPUs in all. Expert parallelism runs over those that tensor and data parallelism have."""
        return self.tp * self.pp * self.dp

    def checked(self) -> "Split":
        """Itself. Raises UsageError where experts would be spread over GPUs that there are not."""
        if self.tp * self.dp % self.ep:
            over = self.tp * self.dp
            raise UsageError(f"--ep {self.ep}: experts are spread over the {over} GPUs of --tp and --dp; name a divisor")
        return self


class Settings(NamedTuple):
    """What may be said to a runtime; None leaves it to its version's default."""

    kv_dtype: str = "bf16"
    value_dtype: str | None = None
    utilization: float | None = None
    sequences: int | None = None
    prompt_tokens: int | None = None
    pool_bytes: int | None = None
    gpu_layers: int | None = None
    flash_attention: bool = True
    encoder_context: int | None = None


class Rules(NamedTuple):
    """How a runtime allocates (``specs.runtime.Allocation`` says what each is)."""

    utilization_percent: int | None = None
    block: int = 1
    prompt_tokens: int = 1
    prompt_tokens_large: int = 1
    sequences: int = 1
    sequences_large: int = 1
    logit_bytes: int = 0
    graph_bytes: int = 0
    graphs_in_budget: bool = False
    process_bytes: int = 0
    peer_bytes: int = 0
    state_blocks: int = 1
    hybrid_groups: bool = True
    vocab_multiple: int = 1
    window_share_percent: int = 100
    latent: str = "latent"
    mask_bytes: int = 2
    copies: int = 1


class Padding(NamedTuple):
    """What a kernel takes experts of these quantisations in, on GPUs of these architectures (empty: all)."""

    quants: tuple[str, ...]
    architectures: tuple[str, ...]
    inner: int
    read: int
    written: int


class Runtime(NamedTuple):
    """A runtime at a version (empty: none named). ``rules`` is how it allocates, ``paddings`` what kernels take experts in.

    ``errors`` are median errors against logs in percent, by figure.
    """

    name: str
    version: str
    kind: str
    rules: Rules
    paddings: tuple[Padding, ...] = ()
    sources: tuple[str, ...] = ()
    errors: dict[str, float] = {}

    @property
    def label(self) -> str:
        """As it is asked for."""
        return f"{self.name}@{self.version}" if self.version else self.name


class Case(NamedTuple):
    """All that a plan is made from."""

    blueprint: Blueprint
    method: Method
    dtype: str
    runtime: Runtime
    card: Card
    split: Split
    settings: Settings

    @property
    def expert_multiples(self) -> dict[str, tuple[int, int, int]]:
        """What experts are padded to on this GPU, by quantisation."""
        found: dict[str, tuple[int, int, int]] = {}
        for padding in self.runtime.paddings:
            if not padding.architectures or self.card.architecture in padding.architectures:
                for quant in padding.quants:
                    found.setdefault(quant, (padding.inner, padding.read, padding.written))
        return found


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


class Plan(Protocol):
    """What a runtime has on its GPUs. ``replicas`` serve requests apart from each other."""

    replicas: int
    available: int

    def loads(self, context: int, batch: int) -> list[Load]:
        """Bytes on each GPU that differs from the others."""
        ...

    def tokens(self, context: int, /) -> int | None:
        """Tokens that its cache has room for in requests of this context; None where the cache does not grow."""
        ...


def bare(case: Case) -> Blueprint:
    """The blueprint in plain ints. Raises NoAnswer where its cache is not known."""
    if case.blueprint.unknown_cache:
        raise NoAnswer(f"{case.blueprint.name}: the cache is not known: {case.blueprint.unknown_cache}")
    return without_formulas(case.blueprint)


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


def element_bytes(elements: int, dtype: str) -> int:
    """Whole bytes of so many elements of the cache."""
    over, under = kv.CACHE_BITS[dtype]
    return int(ceil_div(elements * over, 8 * under))


def state_bytes(entry: Entry, own: str, ranks: int) -> int:
    """A recurrent state on one rank; convolutions in the model's dtype ``own``."""
    return int(ceil_div(entry.keys * DTYPE_BITS[entry.dtype or own] // 8, ranks))


def kv_rank_bytes(entry: Entry, dtype: str, values: str | None, ranks: int) -> int:
    """Bytes of a token in one layer on one rank: at least one head of keys and values, and latents whole.

    The index of sparse attention is kept in 8 bits with a 32-bit scale for each 128 (DeepSeek-V3.2), whatever the cache is.
    """
    if entry.kind == "index":
        return entry.keys + 4 * int(ceil_div(entry.keys, 128))
    if entry.kind == "latent":
        return element_bytes(entry.keys, dtype)
    mine = int(ceil_div(entry.heads, ranks))
    keys, held = entry.keys // entry.heads * mine, entry.values // entry.heads * mine
    return element_bytes(keys, dtype) + element_bytes(held, values or dtype)


def check_heads(blueprint: Blueprint, ranks: int) -> None:
    """Raises UsageError where attention heads cannot be divided over so many ranks."""
    for op in blueprint.ops:
        if op.kind == "attention" and op.part == "attention" and not op.cross and int(op.v) > 1 and int(op.heads) % ranks:
            raise UsageError(f"{blueprint.name}: {int(op.heads)} attention heads cannot be divided over {ranks} GPUs; "
                             "name --tp and --pp so that tp divides them")  # fmt: skip


def text_products(blueprint: Blueprint) -> list[Op]:
    """The matrix products of the layers that text goes through."""
    apart = ("patch", "image_token", "pass", "audio")
    return [op for op in blueprint.ops if op.kind == "matmul" and op.layers and op.rows not in apart]


def widest_bytes(blueprint: Blueprint, ranks: int) -> int:
    """Activations of one token at the widest point of a layer, 16 bits: the residual twice, and what an FFN makes.

    Gate and up stand together; of experts, every one that a token uses, and their outputs before they are summed.
    """
    hidden = int(blueprint.stacks[-1].hidden)
    widest = 0
    for op in text_products(blueprint):
        wide, narrow = int(op.width), int(op.inner)
        if wide == hidden:
            # A projection back: three of what it reads (gate, up and their product), of experts what they wrote too.
            made = 3 * ceil_div(narrow, ranks) + (wide if int(op.repeats) > 1 else 0)
            widest = max(widest, int(op.repeats) * made)
        else:
            widest = max(widest, int(op.repeats) * ceil_div(wide, ranks))
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
