"""What a GGUF file leaves to its loader: per ``general.architecture``, whatever neither metadata nor tensor shapes tell.

Window patterns are those of llama.cpp's loaders (``hparams.set_swa_pattern`` in src/models/*.cpp), chunk lengths the defaults
of transformers' configuration classes, which the files do not carry.
"""

from __future__ import annotations

from typing import NamedTuple


class Arch(NamedTuple):
    """One architecture.

    ``period``: every so many layers one has no window, the last of them or with ``full_first`` the first; 0: all have it.
    """

    period: int | None = None
    full_first: bool = False
    window: int | None = None  # where the file says none
    chunked: bool = False
    activation: str = ""  # of the FFN; silu unless said
    positions: str = "rotary"
    encoder: bool = False  # looks both ways
    query_gate: bool = False  # half of attn_q is a gate on the output
    correction: str = "buffer"  # the router's bias, as transformers keeps it
    final_norm: str = "output_norm"
    chunk: int | None = None  # tokens of a recurrent chunk


def _alike(names: str, arch: Arch) -> dict[str, Arch]:
    return dict.fromkeys(names.split(), arch)


ARCHITECTURES: dict[str, Arch] = {
    **_alike(
        "llama mistral3 deci internlm2 orion xverse minicpm minicpm3 exaone granite granitemoe chatglm glm4 glm4moe qwen qwen2 "
        "qwen2vl qwen2moe qwen3 qwen3moe qwen3vl qwen3vlmoe stablelm deepseek deepseek2 deepseek2-ocr deepseek32 glm-dsa mistral4 "
        "dots1 ernie4_5 hunyuan-moe hunyuan-dense hunyuan_vl smollm3 seed_oss minimax-m2 bailingmoe bailingmoe2 dbrx olmoe arctic "
        "chameleon llada llada-moe dream rnd1 pangu-embedded maincoder paddleocr openelm phimoe grovemoe mimo2 step35 bitnet",
        Arch(),
    ),
    **_alike("command-r plamo olmo", Arch()),
    "phi3": Arch(period=0),
    "starcoder2": Arch(period=0, activation="gelu"),
    "ernie4_5-moe": Arch(correction="parameter"),
    "afmoe": Arch(period=4, correction="parameter"),
    "baichuan": Arch(),
    "gemma": Arch(activation="gelu_tanh"),
    "gemma2": Arch(period=2, window=4096, activation="gelu_tanh"),
    "gemma3": Arch(period=6, activation="gelu_tanh"),
    "gemma3n": Arch(period=5, activation="gelu_tanh"),
    "gemma4": Arch(activation="gelu_tanh"),
    "gemma-embedding": Arch(period=6, activation="gelu_tanh", encoder=True),
    "gpt-oss": Arch(period=2),
    "cohere2": Arch(period=4),
    "olmo2": Arch(period=4),
    "exaone4": Arch(period=4),
    "exaone-moe": Arch(period=4),
    "smallthinker": Arch(period=4, full_first=True, activation="relu"),
    "llama4": Arch(period=4, window=8192, chunked=True),
    "plamo3": Arch(period=8),
    "grok": Arch(activation="gelu"),
    **_alike("phi2 gptneox gptj codeshell falcon", Arch(activation="gelu")),
    **_alike("gpt2 starcoder", Arch(activation="gelu_tanh", positions="learned")),
    **_alike("bloom mpt", Arch(activation="gelu", positions="alibi")),
    **_alike("refact jais", Arch(positions="alibi")),
    **_alike("nemotron arcee jais2 plm", Arch(activation="relu2")),
    "apertus": Arch(activation="xielu"),
    "mamba": Arch(positions="none"),
    "mamba2": Arch(positions="none", chunk=256),
    "jamba": Arch(positions="none"),
    "falcon-h1": Arch(chunk=256),
    "granitehybrid": Arch(positions="none", chunk=256),
    "nemotron_h": Arch(positions="none", activation="relu2", chunk=128),
    "nemotron_h_moe": Arch(positions="none", activation="relu2", chunk=128),
    "lfm2": Arch(final_norm="token_embd_norm"),
    "lfm2moe": Arch(final_norm="token_embd_norm"),
    "qwen3next": Arch(query_gate=True, chunk=64),
    "qwen35": Arch(query_gate=True, chunk=64),
    "qwen35moe": Arch(query_gate=True, chunk=64),
    "kimi-linear": Arch(positions="none", chunk=64),
    **_alike("bert nomic-bert nomic-bert-moe jina-bert-v3", Arch(activation="gelu", encoder=True)),
    "modern-bert": Arch(period=3, full_first=True, activation="gelu", encoder=True),
    **_alike("neo-bert eurobert", Arch(encoder=True)),
    **_alike("t5 t5encoder", Arch(activation="relu", positions="relative")),
}  # fmt: skip

# What is nobody's parameter: tables that llama.cpp could compute, and Gemma 4's scales, which transformers keeps as buffers.
ADDED = ("rope_freqs", "rope_factors_long", "rope_factors_short", "attn_rot_embd", "layer_output_scale")

# Further tensors of a layer: name in the file -> role and part. Matrices are multiplied by once per token.
FURTHER = {
    "attn_sub_norm": ("attention_sub_norm", "norm"), "ffn_sub_norm": ("ffn_sub_norm", "norm"),
    "ffn_norm_exps": ("experts_norm", "norm"),
    "pre_ffw_norm_2": ("ffn_norm_experts_in", "norm"), "post_ffw_norm_1": ("ffn_norm_dense_out", "norm"),
    "post_ffw_norm_2": ("ffn_norm_experts_out", "norm"), "inp_gate": ("layer_input_gate", "other"),
    "proj": ("layer_input", "other"), "post_norm": ("layer_input_norm", "norm"), "altup_correct_scale": ("altup_scale", "other"),
    "altup_correct_coef": ("altup_correction", "other"), "altup_predict_coef": ("altup_prediction", "other"),
    "altup_router": ("altup_router", "other"), "altup_router_norm": ("altup_router_norm", "norm"),
    "ffn_gate_inp.scale": ("router_scale", "router"), "ffn_down_exps.scale": ("router_expert_scale", "router"),
    "laurel_l": ("laurel_left", "other"), "laurel_r": ("laurel_right", "other"), "laurel_post_norm": ("laurel_norm", "norm"),
}  # fmt: skip
# The same outside of layers.
OUTSIDE = {
    "per_layer_token_embd": ("layer_embedding", "positions"), "per_layer_model_proj": ("layer_projection", "other"),
    "per_layer_proj_norm": ("layer_projection_norm", "norm"), "altup_proj": ("altup_in", "other"),
    "altup_unembd_proj": ("altup_out", "other"), "dense_2": ("dense_2", "projection"), "dense_3": ("dense_3", "projection"),
}  # fmt: skip
AFTER = frozenset({"altup_unembd_proj", "dense_2", "dense_3"})
NOT_MULTIPLIED = frozenset({"per_layer_token_embd"})
TWICE = frozenset({"altup_router"})  # once to predict, once to correct

# general.file_type -> the quantisation's name here (gguf's LlamaFileType); floats are told by the tensors.
FILE_TYPES = {
    2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s", 12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s",
    15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k", 19: "iq2_xxs", 20: "iq2_xs", 21: "q2_k_s", 22: "iq3_xs", 23: "iq3_xxs",
    24: "iq1_s", 25: "iq4_nl", 26: "iq3_s", 27: "iq3_m", 28: "iq2_s", 29: "iq2_m", 30: "iq4_xs", 31: "iq1_m", 36: "tq1_0",
    37: "tq2_0", 38: "mxfp4-moe",
}  # fmt: skip
