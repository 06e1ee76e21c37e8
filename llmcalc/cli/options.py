"""Options that several commands share, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

# Commands import what they compute with when they run: start-up is part of the product.
if TYPE_CHECKING:
    from llmcalc.blueprint.parts import Blueprint
    from llmcalc.hardware import Gpu
    from llmcalc.quantity import Quantity
    from llmcalc.resolve import Model

Form = Literal["table", "json", "csv", "markdown"]

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="Catalogue names or aliases, spec files (my.yaml), a config.json or its folder, .safetensors or .gguf files, "
        "or hub ids. None: the whole catalogue.",
        show_default=False,
    ),
]
NamedModels = Annotated[
    list[str], typer.Argument(metavar="MODEL...", help="As for params: names, spec files, configs, checkpoints, hub ids.")
]
Family = Annotated[str | None, typer.Option("--family", help="Only this family of the catalogue.", show_default=False)]
Context = Annotated[
    str | None,
    typer.Option(
        "--ctx",
        metavar="TOKENS",
        help="Tokens per sequence; 128k = 131072. 8192, or the trained context where shorter.",
        show_default=False,
    ),
]
EncoderContext = Annotated[
    str | None, typer.Option("--encoder-ctx", metavar="TOKENS", help="Tokens the encoder reads; as --ctx.", show_default=False)
]
Batch = Annotated[int, typer.Option("--batch", min=1, max=2**30, metavar="N", help="Sequences at once.")]
KvDtype = Annotated[
    Literal["fp32", "bf16", "fp16", "fp8", "int8", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "int4"],
    typer.Option("--kv-dtype", help="Element type of the KV cache."),
]
Gpus = Annotated[
    list[str] | None,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="GPU (llmcalc gpus), or auto for this machine's; may be given several times.",
        show_default=False,
    ),
]
Quant = Annotated[
    str | None,
    typer.Option("--quant", metavar="NAME", help="Quantisation (llmcalc quants); as published unless said.", show_default=False),
]
Dtype = Annotated[
    Literal["fp32", "bf16", "fp16"] | None,
    typer.Option(
        "--dtype",
        help="Type of the weights that are not quantised; without --quant, of all. As published unless said.",
        show_default=False,
    ),
]
Format = Annotated[Form, typer.Option("--format", help="How to print.")]
Json = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
Explain = Annotated[bool, typer.Option("--explain", help="Open each figure: formula, numbers, source, parts.")]
Unit = Annotated[Literal["GiB", "GB"], typer.Option("--unit", help="Unit of memory.")]


def form_of(form: Form, json: bool) -> Form:
    """``--json`` is ``--format json``; another format beside it is a mistake."""
    from llmcalc.errors import UsageError

    if json and form not in ("table", "json"):
        raise UsageError(f"--json and --format {form} contradict each other")
    return "json" if json else form


def context(text: str | None, option: str = "--ctx") -> int | None:
    """A context length as typed."""
    from llmcalc.units import parse_context

    return None if text is None else parse_context(text, option)


def gpus_named(names: list[str]) -> tuple[list[Gpu], int | None]:
    """The GPUs of these names, and for ``auto`` how many of them this machine has. Raises UnknownName, UsageError."""
    from llmcalc import hardware
    from llmcalc.errors import UsageError

    if "auto" not in names:
        return [hardware.gpu(name) for name in names], None
    if len(names) > 1:
        raise UsageError("--gpu auto is this machine's GPU; leave other names out")
    from llmcalc.cli.machine import gpus_here

    card, count = gpus_here()
    return [card], count


def share(part: float, whole: float) -> str:
    """A part of a whole in percent."""
    return f"{100 * part / whole:.1f}%" if whole else "-"


def beyond(name: str, tokens: int, blueprint: Blueprint) -> list[str]:
    """The note on a context longer than the model was trained for."""
    if blueprint.context is None or tokens <= blueprint.context:
        return []
    return [f"{name}: {tokens:,} tokens is beyond the trained context of {blueprint.context:,}"]


def figure(model: Model, opened: Quantity, where: str = "") -> tuple[str, Quantity]:
    """A figure to be explained: with the sources of the model's shape, and as uncertain as the model is."""
    sources = "; ".join((opened.source, *model.spec.sources)) if opened.source else "; ".join(model.spec.sources)
    opened = opened._replace(source=sources)
    return model.name + where, opened.as_estimate() if model.blueprint.estimate else opened


def label(blueprint: Blueprint) -> str:
    """The model's name as shown."""
    return marked(blueprint.name, blueprint.estimate)


def marked(name: str, estimate: bool) -> str:
    """A name, that of an estimate marked as one."""
    return f"{name} (estimate)" if estimate else name


def about(models: list[Model]) -> list[str]:
    """The notes on where models come from, and on those whose architecture is hearsay."""
    names = [m.name for m in models if m.blueprint.estimate]
    said = [f"{', '.join(names)}: an estimate; the architecture was never published"] if names else []
    return said + [note for m in models for note in m.notes]
