"""What a model is trained for: imitation, preferences, rewards, another model's distribution; and which copies that takes.

Which trainer has what follows TRL (1.16; PPO and GKD as 0.24 had them). Direct preference optimisation (Rafailov et al. 2023), IPO
(Azar et al. 2023), ORPO (Hong et al. 2024), SimPO (Meng et al. 2024), CPO (Xu et al. 2024) and reward models read a chosen and a
rejected response in one pass. KTO (Ethayarajh et al. 2024) reads single responses, and mismatched ones without gradients for its
estimate of the divergence. PPO (Schulman et al. 2017), GRPO (Shao et al. 2024) and RLOO (Ahmadian et al. 2024) read what the
policy has sampled.
"""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines.frozen import Copy
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.training import Training
from llmcalc.errors import UsageError
from llmcalc.quantity import Quantity

NAMES = ("sft", "dpo", "ipo", "kto", "orpo", "simpo", "cpo", "ppo", "grpo", "rloo", "reward", "distill")
PAIRED = ("dpo", "ipo", "orpo", "simpo", "cpo", "reward")
ONLINE = ("ppo", "grpo", "rloo")
# Whose loss may have a reference; TRL's beta is 0 for GRPO, which then loads none.
REFERENCED = {"dpo": True, "ipo": True, "kto": True, "ppo": True, "rloo": True, "grpo": False}
SAMPLES = {"grpo": 8, "rloo": 2}
ENGINES = ("", "awake", "asleep")


class Objective(NamedTuple):
    """What is asked; None is the trainer's default.

    ``reference``: whether there is one. ``precomputed``: its log-probabilities come with the data. ``samples`` are responses to a
    prompt, ``prompt`` and ``response`` tokens of a sampled sequence. ``value`` of PPO: a model of its own (separate) or a head on
    the policy. ``engine``: a runtime beside the trainer that samples, with weights of its own, awake or asleep during the update;
    empty where the trained weights sample. ``engine_bytes`` is what it reserves, its weights and the cache where nothing is said.
    ``frozen_item`` is bytes of an element of frozen copies: 2, or 4 under fp32.
    """

    name: str = "sft"
    reference: bool | None = None
    precomputed: bool = False
    samples: int | None = None
    prompt: int | None = None
    response: int | None = None
    value: str | None = None
    reward_model: Blueprint | None = None
    teacher: Blueprint | None = None
    engine: str = ""
    engine_bytes: int | None = None
    frozen_item: int | None = None

    @property
    def online(self) -> bool:
        """Whether it trains on what the policy samples."""
        return self.name in ONLINE

    @property
    def referenced(self) -> bool:
        """Whether a reference's log-probabilities enter the loss."""
        return REFERENCED.get(self.name, False) if self.reference is None else self.reference

    @property
    def group(self) -> int:
        """Responses to a prompt."""
        return self.samples or SAMPLES.get(self.name, 1)

    @property
    def value_kind(self) -> str | None:
        """How values are estimated: by a second model that is trained, or by a head on the policy; None where they are not."""
        return (self.value or "separate") if self.name == "ppo" else None

    def check(self) -> None:
        """Raises UsageError for what does not go together."""
        name = self.name
        if name not in NAMES:
            raise UsageError(f"--objective {name} is none of {', '.join(NAMES)}")
        if self.reference and name not in REFERENCED:
            raise UsageError(f"--objective {name} has no reference model")
        if self.precomputed and (self.online or not self.referenced):
            raise UsageError("--precomputed goes with a reference over responses that are there before training: dpo, ipo, kto")
        sampled = {"--samples": self.samples, "--prompt": self.prompt, "--response": self.response,
                   "--reward-model": self.reward_model, "--colocate": self.engine or None}  # fmt: skip
        for option, given in sampled.items():
            if given is not None and not self.online:
                raise UsageError(f"{option} is for what is sampled: --objective {', '.join(ONLINE)}")
        if self.value is not None and name != "ppo":
            raise UsageError("--value goes with --objective ppo")
        if self.value not in (None, "separate", "head") or self.engine not in ENGINES:
            raise UsageError("--value is separate or head, --colocate awake or asleep")
        if (self.teacher is None) == (name == "distill"):
            raise UsageError("--objective distill needs a --teacher, and no other has one")
        if self.engine_bytes is not None and not self.engine:
            raise UsageError("what the engine reserves goes with --colocate")
        if any(number is not None and number < 1 for number in (self.samples, self.prompt, self.response, self.engine_bytes)):
            raise UsageError("--samples, --prompt and --response are 1 or more")

    def lengths(self, seq: int) -> tuple[int, int]:
        """Prompt and response of a sampled sequence: as said, the rest of ``seq``, half of it each where neither is said.

        Raises UsageError where nothing is left for one of them.
        """
        prompt = seq - (seq + 1) // 2 if self.prompt is None else self.prompt
        response = seq - prompt if self.response is None else self.response
        if self.prompt is None and self.response is not None:
            prompt = seq - response
        if prompt < 1 or response < 1:
            raise UsageError(f"{seq:,} tokens leave nothing beside --prompt or --response: make --seq longer")
        return prompt, response

    def updated(self, recipe: Recipe) -> Recipe:
        """The recipe of the pass that has gradients. A micro-batch counts pairs where the trainer reads pairs, else sequences."""
        if self.name in PAIRED:
            recipe = recipe._replace(micro_batch=2 * recipe.micro_batch)
        if self.name == "reward":
            recipe = recipe._replace(loss="plain")  # there are no logits to fuse anything with
        return recipe._replace(seq=sum(self.lengths(recipe.seq))) if self.online else recipe

    def rolled(self, recipe: Recipe) -> int:
        """Sequences of a roll-out: what an optimizer's step reads, and at least one prompt's samples."""
        return max(self.group, recipe.micro_batch * recipe.accumulate) if self.online else 0

    def reference_of(self, recipe: Recipe) -> str:
        """Where the reference is: none, precomputed, shared (an adapter that is switched off leaves it), separate."""
        if not self.referenced:
            return "none"
        return "precomputed" if self.precomputed else "shared" if recipe.adapts else "separate"

    def item(self, recipe: Recipe) -> int:
        """Bytes of an element of a frozen copy."""
        return self.frozen_item or (4 if recipe.precision == "fp32" else 2)


SFT = Objective()


class Phase(NamedTuple):
    """A part of a step: what stands at its highest point, and what that is in words. The parts add up to it."""

    name: str
    parts: dict[str, int]
    why: str

    @property
    def bytes(self) -> int:
        """The highest point."""
        return sum(self.parts.values())


class Aligned(NamedTuple):
    """The memory of a step: the update as ``training`` counts it (of the value model too, where that is another), the copies that
    stand beside it, the experience that a roll-out leaves (bytes by tensor), the cache that it takes, and the phases."""

    objective: str
    recipe: Recipe
    update: Training
    value: Training | None
    reference: str
    copies: tuple[Copy, ...]
    experience: dict[str, int]
    sequences: int
    prompt: int
    response: int
    cache_bytes: int
    engine_bytes: int
    phases: tuple[Phase, ...]

    @property
    def highest(self) -> Phase:
        """The phase that decides."""
        return max(self.phases, key=lambda phase: phase.bytes)

    @property
    def peak_bytes(self) -> int:
        """The highest of all phases."""
        return self.highest.bytes

    @property
    def peak_phase(self) -> str:
        """Its name."""
        return self.highest.name

    @property
    def parts(self) -> dict[str, int]:
        """What the peak is made of."""
        return self.highest.parts

    @property
    def trainable(self) -> int:
        """Parameters that are trained, of all models."""
        return self.update.trainable + (self.value.trainable if self.value else 0)

    @property
    def training(self) -> Training:
        """The update's figures with the phases of the whole step in the place of its own."""
        peaks = {phase.name: phase.bytes for phase in self.phases}
        return self.update._replace(peaks=peaks, parts=self.parts, kernel=self.highest.why, trainable=self.trainable)

    def explain(self) -> Quantity:
        """The peak as a tree: each part with why it is there."""
        words = {copy.role: f"{copy.model}: {copy.why}" for copy in self.copies}
        parts = [Quantity(name, size, "bytes", source=words.get(name, WORDS.get(name, "")), kind="modelled",
                          parts=self._tensors() if name == "experience" else ())
                 for name, size in self.parts.items()]  # fmt: skip
        return Quantity.sum("peak_bytes", "bytes", parts, source=f"in the {self.peak_phase}: {self.highest.why}", kind="modelled")

    def _tensors(self) -> tuple[Quantity, ...]:
        return tuple(Quantity(name, size, "bytes") for name, size in self.experience.items())


WORDS = {
    "parameters": "the policy's weights, adapters included",
    "buffers": "the policy's buffers, and the scales of a quantised base",
    "inputs": "token ids and labels of the micro-batch",
    "optimizer": "the policy's optimizer states",
    "gradients": "gradients that are there",
    "gathered": "whole layers of weights that many GPUs divide",
    "activations": "kept for the backward pass, of every model that is trained",
    "temporaries": "of the kernel at work: logits, gradients on their way",
    "working": "activations, gradients and temporaries of the backward pass",
    "value model": "weights and optimizer states of the model that estimates values; it is trained as the policy is",
    "teacher's distribution": "what the loss compares with, kept for the backward pass",
    "experience": "what a roll-out leaves for the update",
    "roll-out engine": "a runtime that samples, with its own 16-bit weights and cache",
    "cache": "keys and values of all sequences of the roll-out",
}
