"""Speeds against measurements, and against arithmetic."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcalc import hardware, resolve
from llmcalc.engines import speed as engine
from llmcalc.engines.roofline import Roofline, Work
from llmcalc.engines.speed import Efficiency, Machine
from llmcalc.errors import NoAnswer
from llmcalc.specs import efficiency
from tests.conftest import Run
from tests.speed import PAGE, cases, page, summary

PLAIN = Efficiency("all of it", 1.0, 1.0, 1.0, 0.0)
GPU = Machine(1e12, 1e14, 1e11)
KEYS = {
    "prefill_tokens_per_second", "prefill_tokens_per_second_low", "prefill_tokens_per_second_high", "decode_tokens_per_second",
    "decode_tokens_per_second_low", "decode_tokens_per_second_high", "ttft_seconds", "tpot_seconds", "dollars_per_million_tokens",
    "bound",
}  # fmt: skip
# What errors may be: median, and the share of figures within 30%. Decode and prefill are the promise; requests come with them.
BARS = {"decode": (0.10, 0.90), "prefill": (0.25, 0.60), "request": (0.10, 0.90)}


def roofline(name: str, quant: str | None = None, ranks: int = 1) -> Roofline:
    return Roofline(resolve.model(name).blueprint, resolve.method(quant) if quant else resolve.unquantised(), ranks=ranks)


@pytest.mark.parametrize("fitted", [True, False], ids=["fitted", "other"])
@pytest.mark.parametrize("kind", BARS)
def test_errors_against_measurements(kind: str, fitted: bool) -> None:
    count, middle, _, within = summary([c for c in cases() if (c.kind, c.fitted) == (kind, fitted)])
    assert count >= 50
    assert middle <= BARS[kind][0]
    assert within >= BARS[kind][1]


def test_ranges_hold_eight_in_ten() -> None:
    held = [low <= c.measured / ours <= high for c in cases() for ours, (low, high) in [c.predicted_and_range()]]
    assert sum(held) / len(held) >= 0.75


def test_the_page_is_what_the_rows_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_figure_that_is_twice_off_has_a_reason() -> None:
    for case in cases():
        if not 0.4 < case.predicted() / case.measured < 2.5:
            assert case.row.get("why"), (case.row["id"], case.what)


@pytest.mark.parametrize(
    ("name", "tokens", "expected"),
    [
        # 8,030,261,248 parameters, without the 128,256 x 4,096 of the embedding, in 2 bytes
        ("llama3-8b", 1, 2 * (8_030_261_248 - 128_256 * 4_096)),
        # the head is the embedding, which is read
        ("qwen2.5-0.5b", 1, 2 * 494_032_768),
        # 128 experts, 8 a token, 3 x 2,048 x 768 each, in 48 layers: one token reads eight of them
        ("qwen3-30b-a3b", 1, 2 * (30_532_122_624 - 151_936 * 2_048 - 48 * 120 * 3 * 2_048 * 768)),
    ],
)
def test_weights_read_by_a_token(name: str, tokens: int, expected: int) -> None:
    assert roofline(name).weight_bytes(tokens) == pytest.approx(expected, rel=1e-9)


def test_experts_touched_in_expectation() -> None:
    group = roofline("qwen3-30b-a3b").groups[0]
    assert group.touched(1) == pytest.approx(8)
    assert group.touched(2) == pytest.approx(16 - 0.5)  # 128 (1 - (15/16)^2) = 8 + 8 x 15/16
    assert group.touched(10**6) == pytest.approx(128)


def test_a_prompt_in_pieces_costs_what_it_costs_whole() -> None:
    for name in ("llama3-8b", "gemma3-27b", "gpt-oss-20b"):
        roof = roofline(name)
        whole, first, rest = roof.prefill(0, 3000), roof.prefill(0, 1000), roof.prefill(1000, 2000)
        assert first.attention_flops + rest.attention_flops == whole.attention_flops
        assert first.expert_flops + rest.expert_flops == whole.expert_flops


@pytest.mark.parametrize(
    ("work", "seconds", "bound"),
    [
        (Work(1e12, 0, 0, 1e13, 0, 0, 0, 0, 0), 1.0, "weights"),
        (Work(1e11, 0, 5e11, 1e13, 0, 0, 0, 0, 0), 0.6, "cache"),
        (Work(1e11, 0, 0, 5e13, 2e13, 0, 1e13, 0, 0), 0.8, "compute"),
        # experts: 0.1 s of reading is not hidden behind 0.2 s of their products
        (Work(1e11, 1e11, 0, 5e13, 2e13, 0, 1e13, 0, 0), 0.9, "compute"),
    ],
)
def test_the_slower_side_decides(work: Work, seconds: float, bound: str) -> None:
    time = engine.pass_time(work, 10, GPU, PLAIN)
    assert time.total == pytest.approx(seconds)
    assert time.bound == bound


def test_all_reduces_over_the_link() -> None:
    e = PLAIN._replace(link=1.0, reduce_seconds=1e-6)
    time = engine.pass_time(Work(0, 0, 0, 0, 0, 0, 0, 0, 1e8), 10, GPU._replace(ranks=4), e)
    # 20 all-reduces of 2 x 3/4 of 0.1 GB over 100 GB/s, and a microsecond each
    assert time.total == pytest.approx(20 * (1.5e8 / 1e11 + 1e-6))


@pytest.mark.parametrize(
    ("acceptance", "tokens", "expected"),
    # Leviathan et al. 2023, equation 1
    [(0.0, 4, 1.0), (0.5, 1, 1.5), (0.8, 4, 3.3616), (1.0, 4, 5.0)],
)
def test_tokens_of_a_speculative_step(acceptance: float, tokens: int, expected: float) -> None:
    draft = engine.Draft(roofline("qwen2.5-0.5b"), acceptance, tokens)
    assert draft.expected == pytest.approx(expected)
    plain = engine.decode_time(roofline("qwen2.5-0.5b"), GPU, PLAIN, 100).total
    found = engine.step(roofline("qwen2.5-7b"), GPU, PLAIN, 100, 1, draft)
    assert found.draft_seconds == pytest.approx(tokens * plain)
    assert found.seconds_per_token == pytest.approx((found.time.total + found.draft_seconds) / expected)


def test_pieces_follow_each_other_through_gpus_in_turn() -> None:
    e = PLAIN._replace(prompt_tokens=512, pipeline_tokens=2048, score_bytes=0.0)
    roof = roofline("llama3-8b")
    alone = engine.prefill_seconds(roof, GPU, e, 2048)
    # four pieces through four GPUs: seven of sixteen turns
    assert engine.prefill_seconds(roof, GPU._replace(stages=4), e, 2048) == pytest.approx(alone * 7 / 16)


def test_very_many_pieces_are_told_from_some(monkeypatch: pytest.MonkeyPatch) -> None:
    roof, e = roofline("gemma3-27b"), PLAIN._replace(prompt_tokens=16)
    every = engine.prefill_seconds(roof, GPU, e, 7000)
    monkeypatch.setattr(engine, "MOST_PIECES", 64)
    assert engine.prefill_seconds(roof, GPU, e, 7000) == pytest.approx(every, rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["llama3-8b", "qwen3-30b-a3b", "gemma3-27b", "deepseek-v3", "mamba2-2.7b"]),
    st.integers(1, 30_000), st.integers(1, 64), st.sampled_from([None, "nf4"]),
)  # fmt: skip
def test_more_never_takes_less(name: str, context: int, batch: int, quant: str | None) -> None:
    roof = roofline(name, quant)

    def seconds(at: int, of: int) -> float:
        return engine.decode_time(roof, GPU, PLAIN, at, of).total

    one = seconds(context, batch)
    assert one > 0
    assert seconds(context + 500, batch) >= one
    assert seconds(context, batch + 1) >= one
    assert engine.prefill_seconds(roof, GPU, PLAIN, context + 500) >= engine.prefill_seconds(roof, GPU, PLAIN, context)
    split = Roofline(roof.blueprint, resolve.method(quant) if quant else resolve.unquantised(), ranks=2)
    assert split.weight_bytes(batch) <= roof.weight_bytes(batch)


def test_every_gpu_has_a_class_under_every_runtime() -> None:
    from llmcalc.specs import catalogue

    for name in catalogue.entries("gpus"):
        card = hardware.gpu(name)
        for runtime in efficiency.runtimes():
            e = hardware.efficiency(runtime, card, "none")
            assert 0 < e.bandwidth <= 1
            assert 0 < e.cache <= 1
            assert hardware.machine(runtime, card, "none", 2).flops > 0


def results(run: Run, *arguments: str) -> dict[str, Any]:
    outcome = run("speed", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)["results"][0]
    return found


def test_keys_and_cost(run: Run) -> None:
    found = results(run, "llama3-8b", "--gpu", "a100-80", "--prompt", "512", "--output", "128", "--batch", "4", "--price", "3.6")
    assert found.keys() >= KEYS
    assert found["decode_tokens_per_second_low"] <= found["decode_tokens_per_second"] <= found["decode_tokens_per_second_high"]
    assert found["dollars_per_million_tokens"] == pytest.approx(1000 / found["decode_tokens_per_second"])
    assert found["request_seconds"] == pytest.approx(found["ttft_seconds"] + 128 * found["tpot_seconds"])
    assert [b["batch"] for b in found["batches"]][:3] == [1, 2, 4]


@pytest.mark.parametrize(
    ("arguments", "runtime"),
    [
        (["--gpu", "a100-80"], "vllm"),
        (["--gpu", "a100-80", "--quant", "q4_k_m"], "llama.cpp"),
        (["--gpu", "m2-ultra"], "llama.cpp"),
        (["--gpu", "a100-80", "--runtime", "hf"], "transformers"),
        (["--gpu", "h100-sxm", "--runtime", "TensorRT-LLM"], "tensorrt-llm"),
    ],
)
def test_runtimes(run: Run, arguments: list[str], runtime: str) -> None:
    assert results(run, "llama3-8b", *arguments)["runtime"] == runtime


@pytest.mark.parametrize("model", ["llama3-8b", "qwen3-30b-a3b"])
@pytest.mark.parametrize("runtime", ["vllm", "llama.cpp", "transformers", "sglang"])
@pytest.mark.parametrize("batch", ["1", "512"])
def test_the_opened_step_is_the_time_per_token(run: Run, model: str, runtime: str, batch: str) -> None:
    arguments = ["--gpu", "a100-80", "--runtime", runtime, "--batch", batch, "--ctx", "1k"]
    document = run("speed", model, *arguments, "--explain", "--json").json
    step = next(figure for figure in document["explain"] if figure["label"] == "step_seconds")
    assert step["value"] == pytest.approx(document["results"][0]["tpot_seconds"], rel=1e-3)


def test_the_command_answers_as_the_page_does(run: Run) -> None:
    for case in cases()[::40]:
        row = case.row
        if ":" in row["ours"] or case.kind == "request":
            continue
        found = results(
            run, row["ours"], "--gpu", row["our_gpu"], "--gpus", str(row.get("tp") or row["gpus"]), "--quant", row["our_quant"],
            "--runtime", row["our_runtime"], "--prompt", str(case.prompt), "--output", str(case.output),
        )  # fmt: skip
        key = "prefill_tokens_per_second" if case.kind == "prefill" else "decode_tokens_per_second"
        assert found[key] == pytest.approx(case.predicted(), rel=0.02), row["id"]


def test_what_was_never_measured_has_a_wide_range(run: Run) -> None:
    found = results(run, "llama3-8b", "--gpu", "b200")
    assert found["decode_tokens_per_second_low"] == pytest.approx(0.5 * found["decode_tokens_per_second"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["llama3-8b"], "name a GPU"),
        (["llama3-8b", "--gpu", "a100-80", "--runtime", "vlm"], "did you mean vllm"),
        (["llama3-8b", "--gpu", "a100-80", "--prompt", "0"], "not a positive whole number"),
        (["llama3-8b", "--gpu", "a100-80", "--prompt", "5000", "--output", "1", "--ctx", "4096"], "more than --ctx"),
        (["llama3-8b", "--gpu", "a100-80", "--gpus", "3", "--tp", "2"], "does not divide"),
        (["llama3-8b", "--gpu", "rtx4090", "--tp", "2", "--runtime", "llama.cpp"], "in turn"),
        (["llama3-8b", "--gpu", "a100-80", "--price", "nan"], "not a number"),
        (["llama3-8b", "--gpu", "a100-80", "--acceptance", "nan", "--draft", "llama3.2-1b"], "not a number"),
        (["bert-base", "--gpu", "a100-80"], "generates nothing"),
        (["llama3-8b", "--gpu", "a100-80", "--draft", "bert-base"], "generates nothing"),
    ],
)
def test_questions_that_make_no_sense(run: Run, arguments: list[str], message: str) -> None:
    outcome = run("speed", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_model_without_a_cache_that_is_known_is_refused() -> None:
    with pytest.raises(NoAnswer):
        Roofline(resolve.model("bert-base").blueprint, resolve.unquantised())


def test_what_does_not_fit_is_said_as_fit_says_it(run: Any) -> None:
    """All that the GPUs have is not enough where each keeps a reserve; and a price names its GPU."""
    command = ["deepseek-v3", "--gpu", "h100-sxm", "--gpus", "8"]
    outcome = run("speed", *command, "--json")
    assert not outcome.json["results"][0]["fits"]
    assert run("fit", *command).code == 1
    assert any("does not fit on 8 x h100-sxm" in note for note in outcome.json["notes"])
    assert any(note.startswith("h100-sxm: $") for note in outcome.json["notes"])


@pytest.mark.parametrize(
    "options",
    [
        "llama3-70b --gpu h100-sxm --gpus 2", "llama3-70b --gpu h100-sxm --gpus 1 --quant awq", "llama3-8b --gpu rtx4090",
        "deepseek-v3 --gpu h100-sxm --gpus 8", "llama3-8b --gpu rtx4090 --runtime llama.cpp --quant q4_k_m --batch 8",
        "llama3-8b --gpu rtx4090 --runtime transformers --batch 64", "llama3-8b --gpu t4 --quant awq", "gpt2 --gpu t4 --batch 512",
    ],
)  # fmt: skip
def test_it_fits_where_the_runtime_says_so(options: str, run: Run) -> None:
    """The verdict is that of ``fit`` with the runtime named, at every batch of the table."""
    (result,) = run("speed", *options.split(), "--prompt", "1024", "--output", "256", "--json").results
    words = options.split()
    at = words.index("--batch") if "--batch" in words else len(words)
    plain = [*words[:at], *words[at + 2 :], "--ctx", "1280", "--runtime", result["runtime"], "--json"]
    for row in result["batches"]:
        held = run("fit", *plain, "--batch", str(row["batch"])).results[0]
        assert held["fits"] == row["fits"], row
    assert [row["fits"] for row in result["batches"] if row["batch"] == result["batch"]] == [result["fits"]]


def test_matrices_are_divided_as_the_runtime_would(run: Run) -> None:
    """64 heads over six GPUs: two divide each layer, in three stages."""
    (found,) = run("speed", "llama3-70b", "--gpu", "h100-sxm", "--gpus", "6", "--json").results
    held = run("fit", "llama3-70b", "--gpu", "h100-sxm", "--gpus", "6", "--runtime", "vllm", "--json").results[0]
    assert (found["tp"], held["tp"], held["pp"]) == (2, 2, 3)
    outcome = run("speed", "llama3-70b", "--gpu", "h100-sxm", "--gpus", "3", "--tp", "3")
    assert (outcome.code, "cannot be divided over 3 GPUs" in outcome.err) == (2, True)
