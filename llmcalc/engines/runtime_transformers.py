"""transformers: layers over the GPUs in order, the cache of every sequence as it grows, and the whole prompt at once.

Weights and cache are those of ``fit``; what differs is the working set, since ``generate`` does not read a prompt in pieces, and
that a process holds no more than its CUDA context and workspaces besides. Of every token of the prompt stand the residual, its
normalised copy and what a layer's FFN makes: gate, up and their product (torch's peaks in public tables: 3.5 h + 3 f elements).
"""

from functools import lru_cache
from typing import Any

from llmcalc.engines.demand import Demand
from llmcalc.engines.fit import Load, held_by, longest, spread
from llmcalc.engines.runtime_model import Known
from llmcalc.engines.runtimes import Case, known
from llmcalc.errors import UsageError
from llmcalc.quantity import ceil_div


@lru_cache(maxsize=8)
def _demand(model: Known, kv_dtype: str, kept: int, encoder_context: int | None) -> Demand:
    """What a model takes, with the working set of a whole prompt; the same on every GPU."""
    demand = Demand(model.blueprint, model.method, model.dtype, kv_dtype, kept, encoder_context)
    token_bytes = model.widest(1) + 3 * model.hidden
    demand.working = demand.working._replace(width=int(ceil_div(token_bytes, 2)), in_pieces=False)
    return demand


class TransformersPlan:
    """transformers on so many GPUs. Raises UsageError for kinds of parallelism that it has not."""

    replicas = 1

    def __init__(self, case: Case) -> None:
        if (case.split.tp, case.split.ep, case.split.dp) != (1, 1, 1):
            raise UsageError("--runtime transformers spreads layers over --gpus; --tp, --ep and --dp are not for it")
        self.case, self.gpus = case, case.split.pp
        settings = case.settings
        self.demand = _demand(known(case), settings.kv_dtype, case.runtime.rules.process_bytes, settings.encoder_context)
        self.available = int(case.card.bytes * (1.0 if settings.utilization is None else settings.utilization))

    def loads(self, context: int, batch: int) -> list[Load]:
        """Bytes on each GPU."""
        working, overhead = self.demand.working_bytes(context, batch), self.demand.reserve
        parts = spread(self.demand.unit_bytes(context, batch), self.gpus)
        return [Load(*held_by(self.demand, part, context, batch), working, overhead) for part in parts]

    def formulas(self, _context: int, _batch: int, _gpu: int) -> dict[str, Any]:
        """None beside those of ``fit``."""
        return {}

    def tokens(self, _context: int) -> int | None:
        """The longest single sequence that fits; None where the cache does not grow."""
        return longest(self.demand, self.available, self.gpus)
