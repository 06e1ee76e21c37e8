"""Asks the oracle about small invented models of every type: a base, single changes to it, mixes, and the type's other classes."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from multiprocessing import get_context
from typing import Any

from tests.oracle.results import FIGURES, FLOPS_TOKENS, MATRIX, changed, line, pack, versions
from tests.oracle.shrink import DEFAULTS, TRIES, changes, profiles

WORKERS = 3
MOST_PARAMETERS_ON_CPU = 30_000_000
SECONDS_EACH, SECONDS_A_TYPE = 8, 40  # of work, not of waiting
SAME_KEPT = 3  # rows that change nothing: enough to show that a key does not matter
TEXT = ("ForCausalLM", "ForMaskedLM", "ForSeq2SeqLM")
OTHERS = ("ForImageTextToText", "ForMultimodalLM", "ForSpeechSeq2Seq", "ForTextEncoding")
# Classes whose heads differ from the base's.
CLASSES = (
    *TEXT,
    "ForPreTraining",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForTextEncoding",
    "Model",
)


class TooSlowError(Exception):
    """One question took too long."""


def types() -> list[str]:
    """Model types to ask about, text models first."""
    text = [name for name, record in DEFAULTS.items() if any(kind in record["classes"] for kind in TEXT) and "." not in name]
    more = [name for name, record in DEFAULTS.items() if any(kind in record["classes"] for kind in OTHERS) and "." not in name]
    return list(dict.fromkeys(sorted(text, key=lambda name: bool(DEFAULTS[name].get("sub_configs"))) + more))


def limited(seconds: int) -> None:
    """Raises TooSlowError in this process after that many seconds of work; 0 calls it off."""

    def stop(*_: Any) -> None:
        raise TooSlowError

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def ask(config: dict[str, Any], architecture: str | None, with_flops: bool = False, with_cache: bool = True) -> dict[str, Any]:
    """Figures of one model: parameters always, ``cache`` and ``flops`` where they can be read; ``errors`` says why they cannot."""
    from tests.oracle.oracle import build, counts, flops
    from tests.oracle.states import cache

    limited(SECONDS_EACH)
    try:
        model = build(config, architecture)
        found = counts(model)
        record: dict[str, Any] = {"architecture": type(model).__name__} | {name: found[name] for name in FIGURES}
        errors: dict[str, str] = {}
        questions: list[tuple[str, Any]] = []
        if with_flops:
            questions.append(("flops", lambda each: flops(each, FLOPS_TOKENS)))
        if with_cache:
            questions.append(("cache", cache))
        for name, question in questions:
            try:
                record[name] = question(model)
            except TooSlowError:
                raise
            except Exception:  # some need data: another try with data, where that is cheap
                try:
                    if found["total"] > MOST_PARAMETERS_ON_CPU:
                        raise
                    record[name] = question(build(config, architecture, "cpu"))
                except TooSlowError:
                    raise
                except Exception as error:
                    errors[name] = describe(error)
        if errors:
            record["errors"] = errors
        return record
    finally:
        limited(0)


def describe(error: BaseException) -> str:
    """An exception in one short line, with the place in the model's code."""
    text = (str(error).splitlines() or [""])[0][:160]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/transformers/" in frame.filename]
    place = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def layer_kinds(config: Any) -> set[str]:
    """Kinds of layers of a configuration, in whatever list it keeps them."""
    found: set[str] = set()
    for each in (config, *(getattr(config, name) for name in config.sub_configs if getattr(config, name, None) is not None)):
        for name in ("layer_types", "mlp_layer_types", "layers_block_type", "block_types"):
            value = getattr(each, name, None)
            found |= {f"{name}.{kind}" for kind in value if isinstance(kind, str)} if isinstance(value, list | tuple) else set()
    return found


def find_base(model_type: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first small config that builds and runs, else the first that builds, and its figures.

    Raises the last error of the class where none builds.
    """
    from tests.oracle.oracle import configuration

    candidates = [with_padding(model_type, each) for each in profiles(model_type)]
    try:
        kinds = layer_kinds(configuration({"model_type": model_type}))
        for layers in (6, 8, 12):
            if kinds <= layer_kinds(configuration({"model_type": model_type, **candidates[0]})):
                break
            deeper = [more_layers(each, layers) for each in candidates]
            candidates = deeper
    except Exception:  # the first profile does not build; the others will show
        kinds = set()
    best: tuple[dict[str, Any], dict[str, Any]] | None = None
    last: Exception = ValueError("no profile")
    for config in candidates[:60]:
        try:
            record = ask({"model_type": model_type, **config}, None, with_flops=True)
        except Exception as error:
            last = error
            continue
        if "errors" not in record:
            return config, record
        best = best or (config, record)
        if candidates.index(config) >= 12:
            break
    if best is None:
        raise last
    return best


def with_padding(model_type: str, config: dict[str, Any]) -> dict[str, Any]:
    """The config with a padding token that the small vocabulary has, where the class's own is beyond it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    inside = {
        name: with_padding(value.get("model_type", ""), value) if isinstance(value, dict) else value
        for name, value in config.items()
    }
    try:
        default = CONFIG_MAPPING[model_type]()
    except Exception:  # no class of its own, or one that has no defaults
        return inside
    padding = getattr(default, "pad_token_id", None)
    if not hasattr(default, "pad_token_id") and default.sub_configs:  # some classes read it outside of the text all the same
        return inside | {"pad_token_id": 3}
    beyond = isinstance(padding, int) and padding >= config.get("vocab_size", padding + 1)
    return inside | ({"pad_token_id": 3} if beyond else {})


def more_layers(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The config with that many layers, in its language model too."""
    return {
        name: more_layers(value, layers)
        if isinstance(value, dict) and "text" in name
        else layers
        if name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
        else value
        for name, value in config.items()
    }


def examine(model_type: str) -> dict[str, Any]:
    """The line of one type; ``failed`` instead of figures where no config of it builds."""
    import transformers

    from tests.oracle.oracle import configuration

    transformers.logging.set_verbosity(50)
    try:
        base, figures = find_base(model_type)
        built = configuration({"model_type": model_type, **base}).to_dict()
    except Exception as error:
        return {"model_type": model_type, "failed": describe(error)}
    readable = "cache" in figures
    records = [{"model_type": model_type, "config": base, "set": {}, **figures}]
    worked: list[dict[str, Any]] = []
    same = 0
    start = time.process_time()
    for change in changes(model_type, base, built)[:TRIES]:
        if time.process_time() - start > SECONDS_A_TYPE:
            break
        record = attempt(model_type, base, change, readable)
        if record is None:
            continue
        if differs(record, figures):
            worked.append(change)
        elif (same := same + 1) > SAME_KEPT:
            continue
        records.append(record)
    for change in mixes(model_type, worked):
        if (record := attempt(model_type, base, change, readable)) is not None:
            records.append(record)
    records += other_classes(model_type, base, figures)
    return pack(records)


def attempt(model_type: str, base: dict[str, Any], change: dict[str, Any], readable: bool) -> dict[str, Any] | None:
    """The figures of a changed base, None where the class refuses the change, or the model cannot run though the base can."""
    try:
        record = ask({"model_type": model_type, **changed(base, change)}, None, with_cache=readable)
    except Exception:
        return None
    return None if "errors" in record else {"set": change} | record


def differs(record: dict[str, Any], base: dict[str, Any]) -> bool:
    """Whether any figure is not the base's."""
    return any(record.get(name) != base.get(name) for name in (*FIGURES, "cache"))


def mixes(model_type: str, worked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few changes together, drawn by chance from those that change something."""
    chance = random.Random(model_type)
    found = []
    for number in range(6 if len(worked) > 2 else 0):
        chosen = chance.sample(worked, min(2 + number // 2, len(worked)))
        found.append({key: value for change in chosen for key, value in change.items()})
    return found


def other_classes(model_type: str, base: dict[str, Any], figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The base under the type's other classes: other heads, or none."""
    names: list[str] = []
    for kind in CLASSES:
        value = DEFAULTS[model_type]["classes"].get(kind, [])
        names += [value] if isinstance(value, str) else value
    records: list[dict[str, Any]] = []
    for name in dict.fromkeys(names):
        if name != figures["architecture"]:
            try:
                record = ask({"model_type": model_type, **base}, name, with_cache=False)
            except Exception:
                continue
            records.append({"set": {}, "cache": figures.get("cache")} | record)
    return records


def main(only: list[str] | None = None) -> None:
    """Prints a line per type as it is found, and writes the file; where types are named, only their lines change."""
    import torch
    import transformers

    os.environ["OMP_NUM_THREADS"] = "1"
    names = only or types()
    kept: dict[str, dict[str, Any]] = {}
    if only:
        kept = {record["model_type"]: record for record in map(json.loads, MATRIX.read_text(encoding="utf-8").splitlines()[1:])}
        failed = versions().get("failed", {})
    else:
        failed = {}
    with get_context("spawn").Pool(WORKERS, maxtasksperchild=30) as pool:
        for record in pool.imap_unordered(examine, names, chunksize=1):
            name = record["model_type"]
            failed.pop(name, None)
            kept.pop(name, None)
            (failed if "failed" in record else kept)[name] = record.get("failed", record)
            sys.stdout.write(f"{line(record)}\n")
            sys.stdout.flush()
    head = {"transformers": transformers.__version__, "torch": torch.__version__.partition("+")[0], "failed": failed}
    MATRIX.parent.mkdir(parents=True, exist_ok=True)
    MATRIX.write_text("".join(f"{line(each)}\n" for each in [head, *(kept[name] for name in sorted(kept))]), encoding="utf-8")
