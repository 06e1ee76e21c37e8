"""Decoders with multi-head latent attention: DeepSeek-V2 and what came after it."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.mixture import both, routed, sparse_layers
from llmcalc.importers.shape import Spec, biases, decoder, extra, trimmed


def latent(c: Config) -> Spec:
    """The ranks and head dims of latent attention."""
    return trimmed(
        {
            "kv_rank": c.count("kv_lora_rank"),
            "q_rank": c.maybe("q_lora_rank"),
            "nope_dim": c.count("qk_nope_head_dim"),
            "rope_dim": c.count("qk_rope_head_dim"),
            "v_dim": c.count("v_head_dim", c.count("hidden_size") // c.count("num_attention_heads")),
        }
    )


def latent_decoder(c: Config, **more: Any) -> Spec:
    """A decoder with latents. The switch for biases means the compressed queries' and keys', and the output."""
    compressed = c.maybe("q_lora_rank") is not None
    bias = c.flag("attention_bias")
    return decoder(c, kv_heads=None, head_dim=None, mla=latent(c), biases=biases(q=bias and compressed, k=bias, o=bias), **more)


def _after_dense(c: Config, **more: Any) -> Spec | None:
    """The mixture behind the first dense layers; none where all are dense."""
    first = c.count("first_k_dense_replace", 0, least=0)
    return routed(c, first_dense=first or None, **more) if first < c.layers() else None


def deepseek_v2(c: Config, _: Any) -> Spec:
    """DeepSeek-V2: dense layers first, no correction bias; plain queries may have a bias too."""
    bias = c.flag("attention_bias")
    spec = latent_decoder(c, moe=_after_dense(c, correction_bias=None))
    return {**spec, "biases": biases(q=bias and c.maybe("q_lora_rank") is not None, k=bias, o=bias, ffn=c.flag("mlp_bias"))}


def deepseek_v3(c: Config, _: Any) -> Spec:
    """DeepSeek-V3, R1, Kimi K2: a correction bias in the router."""
    return latent_decoder(c, moe=_after_dense(c))


def listed(c: Config, _: Any) -> Spec:
    """GLM-4.7-Flash: the same with the kind of FFN listed by layer, the first one dense."""
    spec = latent_decoder(c)
    usual = [index >= c.count("first_k_dense_replace", 1, least=0) for index in range(spec["layers"])]
    return {**spec, "blocks": sparse_layers(c, usual, routed(c))}


def index_of(c: Config, **more: Any) -> Spec:
    """The index that picks tokens: its heads, their dim, and how many tokens it picks."""
    return {"heads": c.count("index_n_heads"), "dim": c.count("index_head_dim"), "top_k": c.count("index_topk"), **more}


def indexed(c: Config, _: Any) -> Spec:
    """DeepSeek-V3.2 and GLM-5: an index in every layer picks the tokens that attention looks at."""
    return {**listed(c, _), "index": index_of(c)}


def shared_index(c: Config, task: Any) -> Spec:
    """GLM-5: some layers reuse the index of an earlier one."""
    spec = indexed(c, task)
    layers, pattern = spec["layers"], c.get("index_topk_pattern")
    period, offset = c.count("index_topk_freq", 1, least=0) or 1, c.count("index_skip_topk_offset", 2, least=0)
    usual = ["full" if max(i - offset + 1, 0) % period == 0 else "shared" for i in range(layers)]
    if isinstance(pattern, str):
        usual = [{"F": "full", "S": "shared"}.get(letter, letter) for letter in pattern]
    types = (
        c.each("indexer_types", layers) or (c.each("index_topk_pattern", layers) if isinstance(pattern, list) else None) or usual
    )
    if len(types) < layers or set(types) - {"full", "shared"}:
        raise c.error("indexer_types", f"full or shared is wanted for each of {layers} layers")
    index = spec.pop("index")
    own = [{"index": index} if kind == "full" else {} for kind in types]
    return {**spec, "blocks": both(spec["blocks"], own)}


def minicpm3(c: Config, _: Any) -> Spec:
    """MiniCPM3: latents with dense FFNs."""
    spec = latent_decoder(c)
    return {**spec, "biases": [*spec["biases"], *biases(ffn=c.flag("mlp_bias"))]}


def longcat_flash(c: Config, _: Any) -> Spec:
    """LongCat-Flash: each layer is two of attention and FFN, with a mixture beside the first; some experts do nothing."""
    # Some files count the halves of layers in place of the layers.
    halves = c.says("num_hidden_layers")
    layers, bias = max(1, c.layers() // 2) if halves else c.count("num_layers", most=10_000), c.flag("attention_bias")
    ffn = c.count("ffn_hidden_size")
    moe = {
        "experts": c.count("n_routed_experts"),
        "top_k": c.count("moe_topk"),
        "ffn": c.count("expert_ffn_hidden_size"),
        "dense": ffn,
        "idle": c.count("zero_expert_num", 0, least=0),
        "correction_bias": "buffer",
    }
    return {
        "layers": 2 * layers,
        "hidden": c.count("hidden_size"),
        "heads": c.count("num_attention_heads"),
        "mla": latent(c),
        "ffn": ffn,
        "biases": biases(q=bias, k=bias, o=bias, router=c.flag("router_bias")),
        "vocab": c.count("vocab_size"),
        "context": c.maybe("max_position_embeddings"),
        "tied_head": c.flag("tie_word_embeddings"),
        "blocks": [{"moe": moe}, {"biases": biases(q=bias, k=bias, o=bias)}] * layers,
    }


def _hyper(name: str, rows: int, into: int, scales: int, **more: Any) -> list[Spec]:
    """A matrix over all streams of the residual, a base of as many rows, and scales."""
    return [
        extra(f"{name}_hyper", rows, into, part="other", **more),
        extra(f"{name}_hyper_base", rows, part="other", **more),
        extra(f"{name}_hyper_scale", scales, part="other", **more),
    ]


def hyper_connections(hidden: int, streams: int, rows: int, scales: int) -> list[Spec]:
    """What mixes the streams of the residual before and after each sub-layer."""
    return [tensor for place in ("attention", "ffn") for tensor in _hyper(place, rows, streams * hidden, scales)]


def hyper_head(hidden: int, streams: int) -> list[Spec]:
    """What makes one stream of all before the head."""
    return _hyper("head", streams, streams * hidden, 1, after=True)


def deepseek_v4(c: Config, _: Any) -> Spec:
    """DeepSeek-V4: one key that is also the value, grouped output projections, compressed context, hyper-connections.

    What the compressed context takes in a cache is not established, so asking for the cache is refused.
    """
    hidden, heads, dim = c.count("hidden_size"), c.count("num_attention_heads"), c.count("head_dim")
    rank, groups, o_rank = c.count("q_lora_rank"), c.count("o_groups"), c.count("o_lora_rank")
    streams, layers, vocab = c.count("hc_mult"), c.layers(), c.count("vocab_size")
    top_k, count = c.count("num_experts_per_tok"), c.count("n_routed_experts")
    rates = c.get("compress_rates", {})
    moe: Spec = trimmed(
        {
            "experts": count,
            "top_k": top_k,
            "ffn": c.count("moe_intermediate_size"),
            "shared": c.count("n_shared_experts", 0, least=0),
        }
    )
    attention = [
        extra("attention_norm", hidden, part="norm"),
        extra("q_a", rank, hidden, part="attention"),
        extra("q_a_norm", rank, part="norm"),
        extra("q_b", heads * dim, rank, part="attention"),
        extra("kv", dim, hidden, part="attention"),
        extra("kv_norm", dim, part="norm"),
        extra("o_a", groups * o_rank, heads * dim // groups, part="attention"),
        extra("o_b", hidden, groups * o_rank, part="attention"),
        extra("sinks", heads, part="attention"),
        *hyper_connections(hidden, streams, streams * (2 + streams), 3),
    ]

    def compressor(rate: int, width: int) -> list[Spec]:
        """The projections of a compressed context."""
        return [
            extra("compress_kv", width, hidden, part="attention"),
            extra("compress_gate", width, hidden, part="attention"),
            extra("compress_positions", rate, width, part="attention", times=0),
            extra("compress_norm", dim, part="norm"),
        ]

    def index(rate: int) -> list[Spec]:
        """The index over the compressed context."""
        a, d = c.count("index_n_heads"), c.count("index_head_dim")
        return [
            extra("index_kv", 2 * d, hidden, part="attention"),
            extra("index_gate", 2 * d, hidden, part="attention"),
            extra("index_positions", rate, 2 * d, part="attention", times=0),
            extra("index_norm", d, part="norm"),
            extra("index_q", a * d, rank, part="attention"),
            extra("index_weights", a, hidden, part="attention"),
        ]

    sparse, heavy = "compressed_sparse_attention", "heavily_compressed_attention"

    def rate(kind: str, older: str) -> int:
        """Tokens that become one; older files name it apart."""
        found = c.maybe(older) or (rates.get(kind) if isinstance(rates, dict) else None)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 < found <= 10**6:
            raise c.error("compress_rates", f"found {found!r} for {kind}, allowed: a whole number")
        return found

    ratios = c.each("compress_ratios", layers, int)
    usual = [sparse if i >= 2 and i % 2 else heavy for i in range(layers)]
    if ratios is not None:
        usual = [{0: "sliding_attention", 4: sparse, 128: heavy}.get(ratio, "") for ratio in ratios]
    types = c.each("layer_types", layers) or usual
    own: dict[str, list[Spec]] = {"sliding_attention": []}
    if sparse in types:
        rate_ = rate(sparse, "compress_rate_csa")
        own[sparse] = [*compressor(rate_, 2 * dim), *index(rate_)]
    if heavy in types:
        own[heavy] = compressor(rate(heavy, "compress_rate_hca"), dim)
    routers = c.each("mlp_layer_types", layers) or [
        "hash_moe" if i < c.count("num_hash_layers", 3, least=0) else "moe" for i in range(layers)
    ]
    blocks: list[Spec] = []
    for kind, router in zip(types, routers, strict=True):
        if kind not in own:
            raise c.error("layer_types", f"{kind!r} is no kind of layer; known: {', '.join(own)}")
        # Layers that route by a hash of the token have a fixed table in place of a correction bias.
        mixture = moe if router == "hash_moe" else {**moe, "correction_bias": "buffer"}
        blocks.append({"moe": mixture, "extra": [*attention, *own[kind]]})
    return {
        "layers": layers,
        "hidden": hidden,
        "attention": False,
        "biases": biases(ffn=c.flag("mlp_bias")),
        "vocab": vocab,
        "context": c.maybe("max_position_embeddings"),
        "tied_head": c.flag("tie_word_embeddings"),
        "unknown_cache": "DeepSeek-V4 keeps a compressed context whose layout in a cache is not established here",
        "blocks": blocks,
        "outside": hyper_head(hidden, streams),
    }


FAMILIES = {
    "deepseek_v2": deepseek_v2,
    "deepseek_v3": deepseek_v3,
    "deepseek_v32": indexed,
    "glm_moe_dsa": shared_index,
    "glm4_moe_lite": listed,
    "minicpm3": minicpm3,
    "longcat_flash": longcat_flash,
    "deepseek_v4": deepseek_v4,
    "youtu": minicpm3,
}
