"""The FFN of a layer: dense, gated or plain, and mixtures of experts."""

from __future__ import annotations

from llmcalc.blueprint.draft import Draft, Place
from llmcalc.blueprint.layers import Ffn, Mixture
from llmcalc.blueprint.parts import ONE
from llmcalc.quantity import Dim


def _dense(
    draft: Draft, at: Place, spec: Ffn, h: Dim, f: Dim, reads: str, writes: str, *,
    part: str, prefix: str = "", copies: Dim = ONE, used: Dim = ONE,
) -> None:  # fmt: skip
    """``down(act(gate(x)) * up(x))``, or ``down(act(up(x)))``. With ``copies``, one such FFN per expert."""
    common = {"part": part, "copies": copies, "used": used}
    wide = used * f if used != 1 else f
    act = f"{prefix}activated"
    for role in ("gate", "up") if spec.gated else ("up",):
        draft.linear(at, prefix + role, out=f, into=h, reads=reads, writes=prefix + role, bias=role in spec.biases,
                     split="column", fused=f"{prefix}gate_up" if spec.fused and spec.gated else "",
                     **common)  # type: ignore[arg-type]  # fmt: skip
    draft.op(at, f"{prefix}activation", part, "activation", prefix + ("gate" if spec.gated else "up"), act, wide,
             form=(spec.activation,))  # fmt: skip
    if spec.gated:
        draft.op(at, f"{prefix}product", part, "multiply", (act, f"{prefix}up"), f"{prefix}product", wide)
    last = f"{prefix}product" if spec.gated else act
    if spec.dropout:
        draft.op(at, f"{prefix}dropout", part, "dropout", last, last, wide)
    draft.linear(at, f"{prefix}down", out=h, into=f, reads=last, writes=writes, bias="down" in spec.biases,
                 split="row", **common)  # type: ignore[arg-type]  # fmt: skip


def feed_forward(draft: Draft, at: Place, spec: Ffn | Mixture, h: Dim, reads: str) -> None:
    """Dense FFN or mixture. Writes ``ffn_out``."""
    if isinstance(spec, Ffn):
        _dense(draft, at, spec, h, Dim(spec.dim, "f"), reads, "ffn_out", part="ffn")
        return
    experts, used = Dim(spec.experts, "E"), Dim(spec.top_k, "E_k")
    rows = experts + Dim(spec.idle, "E_0") if spec.idle else experts
    draft.linear(at, "router", "router", rows, h, reads, "routed", bias=spec.router_bias,
                 form=("fp32",) if spec.fp32_router else ())  # fmt: skip
    if spec.correction_bias:
        draft.weight(at, "router.correction", "router", "bias", (rows,), buffer=spec.correction_bias == "buffer",
                     dtype="fp32")  # fmt: skip
    width, expert_reads = h, reads
    if spec.latent:
        width, expert_reads = Dim(spec.latent, "h_e"), "latent"
        draft.linear(at, "latent_down", "projection", width, h, reads, "latent")
    _dense(draft, at, spec.expert, width, Dim(spec.expert.dim, "f_e"), expert_reads, "expert_out",
           part="experts", prefix="expert_", copies=experts, used=used)  # fmt: skip
    summed = ["expert_out", "routed"]
    if spec.latent:
        draft.linear(at, "latent_up", "projection", h, width, "expert_out", "expert_out")
    if spec.shared is not None:
        _dense(draft, at, spec.shared, h, Dim(spec.shared.dim, "f_s"), reads, "shared_out",
               part="shared_experts", prefix="shared_")  # fmt: skip
        if spec.shared_gate:
            draft.linear(at, "shared_expert_gate", "shared_experts", Dim(1, "1"), h, reads, "shared_weight")
        summed += ["shared_out", "shared_weight"] if spec.shared_gate else ["shared_out"]
    if spec.dense is not None:
        _dense(draft, at, spec.dense, h, Dim(spec.dense.dim, "f"), reads, "dense_out", part="ffn", prefix="dense_")
        summed.append("dense_out")
    draft.op(at, "combine", "experts", "add", summed, "ffn_out", h)
