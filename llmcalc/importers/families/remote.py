"""Types that no transformers release has: their authors' code travels with the weights. Llama's line.

Each is read as that code builds it, by the names of keys that its own config files have; what a file leaves out is what the
authors' configuration class says.
"""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.mixture import after, experts
from llmcalc.importers.shape import Spec, biases, decoder, extra

# Keys of these files that change no shape, no cache and no operation.
_UNCHANGING = """
    alibi_scaling apply_query_key_layer_scaling apply_residual_connection_post_layernorm attention_softmax_in_fp32
    attn_dropout_prob attn_output_multiplier bias_dropout_fusion blocksparse_block_size blocksparse_homo_head_pattern
    blocksparse_num_local_blocks blocksparse_triton_kernel_block_size blocksparse_vert_stride
    dense_attention_every_n_layers dim_model_base emb_dropout_prob embedding_dropout_prob embedding_multiplier_scale
    enable_expert_tensor_parallelism enc_index ffn_dropout_prob fp32_residual_connection fused_add_norm fused_dense
    fused_mlp gegelu_limit gegelu_pad_to_256 max_attn_value max_sequence_length mlp_type moe_eval_capacity_factor
    moe_min_capacity moe_token_dropping moe_train_capacity_factor mup_attn_multiplier mup_embedding_multiplier
    mup_embeddings_scale mup_output_alpha mup_scale_qk_dot_by_d mup_use_scaling mup_width_multiplier mup_width_scale
    norm_head norm_softmax normalization_layer_name num_gqa_groups onnx_safe output_dropout output_multiplier_scale
    pad_token parallel_attn_mlp_res qkv_multipliers quantization quantization_bit rescale_every residual_in_fp32
    rope_embedding_base rope_freq_constant rope_max_length rope_position_scale router_type scale_attention_softmax_in_fp32
    scale_depth scale_emb softmax_in_fp32 training_seqlen use_cache_kernel use_cache_quantization use_dynamic_ntk
    use_logn_attn use_mem_rope z_loss_weight
"""
UNCHANGING = frozenset(_UNCHANGING.split())


def adopt(c: Config, names: dict[str, str] | None = None, /, **defaults: Any) -> None:
    """Lets a config be asked by the usual names (name -> the authors'), with the defaults of the authors' class."""
    for name, theirs in (names or {}).items():
        c.names.setdefault(name, []).append(theirs)
    c.known = c.known._replace(defaults={**defaults, **c.known.defaults})
    c.asked |= UNCHANGING


def plain(c: Config, _: Any) -> Spec:
    """Llama under another name (Aquila, XVERSE, Skywork)."""
    adopt(c, hidden_act="silu", tie_word_embeddings=False)
    if c.says("num_experts"):
        raise c.error("num_experts", f"a mixture of experts of type {c.model_type} is not read here; write a spec")
    return decoder(c)


def baichuan(c: Config, task: Any) -> Spec:
    """Baichuan 1 and 2: Llama; the 13B models have ALiBi, and then no position embeddings to bound."""
    spec = plain(c, task)
    rotary = c.says("max_position_embeddings")
    return {**spec, "positions": None if rotary else "alibi", "context": spec["context"] or c.maybe("model_max_length")}


def orion(c: Config, task: Any) -> Spec:
    """Orion: Llama with LayerNorm."""
    return {**plain(c, task), "norm": "layernorm", "biases": biases(attention=c.flag("attention_bias"))}


def internlm(c: Config, _: Any) -> Spec:
    """InternLM 1: Llama with biases on the attention."""
    adopt(c, hidden_act="silu", tie_word_embeddings=False, bias=True)
    return decoder(c, biases=biases(attention=c.flag("bias")))


def qwen(c: Config, _: Any) -> Spec:
    """Qwen 1: ``intermediate_size`` is gate and up together; queries, keys and values have biases, the rest where it says so."""
    adopt(c, {"max_position_embeddings": "seq_length"}, kv_channels=128, no_bias=True, tie_word_embeddings=False)
    for key in ("visual", "audio"):
        if c.says(key):
            raise c.error(key, "a Qwen with a tower is not read here; write a spec")
    rest = not c.flag("no_bias")
    return decoder(
        c,
        head_dim=c.count("kv_channels"),
        ffn=c.count("intermediate_size") // 2,
        activation="silu",
        biases=["qkv", *biases(o=rest, ffn=rest)],
    )


def chatglm(c: Config, _: Any) -> Spec:
    """ChatGLM2, ChatGLM3 and GLM-4: grouped queries; the head is in the class that is called the model."""
    if c.says("inner_hidden_size") or c.says("position_encoding_2d"):
        raise c.error("model_type", "the first ChatGLM-6B is not read here; ChatGLM2 and later are")
    for key in ("vision_config", "pre_seq_len"):
        if c.says(key):
            raise c.error(key, "a ChatGLM with further parts is not read here; write a spec")
    names = {"num_hidden_layers": "num_layers", "max_position_embeddings": "seq_length", "vocab_size": "padded_vocab_size"}
    adopt(c, names, kv_channels=128, multi_query_group_num=1, rmsnorm=True, post_layer_norm=True, tie_word_embeddings=False)
    everywhere = c.flag("add_bias_linear")
    heads = c.count("num_attention_heads")
    return decoder(
        c,
        kv_heads=c.count("multi_query_group_num") if c.flag("multi_query_attention") else heads,
        head_dim=c.count("kv_channels"),
        ffn=c.count("ffn_hidden_size"),
        vocab=c.count("padded_vocab_size"),
        activation="silu",
        norm=None if c.flag("rmsnorm") else "layernorm",
        final_norm=None if c.flag("post_layer_norm") else False,
        biases=biases(qkv=everywhere or c.flag("add_qkv_bias"), o=everywhere, ffn=everywhere),
        head=True,
    )


def exaone(c: Config, _: Any) -> Spec:
    """EXAONE 3 and 3.5: Llama."""
    names = {"num_hidden_layers": "num_layers", "hidden_act": "activation_function"}
    adopt(c, names, hidden_act="silu", tie_word_embeddings=False)
    return decoder(c)


def telechat(c: Config, _: Any) -> Spec:
    """TeleChat 1 and 2: biases on the two output projections of a layer."""
    names = {
        "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "intermediate_size": "ffn_hidden_size",
        "max_position_embeddings": "seq_length",
    }  # fmt: skip
    adopt(c, names, hidden_act="silu", tie_word_embeddings=True)
    if c.flag("embed_layernorm"):
        raise c.error("embed_layernorm", "a norm after the embedding is not read here")
    return decoder(c, biases=["o", "down"])


def minicpm(c: Config, _: Any) -> Spec:
    """MiniCPM 1 and 2: Llama with scaled residuals; in the mixtures every expert is as wide as the dense FFN."""
    adopt(c, hidden_act="silu", tie_word_embeddings=True)
    spec = decoder(c, biases=biases(attention=c.flag("attention_bias")))
    if not c.count("num_experts", 0, least=0):
        return spec
    return {**spec, "ffn": None, "moe": experts(c, spec["ffn"])}


def deepseek(c: Config, _: Any) -> Spec:
    """DeepSeek-MoE: plain attention, shared experts, the first layers dense."""
    adopt(c, hidden_act="silu", tie_word_embeddings=False, moe_layer_freq=1, first_k_dense_replace=0)
    spec = decoder(c, biases=biases(attention=c.flag("attention_bias")))
    if c.maybe("n_routed_experts") is None:
        return spec
    shared = c.count("n_shared_experts", 0, least=0)
    moe = experts(c, c.count("moe_intermediate_size"), count="n_routed_experts", shared=shared or None)
    first, step = c.count("first_k_dense_replace", least=0), c.count("moe_layer_freq")
    return {**spec, "blocks": [{"moe": moe} if i >= first and i % step == 0 else {} for i in range(spec["layers"])]}


def bailing_moe(c: Config, _: Any) -> Spec:
    """Ling and Ring: DeepSeek's mixture under grouped queries; version 2 normalises each head and has a bias in the router."""
    adopt(c, hidden_act="silu", tie_word_embeddings=False, first_k_dense_replace=0, num_shared_experts=0)
    newer = c.model_type == "bailing_moe_v2"
    for key in ("use_sliding_window", "multi_gate"):
        if c.flag(key):
            raise c.error(key, "this option is not read here; write a spec")
    c.maybe("sliding_window")
    spec = decoder(
        c,
        biases=biases(qkv=c.flag("use_qkv_bias"), o=c.flag("use_bias")),
        qk_norm="head" if c.flag("use_qk_norm") else None,
    )
    ffn, shared = c.count("moe_intermediate_size"), c.count("num_shared_experts", least=0)
    each = c.count("moe_shared_expert_intermediate_size", ffn)
    moe = experts(c, ffn, shared_ffn=each * shared or None,
                  correction_bias="buffer" if newer and c.flag("moe_router_enable_expert_bias") else None)  # fmt: skip
    sparse = after(spec["layers"], c.count("first_k_dense_replace", least=0))
    return {**spec, "blocks": [{"moe": moe} if at else {} for at in sparse]}


def arctic(c: Config, _: Any) -> Spec:
    """Snowflake Arctic: a dense FFN as wide as the model beside each mixture, on a norm of its own."""
    adopt(c, hidden_act="silu", tie_word_embeddings=False, num_experts_per_tok=1, num_local_experts=8, moe_layer_frequency=2)
    if not c.says("use_residual"):
        raise c.error("use_residual", "missing; it says whether a dense FFN runs beside each mixture")
    spec, beside = decoder(c, head_dim=None), c.flag("use_residual")
    hidden, step = spec["hidden"], c.count("moe_layer_frequency")
    moe = experts(c, spec["ffn"], count="num_local_experts", dense=hidden if beside else None)
    norm = [extra("residual_norm", hidden, part="norm")] if beside else []
    return {
        **spec,
        "window": c.maybe("sliding_window"),
        "blocks": [{"moe": moe, "extra": norm} if (i + 1) % step == 0 else {} for i in range(spec["layers"])],
    }


def grok(c: Config, _: Any) -> Spec:
    """Grok-1: eight experts, norms on both sides of each sub-layer."""
    adopt(c, tie_word_embeddings=True, num_experts_per_tok=2, num_experts=8)
    spec = decoder(c, activation="gelu", norm_placement="sandwich")
    return {**spec, "moe": experts(c, spec.pop("ffn"))}


FAMILIES = {
    "aquila": plain,
    "xverse": plain,
    "skywork": plain,
    "baichuan": baichuan,
    "orion": orion,
    "internlm": internlm,
    "internlm2": internlm,
    "qwen": qwen,
    "chatglm": chatglm,
    "exaone": exaone,
    "telechat": telechat,
    "minicpm": minicpm,
    "deepseek": deepseek,
    "bailing_moe": bailing_moe,
    "bailing_moe_v2": bailing_moe,
    "arctic": arctic,
    "grok-1": grok,
}
