"""What names and shapes of tensors tell, where no config says what they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from llmcalc.blueprint.parts import Blueprint
from llmcalc.importers.stored_packing import Held

NUMBER = re.compile(r"(?<![^.])[0-9]{1,6}(?![^.])")
LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block|blk)\.([0-9]{1,6})(?:\.|$)")
# Words of names, in order of preference, and what a tensor with one of them is.
TOWERS = {
    "vision": ("vision", "visual", "vit", "image", "multi_modal_projector", "mm_projector", "mm"),
    "audio": ("audio", "speech", "wav2vec"),
}  # fmt: skip
# Weights that checkpoints often keep as one, the first of which names the group.
FUSED = (
    ("q", "k", "v"), ("q.bias", "k.bias", "v.bias"), ("gate", "up"), ("expert_gate", "expert_up"), ("shared_gate", "shared_up"),
)  # fmt: skip
PREDICTION = ("mtp", "nextn", "eh_proj", "enorm", "hnorm")
WORDS = {
    "experts": ("experts", "exps"), "norm": ("norm", "layernorm", "ln", "rmsnorm"),
    "embedding": ("embed_tokens", "token_embd", "wte", "tok_embeddings", "word_embeddings"),
    "lm_head": ("lm_head", "output", "embed_out"), "attention": ("attn", "attention"), "ffn": ("mlp", "ffn", "feed_forward"),
}  # fmt: skip
ROLES = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "gate_proj": "gate", "up_proj": "up", "down_proj": "down",
    "attn_q": "q", "attn_k": "k", "attn_v": "v", "attn_output": "o", "attn_qkv": "qkv", "ffn_gate": "gate", "ffn_up": "up",
    "ffn_down": "down", "ffn_gate_exps": "expert_gate", "ffn_up_exps": "expert_up", "ffn_down_exps": "expert_down",
}  # fmt: skip


def group_of(name: str) -> str:
    """A name with its numbers taken out: layers.*.mlp.up_proj.weight."""
    return NUMBER.sub("*", name)


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor is in."""
    found = LAYER.search(name)
    return int(found[1]) if found else None


def _words(name: str) -> set[str]:
    return set(re.split(r"[.\d]+", name.lower())) | set(re.split(r"[._\d]+", name.lower()))


def part_of(pattern: str) -> tuple[str, str]:
    """Component and role that a tensor has by a clear name; anything else is other."""
    words, stem = _words(pattern), pattern.removesuffix(".weight")
    last = stem.rsplit(".", 1)[-1].lower()
    if "*" not in pattern:
        for part in ("embedding", "lm_head"):
            if last in WORDS[part]:
                return part, part
    last = ROLES.get(last, last)
    role = last if last != "bias" else f"{stem.rsplit('.', 2)[-2]}.bias" if stem.count(".") else last
    for part in ("norm", "experts", "attention", "ffn"):
        if words & set(WORDS[part]) or (part == "norm" and "norm" in last):
            return part, role
    return "other", role


def _depth(blueprint: Blueprint) -> int:
    """Layers of the deepest stack of text."""
    return max((stack.depth for stack in blueprint.stacks if stack.name not in TOWERS), default=0)


def causes(held: Iterable[Held], blueprint: Blueprint) -> dict[str, int]:
    """Elements that names alone mark as beyond the config: further layers, towers that it has none of, adapters."""
    depth, present = _depth(blueprint), {stack.name for stack in blueprint.stacks}
    found: dict[str, int] = {}
    for tensor in held:
        why = _cause(tensor.name, depth, present)
        if why:
            found[why] = found.get(why, 0) + tensor.elements
    return found


def _cause(name: str, depth: int, present: set[str]) -> str:
    """What a single tensor is, if the config has no such thing."""
    words, layer = _words(name), layer_of(name)
    for tower, marks in TOWERS.items():
        if words & set(marks):
            return "" if tower in present else f"{tower} tower"
    if any("lora" in word for word in words):
        return "LoRA adapters"
    if layer is not None and layer >= depth:
        return f"layers past the {depth} that are said (multi-token prediction, most likely)"
    if words & set(PREDICTION):
        return "multi-token prediction"
    return ""


def missing_layers(held: Iterable[Held], blueprint: Blueprint) -> list[int]:
    """Layers of the config's that no tensor is of; none where names do not number them."""
    there = {layer_of(tensor.name) for tensor in held} - {None}
    return [index for index in range(_depth(blueprint)) if index not in there] if there else []


def _add(sizes: Counter[int], size: int, depth: int, copies: int) -> None:
    """Tensors of this size there may be: one for each copy, or all copies in one."""
    sizes[size] += depth * copies
    if copies != 1:
        sizes[size * copies] += depth


def unmatched(held: Iterable[Held], blueprint: Blueprint) -> list[tuple[str, int]]:
    """Groups of tensors whose size no weight of the blueprint has, largest first; experts and what is fused may be one."""
    sizes: Counter[int] = Counter()
    for weight in blueprint.weights:
        if not weight.tied_to:
            _add(sizes, int(weight.size), int(weight.depth), int(weight.copies))
    by_name = {weight.name: weight for weight in blueprint.weights}
    for weight in blueprint.weights:
        for first, *others in FUSED:
            beside = [by_name.get(f"{weight.name.removesuffix(first)}{other}") for other in others]
            if weight.name.endswith(f".{first}") and all(beside):
                size = int(weight.size) + sum(int(other.size) for other in beside if other is not None)
                _add(sizes, size, int(weight.depth), int(weight.copies))
    counts: Counter[str] = Counter()
    depth, present = _depth(blueprint), {stack.name for stack in blueprint.stacks}
    for tensor in held:
        if _cause(tensor.name, depth, present):
            continue
        if sizes[tensor.elements]:
            sizes[tensor.elements] -= 1
        else:
            counts[group_of(tensor.name)] += tensor.elements
    return counts.most_common()
