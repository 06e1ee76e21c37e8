"""llmcalc chinchilla: parameters, tokens and compute that belong together."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llmcalc.cli import options as o


def _option(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


Params = Annotated[str | None, _option("--params", "N", "Parameters: 70B.")]
Flops = Annotated[str | None, _option("--flops", "C", "Training compute in FLOP: 5.76e23.")]
Tokens = Annotated[str | None, _option("--tokens", "D", "Training tokens: 1.4T.")]
GpuName = Annotated[str | None, _option("--gpu", "NAME", "A budget of GPU time: on which GPU,")]
GpuCount = Annotated[int | None, typer.Option("--gpus", min=1, max=10**7, metavar="N", help="how many,", show_default=False)]
Days = Annotated[float | None, typer.Option("--days", min=0.0, metavar="DAYS", help="how long,", show_default=False)]
Mfu = Annotated[float, typer.Option(min=0.001, max=1.0, metavar="SHARE", help="and the share of the dense 16-bit peak it reaches.")]
LawName = Annotated[list[str] | None, _option("--law", "NAME", "Only this law; may be given several times.")]


def chinchilla(
    params: Params = None,
    flops: Flops = None,
    tokens: Tokens = None,
    gpu: GpuName = None,
    gpus: GpuCount = None,
    days: Days = None,
    mfu: Mfu = 0.4,
    law: LawName = None,
    explain: o.Explain = False,
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """Compute-optimal training: from parameters, tokens, FLOPs or a GPU budget to the others and the predicted loss."""
    from llmcalc.engines import scaling as engine
    from llmcalc.errors import UnknownName, UsageError
    from llmcalc.report.document import Document, Table
    from llmcalc.report.render import render
    from llmcalc.units import show_count

    form = o.form_of(form, json)
    for name in law or ():
        if name not in engine.LAWS:
            from difflib import get_close_matches

            raise UnknownName("law", name, get_close_matches(name, engine.LAWS, n=2), "known: " + ", ".join(engine.LAWS))
    laws = [engine.LAWS[name] for name in dict.fromkeys(law or engine.LAWS)]
    budget = [("--gpu", gpu), ("--gpus", gpus), ("--days", days)]
    asked = (("--params", params), ("--flops", flops), ("--tokens", tokens), ("--gpu", gpu))
    given = [name for name, value in asked if value is not None]
    if any(value is not None for _, value in budget) and not all(value is not None for _, value in budget):
        missing = ", ".join(name for name, value in budget if value is None)
        raise UsageError(f"a GPU budget is --gpu, --gpus and --days together; missing: {missing}")
    if not given or (len(given) > 1 and given != ["--params", "--tokens"]):
        raise UsageError(
            "give one of --params, --flops, --tokens, or a GPU budget (--gpu --gpus --days), or --params and --tokens of a run"
        )
    n, d, c = _given(params, "--params", "N"), _given(tokens, "--tokens", "D"), _given(flops, "--flops", "C")
    notes = []
    if gpu is not None and gpus is not None and days is not None:
        c, rate = _budget(gpu, gpus, days, mfu)
        notes.append(f"{gpus} x {gpu} for {days:g} days at {100 * mfu:g}% of {rate:g} dense 16-bit TFLOP/s: {c:.4g} FLOP")
    if n is not None and d is not None:
        optima = [engine.of_run(each, n, d) for each in laws]
        notes.append("params and tokens as given: the loss that each law predicts for this run, optimal or not")
    elif n is not None:
        optima = [engine.from_params(each, n) for each in laws]
    elif d is not None:
        optima = [engine.from_tokens(each, d) for each in laws]
    else:
        optima = [engine.from_flops(each, c) for each in laws]
    results = [
        {
            "law": x.law.name, "params": _number(x.params), "tokens": _number(x.tokens), "flops": _number(x.flops),
            "loss": float(x.loss), "tokens_per_param": x.tokens_per_param, "source": x.law.source, "loss_source": x.law.loss.source,
        }
        for x in optima
    ]  # fmt: skip
    rows = [
        (x.law.name, show_count(x.params), show_count(x.tokens), f"{float(x.flops):.2e}", f"{float(x.loss):.4f}",
         f"{x.tokens_per_param:.3g}")
        for x in optima
    ]  # fmt: skip
    notes.append("C = 6 N D; every figure is an estimate from a fit; loss in nats per token on that fit's own data")
    columns = ("law", ">params", ">tokens", ">FLOP", ">loss", ">tokens/param")
    figures = [(x.law.name, figure) for x in optima for figure in engine.explain(x)] if explain else []
    inputs = {
        "params": _number(n), "flops": _number(c), "tokens": _number(d), "gpu": gpu, "gpus": gpus, "days": days, "mfu": mfu,
        "law": [x.name for x in laws],
    }  # fmt: skip
    table = Table("Compute-optimal training", columns, rows)
    render(Document("chinchilla", inputs, results, [table], notes, figures), form, explain=explain)
    return 0


def _given(text: str | None, option: str, symbol: str) -> Any:
    """A count as typed, with its symbol; None where it was not given. Raises UnitError, also for less than 1."""
    from llmcalc.errors import UnitError
    from llmcalc.quantity import Real
    from llmcalc.units import parse_count

    if text is None:
        return None
    value = parse_count(text, option)
    if value < 1:
        raise UnitError(f"{option}: {text!r} is less than 1")
    return Real(float(value), symbol)


def _budget(gpu: str, gpus: int, days: float, mfu: float) -> tuple[Any, float]:
    """FLOPs of a GPU budget, and the peak in TFLOP/s that it is a share of."""
    from llmcalc import resolve
    from llmcalc.errors import UsageError
    from llmcalc.quantity import Real

    card = resolve.gpu(gpu)
    rate = card.spec.tflops.bf16 or card.spec.tflops.fp16
    if rate is None:
        raise UsageError(f"{card.name} has no 16-bit rate in the catalogue")
    if not (0 < days < 1e6 and 0 < mfu <= 1):
        raise UsageError("a GPU budget needs --days between 0 and a million, and --mfu between 0 and 1")
    seconds, peak = Real(days * 86400, "seconds"), Real(rate * 1e12, "peak")
    return Real(float(gpus), "n_gpu") * seconds * peak * Real(mfu, "mfu"), rate


def _number(value: object) -> int | float | None:
    """A figure as JSON has it: whole where it is."""
    if value is None:
        return None
    number = float(value)  # type: ignore[arg-type]
    return int(number) if number.is_integer() and number < 2**53 else number
