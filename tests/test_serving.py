"""What runtimes allocate: logs within bars, properties over invented models, and fit's answers and refusals."""

import math
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcalc import hardware, resolve
from llmcalc.blueprint.parts import Blueprint
from llmcalc.cli import machine
from llmcalc.engines import ranks, serving, weights
from llmcalc.engines.runtime_llamacpp import placed
from llmcalc.engines.runtime_sglang import static_share
from llmcalc.engines.runtime_vllm import Kind, VllmPlan, pages_of
from llmcalc.engines.runtimes import Card, Case, Settings, Split
from llmcalc.errors import LlmcalcError, UsageError
from llmcalc.units import GiB, MiB
from tests.conftest import DATA, Outcome
from tests.serving import figures, summary
from tests.test_properties import blueprint, specs

RUNTIMES = ("vllm", "sglang", "llama.cpp", "transformers")
LOGGED = figures()
# Figure: median and worst error allowed, and how many rows there must be. One row of "available" ran over two nodes.
BARS = {
    "weights": (0.005, 0.02, 10), "available": (0.02, 0.02, 9), "pool": (0.001, 0.01, 21), "bytes_per_token": (0.001, 0.005, 7),
    "peak": (0.012, 0.26, 50), "cache": (0.0005, 0.012, 60), "model_buffer": (0.001, 0.01, 3), "compute_buffer": (0.10, 1.0, 16),
    "compute_buffer without flash attention": (0.05, 0.12, 12),
}  # fmt: skip


@pytest.mark.parametrize("what", BARS)
def test_logs_of_runtimes(what: str) -> None:
    count, middle, worst = summary(LOGGED)[what]
    most_middle, most_worst, fewest = BARS[what]
    assert count >= fewest
    assert middle <= most_middle
    assert worst <= most_worst


def test_caches_of_llamacpp_are_off_by_no_more_than_the_logs_round() -> None:
    """Half a percent, or half of the last digit that is printed."""
    caches = [figure for figure in LOGGED if figure.what == "cache"]
    assert caches
    assert [f.row for f in caches if abs(f.ours - f.logged) > max(0.005 * f.logged, 0.005)] == []


def test_stated_errors_are_those_measured() -> None:
    """What a runtime's file says of its errors is what the logs say, to a tenth of a percent."""
    measured = summary(LOGGED)
    for name, said in (("vllm", {"weight_bytes": "weights", "kv_bytes": "pool", "available_bytes": "available"}),
                       ("sglang", {"kv_bytes": "bytes_per_token"}),
                       ("transformers", {"required_bytes": "peak"}),
                       ("llama.cpp", {"weight_bytes": "model_buffer", "kv_bytes": "cache", "activation_bytes": "compute_buffer"}),
                       ):  # fmt: skip
        assert hardware.runtime(name).errors == {key: pytest.approx(100 * measured[what][1], abs=0.1) for key, what in said.items()}


def full(size: int) -> Kind:
    return Kind(size, False)


PAGES = [
    # kinds of layers, tokens of a block -> bytes of a page in a group's layers, tokens per block of each group
    ("one kind", [full(100)] * 3, 16 * 300, [16]),
    ("wider layers beside narrow", [full(100), full(50)], 16 * 150, [16]),
    ("as many windows as full layers", [full(100)] * 2 + [Kind(100, False, 128)] * 2, 16 * 200, [16, 16]),
    # 5:1 windows (Gemma 3): groups of the fewest, the last of them padded.
    ("more windows", [full(100)] * 10 + [Kind(100, False, 1024)] * 52, 16 * 1000, [16] * 7),
    ("a few more windows", [full(100)] * 10 + [Kind(100, False, 1024)] * 14, 16 * 1400, [16] * 2),
    # A layer that caches half has twice the tokens in a block.
    ("narrow full layers", [full(50), Kind(100, False, 64)], 16 * 100, [32, 16]),
    # The block is as long as a state is large: Qwen3.5-27B on two GPUs with an fp8 cache logs 1568.
    ("states", [full(1024)] * 16 + [Kind(1_603_584, True)] * 48, 1568 * 1024 * 16, [1568, 1, 1, 1]),
    ("states alone", [Kind(1000, True)] * 4, 4000, [1]),
]


@pytest.mark.parametrize(("kinds", "size", "blocks"), [pytest.param(*row[1:], id=row[0]) for row in PAGES])
def test_pages(kinds: list[Kind], size: int, blocks: list[int]) -> None:
    pages = pages_of(kinds, 16)
    assert pages is not None
    assert pages.bytes == size
    assert [group.block for group in pages.groups] == blocks


@pytest.mark.parametrize(
    ("layers", "gpus", "ngl", "counts"),
    [
        # 32 layers and the output over six (a log of Llama 3 8B), and 48 over two (of Qwen3-30B-A3B).
        (32, 6, 33, [6, 5, 6, 5, 6, 5]), (48, 2, 49, [25, 24]), (32, 1, 33, [33]), (32, 1, 0, [0]), (32, 2, 10, [5, 5]),
        (3, 8, 99, [1, 0, 1, 0, 1, 0, 1, 0]),
    ],
)  # fmt: skip
def test_layers_over_gpus(layers: int, gpus: int, ngl: int, counts: list[int]) -> None:
    places = placed(layers, gpus, ngl)
    assert [places.count(gpu) for gpu in range(gpus)] == counts
    assert len(places) == layers + 1
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("layers", "count", "sizes"), [(32, 1, [32]), (32, 4, [8, 8, 8, 8]), (61, 2, [31, 30]), (10, 4, [2, 3, 3, 2]), (5, 5, [1] * 5)]
)
def test_pipeline_stages(layers: int, count: int, sizes: list[int]) -> None:
    assert [stop - start for start, stop in ranks.stages(layers, count)] == sizes


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("vllm", "utilization_percent", 92), ("vllm@0.19.1", "utilization_percent", 90), ("vllm@v0.21.0", "graphs_in_budget", True),
        ("vllm@0.10.1.1", "graphs_in_budget", False), ("vllm@0.10.1.1", "logit_bytes", 14), ("vllm@0.11.2", "logit_bytes", 38),
        ("vllm@0.6.3.post1", "hybrid_groups", False), ("llama.cpp@b5000", "latent", "expanded"), ("llamacpp", "latent", "latent"),
        ("sglang@0.4.6", "utilization_percent", 88), ("sglang", "utilization_percent", None),
    ],
)  # fmt: skip
def test_versions(text: str, field: str, value: Any) -> None:
    assert getattr(hardware.runtime(text).rules, field) == value


@pytest.mark.parametrize(
    ("gpu", "tp", "share"),
    # server_args.py: 80 GiB keep 512 + 1.5 x 8192 + 2 x 256 + 128 MiB; 24 GiB keep 512 + 3072 + 48 + 128.
    [("h100-sxm", 1, 0.835), ("rtx4090", 1, 0.847)],
)
def test_static_share(gpu: str, tp: int, share: float) -> None:
    assert static_share(hardware.gpu(gpu).spec.driver_bytes or 0, tp, 1) == pytest.approx(share, abs=0.002)


def case(b: Blueprint, name: str, size: int, split: Split, **said: Any) -> Case:
    return Case(b, resolve.unquantised(), "", hardware.runtime(name), Card(size, size), split, Settings(**said))


def split_for(b: Blueprint, name: str, gpus: int) -> Split:
    return serving.split_over(b, hardware.runtime(name).kind, gpus)


@given(specs(), st.sampled_from(RUNTIMES), st.integers(1, 4), st.integers(1, 40_000), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_more_never_takes_less(spec: dict[str, Any], name: str, gpus: int, context: int, batch: int, more: int) -> None:
    b = blueprint(spec)
    split = split_for(b, name, gpus)
    if split.pp > spec["layers"]:
        return
    plan = serving.plan(case(b, name, 80 * GiB, split, encoder_context=64))
    less = plan.loads(context, batch)
    for longer in (plan.loads(context + more, batch), plan.loads(context, batch + more)):
        assert max(load.required_bytes for load in longer) >= max(load.required_bytes for load in less)
        assert all(part >= 0 for load in longer for part in load)
        if name != "transformers":
            # That one shares the layers out anew; with the others every GPU has more to hold.
            assert all(a.required_bytes >= b.required_bytes for a, b in zip(longer, less, strict=True))


@given(specs(), st.sampled_from(RUNTIMES), st.integers(1, 4), st.integers(1, 3000), st.integers(1, 8), st.integers(0, 2**36))
@settings(max_examples=200, deadline=None)
def test_what_is_solved_fits_and_one_block_more_does_not(
    spec: dict[str, Any], name: str, gpus: int, context: int, batch: int, size: int
) -> None:
    b = blueprint(spec)
    split = split_for(b, name, gpus)
    if split.pp > spec["layers"]:
        return
    made = case(b, name, size, split, encoder_context=64)
    plan = serving.plan(made)
    answer = serving.serve(plan, b, context, batch)
    assert answer.fits == all(load.required_bytes <= answer.available for load in answer.loads)
    assert answer.load.required_bytes == max(load.required_bytes for load in answer.loads)
    if answer.max_context:
        assert serving.fitting(plan, answer.max_context, batch)
        if answer.max_context < spec["context"]:
            assert not serving.fitting(plan, answer.max_context + made.runtime.rules.block, batch)
    if answer.max_batch is not None:
        assert answer.fits == (answer.max_batch >= batch)
        assert not answer.max_batch or serving.fitting(plan, context, answer.max_batch)
        assert not serving.fitting(plan, context, answer.max_batch + 1)


@given(specs(), st.integers(1, 8), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_shards_sum_to_the_whole_and_what_is_replicated(spec: dict[str, Any], tp: int, pp: int) -> None:
    b = blueprint(spec)
    whole = weights.size(b, resolve.unquantised()).weight_bytes
    one = ranks.rank_layers(b, resolve.unquantised(), 1)
    assert one.total == whole
    stages = ranks.stages(len(one.layers), min(pp, len(one.layers)))
    assert sum(one.stage(*stage) for stage in stages) == whole
    held = ranks.rank_layers(b, resolve.unquantised(), tp)
    assert held.total <= whole <= tp * held.total
    spread = ranks.rank_layers(b, resolve.unquantised(), tp, expert_ranks=1, expert_groups=tp)
    assert spread.total <= whole <= tp * spread.total


def test_heads_beyond_those_of_keys_are_replicated() -> None:
    """Qwen3-235B-A22B has 4 KV heads: a rank of 4 and one of 8 hold the same, and latents are whole on every rank."""
    b = resolve.model("qwen3-235b-a22b").blueprint
    held = [VllmPlan(case(b, "vllm", 140 * GiB, Split(tp=tp))).stages[0].pages for tp in (2, 4, 8)]
    assert [pages and pages.bytes // 16 for pages in held] == [2 * 48_128, 48_128, 48_128]
    latent = resolve.model("deepseek-v3").blueprint
    wide = [VllmPlan(case(latent, "vllm", 140 * GiB, Split(tp=tp))).stages[0].pages for tp in (1, 16)]
    assert wide[0] == wide[1]


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("llama3.1-8b --gpu h100-sxm --runtime vllm", {"concurrency", "pool_bytes", "num_gpu_blocks", "tp", "pp", "ep", "dp"}),
        ("llama3.1-8b --gpu h100-sxm --runtime sglang", {"per_gpu"}),
        ("qwen3-30b-a3b --gpu rtx4090 --runtime llama.cpp --quant q4_k_m --ngl 20", {"devices", "host_bytes"}),
        ("llama3.1-8b --gpu rtx4090 --runtime transformers --quant nf4", {"per_gpu"}),
    ],
)
def test_keys(run: Any, command: str, keys: set[str]) -> None:
    outcome: Outcome = run("fit", *command.split(), "--json")
    (result,) = outcome.json["results"]
    common = {
        "gpu", "quant", "runtime", "fits", "required_bytes", "available_bytes", "weight_bytes", "kv_bytes", "activation_bytes",
        "overhead_bytes", "kv_tokens", "max_context", "max_batch", "gpus", "min_gpus", "kinds", "deciding_gpu",
    }  # fmt: skip
    assert common | keys <= result.keys()
    parts = sum(result[key] for key in ("weight_bytes", "kv_bytes", "activation_bytes", "overhead_bytes"))
    assert parts == result["required_bytes"]
    assert result["kinds"]["kv_bytes"] == "modelled"
    assert outcome.code == (0 if result["fits"] else 1)


@pytest.mark.parametrize("runtime", [[], *(["--runtime", name] for name in RUNTIMES)])
@pytest.mark.parametrize("what", ["context", "batch", "gpus", "gpu"])
def test_what_is_solved_fits_when_asked(run: Any, runtime: list[str], what: str) -> None:
    gpu = [] if what == "gpu" else ["--gpu", "a100-40"]
    (found,) = run("fit", "qwen3-14b", *gpu, *runtime, "--solve", what, "--json").json["results"]
    again = run(
        "fit", "qwen3-14b", "--gpu", found["gpu"], "--gpus", str(found["gpus"]), "--ctx", str(found["ctx"]), "--batch",
        str(found["batch"]), *runtime, "--json",
    )  # fmt: skip
    assert found["fits"] is again.json["results"][0]["fits"] is True
    assert again.json["results"][0]["required_bytes"] == found["required_bytes"]
    if what == "batch":
        more = run("fit", "qwen3-14b", "--gpu", "a100-40", "--batch", str(found["batch"] + 1), *runtime, "--json")
        assert more.code == 1


@pytest.mark.parametrize(("runtime", "block"), [("vllm", 16), ("sglang", 1), ("llama.cpp", 256), ("transformers", 1)])
def test_one_block_more_than_the_largest_context_does_not_fit(run: Any, runtime: str, block: int) -> None:
    command = ["fit", "llama3.1-8b", "--gpu", "rtx4090", "--runtime", runtime, "--json"]
    (found,) = run(*command, "--solve", "context").json["results"]
    assert found["max_context"] == found["ctx"] < found["trained_context"]
    assert run(*command, "--ctx", str(found["ctx"])).code == 0
    assert run(*command, "--ctx", str(found["ctx"] + block)).code == 1


def test_best_quantisation_and_largest_model(run: Any) -> None:
    found = run("fit", "llama3.1-8b", "qwen3-32b", "--gpu", "rtx4090", "--runtime", "llama.cpp", "--solve", "quant", "--json")
    small, large = found.json["results"]
    assert small["quant"] in ("bf16", "fp16")
    assert large["weight_bytes"] < small["available_bytes"]
    (model,) = run("fit", "--family", "llama", "--gpu", "rtx4090", "--quant", "nf4", "--solve", "model", "--json").json["results"]
    assert model["fits"] is True
    sizes = run("fit", "--family", "llama", "--gpu", "rtx4090", "--quant", "nf4", "--json").json["results"]
    assert model["weight_bytes"] == max(r["weight_bytes"] for r in sizes if r["fits"])


@pytest.mark.parametrize("runtime", ["vllm", "vllm@0.8", "sglang", "llama.cpp", "transformers"])
@pytest.mark.parametrize(
    "model", ["gpt-oss-20b --gpus 2", "nemotron-3-nano-30b-a3b", "deepseek-v3 --gpus 16", "bart-base --batch 3"]
)
def test_explained(run: Any, model: str, runtime: str) -> None:
    """The parts are those of the answer, and every line evaluates to its figure."""
    document = run("fit", *model.split(), "--gpu", "h200", "--runtime", runtime, "--explain", "--json").json
    (result,), (opened,) = document["results"], document["explain"]
    assert opened["value"] == result["required_bytes"]
    for part in opened["parts"]:
        assert part["value"] == result[part["label"]]
        assert part["kind"] == result["kinds"][part["label"]]
        if part["formula"]:
            known = {"__builtins__": {}, "min": min, "max": max, "ceil": math.ceil, **part["numbers"]}
            assert eval(part["formula"], known) == part["value"]
    if runtime != "transformers" and "bart" not in model:
        assert next(part for part in opened["parts"] if part["label"] == "kv_bytes")["formula"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("llama3-8b --gpu a100-80 --runtime vlm", ["unknown runtime", "vllm"]),
        ("llama3-8b --gpu a100-80 --runtime vllm@new", ["'new'", "version"]),
        ("llama3-8b --gpu a100-80 --tp 2", ["--tp", "--runtime"]),
        ("llama3-8b --gpu a100-80 --runtime vllm --tp 3", ["32 attention heads", "3"]),
        ("llama3-8b --gpu a100-80 --runtime vllm --gpus 4 --tp 2 --pp 1", ["--tp x --pp x --dp is 2", "4"]),
        ("llama3-8b --gpu a100-80 --runtime vllm --tp 2 --ep 3", ["--ep 3", "2 GPUs"]),
        ("llama3-8b --gpu a100-80 --runtime llama.cpp --tp 2", ["--gpus", "--tp"]),
        ("llama3-8b --gpu a100-80 --runtime vllm --ngl 3", ["--ngl", "vllm"]),
        ("llama3-8b --gpu a100-80 --runtime vllm --reserve 2GiB", ["--reserve"]),
        ("llama3-8b --gpu a100-80 --runtime vllm --value-dtype int3", ["--value-dtype", "int3", "q8_0"]),
        ("llama3-8b --gpu a100-80 --solve gpus --gpus 2", ["--gpus"]),
        ("llama3-8b --gpu a100-80 --solve quant --quant nf4", ["--quant"]),
        ("llama3-8b --gpu a100-80 --runtime vllm --utilization nan", ["--utilization nan"]),
        ("llama3-8b --gpu a100-80 --runtime vllm --pp 40", ["32 layers", "40"]),
        ("llama3-8b --gpu a100-80 --runtime vllm --no-flash-attention", ["--flash-attention", "vllm"]),
        ("llama3-8b --gpu a100-80 --runtime transformers --value-dtype q8_0", ["--value-dtype", "transformers"]),
        ("llama3-8b --gpu a100-80 --gpu auto", ["--gpu auto", "leave other names out"]),
        ("llama3-8b --gpu rtx3070 --solve gpu", ["price"]),
        ("--family mamba --gpu a100-80 --solve gpus --gpus 2", ["--gpus"]),
    ],
)
def test_refused(run: Any, command: str, said: list[str]) -> None:
    outcome = run("fit", *command.split())
    assert outcome.code == 2
    assert outcome.out == ""
    assert all(word in outcome.err for word in said)


def test_the_whole_catalogue_with_a_runtime(run: Any) -> None:
    """What a runtime cannot divide is left out, and said."""
    outcome = run("fit", "--gpu", "a100-80", "--gpus", "4", "--runtime", "vllm", "--tp", "4", "--family", "gpt2", "--json")
    assert outcome.code == 0
    names = {result["model"] for result in outcome.json["results"]}
    assert "gpt2" in names
    assert "gpt2-xl" not in names
    assert any("gpt2-xl" in note for note in outcome.json["notes"])


def test_no_gpu_here(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "nvidia", list)
    monkeypatch.setattr(machine, "amd", list)
    outcome = run("fit", "llama3-8b", "--gpu", "auto")
    assert outcome.code == 2
    assert "no GPU found" in outcome.err


def test_gpus_of_the_driver(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML as the package has it: names as the driver writes them."""
    fake = SimpleNamespace(
        NVMLError=RuntimeError, nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda i: i, nvmlDeviceGetName=lambda _: "NVIDIA GeForce RTX 4090",
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(total=24_564 * MiB),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    (result,) = run("fit", "llama3-8b", "--gpu", "auto", "--runtime", "vllm", "--json").json["results"]
    assert (result["gpu"], result["gpus"]) == ("rtx4090", 2)
    (fast,) = run("speed", "llama3-8b", "--gpu", "auto", "--json").json["results"]
    assert (fast["gpu"], fast["gpus"]) == ("rtx4090", 2)
    monkeypatch.setattr(fake, "nvmlDeviceGetName", lambda _: "NVIDIA Nothing 9000")
    assert run("speed", "llama3-8b", "--gpu", "auto").code == 2
    (other,) = run("fit", "llama3-8b", "--gpu", "auto", "--json").json["results"]
    assert (other["gpu"], other["available_bytes"]) == ("NVIDIA Nothing 9000", 24_564 * MiB)


def test_gpus_in_sysfs(tmp_path: Path) -> None:
    for number, (vendor, size) in enumerate([("0x1002", 16 * GiB), ("0x1002", 512 * MiB), ("0x8086", 16 * GiB)]):
        device = tmp_path / f"card{number}" / "device"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "mem_info_vram_total").write_text(f"{size}\n")
    (tmp_path / "card0" / "device" / "product_name").write_text("Something\n")
    assert machine.amd(tmp_path) == [machine.Here("Something", "AMD", 16 * GiB)]


def test_states_in_another_dtype(run: Any) -> None:
    """SGLang's log of Qwen3.5-27B: 43 slots and one to spare take 3.09 GiB of states in 16 bits."""
    sketch = str(DATA / "sketches" / "qwen3.5-27b.yaml")
    command = ["fit", sketch, "--gpu", "h100-sxm", "--runtime", "sglang", "--ctx", "1", "--batch", "43", "--json"]
    wide, narrow = (run(*command, *more).json["results"][0]["kv_bytes"] for more in ([], ["--state-dtype", "bf16"]))
    states = 44 * 48 * 48 * 128 * 128 * 2
    assert wide - narrow == states
    assert states / GiB == pytest.approx(3.09, abs=0.01)


def test_a_split_that_no_gpu_count_has() -> None:
    b = resolve.model("llama3-8b").blueprint
    with pytest.raises(UsageError, match="divided"):
        serving.plan(case(b, "vllm", 80 * GiB, Split(tp=5)))
    with pytest.raises(LlmcalcError, match="name a divisor"):
        serving.plan(case(b, "sglang", 80 * GiB, Split(tp=2, ep=4)))


@pytest.mark.parametrize("runtime", [[], *(["--runtime", name] for name in RUNTIMES)])
def test_a_model_without_a_trained_context_is_bounded_by_memory_alone(run: Any, runtime: list[str]) -> None:
    """States do not grow; what else grows with the context bounds it, or nothing does."""
    asked = ["fit", "mamba-370m", "--gpu", "t4", "--batch", "100", *runtime]
    most = run(*asked, "--json").json["results"][0]["max_context"]
    if most is None:
        assert run(*asked, "--ctx", "1000000000", "--json").code == 0
    else:
        assert run(*asked, "--ctx", str(most), "--json").code == 0
        assert run(*asked, "--ctx", str(most + 1), "--json").code == 1


def test_fewest_gpus_are_no_more_than_those_that_are_enough(run: Any) -> None:
    """Replicas that were asked for serve a batch on fewer GPUs than one divided over all."""
    asked = "fit kimi-k2 --quant gptq-g32 --gpu m2-ultra --runtime sglang --utilization 0.95 --ctx 128k --batch 7"
    found = run(*asked.split(), "--dp", "4", "--json").json["results"][0]
    assert found["fits"]
    assert found["min_gpus"] <= found["gpus"] == 4


def test_a_pool_larger_than_the_gpu_does_not_fit(run: Any) -> None:
    for runtime in ("vllm", "sglang"):
        outcome = run("fit", "llama3-8b", "--gpu", "t4", "--runtime", runtime, "--kv-memory", "500GiB", "--json")
        assert outcome.code == 1


def test_the_cheapest_gpu_is_no_where_none_fits(run: Any) -> None:
    """The answer is no, with the row that lacks least; and no model that fits is no as well."""
    asked = run("fit", "kimi-k2", "--gpu", "l4", "--gpu", "h200", "--gpus", "1", "--solve", "gpu", "--json")
    (result,) = asked.json["results"]
    assert asked.code == 1
    assert (result["gpu"], result["fits"]) == ("h200", False)
    none = run("fit", "llama3-8b", "--gpu", "t4", "--solve", "model")
    assert none.code == 1
    assert none.out.startswith("note: t4: none of the models fits\n")


def test_what_an_hour_costs(run: Any) -> None:
    """A device's share of the card's price, in every answer; the cheapest is said with its quotes."""
    for name in ("tpu-v3", "l40"):
        card = hardware.gpu(name)
        (result,) = run("fit", "llama3-8b", "--gpu", name, "--gpus", "4", "--json").json["results"]
        assert result["dollars_per_hour"] == 4 * statistics.median(q.usd_per_hour for q in card.spec.prices) / card.spec.devices
    (fast,) = run("speed", "llama3-8b", "--gpu", "tpu-v3", "--json").json["results"]
    assert fast["price_dollars_per_gpu_hour"] == hardware.gpu("tpu-v3").usd_per_hour
    cheapest = run("fit", "llama3-8b", "--solve", "gpu", "--gpu", "l40", "--gpu", "h200").out
    assert "note: 1 x l40: $" in cheapest
    assert "quote" in cheapest


@pytest.mark.parametrize(
    ("command", "title"),
    [
        ("llama3.1-70b llama3-8b --gpu a100-80 --solve gpus", "as many a100-80 as it takes, context 8k, batch 1"),
        ("llama3.1-70b llama3-8b --gpu a100-80 --gpu h200 --solve gpus", "as many of each GPU as it takes, context 8k, batch 1"),
        ("qwen3-8b llama3-8b --gpu a100-80 --solve batch", "1 x a100-80, context 8k, batch up to 63"),
    ],
)
def test_titles_say_what_rows_differ_in(run: Any, command: str, title: str) -> None:
    assert run("fit", *command.split()).out.splitlines()[0] == f"bf16 on {title}"
