"""One case, in a process of its own: ``python -m validation.worker CASE DEVICE OUT``, or ``PLACE DEVICE OUT`` for where this is.

CASE is a JSON object with the fields of a Case. OUT gets a JSON object: status, reason, measured; or what stands in ``rows.PLACE``.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from validation import models
from validation.cases import DECODE, Case
from validation.meters import Meter, smi

WARM_UP, TIMED = 2, 5  # steps, or prompts
Found = dict[str, Any]


def place(device: str) -> Found:
    """The card and the libraries."""
    cuda = device == "cuda"
    driver, power, clock = smi("driver_version", "power.limit", "clocks.max.sm") if cuda else (None, None, None)
    return {
        "device": device,
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "gpu_memory_bytes": torch.cuda.mem_get_info()[1] if cuda else None,
        "driver": driver,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "peft": _version("peft"),
        "bitsandbytes": _version("bitsandbytes"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF", os.environ.get("PYTORCH_CUDA_ALLOC_CONF")),
        "power_limit_watts": None if power is None else float(power),
        "clock_mhz": None if clock is None else int(clock),
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def train(case: Case, meter: Meter, found: Found) -> None:
    """Steps until the optimizer has its states, then those that are measured. ``found`` has what is known so far at any time."""
    model = models.build(case, meter.device)
    meter.point("load")
    model.train()
    if case.recompute == "full":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trained = [each for each in model.parameters() if each.requires_grad]
    found |= _counts(model) | {"trainable": sum(each.numel() for each in trained)}
    chosen = models.optimizer(case, trained)
    ids = torch.randint(model.config.vocab_size, (case.micro_batch, case.seq), device=meter.device)
    losses: list[Any] = []

    def step() -> None:
        for _ in range(case.accumulate):
            meter.start("forward")
            with models.autocast(case, meter.device):
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            meter.stop("forward")
            meter.start("backward")
            loss.backward()
            meter.stop("backward")
            losses[1:] = [loss.detach()]  # the first and the last: none of those between stays on the card
            del loss
        meter.start("step")
        chosen.step()
        chosen.zero_grad(set_to_none=True)
        meter.stop("step")

    phases = ("forward", "backward", "step")
    with models.kernels(case):
        with models.Watch() as watch:
            step()
        found["kernels"] = watch.found
        first = meter.whole(*phases)
        for _ in range(WARM_UP - 1):
            step()
        meter.forget(*phases)
        meter.point("ready")
        for _ in range(TIMED):
            outer = meter.now()
            step()
            meter.spans.setdefault("whole", []).append((outer, meter.now()))
    meter.phases |= {"first_step": first, "whole": meter.whole(*phases)}
    seconds = meter.median("whole")
    found |= {
        "losses": [_finite(float(loss)) for loss in losses],
        "times": {f"{name}_seconds": meter.median(name) for name in (*phases, "whole")},
        "rates": {"tokens_per_second": case.seq * case.micro_batch * case.accumulate / seconds},
    }


def decode(case: Case, meter: Meter, found: Found) -> None:
    """Prompts into an empty cache, each followed by the tokens that the model finds likeliest."""
    model = models.build(case, meter.device).eval()
    meter.point("load")
    found |= _counts(model)
    ids = torch.randint(model.config.vocab_size, (case.micro_batch, case.seq), device=meter.device)

    def run(tokens: int) -> Any:
        meter.start("prefill")
        out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        cache, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
        del out
        meter.stop("prefill")
        for _ in range(tokens):
            meter.start("decode")
            out = model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
            del out
            meter.stop("decode")
        return cache

    with torch.inference_mode(), models.autocast(case, meter.device), models.kernels(case):
        with models.Watch() as watch:
            run(2)
        found["kernels"] = watch.found
        for _ in range(WARM_UP - 1):
            run(2)
        meter.forget("prefill", "decode")
        meter.point("ready")
        for _ in range(TIMED - 1):
            run(0)
        cache = run(case.new_tokens)
    meter.phases["whole"] = meter.whole("prefill", "decode")
    prefill, tokens = meter.median("prefill"), meter.seconds("decode")
    found |= {
        "cache_class": type(cache).__name__,
        "cache_bytes": sum(each.numel() * each.element_size() for layer in cache.layers for each in (layer.keys, layer.values)),
        "times": {"prefill_seconds": prefill, "token_seconds": meter.median("decode")},
        "rates": {
            "prefill_tokens_per_second": case.seq * case.micro_batch / prefill,
            "decode_tokens_per_second": len(tokens) * case.micro_batch / sum(tokens),
        },
    }


def _counts(model: Any) -> Found:
    """The model's class, and its elements without adapters."""
    own = sum(each.numel() for name, each in model.named_parameters() if "lora_" not in name)
    return {"model_class": models.model_class(model), "parameters": own}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def measure(case: Case, device: str) -> Found:
    """Status, reason and figures of a case. Running out of memory is an answer, with what was known until then."""
    meter = Meter(device)
    found: Found = {}
    status, reason = "ok", None
    try:
        if meter.cuda:
            torch.cuda.init()
            torch.zeros(1, device=device)
        meter.point("context")
        models.warm(device)
        meter.point("workspace")
        (decode if case.kind == DECODE else train)(case, meter, found)
        meter.point("end")
    except models.Skip as error:
        status, reason = "skipped", str(error)
    except torch.cuda.OutOfMemoryError as error:
        status, reason = "oom", f"{', '.join(meter.opened) or 'before the first step'}: {str(error).splitlines()[0]}"
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        status, reason = "failed", f"{', '.join(meter.opened) or 'before the first step'}: {type(error).__name__}: {error}"[:1000]
    return {"status": status, "reason": reason, "measured": {**found, "points": meter.points, "phases": meter.phases}}


def main(what: str, device: str, out: str) -> None:
    """Write what was found to a file."""
    found = place(device) if what == "PLACE" else measure(Case(**json.loads(what)), device)
    Path(out).write_text(json.dumps(found, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
