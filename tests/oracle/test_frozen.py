"""Passes without gradients, and heads of one output: the real classes on tensors without data, against ours."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.oracle.test_training import BATCH, MODELS, SEQ, live_mode  # noqa: E402

DECODERS = [case for case in MODELS if case[3] == "AutoModelForCausalLM"]
# GPT-2's activation in Python halves its input first of all; here it does so last.
WRITTEN_OUT = ("gpt2", "Sampling")


def built(case: tuple[str, str, dict[str, Any], str], auto: str, dtype: str, **more: Any) -> tuple[Any, dict[str, Any]]:
    """A model on the meta device and what it reads."""
    kind = getattr(torch, dtype)
    config = transformers.AutoConfig.for_model(case[1], **case[2], **more)
    model = getattr(transformers, auto).from_config(config, dtype=kind, attn_implementation="eager").eval()
    ids = torch.zeros(BATCH, SEQ, dtype=torch.long)
    return model, {"input_ids": ids, "use_cache": False, "attention_mask": torch.zeros(1, 1, SEQ, SEQ, dtype=kind)}


def watched(model: Any, given: dict[str, Any]) -> Any:
    live = live_mode()
    for tensor in (*model.parameters(), *model.buffers(), *(t for t in given.values() if t is not False)):
        live.hold(tensor)
    return live


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", DECODERS, ids=[case[0] for case in DECODERS])
@pytest.mark.parametrize("way", ["Scoring", "Sampling"])
def test_a_pass_without_gradients(case: tuple[str, str, dict[str, Any], str], dtype: str, way: str) -> None:
    from llmcalc import resolve
    from llmcalc.engines import frozen
    from llmcalc.engines.recipe import Recipe

    with torch.device("meta"), torch.no_grad():
        model, given = built(case, case[3], dtype)
        live = watched(model, given)
        with live:
            if way == "Scoring":
                logits = model(**given).logits
                logps = torch.zeros(BATCH, SEQ)
                for row, found in zip(logits, logps, strict=True):
                    found.copy_(row.log_softmax(-1).gather(-1, given["input_ids"][:1].T).squeeze(-1))
            else:
                logits = model(**given, logits_to_keep=1).logits
                logits[:, -1].to(torch.float32).softmax(-1)
    recipe = frozen.held_as(Recipe(SEQ, BATCH, attention="eager"), getattr(torch, dtype).itemsize)
    ours = frozen.transient(getattr(frozen, way), resolve.model(case[0]).blueprint, recipe, seq=SEQ, batch=BATCH)
    # Small change: a mask that was given here, indices and what is gathered with them.
    small = 64 * SEQ * BATCH + 4 * BATCH * SEQ * SEQ
    assert ours == pytest.approx(live.peak, abs=small + (0.25 * live.peak if (case[0], way) == WRITTEN_OUT else 0))


@pytest.mark.parametrize("case", DECODERS, ids=[case[0] for case in DECODERS])
def test_a_head_of_one_output(case: tuple[str, str, dict[str, Any], str]) -> None:
    from llmcalc import resolve
    from llmcalc.blueprint.scored import scored
    from llmcalc.engines import params

    with torch.device("meta"):
        model, _ = built(case, "AutoModelForSequenceClassification", "bfloat16", num_labels=1)
    assert params.count(scored(resolve.model(case[0]).blueprint)).total == sum(p.numel() for p in model.parameters())


@pytest.mark.filterwarnings("default")
def test_policy_and_value_model_in_one_step() -> None:
    """TRL's PPO: the value model's forward pass, the policy's, one loss; the backward passes come the other way round."""
    from llmcalc.engines import preference
    from llmcalc.engines.objectives import Objective
    from llmcalc.engines.recipe import Recipe
    from tests.test_training import tiny

    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 512,
             "num_key_value_heads": 4, "tie_word_embeddings": False}  # fmt: skip
    case = ("llama", "llama", sizes, "AutoModelForCausalLM")
    ours = tiny(layers=3, hidden=64, heads=4, ffn=256, gated=True, vocab=512, context=2048)
    answer = preference.count(ours, Recipe(SEQ, BATCH, attention="eager"), Objective("ppo", reference=False))
    with torch.device("meta"):
        policy, given = built(case, case[3], "bfloat16")
        value, _ = built(case, "AutoModelForSequenceClassification", "bfloat16", num_labels=1)
        live = watched(policy, given)
        for tensor in (*value.parameters(), *value.buffers()):
            live.hold(tensor)
        with live:
            values = value.score(value.model(**given).last_hidden_state).float().log_softmax(-1).mean()
            loss = policy(**given, labels=given["input_ids"]).loss + values
            live.peak = live.live
            loss.backward()
    assert answer.value is not None
    parts = answer.phases[-1].parts
    worked = sum(parts.get(name, 0) for name in ("gradients", "activations", "temporaries", "working"))
    assert worked == pytest.approx(live.peak, rel=1e-4)
