"""The command line as people and scripts meet it: answers, exit codes, JSON keys, mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmcalc import units
from tests.conftest import Run

# What scripts rely on, command by command.
KEYS = {
    "params llama3-70b": {"total", "active", "embedding", "lm_head", "router_buffers", "parts"},
    "kv llama3-70b": {"kv_bytes", "bytes_per_token", "state_bytes", "cross_bytes", "index_bytes", "convention"},
    "flops llama3-70b": {"forward_flops", "backward_flops", "training_flops", "prefill_flops", "decode_flops_per_token"},
    "weights llama3-70b --quant nf4": {"weight_bytes", "file_bytes", "bits_per_weight", "parts"},
    "train gpt2": {
        "parameter_bytes", "buffer_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes", "forward_peak_bytes",
        "backward_peak_bytes", "step_peak_bytes", "peak_bytes", "peak_phase", "trainable", "fits",
    },
    "fit llama3-70b --gpu a100-80 --quant nf4": {
        "gpu", "quant", "runtime", "fits", "required_bytes", "available_bytes", "weight_bytes", "kv_bytes", "activation_bytes",
        "overhead_bytes", "kv_tokens", "max_context", "max_batch", "gpus", "min_gpus",
    },
    "compute llama3-8b --tokens 15T --gpu h100-sxm --gpus 64 --mfu 0.4 --price 2.5 --power 700 --pue 1.1": {
        "training_flops", "gpu_hours", "days", "energy_mwh", "co2_tonnes", "cost_dollars",
    },
    "chinchilla --params 70B": {"law", "params", "tokens", "flops", "loss", "tokens_per_param"},
    "models llama": {"model", "family", "total", "active", "context"},
    "gpus a100": {"gpu", "usable_bytes", "bandwidth_bytes_per_second"},
    "quants nf4": {"quant", "bits_per_weight"},
    "show llama3-8b": {"model", "spec", "tensors"},
    "schema": {"what", "json_schema"},
}  # fmt: skip


@pytest.mark.parametrize("command", KEYS)
def test_json_document(command: str, run: Run) -> None:
    outcome = run(*command.split(), "--json")
    document = outcome.json
    assert (outcome.code, outcome.err) == (0, "")
    assert set(document) == {"schema", "command", "inputs", "results", "notes", "explain"}
    assert document["schema"] == "llmcalc/1"
    assert document["command"] == command.split()[0]
    assert document["results"]
    assert KEYS[command] <= set(document["results"][0])


@pytest.mark.parametrize("command", KEYS)
@pytest.mark.parametrize("form", ["table", "csv", "markdown"])
def test_every_format_works_on_every_command(command: str, form: str, run: Run) -> None:
    outcome = run(*command.split(), "--format", form)
    assert outcome.code == 0
    assert outcome.out.strip()
    assert outcome.err == ""


@pytest.mark.parametrize(
    ("command", "key", "expected"),
    [
        ("params llama3-70b", "total", 70_553_706_496),
        ("params mixtral-8x7b", "active", 12_879_925_248),
        ("params deepseek-v3", "router_buffers", 14_848),
        ("kv llama2-7b --ctx 4k", "kv_bytes", 2**31),
        ("kv llama2-7b --ctx 128k", "kv_bytes", 2**36),
        ("kv mistral-7b-v0.1 --ctx 128k", "kv_bytes", 2**29),
        ("kv mistral-7b-v0.1 --ctx 128k", "bytes_per_token", 0),
        ("kv deepseek-v2", "bytes_per_token", 69_120),
        ("kv bert-base", "kv_bytes", 0),
        ("kv llama3-8b --kv-dtype q8_0 --ctx 1k", "kv_bytes", 65536 * 1024 * 17 // 16),
        ("kv llama3-8b --batch 5 --ctx 1k", "kv_bytes", 5 * 131_072 * 1024),
        ("flops gpt2 --ctx 1024", "forward_flops", 291_648_307_200),
        ("weights llama3-8b", "weight_bytes", 2 * 8_030_261_248),
        ("weights llama3-8b --dtype fp32", "bits_per_weight", 32.0),
        ("fit llama3-8b --gpu rtx4090", "available_bytes", 24_207 * 2**20),
        ("fit llama3-8b --gpu a100-80", "available_bytes", int(79.25 * 2**30)),
        ("fit llama3-8b --gpu a100-80", "max_context", 8192),
    ],
)
def test_answers(command: str, key: str, expected: Any, run: Run) -> None:
    result = run(*command.split(), "--json").results[0]
    assert result[key] == expected
    assert type(result[key]) is type(expected)


def test_context_defaults_to_8k_or_the_trained_context(run: Run) -> None:
    results = run("kv", "llama3.1-8b", "gpt2", "--json").results
    assert [result["ctx"] for result in results] == [8192, 1024]


def test_longer_than_trained_is_a_note(run: Run) -> None:
    outcome = run("kv", "llama3-8b", "--ctx", "128k", "--json")
    assert outcome.code == 0
    assert any("beyond the trained context of 8,192" in note for note in outcome.json["notes"])


def test_results_come_in_the_order_asked(run: Run) -> None:
    names = ["mixtral-8x7b", "gpt2", "llama3-8b"]
    assert [result["model"] for result in run("params", *names, "--json").results] == names


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("llama-3-70b", "llama3-70b"), ("meta-llama/Meta-Llama-3-70B", "llama3-70b"), ("Meta-Llama-3-70B-Instruct", "llama3-70b"),
        ("LLaMA3 70B", "llama3-70b"), ("llama3_70b", "llama3-70b"), ("llama3-405b", "llama3.1-405b"),
        ("mistral-7b", "mistral-7b-v0.3"),
        ("gpt-2", "gpt2"), ("openai-community/gpt2", "gpt2"), ("deepseek-ai/DeepSeek-R1", "deepseek-r1"),
    ],
)  # fmt: skip
def test_names_people_type(typed: str, meant: str, run: Run) -> None:
    assert run("params", typed, "--json").results[0]["model"] == meant


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ("params lama3-70b", ["lama3-70b", "llama3-70b"]),
        ("params llama3-70b nonsense", ["nonsense"]),
        ("params qwxzz", ["unknown model", "llmcalc models"]),
        ("params claude-3.5-sonnet", ["claude-3.5-sonnet", "published"]),
        ("params gemini-1.5-pro", ["gemini-1.5-pro", "published"]),
        ("kv gpt-4o", ["published"]),
        ("fit llama3-8b", ["--gpu"]),
        ("fit llama3-8b --gpu a100", ["a100-80", "a100-40"]),
        ("fit llama3-8b --gpu h100", ["h100-sxm", "h100-pcie"]),
        ("fit llama3-8b --gpu v100", ["v100-32", "v100-16"]),
        ("fit llama3-8b --gpu rtx4091", ["unknown GPU", "rtx4090"]),
        ("fit llama3-8b --gpu a100-80 --quant nf5", ["unknown quantisation", "nf4"]),
        ("fit llama3-8b --gpu a100-80 --reserve 5", ["--reserve", "GiB"]),
        ("kv llama3-8b --ctx 128q", ["--ctx", "128q", "k (1024)"]),
        ("kv llama3-8b --ctx 0", ["--ctx"]),
        ("kv llama3-8b --ctx -5", ["--ctx"]),
        ("kv llama3-8b --batch 0", ["--batch"]),
        ("kv llama3-8b --kv-dtype bf15", ["--kv-dtype", "bf16"]),
        ("kv --family lama", ["unknown family", "llama"]),
        ("params llama3-8b --family llama", ["--family"]),
        ("params missing.yaml", ["missing.yaml", "No such file"]),
        ("params llama3-8b --json --format csv", ["contradict"]),
        ("chinchilla", ["--params", "--flops", "--tokens"]),
        ("chinchilla --params 70B --flops 1e23", ["one of"]),
        ("chinchilla --gpu h100-sxm", ["--gpus", "--days"]),
        ("chinchilla --params nan", ["--params", "nan"]),
        ("chinchilla --params 7B --law hoffman", ["unknown law"]),
        ("show qwxzz", ["unknown"]),
        ("flops", ["MODEL"]),
        ("nonsense", ["nonsense"]),
        ("params --nonsense", ["--nonsense"]),
    ],
)
def test_mistakes_get_one_message_and_exit_2(arguments: str, fragments: list[str], run: Run) -> None:
    outcome = run(*arguments.split())
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("llmcalc: ")
    assert outcome.err.count("\n") == 1
    for fragment in fragments:
        assert fragment in outcome.err


def test_a_model_that_does_not_fit_exits_1_and_says_by_how_much(run: Run) -> None:
    outcome = run("fit", "llama3-405b", "--gpu", "a100-80", "--quant", "nf4")
    assert outcome.code == 1
    result = run("fit", "llama3-405b", "--gpu", "a100-80", "--quant", "nf4", "--json").results[0]
    over = result["required_bytes"] - result["available_bytes"]
    assert over > 100 * units.GiB
    assert f"no, {units.show_bytes(over)} over" in outcome.out
    assert result["min_gpus"] == 3


def test_one_named_model_that_does_not_fit_decides_the_exit_code(run: Run) -> None:
    assert run("fit", "llama3-8b", "--gpu", "a100-80").code == 0
    assert run("fit", "llama3-8b", "llama3-70b", "--gpu", "a100-80").code == 1


@pytest.mark.parametrize("command", ["params", "kv --ctx 128k", "fit --gpu a100-80 --quant nf4", "models"])
def test_without_a_model_the_whole_catalogue_answers(command: str, run: Run) -> None:
    outcome = run(*command.split(), "--json")
    assert outcome.code == 0
    assert len(outcome.results) > 150


def test_family_filters_and_sorts_by_size(run: Run) -> None:
    results = run("params", "--family", "qwen", "--json").results
    totals = [result["total"] for result in results]
    assert {result["family"] for result in results} == {"qwen"}
    assert totals == sorted(totals)


@pytest.mark.parametrize(
    "command", ["params gpt-4", "kv gpt-4", "flops gpt-4", "weights gpt-4", "fit gpt-4 --gpu a100-80", "models gpt-4", "show gpt-4",
     "compute gpt-4 --tokens 13T", "compute gpt-4 gpt-4 --tokens 13T", "chinchilla gpt-4 --tokens 13T"],
)  # fmt: skip
def test_an_estimate_is_marked_wherever_it_shows(command: str, run: Run) -> None:
    outcome = run(*command.split())
    assert "estimate" in outcome.out


def test_more_gpus_hold_more(run: Run) -> None:
    small = run("fit", "llama3-405b", "--gpu", "a100-80", "--gpus", "3", "--quant", "nf4", "--json")
    assert small.code == 0
    assert small.results[0]["fits"] is True
    assert small.results[0]["required_bytes"] <= small.results[0]["available_bytes"]
    assert small.results[0]["total_weight_bytes"] > 2 * small.results[0]["weight_bytes"]


def test_chinchilla_agrees_with_its_paper(run: Run) -> None:
    """Hoffmann et al. 2022: Chinchilla itself, 70B on 1.4T; table 3 gives 67B and 1.5T for 5.76e23."""
    results = {r["law"]: r for r in run("chinchilla", "--flops", "5.76e23", "--json").results}
    assert results["approach-1"]["params"] == pytest.approx(67e9, rel=0.02)
    assert results["tokens-20"]["tokens_per_param"] == pytest.approx(20)
    assert results["besiroglu"]["params"] == pytest.approx(72.249e9, rel=1e-4)
    assert results["besiroglu"]["tokens"] == pytest.approx(1328.7e9, rel=1e-4)


@pytest.mark.parametrize(
    ("law", "params", "tokens", "loss"),
    [
        ("approach-3", "1B", "20B", 2.580048), ("approach-3", "7B", "2T", 2.020301),
        ("besiroglu", "1B", "20B", 2.53005), ("besiroglu", "405B", "15.6T", 1.892585),
        ("kaplan", "100M", "1B", 2.95673),
    ],
)  # fmt: skip
def test_predicted_losses(law: str, params: str, tokens: str, loss: float, run: Run) -> None:
    """From the formulas as printed: Hoffmann et al. eq. 10, Besiroglu et al. table 1, Kaplan et al. eq. 1.5."""
    result = run("chinchilla", "--params", params, "--tokens", tokens, "--law", law, "--json").results[0]
    assert result["loss"] == pytest.approx(loss, rel=1e-5)


def test_a_gpu_budget_is_compute(run: Run) -> None:
    outcome = run("chinchilla", "--gpu", "h100-sxm", "--gpus", "64", "--days", "30", "--mfu", "0.4", "--law", "tokens-20", "--json")
    assert outcome.results[0]["flops"] == pytest.approx(64 * 30 * 86400 * 989.4e12 * 0.4, rel=1e-3)


def test_version_and_help(run: Run) -> None:
    assert run("--version").out.startswith("llmcalc ")
    assert "chinchilla" in run("--help").out
    assert run("params", "--help").code == 0
    assert "--kv-dtype" in run("kv", "--help").out


def test_json_numbers_are_exact_integers(run: Run) -> None:
    text = run("params", "switch-c-2048", "--json").out
    assert json.loads(text)["results"][0]["total"] == 1_571_327_875_360
    assert "1571327875360" in text


def test_the_cache_types_offered_are_those_the_engine_has() -> None:
    from typing import get_args

    from llmcalc.cli.options import KvDtype
    from llmcalc.engines.kv import CACHE_BITS

    assert set(get_args(get_args(KvDtype)[0])) == set(CACHE_BITS)


def test_comparing_a_file_with_the_catalogue_shows_no_defaults(run: Run, tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    fields = "layers: 32\nhidden: 4096\nheads: 32\nkv_heads: 8\nffn: 14336\nvocab: 128256\ncontext: 8192\n"
    spec.write_text(f"family: llama\nsources: [here]\n{fields}", encoding="utf-8")
    first, second = run("compare", "llama3-8b", str(spec), "--json").json["results"]
    assert (first["differs"], second["differs"]) == ({}, {})
    assert first["total"] == second["total"]


@pytest.mark.parametrize("command", ["kv", "flops", "fit --gpu t4"])
def test_tensors_alone_have_no_answer(command: str, run: Run, tmp_path: Path) -> None:
    """A shape does not tell what is computed."""
    header = b'{"model.layers.0.mlp.up_proj.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(32))
    name, *options = command.split()
    outcome = run(name, str(path), *options)
    assert outcome.code == 2
    assert "put config.json beside it" in outcome.err
