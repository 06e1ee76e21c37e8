"""What is measured: the models, and the cases that are run on them, small ones first. Needs the standard library alone."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

Config = dict[str, Any]

TRAIN, DECODE = "train", "decode"
KINDS = (TRAIN, DECODE)
PRECISIONS = ("bf16", "amp", "fp32")  # as llmcalc train says them
OPTIMIZERS = ("adamw", "adamw-foreach", "adamw8bit", "sgd", "")
METHODS = ("full", "lora", "")
TARGETS = ("q,v", "all", "")
ATTENTIONS = ("eager", "flash", "efficient", "sdpa")  # sdpa: the kernel that torch chooses; the row says which it was

# Values of the published config.json as far as they give a tensor its shape; what is left out is the class's default. From
# small to large, with the layers that are kept of those that would not leave room for a step (0: all of them).
MODELS: dict[str, tuple[int, Config]] = {
    "qwen2.5-0.5b": (0, {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "tie_word_embeddings": True,
    }),
    "llama3.2-1b": (0, {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    }),
    "pythia-1.4b": (0, {
        "model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
        "num_attention_heads": 16, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    }),
    "gpt2-xl": (0, {
        "model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 1600, "n_layer": 48, "n_head": 25,
    }),
    "mixtral-8x7b": (1, {
        "model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2,
        "max_position_embeddings": 32768, "sliding_window": None, "tie_word_embeddings": False,
    }),
    "qwen3-30b-a3b": (2, {
        "model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
        "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1, "norm_topk_prob": True,
        "mlp_only_layers": [], "max_position_embeddings": 40960, "tie_word_embeddings": False,
    }),
    "llama3-8b": (4, {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }),
    "gemma-2b": (0, {
        "model_type": "gemma", "vocab_size": 256000, "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    }),
}  # fmt: skip

# What the self-test runs: a step takes a CPU no time.
TINY: dict[str, tuple[int, Config]] = {
    "tiny-llama": (0, {
        "model_type": "llama", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": False,
    }),
    "tiny-mixtral": (1, {
        "model_type": "mixtral", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2,
        "max_position_embeddings": 128, "sliding_window": None, "tie_word_embeddings": False,
    }),
}  # fmt: skip


class Case(NamedTuple):
    """One thing to measure. Words are those of llmcalc train's options, so that it can be asked the same.

    ``layers`` 0 means all. ``seq`` is the prompt's length when decoding, ``micro_batch`` the number of sequences.
    """

    kind: str
    model: str
    layers: int = 0
    precision: str = "bf16"
    optimizer: str = "adamw"
    method: str = "full"
    rank: int = 0
    targets: str = ""
    adapter_dtype: str = ""
    attention: str = "flash"
    recompute: str = "none"
    seq: int = 1024
    micro_batch: int = 1
    accumulate: int = 1
    new_tokens: int = 0

    @property
    def id(self) -> str:
        """A name that no other case has, for --only and for going on where a run was cut off."""
        head = f"{self.kind}/{self.model}" + (f"@{self.layers}L" if self.layers else "")
        size = f"s{self.seq}xb{self.micro_batch}"
        if self.kind == DECODE:
            return f"{head}/{self.precision}/{self.attention}/{size}/n{self.new_tokens}"
        method = f"lora-{self.targets}-r{self.rank}-{self.adapter_dtype}" if self.method == "lora" else self.method
        parts = [head, self.precision, self.optimizer, method, self.attention]
        parts += ["recompute"] if self.recompute == "full" else []
        return "/".join([*parts, size, *([f"a{self.accumulate}"] if self.accumulate > 1 else [])])

    @property
    def config(self) -> Config:
        """The model's values with the layers that this case keeps, as a config.json has them."""
        values = dict((MODELS | TINY)[self.model][1])
        if self.layers:
            values["n_layer" if "n_layer" in values else "num_hidden_layers"] = self.layers
        return values


LORA: Config = {"method": "lora", "rank": 16}
# What is run on every model, and what is run besides on two that are small enough for anything.
COMMON: tuple[Config, ...] = (
    {"seq": 1024},
    {"seq": 1024, "micro_batch": 4},
    {"seq": 1024, "precision": "amp"},
    {"seq": 1024, "micro_batch": 4, "recompute": "full"},
    {"seq": 1024, "attention": "eager"},
)
CORE: tuple[Config, ...] = (
    {"seq": 512, "attention": "sdpa"},
    {"seq": 4096},
    {"seq": 2048, "micro_batch": 2, "attention": "eager"},
    {"seq": 2048, "micro_batch": 2, "precision": "amp"},
    {"seq": 2048, "micro_batch": 2, "precision": "amp", "recompute": "full"},
    {"seq": 1024, "precision": "fp32", "attention": "eager"},
    {"seq": 1024, "precision": "fp32", "attention": "sdpa"},
    {"seq": 8192, "recompute": "full"},
    {"seq": 1024, "accumulate": 4},
    {"seq": 1024, "precision": "amp", "accumulate": 4},
    {"seq": 1024, "optimizer": "adamw-foreach"},
    {"seq": 1024, "optimizer": "sgd"},
    {"seq": 1024, "optimizer": "adamw8bit"},
    {"seq": 4096, "recompute": "full", "optimizer": "adamw8bit"},
)
ADAPTERS: tuple[Config, ...] = tuple(
    {**LORA, "targets": targets, **size, **types}
    for targets in ("q,v", "all")
    for types in ({"precision": "amp", "adapter_dtype": "fp32"}, {"precision": "bf16", "adapter_dtype": "bf16"})
    for size in ({"seq": 1024}, {"seq": 2048, "micro_batch": 2}, {"seq": 4096, "recompute": "full"})
)
OWN: dict[str, tuple[Config, ...]] = {
    "qwen2.5-0.5b": (*CORE, *ADAPTERS),
    "llama3.2-1b": (*CORE, *ADAPTERS),
    "gpt2-xl": ({"precision": "fp32", "attention": "efficient"},),  # as many key heads as queries: that kernel wants it
    "mixtral-8x7b": ({"seq": 4096},),
    "qwen3-30b-a3b": ({"seq": 4096},),
    "llama3-8b": (*ADAPTERS[6:9], {"seq": 8192}, {"seq": 8192, "micro_batch": 2, "recompute": "full"}),
    "gemma-2b": ADAPTERS[6:9],
}
PROMPTS, BATCHES, NEW_TOKENS = (128, 1024, 4096), (1, 8), 64


def cases(models: dict[str, tuple[int, Config]] = MODELS) -> list[Case]:
    """All cases in the order they are run: model after model from small to large, in each the fewest tokens first."""
    found = []
    for model in models:
        found += sorted(_of(model), key=lambda case: case.seq * case.micro_batch * case.accumulate)
    return found


def _of(model: str) -> Iterator[Case]:
    """The cases of one model; those longer than it can read are left out."""
    layers, config = MODELS[model]
    longest: int = config["n_positions" if "n_positions" in config else "max_position_embeddings"]
    for options in (*COMMON, *OWN.get(model, ())):
        case = Case(TRAIN, model, layers, **options)
        if case.seq <= longest:
            yield case
    for prompt in PROMPTS:
        for batch in BATCHES:
            if prompt + NEW_TOKENS <= longest:
                yield Case(
                    DECODE, model, layers, optimizer="", method="", attention="sdpa", seq=prompt, micro_batch=batch,
                    new_tokens=NEW_TOKENS,
                )  # fmt: skip


def chosen(pattern: str) -> list[Case]:
    """The cases whose id holds the pattern, or matches it where it has a ``*``."""
    whole = pattern if "*" in pattern else f"*{pattern}*"
    return [case for case in cases() if fnmatchcase(case.id, whole)]
