"""Tiny cases on the CPU: whether everything that needs no card works. Memory is null there."""

from __future__ import annotations

from typing import Any

from validation import rows, run
from validation.cases import DECODE, TRAIN, Case

SMALL: dict[str, Any] = {"seq": 32, "micro_batch": 2, "attention": "eager"}
CASES = (
    Case(TRAIN, "tiny-llama", recompute="full", accumulate=2, precision="fp32", **SMALL),
    Case(TRAIN, "tiny-mixtral", 1, precision="amp", **SMALL),
    Case(TRAIN, "tiny-llama", method="lora", rank=4, targets="all", adapter_dtype="bf16", **SMALL),
    Case(DECODE, "tiny-llama", optimizer="", method="", new_tokens=4, **SMALL),
)


def parameters(row: rows.Row) -> int:
    """What llmcalc counts for the row's config."""
    from llmcalc import resolve
    from llmcalc.blueprint.lower import lower
    from llmcalc.engines import params
    from llmcalc.importers.config import Source
    from llmcalc.importers.config_json import from_config

    config = {**row["config"], "architectures": [row["measured"]["model_class"]]}
    spec = from_config(config, Source(row["id"])).spec
    return params.count(lower(resolve.built(spec, row["id"]), row["id"])).total


def faults(row: rows.Row) -> list[str]:
    """What is wrong with a row of the CPU."""
    found = rows.faults(row)
    if row["status"] == "skipped" and row["case"]["method"] == "lora" and row["peft"] is None:
        return found
    if row["status"] != "ok":
        return [*found, f"{row['status']}: {row['reason']}"]
    if found:
        return found
    measured, case = row["measured"], row["case"]
    if (said := parameters(row)) != measured["parameters"]:
        found.append(f"llmcalc counts {said} parameters, the model has {measured['parameters']}")
    if case["kind"] == TRAIN:
        first, last = measured["losses"]
        if first is None or last is None or not last < first:
            found.append(f"the loss does not fall: {first}, {last}")
        if not 0 < measured["trainable"] <= measured["parameters"] or (case["method"] == "full") != (
            measured["trainable"] == measured["parameters"]
        ):
            found.append(f"{measured['trainable']} of {measured['parameters']} parameters are trained")
    else:
        config = row["config"]
        width = config["hidden_size"] // config["num_attention_heads"] * config["num_key_value_heads"]
        tokens = (case["seq"] + case["new_tokens"]) * case["micro_batch"]
        if measured["cache_bytes"] != 2 * 2 * width * tokens * config["num_hidden_layers"]:
            found.append(f"a cache of {measured['cache_bytes']} bytes")
    return found


def main() -> int:
    """Run the cases, say what is wrong; the exit code."""
    here, bad = run.place("cpu"), 0
    for case in CASES:
        row = run.measure(case, here, 300)
        wrong = faults(row)
        bad += bool(wrong)
        print(f"{'wrong' if wrong else row['status']:8} {row['seconds']:6.1f} s  {case.id}")
        for each in wrong or ([row["reason"]] if row["reason"] else []):
            print(f"         {each}")
    return 1 if bad else 0
