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
    "train": "train",
    "speed": "speed",
    "compute": "compute",
    "chinchilla": "chinchilla",
    "compare": "compare",
    "import": "imported",
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
            module = import_module(f"llmcalc.cli.{COMMANDS[cmd_name]}")
            # A command named like a word of Python's has a function with an underscore.
            function = getattr(module, cmd_name, None) or getattr(module, f"{cmd_name}_")
            alone = typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
            alone.command(cmd_name)(function)
            self.commands[cmd_name] = typer.main.get_command(alone)
        return self.commands[cmd_name]


# Help in boxes is for people at a terminal; a pipe gets plain text.
MARKUP: Any = "rich" if sys.stdout is not None and sys.stdout.isatty() else None

app = typer.Typer(
    name="llmcalc",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
)


def version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from importlib.metadata import version as installed

        from llmcalc.report.render import emit

        emit(f"llmcalc {installed('llmcalc-sizing')}\n")
        raise typer.Exit


@app.callback()
def options(
    show_version: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Print the version and exit."),
) -> None:
    """Size language models: parameters, weights, KV cache, FLOPs, training, compute-optimal tokens, GPU fit, speed."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    from llmcalc.errors import LlmcalcError

    try:
        code = app(args=arguments, standalone_mode=False)
    except LlmcalcError as error:
        code = _fail(str(error))
    except BAD_USAGE as error:
        # Without arguments typer raises the help itself.
        message = str(error.format_message())
        code = _fail(_usage(error, message)) if message and not message.startswith("Usage:") else _show_help(message)
    except typer.Abort:
        code = 130
    except SystemExit:
        # typer's way to say that whoever read the help has gone; no command ends like this.
        code = 0
    except OSError as error:
        from llmcalc.report.render import forget_stdout

        code = _fail(f"cannot write the answer: {error.strerror or error}")
        forget_stdout()
    finally:
        gc.enable()
    sys.exit(code or 0)


def run() -> None:
    """The console script: ``main``, and an end without a last search for garbage that the system takes back anyway."""
    try:
        main()
    finally:
        gc.freeze()


def _usage(error: Any, message: str) -> str:
    """typer's complaint about an option, the nearest command for one that does not exist, and where help is."""
    path = error.ctx.command_path if error.ctx else "llmcalc"
    if message.startswith("No such command"):
        from difflib import get_close_matches

        wanted = message.partition("'")[2].partition("'")[0]
        close = get_close_matches(wanted, COMMANDS, n=2)
        message = f"no command {wanted!r}" + (f"; did you mean {' or '.join(close)}?" if close else "")
    return f"{message} ({path} --help)"


def _show_help(text: str) -> int:
    """Help that nobody asked for goes to stderr, and is no success."""
    if sys.stderr is not None:
        sys.stderr.write(text + "\n" if text else "")
    return 2


def _fail(message: str) -> int:
    """One line on stderr, whatever is in the message."""
    from llmcalc.report.render import complain

    complain(f"llmcalc: {message}")
    return 2


if __name__ == "__main__":
    run()
