"""llmcalc train --objective: which copies stand where, what a roll-out takes, and what the phases add up to."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmcalc import resolve
from llmcalc.blueprint.parts import Blueprint
from llmcalc.blueprint.scored import scored, valued
from llmcalc.cli import train_objective
from llmcalc.engines import kv, params, preference, train_solve, training
from llmcalc.engines.objectives import NAMES, ONLINE, PAIRED, REFERENCED, SFT, Aligned, Objective
from llmcalc.engines.recipe import Recipe
from llmcalc.errors import LlmcalcError, NoAnswer, UsageError
from tests.conftest import Run
from tests.test_properties import specs
from tests.test_training import COUNT, SETTINGS, invented, recipes, tiny

RECIPE = Recipe(16, attention="efficient")


def model(name: str) -> Blueprint:
    return resolve.model(name).blueprint


@pytest.mark.parametrize(
    "recipe",
    [Recipe(512, 2), Recipe(512, 1, "amp", method="lora", accumulate=2), Recipe(512, 1, "megatron"), Recipe(64, optimizer="lomo")],
    ids=["full", "lora", "megatron", "lomo"],
)
def test_imitation_is_a_step_as_it_is(recipe: Recipe) -> None:
    answer, step = preference.count(model("llama3.2-1b"), recipe, Objective()), training.count(model("llama3.2-1b"), recipe)
    assert answer.update == step
    assert (answer.peak_bytes, answer.parts) == (step.peak_bytes, step.parts)
    assert [phase.name for phase in answer.phases] == ["update"]
    assert (answer.copies, answer.experience) == ((), {})


# Objective, method, what is asked of the reference; where it is then; TRL 1.16 by its source (PPO: 0.24).
WHERE = [
    ("sft", "full", {}, "none"),
    ("dpo", "full", {}, "separate"),
    ("ipo", "full", {}, "separate"),
    ("kto", "full", {}, "separate"),
    ("ppo", "full", {}, "separate"),
    ("rloo", "full", {}, "separate"),  # beta 0.05
    ("grpo", "full", {}, "none"),  # beta 0
    ("grpo", "full", {"reference": True}, "separate"),
    ("grpo", "lora", {"reference": True}, "shared"),
    ("dpo", "full", {"precomputed": True}, "precomputed"),
    ("dpo", "lora", {"precomputed": True}, "precomputed"),
    ("dpo", "full", {"reference": False}, "none"),
    ("dpo", "lora", {}, "shared"),
    ("dpo", "ln", {}, "separate"),  # it changes weights of the model itself
    ("ppo", "lora", {}, "shared"),
    ("orpo", "full", {}, "none"),
    ("simpo", "full", {}, "none"),
    ("cpo", "full", {}, "none"),
    ("reward", "full", {}, "none"),
]


@pytest.mark.parametrize(("name", "method", "asked", "where"), WHERE, ids=lambda value: str(value).replace(" ", ""))
def test_where_the_reference_is(name: str, method: str, asked: dict[str, Any], where: str) -> None:
    answer = preference.count(tiny(), RECIPE._replace(method=method), Objective(name, **asked))
    assert answer.reference == where
    # 16 bits an element, and the rotary frequencies twice in fp32.
    held = {copy.role: copy.bytes for copy in answer.copies}
    assert held == ({"reference": 2 * COUNT + 2 * 4 * 2} if where == "separate" else {})
    scores = where in ("separate", "shared") or name in ONLINE or name == "kto"
    assert ("scoring" in [phase.name for phase in answer.phases]) == scores


@pytest.mark.parametrize("name", ["dpo", "ipo"])
def test_pairs_are_two_sequences_beside_a_reference(name: str) -> None:
    blueprint, recipe = model("llama3.2-1b"), Recipe(512, 2)
    answer, twice = preference.count(blueprint, recipe, Objective(name)), training.count(blueprint, recipe._replace(micro_batch=4))
    held = twice.parameter_bytes + twice.buffer_bytes
    assert answer.peak_bytes == twice.peak_bytes + held
    assert answer.parts == {**twice.parts, "reference": held}
    assert preference.count(blueprint, recipe, Objective("orpo")).peak_bytes == twice.peak_bytes


@pytest.mark.parametrize(
    ("precision", "item", "expected"), [("bf16", None, 2), ("amp", None, 2), ("fp32", None, 4), ("amp", 4, 4), ("fp32", 2, 2)]
)
def test_frozen_copies_are_in_16_bits_but_under_fp32(precision: str, item: int | None, expected: int) -> None:
    answer = preference.count(tiny(), RECIPE._replace(precision=precision), Objective("dpo", frozen_item=item))
    assert answer.copies[0].bytes == expected * COUNT + 16


def test_unpaired_responses_are_single_sequences() -> None:
    """KTO: as many mismatched ones are read without gradients beside them; ids and labels of those are in the batch."""
    answer = preference.count(tiny(), RECIPE._replace(micro_batch=3), Objective("kto", precomputed=True))
    assert answer.update == training.count(tiny(), RECIPE._replace(micro_batch=3))
    assert answer.experience == {"mismatched responses": 2 * 8 * 3 * 16, "reference log-probabilities": 2 * 4 * 3}


def test_scores_are_read_while_the_policys_activations_stand() -> None:
    answer = preference.count(model("llama3.2-1b"), Recipe(512, 2), Objective("dpo"))
    scoring = answer.phases[0]
    assert (scoring.name, scoring.why) == ("scoring", "the reference reads without gradients")
    assert scoring.parts["activations"] == answer.update.activation_bytes
    # Logits of four sequences in 16 bits, the log-softmax of one, and what is gathered in fp32.
    assert scoring.parts["temporaries"] == (4 + 1) * 512 * 128256 * 2 + 4 * 4 * 512


def test_heads_of_one_output() -> None:
    """Llama 3 8B as LlamaForSequenceClassification with one label: a head of 128,256 rows less, and one of one row more."""
    llama = model("llama3-8b")
    assert params.count(scored(llama)).total == 8_030_261_248 - 128_256 * 4096 + 4096 == 7_504_928_768
    assert params.count(valued(llama)).total == 8_030_261_248 + 4096 + 1
    tied = model("llama3.2-1b")
    assert params.count(scored(tied)).total == params.count(tied).total + 2048
    # An adapter's base is frozen, the new head is not.
    recipe = Recipe(16, method="lora", rank=4, attention="efficient")
    assert training.count(scored(tiny()), recipe).trainable == training.count(tiny(), recipe).trainable + 8
    assert training.count(valued(tiny()), recipe).trainable == training.count(tiny(), recipe).trainable + 9


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "ln", "bitfit", "head"])
def test_a_reward_model_trains_its_head_whatever_the_method(method: str) -> None:
    blueprint = tiny(biases=["all"])
    answer = preference.count(blueprint, RECIPE._replace(method=method), Objective("reward"))
    plain = training.count(blueprint, RECIPE._replace(method=method, micro_batch=2))
    gone = {"full": 32 * 8, "head": 32 * 8}.get(method, 0)
    assert answer.trainable == plain.trainable - gone + 8
    assert answer.peak_bytes < plain.peak_bytes  # no logits


def test_four_models_of_ppo() -> None:
    """Policy and value model are trained, reference and reward model frozen."""
    llama, recipe = model("llama3.2-1b"), Recipe(512, 2)
    answer = preference.count(llama, recipe, Objective("ppo", reward_model=llama))
    policy, value = training.count(llama, recipe), training.count(scored(llama), recipe)
    assert (answer.update, answer.value) == (policy, value)
    assert [copy.role for copy in answer.copies] == ["reference", "reward model"]
    assert answer.trainable == policy.trainable + value.trainable
    assert answer.parts["value model"] == value.parameter_bytes + value.buffer_bytes + value.optimizer_bytes
    # Backward of the policy, while the value model's activations wait for theirs.
    assert answer.highest.why == "policy's backward pass"
    beside = sum(copy.bytes for copy in answer.copies) + sum(answer.experience.values())
    assert answer.peak_bytes == policy.peaks["backward"] + answer.parts["value model"] + value.activation_bytes + beside
    head = preference.count(llama, recipe, Objective("ppo", value="head", reward_model=llama))
    assert head.value is None
    assert head.trainable == policy.trainable + 2048 + 1
    assert head.peak_bytes < answer.peak_bytes


def test_one_optimizer_steps_both_models() -> None:
    """Multi-tensor AdamW works on a copy of all second moments at once, those of both."""
    llama, recipe = model("llama3.2-1b"), Recipe(16, 1, foreach=True)
    answer = preference.count(llama, recipe, Objective("ppo"))
    both = (answer.update, answer.value)
    assert answer.highest.why == "optimizer's step"
    assert answer.parts["gradients"] == sum(one.gradient_bytes for one in both if one)
    assert answer.parts["temporaries"] == sum(one.optimizer_bytes // 2 for one in both if one)


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        # 2 sequences of 10 + 6 tokens: ids and masks in int64, what is of a response's token in fp32.
        ("ppo", {}, {"token ids and masks": 512, "log-probabilities": 48, "reference log-probabilities": 48, "values": 48,
                     "rewards": 48, "advantages": 48, "returns": 48}),
        ("grpo", {"samples": 2}, {"token ids and masks": 512, "log-probabilities": 48, "rewards": 8, "advantages": 8}),
        ("rloo", {}, {"token ids and masks": 512, "log-probabilities": 48, "reference log-probabilities": 48, "rewards": 8,
                      "advantages": 8}),
    ],
)  # fmt: skip
def test_the_experience_buffer(name: str, more: dict[str, Any], expected: dict[str, int]) -> None:
    answer = preference.count(tiny(), RECIPE._replace(micro_batch=2), Objective(name, prompt=10, response=6, **more))
    assert (answer.sequences, answer.prompt, answer.response, answer.recipe.seq) == (2, 10, 6, 16)
    assert answer.experience == expected


@pytest.mark.parametrize(
    ("name", "micro_batch", "accumulate", "samples", "expected"),
    [
        ("ppo", 1, 1, None, 1), ("ppo", 4, 2, None, 8), ("grpo", 1, 1, None, 8), ("grpo", 4, 4, None, 16), ("rloo", 1, 1, None, 2),
        ("grpo", 4, 1, 64, 64), ("sft", 4, 4, None, 0), ("dpo", 4, 4, None, 0),
    ],
)  # fmt: skip
def test_sequences_of_a_rollout(name: str, micro_batch: int, accumulate: int, samples: int | None, expected: int) -> None:
    recipe = RECIPE._replace(micro_batch=micro_batch, accumulate=accumulate)
    assert preference.count(tiny(), recipe, Objective(name, samples=samples)).sequences == expected


@pytest.mark.parametrize(
    ("prompt", "response", "seq", "expected"),
    [(None, None, 2048, (1024, 1024)), (None, None, 5, (2, 3)), (100, None, 2048, (100, 1948)), (None, 500, 2048, (1548, 500)),
     (300, 700, 2048, (300, 700))],
)  # fmt: skip
def test_lengths(prompt: int | None, response: int | None, seq: int, expected: tuple[int, int]) -> None:
    assert Objective("grpo", prompt=prompt, response=response).lengths(seq) == expected


def test_the_cache_of_a_rollout() -> None:
    llama = model("llama3-8b")
    answer = preference.count(llama, Recipe(1, 1), Objective("grpo", samples=16, prompt=512, response=3584))
    assert answer.cache_bytes == kv.size(llama, 4096, 16).kv_bytes == 16 * 4096 * 131_072
    rollout = answer.phases[0]
    assert (rollout.name, rollout.parts["cache"]) == ("roll-out", answer.cache_bytes)
    # Keys of one layer stand twice when a token is appended.
    assert rollout.parts["temporaries"] >= answer.cache_bytes // 32 // 2
    assert "experience" not in rollout.parts


def test_a_long_prompt_peaks_before_the_first_token() -> None:
    answer = preference.count(model("llama3-8b"), Recipe(1, 1), Objective("grpo", prompt=8192, response=1))
    assert answer.phases[0].why == "of 8 sequences, the prompts are read"
    assert answer.phases[0].parts["cache"] == 8 * 8192 * 131_072


@pytest.mark.parametrize("engine", ["awake", "asleep"])
def test_a_runtime_beside_the_trainer_has_weights_of_its_own(engine: str) -> None:
    llama, recipe = model("llama3.2-1b"), Recipe(512, 1)
    answer = preference.count(llama, recipe, Objective("grpo", engine=engine))
    weights = 2 * 1_235_814_400
    assert answer.engine_bytes == weights + 2 * 4 * 32 + answer.cache_bytes
    stands = {phase.name: "roll-out engine" in phase.parts for phase in answer.phases}
    assert stands == {"roll-out": True, "scoring": engine == "awake", "update": engine == "awake"}
    said = preference.count(llama, recipe, Objective("grpo", engine=engine, engine_bytes=24 * 10**9))
    assert said.engine_bytes == 24 * 10**9
    with pytest.raises(UsageError, match="less than its weights"):
        preference.count(llama, recipe, Objective("grpo", engine=engine, engine_bytes=weights))


def test_gradients_of_megatron_stand_through_a_rollout() -> None:
    answer = preference.count(tiny(), RECIPE._replace(precision="megatron", attention="flash"), Objective("grpo"))
    assert answer.phases[0].parts["gradients"] == 4 * COUNT
    waiting = preference.count(tiny(), RECIPE._replace(accumulate=2), Objective("grpo"))
    assert "gradients" not in waiting.phases[0].parts


@pytest.mark.parametrize(("loss", "expected"), [("plain", 4 * 2 * 512 * 128_256), ("fused", 2 * 2 * 512 * 4096)])
def test_a_teacher_and_its_distribution(loss: str, expected: int) -> None:
    student, recipe = model("llama3.2-1b"), Recipe(512, 2, loss=loss)
    answer = preference.count(student, recipe, Objective("distill", teacher=model("llama3-8b")))
    step = training.count(student, recipe)
    assert answer.copies[0].bytes == 2 * 8_030_261_248 + 2 * 4 * 64
    assert answer.phases[-1].parts["teacher's distribution"] == expected
    assert answer.phases[-1].bytes == step.peak_bytes + answer.copies[0].bytes + expected


def test_a_reward_model_reads_the_whole_rollout_of_a_group() -> None:
    """TRL's GRPO gives it all at once, its PPO in pieces."""
    llama, recipe = model("llama3.2-1b"), Recipe(512, 1, loss="fused")
    few, many = (
        preference.count(llama, recipe, Objective("grpo", samples=n, reward_model=llama)).phases[1].parts["temporaries"]
        for n in (32, 64)
    )
    assert many == pytest.approx(2 * few, rel=1e-3)


def test_updates_can_be_counted_elsewhere() -> None:
    """What counts an update is a parameter: a rank's share would do."""
    seen: list[tuple[str, Recipe]] = []

    def asking(blueprint: Blueprint) -> preference.Ask:
        def ask(recipe: Recipe) -> training.Training:
            seen.append((blueprint.name, recipe))
            return training.count(blueprint, recipe)

        return ask

    preference.Asking(tiny(), Objective("ppo"), asking)(RECIPE)
    assert [name for name, _ in seen] == ["tiny", "tiny"]
    preference.Asking(tiny(), Objective("dpo"), asking)(RECIPE)
    assert seen[-1][1].micro_batch == 2


def test_the_search_for_the_largest_takes_it_as_it_is() -> None:
    ask = preference.Asking(model("llama3.2-1b"), Objective("ppo"))
    budget = 40 * 10**9
    found = train_solve.largest(lambda n: ask(Recipe(512, n)).peak_bytes, budget, 1, 2**20)
    assert found is not None
    assert ask(Recipe(512, found)).peak_bytes <= budget < ask(Recipe(512, found + 1)).peak_bytes


def test_the_peak_opens() -> None:
    answer = preference.count(model("llama3.2-1b"), Recipe(512, 2), Objective("ppo", reward_model=model("llama3-8b")))
    tree = answer.explain()
    assert tree.value == answer.peak_bytes == sum(part.value for part in tree.parts)
    parts = {part.label: part for part in tree.parts}
    assert all(part.source or part.parts for part in tree.parts)
    assert parts["reward model"].source == "llama3-8b: scores each response once"
    assert sum(part.value for part in parts["experience"].parts) == parts["experience"].value


MISTAKES = [
    ({"name": "dpq"}, "is none of sft, dpo"),
    ({"name": "orpo", "reference": True}, "orpo has no reference model"),
    ({"name": "ppo", "precomputed": True}, "--precomputed goes with a reference"),
    ({"name": "dpo", "precomputed": True, "reference": False}, "--precomputed goes with a reference"),
    ({"name": "dpo", "samples": 4}, "--samples is for what is sampled"),
    ({"name": "dpo", "response": 4}, "--response is for what is sampled"),
    ({"name": "dpo", "engine": "awake"}, "--colocate is for what is sampled"),
    ({"name": "grpo", "value": "head"}, "--value goes with --objective ppo"),
    ({"name": "ppo", "value": "tail"}, "--value is separate or head"),
    ({"name": "distill"}, "needs a --teacher"),
    ({"name": "grpo", "engine_bytes": 4}, "goes with --colocate"),
    ({"name": "grpo", "samples": 0}, "1 or more"),
    ({"name": "grpo", "prompt": 16}, "16 tokens leave nothing beside"),
    ({"name": "grpo", "response": 99}, "16 tokens leave nothing beside"),
]


@pytest.mark.parametrize(("fields", "expected"), MISTAKES, ids=[str(fields) for fields, _ in MISTAKES])
def test_mistakes(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        preference.count(tiny(), RECIPE, Objective(**fields))


def test_what_does_not_generate_samples_nothing() -> None:
    encoder = resolve.as_trained(resolve.model("bert-base"))
    with pytest.raises(NoAnswer, match="does not generate"):
        preference.count(encoder, Recipe(64), Objective("grpo"))
    assert preference.count(encoder, Recipe(64), Objective("reward")).peak_bytes > 0


objectives = st.builds(
    Objective,
    name=st.sampled_from([name for name in NAMES if name != "distill"]),
    reference=st.none(),
    precomputed=st.just(False),
    samples=st.integers(1, 9),
    prompt=st.none(),
    response=st.none(),
    value=st.sampled_from(["separate", "head"]),
    reward_model=st.none(),
    teacher=st.none(),
    engine=st.sampled_from(["", "awake", "asleep"]),
    engine_bytes=st.none(),
    frozen_item=st.sampled_from([None, 2, 4]),
)


def fitted(objective: Objective, blueprint: Blueprint, *, rewarded: bool) -> Objective:
    """Only what goes with the objective."""
    if objective.name not in ONLINE:
        objective = objective._replace(samples=None, engine="")
    if objective.name != "ppo":
        objective = objective._replace(value=None)
    return objective._replace(reward_model=blueprint if rewarded and objective.name in ONLINE else None)


def answered(blueprint: Blueprint, recipe: Recipe, objective: Objective) -> Aligned | None:
    try:
        return preference.count(blueprint, recipe, objective)
    except LlmcalcError:
        return None


@given(specs(), recipes, objectives, st.booleans())
@SETTINGS
def test_parts_add_up_and_more_never_takes_less(spec: dict[str, Any], recipe: Recipe, objective: Objective, rewarded: bool) -> None:
    blueprint = invented(spec)
    objective = fitted(objective, blueprint, rewarded=rewarded)
    answer = answered(blueprint, recipe, objective)
    assume(answer is not None)
    assert answer is not None
    assert answer.peak_bytes == sum(answer.parts.values()) == max(phase.bytes for phase in answer.phases)
    assert all(size >= 0 for phase in answer.phases for size in phase.parts.values())
    assert answer.peak_bytes >= answer.update.peak_bytes or objective.name == "reward"
    assert answer.peak_bytes >= sum(copy.bytes for copy in answer.copies) + answer.update.parameter_bytes
    if objective.name in REFERENCED:
        without, beside = (answered(blueprint, recipe, objective._replace(reference=how)) for how in (False, True))
        assert without is not None
        assert beside is not None
        assert without.peak_bytes <= beside.peak_bytes
    if objective.name in ONLINE:
        more = answered(blueprint, recipe, objective._replace(samples=(objective.samples or 1) + 1))
        assert more is not None
        assert more.peak_bytes >= answer.peak_bytes
        awake = answered(blueprint, recipe, objective._replace(engine="awake"))
        asleep = answered(blueprint, recipe, objective._replace(engine="asleep"))
        assert awake is not None
        assert asleep is not None
        assert awake.peak_bytes >= asleep.peak_bytes


# The module that the command hands its options to.


def test_no_objective_is_named() -> None:
    assert train_objective.asked(None) == SFT
    with pytest.raises(UsageError, match="--samples goes with --objective"):
        train_objective.asked(None, samples=4)
    with pytest.raises(UsageError, match="--no-reference goes with --objective"):
        train_objective.asked(None, reference=False)


def test_options_become_an_objective() -> None:
    found = train_objective.asked(
        "grpo", reference=True, samples=4, prompt="1k", response="512", reward_model="llama3-8b", colocate="awake",
        engine_utilization=0.3, frozen_dtype="fp32", card_bytes=80 * 10**9,
    )  # fmt: skip
    assert found.reward_model is not None
    assert found.reward_model.name == "llama3-8b"
    assert found._replace(reward_model=None) == Objective(
        "grpo", reference=True, samples=4, prompt=1024, response=512, engine="awake", engine_bytes=24 * 10**9, frozen_item=4
    )
    with pytest.raises(UsageError, match="--engine-utilization is a share"):
        train_objective.asked("grpo", engine_utilization=0.3, colocate="awake")
    assert train_objective.inputs(found)["frozen_dtype"] == "fp32"
    assert train_objective.inputs(Objective("sft"))["value"] is None


def test_a_result_and_its_table(run: Run) -> None:
    arguments = ["train", "llama3.2-1b", "--objective", "dpo", "--method", "lora", "--seq", "512", "--micro-batch", "2"]
    outcome = run(*arguments, "--json")
    (result,) = outcome.results
    answer = preference.count(model("llama3.2-1b"), Recipe(512, 2, method="lora"), Objective("dpo"))
    assert (result["peak_bytes"], result["peak_phase"], result["peak_parts"]) == (answer.peak_bytes, "update", answer.parts)
    assert (result["reference"], result["reference_bytes"], result["update_micro_batch"]) == ("shared", 0, 4)
    assert result["rollout_sequences"] == 0
    assert outcome.json["inputs"]["objective"] == "dpo"
    out = run(*arguments, "--gpu", "rtx4090").out
    assert out.startswith("llama3.2-1b: dpo, lora of rank 8, bf16, adamw, 4 x 512 tokens, flash attention")
    for line in (
        "scoring peak", "fits, ", "note: llama3.2-1b: a micro-batch is of pairs: 4 sequences in a pass",
        "the reference is the policy with its adapter switched off", "TRL 1.16 computes log-probabilities in tiles",
    ):  # fmt: skip
        assert line in out


def test_sft_is_no_objective(run: Run) -> None:
    plain, named = (run("train", "gpt2", "--json", *more).results for more in ((), ("--objective", "sft")))
    assert plain == named
    assert (plain[0]["phases"], plain[0]["copies"], plain[0]["peak_phase"]) == ([], [], "backward")


@pytest.mark.parametrize(
    "options",
    [
        "--objective ppo --reward-model gpt2", "--objective ppo --value head --method lora", "--objective grpo --colocate asleep",
        "--objective distill --teacher gpt2-xl", "--objective reward", "--objective kto --precomputed",
        "--objective dpo --dp 2 --zero 3",
        "--objective simpo --gpu rtx4090", "--objective rloo --gpu h100-sxm --solve micro-batch",
        "--objective ppo --gpu rtx4090 --solve gpus",
    ],
)  # fmt: skip
def test_every_objective_answers_alike(options: str, run: Run) -> None:
    """The same keys whatever is asked, and parts that add up; explained, the peak is the same."""
    outcome = run("train", "gpt2", *options.split(), "--json")
    (result,) = outcome.results
    assert outcome.code == 0
    assert set(result) == set(run("train", "gpt2", "--json").results[0])
    assert result["peak_bytes"] == sum(result["peak_parts"].values()) == max(phase["bytes"] for phase in result["phases"])
    assert f"peak_bytes = {result['peak_bytes']:,} bytes" in run("train", "gpt2", *options.split(), "--explain").out


def test_mistakes_on_the_command_line(run: Run) -> None:
    for command, expected in (
        ("--samples 4", "--samples goes with --objective"),
        ("--objective dpo --samples 4", "--samples is for what is sampled"),
        ("--objective distill", "--objective distill needs a --teacher"),
        ("--objective distill --teacher lama", "lama"),
        ("--objective dpo --plot step.svg", "--plot draws an update"),
        ("--objective grpo --prompt 4k --seq 2k", "leave nothing"),
    ):
        outcome = run("train", "gpt2", *command.split())
        assert (outcome.code, outcome.out) == (2, "")
        assert expected in outcome.err
        assert outcome.err.count("\n") == 1


def test_the_option_names_what_the_engine_knows() -> None:
    from typing import get_args

    assert get_args(get_args(get_args(train_objective.Name)[0])[0]) == NAMES
    assert set(PAIRED) | set(ONLINE) | {"sft", "kto", "distill"} == set(NAMES)
