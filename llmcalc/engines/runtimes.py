"""What the models of serving runtimes share: the question, and what a layer caches on one GPU.

A runtime's plan says what stands on each GPU at a context and a batch; ``engines.serving`` asks it. Plans read weights, caches
and operations of a blueprint, never its name.
"""

from typing import Any, NamedTuple, Protocol

from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import kv, ranks
from llmcalc.engines.fit import Load
from llmcalc.engines.runtime_model import Entry, Known
from llmcalc.engines.weights import DTYPE_BITS, Method
from llmcalc.errors import UsageError
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
            raise UsageError(
                f"--ep {self.ep}: experts are spread over --tp x --dp, {over} GPU{'s' if over > 1 else ''}; name a divisor"
            )
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
    state_dtype: str | None = None


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
    known: Known | None = None

    @property
    def expert_multiples(self) -> dict[str, tuple[int, int, int]]:
        """What experts are padded to on this GPU, by quantisation."""
        found: dict[str, tuple[int, int, int]] = {}
        for padding in self.runtime.paddings:
            if not padding.architectures or self.card.architecture in padding.architectures:
                for quant in padding.quants:
                    found.setdefault(quant, (padding.inner, padding.read, padding.written))
        return found


class Plan(Protocol):
    """What a runtime has on its GPUs. ``replicas`` serve requests apart from each other."""

    replicas: int
    available: int

    def loads(self, context: int, batch: int) -> list[Load]:
        """Bytes on each GPU that differs from the others."""
        ...

    def formulas(self, context: int, batch: int, gpu: int, /) -> dict[str, Any]:
        """How the figures of one of these GPUs come about, by key of ``Load``, where one line says it."""
        ...

    def tokens(self, context: int, /) -> int | None:
        """Tokens that its cache has room for in requests of this context; None where the cache does not grow."""
        ...


def known(case: Case) -> Known:
    """What is known of a case's model. Raises NoAnswer."""
    return case.known or Known(case.blueprint, case.method, case.dtype)


def held(case: Case, model: Known) -> ranks.Held:
    """Weights of one rank."""
    split, rules = case.split.checked(), case.runtime.rules
    return model.held(split.tp, split.tp * split.dp // split.ep, split.ep, rules.vocab_multiple, case.expert_multiples)


def element_bytes(elements: int, dtype: str) -> int:
    """Whole bytes of so many elements of the cache."""
    over, under = kv.CACHE_BITS[dtype]
    return int(ceil_div(elements * over, 8 * under))


def state_bytes(entry: Entry, asked: str | None, own: str, tp: int) -> int:
    """A recurrent state on one rank, in the dtype asked for, else its own; convolutions are in the model's, ``own``."""
    dtype = own if not entry.dtype else asked or entry.dtype
    return int(ceil_div(entry.keys * DTYPE_BITS[dtype] // 8, tp))


def kv_rank_bytes(entry: Entry, dtype: str, values: str | None, tp: int) -> int:
    """Bytes of a token in one layer on one rank: at least one head of keys and values, and latents whole.

    The index of sparse attention is kept in 8 bits with a 32-bit scale for each 128 (DeepSeek-V3.2), whatever the cache is.
    """
    if entry.kind == "index":
        return entry.keys + 4 * int(ceil_div(entry.keys, 128))
    if entry.kind == "latent":
        return element_bytes(entry.keys, dtype)
    mine = int(ceil_div(entry.heads, tp))
    keys, held = entry.keys // entry.heads * mine, entry.values // entry.heads * mine
    return element_bytes(keys, dtype) + element_bytes(held, values or dtype)


def check_split(blueprint: Blueprint, tp: int, pp: int) -> None:
    """Raises UsageError where heads cannot be divided over so many ranks, or layers over so many stages."""
    depth = blueprint.stacks[-1].depth
    if pp > depth:
        raise UsageError(f"{blueprint.name}: {depth} layers cannot be divided over {pp} pipeline stages")
    for op in blueprint.ops:
        if op.kind == "attention" and op.part == "attention" and not op.cross and int(op.v) > 1 and int(op.heads) % tp:
            raise UsageError(f"{blueprint.name}: {int(op.heads)} attention heads cannot be divided over {tp} GPUs; "
                             "name --tp and --pp so that tp divides them")  # fmt: skip
