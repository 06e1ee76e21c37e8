"""Options of ``llmcalc train``: the step, what is trained, and how it is spread over many GPUs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

Precision = Annotated[
    Literal["fp32", "bf16", "amp", "megatron"],
    typer.Option(
        "--precision",
        help="bf16: weights, gradients and states; amp: bf16 autocast over fp32 weights (over a bf16 base where an adapter is "
        "trained); megatron: bf16 weights, fp32 gradients and master copy.",
    ),
]
Optimizer = Annotated[
    Literal[
        "adamw", "adamw8bit", "paged-adamw", "paged-adamw8bit", "adafactor", "lion", "sgd", "sgd-momentum", "muon", "galore", "lomo"
    ],
    typer.Option("--optimizer", help="adamw is torch's fused one; paged states stand in host memory."),
]
Method = Annotated[
    Literal["full", "lora", "dora", "qlora", "ia3", "adapter", "prefix", "prompt", "ln", "bitfit", "head"] | None,
    typer.Option(
        "--method",
        help="What is trained: everything, an adapter beside a frozen base, or a part of the model. "
        "Where none is named, --gpu compares the usual ones.",
        show_default="full",
    ),
]
Rank = Annotated[
    int | None,
    typer.Option(
        "--rank",
        min=1,
        max=2**20,
        metavar="N",
        help="LoRA's rank; the width of adapter; tokens of prefix, prompt.",
        show_default="8",
    ),
]
Targets = Annotated[
    str | None,
    typer.Option(
        "--targets", metavar="LIST", help="Linears to adapt: q,v or all or a list. q,v; for ia3 k,v,down.", show_default=False
    ),
]
AdapterDtype = Annotated[Literal["fp32", "bf16"], typer.Option("--adapter-dtype", help="Type of an adapter; peft makes it fp32.")]
Attention = Annotated[
    Literal["flash", "efficient", "eager"] | None,
    typer.Option("--attention", help="Kernel. flash, or efficient with fp32, which flash has not.", show_default=False),
]
Recompute = Annotated[
    Literal["none", "selective", "op", "full"],
    typer.Option(
        "--recompute",
        help="Recomputed in backward: nothing; attention's scores; op, all but attention and every second product (torchtitan's "
        "selective checkpointing, which may keep more than nothing where layers are small); whole layers from their input.",
    ),
]
Seq = Annotated[
    str | None,
    typer.Option(
        "--seq",
        metavar="TOKENS",
        help="Tokens per sequence; 2048, or the trained context where shorter. With --solve seq the most to look at.",
        show_default=False,
    ),
]
MicroBatch = Annotated[
    int | None, typer.Option("--micro-batch", min=1, max=2**20, metavar="N", help="Sequences in one pass.", show_default="1")
]
Accumulate = Annotated[
    int | None,
    typer.Option(
        "--accumulate",
        min=1,
        max=2**20,
        metavar="N",
        help="Micro-batches whose gradients are summed; of a pipeline as many as stages.",
        show_default="1",
    ),
]
Loss = Annotated[
    Literal["plain", "copied", "compiled", "chunked", "fused"],
    typer.Option(
        "--loss",
        help="plain: whole logits in fp32, as transformers does; copied: and a copy of them (transformers up to 4.45); compiled in "
        "one kernel; in chunks; fused with the head (Liger).",
    ),
]
Compile = Annotated[bool, typer.Option("--compile", help="Layers go through torch.compile.")]
GpuName = Annotated[
    str | None, typer.Option("--gpu", metavar="NAME", help="Does it fit on this GPU (llmcalc gpus).", show_default=False)
]
Reserve = Annotated[
    str, typer.Option("--reserve", metavar="BYTES", help="Kept free on the GPU: CUDA context, workspaces, allocator slack.")
]
LoraDropout = Annotated[float, typer.Option("--lora-dropout", min=0.0, max=0.999, metavar="P", help="Dropout before LoRA.")]
NoDropout = Annotated[bool, typer.Option("--no-dropout", help="Leave out the dropout that the model was published with.")]
KbitPrepare = Annotated[
    bool, typer.Option("--kbit-prepare", help="qlora: hold what is not quantised in fp32, as peft's helper does.")
]
Foreach = Annotated[bool, typer.Option("--foreach", help="AdamW's multi-tensor form, torch's default where it is not fused.")]
KeepLogits = Annotated[bool, typer.Option("--keep-logits", help="The caller keeps the model's outputs until the step.")]
StateEmbeddings = Annotated[
    Literal["fp32"] | None,
    typer.Option(
        "--state-embeddings", help="Keep embeddings out of 8-bit states, as transformers' Trainer does.", show_default=False
    ),
]
Solve = Annotated[
    Literal["micro-batch", "seq", "gpus", "rank", "method"] | None,
    typer.Option(
        "--solve",
        help="Largest micro-batch, sequence (in steps of 64 tokens, up to --seq or the trained context) or rank that fits on "
        "--gpu, the smallest number of GPUs, or the first of full, lora and qlora that fits.",
        show_default=False,
    ),
]
Methods = Annotated[bool, typer.Option("--methods", help="Compare the usual ways to train, whatever else is asked.")]
Plot = Annotated[
    str | None,
    typer.Option("--plot", metavar="FILE", help="Draw the memory through the step: FILE.svg or FILE.png.", show_default=False),
]

# Many GPUs.
MANY = "Many GPUs"


def _degree(name: str, text: str) -> Any:
    return typer.Option(name, min=1, max=2**20, metavar="N", help=text, rich_help_panel=MANY)


Gpus = Annotated[
    int | None,
    typer.Option(
        "--gpus", min=1, max=2**24, metavar="N", help="How many in all; --dp is what is left.", rich_help_panel=MANY,
        show_default="1",
    ),
]  # fmt: skip
Tp = Annotated[int, _degree("--tp", "Tensor parallel: columns and rows of each layer's matrices, and the vocabulary.")]
Pp = Annotated[int, _degree("--pp", "Pipeline stages.")]
Cp = Annotated[int, _degree("--cp", "Context parallel: tokens of a sequence.")]
Ep = Annotated[int, _degree("--ep", "Expert parallel: experts over ranks of --dp x --cp.")]
Dp = Annotated[
    int | None,
    typer.Option(
        "--dp", min=1, max=2**20, metavar="N", help="Data parallel.", rich_help_panel=MANY, show_default="from --gpus, or 1"
    ),
]
Zero = Annotated[
    Literal["0", "1", "2", "3", "fsdp"] | None,
    typer.Option(
        "--zero",
        help="What data-parallel ranks divide: 1 optimizer states, 2 gradients too, 3 weights too; fsdp: 3 by rows, as FSDP2. "
        "fsdp with --solve gpus.",
        rich_help_panel=MANY,
        show_default="0",
    ),
]
Shard = Annotated[
    int | None,
    typer.Option(
        "--shard", min=1, max=2**20, metavar="N", help="Ranks that divide one set of states (hybrid sharding).",
        rich_help_panel=MANY, show_default="all",
    ),
]  # fmt: skip
Offload = Annotated[
    Literal["optimizer", "all"] | None,
    typer.Option(
        "--offload", help="To host memory: optimizer states and gradients; all: weights too, with --zero 3 or fsdp.",
        rich_help_panel=MANY, show_default=False,
    ),
]  # fmt: skip
ReduceDtype = Annotated[
    Literal["fp32", "bf16"] | None,
    typer.Option(
        "--reduce-dtype", help="What gradients are held and summed in; their own type unless said.", rich_help_panel=MANY,
        show_default=False,
    ),
]  # fmt: skip
ShardDtype = Annotated[
    Literal["fp32", "bf16"] | None,
    typer.Option(
        "--shard-dtype", help="What --zero 3 and fsdp hold their parts and states in (FSDP's mixed precision).",
        rich_help_panel=MANY, show_default=False,
    ),
]  # fmt: skip
SequenceParallel = Annotated[
    bool,
    typer.Option("--sequence-parallel", help="Divide what --tp leaves whole by tokens (Megatron).", rich_help_panel=MANY),
]
Schedule = Annotated[
    Literal["gpipe", "1f1b", "interleaved"], typer.Option("--schedule", help="Of the pipeline.", rich_help_panel=MANY)
]
Chunks = Annotated[int, _degree("--chunks", "Chunks of layers on each stage, with --schedule interleaved.")]
