"""What llama-quantize does, from a model's GGUF tensors by name: the yardstick for the rules in ``specs/quants``.

Works as the program does (src/llama-quant.cpp of ggml-org/llama.cpp), on names, in the file's order, with running
counters; the rules that it checks work on roles and layers. A fused attn_qkv has the types that it had for years, before
the program came to treat it as attn_v.
"""

from typing import Any, NamedTuple


class Shape(NamedTuple):
    """A model, small and of any kind; ``ffn`` is that of dense layers, ``latent`` is MLA's (kv_rank, nope, rope, v)."""

    layers: int = 2
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 4
    head_dim: int = 64
    ffn: int = 512
    vocab: int = 64
    tied: bool = False
    experts: int = 0
    expert_ffn: int = 256
    shared: int = 0
    first_dense: int = 0
    latent: tuple[int, int, int, int] | None = None
    fused: bool = False
    falcon: bool = False
    qkv_bias: bool = False


class Tensor(NamedTuple):
    """A tensor of a GGUF file: columns first, experts last."""

    name: str
    dims: tuple[int, ...]


def spec(s: Shape) -> dict[str, Any]:
    """The same model as a spec file has it."""
    found: dict[str, Any] = {
        "family": "invented", "sources": ["a test"], "layers": s.layers, "hidden": s.hidden, "heads": s.heads,
        "ffn": s.ffn, "vocab": s.vocab, "tied_head": s.tied,
    }  # fmt: skip
    if s.latent is not None:
        found["mla"] = dict(zip(("kv_rank", "nope_dim", "rope_dim", "v_dim"), s.latent, strict=True))
    else:
        found |= {"kv_heads": s.kv_heads, "head_dim": s.head_dim}
    if s.experts:
        found["moe"] = {"experts": s.experts, "top_k": 1, "ffn": s.expert_ffn, "shared": s.shared, "first_dense": s.first_dense}
    if s.falcon:
        found |= {"norm": "layernorm", "gated": False, "parallel": "one-norm"}
    if s.qkv_bias:
        found["biases"] = ["qkv"]
    return found


def tensors(s: Shape) -> list[Tensor]:
    """The tensors of its GGUF file: those of layers by layer and name, as llama.cpp sorts them."""
    h, q, k = s.hidden, s.heads * s.head_dim, s.kv_heads * s.head_dim
    found = [] if s.tied else [Tensor("output.weight", (h, s.vocab))]
    found += [Tensor("output_norm.weight", (h,)), Tensor("token_embd.weight", (h, s.vocab))]
    if s.falcon:
        found.append(Tensor("output_norm.bias", (h,)))
    for i in range(s.layers):
        layer: dict[str, tuple[int, ...]] = {"attn_norm.weight": (h,)}
        if s.falcon:
            layer["attn_norm.bias"] = (h,)
        else:
            layer["ffn_norm.weight"] = (h,)
        if s.latent is not None:
            rank, nope, rope, v = s.latent
            layer |= {"attn_q.weight": (h, s.heads * (nope + rope)), "attn_kv_a_mqa.weight": (h, rank + rope),
                      "attn_kv_a_norm.weight": (rank,), "attn_k_b.weight": (nope, rank, s.heads),
                      "attn_v_b.weight": (rank, v, s.heads), "attn_output.weight": (s.heads * v, h)}  # fmt: skip
        else:
            layer["attn_output.weight"] = (q, h)
            if s.fused:
                layer["attn_qkv.weight"] = (h, q + 2 * k)
            else:
                layer |= {"attn_q.weight": (h, q), "attn_k.weight": (h, k), "attn_v.weight": (h, k)}
            if s.qkv_bias:
                layer |= {"attn_q.bias": (q,), "attn_k.bias": (k,), "attn_v.bias": (k,)}
        if s.experts and i >= s.first_dense:
            f, e = s.expert_ffn, s.experts
            layer["ffn_gate_inp.weight"] = (h, e)
            layer |= {"ffn_gate_exps.weight": (h, f, e), "ffn_up_exps.weight": (h, f, e), "ffn_down_exps.weight": (f, h, e)}
            if s.shared:
                f *= s.shared
                layer |= {"ffn_gate_shexp.weight": (h, f), "ffn_up_shexp.weight": (h, f), "ffn_down_shexp.weight": (f, h)}
        else:
            layer |= {"ffn_up.weight": (h, s.ffn), "ffn_down.weight": (s.ffn, h)}
            if not s.falcon:
                layer["ffn_gate.weight"] = (h, s.ffn)
        found += [Tensor(f"blk.{i}.{name}", dims) for name, dims in sorted(layer.items())]
    return found


BASE = {
    "Q2_K_S": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K", "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S", "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S",
    "MXFP4_MOE": "MXFP4",
}  # fmt: skip
FTYPES = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q2_K_S", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S",
    "Q5_K_M", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M",
    "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4_MOE",
)  # fmt: skip
SMALL = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4")
FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"), "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}  # fmt: skip
IQ1_IQ2 = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")


def block(kind: str) -> int:
    """Elements of a type's block."""
    return 1 if kind in ("F16", "F32") else 32 if kind in SMALL else 256


class Quantize:
    """One run of the program: a model, a file type, and whether there is an importance matrix."""

    def __init__(self, shape: Shape, ftype: str, *, imatrix: bool = False) -> None:
        self.shape, self.ftype, self.imatrix = shape, ftype, imatrix
        self.all = tensors(shape)
        self.values = sum("attn_v.weight" in t.name or "attn_qkv.weight" in t.name for t in self.all)
        self.seen_values = self.seen_downs = 0
        self.groups = shape.heads if shape.latent else shape.heads // shape.kv_heads
        self.is_70b = shape.layers == 80 and (shape.qkv_bias or shape.heads != shape.kv_heads)

    def types(self) -> dict[str, str]:
        """Every tensor's type, by name."""
        return {t.name: self.type(t) for t in self.all}

    def type(self, t: Tensor) -> str:
        """The type of the next tensor of the file."""
        if len(t.dims) == 1 or not t.name.endswith("weight") or "_norm.weight" in t.name or "ffn_gate_inp.weight" in t.name:
            return "F32"
        kind = self.wanted(t, BASE.get(self.ftype, self.ftype))
        if t.dims[0] % block(kind):
            kind = FALLBACK.get(kind, "F16")
            if t.dims[0] % block(kind):
                kind = "F16"
        return kind

    def wanted(self, t: Tensor, kind: str) -> str:
        """The type before the rows are looked at."""
        f, name, eight = self.ftype, t.name, self.shape.experts == 8
        if name == "output.weight" or (self.shape.tied and name == "token_embd.weight"):
            if f == "MXFP4_MOE" or self.shape.falcon or t.dims[0] % block(kind):
                return "Q8_0"
            return "Q5_K" if f in (*IQ1_IQ2, "IQ3_XXS") else "Q8_0" if kind == "Q8_0" else "Q6_K"
        if f == "MXFP4_MOE":
            return "MXFP4" if len(t.dims) == 3 and t.dims[2] > 1 else "Q8_0"
        if name == "token_embd.weight":
            better = dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"), "Q2_K") | dict.fromkeys(("TQ1_0", "TQ2_0"), "Q4_K")
            return (better | dict.fromkeys(("IQ2_S", "IQ2_M", "IQ3_XXS"), "IQ3_S")).get(f, kind)
        if f in IQ1_IQ2:
            return self.iq2(name, kind, eight=eight)
        if "attn_v.weight" in name:
            return self.value(kind, eight=eight)
        if "attn_k.weight" in name and eight:
            return "Q8_0"
        if "attn_k.weight" in name or "attn_q.weight" in name:
            return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(f, kind)
        if "ffn_down" in name:
            return self.down(name, kind, eight=eight)
        if "attn_output.weight" in name:
            return self.output(kind, eight=eight)
        if "attn_qkv.weight" in name:
            return {"Q3_K_M": "Q4_K", "Q3_K_L": "Q4_K", "IQ3_M": "Q4_K", "Q4_K_M": "Q5_K", "Q5_K_M": "Q6_K"}.get(f, kind)
        if f == "IQ3_XS" and ("ffn_gate" in name or "ffn_up" in name):
            n = self.shape.layers
            return "IQ3_XXS" if n // 8 <= int(name.split(".")[1]) < 7 * n // 8 else kind
        return kind

    def iq2(self, name: str, kind: str, *, eight: bool) -> str:
        """The types of one and two bits."""
        better = "IQ3_S" if self.ftype in ("IQ2_S", "IQ2_M") else "Q2_K"
        if "attn_v.weight" in name:
            return "Q4_K" if self.groups >= 4 or self.shape.experts >= 4 else better
        if eight and "attn_k.weight" in name:
            return "Q4_K"
        if "ffn_down" in name:
            self.seen_downs += 1
            return better if self.seen_downs - 1 < self.shape.layers // 8 else kind
        if "attn_output.weight" in name:
            return (
                "Q5_K"
                if eight
                else {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}.get(self.ftype, kind)
            )
        return kind

    def value(self, kind: str, *, eight: bool) -> str:
        """attn_v.weight."""
        f, i, n = self.ftype, self.seen_values, self.values
        self.seen_values += 1
        if f == "Q2_K":
            kind = "Q4_K" if self.groups >= 4 else "Q3_K"
        elif f == "IQ3_M" or (f in ("Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S") and self.groups >= 4):
            kind = "Q4_K"
        elif f == "Q3_K_M":
            kind = "Q5_K" if i < 2 else "Q4_K"
        elif f == "Q3_K_L" or (f in ("IQ4_NL", "IQ4_XS") and self.groups >= 4) or (f == "Q4_K_S" and i < 4):
            kind = "Q5_K"
        elif f in ("Q4_K_M", "Q5_K_M") and more_bits(i, n):
            kind = "Q6_K"
        if self.is_70b and kind in ("Q3_K", "Q4_K"):
            kind = "Q5_K"
        return "Q8_0" if eight else kind

    def down(self, name: str, kind: str, *, eight: bool) -> str:
        """ffn_down, of experts too."""
        f, n, falcon = self.ftype, self.shape.layers, self.shape.falcon
        i = int(name.split(".")[1]) if self.shape.experts > 1 else self.seen_downs
        self.seen_downs += 1
        early = i < n // 8
        if f == "Q3_K_M":
            return "Q5_K" if i < n // 16 else "Q4_K" if not falcon or more_bits(i, n) else "Q3_K"
        if f == "Q4_K_M" and falcon:
            return "Q6_K" if i < n // 16 else "Q5_K" if more_bits(i, n) else kind
        if f in ("Q4_K_M", "Q5_K_M"):
            return "Q6_K" if more_bits(i, n) else kind
        if f == "IQ3_M":
            return "Q4_K" if early or (eight and more_bits(i, n)) else kind
        if f == "Q4_K_S":
            return "Q5_K" if early and not falcon else kind
        whole = {"Q2_K": "Q3_K", "Q3_K_L": "Q4_K" if falcon else "Q5_K"}
        first = {"Q2_K_S": "Q4_K"}
        first |= {"Q4_0": "Q4_1", "Q5_0": "Q5_1"} if self.imatrix else {"IQ4_NL": "Q5_K", "IQ4_XS": "Q5_K"}
        return whole.get(f) or (first.get(f, kind) if early else kind)

    def output(self, kind: str, *, eight: bool) -> str:
        """attn_output.weight."""
        f = self.ftype
        if self.shape.falcon:
            return "Q4_K" if f == "Q3_K_L" else kind
        if eight:
            few = ("Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS")
            return "Q5_K" if f in few else kind
        return {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}.get(f, kind)


def more_bits(i: int, n: int) -> bool:
    """Layers that get more bits: both outer eighths and every third between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2
