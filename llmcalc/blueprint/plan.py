"""Spec -> plan: every default filled in, every layer spelled out.

This is the only place that knows what a field left out means. A plan is a tuple of stacks, a stack a tuple of
layers; layers that are built alike compare equal, which is how the lowering groups them.
"""

from typing import NamedTuple

from llmcalc.specs.merge import is_mixture, layer_kinds, merged
from llmcalc.specs.model import Block, Kind, ModelSpec, Stack, Vision

GROUPS = {
    "qkv": ("q", "k", "v"),
    "attention": ("q", "k", "v", "o"),
    "ffn": ("gate", "up", "down"),
    "all": ("q", "k", "v", "o", "gate", "up", "down", "projection"),
}


class Norm(NamedTuple):
    """A normalisation: gain and bias are parameters or not there."""

    kind: str
    gain: bool
    bias: bool


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
    sinks: bool
    global_projections: bool
    relative_rows: int = 0
    q_rank: int = 0
    kv_rank: int = 0
    nope_dim: int = 0
    rope_dim: int = 0


class Ffn(NamedTuple):
    """A dense FFN, or one expert."""

    dim: int
    gated: bool
    activation: str
    biases: frozenset[str]


class Mixture(NamedTuple):
    """A mixture of experts: ``expert`` routed ``experts`` times, ``top_k`` of them used, beside a shared one."""

    experts: int
    top_k: int
    expert: Ffn
    shared: Ffn | None
    shared_gate: bool
    router_bias: bool
    correction_bias: str


class Layer(NamedTuple):
    """What one layer is made of. ``letter`` is its kind in the stack's pattern."""

    letter: str
    attention: Attention
    cross: bool
    ffn: Ffn | Mixture
    norm: Norm
    placement: str
    attention_norm: bool
    parallel: str


class Setting(NamedTuple):
    """What holds for every layer of a stack."""

    hidden: int
    causal: bool
    cross: bool
    relative_rows: int = 0


class StackPlan(NamedTuple):
    """Layers in order, with the width of the residual stream between them."""

    name: str
    hidden: int
    layers: tuple[Layer, ...]
    distinct: int
    norm: Norm
    final_norm: bool


def biases_of(block: Block) -> frozenset[str]:
    """The linears with a bias, groups opened."""
    return frozenset(name for said in block.biases or () for name in GROUPS.get(said, (said,)))


def norm_of(block: Block) -> Norm:
    """The block's norm; a LayerNorm has a bias unless it is said not to."""
    kind = block.norm or "rmsnorm"
    default_bias = kind == "layernorm"
    bias = default_bias if block.norm_bias is None else block.norm_bias
    return Norm(kind, kind != "none", bias and kind != "none")


def placement_of(block: Block) -> str:
    """Where the norms of a layer stand; before the sub-layer unless said."""
    return block.norm_placement or "pre"


def _attention(block: Block, setting: Setting, windowed: bool) -> Attention:
    heads = block.heads or 1
    head_dim = block.head_dim or setting.hidden // heads
    plain = Attention(
        heads,
        block.kv_heads or heads,
        head_dim,
        head_dim,
        window=(block.window or 0) if windowed else 0,
        causal=setting.causal,
        biases=biases_of(block) & {"q", "k", "v", "o"},
        qk_norm=block.qk_norm or "none",
        sinks=bool(block.sinks),
        global_projections=bool(block.global_attention),
        relative_rows=setting.relative_rows,
    )
    mla = block.mla
    if mla is None:
        return plain
    return plain._replace(
        kv_heads=heads,
        qk_dim=mla.nope_dim + mla.rope_dim,
        v_dim=mla.v_dim,
        q_rank=mla.q_rank or 0,
        kv_rank=mla.kv_rank,
        nope_dim=mla.nope_dim,
        rope_dim=mla.rope_dim,
    )


def _ffn(block: Block, mixture: bool) -> Ffn | Mixture:
    biases = biases_of(block)
    gated = True if block.gated is None else block.gated
    activation = block.activation or "silu"

    def dense(dim: int) -> Ffn:
        return Ffn(dim, gated, activation, biases & {"gate", "up", "down"})

    moe = block.moe
    if moe is None or not mixture:
        return dense(block.ffn or 0)
    shared = moe.shared_ffn or (moe.shared or 0) * moe.ffn
    return Mixture(moe.experts, moe.top_k, dense(moe.ffn), dense(shared) if shared else None,
                   bool(moe.shared_gate), "router" in biases, moe.correction_bias or "")  # fmt: skip


def _layer(block: Block, letter: str, kind: Kind, mixture: bool, setting: Setting) -> Layer:
    windowed = kind.windowed if kind.windowed is not None else not letter or kind.window is not None
    return Layer(
        letter,
        _attention(block, setting, windowed),
        setting.cross,
        _ffn(block, mixture),
        norm_of(block),
        placement_of(block),
        block.attention_norm is not False,
        block.parallel or "none",
    )


def _stack(name: str, spec: ModelSpec | Stack, base: Block, setting: Setting, distinct: int | None = None) -> StackPlan:
    kinds = layer_kinds(spec, spec.layers or 0)
    blocks = {letter: merged(base, kind) for letter, kind in kinds}
    # Few layers differ, so each is made once: a layer is its letter and whether it is a mixture.
    keys = [(letter, is_mixture(blocks[letter].moe, index)) for index, (letter, _) in enumerate(kinds)]
    of_letter = dict(kinds)
    made = {key: _layer(blocks[key[0]], key[0], of_letter[key[0]], key[1], setting) for key in dict.fromkeys(keys)}
    layers = tuple(made[key] for key in keys)
    return StackPlan(name, setting.hidden, layers, distinct or len(layers), norm_of(base), placement_of(base) != "post")


def position_rows(spec: ModelSpec) -> int:
    """Rows of the table of learned or disentangled positions; as many as the context unless said."""
    return spec.position_rows or spec.context or 0


def trained_context(spec: ModelSpec) -> int | None:
    """Tokens the model was trained for; no more than its table of positions has rows, unknown where neither is said."""
    return spec.context or (spec.position_rows if spec.positions == "learned" else None)


def relative_buckets(spec: ModelSpec) -> int:
    """Buckets of T5's relative position bias; 32 unless said."""
    return spec.relative_buckets or 32


def has_head(spec: ModelSpec) -> bool:
    """Whether the model predicts tokens: unless said, all but encoders do."""
    return spec.type != "encoder" if spec.head is None else spec.head


def channels(vision: Vision) -> int:
    """Input channels of a vision tower; 3 unless said."""
    return vision.channels or 3


def image_tokens(vision: Vision) -> int:
    """Tokens that an image is for the decoder; one per patch unless said."""
    return vision.tokens or vision.patches


def stacks(spec: ModelSpec) -> tuple[StackPlan, ...]:
    """The stacks of a model in the order data flows through them: vision, encoder, decoder."""
    found = []
    hidden = spec.hidden or 0
    rows = position_rows(spec) if spec.positions == "disentangled" else 0
    setting = Setting(hidden, causal=spec.type != "encoder", cross=spec.type == "encoder-decoder", relative_rows=rows)
    main = _stack("encoder" if spec.type == "encoder" else "decoder", spec, spec, setting, spec.distinct_layers)
    if spec.final_norm is not None:
        main = main._replace(final_norm=spec.final_norm)
    if spec.vision is not None:
        # A tower says all of itself: it shares nothing with the decoder behind it.
        found.append(_stack("vision", spec.vision, spec.vision, Setting(spec.vision.hidden, causal=False, cross=False)))
    if spec.encoder is not None:
        # What holds in the decoder's layers holds in the encoder's too, unless it says otherwise; a pattern is its own.
        encoder = _stack("encoder", spec.encoder, merged(spec, spec.encoder), Setting(hidden, causal=False, cross=False))
        found.append(encoder._replace(final_norm=main.final_norm))
    return (*found, main)
