"""Further decoders with latent attention: gates, indexes, windows and hyper-connections beside it."""

from __future__ import annotations

from typing import Any

from llmcalc.importers.config import Config
from llmcalc.importers.families.latent import hyper_connections, hyper_head, index_of, indexed, latent_decoder
from llmcalc.importers.families.mixture import after, both, routed, sparse_layers
from llmcalc.importers.shape import Spec, biases, by_type, extra, layer_types, trimmed


def stepped(c: Config, layers: int) -> list[bool]:
    """Mixtures after the first layers, in every so many of them; or in those that a list of numbers marks."""
    first = c.count("first_k_dense_replace", 1, least=0)
    if isinstance(c.get("moe_layer_freq"), list):
        marks = c.each("moe_layer_freq", layers, int) or []
        return [index >= first and bool(mark) for index, mark in enumerate(marks)]
    step = c.count("moe_layer_freq", 1)
    return [index >= first and index % step == 0 for index in range(layers)]


def axk1(c: Config, _: Any) -> Spec:
    """A.X K1: DeepSeek-V3 with a norm behind each mixture."""
    spec = latent_decoder(c)
    norm = [extra("ffn_post_norm", spec["hidden"], part="norm")]
    sparse = sparse_layers(c, stepped(c, spec["layers"]), routed(c))
    return {**spec, "blocks": [{**block, "extra": norm} if block else {} for block in sparse]}


def axk2(c: Config, task: Any) -> Spec:
    """A.X K2: DeepSeek-V3.2 with gated norms, and queries and output gate from the latent before and after its norm."""
    spec, rank = indexed(c, task), c.count("q_lora_rank")
    mla, hidden, gate = spec["mla"], spec["hidden"], c.count("gated_norm_rank")
    heads = spec["heads"]
    listed = c.each("layer_types", spec["layers"]) or []
    if set(listed) - {"indexed_attention"}:
        raise c.error("layer_types", "every layer of the class has an index; allowed: indexed_attention")

    def gated(place: str) -> list[Spec]:
        return [
            extra(f"{place}_norm_gate_down", gate, hidden, part="norm"),
            extra(f"{place}_norm_gate_up", hidden, gate, part="norm"),
        ]

    wide = [
        # The layer's queries come from the normed latent, the field's part; these from the latent as it is.
        extra("q_b_raw", heads * (mla["nope_dim"] + mla["rope_dim"]), rank, part="attention"),
        extra("output_gate", heads * mla["v_dim"], 2 * rank, part="attention"),
        *gated("attention"),
    ]
    sparse = sparse_layers(c, stepped(c, spec["layers"]), routed(c))
    return {**spec, "blocks": [{**block, "extra": [*wide, *(gated("ffn") if block else [])]} for block in sparse]}


def hy_v4(c: Config, task: Any) -> Spec:
    """Hunyuan 4: an index that most layers reuse, a gate and sinks on the attention, several streams of the residual."""
    spec, streams = indexed(c, task), c.count("hc_mult")
    hidden, layers, index = spec["hidden"], spec["layers"], spec.pop("index")
    usual = ["full" if i == 0 or (i - 1) % 4 == 0 else "shared" for i in range(layers)]
    types = layer_types(c, layers, usual, "indexer_types")
    own = by_type(types, {"full": {"index": index}, "shared": {}}, c, "indexer_types")
    return {
        **spec,
        "sinks": True,
        "output_gate": "full",
        "extra": hyper_connections(hidden, streams, 2 * streams, 2),
        "outside": hyper_head(hidden, streams),
        "blocks": both(sparse_layers(c, after(layers, 1), routed(c)), own),
    }


def mistral4(c: Config, _: Any) -> Spec:
    """Mistral 4's text model: DeepSeek-V3 without a correction bias."""
    spec, moe = latent_decoder(c), routed(c, correction_bias=None)
    first = c.count("first_k_dense_replace", 0, least=0)
    return {**spec, "blocks": [{"moe": moe} if sparse else {} for sparse in after(spec["layers"], first)]}


def dots3_note(c: Config, _: Any) -> Spec:
    """dots3-note's text model: windows with latents of other sizes in three layers of four, an index in the rest, gated heads."""
    spec = latent_decoder(c)
    layers = spec["layers"]
    if c.says("per_layer_config"):
        raise c.error("per_layer_config", "settings by layer are not read here; say the swa_ keys")
    usual = ["full_attention"] * layers
    if c.flag("use_sliding_window", True):
        usual = ["full_attention" if i < 2 or i % 4 == 1 else "sliding_attention" for i in range(layers)]
    types = layer_types(c, layers, usual)
    # The older switch decides for all full layers, whatever they are called.
    kind = "indexed_attention" if c.flag("use_dsa", True) else "full_attention"
    types = [kind if name in ("indexed_attention", "full_attention") else name for name in types]

    def other(key: str, default: int) -> int:
        return c.count(f"swa_{key}", default)

    nope = other("qk_nope_head_dim", 192)
    slide = {
        "kv_rank": other("kv_lora_rank", 1024),
        "q_rank": other("q_lora_rank", 1024),
        "nope_dim": nope,
        "rope_dim": c.count("swa_qk_rope_head_dim", other("head_dim", 256) - nope),
        "v_dim": other("v_head_dim", 128),
    }

    def rotary_norm(mla: Spec) -> list[Spec]:
        return [extra("k_rotary_norm", mla["rope_dim"], part="norm")]

    full = {"extra": rotary_norm(spec["mla"])}
    blocks: dict[str, Spec] = {
        "full_attention": full,
        "indexed_attention": {**full, "index": index_of(c)},
        "sliding_attention": trimmed(
            {
                "heads": other("num_attention_heads", 64),
                "mla": slide,
                "window": c.maybe("sliding_window") or c.count("sliding_window_size", 512),
                "extra": rotary_norm(slide),
            }
        ),
    }
    shared = c.count("moe_shared_expert_intermediate_size", c.count("shared_experts_intermediate_size"))
    moe = routed(c, shared_ffn=shared * c.count("n_shared_experts"))
    bias = biases(q=c.flag("attention_bias"), k=c.flag("attention_bias"), o=c.flag("attention_bias"))
    sparse = sparse_layers(c, stepped(c, layers), moe)
    return {**spec, "biases": bias, "output_gate": "head", "blocks": both(by_type(types, blocks, c), sparse)}


FAMILIES = {
    "axk1": axk1,
    "axk2": axk2,
    "hy_v4": hy_v4,
    "mistral4": mistral4,
    "dots3_note_text": dots3_note,
}
