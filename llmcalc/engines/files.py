"""Bytes of the files that hold a model's weights: tensors, padding, and a header.

The tensors are exact. The header of a GGUF file holds the tokenizer, which a blueprint knows only by the size of its
vocabulary: an estimate. A vision tower of a GGUF model stands in a file of its own (mmproj).
"""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines.mixes import Method, assign, in_tower
from llmcalc.engines.weights import format_of, tensor_bytes

# GGUF specification (docs/gguf.md of ggml-org/ggml): tensors start at multiples of general.alignment, 32 unless said. A
# record of a tensor is name, dims, type and offset: 8 + about 22, 4 + 8 x dims, 4, 8 bytes.
GGUF_ALIGNMENT = 32
GGUF_TENSOR_BYTES = 62
GGUF_METADATA_BYTES = 8192
# Tokens, their types, and merges or scores: 23 (Llama 2, Gemma) to 61 (Llama 3) for each of the vocabulary.
GGUF_TOKEN_BYTES = 40
# The header of safetensors is JSON: a name, a dtype, a shape and two offsets for each tensor.
SAFETENSORS_TENSOR_BYTES = 120


class File(NamedTuple):
    """The file (or its shards) that holds a model: ``parameters`` are those in it, ``apart_bytes`` the tower beside it."""

    tensor_bytes: int
    header_bytes: int
    apart_bytes: int
    parameters: int
    weight_bytes: int

    @property
    def file_bytes(self) -> int:
        """Tensors, padded, and header."""
        return self.tensor_bytes + self.header_bytes

    @property
    def bits_per_weight(self) -> float:
        """Bits of the tensors in it, as they are loaded, per parameter in it."""
        return 8 * self.weight_bytes / self.parameters


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def file_of(blueprint: Blueprint, method: Method, dtype: str = "", container: str = "safetensors") -> File:
    """The file of a model in a container, safetensors or gguf; ``dtype`` as for ``weights.size``."""
    own = dtype or blueprint.dtype
    gguf = container == "gguf"
    tensors = stored = apart = parameters = loaded = records = 0
    for share in assign(blueprint, method):
        weight, depth = share.weight, int(share.depth)
        form = format_of(share, method, own)
        copies = int(weight.copies)
        one = int(tensor_bytes(weight.shape, form, on_disk=True))
        # A GGUF file has the experts of a layer as one tensor.
        held = depth * (_padded(copies * one, GGUF_ALIGNMENT) if gguf else copies * one)
        if gguf and in_tower(weight):
            apart += held
            continue
        stored += held
        tensors += depth
        records += depth * copies * (1 + len(form.overhead))
        loaded += depth * copies * int(tensor_bytes(weight.shape, form))
        if not weight.buffer:
            parameters += weight.elements // int(weight.depth) * depth
    if gguf:
        vocab = next((int(w.shape[0]) for w in blueprint.weights if w.role == "embedding"), 0)
        header = GGUF_METADATA_BYTES + GGUF_TENSOR_BYTES * tensors + GGUF_TOKEN_BYTES * vocab
        return File(stored, _padded(header, GGUF_ALIGNMENT), apart, parameters, loaded)
    return File(stored, 8 + SAFETENSORS_TENSOR_BYTES * records, 0, parameters, loaded)
