"""Data -> the YAML of a spec file, in the layout that spec files have: small mappings and lists in one line."""

from __future__ import annotations

from typing import Any

import yaml

WIDTH = 128


class _Writer(yaml.SafeDumper):
    """Lists inside mappings are set in from their key, and nothing refers to something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class's signature
        """Equal values are written twice: a spec has no anchors."""
        return True


def _text(data: Any, flow: bool | None) -> str:
    return yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=WIDTH, default_flow_style=flow)


def _one_line(value: Any) -> bool:
    """Whether a value is small enough to stand beside its key."""
    return not isinstance(value, (dict, list)) or len(_text(value, True)) <= WIDTH - 30


def _lines(data: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in data.items():
        if isinstance(value, dict) and not _one_line(value):
            lines += [f"{indent}{_scalar(key)}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and not _one_line(value):
            lines += [f"{indent}{_scalar(key)}:", *(f"{indent}  - {_inline(item)}" for item in value)]
        else:
            lines.append(f"{indent}{_scalar(key)}: {_inline(value)}")
    return lines


def _inline(value: Any) -> str:
    """A value in one line."""
    if not isinstance(value, (dict, list)):
        return _scalar(value)
    return yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=True).rstrip("\n")


def _scalar(value: Any) -> str:
    """A scalar as YAML writes it, quoted where it could be taken for something else."""
    text = yaml.dump([value], Dumper=_Writer, allow_unicode=True, width=10**6, default_flow_style=True)
    return text.strip()[1:-1]


def write(data: dict[str, Any], comment: str = "") -> str:
    """The text of a spec file that reads back as this data."""
    head = [f"# {comment}"] if comment else []
    return "\n".join([*head, *_lines(data, "")]) + "\n"
