"""What training reaches of a GPU's peaks, by class of GPU: ``specs/train_efficiency.json``, of ``benchmarks/fit_train_speed.py``.

A class says which GPUs it is for and, where they differ, whose kernels (``megatron`` or ``torch``); the first that fits is taken,
the last is for whatever is left. ``stated`` values are assumed, ``fitted`` ones measured; ``products`` is of 16-bit products,
``rates`` of those in less. Networks between nodes are stated: the catalogue of GPUs does not know them.
"""

import json
from functools import cache
from typing import Any, NamedTuple

from llmcalc.specs import catalogue
from llmcalc.specs.efficiency import fits
from llmcalc.specs.gpu import GpuSpec

SHARES = (
    "products",
    "attention",
    "experts",
    "bandwidth",
    "hidden",
    "tensor_hidden",
    "scan",
    "fp8",
    "fp4",
)  # of something that nothing exceeds
NODE, PCIE = 8, 32.0  # GPUs of a node and GB/s of its links where the catalogue does not say


class Found(NamedTuple):
    """What is known of training on a GPU. Links in GB/s one way. ``measured``: a step on this GPU is among the fitted rows."""

    name: str
    values: dict[str, float]
    spread: tuple[float, float]
    experts_spread: tuple[float, float]
    nvlink: float
    network: float
    domain: int
    measured: bool
    note: str


@cache
def data() -> dict[str, Any]:
    """The file."""
    found: dict[str, Any] = json.loads((catalogue.folder() / "train_efficiency.json").read_bytes())
    return found


def find(gpu: str, spec: GpuSpec, kernels: str, precision: str) -> Found:
    """The efficiencies of a GPU for products in this precision (16-bit, fp8, fp4; all else as 16-bit)."""
    whole = data()
    chosen = next(c for c in whole["classes"] if c["kernels"] in ("", kernels) and fits(c["match"], spec, ""))
    values = {**whole["stated"], **whole["fitted"], **chosen["stated"], **chosen["fitted"]}
    values["products16"] = values["products"]
    values["products"] = chosen["rates"].get(precision, values["products"])
    measured = gpu in whole["measured_on"]
    wide = tuple(whole["range_of_other_gpus"]["range"])
    link = (spec.interconnect.gb_s if spec.interconnect else None) or PCIE
    return Found(
        chosen["name"], values, tuple(whole["spread"]) if measured else wide, tuple(whole["experts_spread"]) if measured else wide,
        link, whole["networks"].get(gpu, chosen["network_gb_s"]), whole["domains"].get(gpu, spec.gpus_per_node or NODE), measured,
        chosen.get("note", ""),
    )  # fmt: skip
