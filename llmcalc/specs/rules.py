"""Combinations that no model has: what types cannot say. Each rule gives the field and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

from llmcalc.specs.blocks import Block, Moe, Recurrent, Stack
from llmcalc.specs.gpu import GpuSpec, Tflops
from llmcalc.specs.merge import BUILT_IN, all_kinds, is_mixture, merged
from llmcalc.specs.model import ModelSpec, Vision
from llmcalc.specs.quant import QuantSpec
from llmcalc.specs.read import Path

Finding = tuple[Path, str]
NEEDED = ("layers", "hidden", "vocab")
# What a recurrent mixer of each type cannot do without.
MIXERS = {
    "mamba": ("state", "rank", "conv"),
    "mamba2": ("state", "heads", "conv"),
    "gated-delta": ("heads", "head_dim", "key_dim", "conv"),
    "kimi-delta": ("heads", "head_dim", "conv"),
    "rg-lru": ("heads", "conv"),
    "rwkv": (),
    "lightning": ("heads", "head_dim"),
    "short-conv": ("conv",),
    "mlstm": ("heads", "key_dim"),
}

# Fields of a recurrent mixer that only some types have a use for.
MEANT_FOR = {
    "state": ("mamba", "mamba2"),
    "groups": ("mamba2",),
    "rank": ("mamba", "kimi-delta"),
    "norm": ("mamba", "mamba2"),
    "key_heads": ("gated-delta",),
    "key_dim": ("gated-delta", "mlstm"),
    "conv": ("mamba", "mamba2", "gated-delta", "kimi-delta", "rg-lru", "short-conv"),
    "conv_bias": ("mamba", "mamba2", "gated-delta", "kimi-delta", "rg-lru", "short-conv"),
    "chunk": ("mamba2", "gated-delta", "kimi-delta", "lightning", "mlstm"),
}


def check_model(spec: ModelSpec) -> Iterator[Finding]:
    """All that is impossible in a model spec."""
    if spec.status == "unpublished":
        if spec.note is None:
            yield ("note",), "missing; an unpublished model says here what is known"
        if any(getattr(spec, name) is not None for name in (*NEEDED, "heads", "ffn", "kv_heads", "head_dim")):
            yield ("status",), "unpublished, yet the spec gives an architecture; use estimate for hearsay"
        return
    missing = [name for name in NEEDED if getattr(spec, name) is None]
    for name in missing:
        yield (name,), "missing; every model needs " + ", ".join(NEEDED)
    if missing:
        return
    assert spec.layers is not None
    assert spec.hidden is not None
    if (spec.encoder is not None) != (spec.type == "encoder-decoder"):
        fault = "missing; type encoder-decoder needs it" if spec.encoder is None else "only with type: encoder-decoder"
        yield ("encoder",), fault
    if spec.distinct_layers is not None and spec.distinct_layers > spec.layers:
        yield ("distinct_layers",), f"{spec.distinct_layers} is more than the {spec.layers} layers"
    unlike = len(set(spec.pattern or "x")) > 1 or (spec.moe is not None and (spec.moe.first_dense or (spec.moe.every or 1) > 1))
    if spec.distinct_layers is not None and unlike:
        yield ("distinct_layers",), "layers that share weights must be alike: no pattern of kinds, no dense layers among mixtures"
    if spec.position_rows is not None and spec.positions not in ("learned", "disentangled"):
        yield ("position_rows",), f"has no meaning with positions: {spec.positions}"
    if spec.positions in ("learned", "disentangled") and not (spec.position_rows or spec.context):
        yield ("positions",), f"{spec.positions} needs position_rows or context"
    if spec.positions == "disentangled" and spec.type != "encoder":
        yield ("positions",), "disentangled is an encoder's (DeBERTa)"
    if spec.relative_buckets is not None and spec.positions != "relative":
        yield ("relative_buckets",), f"has no meaning with positions: {spec.positions}"
    head_dim = spec.head_dim or spec.hidden // (spec.heads or 1)
    if spec.rotary_dim is not None and spec.mla is None and spec.rotary_dim > head_dim:
        yield ("rotary_dim",), f"{spec.rotary_dim} is more than the head dim {head_dim}"
    if spec.rotary_dim is not None and spec.positions != "rotary":
        yield ("rotary_dim",), f"has no meaning with positions: {spec.positions}"
    if spec.pooler and spec.type != "encoder":
        yield ("pooler",), "is an encoder's"
    no_head = spec.head is False or (spec.head is None and spec.type == "encoder")
    for name in ("tied_head", "head_bias"):
        if getattr(spec, name) and no_head:
            yield (name,), "the model has no head (say head: true)"
    yield from _stack(spec, spec, spec.hidden, spec.layers, ())
    if spec.encoder is not None:
        hidden = spec.encoder.hidden or spec.hidden
        yield from _stack(spec.encoder, merged(spec, spec.encoder), hidden, spec.encoder.layers, ("encoder",))
    if spec.vision is not None:
        yield from _vision(spec.vision)
    if spec.audio is not None:
        yield from _stack(spec.audio, spec.audio, spec.audio.hidden or spec.hidden, spec.audio.layers, ("audio",))


def _vision(vision: Vision) -> Iterator[Finding]:
    if vision.image is None:
        if vision.position_rows is None:
            yield ("vision", "image"), "missing; without it position_rows is needed"
        if vision.tokens is not None:
            yield ("vision", "tokens"), "has no meaning without image"
    elif vision.patch > vision.image:
        yield ("vision", "patch"), f"{vision.patch} is more than the image side {vision.image}"
    elif vision.tokens is not None and vision.tokens > vision.patches:
        yield ("vision", "tokens"), f"{vision.tokens} is more than the {vision.patches} patches"
    if vision.hidden is None:
        yield ("vision", "hidden"), "missing"
        return
    yield from _stack(vision, vision, vision.hidden, vision.layers, ("vision",))


def _stack(stack: ModelSpec | Stack, base: Block, hidden: int, depth: int, at: Path) -> Iterator[Finding]:
    kinds = stack.kinds or {}
    letters = set(stack.pattern or "")
    for letter in sorted(letters - set(kinds) - set(BUILT_IN)):
        known = ", ".join(sorted({*kinds, *BUILT_IN}))
        yield (*at, "pattern"), f"{letter!r} is no kind of layer; known: {known}"
    if stack.pattern is not None and len(stack.pattern) > depth:
        yield (*at, "pattern"), f"{len(stack.pattern)} letters for {depth} layers"
    for letter in kinds:
        if len(letter) != 1 or not letter.isascii() or not letter.isalnum():
            yield (*at, "kinds", letter), "a kind is one letter or digit"
        elif letter not in letters:
            yield (*at, "kinds", letter), "stands nowhere in the pattern"
    if stack.pattern is None or (letters & set(BUILT_IN)) - set(kinds):
        # Where every layer has a kind of its own, what they have in common need not be a layer.
        yield from _block(base, hidden, depth, at)
    for letter, kind in kinds.items():
        yield from _block(merged(base, kind), hidden, depth, (*at, "kinds", letter))
    by_letter = all_kinds(stack)
    for letter in sorted(letters & set(by_letter)):
        if by_letter[letter].windowed and merged(base, by_letter[letter]).window is None:
            yield (*at, "pattern"), f"{letter} is windowed, but no window is given"


def _block(block: Block, hidden: int, depth: int, at: Path) -> Iterator[Finding]:
    attends = block.recurrent is None if block.attention is None else block.attention
    if block.recurrent is not None:
        yield from _recurrent(block.recurrent, hidden, (*at, "recurrent"))
    if attends:
        yield from _attention(block, hidden, at)
    if block.shared_blocks is not None and (block.recurrent is None or not attends):
        yield (*at, "shared_blocks"), "goes with a recurrent mixer beside attention"
    if block.parallel not in (None, "none") and block.norm_placement not in (None, "pre"):
        yield (*at, "parallel"), f"a parallel block has its norms before, not {block.norm_placement}"
    if block.norm_bias and block.norm == "none":
        yield (*at, "norm_bias"), "norm: none has no parameters"
    if block.gated is False and "gate" in (block.biases or ()):
        yield (*at, "biases"), "gate: the FFN has none (gated: false)"
    if block.moe is not None:
        yield from _moe(block.moe, depth, (*at, "moe"))
        if block.ffn is None and (block.moe.first_dense or (block.moe.every or 1) > 1):
            yield (*at, "ffn"), "missing; some layers are dense (moe.first_dense, moe.every)"
    elif {"router", "experts"} & {*(block.biases or ())}:
        yield (*at, "biases"), "router, experts: the block has no moe"
    elif block.ffn is None:
        yield (*at, "ffn"), "missing; the FFN dim of the layers, 0 for none (or say moe)"


def _attention(block: Block, hidden: int, at: Path) -> Iterator[Finding]:
    heads = block.heads
    if heads is None:
        yield (*at, "heads"), "missing; attention needs it"
        return
    if block.mla is None and block.head_dim is None and hidden % heads:
        yield (*at, "heads"), f"{heads} heads do not divide hidden {hidden}; say head_dim"
    if block.kv_heads is not None:
        if block.mla is not None:
            yield (*at, "kv_heads"), "has no meaning with mla: all heads share one latent"
        elif block.kv_heads > heads or heads % block.kv_heads:
            yield (*at, "kv_heads"), f"{block.kv_heads} KV heads do not divide {heads} heads"
    if block.mla is not None:
        for name in ("qk_norm", "global_attention", "values_are_keys", "reuses_kv", "attention_experts", "differential"):
            if getattr(block, name) not in (None, False, "none"):
                yield (*at, name), "cannot go with mla"
    if block.index is not None and block.index.pool is not None and block.index.type in (None, "tokens"):
        yield (*at, "index", "pool"), "has no meaning where tokens are scored one by one (type: pools, blocks)"
    used = heads // (block.kv_heads or heads)
    if block.attention_experts is not None and used > block.attention_experts:
        yield (*at, "attention_experts"), f"{heads} heads of {block.kv_heads} KV heads use {used} experts"
    if block.chunked and block.window is None:
        yield (*at, "chunked"), "says how a window moves, but no window is given"


def _recurrent(spec: Recurrent, hidden: int, at: Path) -> Iterator[Finding]:
    for name in MIXERS[spec.type]:
        if getattr(spec, name) is None:
            yield (*at, name), f"missing; {spec.type} needs " + ", ".join(MIXERS[spec.type])
    for name, types in MEANT_FOR.items():
        if getattr(spec, name) not in (None, False, "none") and spec.type not in types:
            yield (*at, name), f"has no meaning with {spec.type}; it is for {', '.join(types)}"
    wrong = {"mamba": "gated", "mamba2": "inputs"}.get(spec.type)
    if wrong is not None and spec.norm == wrong:
        yield (*at, "norm"), f"{wrong} is not a norm of {spec.type}"
    heads, width = spec.heads or 1, spec.width or hidden
    if spec.head_dim is None and width % heads:
        yield (*at, "heads"), f"{heads} heads do not divide the width {width}; say head_dim"
    elif spec.width is not None and spec.head_dim is not None and heads * spec.head_dim != spec.width:
        yield (*at, "width"), f"{spec.width} is not heads x head_dim, {heads} x {spec.head_dim}"
    if spec.key_heads is not None and heads % spec.key_heads:
        yield (*at, "key_heads"), f"{spec.key_heads} key heads do not divide {heads} heads"
    if spec.groups is not None and heads % spec.groups:
        yield (*at, "groups"), f"{spec.groups} groups do not divide {heads} heads"


def _moe(moe: Moe, depth: int, at: Path) -> Iterator[Finding]:
    if moe.top_k > moe.experts:
        yield (*at, "top_k"), f"{moe.top_k} is more than the {moe.experts} experts"
    if moe.first_dense is not None and moe.first_dense >= depth:
        yield (*at, "first_dense"), f"{moe.first_dense} leaves no mixture among {depth} layers"
    elif moe.every is not None and moe.every > depth:
        yield (*at, "every"), f"{moe.every} is more than the {depth} layers"
    elif not any(is_mixture(moe, index) for index in range(depth)):
        yield (*at, "every"), f"leaves no mixture: no layer of the {depth} is both one in {moe.every} and past the dense ones"
    if moe.shared_gate and not (moe.shared or moe.shared_ffn):
        yield (*at, "shared_gate"), "there is no shared expert"


def check_gpu(spec: GpuSpec) -> Iterator[Finding]:
    """All that is impossible in a GPU spec."""
    if not any(getattr(spec.tflops, name) is not None for name in Tflops.__annotations__):
        yield ("tflops",), "empty; give at least one rate"
    known = {*GpuSpec.__annotations__, *(f"tflops.{name}" for name in Tflops.__annotations__)}
    for name in ("verified", "unverified"):
        for index, field in enumerate(getattr(spec, name)):
            if field not in known:
                yield (name, index), f"{field!r} is no field of a GPU"
            elif name == "unverified" and field in spec.verified:
                yield (name, index), f"{field!r} is among the verified too"


def check_quant(spec: QuantSpec) -> Iterator[Finding]:
    """All that is impossible in a quantisation spec."""
    if not spec.rules:
        yield ("rules",), "empty; without a rule no tensor would get the format"
    given = {rule.format for rule in spec.rules}
    for index, rule in enumerate(spec.rules):
        at: Path = ("rules", index)
        if not rule.tensors:
            yield (*at, "tensors"), "empty; name at least one kind of tensor"
        if rule.instead_of is not None and rule.instead_of not in given:
            yield (*at, "instead_of"), f"{rule.instead_of!r} is the format of no rule"
        elif rule.instead_of == rule.format:
            yield (*at, "instead_of"), f"{rule.format!r} cannot stand in for itself"
        if rule.counted is not None and rule.layers is None and rule.first is None:
            yield (*at, "counted"), "there is nothing to count; say layers or first"
    for index, overhead in enumerate(spec.format.overhead):
        if overhead.per == "block" and spec.format.tile is None:
            yield ("format", "overhead", index, "per"), "block needs the format's tile"
