"""What a model spec file may say: plain records, next to no defaults filled in.

A field that is None was not said; what it then means is decided in one place, ``blueprint.plan``. The records are
plain classes, so that running a command on a catalogue model does not have to import pydantic; ``specs.validate`` hands
them to pydantic when a file is read.

``Block`` holds what one layer is made of. Its fields stand at the top level of a plain model, and again,
as overrides, in ``encoder``, ``vision`` and in each of ``kinds``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal


class Record:
    """A spec's record: annotated fields with their defaults, filled by name.

    ``specs.validate`` makes dataclasses of these classes for pydantic; a run that validates nothing is spared the cost.
    """

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Within:
    """A bound on a number, in a form that pydantic understands without being imported here."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "ge": self.least, "le": self.most}


class NotEmpty:
    """A text or list that holds something, and not more than a spec ever needs."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "min_length": 1, "max_length": 10_000}


# Larger than any model's by orders of magnitude, small enough that products of a few stay cheap.
Count = Annotated[int, Within(1, 10**8)]
CountOrZero = Annotated[int, Within(0, 10**8)]
Layers = Annotated[int, Within(1, 10_000)]
Published = Annotated[int, Within(1, 10**18)]
Text = Annotated[str, NotEmpty()]
Strings = Annotated[list[Text], NotEmpty()]

Linear = Literal["q", "k", "v", "o", "gate", "up", "down", "router", "qkv", "attention", "ffn", "projection", "all"]
# Read by pydantic when a file is validated; a class's NESTED names its fields that are records themselves.
STRICT = {"extra": "forbid", "strict": True, "use_attribute_docstrings": True}


class Moe(Record):
    """A mixture-of-experts FFN."""

    __pydantic_config__ = STRICT

    experts: Count
    """Routed experts of a layer."""
    top_k: Count
    """Routed experts that a token uses."""
    ffn: Count
    """FFN dim of one routed expert."""
    shared: CountOrZero | None = None
    """Shared experts, used by every token; 0 unless said."""
    shared_ffn: Count | None = None
    """FFN dim of all shared experts together; shared x ffn unless said."""
    shared_gate: bool | None = None
    """A sigmoid gate (hidden -> 1) before the shared expert, as in Qwen2-MoE."""
    first_dense: CountOrZero | None = None
    """The first layers that keep a dense FFN."""
    every: Count | None = None
    """Every n-th layer is a mixture, the n-th first; 1 unless said."""
    correction_bias: Literal["buffer", "parameter"] | None = None
    """The router's load-balancing bias (DeepSeek-V3), and whether it counts as a parameter."""


class Mla(Record):
    """Multi-head latent attention (DeepSeek-V2, section 2.1)."""

    __pydantic_config__ = STRICT

    kv_rank: Count
    """Latent dim that keys and values are compressed to, and that the cache holds."""
    q_rank: Count | None = None
    """Latent dim of the queries; queries are not compressed unless said."""
    nope_dim: Count
    """Dim of a query or key head without position."""
    rope_dim: Count
    """Dim of the rotary part, one key for all heads."""
    v_dim: Count
    """Dim of a value head."""


class Block(Record):
    """What one layer is made of."""

    heads: Count | None = None
    """Query heads."""
    kv_heads: Count | None = None
    """Key and value heads; as many as heads unless said (1: multi-query, fewer than heads: grouped)."""
    head_dim: Count | None = None
    """Dim of one head; hidden / heads unless said."""
    ffn: Count | None = None
    """FFN dim of a dense layer (intermediate size)."""
    gated: bool | None = None
    """Gated FFN of three matrices (SwiGLU, GeGLU); true unless said."""
    activation: Text | None = None
    """Activation function of the FFN; silu unless said."""
    biases: list[Linear] | None = None
    """Linears that have a bias: q, k, v, o, gate, up, down, router, projection; or qkv, attention, ffn, all."""
    norm: Literal["rmsnorm", "layernorm", "none"] | None = None
    """rmsnorm unless said; none is a normalisation without parameters (OLMo 1)."""
    norm_bias: bool | None = None
    """A bias beside the norm's gain; true for layernorm, false for rmsnorm unless said."""
    norm_placement: Literal["pre", "post", "sandwich", "output"] | None = None
    """pre (GPT-2, Llama), post the residual sum (BERT), sandwich (Gemma 2: both), output of the sub-layer (OLMo 2)."""
    attention_norm: bool | None = None
    """false where the attention has no norm before it (ModernBERT's first layer); true unless said."""
    parallel: Literal["none", "one-norm", "two-norms"] | None = None
    """Attention and FFN side by side on one norm (GPT-J, PaLM) or two (GPT-NeoX)."""
    qk_norm: Literal["none", "head", "per-head", "full"] | None = None
    """Norm of queries and keys: one gain of head_dim (Qwen3), one per head (Cohere), over all heads (OLMo 2)."""
    window: Count | None = None
    """Tokens a sliding-window layer attends to. Every layer has it unless a pattern says which."""
    sinks: bool | None = None
    """One learned sink logit per head (gpt-oss)."""
    global_attention: bool | None = None
    """A second set of query, key and value projections for global tokens (Longformer)."""
    mla: Mla | None = None
    """Multi-head latent attention in place of the plain one."""
    moe: Moe | None = None
    """A mixture of experts in place of the dense FFN."""


class Kind(Block):
    """A kind of layer: what differs from the stack's other layers."""

    __pydantic_config__ = STRICT
    NESTED = {"mla": Mla, "moe": Moe}

    windowed: bool | None = None
    """Whether the sliding window holds in this kind of layer."""


class Stack(Block):
    """A further stack of layers: an encoder says what differs from the decoder, a vision tower all of itself."""

    __pydantic_config__ = STRICT
    NESTED = {"mla": Mla, "moe": Moe, "kinds": Kind}

    layers: Layers
    """Layers of this stack."""
    pattern: Text | None = None
    """Kinds of layer in order, one letter each, repeated to the stack's depth."""
    kinds: dict[Text, Kind] | None = None
    """The letters' meaning: what each kind overrides."""


class Vision(Stack):
    """A vision tower and its projector: patches in, ``hidden`` wide tokens out."""

    hidden: Count
    """Width of the tower."""
    image: Count
    """Side of the square input, pixels."""
    patch: Count
    """Side of a patch, pixels."""
    channels: Count | None = None
    """Input channels; 3 unless said."""
    tokens: Count | None = None
    """Tokens an image becomes for the decoder, after pooling; one per patch unless said."""
    projector: Literal["norm-linear"] | None = None
    """How the tower's output reaches the decoder: norm-linear is RMSNorm and one matrix without bias (Gemma 3)."""

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image // self.patch) ** 2


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
    NESTED = {**Stack.NESTED, "encoder": Stack, "vision": Vision, "published": PublishedFigures}

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
    head_bias: bool | None = None
    """A bias on the head."""
