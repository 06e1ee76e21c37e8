"""The KV cache."""

from llmcalc.engines import kv
from tests.claims.ask import listed, model, result, size, sketch
from tests.claims.judge import Check, Claim, Found, holds, worst


def cached(name: str, tokens: int, dtype: str = "bf16") -> int:
    """Bytes of one sequence."""
    return kv.size(model(name).blueprint, tokens, dtype=dtype).total


def llama2_7b(claim: Claim) -> Found:
    tokens, figure = {
        "kv-l2-7b-4k": (4096, "2.1 GB"), "kv-l2-7b-128k": (131_072, "67 GB"), "kv-l2-7b-32k": (32_768, "8 GB"),
    }[claim.id]  # fmt: skip
    ours, rate = cached("llama2-7b", tokens, "fp16"), kv.size(model("llama2-7b").blueprint, tokens).bytes_per_token
    text = f"{ours:,} bytes: {size(ours)} for one sequence, {rate:,} bytes a token."
    if claim.id == "kv-l2-7b-32k":
        half = int(claim.said(figure)[0] * 1e9 / rate)
        text += f" 8 GB hold {half:,} tokens; 32K in an 8-bit cache are {size(cached('llama2-7b', tokens, 'int8'))}."
    elif claim.id == "kv-l2-7b-128k":
        text += f" 67 GB is what 128,000 tokens come to: {size(cached('llama2-7b', 128_000))}."
    return Found(ours, claim.near(figure, ours / 1e9), text)


def grouped(claim: Claim) -> Found:
    spec = model("llama2-70b").spec
    shape = {"layers": spec.layers, "hidden": spec.hidden, "heads": spec.heads, "ffn": spec.ffn}
    ours = kv.size(sketch(**shape), 4096).total / kv.size(sketch(**shape, kv_heads=spec.kv_heads), 4096).total
    verdict = worst(claim.near("8 times", ours), holds(spec.kv_heads == 8 and spec.heads == 64))
    text = (
        f"{ours:g} times, at any context: Llama 2 70B would keep {size(cached('llama2-70b', 4096) * ours)} of 4,096 tokens with as"
        f" many KV heads as query heads, and keeps {size(cached('llama2-70b', 4096))}."
    )
    return Found(ours, verdict, text)


def int8(claim: Claim) -> Found:  # noqa: ARG001
    ours = cached("llama3-8b", 8192) / cached("llama3-8b", 8192, "int8")
    blocks = cached("llama3-8b", 8192) / cached("llama3-8b", 8192, "q8_0")
    text = f"{ours:g} times less with one scale for a tensor; with llama.cpp's q8_0, a scale for 32 elements, {blocks:.3f} times."
    return Found(ours, holds(ours == 2), text)


def latent(claim: Claim) -> Found:
    spec = model("deepseek-v2").spec
    ours = kv.size(model("deepseek-v2").blueprint, 4096).bytes_per_token
    plain = sketch(layers=spec.layers, hidden=spec.hidden, heads=spec.heads, head_dim=spec.mla.v_dim if spec.mla else None, ffn=1)
    expanded = kv.size(plain, 4096).bytes_per_token
    older = kv.size(model("deepseek-llm-67b").blueprint, 4096).bytes_per_token
    six = kv.size(model("deepseek-v2").blueprint, 4096, dtype="q5_1").bytes_per_token
    readings = (expanded / ours, older / ours, older / six)
    text = (
        f"{ours:,} bytes a token in 16-bit. Multi-head attention of its own shape ({spec.heads} heads of 128) would keep"
        f" {expanded:,}: {readings[0]:.1f} times. DeepSeek 67B keeps {older:,}, grouped: {readings[1]:.2f} times"
        f" ({100 * (1 - ours / older):.1f}% less). The paper's 93.3% takes 6 bits an element: {six:,} bytes, {readings[2]:.1f}"
        f" times ({100 * (1 - six / older):.1f}% less)."
    )
    return Found({"latent_bytes_per_token_bf16": ours}, claim.among("10 times", readings), text)


def add_20_percent(claim: Claim) -> Found:
    shares, words = [], []
    for name in ("llama2-7b", "llama3-8b", "llama3.1-8b", "llama2-70b", "llama3.1-70b", "deepseek-v3"):
        trained = model(name).blueprint.context or 0
        weights, rate = result(f"weights {name}")["weight_bytes"], kv.size(model(name).blueprint, trained).bytes_per_token
        shares.append(cached(name, trained) / weights)
        tokens = int(claim.said("20%")[0] * weights / rate)
        words.append(f"{name} {tokens:,} ({100 * shares[-1]:.0f}% at its trained {trained:,})")
    least, most, said = min(shares), max(shares), claim.said("20%")[0]
    verdict = "holds" if most <= said else "loose" if least <= said else "wrong"
    text = (
        "Tokens of all sequences together, up to which 20% are enough, with weights as published and a 16-bit cache:"
        f" {listed(words)}. With b sequences it stops at the b-th part of that context."
    )
    return Found(shares, verdict, text)


def crude(claim: Claim) -> Found:
    weights = result("weights gpt3-175b --dtype fp16")["weight_bytes"]
    ours = cached("gpt3-175b", 2048, "fp16")
    fit = result("fit gpt3-175b --dtype fp16 --gpu a100-80 --gpus 8 --ctx 2048")
    whole = weights + ours + fit["gpus"] * (fit["activation_bytes"] + fit["overhead_bytes"])
    verdict = worst(claim.near("325 GB", weights / 2**30), claim.near("24.6 GB", ours / 2**30), claim.near("382 GB", whole / 2**30))
    one = fit["activation_bytes"] + fit["overhead_bytes"]
    text = (
        f"The weights are {size(weights)}, so its GB are GiB. The cache is 2 x 96 x 96 x 128 x 2,048 x 2 = {ours:,} bytes:"
        f" {size(ours)}. With the working set and a reserve of 1 GiB ({size(one)} a GPU) on {fit['gpus']} GPUs {size(whole)} in"
        " all."
    )
    return Found({"kv_bytes": ours}, verdict, text)


def window(claim: Claim) -> Found:
    width, first = cached("mistral-7b-v0.1", 4096), cached("mistral-7b-v0.1", 2048)
    later = {tokens: cached("mistral-7b-v0.1", tokens) for tokens in (8192, 32_768, 131_072)}
    capped = first < width and set(later.values()) == {width}
    full = cached("mistral-7b-v0.2", 32_768)
    text = (
        f"{size(width)} at 4,096 tokens and at {listed([f'{tokens:,}' for tokens in later])} alike. Version 0.1 alone has the"
        f" window: 0.2 keeps {size(full)} at 32,768 tokens. A runtime that does not free old pages keeps as much for 0.1."
    )
    return Found(width, holds(capped and claim.said("4096-token window")[0] == 4096), text)


CHECKS: dict[str, Check] = {
    **dict.fromkeys(("kv-l2-7b-4k", "kv-l2-7b-128k", "kv-l2-7b-32k"), llama2_7b),
    "kv-gqa-8x": grouped,
    "kv-int8": int8,
    "dsv2-kv": latent,
    "kv-add-20": add_20_percent,
    "crude-calculator": crude,
    "swa-mistral": window,
}
