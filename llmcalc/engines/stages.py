"""A pipeline stage of a training step on many GPUs: what one of its ranks holds and keeps, and where its memory peaks."""

from operator import attrgetter
from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines.layout import Chunk, Layout
from llmcalc.engines.shards import Held
from llmcalc.engines.training import Training
from llmcalc.quantity import Quantity

KERNELS = "Megatron's kernels"
PEAK = attrgetter("peak_bytes")
SOURCE = "docs/conventions.md, Training on many GPUs"


class Activations(NamedTuple):
    """Bytes kept on a rank at the fullest moment, and what stands beside them for a while."""

    layers: int
    embedding: int
    head: int
    passing: int

    @property
    def kept(self) -> int:
        """All that waits for the backward pass."""
        return self.layers + self.embedding + self.head


class Stage(NamedTuple):
    """One rank of a pipeline stage, and all ``ranks`` of it are alike; ``training`` has its figures as those of one GPU.

    ``in_flight`` are the micro-batches whose activations stand at once, by chunk of layers. ``placeholders``: where weight
    gradients are added to fp32 ones in the product's own kernel, TransformerEngine gives autograd an empty tensor in their stead,
    and keeps one of each shape. ``peak_bytes`` is everything on the GPU at the highest point of the step; ``eager`` are the figures
    where that was followed kernel by kernel.
    """

    stage: int
    ranks: int
    layers: int
    in_flight: tuple[int, ...]
    held: Held
    activations: Activations
    placeholders: int
    input_bytes: int
    total: int
    peak_bytes: int
    eager: Training | None = None

    @property
    def standing(self) -> int:
        """What stands all through the step where Megatron's kernels run: all gradients do."""
        return self.held.states + self.input_bytes + self.placeholders

    @property
    def training(self) -> Training:
        """As of one GPU. Megatron's kernels peak in the backward phase, where the head passes."""
        if self.eager is not None:
            return self.eager
        held, kept = self.held, self.activations
        forward = self.standing + held.gathered + kept.kept
        peaks = {"forward": forward, "backward": forward + kept.passing, "step": self.standing}
        parts = {
            "parameters": held.parameters, "buffers": held.buffers, "inputs": self.input_bytes, "optimizer": held.optimizer,
            "gradients": held.gradients, "gathered": held.gathered, "activations": kept.kept,
            "temporaries": kept.passing + self.placeholders,
        }  # fmt: skip
        return Training(
            held.parameters, held.buffers, self.input_bytes, held.gradients, held.optimizer, kept.kept, peaks, parts, KERNELS,
            self.total, self.total,
        )  # fmt: skip


class Parallel(NamedTuple):
    """All stages; ``fullest`` decides whether the step fits."""

    layout: Layout
    stages: tuple[Stage, ...]

    @property
    def fullest(self) -> Stage:
        """The first of those with the highest peak."""
        return max(self.stages, key=PEAK)

    @property
    def imbalance(self) -> float:
        """The highest peak over the mean."""
        peaks = [stage.peak_bytes for stage in self.stages]
        return max(peaks) * len(peaks) / sum(peaks)


class Rank(NamedTuple):
    """A GPU of a stage before data parallelism: its chunks and its share as a blueprint. Stages that hold the same weights of as
    many layers (``holds``) hold the same bytes, and those that run the same (``runs``) keep the same. ``placeholders`` are the
    empty gradients of Megatron's kernels."""

    chunks: list[Chunk]
    layers: int
    blueprint: Blueprint
    holds: tuple[tuple[str, int], ...]
    runs: tuple[object, ...]
    placeholders: int


class Pass(NamedTuple):
    """Bytes that one micro-batch leaves on a stage, for each of its chunks; and what passes beside them."""

    chunks: tuple[tuple[int, int, int], ...]
    passing: int

    def standing(self, flying: tuple[int, ...]) -> Activations:
        """With so many micro-batches of each chunk at once."""
        if len(flying) == 1:
            ((layer, before, after),), (many,) = self.chunks, flying
            return Activations(many * layer, many * before, many * after, self.passing)
        layers = embedding = head = 0
        for (layer, before, after), many in zip(self.chunks, flying, strict=True):
            layers, embedding, head = layers + many * layer, embedding + many * before, head + many * after
        return Activations(layers, embedding, head, self.passing)


def explain(stage: Stage) -> Quantity:
    """The peak of a stage's rank, opened."""
    held, kept, parts = stage.held, stage.activations, stage.training.parts
    said = {
        "parameters": f"{held.elements:,} of the rank's elements, those that ZeRO-3 divides by the ranks that do",
        "optimizer": "what the optimizer keeps of each trained element, by the ranks that ZeRO divides it over",
        "gathered": "whole layers of weights, and gradients before they are summed",
        "temporaries": "what passes at the highest point",
    }  # fmt: skip
    figures = [Quantity(name, size, "bytes", source=said.get(name, "")) for name, size in parts.items() if name != "activations"]
    flying = "+".join(map(str, stage.in_flight))
    opened = [
        Quantity("layers", kept.layers, "bytes", source=f"{stage.layers} layers, {flying} micro-batches in flight"),
        Quantity("embedding", kept.embedding, "bytes"), Quantity("head", kept.head, "bytes"),
    ]  # fmt: skip
    if kept.kept == parts["activations"]:
        figures.append(Quantity.sum("activations", "bytes", opened, source="Korthikanti et al. 2022, section 4"))
    else:
        figures.append(Quantity("activations", parts["activations"], "bytes", source="kernel by kernel, as on one GPU"))
    return Quantity.sum("peak_bytes", "bytes", figures, source=f"a GPU of stage {stage.stage}; {SOURCE}", kind="modelled")
