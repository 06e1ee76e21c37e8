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
    "encoders": "bert roberta xlm-roberta camembert data2vec-text roberta-prelayernorm xlm-roberta-xl megatron-bert ernie "
    "distilbert albert",
    "encoders_more": "electra deberta deberta-v2 longformer big_bird modernbert modernbert-decoder",
    "encoders_rotary": "mpnet esm nomic_bert gte jina_embeddings_v3 eurobert ultrabert esmc rembert roformer bert-generation "
    "layoutlm ibert splinter",
    "encoders_rare": "xlm flaubert fnet luke roc_bert xmod tapas nystromformer yoso mra xlnet convbert mobilebert",
    "encoders_pages": "lilt markuplm funnel squeezebert",
    "seq2seq": "t5 mt5 umt5 longt5 switch_transformers",
    "seq2seq_bart": "bart plbart mbart pegasus blenderbot blenderbot-small m2m_100",
    "seq2seq_more": "marian fsmt led mvp pegasus_x bigbird_pegasus nllb-moe prophetnet",
    "seq2seq_pairs": "encoder-decoder t5gemma",
    "speech": "whisper speech_to_text moonshine",
    "decoders": "openai-gpt xglm biogpt ctrl trocr",
    "classic": "gpt2 gpt-sw3 gpt_bigcode opt gptj codegen gpt_neo gpt_neox gpt_neox_japanese bloom mpt falcon phi persimmon "
    "stablelm starcoder2 nemotron",
    "dense": "llama granite mistral ministral ministral3 qwen2 qwen3 phi3 olmo olmo2 olmo3 glm glm4 cohere cohere2 ernie4_5 "
    "exaone4 smollm3 cwm apertus seed_oss arcee nanochat helium bitnet diffllama internlm3 iquestcoder jais2 hunyuan_v1_dense",
    "gemma": "gemma gemma2 vaultgemma gemma3_text gemma3n_text gemma4_text",
    "mixture": "mixtral phimoe qwen2_moe qwen3_moe qwen3_vl_moe_text olmoe flex_olmo granitemoe gpt_oss minimax_m2 ernie4_5_moe "
    "hunyuan_v1_moe dbrx glm4_moe dots1 solar_open afmoe exaone_moe mimo_v2_flash llama4_text",
    "latent": "deepseek_v2 deepseek_v3 deepseek_v32 glm_moe_dsa glm4_moe_lite minicpm3 longcat_flash deepseek_v4 youtu",
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
