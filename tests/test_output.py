"""What leaves the process: into pipes, into an ASCII world, onto a terminal, after the reader has gone."""

import os
import pty
import re
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "llmcalc"]


def piped(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, env={**os.environ, **environment}, check=False)


def on_terminal(*arguments: str, columns: int = 80, **environment: str) -> str:
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environment}
    process = subprocess.Popen([*COMMAND, *arguments], stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    out = b""
    try:
        while chunk := os.read(ours, 65536):
            out += chunk
    except OSError:  # Linux's way to say that the other end is closed
        pass
    finally:
        os.close(ours)
    process.wait()
    return out.decode().replace("\r\n", "\n")


def visible(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


@pytest.mark.parametrize(
    "command",
    [
        "params",
        "kv --ctx 128k",
        "fit --gpu a100-80 --quant nf4",
        "params llama3-70b --explain",
        "gpus",
        "quants",
        "models",
        "show rtx4090",
    ],
)
def test_a_pipe_gets_plain_ascii_never_cut(command: str) -> None:
    done = piped(*command.split(), PYTHONIOENCODING="ascii", COLUMNS="20", FORCE_COLOR="1")
    text = done.stdout.decode("ascii")
    assert done.returncode == 0
    assert done.stderr == b""
    assert "\x1b" not in text
    assert "..." not in text
    assert not set(text) & set("│─━┃")
    wide = piped(*command.split(), PYTHONIOENCODING="ascii", COLUMNS="200").stdout.decode("ascii")
    assert text == wide


def test_errors_are_safe_on_an_ascii_stderr() -> None:
    done = piped("params", "llamä3-70b", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert done.stderr.startswith(b"llmcalc: unknown model")


def test_a_closed_pipe_is_no_error() -> None:
    for first in ("params", "models --json"):
        process = subprocess.Popen([*COMMAND, *first.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 0


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize(
    "command",
    ["params llama3-70b", "params --family llama", "kv --family gemma --ctx 128k", "fit llama3-8b --gpu a100-80",
     "flops llama3-8b gpt2", "fit llama3-70b gpt-4 --gpu a100-80 --gpu rtx4090 --quant nf4", "gpus a100",
     "chinchilla --params 70B", "chinchilla llama3-8b gpt3-175b", "compute llama3-8b --gpu h100-sxm",
     "compute llama3-8b llama3-70b --gpu h100-sxm --gpus 64"],
)  # fmt: skip
def test_a_table_fits_its_terminal(command: str, columns: int) -> None:
    text = visible(on_terminal(*command.split(), columns=columns))
    assert max(len(line) for line in text.splitlines()) <= columns
    assert "…" not in text


def test_colour_follows_the_terminal_and_no_color() -> None:
    green = "32m"
    assert green in on_terminal("fit", "llama3-8b", "--gpu", "a100-80")
    assert green not in on_terminal("fit", "llama3-8b", "--gpu", "a100-80", NO_COLOR="1")


def test_a_terminal_says_what_it_leaves_out() -> None:
    narrow = on_terminal("fit", "llama3-8b", "gpt2", "--gpu", "a100-80", columns=70)
    assert " on a wider terminal" in narrow
    assert "max batch" not in narrow
    assert "max batch" in on_terminal("fit", "llama3-8b", "gpt2", "--gpu", "a100-80", columns=140)
