"""The GPUs of this machine: NVIDIA's through NVML, AMD's through sysfs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from llmcalc import hardware
from llmcalc.errors import UsageError
from llmcalc.specs import catalogue
from llmcalc.specs.gpu import GpuSpec, Tflops
from llmcalc.units import GiB

DRM = Path("/sys/class/drm")
AMD = "0x1002"


class Here(NamedTuple):
    """A GPU as the driver lists it."""

    name: str
    vendor: str
    bytes: int


def nvidia() -> list[Here]:
    """NVIDIA's GPUs; none without the package nvidia-ml-py, a driver, or a GPU."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [
            Here(str(pynvml.nvmlDeviceGetName(h)).strip(), "NVIDIA", int(pynvml.nvmlDeviceGetMemoryInfo(h).total)) for h in handles
        ]
    except pynvml.NVMLError as error:
        raise UsageError(f"--gpu auto: the NVIDIA driver gives no answer: {error}") from None
    finally:
        pynvml.nvmlShutdown()


def amd(drm: Path = DRM) -> list[Here]:
    """AMD's GPUs, by the files that amdgpu keeps; integrated ones with less than a GiB of their own are left out."""
    found = []
    for total in sorted(drm.glob("card[0-9]*/device/mem_info_vram_total")):
        try:
            size, vendor = int(total.read_text()), total.with_name("vendor").read_text().strip()
            name = total.with_name("product_name")
            title = name.read_text().strip() if name.is_file() else ""
        except (OSError, ValueError):
            continue
        if vendor == AMD and size >= GiB:
            found.append(Here(title or "AMD GPU", "AMD", size))
    return found


def _spec(here: Here) -> hardware.Gpu:
    """The catalogue's GPU of that name and memory, else one of the driver's figures alone."""
    plain = catalogue.plain(here.name).removeprefix("nvidia").removeprefix("geforce").removeprefix("amd")
    size = round(here.bytes / GiB)
    for name in (here.name, plain, f"{plain}{size}gb", f"{plain}{size}"):
        if catalogue.knows("gpus", name):
            return hardware.gpu(name)
    spec = GpuSpec(
        title=here.name, vendor=here.vendor, architecture="unknown", marketed_gb=float(size), bandwidth_gb_s=0.0, tflops=Tflops(),
        sources=["the driver"], driver_bytes=here.bytes,
    )  # fmt: skip
    return hardware.Gpu(here.name, spec, here.bytes, "what the driver lists; a process gets a little less")


def gpus_here() -> tuple[hardware.Gpu, int]:
    """This machine's GPU and how many of it there are; of several kinds the most memory. Raises UsageError where there is none."""
    found = nvidia() or amd()
    if not found:
        raise UsageError(
            "--gpu auto: no GPU found on this machine; NVIDIA's are read with nvidia-ml-py (pip install 'llmcalc-sizing[nvml]'), "
            "AMD's from /sys/class/drm. Name one: llmcalc gpus lists them"
        )
    largest = max(found, key=lambda here: here.bytes)
    return _spec(largest), sum(here.name == largest.name and here.bytes == largest.bytes for here in found)
