"""Types that no transformers release has: GPT's line, layers that differ, and older names of types that it does have."""

from __future__ import annotations

from math import ceil
from typing import Any

from llmcalc.importers import families
from llmcalc.importers.config import Config
from llmcalc.importers.families.classic import falcon
from llmcalc.importers.families.remote import adopt
from llmcalc.importers.shape import Spec, decoder, extra, usual_biases

GPT = {
    "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions", "hidden_act": "activation_function",
}  # fmt: skip


def _gpt(c: Config, **more: Any) -> Spec:
    """GPT-2's names for the parts, LayerNorm and biases everywhere."""
    adopt(c, GPT, tie_word_embeddings=True)
    ffn = c.count("n_inner", 4 * c.count("hidden_size"))
    return decoder(c, ffn=ffn, **{"gated": False, "norm": "layernorm", "biases": ["all"], **more})


def jais(c: Config, _: Any) -> Spec:
    """Jais and BTLM: GPT-2 with ALiBi and SwiGLU, where they say so."""
    positions = c.text("position_embedding_type", "learned")
    if positions not in ("learned", "alibi"):
        raise c.error("position_embedding_type", f"found {positions!r}, allowed: alibi, learned")
    return _gpt(c, gated=c.get("activation_function") == "swiglu", positions=positions)


def codeshell(c: Config, _: Any) -> Spec:
    """CodeShell: GPT-2 with rotary positions and grouped queries."""
    positions = c.text("position_embedding_type", "learned")
    adopt(c, group_query_attention=True, num_query_groups=1)
    heads = c.count("num_query_groups") if c.flag("group_query_attention") else None
    return _gpt(c, kv_heads=heads, positions="rotary" if positions == "rope" else "learned")


def phi_msft(c: Config, _: Any) -> Spec:
    """Phi-1, 1.5 and 2 as they were first published: GPT-J's block."""
    adopt(c, tie_word_embeddings=False)
    return _gpt(c, kv_heads=c.count("n_head_kv") if c.says("n_head_kv") else None, parallel="one-norm", head_bias=True)


def phi3small(c: Config, _: Any) -> Spec:
    """Phi-3-small: LayerNorm and biases; sparse blocks are masked, the cache keeps everything."""
    adopt(c, tie_word_embeddings=True)
    return decoder(c, head_dim=None, ffn=c.count("ff_intermediate_size"), norm="layernorm", biases=["all"], activation="gegelu")


def plamo(c: Config, _: Any) -> Spec:
    """PLaMo: side by side on one norm, ``n_shared_head`` queries to a key."""
    adopt(c, hidden_act="silu", tie_word_embeddings=False, n_shared_head=8)
    heads = c.count("num_attention_heads")
    return decoder(c, parallel="one-norm", kv_heads=ceil(heads / c.count("n_shared_head")))


def divisible(value: float, divisor: int) -> int:
    """The multiple of ``divisor`` nearest to a value, not more than a tenth below it."""
    near = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * value else near


def openelm(c: Config, _: Any) -> Spec:
    """OpenELM: heads and FFN dims of each layer for itself."""
    names = {"num_hidden_layers": "num_transformer_layers", "max_position_embeddings": "max_context_length"}
    adopt(c, names, ffn_with_glu=True, normalize_qk_projections=True, share_input_output_layers=True, ffn_dim_divisor=256)
    layers, hidden, dim = c.layers(), c.count("model_dim"), c.count("head_dim")
    queries, keys = c.each("num_query_heads", layers, int), c.each("num_kv_heads", layers, int)
    wide = c.get("ffn_multipliers")
    if queries is None or keys is None:
        raise c.error("num_query_heads", "missing, or num_kv_heads is; they count the heads of each layer")
    if not isinstance(wide, list) or len(wide) < layers or not all(type(x) in (int, float) and 0 < x < 1e4 for x in wide):
        raise c.error("ffn_multipliers", f"found {str(wide)[:60]}, allowed: a number for each of {layers} layers")
    divisor = c.count("ffn_dim_divisor")
    return {
        "layers": layers,
        "hidden": hidden,
        "head_dim": dim,
        "gated": c.flag("ffn_with_glu"),
        "activation": c.text("activation_fn_name") or None,
        "qk_norm": "head" if c.flag("normalize_qk_projections") else None,
        "vocab": c.count("vocab_size"),
        "context": c.maybe("max_position_embeddings"),
        "tied_head": c.flag("share_input_output_layers"),
        "blocks": [
            {"heads": a, "kv_heads": k, "ffn": divisible(x * hidden, divisor)} for a, k, x in zip(queries, keys, wide, strict=False)
        ],
    }


def _part(c: Config, block: Any, name: str) -> Config:
    """One part of a layer's settings."""
    part = block.get(name) if isinstance(block, dict) else None
    if not isinstance(part, dict):
        raise c.error("block_configs", f"{name} is wanted in each layer's settings")
    if part.get("replace_with_linear"):
        raise c.error("block_configs", f"a linear layer in place of {name} is not read here; write a spec")
    return Config(part, "", c.source, f"{c.prefix}block_configs.{name}.")


def _wide(c: Config, hidden: int) -> int:
    """The FFN dim of a multiple of the width: two thirds of it, up to the next 256."""
    multiple = c.number("ffn_mult")
    if not 0 < multiple < 1000:
        raise c.error("ffn_mult", f"found {multiple}, allowed: a number above 0 and below 1000")
    return ceil(int(2 * multiple * hidden / 3) / 256) * 256


def nemotron_nas(c: Config, _: Any) -> Spec:
    """Llama Nemotron, found by search: each layer says how many queries share a key and how wide its FFN is, or has neither."""
    adopt(c, hidden_act="silu", tie_word_embeddings=False)
    layers, hidden, heads = c.layers(), c.count("hidden_size"), c.count("num_attention_heads")
    said = c.get("block_configs")
    if not isinstance(said, list) or len(said) < layers:
        raise c.error("block_configs", f"settings are wanted for each of {layers} layers")
    blocks = []
    for block in said[:layers]:
        attention, feed = _part(c, block, "attention"), _part(c, block, "ffn")
        if attention.says("window_length"):
            raise attention.error("window_length", "windows with sinks are not read here; write a spec")
        own: Spec = {"attention": False}
        if not attention.flag("no_op"):
            group = attention.count("n_heads_in_group")
            if heads % group:
                raise attention.error("n_heads_in_group", f"{group} does not divide {heads} heads")
            own = {"heads": heads, "kv_heads": heads // group}
        ffn = 0
        if not feed.flag("no_op"):
            ffn = feed.maybe("intermediate_size") or _wide(feed, hidden)
        blocks.append({**own, "ffn": ffn})
    return decoder(c, heads=heads, kv_heads=None, ffn=None, head_dim=c.maybe("head_dim"), biases=usual_biases(c), blocks=blocks)


def deci(c: Config, _: Any) -> Spec:
    """DeciLM 7B: Llama with a number of KV heads for each layer."""
    adopt(c, hidden_act="silu", tie_word_embeddings=False)
    keys = c.each("num_key_value_heads_per_layer", c.layers(), int)
    if keys is None:
        raise c.error("num_key_value_heads_per_layer", "missing")
    return decoder(c, kv_heads=None, blocks=[{"kv_heads": count} for count in keys])


def refined_web(c: Config, task: Any) -> Spec:
    """Falcon under its first names: RefinedWebModel is 7B and the RW models, RefinedWeb is 40B."""
    names = {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "num_kv_heads": "n_head_kv"}
    new = c.model_type == "RefinedWeb"
    adopt(c, names, tie_word_embeddings=True, activation="gelu", multi_query=False, parallel_attn=new, new_decoder_architecture=new)
    return falcon(c, task)


def read_as(c: Config, model_type: str, task: Any, **values: Any) -> Spec:
    """Read as another type, with these values in place of the file's. Raises SpecError where nobody reads that type."""
    family = families.find(model_type)
    if family is None:
        raise c.error("model_type", f"it would be read as {model_type}, which llmcalc does not know")
    other = Config({**c.data, **values, "model_type": model_type}, model_type, c.source, c.prefix)
    spec = family(other, task)
    c.asked |= other.asked | set(other.known.defaults) | set(other.known.aliases) | set(other.known.kwargs)
    return spec


def minimax_01(c: Config, task: Any) -> Spec:
    """MiniMax-01 and M1: softmax attention where the list has 1, lightning attention where it has 0."""
    kinds = c.each("attn_type_list", c.layers(), int)
    if kinds is None:
        raise c.error("attn_type_list", "missing; it says which layers are linear")
    shared = c.get("shared_intermediate_size", 0)
    if shared not in (0, [0]):
        raise c.error("shared_intermediate_size", f"found {shared!r}: shared experts are not read here; write a spec")
    c.asked |= {"postnorm", "shared_moe_mode", "rotary_dim"}
    c.asked |= {f"layernorm_{part}_{name}" for part in ("full_attention", "linear_attention", "mlp") for name in ("alpha", "beta")}
    return read_as(c, "minimax", task, layer_types=["full_attention" if kind else "linear_attention" for kind in kinds])


def mamba_ssm(c: Config, task: Any) -> Spec:
    """Mamba and Mamba-2 as state-spaces published them; the vocabulary is padded, and the head tied."""
    inside = c.sub("ssm_cfg")
    c.asked |= {"attn_cfg", "fused_add_norm", "residual_in_fp32"}
    if c.get("attn_layer_idx") or c.count("d_intermediate", 0, least=0):
        raise c.error("attn_layer_idx", "Mamba with attention or FFN layers is not read here; write a spec")
    if not c.flag("rms_norm", True):
        raise c.error("rms_norm", "LayerNorm is not read here; write a spec")
    layer = inside.text("layer", "Mamba1")
    if layer not in ("Mamba1", "Mamba2"):
        raise inside.error("layer", f"found {layer!r}, allowed: Mamba1, Mamba2")
    multiple, hidden, expand = c.count("pad_vocab_size_multiple", 8), c.count("d_model"), inside.count("expand", 2)
    values: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": c.count("n_layer"),
        "vocab_size": ceil(c.count("vocab_size") / multiple) * multiple,
        "expand": expand,
        "conv_kernel": inside.count("d_conv", 4),
        "tie_word_embeddings": c.flag("tie_embeddings", True),
    }
    if layer == "Mamba1":
        rank = inside.get("dt_rank", "auto")
        step = ceil(hidden / 16) if rank == "auto" else inside.count("dt_rank")
        return read_as(c, "mamba", task, **values, state_size=inside.count("d_state", 16), time_step_rank=step,
                       intermediate_size=expand * hidden)  # fmt: skip
    dim = inside.count("headdim", 64)
    return read_as(c, "mamba2", task, **values, state_size=inside.count("d_state", 128), n_groups=inside.count("ngroups", 1),
                   head_dim=dim, num_heads=expand * hidden // dim)  # fmt: skip


def mimo(c: Config, task: Any) -> Spec:
    """MiMo: Qwen 2 with layers behind it that predict further tokens; plain generation does not run them."""
    if c.flag("use_sliding_window") or not c.flag("attention_bias", True):
        raise c.error("attention_bias", "only MiMo with biases on queries, keys and values, and without windows, is read here")
    depth = c.count("num_nextn_predict_layers", 0, least=0)
    spec = read_as(c, "qwen2", task, tie_word_embeddings=c.flag("tie_word_embeddings"))
    h, f, heads = spec["hidden"], spec["ffn"], spec["heads"]
    q, kv = (count * (spec["head_dim"] or h // heads) for count in (heads, spec["kv_heads"]))
    shapes: dict[str, tuple[int, ...]] = {
        "q": (q, h), "k": (kv, h), "v": (kv, h), "o": (h, q), "gate": (f, h), "up": (f, h), "down": (h, f), "input": (h, 2 * h),
        "q.bias": (q,), "k.bias": (kv,), "v.bias": (kv,), **{f"norm_{number}": (h,) for number in range(1, 6)},
    }  # fmt: skip
    further = [extra(f"mtp_{name}", *shape, times=0, copies=depth, after=True) for name, shape in shapes.items()]
    return {**spec, "outside": further if depth else None}


FAMILIES = {
    "mimo": mimo,
    "jais": jais,
    "btlm": jais,
    "codeshell": codeshell,
    "phi-msft": phi_msft,
    "mixformer-sequential": phi_msft,
    "phi3small": phi3small,
    "plamo": plamo,
    "openelm": openelm,
    "nemotron-nas": nemotron_nas,
    "deci": deci,
    "RefinedWeb": refined_web,
    "RefinedWebModel": refined_web,
    "minimax_text_01": minimax_01,
    "minimax_m1": minimax_01,
    "mamba_ssm": mamba_ssm,
}
