"""How a model is trained: precision, method, optimizer, attention, what is recomputed."""

from typing import NamedTuple

from llmcalc.blueprint.parts import Blueprint
from llmcalc.errors import NoAnswer, UsageError

ITEMS = {"fp32": 4, "bf16": 2}
PRECISIONS = ("fp32", "bf16", "amp", "megatron")
ADAPTERS = ("lora", "dora", "qlora", "ia3", "adapter")
PROMPTS = ("prompt", "prefix")
RECOMPUTES = ("none", "selective", "op", "full")
LOSSES = ("plain", "copied", "compiled", "chunked", "fused")
METHODS = ("full", *ADAPTERS, *PROMPTS, "ln", "bitfit", "head")


def check_loss(blueprint: Blueprint) -> None:
    """Raises NoAnswer for a model that nothing is learned from."""
    if not any(op.kind == "loss" for op in blueprint.ops):
        raise NoAnswer(f"{blueprint.name}: no head, and so no loss to train with")


class Recipe(NamedTuple):
    """Everything that decides the memory of a step on one GPU, beside the model.

    ``rank`` is of LoRA, the bottleneck of ``adapter``, the virtual tokens of ``prompt`` and ``prefix``. ``adapter_item`` is bytes
    of an adapter's element. ``kbit_prepare``: what is not quantised is held in fp32 (peft's prepare_model_for_kbit_training).
    ``recompute``: nothing; selective, attention between its projections; op, all but attention and every second product of a
    layer (torchtitan's selective checkpointing); full, whole layers. ``compile``: layers go through torch.compile. ``loss``:
    plain; copied, a copy of fp32 logits without the last row (transformers up to 4.45); compiled, one kernel; chunked; fused with
    the head.
    """

    seq: int
    micro_batch: int = 1
    precision: str = "bf16"
    optimizer: str = "adamw"
    foreach: bool = False
    state_embeddings: str = ""
    method: str = "full"
    rank: int = 8
    targets: tuple[str, ...] = ("q", "v")
    adapter_item: int = 4
    lora_dropout: float = 0.0
    kbit_prepare: bool = False
    attention: str = "flash"
    recompute: str = "none"
    accumulate: int = 1
    keep_logits: bool = False
    dropout: bool = True
    loss: str = "plain"
    compile: bool = False

    @property
    def adapts(self) -> bool:
        """Whether the base is frozen and something small beside it is trained."""
        return self.method in (*ADAPTERS, *PROMPTS)

    @property
    def autocast(self) -> bool:
        """Whether the forward pass runs under bf16 autocast."""
        return self.precision == "amp"

    @property
    def base_item(self) -> int:
        """Bytes of a weight of the base: under autocast fp32 where it is trained and bf16 where it is frozen."""
        return 4 if self.precision == "fp32" or (self.precision == "amp" and self.method == "full") else 2

    @property
    def computed_item(self) -> int:
        """Bytes of a weight as products read it, and as ZeRO-3 gathers it."""
        return 4 if self.precision == "fp32" else 2

    @property
    def rest_item(self) -> int:
        """Bytes of a weight that no quantiser touches."""
        return 4 if self.kbit_prepare else self.base_item

    @property
    def gradients_stand(self) -> bool:
        """Whether gradients are there before the step: Megatron's in fp32, and those of earlier micro-batches. LOMO keeps none."""
        return (self.accumulate > 1 or self.precision == "megatron") and self.optimizer != "lomo"

    def check(self) -> None:
        """Raises UsageError for what does not go together."""
        if self.kbit_prepare and self.method != "qlora":
            raise UsageError("--kbit-prepare goes with --method qlora")
        for name, word, allowed in (("recompute", self.recompute, RECOMPUTES), ("loss", self.loss, LOSSES)):
            if word not in allowed:
                raise UsageError(f"--{name} {word}: one of {', '.join(allowed)}")
        if self.attention == "flash" and self.precision == "fp32":
            raise UsageError("flash attention has no fp32 kernel: --attention efficient, or another --precision")
        if self.precision == "megatron" and self.method != "full":
            raise UsageError("--precision megatron trains all weights: --method full, or --precision amp")
        if self.foreach and not self.optimizer.startswith("adamw"):
            raise UsageError("--foreach is a form of adamw")
