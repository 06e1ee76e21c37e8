"""Memory of a step of preference and reinforcement training: a roll-out, frozen models that score, the update.

The update is what ``training`` counts, of one model or of two, beside the copies that stand. The other phases are passes without
gradients. Each phase's highest point is a sum of what stands then; the peak is the highest of them. docs/conventions.md says whose
conventions these are, and what is left out.
"""

from collections.abc import Callable
from copy import copy as shallow

from llmcalc.blueprint.parts import Blueprint, without_formulas
from llmcalc.blueprint.scored import scored, valued
from llmcalc.engines import kv, training
from llmcalc.engines.eager import FP32, HALF, INT64
from llmcalc.engines.frozen import Copy, Sampling, Scoring, copy, held_as, transient
from llmcalc.engines.objectives import Aligned, Objective, Phase
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.training import Training
from llmcalc.errors import NoAnswer, UsageError

Ask = Callable[[Recipe], Training]
STANDING = ("parameters", "buffers", "inputs", "optimizer")
POLICY = "the policy"
PASSES = {"forward": "forward pass", "backward": "backward pass", "step": "optimizer's step"}


class Asking:
    """Counts a step of a model under an objective, recipe after recipe. ``asking`` gives what counts an update of a model: on one
    GPU unless said, or a rank's share of it. Raises UsageError and NoAnswer."""

    def __init__(self, blueprint: Blueprint, objective: Objective, asking: Callable[[Blueprint], Ask] | None = None) -> None:
        objective.check()
        if objective.online and not blueprint.generates:
            raise NoAnswer(f"{blueprint.name}: --objective {objective.name} samples, and this model does not generate")
        self.objective = objective
        self.base = without_formulas(blueprint)
        self.policy, self.value = self.base, None
        if objective.name == "reward":
            self.policy = scored(self.base)
        elif objective.value_kind == "separate":
            self.value = scored(self.base)
        elif objective.value_kind == "head":
            self.policy = valued(self.base)
        # A teacher's, and a reward model's with its own head.
        self.teacher = None if objective.teacher is None else without_formulas(objective.teacher)
        self.reward = None if objective.reward_model is None else scored(without_formulas(objective.reward_model))
        self._count(asking or on_one_gpu)

    def _count(self, asking: Callable[[Blueprint], Ask]) -> None:
        self.ask = asking(self.policy)
        self.ask_value = None if self.value is None else asking(self.value)

    def counted(self, asking: Callable[[Blueprint], Ask]) -> "Asking":
        """The same models, with their updates counted by something else."""
        found = shallow(self)
        found._count(asking)
        return found

    def __call__(self, recipe: Recipe) -> Aligned:
        """All figures of a step; ``recipe.micro_batch`` counts pairs where the objective has them."""
        return _Step(self, recipe).count()


def on_one_gpu(blueprint: Blueprint) -> Ask:
    """What counts an update of this model on one GPU, each recipe once."""
    known: dict[Recipe, Training] = {}

    def ask(recipe: Recipe) -> Training:
        if recipe not in known:
            known[recipe] = training.count(blueprint, recipe)
        return known[recipe]

    return ask


def count(blueprint: Blueprint, recipe: Recipe, objective: Objective) -> Aligned:
    """The memory of a step. Raises UsageError and NoAnswer as ``Asking`` does."""
    return Asking(blueprint, objective)(recipe)


class _Step:
    """One recipe."""

    def __init__(self, asked: Asking, recipe: Recipe) -> None:
        self.asked, self.objective = asked, asked.objective
        self.recipe = self.objective.updated(recipe)
        self.frozen = held_as(self.recipe, self.objective.item(recipe))
        self.update = asked.ask(self.recipe)
        self.value = None if asked.ask_value is None else asked.ask_value(self._plain(self.recipe))
        self.reference = self.objective.reference_of(recipe)
        self.rolled = self.objective.rolled(recipe)
        self.prompt, self.response = self.objective.lengths(recipe.seq) if self.objective.online else (0, 0)
        self.copies = self._copies()
        self.experience = self._experience()
        self.cache = self._cache(self.prompt, self.response)
        self.engine = self._engine()

    def count(self) -> Aligned:
        """All phases."""
        phases = [self._scoring(), self._update()]
        if self.rolled:
            phases.insert(0, self._rollout())
        return Aligned(
            self.objective.name, self.recipe, self.update, self.value, self.reference, self.copies, self.experience, self.rolled,
            self.prompt, self.response, self.cache, self.engine, tuple(phase for phase in phases if phase is not None),
        )  # fmt: skip

    @staticmethod
    def _plain(recipe: Recipe) -> Recipe:
        return recipe._replace(loss="plain")

    def _copies(self) -> tuple[Copy, ...]:
        found, asked = [], self.asked
        if self.reference == "separate":
            found.append(copy("reference", asked.base, self.frozen, "the policy before training, which the loss compares with"))
        if asked.reward is not None:
            found.append(copy("reward model", asked.reward, self.frozen, "scores each response once"))
        if asked.teacher is not None:
            found.append(copy("teacher", asked.teacher, self.frozen, "its distribution of every token is learned"))
        return tuple(found)

    def _experience(self) -> dict[str, int]:
        """Bytes that an update reads beside its micro-batch, by tensor: what a roll-out leaves, or what came with the data."""
        n, tokens = self.rolled, self.rolled * self.response
        name, batch = self.objective.name, self.recipe.micro_batch
        if name == "kto":
            found = {"mismatched responses": 2 * INT64 * batch * self.recipe.seq}
            return {**found, "reference log-probabilities": 2 * FP32 * batch} if self.reference == "precomputed" else found
        if self.reference == "precomputed":
            return {"reference log-probabilities": FP32 * batch}
        if not n:
            return {}
        found = {"token ids and masks": 2 * INT64 * n * self.recipe.seq, "log-probabilities": FP32 * tokens}
        if self.reference != "none":
            found["reference log-probabilities"] = FP32 * tokens
        if name != "ppo":
            return {**found, "rewards": FP32 * n, "advantages": FP32 * n}
        return {**found, **dict.fromkeys(("values", "rewards", "advantages", "returns"), FP32 * tokens)}

    def _cache(self, prompt: int, response: int) -> int:
        """Of all sequences of the roll-out at these lengths, in the type that the weights compute in."""
        if not self.rolled:
            return 0
        dtype = "fp32" if self.recipe.precision == "fp32" and not self.objective.engine else "bf16"
        base = self.asked.base
        context = response if base.has_encoder else prompt + response
        return kv.size(base, context, self.rolled, dtype, prompt if base.has_encoder else 0).total

    def _engine(self) -> int:
        """What a runtime beside the trainer reserves. Raises UsageError where that is less than its weights."""
        if not self.objective.engine:
            return 0
        weights = copy("roll-out engine", self.asked.base, held_as(self.recipe, HALF), "").bytes
        said = self.objective.engine_bytes
        if said is not None and said < weights:
            raise UsageError(f"--colocate: the engine's share of {said:,} bytes is less than its weights, {weights:,}")
        return weights + self.cache if said is None else said

    def _held(self, *, sampling: bool = False) -> dict[str, int]:
        """What stands outside of the update: all models, their states, and Megatron's gradients."""
        parts = {name: self.update.parts[name] for name in ("parameters", "buffers", "optimizer")}
        stands = self.recipe.gradients_stand and (not self.rolled or self.recipe.precision == "megatron")
        if stands:
            parts["gradients"] = self.update.gradient_bytes
        if self.value is not None:
            parts["value model"] = _base(self.value, self.recipe) - (0 if stands else _resident(self.value, self.recipe))
        return {**parts, **self._beside(engine=sampling or self.objective.engine == "awake", experience=not sampling)}

    def _beside(self, *, engine: bool, experience: bool = True) -> dict[str, int]:
        """What is not trained and stands: copies, experience, a runtime."""
        parts = {held.role: held.bytes for held in self.copies}
        if self.experience and experience:
            parts["experience"] = sum(self.experience.values())
        if self.engine and engine:
            parts["roll-out engine"] = self.engine
        return parts

    def _rollout(self) -> Phase:
        """Sampling: the prompts in one pass, or the last token, when the cache is full; or a runtime of its own does it."""
        held = self._held(sampling=True)
        if self.engine:
            return Phase("roll-out", held, f"{self.rolled:,} sequences by a runtime beside the trainer")
        plain = self._plain(self.recipe)
        moments = {
            "the prompts are read": (
                self._cache(self.prompt, 0), transient(Sampling, self.asked.base, plain, seq=self.prompt, batch=self.rolled)
            ),
            "the last token is appended": (
                self.cache, transient(Sampling, self.asked.base, plain, seq=1, batch=self.rolled) + self._grown()
            ),
        }  # fmt: skip
        why, (cache, passing) = max(moments.items(), key=lambda moment: sum(moment[1]))
        return Phase("roll-out", {**held, "cache": cache, "temporaries": passing}, f"of {self.rolled:,} sequences, {why}")

    def _grown(self) -> int:
        """transformers' cache is joined anew for each token: the keys of one layer stand twice."""
        dtype = "fp32" if self.recipe.precision == "fp32" else "bf16"
        context = self.response if self.asked.base.has_encoder else self.prompt + self.response
        return max(
            (kv.entry_bytes(entry, context, self.rolled, dtype) // int(entry.depth) // (2 if entry.kind == "kv" else 1)
             for entry in kv.entries(self.asked.base, "kv")),
            default=0,
        )  # fmt: skip

    def _passes(self) -> dict[str, int]:
        """Who scores, without gradients, and the highest point of that pass."""
        asked, recipe, seq, batch = self.asked, self.recipe, self.recipe.seq, self.recipe.micro_batch
        found = {}
        if self.rolled or self.objective.name == "kto":
            found[POLICY] = transient(Scoring, asked.policy, recipe, seq=seq, batch=batch)
        if self.reference == "separate":
            found["the reference"] = transient(Scoring, asked.base, self.frozen, seq=seq, batch=batch)
        elif self.reference == "shared":
            found["the policy without its adapter"] = transient(Scoring, asked.policy, recipe, seq=seq, batch=batch)
        if asked.value is not None:
            found["the value model"] = transient(Scoring, asked.value, self._plain(recipe), seq=seq, batch=batch)
        if asked.reward is not None:
            # TRL's GRPO and RLOO give a reward model the whole roll-out at once.
            rows = batch if self.objective.name == "ppo" else self.rolled
            found["the reward model"] = transient(Scoring, asked.reward, self._plain(self.frozen), seq=seq, batch=rows)
        if asked.teacher is not None:
            found["the teacher"] = transient(Scoring, asked.teacher, self.frozen, seq=seq, batch=batch)
        return found

    def _scoring(self) -> Phase | None:
        """Passes without gradients. Frozen models score responses from the data after the policy's forward pass, whose activations
        stand; the policy itself, and all of them what was sampled, before it."""
        passes = self._passes()
        if not passes:
            return None
        kept = 0 if self.rolled else self.update.activation_bytes
        standing = {who: 0 if who == POLICY else kept for who in passes}
        who = max(passes, key=lambda who: passes[who] + standing[who])
        parts = self._held()
        if not self.rolled:
            parts |= {"inputs": self.update.input_bytes, "activations": standing[who]}
        if self.asked.teacher is not None:
            parts["teacher's distribution"] = self._distribution()
        return Phase("scoring", {**parts, "temporaries": passes[who]}, f"{who} reads without gradients")

    def _distribution(self) -> int:
        """What a loss over a teacher's distribution keeps of it: log-probabilities of every token and entry in fp32, or the hidden
        states, of which a fused loss computes the logits again."""
        teacher = self.asked.teacher
        if teacher is None:
            return 0
        head = next((op for op in reversed(teacher.ops) if op.kind == "matmul" and op.part == "lm_head"), None)
        if head is None:
            raise NoAnswer(f"{teacher.name}: no head, and so no distribution to learn")
        tokens = self.recipe.micro_batch * self.recipe.seq
        if self.recipe.loss == "plain":
            return FP32 * tokens * int(head.width)
        return self.frozen.base_item * tokens * int(head.inner)

    def _update(self) -> Phase:
        """The pass with gradients and the optimizer's step."""
        update, why = self.update, f"policy's {PASSES[self.update.peak_phase]}"
        parts = dict(update.parts)
        if self.value is not None:
            parts, why = _together(update, self.value, self.recipe)
        distribution = self._distribution()
        if distribution:
            parts["teacher's distribution"] = distribution
        return Phase("update", {**parts, **self._beside(engine=self.objective.engine == "awake")}, why)


def _resident(answer: Training, recipe: Recipe) -> int:
    return answer.gradient_bytes if recipe.gradients_stand else 0


def _base(answer: Training, recipe: Recipe) -> int:
    """What stands of a model all through its step, without the inputs, which models share."""
    return sum(answer.parts[name] for name in STANDING if name != "inputs") + _resident(answer, recipe)


def _working(answer: Training, recipe: Recipe, phase: str) -> dict[str, int]:
    """What a phase has at its highest point beside what stands: split where the answer tells, else as one."""
    stands = _resident(answer, recipe)
    size = answer.peaks[phase] - _base(answer, recipe) - answer.input_bytes
    if answer.peak_phase == phase:
        return {name: part - (stands if name == "gradients" else 0) for name, part in answer.parts.items() if name not in STANDING}
    if phase == "step":
        gone = answer.gradient_bytes - stands
        return {"gradients": gone, "temporaries": size - gone}
    return {"activations" if phase == "forward" else "working": size}


def _together(policy: Training, value: Training, recipe: Recipe) -> tuple[dict[str, int], str]:
    """Two models in one step (TRL's PPO): the value model's forward pass, the policy's, and backward the other way round, while
    what waits for its turn stands; one optimizer."""
    moments = [
        ("value model's forward pass", [_working(value, recipe, "forward")]),
        ("policy's forward pass", [_working(policy, recipe, "forward"), {"activations": value.activation_bytes}]),
        ("policy's backward pass", [_working(policy, recipe, "backward"), {"activations": value.activation_bytes}]),
        (
            "value model's backward pass",
            [_working(value, recipe, "backward"), {"gradients": policy.gradient_bytes - _resident(policy, recipe)}],
        ),
        ("optimizer's step", [_working(policy, recipe, "step"), _working(value, recipe, "step")]),
    ]
    why, found = max(moments, key=lambda moment: sum(sum(parts.values()) for parts in moment[1]))
    parts = {name: policy.parts[name] for name in STANDING}
    parts["value model"] = _base(value, recipe)
    parts["gradients"] = _resident(policy, recipe)
    for more in found:
        for name, size in more.items():
            parts[name] = parts.get(name, 0) + size
    return parts, why
