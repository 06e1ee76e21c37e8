"""A case's model with random weights, its adapters, its optimizer, and the attention kernels that it may use."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from validation.cases import Case

LEARNING_RATE = 3e-4
TARGETS: dict[str, Any] = {"q,v": ["q_proj", "v_proj"], "all": "all-linear"}


class Skip(Exception):
    """The case cannot be run here, for a reason that is not its own."""


def build(case: Case, device: str) -> Any:
    """The model on the device, in the type that the case keeps weights in, adapters included.

    Raises Skip where peft is needed and not there.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(case.config)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    # A frozen base is bf16 also under autocast; what is trained under autocast is fp32.
    full = torch.float32 if case.precision == "fp32" or (case.precision == "amp" and case.method == "full") else torch.bfloat16
    kernel = "eager" if case.attention == "eager" else "sdpa"
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=full, attn_implementation=kernel)
    return adapted(model, case) if case.method == "lora" else model


def adapted(model: Any, case: Case) -> Any:
    """The model with LoRA beside the linears that the case names. Raises Skip without peft."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise Skip(f"peft cannot be imported: {error}") from None
    adapters = LoraConfig(r=case.rank, lora_alpha=case.rank, target_modules=TARGETS[case.targets], task_type="CAUSAL_LM")
    return get_peft_model(model, adapters, autocast_adapter_dtype=case.adapter_dtype == "fp32")


def optimizer(case: Case, parameters: list[Any]) -> Any:
    """The case's optimizer. Raises Skip where bitsandbytes is needed and not there."""
    if case.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=LEARNING_RATE)
    if case.optimizer != "adamw8bit":
        foreach = case.optimizer == "adamw-foreach"
        return torch.optim.AdamW(parameters, lr=LEARNING_RATE, foreach=foreach, fused=not foreach)
    try:
        import bitsandbytes
    except Exception as error:  # a library of its own that does not load says so in many ways
        raise Skip(f"bitsandbytes cannot be imported: {error}") from None
    return bitsandbytes.optim.AdamW8bit(parameters, lr=LEARNING_RATE)


def kernels(case: Case) -> AbstractContextManager[Any]:
    """What scaled_dot_product_attention may use: the case's kernel and no other, or torch's own choice."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backend = {"flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}.get(case.attention)
    return nullcontext() if backend is None else sdpa_kernel(backend)


def autocast(case: Case, device: str) -> AbstractContextManager[Any]:
    """Autocast to bf16 where the case has it."""
    return torch.autocast(device, dtype=torch.bfloat16) if case.precision == "amp" else nullcontext()


class Watch:
    """Notes which attention kernels and which products over experts were called while it was open."""

    def __init__(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        self.profile = profile(activities=[ProfilerActivity.CPU])
        self.found: list[str] = []

    def __enter__(self) -> Watch:
        self.profile.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.profile.__exit__(*error)
        names = {event.key.removeprefix("aten::") for event in self.profile.key_averages()}
        self.found = sorted(name for name in names if name.startswith("_scaled_dot_product_") or "grouped_mm" in name)


def warm(device: str) -> None:
    """Let every library take its workspace: products of bf16 and fp32, with and without a bias, forward and backward."""
    for dtype in (torch.bfloat16, torch.float32):
        for bias in (False, True):
            layer = torch.nn.Linear(256, 256, bias=bias, device=device, dtype=dtype)
            layer(torch.ones(256, 256, device=device, dtype=dtype, requires_grad=True)).sum().backward()


def model_class(model: Any) -> str:
    """The class of transformers, adapters or not."""
    return type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__
