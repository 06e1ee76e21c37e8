"""Memory of one training step on one GPU, to the byte: what torch's eager mode and transformers allocate.

The step is followed kernel by kernel (``forward`` writes the tape, ``replay`` runs it); the peak is the highest point of
forward, backward and the optimizer's step. Not counted, because no process shows them alike: the CUDA context, library
workspaces, and what the caching allocator holds back.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, product, without_formulas
from llmcalc.engines.eager import INT64
from llmcalc.engines.forward import Forward
from llmcalc.engines.optimizers import States, states
from llmcalc.engines.parameters import Parameters, Trained
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.replay import Moment, Replay
from llmcalc.engines.tape import Storage
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Dim, Quantity

PHASES = ("forward", "backward", "step")
# Gathered: whole layers of weights that many GPUs divide.
PARTS = ("parameters", "buffers", "inputs", "optimizer", "gradients", "gathered", "activations", "temporaries")
SOURCE = "torch's eager mode and transformers, followed kernel by kernel; docs/conventions.md, Training memory"


class Training(NamedTuple):
    """Bytes of a step in its steady state, when the optimizer has its states.

    ``activation_bytes`` is what stands at the end of forward for the backward pass. Peaks count everything; ``parts`` are what
    the highest of them is made of, ``kernel`` is at work there.
    """

    parameter_bytes: int
    buffer_bytes: int
    input_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    peaks: dict[str, int]
    parts: dict[str, int]
    kernel: str
    trainable: int
    total: int

    @property
    def peak_bytes(self) -> int:
        """The highest of all phases."""
        return max(self.peaks.values())

    @property
    def peak_phase(self) -> str:
        """Where it is."""
        return max(self.peaks, key=self.peaks.__getitem__)


class Step:
    """A step ready to be counted or explained. Sizes carry their formulas where the blueprint's do. Not ``whole``: of a stage.

    Raises UsageError for a recipe that contradicts itself, NoAnswer for a model that cannot be trained so.
    """

    def __init__(self, blueprint: Blueprint, recipe: Recipe, *, seq: Any, batch: Any, whole: bool = True) -> None:
        recipe.check()
        self.blueprint, self.recipe, self.seq, self.batch = blueprint, recipe, seq, batch
        self.parameters = Parameters(blueprint, recipe)
        self.trained = self.parameters.trained()
        if whole and not any(int(tensor.count) for tensor in self.trained):
            raise NoAnswer(f"{blueprint.name}: --method {recipe.method} finds nothing to train")
        self.optimizer: States = states(self.trained, recipe)
        forward = Forward(blueprint, recipe, self.parameters, seq=seq, batch=batch)
        self.tape = forward.run(whole=whole)
        self.resident = recipe.gradients_stand
        self.replay = self._replay()
        # What the caller keeps: the loss goes before the optimizer's step unless it stands among the outputs.
        self.kept = tuple(self.tape.to_stay) if recipe.keep_logits else ()
        moments = dict(self.replay.peaks)
        kept = sum(int(storage.size) for storage in self.kept)
        gone = 0 if self.resident else int(self.gradients().value)
        moments["step"] = Moment(gone + self.optimizer.scratch + kept, "optimizer's step", kept, gone)
        self.moments = moments

    def _replay(self, look: tuple[str, int] = ("", 0)) -> Replay:
        return Replay(self.tape, keep_gradients=not self.resident and self.recipe.optimizer != "lomo", look=look)

    def inputs(self) -> Quantity:
        """Token ids and labels."""
        return Quantity.of("input_bytes", product((2, INT64, self.batch, self.seq)), "bytes", source="token ids and labels, int64")

    def gradients(self) -> Quantity:
        """After the backward pass: in each parameter's type, Megatron's in fp32; LOMO's go as they come."""
        parts: dict[str, list[Quantity]] = {}
        for tensor in self.trained if self.recipe.optimizer != "lomo" else ():
            item = 4 if self.recipe.precision == "megatron" else tensor.item
            parts.setdefault(tensor.part, []).append(Quantity.of(tensor.name, product((item, tensor.count)), "bytes"))
        return Quantity.sum("gradient_bytes", "bytes", [Quantity.sum(part, "bytes", held) for part, held in parts.items()])

    def standing(self) -> dict[str, Quantity]:
        """What stands all through the step."""
        found = {
            "parameters": self.parameters.parameter_bytes(),
            "buffers": self.parameters.buffer_bytes(),
            "inputs": self.inputs(),
            "optimizer": self.optimizer.states,
        }
        return {**found, "gradients": self.gradients()} if self.resident else found

    def count(self) -> Training:
        """All figures."""
        standing = {name: int(figure.value) for name, figure in self.standing().items()}
        base = sum(standing.values())
        peaks = {phase: base + self.moments[phase].size for phase in PHASES}
        moment = self.moments[max(peaks, key=peaks.__getitem__)]
        parts = dict.fromkeys(PARTS, 0)
        for name, size in (*standing.items(), ("gradients", moment.gradients), ("activations", moment.activations)):
            parts[name] += size
        parts["temporaries"] = moment.passing
        return Training(
            standing["parameters"], standing["buffers"], standing["inputs"], int(self.gradients().value), standing["optimizer"],
            self.replay.saved_bytes, peaks, parts, moment.kernel, sum(int(t.count) for t in self.trained),
            sum(w.elements for w in self.blueprint.weights if not w.buffer) + sum(int(a.elements) for a in self.parameters.added),
        )  # fmt: skip

    def explain(self) -> list[Quantity]:
        """What is trained, what is kept for the backward pass, and the peak, opened."""
        standing, moments = self.standing(), self.moments
        phase = max(moments, key=lambda name: moments[name].size)
        moment = moments[phase]
        inside = self._replay((phase, moment.size)).inside
        parts = list(standing.values())
        if not self.resident:
            parts.append(self.gradients() if phase == "step" else _done(inside.gradients, self.trained))
        parts.append(_opened("activations", inside.activations if phase != "step" else self.kept))
        passing = f"gradients on their way and what is made of them, in {moment.kernel}" if phase != "step" else "of the optimizer"
        parts.append(Quantity("temporaries", moment.passing, "bytes", source=passing))
        peak = Quantity.sum(
            "peak_bytes", "bytes", parts, source=f"in the {phase} phase, in {moment.kernel}: {SOURCE}", kind="modelled"
        )
        return [_trainable(self.trained), _opened("activation_bytes", self.replay.saved, SOURCE), peak]


def _trainable(trained: Iterable[Trained]) -> Quantity:
    parts: dict[str, list[Quantity]] = {}
    for tensor in trained:
        parts.setdefault(tensor.part, []).append(Quantity.of(tensor.name, tensor.count, "params"))
    return Quantity.sum("trainable", "params", [Quantity.sum(part, "params", held) for part, held in parts.items()])


def _done(finished: Iterable[tuple[str, int]], trained: Iterable[Trained]) -> Quantity:
    """Gradients that are there at a moment, by parameter."""
    parts = {tensor.name: tensor.part for tensor in trained}
    sizes: dict[str, Counter[str]] = {}
    for leaf, size in finished:
        name = leaf.partition("@")[0]
        sizes.setdefault(parts.get(name, "positions"), Counter())[name] += size
    rows = [
        Quantity.sum(part, "bytes", [Quantity(name, size, "bytes") for name, size in held.items()]) for part, held in sizes.items()
    ]
    return Quantity.sum("gradients", "bytes", rows)


def _opened(label: str, storages: Iterable[Storage], source: str = "") -> Quantity:
    """Tensors by part and what they are; those of all layers together, where they are of one size."""
    alike: dict[tuple[str, str, str], list[Any]] = {}
    for storage in storages:
        text = getattr(storage.size, "text", str(storage.size))
        alike.setdefault((storage.part, storage.label, text), []).append(storage.size)
    parts: dict[str, list[Quantity]] = {}
    for (part, what, _), sizes in alike.items():
        size = product((Dim(len(sizes), "times"), sizes[0])) if len(sizes) > 1 else sizes[0]
        parts.setdefault(part, []).append(Quantity.of(what, size, "bytes", kind="modelled"))
    return Quantity.sum(label, "bytes", [Quantity.sum(part, "bytes", held) for part, held in parts.items()], source=source)


def count(blueprint: Blueprint, recipe: Recipe) -> Training:
    """The memory of a step. Raises UsageError and NoAnswer as ``Step`` does."""
    return Step(without_formulas(blueprint), recipe, seq=recipe.seq, batch=recipe.micro_batch).count()


def explain(blueprint: Blueprint, recipe: Recipe) -> list[Quantity]:
    """The same figures as trees."""
    return Step(blueprint, recipe, seq=Dim(recipe.seq, "s"), batch=Dim(recipe.micro_batch, "b")).explain()
