"""How a claim asks: the command line's JSON in this process, blueprints of models and of sketches, and figures as words."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from typing import Any

from llmcalc import resolve
from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.cli.main import main
from llmcalc.units import GiB


@cache
def answer(command: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main([*command.split(), "--json"])
    except SystemExit as stopped:
        code = stopped.code
    return int(code or 0), out.getvalue(), err.getvalue()


def results(command: str) -> list[dict[str, Any]]:
    """What a command answers, a no included. Raises ValueError for a question that is refused."""
    code, out, err = answer(command)
    if code > 1:
        raise ValueError(f"{command}: {err}")
    found: list[dict[str, Any]] = json.loads(out)["results"]
    return found


def result(command: str) -> dict[str, Any]:
    """The first answer."""
    return results(command)[0]


@cache
def model(name: str) -> resolve.Model:
    """A model of the catalogue."""
    return resolve.model(name)


def sketch(**fields: Any) -> Blueprint:
    """A model of these fields, with next to no vocabulary; decoders unless said."""
    data = {"family": "sketch", "sources": ["a rule of thumb"], "vocab": 1, "layers": 1, **fields}
    return lower(resolve.built(data, "sketch"), "sketch")


def size(count: float) -> str:
    """Bytes in both units."""
    return f"{count / 1e9:,.2f} GB ({count / GiB:,.2f} GiB)"


def billions(count: int) -> str:
    """A count to the last digit, and in short."""
    short = f"{count / 1e12:.3g}T" if count >= 1e12 else f"{count / 1e9:.4g}B" if count >= 1e9 else f"{count / 1e6:.4g}M"
    return f"{count:,} ({short})"


def listed(words: list[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
