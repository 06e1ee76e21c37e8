"""Scaling laws, FLOPs of attention, and what text is in tokens."""

import math
from typing import Any

from llmcalc.engines import flops, params, training
from llmcalc.engines.compute import shape
from llmcalc.engines.laws import LAWS
from llmcalc.engines.recipe import Recipe
from tests.claims.ask import listed, model, result, results
from tests.claims.judge import Check, Claim, Found, holds, worst


def by_law(question: str) -> dict[str, dict[str, Any]]:
    """The answer of every law."""
    return {found["law"]: found for found in results(f"chinchilla {question}")}


def exponent(law: str, option: str, key: str) -> float:
    """The power by which a figure grows over a factor of a thousand, from small models on."""
    first = 1e20 if option == "flops" else 1e9
    low, high = (by_law(f"--{option} {value:.0f} --law {law}")[law][key] for value in (first, 1000 * first))
    return math.log(high / low) / math.log(1000)


def twenty(claim: Claim) -> Found:
    laws = by_law("--params 70B")
    ours = laws["tokens-20"]["tokens"]
    fits = {
        name: laws[name]["tokens"] for name in ("approach-1", "approach-2", "approach-3-table", "besiroglu", "llama3", "kaplan")
    }
    text = (
        f"{ours / 1e12:g}T for 70B, {laws['tokens-20']['flops']:.3g} FLOP. The fits ask 70B for"
        f" {listed([f'{each / 1e12:.3g}T ({each / 70e9:.3g} a parameter, {name})' for name, each in fits.items()])}. Of approaches"
        " 1 and 2 and the refit of approach 3 it is a fair summary; the other fits move away from it as compute grows."
    )
    agree = all(abs(fits[name] / ours - 1) <= 0.25 for name in ("approach-1", "approach-2", "besiroglu"))
    return Found(ours, worst(claim.near("1.4T", ours), holds(agree)), text)


def exponents(claim: Claim) -> Found:
    def cost(n: float, d: float) -> float:
        found: float = result(f"compute --params {n:.0f} --tokens {d:.0f} --gpu a100-80")["training_flops"]
        return found

    of_n = math.log10(cost(1e11, 1e12) / cost(1e10, 1e12))
    of_d = math.log10(cost(1e10, 1e13) / cost(1e10, 1e12))
    best = {law: (exponent(law, "flops", "params"), exponent(law, "flops", "tokens"))
            for law in ("approach-1", "approach-2", "approach-3-table", "besiroglu", "kaplan")}  # fmt: skip
    ours = f"C = 6*N*D: N^{of_n:g} * D^{of_d:g}"
    words = [f"{law} C^{n:.2f} and C^{d:.2f}" for law, (n, d) in best.items()]
    alpha = LAWS["approach-3"].constants["alpha"]
    text = f"{ours}. What grows with a power of compute are the best N and D: {listed(words)}. {alpha} is an exponent of the loss."
    return Found(ours, worst(claim.near("N^1.34", of_n), claim.near("D^1.34", of_d)), text)


def kaplan(claim: Claim) -> Found:
    ours = [-exponent("kaplan-n", "params", "loss"), -exponent("kaplan-d", "tokens", "loss")]
    verdict = worst(claim.near("0.076", ours[0]), claim.near("0.095", ours[1]))
    text = (
        f"{ours[0]:.3f} and {ours[1]:.3f}, N without embeddings, each where the other does not limit the loss: ten times the"
        f" parameters take {100 * (1 - 10 ** -ours[0]):.0f}% off, ten times the tokens {100 * (1 - 10 ** -ours[1]):.0f}%. Kaplan"
        " et al. fitted up to 1.5B parameters, and no floor."
    )
    return Found(ours, verdict, text)


FITS = ("approach-3", "approach-3-unrounded", "besiroglu", "sardana", "muennighoff")


def small_beats_large(claim: Claim) -> Found:
    counts = {name: params.count(model(name).blueprint).total for name in ("llama3-8b", "gpt3-175b")}
    assert claim.near("8B", counts["llama3-8b"]) == claim.near("175B", counts["gpt3-175b"]) == "holds"

    def loss(n: int, d: float, law: str) -> float:
        found: float = results(f"chinchilla --run {n}:{d:.0f} --law {law}")[0]["loss"]
        return found

    pairs = {law: (loss(counts["llama3-8b"], 15e12, law), loss(counts["gpt3-175b"], 3e11, law)) for law in FITS}
    enough = {}
    for law, (_, large) in pairs.items():
        low, high = 1e9, 1e14
        while high / low > 1.001:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if loss(counts["llama3-8b"], middle, law) > large else (low, middle)
        enough[law] = high
    words = [
        f"{law} {small:.3f} against {large:.3f}, from {enough[law] / 1e12:.2f}T tokens on" for law, (small, large) in pairs.items()
    ]
    text = (
        f"Predicted loss in nats a token, 8B first: {'; '.join(words)}. The fits disagree about how soon more data stops to help,"
        " and hold for their own text, which neither was trained on."
    )
    better = [small < large for small, large in pairs.values()]
    return Found(None, "holds" if all(better) else "loose" if any(better) else "wrong", text)


def quadratic(claim: Claim) -> Found:  # noqa: ARG001
    def overtakes(name: str, *, causal: bool) -> int:
        def share(n: int) -> float:
            of = shape(model(name).blueprint, n, causal=causal)
            return of.attention / of.forward

        low, high = 1, 1 << 24
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if share(middle) >= 0.5 else (middle, high)
        return high

    one, two = (shape(model("llama2-7b").blueprint, n, causal=False).attention for n in (4096, 8192))
    width = shape(model("llama2-70b").blueprint, 4096, causal=False).attention / one
    words = [f"{name} {overtakes(name, causal=False):,} (causal {overtakes(name, causal=True):,})"
             for name in ("gpt2", "llama2-7b", "llama3-8b", "llama3-70b", "llama3.1-405b", "deepseek-v3")]  # fmt: skip
    text = (
        f"Twice the tokens cost {two / one:g} times; twice the width in 2.5 times the layers (Llama 2 70B) {width:g} times. Scores"
        f" and sums are half of a forward pass from this context on: {listed(words)}; up to there the linear layers decide."
    )
    return Found(two / one, holds(two == 4 * one), text)


def flash(claim: Claim) -> Found:  # noqa: ARG001
    blueprint = model("llama2-7b").blueprint

    def kept(attention: str) -> list[int]:
        return [training.count(blueprint, Recipe(n, attention=attention)).activation_bytes for n in (2048, 4096, 8192)]

    linear, square = kept("flash"), kept("eager")
    counted = flops.count(blueprint, 4096)
    again = shape(blueprint, 4096, causal=False).attention / 2
    text = (
        f"Activations of Llama 2 7B at 2,048, 4,096 and 8,192 tokens: {listed([f'{each / 1e9:.1f}' for each in linear])} GB,"
        f" against {listed([f'{each / 1e9:.1f}' for each in square])} with the scores kept. Forward FLOPs are the same; backward"
        f" computes the scores once more, {100 * again / counted.training:.1f}% of a step at 4,096 tokens."
    )
    even = linear[2] - linear[1] == 2 * (linear[1] - linear[0])
    grows = square[2] - square[1] > 3 * (square[1] - square[0])
    return Found(None, holds(even and grows), text)


def words(claim: Claim) -> Found:
    tokens, said, pages, characters = (claim.said(figure)[0] for figure in ("1,000 tokens", "750 words", "3 pages", "4 characters"))
    each = tokens * characters / said
    text = (
        f"The figures agree: {said:g} words of {each:.2f} characters with their space, {said / pages:g} words a page. That is"
        " English prose; code and other scripts take more tokens. llmcalc counts tokens and reads no text, so this is arithmetic,"
        " not a measurement."
    )
    return Found(None, holds(4.5 <= each <= 6.5), text)


CHECKS: dict[str, Check] = {
    "chinchilla-20": twenty,
    "chinchilla-exponents": exponents,
    "kaplan-exponents": kaplan,
    "llama3-8b-vs-gpt3": small_beats_large,
    "attention-quadratic": quadratic,
    "flash-linear-memory": flash,
    "words-tokens": words,
}
