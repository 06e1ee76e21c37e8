"""Every console block of the documentation is run, and prints what the page shows."""

import re
from pathlib import Path

import pytest
import yaml

from llmcalc import resolve
from llmcalc.specs import read, validate
from tests.console import ROOT, Step, agrees, pages, run, steps

STEPS = [step for page in pages() for step in steps(page)]


@pytest.mark.parametrize("step", [pytest.param(s, id=f"{s.file.name}:{s.line}") for s in STEPS])
def test_console_blocks(step: Step) -> None:
    got = run(step.command)
    shown = [line.rstrip() for line in step.shown]
    assert agrees(shown, got), "\n".join(got) + "\n\npython tests/console.py brings the pages up to date"


def test_the_pages_have_console_blocks() -> None:
    by_page = {page.name: len(steps(page)) for page in pages()}
    assert by_page["README.md"] >= 5
    assert by_page["conventions.md"] >= 3
    assert by_page["spec-format.md"] >= 3


def test_a_changed_output_is_noticed() -> None:
    assert agrees(["a", "...", "z"], ["a", "b", "c", "z"])
    assert agrees(["a", "..."], ["a"])
    assert not agrees(["a", "...", "z"], ["a", "b", "c"])
    assert not agrees(["total 1"], ["total 2"])


def test_the_spec_in_the_readme_is_a_model_of_ten_lines() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    assert len(block[1].splitlines()) <= 10
    validate.validate(read.parse(block[1], "README.md"), "models")


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in pages()])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_anchors_in_links_exist() -> None:
    for page in pages():
        for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            if target.startswith("http"):
                continue
            text = ((page.parent / target) if target else page).read_text(encoding="utf-8")
            heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower().replace("`", "")).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{page.name} links to {target}#{anchor}"


def test_counts_in_the_readme_are_the_catalogues() -> None:
    from llmcalc.specs import catalogue

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"(\d+) models, (\d+) GPUs, (\d+) quantisations and (\d+) runtimes", text)
    assert found is not None
    assert [int(n) for n in found.groups()] == [len(catalogue.entries(kind)) for kind in catalogue.KINDS]


def test_examples_are_valid() -> None:
    for path in sorted((ROOT / "docs" / "examples").glob("*.yaml")):
        if path.stem != "broken":
            assert resolve.model(str(path)).blueprint.weights
            assert yaml.safe_load(path.read_text(encoding="utf-8"))
