"""What stands before the first and after the last layer: embeddings, positions, pooler, head; vision patches."""

from __future__ import annotations

from llmcalc.blueprint.draft import Draft, Place, after, before
from llmcalc.blueprint.layers import Norm
from llmcalc.blueprint.plan import biases_of, channels, has_head, norm_of, patch_rows, position_rows, relative_buckets
from llmcalc.quantity import Dim
from llmcalc.specs.model import ModelSpec, Vision


def _look_up(draft: Draft, at: Place, role: str, rows: Dim, h: Dim, index: str) -> None:
    """A further table beside the tokens', and the sum of the two."""
    name = draft.weight(at, role, "positions", "table", (rows, h))
    draft.op(at, role, "positions", "lookup", index, f"{role}_row", h, weight=name)
    draft.op(at, f"{role}_sum", "positions", "add", ("x", f"{role}_row"), "x", h)


def _positions(draft: Draft, at: Place, spec: ModelSpec, norm: Norm, h: Dim) -> None:
    """The tables that positions need, one per stack; rotary, sinusoidal and ALiBi need none."""
    rows = position_rows(spec)
    if spec.positions == "learned":
        _look_up(draft, at, "positions", Dim(rows, "P"), h, "position_ids")
    elif spec.positions == "disentangled":
        # DeBERTa: one table of relative positions for all layers, normalised before use.
        draft.weight(at, "positions", "positions", "table", (Dim(rows, "P"), h))
        draft.norm(at, "positions_norm", norm, h, "positions", "positions")
    elif spec.positions == "relative":
        # T5: the first layer's bias, one per bucket and head, serves all layers.
        buckets, a = Dim(relative_buckets(spec), "B"), Dim(spec.heads or 1, "a")
        name = draft.weight(at, "relative_bias", "positions", "table", (buckets, a), split="column")
        draft.op(at, "relative_bias", "positions", "lookup", "distances", "position_bias", a, weight=name, rows="pair")


def embedding(draft: Draft, spec: ModelSpec, stack_names: list[str], h: Dim) -> None:
    """Token, position and type tables with the norm and projection after them.

    The token table is one for all stacks; the rest each stack has for itself.
    """
    norm = norm_of(spec)
    vocab = Dim(spec.vocab or 0, "V")
    e = Dim(spec.embedding_dim, "e") if spec.embedding_dim else h
    first = before(stack_names[-1], "token")
    draft.weight(first, "embedding", "embedding", "table", (vocab, e), split="vocab")
    # An embedding that is as narrow as BERT's relatives have it (ALBERT) takes positions and norm before it is widened.
    narrow = e if spec.token_types or spec.embedding_norm else h
    for stack in stack_names:
        at = before(stack, "encoder_token" if stack == "encoder" and len(stack_names) > 1 else "token")
        draft.op(at, "embedding", "embedding", "lookup", "tokens", "x", e, weight=f"{first.prefix}.embedding")
        _positions(draft, at, spec, norm, narrow)
        if spec.token_types:
            _look_up(draft, at, "token_types", Dim(spec.token_types, "T"), narrow, "token_type_ids")
        if spec.embedding_norm:
            draft.norm(at, "embedding_norm", norm, narrow, "x", "x")
        if "embedding" in (spec.dropout or ()):
            draft.op(at, "embedding_dropout", "embedding", "dropout", "x", "x", narrow)
        if spec.embedding_dim:
            draft.linear(at, "embedding_projection", "projection", h, e, "x", "x", bias="projection" in biases_of(spec))


def _masked_head(draft: Draft, spec: ModelSpec, at: Place, h: Dim) -> None:
    """What an encoder is trained with (BERT, section 3.1): a linear, its activation and norm, and the embedding transposed."""
    into, biases = Dim(spec.embedding_dim, "e") if spec.embedding_dim else h, biases_of(spec)
    draft.linear(at, "head_transform", "lm_head", into, h, "x", "x", bias=bool(biases), rows="logit")
    draft.op(at, "head_activation", "lm_head", "activation", "x", "x", into, rows="logit", form=(spec.activation or "gelu",))
    draft.norm(at, "head_norm", norm_of(spec), into, "x", "x", part="lm_head")
    vocab = Dim(spec.vocab or 0, "V")
    draft.linear(at, "lm_head", "lm_head", vocab, into, "x", "logits", bias=True, split="vocab", rows="logit",
                 tied_to=f"{at.prefix}.embedding")  # fmt: skip
    draft.op(at, "loss", "lm_head", "loss", ("logits", "labels"), "loss", vocab, rows="logit")


def head(draft: Draft, spec: ModelSpec, at: Place, h: Dim, *, masked: bool = False) -> None:
    """Pooler, and the language-model head (its own matrix, or the embedding's).

    ``masked``: an encoder that comes without a head gets the one that it is trained with, and no pooler.
    """
    if masked and not has_head(spec):
        _masked_head(draft, spec, at, h)
        return
    if spec.pooler:
        draft.linear(at, "pooler", "pooler", h, h, "x", "pooled", bias=True, rows="sequence")
    if not has_head(spec):
        return
    vocab, into = Dim(spec.vocab or 0, "V"), h
    if spec.embedding_dim:
        into = Dim(spec.embedding_dim, "e")
        draft.linear(at, "head_projection", "projection", into, h, "x", "x", bias="projection" in biases_of(spec), rows="logit")
    if spec.tied_head and spec.positions == "relative":
        # T5 scales what its tied head reads by 1 / sqrt(h).
        draft.op(at, "head_scale", "lm_head", "scale", "x", "x", into, rows="logit")
    draft.linear(at, "lm_head", "lm_head", vocab, into, "x", "logits", bias=bool(spec.head_bias), split="vocab",
                 rows="logit", tied_to=f"{at.prefix}.embedding" if spec.tied_head else "")  # fmt: skip
    if spec.logit_softcap:
        draft.op(at, "logit_softcap", "lm_head", "softcap", "logits", "logits", vocab, rows="logit")
    # Models that only predict the next token shift their labels, and upcast their logits first.
    draft.op(at, "loss", "lm_head", "loss", ("logits", "labels"), "loss", vocab, rows="logit",
             form=("shifted", "upcast") if spec.type == "decoder" else ())  # fmt: skip


def patches(draft: Draft, vision: Vision, h: Dim) -> None:
    """Patch convolution and positions of a vision tower, and the projector to the decoder's width, after pooling."""
    at, part = before("vision", "patch"), "vision"
    width = Dim(vision.hidden or 0, "h_v")
    into = Dim(channels(vision), "c") * Dim(vision.patch, "p") * Dim(vision.patch, "p")
    if vision.frames:
        into = into * Dim(vision.frames, "t")
    norm = norm_of(vision)
    draft.weight(at, "patch", part, "conv", (width, into))
    if vision.patch_bias is not False:
        draft.weight(at, "patch.bias", part, "bias", (width,))
    draft.op(at, "patch", part, "matmul", "pixels", "x", width, inner=into, weight="vision.patch")
    if vision.class_token:
        draft.weight(at, "class_token", part, "table", (width,))
    rows = patch_rows(vision) if vision.position_rows is None else vision.position_rows
    if rows:
        draft.weight(at, "positions", part, "table", (Dim(rows, "P"), width))
    if vision.embedding_norm:
        draft.norm(at, "embedding_norm", norm, width, "x", "x", part=part)
    if vision.final_norm is not False:
        draft.norm(after("vision", "patch"), "final_norm", norm, width, "x", "x", part=part)
    end = after("vision", "image_token")
    if vision.projector == "norm-linear":
        draft.norm(end, "projector_norm", Norm("rmsnorm", True, False), width, "x", "x", part=part)
        draft.linear(end, "projector", part, h, width, "x", "x")
    elif vision.projector in ("linear", "mlp"):
        draft.linear(end, "projector", part, h, width, "x", "x", bias=True)
        if vision.projector == "mlp":
            draft.op(end, "projector_activation", part, "activation", "x", "x", h)
            draft.linear(end, "projector_2", part, h, h, "x", "x", bias=True)
