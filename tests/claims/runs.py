"""Training runs: FLOPs, days, energy and money."""

from typing import Any

from tests.claims.ask import model, result
from tests.claims.judge import Check, Claim, Found, holds, worst
from tests.conftest import records


def published(row: str) -> dict[str, Any]:
    """A published run or benchmark among the tests' data."""
    return next(each for each in records("compute.jsonl") if each["id"] == row)


def tokens_of(name: str) -> int:
    """Training tokens as published."""
    said = model(name).spec.published
    return int(said.tokens or 0) if said else 0


def gpt3_flops(claim: Claim) -> Found:
    ours = result("compute gpt3-175b --tokens 300B --gpu a100-80")
    more = result("compute gpt3-175b --tokens 300B --gpu a100-80 --convention attention")
    halved = result("compute gpt3-175b --tokens 300B --gpu a100-80 --convention attention --mask causal")
    flops = ours["training_flops"]
    text = (
        f"6 N D = {flops:.4g} with N = {ours['params']:,}. Attention over 2,048 tokens adds"
        f" {100 * (more['training_flops'] / flops - 1):.1f}% with the full mask,"
        f" {100 * (halved['training_flops'] / flops - 1):.1f}% with the causal one."
    )
    return Found(flops, claim.near("3.14e23", flops), text)


def gpt3_days(claim: Claim) -> Found:
    base = "compute gpt3-175b --tokens 300B --gpu a100-80 --gpus 1024"
    eight, six = result(f"{base} --tflops 140 --recompute full"), result(f"{base} --tflops 140")
    ours, mfu = eight["days"], eight["mfu"]
    text = (
        f"{ours:.2f} days at 140 TFLOP/s a GPU with layers recomputed (8 N D, {100 * eight['mfu']:.1f}% MFU,"
        f" {100 * eight['hfu']:.1f}% HFU). Work that runs at the same rate without recomputing (6 N D) takes {six['days']:.2f}"
        f" days, at {100 * six['mfu']:.1f}% MFU; at {100 * mfu:.1f}% MFU it takes {result(f'{base} --mfu {mfu}')['days']:.2f} days"
        " either way."
    )
    return Found(ours, claim.near("34 days", ours), text)


def gpt3_energy(claim: Claim) -> Found:
    found = result(f"compute {published('run-gpt3-175b-energy')['command']}")
    hours = result("compute gpt3-175b --tokens 300B --gpu v100-32 --gpus 10000 --days 14.8")
    ours = found["energy_mwh"]
    text = (
        f"{ours:,.0f} MWh: {found['gpu_hours']:,.0f} V100-hours at {found['power_watts']:.0f} W and a PUE of {found['pue']}, which"
        f" are assumptions of Patterson et al.; {found['co2_tonnes']:.0f} tonnes of CO2. They imply {100 * hours['mfu']:.1f}% MFU."
        f" 1,024 A100 at 140 TFLOP/s and 400 W would take"
        f" {result('compute gpt3-175b --tokens 300B --gpu a100-80 --gpus 1024 --tflops 140 --recompute full')['energy_mwh']:.0f}"
        " MWh."
    )
    return Found(ours, claim.near("1,287 MWh", ours), text)


def gpt3_cost(claim: Claim) -> Found:
    ours = result("compute gpt3-175b --tokens 300B --gpu v100-32 --tflops 28 --price 1.5")
    later = result("compute gpt3-175b --tokens 300B --gpu a100-80 --tflops 140")
    text = (
        f"${ours['cost_dollars']:,.0f}: {ours['gpu_hours']:,.0f} V100-hours at 28 TFLOP/s ({100 * ours['mfu']:.1f}% MFU) and"
        " $1.50. It is an estimate of rent, not what was paid. A100s at 140 TFLOP/s and"
        f" ${later['cost_dollars'] / later['gpu_hours']:.2f} an hour: ${later['cost_dollars']:,.0f}."
    )
    return Found(ours["cost_dollars"], claim.near("$4.6M", ours["cost_dollars"]), text)


def llama_65b(claim: Claim) -> Found:
    base = "compute llama-65b --tokens 1.4T --gpu a100-80 --gpus 2048"
    rate = result(f"{base} --tokens-per-second 380")
    ours, hours = rate["days"], published("mfu-run-llama1-65b")["gpu_hours"]
    text = (
        f"{ours:.2f} days at the paper's 380 tokens/s a GPU ({100 * rate['mfu']:.1f}% MFU), {rate['gpu_hours']:,.0f} GPU-hours;"
        f" its own {hours:,} are {result(f'{base} --gpu-hours {hours}')['days']:.2f} days."
    )
    return Found(ours, claim.near("21 days", ours), text)


def llama_70b(claim: Claim) -> Found:
    ours, hours = tokens_of("llama3-70b"), published("mfu-run-llama3-70b")["gpu_hours"]
    run = result(f"compute llama3-70b --tokens {ours} --gpu h100-sxm --gpu-hours {hours}")
    older = result("compute llama-65b --tokens 1.4T --gpu a100-80 --gpus 2048 --tokens-per-second 380")
    here = result(f"compute llama3-70b --tokens {ours} --gpu a100-80 --gpus 2048 --mfu {older['mfu']}")
    text = (
        f"{ours / 1e12:g}T tokens in {hours / 1e6:g}M H100-hours ({100 * run['mfu']:.0f}% MFU). On 2,048 A100 that would take"
        f" {here['days']:.0f} days at the MFU of LLaMA-1 65B, whose run this is: {tokens_of('llama-65b') / 1e12:g}T tokens on"
        f" 2,048 A100 in {older['days']:.0f} days."
    )
    return Found(ours, claim.near("1.4T", ours), text)


def llama_405b(claim: Claim) -> Found:
    """GPU-hours were counted, and follow from no arithmetic; what they mean is whether they go with the paper's 38 to 43% MFU."""
    tokens, hours = tokens_of("llama3.1-405b"), claim.truth["gpu_hours"]
    base = f"compute llama3.1-405b --tokens {tokens} --gpu h100-sxm --gpus 16384"
    run = result(f"{base} --gpu-hours {hours}")
    whole = result(f"{base} --gpu-hours {hours} --seq 8192 --convention attention")
    slow, fast = (result(f"{base} --mfu {share} --seq 8192 --convention attention")["gpu_hours"] / 1e6 for share in (0.38, 0.43))
    text = (
        f"{tokens / 1e12:g}T tokens are {run['training_flops']:.3g} FLOP by 6 N D, {whole['training_flops']:.3g} with attention"
        f" over 8,192 tokens. The model card's {hours / 1e6:.2f}M GPU-hours, put in and not computed, are {run['days']:.0f} days"
        f" of 16,384 H100 and {100 * run['mfu']:.1f}% MFU ({100 * whole['mfu']:.1f}% with attention). The 38 to 43% that the paper"
        f" measured would take {fast:.1f} to {slow:.1f}M, so the card's hours hold interruptions too."
    )
    ours = {"tokens": run["tokens"], "flops": run["training_flops"]}
    return Found(ours, holds(fast * 1e6 <= hours <= 1.25 * slow * 1e6), text, given=("gpu_hours",))


def deepseek_v2(claim: Claim) -> Found:
    per = published("mfu-run-deepseek-v2-per-T")
    tokens = tokens_of("deepseek-v2")
    hours = round(per["gpu_hours"] * tokens / per["tokens"])
    ours = result(f"compute deepseek-v2 --tokens {tokens} --gpu h800 --gpu-hours {hours} --price 2")
    later = result(f"compute deepseek-v3 --tokens {tokens_of('deepseek-v3')} --gpu h800 --gpu-hours 2.788M --price 2")
    text = (
        f"{tokens / 1e12:g}T tokens at {per['gpu_hours']:,.0f} H800-hours per trillion are {hours:,} hours:"
        f" ${ours['cost_dollars']:,.0f} at $2 ({100 * ours['mfu']:.1f}% MFU). ${later['cost_dollars']:,.0f} is DeepSeek-V3: 2.788M"
        f" hours for {tokens_of('deepseek-v3') / 1e12:g}T tokens."
    )
    return Found(ours["cost_dollars"], worst(claim.near("8.1T", tokens), claim.near("$5.5M", ours["cost_dollars"])), text)


CHECKS: dict[str, Check] = {
    "llama3-70b-tokens": llama_70b,
    "gpt3-flops": gpt3_flops,
    "gpt3-days": gpt3_days,
    "gpt3-energy": gpt3_energy,
    "gpt3-cost": gpt3_cost,
    "llama65b-days": llama_65b,
    "llama3-405b-run": llama_405b,
    "dsv2-cost": deepseek_v2,
}
