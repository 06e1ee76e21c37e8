"""The records of a plan: what a layer is made of, every default filled in.

Layers that are built alike compare equal, which is how the lowering groups them.
"""

from typing import NamedTuple


class Norm(NamedTuple):
    """A normalisation: gain and bias are parameters or not there."""

    kind: str
    gain: bool
    bias: bool
    form: str = "plain"


class SparseIndex(NamedTuple):
    """The index of sparse attention; ``pool`` tokens are scored as one."""

    heads: int
    dim: int
    type: str
    pool: int


class Attention(NamedTuple):
    """One attention sub-layer.

    ``relative_rows`` is 0 but for disentangled attention, the ranks and dims after it but for the latent one.
    """

    heads: int
    kv_heads: int
    qk_dim: int
    v_dim: int
    window: int
    causal: bool
    biases: frozenset[str]
    qk_norm: str
    qk_norm_bias: bool | None
    sinks: bool
    global_projections: bool
    relative_rows: int = 0
    chunked: bool = False
    output_gate: str = "none"
    values_are_keys: bool = False
    reuses_kv: str = "none"
    sparse_index: SparseIndex | None = None
    experts: int = 0
    differential: bool = False
    q_rank: int = 0
    kv_rank: int = 0
    nope_dim: int = 0
    rope_dim: int = 0
    rotary: int = 0
    form: tuple[str, ...] = ()  # how the scores are computed: softcap, dropout, upcast
    fused: bool = False


class Mixer(NamedTuple):
    """A recurrent mixer: what its type has no use for is 0."""

    type: str
    width: int
    heads: int
    head_dim: int
    key_heads: int
    key_dim: int
    state: int
    groups: int
    rank: int
    conv: int
    conv_bias: bool
    bias: bool
    norm: str
    chunk: int


class Ffn(NamedTuple):
    """A dense FFN, or one expert."""

    dim: int
    gated: bool
    activation: str
    biases: frozenset[str]
    fused: bool = False
    dropout: bool = False


class Mixture(NamedTuple):
    """A mixture of experts: ``expert`` routed ``experts`` times, ``top_k`` of them used, beside a shared and a dense one."""

    experts: int
    top_k: int
    expert: Ffn
    shared: Ffn | None
    shared_gate: bool
    router_bias: bool
    correction_bias: str
    dense: Ffn | None = None
    latent: int = 0
    idle: int = 0
    fp32_router: bool = False


class Further(NamedTuple):
    """A further tensor, by its shape; ``times`` a row is multiplied by it."""

    name: str
    shape: tuple[int, ...]
    part: str
    times: int
    rows: str
    copies: int
    used: int
    buffer: bool
    after: bool


class Kept(NamedTuple):
    """A further state of fixed size; an empty ``dtype`` is the cache's."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Layer(NamedTuple):
    """What one layer is made of. ``letter`` is its kind in the stack's pattern."""

    letter: str
    attention: Attention | None
    recurrent: Mixer | None
    cross: bool
    ffn: Ffn | Mixture | None
    norm: Norm
    placement: str
    attention_norm: bool
    ffn_norm: bool
    parallel: str
    shared_blocks: int
    further: tuple[Further, ...]
    states: tuple[Kept, ...]
    image_cache: int = 0
    dropout: tuple[str, ...] = ()


class Setting(NamedTuple):
    """What holds for every layer of a stack."""

    hidden: int
    causal: bool
    cross: bool
    relative_rows: int = 0
    positions: str = "none"
    rotary_dim: int = 0


class StackPlan(NamedTuple):
    """Layers in order, with the width of the residual stream between them."""

    name: str
    hidden: int
    layers: tuple[Layer, ...]
    distinct: int
    norm: Norm
    final_norm: bool
    outside: tuple[Further, ...] = ()
    dropout: frozenset[str] = frozenset()
