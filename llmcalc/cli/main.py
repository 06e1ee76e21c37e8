"""The ``llmcalc`` command: finds the commands, turns errors into one message and an exit code.

Exit codes: 0 yes, 1 the answer is no, 2 the question was wrong.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main

# Command -> the module that holds it. A module is imported when its command runs, or when help lists them all.
COMMANDS = {
    "params": "params",
    "kv": "kv",
    "flops": "flops",
    "weights": "weights",
    "fit": "fit",
    "chinchilla": "chinchilla",
    "models": "catalogue",
    "gpus": "catalogue",
    "quants": "catalogue",
    "show": "show",
    "schema": "schema",
}
# What typer raises for options it cannot take. It carries its own copy of click, whose UsageError has no public name.
BAD_USAGE: Any = typer.BadParameter.__base__


class Commands(typer.core.TyperGroup):
    """The commands, each built when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class's signature
        """All names, in the order of help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The command of this name, or None."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.commands:
            function = getattr(import_module(f"llmcalc.cli.{COMMANDS[cmd_name]}"), cmd_name)
            alone = typer.Typer(add_completion=False)
            alone.command(cmd_name)(function)
            self.commands[cmd_name] = typer.main.get_command(alone)
        return self.commands[cmd_name]


app = typer.Typer(name="llmcalc", cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from importlib.metadata import version as installed

        sys.stdout.write(f"llmcalc {installed('llmcalc-sizing')}\n")
        raise typer.Exit


@app.callback()
def options(
    show_version: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Print the version and exit."),
) -> None:
    """Size language models: parameters, weights, KV cache, FLOPs, compute-optimal tokens, GPU fit."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    from llmcalc.errors import LlmcalcError

    try:
        code = app(args=arguments, standalone_mode=False)
    except LlmcalcError as error:
        code = _fail(str(error))
    except BAD_USAGE as error:
        code = _fail(f"{error.format_message()} ({error.ctx.command_path if error.ctx else 'llmcalc'} --help)")
    except typer.Abort:
        code = 130
    finally:
        gc.enable()
    sys.exit(code or 0)


def _fail(message: str) -> int:
    text = f"llmcalc: {message}\n"
    encoding = sys.stderr.encoding or "ascii"
    sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))
    return 2


if __name__ == "__main__":
    main()
