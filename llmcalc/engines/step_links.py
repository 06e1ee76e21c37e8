"""How long a training step's messages take, by the links that their ranks share.

Ranks are numbered as Megatron numbers them: tensor parallelism innermost, then context, then data with experts, pipeline stages
outermost. A group whose ranks stand in one domain has its fast links; else its rings go through the networks of all its ranks in a
domain. What is sent, and how often, is ``traffic``'s.
"""

from typing import NamedTuple

from llmcalc.engines.kept import HALF
from llmcalc.engines.layout import Layout
from llmcalc.engines.recipe import Recipe
from llmcalc.engines.shards import summed_item
from llmcalc.engines.step_work import Kind


class Machine(NamedTuple):
    """One GPU's peaks per second, in FLOP and bytes, and the links to the others.

    ``flops`` is the rate of the precision that products are computed in (and that MFU is of), ``flops16`` of everything else.
    ``domain`` GPUs share ``nvlink`` (bytes per second, one way), ``network`` is what one GPU has of the links between domains.
    """

    flops: float
    flops16: float
    bandwidth: float
    nvlink: float
    network: float
    domain: int = 8


class Links:
    """The links of a machine, of which messages reach the share ``reached``."""

    def __init__(self, machine: Machine, reached: float) -> None:
        self.machine, self.reached = machine, reached

    def _inside(self, ranks: int, stride: int) -> int:
        """How many ranks of a group stand in one domain, ``stride`` GPUs apart."""
        return max(1, min(ranks, self.machine.domain // stride))

    def _ring(self, ranks: int, stride: int) -> float:
        """Bytes per second of a ring."""
        inside = self._inside(ranks, stride)
        rate = self.machine.nvlink if inside == ranks else min(self.machine.nvlink, self.machine.network * inside)
        return rate * self.reached

    def tensor(self, kind: Kind, layout: Layout, share: float, *, again: bool) -> float:
        """Seconds of a micro-batch's sums along tensor parallelism in a layer; ``share`` of a sequence is one rank's tokens."""
        t, forward = layout.tp, 2 if again else 1
        if t == 1:
            return 0.0
        summed = kind.summed + (kind.vocab_summed if layout.vocab_parallel else 0)
        read = kind.read + (kind.vocab_read if layout.vocab_parallel else 0)
        carried = summed * (forward + 1) + read * (forward + 2) if layout.sequence_parallel else 2 * (summed * forward + read)
        return HALF * share * carried * (t - 1) / t / self._ring(t, 1)

    def context(self, kind: Kind, layout: Layout, share: float, *, again: bool) -> float:
        """Seconds of keys and values, and their gradients, around the ring of context parallelism."""
        if layout.cp == 1:
            return 0.0
        around = HALF * share * kind.keys / layout.tp * (layout.cp - 1) * (4 if again else 3)
        return around / self._ring(layout.cp, layout.tp)

    def expert(self, kind: Kind, layout: Layout, share: float, picked: int, *, again: bool) -> float:
        """Seconds of tokens on their way to ``picked`` experts each, and back.

        A row goes to another domain once, however many of its experts it finds there, and is copied behind the network (DeepEP,
        Hybrid-EP).
        """
        ranks = layout.ep
        if ranks == 1 or not kind.routed_rows:
            return 0.0
        sent = HALF * share * kind.routed_rows * (3 if again else 2) / (layout.tp if layout.sequence_parallel else 1)
        inside = self._inside(ranks, layout.tp)
        domains = ranks / inside
        once = (1 - (1 - 1 / domains) ** picked) * domains / picked  # of the rows that a domain is sent, those that differ
        near = (ranks - (inside == ranks)) / self.machine.nvlink
        return sent / ranks * max(near, (ranks - inside) * once / self.machine.network) / self.reached

    def hop(self, layout: Layout, share: float, row: int) -> float:
        """Seconds of activations to the next stage, or of their gradients to the one before: once for each chunk.

        ``row`` is elements of a whole sequence, tokens by hidden width.
        """
        size = HALF * share * row / (layout.tp if layout.sequence_parallel else 1)
        link = self.machine.nvlink if layout.gpus <= self.machine.domain else self.machine.network
        return layout.chunks * size / (link * self.reached)

    def gathered(self, kind: Kind, recipe: Recipe, layout: Layout) -> float:
        """Seconds of each micro-batch in a layer: ZeRO-2 divides gradients, ZeRO-3 gathers parameters as well, for forward and for
        backward. FSDP on a pipeline has them once a step (``states``)."""
        if layout.stays:
            return 0.0
        each = _gradient(recipe, layout) + (2 * recipe.computed_item if layout.level == 3 else 0)
        return sum(
            self._shared(elements * each, layout.sharers(experts=experts), _stride(layout, experts=experts))
            for elements, experts in elements_of(kind, layout)
        )

    def states(self, held: tuple[float, float], recipe: Recipe, layout: Layout) -> float:
        """Seconds of what goes once a step, of a stage that has so many elements (and of experts): gradients to those who divide
        them, and updated parameters back; gradients of a part to all who have the same (without ZeRO a part is the whole)."""
        gradient = _gradient(recipe, layout)
        both = gradient + recipe.computed_item
        each = (0, both, recipe.computed_item, both if layout.stays else 0)[layout.level]
        seconds = 0.0
        for elements, experts in zip(held, (False, True), strict=True):
            ranks, stride = layout.sharers(experts=experts), _stride(layout, experts=experts)
            seconds += self._shared(elements * each, ranks, stride)
            alike = layout.group(experts=experts) // ranks
            seconds += 2 * self._shared(elements / ranks * gradient, alike, stride * ranks)
        return seconds

    def _shared(self, carried: float, ranks: int, stride: int) -> float:
        """Seconds of one gather, or half of an all-reduce."""
        return carried * (ranks - 1) / ranks / self._ring(ranks, stride)


def _stride(layout: Layout, *, experts: bool) -> int:
    """How far apart ranks stand that have the same weights."""
    return layout.tp * (layout.ep if experts else 1)


def _gradient(recipe: Recipe, layout: Layout) -> int:
    """Bytes of a gradient as it is summed, of adapters none to speak of."""
    return summed_item(recipe.base_item, recipe, layout) if recipe.method == "full" else 0


def elements_of(kind: Kind, layout: Layout) -> tuple[tuple[float, bool], tuple[float, bool]]:
    """Parameters of a layer on a rank: those that all data-parallel ranks have, and experts."""
    vocab = layout.tp if layout.vocab_parallel else 1
    shared = kind.split_parameters / layout.tp + kind.vocab_parameters / vocab + kind.whole_parameters
    return (shared, False), (kind.expert_parameters / (layout.tp * layout.ep), True)
