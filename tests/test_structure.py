"""The shape of the code: layers point downwards, engines are pure, files stay short."""

import ast
from pathlib import Path

import pytest

import llmcalc

PACKAGE = Path(llmcalc.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
# From the top down; a module may import from its own layer and from those below it.
LAYERS = ("cli", "report", "resolve", "hardware", "importers", "engines", "blueprint", "specs", "quantity", "units", "errors")
# Specs are YAML and checked by pydantic; the command line is typer's and terminal tables are rich's.
HOMES = {"yaml": "specs", "pydantic": "specs.validate", "typer": "cli", "rich": "report.terminal"}


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(name: str) -> int | None:
    head = name.removeprefix("llmcalc.").partition(".")[0]
    return LAYERS.index(head) if head in LAYERS else None


@pytest.mark.parametrize("path", [pytest.param(path, id=module(path) or "llmcalc") for path in FILES])
def test_imports_point_downwards(path: Path) -> None:
    own = layer(module(path))
    if own is None:
        return
    below = {name: layer(name) for name in imports(path) if name.startswith("llmcalc.")}
    assert {name for name, at in below.items() if at is not None and at < own} == set()


@pytest.mark.parametrize("path", [pytest.param(path, id=module(path) or "llmcalc") for path in FILES])
def test_libraries_stay_at_home(path: Path) -> None:
    for name in imports(path):
        home = HOMES.get(name.partition(".")[0])
        if home is not None:
            assert module(path) == home or module(path).startswith(f"{home}."), f"{module(path)} imports {name}"


@pytest.mark.parametrize("path", [pytest.param(path, id=module(path) or "llmcalc") for path in FILES])
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320


def test_no_engine_asks_for_a_family() -> None:
    for path in (PACKAGE / "engines").glob("*.py"):
        assert "family" not in path.read_text(encoding="utf-8")
