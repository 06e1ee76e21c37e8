"""Build hook: validate every spec file and write the result beside the package, so that running needs no pydantic."""

from __future__ import annotations

import json
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileSpecs(BuildHookInterface):  # type: ignore[type-arg]
    """Runs for wheels and editable installs alike; an sdist carries the YAML only."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the hook's interface
        """Write compiled/*.json, and have them packed."""
        if self.target_name != "wheel":
            return
        sys.path.insert(0, self.root)
        try:
            from llmcalc.specs import catalogue

            catalogue.check_names()
            target = catalogue.compiled_folder()
            target.mkdir(exist_ok=True)
            for kind in catalogue.KINDS:
                text = json.dumps(catalogue.compile_kind(kind), separators=(",", ":"))
                (target / f"{kind}.json").write_text(text, encoding="utf-8")
        finally:
            sys.path.remove(self.root)
        build_data["artifacts"].append("llmcalc/specs/compiled/*.json")
