"""Scaling laws against the papers' own figures, and against themselves."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcalc import resolve
from llmcalc.blueprint.lower import lower
from llmcalc.engines import conditions, flops, params
from llmcalc.engines import scaling as engine
from llmcalc.engines.laws import LAWS, MUENNIGHOFF
from llmcalc.errors import NoAnswer
from llmcalc.specs import read, validate
from tests.conftest import Run, records

ROWS = [row for row in records("scaling.jsonl") if row["measured"]]
WITH_COMMAND = [pytest.param(row, id=row["id"]) for row in ROWS if "command" in row]
GROWING = [law for law in LAWS.values() if law.alone is None]
LEAST = [law for law in GROWING if law.is_least]


@pytest.mark.parametrize("row", WITH_COMMAND)
def test_figures_of_the_papers(row: dict[str, Any], run: Run) -> None:
    """Each row is a question to one law and what its paper prints, with the deviation allowed and why there is one."""
    result = run("chinchilla", *row["command"].split(), "--json").results[0]
    for key, expected in row["measured"].items():
        assert result[key] == pytest.approx(expected, rel=row["within"]), (key, row.get("explanation"))


def test_deviations_are_real_and_explained(run: Run) -> None:
    """A row with more than rounding allowed deviates by more than rounding, and says why."""
    loose = [row for row in ROWS if "command" in row and row["within"] > 0.01]
    assert loose
    for row in loose:
        result = run("chinchilla", *row["command"].split(), "--json").results[0]
        worst = max(abs(result[key] / expected - 1) for key, expected in row["measured"].items())
        assert worst > 0.005, row["id"]
        assert row["explanation"], row["id"]


def test_every_law_has_a_source_and_says_what_it_holds_for() -> None:
    for name, law in LAWS.items():
        assert law.name == name
        assert law.source
        assert law.note
        assert all(math.isfinite(value) for value in law.constants.values())


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in ROWS if row["law"].startswith("Chinchilla App. F")])
def test_flops_of_appendix_f(row: dict[str, Any]) -> None:
    """Hoffmann et al. 2022, table A4: what the blocks cost, softmax (3 per score and head) too, over 6 N D with the paper's N."""
    text = (
        f"{{family: chinchilla, layers: {row['layers']}, hidden: {row['hidden']}, ffn: {row['ffn']}, heads: {row['heads']}, "
        f"head_dim: {row['head_dim']}, vocab: {row['vocab']}, gated: false, tied_head: true, sources: [table A4]}}"
    )
    blueprint = lower(validate.validate(read.parse(text, "a4.yaml"), "models"), "a4")
    s = row["seq_len"]
    blocks = flops.Costs(blueprint).forward(flops.workload(s, 1, 0, causal=False, logits=0))
    softmax = 3 * row["layers"] * row["heads"] * s * s
    ratio = 3 * (blocks + softmax) / (6 * row["params"] * s)
    assert ratio == pytest.approx(row["measured"]["flops_ratio_exact_over_6nd"], abs=row["within"]), row.get("explanation")


@pytest.mark.parametrize("law", GROWING, ids=lambda law: law.name)
@given(exponent=st.floats(16, 30))
def test_there_and_back(law: Any, exponent: float) -> None:
    """From compute to parameters, tokens and loss, and from each of these back to the compute."""
    best = engine.from_flops(law, 10**exponent)
    assert 6 * best.params * best.tokens == pytest.approx(best.flops)
    assert engine.from_params(law, float(best.params)).flops == pytest.approx(best.flops, rel=1e-9)
    assert engine.from_tokens(law, float(best.tokens)).flops == pytest.approx(best.flops, rel=1e-9)
    if law.loss is not None:
        assert engine.from_loss(law, float(best.loss)).flops == pytest.approx(best.flops, rel=1e-6)


@pytest.mark.parametrize("law", LEAST, ids=lambda law: law.name)
@given(exponent=st.floats(18, 28), aside=st.floats(-2, 2))
def test_no_other_split_of_the_compute_has_less_loss(law: Any, exponent: float, aside: float) -> None:
    best = engine.from_flops(law, 10**exponent)
    n = float(best.params) * math.exp(aside)
    assert law.loss.loss(n, float(best.flops) / (6 * n)) >= best.loss * (1 - 1e-12)
    run = engine.of_run(law, n, float(best.flops) / (6 * n))
    far = engine.distance(run)
    assert far is not None
    assert far.excess_loss is not None
    assert far.excess_loss >= -1e-12
    assert far.matching_flops is not None
    assert far.matching_flops <= float(run.flops) * (1 + 1e-9)


@given(unique=st.floats(1e8, 1e13), times=st.floats(0.01, 200))
def test_repeated_tokens_count_for_less_and_never_for_nothing(unique: float, times: float) -> None:
    def effective(d: float) -> float:
        return float(conditions.worth(d, unique, conditions.R_D))

    tokens = unique * times
    assert effective(tokens) <= tokens
    assert effective(tokens) <= unique * (1 + conditions.R_D)
    assert effective(tokens * 1.01) > effective(tokens)
    assert times > 1 or effective(tokens) == tokens


@pytest.mark.parametrize("question", [{"flops": 1e22}, {"params": 1e10}, {"tokens": 1e12}, {"loss": 2.2}])
def test_data_enough_is_as_if_there_were_no_limit(question: dict[str, float]) -> None:
    law = LAWS["muennighoff"]
    limited = conditions.repeated(law, 1e15, **question)
    name = next(iter(question))
    free = getattr(engine, f"from_{name}")(law, question[name])
    assert float(limited.params) == pytest.approx(float(free.params), rel=1e-5)
    assert float(limited.loss) == pytest.approx(float(free.loss), rel=1e-7)


@pytest.mark.parametrize("question", [{"flops": 1e23}, {"params": 1e10}, {"tokens": 1e12}, {"loss": 2.2}])
def test_of_repeated_data_no_other_split_is_better(question: dict[str, float]) -> None:
    best = conditions.repeated(LAWS["muennighoff"], 5e10, **question)
    assert float(best.loss) > float(engine.from_flops(LAWS["muennighoff"], float(best.flops)).loss)
    for aside in (0.5, 0.9, 0.99, 1.01, 1.1, 2):
        n = float(best.params) * aside
        other = conditions.repeated_loss(n, float(best.flops) / (6 * n), 5e10)
        assert other >= float(best.loss) - 1e-9


def test_unique_parameters_are_those_of_the_optimum() -> None:
    best = engine.from_tokens(LAWS["muennighoff"], 1e11)
    assert conditions.unique_params(1e11) == pytest.approx(float(best.params))
    assert conditions.unique_params(1.0) == pytest.approx(0.051, abs=5e-4)
    assert conditions.repeated_loss(1e9, 1e11, 1e11) == pytest.approx(float(MUENNIGHOFF.loss(1e9, 1e11)))


@pytest.mark.parametrize("demand", [1e9, 1e11, 2e12, 1e14])
def test_serving_asks_for_smaller_models_of_the_same_loss(demand: float) -> None:
    law = LAWS["sardana"]
    best = engine.from_params(law, 13e9)
    served = conditions.served(best, demand)
    assert served.params < best.params
    assert served.tokens > best.tokens
    assert law.loss is not None
    assert float(law.loss.loss(float(served.params), float(served.tokens))) == pytest.approx(float(best.loss), rel=1e-9)
    assert served.extra["total_flops"] < served.extra["training_optimal_total_flops"]
    assert served.extra["total_flops"] == pytest.approx(float(served.flops) + 2 * float(served.params) * demand)


@pytest.mark.parametrize("law", ["deepseek", "llama3", "kaplan-n"])
def test_what_a_law_does_not_have_is_null(law: str, run: Run) -> None:
    result = run("chinchilla", "--params", "7B", "--law", law, "--json").results[0]
    assert (result["loss"] is None) == (law != "kaplan-n")
    assert (result["tokens_per_param"] is None) == (law == "kaplan-n")


def test_batch_and_learning_rate_of_the_laws_that_have_them(run: Run) -> None:
    """DeepSeek LLM, section 3.1: 0.3118 C^-0.1250 and 0.2920 C^0.3271; Kaplan et al., table 5: 2.1e8 tokens / L^(1 / 0.21)."""
    results = {r["law"]: r for r in run("chinchilla", "--flops", "1e23", "--json").results}
    deepseek, kaplan = results["deepseek"], results["kaplan"]
    assert deepseek["batch_tokens"] == pytest.approx(0.2920 * 1e23**0.3271)
    assert deepseek["learning_rate"] == pytest.approx(0.3118 * 1e23**-0.1250)
    assert kaplan["batch_tokens"] == pytest.approx(2.1e8 / kaplan["loss"] ** (1 / 0.21))
    assert kaplan["learning_rate"] is results["besiroglu"]["batch_tokens"] is None
    assert "learning rate of 0.000" in run("chinchilla", "--flops", "1e23", "--law", "deepseek").out


def test_all_laws_answer_in_order_and_the_silent_ones_are_named(run: Run) -> None:
    outcome = run("chinchilla", "--tokens", "1T", "--json").json
    answered = [result["law"] for result in outcome["results"]]
    assert answered == [name for name in LAWS if name not in ("kaplan-n", "kaplan-c", "kaplan-cmin")]
    assert "no answer to this from kaplan-n, kaplan-c, kaplan-cmin" in outcome["notes"]


def test_a_published_run_beside_its_optimum(run: Run) -> None:
    """Llama 3 8B is far past the optimum of its compute, GPT-3 short of it; the smaller is predicted to be better by most."""
    results = run("chinchilla", "llama3-8b", "gpt3-175b", "--law", "approach-3-unrounded", "--json").results
    llama, gpt = results
    assert [r["run"] for r in results] == ["llama3-8b", "gpt3-175b"]
    assert (llama["params"], llama["tokens"]) == (8_030_261_248, 15_000_000_000_000)
    assert llama["tokens_ratio"] > 5 > 1 > gpt["tokens_ratio"]
    assert llama["optimal_params"] * llama["optimal_tokens"] * 6 == pytest.approx(llama["flops"])
    assert llama["matching_flops"] < llama["flops"]
    assert gpt["loss_difference"] == pytest.approx(gpt["loss"] - llama["loss"])
    assert gpt["loss_difference"] > 0


def test_models_are_counted_as_each_law_counts(run: Run) -> None:
    results = {r["law"]: r for r in run("chinchilla", "gpt2-xl", "--tokens", "10B", "--json").results}
    counts = params.count(resolve.model("gpt2-xl").blueprint)
    assert results["besiroglu"]["params"] == counts.total == 1_557_611_200
    assert results["kaplan"]["params"] == 1_557_611_200 - 1600 * (50257 + 1024)
    mixture = run("chinchilla", "mixtral-8x7b", "--tokens", "1T", "--law", "besiroglu", "--json").results[0]
    assert mixture["params"] == 12_879_925_248


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ("--loss 1.5 --law approach-3", ["approach-3", "1.69"]),
        ("--loss 0", ["--loss"]),
        ("--loss 1.9 --law deepseek", ["deepseek", "no loss"]),
        ("--tokens 1T --law kaplan-n", ["kaplan-n", "--params"]),
        ("--run 8B", ["--run", "8B:15T"]),
        ("--run 8B:x", ["--run", "x"]),
        ("gpt2-xl", ["gpt2-xl", "--tokens"]),
        ("llama3-8b --params 7B", ["one of"]),
        ("--unique-tokens 1B --epochs 4 --tokens 3B", ["--epochs"]),
        ("--epochs 4 --params 1B", ["--epochs", "--unique-tokens"]),
        ("--loss 1.9 --unique-tokens 1B --law muennighoff", ["muennighoff", "never"]),
    ],
)
def test_mistakes(arguments: str, fragments: list[str], run: Run) -> None:
    outcome = run("chinchilla", *arguments.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    for fragment in fragments:
        assert fragment in outcome.err


@given(st.floats(0.001, 99))
def test_any_loss_has_an_answer_or_an_error(loss: float) -> None:
    for law in LAWS.values():
        try:
            found = engine.from_loss(law, loss)
        except NoAnswer:
            continue
        assert json.dumps(float(found.loss)) == json.dumps(loss)
