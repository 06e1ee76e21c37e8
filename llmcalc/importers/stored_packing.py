"""From the tensors of a file to the parameters they hold: packed weights counted as what they unpack to, and apart from them
all that is no parameter: masks and position tables, scales and zero points, integers.

The packings are those of transformers' quantisers and of MLX: GPTQ and AWQ (``qweight``), bitsandbytes (``quant_map``, ``SCB``),
compressed-tensors (``weight_packed``), MLX (U32 beside ``scales``), ModelOpt and BitNet (U8 beside ``weight_scale``), gpt-oss
(``_blocks``); FP8 is one byte an element.
"""

from __future__ import annotations

from typing import NamedTuple

from llmcalc.importers.gguf_arch import ADDED
from llmcalc.importers.tensors import Checkpoint, Tensor, fault

FLOATS = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
INTEGERS = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")
# What a packed weight's companions are called, and the tensor that they accompany, by what takes their place in the name.
COMPANIONS = (
    "_scale_inv", "_scale", "_scales", "_scale_2", "_global_scale", "_zero_point", "_shape", "_g_idx",
    ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4",
    ".quant_state.bitsandbytes__fp4",
    ".input_scale", ".input_global_scale", ".output_scale", ".activation_scale", ".input_zero_point", ".SCB", ".weight_format",
    ".scales", ".biases", ".qzeros", ".g_idx",
)  # fmt: skip
PACKED = ("", "_packed", "_blocks", ".weight", ".weight_packed", ".qweight")
CACHE_SCALES = ("k_scale", "v_scale", "q_scale", "kv_scale", "prob_output_scale")
# Last parts of names, one or two, of tensors that transformers keeps as buffers.
FLOAT_BUFFERS = {
    "inv_freq": "rotary tables", "original_inv_freq": "rotary tables", "cos_cached": "rotary tables", "sin_cached": "rotary tables",
    "freqs_cis": "rotary tables", "rope.freqs": "rotary tables", "masked_bias": "attention masks",
    "layer_scalar": "layer scales", "act_fn.beta": "constants", "act_fn.eps": "constants",
    "final_logits_bias": "constants", "diagonal_decay": "constants", "query_decay": "constants", "key_decay": "constants",
    "slope_rate": "constants",
    "running_mean": "running statistics", "running_var": "running statistics",
}  # fmt: skip
INTEGER_BUFFERS = {"position_ids", "token_type_ids", "num_batches_tracked", "relative_position_index", "tid2eid", "version"}
CORRECTIONS = ("e_score_correction_bias", "expert_bias", "exp_probs_b.bias", "exp_probs_b")
LORA = (".lora_a", ".lora_b", ".lora_embedding_a", ".lora_embedding_b", ".lora_magnitude_vector")
SCALES = "scales and zero points"


class Held(NamedTuple):
    """A tensor of parameters, unpacked: ``shape`` is that of the weight where the file tells it, else its elements in one row."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # as the file names it
    packing: str = ""

    @property
    def elements(self) -> int:
        """Parameters."""
        total = 1
        for size in self.shape:
            total *= size
        return total


class Contents(NamedTuple):
    """What a checkpoint holds. ``words`` are rows of 32-bit words, whose bits an element the file does not tell."""

    held: tuple[Held, ...]
    apart: dict[str, int]  # why -> elements
    corrections: tuple[Held, ...]  # biases of routers, a buffer to most models
    words: tuple[Tensor, ...]
    unknown: tuple[Tensor, ...]  # integers whose packing nobody here knows


def is_gguf(checkpoint: Checkpoint) -> bool:
    """Whether the tensors are a GGUF file's, which are never packed: their elements are the weights'."""
    return "general.architecture" in checkpoint.metadata


def _refuse_no_model(checkpoint: Checkpoint) -> None:
    """Raises SpecError for files without tensors, and for adapters, which are a small part of a model."""
    if not checkpoint.tensors:
        raise fault("holds no tensors", checkpoint.source)
    adapters = sum(any(mark in tensor.name.lower() for mark in LORA) for tensor in checkpoint.tensors)
    if 2 * adapters >= len(checkpoint.tensors):
        part = f"{adapters} of {len(checkpoint.tensors)} tensors are its"
        raise fault(
            f"holds a LoRA adapter ({part}), no model; give the base model, or merge the adapter into it", checkpoint.source
        )


def unpacked(checkpoint: Checkpoint) -> Contents:
    """Every tensor as what it is. Raises SpecError for an adapter or an empty file."""
    _refuse_no_model(checkpoint)
    tensors = {tensor.name: tensor for tensor in checkpoint.tensors}
    gguf = is_gguf(checkpoint)
    held: list[Held] = []
    corrections: list[Held] = []
    words: list[Tensor] = []
    unknown: list[Tensor] = []
    apart: dict[str, int] = {}
    for tensor in checkpoint.tensors:
        why = _added(tensor, tensors) if gguf else _buffer(tensor, tensors)
        if why:
            apart[why] = apart.get(why, 0) + tensor.elements
        elif tensor.name.endswith(CORRECTIONS):
            corrections.append(Held(tensor.name, tensor.shape, tensor.dtype))
        elif gguf or tensor.dtype not in INTEGERS:
            held.append(Held(tensor.name, tensor.shape, tensor.dtype, "" if gguf else _float_packing(tensor)))
        else:
            found = _unpack(tensor, tensors)
            if found is not None:
                held.append(found)
            elif tensor.shape and (tensor.name.endswith(".weight_packed") or _is_mlx(tensor, tensors)):
                words.append(tensor)
            else:
                unknown.append(tensor)
    # A handful of integers is a table that a model looks up; weights would be most of the file.
    if sum(tensor.bytes for tensor in unknown) * 1000 < sum(tensor.bytes for tensor in checkpoint.tensors):
        for tensor in unknown:
            apart["integers"] = apart.get("integers", 0) + tensor.elements
        unknown = []
    return Contents(tuple(held), apart, tuple(corrections), tuple(words), tuple(unknown))


def _is_mlx(tensor: Tensor, tensors: dict[str, Tensor]) -> bool:
    """Whether MLX has packed this weight."""
    return tensor.dtype == "U32" and f"{tensor.name.removesuffix('.weight')}.scales" in tensors


def _added(tensor: Tensor, tensors: dict[str, Tensor]) -> str:
    """Why a GGUF file's tensor is nobody's parameter."""
    stem = tensor.name.removesuffix(".weight")
    last = stem.rsplit(".", 1)[-1]
    if last in ADDED:
        return "layer scales" if last == "layer_output_scale" else "rotary tables"
    if stem.endswith((".attn_k_b", ".attn_v_b")) and f"{stem[:-3]}kv_b.weight" in tensors:
        return "halves of attn_kv_b, stored twice"
    return "integers" if tensor.dtype in INTEGERS else ""


def _buffer(tensor: Tensor, tensors: dict[str, Tensor]) -> str:
    """Why a tensor is no parameter; empty for those that are, and for packed ones."""
    name, last = tensor.name, tensor.name.rsplit(".", 1)[-1]
    if last in FLOAT_BUFFERS or ".".join(name.split(".")[-2:]) in FLOAT_BUFFERS:
        return FLOAT_BUFFERS.get(last) or FLOAT_BUFFERS[".".join(name.split(".")[-2:])]
    if last == "bias" and len(tensor.shape) == 4 and tensor.shape[:2] == (1, 1) and tensor.shape[2] == tensor.shape[3]:
        return "attention masks"
    if last in CACHE_SCALES and tensor.elements == 1:
        return SCALES
    if any(name.endswith(suffix) and _accompanies(name.removesuffix(suffix), tensors) for suffix in COMPANIONS):
        return SCALES
    if tensor.dtype in ("BOOL", "I64") or (tensor.dtype in INTEGERS and last in INTEGER_BUFFERS):
        return "integers"
    twin = f"{name.removesuffix('decoder.bias')}bias"
    if name.endswith("decoder.bias") and twin in tensors and tensors[twin].shape == tensor.shape:
        return "the head's bias, stored twice"
    return ""


def _accompanies(stem: str, tensors: dict[str, Tensor]) -> bool:
    """Whether there is a packed weight that this is the stem of."""
    found = (tensors.get(stem + ending) for ending in PACKED)
    return any(tensor is not None and (tensor.dtype in INTEGERS or _float_packing(tensor)) for tensor in found)


def _float_packing(tensor: Tensor) -> str:
    """What a float of few bits is called."""
    return "FP8" if tensor.dtype.startswith("F8_") else tensor.dtype if tensor.dtype.startswith(("F4", "F6")) else ""


def _unpack(tensor: Tensor, tensors: dict[str, Tensor]) -> Held | None:
    """The weight that integers hold; None where the packing is not known."""
    name, shape = tensor.name, tensor.shape
    stem = name.removesuffix(".qweight")
    if stem != name and len(shape) == 2:
        return _of_words(tensor, tensors.get(f"{stem}.scales"), tensors.get(f"{stem}.qzeros"), tensors.get(f"{stem}.g_idx"))
    scales = tensors.get(f"{name.removesuffix('_blocks')}_scales")
    if name.endswith("_blocks") and scales is not None and shape[-1:] == (16,):
        # 32 FP4 values in 16 bytes, one scale each.
        return Held(name, (*shape[:-2], 32 * shape[-2]) if len(shape) > 1 else (32,), tensor.dtype, "MXFP4")
    if f"{name}.quant_map" in tensors:
        return Held(name, (2 * tensor.elements,), tensor.dtype, "bitsandbytes 4-bit")
    scale = tensors.get(f"{name.removesuffix('_packed')}_scale")
    if tensor.dtype == "U8" and scale is not None and shape:
        # One scale for all is BitNet's, four ternary weights a byte; else two FP4 values.
        if scale.elements == 1:
            return Held(name, (4 * shape[0], *shape[1:]), tensor.dtype, "BitNet")
        return Held(name, (*shape[:-1], 2 * shape[-1]), tensor.dtype, "FP4")
    if tensor.dtype == "I8" and (scale is not None or f"{name.removesuffix('.weight')}.SCB" in tensors):
        return Held(name, shape, tensor.dtype, "INT8")
    if tensor.dtype == "I32" and name.endswith("_packed") and len(shape) == 2:
        zero = tensors.get(f"{name.removesuffix('_packed')}_zero_point")
        # Zero points are packed along the rows, as many bits each.
        bits = 32 * zero.shape[0] // shape[0] if zero is not None and zero.dtype == "I32" and shape[0] else 0
        return Held(name, (shape[0], shape[1] * 32 // bits), tensor.dtype, f"INT{bits}") if bits in (2, 4, 8) else None
    return None


def _of_words(qweight: Tensor, scales: Tensor | None, zeros: Tensor | None, g_idx: Tensor | None) -> Held | None:
    """GPTQ packs along the inputs [in x bits / 32, out], AWQ along the outputs [in, out x bits / 32]; scales are [groups, out]."""
    rows, columns = qweight.shape
    if scales is None or len(scales.shape) != 2 or not columns:
        return None
    out = scales.shape[1]
    if columns != out:
        return Held(qweight.name, (rows, out), qweight.dtype, "AWQ")
    if g_idx is not None and g_idx.elements >= rows:
        return Held(qweight.name, (g_idx.elements, out), qweight.dtype, "GPTQ")
    bits = 32 * zeros.shape[1] / out if zeros is not None and len(zeros.shape) == 2 else 0
    return Held(qweight.name, (round(rows * 32 / bits), out), qweight.dtype, "GPTQ") if bits in (2, 3, 4, 8) else None
