"""Spec -> plan: every default filled in, every layer spelled out.

This is the only place that knows what a field left out means. A plan is a tuple of stacks, a stack a tuple of layers.
"""

from collections.abc import Sequence

from llmcalc.blueprint.layers import Attention, Ffn, Further, Kept, Layer, Mixer, Mixture, Norm, Setting, SparseIndex, StackPlan
from llmcalc.specs.blocks import Block, Extra, Kind, Recurrent, Stack
from llmcalc.specs.merge import is_mixture, layer_kinds, merged
from llmcalc.specs.model import ModelSpec, Vision

GROUPS = {
    "qkv": ("q", "k", "v"),
    "attention": ("q", "k", "v", "o"),
    "ffn": ("gate", "up", "down"),
    "all": ("q", "k", "v", "o", "gate", "up", "down", "projection"),
}


def biases_of(block: Block) -> frozenset[str]:
    """The linears with a bias, groups opened."""
    return frozenset(name for said in block.biases or () for name in GROUPS.get(said, (said,)))


def norm_of(block: Block) -> Norm:
    """The block's norm; a LayerNorm has a bias unless it is said not to."""
    kind = block.norm or "rmsnorm"
    default_bias = kind == "layernorm"
    bias = default_bias if block.norm_bias is None else block.norm_bias
    return Norm(kind, kind != "none", bias and kind != "none", block.norm_form or "plain")


def placement_of(block: Block) -> str:
    """Where the norms of a layer stand; before the sub-layer unless said."""
    return block.norm_placement or "pre"


def _scores_form(block: Block, setting: Setting) -> tuple[str, ...]:
    """How the scores are computed."""
    scores = block.scores or ("fp32" if setting.positions in ("rotary", "alibi") else "own")
    said = {
        "softcap": block.softcap,
        "dropout": "attention" in (block.dropout or ()),
        "upcast": scores != "own",
        "upcast inputs": scores == "upcast",
    }
    return tuple(name for name, holds in said.items() if holds)


def _attention(block: Block, setting: Setting, windowed: bool) -> Attention:
    heads = block.heads or 1
    head_dim = block.head_dim or setting.hidden // heads
    index = block.index
    plain = Attention(
        heads,
        block.kv_heads or heads,
        head_dim,
        block.v_head_dim or head_dim,
        window=(block.window or 0) if windowed else 0,
        causal=setting.causal,
        biases=biases_of(block) & {"q", "k", "v", "o", "output_gate"},
        qk_norm=block.qk_norm or "none",
        qk_norm_bias=block.qk_norm_bias,
        sinks=bool(block.sinks),
        global_projections=bool(block.global_attention),
        relative_rows=setting.relative_rows,
        chunked=bool(block.chunked) and windowed,
        output_gate=block.output_gate or "none",
        values_are_keys=bool(block.values_are_keys),
        reuses_kv=block.reuses_kv or "none",
        sparse_index=None if index is None else SparseIndex(index.heads, index.dim, index.type or "tokens", index.pool or 1),
        experts=block.attention_experts or 0,
        differential=bool(block.differential),
        rotary=(setting.rotary_dim or head_dim) if setting.positions == "rotary" else 0,
        form=_scores_form(block, setting),
        fused="qkv" in (block.fused or ()),
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


def _mixer(spec: Recurrent, hidden: int) -> Mixer:
    heads = spec.heads or 1
    width = spec.width or (heads * spec.head_dim if spec.head_dim else hidden)
    head_dim = spec.head_dim or width // heads
    return Mixer(
        spec.type,
        width,
        heads,
        head_dim,
        spec.key_heads or heads,
        spec.key_dim or head_dim,
        spec.state or 0,
        spec.groups or 1,
        spec.rank or 0,
        spec.conv or 0,
        conv_bias=bool(spec.conv_bias),
        bias=bool(spec.bias),
        norm=spec.norm or "none",
        chunk=spec.chunk or 0,
    )


def _ffn(block: Block, mixture: bool) -> Ffn | Mixture | None:
    biases = biases_of(block)
    gated = True if block.gated is None else block.gated
    activation = block.activation or "silu"

    def dense(dim: int, gated: bool = gated) -> Ffn | None:
        if not dim:
            return None
        fused, drops = "gate_up" in (block.fused or ()), "activation" in (block.dropout or ())
        return Ffn(dim, gated, activation, biases & {"gate", "up", "down"}, fused, drops)

    moe = block.moe
    if moe is None or not mixture:
        return dense(block.ffn or 0)
    of_experts = gated if moe.gated is None else moe.gated
    expert = Ffn(moe.ffn, of_experts, activation, frozenset({"gate", "up", "down"} if "experts" in biases else ()), True)
    shared = moe.shared_ffn or (moe.shared or 0) * moe.ffn
    return Mixture(moe.experts, moe.top_k, expert, dense(shared, of_experts),
                   bool(moe.shared_gate), "router" in biases, moe.correction_bias or "",
                   dense=dense(moe.dense or 0), latent=moe.latent or 0, idle=moe.idle or 0,
                   fp32_router=bool(moe.fp32_router))  # fmt: skip


def further(said: Sequence[Extra] | None) -> tuple[Further, ...]:
    """The further tensors of a layer or stack; what has two dims is multiplied by, unless said."""
    return tuple(
        Further(
            extra.name,
            tuple(extra.shape),
            extra.part or "other",
            (len(extra.shape) > 1 if extra.times is None else extra.times) if extra.rows != "none" else 0,
            extra.rows or "",
            extra.copies or 1,
            extra.used or extra.copies or 1,
            bool(extra.buffer),
            bool(extra.after),
        )
        for extra in said or ()
    )


def _layer(block: Block, letter: str, kind: Kind, mixture: bool, setting: Setting) -> Layer:
    windowed = kind.windowed if kind.windowed is not None else not letter or kind.window is not None
    attends = block.recurrent is None if block.attention is None else block.attention
    return Layer(
        letter,
        _attention(block, setting, windowed) if attends else None,
        None if block.recurrent is None else _mixer(block.recurrent, setting.hidden),
        setting.cross,
        _ffn(block, mixture),
        norm_of(block),
        placement_of(block),
        block.attention_norm is not False,
        block.ffn_norm is not False,
        block.parallel or "none",
        block.shared_blocks or 0,
        further(block.extra),
        tuple(Kept(state.name, tuple(state.shape), state.dtype or "") for state in block.states or ()),
        image_cache=block.image_cache or 0,
        dropout=_dropped(block.dropout or ()),
    )


def _stack(name: str, spec: ModelSpec | Stack, base: Block, setting: Setting, distinct: int | None = None) -> StackPlan:
    kinds = layer_kinds(spec, spec.layers or 0)
    blocks = {letter: merged(base, kind) for letter, kind in kinds}
    # Few layers differ, so each is made once: a layer is its letter and whether it is a mixture.
    keys = [(letter, is_mixture(blocks[letter].moe, index)) for index, (letter, _) in enumerate(kinds)]
    of_letter = dict(kinds)
    made = {key: _layer(blocks[key[0]], key[0], of_letter[key[0]], key[1], setting) for key in dict.fromkeys(keys)}
    layers = tuple(made[key] for key in keys)
    final_norm = placement_of(base) != "post" if spec.final_norm is None else spec.final_norm
    outside = further(spec.outside)
    return StackPlan(name, setting.hidden, layers, distinct or len(layers), norm_of(base), final_norm, outside,
                     frozenset(base.dropout or ()))  # fmt: skip


def _dropped(sites: Sequence[str]) -> tuple[str, ...]:
    """The sub-layers whose output is dropped out."""
    if "residual" in sites:
        return ("attention", "cross_attention", "ffn", "recurrent")
    return ("ffn",) if "ffn" in sites else ()


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


def patch_rows(vision: Vision) -> int:
    """Rows that a tower's layers work on for one image: its patches, and the class token; 0 where images have no one size."""
    return vision.patches + bool(vision.class_token) if vision.image else 0


def image_tokens(vision: Vision) -> int:
    """Tokens that an image is for the decoder; one per patch unless said."""
    return vision.tokens or vision.patches


def stacks(spec: ModelSpec) -> tuple[StackPlan, ...]:
    """The stacks of a model in the order data flows through them: vision, audio, encoder, decoder."""
    found = []
    hidden = spec.hidden or 0
    rows = position_rows(spec) if spec.positions == "disentangled" else 0
    setting = Setting(hidden, causal=spec.type != "encoder", cross=spec.type == "encoder-decoder", relative_rows=rows,
                      positions=spec.positions, rotary_dim=spec.rotary_dim or 0)  # fmt: skip
    main = _stack("encoder" if spec.type == "encoder" else "decoder", spec, spec, setting, spec.distinct_layers)
    for name, tower in (("vision", spec.vision), ("audio", spec.audio)):
        if tower is not None:
            # A tower says all of itself: it shares nothing with the decoder behind it.
            found.append(_stack(name, tower, tower, Setting(tower.hidden or hidden, causal=False, cross=False)))
    if spec.encoder is not None:
        # What holds in the decoder's layers holds in the encoder's too, unless it says otherwise; a pattern is its own.
        own = setting._replace(hidden=spec.encoder.hidden or hidden, causal=False, cross=False, relative_rows=0)
        encoder = _stack("encoder", spec.encoder, merged(spec, spec.encoder), own)
        found.append(encoder if spec.encoder.final_norm is not None else encoder._replace(final_norm=main.final_norm))
    return (*found, main)
