"""llmcalc import: the spec file that a config, a checkpoint or a repository lowers to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmcalc.cli import options as o

SourceName = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="A config.json or its folder, a .safetensors or .gguf file, a hub id (org/name[@revision])."
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here and not to stdout; replaced only with --force.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


def import_(source: SourceName, output: Output = None, force: Force = False, form: o.Format = "table", json: o.Json = False) -> int:
    """Write the spec of a model from its own files: what other commands compute with, to keep or to change."""
    from llmcalc import resolve
    from llmcalc.errors import NoAnswer, UsageError, printable
    from llmcalc.report.document import Document
    from llmcalc.report.render import complain, emit, render
    from llmcalc.specs import write

    form = o.form_of(form, json)
    if output is not None and output.exists() and not force:
        raise UsageError(f"{output} is there already; --force replaces it")
    found = resolve.imported(source)
    if found.spec is None:
        raise NoAnswer(f"{source}: holds tensors without a config; a spec needs the config.json beside them")
    model = resolve.lowered(found, source)
    spec = found.spec if found.checkpoint is None else {**found.spec, "dtype": model.blueprint.dtype}
    text = write.write(spec, f"{printable(found.name)}, read from {printable(source)}")
    if output is not None:
        # Whole or not at all: written beside the target and then given its name.
        part = output.with_name(output.name + ".part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(output)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise UsageError(f"{output}: cannot be written: {error.strerror}") from None
    if form == "json":
        result = {"model": found.name, "spec": spec, "output": None if output is None else str(output)}
        render(Document("import", {"source": source, "output": result["output"]}, [result], [], list(model.notes), []), form)
        return 0
    # A spec has no tabular form: every other format prints the file itself, and what is to be said of it beside it.
    if output is None:
        emit(text)
    for note in model.notes:
        complain(f"note: {note}")
    return 0
