"""A GGUF file's metadata and tensor table -> the data of a spec file.

Dimensions that matter come from the shapes of the tensors, head counts and windows from the metadata, and the little that neither
tells from the table in ``gguf_arch``: so one reader serves every architecture that has the usual tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from llmcalc.errors import UnknownArchitecture
from llmcalc.importers.config_json import Imported
from llmcalc.importers.gguf_arch import AFTER, ARCHITECTURES, FILE_TYPES, NOT_MULTIPLIED, OUTSIDE
from llmcalc.importers.gguf_blocks import block
from llmcalc.importers.gguf_model import Model
from llmcalc.importers.shape import LETTERS, Spec, extra, fold, trimmed
from llmcalc.importers.tensors import Checkpoint, fault, shown

NORMS = {"attn_norm", "attn_norm_2", "attn_output_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "layer_output_norm"}
NO_MODELS = {"adapter": "a LoRA adapter", "imatrix": "an importance matrix"}


def _architecture(checkpoint: Checkpoint) -> str:
    """The name of the architecture. Raises UnknownArchitecture with the nearest, SpecError for a file that holds no model."""
    kind, name = checkpoint.metadata.get("general.type"), checkpoint.metadata.get("general.architecture")
    if isinstance(kind, str) and kind in NO_MODELS:
        raise fault(
            f"found '{kind}': the file holds {NO_MODELS[kind]}, no model; give the base model's", checkpoint.source, "general.type"
        )
    if not isinstance(name, str) or not name:
        raise UnknownArchitecture(f"{checkpoint.source}: general.architecture: missing; it names the architecture")
    if name not in ARCHITECTURES:
        near = get_close_matches(name[:60], ARCHITECTURES, n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise UnknownArchitecture(
            f"{checkpoint.source}: general.architecture: {shown(name)} is an architecture that llmcalc does not know{hint}"
        )
    return name


def _slides(m: Model, depth: int, notes: list[str]) -> list[int | None]:
    """The window of each layer: as the file lists them, or in periods as the architecture has them."""
    context, window = m.count("context_length", 0), m.count("attention.sliding_window", m.arch.window or 0)
    if m.arch.chunked and window:
        # llama.cpp has the chunk's length fixed: the key can only switch it off.
        window = m.arch.window or window
    if not window:
        return [None] * depth
    pattern, period = m.metadata.get(m.key("attention.sliding_window_pattern")), m.arch.period
    if type(pattern) is tuple:
        if len(pattern) < depth:
            raise m.error(m.key("attention.sliding_window_pattern"), f"{len(pattern)} entries for {depth} layers")
        return [window if slides else None for slides in pattern[:depth]]
    if pattern is not None:
        period = m.count("attention.sliding_window_pattern")
    if not period and context and window >= context:
        # Where every layer has it, a window no shorter than the context is none (Phi-3.5).
        return [None] * depth
    if period is None:
        notes.append(f"attention.sliding_window is {window}, and no pattern says in which layers; taken for all of them")
    if not period:
        return [window] * depth
    full = 0 if m.arch.full_first else period - 1
    return [None if index % period == full else window for index in range(depth)]


def _stack(m: Model, hidden: int, notes: list[str]) -> Spec:
    """The layers of a decoder, or of an encoder that stands alone."""
    depth = m.depth()
    windows = _slides(m, depth, notes)
    blocks = []
    for index, window in enumerate(windows):
        made = block(m.layer("blk", index), hidden)
        attends = made.get("attention", "recurrent" not in made)
        blocks.append({**made, **({"window": window, "chunked": m.arch.chunked or None} if window and attends else {})})
    return {"layers": depth, **_folded(m, blocks), **_norm(m)}


def _norm(m: Model) -> Spec:
    """The kind of norm: LayerNorm by its epsilon's key or its bias, without parameters where the layers hold none (OLMo 1)."""
    names = {name for tensors in m.layers.values() for name in tensors}
    if not names & NORMS:
        return {"norm": "none"}
    biased = any(f"{name}.bias" in names for name in NORMS)
    layer = biased or (m.says("attention.layer_norm_epsilon") and not m.says("attention.layer_norm_rms_epsilon"))
    return {"norm": "layernorm" if layer else None, "norm_bias": biased if biased != layer else None}


def _folded(m: Model, blocks: list[Spec]) -> Spec:
    """Layers as a pattern of kinds. Raises SpecError for more kinds than a pattern has letters."""
    kinds = {repr(trimmed(made)) for made in blocks}
    if len(kinds) > len(LETTERS):
        raise m.error(m.key("block_count"), f"{len(kinds)} kinds of layer, allowed: {len(LETTERS)}")
    return fold(blocks)


def _ends(m: Model, hidden: int) -> Spec:
    """What stands before and after the layers."""
    outside, arch = m.outside, m.arch
    learned = outside.get("position_embd")
    positions = "learned" if learned else "rotary" if arch.positions == "learned" else arch.positions
    final = any(name in outside for name in (arch.final_norm, "output_norm", "enc.output_norm"))
    spec: Spec = {
        "vocab": outside["token_embd"].shape[0],
        "context": m.count("context_length", 0) or None,
        "positions": positions if positions != "rotary" else None,
        "position_rows": _rows(m, "position_embd"),
        "embedding_norm": ("token_embd_norm" in outside and arch.final_norm != "token_embd_norm") or None,
        "token_types": _rows(m, "token_types"),
        "final_norm": final,
        "pooler": ("cls" in outside and outside["cls"].shape == (hidden, hidden)) or None,
        "activation": arch.activation or None,
    }
    if arch.encoder:
        return spec
    return {**spec, "tied_head": "output" not in outside or None, "head_bias": "output.bias" in outside or None}


def _rows(m: Model, name: str) -> int | None:
    """Rows of a small table; a table of one row is written without that dimension."""
    tensor = m.outside.get(name)
    return None if tensor is None else tensor.shape[0] if len(tensor.shape) == 2 else 1


def _further(m: Model) -> Iterator[Spec]:
    """Further tensors outside of the layers; a third dimension counts copies."""
    for name, (role, part) in OUTSIDE.items():
        tensor = m.outside.get(name)
        if tensor is None:
            continue
        if not tensor.elements:
            raise m.error(tensor.name, "empty")
        shape, copies = (tensor.shape[1:], tensor.shape[0]) if len(tensor.shape) == 3 else (tensor.shape or (1,), None)
        times = 0 if name in NOT_MULTIPLIED else None
        yield extra(role, *shape, part=part, times=times, after=name in AFTER or None, copies=copies)


def from_gguf(checkpoint: Checkpoint) -> Imported:
    """The spec of a GGUF file.

    Raises SpecError for metadata and tensors that do not fit each other, UnknownArchitecture for what is not known here.
    """
    name = _architecture(checkpoint)
    m = Model(checkpoint, name, ARCHITECTURES[name])
    hidden = m.count("embedding_length", least=1)
    table = m.outside.get("token_embd")
    if table is None or len(table.shape) != 2 or not table.shape[0]:
        raise m.error("token_embd.weight", "missing or no table")
    if table.shape[1] != hidden:
        raise m.error("token_embd.weight", f"rows of {table.shape[1]:,}, where {m.key('embedding_length')} is {hidden:,}")
    notes: list[str] = []
    if name in ("t5", "t5encoder"):
        from llmcalc.importers.gguf_t5 import stacks

        layers = stacks(m)
    else:
        layers = _stack(m, hidden, notes)
    title = checkpoint.metadata.get("general.name")
    file_type = checkpoint.metadata.get("general.file_type")
    quant = FILE_TYPES.get(file_type) if type(file_type) is int else None
    spec: Spec = {
        "title": title if isinstance(title, str) and 0 < len(title) <= 100 else None,
        "family": name,
        "sources": [f"{checkpoint.source} (general.architecture {name})"],
        "type": "encoder" if m.arch.encoder else None,
        "hidden": hidden,
        **_ends(m, hidden),
        **layers,
        "outside": list(_further(m)),
        "native_quant": quant,
    }
    if spec["final_norm"] == (spec.get("norm_placement") != "post"):
        del spec["final_norm"]  # as unless said
    return Imported(trimmed(spec), tuple(notes))
