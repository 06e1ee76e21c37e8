"""Optimizer states, tensor by tensor, and what a step allocates beside them.

AdamW (torch, fused): two moments in the parameter's type, and a 4-byte step count per tensor, which the multi-tensor form
keeps on the host; Adafactor (Shazeer and Stern 2018): a row and a column per matrix; Lion (Chen et al. 2023), SGD with momentum:
one moment; Muon (Jordan 2024): one moment for the matrices of the layers, AdamW for the rest; GaLore (Zhao et al. 2024): AdamW
on a projection of rank r; LOMO (Lv et al. 2023): none, and no gradient longer than its own tensor; bitsandbytes' 8-bit AdamW: a
byte per moment and a scale per 256, fp32 for tensors under 4096 elements; Megatron: fp32 weights and moments.
"""

from typing import Any, NamedTuple

from llmcalc.blueprint.parts import product
from llmcalc.engines.parameters import Trained
from llmcalc.engines.recipe import Recipe
from llmcalc.quantity import Dim, Quantity, ceil_div, least

OPTIMIZERS = ("adamw", "adamw8bit", "adafactor", "lion", "sgd", "sgd-momentum", "muon", "galore", "lomo")
PAGED = "paged-"
EIGHT_BIT_LEAST, EIGHT_BIT_BLOCK, EIGHT_BIT_TABLES = 4096, 256, 2048
GALORE_RANK = 128
STEP = 4


class States(NamedTuple):
    """What an optimizer holds on the GPU, and what its step allocates for a while."""

    states: Quantity
    scratch: int


def _moments(tensor: Trained, many: int, item: int = 0) -> Any:
    return product((many * (item or tensor.item), tensor.elements))


def _adamw(tensor: Trained, recipe: Recipe) -> Any:
    return _moments(tensor, 2) + (0 if recipe.foreach else STEP)


def _eight_bit(tensor: Trained, recipe: Recipe) -> Any:
    if int(tensor.elements) < EIGHT_BIT_LEAST or (recipe.state_embeddings == "fp32" and tensor.embedding):
        return _moments(tensor, 2, 4)
    return _moments(tensor, 2, 1) + 8 * ceil_div(tensor.elements, EIGHT_BIT_BLOCK)


def _adafactor(tensor: Trained) -> Any:
    """Factored second moment of a matrix: a row and a column in fp32; of a vector the whole."""
    if len(tensor.shape) < 2:
        return _moments(tensor, 1, 4)
    *outer, rows, columns = tensor.shape
    return product((4, *outer, rows + columns))


def _galore(tensor: Trained, recipe: Recipe) -> Any:
    """Moments of the gradient projected to rank r on the shorter side, and the projection."""
    if len(tensor.shape) != 2 or tensor.part in ("embedding", "lm_head", "positions"):
        return _adamw(tensor, recipe)
    rows, columns = tensor.shape
    short, long = (rows, columns) if int(rows) <= int(columns) else (columns, rows)
    rank = least(Dim(GALORE_RANK, "rank"), short)
    return product((tensor.item, rank)) * (2 * long + short) + STEP


def _one(tensor: Trained, recipe: Recipe) -> Any:
    """Bytes of the states of one tensor."""
    name = recipe.optimizer.removeprefix(PAGED)
    if recipe.precision == "megatron" and name == "adamw":
        return _moments(tensor, 3, 4) + STEP
    if name == "adamw":
        return _adamw(tensor, recipe)
    if name == "adamw8bit":
        return _eight_bit(tensor, recipe)
    if name == "adafactor":
        return _adafactor(tensor)
    if name in ("lion", "sgd-momentum"):
        return _moments(tensor, 1)
    if name == "galore":
        return _galore(tensor, recipe)
    if name == "muon":
        hidden = len(tensor.shape) >= 2 and tensor.part not in ("embedding", "lm_head", "positions")
        return _moments(tensor, 1) if hidden else _adamw(tensor, recipe)
    return 0


def states(tensors: list[Trained], recipe: Recipe) -> States:
    """The states of all trained tensors; paged ones stand in host memory until they are needed."""
    parts: dict[str, list[Quantity]] = {}
    if not recipe.optimizer.startswith(PAGED):
        for tensor in tensors:
            size = _one(tensor, recipe)
            if int(size):
                parts.setdefault(tensor.part, []).append(Quantity.of(tensor.name, product((tensor.tensors, size)), "bytes"))
    rows = [Quantity.sum(part, "bytes", held) for part, held in parts.items()]
    if recipe.optimizer == "adamw8bit":
        rows.append(Quantity("quantisation tables", EIGHT_BIT_TABLES, "bytes"))
    total = Quantity.sum("optimizer_bytes", "bytes", rows, source=f"states of {recipe.optimizer}, tensor by tensor")
    return States(total, _scratch(tensors, recipe))


def _scratch(tensors: list[Trained], recipe: Recipe) -> int:
    """The multi-tensor form works on copies of all second moments at once; the others tensor by tensor, in place."""
    if recipe.foreach:
        item = 4 if recipe.precision == "megatron" else 0
        return sum(int(tensor.tensors) * int(_moments(tensor, 1, item)) for tensor in tensors)
    return 0
