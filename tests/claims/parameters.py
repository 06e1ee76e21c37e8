"""Parameters: sizes and shapes of models, and what a layer holds."""

from typing import NamedTuple

from llmcalc.engines import params
from llmcalc.errors import Unpublished
from tests.claims.ask import answer, billions, listed, model, result, sketch
from tests.claims.judge import Check, Claim, Found, holds, worst


class Sizes(NamedTuple):
    """The claim's figures, the models that they are of, and what it says of the last one's shape, by field."""

    figures: tuple[str, ...]
    models: tuple[str, ...]
    shape: dict[str, str] = {}


SIZES = {
    "gpt1-params": Sizes(("117M",), ("gpt1",), {"layers": "12 layers", "hidden": "768 wide"}),
    "gpt2-small-params": Sizes(("117M",), ("gpt2",)),
    "gpt2-xl-params": Sizes(("1.5B",), ("gpt2-xl",), {"layers": "48 layers", "hidden": "1600 wide", "heads": "25 heads"}),
    "gpt3-params": Sizes(
        ("175B",), ("gpt3-175b",),
        {"layers": "96 layers", "hidden": "12288 wide", "heads": "96 heads", "context": "2048 context"},
    ),
    "palm-params": Sizes(
        ("540B",), ("palm-540b",),
        {"layers": "118 layers", "hidden": "18432 wide", "heads": "48 heads", "vocab": "256K vocabulary"},
    ),
    "bert-large-params": Sizes(("340M",), ("bert-large",), {"layers": "24 layers", "hidden": "1024 wide", "heads": "16 heads"}),
    "distilbert-params": Sizes(("66M",), ("distilbert-base",)),
    "roberta-base-params": Sizes(("125M",), ("roberta-base",)),
    "deberta-v3-params": Sizes(("184M",), ("deberta-v3-base",)),
    "t5-sizes": Sizes(
        ("60M", "220M", "770M", "3B", "11B"), ("t5-small", "t5-base", "t5-large", "t5-3b", "t5-11b"),
        {"layers": "24 layers", "hidden": "1024 wide", "heads": "128 heads", "ffn": "FFN 65536"},
    ),
    "bart-large-params": Sizes(("406M",), ("bart-large",), {"layers": "12 layers", "hidden": "1024 wide"}),
    "flan-t5-range": Sizes(("80M", "11B"), ("flan-t5-small", "flan-t5-xxl")),
    "switch-params": Sizes(("1.6T",), ("switch-c-2048",)),
    "llama1-sizes": Sizes(("7B", "13B", "33B", "65B"), ("llama-7b", "llama-13b", "llama-30b", "llama-65b")),
    "llama2-70b-params": Sizes(
        ("70B",), ("llama2-70b",),
        {"layers": "80 layers", "hidden": "8192 wide", "heads": "64 query heads", "kv_heads": "8 KV heads"},
    ),
    "llama3-sizes": Sizes(
        ("8B", "70B", "405B"), ("llama3-8b", "llama3-70b", "llama3.1-405b"),
        {"layers": "126 layers", "hidden": "16384 wide", "heads": "128 query heads", "kv_heads": "8 KV heads"},
    ),
    "mistral-7b-params": Sizes(("7.3B",), ("mistral-7b-v0.1",)),
    "phi-sizes": Sizes(
        ("1.3B", "2.7B", "3.8B", "7B", "14B"), ("phi-1", "phi-2", "phi-3-mini-4k", "phi-3-small", "phi-3-medium"),
    ),
}  # fmt: skip


def total(name: str) -> int:
    return params.count(model(name).blueprint).total


def sizes(claim: Claim) -> Found:
    """A claim that is sizes, and perhaps the shape of the last of them."""
    figures, names, shape = SIZES[claim.id]
    ours = [total(name) for name in names]
    verdicts = [claim.near(figure, count) for figure, count in zip(figures, ours, strict=True)]
    spec = model(names[-1]).spec
    for field, phrase in shape.items():
        said = phrase if phrase in claim.claim else phrase.replace(" layers", f"+{phrase}")
        verdicts.append(claim.exactly(said, getattr(spec, field)))
    words = [f"{billions(count)}" + (f" in {name}" if len(names) > 1 else "") for name, count in zip(names, ours, strict=True)]
    same = f"; {listed(list(shape.values()))} as said" if shape and worst(*verdicts[len(ours) :]) == "holds" else ""
    return Found(ours if len(ours) > 1 else ours[0], worst(*verdicts), f"{listed(words)} parameters{same}.")


def widths(claim: Claim) -> Found:
    """Sizes of models whose heads do not add up to their width."""
    found = sizes(claim)
    spec = model(SIZES[claim.id].models[-1]).spec
    heads, dim = spec.heads or 0, spec.head_dim or 0
    count = spec.kv_heads or heads
    return found._replace(
        text=f"{found.text} Heads x head dim is {heads} x {dim} = {heads * dim:,}, which is not the width; {count} KV"
        f" head{'s' * (count > 1)}."
    )


def bert_base(claim: Claim) -> Found:
    counted = params.count(model("bert-base").blueprint)
    spec = model("bert-base").spec
    layers, width, vocab = spec.layers or 0, spec.hidden or 0, spec.vocab or 0
    formula = 12 * layers * width**2 + vocab * width
    verdict = worst(claim.near("110M", counted.total), claim.near("108M", formula), claim.exactly("30522", vocab))
    rest = counted.total - formula
    text = (
        f"{billions(counted.total)} with pooler. The formula gives {formula:,}; the {rest:,} that it lacks are positions and token"
        f" types ({counted.parts['positions']:,}), the pooler ({counted.parts['pooler']:,}), norms and biases."
    )
    return Found(counted.total, verdict, text)


def gpt4(claim: Claim) -> Found:
    found = result("params gpt-4")
    spec = model("gpt-4").spec
    verdict = "unknowable" if found["estimate"] else claim.near("1.8T", found["total"])
    text = (
        f"Never published. The report that it goes back to comes to {billions(found['total'])} with {spec.layers} layers, widths"
        f" fitted to the total; llmcalc shows this with \"(estimate)\" wherever it stands, and {billions(found['active'])} active"
        " likewise."
    )  # fmt: skip
    return Found(None, verdict, text)


def closed(claim: Claim) -> Found:  # noqa: ARG001
    refused = []
    for name in ("gemini-1.5-pro", "claude-3.5-sonnet"):
        try:
            model(name)
        except Unpublished as error:
            refused.append(str(error).rstrip("."))
        if answer(f"params {name}")[0] != 2:
            refused.clear()
    return Found(None, "unknowable" if len(refused) == 2 else "wrong", f'Asked for them, llmcalc answers: "{"; ".join(refused)}"')


def kv_heads(claim: Claim) -> Found:
    def heads(name: str) -> int:
        return int(model(name).blueprint.caches[0].heads)

    ours = heads("llama2-7b")
    text = (
        f"Multi-head attention: {ours} KV heads under {model('llama2-7b').spec.heads} query heads, in the 13B"
        f" {heads('llama2-13b')} under {model('llama2-13b').spec.heads}. The 70B has {heads('llama2-70b')} under"
        f" {model('llama2-70b').spec.heads}."
    )
    return Found(ours, claim.exactly("4 KV heads", ours), text)


def mixtral(claim: Claim) -> Found:
    counted = params.count(model("mixtral-8x7b").blueprint)
    verdict = worst(claim.near("46.7B", counted.total), claim.near("12.9B", counted.active))
    text = f"{billions(counted.total)} in total, {billions(counted.active)} active, embedding and head counted."
    return Found([counted.total, counted.active], verdict, text)


def mixtral_active(claim: Claim) -> Found:
    counted = params.count(model("mixtral-8x7b").blueprint)
    alone = counted.active - counted.active_parts["experts"]
    text = (
        f"{billions(counted.active)}: two experts in each layer are {billions(counted.active_parts['experts'])}, and attention,"
        f" embedding and head {billions(alone)} more."
    )
    return Found(counted.active, claim.near("8B", counted.active), text)


def qwen_vocabulary(claim: Claim) -> Found:
    rows = {name: model(name).spec.vocab or 0 for name in ("qwen-1.8b", "qwen-7b", "qwen-14b", "qwen-72b")}
    words = [f"{count:,} in {name}" for name, count in rows.items()]
    text = f"Rows of the embedding: {listed(words)}; more than the tokenizer has entries."
    return Found(rows["qwen-7b"], claim.exactly("151,851", rows["qwen-7b"]), text)


def v2_experts(claim: Claim) -> Found:
    routed = next(w for w in model("deepseek-v2").blueprint.weights if int(w.used) < int(w.copies))
    moe, lite = model("deepseek-v2").spec.moe, model("deepseek-v2-lite").spec.moe
    assert moe is not None
    assert lite is not None
    ours = {"routed": int(routed.copies), "shared": moe.shared or 0, "active": int(routed.used)}
    verdict = worst(claim.exactly("64 experts", ours["routed"]), claim.exactly("top-6", ours["active"]))
    text = (
        f"{ours['routed']} routed and {ours['shared']} shared experts, {ours['active']} of the routed used by a token."
        f" {lite.experts} is DeepSeek-V2-Lite."
    )
    return Found(ours, verdict, text)


def v2(claim: Claim) -> Found:
    counted, spec = params.count(model("deepseek-v2").blueprint), model("deepseek-v2").spec
    shape = [claim.exactly("60 layers", spec.layers or 0), claim.exactly("5120 wide", spec.hidden or 0),
             holds(spec.context == 128 * 1024)]  # fmt: skip
    verdict = worst(claim.near("236B", counted.total), claim.near("21B", counted.active), *shape)
    text = (
        f"{billions(counted.total)}, {billions(counted.active)} active with embedding and head"
        f" ({billions(counted.active - counted.embedding)} without the embedding); {spec.layers} layers, {spec.hidden} wide,"
        f" {spec.context:,} tokens of context."
    )
    return Found(counted.total, verdict, text)


def _layer(**fields: object) -> dict[str, int]:
    """A layer of width 1024 in plain multi-head attention with an FFN of 4 x the width."""
    return params.count(sketch(**{"hidden": 1024, "heads": 16, "ffn": 4096, "gated": False, **fields})).parts


def attention(claim: Claim) -> Found:
    square = 1024**2
    by_heads = {heads: _layer(heads=heads) for heads in (1, 4, 16, 64)}
    four = {parts["attention"] / square for parts in by_heads.values()}
    twelve = {(parts["attention"] + parts["ffn"]) / square for parts in by_heads.values()}
    verdict = worst(*(claim.near("4*d^2", x) for x in four), *(claim.near("12*d^2", x) for x in twelve))

    def per(name: str) -> str:
        spec, parts = model(name).spec, params.count(model(name).blueprint).parts
        area = (spec.layers or 0) * (spec.hidden or 0) ** 2
        return f"{name} {parts['attention'] / area:.3g} and {(parts['attention'] + parts['ffn']) / area:.3g} d^2"

    text = (
        f"{four.pop():g} d^2 and {twelve.pop():g} d^2 with 1, 4, 16 and 64 heads, matrices alone; biases and norms add"
        f" {(sum(_layer(norm='layernorm', biases=['all']).values()) - sum(_layer(norm='none').values())) / 1024 - 2:g} d. It"
        " stops where heads x head dim is not d, where KV heads are fewer, or where the FFN is gated:"
        f" {listed([per(name) for name in ('gpt3-175b', 'llama2-7b', 'llama3-8b', 'gemma-7b')])}."
    )
    return Found(None, verdict, text)


def swiglu(claim: Claim) -> Found:
    names = ("llama-7b", "llama2-13b", "llama2-70b", "llama3-8b", "llama3-70b", "llama3.1-405b")
    ratios = {}
    for name in names:
        spec = model(name).spec
        width = spec.hidden or 1
        ratios[name] = params.count(model(name).blueprint).parts["ffn"] / (3 * width**2 * (spec.layers or 1))
    same = _layer(gated=True, ffn=round(1024 * 8 / 3))["ffn"] / _layer()["ffn"]
    text = (
        f"At 2/3 of 4 d three matrices hold {100 * same:.2f}% of what two of 4 d do. LLaMA-1 7B rounds up to a multiple of 256:"
        f" {ratios['llama-7b']:.4g} d. Later models widen it:"
        f" {listed([f'{n} {r:.4g} d' for n, r in ratios.items() if n != 'llama-7b'])}."
    )
    return Found(None, claim.near("2.67 d", ratios["llama-7b"]), text)


CHECKS: dict[str, Check] = {
    **dict.fromkeys(SIZES, sizes),
    "palm-params": widths,
    "t5-sizes": widths,
    "bert-base-params": bert_base,
    "gpt4-params": gpt4,
    "closed-models": closed,
    "llama2-7b-gqa": kv_heads,
    "mixtral-params": mixtral,
    "mixtral-active-8b": mixtral_active,
    "qwen1-vocab": qwen_vocabulary,
    "dsv2-experts": v2_experts,
    "dsv2-params": v2,
    "attention-params": attention,
    "swiglu-ffn": swiglu,
}
