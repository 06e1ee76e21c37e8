"""How long ``llmcalc params llama3-70b`` takes from a cold start, against ``python -c pass`` in the same run.

    python benchmarks/start_up.py [RUNS]

Whole processes, taken in turn so that a slow moment of the machine meets them all; the medians and their ratios count.
Needs llmcalc installed in the environment of the python that runs this.
"""

import compileall
import os
import pty
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import llmcalc

COMMAND = [str(Path(sys.executable).with_name("llmcalc")), "params", "llama3-70b"]
BARS = {"table on a terminal": 11.0, "--json": 8.0}


def piped(command: list[str]) -> None:
    """Run with stdout read and thrown away."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def on_terminal(command: list[str]) -> None:
    """Run on a pseudo-terminal of 100 columns, so that the command draws its table."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "100"})
    os.close(theirs)
    try:
        while os.read(ours, 65536):
            pass
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    if process.wait() != 0:
        raise subprocess.CalledProcessError(process.returncode, command)


def main(runs: int) -> None:
    """Time each command, in turn, and print medians and ratios."""
    # As pip leaves an installed package, whatever the environment says about writing bytecode.
    compileall.compile_dir(Path(llmcalc.__file__).parent, quiet=1)
    cases: dict[str, tuple[Callable[[list[str]], None], list[str]]] = {
        "python -c pass": (piped, [sys.executable, "-c", "pass"]),
        "import typer": (piped, [sys.executable, "-c", "import typer"]),
        "table on a terminal": (on_terminal, COMMAND),
        "table through a pipe": (piped, COMMAND),
        "--json": (piped, [*COMMAND, "--json"]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for run in range(runs + 1):
        for name, (how, command) in cases.items():
            start = time.perf_counter()
            how(command)
            if run:  # the first round warms the disk cache
                seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds["python -c pass"])
    print(f"{runs} runs each, {sys.version.split()[0]}")
    for name, values in seconds.items():
        median = statistics.median(values)
        bar = f"   (bar {BARS[name]:g})" if name in BARS else ""
        print(f"{name:22} {1000 * median:7.1f} ms  {median / base:5.2f} x{bar}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
