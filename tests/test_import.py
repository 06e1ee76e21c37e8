"""What a config.json lowers to: published configs in three forms, and small invented ones, against what transformers builds."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import flops, kv, params
from llmcalc.errors import LlmcalcError, SpecError, UnknownArchitecture
from llmcalc.importers import families
from llmcalc.importers.classes import config_class
from llmcalc.importers.config import Source
from llmcalc.importers.config_json import Imported, from_config
from llmcalc.resolve import built
from llmcalc.specs import read, validate, write
from tests.conftest import Run
from tests.oracle.results import FLOPS_TOKENS, rows

DATA = Path(__file__).parent / "data"
PUBLISHED = [json.loads(line) for line in (DATA / "models.jsonl").read_text(encoding="utf-8").splitlines()]
FIGURES = ("total", "embedding", "lm_head", "active", "router_buffers")


def imported(config: dict[str, Any]) -> Imported:
    return from_config(config, Source("config.json", json.dumps(config)))


def blueprint(config: dict[str, Any]) -> Blueprint:
    return lower(built(imported(config).spec, "config.json"), "it")


def sparse(config: dict[str, Any], model_type: str) -> dict[str, Any]:
    """A config as it is saved: without what its class has by default, inside too."""
    known = config_class(model_type)
    kept = {}
    for key, value in config.items():
        default = known.defaults.get(key, ...)
        if key != "model_type" and default == value and type(default) is type(value):
            continue
        inner = isinstance(value, dict) and key in known.sub_configs
        kept[key] = sparse(value, value.get("model_type", known.sub_configs[key])) if inner else value
    return kept


def aliased(config: dict[str, Any], model_type: str) -> dict[str, Any]:
    """A config with the other names that its class knows: hidden_size for n_embd, and the older form of the rotary settings."""
    other = {name: alias for alias, name in config_class(model_type).aliases.items()}
    # Two names at once is another test.
    renamed = {other[key] if key in other and other[key] not in config else key: value for key, value in config.items()}
    rotary = renamed.pop("rope_parameters", None)
    return renamed if rotary is None else {**renamed, "rope_theta": 10000.0, "rope_scaling": rotary}


FORMS = {
    "full": lambda config, _: config,
    "sparse": sparse,
    "aliased": aliased,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("row", [pytest.param(row, id=row["model"]) for row in PUBLISHED])
def test_a_published_config(row: dict[str, Any], form: str) -> None:
    config = FORMS[form](row["config"], row["config"]["model_type"])
    it = blueprint({**config, "architectures": [row["architecture"]]})
    count = params.count(it)
    assert {name: getattr(count, name) for name in FIGURES} == {name: row[name] for name in FIGURES}
    if "kv" in row:
        for context, expected in row["kv"]["bytes"].items():
            size = kv.size(it, int(context))
            assert (size.kv_bytes, size.state_bytes) == (expected, row["kv"]["state"])
        size = kv.size(it, 1, 1, "bf16", 1)
        assert kv.size(it, 1).bytes_per_token == row["kv"]["per_token"]
        assert (size.cross_bytes, size.index_bytes) == (row["kv"].get("cross", 0), row["kv"].get("index", 0))
    if "flops" in row:
        work = row["flops"]
        forward = flops.count(it, work["tokens"], mask="full", encoder_context=work["encoder_tokens"]).forward
        # What is measured of a scan is what a fallback in plain torch multiplies.
        assert forward == pytest.approx(work["forward"], rel=0.05 if work["loose"] else 1e-3)


@pytest.mark.parametrize("row", [pytest.param(row, id=row["model"]) for row in PUBLISHED])
def test_a_config_that_names_no_class(row: dict[str, Any]) -> None:
    """It is what such a model is published as: an encoder without a head, a decoder with one, towers and all."""
    assert params.count(blueprint(row["config"])).total == row["total"]


# Types that transformers has and llmcalc does not read: refused by name.
_UNREAD = """
blt canary clip_text_model cohere_asr cohere_compass cosmos3_edge cpmant dia dots3_note evolla fun_asr_nano
gemma4_unified glm5_next glmasr granite_docling inkling2 inkling_mm_model kyutai_speech_to_text lfm3_vl minicpm_ocr
minicpmv4_6 minicpmv4_7 mistral_large4 modernvbert moss_transcribe_diarize muse_glimmer muse_spark nemo_speechlm
neomme perceiver pi0 pix2struct pop2piano pp_formulanet qwen2_5_omni qwen4_exp reformer seamless_m4t seamless_m4t_v2
speech-encoder-decoder speecht5 t5gemma2 tipsv2_text_model udop ultravbert unlimited_ocr vibevoice vibevoice_asr
vision-encoder-decoder voxtral_realtime
"""
UNREAD = frozenset(_UNREAD.split())
# Where the class is not followed, and why.
OTHERWISE = {
    "nemotron_h_omni": "the class does not say which matrix is its head",
    "diffusion_gemma": "encoder and decoder share their layers, which the class lists twice",
    "longcat_flash": "the class allots gate and up projections to the experts that do nothing; no checkpoint has them",
    "mimo_v2_flash": "the class counts the token itself in its window of 129; the model's window is 128",
}
# Rows whose FLOPs are not the class's: how far they may be off, and why.
FLOPS_OFF = {
    "llama4_text": (0.5, "the class runs every token through all experts"),
    "llama4": (0.5, "the class runs every token through all experts"),
    "gemma3n_text": (0.03, "products of the token's few streams with each other, which no tensor has"),
    "deepseek_v4": (0.1, "attention over the compressed context"),
    **dict.fromkeys(
        ("mamba2", "bamba", "falcon_h1", "granitemoehybrid", "nemotron_h", "zamba2"),
        (0.01, "the class sums over all pairs of chunks at once, where kernels hand the state on"),
    ),
    **dict.fromkeys(
        ("mamba", "falcon_mamba", "zamba", "lfm3", "inkling_text", "inkling2_text"),
        (0.0015, "convolutions also run over the padding, and the outputs are cut off"),
    ),
    "xlstm": (0.0016, "a sequence shorter than a chunk is computed token by token"),
    "longt5": (0.7, "attention in blocks, padded"),
    "longformer": (0.2, "attention in blocks"),
    "led": (0.2, "attention in blocks"),
    "pegasus_x": (0.4, "attention in blocks, and global tokens"),
    "mra": (0.2, "attention in blocks"),
    "squeezebert": (0.2, "scores of attention"),
    "funnel": (0.9, "layers over fewer tokens"),
    "xlnet": (0.02, "scores of relative positions"),
    "prophetnet": (0.6, "a stream for each token ahead"),
    "nllb-moe": (0.2, "the class runs every token through all experts"),
    "switch_transformers": (0.5, "the class runs every token through all experts"),
}
ACTIVE_OTHERWISE = {"doge": "the oracle knows no experts that are rows of an embedding"}
# The class does not say which of its matrices is the head.
HEADLESS = {"nemotron_h_omni"}
CACHE_OTHERWISE = {
    "minimax": "the class keeps the state of lightning attention in the model's dtype; what is published keeps it in fp32",
    "falcon": "the class caches grouped keys and values broadcast to all heads",
    "mllama": "asked without an image; what its layers would keep of one is told apart",
    "stablelm": "a head of which one dim would be rotated comes out one dim wider",
    "openai-gpt": "the class keeps nothing; figures are what keys and values take",
}
# Keys whose rows are not compared, and why.
KEYS_OTHERWISE = {
    ("deberta", "legacy"): "the class calls a square linear before the logits its output embedding",
    ("deberta-v2", "legacy"): "the class calls a square linear before the logits its output embedding",
    ("t5gemma", "hidden_size"): "with two widths, the decoder's table counts as embedding and head here, the encoder's there",
}
# Types of which more than a quarter of the rows are refused, and why.
MOSTLY_REFUSED = {
    "mobilebert": "the base's embedding is not as wide as its bottleneck, unlike any published",
    "encoder-decoder": "the base's decoder does not see its encoder",
}


def by_type() -> list[Any]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows():
        found.setdefault(row["model_type"], []).append(row)
    return [pytest.param(model_type, of_type, id=model_type) for model_type, of_type in found.items()]


def kept(cache: list[dict[str, Any]], tokens: int, encoder_tokens: int) -> tuple[int, int, int]:
    """Bytes of keys and values, of cross-attention and of states that the class holds, 2 an element but for states of fp32."""
    own = cross = states = 0
    for entry in cache:
        layers, rate = len(entry["layers"]), sum(entry.get("per_token", {}).values())
        if entry.get("side") == "cross":
            cross += 2 * layers * rate * encoder_tokens
        else:
            own += 2 * layers * rate * min(tokens, entry.get("window") or tokens)
        for name, shape in entry.get("fixed", {}).items():
            states += layers * math.prod(shape) * (4 if entry.get("dtype", {}).get(name) == "float32" else 2)
    return own, cross, states


@pytest.mark.parametrize(("model_type", "of_type"), by_type())
def test_small_configs(model_type: str, of_type: list[dict[str, Any]]) -> None:
    """Every key that changes what the class builds changes what is counted, by as much."""
    if model_type in UNREAD:
        with pytest.raises(UnknownArchitecture, match=model_type):
            imported(of_type[0]["config"])
        return
    wrong: list[tuple[Any, Any]] = []
    refused = 0
    for row in of_type:
        try:
            it = blueprint(row["config"])
        except SpecError:
            refused += 1
            continue
        if any((model_type, key.rpartition(".")[2]) in KEYS_OTHERWISE for key in row["set"]):
            continue
        count = params.count(it)
        skipped = {"active"} if model_type in ACTIVE_OTHERWISE else {"lm_head"} if model_type in HEADLESS else set()
        known = [name for name in FIGURES if name not in skipped]
        found = {name: getattr(count, name) for name in known if row.get(name) is not None}
        if found != {name: row[name] for name in found} and model_type not in OTHERWISE:
            wrong.append((row["set"], found))
        if row.get("flops") and not row["set"] and model_type not in OTHERWISE:
            # A recurrence over few tokens is mostly padding, which the class computes too.
            usual = (0.05, "") if any(cache.kind == "state" for cache in it.caches) else (1e-3, "")
            off = FLOPS_OFF.get(model_type, usual)[0]
            work = flops.count(it, FLOPS_TOKENS, mask="full", encoder_context=FLOPS_TOKENS).forward
            assert work == pytest.approx(row["flops"], rel=off)
        if row.get("cache") is None or it.unknown_cache or model_type in OTHERWISE | CACHE_OTHERWISE:
            continue
        for tokens, encoder_tokens in ((4, 3), (1000, 700)):
            size = kv.size(it, tokens, 1, "bf16", encoder_tokens)
            found_bytes = (size.kv_bytes + size.index_bytes, size.cross_bytes, size.state_bytes)
            if found_bytes != kept(row["cache"], tokens, encoder_tokens):
                wrong.append((row["set"], found_bytes))
    assert wrong == []
    # Some values cannot be (three KV heads of four), and some are not followed; most must be counted.
    assert refused <= len(of_type) // 4 or model_type in MOSTLY_REFUSED


def test_every_type_is_read_or_refused() -> None:
    assert {model_type for model_type in UNREAD if families.find(model_type) is not None} == set()


@pytest.mark.parametrize("row", [pytest.param(row, id=row["model"]) for row in PUBLISHED])
def test_the_spec_written_is_the_spec_read(row: dict[str, Any]) -> None:
    data = imported({**row["config"], "architectures": [row["architecture"]]}).spec
    document = read.decode(write.write(data, "a comment").encode(), "my.yaml")
    assert document.data == data
    assert lower(validate.validate(document, "models"), "it") == lower(built(data, "config.json"), "it")


BAD: list[tuple[str, Any, str]] = [
    ("not a mapping", [1], "a config is a JSON object"),
    ("no model_type", {}, "model_type: missing"),
    ("an unknown type", {"model_type": "lama"}, "'lama' is an architecture that llmcalc does not know; nearest: llama"),
    ("a type that is refused", {"model_type": "blt"}, "'blt' is not read: bytes go through an encoder, a patcher"),
    ("an unknown class", {"model_type": "llama", "architectures": ["LlamaForNothing"]}, "LlamaForNothing"),
    ("a number as text", {"model_type": "llama", "hidden_size": "4096"}, "hidden_size: found '4096', allowed: a whole number"),
    ("a negative number", {"model_type": "llama", "num_hidden_layers": -2}, "num_hidden_layers: found -2"),
    ("a number without end", {"model_type": "llama", "vocab_size": 10**30}, "vocab_size: found 1000"),
    ("a fraction", {"model_type": "llama", "num_attention_heads": 1.5}, "num_attention_heads: found 1.5"),
    ("a word for a flag", {"model_type": "llama", "attention_bias": "no"}, "attention_bias: found 'no', allowed: true, false"),
    ("KV heads that do not divide", {"model_type": "llama", "num_key_value_heads": 5}, "5 KV heads do not divide 32 heads"),
    ("a kind of layer nobody knows", {"model_type": "gemma3_text", "layer_types": ["x"] * 26}, "'x' is no kind of layer"),
    ("too few kinds of layer", {"model_type": "gemma3_text", "layer_types": ["full_attention"]}, "1 entries for 26 layers"),
    ("more experts used than there are", {"model_type": "mixtral", "num_experts_per_tok": 9}, "9 is more than the 8 experts"),
]


@pytest.mark.parametrize(("config", "says"), [pytest.param(config, says, id=name) for name, config, says in BAD])
def test_refused(config: Any, says: str) -> None:
    with pytest.raises(LlmcalcError) as caught:
        blueprint(config)
    assert says in str(caught.value)
    assert "config.json" in str(caught.value)


def test_a_key_that_is_not_understood_is_reported() -> None:
    found = imported({"model_type": "llama", "torch_dtype": "bfloat16", "extra_projection_dim": 64})
    assert found.notes == ("not understood in the config, and not counted if it changes the architecture: extra_projection_dim",)
    assert found.spec["dtype"] == "bf16"


def test_one_call_over_all_configs(tmp_path: Path, run: Run) -> None:
    names = []
    for row in PUBLISHED:
        folder = tmp_path / row["model"]
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({**row["config"], "architectures": [row["architecture"]]}), encoding="utf-8")
        names.append(str(folder / "config.json"))
    code, out, err = run("params", *names, "--json")
    assert (code, err) == (0, "")
    assert [(found["model"], found["total"]) for found in json.loads(out)["results"]] == [
        (row["model"], row["total"]) for row in PUBLISHED
    ]


def test_import_writes_a_spec(tmp_path: Path, run: Run) -> None:
    row = next(row for row in PUBLISHED if row["model"] == "qwen3-30b-a3b")
    config, target = tmp_path / "config.json", tmp_path / "mine.yaml"
    config.write_text(json.dumps(row["config"]), encoding="utf-8")
    assert run("import", str(config), "-o", str(target)) == (0, "", "")
    assert str(config) in target.read_text(encoding="utf-8")
    code, out, _ = run("params", str(target), "--json")
    assert (code, json.loads(out)["results"][0]["total"]) == (0, row["total"])
    code, _, err = run("import", str(config), "-o", str(target))
    assert (code, "--force replaces it" in err) == (2, True)
    assert run("import", str(tmp_path / "none"))[0] == 2


def test_compare_takes_what_all_of_them_take(run: Run) -> None:
    code, out, _ = run("compare", "t5-base", "llama3-8b", "jamba-v0.1", "--json")
    found = json.loads(out)
    assert (code, found["inputs"]["ctx"]) == (0, 512)
    assert [result["ctx"] for result in found["results"]] == [512] * 3
    assert found["results"][0]["cross_bytes"] == 512 * 2 * 2 * 12 * 768
    assert found["results"][1]["differs"]["vocab"] == 128256
    assert found["results"][0]["differs"]["kv_heads"] == 12


def test_compare_finds_no_difference_where_there_is_none(tmp_path: Path, run: Run) -> None:
    row = next(row for row in PUBLISHED if row["model"] == "llama3-8b")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**row["config"], "max_position_embeddings": 8192}), encoding="utf-8")
    code, out, _ = run("compare", "llama3-8b", str(config), "--json")
    assert (code, json.loads(out)["results"][1]["differs"]) == (0, {})
    assert run("compare", "llama3-8b")[0] == 2


def test_a_folder_without_a_model_hides_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run("params", "gpt2", "--json")[0] == 0
    code, _, err = run("params", "./gpt2")
    assert (code, "holds no config.json" in err) == (2, True)
    assert run("params", "")[0] == 2


def test_ten_thousand_layers_fold_at_once() -> None:
    layers = ["sliding_attention"] * 9_999 + ["full_attention"]
    config = {"model_type": "gemma3_text", "num_hidden_layers": 10_000, "layer_types": layers, "sliding_window": 512}
    assert imported(config).spec["pattern"] == "S" * 9_999 + "L"
