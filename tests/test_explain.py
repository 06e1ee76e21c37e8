"""What --explain prints is true: every formula, with the numbers printed beside it, gives the figure printed above it."""

import json
import math
import re
from typing import Any

import pytest

from tests.conftest import Run

FIGURE = re.compile(r"^(?P<indent> *)(?P<label>\S.*?) = (?P<value>-?[0-9][0-9,.e+-]*) (?P<unit>\S+)(?:  \(.*\))?$")
FORMULA = re.compile(r"^ +    = (?P<formula>.+?)(?:   with (?P<numbers>.+))?$")
FUNCTIONS = {"min": min, "max": max, "ceil": math.ceil}

COMMANDS = [
    "params llama3-70b",
    "params deepseek-v3 t5-base albert-base-v2 gemma3-4b gpt-oss-20b switch-base-8",
    "kv llama3-70b gemma3-27b deepseek-v2 t5-3b --ctx 128k --batch 3",
    "kv mistral-7b-v0.1 --ctx 2048 --kv-dtype q8_0",
    "kv gpt2 --kv-dtype q4_0 --ctx 777",
    "flops llama3-8b gemma2-9b deepseek-v3 bart-large bert-base --ctx 512 --batch 2",
    "flops llama3-8b mistral-7b-v0.1 --mask causal --ctx 9001",
    "weights llama3-8b mixtral-8x7b --quant nf4",
    "weights gpt-oss-20b --quant mxfp4",
    "weights llama3-70b deepseek-v3 --quant fp8-block",
    "weights qwen2-0.5b llama3-8b --quant q4_k_m",
    "fit llama3-70b --gpu a100-80 --gpus 2 --quant nf4 --ctx 4k",
    "train llama3.2-1b gpt2 --seq 300 --micro-batch 2 --precision amp",
    "train mixtral-8x7b gemma2-2b --seq 128 --attention eager --recompute full",
    "train qwen2.5-0.5b t5-base bert-base --seq 64 --method qlora --rank 16 --targets all --precision amp --kbit-prepare",
    "train llama3-8b --seq 512 --precision megatron --recompute selective",
    "train phi-3-mini --method dora --optimizer adamw8bit --loss chunked",
    "chinchilla --flops 5.76e23",
    "chinchilla --params 70B",
    "chinchilla --tokens 1.4T",
    "chinchilla --params 8B --tokens 15T",
    "chinchilla --loss 2.1",
    "chinchilla llama3-8b gpt3-175b",
    "chinchilla --tokens 1T --unique-tokens 100B --inference-tokens 2T",
    "compute llama3-8b --tokens 15T --gpu h100-sxm --gpus 64 --mfu 0.4 --batch-tokens 4M",
    "compute gpt3-175b --gpu a100-80 --gpus 1024 --tflops 140 --recompute full",
    "compute mixtral-8x7b --gpu h100-sxm --budget 5M --convention attention --recompute selective --mask causal",
    "compute deepseek-v3 --gpu h800 --gpu-hours 2.788M --tokens 14.8T --convention matmul --recompute full",
    "compute llama3-70b --gpu a100-80 --days 90 --hfu 0.5 --recompute full",
]


def number(text: str) -> float:
    plain = text.replace(",", "")
    return float(plain) if any(c in plain for c in ".en") else int(plain)


def printed(text: str) -> list[dict[str, Any]]:
    """The figures of an explanation in order: depth, label, value, and the formula with its numbers."""
    figures: list[dict[str, Any]] = []
    for line in text.splitlines():
        found = FIGURE.match(line)
        if found:
            figures.append({"depth": len(found["indent"]), "label": found["label"], "value": number(found["value"]), "parts": []})
            continue
        opened = FORMULA.match(line)
        if opened and figures:
            figures[-1]["formula"] = opened["formula"]
            pairs = (opened["numbers"] or "").split(", ") if opened["numbers"] else []
            figures[-1]["numbers"] = {name: number(value) for name, value in (pair.split(" = ") for pair in pairs)}
    return figures


def nested(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hang each figure under the one it stands under."""
    path: list[dict[str, Any]] = []
    for figure in figures:
        while path and path[-1]["depth"] >= figure["depth"]:
            path.pop()
        if path:
            path[-1]["parts"].append(figure)
        path.append(figure)
    return figures


@pytest.mark.parametrize("command", COMMANDS)
def test_every_printed_formula_gives_the_printed_figure(command: str, run: Run) -> None:
    outcome = run(*command.split(), "--explain")
    explanation = outcome.out[outcome.out.index("\n\n") :] if "\n\n" in outcome.out else outcome.out
    figures = nested(printed(explanation))
    formulas = sums = 0
    for figure in figures:
        formula = figure.get("formula", "")
        if formula.startswith(("the sum of", "its one part")):
            assert figure["value"] == sum(part["value"] for part in figure["parts"]), figure["label"]
            sums += 1
        elif formula:
            value = eval(formula, {"__builtins__": {}}, {**FUNCTIONS, **figure["numbers"]})
            exact = isinstance(figure["value"], int) and isinstance(value, int)
            assert value == figure["value"] if exact else value == pytest.approx(figure["value"], rel=1e-9), figure
            formulas += 1
    assert formulas + sums >= 2
    assert formulas >= 1


def test_an_explanation_needs_no_rounding_away(run: Run) -> None:
    """Counts are printed whole: the tree's root is the table's total to the last digit."""
    outcome = run("params", "llama3-405b", "--explain")
    assert "total = 405,853,388,800 params" in outcome.out


@pytest.mark.parametrize("command", COMMANDS)
def test_json_carries_the_same_tree_only_when_asked(command: str, run: Run) -> None:
    plain = json.loads(run(*command.split(), "--json").out)
    opened = json.loads(run(*command.split(), "--json", "--explain").out)
    assert plain["explain"] == []
    assert opened["explain"]
    assert {k: v for k, v in plain.items() if k != "explain"} == {k: v for k, v in opened.items() if k != "explain"}

    def check(figure: dict[str, Any]) -> None:
        if figure["parts"]:
            assert sum(part["value"] for part in figure["parts"]) == figure["value"]
        if figure["formula"]:
            value = eval(figure["formula"], {"__builtins__": {}}, {**FUNCTIONS, **figure["numbers"]})
            assert value == pytest.approx(figure["value"], rel=1e-12)
        for part in figure["parts"]:
            check(part)

    for figure in opened["explain"]:
        check(figure)


def test_the_figures_explained_are_the_figures_given(run: Run) -> None:
    """The engines' quick way and their explained way agree."""
    for command, pairs in {
        "params deepseek-v3": {"total": "total", "active": "active"},
        "kv gemma3-27b --ctx 100k --batch 7": {"kv_bytes": "kv_bytes", "bytes_per_token": "bytes_per_token"},
        "kv t5-11b --ctx 300 --encoder-ctx 700": {"cross_bytes": "cross_bytes"},
        "flops deepseek-v2 --ctx 3000": {"forward_flops": "forward_flops", "decode_flops_per_token": "decode_flops_per_token"},
        "weights llama3-8b --quant q5_k_m": {"weight_bytes": "weight_bytes"},
        "fit mixtral-8x7b --gpu h100-sxm --quant awq": {"required_bytes": "required_bytes"},
    }.items():
        outcome = run(*command.split(), "--json", "--explain").json
        values = {figure["label"]: figure["value"] for figure in outcome["explain"]}
        assert {label: values[label] for label in pairs} == {label: outcome["results"][0][key] for label, key in pairs.items()}
