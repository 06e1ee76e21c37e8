"""Cross entropy, as it is computed in one of several ways, which hold very different multiples of the logits."""

from typing import TYPE_CHECKING

from llmcalc.blueprint.parts import Op
from llmcalc.engines.eager import FP32, HALF, INT64
from llmcalc.engines.tape import Operand, Tensor

if TYPE_CHECKING:
    from llmcalc.engines.forward import Forward

CHUNKS = 8


def fused(run: "Forward", op: Op) -> None:
    """Head and loss in one (Liger, CCE), or in chunks of rows: the logits never stand whole. The gradients of the hidden
    state and of the head are computed on the way (fused), or the logits of each chunk again (chunked)."""
    x, weight = run.read(op), run.weight(op.weight)
    loss = run.eager.make(1, FP32, "loss")
    rows = run.tokens if run.recipe.loss == "chunked" else 0
    per_row = (HALF + 2 * FP32) * int(op.width)
    chunk = -(-int(run.tokens) // CHUNKS) if rows else max(1, int(run.tokens) * int(op.inner) // int(op.width))
    scratch = (chunk * per_row, (chunk * (per_row + FP32 * int(op.width))) if rows else 0)
    run.tape.run("fused loss", [Operand(x, (x,), x.size), Operand(weight, (x,), weight.size)], [loss], scratch=scratch)


def loss(run: "Forward", op: Op) -> None:
    """From logits; nothing where head and loss are one."""
    way, tape = run.recipe.loss, run.tape
    if way in ("chunked", "fused"):
        return
    logits = run.read(op)
    outputs = tape.to_stay if run.recipe.keep_logits else tape.to_the_end
    if way != "copied":
        outputs.add(logits.storage)
    if way == "compiled":
        _compiled(run, logits)
    elif "parallel" in op.form:
        _parallel(run, logits)
    else:
        _plain(run, op, logits, copied=way == "copied")


def _compiled(run: "Forward", logits: Tensor) -> None:
    """One kernel either way: keeps the logits as they are, and a sum for each row."""
    sums, total = run.eager.make(run.tokens, FP32, "log-sum-exp"), run.eager.make(1, FP32, "loss")
    run.tape.run("loss", [Operand(logits, (logits, sums), logits.size)], [total], also=[sums])
    run.tape.to_stay.add(total.storage)


def _parallel(run: "Forward", logits: Tensor) -> None:
    """Of logits that ranks divide (torch's loss_parallel): shifted logits and their exponentials are made on the way to the
    log-softmax, one-hot rows, its exponentials and their sum on the way back."""
    logits = run.eager.cast(logits, FP32, "fp32 logits")
    run.tape.to_the_end.add(logits.storage)
    logs, total = run.eager.make(logits.elements, FP32, "log-softmax"), run.eager.make(1, FP32, "loss")
    size = int(logits.size)
    operands = [Operand(logits, (logs,), logits.size)]
    run.tape.run("parallel loss", operands, [total], also=[logs], scratch=(size, 2 * size), pieces=(1, 2))
    run.tape.to_stay.add(total.storage)


def _plain(run: "Forward", op: Op, logits: Tensor, *, copied: bool) -> None:
    """Log-softmax and its mean over the labels. ``copied``: of a copy without the last row, fp32 logits being the output."""
    eager, tape = run.eager, run.tape
    if "upcast" in op.form or copied:
        logits = eager.cast(logits, FP32, "fp32 logits")
        (tape.to_stay if copied and run.recipe.keep_logits else tape.to_the_end).add(logits.storage)
    if copied:
        logits = eager.copied(eager.slice(logits, logits.elements), logits.elements, "logits but the last")
        tape.to_the_end.add(logits.storage)
    kept = []
    if "shifted" in op.form:
        # One label more, at the end, and the first left out: a view where there is one sequence, of more a copy.
        labels = eager.make(run.tokens + run.batch, INT64, "padded labels")
        tape.run("pad", [], [labels])
        tape.to_the_end.add(labels.storage)
        if int(run.batch) > 1:
            padded, labels = labels, eager.make(run.tokens, INT64, "shifted labels")
            tape.run("shift", [Operand(padded)], [labels])
        kept.append(labels)
    logs = eager.unary(logits, "log_softmax", keeps="output")
    logs = eager.raised(logs)
    total, weight = eager.make(1, logs.item, "loss"), eager.make(1, logs.item, "total weight")
    tape.run("nll_loss", [Operand(logs, (logs, *kept, weight), logs.size)], [total], also=[weight])
    tape.to_stay.add(total.storage)
