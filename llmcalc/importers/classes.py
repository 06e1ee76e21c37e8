"""What transformers' configuration classes say where a config.json says nothing.

``defaults.json`` is made from transformers by a script of the tests (``python -m tests.oracle defaults``) and names its
version. One line holds one ``model_type``, so that reading one does not mean parsing them all.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, NamedTuple


class ConfigClass(NamedTuple):
    """A configuration class.

    ``defaults`` are its attributes', ``aliases`` go from another name to the attribute; ``derived`` attributes have no default
    of their own, the class computes them from others. ``classes`` are its model classes by what they are for (ForCausalLM,
    Model), ``sub_configs`` the types of the configs inside, ``sub_defaults`` what those hold where the file has none,
    ``kwargs`` further names that its constructor takes.
    """

    defaults: dict[str, Any]
    aliases: dict[str, str]
    derived: dict[str, Any]
    classes: dict[str, Any]
    sub_configs: dict[str, Any]
    kwargs: dict[str, Any]
    sub_defaults: dict[str, Any]


@cache
def _lines() -> dict[str, str]:
    """The text of each type's entry, unparsed."""
    text = resources.files("llmcalc.importers").joinpath("defaults.json").read_text(encoding="utf-8")
    found = {}
    for line in text.partition('"types":{\n')[2].splitlines():
        name, mark, entry = line.partition('":{')
        if mark:
            found[name[1:]] = "{" + entry.rstrip(",")
    return found


@cache
def version() -> str:
    """The transformers release that the defaults come from."""
    text = resources.files("llmcalc.importers").joinpath("defaults.json").read_text(encoding="utf-8")
    return str(json.loads(text)["transformers"])


def types() -> list[str]:
    """Every ``model_type`` that transformers has a class for."""
    return sorted(_lines())


@cache
def config_class(model_type: str) -> ConfigClass:
    """The class of a ``model_type``; an empty one where transformers has none."""
    line = _lines().get(model_type)
    entry = {} if line is None else json.loads(line)
    return ConfigClass(*(entry.get(name, {}) for name in ConfigClass._fields))
