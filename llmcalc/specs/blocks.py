"""What a layer may be made of: attention, recurrent mixers, FFNs and mixtures, and the stacks they stand in.

``Block`` holds what one layer is made of. Its fields stand at the top level of a plain model, and again,
as overrides, in ``encoder``, ``vision``, ``audio`` and in each of ``kinds``. A field that is None was not said; what it
then means is decided in one place, ``blueprint.plan``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from llmcalc.specs.record import STRICT, Count, CountOrZero, Layers, NotEmpty, Record, Text

Linear = Literal[
    "q", "k", "v", "o", "gate", "up", "down", "experts", "router", "output_gate", "qkv", "attention", "ffn", "projection", "all"
]


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
    fp32_router: bool | None = None
    """The router's product runs in fp32, on copies of its input and its weight (DeepSeek); false unless said."""
    correction_bias: Literal["buffer", "parameter"] | None = None
    """The router's load-balancing bias (DeepSeek-V3), and whether it counts as a parameter."""
    dense: Count | None = None
    """FFN dim of a dense FFN that runs beside the mixture (Arctic, Gemma 4)."""
    latent: Count | None = None
    """Dim that tokens are projected to for the routed experts, and back from (Nemotron 3 Super)."""
    gated: bool | None = None
    """Whether the experts are gated; as the block's FFN unless said."""
    idle: CountOrZero | None = None
    """Further rows of the router, for experts that compute nothing (LongCat); 0 unless said."""


class Mla(Record):
    """Multi-head latent attention (DeepSeek-V2, section 2.1)."""

    __pydantic_config__ = STRICT

    kv_rank: Count
    """Latent dim that keys and values are compressed to, and that the cache holds."""
    q_rank: Count | None = None
    """Latent dim of the queries; queries are not compressed unless said."""
    nope_dim: Count
    """Dim of a query or key head without position."""
    rope_dim: CountOrZero
    """Dim of the rotary part, one key for all heads; 0 without positions."""
    v_dim: Count
    """Dim of a value head."""


class Recurrent(Record):
    """A mixer with a state of fixed size in place of a growing cache."""

    __pydantic_config__ = STRICT

    type: Literal["mamba", "mamba2", "gated-delta", "kimi-delta", "rg-lru", "rwkv", "lightning", "short-conv", "mlstm"]
    """mamba (Gu and Dao 2023), mamba2 (Dao and Gu 2024), gated-delta (Qwen3-Next), kimi-delta (Kimi Linear), rg-lru (Griffin),
    rwkv (version 4), lightning (MiniMax-01), short-conv (LFM2), mlstm (xLSTM)."""
    width: Count | None = None
    """Inner width; heads x head_dim unless said, or hidden where there are no heads."""
    heads: Count | None = None
    """Heads (of the values, where keys have fewer); 1 unless said."""
    head_dim: Count | None = None
    """Dim of a head's values; width / heads unless said."""
    key_heads: Count | None = None
    """Heads of queries and keys; as many as heads unless said."""
    key_dim: Count | None = None
    """Dim of a head's queries and keys; head_dim unless said."""
    state: Count | None = None
    """State size of a channel (mamba, mamba2)."""
    groups: Count | None = None
    """Groups of heads that share B and C (mamba2); 1 unless said."""
    rank: Count | None = None
    """Rank of the step size (mamba) or of the gates (kimi-delta, full unless said)."""
    conv: Count | None = None
    """Width of the causal convolution, tokens; none unless said."""
    conv_bias: bool | None = None
    """A bias on the convolution; false unless said."""
    bias: bool | None = None
    """Biases on the projections; false unless said."""
    norm: Literal["none", "gated", "inputs"] | None = None
    """gated: a norm before the output projection (mamba2); inputs: of step size, B and C (Jamba); none unless said."""
    chunk: Count | None = None
    """Tokens of a chunk in which a long sequence is computed; matters for FLOPs alone."""


class Index(Record):
    """The index of sparse attention (DeepSeek-V3.2): which tokens a query attends to."""

    __pydantic_config__ = STRICT

    heads: Count
    """Heads of the index."""
    dim: Count
    """Dim of an index head; the cache holds one key of it per token."""
    top_k: Count
    """Tokens that a query attends to."""
    type: Literal["tokens", "pools", "blocks"] | None = None
    """What is scored: tokens (unless said); pools of tokens by a learned average (GLM-5.3); blocks by their mean, without weights
    for the heads (Qwen 4, and MiniMax-M3 whose blocks are scored by their best token: pool 1)."""
    pool: Count | None = None
    """Tokens of a pool or block; 1 unless said."""


class Extra(Record):
    """A further tensor: what the other fields cannot say, by its shape."""

    __pydantic_config__ = STRICT

    name: Text
    """Its role, as figures list it."""
    shape: Annotated[list[Count], NotEmpty()]
    """Rows (outputs) first."""
    part: Literal[
        "embedding", "positions", "projection", "attention", "cross_attention", "recurrent", "ffn", "experts", "shared_experts",
        "router", "norm", "pooler", "lm_head", "vision", "audio", "other",
    ] | None = None  # fmt: skip
    """The component it counts as; other unless said."""
    times: CountOrZero | None = None
    """Times a row is multiplied by it; 1 for two dims and more unless said, else 0: a gain, a bias, a table."""
    rows: Literal["token", "encoder_token", "logit", "sequence", "patch", "image_token", "none"] | None = None
    """What is multiplied by it; what the stack works on unless said."""
    copies: Count | None = None
    """How many there are in one place (experts); 1 unless said."""
    used: Count | None = None
    """How many of the copies one token uses; all unless said."""
    buffer: bool | None = None
    """A buffer, which counts as no parameter."""
    after: bool | None = None
    """Outside of layers: it stands after them (the last pipeline stage)."""


class State(Record):
    """What a sequence keeps in each layer, whatever its length, beside what the other fields imply."""

    __pydantic_config__ = STRICT

    name: Text
    """What figures call it."""
    shape: Annotated[list[Count], NotEmpty()]
    """Its dims, for one sequence."""
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    """Kept in this; in the cache's dtype unless said."""


class Block(Record):
    """What one layer is made of."""

    heads: Count | None = None
    """Query heads."""
    kv_heads: Count | None = None
    """Key and value heads; as many as heads unless said (1: multi-query, fewer than heads: grouped)."""
    head_dim: Count | None = None
    """Dim of one head; hidden / heads unless said."""
    v_head_dim: Count | None = None
    """Dim of a value head where it differs from head_dim."""
    attention: bool | None = None
    """Whether the layer has attention; true unless said, false where it is recurrent."""
    recurrent: Recurrent | None = None
    """A recurrent mixer; beside the attention where the layer says attention: true (Falcon-H1), else in its place."""
    ffn: CountOrZero | None = None
    """FFN dim of a dense layer (intermediate size); 0 for a layer without FFN."""
    gated: bool | None = None
    """Gated FFN of three matrices (SwiGLU, GeGLU); true unless said."""
    activation: Text | None = None
    """Activation function of the FFN; silu unless said."""
    biases: list[Linear] | None = None
    """Linears that have a bias: q, k, v, o, output_gate; gate, up, down of dense and shared FFNs; experts (routed ones), router;
    projection; or qkv, attention, ffn, all."""
    norm: Literal["rmsnorm", "layernorm", "none"] | None = None
    """rmsnorm unless said; none is a normalisation without parameters (OLMo 1)."""
    norm_bias: bool | None = None
    """A bias beside the norm's gain; true for layernorm, false for rmsnorm unless said."""
    norm_form: Literal["plain", "offset", "half", "upcast", "written"] | None = None
    """How a norm is computed, which matters for what training keeps. An RMSNorm multiplies by its gain in the activations' type
    (plain), by one plus its gain in fp32 (offset: Gemma), by its gain in fp32 (upcast: OLMo 2), or scales its input without
    upcasting it (half: T5). A LayerNorm is one kernel (plain), the same in fp32 (upcast: OLMo 1), or written out in fp32
    (written: Cohere). plain unless said."""
    norm_placement: Literal["pre", "post", "sandwich", "output"] | None = None
    """pre (GPT-2, Llama), post the residual sum (BERT), sandwich (Gemma 2: both), output of the sub-layer (OLMo 2)."""
    attention_norm: bool | None = None
    """false where the attention has no norm before it (ModernBERT's first layer); true unless said."""
    ffn_norm: bool | None = None
    """false where the FFN has no norm before it; true unless said."""
    parallel: Literal["none", "one-norm", "two-norms"] | None = None
    """Attention and FFN side by side on one norm (GPT-J, PaLM) or two (GPT-NeoX)."""
    qk_norm: Literal["none", "head", "per-head", "full"] | None = None
    """Norm of queries and keys: one gain of head_dim (Qwen3), one per head (Cohere), over all heads (OLMo 2)."""
    qk_norm_bias: bool | None = None
    """A bias beside the gains of queries and keys; as norm_bias unless said."""
    scores: Literal["fp32", "own", "upcast"] | None = None
    """The type of the attention's softmax: fp32 on scores in the activations' type (Llama), own for that type (GPT-2, T5), upcast
    where queries and keys are fp32 already (GPT-J). fp32 unless said with rotary and ALiBi positions, own with others."""
    softcap: bool | None = None
    """A tanh that caps the attention scores (Gemma 2); false unless said."""
    window: Count | None = None
    """Tokens a sliding-window layer attends to. Every layer has it unless a pattern says which."""
    chunked: bool | None = None
    """The window is a chunk: tokens attend within pieces of the sequence (Llama 4). It slides unless said."""
    output_gate: Literal["none", "full", "head"] | None = None
    """A sigmoid gate on the attention's output: over all of it (Qwen3-Next), or one per head; none unless said."""
    values_are_keys: bool | None = None
    """No value projection: the keys are cached as values too (Gemma 4's global layers)."""
    reuses_kv: Literal["none", "cache", "projections"] | None = None
    """Keys and values of an earlier layer: no cache of its own (cache), nor key and value projections (projections)."""
    attention_experts: Count | None = None
    """So many routed pairs of query and output projections (JetMoE); a token uses as many as there are heads per KV head."""
    differential: bool | None = None
    """The difference of two softmaxes (Differential Transformer): all heads run over each half of the values."""
    sinks: bool | None = None
    """One learned sink logit per head (gpt-oss)."""
    global_attention: bool | None = None
    """A second set of query, key and value projections for global tokens (Longformer)."""
    mla: Mla | None = None
    """Multi-head latent attention in place of the plain one."""
    index: Index | None = None
    """The index of sparse attention."""
    moe: Moe | None = None
    """A mixture of experts in place of the dense FFN."""
    fused: list[Literal["qkv", "gate_up"]] | None = None
    """Linears that are stored and computed as one (qkv: GPT-2, Phi-3); none unless said. Routed experts always are."""
    dropout: list[Literal["embedding", "attention", "residual", "ffn", "activation", "final"]] | None = None
    """Where the published training code drops out (its rate is of no matter for memory): after the embedding, of the attention's
    weights, of what sub-layers (residual) or FFNs alone (ffn) add, inside of FFNs, after the last norm; nowhere unless said."""
    shared_blocks: Count | None = None
    """So many attention and FFN blocks, taken in turn, serve all such layers, reading the hidden state and the embedding side by
    side (Zamba); the recurrent mixer stays each layer's own."""
    image_cache: Count | None = None
    """Elements that a layer keeps of each image token: keys and values of one that attends to images (Llama 3.2 Vision)."""
    extra: list[Extra] | None = None
    """Further tensors of each layer."""
    states: list[State] | None = None
    """Further states of fixed size: inputs that small convolutions beside the attention remember (Zaya, Inkling)."""


BLOCK_RECORDS = {"mla": Mla, "moe": Moe, "recurrent": Recurrent, "index": Index, "extra": Extra, "states": State}


class Kind(Block):
    """A kind of layer: what differs from the stack's other layers."""

    __pydantic_config__ = STRICT
    NESTED = BLOCK_RECORDS

    windowed: bool | None = None
    """Whether the sliding window holds in this kind of layer."""


class Stack(Block):
    """A further stack of layers: an encoder says what differs from the decoder, a vision tower all of itself."""

    __pydantic_config__ = STRICT
    NESTED = {**BLOCK_RECORDS, "outside": Extra, "kinds": Kind}

    layers: Layers
    """Layers of this stack."""
    pattern: Text | None = None
    """Kinds of layer in order, one letter each, repeated to the stack's depth."""
    kinds: dict[Text, Kind] | None = None
    """The letters' meaning: what each kind overrides."""
    hidden: Count | None = None
    """Width of this stack's residual stream; the model's unless said."""
    final_norm: bool | None = None
    """A norm after the stack's last layer; as the model's unless said."""
    outside: list[Extra] | None = None
    """Further tensors of the stack, outside of its layers."""
