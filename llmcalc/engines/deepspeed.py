"""DeepSpeed's own estimates of model states (``estimate_zero2/3_model_states_mem_needs``), which people compare with.

18 bytes per parameter of mixed precision with Adam: 2 for the 16-bit weight, 4 for gradients, 12 for the fp32 master copy and
moments; the host's part is multiplied by a factor for what else it holds. No activations, no buckets.
"""

from typing import NamedTuple

STATES = 16
HOST_FACTOR = 1.5


class Estimate(NamedTuple):
    """Bytes on one GPU and on one host."""

    gpu: float
    host: float


def estimate(
    params: int, largest: int, *, stage: int, gpus: int, nodes: int = 1, offload: str = "", zero_init: bool = True,
    factor: float = HOST_FACTOR,
) -> Estimate:  # fmt: skip
    """Stage 2 or 3 on ``nodes`` hosts of ``gpus`` each; ``largest`` is the layer with the most parameters, which stage 3 gathers.

    ``offload``: "", optimizer, or all (parameters too). Without ``zero_init`` every process first builds the whole model on
    the host.
    """
    total = gpus * nodes
    if stage == 2:
        if offload:
            return Estimate(2 * params, params * max(4 * total, STATES) * factor)
        return Estimate(4 * params + STATES * params / total, params * 4 * gpus * factor)
    gathered = 4 * largest
    whole = 4 * params * gpus
    share = 1 / nodes
    if offload == "all":
        held = 18 * params * share
        return Estimate(gathered, (held if zero_init else max(whole, held)) * factor)
    if offload:
        held = 16 * params * share
        return Estimate(gathered + 2 * params / total, (held if zero_init else max(whole, held)) * factor)
    return Estimate(gathered + 18 * params / total, (4 * largest * gpus if zero_init else whole) * factor)
