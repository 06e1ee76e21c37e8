"""What a config says of how a model is computed where that changes no count: what training keeps depends on it.

Which norms multiply in fp32, which linears are one, where is dropped out: transformers' classes differ in this, and most of it
stands in their code and in no config. A type that is not listed here is computed like Llama.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcalc.importers.config import Config

ACTIVATIONS = {
    "gelu_new": "gelu_new", "gelu_fast": "gelu_new", "gelu_python": "gelu_new", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu", "relu2": "relu2", "silu": "silu", "swish": "silu",
}  # fmt: skip
ACTIVATION_KEYS = ("hidden_activation", "hidden_act", "activation_function", "dense_act_fn", "activation")
T5 = ("t5", "mt5", "umt5", "longt5", "switch_transformers")
BERT = (
    "bert", "roberta", "xlm-roberta", "camembert", "electra", "big_bird", "longformer", "deberta", "deberta-v2", "megatron-bert",
    "ernie", "data2vec-text", "albert",
)  # fmt: skip
BART = ("bart", "mbart", "plbart", "pegasus", "blenderbot", "blenderbot-small", "m2m_100", "marian")
# Where a type drops out: the config's key of the rate, and the rate where it has none.
HIDDEN, WEIGHTS = ("hidden_dropout_prob", 0.1), ("attention_probs_dropout_prob", 0.1)
GPT2 = {"embedding": ("embd_pdrop", 0.0), "attention": ("attn_pdrop", 0.0), "residual": ("resid_pdrop", 0.0)}
BART_SITES = {
    "embedding": ("dropout", 0.1), "residual": ("dropout", 0.1), "attention": ("attention_dropout", 0.0),
    "activation": ("activation_dropout", 0.0),
}  # fmt: skip
T5_SITES = ("embedding", "attention", "residual", "activation", "final")
SITES: dict[str, dict[str, tuple[str, float]]] = {
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gpt-sw3", "codegen", "gptj"), GPT2),
    "phi": {"residual": ("resid_pdrop", 0.0), "embedding": ("embd_pdrop", 0.0)},
    **{kind: {"embedding": HIDDEN, "attention": WEIGHTS, "residual": HIDDEN} for kind in BERT},
    "albert": {"residual": ("hidden_dropout_prob", 0.0), "attention": ("attention_probs_dropout_prob", 0.0)},
    "distilbert": {"embedding": ("dropout", 0.1), "attention": ("attention_dropout", 0.1), "ffn": ("dropout", 0.1)},
    **{kind: dict.fromkeys(T5_SITES, ("dropout_rate", 0.1)) for kind in T5},
    **dict.fromkeys(BART, BART_SITES),
    "opt": {"residual": ("dropout", 0.1), "attention": ("attention_dropout", 0.0)},
}  # fmt: skip
NORMS = {
    **dict.fromkeys(T5, "half"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "gemma3", "recurrent_gemma", "qwen3_next"), "offset"),
    **dict.fromkeys(("olmo", "olmo2", "olmo3"), "upcast"),
    **dict.fromkeys(("cohere", "cohere2"), "written"),
}
FUSED = {
    **{kind: ["qkv"] for kind in ("gpt2", "gpt-sw3", "gpt_bigcode", "gpt_neox", "falcon", "bloom", "mpt")},
    **{kind: ["qkv", "gate_up"] for kind in ("phi3", "modernbert")},
}
SCORES = {"falcon": "own", "gptj": "upcast", "gpt_neo": "upcast", "gpt_bigcode": "fp32"}
FP32_ROUTERS = (
    "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "ernie4_5_moe", "hunyuan_v1_moe",
    "bailing_moe",
)  # fmt: skip


def _activation(c: Config) -> str | None:
    """The function of the FFN; T5 hides it in feed_forward_proj."""
    said = next((value for key in ACTIVATION_KEYS if isinstance(value := c.get(key), str)), None)
    if c.model_type in T5:
        projection = str(c.get("feed_forward_proj", "relu"))
        said = "gelu_new" if projection == "gated-gelu" else projection.removeprefix("gated-")
    return ACTIVATIONS.get(said or "")


def _rate(c: Config, key: str, default: float) -> float:
    value = c.get(key, default)
    return float(value) if isinstance(value, int | float) else default


def facts(c: Config, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec, and what its type and its config add to it. What the spec says stands."""
    kind = c.model_type
    sites = [site for site, (key, default) in SITES.get(kind, {}).items() if _rate(c, key, default) > 0]
    found = {
        "activation": _activation(c),
        "norm_form": NORMS.get(kind),
        "scores": SCORES.get(kind),
        "fused": FUSED.get(kind),
        "dropout": sites or None,
        "softcap": True if c.get("attn_logit_softcapping") else None,
        "logit_softcap": True if c.get("final_logit_softcapping") else None,
    }
    said = {name: value for name, value in found.items() if value is not None}
    if kind in FP32_ROUTERS:
        spec = _with_router(spec)
        if "kinds" in spec:
            spec = {**spec, "kinds": {letter: _with_router(block) for letter, block in spec["kinds"].items()}}
    activation = {"activation": said["activation"]} if "activation" in said else {}
    return {**said, **spec, **activation}


def _with_router(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """A block whose mixture, if it has one, is routed in fp32."""
    return {**block, "moe": {**block["moe"], "fp32_router": True}} if block.get("moe") else block
