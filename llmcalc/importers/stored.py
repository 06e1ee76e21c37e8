"""What files hold against what a config predicts: counts come from the tensors, and a difference is shown, not hidden.

``compare`` for files with a config (or GGUF's metadata), ``bare`` for tensors alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from llmcalc.blueprint.parts import ONE, Blueprint, StackShape, Weight
from llmcalc.importers.stored_names import causes, group_of, layer_of, missing_layers, part_of, unmatched
from llmcalc.importers.stored_packing import FLOATS, Contents, Held, is_gguf, unpacked
from llmcalc.importers.tensors import Checkpoint, fault
from llmcalc.quantity import Dim

HEADS = ("lm_head", "embed_out", "output", "decoder", "output_projection", "head", "proj_out")
TABLES = ("embed_tokens", "shared", "word_embeddings", "wte", "tok_embeddings", "embed_in", "embedding", "token_embd", "embeddings")
NO_CONFIG = "the file holds tensors only, no config; put config.json beside it"


class Comparison(NamedTuple):
    """``blueprint`` is adjusted: its total is ``stored``, unless the files hold less than predicted or nobody can tell."""

    blueprint: Blueprint
    stored: int
    predicted: int
    notes: tuple[str, ...]


def _plain(value: int) -> Dim:
    """A size that is its own symbol."""
    return Dim(value, str(value), names={})


def _copies(held: Iterable[Held], blueprint: Blueprint) -> set[str]:
    """Names of stored copies of the token table: a tied head, or the tables of both stacks where they share one."""
    tables = [w for w in blueprint.weights if w.role in ("embedding", "lm_head") and w.kind in ("table", "matrix")]
    table = next((w for w in tables if w.role == "embedding"), None)
    if table is None:
        return set()
    shape = tuple(map(int, table.shape))
    alike = [h.name for h in held if h.shape == shape and layer_of(h.name) is None]

    def named(words: tuple[str, ...]) -> list[str]:
        return [name for name in alike if name.removesuffix(".weight").rsplit(".", 1)[-1] in words]

    owned = sum(w.role == "embedding" and not w.tied_to for w in tables)
    # Of several tables those with the shortest names are meant, outside of the stacks.
    inner = sorted(named(TABLES), key=lambda name: (name.count("."), name))[owned:]
    return {*inner, *(named(HEADS) if any(w.role == "lm_head" and w.tied_to for w in tables) else ())}


def _listed(amounts: dict[str, int]) -> str:
    return ", ".join(f"{why} {count:,}" for why, count in sorted(amounts.items(), key=lambda pair: -pair[1]))


def _words(contents: Contents, missing: int) -> tuple[list[Held], str]:
    """32-bit words unpacked by the bits an element that give the config's count; where none do, it is left open."""
    for bits in (4, 8, 2, 3, 6, 5):
        if sum(tensor.elements for tensor in contents.words) * 32 // bits == missing:
            name = f"INT{bits}"
            return [Held(t.name, (*t.shape[:-1], t.shape[-1] * 32 // bits), t.dtype, name) for t in contents.words], ""
    return [], "32-bit words that unpack to no count that the config predicts"


def _dtype(held: Iterable[Held], blueprint: Blueprint, gguf: bool) -> str:
    """The dtype of most elements; of those that are not packed, where most are."""
    amounts: dict[str, int] = {}
    for tensor in held:
        amounts[tensor.dtype] = amounts.get(tensor.dtype, 0) + tensor.elements
    most = max(amounts, key=lambda dtype: amounts[dtype], default="")
    if most not in FLOATS and not gguf:
        most = max((dtype for dtype in amounts if dtype in FLOATS and dtype != "F32"), key=lambda dtype: amounts[dtype], default="")
    return FLOATS.get(most, blueprint.dtype)


def _packed(held: Iterable[Held], checkpoint: Checkpoint) -> list[str]:
    """A note on files whose weights are packed, with their true bytes."""
    amounts: dict[str, int] = {}
    for tensor in held:
        packing = tensor.packing or ("" if tensor.dtype in (*FLOATS, "F64") else tensor.dtype)
        if packing:
            amounts[packing] = amounts.get(packing, 0) + tensor.elements
    if not amounts:
        return []
    size = sum(tensor.bytes for tensor in checkpoint.tensors)
    held_as = f"the files hold packed weights ({_listed(amounts)} parameters)"
    return [f"{held_as}: {size:,} bytes of tensors, {checkpoint.file_bytes:,} of files"]


def compare(blueprint: Blueprint, checkpoint: Checkpoint) -> Comparison:
    """The blueprint with the files' count and dtype. Raises SpecError for files that hold no model."""
    contents = unpacked(checkpoint)
    predicted = sum(w.elements for w in blueprint.weights if not w.buffer)
    held, apart, notes = list(contents.held), dict(contents.apart), list[str]()
    if any(w.buffer for w in blueprint.weights):
        count = sum(tensor.elements for tensor in contents.corrections)
        apart |= {"biases of the routers": count} if count else {}
    else:
        held += contents.corrections
    copies = _copies(held, blueprint)
    if copies:
        apart["a copy of the tied token table"] = sum(tensor.elements for tensor in held if tensor.name in copies)
        held = [tensor for tensor in held if tensor.name not in copies]
    known = sum(tensor.elements for tensor in held)
    why = ""
    if contents.words:
        words, why = _words(contents, predicted - known)
        held += words
    if contents.unknown:
        names = sorted({tensor.name.rsplit(".", 1)[-1] for tensor in contents.unknown})
        why = f"integers of a packing that is not known ({', '.join(names[:4])})"
    notes += [f"set apart in the files, no parameters: {_listed(apart)}"] if apart else []
    notes += _packed(held, checkpoint)
    gguf = is_gguf(checkpoint)
    fused = ("qkv",) if gguf and any(tensor.name.endswith(".attn_qkv.weight") for tensor in held) else ()
    blueprint = blueprint._replace(dtype=_dtype(held, blueprint, gguf), fused=fused)
    said = "metadata" if gguf else "config"
    if why:
        return Comparison(blueprint, known, predicted, (*notes, f"the files hold {why}; counts are those that the {said} predicts"))
    stored = sum(tensor.elements for tensor in held)
    difference = stored - predicted
    if not difference:
        notes.append(f"the files hold the {stored:,} parameters that the {said} predicts")
        return Comparison(blueprint, stored, predicted, tuple(notes))
    notes.append(_difference(difference, held, blueprint, said))
    if difference > 0:
        blueprint = blueprint._replace(weights=(*blueprint.weights, _unexplained(difference, blueprint.stacks[-1].name)))
    return Comparison(blueprint, stored, predicted, tuple(notes))


def _unexplained(elements: int, stack: str) -> Weight:
    """One weight of so many elements, in rows that a quantiser's blocks divide: most of what is further in files is matrices."""
    row = min(elements & -elements, 4096)
    shape = (_plain(elements // row), _plain(row)) if row > 1 else (_plain(elements),)
    kind = "matrix" if len(shape) > 1 else "table"
    return Weight(f"{stack}.unexplained", "other", "unexplained", kind, shape, stack, (), ONE)


def _difference(difference: int, held: list[Held], blueprint: Blueprint, said: str) -> str:
    """What the files hold more or less than config or metadata predict (``said`` which), and what it likely is."""
    if difference < 0:
        lacking = missing_layers(held, blueprint)
        which = f"; they have no tensors of layers {', '.join(map(str, lacking[:8]))}" if lacking else ""
        return f"the files lack {-difference:,} parameters that the {said} predicts{which}; counts are the {said}'s"
    found = causes(held, blueprint)
    text = f"the files hold {difference:,} parameters more than the {said} predicts, counted as unexplained"
    explained = sum(found.values())
    if found:
        text += f": {_listed(found)}"
    if explained < difference:
        groups = unmatched(held, blueprint)
        largest = ", ".join(f"{name} {count:,}" for name, count in groups[:4])
        text += f"; largest that no weight of the {said} matches: {largest}" if groups else ""
    elif explained > difference:
        text += f"; of what the {said} predicts they lack {explained - difference:,}"
    return text


def bare(checkpoint: Checkpoint, name: str) -> Blueprint:
    """Tensors alone as a blueprint: counts and bytes, but no operations and no cache. Raises SpecError for what holds no model.

    Tensors whose names differ in numbers alone are one weight: the first number is the layer's, further ones count copies.
    """
    contents = unpacked(checkpoint)
    for integers in (*contents.words, *contents.unknown):
        raise fault(
            "packed integers, and only a config.json beside them tells what they unpack to", checkpoint.source, integers.name
        )
    groups: dict[tuple[str, tuple[int, ...], str], list[Held]] = {}
    for tensor in (*contents.held, *contents.corrections):
        groups.setdefault((group_of(tensor.name), tensor.shape, tensor.dtype), []).append(tensor)
    weights, most = [], 0
    for (pattern, shape, dtype), tensors in groups.items():
        layers = sorted({number for tensor in tensors if (number := layer_of(tensor.name)) is not None})
        most = max(most, *layers, 0) if layers else most
        whole = len(tensors) % max(len(layers), 1) == 0
        copies = len(tensors) // max(len(layers), 1) if whole else len(tensors)
        part, role = part_of(pattern)
        depth = _plain(len(layers) or 1) if whole else ONE
        sizes = tuple(_plain(size) for size in shape if size != 1) or (ONE,)
        kind = "gain" if part == "norm" else "bias" if pattern.endswith("bias") else "table" if len(sizes) < 2 else "matrix"
        kind = "table" if role == "embedding" else kind
        weights.append(
            Weight(f"{pattern}", part, role, kind, sizes, "decoder", tuple(layers) if whole else (), depth, _plain(copies),
                   _plain(copies), dtype=FLOATS.get(dtype, ""))
        )  # fmt: skip
    blueprint = Blueprint(
        name, (StackShape("decoder", most + 1, 0),), tuple(weights), (), (), None, "bf16", estimate=False, has_encoder=False,
        generates=False, patches=0, image_tokens=0, unknown_cache=NO_CONFIG,
    )  # fmt: skip
    return blueprint._replace(dtype=_dtype(contents.held, blueprint, is_gguf(checkpoint)))
