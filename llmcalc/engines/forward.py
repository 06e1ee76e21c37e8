"""A model's forward pass on a tape: the blueprint's operations, in order, layer by layer, under a recipe.

A method per kind of operation; what a kind runs as kernels is in ``eager``, what it adds where a method adapts it in
``tuning``. Operations on images are left out: a step on text does not run them.
"""

from typing import Any

from llmcalc.blueprint.parts import Blueprint, Op, product
from llmcalc.engines import attend, losses, routing
from llmcalc.engines.eager import HALF, INT64, Eager
from llmcalc.engines.fused import Fused
from llmcalc.engines.parameters import Parameters
from llmcalc.engines.recipe import Recipe, check_loss
from llmcalc.engines.tape import Operand, Storage, Tape, Tensor
from llmcalc.engines.tuning import Tuning
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Dim

NOT_TEXT = ("patch", "image_token", "audio")
# What goes from layer to layer.
KEPT_NAMES: tuple[str, ...] = ("x", "encoded", "position_bias", "cross_bias", "positions")


class Forward:
    """Writes the tape. ``values`` are the activations by the names that operations give them."""

    def __init__(self, blueprint: Blueprint, recipe: Recipe, parameters: Parameters, *, seq: Any, batch: Any) -> None:
        self.blueprint, self.recipe, self.parameters = blueprint, recipe, parameters
        if recipe.method == "prompt":
            # Virtual tokens stand before the others all the way.
            seq = seq + Dim(recipe.rank, "n")
        self.seq, self.batch = seq, batch
        self.tokens = product((batch, seq))
        self.tape = Tape()
        self.eager = self.outside = Eager(self.tape, autocast=recipe.autocast)
        self.inside = Fused(self.tape, autocast=recipe.autocast) if recipe.compile else self.outside
        self.tuning = Tuning(self.eager, parameters, recipe)
        self.values: dict[str, Tensor] = {}
        self.tables: tuple[Tensor, Tensor] | None = None
        self.mask: Tensor | None = None
        self.position_ids: Tensor | None = None
        self.earlier: tuple[Tensor, Tensor] | None = None
        self.layer: int | None = None
        self.matrix_done: set[str] = set()
        self.scored: set[int] = set()  # kernels of attention that run again

    def run(self, *, whole: bool = True) -> Tape:
        """The whole pass, or that of some layers. Raises NoAnswer for a model without a head to be trained with."""
        if whole:
            check_loss(self.blueprint)
        for stack in self.blueprint.stacks:
            own = [op for op in self.blueprint.ops if op.name.partition(".")[0] == stack.name and op.rows not in NOT_TEXT]
            if own:
                self._stack(own, stack.depth)
        if not any(op.kind == "loss" for op in self.blueprint.ops):
            self.tape.to_stay.add(self.values["x"].storage)  # what is sent on is kept until its gradient is there
        return self.tape

    def _stack(self, ops: list[Op], depth: int) -> None:
        layered = [index for index, op in enumerate(ops) if op.layers]
        first, last = layered[0], layered[-1]
        if "x" in self.values:
            self.values = {"encoded": self.values["x"]}
            self.tape.to_the_end.add(self.values["encoded"].storage)  # among the model's outputs
        # The first layer makes the bias that all of them add to their scores.
        biases = [op for op in ops[:first] if op.rows == "pair"]
        self._ops([op for op in ops[:first] if op.rows != "pair"])
        inner = [op for op in ops[first : last + 1] if op.layers]
        self._before(inner)
        by_layer: list[list[Op]] = [[] for _ in range(depth)]
        for op in inner:
            for layer in op.layers:
                by_layer[layer].append(op)
        self.eager = self.tuning.eager = self.inside
        for layer, found in enumerate(by_layer):
            start = len(self.tape.kernels)
            self.layer = layer
            self.matrix_done = set()
            self._ops(found if layer else biases + found)
            if found:
                self.tape.spans.append((ops[0].name.partition(".")[0], layer, start, len(self.tape.kernels)))
                self._again(start)
            self.values = {name: self.values[name] for name in KEPT_NAMES if name in self.values}
        self.layer = None
        self.eager = self.tuning.eager = self.outside
        self._ops(ops[last + 1 :] + [op for op in ops[first : last + 1] if not op.layers])

    def _receive(self, op: Op) -> None:
        """What the stage before sends, into a buffer that is always there; its gradient goes back."""
        elements = product((self.tokens, op.width)) // int(op.inner)
        held = Storage(product((HALF, elements)), "received", op.part, held=True)
        x = self.values[op.writes] = Tensor(elements, HALF, held)
        self.tape.run("receive", [], [x])
        x.needs_grad = True

    def _gather(self, op: Op) -> None:
        """Rows of all ranks; the gradient is summed over them and scattered."""
        x = self.read(op)
        out = self.eager.make(product((self.tokens, op.width)), x.item, "gathered")
        self.tape.run("gather", [Operand(x, grad=x.size)], [out])
        self.values[op.writes] = out

    def _scatter(self, op: Op) -> None:
        """A sum over ranks, of which each keeps its rows; the gradient is gathered."""
        x = self.read(op)
        out = self.eager.make(x.elements // int(op.inner), x.item, "scattered")
        self.tape.run("scatter", [Operand(x, grad=x.size)], [out])
        self.values[op.writes] = out

    def _again(self, start: int) -> None:
        """What of a layer runs again in its backward pass.

        torch.compile computes again what fuses with what reads it, but nothing that a product or attention reads in the backward
        pass, which has to be in memory, and no products (the min-cut partitioner of torch's functorch, its defaults). torchtitan's
        selective checkpointing keeps outputs of attention and of every second product, needed or not unless compiled.
        """
        recipe, made = self.recipe, self.tape.made_at
        heavy = [kernel for kernel in self.tape.kernels[start:] if kernel.heavy]
        inputs = [s for s in (t.storage for k in heavy for t in k.keeps) if made[s] >= start and made[s] not in self.scored]
        heavy = [kernel for kernel in heavy if made[kernel.outputs[0].storage] not in self.scored]
        if recipe.recompute == "full":
            heavy, inputs = [], []
        elif recipe.recompute == "op":
            products = [kernel for kernel in heavy if kernel.transposed]
            heavy, inputs = [kernel for kernel in heavy if not kernel.transposed or products.index(kernel) % 2 == 0], []
        elif not recipe.compile:
            return
        saved = list(dict.fromkeys(inputs + [tensor.storage for kernel in heavy for tensor in kernel.outputs]))
        if recipe.compile:
            saved = self.tape.wanted(start, saved)
        self.tape.checkpoint(start, [t for t in (self.position_ids, self.mask) if t is not None], saved)

    def _before(self, inner: list[Op]) -> None:
        """What a stack makes once for all its layers: positions, rotary tables, the mask of eager attention."""
        eager, x = self.eager, self.values["x"]
        eager.part = "positions"
        for prompt in self.parameters.beside.get("prompt", []):
            soft = self.parameters.extra(prompt, None)
            joined = eager.make(x.elements, x.item, "behind a prompt")
            self.tape.run("cat", [Operand(soft, grad=soft.size), Operand(x, grad=x.size)], [joined])
            x = self.values["x"] = joined
        if self.recipe.adapts and self.recipe.recompute == "full":
            x.needs_grad = True  # peft's enable_input_require_grads, without which a checkpointed layer has nothing to do
        rotary = next((op for op in inner if op.kind == "rotary"), None)
        self.tables = self.mask = None
        if rotary is not None:
            ids = self.position_ids = eager.make(self.seq, INT64, "position ids")
            self.tape.run("arange", [], [ids])
            cos, sin = (eager.make(product((self.seq, rotary.inner)), x.item, "rotary table") for _ in range(2))
            self.tape.run("rotary tables", [Operand(ids)], [cos])
            self.tape.run("rotary tables", [Operand(ids)], [sin])
            self.tables = (cos, sin)
        if self.recipe.attention == "eager" and any(op.kind == "attention" and op.causal for op in inner):
            self.mask = eager.make(product((self.batch, self.seq, self.seq)), x.item, "causal mask")
            self.tape.run("mask", [], [self.mask])

    def _ops(self, ops: list[Op]) -> None:
        for op in ops:
            if f"{op.name}" in self.matrix_done:
                continue
            if op.part == "recurrent":
                raise NoAnswer(
                    f"{self.blueprint.name}: what training keeps of a recurrent mixer depends on its kernels, and is not known"
                )
            self.eager.part = op.part
            kind = getattr(self, f"_{op.kind}", None)
            if kind is None:
                raise NoAnswer(f"{self.blueprint.name}: what training keeps of a {op.kind} is not known")
            kind(op)

    def read(self, op: Op, index: int = 0) -> Tensor:
        """What an operation reads: an activation, or a table that stands for one (DeBERTa's positions)."""
        name = op.reads[index]
        return self.values[name] if name in self.values else self.weight(f"{op.name.partition('.')[0]}.{name}")

    def rows(self, op: Op) -> Any:
        """Rows that an operation runs on in the whole batch."""
        if op.rows == "sequence":
            return self.batch
        return 1 if op.rows == "pass" else self.tokens

    def weight(self, name: str) -> Tensor:
        """The weight of this name in the layer at hand."""
        return self.parameters.tensor(name, self.layer)

    def bias(self, name: str) -> Tensor | None:
        """The bias beside it, where there is one."""
        return self.weight(f"{name}.bias") if f"{name}.bias" in self.parameters.weights else None

    def _lookup(self, op: Op) -> None:
        weight = self.weight(op.weight)
        elements = product((self.seq, self.seq, op.width)) if op.rows == "pair" else product((self.tokens, op.width))
        index: Tensor | None = None
        if op.reads[0] == "tokens" and "encoded" in self.values:
            # A decoder beside an encoder reads its labels, shifted.
            index = self.eager.make(self.tokens, INT64, "decoder input")
            self.tape.run("shift", [], [index])
        if op.reads[0] in ("position_ids", "distances"):
            index = self.eager.make(product((self.seq, self.seq)) if op.rows == "pair" else self.seq, INT64, "indices")
            self.tape.run("arange", [], [index])
            if op.rows != "pair":
                elements = product((self.seq, op.width))
                self.position_ids = index
        out = self.eager.make(elements, weight.item, "rows")
        self.tape.run("embedding", [Operand(weight, () if index is None else (index,), weight.size)], [out])
        self.values[op.writes] = out

    def _norm(self, op: Op) -> None:
        x = self.read(op)
        gain = self.weight(op.weight) if op.weight else None
        kind, form = op.form
        # A statistic for each row and head. What is no row of tokens (a table of positions) is as long as it is.
        whole = int(x.elements) // int(op.width)
        groups = product((self.tokens, op.heads)) if whole * int(op.heads) == int(self.tokens) * int(op.heads) else whole
        if kind == "rmsnorm":
            self.values[op.writes] = self.eager.rms_norm(x, gain, groups, form)
        else:
            self.values[op.writes] = self.eager.layer_norm(x, gain, self.bias(op.weight) if op.weight else None, groups, form)

    def _matmul(self, op: Op) -> None:
        if op.writes == "attention_routed":
            raise NoAnswer(f"{self.blueprint.name}: what training keeps of an attention with experts is not known")
        if op.part == "router" or int(op.repeats) != 1:
            routing.matmul(self, op)
            return
        if not op.weight:
            a, b = self.read(op), self.values.get(op.reads[-1], self.read(op))
            self.values[op.writes] = self.eager.matmul(a, b, product((self.rows(op), op.width)), op.name)
            return
        weight = self.parameters.weights[op.weight]
        group = self.parameters.groups.get(weight.fused, [weight])
        if op.part == "lm_head" and self.recipe.loss in ("chunked", "fused"):
            losses.fused(self, op)
            return
        x = self.read(op)
        if op.part == "lm_head":
            self.tape.to_the_end.add(x.storage)  # the decoder's output is the caller's until the forward pass returns
        width = op.width
        for other in group[1:]:
            width = width + other.shape[0]
        out = self.linear(x, op.weight, product((self.rows(op), width)))
        if len(group) == 1:
            self.values[op.writes] = out
            return
        outs = self.eager.split(out, [product((self.rows(op), w.shape[0])) for w in group], "split")
        for part, tensor in zip(group, outs, strict=True):
            quantised = part.name in self.parameters.quantised
            self.values[part.role] = self.tuning.adapted(x, tensor, part.name, self.layer, quantised=quantised)
            self.matrix_done.add(part.name)

    def linear(self, x: Tensor, name: str, elements: Any) -> Tensor:
        """x W' + b, and what a method adds."""
        return self.tuning.linear(x, name, self.layer, self.weight(name), self.bias(name), elements)

    def _rotary(self, op: Op) -> None:
        assert self.tables is not None
        x = self.read(op)
        if len(op.reads) > 1:
            # The keys of latent attention: the up-projected part and the rotary one, joined for every head.
            joined = self.eager.make(product((self.tokens, op.width)), x.item, "keys")
            self.tape.run("cat", [Operand(x, grad=x.size), Operand(self.read(op, 1), grad=self.read(op, 1).size)], [joined])
            self.values[op.writes] = joined
            return
        turned = product((self.tokens, op.heads, op.inner))
        if int(turned) == int(x.elements):
            self.values[op.writes] = self.eager.rotary(x, self.tables)
            return
        # A part of each head is turned, and joined with the rest again.
        part = self.eager.rotary(self.eager.slice(x, turned), self.tables)
        rest = self.eager.slice(x, x.elements - turned)
        joined = self.eager.make(x.elements, x.item, "rotated")
        self.tape.run("cat", [Operand(part), Operand(rest)], [joined])
        self.values[op.writes] = joined

    def _attention(self, op: Op) -> None:
        start = attend.attention(self, op)
        if self.recipe.recompute == "selective":
            self.scored |= set(range(start, len(self.tape.kernels)))
            if not self.recipe.compile:
                self.tape.checkpoint(start)

    def _activation(self, op: Op) -> None:
        self.values[op.writes] = self.eager.activation(self.read(op), op.form[0] if op.form else "silu")

    def _multiply(self, op: Op) -> None:
        self.values[op.writes] = self.eager.multiply(self.read(op), self.read(op, 1), op.writes)

    def _add(self, op: Op) -> None:
        names = [name for name in op.reads if name != "routed"]
        if "routed" in op.reads:
            self.values[names[0]] = routing.combine(self, op, self.values[names[0]])
        if "shared_weight" in names:
            names.remove("shared_weight")
            gate = self.eager.unary(self.values["shared_weight"], "sigmoid", keeps="output")
            self.values["shared_out"] = self.eager.multiply(self.values["shared_out"], gate, "gated")
        if op.name.endswith("residual"):
            for name in names[1:]:
                self.values[name] = self.tuning.bottleneck(self.values[name], op.name, self.layer)
        total = self.values[names[0]]
        for name in names[1:]:
            if name in self.values:
                total = self.eager.add(total, self.values[name], "residual" if op.name.endswith("residual") else "sum")
        self.values[op.writes] = total

    def _dropout(self, op: Op) -> None:
        if self.recipe.dropout:
            self.values[op.writes] = self.eager.dropout(self.read(op))

    def _scale(self, op: Op) -> None:
        x = self.read(op)
        self.tape.to_the_end.add(x.storage)
        self.values[op.writes] = self.eager.same(x, "scaled")

    def _softcap(self, op: Op) -> None:
        if op.reads[0] in self.values:
            self.values[op.writes] = self.eager.softcap(self.read(op))

    def _loss(self, op: Op) -> None:
        losses.loss(self, op)
