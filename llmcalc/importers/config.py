"""A config.json, read through its class's defaults and aliases, that remembers which of its keys were asked for.

Lookups go: the key itself, another name of it, the class's default. Values are checked as they are taken, so a text where a
number is wanted, or a count that no model has, is one error with file, line and key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcalc.errors import SpecError
from llmcalc.importers.classes import ConfigClass, config_class

MAX_COUNT, MAX_LAYERS = 10**8, 10_000
_MISSING = object()


class Source:
    """Where a config comes from: a name for messages, and its text, to find the line of a key."""

    def __init__(self, name: str, text: str = "") -> None:
        self.name, self.text = name, text

    def error(self, key: str, message: str) -> SpecError:
        """An error at a key; at the file's top where the text does not have it."""
        at = self.text.find(f'"{key.rsplit(".", 1)[-1]}"')
        before = self.text[: max(at, 0)]
        return SpecError(message, self.name, before.count("\n") + 1, len(before) - before.rfind("\n"), key)


class Config:
    """One config, or one inside another."""

    def __init__(self, data: Mapping[str, Any], model_type: str, source: Source, prefix: str = "") -> None:
        self.data, self.model_type, self.source, self.prefix = data, model_type, source, prefix
        self.known: ConfigClass = config_class(model_type)
        self.names: dict[str, list[str]] = {}
        for alias, name in self.known.aliases.items():
            self.names.setdefault(name, []).append(alias)
            self.names.setdefault(alias, []).append(name)
        self.asked: set[str] = {"model_type"}
        self.inner: dict[str, Config] = {}

    def error(self, key: str, message: str) -> SpecError:
        """An error at this key."""
        return self.source.error(self.prefix + key, message)

    def _find(self, key: str) -> Any:
        names = (key, *self.names.get(key, ()))
        self.asked.update(names)
        for name in names:
            if name in self.data:
                return self.data[name]
        for name in names:
            for defaults in (self.known.defaults, self.known.kwargs):
                if name in defaults:
                    return defaults[name]
        return _MISSING

    def says(self, key: str) -> bool:
        """Whether the file itself has the key, under any of its names, and it is not null."""
        names = (key, *self.names.get(key, ()))
        self.asked.update(names)
        return any(self.data.get(name) is not None for name in names)

    def get(self, key: str, default: Any = None) -> Any:
        """The bare value; ``default`` where it is null or nobody says it."""
        value = self._find(key)
        return default if value is _MISSING or value is None else value

    def _wrong(self, key: str, value: Any, allowed: str) -> SpecError:
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
        return self.error(key, f"found {shown}, allowed: {allowed}")

    def count(self, key: str, default: int | None = None, *, least: int = 1, most: int = MAX_COUNT) -> int:
        """A whole number of things. Raises SpecError where it is missing without a default, or out of bounds."""
        value = self._find(key)
        if value is _MISSING or value is None:
            if default is None:
                raise self.error(key, "missing" if value is _MISSING else "null where a number is needed")
            return default
        # 8.0 is written by tools that know no whole numbers.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._wrong(key, value, f"a whole number from {least} to {most:,}")
        return value

    def maybe(self, key: str, *, least: int = 1) -> int | None:
        """A count, or None where the config has none."""
        return None if self.get(key) is None else self.count(key, least=least)

    def layers(self, key: str = "num_hidden_layers") -> int:
        """A number of layers."""
        return self.count(key, most=MAX_LAYERS)

    def flag(self, key: str, default: bool = False) -> bool:
        """A truth value; 0 and 1 count."""
        value = self.get(key, default)
        if not isinstance(value, (bool, int)) or value not in (0, 1):
            raise self._wrong(key, value, "true, false")
        return bool(value)

    def number(self, key: str, default: float | None = None) -> float:
        """A number that need not be whole."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e12:
            raise self._wrong(key, value, "a number") if value is not None else self.error(key, "missing")
        return float(value)

    def text(self, key: str, default: str = "") -> str:
        """A text."""
        value = self.get(key, default)
        if not isinstance(value, str) or len(value) > 10_000:
            raise self._wrong(key, value, "text")
        return value

    def each(self, key: str, depth: int, kind: type = str) -> list[Any] | None:
        """A list with one entry for each of ``depth`` layers (more are cut off), or None where the config has none.

        An empty one is none: Llama 4's files say ``no_rope_layers: []``.
        """
        value = self.get(key)
        if value is None or value == []:
            return None
        if not isinstance(value, list) or any(
            not isinstance(item, kind) or isinstance(item, bool) != (kind is bool) for item in value
        ):
            raise self._wrong(key, value, f"a list of {'words' if kind is str else 'numbers'}")
        if len(value) < depth:
            raise self.error(key, f"{len(value)} entries for {depth} layers")
        if kind is int and any(not 0 <= item <= MAX_COUNT for item in value):
            raise self._wrong(key, value, f"whole numbers from 0 to {MAX_COUNT:,}")
        return value[:depth]

    def per_layer(self, depth: int, allowed: tuple[str, ...]) -> dict[int, dict[str, int]]:
        """What ``per_layer_config`` says otherwise of single layers: index -> counts by their keys. Raises SpecError."""
        value, found = self.get("per_layer_config", {}), {}
        if not isinstance(value, Mapping):
            raise self._wrong("per_layer_config", value, "a mapping of layers")
        for index, said in value.items():
            if not str(index).isdecimal() or len(str(index)) > 6 or int(index) >= depth or not isinstance(said, Mapping):
                raise self.error("per_layer_config", f"{str(index)[:40]!r}: allowed: a layer below {depth} and a mapping")
            own = Config(said, "", self.source, f"{self.prefix}per_layer_config.{index}.")
            strange = [key for key in said if key not in allowed]
            if strange:
                raise own.error(str(strange[0])[:40], f"not understood; allowed: {', '.join(allowed)}")
            found[int(index)] = {key: own.count(key) for key in said}
        return found

    def chosen(self, key: str) -> list[int]:
        """A list of whole numbers (layer indices), empty where the config has none."""
        value = self.get(key, [])
        if not isinstance(value, list) or any(not isinstance(item, int) or isinstance(item, bool) for item in value):
            raise self._wrong(key, value, "a list of numbers")
        return value

    def sub(self, key: str, model_type: str = "") -> Config:
        """The config inside; its class is as it says itself, else as the outer class has it, which fills in for a missing one."""
        if key in self.inner:
            return self.inner[key]
        value = self.get(key, self.known.sub_defaults.get(key, {}))
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "a mapping")
        own = value.get("model_type")
        usual = model_type or self.known.sub_configs.get(key, "")
        # Older files give the inner config the outer one's type; then the class knows better.
        known = isinstance(own, str) and bool(config_class(own).classes or config_class(own).defaults)
        kind = own if isinstance(own, str) and known and own != self.model_type else usual
        self.inner[key] = Config(value, kind, self.source, f"{self.prefix}{key}.")
        return self.inner[key]

    def flat(self, key: str) -> Config:
        """The config inside, or this one read as its class, in files from before there was one inside."""
        if self.says(key):
            return self.sub(key)
        inner = Config(self.data, self.known.sub_configs.get(key, ""), self.source, self.prefix)
        names = inner.known
        self.asked |= {*names.defaults, *names.aliases, *names.derived, *names.kwargs}
        inner.asked = self.asked
        return inner

    def over(self, defaults: Mapping[str, Any]) -> Config:
        """The same config with what holds where it says nothing."""
        found = Config({**defaults, **self.data}, self.model_type, self.source, self.prefix)
        found.asked |= set(defaults)
        return found

    def unread(self) -> list[str]:
        """Keys of the file that nobody asked for and that the class does not have either."""
        known = {
            *self.asked,
            *self.known.defaults,
            *self.known.aliases,
            *self.known.derived,
            *self.known.kwargs,
            *self.known.sub_configs,
        }
        own = [self.prefix + key for key in self.data if key not in known]
        return own + [key for inner in self.inner.values() for key in inner.unread()]
