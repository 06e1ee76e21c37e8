"""FLOPs of forward, backward, training, prefill and decoding.

Conventions: a product of m x k and k x n costs 2mkn (a multiply and an add); norms, activations,
softmax, rotary and look-ups count nothing; the backward pass costs twice the forward. Attention with the full mask counts the
whole square in every layer, with the causal mask the triangle, capped by windows (sources that
print MFU differ in this by the factor 2: PaLM, appendix B, does not halve; newer Megatron-LM does).
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from llmcalc.blueprint.parts import Blueprint, Op, pairs, product
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Dim, Quantity, ceil_div, least

IMAGE = ("patch", "image_token")
NOT_TEXT = (*IMAGE, "audio")


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
        "token": context, "scan_token": context, "encoder_token": encoder_context, "sequence": 1, "logit": logits,
        "patch": patches, "image_token": image_tokens,
    }  # fmt: skip
    return Workload(rows, batch, causal)


def _forward_units(op: Op, work: Workload) -> Any:
    """Rows, or query-key pairs, that an operation works through in a forward pass over the batch."""
    if op.kind == "matmul":
        if op.rows == "pass":
            return 1
        rows = work.rows[op.rows]
        return product((work.batch, rows if op.chunk == 1 else ceil_div(rows, op.chunk) * op.chunk))
    queries = work.rows[op.rows]
    keys = work.rows["encoder_token"] if op.cross else queries
    return product((work.batch, pairs(op, queries, keys, causal_mask=work.causal)))


def _decode_units(op: Op, work: Workload) -> Any:
    """The same for one new token per sequence, keys and values read from the cache."""
    if op.kind == "matmul":
        return work.batch
    keys = work.rows["encoder_token"] if op.cross else work.rows["token"]
    if op.window is not None and not op.cross:
        keys = least(keys, op.window)
    return product((work.batch, keys if op.pool == 1 else keys // op.pool))


def _flops(op: Op, units: Any, *, cached: bool = False) -> Any:
    return op.matmul_flops(units) if op.kind == "matmul" else op.attention_flops(units, cached=cached)


def _of_text(blueprint: Blueprint) -> Iterator[Op]:
    """The operations on text that cost FLOPs: matrix products and attention."""
    return (op for op in blueprint.ops if op.kind in ("matmul", "attention") and op.rows not in NOT_TEXT)


def _of_images(blueprint: Blueprint) -> Iterator[Op]:
    return (op for op in blueprint.ops if op.kind in ("matmul", "attention") and op.rows in IMAGE)


def _of_decoding(blueprint: Blueprint) -> Iterator[Op]:
    """What runs for each new token: not the encoder, nor the projections of what it wrote, nor work inside chunks."""
    return (op for op in _of_text(blueprint) if op.rows not in ("encoder_token", "scan_token"))


def _bare(op: Op) -> Op:
    """The operation with plain ints for what its rows and pairs are counted by."""
    return op._replace(window=None if op.window is None else int(op.window), pool=int(op.pool), chunk=int(op.chunk))


class Costs:
    """A model's FLOPs summed by what they grow with, for searches that ask many times.

    Matrix products grow with their rows, attention with its query-key pairs; operations that grow alike are one number.
    Raises NoAnswer for a blueprint without operations, of which tensors alone are known.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        if not blueprint.ops:
            raise NoAnswer(f"{blueprint.name}: the operations are not known: {blueprint.unknown_cache or 'only its weights are'}")
        self.blueprint = blueprint
        self.text = self._summed(_of_text(blueprint))
        self.images = self._summed(_of_images(blueprint))
        self.decoding = self._summed(_of_decoding(blueprint), cached=True)

    @staticmethod
    def _summed(ops: Iterator[Op], *, cached: bool = False) -> list[tuple[Op, int]]:
        """One operation of each kind of growth, and the FLOPs per row or pair of all of them."""
        alike: dict[tuple[Any, ...], tuple[Op, int]] = {}
        for op in ops:
            key = (op.kind, op.rows, op.window, op.causal, op.cross, op.chunked, op.pool, op.chunk)
            first, flops = alike.get(key, (op, 0))
            alike[key] = first, flops + int(_flops(op, 1, cached=cached))
        return [(_bare(op), flops) for op, flops in alike.values()]

    def forward(self, work: Workload, kinds: tuple[str, ...] = ()) -> int:
        """A forward pass over text, or of it the operations of these kinds."""
        return int(sum(flops * _forward_units(op, work) for op, flops in self.text if not kinds or op.kind in kinds))

    def decode(self, work: Workload) -> int | None:
        """One new token for each sequence; None where nothing is generated."""
        if not self.blueprint.generates:
            return None
        return int(sum(flops * _decode_units(op, work) for op, flops in self.decoding))

    def image(self) -> int:
        """One image through the vision tower."""
        b = self.blueprint
        work = workload(0, 1, 0, causal=False, logits=0, patches=b.patches, image_tokens=b.image_tokens)
        return int(sum(flops * _forward_units(op, work) for op, flops in self.images))

    def count(self, context: int, batch: int = 1, *, mask: str = "full", encoder_context: int = 0) -> Flops:
        """FLOPs of ``batch`` sequences of ``context`` tokens."""

        def forward(causal: bool, logits: int) -> int:
            return self.forward(workload(context, batch, encoder_context, causal=causal, logits=logits))

        step = workload(context, batch, encoder_context, causal=True, logits=1)
        full, causal = forward(False, context), forward(True, context)
        return Flops(
            forward=causal if mask == "causal" else full,
            forward_full=full,
            forward_causal=causal,
            prefill=forward(mask == "causal", 1),
            decode_per_token=self.decode(step),
            vision_per_image=self.image(),
        )


def count(blueprint: Blueprint, context: int, batch: int = 1, *, mask: str = "full", encoder_context: int = 0) -> Flops:
    """FLOPs of ``batch`` sequences of ``context`` tokens."""
    return Costs(blueprint).count(context, batch, mask=mask, encoder_context=encoder_context)


def _tree(label: str, terms: Iterator[tuple[Op, Any]], source: str) -> Quantity:
    parts: dict[str, list[Quantity]] = {}
    for op, value in terms:
        parts.setdefault(op.part, []).append(Quantity.of(op.name, value, "FLOP"))
    return Quantity.sum(label, "FLOP", [Quantity.sum(part, "FLOP", ops) for part, ops in parts.items()], source=source)


def explain(
    blueprint: Blueprint, context: int, batch: int = 1, *, mask: str = "full", encoder_context: int = 0, prefill: bool = False
) -> Quantity:
    """The forward FLOPs (or, with logits for the last position alone, prefill's) as a tree, by component and operation."""
    s = Dim(context, "s")
    work = workload(s, Dim(batch, "b"), Dim(encoder_context, "s_enc"), causal=mask == "causal", logits=1 if prefill else s)
    terms = ((op, _flops(op, _forward_units(op, work))) for op in _of_text(blueprint))
    rule = f"2mkn per matrix product; {mask} attention mask"
    if prefill:
        return _tree("prefill_flops", terms, f"{rule}; logits of the last position alone")
    return _tree("forward_flops", terms, rule)


def explain_training(forward: int) -> list[Quantity]:
    """Backward and training, from forward."""
    f = Dim(forward, "forward")
    rule = "a product each for the gradients of input and weight; nothing recomputed"
    return [Quantity.of("backward_flops", 2 * f, "FLOP", source=rule), Quantity.of("training_flops", 3 * f, "FLOP", source=rule)]


def explain_decode(blueprint: Blueprint, context: int, batch: int = 1, *, encoder_context: int = 0) -> Quantity:
    """The FLOPs of one decoding step as a tree."""
    work = workload(Dim(context, "s"), Dim(batch, "b"), Dim(encoder_context, "s_enc"), causal=True, logits=1)
    terms = ((op, _flops(op, _decode_units(op, work), cached=True)) for op in _of_decoding(blueprint))
    return _tree("decode_flops_per_token", terms, "one new token per sequence, attending to s cached ones")
