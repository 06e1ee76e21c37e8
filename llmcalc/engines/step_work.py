"""What the layers of a model take in a training step, summed once for a model and a length: FLOPs, bytes, parameters, messages.

Layers that are built alike are one kind, and so is what stands before a stack's layers and what comes after them; a pipeline stage
is so many of each. Everything is of one sequence of the whole model, forward: who divides it by degrees of parallelism
(``step_time``) needs no more of the blueprint.
"""

from collections.abc import Iterable
from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, Weight, without_formulas
from llmcalc.engines import flops
from llmcalc.engines.kept import SKIPPED
from llmcalc.engines.layout import Chunk, Layout, chunks, outside, spread
from llmcalc.engines.ranks import split_of
from llmcalc.engines.recipe import check_loss

# Elements that a kernel reads and writes for one that it makes; products and attention are counted by their FLOPs. Of a score in
# eager attention: written, softmax, dropout, read. Of a logit: cast to fp32, exponentials, sums.
PASSES = {"norm": 2, "add": 3, "activation": 2, "multiply": 3, "rotary": 2, "dropout": 2, "scale": 2, "softcap": 2, "lookup": 2}
SCORE_PASSES, SCORE_BACKWARD, LOGIT_PASSES, FUSED_LOGIT_PASSES = 6.5, 1.5, 8, 2


class Kind(NamedTuple):
    """What one layer of a kind takes, forward, for one sequence: FLOPs, elements moved, parameters, elements of messages.

    FLOPs: ``split`` and ``routed`` products tensor parallelism divides and a low precision speeds up; ``head`` (divided with the
    vocabulary) and ``whole`` ones (routers, latents) it does not. ``attention`` is under the causal mask, ``scores`` its elements;
    ``scan`` are products of activations alone, of recurrent mixers; ``causal`` and ``full`` are all of them by mask.
    Elements of kernels that move more than they compute: ``inside`` ones stand between a column- and a row-parallel product,
    ``outside`` ones only sequence parallelism divides, ``logits`` the vocabulary.
    Messages: ``summed`` results of row-parallel products and ``read`` inputs of column-parallel ones, both of experts in
    ``routed_rows`` too, and ``keys`` (with values) that go around the ring of context parallelism.
    ``layers`` is 0 for what stands outside of them.
    """

    layers: int
    split: int
    routed: int
    whole: int
    head: int
    attention: int
    scan: int
    scores: int
    inside: int
    outside: int
    logits: int
    split_parameters: int
    whole_parameters: int
    expert_parameters: int
    vocab_parameters: int
    summed: int
    read: int
    vocab_summed: int
    vocab_read: int
    routed_rows: int
    keys: int
    causal: int
    full: int


Counts = tuple[tuple[int, int], ...]  # of a stage: which kind, how often


class StepWork:
    """A model at one length. Raises NoAnswer where operations are not known or there is no head to train with."""

    def __init__(self, blueprint: Blueprint, seq: int) -> None:
        self.blueprint, self.seq = without_formulas(blueprint), seq
        blueprint = self.blueprint
        check_loss(blueprint)
        self.weights = {weight.name: weight for weight in blueprint.weights}
        self.after = outside(blueprint)
        self.kinds: list[Kind] = []
        self.found: dict[Kind, int] = {}
        self.held: dict[tuple[int, int], tuple[Counts, ...]] = {}
        self.hidden = int(spread(blueprint)[-1].hidden)
        self.picked = max((int(op.repeats) for op in blueprint.ops if op.part == "experts" and op.weight), default=1)
        self.tokens = seq * (2 if blueprint.has_encoder else 1)
        ops = [op for op in blueprint.ops if op.rows not in SKIPPED]
        self.of_layer: dict[tuple[str, int], int] = {}
        self.ends: dict[tuple[str, bool], int] = {}
        self.uses, loose = self._uses(ops)
        groups: dict[tuple[str, ...], int] = {}
        for stack in blueprint.stacks:
            own = [op for op in ops if op.name.partition(".")[0] == stack.name]
            beside = [weight for weight in loose if weight.stack == stack.name]
            for layer in range(stack.depth):
                here = [op for op in own if layer in op.layers]
                extra = [weight for weight in beside if layer in weight.layers]
                names = *(op.name for op in here), *(weight.name for weight in extra)
                if names not in groups:
                    groups[names] = self._kind(here, extra, layer=True)
                self.of_layer[stack.name, layer] = groups[names]
            for late in (False, True):
                alone = [op for op in own if not op.layers and self.after[op.name] is late]
                extra = [weight for weight in beside if not weight.layers and weight.last is late]
                self.ends[stack.name, late] = self._kind(alone, extra, layer=False)
        each = (*self.of_layer.values(), *self.ends.values())
        costs = flops.Costs(blueprint)
        self.forward, self.attention = (
            {causal: costs.forward(self._work(causal=causal), kinds) for causal in (False, True)} for kinds in ((), ("attention",))
        )
        self.head_flops = sum(self.kinds[at].head for at in each)

    def _uses(self, ops: list[Op]) -> tuple[dict[str, int], list[Weight]]:
        """In how many places each weight is used, layers and ends; and weights of text that no operation uses."""
        places: dict[str, set[tuple[str, object]]] = {}
        for op in ops:
            if op.weight:
                stack, used = op.name.partition(".")[0], places.setdefault(op.weight, set())
                used.update((stack, layer) for layer in op.layers or (("ends", self.after[op.name]),))
        stacks = [stack.name for stack in spread(self.blueprint)]
        loose = [
            weight for weight in self.weights.values()
            if weight.stack in stacks and not weight.tied_to and not weight.buffer
            and weight.name not in places and weight.name.removesuffix(".bias") not in places
        ]  # fmt: skip
        return {name: len(used) for name, used in places.items()}, loose

    def forward_flops(self, *, causal: bool) -> int:
        """Of one sequence, forward, as ``flops`` counts them."""
        return self.forward[causal]

    def attention_flops(self, *, causal: bool) -> int:
        """Attention's part of it."""
        return self.attention[causal]

    def stages(self, layout: Layout) -> tuple[Counts, ...]:
        """Of each pipeline stage how often it has which kind."""
        key = layout.pp, layout.chunks
        if key not in self.held:
            self.held[key] = tuple(self._counts(held) for held in chunks(self.blueprint, layout))
        return self.held[key]

    def _counts(self, held: Iterable[Chunk]) -> Counts:
        counts: dict[int, int] = {}
        for chunk in held:
            at = [self.of_layer[stack, layer] for stack, layers in chunk.layers.items() for layer in layers]
            at += [self.ends[name, False] for name in chunk.begins]
            at += [self.ends[name, True] for name in chunk.ends]
            for kind in at:
                counts[kind] = counts.get(kind, 0) + 1
        return tuple(counts.items())

    def _work(self, *, causal: bool) -> flops.Workload:
        encoder = self.seq if self.blueprint.has_encoder else 0
        return flops.workload(self.seq, 1, encoder, causal=causal, logits=self.seq)

    def _flops(self, ops: list[Op], *, causal: bool = True) -> int:
        one = [op._replace(depth=1) for op in ops if op.kind in ("matmul", "attention")]  # type: ignore[arg-type]
        return flops.Costs(self.blueprint._replace(ops=tuple(one))).forward(self._work(causal=causal)) if one else 0

    def _kind(self, ops: list[Op], loose: list[Weight], *, layer: bool) -> int:
        """The number of the kind that these operations make."""
        products: dict[str, list[Op]] = {"split": [], "routed": [], "whole": [], "head": [], "attention": [], "scan": []}
        moved = {"inside": 0, "outside": 0, "logits": 0, "scores": 0}
        sent = dict.fromkeys(("summed", "read", "vocab_summed", "vocab_read", "routed_rows", "keys"), 0)
        gathered: set[tuple[str, bool]] = set()
        work = self._work(causal=True)
        for op in ops:
            rows = 1 if op.rows == "pass" else int(work.rows[op.rows])
            weight = self.weights.get(op.weight)
            split, experts = split_of(weight) if weight else "", op.part == "experts" and bool(op.weight)
            out, into = (rows * int(op.repeats) * int(width) for width in (op.width, op.inner))
            if op.kind == "attention":
                products["attention"].append(op)
                moved["scores"] += rows * int(op.heads) * (self.seq if op.window is None else min(self.seq, int(op.window)))
                sent["keys"] += self._keys(op, ops, rows)
            elif op.kind == "matmul":
                which = "routed" if experts else "head" if split == "vocab" else "split" if split else "whole" if weight else "scan"
                products[which].append(op)
            elif op.kind == "loss":
                moved["logits"] += rows * int(op.width)
            else:
                beside = op.kind in ("norm", "add", "dropout", "scale", "lookup")
                moved["outside" if beside else "inside"] += PASSES[op.kind] * rows * int(op.width)
            # Messages, as traffic counts them.
            raw = weight.split if weight else ""
            if raw == "row":
                sent["summed"] += out
                sent["routed_rows"] += out if experts else 0
            elif op.kind == "lookup" and raw == "vocab":
                sent["vocab_summed"] += out
            elif op.kind == "matmul" and raw in ("column", "vocab") and (op.reads[0], experts) not in gathered:
                gathered.add((op.reads[0], experts))
                sent["vocab_read" if raw == "vocab" else "read"] += into
                sent["routed_rows"] += into if experts else 0
        # Rows are copied to their experts and back.
        moved["inside"] += 2 * sent["routed_rows"]
        kind = Kind(
            int(layer and bool(ops)), **{name: self._flops(own) for name, own in products.items()}, **moved,
            **self._parameters(ops, loose), **sent, causal=self._flops(ops), full=self._flops(ops, causal=False),
        )  # fmt: skip
        if kind not in self.found:
            self.found[kind] = len(self.kinds)
            self.kinds.append(kind)
        return self.found[kind]

    def _keys(self, op: Op, ops: list[Op], rows: int) -> int:
        if op.cross or len(op.reads) < 2:
            return 0
        writer = next((o for o in ops if o.writes == op.reads[1]), op)
        return rows * max(int(writer.width) // int(op.qk), 1) * (int(op.qk) + int(op.v))

    def _parameters(self, ops: list[Op], loose: list[Weight]) -> dict[str, int]:
        """Elements of the weights that stand here: of one that several places share a part in each; biases go with theirs."""
        found = dict.fromkeys(("split_parameters", "whole_parameters", "expert_parameters", "vocab_parameters"), 0)
        own = [(self.weights[name], self.uses[name]) for name in dict.fromkeys(op.weight for op in ops if op.weight)]
        own += [(bias, uses) for weight, uses in own for bias in [self.weights.get(f"{weight.name}.bias")] if bias]
        own += [(weight, len(weight.layers) or 1) for weight in loose]
        for weight, uses in own:
            split = split_of(weight)
            which = "expert" if weight.part == "experts" else "vocab" if split == "vocab" else "split" if split else "whole"
            found[f"{which}_parameters"] += int(weight.elements) // uses
        return found
