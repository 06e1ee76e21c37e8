"""Models without data, and what can be read off them: parameters by kind, and FLOPs. Caches are read in ``states``."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

# Where an architecture is not named: the auto mappings in this order. Encoders come first: many can be decoders too.
HEADS = (
    "MASKED_LM",
    "SEQ_TO_SEQ_CAUSAL_LM",
    "CAUSAL_LM",
    "IMAGE_TEXT_TO_TEXT",
    "SPEECH_SEQ_2_SEQ",
    "MULTIMODAL_LM",
    "TEXT_ENCODING",
)
CORRECTION = re.compile(r"(correction_bias|expert_bias|e_score_bias|router_bias|score_bias|gate\.bias|moe_statics\.\w+)$")
TOP_K = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k",
    "top_k_experts",
    "moe_top_k",
    "moe_topk",
    "moe_k",
    "num_selected_experts",
    "router_top_k",
)


def revive(value: Any) -> Any:
    """The value with the spellings of infinity that JSON needs turned back."""
    if isinstance(value, dict):
        return (
            {"Infinity": math.inf, "-Infinity": -math.inf}[value["__float__"]]
            if "__float__" in value
            else {k: revive(v) for k, v in value.items()}
        )
    if isinstance(value, list):
        return [revive(item) for item in value]
    return math.inf if value == "inf" else value


def configuration(config: dict[str, Any]) -> Any:
    """The configuration object of a hub-style dict; ``model_type`` inside names its class.

    Raises whatever the class raises for values that it refuses.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = revive(copy.deepcopy(config))
    return CONFIG_MAPPING[values.pop("model_type")](**values)


def class_name(config: Any) -> str:
    """The language-model class of a configuration: what ``architectures`` would name."""
    from transformers.models.auto import modeling_auto

    order = list(HEADS)
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False):
        order = [kind for kind in order if kind != "MASKED_LM"]
    if config.sub_configs:  # the class for text alone would want the configuration of the text alone
        order.sort(key=lambda kind: kind == "CAUSAL_LM")
    for kind in order:
        name = getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES").get(config.model_type)
        if name is not None:
            return name if isinstance(name, str) else name[0]
    name = modeling_auto.MODEL_MAPPING_NAMES[config.model_type]
    return name if isinstance(name, str) else name[0]


def build(config: dict[str, Any], architecture: str | None = None, device: str = "meta") -> Any:
    """The model of a hub-style dict, without data unless another device is named.

    The class is ``architecture``, else the first of ``architectures``, else that of ``class_name``. Where the dict says that
    embeddings are not tied and the class ties them all the same (T5 since transformers 5), the head gets a weight of its own, as
    checkpoints have it.
    """
    import torch
    import transformers

    wanted = configuration(config)
    named = architecture or (config.get("architectures") or [None])[0] or class_name(wanted)
    wanted._attn_implementation = "eager"
    with torch.device(device):
        model = getattr(transformers, named)(wanted)
    model.tie_weights()
    head = output_matrix(model)
    if config.get("tie_word_embeddings") is False and head is not None and head is input_table(model):
        model.get_output_embeddings().weight = torch.nn.Parameter(torch.empty_like(head))
    return model.eval()


def input_table(model: Any) -> Any:
    """The token table, None where the model has none."""
    try:
        return getattr(model.get_input_embeddings(), "weight", None)
    except NotImplementedError:
        return None


def output_matrix(model: Any) -> Any:
    """The matrix that gives logits, None where the model has none."""
    try:
        return getattr(model.get_output_embeddings(), "weight", None)
    except NotImplementedError:
        return None


def counts(model: Any) -> dict[str, Any]:
    """Elements of the model's parameters.

    ``total`` (tied once), ``embedding`` (token table), ``lm_head`` (0 where tied or absent), ``active`` (routed experts by the
    share that a token uses), ``router_buffers``, ``shapes`` and ``buffers`` (name -> shape; persistent buffers only), ``dtypes``
    (those that are not float32).
    """
    import torch

    unique = dict(model.named_parameters())
    total = sum(weight.numel() for weight in unique.values())
    table, head = input_table(model), output_matrix(model)
    lone = head is not None and head is not table
    buffers = {
        name: buffer
        for name, buffer in model.named_buffers()
        if name.rpartition(".")[2] not in model.get_submodule(name.rpartition(".")[0])._non_persistent_buffers_set
    }
    return {
        "total": total,
        "embedding": 0 if table is None else table.numel(),
        "lm_head": head.numel() if lone else 0,
        "active": total - idle(model),
        "router_buffers": sum(buffer.numel() for name, buffer in buffers.items() if CORRECTION.search(name)),
        "shapes": {name: list(weight.shape) for name, weight in unique.items()},
        "buffers": {name: list(buffer.shape) for name, buffer in buffers.items()},
        "dtypes": {name: str(each.dtype)[6:] for name, each in {**unique, **buffers}.items() if each.dtype != torch.float32},
    }


def idle(model: Any) -> int:
    """Elements of routed experts that one token does not use, rounded down per bank of experts."""
    rest = 0
    for name, elements, experts in banks(model):
        chosen = min(top_k(model, name), experts)
        rest += elements - elements * chosen // experts
    return rest


def banks(model: Any) -> list[tuple[str, int, int]]:
    """Name, elements and number of experts of every bank of routed experts.

    A bank is a list or dict of modules called ``experts``, or a module whose own parameters are stacks: three dimensions, the first
    of them the number of experts. DBRX stacks in two dimensions
    a level below and gives the number.
    """
    import torch

    found: list[tuple[str, int, int]] = []
    for name, module in model.named_modules():
        if "shared" in name or any(name.startswith(f"{bank}.") for bank, _, _ in found):
            continue
        leaf = name.rpartition(".")[2]
        own = dict(module.named_parameters(recurse=False))
        stacks = {each.shape[0] for each in own.values() if each.dim() == 3}
        if leaf in ("experts", "mlp_experts") and isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict):
            count = sum(any(True for _ in child.parameters()) for child in module.children())
            found.append((name, sum(each.numel() for each in module.parameters()), count))
        elif leaf == "experts" and not own and isinstance(number := getattr(module, "num_experts", None), int):
            found.append((name, sum(each.numel() for each in module.parameters()), number))
        else:  # LongCat has more rows of one matrix than of the other
            for experts in stacks:
                if is_routed(model, name, experts):
                    found.append((name, sum(each.numel() for each in own.values() if each.shape[0] == experts), experts))
    return found


def is_routed(model: Any, name: str, experts: int) -> bool:
    """Whether a stack of three dimensions is a bank of experts: it is called so, or some attribute above it counts its experts."""
    if "expert" in name.rpartition(".")[2]:
        return True
    for module in above(model, name):
        for key, value in vars(module).items():
            if "expert" in key and isinstance(value, int) and not isinstance(value, bool) and value == experts:
                return True
    return False


def above(model: Any, name: str) -> list[Any]:
    """The module of that name and up to three modules above it, nearest first."""
    parts = name.split(".")
    return [model.get_submodule(".".join(parts[:end])) for end in range(len(parts), max(len(parts) - 4, 0), -1)]


def top_k(model: Any, name: str) -> int:
    """How many experts of the bank a token uses, by the router beside it, else by the configuration nearest to it."""
    for module in above(model, name):
        for each in (module, *module.children()):
            if type(each).__name__.endswith("Top2Router"):  # NLLB-MoE has no number for it
                return 2
            for key in TOP_K:
                value = getattr(each, key, None)
                if isinstance(value, int) and not isinstance(value, bool):
                    return value
        config = getattr(module, "config", None)
        for key in TOP_K:
            value = getattr(config, key, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    config = model.config.get_text_config(decoder=True)
    return next((getattr(config, key) for key in TOP_K if isinstance(getattr(config, key, None), int)), 1)


def text_inputs(model: Any, tokens: int, encoder_tokens: int | None = None, batch: int = 1) -> dict[str, Any]:
    """Arguments for a forward pass over text: ``input_ids`` [batch, tokens], and the encoder's side where there is one."""
    import torch

    device = next(model.parameters()).device
    ids = torch.ones((batch, tokens), dtype=torch.long, device=device)
    if not model.config.is_encoder_decoder:
        return {"input_ids": ids}
    length = tokens if encoder_tokens is None else encoder_tokens
    if model.main_input_name == "input_features":
        features = getattr(model.config, "num_mel_bins", 80)
        source = torch.zeros((batch, features, 2 * model.config.max_source_positions), device=device)
    else:
        source = torch.ones((batch, length), dtype=torch.long, device=device)
    return {model.main_input_name: source, "decoder_input_ids": ids}


def full_data() -> Any:
    """A mode in which tensors without data answer questions about it: every flag is set, every number is one.

    Masks ask whether all tokens are there and whether sequences are packed; set flags mean: all there, one sequence.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class FullData(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
                return True if args[0].dtype == torch.bool else 1
            return func(*args, **(kwargs or {}))

    return FullData()


def flops(model: Any, seq_len: int, encoder_len: int | None = None) -> int:
    """FLOPs of a forward pass over one sequence without a cache: two per multiply-accumulate of every product and convolution.

    Logits for all positions, the full square of attention, exactly top-k experts a token (``batched_mm``). Norms, activations,
    softmax and look-ups count nothing.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    choose_experts(model)
    model.requires_grad_(False)  # the counter follows gradients where it sees some
    counter = FlopCounterMode(display=False)
    arguments = text_inputs(model, seq_len, encoder_len)
    with torch.no_grad(), full_data(), counter:
        model(**arguments, **({"use_cache": False} if hasattr(model.config.get_text_config(decoder=True), "use_cache") else {}))
    return int(counter.get_total_flops())


def choose_experts(model: Any) -> None:
    """Lets experts run as products over exactly the chosen ones, where the class can."""
    try:
        model.set_experts_implementation("batched_mm")
    except Exception:  # no experts, or experts of the class's own
        return
