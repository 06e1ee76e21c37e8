"""llmcalc train --objective: preferences and rewards. Options, what they ask for, and the keys and notes of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmcalc.cli import options as o

if TYPE_CHECKING:
    from llmcalc.engines.objectives import Aligned, Objective

PANEL = "Preference and RL training"

Name = Annotated[
    Literal["sft", "dpo", "ipo", "kto", "orpo", "simpo", "cpo", "ppo", "grpo", "rloo", "reward", "distill"] | None,
    typer.Option(
        "--objective",
        rich_help_panel=PANEL,
        help="What is trained for, and so which copies stand beside the model. --micro-batch counts pairs for dpo, ipo, orpo, "
        "simpo, cpo and reward, else sequences.",
        show_default="sft",
    ),
]
Reference = Annotated[
    bool | None,
    typer.Option(
        "--reference/--no-reference",
        rich_help_panel=PANEL,
        help="A frozen copy of the model before training; dpo, ipo, kto, ppo and rloo have one, grpo where its beta is not 0. "
        "An adapter needs no copy: it is switched off.",
        show_default=False,
    ),
]
Precomputed = Annotated[
    bool,
    typer.Option("--precomputed", rich_help_panel=PANEL, help="The reference's log-probabilities come with the data: no copy."),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples",
        rich_help_panel=PANEL,
        min=1,
        max=2**20,
        metavar="N",
        help="Responses to a prompt. grpo 8, rloo 2, ppo 1.",
        show_default=False,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt", rich_help_panel=PANEL, metavar="TOKENS", help="Of a sampled sequence; half of --seq.", show_default=False
    ),
]
Response = Annotated[
    str | None,
    typer.Option(
        "--response", rich_help_panel=PANEL, metavar="TOKENS", help="Of a sampled sequence; the rest of --seq.", show_default=False
    ),
]
Value = Annotated[
    Literal["separate", "head"] | None,
    typer.Option(
        "--value", rich_help_panel=PANEL, help="ppo: a value model of its own, or a head on the policy.", show_default="separate"
    ),
]
RewardModel = Annotated[
    str | None,
    typer.Option(
        "--reward-model",
        rich_help_panel=PANEL,
        metavar="MODEL",
        help="Scores what is sampled; none where rules do.",
        show_default=False,
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher", rich_help_panel=PANEL, metavar="MODEL", help="distill: whose distribution is learned.", show_default=False
    ),
]
Colocate = Annotated[
    Literal["awake", "asleep"] | None,
    typer.Option(
        "--colocate",
        rich_help_panel=PANEL,
        help="A runtime on the same GPU samples, with 16-bit weights of its own; asleep, it gives them back for the update.",
        show_default=False,
    ),
]
EngineUtilization = Annotated[
    float | None,
    typer.Option(
        "--engine-utilization",
        rich_help_panel=PANEL,
        min=0.01,
        max=0.99,
        metavar="SHARE",
        help="Share of --gpu's memory that the runtime reserves (vLLM's gpu_memory_utilization); its weights and the cache of the "
        "roll-out where none is said.",
        show_default=False,
    ),
]
FrozenDtype = Annotated[
    Literal["bf16", "fp32"] | None,
    typer.Option(
        "--frozen-dtype",
        rich_help_panel=PANEL,
        help="Type of frozen copies. bf16, or fp32 with --precision fp32.",
        show_default=False,
    ),
]


def asked(
    name: str | None,
    *,
    reference: bool | None = None,
    precomputed: bool = False,
    samples: int | None = None,
    prompt: str | None = None,
    response: str | None = None,
    value: str | None = None,
    reward_model: str | None = None,
    teacher: str | None = None,
    colocate: str | None = None,
    engine_utilization: float | None = None,
    frozen_dtype: str | None = None,
    card_bytes: int | None = None,
) -> Objective:
    """The objective that the options ask for, sft where none was named. ``card_bytes`` is the usable memory of --gpu.

    Raises UsageError for options that contradict one another or have no objective, and what ``resolve.model`` raises.
    """
    from llmcalc import resolve
    from llmcalc.engines.objectives import SFT, Objective
    from llmcalc.engines.recipe import ITEMS
    from llmcalc.errors import UsageError

    given = {
        "--reference": reference, "--precomputed": precomputed or None, "--samples": samples, "--prompt": prompt,
        "--response": response, "--value": value, "--reward-model": reward_model, "--teacher": teacher, "--colocate": colocate,
        "--engine-utilization": engine_utilization, "--frozen-dtype": frozen_dtype,
    }  # fmt: skip
    if name is None:
        for option, said in given.items():
            if said is not None:
                option = "--no-reference" if said is False else option
                raise UsageError(f"{option} goes with --objective")
        return SFT
    if engine_utilization is not None and (card_bytes is None or colocate is None):
        raise UsageError("--engine-utilization is a share of the memory of --gpu, of an engine that --colocate asks for")
    share = None if engine_utilization is None or card_bytes is None else int(engine_utilization * card_bytes)
    found = Objective(
        name, reference, precomputed, samples, o.context(prompt, "--prompt"), o.context(response, "--response"), value,
        None if reward_model is None else resolve.as_trained(resolve.model(reward_model)),
        None if teacher is None else resolve.as_trained(resolve.model(teacher)),
        colocate or "", share, None if frozen_dtype is None else ITEMS[frozen_dtype],
    )  # fmt: skip
    found.check()
    return found


def inputs(objective: Objective) -> dict[str, Any]:
    """The options as resolved, models by name."""
    return {
        "objective": objective.name, "reference": objective.referenced, "precomputed": objective.precomputed,
        "samples": objective.group if objective.online else None, "value": objective.value_kind,
        "reward_model": None if objective.reward_model is None else objective.reward_model.name,
        "teacher": None if objective.teacher is None else objective.teacher.name, "colocate": objective.engine or None,
        "engine_bytes": objective.engine_bytes,
        "frozen_dtype": {None: None, 2: "bf16", 4: "fp32"}[objective.frozen_item],
    }  # fmt: skip


def figures(answer: Aligned) -> dict[str, Any]:
    """The keys of a result that say which copies stand, and what is sampled. For sft there is nothing but the update."""
    held = {copy.role: copy.bytes for copy in answer.copies}
    phases = [] if answer.objective == "sft" else answer.phases
    return {
        "objective": answer.objective, "reference": answer.reference, "seq": answer.recipe.seq,
        "phases": [{"phase": phase.name, "bytes": phase.bytes, "parts": phase.parts, "why": phase.why} for phase in phases],
        "copies": [copy._asdict() for copy in answer.copies],
        "reference_bytes": held.get("reference", 0), "reward_model_bytes": held.get("reward model", 0),
        "teacher_bytes": held.get("teacher", 0), "experience_bytes": sum(answer.experience.values()),
        "experience": answer.experience, "rollout_sequences": answer.sequences,
        "prompt": answer.prompt if answer.sequences else None, "response": answer.response if answer.sequences else None,
        "rollout_cache_bytes": answer.cache_bytes, "engine_bytes": answer.engine_bytes,
        "update_micro_batch": answer.recipe.micro_batch,
    }  # fmt: skip


def notes(name: str, answer: Aligned, gpus: int) -> list[str]:
    """What the figures take for granted, in words."""
    from llmcalc.engines.objectives import PAIRED

    said = []
    if answer.objective in PAIRED:
        said.append(f"a micro-batch is of pairs: {answer.recipe.micro_batch:,} sequences in a pass")
    if answer.reference == "shared":
        said.append("the reference is the policy with its adapter switched off, so no copy of it stands")
    if answer.sequences:
        said.append(
            f"a roll-out is {answer.sequences:,} sequences of {answer.prompt:,} + {answer.response:,} tokens: what a step reads, "
            "and at least one prompt's samples"
        )
    if answer.recipe.loss == "plain" and answer.objective not in ("sft", "reward"):
        said.append("the logits of every token stand whole; TRL 1.16 computes log-probabilities in tiles, which is --loss fused")
    if gpus > 1 and (answer.copies or answer.cache_bytes or answer.engine_bytes):
        said.append("frozen copies, the cache and a runtime that samples stand whole on each GPU")
    return [f"{name}: {text}" for text in said]
