"""What a GPU spec file may say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from llmcalc.specs.record import STRICT, Published, Record, Strings, Text, Within


class Positive:
    """A number above zero that may have a fraction."""

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> dict[str, object]:
        return {"type": "float", "gt": 0, "le": 1e12, "strict": True, "allow_inf_nan": False}


Figure = Annotated[float, Positive()]


class Tflops(Record):
    """Dense peak rates in TFLOP/s (int8 and int4: TOP/s), without structured sparsity."""

    __pydantic_config__ = STRICT

    fp64: Figure | None = None
    fp32: Figure | None = None
    tf32: Figure | None = None
    fp16: Figure | None = None
    bf16: Figure | None = None
    fp8: Figure | None = None
    fp6: Figure | None = None
    fp4: Figure | None = None
    int8: Figure | None = None
    int4: Figure | None = None


class Interconnect(Record):
    """The link to the other GPUs of the node."""

    __pydantic_config__ = STRICT

    type: Text
    """NVLink 4, PCIe 4 x16 ..."""
    gb_s: Figure | None = None
    """GB/s per GPU in one direction (half of the vendors' headline, which adds both)."""


class Price(Record):
    """One quote from a provider: a default, not a truth."""

    __pydantic_config__ = STRICT

    usd_per_hour: Figure
    provider: Text
    kind: Text | None = None
    """on-demand, spot, reserved ..."""
    date: Text | None = None
    """When it was quoted, as far as known."""


class GpuSpec(Record):
    """A GPU (or other accelerator) spec file. Its name is the file's name without ``.yaml``."""

    __pydantic_config__ = STRICT
    NESTED = {"tflops": Tflops, "interconnect": Interconnect, "prices": Price}

    title: Text
    vendor: Text
    architecture: Text
    form_factor: Text | None = None
    aliases: Sequence[Text] = ()
    """Other names that people type, for this variant alone."""
    group: Sequence[Text] = ()
    """Names shared with other variants: asking for one lists them."""
    marketed_gb: Figure
    """Memory as on the box, in GB."""
    memory_type: Text | None = None
    cuda_bytes: Published | None = None
    """Memory that CUDA reports to a process (torch's total_memory)."""
    driver_bytes: Published | None = None
    """Memory that the driver lists (nvidia-smi), a little more than a process gets."""
    devices: Annotated[int, Within(1, 64)] = 1
    """Devices that share the card's memory and rates evenly and that a process sees one by one (MI250X: 2)."""
    bandwidth_gb_s: Figure
    """Memory bandwidth in GB/s (decimal)."""
    tflops: Tflops
    tdp_w: Annotated[int, Within(1, 100_000)] | None = None
    interconnect: Interconnect | None = None
    gpus_per_node: Annotated[int, Within(1, 100_000)] | None = None
    release_year: Annotated[int, Within(1990, 2100)] | None = None
    prices: Sequence[Price] = ()
    verified: Sequence[Text] = ()
    """Fields that agree with a second source."""
    unverified: Sequence[Text] = ()
    """Fields recalled from a datasheet."""
    sources: Strings
    note: Text | None = None
    status: Literal["available", "announced"] = "available"
