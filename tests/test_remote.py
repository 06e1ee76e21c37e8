"""Configs whose modeling code travels with the weights: counts that are published, or the sum of the parts."""

import json
from typing import Any, NamedTuple

import pytest

from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import kv, params
from llmcalc.errors import LlmcalcError
from llmcalc.importers import families
from llmcalc.importers.config import Source
from llmcalc.importers.config_json import from_config
from llmcalc.resolve import built


class Row(NamedTuple):
    """A config as its authors publish it, and what it comes to.

    ``kv_per_token`` are the bytes of a token in the cache, 2 for an element. Sources: "card" is the count that the model's
    page or file index gives, "parts" a sum written out here.
    """

    name: str
    config: dict[str, Any]
    total: int
    kv_per_token: int
    source: str


def gpt(model_type: str, width: int, layers: int, heads: int, vocab: int, **more: Any) -> dict[str, Any]:
    """A config with GPT-2's names."""
    return {"model_type": model_type, "n_embd": width, "n_layer": layers, "n_head": heads, "vocab_size": vocab, **more}


def llama(model_type: str, hidden: int, ffn: int, layers: int, heads: int, vocab: int, **more: Any) -> dict[str, Any]:
    """A config with Llama's names."""
    shape = {"hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {"model_type": model_type, **shape, "vocab_size": vocab, **more}


def chatglm(layers: int, vocab: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "chatglm", "architectures": ["ChatGLMModel"], "num_layers": layers, "padded_vocab_size": vocab,
        "vocab_size": vocab, "hidden_size": 4096, "ffn_hidden_size": 13696, "kv_channels": 128, "num_attention_heads": 32,
        "multi_query_attention": True, "multi_query_group_num": 2, "add_bias_linear": False, "add_qkv_bias": True, **more,
    }  # fmt: skip


OPENELM = {
    "model_type": "openelm", "architectures": ["OpenELMForCausalLM"], "num_transformer_layers": 16, "model_dim": 1280,
    "head_dim": 64, "num_query_heads": [12] * 5 + [16] * 7 + [20] * 4, "num_kv_heads": [3] * 5 + [4] * 7 + [5] * 4,
    "ffn_multipliers": [0.5, 0.73, 0.97, 1.2, 1.43, 1.67, 1.9, 2.13, 2.37, 2.6, 2.83, 3.07, 3.3, 3.53, 3.77, 4.0],
    "ffn_dim_divisor": 256, "vocab_size": 32000, "max_context_length": 2048, "ffn_with_glu": True,
    "normalize_qk_projections": True, "share_input_output_layers": True,
}  # fmt: skip
NAS = {
    "model_type": "nemotron-nas", "architectures": ["DeciLMForCausalLM"], "hidden_size": 256, "num_attention_heads": 8,
    "num_hidden_layers": 3, "vocab_size": 512, "intermediate_size": None, "num_key_value_heads": None,
    "block_configs": [
        {"attention": {"no_op": False, "n_heads_in_group": 4}, "ffn": {"no_op": False, "ffn_mult": 2.0}},
        {"attention": {"no_op": True, "n_heads_in_group": None}, "ffn": {"no_op": False, "intermediate_size": 300}},
        {"attention": {"no_op": False, "n_heads_in_group": 8}, "ffn": {"no_op": True, "ffn_mult": None}},
    ],
}  # fmt: skip
ARCTIC = llama("arctic", 7168, 4864, 35, 56, 32000, num_key_value_heads=8, num_local_experts=128, num_experts_per_tok=2,
               moe_layer_frequency=1, use_residual=True)  # fmt: skip
GROK = llama("grok-1", 6144, 32768, 64, 48, 131072, num_key_value_heads=8, num_experts=8, num_experts_per_tok=2)

ROWS = [
    Row("qwen-1.8b", llama("qwen", 2048, 11008, 24, 16, 151936), 1_836_828_672, 196_608, "card"),
    Row("qwen-7b", llama("qwen", 4096, 22016, 32, 32, 151936, no_bias=True), 7_721_324_544, 524_288, "card"),
    Row("qwen-14b", llama("qwen", 5120, 27392, 40, 40, 152064), 14_167_290_880, 819_200, "card"),
    Row("qwen-72b", llama("qwen", 8192, 49152, 80, 64, 152064), 72_287_920_128, 2_621_440, "card"),
    # The files hold rotary frequencies too, 32 numbers more.
    Row("chatglm3-6b", chatglm(28, 65024), 6_243_584_000, 28_672, "card"),
    Row("glm-4-9b-chat", chatglm(40, 151552), 9_399_951_360, 40_960, "card"),
    Row("baichuan-7b", llama("baichuan", 4096, 11008, 32, 32, 64000, max_position_embeddings=4096), 7_000_559_616, 524_288, "card"),
    Row("baichuan2-7b", llama("baichuan", 4096, 11008, 32, 32, 125696), 7_505_973_248, 524_288, "card"),
    Row("baichuan-13b", llama("baichuan", 5120, 13696, 40, 40, 64000), 13_264_901_120, 819_200, "card"),
    Row("baichuan2-13b", llama("baichuan", 5120, 13696, 40, 40, 125696), 13_896_668_160, 819_200, "card"),
    Row("internlm2-1.8b", llama("internlm2", 2048, 8192, 24, 16, 92544, num_key_value_heads=8, bias=False),
        1_889_110_016, 98_304, "card"),
    Row("internlm2-7b", llama("internlm2", 4096, 14336, 32, 32, 92544, num_key_value_heads=8, bias=False),
        7_737_708_544, 131_072, "card"),
    Row("internlm2-20b", llama("internlm2", 6144, 16384, 48, 48, 92544, num_key_value_heads=8, bias=False),
        19_861_149_696, 196_608, "card"),
    # Llama 7B with InternLM's vocabulary, and four biases a layer.
    Row("internlm-7b", llama("internlm", 4096, 11008, 32, 32, 103168, bias=True),
        6_738_415_616 + 2 * (103168 - 32000) * 4096 + 32 * 4 * 4096, 524_288, "parts"),
    Row("deepseek-moe-16b",
        llama("deepseek", 2048, 10944, 28, 16, 102400, num_key_value_heads=16, n_routed_experts=64, n_shared_experts=2,
              num_experts_per_tok=6, moe_intermediate_size=1408, first_k_dense_replace=1, moe_layer_freq=1),
        16_375_728_128, 229_376, "card"),
    Row("exaone-3.5-7.8b",
        {"model_type": "exaone", "num_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
         "num_key_value_heads": 8, "vocab_size": 102400, "activation_function": "silu"}, 7_818_448_896, 131_072, "card"),
    Row("exaone-3.5-2.4b",
        {"model_type": "exaone", "num_layers": 30, "hidden_size": 2560, "intermediate_size": 7168, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 80, "vocab_size": 102400, "tie_word_embeddings": True},
        2_405_327_360, 76_800, "card"),
    Row("minicpm-2b", llama("minicpm", 2304, 5760, 40, 36, 122753), 2_724_880_896, 368_640, "card"),
    Row("openelm-270m", OPENELM, 271_527_168, 4 * 64 * (15 + 28 + 20), "card"),
    Row("phi-3-small",
        {"model_type": "phi3small", "hidden_size": 4096, "ff_intermediate_size": 14336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 100352},
        7_392_272_384, 131_072, "card"),
    Row("phi-1.5", gpt("phi-msft", 2048, 24, 32, 51200, n_positions=2048, tie_word_embeddings=False),
        1_418_270_720, 196_608, "card"),
    Row("phi-2", gpt("mixformer-sequential", 2560, 32, 32, 51200, n_positions=2048), 2_779_683_840, 327_680, "card"),
    Row("ling-lite",
        llama("bailing_moe", 2048, 5632, 28, 16, 126464, num_key_value_heads=4, num_experts=64, num_shared_experts=2,
              num_experts_per_tok=6, moe_intermediate_size=1408), 16_801_974_272, 57_344, "card"),
    Row("ling-plus",
        llama("bailing_moe", 5376, 12288, 88, 42, 126464, num_key_value_heads=6, head_dim=128, num_experts=64,
              num_shared_experts=1, num_experts_per_tok=4, moe_intermediate_size=3072), 290_602_910_976, 270_336, "card"),
    # The file holds 19 x 256 correction biases too.
    Row("ling-mini-2.0",
        llama("bailing_moe_v2", 2048, 5120, 20, 16, 157184, num_key_value_heads=4, head_dim=128, num_experts=256,
              num_shared_experts=1, num_experts_per_tok=8, moe_intermediate_size=512, use_qk_norm=True,
              first_k_dense_replace=1, moe_router_enable_expert_bias=True), 16_255_638_528, 40_960, "card"),
    Row("falcon-7b", {"model_type": "RefinedWebModel", "architectures": ["RWForCausalLM"], "hidden_size": 4544, "n_head": 71,
                      "n_layer": 32, "multi_query": True, "parallel_attn": True, "bias": False, "vocab_size": 65024},
        6_921_720_704, 8_192, "card"),
    Row("falcon-40b", {"model_type": "RefinedWeb", "architectures": ["RWForCausalLM"], "hidden_size": 8192, "n_head": 128,
                       "n_head_kv": 8, "n_layer": 60, "parallel_attn": True, "bias": False, "vocab_size": 65024},
        41_303_293_952, 122_880, "card"),
    Row("falcon-rw-1b", {"model_type": "RefinedWebModel", "hidden_size": 2048, "n_head": 32, "n_layer": 24, "alibi": True,
                         "multi_query": False, "parallel_attn": False, "bias": True, "vocab_size": 50304},
        1_311_625_216, 196_608, "card"),
    Row("stablelm-3b-4e1t", llama("stablelm_epoch", 2560, 6912, 32, 32, 50304, num_key_value_heads=32),
        2_795_443_200, 327_680, "card"),
    # 10B dense and 128 experts of 3.66B in all, of which two are used: 480B, 17B active.
    Row("arctic", ARCTIC, 2 * 32000 * 7168 + 7168
        + 35 * (7168 * 7168 * 2 + 2 * 7168 * 1024 + 3 * 7168 * 7168 + 128 * 7168 + 128 * 3 * 7168 * 4864 + 3 * 7168),
        143_360, "parts"),
    Row("grok-1", GROK, 131072 * 6144 + 6144
        + 64 * (2 * 6144 * 6144 + 2 * 6144 * 1024 + 8 * 6144 + 8 * 3 * 6144 * 32768 + 4 * 6144), 262_144, "parts"),
    Row("orion-14b", llama("orion", 5120, 15360, 40, 40, 84608, num_key_value_heads=40, attention_bias=False),
        2 * 84608 * 5120 + 2 * 5120 + 40 * (4 * 5120**2 + 3 * 5120 * 15360 + 4 * 5120), 819_200, "parts"),
    Row("skywork-13b", llama("skywork", 4608, 12288, 52, 36, 65519), 2 * 65519 * 4608 + 4608
        + 52 * (4 * 4608**2 + 3 * 4608 * 12288 + 2 * 4608), 958_464, "parts"),
    Row("telechat-7b", {"model_type": "telechat", "hidden_size": 4096, "ffn_hidden_size": 12288, "n_layer": 30, "n_head": 32,
                        "vocab_size": 160256},
        160256 * 4096 + 4096 + 30 * (4 * 4096**2 + 3 * 4096 * 12288 + 2 * 4096 + 2 * 4096), 491_520, "parts"),
    Row("jais-13b", gpt("jais", 5120, 40, 40, 84992, n_inner=13653, activation_function="swiglu", n_positions=2048,
                        position_embedding_type="alibi"),
        84992 * 5120 + 2 * 5120 + 40 * (4 * (5120**2 + 5120) + 3 * 5120 * 13653 + 2 * 13653 + 5120 + 4 * 5120), 819_200, "parts"),
    Row("codeshell-7b", gpt("codeshell", 4096, 42, 32, 70144, n_inner=16384, num_query_groups=8, n_positions=8192,
                            position_embedding_type="rope", tie_word_embeddings=False),
        2 * 70144 * 4096 + 2 * 4096
        + 42 * (2 * (4096**2 + 4096) + 2 * 1024 * 4097 + 2 * 4096 * 16384 + 16384 + 4096 + 4 * 4096), 172_032, "parts"),
    # The layer that predicts a further token is counted.
    Row("mimo-7b", llama("mimo", 4096, 11008, 36, 32, 151680, num_key_value_heads=8, head_dim=128, attention_bias=True,
                         num_nextn_predict_layers=1, tie_word_embeddings=False), 7_833_409_536, 147_456, "card"),
    Row("plamo", llama("plamo", 640, 1024, 4, 10, 1000, n_shared_head=5),
        2 * 1000 * 640 + 640 + 4 * (2 * 640**2 + 2 * 2 * 64 * 640 + 3 * 640 * 1024 + 640), 4 * 2 * 2 * 2 * 64, "parts"),
    Row("deci", llama("deci", 256, 512, 3, 8, 512, num_key_value_heads_per_layer=[4, 2, 1]),
        2 * 512 * 256 + 256 + 3 * (2 * 256**2 + 3 * 256 * 512 + 2 * 256) + 2 * 7 * 32 * 256, 4 * 7 * 32, "parts"),
    Row("minimax-text-01",
        llama("minimax_text_01", 6144, 9216, 80, 64, 200064, num_key_value_heads=8, head_dim=128, num_local_experts=32,
              num_experts_per_tok=2, attn_type_list=([0] * 7 + [1]) * 10, shared_intermediate_size=0, tie_word_embeddings=False),
        456_089_655_296, 40_960, "card"),
    Row("mamba-130m", {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "rms_norm": True,
                       "pad_vocab_size_multiple": 8}, 129_135_360, 0, "card"),
    Row("mamba2-130m", {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {"layer": "Mamba2"}, "attn_layer_idx": [],
                        "d_intermediate": 0, "pad_vocab_size_multiple": 16}, 128_989_632, 0, "card"),
    # FFN dims: 2 x 2.0 x 256 / 3 up to a multiple of 256, and 300; a layer without a part has no norm for it either.
    Row("nemotron-nas", NAS, 2 * 512 * 256 + 256 + (2 * 256**2 + 2 * 64 * 256 + 256 + 3 * 256 * 512 + 256)
        + (3 * 256 * 300 + 256) + (2 * 256**2 + 2 * 32 * 256 + 256), 4 * (2 + 1) * 32, "parts"),
]  # fmt: skip


def blueprint(config: dict[str, Any]) -> Blueprint:
    return lower(built(from_config(config, Source("config.json", json.dumps(config))).spec, "config.json"), "it")


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_counts(row: Row) -> None:
    it = blueprint(row.config)
    assert (params.count(it).total, kv.size(it, 1000).bytes_per_token) == (row.total, row.kv_per_token)


def test_every_type_has_a_row() -> None:
    remote = {name for module in ("remote", "remote_more") for name in families.MODULES[module].split()}
    # Read by the same function as one that has a row.
    alike = {"aquila", "xverse", "btlm", "minimax_m1"}
    assert remote - alike == {row.config.get("model_type", "mamba_ssm") for row in ROWS} & remote


def test_active_experts() -> None:
    arctic = params.count(blueprint(ARCTIC))
    assert arctic.total - arctic.active == 35 * 126 * 3 * 7168 * 4864
    assert 17.2e9 < arctic.active < 17.4e9


# Keys that change what is built, and by how many parameters.
CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], int]] = [
    ("qwen's other biases", llama("qwen", 256, 1024, 2, 2, 512), {"no_bias": False}, 2 * (256 + 2 * 512 + 256)),
    ("chatglm without grouping", chatglm(2, 512), {"multi_query_attention": False}, 2 * 30 * 256 * (4096 + 1)),
    ("chatglm's other biases", chatglm(2, 512), {"add_bias_linear": True}, 2 * (4096 + 2 * 13696 + 4096)),
    ("chatglm without a last norm", chatglm(2, 512), {"post_layer_norm": False}, -4096),
    ("arctic without dense FFNs", ARCTIC, {"use_residual": False}, -35 * (3 * 7168**2 + 7168)),
    ("openelm without a gate", OPENELM, {"ffn_with_glu": False},
     -1280 * 256 * sum([3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20])),
    ("minicpm's experts", llama("minicpm", 256, 512, 2, 4, 512), {"num_experts": 4, "num_experts_per_tok": 2},
     2 * (3 * 3 * 256 * 512 + 4 * 256)),
    ("jais with learned positions", gpt("jais", 256, 2, 4, 512, n_positions=64, position_embedding_type="alibi"),
     {"position_embedding_type": "learned"}, 64 * 256),
    ("a deepseek without experts", llama("deepseek", 256, 512, 2, 4, 512, n_routed_experts=4, n_shared_experts=1,
     num_experts_per_tok=2, moe_intermediate_size=64, first_k_dense_replace=1),
     {"n_routed_experts": None}, 3 * 256 * 512 - 5 * 3 * 256 * 64 - 4 * 256),
]  # fmt: skip


@pytest.mark.parametrize(("config", "change", "by"), [pytest.param(*rest, id=name) for name, *rest in CHANGES])
def test_a_key_changes_what_is_counted(config: dict[str, Any], change: dict[str, Any], by: int) -> None:
    assert params.count(blueprint({**config, **change})).total - params.count(blueprint(config)).total == by


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("the first ChatGLM", {"model_type": "chatglm", "inner_hidden_size": 16384}, "the first ChatGLM-6B is not read"),
    ("GLM-4V", chatglm(40, 151552, vision_config={"hidden_size": 1}), "vision_config: a ChatGLM with further parts"),
    ("OpenELM without heads", {**OPENELM, "num_query_heads": None}, "num_query_heads: missing"),
    ("OpenELM with a bad multiplier", {**OPENELM, "ffn_multipliers": [0.5] * 15 + ["x"]}, "ffn_multipliers: found"),
    ("Arctic that does not say", {key: v for key, v in ARCTIC.items() if key != "use_residual"}, "use_residual: missing"),
    ("layers short", {**NAS, "num_hidden_layers": 4}, "settings are wanted for each of 4 layers"),
    ("no FFN settings", {**NAS, "block_configs": [{"attention": {"no_op": True}}] * 3}, "ffn is wanted in each layer"),
    ("a linear layer for attention",
     {**NAS, "block_configs": [{"attention": {"replace_with_linear": True}, "ffn": {"no_op": True}}] * 3},
     "a linear layer in place"),
    ("an uneven group", {**NAS, "block_configs": [{"attention": {"n_heads_in_group": 3}, "ffn": {"no_op": True}}] * 3},
     "3 does not"),
    ("a mixture of XVERSE", llama("xverse", 256, 512, 2, 4, 512, num_experts=4), "a mixture of experts of type xverse"),
    ("a strange position", gpt("btlm", 256, 2, 4, 512, position_embedding_type="xpos"), "found 'xpos', allowed: alibi, learned"),
    ("MiniMax without its list", llama("minimax_text_01", 256, 512, 2, 4, 512), "attn_type_list: missing"),
    ("Mamba with attention", {"d_model": 64, "n_layer": 2, "vocab_size": 64, "ssm_cfg": {}, "attn_layer_idx": [1]},
     "attn_layer_idx"),
    ("Mamba of no kind", {"d_model": 64, "n_layer": 2, "vocab_size": 64, "ssm_cfg": {"layer": "S4"}},
     "found 'S4', allowed: Mamba1"),
    ("RWKV 6", {"model_type": "rwkv6"}, "'rwkv6' is not read: version 5 and later"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "says"), [pytest.param(config, says, id=name) for name, config, says in BAD])
def test_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(LlmcalcError) as caught:
        blueprint(config)
    assert says in str(caught.value)
    assert "config.json" in str(caught.value)
