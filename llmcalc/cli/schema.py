"""llmcalc schema: the JSON Schema of spec files, for editors."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from llmcalc.cli import options as o

What = Annotated[Literal["model", "gpu", "quant", "runtime"], typer.Argument(help="Which kind of spec file.")]


def schema(what: What = "model", form: o.Format = "table", json: o.Json = False) -> int:
    """Print the JSON Schema of a spec file; with --json inside llmcalc's usual document."""
    import json as encoder

    from llmcalc.report.document import Document
    from llmcalc.report.render import emit, render
    from llmcalc.specs.validate import json_schema

    found = json_schema(f"{what}s")
    form = o.form_of(form, json)
    if form == "json":
        render(Document("schema", {"what": what}, [{"what": what, "json_schema": found}], [], [], []), form)
    else:
        # A schema has no tabular form: every other format prints the schema itself.
        emit(encoder.dumps(found, indent=2) + "\n")
    return 0
