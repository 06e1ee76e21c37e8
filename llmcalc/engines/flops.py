"""FLOPs of forward, backward, training, prefill and decoding.

Conventions: a product of m x k and k x n costs 2mkn (a multiply and an add); norms, activations,
softmax, rotary and look-ups count nothing; the backward pass costs twice the forward. Attention with the full mask counts the
whole square in every layer, with the causal mask the triangle, capped by windows (sources that
print MFU differ in this by the factor 2: PaLM, appendix B, does not halve; newer Megatron-LM does).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, pairs, product
from llmcalc.quantity import Dim, Quantity, least


class Workload(NamedTuple):
    """Shapes of what runs: ``batch`` sequences of ``context`` tokens; ints, or Dims to be explained."""

    context: Any
    batch: Any
    encoder_context: Any
    causal: bool
    # Positions that need logits: all of them in training, the last one when a prompt is read.
    logits: Any


class Flops(NamedTuple):
    """FLOPs for the whole batch of text; ``decode_per_token`` is one step for every sequence of it.

    ``vision_per_image`` is what the vision tower adds for one image, where there is one.
    """

    forward: int
    forward_full: int
    forward_causal: int
    prefill: int
    decode_per_token: int
    vision_per_image: int

    @property
    def backward(self) -> int:
        """Gradients of inputs and of weights: a product each per product of the forward pass."""
        return 2 * self.forward

    @property
    def training(self) -> int:
        """Forward and backward, nothing recomputed."""
        return 3 * self.forward


def _rows(op: Op, work: Workload, patches: Any) -> Any:
    if op.rows == "pass":
        return 1
    per_sequence = {
        "token": work.context, "encoder_token": work.encoder_context, "patch": patches, "sequence": 1, "logit": work.logits,
    }[op.rows]  # fmt: skip
    return product((work.batch, per_sequence))


def _forward(op: Op, work: Workload, patches: Any) -> Any:
    """FLOPs of one operation in a forward pass over whole sequences."""
    if op.kind == "matmul":
        return op.matmul_flops(_rows(op, work, patches))
    queries = {"token": work.context, "encoder_token": work.encoder_context, "patch": patches}[op.rows]
    keys = work.encoder_context if op.cross else queries
    return op.attention_flops(product((work.batch, pairs(op, queries, keys, causal_mask=work.causal))))


def _decode(op: Op, work: Workload) -> Any:
    """FLOPs of one operation for one new token per sequence, keys and values read from the cache."""
    if op.kind == "matmul":
        return op.matmul_flops(work.batch)
    keys = work.encoder_context if op.cross else work.context
    if op.window is not None and not op.cross:
        keys = least(keys, op.window)
    return op.attention_flops(product((work.batch, keys)), cached=True)


def counted(blueprint: Blueprint) -> Iterator[Op]:
    """The operations on text that cost FLOPs: matrix products and attention."""
    return (op for op in blueprint.ops if op.kind in ("matmul", "attention") and op.rows != "patch")


def _of_images(blueprint: Blueprint) -> Iterator[Op]:
    return (op for op in blueprint.ops if op.kind in ("matmul", "attention") and op.rows == "patch")


def _decoding(blueprint: Blueprint) -> Iterator[Op]:
    """What runs for each new token: not the encoder, nor the projections of what it wrote."""
    return (op for op in counted(blueprint) if op.rows != "encoder_token")


def count(blueprint: Blueprint, context: int, batch: int = 1, *, mask: str = "full", encoder_context: int = 0) -> Flops:
    """FLOPs of ``batch`` sequences of ``context`` tokens."""
    patches = blueprint.patches

    def forward(causal: bool, logits: int) -> int:
        work = Workload(context, batch, encoder_context, causal, logits)
        return sum(int(_forward(op, work, patches)) for op in counted(blueprint))

    work = Workload(context, batch, encoder_context, True, 1)
    full, causal = forward(False, context), forward(True, context)
    return Flops(
        forward=causal if mask == "causal" else full,
        forward_full=full,
        forward_causal=causal,
        prefill=forward(mask == "causal", 1),
        decode_per_token=sum(int(_decode(op, work)) for op in _decoding(blueprint)),
        vision_per_image=sum(int(_forward(op, work._replace(batch=1), patches)) for op in _of_images(blueprint)),
    )


def _tree(label: str, terms: Iterator[tuple[Op, Any]], source: str) -> Quantity:
    parts: dict[str, list[Quantity]] = {}
    for op, value in terms:
        parts.setdefault(op.part, []).append(Quantity.of(op.name, value, "FLOP"))
    return Quantity.sum(label, "FLOP", [Quantity.sum(part, "FLOP", ops) for part, ops in parts.items()], source=source)


def explain(blueprint: Blueprint, context: int, batch: int = 1, *, mask: str = "full", encoder_context: int = 0) -> Quantity:
    """The forward FLOPs as a tree, by component and operation."""
    s = Dim(context, "s")
    work = Workload(s, Dim(batch, "b"), Dim(encoder_context, "s_enc"), mask == "causal", s)
    patches = Dim(blueprint.patches, "n_p")
    terms = ((op, _forward(op, work, patches)) for op in counted(blueprint))
    return _tree("forward_flops", terms, f"2mkn per matrix product; {mask} attention mask")


def explain_decode(blueprint: Blueprint, context: int, batch: int = 1, *, encoder_context: int = 0) -> Quantity:
    """The FLOPs of one decoding step as a tree."""
    work = Workload(Dim(context, "s"), Dim(batch, "b"), Dim(encoder_context, "s_enc"), True, 1)
    terms = ((op, _decode(op, work)) for op in _decoding(blueprint))
    return _tree("decode_flops_per_token", terms, "one new token per sequence, attending to s cached ones")
