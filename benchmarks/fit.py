"""How long fit takes over the whole catalogue and all GPUs, on one core, beyond starting up and lowering.

python benchmarks/fit.py
"""

import time

from llmcalc import hardware, resolve
from llmcalc.engines import fit, serving
from llmcalc.engines.runtimes import Card, Case, Settings
from llmcalc.errors import LlmcalcError
from llmcalc.specs import catalogue


def main() -> None:
    """Print a line for each way of asking."""
    models = resolve.whole_catalogue()
    cards = [hardware.gpu(name) for name in catalogue.entries("gpus")]
    start, asked = time.perf_counter(), 0
    for m in models:
        try:
            demand = fit.Demand(m.blueprint, resolve.stored_as(m, None, None)[0])
        except LlmcalcError:
            continue
        for card in cards:
            fit.fit(demand, card.usable_bytes, context=resolve.context_of(None, m.blueprint))
            asked += 1
    spent = time.perf_counter() - start
    print(f"{'no runtime':12} {asked:7,} answers in {spent:6.2f} s, {asked / spent:9,.0f} per second")
    for name in ("vllm", "sglang", "llama.cpp", "transformers"):
        runtime, start, asked = hardware.runtime(name), time.perf_counter(), 0
        for m in models[:: len(models) // 40]:
            for card in cards[::10]:
                seen = Card(card.usable_bytes, card.spec.driver_bytes or card.usable_bytes, card.spec.architecture)
                split = serving.split_over(m.blueprint, runtime.kind, 1)
                try:
                    plan = serving.plan(Case(m.blueprint, resolve.unquantised(), "", runtime, seen, split, Settings()))
                    serving.serve(plan, m.blueprint, resolve.context_of(None, m.blueprint), 1)
                except LlmcalcError:
                    continue
                asked += 1
        spent = time.perf_counter() - start
        print(f"{name:12} {asked:7,} answers in {spent:6.2f} s, {asked / spent:9,.0f} per second")


if __name__ == "__main__":
    main()
