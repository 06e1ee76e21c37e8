"""How many questions a second one blueprint answers, on one core: what searches over batch and context can count on.

    python benchmarks/engines.py [SECONDS]

Each question has a context and a batch of its own. The blueprint is built before the clock starts.
"""

import sys
import time
from collections.abc import Callable

from llmcalc import hardware, resolve
from llmcalc.blueprint.parts import without_formulas
from llmcalc.engines import fit, flops, kv
from llmcalc.engines.layout import Layout
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.step_time import Clock
from llmcalc.engines.step_work import StepWork

MODELS = ("llama3-70b", "deepseek-v3", "gemma3-27b")


def rate(ask: Callable[[int, int], object], seconds: float) -> float:
    """Questions per second."""
    asked, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        for step in range(100):
            ask(1000 + asked + step, 1 + step % 8)
        asked += 100
    return asked / spent


def main(seconds: float) -> None:
    """Print a line per model and engine."""
    method, recipe = resolve.method("nf4"), Recipe(8192, precision="megatron")
    trainer = hardware.trainer(hardware.gpu("h100-sxm"))
    for name in MODELS:
        blueprint = without_formulas(resolve.model(name).blueprint)
        costs = flops.Costs(blueprint)
        demand = fit.Demand(resolve.model(name).blueprint, method)
        clock = Clock(StepWork(blueprint, recipe.seq), trainer.machine, trainer.efficiency)
        questions: dict[str, Callable[[int, int], object]] = {
            "cache": lambda context, batch, b=blueprint: kv.size(b, context, batch),  # type: ignore[misc]
            "FLOPs": lambda context, batch, c=costs: c.count(context, batch),  # type: ignore[misc]
            "memory needed": lambda context, batch, d=demand: d.cache_bytes(context, batch) + d.working_bytes(context, batch),  # type: ignore[misc]
            "time of a step": lambda asked, size, t=clock: t.time(  # type: ignore[misc]
                recipe._replace(micro_batch=size), Layout(2, 1 + asked % 16, 8, 1, 1, "1", micro_batches=asked)
            ),
        }
        for what, ask in questions.items():
            print(f"{name:12} {what:14} {rate(ask, seconds):10,.0f} per second")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
