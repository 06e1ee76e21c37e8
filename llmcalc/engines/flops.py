"""FLOPs of forward, backward, training, prefill and decoding.

Conventions: a product of m x k and k x n costs 2mkn (a multiply and an add); norms, activations,
softmax, rotary and look-ups count nothing; the backward pass costs twice the forward. Attention with the full mask counts the
whole square in every layer, with the causal mask the triangle, capped by windows (sources that
print MFU differ in this by the factor 2: PaLM, appendix B, does not halve; newer Megatron-LM does).
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, pairs, product
from llmcalc.quantity import Dim, Quantity, least

IMAGE = ("patch", "image_token")


class Workload(NamedTuple):
    """What runs: so many rows of each kind in one sequence, for ``batch`` sequences. Ints, or Dims to be explained."""

    rows: Mapping[str, Any]
    batch: Any
    causal: bool


class Flops(NamedTuple):
    """FLOPs for the whole batch of text; ``decode_per_token`` is one step for every sequence of it.

    ``decode_per_token`` is None where nothing is generated. ``vision_per_image`` is what the vision tower adds for one
    image, where there is one.
    """

    forward: int
    forward_full: int
    forward_causal: int
    prefill: int
    decode_per_token: int | None
    vision_per_image: int

    @property
    def backward(self) -> int:
        """Gradients of inputs and of weights: a product each per product of the forward pass."""
        return 2 * self.forward

    @property
    def training(self) -> int:
        """Forward and backward, nothing recomputed."""
        return 3 * self.forward


def workload(
    context: Any, batch: Any, encoder_context: Any, *, causal: bool, logits: Any, patches: Any = 0, image_tokens: Any = 0
) -> Workload:
    """``batch`` sequences of ``context`` tokens; ``logits`` positions need a prediction (one where a prompt is read)."""
    rows = {
        "token": context, "encoder_token": encoder_context, "sequence": 1, "logit": logits, "patch": patches,
        "image_token": image_tokens,
    }  # fmt: skip
    return Workload(rows, batch, causal)


def _forward(op: Op, work: Workload) -> Any:
    """FLOPs of one operation in a forward pass over whole sequences."""
    if op.kind == "matmul":
        return op.matmul_flops(1 if op.rows == "pass" else product((work.batch, work.rows[op.rows])))
    queries = work.rows[op.rows]
    keys = work.rows["encoder_token"] if op.cross else queries
    return op.attention_flops(product((work.batch, pairs(op, queries, keys, causal_mask=work.causal))))


def _decode(op: Op, work: Workload) -> Any:
    """FLOPs of one operation for one new token per sequence, keys and values read from the cache."""
    if op.kind == "matmul":
        return op.matmul_flops(work.batch)
    keys = work.rows["encoder_token"] if op.cross else work.rows["token"]
    if op.window is not None and not op.cross:
        keys = least(keys, op.window)
    return op.attention_flops(product((work.batch, keys)), cached=True)


def _of_text(blueprint: Blueprint) -> Iterator[Op]:
    """The operations on text that cost FLOPs: matrix products and attention."""
    return (op for op in blueprint.ops if op.kind in ("matmul", "attention") and op.rows not in IMAGE)


def _of_images(blueprint: Blueprint) -> Iterator[Op]:
    return (op for op in blueprint.ops if op.kind in ("matmul", "attention") and op.rows in IMAGE)


def _of_decoding(blueprint: Blueprint) -> Iterator[Op]:
    """What runs for each new token: not the encoder, nor the projections of what it wrote."""
    return (op for op in _of_text(blueprint) if op.rows != "encoder_token")


def count(blueprint: Blueprint, context: int, batch: int = 1, *, mask: str = "full", encoder_context: int = 0) -> Flops:
    """FLOPs of ``batch`` sequences of ``context`` tokens."""

    def forward(causal: bool, logits: int) -> int:
        work = workload(context, batch, encoder_context, causal=causal, logits=logits)
        return sum(int(_forward(op, work)) for op in _of_text(blueprint))

    step = workload(context, batch, encoder_context, causal=True, logits=1)
    image = workload(0, 1, 0, causal=False, logits=0, patches=blueprint.patches, image_tokens=blueprint.image_tokens)
    full, causal = forward(False, context), forward(True, context)
    return Flops(
        forward=causal if mask == "causal" else full,
        forward_full=full,
        forward_causal=causal,
        prefill=forward(mask == "causal", 1),
        decode_per_token=sum(int(_decode(op, step)) for op in _of_decoding(blueprint)) if blueprint.generates else None,
        vision_per_image=sum(int(_forward(op, image)) for op in _of_images(blueprint)),
    )


def _tree(label: str, terms: Iterator[tuple[Op, Any]], source: str) -> Quantity:
    parts: dict[str, list[Quantity]] = {}
    for op, value in terms:
        parts.setdefault(op.part, []).append(Quantity.of(op.name, value, "FLOP"))
    return Quantity.sum(label, "FLOP", [Quantity.sum(part, "FLOP", ops) for part, ops in parts.items()], source=source)


def explain(blueprint: Blueprint, context: int, batch: int = 1, *, mask: str = "full", encoder_context: int = 0) -> Quantity:
    """The forward FLOPs as a tree, by component and operation."""
    s = Dim(context, "s")
    work = workload(s, Dim(batch, "b"), Dim(encoder_context, "s_enc"), causal=mask == "causal", logits=s)
    terms = ((op, _forward(op, work)) for op in _of_text(blueprint))
    return _tree("forward_flops", terms, f"2mkn per matrix product; {mask} attention mask")


def explain_decode(blueprint: Blueprint, context: int, batch: int = 1, *, encoder_context: int = 0) -> Quantity:
    """The FLOPs of one decoding step as a tree."""
    work = workload(Dim(context, "s"), Dim(batch, "b"), Dim(encoder_context, "s_enc"), causal=True, logits=1)
    terms = ((op, _decode(op, work)) for op in _of_decoding(blueprint))
    return _tree("decode_flops_per_token", terms, "one new token per sequence, attending to s cached ones")
