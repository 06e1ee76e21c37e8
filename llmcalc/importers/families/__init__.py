"""What reads which ``model_type``: small functions, Config -> the fields of a spec, one module per kind of architecture.

A family's function says the fields of a spec file (docs/spec-format.md) in plain data. ``blocks`` may list the layers one by
one, each with what it has beside the fields that all layers share; they are folded into a pattern of kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from llmcalc.specs.blocks import Block

Family = Callable[[Any, Any], dict[str, Any]]
BLOCK_FIELDS = frozenset(Block.__annotations__)

# Types that no transformers release has, read as the type whose weights and names of keys they share.
RENAMED = {"kimi_k2": "deepseek_v3"}

# module -> the types it reads. Only the module that is needed is imported.
MODULES = {
    "dense": "llama mistral qwen2 qwen3",
    "encoders": "bert roberta xlm-roberta camembert data2vec-text roberta-prelayernorm xlm-roberta-xl megatron-bert ernie distilbert albert",
    "encoders_more": "electra deberta deberta-v2 longformer big_bird modernbert modernbert-decoder",
    "encoders_rotary": "mpnet esm nomic_bert gte jina_embeddings_v3 eurobert ultrabert esmc rembert roformer bert-generation layoutlm ibert "
    "splinter",
    "seq2seq": "t5 mt5 umt5 longt5 switch_transformers",
    "seq2seq_bart": "bart plbart mbart pegasus blenderbot blenderbot-small m2m_100",
    "seq2seq_more": "marian fsmt led mvp pegasus_x bigbird_pegasus nllb-moe prophetnet",
    "seq2seq_pairs": "encoder-decoder t5gemma",
    "speech": "whisper speech_to_text moonshine",
    "decoders": "openai-gpt xglm biogpt ctrl trocr",
}


@cache
def _modules() -> dict[str, str]:
    return {model_type: module for module, types in MODULES.items() for model_type in types.split()}


def known() -> list[str]:
    """Every type that can be read."""
    return sorted({*_modules(), *RENAMED})


def find(model_type: str) -> Family | None:
    """The function that reads a type."""
    module = _modules().get(model_type)
    if module is None:
        return None
    found: Family = import_module(f"llmcalc.importers.families.{module}").FAMILIES[model_type]
    return found
