"""Mixtures of experts as transformers runs them: tokens sorted by expert, one grouped product over all of them."""

from typing import TYPE_CHECKING

from llmcalc.blueprint.parts import Op, product
from llmcalc.engines.eager import FP32, INT64
from llmcalc.engines.tape import Operand, Tensor

if TYPE_CHECKING:
    from llmcalc.engines.forward import Forward

INT32 = 4


def matmul(run: "Forward", op: Op) -> None:
    """The router, a product of the experts, or one that runs several times a row."""
    if op.part == "router":
        _route(run, op)
        return
    weight = run.parameters.weights.get(op.weight)
    if weight is None or int(weight.copies) == 1:
        x = run.read(op)
        out = run.eager.make(product((run.rows(op), op.repeats, op.width)), x.item, op.name)
        kept = run.weight(op.weight) if op.weight else x
        run.tape.run(op.name, [Operand(x, (kept, x), x.size)], [out])
        run.values[op.writes] = out
        return
    eager, used = run.eager, product((run.tokens, op.repeats))
    x = run.read(op)
    if int(x.elements) < int(product((used, op.inner))):
        x = _gather(run, x, op)
    group = run.parameters.groups.get(weight.fused, [weight])
    width = product((op.width, len(group))) if len(group) > 1 else op.width
    out = run.linear(x, op.weight, product((used, width)))
    if len(group) == 1:
        run.values[op.writes] = out
        return
    outs = eager.split(out, [product((used, w.shape[0])) for w in group], "split")
    for part, tensor in zip(group, outs, strict=True):
        quantised = part.name in run.parameters.quantised
        run.values[part.role] = run.tuning.adapted(x, tensor, part.name, run.layer, quantised=quantised)
        run.matrix_done.add(part.name)


def _route(run: "Forward", op: Op) -> None:
    """Logits, their softmax in fp32, the best of them and their weights, normalised."""
    eager, tape = run.eager, run.tape
    expert = next(
        o for o in run.blueprint.ops if o.part == "experts" and o.kind == "matmul" and (not o.layers or run.layer in o.layers)
    )
    elements = product((run.tokens, op.width))
    if "fp32" in op.form:
        wide, matrix = (eager.cast(t, FP32, "fp32 copy") for t in (run.read(op), run.weight(op.weight)))
        logits = eager.make(elements, FP32, "router logits")
        tape.run(op.name, [Operand(wide, (matrix,), wide.size), Operand(matrix, (wide,), matrix.size)], [logits])
    else:
        logits = run.linear(run.read(op), op.weight, elements)
    scores = eager.unary(eager.cast(logits, FP32, "fp32 router logits"), "softmax", keeps="output")
    best = eager.make(product((run.tokens, expert.repeats)), FP32, "best scores")
    indices = eager.make(product((run.tokens, expert.repeats)), INT64, "expert indices")
    tape.run("topk", [Operand(scores, (indices,), scores.size)], [best], also=[indices])
    total = eager.make(run.tokens, FP32, "sum of the best")
    tape.run("sum", [Operand(best, grad=best.size)], [total])
    weights = eager.make(best.elements, FP32, "expert weights")
    tape.run("divide", [Operand(best, (total,), best.size), Operand(total, (best, total), best.size)], [weights])
    order = eager.make(best.elements, INT64, "order by expert")
    tape.run("sort", [Operand(indices)], [order])
    offsets = eager.make(op.width, INT32, "offsets")
    tape.run("offsets", [Operand(indices)], [offsets])
    chosen = eager.make(best.elements, FP32, "sorted weights")
    tape.run("index", [Operand(weights, (order,), weights.size)], [chosen])
    run.values["routed"] = chosen
    run.values["order"], run.values["offsets"] = order, offsets


def _gather(run: "Forward", x: Tensor, op: Op) -> Tensor:
    """The rows of each expert's tokens, side by side; gate and up share them."""
    found = run.values.get("gathered")
    if found is None:
        order = run.values["order"]
        rows = run.eager.make(order.elements, INT64, "rows by expert")
        run.tape.run("rows", [Operand(order)], [rows])
        found = run.eager.make(product((run.tokens, op.repeats, op.inner)), x.item, "gathered tokens")
        offsets = run.values["offsets"]
        run.tape.run("index", [Operand(x, (rows, offsets), x.size)], [found])
        run.values["gathered"] = found
    return found


def combine(run: "Forward", op: Op, out: Tensor) -> Tensor:
    """Weighted by the router, back in the tokens' order, summed over experts."""
    eager, tape = run.eager, run.tape
    chosen = run.values["routed"]
    weighted = eager.multiply(out, chosen, "weighted")
    inverse = eager.make(chosen.elements, INT64, "order back")
    tape.run("inverse", [Operand(run.values["order"])], [inverse])
    back = eager.make(weighted.elements, weighted.item, "in order")
    tape.run("index", [Operand(weighted, (inverse,), weighted.size)], [back])
    total = eager.make(product((run.tokens, op.width)), weighted.item, "sum over experts")
    tape.run("sum", [Operand(back, grad=back.size)], [total])
    return eager.cast(total, run.values["x"].item if not eager.autocast else total.item, "experts' output")
