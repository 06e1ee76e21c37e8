"""Keys of a config.json that change no shape, no cache and no operation."""

from __future__ import annotations

_KEYS = """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path activation_dropout alibi_bias_max
    architectures attention_dropout attention_multiplier attention_probs_dropout_prob attn_implementation
    attn_logit_softcapping attn_pdrop audio_token_id auto_map aux_loss_alpha bad_words_ids balance_loss_coef
    begin_suppress_tokens bf16 boa_token_id boi_token_id boi_token_index bos_token bos_token_id chunk_size_feed_forward
    classifier_dropout classifier_dropout_prob clip_qkv cls_token_id compression_config cross_attention_hidden_size
    custom_pipelines decoder_layerdrop decoder_start_token_id diversity_penalty do_sample dropout dropout_rate dtype
    early_stopping embd_pdrop embedding_dropout embedding_multiplier encoder_layerdrop encoder_no_repeat_ngram_size
    eoa_token_id eoi_token_id eoi_token_index eos_token eos_token_id ep_size epsilon exponential_decay_length_penalty
    ffn_dropout final_logit_softcapping finetuned_from finetuning_task forced_bos_token_id forced_eos_token_id fp16 fp32
    gradient_checkpointing hidden_dropout hidden_dropout_prob id2label image_end_token_id image_start_token_id
    image_token_id image_token_index init_config init_device init_method init_std initializer_cutoff_factor
    initializer_factor initializer_range label2id language languages layer_norm_eps layer_norm_epsilon layerdrop
    layernorm_epsilon length_penalty license logit_scale logits_scaling mask_token_id max_length max_window_layers
    min_length model_max_length model_name moe_aux_loss_coef n_group no_repeat_ngram_size norm_eps norm_epsilon
    norm_topk_prob num_beam_groups num_beams num_labels num_return_sequences original_max_position_embeddings
    original_rope output_attentions output_hidden_states output_past output_router_logits output_scores pad_token
    pad_token_id partial_rotary_factor prefix pretraining_tp problem_type pruned_heads quantization_config
    query_pre_attn_scalar remove_invalid_values reorder_and_upcast_attn repetition_penalty resid_pdrop
    residual_multiplier return_dict return_dict_in_generate rms_norm_eps rope rope_interleave rope_interleaved
    rope_local_base_freq rope_parameters rope_pct rope_ratio rope_scaling rope_theta rope_type rotary_emb_base
    rotary_pct routed_scaling_factor router_aux_loss_coef router_jitter_noise router_z_loss_coef sampling
    scale_attn_by_inverse_layer_idx scale_attn_weights scoring_func sep_token_id seq_aux seq_length_note
    sliding_window_size_note summary_first_dropout suppress_tokens task_specific_params temperature tf_legacy_loss
    tokenizer_class top_k top_p topk_group topk_method torch_dtype torchscript transformers_version typical_p
    unk_token_id unsloth_fixed unsloth_version use_bfloat16 use_cache use_flash_attn use_flash_attn_cross_entropy
    use_flash_attn_rotary video_token_id video_token_index vision_end_token_id vision_start_token_id vision_token_id
    vocab_file
"""
HARMLESS = frozenset(_KEYS.split())


def is_harmless(key: str) -> bool:
    """Whether a key, dotted where it is inside another, changes nothing that is counted."""
    name = key.rsplit(".", 1)[-1]
    return name in HARMLESS or name.startswith("_")
