"""Memory of one training step on one GPU, to the byte: what torch's eager mode and transformers allocate.

The step is followed kernel by kernel (``forward`` writes the tape, ``replay`` runs it); the peak is the highest point of
forward, backward and the optimizer's step. Not counted, because no process shows them alike: the CUDA context, library
workspaces, and what the caching allocator holds back.
"""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, product, without_formulas
from llmcalc.engines.forward import Forward
from llmcalc.engines.optimizers import states
from llmcalc.engines.parameters import Parameters, Trained
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.replay import Replay
from llmcalc.quantity import Quantity

INT64 = 8
PHASES = ("forward", "backward", "step")


class Training(NamedTuple):
    """Bytes of a step in its steady state, when the optimizer has its states. Peaks count everything."""

    parameter_bytes: int
    buffer_bytes: int
    input_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    forward_peak_bytes: int
    backward_peak_bytes: int
    step_peak_bytes: int
    trainable: int
    total: int
    parts: dict[str, int]

    @property
    def peaks(self) -> dict[str, int]:
        """By phase."""
        return dict(zip(PHASES, (self.forward_peak_bytes, self.backward_peak_bytes, self.step_peak_bytes), strict=True))

    @property
    def peak_bytes(self) -> int:
        """The highest of all phases."""
        return max(self.peaks.values())

    @property
    def peak_phase(self) -> str:
        """Where it is."""
        return max(self.peaks, key=self.peaks.__getitem__)


def gradient_bytes(tensors: list[Trained], recipe: Recipe) -> int:
    """After the backward pass: in each parameter's type, Megatron's in fp32; LOMO's go as they come."""
    if recipe.optimizer == "lomo":
        return 0
    return sum(int(t.count) * (4 if recipe.precision == "megatron" else t.item) for t in tensors)


def count(blueprint: Blueprint, recipe: Recipe) -> Training:
    """The memory of a step. Raises UsageError for a recipe that contradicts itself, NoAnswer for a model that cannot be trained so."""
    recipe.check()
    blueprint = without_formulas(blueprint)
    parameters = Parameters(blueprint, recipe)
    trained = parameters.trained()
    held = int(parameters.parameter_bytes().value)
    buffers = int(parameters.buffer_bytes().value)
    optimizer = states(trained, recipe)
    gradients = gradient_bytes(trained, recipe)
    inputs = 2 * INT64 * recipe.seq * recipe.micro_batch
    resident = gradients if recipe.accumulate > 1 or recipe.precision == "megatron" else 0
    tape = Forward(blueprint, recipe, parameters, seq=recipe.seq, batch=recipe.micro_batch).run()
    replay = Replay(tape, keep_gradients=not resident and recipe.optimizer != "lomo")
    base = held + buffers + inputs + int(optimizer.states.value) + resident
    after = base + (0 if resident else gradients)
    forward, backward = (replay.peaks[phase].size for phase in ("forward", "backward"))
    return Training(
        held, buffers, inputs, gradients, int(optimizer.states.value), replay.saved_bytes, base + forward, base + backward,
        after + optimizer.scratch, sum(int(t.count) for t in trained), sum(w.elements for w in blueprint.weights if not w.buffer), {},
    )  # fmt: skip


__all__ = ["Quantity", "Training", "count", "product"]
