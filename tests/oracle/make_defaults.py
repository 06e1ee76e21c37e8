"""Writes llmcalc/importers/defaults.json: what every configuration class of transformers fills in by itself.

A config.json leaves out whatever equals the default of its class. The file has one line per model type:

- ``defaults``: attribute -> value, as the class holds them before it computes anything;
- ``derived``: attribute -> attributes that it follows where it is not given (``head_dim``: ``hidden_size``,
  ``num_attention_heads``). Found by building the class with one field changed at a time, so such a value is no constant and
  does not stand in ``defaults``; the list is empty where no single change moves it (properties, lists with an entry per layer);
- ``adjusted``: attribute with a default -> attributes that change it even so (``sliding_window``: ``use_sliding_window``);
- ``when_null``: attribute with a default -> what an explicit null becomes, where that is not null;
- ``aliases``: other name -> attribute (``n_embd``: ``hidden_size``);
- ``kwargs``: name that the class reads without holding it as a field (older spellings, mostly) -> what it takes instead where
  that is a literal; ``per_layer_config`` in ``derived`` means that some layers have other values by default;
- ``sub_configs``: attribute -> model type of the configuration inside; ``optional`` lists those that may be absent;
  ``sub_defaults``: attribute -> values that differ from that type's own defaults;
- ``classes``: kind of auto class -> class name(s), as ``architectures`` names them.

A type ``a.b`` is the class that ``a`` uses for its attribute ``b`` and that has no registered name of its own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.oracle.perturb import follow, is_config, nulls, plain, properties, raw_fields, read_kwargs, snapshot

TARGET = Path(__file__).parents[2] / "llmcalc" / "importers" / "defaults.json"

# Mappings whose model types are language models, or hold one.
KINDS = (
    "CAUSAL_LM",
    "SEQ_TO_SEQ_CAUSAL_LM",
    "MASKED_LM",
    "IMAGE_TEXT_TO_TEXT",
    "SPEECH_SEQ_2_SEQ",
    "MULTIMODAL_LM",
    "TEXT_ENCODING",
    "PRETRAINING",
    "SEQUENCE_CLASSIFICATION",
    "QUESTION_ANSWERING",
)
NAMES = {"SEQ_TO_SEQ_CAUSAL_LM": "ForSeq2SeqLM", "SPEECH_SEQ_2_SEQ": "ForSpeechSeq2Seq", "PRETRAINING": "ForPreTraining"}


def describe(cls: Any, key: str, register: Any) -> dict[str, Any]:
    """The record of one configuration class; ``register`` names the types of the configurations inside."""
    config, raw = cls(), raw_fields(cls)
    base = snapshot(config)
    followed, computed = follow(cls, raw), properties(cls)
    layers = next((base[name] for name in ("num_hidden_layers", cls.attribute_map.get("num_hidden_layers")) if name in base), None)
    record: dict[str, Any] = {"defaults": {}, "derived": {}}
    for name, value in base.items():
        declared = plain(raw.get(name))
        per_layer = isinstance(value, list) and len(value) == layers and declared is None
        if name in computed or (per_layer and name not in followed):
            record["derived"][name] = followed.get(name, [])
        elif name not in followed or name in ("rope_parameters", "tie_word_embeddings"):
            record["defaults"][name] = value
        elif declared is None:
            record["derived"][name] = followed[name]
        else:
            record["defaults"][name] = declared
            record.setdefault("adjusted", {})[name] = followed[name]
    if null := nulls(cls, raw):
        record["when_null"] = null
    if cls.attribute_map:
        record["aliases"] = dict(cls.attribute_map)
    if kwargs := {name: value for name, value in read_kwargs(cls).items() if name not in vars(config)}:
        record["kwargs"] = kwargs
    if config.is_heterogeneous:
        record["derived"]["per_layer_config"] = []
    specs = dict(getattr(cls, "sub_configs_defaults", {}))
    inside = {name: value for name, value in vars(config).items() if is_config(value)}
    for name in sorted(specs.keys() | inside.keys()):
        value = inside.get(name)
        if value is None:
            record.setdefault("optional", []).append(name)
            value = default_of(specs[name])
        if value is None:
            continue
        record.setdefault("sub_configs", {})[name] = register(type(value), f"{key}.{name}")
        standard, here = snapshot(type(value)()), snapshot(value)
        # A value that is given, and that the class would derive from others, holds whatever the others are.
        raw, given = raw_fields(type(value)), getattr(specs.get(name), "init_kwargs", None) or {}
        fixed = {inner for inner in given if inner in here and raw.get(inner) is None}
        if differs := {inner: here[inner] for inner in here if here[inner] != standard.get(inner) or inner in fixed}:
            record.setdefault("sub_defaults", {})[name] = differs
    return record


def default_of(spec: Any) -> Any:
    """The configuration that an optional attribute would have, None where its class is open."""
    try:
        return spec.default_config if not hasattr(spec.config_class, "model_type") else spec.config_class(**spec.init_kwargs)
    except Exception:  # the spec names no class of its own
        return None


def auto_classes() -> dict[str, dict[str, Any]]:
    """Model type -> kind of auto class -> class name, or list of names."""
    from transformers.models.auto import modeling_auto

    classes: dict[str, dict[str, Any]] = {}
    for constant in sorted(vars(modeling_auto)):
        if constant == "MODEL_MAPPING_NAMES":
            kind = "Model"
        elif match := re.fullmatch(r"MODEL_FOR_(\w+?)(?:_MAPPING)?_NAMES", constant):
            name = match[1]
            camel = "".join(word if word in ("LM", "CTC", "RNNT", "TDT") else word.capitalize() for word in name.split("_"))
            kind = NAMES.get(name, f"For{camel}")
        else:
            continue
        for model_type, names in getattr(modeling_auto, constant).items():
            classes.setdefault(model_type, {})[kind] = list(names) if isinstance(names, tuple | list) else names
    return classes


def model_types() -> list[str]:
    """Registered types of the mappings in KINDS."""
    from transformers.models.auto import modeling_auto

    types: set[str] = set()
    for kind in KINDS:
        types |= set(getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES", {}))
    return sorted(types)


def make() -> dict[str, Any]:
    """Every record, those of nested configurations included."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    transformers.logging.set_verbosity(50)
    types: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = []
    known: dict[Any, str] = {}

    def register(cls: Any, path: str) -> str:
        """The type's name; the class waits for its turn when it is new."""
        if cls not in known:
            name = cls.model_type
            try:
                registered = CONFIG_MAPPING[name]
            except KeyError:
                registered = None
            known[cls] = name if registered is cls else path
            waiting.append((known[cls], cls))
        return known[cls]

    for name in model_types():
        try:
            cls = CONFIG_MAPPING[name]
        except Exception as error:
            skipped[name] = f"{type(error).__name__}: {error}"
            continue
        if cls.model_type == name:
            register(cls, name)
        else:  # one class under several names
            waiting.append((name, cls))
    classes = auto_classes()
    while waiting:
        name, cls = waiting.pop()
        try:
            record = describe(cls, name, register)
        except Exception as error:
            skipped[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
            record = {"defaults": {}, "derived": {}}
        record["classes"] = classes.get(name, {})
        record["class"] = cls.__name__
        types[name] = record
    return {"transformers": transformers.__version__, "skipped": skipped, "types": types}


def dump(data: dict[str, Any]) -> str:
    """JSON with one line per type, keys sorted."""

    def line(value: Any) -> str:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    rows = ",\n".join(f"{line(name)}:{line(record)}" for name, record in sorted(data["types"].items()))
    return f'{{"transformers":{line(data["transformers"])},\n"skipped":{line(data["skipped"])},\n"types":{{\n{rows}\n}}}}\n'


def main() -> None:
    """Writes the file."""
    TARGET.write_text(dump(make()), encoding="utf-8")
