"""Keys of a config.json that change no shape, no cache and no operation."""

from __future__ import annotations

import re

# Training and tokens: these words in a key are about neither shapes nor caches.
_WORDS = re.compile(
    r"dropout|drop_rate|drop_path|initializer|init_std|_init$|token_ids?$|token_index|_loss|loss_|mask_time|mask_feature|jitter"
)
_KEYS = """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path alibi_bias_max architectures
    attention_multiplier attn_implementation attn_logit_softcapping attn_pdrop auto_map bad_words_ids
    begin_suppress_tokens bf16 bos_token chunk_size_feed_forward clip_qkv compression_config cross_attention_hidden_size
    custom_pipelines decoder_layerdrop diversity_penalty do_sample dtype early_stopping embd_pdrop embedding_multiplier
    encoder_layerdrop encoder_no_repeat_ngram_size eos_token ep_size epsilon exponential_decay_length_penalty
    final_logit_softcapping finetuned_from finetuning_task fp16 fp32 gradient_checkpointing id2label init_config
    init_device init_method label2id language languages layer_norm_eps layer_norm_epsilon layerdrop layernorm_epsilon
    length_penalty license logit_scale logits_scaling max_length max_window_layers min_length model_max_length
    model_name n_group no_repeat_ngram_size norm_eps norm_epsilon norm_topk_prob num_beam_groups num_beams num_labels
    num_return_sequences original_max_position_embeddings original_rope output_attentions output_hidden_states
    output_past output_router_logits output_scores pad_token partial_rotary_factor prefix pretraining_tp problem_type
    pruned_heads quantization_config query_pre_attn_scalar remove_invalid_values reorder_and_upcast_attn
    repetition_penalty resid_pdrop residual_multiplier return_dict return_dict_in_generate rms_norm_eps rope
    rope_interleave rope_interleaved rope_local_base_freq rope_parameters rope_pct rope_ratio rope_scaling rope_theta
    rope_type rotary_emb_base rotary_pct routed_scaling_factor sampling scale_attn_by_inverse_layer_idx
    scale_attn_weights scoring_func seq_aux seq_length_note sliding_window_size_note suppress_tokens
    task_specific_params temperature tokenizer_class top_k top_p topk_group topk_method torch_dtype torchscript
    transformers_version typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache use_flash_attn
    use_flash_attn_cross_entropy use_flash_attn_rotary vocab_file
"""
HARMLESS = frozenset(_KEYS.split())


def is_harmless(key: str) -> bool:
    """Whether a key, dotted where it is inside another, changes nothing that is counted."""
    name = key.rsplit(".", 1)[-1]
    return name in HARMLESS or name.startswith("_") or _WORDS.search(name) is not None
