"""Console blocks and generated tables of the documentation: found, run, and (on request) written anew.

    python tests/console.py        rewrites the output of every block in README.md, CONTRIBUTING.md and docs/

A block opens with ```console; lines that start with ``$ llmcalc`` are commands, what follows each is its output, as
a pipe gets it (stderr after stdout, then ``[exit N]`` where N is not 0). A line ``...`` stands for lines left out. What stands
between ``<!-- generated: NAME -->`` and ``<!-- end -->`` is what ``generated`` makes of the code's own tables.
"""

import re
import shlex
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Step(NamedTuple):
    """A command of a block and the output that the text shows."""

    file: Path
    line: int
    command: str
    shown: list[str]


def pages() -> list[Path]:
    """Every page whose console blocks count."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def steps(page: Path) -> list[Step]:
    """The commands of a page in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start()) + 2
        for number, line in enumerate(block[1].splitlines()):
            if line.startswith("$ "):
                found.append(Step(page, first + number, line[2:], []))
            elif found:
                found[-1].shown.append(line)
    return found


def run(command: str) -> list[str]:
    """What a command prints into a pipe."""
    words = shlex.split(command)
    if words[0] != "llmcalc":
        raise ValueError(f"only llmcalc commands can be run: {command}")
    done = subprocess.run(
        [sys.executable, "-m", "llmcalc", *words[1:]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if "Traceback (most recent call last)" in done.stderr:
        raise RuntimeError(f"{command}\n{done.stderr}")
    lines = (done.stdout + done.stderr).splitlines()
    return [line.rstrip() for line in lines] + ([f"[exit {done.returncode}]"] if done.returncode else [])


def agrees(shown: list[str], got: list[str]) -> bool:
    """Whether the output is the one shown, ``...`` standing for any lines."""
    pattern = "".join(r"(?:.*\n)*" if line == "..." else re.escape(line) + r"\n" for line in _trimmed(shown))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _trimmed(got))) is not None


def _trimmed(lines: list[str]) -> list[str]:
    """Lines without the empty ones at the end."""
    return _trimmed(lines[:-1]) if lines and not lines[-1] else lines


def generated(name: str) -> str:
    """A table of the importers': types (what reads which model_type), refused (which are not read, and why), gguf."""
    from llmcalc.importers import families
    from llmcalc.importers.gguf_arch import ARCHITECTURES

    if name == "types":
        # What a module is for is its docstring's first line.
        about = {module: str(import_module(f"{families.__name__}.{module}").__doc__).splitlines()[0] for module in families.MODULES}
        table = [(about[module], types.split()) for module, types in families.MODULES.items()]
        table.append(("Other names of types that are read.", [f"{new} (as {old})" for new, old in families.RENAMED.items()]))
        return _table(("what", "`model_type`"), [(what, ", ".join(sorted(types))) for what, types in table])
    if name == "refused":
        return _table(("`model_type`", "why it is not read"), sorted(families.REFUSED.items()))
    return textwrap.fill(", ".join(sorted(ARCHITECTURES)), 120, break_on_hyphens=False) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def _head_and_tail(shown: list[str], got: list[str]) -> list[str]:
    """The new output cut as the old one was: as many lines before and after the ``...``."""
    if "..." not in shown:
        return got
    at = shown.index("...")
    after = len(shown) - at - 1
    return [*got[:at], "...", *(got[-after:] if after else [])]


def rewrite(page: Path) -> bool:
    """Put today's output into a page's blocks. Gives whether anything changed."""
    text = page.read_text(encoding="utf-8")

    def block(match: re.Match[str]) -> str:
        out: list[str] = []
        shown: list[str] = []
        command = ""

        def close() -> None:
            if command:
                blank = shown[-1:] == [""]
                out.extend(_head_and_tail(shown[:-1] if blank else shown, run(command)))
                out.extend([""] if blank else [])

        for line in match[1].splitlines():
            if line.startswith("$ "):
                close()
                command, shown = line[2:], []
                out.append(line)
            else:
                shown.append(line)
        close()
        return "```console\n" + "\n".join(out) + "\n```"

    new = BLOCK.sub(block, text)
    new = GENERATED.sub(lambda match: match[1] + generated(match[2]) + match[4], new)
    page.write_text(new, encoding="utf-8")
    return new != text


if __name__ == "__main__":
    for one in pages():
        if one.exists():
            sys.stdout.write(f"{one.relative_to(ROOT)}: {'rewritten' if rewrite(one) else 'unchanged'}\n")
