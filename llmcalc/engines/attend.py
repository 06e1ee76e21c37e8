"""Attention's three kernels: flash and memory-efficient ones that keep no scores, and the one written out (eager)."""

from typing import TYPE_CHECKING, Any

from llmcalc.blueprint.parts import Op, product
from llmcalc.engines.eager import FP32
from llmcalc.engines.tape import Operand, Tensor
from llmcalc.quantity import Dim, ceil_div

if TYPE_CHECKING:
    from llmcalc.engines.forward import Forward

# Beside the log-sum-exp the kernels keep the state of their random numbers.
FLASH_STATE, EFFICIENT_STATE, EFFICIENT_ROWS = 24, 16, 32


def attention(run: "Forward", op: Op) -> int:
    """Scores, softmax and weighted sum, as the recipe says; a bias on the scores leaves only the eager way.

    Returns the kernel from which on it can run again: after autocast's casts, whose wider inputs would have to be kept.
    """
    eager, values, start = run.eager, run.values, len(run.tape.kernels)
    if op.writes == "indexed":
        values[op.writes] = run.read(op)  # which tokens are attended to has no gradient
        return start
    q, k, v, biases = _operands(run, op)
    if "position_bias" in values:
        biases.append(values["position_bias"] if not op.cross else _no_bias(run, op))
    out = eager.make(product((run.tokens, op.width)), q.item, "attention output")
    if run.recipe.attention == "eager" or biases:
        values[op.writes] = _written_out(run, op, q, k, v, biases)
        return start
    q, k, v = (eager.lowered(t) for t in (q, k, v))
    start = len(run.tape.kernels)
    out = eager.make(product((run.tokens, op.width)), q.item, "attention output")
    if run.recipe.attention == "flash":
        statistics = eager.make(product((run.batch, op.heads, run.seq)), FP32, "log-sum-exp")
        state = eager.make(FLASH_STATE // 8, 8, "random state")
    else:
        k, v = _expanded(run, k, op, op.qk), _expanded(run, v, op, op.v)
        padded = EFFICIENT_ROWS * ceil_div(run.seq, EFFICIENT_ROWS)
        statistics = eager.make(product((run.batch, op.heads, padded)), FP32, "log-sum-exp")
        state = eager.make(EFFICIENT_STATE // 8, 8, "random state")
    kept = (q, k, v, out, statistics, state)
    run.tape.run("attention", [Operand(t, kept, t.size) for t in (q, k, v)], [out], also=[statistics, state], heavy=True)
    values[op.writes] = out
    return start


def _no_bias(run: "Forward", op: Op) -> Tensor:
    """T5 adds a bias to the scores of its cross-attention too, of zeros; with checkpointing it asks for their gradient."""
    found = run.values.get("cross_bias")
    if found is None:
        found = run.eager.make(product((op.heads, run.seq, run.seq)), run.values["x"].item, "bias of zeros")
        run.tape.run("zeros", [], [found])
        found.needs_grad = run.recipe.recompute == "full"
        found.leaf = "bias of zeros" if found.needs_grad else ""
        run.values["cross_bias"] = found
    return found


def _operands(run: "Forward", op: Op) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Queries, keys, values, and what is added to the scores. Layers that reuse keys take those of the layer before."""
    values = run.values
    names = [name for name in op.reads if name not in ("c2p", "p2c", "indexed")]
    biases = [values[name] for name in op.reads if name in ("c2p", "p2c")]
    q = values[names[0]]
    if len(names) == 1:
        assert run.earlier is not None
        k, v = run.earlier
    else:
        k, v = values[names[1]], values[names[-1]]
        if names[-1] == "kv":
            v = run.eager.slice(v, product((run.tokens, op.width)))
    run.earlier = (k, v)
    return q, _after_prefix(run, k, op), _after_prefix(run, v, op), biases


def _after_prefix(run: "Forward", t: Tensor, op: Op) -> Tensor:
    """Keys or values behind those of a trained prefix."""
    added = run.parameters.beside.get(op.name.rpartition(".")[0], []) if run.recipe.method == "prefix" and not op.cross else []
    if not added:
        return t
    prefix = run.parameters.extra(added[0], run.layer)
    half = run.eager.copied(run.eager.slice(prefix, prefix.elements // 2), product((run.batch, prefix.elements // 2)), "prefix")
    joined = run.eager.make(t.elements + half.elements, t.item, "behind a prefix")
    run.tape.run("cat", [Operand(half, grad=half.size), Operand(t, grad=t.size)], [joined])
    return joined


def _keys(run: "Forward", op: Op) -> Any:
    """Keys that a query meets."""
    return run.seq + Dim(run.recipe.rank, "n") if run.recipe.method == "prefix" and not op.cross else run.seq


def _expanded(run: "Forward", t: Tensor, op: Op, width: Any) -> Tensor:
    """Keys or values, ``width`` wide in each head, repeated for all query heads where they have fewer."""
    whole = product((run.batch, _keys(run, op), op.heads, width))
    return t if int(t.elements) >= int(whole) else run.eager.copied(t, whole, "repeated heads")


def _contiguous(run: "Forward", t: Tensor) -> Tensor:
    """Heads and tokens stand transposed: a batch of one is a view, of several a copy."""
    return t if int(run.batch) == 1 else run.eager.copied(t, t.elements, "contiguous copy")


def _written_out(run: "Forward", op: Op, q: Tensor, k: Tensor, v: Tensor, biases: list[Tensor]) -> Tensor:
    eager = run.eager
    item = q.item
    pairs: Any = product((run.batch, op.heads, run.seq, _keys(run, op)))
    repeated = [_expanded(run, k, op, op.qk), _expanded(run, v, op, op.v)]
    k, v = (
        eager.lowered(new) if new is not old else _contiguous(run, eager.lowered(new))
        for new, old in zip(repeated, (k, v), strict=True)
    )
    if "upcast inputs" in op.form:
        q, k, item = eager.cast(q, FP32, "fp32 queries"), eager.cast(k, FP32, "fp32 keys"), v.item
    q = _contiguous(run, eager.lowered(q))
    scores = eager.same(eager.matmul(q, k, pairs, "scores"), "scaled scores")
    if "softcap" in op.form:
        scores = eager.softcap(scores)
    for bias in biases:
        scores = eager.add(scores, bias, "biased scores")
    if run.mask is not None and op.causal:
        scores = eager.add(scores, run.mask, "masked scores")
    weights = eager.softmax(scores, upcast="upcast" in op.form)
    if "upcast" in op.form:
        weights = eager.cast(weights, item, "attention weights")
    if "dropout" in op.form and run.recipe.dropout:
        weights = eager.dropout(weights)
    out = eager.matmul(weights, v, product((run.tokens, op.width)), "weighted sum")
    return eager.copied(out, out.elements, "attention output")
