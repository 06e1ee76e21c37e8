"""llmcalc train over many GPUs: what the command says, solves and refuses."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmcalc import resolve
from llmcalc.engines import train_solve as solve
from llmcalc.engines.layout import Layout
from llmcalc.engines.parallel import Planner
from llmcalc.engines.recipe import Recipe
from llmcalc.errors import LlmcalcError
from tests.conftest import Run
from tests.test_parallel import made
from tests.test_properties import specs

SETTINGS = settings(max_examples=40, deadline=None)
MEGATRON = "llama3-70b --precision megatron --tp 8 --pp 4 --zero 1 --sequence-parallel --accumulate 16"


def keys(value: Any) -> Any:
    """The shape of a JSON value: keys and types, of lists that of the first."""
    if isinstance(value, dict):
        return {key: keys(inner) for key, inner in value.items()}
    return [keys(value[0])] if isinstance(value, list) and value else type(value).__name__


@pytest.mark.parametrize(
    ("command", "gpus", "dp"),
    [
        ("gpt2", 1, 1),
        ("gpt2 --dp 4", 4, 4),
        ("gpt2 --gpus 8", 8, 8),
        ("gpt2 --gpus 8 --tp 2 --pp 2", 8, 2),
        ("gpt2 --gpus 8 --tp 2 --cp 2 --dp 2", 8, 2),
        ("gpt2 --tp 4 --pp 3", 12, 1),
    ],
)
def test_how_many(command: str, gpus: int, dp: int, run: Run) -> None:
    outcome = run("train", *command.split(), "--json")
    (result,) = outcome.results
    assert (result["gpus"], result["layout"]["dp"], outcome.json["inputs"]["dp"]) == (gpus, dp, dp)
    assert sum(stage["ranks"] for stage in result["stages"]) == gpus
    assert (result["traffic"] == []) == (gpus == 1)


def test_the_rank_that_decides(run: Run) -> None:
    """The figures are those of the fullest stage; its parts add up; more data parallelism divides the optimizer alone."""
    outcome = run("train", *MEGATRON.split(), "--dp", "2", "--gpu", "h100-sxm", "--json")
    (result,) = outcome.results
    stage = result["stages"][result["fullest_stage"]]
    assert result["peak_bytes"] == max(stage["peak_bytes"] for stage in result["stages"]) == sum(result["peak_parts"].values())
    for key in ("parameter_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes", "peak_bytes"):
        assert result[key] == stage[key]
    assert [stage["in_flight"] for stage in result["stages"]] == [[4], [3], [2], [1]]
    assert result["required_bytes"] == result["peak_bytes"] + outcome.json["inputs"]["reserve_bytes"]
    more = run("train", *MEGATRON.split(), "--dp", "4", "--json").results[0]
    assert more["optimizer_bytes"] == pytest.approx(result["optimizer_bytes"] / 2, rel=1e-4)
    assert more["activation_bytes"] == result["activation_bytes"]


def test_json_keeps_its_shape(run: Run) -> None:
    """One GPU or many, the keys are the same."""
    one = run("train", "gpt2", "--json").results[0]
    many = run("train", "gpt2", "--tp", "2", "--pp", "2", "--dp", "2", "--zero", "1", "--json").results[0]
    assert {**keys(one), **dict.fromkeys(("traffic", "peak_parts", "reserved_bytes"), 0)} == {
        **keys(many),
        **dict.fromkeys(("traffic", "peak_parts", "reserved_bytes"), 0),
    }
    assert set(one["peak_parts"]) == set(many["peak_parts"])


def test_tables(run: Run) -> None:
    out = run("train", *MEGATRON.split(), "--dp", "2").out
    assert "a GPU of stage 0" in out
    assert "64 GPUs: tensor 8, pipeline 4, data 2, ZeRO-1, 1f1b" in out
    assert "Traffic of a step, per GPU of stage 0" in out
    assert "in host memory" in run("train", "gpt2", "--gpus", "2", "--zero", "2", "--offload", "optimizer").out
    opened = run("train", *MEGATRON.split(), "--explain").out
    assert "a GPU of stage 3" in opened
    assert "16 micro-batches" not in opened
    family = run("train", "--family", "gpt2", "--gpus", "2", "--zero", "fsdp")
    assert family.code == 0


def test_a_pipeline_is_full_unless_said(run: Run) -> None:
    assert run("train", "gpt2", "--pp", "4", "--json").json["inputs"]["accumulate"] == 4
    assert run("train", "gpt2", "--pp", "4", "--accumulate", "1", "--json").results[0]["stages"][0]["in_flight"] == [1]


@pytest.mark.parametrize(
    ("command", "solved", "code"),
    [
        ("gpt2 --gpu h100-sxm --solve gpus", 1, 0),
        ("llama3-8b --gpu rtx4090 --solve gpus --recompute full", 4, 0),
        ("llama3-8b --gpu rtx4090 --solve gpus --zero 0", None, 1),
        ("llama3-8b --gpu rtx4090 --solve gpus --method lora --recompute full", 1, 0),
        ("mixtral-8x7b --gpu h100-sxm --solve gpus --precision megatron --tp 2 --pp 2 --ep 8 --zero 1", 32, 0),
    ],
)
def test_the_fewest_gpus(command: str, solved: int | None, code: int, run: Run) -> None:
    """Put again it agrees, and with fewer it does not fit."""
    outcome = run("train", *command.split(), "--json")
    (result,) = outcome.results
    assert (result["solved"], outcome.code) == (solved, code)
    if solved is None:
        assert "none is enough" in str(outcome.json["notes"])
        return
    words = command.split()
    at = words.index("--solve")
    plain = [*words[:at], *words[at + 2 :], "--zero", outcome.json["inputs"]["zero"], "--json"]
    plain += [] if "--method" in words else ["--method", "full"]
    assert run("train", *plain, "--gpus", str(solved)).results[0]["peak_bytes"] == result["peak_bytes"]
    step = result["layout"]["tp"] * result["layout"]["pp"] * result["layout"]["ep"]
    if solved > step:
        assert run("train", *plain, "--gpus", str(solved - step)).code == 1


@SETTINGS
@given(spec=specs(), room=st.floats(0.05, 1.2), ep=st.integers(1, 3), zero=st.sampled_from(["1", "2", "3", "fsdp"]))
def test_one_gpu_fewer_is_too_few(spec: dict[str, Any], room: float, ep: int, zero: str) -> None:
    """Where padding does not count: shards of at least an element."""
    try:
        blueprint, layout = made(**spec), Layout(ep=ep, dp=ep, zero=zero)
        planner = Planner(blueprint)
        recipe = Recipe(8, precision="megatron")
        budget = int(planner.plan(recipe, layout).fullest.peak_bytes * room)
        found = solve.gpus(solve.Ask(blueprint, layout._replace(dp=1)), recipe, budget)
    except LlmcalcError:
        assume(False)
        return
    if found.value is None:
        assert found.answer.peak_bytes > budget
        return
    assert found.answer.peak_bytes <= budget
    assert found.value == found.layout.gpus == found.layout.dp
    if found.layout.dp > ep:
        assert planner.plan(recipe, found.layout._replace(dp=found.layout.dp - ep)).fullest.peak_bytes > budget


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("gpt2 --gpus 8 --tp 3", "--gpus 8 is not a multiple of --tp 3"),
        ("gpt2 --gpus 8 --dp 4", "--gpus 8 is not --tp 1 x --pp 1 x --cp 1 x --dp 4"),
        ("gpt2 --tp 5", "--tp 5 does not divide the 12 heads"),
        ("gpt2 --pp 13", "12 layers are too few"),
        ("gpt2 --chunks 2 --pp 2", "--chunks goes with --schedule interleaved"),
        ("gpt2 --tp 2 --dp 2 --zero 3 --method lora", "what lora keeps of divided layers is not known"),
        ("gpt2 --gpus 2 --shard 2", "--shard 2: needs --zero"),
        ("gpt2 --gpus 2 --offload all", "--offload all moves parameters that --zero 3"),
        ("gpt2 --gpus 2 --plot step.svg", "--plot draws a step on one GPU, not on 2"),
        ("gpt2 --solve gpus", "--solve gpus needs a GPU to fit into"),
        ("gpt2 --solve gpus --gpu h100-sxm --gpus 4", "leave --gpus and --dp out"),
        ("gpt2 --solve gpus --gpu h100-sxm --dp 4", "leave --gpus and --dp out"),
        ("gpt2 --gpus 2 --zero 1 --optimizer muon", "needs whole matrices"),
        ("--family gpt2 --tp 7", "--tp 7 does not divide"),
    ],
)
def test_mistakes(command: str, expected: str, run: Run) -> None:
    outcome = run("train", *command.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert expected in outcome.err
    assert outcome.err.count("\n") == 1


def test_every_model_that_can_be_divided(run: Run) -> None:
    """Over the catalogue those whose heads do not divide are left out, and named."""
    outcome = run("train", "--family", "llama", "--tp", "2", "--json")
    assert outcome.code == 0
    assert len(outcome.results) > 5
    known = {entry.name for entry in resolve.chosen(None, "llama")[0]}
    left = [note for note in outcome.json["notes"] if "left out" in note]
    assert {result["model"] for result in outcome.results} | set(left[0].partition(": ")[2].split(", ") if left else ()) == known


TITAN = "llama3.1-8b --zero fsdp --shard-dtype fp32 --reduce-dtype fp32 --seq 8k --micro-batch 2 --method full --foreach"


@pytest.mark.parametrize(("options", "gib"), [("--recompute op --gpus 8", 82.4), ("--recompute op --compile --gpus 8", 77.0),
                                              ("--recompute op --gpus 128", 67.0)])  # fmt: skip
def test_what_torchs_allocator_reserves(options: str, gib: float, run: Run) -> None:
    """Measured with torchtitan on 8 and 128 H100 of 96 GB (benchmarks/llama3_h100_202412_torchtitan.md, table 1 and 3)."""
    result = run("train", *TITAN.split(), *options.split(), "--json").results[0]
    assert result["reserved_bytes"] / 2**30 == pytest.approx(gib, rel=0.02)
    assert result["reserved_bytes"] > result["peak_bytes"]
    assert sum(result["peak_parts"].values()) == result["peak_bytes"]


def test_a_full_gpu_is_said_to_be_full(run: Run) -> None:
    """In use it fits; what the allocator holds does not."""
    outcome = run("train", *TITAN.split(), "--recompute", "op", "--gpus", "8", "--gpu", "h100-sxm")
    assert outcome.code == 0
    assert "would reserve more than the GPU has" in outcome.out


def test_what_is_reserved_is_followed_for_models_that_are_named(run: Run) -> None:
    assert run("train", "gpt2", "--json").results[0]["reserved_bytes"] > run("train", "gpt2", "--json").results[0]["peak_bytes"]
    assert run("train", "--family", "gpt2", "--json").results[0]["reserved_bytes"] is None
    assert run("train", "gpt2", "--precision", "megatron", "--json").results[0]["reserved_bytes"] is None


@pytest.mark.parametrize("options", ["--zero 1", "--zero 2 --shard 1", "--zero 3", "--zero fsdp", "--gpus 1 --dp 1 --tp 1"])
def test_zero_over_one_gpu_is_one_gpu(options: str, run: Run) -> None:
    alone, found = (run("train", "gpt2", *said.split(), "--json").results[0] for said in ("", options))
    assert {**found, "layout": None} == {**alone, "layout": None}


@pytest.mark.parametrize("options", ["--zero 3 --shard-dtype fp32", "--offload optimizer", "--zero fsdp --offload all"])
def test_what_one_gpu_reserves_is_of_what_stands_on_it(options: str, run: Run) -> None:
    found = run("train", "gpt2", *options.split(), "--json").results[0]
    assert found["peak_bytes"] <= found["reserved_bytes"] <= 1.3 * found["peak_bytes"]


def test_what_has_no_experts_is_not_divided_by_them(run: Run) -> None:
    plain, found = (run("train", "gpt2", "--dp", "4", "--ep", ep, "--json").results[0] for ep in ("1", "2"))
    assert found == plain


def test_divided_layers_in_fp32_are_not_counted_in_16_bits(run: Run) -> None:
    outcome = run("train", "gpt2", "--tp", "2", "--dp", "2", "--zero", "3", "--precision", "fp32")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--zero 0, 1, 2 or fsdp" in outcome.err
    assert run("train", "gpt2", "--dp", "2", "--zero", "1", "--precision", "fp32").code == 0


def test_a_loss_that_copies_its_logits_takes_no_less(run: Run) -> None:
    plain, copied = (
        run("train", "gpt2", "--tp", "2", "--precision", "megatron", "--loss", loss, "--json").results[0]["peak_bytes"]
        for loss in ("plain", "copied")
    )
    assert copied >= plain


def test_tables_of_positions_are_kept_once(run: Run) -> None:
    """Of DeBERTa's positions there is one projection for all tokens, not one for each."""
    alone = run("train", "deberta-v3-small", "--attention", "eager", "--json").results[0]["activation_bytes"]
    stage = run("train", "deberta-v3-small", "--precision", "megatron", "--pp", "2", "--accumulate", "1", "--json").results[0]
    assert stage["activation_bytes"] < 2 * alone


@pytest.mark.parametrize(
    "options", ["--tp 2 --dp 4 --precision amp", "--tp 2 --pp 2 --dp 4 --accumulate 4", "--pp 2 --dp 2 --method lora"]
)
def test_zero_changes_no_activations(options: str, run: Run) -> None:
    """What ranks divide of the states leaves what layers keep as it is; each stage takes less, where no gradients wait."""
    found = [run("train", "llama3.2-1b", *options.split(), "--zero", zero, "--json").results[0] for zero in ("0", "1", "2", "fsdp")]
    assert len({result["activation_bytes"] for result in found}) == 1
    whole, one, two, _ = (result["peak_bytes"] for result in found)
    assert whole > one >= two
    dp = found[0]["layout"]["dp"]
    assert found[1]["optimizer_bytes"] == pytest.approx(found[0]["optimizer_bytes"] / dp, rel=1e-3)


def test_other_kernels_are_named(run: Run) -> None:
    arguments = ["train", "llama3.2-1b", "--tp", "2", "--dp", "2", "--zero"]
    assert "as Megatron's kernels keep them" in run(*arguments, "3").out
    assert "as Megatron's kernels keep them" not in run(*arguments, "2").out


@pytest.mark.parametrize("options", ["--tp 2 --dp 2 --zero 1", "--pp 2", "--dp 2 --zero fsdp"])
def test_states_stand_in_the_optimizers_step(options: str, run: Run) -> None:
    result = run("train", "gpt2", *options.split(), "--json").results[0]
    assert result["peak_bytes"] > result["step_peak_bytes"] > result["parameter_bytes"] + result["optimizer_bytes"]
