"""Serving: what memory goes to, how fast, and what fits on which machine."""

from itertools import product
from typing import Any

from llmcalc import hardware, resolve
from llmcalc.engines.roofline import Roofline
from llmcalc.engines.speed import Draft, step
from tests.claims.ask import listed, model, result, size
from tests.claims.judge import Check, Claim, Found, holds, span, worst

PARTS = {"weight": ("weights 70-80%", 0.70, 0.80), "kv": ("KV 10-20%", 0.10, 0.20), "activation": ("activations 5-10%", 0.05, 0.10),
         "overhead": ("overhead 2-5%", 0.02, 0.05)}  # fmt: skip
SERVED = {"llama2-7b": 1, "llama2-13b": 1, "llama3-8b": 1, "llama3-70b": 4, "mixtral-8x7b": 2}


def fits(command: str) -> bool:
    """Whether it does."""
    return bool(result(command)["fits"])


def memory(claim: Claim) -> Found:
    for phrase, _, _ in PARTS.values():
        claim.said(phrase)

    def shares(name: str, runtime: str, batch: int) -> list[float]:
        gpus = SERVED[name]
        spread = f"--gpus {gpus} --tp {gpus}" if gpus > 1 and runtime == "vllm" else f"--gpus {gpus}"
        tokens = model(name).blueprint.context
        found = result(f"fit {name} --gpu a100-80 {spread} --ctx {tokens} --batch {batch} --runtime {runtime}")
        return [found[f"{part}_bytes"] / found["required_bytes"] for part in PARTS]

    def agrees(found: list[float]) -> bool:
        return all(low <= round(share, 2) <= high for share, (_, low, high) in zip(found, PARTS.values(), strict=True))

    asked = {key: shares(*key) for key in product(SERVED, ("vllm", "transformers"), (1, 2, 4, 8))}
    good = {key: found for key, found in asked.items() if agrees(found)}

    def words(key: tuple[str, str, int]) -> str:
        name, runtime, batch = key
        split = "/".join(f"{100 * share:.0f}" for share in asked[key])
        return f"{name} with {batch} x {model(name).blueprint.context:,} tokens under {runtime} ({split}%)"

    others = [words(key) for key in (("llama2-7b", "vllm", 1), ("llama2-7b", "vllm", 8), ("llama3-70b", "vllm", 1))]
    text = (
        f"Of {len(asked)} cases (five models, their trained context, 1 to 8 sequences, vLLM and transformers, 16-bit, A100 80GB)"
        f" it holds in {len(good)}: {listed([words(key) for key in good]) if good else 'none'}. Others, weights/cache/working"
        f" set/overhead: {'; '.join(others)}. The cache has no fixed share: it grows with tokens and sequences until the memory is"
        " full."
    )
    return Found(None, "holds" if len(good) == len(asked) else "loose" if good else "wrong", text)


def unbatched(claim: Claim) -> Found:
    def rate(runtime: str, options: str = "") -> dict[str, Any]:
        return result(f"speed llama2-7b --gpu a100-80 --prompt 128 --output 256 --runtime {runtime} {options}")

    runtimes = {name: rate(name) for name in ("transformers", "llama.cpp", "sglang", "vllm")}
    speeds = {name: found["decode_tokens_per_second"] for name, found in runtimes.items()}
    parts = runtimes["vllm"]["step"]
    read = result("weights llama2-7b")["weight_bytes"] - 2 * result("params llama2-7b")["embedding"]
    limit = hardware.gpu("a100-80").spec.bandwidth_gb_s * 1e9 / read
    text = (
        f"Reading {size(read)} for each token bounds it at {limit:.0f} tokens/s. After a prompt of 128 tokens, 256 out, in 16-bit:"
        f" {listed([f'{name} {each:.0f}' for name, each in speeds.items()])} tokens/s, estimates with the errors of docs/speed.md."
        f" Of vLLM's {1000 * runtimes['vllm']['tpot_seconds']:.1f} ms a token {1000 * parts['weights_seconds']:.1f} are the weights"
        f" and {1000 * parts['overhead_seconds']:.1f} launches. With 8 sequences it makes"
        f" {rate('vllm', '--batch 8')['decode_tokens_per_second']:.0f}."
    )
    return Found(speeds, claim.among("50 tokens/s", [*speeds.values(), limit]), text)


MOST_DRAFTED = 16
ACCEPTED = (0.5, 0.6, 0.7, 0.8, 0.9)


class Speculation:
    """Llama 2 70B on 4 A100 under vLLM at 2,048 tokens, and a draft model on the same GPUs."""

    def __init__(self, draft: str, batch: int = 1) -> None:
        card = hardware.gpu("a100-80")
        machine, e = hardware.machine("vllm", card, "none", 4), hardware.efficiency("vllm", card, "none")
        target, small = (Roofline(model(name).blueprint, resolve.unquantised(), ranks=4) for name in ("llama2-70b", draft))
        self.small = small
        self.alone = step(target, machine, e, 2048, batch).seconds_per_token
        drafts = {k: Draft(small, 0.5, k) for k in range(1, MOST_DRAFTED + 1)}
        steps = {k: step(target, machine, e, 2048, batch, each) for k, each in drafts.items()}
        self.seconds = {k: each.time.total + each.draft_seconds for k, each in steps.items()}

    def best(self, acceptance: float) -> tuple[float, int]:
        """How many times faster, with as many drafted tokens as pay best; and how many these are."""
        return max((self.alone * Draft(self.small, acceptance, k).expected / took, k) for k, took in self.seconds.items())

    def needed(self, times: float) -> str:
        """The acceptance from which on it is so many times faster."""
        if self.best(1.0)[0] < times:
            return "more than any"
        low, high = 0.0, 1.0
        while high - low > 1e-4:
            middle = (low + high) / 2
            low, high = (low, middle) if self.best(middle)[0] >= times else (middle, high)
        return f"{100 * high:.0f}%"


def speculative(claim: Claim) -> Found:
    large, small = Speculation("llama2-7b"), Speculation("tinyllama-1.1b")
    said = claim.said("2-3 times")[0]
    every = [pair.best(a)[0] for pair in (large, small) for a in ACCEPTED]
    tokens = Draft(large.small, 0.7, 4).expected
    full = Speculation("tinyllama-1.1b", 64).best(0.7)[0]
    gains = [f"{times:.2f} times at {100 * a:.0f}% acceptance (k = {k})" for a in ACCEPTED for times, k in [large.best(a)]]
    text = (
        "Llama 2 70B on 4 A100 under vLLM, one sequence of 2,048 tokens, the k drafted tokens that pay best. Drafted by Llama 2 7B:"
        f" {listed(gains)}; by TinyLlama 1.1B {listed([f'{small.best(a)[0]:.2f}' for a in ACCEPTED])}. Twice takes an acceptance of"
        f" {large.needed(said)} and {small.needed(said)}, three times {large.needed(said + 1)} and {small.needed(said + 1)}. A"
        f" step yields (1 - a^(k+1)) / (1 - a) tokens, {tokens:.2f} at 70% and k = 4, but drafting takes time; with 64 sequences"
        f" at 70% it is {full:.2f} times (TinyLlama)."
    )
    return Found(None, span(said, said + 1, every), text)


def one_24gb(claim: Claim) -> Found:  # noqa: ARG001
    mini = result("fit phi-3-mini-4k --gpu rtx4090 --ctx 4096")
    longest = result("fit phi-3-mini-128k --gpu rtx4090 --solve context")["max_context"]
    lora = "train llama2-7b --method lora --precision amp --gpu rtx4090"
    plain, recomputed = (result(f"{lora} {how} --solve seq --seq 32k")["solved"] for how in ("", "--recompute full"))
    text = (
        f"RTX 4090. Phi-3-mini in 16-bit takes {size(mini['required_bytes'])} with 4,096 tokens and holds {mini['max_batch']} such"
        f" sequences; the 128K version fits {longest:,} tokens. LoRA (rank 8 on q and v, 16-bit base, micro-batch 1) on Llama 2 7B"
        f" fits up to {plain:,} tokens, {recomputed:,} with layers recomputed."
    )
    return Found(None, holds(mini["fits"] and bool(plain)), text)


def eight_a100(claim: Claim) -> Found:  # noqa: ARG001
    cards = ("a100-80", "a100-40")
    served = {(name, card): result(f"fit {name} --gpu {card} --gpus 8 --tp 8 --runtime vllm --ctx 8192")
              for name in ("llama3-70b", "mixtral-8x7b") for card in cards}  # fmt: skip
    lora = "train llama3-70b --method lora --precision amp --gpus 8 --zero 3 --gpu"
    tuned = {card: [result(f"{lora} {card} {how} --solve seq --seq 8k")["solved"] or 0 for how in ("", "--recompute full")]
             for card in cards}  # fmt: skip
    rooms = [f"{name} with {found['max_batch']} x 8,192 tokens on {card} ({found['min_gpus']} are enough for one)"
             for (name, card), found in served.items()]  # fmt: skip
    words = [f"on {card} up to {plain:,} tokens, {more:,} with layers recomputed" for card, (plain, more) in tuned.items()]
    good = worst(*(holds(found["fits"]) for found in served.values()), *(holds(bool(more)) for _, more in tuned.values()))
    text = (
        f"vLLM, tensor parallel 8: {listed(rooms)}. LoRA on Llama 3 70B (16-bit base in ZeRO-3, micro-batch 1) fits"
        f" {listed(words)}."
    )
    return Found(None, good, text)


def sixteen(claim: Claim) -> Found:  # noqa: ARG001
    served = {(name, card): result(f"fit {name} --gpu {card} --gpus 16 --tp 16 --runtime vllm --ctx 8192")
              for name in ("llama3.1-405b", "deepseek-v2") for card in ("a100-80", "a100-40")}  # fmt: skip
    ways = {
        "Megatron (tensor 8, pipeline 2, ZeRO-1, recomputed)":
            "--precision megatron --tp 8 --pp 2 --zero 1 --sequence-parallel --recompute full",
        "all in bf16 (ZeRO-3, recomputed)": "--precision bf16 --zero 3 --recompute full",
    }  # fmt: skip
    trained = {what: result(f"train llama3-70b --method full --gpus 16 --gpu a100-80 {options}") for what, options in ways.items()}
    rooms = [
        f"{name} {'fits with ' + str(found['max_batch']) + ' sequences' if found['fits'] else 'does not fit'} on {card}"
        f" (fewest: {found['min_gpus']})"
        for (name, card), found in served.items()
    ]
    peaks = [f"{found['required_bytes'] / 1e9:.1f} GB a GPU under {what}" for what, found in trained.items()]
    usable = {card: hardware.gpu(card).usable_bytes for card in ("a100-80", "a100-40")}
    kept = {card: all(found["required_bytes"] <= room for found in trained.values()) for card, room in usable.items()}
    word = {True: "enough", False: "too few"}
    text = (
        f"vLLM, tensor parallel 16, 8,192 tokens; more than a node in whole nodes: {listed(rooms)}. All weights of Llama 3 70B,"
        f" 2,048 tokens a micro-batch, need {listed(peaks)}:"
        f" {listed([f'{size(room)} on {card} are {word[kept[card]]}' for card, room in usable.items()])}."
    )
    large = [found["fits"] for (_, card), found in served.items() if card == "a100-80"]
    return Found(None, holds(all(large) and all(found["fits"] for found in trained.values())), text)


CHECKS: dict[str, Check] = {
    "memory-shares": memory,
    "a100-7b-speed": unbatched,
    "speculative": speculative,
    "budget-24gb": one_24gb,
    "budget-8xa100": eight_a100,
    "budget-16xa100": sixteen,
}
