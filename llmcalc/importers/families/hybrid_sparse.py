"""Hybrids of delta rules and sparse attention, with several residual streams: the text models of GLM-5.3 and Qwen 4."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.hybrid_linear import delta_net, first_dense, gated_attention, kimi_delta, kimi_layers, qwen_mixture
from llmcalc.importers.families.latent import index_of
from llmcalc.importers.families.recurrent import kinds
from llmcalc.importers.shape import Spec, by_type, decoder, every, extra

MAX_HEADS = 10_000


def _hyper_connection(name: str, streams: int, hidden: int) -> list[Spec]:
    """Weights that mix ``streams`` residual streams into a sub-layer and out of it (mHC): before, after, and among themselves."""
    # The last is a product of the mixing matrix with all streams; what it is added to counts as its weight.
    return [
        extra(f"{name}_mix", (2 + streams) * streams, streams * hidden, part="projection"),
        extra(f"{name}_mix_base", 2, streams, part="projection", times=0),
        extra(f"{name}_mix_streams", streams, streams, part="projection", times=hidden),
        extra(f"{name}_mix_scale", 3, part="projection"),
    ]


def _glm_indexes(c: Config, depth: int) -> list[bool]:
    """Which layers score tokens themselves; the others take what the last such layer found."""
    said = c.get("indexer_types")
    if said is None:
        pattern = c.get("index_topk_pattern")
        if isinstance(pattern, str):
            said = ["full" if letter == "F" else "shared" if letter == "S" else letter for letter in pattern]
        elif pattern is not None:
            said = pattern
    if said is None:
        often, offset = max(c.count("index_topk_freq", 1, least=0), 1), c.count("index_skip_topk_offset", 2, least=0)
        return [max(index - offset + 1, 0) % often == 0 for index in range(depth)]
    if not isinstance(said, list) or len(said) < depth or any(name not in ("full", "shared") for name in said):
        raise c.error("indexer_types", f"found {str(said)[:60]!r}, allowed: full or shared for each of {depth} layers")
    return [name == "full" for name in said[:depth]]


def glm5_next_text(c: Config, _: Any) -> Spec:
    """The text model of GLM-5.3: Kimi's delta attention, sparse MLA without positions, four residual streams."""
    depth, hidden = c.layers(), c.count("hidden_size")
    if c.count("qk_rope_head_dim", least=0):
        raise c.error("qk_rope_head_dim", "not 0; this attention has no positions")
    usual = every(depth, 4, "linear_attention", "indexed_attention")
    types = ["full_attention" if kind == "indexed_attention" else kind for kind in kinds(c, depth, usual)]
    mixer = kimi_delta(c, c.sub("linear_attn_config"))
    spec = kimi_layers(c, types, first_dense(c, depth, 3), mixer, q_rank=c.count("q_lora_rank"))
    index = index_of(c, type="pools", pool=c.count("index_kpool"))
    streams = [tensor for name in ("attention", "ffn") for tensor in _hyper_connection(name, c.count("hc_mult"), hidden)]
    scores = _glm_indexes(c, depth)
    blocks = [
        {**block, "extra": streams, **({"index": index} if "mla" in block and scores[number] else {})}
        for number, block in enumerate(spec["blocks"])
    ]
    return {**spec, "positions": "none", "blocks": blocks}


def _is_prime(value: int) -> bool:
    """Miller and Rabin's test, which these bases make certain below 3.2e9."""
    if value < 11 or not all(value % small for small in (2, 3, 5, 7)):
        return value in (2, 3, 5, 7)
    odd, twos = value - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7):
        power = pow(base, odd, value)
        if power not in (1, value - 1) and all((power := power * power % value) != value - 1 for _ in range(twos - 1)):
            return False
    return True


def _ngram_rows(c: Config, heads: int, layers: int) -> list[int]:
    """Rows of each layer's table of n-grams: every head's share is the next prime, all together rounded up."""
    if heads * layers > MAX_HEADS:
        raise c.error("ple_layer_ids", f"{layers} layers of {heads} heads, allowed: {MAX_HEADS:,} heads")
    multiple, prime, rows = c.count("make_ngram_vocab_size_divisible_by"), c.count("ngram_vocab_size_base") - 1, []
    for _ in range(layers):
        total = 0
        for _ in range(heads):
            prime += 1
            while not _is_prime(prime):
                prime += 1
            total += prime
        rows.append(-(-total // multiple))
    return rows


def _ngrams(c: Config, streams: int) -> dict[int, Spec]:
    """Layer -> its embedding of n-grams, which is added to every residual stream, and what it remembers."""
    chosen, hidden, depth = sorted(set(c.chosen("ple_layer_ids"))), c.count("hidden_size"), c.layers()
    heads = (c.count("ngram_size") - 1) * c.count("heads_per_ngram")
    width = c.count("ple_embed_dim", hidden)
    if chosen and (not heads or width % heads or chosen[0] < 1 or chosen[-1] > depth):
        raise c.error("ple_layer_ids", f"layers 1 to {depth}, and {heads} heads that divide {width}, are allowed")
    taps, wide = c.count("ple_conv_kernel_size"), streams * hidden
    found = {}
    multiple = c.count("make_ngram_vocab_size_divisible_by")
    for number, rows in zip(chosen, _ngram_rows(c, heads, len(chosen)), strict=True):
        # The table's rows are counted by the multiple that they are rounded to: they can be more than a dim may be.
        tensors = [
            extra("ngram_embedding", rows, multiple, width // heads, part="embedding", times=0),
            extra("ngram_keys", wide, width, part="projection"), extra("ngram_values", hidden, width, part="projection"),
            extra("ngram_norms", 3, wide, part="norm", times=0), extra("ngram_conv", wide, taps, part="projection"),
        ]  # fmt: skip
        remembered = (taps - 1) * c.count("ngram_size")
        states = [{"name": "ngram_conv_state", "shape": [wide, remembered]}] if remembered else []
        found[number - 1] = {"extra": tensors, "states": states}
    return found


def _gated_residual(c: Config, name: str, *, inject: bool = True, **more: Any) -> list[Spec]:
    """Low-rank gates that mix the residual streams into a sub-layer, and weights that add its output to each."""
    streams, hidden, rank = c.count("hc_count"), c.count("hidden_size"), c.count("hc_lowrank")
    wide = streams * hidden
    tensors = [
        extra(f"{name}_mix_norm", wide, part="norm", **more), extra(f"{name}_mix_down", rank, wide, part="projection", **more),
        extra(f"{name}_mix_up", wide, rank, part="projection", **more),
    ]  # fmt: skip
    return [*tensors, extra(f"{name}_inject", streams, wide, part="projection")] if inject else tensors


def qwen4_exp_text(c: Config, _: Any) -> Spec:
    """The text model of Qwen 4: gated delta nets, gated sparse attention, residual streams in place of norms, n-gram embeddings."""
    spec = decoder(c, ffn=None, moe=qwen_mixture(c), attention_norm=False, ffn_norm=False, final_norm=False)
    depth = spec["layers"]
    usual = every(depth, c.count("full_attention_interval", 4), "linear_attention", "indexed_attention")
    types = ["indexed_attention" if kind == "full_attention" else kind for kind in kinds(c, depth, usual)]
    blocks: dict[str, Spec] = {"linear_attention": {"recurrent": delta_net(c)}}
    if "indexed_attention" in types:
        if c.count("indexer_kv_heads") != 1:
            raise c.error("indexer_kv_heads", "not 1; the index has one key head")
        index = {
            "heads": c.count("indexer_n_heads"), "dim": c.count("indexer_head_dim"), "top_k": c.count("indexer_budget"),
            "type": "blocks", "pool": c.count("indexer_compress_ratio"),
        }  # fmt: skip
        blocks["indexed_attention"] = {**gated_attention(c), "index": index}
    ngrams = _ngrams(c, c.count("hc_count"))
    streams = [*_gated_residual(c, "attention"), *_gated_residual(c, "ffn")]
    made = []
    for number, block in enumerate(by_type(types, blocks, c)):
        own = ngrams.get(number, {})
        if own and "index" in block:
            raise c.error("ple_layer_ids", f"layer {number + 1} is no recurrent one")
        made.append({**block, **own, "extra": [*block.get("extra", []), *own.get("extra", []), *streams]})
    last = _gated_residual(c, "final", inject=False, after=True)
    return {**spec, "outside": last, "blocks": made}


FAMILIES = {"glm5_next_text": glm5_next_text, "qwen4_exp_text": qwen4_exp_text}
