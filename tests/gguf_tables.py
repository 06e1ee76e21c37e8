"""Tensor tables and metadata as llama.cpp's converter writes them, made from a spec of the catalogue.

Names of tensors and keys are those of the gguf package (constants.py, MODEL_TENSORS and Keys).
"""

from typing import Any

from llmcalc.blueprint.plan import biases_of, norm_of
from llmcalc.importers.tensors import Checkpoint, Tensor
from llmcalc.specs import catalogue
from llmcalc.specs.blocks import Block
from llmcalc.specs.merge import is_mixture, layer_kinds, merged
from llmcalc.specs.model import ModelSpec


class Table:
    """Tensors and keys, growing."""

    def __init__(self, arch: str) -> None:
        self.arch, self.tensors = arch, list[Tensor]()
        self.keys: dict[str, Any] = {"general.architecture": arch}

    def add(self, name: str, *shape: int, bias: bool = False, weight: bool = True) -> None:
        if weight:
            self.tensors.append(Tensor(f"{name}.weight", shape, "F16", 0))
        if bias:
            self.tensors.append(Tensor(f"{name}.bias", shape[:1], "F32", 0))

    def key(self, **values: Any) -> None:
        self.keys |= {f"{self.arch}.{key.replace('__', '.')}": value for key, value in values.items() if value is not None}

    def done(self, **keys: Any) -> Checkpoint:
        self.key(**keys)
        return Checkpoint("model.gguf", tuple(self.tensors), self.keys, 0, ("model.gguf",))


def latent(table: Table, at: str, spec: Block, h: int, split: bool) -> None:
    """Multi-head latent attention; newer files split attn_kv_b."""
    mla, a = spec.mla, spec.heads or 1
    assert mla is not None
    if mla.q_rank:
        table.add(f"{at}attn_q_a", mla.q_rank, h)
        table.add(f"{at}attn_q_a_norm", mla.q_rank)
    table.add(f"{at}attn_q_b" if mla.q_rank else f"{at}attn_q", a * (mla.nope_dim + mla.rope_dim), mla.q_rank or h)
    table.add(f"{at}attn_kv_a_mqa", mla.kv_rank + mla.rope_dim, h)
    table.add(f"{at}attn_kv_a_norm", mla.kv_rank)
    if split:
        table.add(f"{at}attn_k_b", a, mla.kv_rank, mla.nope_dim)
        table.add(f"{at}attn_v_b", a, mla.v_dim, mla.kv_rank)
    else:
        table.add(f"{at}attn_kv_b", a * (mla.nope_dim + mla.v_dim), mla.kv_rank)
    table.add(f"{at}attn_output", h, a * mla.v_dim)


def attention(table: Table, at: str, spec: Block, h: int, fused: bool) -> None:
    """Queries, keys and values apart or in one."""
    a, k, d = spec.heads or 1, spec.kv_heads or spec.heads or 1, spec.head_dim or h // (spec.heads or 1)
    v = spec.v_head_dim or d
    biases = biases_of(spec)
    if fused:
        table.add(f"{at}attn_qkv", (a + 2 * k) * d, h, bias="q" in biases)
    else:
        for name, rows in (("q", a * d), ("k", k * d), ("v", k * v)):
            table.add(f"{at}attn_{name}", rows, h, bias=name in biases)
    table.add(f"{at}attn_output", h, a * v, bias="o" in biases)
    for name, heads in (("q", a), ("k", k)):
        if spec.qk_norm in ("head", "per-head", "full"):
            shape = {"head": (d,), "per-head": (heads, d), "full": (heads * d,)}[spec.qk_norm]
            table.add(f"{at}attn_{name}_norm", *shape)
    if spec.sinks:
        table.add(f"{at}attn_sinks", a)


def feed_forward(table: Table, at: str, spec: Block, h: int, mixture: bool, *, fused: bool, single: bool) -> None:
    """Dense FFN, or experts in one tensor (``single``: in one each, as Mixtral was first converted)."""
    biases, gated = biases_of(spec), spec.gated is not False
    if not mixture:
        f = spec.ffn or 0
        if gated and fused:
            table.add(f"{at}ffn_up", 2 * f, h, bias="up" in biases)
        else:
            for name in ("gate", "up") if gated else ("up",):
                table.add(f"{at}ffn_{name}", f, h, bias=name in biases)
        table.add(f"{at}ffn_down", h, f, bias="down" in biases)
        return
    moe = spec.moe
    assert moe is not None
    e, f, shared = moe.experts, moe.ffn, moe.shared_ffn or (moe.shared or 0) * moe.ffn
    table.add(f"{at}ffn_gate_inp", e, h, bias="router" in biases)
    for name, out, into in (("gate", f, h), ("up", f, h), ("down", h, f)):
        if single:
            for number in range(e):
                table.add(f"{at}ffn_{name}.{number}", out, into)
        else:
            table.add(f"{at}ffn_{name}_exps", e, out, into)
            if "experts" in biases:
                table.tensors.append(Tensor(f"{at}ffn_{name}_exps.bias", (e, out), "F32", 0))
        if shared:
            table.add(f"{at}ffn_{name}_shexp", *((shared, h) if name != "down" else (h, shared)))
    if moe.shared_gate:
        table.add(f"{at}ffn_gate_inp_shexp", h)
    if moe.correction_bias:
        table.add(f"{at}exp_probs_b", e, bias=True, weight=False)


def norms(spec: Block, style: str) -> list[str]:
    """The names of a layer's norms of full width."""
    placed = spec.norm_placement or "pre"
    if norm_of(spec).kind == "none":
        return []
    if placed == "post":
        return ["attn_output_norm", "layer_output_norm"]
    if placed == "output":
        return ["post_attention_norm", "post_ffw_norm"]
    if placed == "sandwich":
        return ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]
    if spec.parallel == "one-norm":
        return ["attn_norm"]
    if spec.parallel == "two-norms":
        return ["attn_norm", "attn_norm_2" if style == "falcon" else "ffn_norm"]
    return ["attn_norm", "post_attention_norm" if style in ("gpt-oss", "glm4moe", "seed_oss") else "ffn_norm"]


FUSED = {"gpt2", "starcoder", "falcon", "gptneox", "bloom", "mpt", "phi2", "phi3", "chatglm", "qwen", "dbrx", "bailingmoe2"}
FUSED_FFN = {"phi3", "chatglm", "glm4"}


def table_of(model: str, arch: str, *, split: bool = False, single: bool = False, **keys: Any) -> Checkpoint:
    """The tensor table of a catalogue model."""
    spec = catalogue.build(ModelSpec, catalogue.entries("models")[model].data)
    table, h, depth = Table(arch), spec.hidden or 1, spec.layers or 1
    bias = norm_of(spec).bias
    table.add("token_embd", spec.vocab or 1, h)
    if spec.positions == "learned":
        table.add("position_embd", spec.position_rows or spec.context or 1, h)
    if spec.embedding_norm:
        table.add("token_embd_norm", h, bias=bias)
    if spec.token_types:
        table.add("token_types", spec.token_types, h)
    blocks = [merged(spec, kind) for _, kind in layer_kinds(spec, depth)]
    for index, block in enumerate(blocks):
        at = f"blk.{index}."
        for name in norms(block, arch):
            table.add(at + name, h, bias=bias)
        if block.mla:
            latent(table, at, block, h, split)
        else:
            attention(table, at, block, h, arch in FUSED)
        mixture = is_mixture(block.moe, index)
        feed_forward(table, at, block, h, mixture, fused=arch in FUSED_FFN, single=single)
    table.add("rope_freqs", 64)
    if norm_of(spec).kind != "none" and spec.norm_placement != "post":
        table.add("output_norm", h, bias=bias)
    if not spec.tied_head and spec.type != "encoder":
        table.add("output", spec.vocab or 1, h, bias=bool(spec.head_bias))
    table.key(block_count=depth, embedding_length=h, context_length=spec.context, attention__head_count=spec.heads)
    table.key(attention__head_count_kv=spec.kv_heads, attention__key_length=spec.head_dim, attention__sliding_window=spec.window)
    table.key(attention__value_length=spec.v_head_dim or spec.head_dim, feed_forward_length=spec.ffn)
    epsilon = "attention__layer_norm_rms_epsilon" if norm_of(spec).kind == "rmsnorm" else "attention__layer_norm_epsilon"
    table.key(**{epsilon: 1e-5})
    moes = [block.moe for block in blocks if block.moe]
    if moes:
        table.key(expert_count=moes[0].experts, expert_used_count=moes[0].top_k)
    if spec.mla:
        table.key(rope__dimension_count=spec.mla.rope_dim, attention__kv_lora_rank=spec.mla.kv_rank)
    return table.done(**keys)
