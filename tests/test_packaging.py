"""What a build leaves: the wheel (also by way of the sdist) carries the specs, compiled, and runs on its own."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build(source: Path, out: Path, *what: str) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module", params=["tree", "sdist"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source tree, and one built from the sdist alone."""
    out = tmp_path_factory.mktemp("dist")
    if request.param == "tree":
        return build(ROOT, out, "--wheel")
    sdist = build(ROOT, out, "--sdist")
    unpacked = tmp_path_factory.mktemp("sdist")
    subprocess.run(["tar", "-xzf", str(sdist), "-C", str(unpacked)], check=True)
    (source,) = unpacked.iterdir()
    assert not (source / "llmcalc" / "specs" / "compiled").exists(), "an sdist carries sources only"
    return build(source, tmp_path_factory.mktemp("from_sdist"), "--wheel")


def test_the_wheel_carries_every_spec_and_what_was_compiled_from_them(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind in ("models", "gpus", "quants", "runtimes"):
        for path in (ROOT / "specs" / kind).glob("*.yaml"):
            assert f"llmcalc/specs/data/{kind}/{path.name}" in names
        assert f"llmcalc/specs/compiled/{kind}.json" in names
    assert not any(name.startswith(("tests/", "specs/")) for name in names)
    assert wheel.name.startswith("llmcalc_sizing-")


def test_the_wheel_runs_on_its_own(wheel: Path, tmp_path: Path) -> None:
    """Unpacked away from the source tree, and before it on the path."""
    home = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(home)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "llmcalc", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(home)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    where = "import llmcalc.specs.catalogue as c; print(c.folder())"
    environment = {**os.environ, "PYTHONPATH": str(home)}
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(home / "llmcalc" / "specs" / "data")
    assert json.loads(run("params", "llama3-70b", "--json").stdout)["results"][0]["total"] == 70_553_706_496
    assert run("kv", "--ctx", "128k").returncode == 0
    assert run("fit", "--gpu", "a100-80", "--quant", "nf4").returncode == 0
    assert run("fit", "llama3-405b", "--gpu", "a100-80", "--quant", "nf4").returncode == 1
    assert run("params", "lama3-70b").returncode == 2
