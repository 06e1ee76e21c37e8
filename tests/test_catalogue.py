"""The catalogue: complete, unambiguous, every entry sourced; and open to a new file without a line of code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmcalc import hardware, resolve
from llmcalc.specs import catalogue, validate
from llmcalc.specs.gpu import GpuSpec
from llmcalc.specs.quant import QuantSpec
from tests.conftest import records

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree with its catalogue compiled, as a build leaves it."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "llmcalc", copy / "llmcalc", ignore=shutil.ignore_patterns("compiled", "__pycache__"))
    shutil.copytree(ROOT / "specs", copy / "specs")
    compiling = """
import json
from llmcalc.specs import catalogue
catalogue.compiled_folder().mkdir()
for kind in catalogue.KINDS:
    (catalogue.compiled_folder() / f"{kind}.json").write_text(json.dumps(catalogue.compile_kind(kind)))
"""
    subprocess.run([sys.executable, "-c", compiling], cwd=copy, check=True)
    return copy


def ask(tree: Path, *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "llmcalc", *arguments, "--json"], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return found


MODEL = """
family: invented
aliases: [one-file]
layers: 2
hidden: 64
heads: 4
ffn: 128
vocab: 1000
sources: [made up]
"""
GPU = """
title: Invented 100
vendor: Nobody
architecture: None
aliases: [inv100]
marketed_gb: 100
bandwidth_gb_s: 1000
tflops: {bf16: 100}
sources: [made up]
"""
QUANT = """
title: Three bits
kind: integer
format: {bits: 3, overhead: [{name: scale, bits: 16, per: 64}]}
rules: [{tensors: [linears], format: int3}]
sources: [made up]
"""


def test_one_yaml_file_adds_a_model_a_gpu_and_a_quantisation(tree: Path) -> None:
    """No code, no list, no rebuild: each is there once its file is, and gone with it."""
    added = {"models/invented-1b.yaml": MODEL, "gpus/invented100.yaml": GPU, "quants/int3.yaml": QUANT}
    for name, text in added.items():
        (tree / "specs" / name).write_text(text)
    try:
        # Embedding and head, then per layer four attention and three FFN matrices and two norms, and the last norm.
        total = 2 * 1000 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64
        assert ask(tree, "params", "one-file")[0]["total"] == total
        assert {r["model"] for r in ask(tree, "models", "invented")} == {"invented-1b"}
        assert ask(tree, "quants", "int3")[0]["bits_per_weight"] == 3.25
        fit = ask(tree, "fit", "invented-1b", "--gpu", "inv100", "--quant", "int3")[0]
        assert (fit["gpu"], fit["quant"], fit["available_bytes"]) == ("invented100", "int3", 100 * 2**30)
    finally:
        for name in added:
            (tree / "specs" / name).unlink()
    assert ask(tree, "models", "invented") == []


def test_a_changed_file_is_read_and_not_what_was_compiled_from_it(tree: Path) -> None:
    path = tree / "specs" / "models" / "gpt2.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("layers: 12", "layers: 13"))
        assert ask(tree, "params", "gpt2")[0]["total"] == 124_439_808 + 7_087_872
    finally:
        path.write_text(before)
    assert ask(tree, "params", "gpt2")[0]["total"] == 124_439_808


def test_start_up_imports_only_what_the_command_needs(tree: Path) -> None:
    """Guards the cold start by what is loaded, not by time: no pydantic, no YAML, no rich, no second argument parser."""
    listing = """
import sys
from llmcalc.cli.main import main
sys.argv = ["llmcalc", "params", "llama3-70b", "--json"]
try:
    main()
except SystemExit:
    pass
sys.stderr.write("\\n".join(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", listing], cwd=tree, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.splitlines())
    top = {name.partition(".")[0] for name in loaded}
    assert json.loads(done.stdout)["results"][0]["total"] == 70_553_706_496
    assert (
        top & {"pydantic", "pydantic_core", "yaml", "rich", "click", "argparse", "annotated_types", "importlib_metadata"} == set()
    )
    assert {name for name in loaded if name.startswith("llmcalc.")} == {
        "llmcalc.cli", "llmcalc.cli.main", "llmcalc.cli.options", "llmcalc.cli.params", "llmcalc.errors", "llmcalc.resolve",
        "llmcalc.quantity", "llmcalc.units", "llmcalc.specs", "llmcalc.specs.catalogue", "llmcalc.specs.merge",
        "llmcalc.specs.model", "llmcalc.specs.blocks", "llmcalc.specs.record", "llmcalc.blueprint",
        "llmcalc.blueprint.attention", "llmcalc.blueprint.draft", "llmcalc.blueprint.layers", "llmcalc.blueprint.recurrent",
        "llmcalc.blueprint.ends", "llmcalc.blueprint.ffn", "llmcalc.blueprint.lower", "llmcalc.blueprint.parts",
        "llmcalc.blueprint.plan", "llmcalc.engines", "llmcalc.engines.params", "llmcalc.report", "llmcalc.report.document",
        "llmcalc.report.plain", "llmcalc.report.render",
    }  # fmt: skip


def test_every_file_is_valid_and_no_name_is_taken_twice() -> None:
    for kind in catalogue.KINDS:
        assert catalogue.compile_kind(kind)["files"].keys() == catalogue.entries(kind).keys()
    catalogue.check_names()


def test_every_entry_names_its_sources() -> None:
    for kind in catalogue.KINDS:
        assert all(entry.data["sources"] for entry in catalogue.entries(kind).values())


@pytest.mark.parametrize("kind", ["model", "gpu", "quant", "runtime"])
def test_the_committed_schema_is_current(kind: str) -> None:
    """``llmcalc schema KIND > docs/schema/KIND.json`` brings it up to date."""
    committed = json.loads((ROOT / "docs" / "schema" / f"{kind}.json").read_text(encoding="utf-8"))
    assert committed == validate.json_schema(f"{kind}s")


def test_every_quantisation_can_be_applied() -> None:
    for name in catalogue.entries("quants"):
        method = resolve.method(name)
        assert method.rules, name
        assert {rule.format for rule in method.rules} == set(method.formats)


@pytest.mark.parametrize(
    ("quant", "bits", "source"),
    [
        ("fp32", 32, "itself"), ("bf16", 16, "itself"), ("nf4-single", 4.5, "4 + 32/64, QLoRA section 3"),
        ("gptq-g128", 4 + 16 / 128 + 4 / 128, "scale and zero point per group of 128"),
        ("awq-g128", 4 + 16 / 128 + 4 / 128, "the same layout"), ("mxfp4", 4.25, "OCP Microscaling v1.0: 8-bit scale per 32"),
        ("q4_0", 18 * 8 / 32, "ggml block_q4_0: 18 bytes for 32"), ("q4_1", 20 * 8 / 32, "ggml block_q4_1"),
        ("q5_0", 22 * 8 / 32, "ggml block_q5_0"), ("q5_1", 24 * 8 / 32, "ggml block_q5_1"),
        ("q8_0", 34 * 8 / 32, "ggml block_q8_0"), ("q2_k", 84 * 8 / 256, "ggml block_q2_K"),
        ("q3_k", 110 * 8 / 256, "ggml block_q3_K"), ("q4_k", 144 * 8 / 256, "ggml block_q4_K"),
        ("q5_k", 176 * 8 / 256, "ggml block_q5_K"), ("q6_k", 210 * 8 / 256, "ggml block_q6_K"),
        ("iq1_s", 50 * 8 / 256, "ggml block_iq1_s"), ("iq1_m", 56 * 8 / 256, "ggml block_iq1_m"),
        ("iq2_xxs", 66 * 8 / 256, "ggml block_iq2_xxs"), ("iq2_xs", 74 * 8 / 256, "ggml block_iq2_xs"),
        ("iq2_s", 82 * 8 / 256, "ggml block_iq2_s"), ("iq3_xxs", 98 * 8 / 256, "ggml block_iq3_xxs"),
        ("iq3_s", 110 * 8 / 256, "ggml block_iq3_s"), ("iq4_nl", 18 * 8 / 32, "ggml block_iq4_nl"),
        ("iq4_xs", 136 * 8 / 256, "ggml block_iq4_xs"),
    ],
)  # fmt: skip
def test_exact_bits_of_a_format(quant: str, bits: float, source: str) -> None:
    spec = catalogue.build(QuantSpec, catalogue.find("quants", quant).data)
    assert resolve.format_bits(spec.format) == bits, source


def test_double_quantisation_of_nf4() -> None:
    """4 + 8/64 + 32/(64 x 256) bits and one 32-bit offset per tensor (QLoRA, section 3)."""
    spec = catalogue.build(QuantSpec, catalogue.find("quants", "nf4").data)
    assert resolve.format_bits(spec.format) == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=32 / 4096**2)


@pytest.mark.parametrize(
    ("model", "quant", "bytes_or_bits", "tolerance", "source"),
    [
        ("llama3.1-8b", "q4_k_m", 4.89, 0.003, "bits per weight that llama.cpp prints for the file"),
        ("llama3.1-70b", "awq", 39.77e9, 0.002, "the repository's files"),
        ("llama3.3-70b", "fp8", 67.72 * 2**30, 0.002, "vLLM: model weights take 67.72 GiB"),
    ],
)
def test_whole_models_under_a_quantisation(model: str, quant: str, bytes_or_bits: float, tolerance: float, source: str) -> None:
    from llmcalc.engines import weights

    size = weights.size(resolve.model(model).blueprint, resolve.method(quant))
    got = size.bits_per_weight if bytes_or_bits < 100 else size.weight_bytes
    assert got == pytest.approx(bytes_or_bits, rel=tolerance), source


GPUS = records("gpus.jsonl")


@pytest.mark.parametrize("row", [pytest.param(row, id=row["gpu"]) for row in GPUS])
def test_gpus(row: dict[str, Any]) -> None:
    spec = catalogue.build(GpuSpec, catalogue.find("gpus", row["gpu"]).data)
    assert spec.bandwidth_gb_s == row["bandwidth_gb_s"]
    assert spec.marketed_gb == row["memory_gb_marketed"]
    assert spec.tdp_w == row["tdp_w"]
    rates = {name: getattr(spec.tflops, name) for name in row["dense_tflops"] if hasattr(spec.tflops, name)}
    assert rates == {name: row["dense_tflops"][name] for name in rates}
    if row["nvidia_smi_total_mib"]:
        assert spec.driver_bytes == row["nvidia_smi_total_mib"] * 2**20


def test_every_gpu_says_which_values_are_verified() -> None:
    for name, entry in catalogue.entries("gpus").items():
        spec = catalogue.build(GpuSpec, entry.data)
        assert set(spec.verified) & set(spec.unverified) == set(), name
        assert spec.verified or spec.unverified, name


@pytest.mark.parametrize(
    ("typed", "gib"),
    [("a100-80", 79.25), ("a100-40", 39.50), ("h100-sxm", 79.19), ("rtx4090", 23.64), ("4090", 23.64), ("A100 80GB", 79.25)],
)
def test_memory_is_what_cuda_reports(typed: str, gib: float) -> None:
    card = hardware.gpu(typed)
    assert card.usable_bytes == pytest.approx(gib * 2**30, abs=2**20)
    assert "CUDA" in card.usable_source


@pytest.mark.parametrize("typed", ["h100-pcie", "v100-32", "v100-16", "mi300x", "t4", "l40s", "b200", "h200", "rtx-3090", "a10g"])
def test_gpu_names_people_type(typed: str) -> None:
    assert hardware.gpu(typed).usable_bytes > 8 * 2**30
