"""Keys of a config.json that change no shape, no cache and no operation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Training and tokens: these words in a key are about neither shapes nor caches.
_WORDS = re.compile(
    r"dropout|drop_rate|drop_path|initializer|init_std|_init$|token_ids?$|token_index|_loss|loss_|mask_time|mask_feature|jitter"
)
_KEYS = """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path activation_situ_beta alibi_bias_max
    architectures attention_multiplier attention_softmax_in_fp32 attention_value_scale attn_implementation
    attn_logit_softcapping attn_pdrop auto_map bad_words_ids begin_suppress_tokens bf16 block_mlp_init_scale block_norm_eps
    block_out_init_scale bos_token cache_implementation calc_logits_for_entire_prompt chunk_size_feed_forward cla_share_factor
    class_num classifier_activation clip_qkv compression_config compression_ratio cross_attention_hidden_size custom_pipelines
    d_inner decoder_layerdrop default_output_length dense_list dense_seq_output deterministic_flash_attn diversity_penalty
    do_sample dtype early_stopping embd_pdrop embedding_multiplier embeddings_scale_by_sqrt_dim encoder_layerdrop
    encoder_no_repeat_ngram_size eos_token ep_size epsilon expert_dtype experts_per_token exponential_decay_length_penalty
    final_logit_softcapping finetuned_from finetuning_task for_llm_compressor force_bos_token_to_be_generated fp16 fp32
    full_attn_mod fuse_softmax_mask fused_add_norm global_head_dim gradient_checkpointing group_limited_greedy id2label
    ignore_index im_end_id im_newline_id im_start_id image_grid_pinpoints image_placeholder image_seq_len image_seq_length
    img_token_compression_config indexer_rope_interleave inference_runner init_config init_device init_method
    initial_context_length interpolate_factor is_composition is_llama_config label2id language language_model_only languages
    layer_norm_eps layer_norm_epsilon layerdrop layernorm_epsilon length_penalty license logit_scale logits_scaling
    mamba_ssm_dtype mask_init_id masked_softmax_fusion max_batch_size max_image_size max_length max_sequence_length
    max_window_layers merge_type min_length mla_use_nope mm_projector_type model_max_length model_name moe_drop_tokens
    moe_random_routing_dropped_token moe_router_activation_func moe_router_dtype n_ctx n_group neftune_noise_alpha
    no_repeat_ngram_size norm_before_gate norm_eps norm_epsilon norm_topk_prob num_beam_groups num_beams num_image_tokens
    num_labels num_logits_to_keep num_media_embeds num_return_sequences offset_alibi order_of_interleaved_layers
    org_vocab_size original_max_position_embeddings original_rope output_attentions output_gate_type output_hidden_states
    output_past output_router_logits output_scores pad_id pad_key_length pad_token pad_vocab_size_multiple
    partial_rotary_factor perceiver_config pixel_shuffle_factor pool_type pos_emb_type position_embedding_xdrope
    pre_allocate_kv_cache prefix pretraining_tp problem_type process_image_mode projector_hidden_act projector_ln_eps
    pruned_heads quantization quantization_config query_pre_attn_scalar remove_invalid_values reorder_and_upcast_attn
    repetition_penalty resid_pdrop residual_in_fp32 residual_multiplier return_dict return_dict_in_generate rms_norm_eps rope
    rope_interleave rope_interleaved rope_local_base_freq rope_mode rope_parameters rope_pct rope_ratio rope_scaling
    rope_theta rope_type rotary rotary_dim rotary_emb_base rotary_emb_interleaved rotary_emb_scale_base rotary_pct
    rotary_scaling_factor routed_scaling_factor sampling scale_attention_softmax_in_fp32 scale_attn_by_inverse_layer_idx
    scale_attn_weights scoring_func sentence_transformers seq_aux size skip_bias_add skip_bias_add_qkv skip_cls_token
    slow_but_exact sparse_disable_index_value sparse_init_block sparse_local_block sparse_score_type
    static_position_embeddings summary_activation summary_proj_to_labels summary_type summary_use_proj suppress_tokens
    swa_rope_theta swiglu_alpha swiglu_limit task_specific_params temperature text_end_id text_start_id tie_weights_
    time_step_init_scheme time_step_rank time_step_scale tokenizer_class tokenizer_name top_k top_p topk_group topk_method
    torch_dtype torchscript transformers_version typical_p unpad_dim unpad_inputs unsloth_fixed unsloth_version
    use_base_siglip use_bfloat16 use_cache use_flash_attn use_flash_attn_cross_entropy use_flash_attn_rotary use_grouped_topk
    use_image_newline_parameter use_mamba_kernels use_mrope use_pos_enc use_shared_attention_lora use_unified_vision_chunk
    validate_runner_input verbose video_attn_type video_placeholder video_seq_length vision_feature_layer
    vision_feature_select_strategy vision_segment_max_frames vision_soft_tokens_per_image vocab_file weight_share_add_bias
"""
HARMLESS = frozenset(_KEYS.split())
# Keys that say what is so anyway; with any other value they are reported.
USUAL: dict[str, tuple[Any, ...]] = {
    "add_bias_logits": (False,),
    "add_classification_head": (False,),
    "add_cross_attention": (False,),
    "add_final_layer_norm": (False,),
    "apply_residual_connection_post_layernorm": (False,),
    "attention_output_gate": (False,),
    "attn_output_gate": (True,),
    "extra_pos_embeddings": (0,),
    "is_decoder": (False,),
    "layer_switch": (4,),
    "mamba_inner_layernorms": (True,),
    "mlp_type": ("default",),
    "moe_layer_freq": (1,),
    "multimodal_projector_bias": (True,),
    "normalize_before": (False,),
    "normalize_embedding": (False,),
    "num_reward_heads": (0,),
    "n_shared_experts": (1,),
    "norm_type": ("layer_norm", "rms_norm"),
    "position_embedding_type": ("absolute", "rope", "rope_gptj"),
    "qk_norm_type": ("per_layer", "per_head"),
    "post_norm": (False,),
    "qk_layer_norms": (False,),
    "qk_norm": (True,),
    "qkv_bias": (False,),
    "rms_norm": (True,),
    "shared_expert_intermediate_size": (0,),
    "shared_intermediate_size": (0,),
    "tie_encoder_decoder": (False,),
    "tie_word_embeddings": (False,),
    "use_cla": (False,),
    "use_embedding_sharing": (True,),
    "use_gated_activation": (True,),
    "use_mla": (False,),
    "use_parallel_block": (True,),
    "use_parallel_embedding": (True,),
    "use_qk_norm": (True,),
    "use_rotary_pos_emb": (True,),
    "use_routing_bias": (True,),
    "use_shared_block_lora": (True,),
    "use_shared_mlp_lora": (True,),
    "use_sliding_window": (False,),
    "use_gemma_norm": (True,),
    "use_resampler": (False,),
    "use_sparse_attention": (True,),
    "block_use_swiglu": (True,),
}
# Keys that often say a field of the spec once more.
AGAIN = {
    "block_dim": "hidden", "conv_dim": "hidden", "conv_dim_out": "hidden", "d_model": "hidden",
    "hidden_size": "hidden", "n_embd": "hidden", "n_head": "heads", "n_layer": "layers", "num_attention_heads": "heads",
    "num_heads": "heads", "num_hidden_layers": "layers", "num_key_value_heads": "kv_heads", "num_layers": "layers",
    "sliding_window_size": "window", "text_hidden_size": "hidden", "vocab_size": "vocab",
}  # fmt: skip
# Layers behind the last one that predict further tokens: the classes leave them out, files may hold them.
FURTHER = (
    "num_nextn_predict_layers", "num_mtp_layers", "num_mtp_modules", "mtp_num_hidden_layers", "mtp_transformer_layers", "use_mtp",
    "mtp_use_dedicated_embeddings", "index_share_for_mtp_iteration",
)  # fmt: skip


def said(data: Mapping[str, Any], key: str) -> Any:
    """The value of a key, dotted where it is inside another."""
    value: Any = data
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def is_harmless(key: str, value: Any, spec: Mapping[str, Any]) -> bool:
    """Whether a key, dotted where it is inside another, changes nothing that is counted.

    Such are keys of no consequence, empty ones, those at the value that is usual, and those that say again what the spec says.
    """
    name = key.rsplit(".", 1)[-1]
    if name in HARMLESS or name in FURTHER or name.startswith("_") or value in (None, [], {}):
        return True
    if _WORDS.search(name) or name == "activation_function":
        return True
    if name in AGAIN and value == spec.get(AGAIN[name]):
        return True
    # A bias that is not there; one that is there is reported.
    return value in USUAL.get(name, ()) or (value is False and name.endswith("_bias"))


def further_layers(data: Mapping[str, Any]) -> int:
    """Layers that predict further tokens, as the file or its language model's config counts them."""
    inner = data.get("text_config")
    holders = [data, *([inner] if isinstance(inner, Mapping) else [])]
    counts = [holder.get(key) for holder in holders for key in FURTHER[:4]]
    return max((count for count in counts if isinstance(count, int) and not isinstance(count, bool) and count > 0), default=0)
