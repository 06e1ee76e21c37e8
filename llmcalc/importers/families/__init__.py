"""What reads which ``model_type``: small functions, Config -> the fields of a spec, one module per kind of architecture.

A family's function says the fields of a spec file (docs/spec-format.md) in plain data. ``blocks`` may list the layers one by
one, each with what it has beside the fields that all layers share; they are folded into a pattern of kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from llmcalc.specs.blocks import Block

Family = Callable[[Any, Any], dict[str, Any]]
BLOCK_FIELDS = frozenset(Block.__annotations__)

# Types that no transformers release has, read as the type whose weights and names of keys they share.
RENAMED = {"kimi_k2": "deepseek_v3", "stablelm_epoch": "stablelm", "exaone4_5_text": "exaone4", "new": "gte"}

# What is not read, and why; the rest of what transformers has is met with the nearest names.
REFUSED = {
    "blt": "bytes go through an encoder, a patcher, a model of patches and a decoder, which no spec can say",
    "cpmant": "prompt tokens of the model's own stand before every text, in its cache and its FLOPs, which no spec can say",
    "csm": "a backbone over text and audio codes with a second decoder over the codes of one frame, which no spec can say",
    "dia": "an encoder of bytes and a decoder over nine codes at once, which no spec can say",
    "musicgen": "a decoder over several codes at once between two other models, which no spec can say",
    "musicgen_melody": "a decoder over several codes at once between two other models, which no spec can say",
    "rwkv5": "version 5 and later of RWKV have states and mixes that are not established here",
    "rwkv6": "version 5 and later of RWKV have states and mixes that are not established here",
    "hunyuan": "the keys of Hunyuan's first configs are not established here; hunyuan_v1_dense and hunyuan_v1_moe are read",
    "gpt_refact": "whether Refact's head is tied is not established here",
    "stablelm_alpha": "the keys of its configs are not established here; stablelm and stablelm_epoch are read",
}

# module -> the types it reads. Only the module that is needed is imported.
MODULES = {
    "encoders": "bert roberta xlm-roberta camembert data2vec-text roberta-prelayernorm xlm-roberta-xl megatron-bert ernie "
    "distilbert albert ibert",
    "encoders_more": "electra deberta deberta-v2 longformer big_bird modernbert modernbert-decoder",
    "encoders_rotary": "mpnet esm nomic_bert gte jina_embeddings_v3 eurobert ultrabert esmc rembert roformer bert-generation "
    "layoutlm splinter",
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
    "recurrent": "mamba falcon_mamba mamba2 rwkv xlstm",
    "hybrid": "jamba bamba falcon_h1 nemotron_h zamba zamba2",
    "hybrid_granite": "granitemoehybrid granitemoeshared granite_swa granitemoe_swa",
    "hybrid_linear": "qwen3_next qwen3_5_text qwen3_5_moe_text lfm2 lfm2_moe lfm3 recurrent_gemma minimax kimi_linear "
    "bailing_hybrid olmo_hybrid",
    "hybrid_sparse": "glm5_next_text qwen4_exp_text",
    "hybrid_conv": "zaya inkling_text inkling2_text hrm_text",
    "dense_more": "hyperclovax cohere_compass_text gemma4_unified_text gemma4_assistant doge moshi",
    "mixture_more": "laguna mellum hy_v3 cohere2_moe flint kolibri1 beam step3p5 minimax_m3_vl_text jetmoe",
    "latent_more": "axk1 axk2 hy_v4 mistral4 dots3_note_text",
    "remote": "aquila xverse skywork baichuan orion internlm internlm2 qwen chatglm exaone telechat minicpm deepseek bailing_moe "
    "bailing_moe_v2 arctic grok-1",
    "remote_more": "jais btlm codeshell phi-msft mixformer-sequential phi3small plamo openelm nemotron-nas deci RefinedWeb "
    "RefinedWebModel minimax_text_01 minimax_m1 mamba_ssm mimo",
    "remote_vision": "internvl_chat phi3_v kimi_vl",
    "vision": (
        "llava llava_next llava_next_video llava_onevision qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen3_5 qwen3_5_moe exaone4_5 "
        "glm4v glm4v_moe glm46v mistral3 lighton_ocr idefics3 smolvlm gemma3 shieldgemma2 video_llava vipllava paligemma llama4 "
        "idefics2 internvl glmga glm_ocr cosmos3_omni qianfan_ocr video_llama_3 deepseek_vl hyperclovax_vision_v2"
    ),
    "vision_more": (
        "aya_vision cohere2_vision blip-2 instructblip lfm2_vl kimi_k25 ernie4_5_vl_moe aria paddleocr_vl minimax_m3_vl ovis2 "
        "molmo2 got_ocr2 janus deepseek_vl_hybrid mllama florence2 instructblipvideo pp_chart2table"
    ),
    "vision_early": "fuyu chameleon emu3 idefics blip git kosmos-2 kosmos_2_text_model",
    "vision_late": "gemma4 phi4_multimodal granite4_vision hunyuan_vl step3p7 diffusion_gemma_text diffusion_gemma nemotron_h_omni "
    "gemma3n perception_lm",
    "audio": "qwen2_audio voxtral audioflamingo3 qwen2_5_omni_thinker qwen3_omni_moe_thinker granite_speech granite_speech_plus "
    "musicflamingo qwen3_asr",
    "vision_text": (
        "qwen2_vl_text qwen2_5_vl_text qwen2_5_omni_text qwen3_vl_text qwen3_omni_moe_text glm4v_moe_text "
        "granite4_vision_text paddleocr_vl_text hunyuan_vl_text glm4v_text mllama_text_model aria_text molmo2_text emu3_text_model "
        "ernie4_5_vl_moe_text glm_ocr_text"
    ),
}


@cache
def _modules() -> dict[str, str]:
    return {model_type: module for module, types in MODULES.items() for model_type in types.split()}


def known() -> list[str]:
    """Every type that can be read."""
    return sorted({*_modules(), *RENAMED})


def unnamed(data: Mapping[str, Any]) -> str | None:
    """The type of a config without ``model_type``, where its keys are some authors' own: state-spaces' Mamba."""
    return "mamba_ssm" if {"d_model", "n_layer", "ssm_cfg"} <= data.keys() else None


def find(model_type: str) -> Family | None:
    """The function that reads a type."""
    module = _modules().get(model_type)
    if module is None:
        return None
    found: Family = import_module(f"llmcalc.importers.families.{module}").FAMILIES[model_type]
    return found
