"""Memory of training and fine-tuning. GB are 10^9 bytes; the peak of a step, without CUDA's context."""

from typing import Any

from llmcalc.engines import preference
from llmcalc.engines.objectives import Objective
from llmcalc.engines.recipe import Recipe
from tests.claims.ask import listed, model, result, size
from tests.claims.judge import Check, Claim, Found, holds, span, worst

LORA = "train llama2-7b --precision amp --method"
PAGED = "--optimizer paged-adamw8bit"


def peak(command: str) -> float:
    """GB at the highest point of a step."""
    found: float = result(command)["peak_bytes"] / 1e9
    return found


def longest(command: str) -> int:
    """Tokens of the longest sequence that fits, 0 where none does."""
    return int(result(f"{command} --solve seq --seq 8k")["solved"] or 0)


def reaches(command: str, gigabytes: float, last: int = 32_768) -> int:
    """The shortest sequence, in steps of 64 tokens, whose peak is so many GB."""
    low, high = 0, last // 64
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if peak(f"{command} --seq {64 * middle}") >= gigabytes else (middle, high)
    return 64 * high


def per_parameter(options: str) -> tuple[float, dict[str, float]]:
    """Bytes of weights, gradients and states for each parameter, together and by what they are."""
    found = result(f"train llama2-7b {options}")
    parts = {key: found[f"{key}_bytes"] / found["total"] for key in ("parameter", "gradient", "optimizer")}
    return sum(parts.values()), parts


def adam_fp32(claim: Claim) -> Found:
    ours, parts = per_parameter("--precision fp32")
    verdict = worst(claim.near("16 bytes", ours), claim.near("112 GB", 7 * ours))
    command = "train llama2-7b --precision fp32"
    count, top = result("params llama2-7b")["total"], peak(command)
    text = (
        f"{ours:.2f} bytes: weights {parts['parameter']:.0f}, gradients {parts['gradient']:.0f}, moments {parts['optimizer']:.0f}."
        f" 112 GB are 7e9 parameters; Llama 2 7B's {count:,} take {ours * count / 1e9:.1f} GB. That is also the peak of a step of"
        f" 2,048 tokens ({top:.1f} GB), since activations are gone when the last gradient is there; they decide from"
        f" {reaches(command, 1.001 * top):,} tokens on."
    )
    return Found(ours, verdict, text)


def adam_mixed(claim: Claim) -> Found:
    two, _ = per_parameter("--precision megatron --reduce-dtype bf16")
    four, parts = per_parameter("--precision megatron")
    amp, _ = per_parameter("--precision amp")
    pure, halves = per_parameter("--precision bf16")
    text = (
        f"{two:.2f} bytes with 16-bit gradients (2 + 2, and {parts['optimizer']:.0f} of master copy and moments), {four:.2f} with"
        f" fp32 gradients, as Megatron sums them, {four + halves['gradient']:.2f} where a 16-bit gradient stands beside. Autocast"
        f" over fp32 weights takes {amp:.2f} as well (4 + 4 + 8), and everything in bf16 {pure:.2f}."
    )
    return Found(two, claim.near("16 bytes", two), text)


def qlora_70b(claim: Claim) -> Found:
    base = "train llama2-70b --method qlora --precision amp --targets all --gpu rtx-a6000 --recompute full"
    found = {rank: longest(f"{base} --rank {rank}") for rank in (16, 64)}
    paged = longest(f"{base} --rank 64 {PAGED}")
    prepared = longest(f"{base} --rank 16 --kbit-prepare")
    kept = longest(base.replace("full", "none") + " --rank 16")
    batches = result(f"{base} --rank 16 --solve micro-batch --seq 512")["solved"]
    weights = result(f"{base} --rank 16 --seq 64")["parameter_bytes"]
    text = (
        f"Llama 2 70B, adapters on every linear, whole layers recomputed, {size(weights)} of weights: rank 16 fits up to"
        f" {found[16]:,} tokens at micro-batch 1, or {batches} x 512; {prepared:,} with peft's preparation, whose rest is fp32;"
        f" {kept:,} without recomputing. Rank 64 with AdamW's states on the GPU"
        f" {'fits up to ' + format(found[64], ',') if found[64] else 'fits no length at all'}; with paged 8-bit states"
        f" {paged:,} tokens. 1 GiB is left for CUDA."
    )
    return Found(found[16], holds(found[16] >= 512 and claim.said("48 GB")[0] == 48), text)


def qlora_7b(claim: Claim) -> Found:
    adapters = {"r16_qv": "q,v", "r16_qkvo": "q,k,v,o", "r16_all_linear": "all"}
    ours = {key: result(f"{LORA} qlora --rank 16 --targets {targets}")["trainable"] for key, targets in adapters.items()}
    states = {key: result(f"{LORA} qlora --rank 16 --targets {targets}")["optimizer_bytes"] for key, targets in adapters.items()}
    command = f"{LORA} qlora --rank 16 --targets all"
    peaks = {f"{tokens:,} tokens{', recomputed' if how == 'full' else ''}": peak(f"{command} --seq {tokens} --recompute {how}")
             for how in ("none", "full") for tokens in (512, 2048, 4096)}  # fmt: skip
    verdict = worst(
        span(10, 16, peaks.values()), claim.among("30M", ours.values()), claim.among("60 MB", [2 * n / 1e6 for n in ours.values()]),
        claim.among("240 MB", [b / 1e6 for b in states.values()]),
    )  # fmt: skip
    mb = listed([f"{n:,} ({2 * n / 1e6:.0f} MB in 16-bit, states {states[key] / 1e6:.0f} MB)" for key, n in ours.items()])
    text = (
        f"Rank 16 on q and v, on all of attention, on every linear: {mb}. Peaks at micro-batch 1:"
        f" {listed([f'{each:.1f} GB at {what}' for what, each in peaks.items()])}. 10 to 16 GB are {reaches(command, 10):,} to"
        f" {reaches(command, 16):,} tokens without recomputing."
    )
    return Found(ours, verdict, text)


def lora_7b(claim: Claim) -> Found:  # noqa: ARG001
    command = f"{LORA} lora --rank 8"
    peaks = {f"{tokens:,} tokens{', recomputed' if how == 'full' else ''}": peak(f"{command} --seq {tokens} --recompute {how}")
             for how in ("none", "full") for tokens in (512, 2048, 4096)}  # fmt: skip
    text = (
        "Llama 2 7B in 16-bit, rank 8 on q and v, micro-batch 1:"
        f" {listed([f'{each:.1f} GB at {what}' for what, each in peaks.items()])}. 16 to 24 GB are {reaches(command, 16):,} to"
        f" {reaches(command, 24):,} tokens; with whole layers recomputed 16 GB are reached at"
        f" {reaches(command + ' --recompute full', 16):,} and 24 GB at {reaches(command + ' --recompute full', 24):,}."
    )
    return Found(None, span(16, 24, peaks.values()), text)


def full_7b(claim: Claim) -> Found:
    ways = {"fp32": "fp32", "autocast over fp32 weights": "amp", "Megatron's mixed precision": "megatron", "all in bf16": "bf16",
            "bf16 with 8-bit AdamW": "bf16 --optimizer adamw8bit"}  # fmt: skip
    peaks = {what: peak(f"train llama2-7b --recompute full --precision {options}") for what, options in ways.items()}
    text = (
        f"Llama 2 7B, 2,048 tokens, layers recomputed, AdamW: {listed([f'{each:.1f} GB {what}' for what, each in peaks.items()])}."
        " It holds for every way that keeps fp32 states; not for weights and states in bf16, which fit an 80 GB GPU."
    )
    return Found(None, span(claim.said("80 GB")[0], float("inf"), peaks.values()), text)


SHARES = {
    "Prefix tuning": ("prefix", "tokens", (10, 20, 200), 0.0, 0.0001),
    "Prompt tuning": ("prompt", "tokens", (20, 100), 0.0, 0.00001),
    "Adapters": ("adapter", "of width", (64, 256), 0.01, 0.04),
    "LoRA": ("lora --targets all", "of rank", (8, 16), 0.001, 0.01),
}


def trained_shares(claim: Claim) -> Found:
    for figure in ("0.01%", "0.001%", "1-4%", "0.1-1%"):
        claim.said(figure)
    verdicts, words = [], []
    for name, (method, unit, ranks, low, high) in SHARES.items():
        shares: dict[str, list[float]] = {}
        for of in ("llama2-7b", "gpt3-175b"):
            shares[of] = [result(f"train {of} --seq 512 --method {method} --rank {rank}")["trainable_share"] for rank in ranks]
        found = [each for row in shares.values() for each in row]
        verdicts.append(span(low, high, found))
        sizes = listed([str(rank) for rank in ranks])
        figures = "; ".join(f"{of} {listed([f'{100 * each:.3g}%' for each in row])}" for of, row in shares.items())
        words.append(f"{name} ({verdicts[-1]}) with {sizes} {unit}: {figures}")
    most = {
        of: next(n for n in range(20) if result(f"train {of} --seq 512 --method prefix --rank {n + 1}")["trainable_share"] > 0.0001)
        for of in ("llama2-7b", "gpt3-175b")
    }
    text = (
        f"{'. '.join(words)}. Prefix tuning stays under 0.01% up to {most['llama2-7b']} and"
        f" {most['gpt3-175b']} tokens; the share falls as models grow."
    )
    return Found(None, worst(*verdicts), text)


def alignment(claim: Claim) -> Found:
    blueprint = model("llama2-7b").blueprint
    objectives: dict[str, dict[str, Any]] = {
        "DPO": {"name": "dpo"}, "KTO": {"name": "kto"}, "ORPO": {"name": "orpo"}, "GRPO": {"name": "grpo"},
        "PPO": {"name": "ppo", "reward_model": blueprint},
    }  # fmt: skip
    recipes = {
        "All weights in bf16": Recipe(1024), "autocast over fp32 weights": Recipe(1024, precision="amp"),
        "LoRA": Recipe(1024, precision="amp", method="lora"),
    }  # fmt: skip
    ratios: dict[str, dict[str, float]] = {}
    for what, recipe in recipes.items():
        recipe = recipe._replace(recompute="full")
        alone = preference.count(blueprint, recipe, Objective("sft")).peak_bytes
        ratios[what] = {
            name: preference.count(blueprint, recipe, Objective(**fields)).peak_bytes / alone for name, fields in objectives.items()
        }
    words = [f"{what}: {listed([f'{name} {each:.2f}' for name, each in row.items()])}" for what, row in ratios.items()]
    text = (
        "Times fine-tuning's peak, Llama 2 7B, 1,024 tokens, micro-batch 1, layers recomputed, frozen copies in 16-bit."
        f" {'; '.join(words)}. It holds for PPO, which trains a second model of values; DPO adds a frozen copy (none over an"
        " adapter) and reads pairs."
    )
    said = claim.said("2-3 times")[0]
    return Found(None, span(said, said + 1, [each for row in ratios.values() for each in row.values()]), text)


CHECKS: dict[str, Check] = {
    "qlora-70b-48gb": qlora_70b,
    "qlora-7b": qlora_7b,
    "lora-7b": lora_7b,
    "full-ft-7b": full_7b,
    "adam-fp32": adam_fp32,
    "adam-mixed": adam_mixed,
    "prefix-params": trained_shares,
    "rlhf-memory": alignment,
}
