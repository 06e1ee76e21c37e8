"""Training steps of the real classes on tensors without data: every allocation counted, against ours.

Only what does not depend on the device is compared: on the meta device a gradient that arrives twice is summed into a new
tensor, so peaks at such a sum are left out.
"""

import weakref
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# name in the catalogue, model_type, what its config has beside the type's defaults, the auto class
MODELS = [
    ("gpt2", "gpt2", {}, "AutoModelForCausalLM"),
    ("bert-base", "bert", {}, "AutoModelForMaskedLM"),
    ("t5-base", "t5", {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "decoder_start_token_id": 0,
                       "pad_token_id": 0}, "AutoModelForSeq2SeqLM"),
    ("llama3.2-1b", "llama", {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_key_value_heads": 8,
                              "vocab_size": 128256, "tie_word_embeddings": True}, "AutoModelForCausalLM"),
    ("gemma2-2b", "gemma2", {}, "AutoModelForCausalLM"),
]  # fmt: skip
SEQ, BATCH = 128, 2


def live_mode() -> Any:
    """A dispatch mode that counts the bytes of all storages alive."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    class Live(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.live = self.peak = 0
            self.known: dict[int, Any] = {}

        def hold(self, tensor: Any) -> None:
            storage = tensor.untyped_storage()
            self.known.setdefault(storage._cdata, storage)

        def gone(self, key: int, size: int, _: Any) -> None:
            self.known.pop(key, None)
            self.live -= size

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            for tensor in tree_iter(out):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    key, size = storage._cdata, storage.nbytes()
                    if key not in self.known:
                        self.known[key] = weakref.ref(storage, partial(self.gone, key, size))
                        self.live += size
                        self.peak = max(self.peak, self.live)
            return out

    return Live()


def on_a_gpu(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: ARG001
    """Dropout as CUDA has it: one kernel and a mask of a byte an element."""
    return torch.native_dropout(x, p, training)[0] if p > 0 and training else x


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", MODELS, ids=[case[0] for case in MODELS])
def test_a_step(case: tuple[str, str, dict[str, Any], str], dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmcalc import resolve
    from llmcalc.engines.recipe import Recipe
    from llmcalc.engines.training import Step

    name, model_type, more, auto = case
    monkeypatch.setattr(torch.nn.functional, "dropout", on_a_gpu)
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: on_a_gpu(x, self.p, self.training))
    kind = getattr(torch, dtype)
    with torch.device("meta"):
        config = transformers.AutoConfig.for_model(model_type, **more)
        model = getattr(transformers, auto).from_config(config, dtype=kind, attn_implementation="eager").train()
        ids, labels = (torch.zeros(BATCH, SEQ, dtype=torch.long) for _ in range(2))
        given = {"use_cache": False} if auto != "AutoModelForMaskedLM" else {}
        if auto == "AutoModelForCausalLM":
            given["attention_mask"] = torch.zeros(1, 1, SEQ, SEQ, dtype=kind)
        live = live_mode()
        for tensor in (*model.parameters(), *model.buffers(), ids, labels, *(t for t in given.values() if t is not False)):
            live.hold(tensor)
        with live:
            loss = model(input_ids=ids, labels=labels, **given).loss
            forward, saved = live.peak, live.live
            live.peak = live.live
            loss.backward()
    recipe = Recipe(SEQ, BATCH, "fp32" if dtype == "float32" else "bf16", attention="eager")
    step = Step(resolve.as_trained(resolve.model(name)), recipe, seq=SEQ, batch=BATCH)
    ours = {"saved": step.replay.saved_bytes, "forward": step.moments["forward"].size}
    assert ours == {"saved": saved, "forward": forward}
    assert step.moments["backward"].size <= live.peak
