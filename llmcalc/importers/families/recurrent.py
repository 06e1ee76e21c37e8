"""Models without attention (Mamba, Mamba-2, RWKV, xLSTM), and the recurrent mixers that hybrids share with them."""

from __future__ import annotations

from math import ceil
from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.shape import Spec, biases, extra

# Names of layer types in older files -> what they are called now.
LEGACY = {
    "mamba": "linear_attention", "attention": "full_attention", "deepseek_sparse_attention": "indexed_attention",
    "qwen_sparse_attention": "indexed_attention",
}  # fmt: skip


def kinds(c: Config, depth: int, otherwise: list[str], key: str = "layer_types") -> list[str]:
    """The type of each layer by its present name: as the config lists them, else as its class would derive them."""
    return [LEGACY.get(name, name) for name in c.each(key, depth) or otherwise]


def inner_width(c: Config, key: str) -> int:
    """Inner width of a mixer, so many times the model's."""
    width = int(c.number(key) * c.count("hidden_size"))
    if width < 1:
        raise c.error(key, "leaves no inner width")
    return width


def mamba_mixer(c: Config, state: str, conv: str, rank: str, conv_bias: str, bias: str) -> Spec:
    """A Mamba mixer, by the names of its keys; a rank that is ``auto`` is a sixteenth of the model's width, rounded up."""
    automatic = c.get(rank, "auto") == "auto"
    return {
        "type": "mamba", "state": c.count(state), "conv": c.count(conv),
        "rank": ceil(c.count("hidden_size") / 16) if automatic else c.count(rank),
        "conv_bias": c.flag(conv_bias), "bias": c.flag(bias),
    }  # fmt: skip


def mamba2_named(
    c: Config, heads: str, head_dim: str, state: str, *, groups: str, conv: str, conv_bias: str, bias: str, chunk: str
) -> Spec:
    """A Mamba-2 mixer, by the names of its keys."""
    return {
        "type": "mamba2", "heads": c.count(heads), "head_dim": c.count(head_dim), "state": c.count(state),
        "groups": c.count(groups), "conv": c.count(conv), "conv_bias": c.flag(conv_bias), "bias": c.flag(bias), "norm": "gated",
        "chunk": c.count(chunk),
    }  # fmt: skip


def mamba2_mixer(c: Config, *, width: int | None = None, bias: bool | None = None, norm: str = "gated") -> Spec:
    """A Mamba-2 mixer with the names that most hybrids have for its sizes; ``width`` is its inner one."""
    width = inner_width(c, "mamba_expand") if width is None else width
    heads = c.count("mamba_n_heads")
    head_dim = width // heads if c.get("mamba_d_head", "auto") == "auto" else c.count("mamba_d_head")
    if heads * head_dim != width:
        raise c.error("mamba_n_heads", f"{heads} heads of {head_dim} are not the inner width {width}")
    return {
        "type": "mamba2", "heads": heads, "head_dim": head_dim, "state": c.count("mamba_d_state"),
        "groups": c.count("mamba_n_groups"), "conv": c.count("mamba_d_conv"), "conv_bias": c.flag("mamba_conv_bias"),
        "bias": c.flag("mamba_proj_bias") if bias is None else bias, "norm": norm, "chunk": c.count("mamba_chunk_size"),
    }  # fmt: skip


def _mixers_alone(c: Config, mixer: Spec, **more: Any) -> Spec:
    """A stack of mixers, one norm each, between embedding and head."""
    return {
        "layers": c.layers(),
        "hidden": c.count("hidden_size"),
        "vocab": c.count("vocab_size"),
        "ffn": 0,
        "recurrent": mixer,
        "positions": "none",
        "tied_head": c.flag("tie_word_embeddings", True),
        **more,
    }


def mamba(c: Config, _: Any) -> Spec:
    """Mamba, and Falcon Mamba, whose further norms have no parameters."""
    mixer = mamba_mixer(c, "state_size", "conv_kernel", "time_step_rank", "use_conv_bias", "use_bias")
    # Files carry the inner width as well, and what they say of it holds.
    return _mixers_alone(c, {**mixer, "width": c.count("intermediate_size", inner_width(c, "expand"))})


def mamba2(c: Config, _: Any) -> Spec:
    """Mamba-2."""
    c.asked.add("intermediate_size")  # expand x hidden_size, which the class reads
    mixer = mamba2_named(c, "num_heads", "head_dim", "state_size", groups="n_groups", conv="conv_kernel",
                         conv_bias="use_conv_bias", bias="use_bias", chunk="chunk_size")  # fmt: skip
    width = inner_width(c, "expand")
    if mixer["heads"] * mixer["head_dim"] != width:
        raise c.error("num_heads", f"{mixer['heads']} heads of {mixer['head_dim']} are not the inner width {width}")
    return _mixers_alone(c, mixer)


def rwkv(c: Config, _: Any) -> Spec:
    """RWKV-4: time mixing, and channel mixing as a plain FFN with a receptance gate of its own; a norm before the first layer."""
    hidden = c.count("hidden_size")
    width = c.count("attention_hidden_size", hidden)
    if width != hidden:
        # Its states are made for the model's width: with another it does not run.
        raise c.error("attention_hidden_size", f"{width} is not the hidden size {hidden}; RWKV's states are as wide as the model")
    channel_mixing = [
        extra("receptance", hidden, hidden, part="ffn"),
        *(extra(name, hidden, part="ffn") for name in ("channel_mix_k", "channel_mix_r")),
    ]
    return _mixers_alone(
        c,
        {"type": "rwkv"},
        ffn=c.count("intermediate_size", 4 * hidden),
        gated=False,
        activation="relu2",
        norm="layernorm",
        context=c.maybe("context_length"),
        extra=channel_mixing,
        embedding_norm=True,
    )


def xlstm(c: Config, _: Any) -> Spec:
    """xLSTM 7B: mLSTM layers, each with an FFN. The head is never tied."""
    hidden, heads, biased = c.count("hidden_size"), c.count("num_heads"), c.flag("use_bias")
    if c.count("embedding_dim", hidden) != hidden:
        raise c.error("embedding_dim", f"not the hidden size {hidden}")
    if c.count("num_blocks", c.layers()) != c.layers():
        raise c.error("num_blocks", f"not the number of layers {c.layers()}")
    keys, values = int(hidden * c.number("qk_dim_factor")), int(hidden * c.number("v_dim_factor"))
    if not keys or not values or keys % heads or values % heads:
        raise c.error("num_heads", f"{heads} heads do not divide keys of {keys} and values of {values}")
    multiple = c.count("ffn_round_up_to_multiple_of")
    ffn = int((hidden * c.number("ffn_proj_factor") + multiple - 1) // multiple * multiple)
    mixer = {
        "type": "mlstm", "heads": heads, "head_dim": values // heads, "key_dim": keys // heads, "bias": biased,
        "chunk": c.count("chunk_size"),
    }  # fmt: skip
    # The norms inside of layers have a bias where the linears have, the last norm has not.
    lone = [extra(f"{name}.bias", width, part="norm") for name, width in (("mlstm_norm", hidden), ("ffn_norm", hidden))]
    lone.append(extra("output_norm.bias", values, part="recurrent"))
    spec = _mixers_alone(c, mixer, ffn=ffn, tied_head=False, biases=biases(ffn=biased), extra=lone if biased else [])
    if keys % _XLSTM_CACHE or values % _XLSTM_CACHE:
        spec["unknown_cache"] = (
            f"transformers makes states for heads of other sizes unless keys and values are multiples of {_XLSTM_CACHE}"
        )
    return spec


_XLSTM_CACHE = 64

FAMILIES = {"xlstm": xlstm, "mamba": mamba, "falcon_mamba": mamba, "mamba2": mamba2, "rwkv": rwkv}
