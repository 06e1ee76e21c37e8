"""How many training configurations a second one core answers in full: the memory of every pipeline stage, and the time of a step.

    python benchmarks/training.py [MODEL] [--configurations N]

Configurations are those of an exhaustive search, each asked once. The blueprint is built before the clock starts; everything
else is counted, in a first pass that has to make what configurations share and in a second that finds it made. llm-analysis
answers the same questions where it is installed (`pip install -e ".[peers]"`), with an object per configuration as its own
`train` does.
"""

import argparse
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from llmcalc import hardware, resolve
from llmcalc.engines.layout import Layout
from llmcalc.engines.parallel import Planner
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.step_time import Clock
from llmcalc.engines.step_work import StepWork
from llmcalc.errors import LlmcalcError

GPU = "h100-sxm"
Question = tuple[Recipe, Layout]


def questions(model: str, many: int) -> list[Question]:
    """Layouts of up to 8192 GPUs that the model can be divided over, each with many steps, in a random order that is the same each
    time: so many of them, or all."""
    blueprint = resolve.model(model).blueprint
    degrees = itertools.product(
        (1, 2, 4, 8), (1, 2, 4, 8, 16), (1, 2), (1, 2, 4, 8, 16, 32), ("0", "1", "2", "3"), (False, True), ("1f1b", "interleaved")
    )
    steps = list(itertools.product((2048, 4096, 8192), (1, 2, 4), (1, 2, 4, 8), ("none", "selective", "full")))
    layouts = []
    for tp, pp, cp, dp, zero, tokens, schedule in degrees:
        layout = Layout(tp, pp, dp, cp, 1, zero, tokens, schedule, 2 if schedule == "interleaved" else 1, pp)
        try:
            layout.check(blueprint, Recipe(2048, precision="megatron"))
        except LlmcalcError:
            continue
        if layout.gpus > 1 and (schedule == "1f1b" or pp > 1) and (tp > 1 or not tokens):
            layouts.append(layout)
    everything = list(itertools.product(layouts, steps))
    random.Random(0).shuffle(everything)
    return [
        (Recipe(seq, micro_batch, "megatron", recompute=recompute), layout._replace(micro_batches=layout.pp * passes))
        for layout, (seq, micro_batch, passes, recompute) in everything[: many or None]
    ]  # fmt: skip


def rate(ask: Callable[[Recipe, Layout], Any], asked: Iterable[Question]) -> tuple[float, int]:
    """Answers per second, and how many there were."""
    start, answers = time.perf_counter(), 0
    for recipe, layout in asked:
        ask(recipe, layout)
        answers += 1
    return answers / (time.perf_counter() - start), answers


def ours(model: str, asked: list[Question]) -> tuple[float, float]:
    """Answers per second, first and again. Every stage's memory, and the time of the step."""
    blueprint = resolve.model(model).blueprint
    trainer = hardware.trainer(hardware.gpu(GPU))
    planner, clocks = Planner(blueprint), dict[int, Clock]()

    def ask(recipe: Recipe, layout: Layout) -> tuple[int, float]:
        if recipe.seq not in clocks:
            clocks[recipe.seq] = Clock(StepWork(blueprint, recipe.seq), trainer.machine, trainer.efficiency)
        return planner.plan(recipe, layout).fullest.peak_bytes, clocks[recipe.seq].time(recipe, layout).seconds

    return rate(ask, asked)[0], rate(ask, asked)[0]


def theirs(model: str, asked: list[Question]) -> float | None:
    """Answers per second of llm-analysis, None where it is not installed. Its data parallelism stands for ours with context."""
    try:
        analysis, config = import_module("llm_analysis.analysis"), import_module("llm_analysis.config")
    except ImportError:
        return None
    logging.disable(logging.CRITICAL)
    spec = resolve.model(model).spec
    ffn, hidden = int(spec.ffn or 0), int(spec.hidden or 0)
    shape = config.ModelConfig(
        name=model, num_layers=spec.layers, n_head=spec.heads, hidden_dim=hidden, vocab_size=spec.vocab, max_seq_len=8192,
        num_key_value_heads=spec.kv_heads, ffn_embed_dim=ffn, expansion_ratio=ffn / hidden,
    )  # fmt: skip
    gpu, dtypes = config.get_gpu_config_by_name("h100-sxm-80gb"), config.get_dtype_config_by_name("w16a16e16")
    recomputed = {"none": 0, "selective": 1, "full": 2}

    def ask(recipe: Recipe, layout: Layout) -> object:
        ranks = layout.tp if layout.sequence_parallel else 1
        degrees = config.ParallelismConfig(tp_size=layout.tp, pp_size=layout.pp, dp_size=layout.dp * layout.cp, sp_size=ranks)
        return analysis.LLMAnalysis(shape, gpu, dtypes, degrees, flops_efficiency=0.4).training(
            batch_size_per_gpu=recipe.micro_batch, gradient_accumulation_steps=layout.micro_batches, seq_len=recipe.seq,
            activation_recomputation=analysis.ActivationRecomputation(recomputed[recipe.recompute]),
            ds_zero=analysis.DSZeRO(int(layout.zero)), total_num_tokens=10**12, mlp_gated_linear_units=True,
        )  # fmt: skip

    def answers(question: Question) -> bool:
        try:
            ask(*question)
        except AssertionError:  # what it finds too large it refuses
            return False
        return True

    return rate(ask, [question for question in asked if answers(question)])[0]


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="llama3-70b")
    parser.add_argument("--configurations", type=int, default=0, metavar="N", help="all unless said")
    options = parser.parse_args()
    asked = questions(options.model, options.configurations)
    print(f"{options.model}, {len(asked):,} configurations, {GPU}: memory of every stage and time of the step")
    first, again = ours(options.model, asked)
    print(f"llmcalc, first pass     {first:10,.0f} per second\nllmcalc, asked again    {again:10,.0f} per second")
    peer = theirs(options.model, asked[:5000])
    print(
        "llm-analysis            not installed: the peers group"
        if peer is None
        else f"llm-analysis            {peer:10,.0f} per second"
    )
    if peer is not None:
        print(f"ratio                   {first / peer:10.1f}")


if __name__ == "__main__":
    main()
