"""Hybrids with Mamba layers among their attention: Jamba, Bamba, Falcon-H1, Nemotron-H, Zamba 1 and 2."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import MAX_LAYERS, Config
from llmcalc.importers.families.recurrent import inner_width, kinds, mamba2_mixer, mamba2_named, mamba_mixer
from llmcalc.importers.shape import Spec, biases, by_type, decoder, every, extra, heads_of, usual_biases


def jamba(c: Config, _: Any) -> Spec:
    """Jamba: one attention layer in a period, a mixture in every second FFN; no positions."""
    depth = c.layers()
    for name in ("attn_layer", "expert_layer"):
        if c.count(f"{name}_offset", least=0) >= c.count(f"{name}_period"):
            raise c.error(f"{name}_offset", "is not within the period")
    mixer = mamba_mixer(c, "mamba_d_state", "mamba_d_conv", "mamba_dt_rank", "mamba_conv_bias", "mamba_proj_bias")
    mixer |= {"width": inner_width(c, "mamba_expand"), "norm": "inputs"}
    types = every(depth, c.count("attn_layer_period"), "mamba", "attention", c.count("attn_layer_offset", least=0))
    moe = {"experts": c.count("num_experts"), "top_k": c.count("num_experts_per_tok"), "ffn": c.count("intermediate_size")}
    routed = every(depth, c.count("expert_layer_period"), "dense", "moe", c.count("expert_layer_offset", least=0))
    # A mixture of one expert is built as a plain FFN.
    mixture: Spec = {"moe": moe} if moe["experts"] > 1 else {}
    blocks = [
        {**({"recurrent": mixer} if kind == "mamba" else {}), **(mixture if ffn == "moe" else {})}
        for kind, ffn in zip(types, routed, strict=True)
    ]
    return decoder(c, positions="none", blocks=blocks)


def bamba(c: Config, _: Any) -> Spec:
    """Bamba: Mamba-2 layers, and attention where the config says."""
    attends = c.chosen("attn_layer_indices")
    mixer = mamba2_mixer(c)
    spec = decoder(c, biases=usual_biases(c))
    return {**spec, "blocks": [{} if index in attends else {"recurrent": mixer} for index in range(spec["layers"])]}


def falcon_h1(c: Config, _: Any) -> Spec:
    """Falcon-H1: attention and Mamba-2 side by side in every layer."""
    hidden = c.count("hidden_size")
    into, out = c.flag("mamba_proj_bias"), c.flag("projectors_bias")
    width = inner_width(c, "mamba_expand") if c.maybe("mamba_d_ssm") is None else c.count("mamba_d_ssm")
    mixer = mamba2_mixer(c, width=width, bias=into and out, norm="gated" if c.flag("mamba_rms_norm") else "none")
    projected = 2 * width + 2 * mixer["groups"] * mixer["state"] + mixer["heads"]
    lone = [extra("in.bias", projected, part="recurrent")] if into and not out else []
    lone += [extra("out.bias", hidden, part="recurrent")] if out and not into else []
    return decoder(c, attention=True, recurrent=mixer, biases=usual_biases(c), extra=lone)


_NEMOTRON = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}


def _nemotron_layers(c: Config) -> list[str]:
    """The type of each layer: a list, or a pattern with a letter for each."""
    said, pattern = c.get("layers_block_type"), c.text("hybrid_override_pattern")
    if said is None and pattern:
        if not set(pattern) <= set(_NEMOTRON):
            raise c.error("hybrid_override_pattern", f"found {pattern!r}, allowed: the letters {' '.join(_NEMOTRON)}")
        types = [_NEMOTRON[letter] for letter in pattern]
    elif said is None:
        types = ["linear_attention", "moe", "full_attention", "mlp"]
    else:
        types = kinds(c, len(said), [], "layers_block_type") if isinstance(said, list) else []
    if not 0 < len(types) <= MAX_LAYERS:
        raise c.error("layers_block_type", f"{len(types)} layers, allowed: 1 to {MAX_LAYERS:,}")
    return types


def nemotron_h(c: Config, _: Any) -> Spec:
    """Nemotron-H: a layer is one thing, Mamba-2, attention, an FFN or a mixture, behind one norm. The head is never tied."""
    # The first files name the head dim apart.
    c.names.setdefault("head_dim", []).append("attention_head_dim")
    hidden, latent, mlp_bias = c.count("hidden_size"), c.maybe("moe_latent_size"), c.flag("mlp_bias")
    types = _nemotron_layers(c)
    mixer = mamba2_named(
        c, "mamba_num_heads", "mamba_head_dim", "ssm_state_size",
        groups="mamba_n_groups" if c.says("mamba_n_groups") else "n_groups",
        conv="mamba_d_conv" if c.says("mamba_d_conv") else "conv_kernel",
        conv_bias="mamba_conv_bias" if c.says("mamba_conv_bias") else "use_conv_bias",
        bias="use_bias",
        chunk="mamba_chunk_size" if c.says("mamba_chunk_size") else "chunk_size",
    )  # fmt: skip
    shared = c.count("moe_shared_expert_intermediate_size", least=0) or c.count("intermediate_size")
    moe = {
        "experts": c.count("n_routed_experts"), "top_k": c.count("num_experts_per_tok"), "ffn": c.count("moe_intermediate_size"),
        "shared_ffn": shared, "correction_bias": "buffer", "latent": latent,
    }  # fmt: skip
    # The routed experts have no biases, what stands beside them has.
    beside = [extra("shared_up.bias", shared, part="shared_experts"), extra("shared_down.bias", hidden, part="shared_experts")]
    if latent:
        beside += [extra("latent_down.bias", latent, part="projection"), extra("latent_up.bias", hidden, part="projection")]
    blocks: dict[str, Spec] = {
        "linear_attention": {"recurrent": mixer, "ffn": 0},
        "full_attention": {"ffn": 0},
        "mlp": {"attention": False, "ffn": c.count("intermediate_size"), "biases": biases(ffn=mlp_bias)},
        "moe": {"attention": False, "moe": {k: v for k, v in moe.items() if v is not None}, "extra": beside if mlp_bias else []},
    }
    return {
        "layers": len(types), "hidden": hidden, **heads_of(c), "vocab": c.count("vocab_size"),
        "context": c.maybe("max_position_embeddings"), "gated": False, "activation": c.text("mlp_hidden_act"), "positions": "none",
        "tied_head": False, "blocks": by_type(types, blocks, c, "layers_block_type"),
    }  # fmt: skip


def _zamba(c: Config, mixer: Spec, types: list[str], hybrids: list[list[Spec]], shared: int, **more: Any) -> Spec:
    """Zamba's layers: a mixer each, and in the hybrid ones a shared block before it with a projection of the layer's own.

    ``hybrids`` has the further tensors of each hybrid layer in order, ``shared`` the blocks that they take in turn. transformers
    shares the blocks along with the embedding, and unties both.
    """
    hidden = c.count("hidden_size")
    if c.count("attention_hidden_size", 2 * hidden) != 2 * hidden:
        raise c.error("attention_hidden_size", f"not {2 * hidden}, hidden state and embedding side by side")
    if not set(types) <= {"linear_attention", "hybrid"}:
        raise c.error("layers_block_type", f"found {sorted(set(types))}, allowed: linear_attention, hybrid")
    own, waiting = extra("shared_projection", hidden, hidden, part="projection"), iter(hybrids)
    hybrid: Spec = {"recurrent": mixer, "attention": True, "shared_blocks": shared}
    blocks = [{**hybrid, "extra": [own, *next(waiting)]} if kind == "hybrid" else {"recurrent": mixer, "ffn": 0} for kind in types]
    head_dim = c.count("attention_head_dim", 2 * hidden // c.count("num_attention_heads"))
    return {**decoder(c, **more), "head_dim": head_dim, "blocks": blocks}


def zamba(c: Config, _: Any) -> Spec:
    """Zamba: Mamba layers whose channels are split into heads, and one attention block that serves many of them."""
    depth = c.layers()
    if c.get("layers_block_type") is None and depth < 3:
        raise c.error("layers_block_type", "missing; a model of fewer than three layers needs it")
    rest = every(depth, c.count("attn_layer_period"), "linear_attention", "hybrid", c.count("attn_layer_offset", least=0))
    types = kinds(c, depth, ["linear_attention", "linear_attention", "hybrid", *rest][:depth], "layers_block_type")
    mixer = mamba_mixer(c, "mamba_d_state", "mamba_d_conv", "mamba_dt_rank", "mamba_conv_bias", "mamba_proj_bias")
    mixer |= {"width": inner_width(c, "mamba_expand"), "heads": c.count("n_mamba_heads")}
    hybrids = types.count("hybrid")
    shared = 1 if c.flag("tie_word_embeddings") else max(hybrids, 1)
    return _zamba(c, mixer, types, [[]] * hybrids, shared, positions="none")


def _adapters(c: Config, ffn: int, copies: int) -> list[Spec]:
    """Low-rank adapters of a shared block; of several copies in one place a layer goes through one."""
    hidden, rank = c.count("hidden_size"), c.count("adapter_rank")
    adapted = [("gate_up", hidden, 2 * ffn, "ffn")]
    if c.flag("use_shared_attention_adapter"):
        adapted += [(name, 2 * hidden, 2 * hidden, "attention") for name in ("q", "k", "v")]
    tensors = []
    for name, into, out, part in adapted:
        for role, shape in ((f"{name}_adapter_down", (rank, into)), (f"{name}_adapter_up", (out, rank))):
            tensors.append(extra(role, *shape, part=part))
            if copies > 1:
                tensors.append(extra(f"{role}_spare", *shape, part=part, copies=copies - 1, times=0))
    return tensors


def zamba2(c: Config, _: Any) -> Spec:
    """Zamba 2: Mamba-2 layers, a few attention blocks in turn, and low-rank adapters that make them each layer's own."""
    c.asked.add("state_size")  # mamba_d_state is what the class reads
    ffn = c.count("intermediate_size", 0, least=0) or 4 * c.count("hidden_size")
    usual = "MMMMMMH" + "MMMMMH" * 6 + "MMMMH" + "MMMH" + "MM"
    names = {"M": "linear_attention", "H": "hybrid"}
    types = kinds(c, c.layers(), [names[letter] for letter in usual], "layers_block_type")
    if len(types) != c.layers():
        raise c.error("layers_block_type", f"{len(types)} entries for {c.layers()} layers")
    width, heads, biased = inner_width(c, "mamba_expand"), c.count("n_mamba_heads"), c.flag("add_bias_linear")
    if width != heads * c.count("mamba_headdim", width // heads):
        raise c.error("n_mamba_heads", f"{heads} heads do not make up the inner width {width}")
    # The convolution has its bias whatever use_conv_bias says.
    mixer = {
        "type": "mamba2", "heads": heads, "head_dim": width // heads, "state": c.count("mamba_d_state"),
        "groups": c.count("mamba_ngroups"), "conv": c.count("mamba_d_conv"), "conv_bias": True, "bias": biased, "norm": "gated",
        "chunk": c.count("chunk_size"),
    }  # fmt: skip
    hybrids, blocks = types.count("hybrid"), c.count("num_mem_blocks")
    # A block has an adapter for every layer that it serves, and an untied one has them all for itself.
    serves = (
        [1] * hybrids
        if c.flag("tie_word_embeddings")
        else [len(range(index % blocks, hybrids, blocks)) for index in range(hybrids)]
    )
    shared = blocks if c.flag("tie_word_embeddings") else max(hybrids, 1)
    adapters = [_adapters(c, ffn, copies) for copies in serves]
    positions = "rotary" if c.flag("use_mem_rope") else "none"
    return _zamba(c, mixer, types, adapters, shared, ffn=ffn, biases=biases(ffn=biased), positions=positions)


FAMILIES = {
    "jamba": jamba, "bamba": bamba, "falcon_h1": falcon_h1, "nemotron_h": nemotron_h,
    "zamba": zamba, "zamba2": zamba2,
}  # fmt: skip
