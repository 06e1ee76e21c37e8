"""A config.json -> the data of a spec file, exact or refused: an architecture nobody here knows is not guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from llmcalc.errors import UnknownArchitecture
from llmcalc.importers import families, trained_as
from llmcalc.importers.config import Config, Source
from llmcalc.importers.harmless import further_layers, is_harmless, said
from llmcalc.importers.quantized import stored
from llmcalc.importers.shape import LETTERS, Spec, TooManyKinds, extra, fold, trimmed

DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


class Imported(NamedTuple):
    """A spec's data, as its YAML file would say it, and what a user should know of how it came about."""

    spec: Spec
    notes: tuple[str, ...]


class Task(NamedTuple):
    """What a model class is for: ``name`` as transformers' auto classes call it, ForCausalLM; its own name; and labels."""

    name: str
    architecture: str
    labels: int

    @property
    def has_head(self) -> bool:
        """Whether it predicts tokens."""
        return self.name in PREDICTING


# Uses of a class that predict tokens, the first of which stands for a class of several.
PREDICTING = (
    "ForSeq2SeqLM", "ForCausalLM", "ForMaskedLM", "ForPreTraining", "ForImageTextToText", "ForMultimodalLM", "ForSpeechSeq2Seq",
    "ForConditionalGeneration",
)  # fmt: skip


# What stands behind a decoder in place of its head: labels (2 where the task fixes them), and whether there is a bias.
CLASSIFIERS: dict[str, tuple[int, bool, str]] = {
    "ForSequenceClassification": (0, False, "sequence"),
    "ForTokenClassification": (0, True, "token"),
    "ForQuestionAnswering": (2, True, "token"),
}


# Reward models of authors' own code: outputs, and whether a layer as wide as the model stands before them.
REWARDS = {
    ("qwen2", "Qwen2ForRewardModel"): (1, True),
    ("qwen2", "Qwen2ForProcessRewardModel"): (2, True),
    ("internlm2", "InternLM2ForRewardModel"): (1, False),
}


def _reward(model_type: str, task: Task, hidden: int) -> list[Spec]:
    """The linear layers of a reward model, with biases where there are two."""
    labels, deep = REWARDS[model_type, task.architecture]
    rows = "token" if labels > 1 else "sequence"
    score = extra("score", labels, hidden, rows=rows, after=True)
    if not deep:
        return [score]
    inner = [extra("score_dense", hidden, hidden, rows=rows, after=True), extra("score_dense.bias", hidden, after=True)]
    return [*inner, score, extra("score.bias", labels, after=True)]


def _classifier(task: Task, hidden: int) -> list[Spec]:
    """The linear layer of a classifier."""
    fixed, bias, rows = CLASSIFIERS[task.name]
    labels = fixed or task.labels
    score = extra("score", labels, hidden, rows=rows, after=True)
    return [score, extra("score.bias", labels, after=True)] if bias else [score]


def _labels(c: Config) -> int:
    """Classes of a classification head: as said, else as many as there are names for."""
    names = c.get("id2label")
    return c.count("num_labels", len(names) if isinstance(names, Mapping) and names else 2)


def task_of(c: Config) -> Task:
    """What ``architectures[0]`` is for; where the file names none, what such a model is published as.

    Raises UnknownArchitecture for a class that the type does not have.
    """
    classes, said = c.known.classes, c.get("architectures") or []
    if not isinstance(said, list) or any(not isinstance(name, str) for name in said):
        raise c.error("architectures", f"found {said!r}, allowed: a list of class names")
    if said:
        # A class of several uses is known by the first that predicts tokens, else by the first of all.
        uses = [use for use, names in classes.items() if said[0] in (names if isinstance(names, list) else [names])]
        uses.sort(key=lambda use: (PREDICTING.index(use) if use in PREDICTING else len(PREDICTING), use))
        suffix = next((use for use in (*PREDICTING, *classes, "Model") if said[0].endswith(use)), None)
        if said[0].endswith("LMHeadModel"):
            suffix = "ForCausalLM"
        if (c.model_type, said[0]) in REWARDS:
            return Task("ForRewardModel", said[0], 0)
        # A class that the type does not have is taken by its ending, but for models of a further purpose.
        if not uses and re.search(r"(For[A-Z]\w*|Reward|Encoder|Decoder|DoubleHeads|Vision|Audio)Model$", said[0]):
            suffix = None
        if not uses and suffix is None:
            known = sorted({name for names in classes.values() for name in (names if isinstance(names, list) else [names])})
            near = get_close_matches(said[0], known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known for {c.model_type}: {', '.join(known)}"
            raise UnknownArchitecture(f"{c.source.name}: architectures: {said[0]!r} is no model class that is known here{hint}")
        return Task(uses[0] if uses else str(suffix), said[0], _labels(c))
    # A model that sees or hears is published whole.
    order = ["ForSeq2SeqLM", "ForSpeechSeq2Seq", "ForImageTextToText", "ForMultimodalLM", "ForCausalLM", "Model"]
    if "ForMaskedLM" in classes and not c.flag("is_decoder") and not c.flag("is_encoder_decoder"):
        order = ["Model"]
    name = next((use for use in order if use in classes), "ForCausalLM")
    return Task(name, str(classes.get(name, "")), _labels(c))


def _family(c: Config) -> families.Family:
    """What reads this type. Raises UnknownArchitecture with the nearest, and how to go on."""
    found = families.find(c.model_type)
    if found is not None:
        return found
    how = "write a spec of it (docs/spec-format.md), or give a checkpoint's files for the bare counts"
    if c.model_type in families.REFUSED:
        raise UnknownArchitecture(
            f"{c.source.name}: model_type: {c.model_type!r} is not read: {families.REFUSED[c.model_type]}; {how}"
        )
    near = get_close_matches(c.model_type, families.known(), n=3)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise UnknownArchitecture(
        f"{c.source.name}: model_type: {c.model_type!r} is an architecture that llmcalc does not know{hint}; {how}"
    )


def _folded(spec: Spec) -> Spec:
    """A spec, or a stack of one, with its layers folded: what all have stands in it, and a pattern says the rest."""
    spec = {key: _folded(value) if key in ("encoder", "vision", "audio") and value else value for key, value in spec.items()}
    blocks = spec.pop("blocks", None)
    if blocks is None:
        return trimmed(spec)
    block_level = {key: value for key, value in spec.items() if key in families.BLOCK_FIELDS}
    folded = fold([{**block_level, **block} for block in blocks])
    return trimmed({**{key: value for key, value in spec.items() if key not in block_level}, **folded})


def _finished(spec: Spec, task: Task, model_type: str) -> Spec:
    """The spec with its layers folded and its head as the model class has it."""
    spec = _folded(spec)
    if not task.has_head and "head" not in spec:
        spec = {key: value for key, value in spec.items() if key not in ("tied_head", "head_bias")}
        if spec.get("type") != "encoder":
            spec["head"] = False
            if task.name == "ForRewardModel":
                spec["outside"] = [*spec.get("outside", []), *_reward(model_type, task, spec["hidden"])]
            elif task.name in CLASSIFIERS:
                spec["outside"] = [*spec.get("outside", []), *_classifier(task, spec["hidden"])]
    headless = spec.get("head") is False
    return {key: value for key, value in spec.items() if key not in ("tied_head", "head_bias") or (value and not headless)}


# Sizes that no model does without, by the field of a spec and the names that configs have for it.
SIZES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
}


def _check_sizes(c: Config, spec: Spec, unread: list[str]) -> None:
    """Raises SpecError for a size that the file has under a name that its class does not read, where it is not the one counted."""
    for field, names in SIZES.items():
        for name in names:
            if name in unread and isinstance(spec.get(field), int) and c.data[name] != spec[field]:
                why = f"{c.model_type} does not read this name, and would have {spec[field]}"
                raise c.error(name, f"found {c.data[name]!r}, but {why}; is the type right?")


def _modules(spec: Spec) -> frozenset[str]:
    """What a quantisation may treat apart: attention, experts, shared experts, dense FFNs."""
    blocks = [{**spec, **kind} for kind in (spec.get("kinds") or {"": {}}).values()] + [spec]
    mixtures = [block["moe"] for block in blocks if block.get("moe")]
    found = {"attention"} | ({"experts"} if mixtures else set())
    if any(moe.get("shared") or moe.get("shared_ffn") for moe in mixtures):
        found.add("shared experts")
    if any(moe.get("dense") or moe.get("first_dense") for moe in mixtures) or any(
        block.get("ffn") and not block.get("moe") for block in blocks
    ):
        found.add("dense FFNs")
    return frozenset(found)


def from_config(data: Any, source: Source, *, hub: str | None = None) -> Imported:
    """The spec of a config.json's content.

    Raises SpecError for a value that cannot be, UnknownArchitecture for what is not known here.
    """
    if not isinstance(data, Mapping):
        raise source.error("", "a config is a JSON object")
    model_type = data.get("model_type", families.unnamed(data))
    if not isinstance(model_type, str) or not model_type:
        fault = "missing; it names the architecture" if model_type is None else f"found {model_type!r}"[:80] + ", allowed: text"
        raise source.error("model_type", fault)
    c = Config(data, families.RENAMED.get(model_type, model_type), source)
    c.asked |= {"model_type", "architectures"}
    family = _family(c)
    task = task_of(c)
    try:
        spec = trained_as.facts(c, _finished(family(c, task), task, c.model_type))
    except TooManyKinds:
        raise source.error("", f"more than {len(LETTERS)} kinds of layer; a spec tells no more apart") from None
    notes = []
    unread = [key for key in c.unread() if not is_harmless(key, said(data, key), spec)]
    _check_sizes(c, spec, unread)
    if unread:
        shown = ", ".join(unread[:12]) + (f" and {len(unread) - 12} more" if len(unread) > 12 else "")
        notes.append(f"not understood in the config, and not counted if it changes the architecture: {shown}")
    if spec.get("note"):
        notes.append(str(spec["note"]))
    layers = further_layers(data)
    if layers and not any(str(tensor["name"]).startswith("mtp_") for tensor in spec.get("outside", [])):
        further = f"layers that predict further tokens ({layers}) are not of this class"
        notes.append(f"{further}; generating token by token does not run them")
    quantised = stored(data, _modules(spec))
    notes += [quantised.note] if quantised.note else []
    dtype = data.get("dtype", data.get("torch_dtype"))
    head = {
        "title": hub or None,
        "family": model_type,
        "hub": [hub] if hub else None,
        "sources": [f"{source.name} (model_type {model_type}{', ' + task.architecture if task.architecture else ''})"],
    }
    tail = {"dtype": DTYPES.get(dtype) if isinstance(dtype, str) else None, "native_quant": quantised.name}
    return Imported(trimmed({**head, **spec, **tail}), tuple(notes))
