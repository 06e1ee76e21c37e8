"""What a model spec file may say: plain records, next to no defaults filled in.

A field that is None was not said; what it then means is decided in one place, ``blueprint.plan``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from llmcalc.specs.blocks import Block, Extra, Kind, Stack
from llmcalc.specs.record import STRICT, Count, CountOrZero, Layers, Published, Record, Strings, Text


class Vision(Stack):
    """A vision tower and its projector: patches in, ``hidden`` wide tokens out."""

    image: Count | None = None
    """Side of the square input, pixels; a tower without one takes images of any size, and no FLOPs are given for an image."""
    patch: Count
    """Side of a patch, pixels."""
    channels: Count | None = None
    """Input channels; 3 unless said."""
    tokens: Count | None = None
    """Tokens an image becomes for the decoder, after pooling; one per patch unless said."""
    frames: Count | None = None
    """Frames that a patch spans (Qwen2-VL: 2); 1 unless said."""
    patch_bias: bool | None = None
    """A bias on the patch convolution; true unless said."""
    class_token: bool | None = None
    """A learned token before the patches (CLIP), with a position of its own; false unless said."""
    position_rows: CountOrZero | None = None
    """Rows of the learned positions; one per patch unless said, 0 for rotary ones."""
    embedding_norm: bool | None = None
    """A norm right after the patches (CLIP); false unless said."""
    projector: Literal["norm-linear", "linear", "mlp", "none"] | None = None
    """How the tower's output reaches the decoder: RMSNorm and one matrix without bias (norm-linear, Gemma 3), one matrix with
    bias, or two with an activation between (mlp, LLaVA); none where outside says it."""

    @property
    def patches(self) -> int:
        """Patches of an image; pixels past the last whole patch are not read. 0 where images have no one size."""
        return (self.image // self.patch) ** 2 if self.image else 0


class PublishedFigures(Record):
    """What the makers say, rounded as they say it."""

    __pydantic_config__ = STRICT

    params: Published | None = None
    active: Published | None = None
    tokens: Published | None = None
    """Training tokens."""
    note: Text | None = None


class ModelSpec(Block):
    """A model spec file. Its name is the file's name without ``.yaml``."""

    __pydantic_config__ = STRICT
    NESTED = {**Stack.NESTED, "encoder": Stack, "vision": Vision, "audio": Stack, "published": PublishedFigures}

    title: Text | None = None
    """The name as its makers write it."""
    family: Text
    """Models of one kind, for listing and filtering."""
    aliases: Sequence[Text] = ()
    """Other names that people type."""
    hub: Sequence[Text] = ()
    """Hugging Face ids with this architecture."""
    sources: Strings
    """Where the values come from."""
    status: Literal["published", "estimate", "unpublished"] = "published"
    """estimate: never published, values are hearsay; unpublished: nothing to compute with, note says why."""
    note: Text | None = None
    """What a user of the figures should know."""
    published: PublishedFigures | None = None

    type: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    layers: Layers | None = None
    """Layers (of the decoder, where there are two stacks)."""
    hidden: Count | None = None
    """Width of the residual stream (d_model)."""
    vocab: Count | None = None
    """Rows of the token embedding, padding included."""
    context: Count | None = None
    """Tokens of context the model was trained for."""
    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """What the weights are published in, but for those that native_quant covers."""
    native_quant: Text | None = None
    """The quantisation the weights are published in (gpt-oss: mxfp4); none unless said."""
    pattern: Text | None = None
    """Kinds of layer in order, one letter each, repeated to the model's depth: SSSL. S is windowed, L is full."""
    kinds: dict[Text, Kind] | None = None
    """Further letters of the pattern: what each kind of layer overrides."""
    distinct_layers: Layers | None = None
    """Layers that have weights of their own, the others reuse them (ALBERT: 1); all unless said."""
    encoder: Stack | None = None
    """The encoder of an encoder-decoder: its layers and what differs from the decoder."""
    vision: Vision | None = None
    """A vision tower in front of the decoder."""
    audio: Stack | None = None
    """An audio tower in front of the decoder; it says all of itself."""
    outside: list[Extra] | None = None
    """Further tensors outside of the layers."""
    unknown_cache: Text | None = None
    """Why nobody can say what the cache takes; asked for it, llmcalc refuses with this."""

    positions: Literal["rotary", "learned", "sinusoidal", "alibi", "relative", "disentangled", "none"] = "rotary"
    """learned: a table; relative: T5's buckets; disentangled: DeBERTa's table of relative positions."""
    position_rows: Count | None = None
    """Rows of the learned or the disentangled table; context unless said."""
    rotary_dim: Count | None = None
    """Dims of a head that are rotated; all unless said."""
    relative_buckets: Count | None = None
    """Buckets of the relative position bias, one bias per head; 32 unless said."""
    token_types: CountOrZero | None = None
    """Rows of the token type (segment) table; none unless said."""
    embedding_dim: Count | None = None
    """Width of the embedding where it differs from hidden, with a projection between (ALBERT)."""
    embedding_norm: bool | None = None
    """A norm right after the embedding."""
    final_norm: bool | None = None
    """A norm after the last layer; true unless norm_placement is post."""
    pooler: bool | None = None
    """BERT's pooler: one linear on the first token."""
    head: bool | None = None
    """A language-model head; true but for encoders."""
    tied_head: bool | None = None
    """The head is the transposed embedding and adds no parameters; false unless said."""
    logit_softcap: bool | None = None
    """A tanh that caps the logits (Gemma 2); false unless said."""
    head_bias: bool | None = None
    """A bias on the head."""
