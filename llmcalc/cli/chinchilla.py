"""llmcalc chinchilla: parameters, tokens, compute and loss that belong together, and runs beside their optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcalc.cli import options as o

if TYPE_CHECKING:
    from llmcalc.cli import optimum as show
    from llmcalc.engines.laws import Law
    from llmcalc.engines.scaling import Optimum


def _option(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


Models = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL]...", help="Runs to compare: models, on --tokens or as many as published.", show_default=False),
]
Params = Annotated[str | None, _option("--params", "N", "Parameters: 70B.")]
Flops = Annotated[str | None, _option("--flops", "C", "Training compute in FLOP: 5.76e23.")]
Tokens = Annotated[str | None, _option("--tokens", "D", "Training tokens: 1.4T.")]
Loss = Annotated[float | None, _option("--loss", "L", "Loss to reach, in nats per token.")]
Runs = Annotated[list[str] | None, _option("--run", "N:D", "A run to compare, parameters and tokens: 8B:15T; several times.")]
GpuName = Annotated[str | None, _option("--gpu", "NAME", "A budget of GPU time: on which GPU,")]
GpuCount = Annotated[int | None, typer.Option("--gpus", min=1, max=10**7, metavar="N", help="how many,", show_default=False)]
Days = Annotated[float | None, typer.Option("--days", min=0.0, metavar="DAYS", help="how long,", show_default=False)]
Mfu = Annotated[
    float | None,
    typer.Option(min=0.001, max=1.0, metavar="SHARE", help="and the share of the dense 16-bit peak it reaches; 0.4 unless said."),
]
LawName = Annotated[list[str] | None, _option("--law", "NAME", "Only this law; may be given several times.")]
Unique = Annotated[str | None, _option("--unique-tokens", "U", "Tokens there are, repeated as needed (law muennighoff).")]
Epochs = Annotated[float | None, _option("--epochs", "E", "With --unique-tokens: --tokens is E times as many.")]
Inference = Annotated[str | None, _option("--inference-tokens", "D", "Tokens to be served after training (law sardana).")]


def chinchilla(
    models: Models = None,
    params: Params = None,
    flops: Flops = None,
    tokens: Tokens = None,
    loss: Loss = None,
    run: Runs = None,
    gpu: GpuName = None,
    gpus: GpuCount = None,
    days: Days = None,
    mfu: Mfu = None,
    law: LawName = None,
    unique_tokens: Unique = None,
    epochs: Epochs = None,
    inference_tokens: Inference = None,
    explain: o.Explain = False,
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """Compute-optimal training: from parameters, tokens, FLOPs, loss or a GPU budget to the others, under every law."""
    from llmcalc.cli import optimum as show
    from llmcalc.engines import scaling as engine
    from llmcalc.engines.compute import MFU
    from llmcalc.errors import NoAnswer, UsageError
    from llmcalc.quantity import Real
    from llmcalc.report.document import Document
    from llmcalc.report.render import render

    form = o.form_of(form, json)
    laws = _laws(law)
    unique, demand = _given(unique_tokens, "--unique-tokens", "U"), _given(inference_tokens, "--inference-tokens", "D_inf")
    if epochs is not None:
        if unique is None or tokens is not None or not 0 < epochs < 1e9:
            raise UsageError("--epochs is above 0, goes with --unique-tokens and stands in for --tokens")
        tokens = repr(float(unique) * epochs)
    n, d, c = _given(params, "--params", "N"), _given(tokens, "--tokens", "D"), _given(flops, "--flops", "C")
    if loss is not None and not 0 < loss < 100:
        raise UsageError("--loss is in nats per token, above 0")
    notes = []
    share = MFU.likely if mfu is None else mfu
    runs = _runs(models, run, n, d)
    asked = {"--params": n, "--flops": c, "--tokens": d, "--loss": loss, "--gpu": gpu}
    budget = {"--gpu": gpu, "--gpus": gpus, "--days": days}
    if any(value is not None for value in budget.values()) and None in budget.values():
        missing = ", ".join(name for name, value in budget.items() if value is None)
        raise UsageError(f"a GPU budget is --gpu, --gpus and --days together; missing: {missing}")
    given = [name for name, value in asked.items() if value is not None]
    if set(given) - ({"--params", "--tokens"} if not models and not run else {"--tokens"}) if runs else len(given) != 1:
        raise UsageError(
            "give one of --params, --flops, --tokens, --loss, or a GPU budget (--gpu --gpus --days), or --params and --tokens of a"
            " run, or runs to compare: models or --run N:D"
        )
    if gpu is not None and gpus is not None and days is not None:
        c, rate = _budget(gpu, gpus, days, share)
        at = f"{'' if mfu else 'an assumed '}{100 * share:g}%"
        notes.append(f"{gpus} x {gpu} for {days:g} days at {at} of {rate:g} dense 16-bit TFLOP/s: {c:.4g} FLOP")
    target = None if loss is None else Real(loss, "loss")
    found: list[tuple[show.Run | None, Optimum]] = []
    silent = []
    each: show.Run | None
    for each in (*runs,) or (None,):
        for one in laws:
            question = {"params": n, "tokens": d, "flops": c, "loss": target}
            if each is not None:
                question = {"params": each.params[one.counts], "tokens": each.tokens}
            try:
                found.append((each, _answer(one, {k: v for k, v in question.items() if v is not None}, unique, demand)))
            except NoAnswer:
                if law:
                    raise
                silent.append(one.name)
    results = [show.result(each, x) for each, x in found]
    show.compare(results)
    if law:
        notes += [f"{one.name}: {one.note}" for one in laws] + [said for _, x in found for said in show.advice(x)]
    notes += show.notes(runs, silent, list(dict.fromkeys(x.law for _, x in found)), unique, demand)
    figures = [(show.title(each, x), figure) for each, x in found for figure in engine.explain(x)] if explain else []
    counts = {"params": n, "flops": c, "tokens": d, "unique_tokens": unique, "inference_tokens": demand}
    inputs = {
        "models": models or [], "run": run or [], **{name: show.number(value) for name, value in counts.items()}, "loss": loss,
        "gpu": gpu, "gpus": gpus, "days": days, "mfu": share, "law": [x.name for x in laws],
    }  # fmt: skip
    render(Document("chinchilla", inputs, results, show.tables(results), notes, figures), form, explain=explain)
    return 0


def _laws(names: list[str] | None) -> list[Law]:
    """The laws asked for, or all. Raises UnknownName."""
    from llmcalc.engines.laws import LAWS
    from llmcalc.errors import UnknownName

    for name in names or ():
        if name not in LAWS:
            from difflib import get_close_matches

            raise UnknownName("law", name, get_close_matches(name, LAWS, n=2), "known: " + ", ".join(LAWS))
    return [LAWS[name] for name in dict.fromkeys(names or LAWS)]


def _runs(models: list[str] | None, pairs: list[str] | None, n: Any, d: Any) -> list[show.Run]:
    """The runs asked about. Raises NoAnswer for a model whose tokens nobody published, UsageError, UnitError."""
    from llmcalc import resolve
    from llmcalc.cli import optimum as show
    from llmcalc.engines import params as counting
    from llmcalc.errors import NoAnswer, UsageError
    from llmcalc.quantity import Real

    if not models and not pairs:
        return [show.Run(None, {"total": n, "non-embedding": n}, d)] if n is not None and d is not None else []
    runs = []
    for m in resolve.models(models or []):
        published = m.spec.published.tokens if m.spec.published else None
        if d is None and published is None:
            raise NoAnswer(f"{m.name}: the number of training tokens was not published (or is not in its spec); give --tokens")
        counts = counting.count(m.blueprint)
        by_count = {"total": Real(float(counts.active), "N"), "non-embedding": Real(float(counts.non_embedding), "N")}
        runs.append(show.Run(m.name, by_count, d if d is not None else Real(float(published or 0), "D"), m.blueprint.estimate))
    for pair in pairs or []:
        left, _, right = pair.partition(":")
        if not right:
            raise UsageError(f"--run: {pair!r} is not parameters and tokens with a colon between, as 8B:15T")
        size = _given(left, "--run", "N")
        runs.append(show.Run(pair, {"total": size, "non-embedding": size}, _given(right, "--run", "D")))
    return runs


def _answer(law: Law, question: dict[str, Any], unique: Any, demand: Any) -> Optimum:
    """What one law says. Raises NoAnswer."""
    from llmcalc.engines import conditions
    from llmcalc.engines import scaling as engine

    if unique is not None and law.condition == "repeated":
        return conditions.repeated(law, float(unique), **question)
    if "params" in question and "tokens" in question:
        run = engine.of_run(law, question["params"], question["tokens"])
        return conditions.serving(run, float(demand)) if demand is not None and law.condition == "served" else run
    (name, value), = question.items()  # fmt: skip
    solvers = {"params": engine.from_params, "tokens": engine.from_tokens, "flops": engine.from_flops, "loss": engine.from_loss}
    best = solvers[name](law, value)
    return conditions.served(best, float(demand)) if demand is not None and law.condition == "served" else best


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
    from llmcalc import hardware
    from llmcalc.errors import UsageError
    from llmcalc.quantity import Real

    card = hardware.gpu(gpu)
    rate = card.spec.tflops.bf16 or card.spec.tflops.fp16
    if rate is None:
        raise UsageError(f"{card.name} has no 16-bit rate in the catalogue")
    if not (0 < days < 1e6 and 0 < mfu <= 1):
        raise UsageError("a GPU budget needs --days between 0 and a million, and --mfu between 0 and 1")
    seconds, peak = Real(days * 86400, "seconds"), Real(rate * 1e12, "peak")
    return Real(float(gpus), "n_gpu") * seconds * peak * Real(mfu, "mfu"), rate
