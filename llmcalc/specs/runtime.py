"""What a runtime spec file may say: how a serving runtime takes memory, by version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from llmcalc.specs.gpu import Figure
from llmcalc.specs.record import STRICT, Count, Record, Strings, Text, Within

Share = Annotated[int, Within(1, 100)]
Bytes = Annotated[int, Within(0, 10**12)]


class Allocation(Record):
    """How it allocates. Sizes in bytes; what a runtime has no use for is left out."""

    __pydantic_config__ = STRICT

    utilization_percent: Share | None = None
    """Share of a GPU's memory that it takes (vLLM's gpu_memory_utilization, SGLang's mem_fraction_static)."""
    block: Count | None = None
    """Tokens of a block of the cache, or what cells are rounded up to."""
    prompt_tokens: Count | None = None
    """Tokens of prompts that are read at once (max_num_batched_tokens, chunked_prefill_size, ubatch)."""
    prompt_tokens_large: Count | None = None
    """The same on a large GPU, where that differs."""
    sequences: Count | None = None
    """Sequences at once that it prepares for (max_num_seqs, cuda_graph_max_bs)."""
    sequences_large: Count | None = None
    """The same on a large GPU."""
    logit_bytes: Count | None = None
    """Bytes that the sampler holds for each logit of each sequence."""
    graph_bytes: Bytes | None = None
    """CUDA graphs: what they take whatever the model."""
    graphs_in_budget: bool | None = None
    """Whether CUDA graphs are inside of the budget."""
    process_bytes: Bytes | None = None
    """What a process holds outside of its allocator: context, library workspaces."""
    peer_bytes: Bytes | None = None
    """The same for talking to other GPUs."""
    state_blocks: Count | None = None
    """Blocks of recurrent state that a sequence holds in each layer."""
    hybrid_groups: bool | None = None
    """Whether layers with a window give their blocks back; else all are kept as full attention."""
    vocab_multiple: Count | None = None
    """What the vocabulary is padded to before it is divided."""
    window_share_percent: Share | None = None
    """Tokens in the pool of windowed layers, of those in the pool of the others (swa_full_tokens_ratio)."""
    latent: Literal["latent", "latent and values", "expanded"] | None = None
    """What is cached of multi-head latent attention."""
    mask_bytes: Count | None = None
    """Bytes of one element of the attention mask on a GPU."""
    copies: Count | None = None
    """Copies of a graph's inputs, where layers are spread over GPUs and worked on as a pipeline."""


class Version(Allocation):
    """What was different in some versions."""

    __pydantic_config__ = STRICT

    before: Text | None = None
    """Holds for versions before this one."""
    since: Text | None = None
    """Holds from this version on, where a version is named."""
    why: Text
    """What changed, and where that is written."""


class Padding(Record):
    """What a kernel takes experts in: multiples that their dims are padded to, on a rank."""

    __pydantic_config__ = STRICT

    quants: Strings
    """Quantisations that it is for."""
    architectures: Sequence[Text] = ()
    """GPUs that it runs on; all unless said. The first that fits is taken."""
    inner: Count
    """Multiple of the experts' inner dim."""
    read: Count
    """Multiple of the model's width as it is read (gate, up)."""
    written: Count
    """Multiple of the model's width as it is written (down)."""


class RuntimeSpec(Record):
    """A runtime spec file. Its name is the file's name without ``.yaml``."""

    __pydantic_config__ = STRICT
    NESTED = {"allocation": Allocation, "versions": Version, "expert_padding": Padding}

    title: Text
    kind: Literal["paged", "static", "cells", "eager"]
    """How it allocates: paged (vLLM), static (SGLang), cells (llama.cpp), eager (transformers)."""
    aliases: Sequence[Text] = ()
    allocation: Allocation
    """What holds where no version is named."""
    versions: Sequence[Version] = ()
    """What differs by version; all that hold are applied, in order."""
    expert_padding: Sequence[Padding] = ()
    error_percent: Mapping[str, Figure] | None = None
    """Median error against logs, by figure; for memory that is estimated, of the GPU's memory."""
    sources: Strings
    note: Text | None = None
