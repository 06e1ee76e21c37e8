"""Weights: bytes by format, of round numbers of parameters and of models."""

from collections.abc import Sequence
from typing import Any

from llmcalc import resolve
from llmcalc.engines import params
from llmcalc.engines.weights import tensor_bytes
from llmcalc.hardware import gpu
from llmcalc.specs import catalogue
from tests.claims.ask import listed, model, result, size
from tests.claims.judge import Check, Claim, Found, least, worst


class Bare:
    """Elements alone: no scales, no zero points."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.overhead: Sequence[Any] = ()
        self.block: int | None = None
        self.tile: int | None = None


def block(name: str) -> float:
    """Bits per weight of a format, scales included."""
    form = catalogue.quant_spec(name)[1].format
    assert form is not None, name
    return resolve.format_bits(form)


def held(name: str, quant: str) -> float:
    """Bytes of a model's weights in a quantisation, or in a plain type."""
    found: float = result(f"weights {name} --{'dtype' if quant in ('fp32', 'fp16', 'bf16') else 'quant'} {quant}")["weight_bytes"]
    return found


def bits(name: str, quant: str) -> float:
    """Bits per weight of all of a model."""
    found: float = result(f"weights {name} --quant {quant}")["bits_per_weight"]
    return found


def by_format(claim: Claim) -> Found:
    """A round number of parameters in bare elements, beside a model of about as many."""
    billions, name, figures = {
        "weights-by-format-7b": (7, "llama2-7b", ("28 GB", "14 GB", "7 GB", "3.5 GB")),
        "weights-by-format-70b": (70, "llama3-70b", ("280 GB", "140 GB", "70 GB", "35 GB")),
    }[claim.id]
    bare = [int(tensor_bytes((billions * 10**9,), Bare(width))) for width in (32, 16, 8, 4)]
    verdict = worst(*(claim.near(figure, each / 1e9) for figure, each in zip(figures, bare, strict=True)))
    real = [f"{quant} {size(held(name, quant))}" for quant in ("fp32", "bf16", "int8", "q8_0", "nf4", "q4_k_m")]
    text = (
        f"{listed([f'{each:,}' for each in bare])} bytes for {billions * 10**9:,} parameters and no scales. {name} has"
        f" {params.count(model(name).blueprint).total:,}, and in formats that people use: {listed(real)}."
    )
    return Found(bare, verdict, text)


def sixteen(claim: Claim) -> Found:
    """A model in 16-bit."""
    name, figure = {
        "mixtral-weights": ("mixtral-8x7b", "94 GB"),
        "qwen-72b-weights": ("qwen-72b", "144 GB"),
        "llama3-405b-weights": ("llama3.1-405b", "810 GB"),
    }[claim.id]
    ours = int(held(name, "bf16"))
    text = f"{ours:,} bytes: {size(ours)}."
    if claim.id == "mixtral-weights":
        active = params.count(model(name).blueprint).active
        text += f" All experts stand in memory, though a token reads {size(2 * active)}."
    return Found(ours, claim.near(figure, ours / 1e9), text)


def q4_k_m(claim: Claim) -> Found:
    ours = bits("llama3.1-8b", "q4_k_m")
    verdict = worst(claim.near("4.5 bits", ours), claim.near("0.45 bytes", ours / 8))
    others = [f"{name} {bits(name, 'q4_k_m'):.2f}" for name in ("llama2-7b", "llama3.1-70b", "qwen2.5-0.5b")]
    text = (
        f"{ours:.2f} bits ({ours / 8:.3f} bytes) over all of Llama 3.1 8B: {block('q4_k'):g} are the q4_k blocks alone, and some"
        f" tensors are q6_k. {listed(others)}. 0.45 bytes would be 3.6 bits, less than 4 bits without any scale."
    )
    return Found(ours, verdict, text)


def q8_0(claim: Claim) -> Found:
    ours = bits("llama3.1-8b", "q8_0")
    stored = block("q8_0")
    text = (
        f"{stored:g} bits = {stored / 8:g} bytes: 32 weights of 8 bits and a 16-bit scale. {ours:.4g} bits over all of Llama 3.1"
        " 8B, whose norms stay fp32."
    )
    return Found(ours, claim.near("0.9 bytes", stored / 8), text)


def nf4(claim: Claim) -> Found:
    ours = block("nf4")
    whole = {name: bits(name, "nf4") for name in ("llama3.1-8b", "llama2-7b", "llama3-70b")}
    text = (
        f"{ours:.3f} bits = {ours / 8:.4f} bytes a quantised weight, with scales per 64 weights that are themselves quantised;"
        f" {block('nf4-single'):g} bits where they are not. Embedding, norms and head stay 16-bit, so over the whole"
        f" model, in bits: {listed([f'{name} {each:.2f}' for name, each in whole.items()])}."
    )
    return Found(ours, claim.among("0.5 bytes", [ours / 8, *(each / 8 for each in whole.values())]), text)


def gpt3_gpus(claim: Claim) -> Found:
    card = gpu("a100-80")
    weights = int(held("gpt3-175b", "fp16"))
    fewest = result("fit gpt3-175b --dtype fp16 --gpu a100-80 --ctx 2048")["min_gpus"]
    heads = model("gpt3-175b").spec.heads or 0
    divides = next(n for n in range(fewest, heads) if heads % n == 0)
    served = {
        n: result(f"fit gpt3-175b --dtype fp16 --gpu a100-80 --gpus {n} --tp {n} --runtime vllm --ctx 2048") for n in (divides, 8)
    }
    verdict = worst(claim.near("350 GB", weights / 1e9), least(8, fewest))
    rooms = [
        f"{n} in tensor parallel {'hold' if found['fits'] else 'do not hold'} it and {found['max_batch']} x 2,048 tokens (vLLM)"
        for n, found in served.items()
    ]
    text = (
        f"{size(weights)}. {fewest} A100 80GB of {size(card.usable_bytes)} each hold it layer by layer, with the cache of one"
        f" sequence of 2,048 tokens. {fewest} do not divide {heads} heads: {listed(rooms)}. Eight are a whole node."
    )
    return Found(fewest, verdict, text)


CHECKS: dict[str, Check] = {
    **dict.fromkeys(("weights-by-format-7b", "weights-by-format-70b"), by_format),
    **dict.fromkeys(("mixtral-weights", "qwen-72b-weights", "llama3-405b-weights"), sixteen),
    "q4km-bpw": q4_k_m,
    "q80-bpw": q8_0,
    "nf4-bytes": nf4,
    "gpt3-gpus": gpt3_gpus,
}
