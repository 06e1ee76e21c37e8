"""What a configuration class of transformers does with its fields, found by building it with one of them changed at a time."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import re
import textwrap
from typing import Any

# Neither shapes nor caches depend on these.
IGNORED = {
    "architectures",
    "chunk_size_feed_forward",
    "dtype",
    "id2label",
    "ignore_keys_at_rope_validation",
    "label2id",
    "model_type",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "per_layer_config",
    "problem_type",
    "return_dict",
    "rope_scaling",
    "tie_last_hidden_states",
    "torch_dtype",
    "transformers_version",
    "use_return_dict",
}
IGNORED_PATTERN = re.compile(
    r"dropout|drop_rate|drop_path|initializer|init_std|_init$|token_id|token_index|_loss|mask_time|mask_feature|jitter"
)


def plain(value: Any) -> Any:
    """The value as JSON has it; objects that JSON lacks become their text."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    return str(value)


def is_config(value: Any) -> bool:
    """Whether the value is a configuration object."""
    return hasattr(value, "to_dict") and hasattr(value, "model_type")


def wanted(name: str) -> bool:
    """Whether the attribute can matter to shapes, caches or operations."""
    return not name.startswith("_") and name not in IGNORED and not IGNORED_PATTERN.search(name)


def raw_fields(cls: Any) -> dict[str, Any]:
    """Field -> default as declared, before ``__post_init__``."""
    raw: dict[str, Any] = {}
    if "__dataclass_fields__" in cls.__dict__ or dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            if field.default is not dataclasses.MISSING:
                raw[field.name] = field.default
            elif field.default_factory is not dataclasses.MISSING:
                raw[field.name] = field.default_factory()
    if "__init__" in cls.__dict__:
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                raw[name] = parameter.default
    return raw


def properties(cls: Any) -> list[str]:
    """Public properties that the class adds to the base class, their aliases left out."""
    from transformers import PretrainedConfig

    base = set(dir(PretrainedConfig))
    return [
        name
        for name in dir(cls)
        if name not in base and isinstance(inspect.getattr_static(cls, name), property) and name not in cls.attribute_map
    ]


def snapshot(config: Any) -> dict[str, Any]:
    """Attribute -> plain value, properties included, configurations inside left out."""
    values = {name: value for name, value in vars(config).items() if wanted(name)}
    for name in properties(type(config)):
        if wanted(name):
            try:
                values[name] = getattr(config, name)
            except Exception:  # a property that the defaults cannot answer
                continue
    return {name: plain(value) for name, value in values.items() if not is_config(value)}


def changes(name: str, value: Any) -> list[Any]:
    """Other values to try for a field, small changes first."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value * 2, value + 1, value * 4, value // 2, 1] if value else [1, 8]
    if value is None:
        return [2, 8, 64, True, 0.5]
    if isinstance(value, str):
        return [f"gated-{value}", "gelu", "none"]
    if isinstance(value, float):
        return [value * 2, value / 2] if name.endswith(("factor", "ratio", "multiplier", "expand")) else []
    return []


def follow(cls: Any, raw: dict[str, Any]) -> dict[str, list[str]]:
    """Attribute -> fields that change it when they alone are changed, or beside a switch that changes something itself."""
    base = snapshot(cls())
    found: dict[str, set[str]] = {}
    switches = change_each(cls, raw, base, {}, found)
    for name, value in switches.items():
        change_each(cls, raw, snapshot(cls(**{name: value})), {name: value}, found)
    return {name: sorted(sources) for name, sources in sorted(found.items())}


def change_each(
    cls: Any, raw: dict[str, Any], base: dict[str, Any], given: dict[str, Any], found: dict[str, set[str]]
) -> dict[str, Any]:
    """Adds to ``found`` what follows each field, starting at ``base`` (built with ``given``); returns the switches that matter."""
    switches = {}
    for name in {**raw, **base}:
        if not wanted(name) or name in given or name in cls.attribute_map or is_config(raw.get(name)):
            continue
        start = raw[name] if raw.get(name) is not None else base.get(name)
        for value in changes(name, start):
            if plain(value) == base.get(name):
                continue
            try:
                changed = snapshot(cls(**given, **{name: value}))
            except Exception:  # the class refuses this value: it validates
                continue
            followers = [other for other in base.keys() | changed.keys() if other != name and base.get(other) != changed.get(other)]
            for other in followers:
                found.setdefault(other, set()).add(name)
            if followers and isinstance(value, bool):
                switches[name] = value
            if given:
                break
    return switches


def nulls(cls: Any, raw: dict[str, Any]) -> dict[str, Any]:
    """Field with a default -> what it becomes where a file says null, for those that do not stay null."""
    found = {}
    for name, value in raw.items():
        if value is not None and wanted(name) and name not in cls.attribute_map:
            try:
                became = snapshot(cls(**{name: None})).get(name)
            except Exception:  # null is not allowed
                continue
            if became is not None:
                found[name] = became
    return found


def read_kwargs(cls: Any) -> dict[str, Any]:
    """Names that the class's own code takes from ``kwargs`` -> what it takes where they are missing, if that is a literal."""
    from transformers import PretrainedConfig

    names: dict[str, Any] = {}
    for each in cls.__mro__:
        if each is PretrainedConfig:
            break
        for function in (each.__dict__.get(key) for key in ("__init__", "__post_init__", "convert_rope_params_to_dict")):
            try:
                source = textwrap.dedent(inspect.getsource(function)) if function else ""
            except (OSError, TypeError):  # written by dataclasses
                continue
            for node in ast.walk(ast.parse(source)):
                for name, value in taken(node):
                    names.setdefault(name, value)
    return {name: names[name] for name in sorted(names) if wanted(name) and name != "rope_scaling"}


def taken(node: ast.AST) -> list[tuple[str, Any]]:
    """Name and literal default where the node reads ``kwargs``, by ``get`` or ``pop``, by ``[]`` or by ``in``."""

    def is_kwargs(other: ast.AST) -> bool:
        return isinstance(other, ast.Name) and other.id == "kwargs"

    def literal(other: ast.AST) -> Any:
        return other.value if isinstance(other, ast.Constant) else None

    key: ast.AST | None = None
    default = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_kwargs(node.func.value) and node.args:
        key = node.args[0]
        default = literal(node.args[1]) if len(node.args) > 1 else None
    elif isinstance(node, ast.Subscript) and is_kwargs(node.value):
        key = node.slice
    elif isinstance(node, ast.Compare) and len(node.comparators) == 1 and is_kwargs(node.comparators[0]):
        key = node.left
    return [(key.value, default)] if isinstance(key, ast.Constant) and isinstance(key.value, str) else []
