"""Bad specs: every one is refused with one message that names the file, the place and the field, and exit code 2."""

import copy
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmcalc.errors import SpecError
from llmcalc.specs import catalogue, read, validate
from tests.conftest import Run

MODEL = {
    "family": "test", "sources": "[a paper]", "layers": "4", "hidden": "64", "heads": "8", "ffn": "256", "vocab": "1000",
}  # fmt: skip
GPU = {
    "title": "Card", "vendor": "Maker", "architecture": "New", "marketed_gb": "80", "bandwidth_gb_s": "2000",
    "tflops": "{fp16: 300}", "sources": "[a datasheet]",
}  # fmt: skip
QUANT = {
    "title": "Four", "kind": "integer", "format": "{bits: 4}", "rules": "[{tensors: [linears], format: bad}]",
    "sources": "[a paper]",
}  # fmt: skip


def lines(base: dict[str, str], changed: dict[str, str | None]) -> str:
    """A spec's text, one field a line: ``base`` with fields replaced in their line, left out (None) or added at the end."""
    merged = {**base, **changed}
    return "".join(f"{key}: {value}\n" for key, value in merged.items() if value is not None)


def model(**changed: str | None) -> str:
    return lines(MODEL, changed)


def gpu(**changed: str | None) -> str:
    return lines(GPU, changed)


def quant(**changed: str | None) -> str:
    return lines(QUANT, changed)


def overhead(text: str) -> str:
    return quant(format="{bits: 4, overhead: [{name: scale, bits: 16, per: " + text + "}]}")


def moe(text: str, **changed: str | None) -> str:
    return model(moe="{experts: 8, top_k: 2, ffn: 64, " + text + "}", **changed)


def vision(**changed: str) -> str:
    tower = {"layers": "2", "hidden": "32", "heads": "4", "ffn": "64", "image": "224", "patch": "14", **changed}
    return model(vision="{" + ", ".join(f"{key}: {value}" for key, value in tower.items()) + "}")


class Bad(NamedTuple):
    """A spec that nobody may get away with: where its mistake stands, the field, and words of the message."""

    name: str
    text: str | bytes
    at: str
    field: str
    says: str
    kind: str = "models"


TEXT_NUMBER = "is text in YAML: write the digits"
LATENT = "{kv_rank: 8, nope_dim: 8, rope_dim: 8, v_dim: 8}"
BOMB = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nd: &d [*c, *c, *c]\n"

NOT_YAML = [
    Bad("empty file", "", "1:1", "", "found nothing"),
    Bad("only blanks", "  \n\n", "1:1", "", "found nothing"),
    Bad("only a comment", "# nothing\n", "1:1", "", "found nothing"),
    Bad("null document", "null\n", "1:1", "", "found nothing"),
    Bad("a list", "- family: test\n", "1:1", "", "found a list"),
    Bad("one word", "llama\n", "1:1", "", "a spec is a list of 'key: value' lines"),
    Bad("one number", "70\n", "1:1", "", "a spec is a list of 'key: value' lines"),
    Bad("second document", model() + "---\nfamily: other\n", "8:1", "", "more than one document"),
    Bad("second document, empty", model() + "---\n", "8:1", "", "more than one document"),
    Bad("second document after an empty one", "---\n---\n" + model(), "2:1", "", "more than one document"),
    Bad("second document after null", "null\n---\n" + model(), "2:1", "", "more than one document"),
    Bad("text after the end", model() + "...\nfamily: other\n", "9:1", "", ""),
    Bad("tab indentation", model() + "published:\n\tparams: 5\n", "9:1", "", "not valid YAML"),
    Bad("closed nowhere", model(title="'My model"), "9:1", "", "not valid YAML"),
    Bad("bracket closed nowhere", model(aliases="[mine"), "9:1", "", "not valid YAML"),
    Bad("wrong bracket", model(aliases="[mine}"), "8:15", "", "not valid YAML"),
    Bad("colon in plain text", model(title="Model: mine"), "8:13", "", "not valid YAML"),
    Bad("unexpected indentation", model() + "  context: 512\n", "8:10", "", "not valid YAML"),
    Bad("indentation that fits nothing", model() + "published:\n    params: 5\n  tokens: 6\n", "10:3", "", "not valid YAML"),
    Bad("line without a colon", model() + "context 512\n", "9:1", "", "not valid YAML"),
    Bad("reserved character", model(title="@mine"), "8:8", "", "not valid YAML"),
    Bad("half a surrogate pair", model(title='"\\ud800"'), "8:11", "", "not valid YAML"),
    Bad("YAML of the future", "%YAML 3.0\n---\n" + model(), "1:1", "", "not valid YAML"),
    Bad("not UTF-8", model().encode() + b"title: caf\xe9\n", "8:11", "", "not UTF-8"),
    Bad("UTF-16", model().encode("utf-16"), "1:1", "", "not UTF-8"),
    Bad("UTF-16 without a mark", model().encode("utf-16-le"), "1:2", "", "character"),
    Bad("NUL byte", model(title="a\0b"), "8:9", "", "character"),
    Bad("bell", model() + "# ring\a\n", "8:7", "", "character"),
    Bad("terminal escape", model(title="\x1b[31mred"), "8:8", "", "character"),
    Bad("only NUL bytes", b"\0" * 100, "1:1", "", "character"),
    Bad("too large", model() + "#" * 300_000 + "\n", "1:1", "", "larger than 256 KiB"),
    Bad("too large in bytes, not in characters", model() + "# " + "é" * 140_000 + "\ncontext: seven\n", "1:1",
        "", "larger than 256 KiB"),
    Bad("too many values", model(aliases="[" + "a," * 20_000 + "]"), "", "", "more than 20,000 values"),
    Bad("lists too deep", model(aliases="[" * 10_000), "8:25", "", "deep"),
    Bad("mappings too deep", "{a: " * 10_000, "1:65", "", "deep"),
    Bad("list items too deep", "- " * 10_000, "1:33", "", "deep"),
    Bad("blocks too deep", "".join(" " * depth + "a:\n" for depth in range(100)), "17:17", "", "deep"),
    Bad("anchor", model(title="&name Model"), "8:8", "", "anchors and aliases"),
    Bad("alias", model(title="*name"), "8:8", "", "anchors and aliases"),
    Bad("anchor on a key", model() + "&name title: Model\n", "8:1", "", "anchors and aliases"),
    Bad("alias bomb", BOMB + model(), "1:4", "", "anchors and aliases"),
    Bad("anchor on everything", "&all\n" + model(), "1:1", "", "anchors and aliases"),
    Bad("tag that runs code", model(title="!!python/object/apply:os.system [ls]"), "8:8", "", "tag"),
    Bad("tag on the whole", "!!python/object:llmcalc.Model\n" + model(), "1:1", "", "tag"),
    Bad("tag of one's own", model(title="!name Model"), "8:8", "", "'!name'"),
    Bad("standard tag", model(title="!!str 5"), "8:8", "", "tag"),
    Bad("tag on a key", model() + "!!str title: Model\n", "8:1", "", "tag"),
    Bad("list as a key", model() + "? [title]\n: Model\n", "8:3", "", "a key must be text"),
    Bad("duplicate key", model() + "layers: 5\n", "8:1", "layers", "twice, first on line 3"),
    Bad("duplicate key, other quotes", model() + '"hidden": 128\n', "8:1", "hidden", "twice, first on line 4"),
    Bad("duplicate key inside", model(published="{params: 5, params: 6}"), "8:24", "published.params", "twice, first on line 8"),
]  # fmt: skip

MODELS = [
    Bad("unknown key", model(layer="5"), "8:1", "layer", "did you mean 'layers'?"),
    Bad("misspelt key", model(vocb="5", vocab=None), "7:1", "vocb", "did you mean 'vocab'?"),
    Bad("key of another tool", model(num_attention_heads="8"), "8:1", "num_attention_heads", "unknown key"),
    Bad("key in capitals", model(Layers="4", layers=None), "7:1", "Layers", "did you mean 'layers'?"),
    Bad("key like none", model(zzz="5"), "8:1", "zzz", "allowed: activation, aliases"),
    Bad("unknown key inside", moe("experst: 8"), "8:38", "moe.experst", "did you mean 'experts'?"),
    Bad("unknown key in a kind", model(pattern="A", kinds="{A: {head: 4}}"), "9:13", "kinds.A.head", "did you mean 'heads'?"),
    Bad("unknown key in the encoder", model(type="encoder-decoder", encoder="{layers: 2, vocab: 64}"),
        "9:22", "encoder.vocab", "unknown key"),
    Bad("merge key", model() + "<<: {layers: 5}\n", "8:1", "<<", "unknown key"),
    Bad("key of two lines", model() + '"two\\nlines": 5\n', "8:1", "", "unknown key"),
    Bad("key that recolours the terminal", model() + '"\\e[31mred": 5\n', "8:1", "", "unknown key"),
    Bad("number as text", model(layers="four"), "3:1", "layers", "found 'four', allowed: a number"),
    Bad("number in quotes", model(layers="'4'"), "3:1", "layers", TEXT_NUMBER),
    Bad("1e6", model(vocab="1e6"), "7:1", "vocab", TEXT_NUMBER),
    Bad("70B", model(published="{params: 70B}"), "8:13", "published.params", TEXT_NUMBER),
    Bad("128k", model(context="128k"), "8:1", "context", TEXT_NUMBER),
    Bad("thousands with a comma", model(vocab="32,000"), "7:1", "vocab", "found '32,000'"),
    Bad("hexadecimal", model(hidden="0x40"), "4:1", "hidden", "found '0x40'"),
    Bad("leading zero", model(hidden="064"), "4:1", "hidden", "found '064'"),
    Bad("infinite", model(layers=".inf"), "3:1", "layers", "found '.inf'"),
    Bad("infinite by its exponent", model(layers="1.0e999"), "3:1", "layers", "a whole number"),
    Bad("negative", model(layers="-4"), "3:1", "layers", "found -4, allowed: at least 1"),
    Bad("zero", model(heads="0"), "5:1", "heads", "found 0, allowed: at least 1"),
    Bad("huge", model(hidden="100_000_001"), "4:1", "hidden", "allowed: at most 100000000"),
    Bad("too many layers", model(layers="10001"), "3:1", "layers", "allowed: at most 10000"),
    Bad("forty digits", model(vocab="9" * 40), "7:1", "vocab", "allowed: at most"),
    Bad("hundred thousand digits", model(vocab="9" * 100_000), "7:1", "vocab", "found '99999"),
    Bad("float for a whole number", model(layers="4.5"), "3:1", "layers", "found 4.5, allowed: a whole number"),
    Bad("whole float for a whole number", model(layers="4.0"), "3:1", "layers", "found 4.0, allowed: a whole number"),
    Bad("boolean for a number", model(layers="true"), "3:1", "layers", "allowed: a whole number"),
    Bad("list for a number", model(heads="[8, 8]"), "5:1", "heads", "found [8, 8], allowed: a whole number"),
    Bad("mapping for a number", model(heads="{query: 8}"), "5:1", "heads", "allowed: a whole number"),
    Bad("yes for a boolean", model(tied_head="yes"), "8:1", "tied_head", "found 'yes', allowed: true, false"),
    Bad("on for a boolean", model(tied_head="on"), "8:1", "tied_head", "found 'on', allowed: true, false"),
    Bad("True for a boolean", model(tied_head="True"), "8:1", "tied_head", "found 'True', allowed: true, false"),
    Bad("1 for a boolean", model(tied_head="1"), "8:1", "tied_head", "found 1, allowed: true, false"),
    Bad("number for text", model(family="5"), "1:1", "family", "found 5, allowed: text (put it in quotes)"),
    Bad("boolean for text", model(title="true"), "8:1", "title", "allowed: text (put it in quotes)"),
    Bad("nothing for text", model(family=""), "1:1", "family", "allowed: text"),
    Bad("empty text", model(family="''"), "1:1", "family", "empty"),
    Bad("text for a list", model(sources="a paper"), "2:1", "sources", "found 'a paper', allowed: a list"),
    Bad("empty list of sources", model(sources="[]"), "2:1", "sources", "empty"),
    Bad("number in a list", model(aliases="[mine, 7]"), "8:17", "aliases.1", "found 7, allowed: text"),
    Bad("list in a list", model(aliases="[[mine]]"), "8:11", "aliases.0", "allowed: text"),
    Bad("text for a mapping", model(moe="eight"),
        "8:1", "moe", "found 'eight', allowed: a mapping of correction_bias, dense, every, experts"),
    Bad("list for a mapping", model(mla="[1, 2]"), "8:1", "mla", "allowed: a mapping of kv_rank"),
    Bad("list for kinds", model(kinds="[A]"), "8:1", "kinds", "allowed: a mapping"),
    Bad("unknown word", model(norm="rmsnrom"), "8:1", "norm", "allowed: rmsnorm, layernorm, none; did you mean 'rmsnorm'?"),
    Bad("unknown word, no near one", model(positions="5d"), "8:1", "positions", "allowed: rotary, learned, sinusoidal, alibi"),
    Bad("unknown type", model(type="decoder-only"), "8:1", "type", "did you mean 'decoder'?"),
    Bad("unknown dtype", model(dtype="bfloat16"), "8:1", "dtype", "allowed: bf16, fp16, fp32"),
    Bad("unknown linear", model(biases="[qkv, output]"), "8:15", "biases.1", "found 'output', allowed: q, k, v, o"),
    Bad("number for a word", model(norm="1"), "8:1", "norm", "allowed: rmsnorm"),
    Bad("zero for none", model(parallel="0"), "8:1", "parallel", "one-norm"),
    Bad("zero for none, again", model(qk_norm="0"), "8:1", "qk_norm", "per-head"),
    Bad("false for none", model(parallel="false"), "8:1", "parallel", "none, one-norm, two-norms"),
    Bad("true where words are", model(parallel="true"), "8:1", "parallel", "one-norm, two-norms"),
    Bad("no family", model(family=None), "1:1", "family", "missing"),
    Bad("no sources", model(sources=None), "1:1", "sources", "missing"),
    Bad("no layers", model(layers=None), "1:1", "layers", "every model needs layers, hidden, vocab"),
    Bad("no heads, after a comment", "# mine\n\n" + model(heads=None), "3:1", "heads", "missing"),
    Bad("no FFN", model(ffn=None), "1:1", "ffn", "missing"),
    Bad("no experts", model(moe="{top_k: 2, ffn: 64}"), "8:1", "moe.experts", "missing"),
    Bad("a pool of tokens", model(index="{heads: 2, dim: 8, top_k: 4, pool: 2}"), "8:37", "index.pool", "has no meaning"),
    Bad("no rank", model(mla="{nope_dim: 8, rope_dim: 8, v_dim: 8}"), "8:1", "mla.kv_rank", "missing"),
    Bad("several mistakes", model(layers="0", vocab="1e6", zzz="1"), "3:1", "layers", "(and 2 more)"),
    Bad("KV heads that do not divide heads", model(kv_heads="3"), "8:1", "kv_heads", "3 KV heads do not divide 8 heads"),
    Bad("more KV heads than heads", model(kv_heads="16"), "8:1", "kv_heads", "16 KV heads do not divide 8 heads"),
    Bad("heads that do not divide hidden", model(heads="7"), "5:1", "heads", "7 heads do not divide hidden 64; say head_dim"),
    Bad("KV heads with latent attention", model(kv_heads="8", mla=LATENT), "8:1", "kv_heads", "mla"),
    Bad("QK-norm with latent attention", model(qk_norm="head", mla=LATENT), "8:1", "qk_norm", "mla"),
    Bad("more experts used than there are", model(moe="{experts: 8, top_k: 9, ffn: 64}"),
        "8:19", "moe.top_k", "9 is more than the 8 experts"),
    Bad("all layers dense", moe("first_dense: 4"), "8:38", "moe.first_dense", "leaves no mixture among 4 layers"),
    Bad("no layer is an n-th one", moe("every: 5"), "8:38", "moe.every", "5 is more than the 4 layers"),
    Bad("no layer is both an n-th one and past the dense", moe("every: 3, first_dense: 3"), "", "", "mixture"),
    Bad("gate of no shared expert", moe("shared_gate: true"), "8:38", "moe.shared_gate", "no shared expert"),
    Bad("dense layers without FFN", moe("first_dense: 1", ffn=None), "1:1", "ffn", "some layers are dense"),
    Bad("dense layers without FFN, router with bias", moe("first_dense: 1", ffn=None, biases="[router]"),
        "1:1", "ffn", "some layers are dense"),
    Bad("router of no mixture", model(biases="[router]"), "8:1", "biases", "no moe"),
    Bad("bias of no gate", model(gated="false", biases="[gate]"), "9:1", "biases", "gated: false"),
    Bad("bias of no norm", model(norm="none", norm_bias="true"), "9:1", "norm_bias", "no parameters"),
    Bad("parallel block with norms after", model(parallel="one-norm", norm_placement="post"), "8:1", "parallel", "post"),
    Bad("unknown letter", model(pattern="LX"), "8:1", "pattern", "'X' is no kind of layer; known: L, S"),
    Bad("pattern longer than the model", model(pattern="LLLLL"), "8:1", "pattern", "5 letters for 4 layers"),
    Bad("windowed letter without a window", model(pattern="SL"), "8:1", "pattern", "no window is given"),
    Bad("kind used nowhere", model(pattern="L", kinds="{A: {heads: 4}}"), "9:9", "kinds.A", "stands nowhere in the pattern"),
    Bad("kinds without a pattern", model(kinds="{A: {heads: 4}}"), "8:9", "kinds.A", "stands nowhere in the pattern"),
    Bad("kind of two letters", model(pattern="L", kinds="{AB: {heads: 4}}"), "9:9", "kinds.AB", "a kind is one letter or digit"),
    Bad("kind without a name", model(pattern="L", kinds="{'': {heads: 4}}"), "", "kinds", ""),
    Bad("heads of a kind", model(pattern="A", kinds="{A: {heads: 7}}"), "9:13", "kinds.A.heads", "7 heads do not divide hidden 64"),
    Bad("KV heads of a kind", model(pattern="A", kinds="{A: {kv_heads: 3}}"),
        "9:13", "kinds.A.kv_heads", "3 KV heads do not divide 8 heads"),
    Bad("encoder missing", model(type="encoder-decoder"), "1:1", "encoder", "missing; type encoder-decoder needs it"),
    Bad("encoder of a decoder", model(encoder="{layers: 2}"), "8:1", "encoder", "only with type: encoder-decoder"),
    Bad("encoder without layers", model(type="encoder-decoder", encoder="{heads: 8}"), "9:1", "encoder.layers", "missing"),
    Bad("heads of the encoder", model(type="encoder-decoder", encoder="{layers: 2, heads: 7}"),
        "9:22", "encoder.heads", "do not divide hidden"),
    Bad("pattern of the encoder", model(type="encoder-decoder", encoder="{layers: 2, pattern: X}"),
        "9:22", "encoder.pattern", "no kind of layer"),
    Bad("tied head without a head", model(head="false", tied_head="true"), "9:1", "tied_head", "no head (say head: true)"),
    Bad("tied head of an encoder", model(type="encoder", tied_head="true"), "9:1", "tied_head", "no head (say head: true)"),
    Bad("pooler of a decoder", model(pooler="true"), "8:1", "pooler", "an encoder's"),
    Bad("patches larger than the image", vision(patch="225"), "8:64", "vision.patch", "225 is more than the image side 224"),
    Bad("image tokens without an image", model(
        vision="{layers: 2, hidden: 32, heads: 4, ffn: 64, patch: 14, position_rows: 0, tokens: 4}"
    ), "8:81", "vision.tokens", "without image"),
    Bad("heads of the tower", vision(heads="5"), "8:33", "vision.heads", "5 heads do not divide hidden 32"),
    Bad("tower without an image", model(vision="{layers: 2, hidden: 32, heads: 4, ffn: 64, patch: 14}"),
        "8:1", "vision.image", "missing"),
    Bad("tower without heads", model(vision="{layers: 2, hidden: 32, ffn: 64, image: 28, patch: 14}"),
        "8:1", "vision.heads", "missing"),
    Bad("tower with more tokens than patches", vision(tokens="257"), "8:75", "vision.tokens", "256"),
    Bad("more dims rotated than a head has", model(rotary_dim="9"), "8:1", "rotary_dim", "9"),
    Bad("more distinct layers than layers", model(distinct_layers="5"), "8:1", "distinct_layers", "5 is more than the 4 layers"),
    Bad("shared layers of two kinds", model(distinct_layers="1", pattern="LA", kinds="{A: {ffn: 8}}"),
        "8:1", "distinct_layers", "alike"),
    Bad("shared layers, some of them dense", moe("first_dense: 1", distinct_layers="1"), "9:1", "distinct_layers", "alike"),
    Bad("rows of no table", model(position_rows="512"), "8:1", "position_rows", "positions: rotary"),
    Bad("learned positions without rows", model(positions="learned"), "8:1", "positions", "needs position_rows or context"),
    Bad("DeBERTa's positions in a decoder", model(positions="disentangled", context="512"), "8:1", "positions", "an encoder's"),
    Bad("buckets without a bias", model(relative_buckets="32"), "8:1", "relative_buckets", "positions: rotary"),
    Bad("rotated dims without rotation", model(positions="alibi", rotary_dim="4"), "9:1", "rotary_dim", "positions: alibi"),
    Bad("unpublished with an architecture", model(status="unpublished", note="not told"),
        "8:1", "status", "use estimate for hearsay"),
    Bad("unpublished without a note", "family: test\nsources: [none]\nstatus: unpublished\n", "1:1", "note", "missing"),
]  # fmt: skip

GPUS = [
    Bad("unknown key", gpu(bandwith_gb_s="5"), "8:1", "bandwith_gb_s", "did you mean 'bandwidth_gb_s'?"),
    Bad("memory with a unit", gpu(marketed_gb="80GB"), "4:1", "marketed_gb", "found '80GB'"),
    Bad("memory of nothing", gpu(marketed_gb="0"), "4:1", "marketed_gb", "more than 0"),
    Bad("negative bandwidth", gpu(bandwidth_gb_s="-2000.5"), "5:1", "bandwidth_gb_s", "more than 0"),
    Bad("infinite bandwidth", gpu(bandwidth_gb_s="1.0e999"), "5:1", "bandwidth_gb_s", "finite"),
    Bad("bandwidth as text", gpu(bandwidth_gb_s="2e3"), "5:1", "bandwidth_gb_s", TEXT_NUMBER),
    Bad("boolean rate", gpu(tflops="{fp16: true}"), "6:10", "tflops.fp16", "number"),
    Bad("unknown type of number", gpu(tflops="{bf17: 300}"), "6:10", "tflops.bf17", "did you mean 'bf16'?"),
    Bad("rates as a list", gpu(tflops="[300]"), "6:1", "tflops", "allowed: a mapping of bf16"),
    Bad("bytes with a fraction", gpu(cuda_bytes="85.5"), "8:1", "cuda_bytes", "allowed: a whole number"),
    Bad("year of no GPU", gpu(release_year="1989"), "8:1", "release_year", "at least 1990"),
    Bad("watts beyond all", gpu(tdp_w="100_001"), "8:1", "tdp_w", "at most 100000"),
    Bad("unknown status", gpu(status="sold out"), "8:1", "status", "allowed: available, announced"),
    Bad("link without a type", gpu(interconnect="{gb_s: 450}"), "8:1", "interconnect.type", "missing"),
    Bad("one price, no list", gpu(prices="{usd_per_hour: 2, provider: Cloud}"), "8:1", "prices", "allowed: a list"),
    Bad("price without provider", gpu(prices="[{usd_per_hour: 2}]"), "8:10", "prices.0.provider", "missing"),
    Bad("price as text", gpu(prices="[{usd_per_hour: $2, provider: Cloud}]"), "8:11", "prices.0.usd_per_hour", "found '$2'"),
    Bad("no vendor", gpu(vendor=None), "1:1", "vendor", "missing"),
    Bad("no rates", gpu(tflops=None), "1:1", "tflops", "missing"),
    Bad("not a mapping", "80\n", "1:1", "", "'key: value' lines"),
    Bad("duplicate key", gpu() + "vendor: Other\n", "8:1", "vendor", "twice, first on line 2"),
    Bad("anchor", gpu(note="&a text"), "8:7", "", "anchors and aliases"),
]  # fmt: skip

QUANTS = [
    Bad("unknown key", quant(formats="{bits: 4}"), "6:1", "formats", "did you mean 'format'?"),
    Bad("kind as a number", quant(kind="4"), "2:1", "kind", "allowed: text"),
    Bad("no bits", quant(format="{block: 32}"), "3:1", "format.bits", "missing"),
    Bad("bits with a fraction", quant(format="{bits: 4.5}"), "3:10", "format.bits", "allowed: a whole number"),
    Bad("too many bits", quant(format="{bits: 65}"), "3:10", "format.bits", "at most 64"),
    Bad("format as a name", quant(format="int4"), "3:1", "format", "allowed: a mapping of bits"),
    Bad("scale per block without a tile", overhead("block"), "3:54", "format.overhead.0.per", "tile"),
    Bad("scale per unknown", overhead("output"), "3:54", "format.overhead.0.per", "row, column, tensor, block"),
    Bad("scale per nothing", overhead("0"), "3:54", "format.overhead.0.per", "at least 1"),
    Bad("scale per half", overhead("0.5"), "3:54", "format.overhead.0.per", "found 0.5"),
    Bad("scale per too many", overhead("1_000_001"), "3:54", "format.overhead.0.per", "at most 1000000"),
    Bad("scale per list", overhead("[128]"), "3:54", "format.overhead.0.per", "found [128]"),
    Bad("overhead as a mapping", quant(format="{bits: 4, overhead: {name: a, bits: 4, per: 8}}"),
        "3:19", "format.overhead", "allowed: a list"),
    Bad("overhead without a name", quant(format="{bits: 4, overhead: [{bits: 4, per: 8}]}"),
        "3:30", "format.overhead.0.name", "missing"),
    Bad("unknown tensor", quant(rules="[{tensors: [linear], format: bad}]"),
        "4:20", "rules.0.tensors.0", "did you mean 'linears'?"),
    Bad("tensor without a list", quant(rules="[{tensors: all, format: bad}]"), "4:10", "rules.0.tensors", "allowed: a list"),
    Bad("rule for no tensors", quant(rules="[{tensors: [], format: bad}]"), "4:10", "rules.0.tensors", "empty"),
    Bad("rule without a format", quant(rules="[{tensors: [all]}]"), "4:9", "rules.0.format", "missing"),
    Bad("unknown choice of layers", quant(rules="[{tensors: [all], format: bad, layers: first}]"),
        "4:39", "rules.0.layers", "first-eighth"),
    Bad("yes in a rule", quant(rules="[{tensors: [all], format: bad, moe: yes}]"), "4:39", "rules.0.moe", "allowed: true, false"),
    Bad("stands instead of nothing", quant(rules="[{tensors: [all], format: bad}, {tensors: [q], format: fp16, instead_of: q4_0}]"),
        "4:69", "rules.1.instead_of", "the format of no rule"),
    Bad("stands instead of itself", quant(rules="[{tensors: [all], format: bad, instead_of: bad}]"),
        "4:39", "rules.0.instead_of", "cannot stand in for itself"),
    Bad("counts nothing", quant(rules="[{tensors: [all], format: bad, counted: tensors}]"),
        "4:39", "rules.0.counted", "say layers or first"),
    Bad("no rules", quant(rules=None), "1:1", "rules", "missing"),
    Bad("no sources", quant(sources=None), "1:1", "sources", "missing"),
    Bad("tag", quant(title="!!python/none x"), "1:8", "", "tag"),
    Bad("empty", "", "1:1", "", "found nothing"),
]  # fmt: skip

ROWS = [
    *NOT_YAML, *MODELS, *(row._replace(kind="gpus") for row in GPUS), *(row._replace(kind="quants") for row in QUANTS),
]  # fmt: skip
TABLE = [pytest.param(row, id=f"{row.kind[:-1]}: {row.name}") for row in ROWS]


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def one_line(text: str) -> bool:
    """Whether a terminal shows this as one line, and as it is."""
    return bool(text) and text.isprintable()


@pytest.mark.parametrize("row", TABLE)
def test_refused(row: Bad) -> None:
    with pytest.raises(SpecError) as caught:
        validate.validate(read.decode(as_bytes(row.text), "dir/bad.yaml"), row.kind)
    error, message = caught.value, str(caught.value)
    where = f"dir/bad.yaml:{error.line}:{error.column}: "
    assert message.startswith(where + (f"{error.field}: " if error.field else ""))
    assert error.file == "dir/bad.yaml"
    assert one_line(message)
    assert len(message) < 1000
    assert row.says in message
    if row.at:
        assert f"{error.line}:{error.column}" == row.at
    if row.field:
        assert error.field == row.field


def test_one_mistake_is_counted_once() -> None:
    """A field that may be one of two things is one mistake, whatever it is not."""
    with pytest.raises(SpecError) as caught:
        validate.validate(read.decode(overhead("output").encode(), "bad.yaml"), "quants")
    assert "more)" not in str(caught.value)


def clear_caches() -> None:
    for member in vars(catalogue).values():
        if hasattr(member, "cache_clear"):
            member.cache_clear()


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A catalogue of its own, with one good file of each kind and nothing compiled."""
    for kind, text in (("models", model()), ("gpus", gpu()), ("quants", quant())):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "good.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(catalogue, "folder", lambda: tmp_path)
    monkeypatch.setattr(catalogue, "compiled_folder", lambda: tmp_path / "compiled")
    clear_caches()
    yield tmp_path
    clear_caches()


def check(run: Run, file: Path, row: Bad, *arguments: str) -> None:
    """Running this must say: exit 2, nothing on stdout, one line on stderr that names the file, the place and the field."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"llmcalc: {file}:")
    assert err.endswith("\n")
    assert one_line(err[:-1])
    assert "Traceback" not in err
    said = re.match(r"(\d+:\d+): (.*)", err.removeprefix(f"llmcalc: {file}:"))
    assert said is not None
    assert row.says in said[2]
    assert said[1] == (row.at or said[1])
    if row.field:
        assert said[2].startswith(f"{row.field}: ")


@pytest.mark.parametrize("row", TABLE)
def test_the_command_refuses(row: Bad, specs: Path, run: Run) -> None:
    """A model as a file, a GPU or a quantisation as a file of the catalogue, which is how they get in."""
    file = specs / "bad.yaml" if row.kind == "models" else specs / row.kind / "bad.yaml"
    file.write_bytes(as_bytes(row.text))
    if row.kind == "models":
        check(run, file, row, "params", str(file))
    else:
        check(run, file, row, row.kind)


ZERO = Bad("zero", model(layers="0"), "3:1", "layers", "found 0, allowed: at least 1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["params", "FILE"], ["kv", "FILE"], ["flops", "FILE"], ["weights", "FILE"], ["weights", "FILE", "--quant", "all"],
        ["fit", "FILE", "--gpu", "good"], ["show", "FILE"], ["params", "good", "FILE"], ["params", "FILE", "--json"],
        ["kv", "FILE", "--explain"], ["params", "FILE", "FILE", "--format", "csv"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_command_refuses_a_bad_file(arguments: list[str], specs: Path, run: Run) -> None:
    file = specs / "bad.yaml"
    file.write_text(model(layers="0"), encoding="utf-8")
    check(run, file, ZERO, *(str(file) if word == "FILE" else word for word in arguments))


WATTS = Bad("watts", gpu(tdp_w="0"), "8:1", "tdp_w", "at least 1", "gpus")
BITS = Bad("bits", quant(format="{bits: 0}"), "3:10", "format.bits", "at least 1", "quants")


@pytest.mark.parametrize(
    ("row", "command"),
    [
        (ZERO, "params"), (ZERO, "models"), (ZERO, "params bad"),
        (WATTS, "gpus"), (WATTS, "show bad"), (WATTS, "fit good --gpu bad"),
        (BITS, "quants"), (BITS, "show bad"), (BITS, "weights good --quant bad"), (BITS, "weights good --quant all"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)  # fmt: skip
def test_a_bad_file_dropped_into_the_catalogue(row: Bad, command: str, specs: Path, run: Run) -> None:
    file = specs / row.kind / "bad.yaml"
    file.write_bytes(as_bytes(row.text))
    check(run, file, row, *command.split())


def test_a_rule_that_names_no_format(specs: Path, run: Run) -> None:
    file = specs / "quants" / "bad.yaml"
    file.write_text(quant(rules="[{tensors: [linears], format: nosuch}]"), encoding="utf-8")
    check(run, file, Bad("", "", "4:30", "rules.0.format", "nosuch"), "weights", "good", "--quant", "bad")


def test_weights_published_in_no_format(specs: Path, run: Run) -> None:
    file = specs / "bad.yaml"
    file.write_text(model(native_quant="nosuch"), encoding="utf-8")
    check(run, file, Bad("", "", "8:1", "native_quant", "nosuch"), "weights", str(file))


def test_a_file_that_is_not_there(tmp_path: Path, run: Run) -> None:
    file = tmp_path / "none.yaml"
    check(run, file, Bad("", "", "1:1", "", "cannot be read: No such file"), "params", str(file))


def test_a_folder(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    check(run, folder, Bad("", "", "1:1", "", "cannot be read"), "params", str(folder))


GOOD: dict[str, str | bytes] = {
    "as it is": model(),
    "a BOM": b"\xef\xbb\xbf" + model().encode(),
    "CRLF": model().replace("\n", "\r\n"),
    "no newline at the end": model().rstrip("\n"),
    "document markers": "---\n" + model() + "...\n",
    "a directive": "%YAML 1.2\n---\n" + model(),
    "comments": "# one\n" + model().replace("\n", "  # two\n"),
    "as JSON": '{"family": "test", "sources": ["a paper"], "layers": 4, "hidden": 64, "heads": 8, "ffn": 256, "vocab": 1000}',
    "underscores": model(vocab="1_000"),
    "null for what is not said": model(context="null", moe="~", kv_heads=""),
    "other scripts": model(title="通义千问 é"),
    "large, but no more than allowed": model() + "#" * 250_000 + "\n",
    "unpublished": "family: test\nsources: [none]\nstatus: unpublished\nnote: not told\n",
    "mixture": moe("first_dense: 3"),
    "vision": vision(),
    "kinds": model(pattern="SLA", window="128", kinds="{A: {heads: 4}}"),
}


@pytest.mark.parametrize("name", GOOD)
def test_accepted(name: str) -> None:
    """What the table above starts from is good, so each of its rows is refused for its own mistake."""
    document = read.decode(as_bytes(GOOD[name]), "good.yaml")
    assert validate.validate(document, "models").family == "test"


@pytest.mark.parametrize(
    ("kind", "text"), [("gpus", gpu()), ("quants", quant()), ("quants", overhead("128")), ("quants", overhead("row"))]
)
def test_accepted_of_other_kinds(kind: str, text: str) -> None:
    assert validate.validate(read.decode(text.encode(), "good.yaml"), kind).sources


ODD = {
    "shared layers of two kinds": model(layers="2", distinct_layers="1", pattern="SL", window="8"),
    "one of everything": model(layers="1", hidden="1", heads="1", ffn="1", vocab="1", context="1"),
    "as large as allowed": model(layers="10000", hidden="100_000_000", heads="1", ffn="100_000_000", vocab="100_000_000"),
    "a kind in every layer": model(layers="1000", pattern="AB", kinds="{A: {heads: 4}, B: {ffn: 9}}"),
    "all experts used": moe("shared: 2, shared_gate: true, every: 2"),
    "no context but learned rows": model(positions="learned", position_rows="3"),
    "narrow embedding, untied": model(embedding_dim="3", token_types="2", embedding_norm="true"),
    "an encoder with a head": model(type="encoder", head="true", tied_head="true", pooler="true"),
    "an encoder in a decoder's file": model(type="encoder-decoder", encoder="{layers: 1, pattern: S, window: 1}"),
}


@pytest.mark.parametrize(
    "command",
    [["params"], ["kv"], ["flops"], ["weights"], ["weights", "--quant", "all"], ["fit", "--gpu", "h100-sxm"], ["show"]],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ODD)
def test_whatever_is_accepted_can_be_computed(name: str, command: list[str], tmp_path: Path, run: Run) -> None:
    """An odd model gets an answer, or one message that refuses it; never an exception."""
    file = tmp_path / "odd.yaml"
    file.write_text(ODD[name], encoding="utf-8")
    code, out, err = run(command[0], str(file), *command[1:])
    if code == 2:
        assert err.startswith(f"llmcalc: {file}:")
        assert (out, err.count("\n")) == ("", 1)
    else:
        assert code in (0, 1)
        assert out


# Generated: good specs of the catalogue with one to three mistakes made in them.

WHOLE = ["1e6", "70B", "0x10", "seventy", "", [], [4], {}, {"value": 4}, True, False, "yes", 1.5, 2.0, -1, -(10**12), 10**30]
FIGURE = ["1e6", "80GB", "many", "", [], [4.5], {}, {"value": 4}, True, False, 0, -1, -0.5, 10**13, 1e300]
TEXT = ["", 5, 1.5, True, False, [], ["a"], {}, {"a": "b"}, "x" * 10_001]
FLAG = ["yes", "no", "on", "True", "", 0, 1, 2.0, [], [True], {}]
WORD = ["zzz", "", 5, 0, 1.5, True, False, [], {}, ["rmsnorm"]]
TEXTS: list[tuple[Any, str]] = [
    ("a name", ""), (5, ""), (True, ""), ({}, ""), ({"a": 1}, ""), ([5], ".0"), ([None], ".0"), ([""], ".0"), (["a", ["b"]], ".1"),
    (["a", "b", {}], ".2"),
]  # fmt: skip
WORDS: list[tuple[Any, str]] = [
    ("all", ""),
    (5, ""),
    ({}, ""),
    (["zzz"], ".0"),
    ([True], ".0"),
    (["all", ["all"]], ".1"),
    ([""], ".0"),
]
RECORD = [5, 1.5, "text", "", True, [], [1]]
RECORDS: list[tuple[Any, str]] = [("text", ""), (5, ""), ({}, ""), ({"a": 1}, ""), ([5], ".0"), (["x"], ".0"), ([[]], ".0")]


def whole(least: int, most: int) -> list[tuple[Any, str]]:
    return [(value, "") for value in (*WHOLE, least - 1, most + 1)]


# Values that no field of a type may have, and the part of the field that the message names beyond its own.
TYPES: dict[str, list[tuple[Any, str]]] = {
    "count": whole(1, 10**8),
    "count0": whole(0, 10**8),
    "layers": whole(1, 10_000),
    "published": whole(1, 10**18),
    "bits": whole(1, 64),
    "bits_beside": whole(1, 10**6),
    "share": whole(1, 100),
    "bytes": whole(0, 10**12),
    "watts": whole(1, 100_000),
    "year": whole(1990, 2100),
    "per": [(value, "") for value in ("rows", "", 0, -1, 10**6 + 1, 1.5, True, [], [128], {}, {"row": 1})],
    "figure": [(value, "") for value in FIGURE],
    "text": [(value, "") for value in TEXT],
    "flag": [(value, "") for value in FLAG],
    "texts": TEXTS,
    "sources": [*TEXTS, ([], "")],
    "words": WORDS,
    # Lists of words among which "all" is none.
    "named": [(value, ".0" if deeper == ".1" else deeper) for value, deeper in WORDS],
    "kinds": [(value, "") for value in RECORD],
    "shape": [(value, ".0" if isinstance(value, list) and value else "") for value in (*TEXT, [], 4)]
    + [([4, value], ".1") for value in (0, -1, 1.5, True, "4", 10**9)],
}
# Field -> type. A mapping has a tuple (the name of its record), a list of mappings a list of one; `!` marks what must be there.
MOE = {
    "experts": "count!", "top_k": "count!", "ffn": "count!", "shared": "count0", "shared_ffn": "count", "shared_gate": "flag",
    "first_dense": "count0", "every": "count", "correction_bias": "word buffer parameter", "dense": "count", "latent": "count",
    "gated": "flag", "idle": "count0", "fp32_router": "flag",
}  # fmt: skip
MLA = {"kv_rank": "count!", "q_rank": "count", "nope_dim": "count!", "rope_dim": "count0!", "v_dim": "count!"}
MIXER_TYPES = "mamba mamba2 gated-delta kimi-delta rg-lru rwkv lightning short-conv mlstm"
RECURRENT = {
    "type": f"word! {MIXER_TYPES}", "width": "count", "heads": "count", "head_dim": "count", "key_heads": "count",
    "key_dim": "count", "state": "count", "groups": "count", "rank": "count", "conv": "count", "conv_bias": "flag",
    "bias": "flag", "norm": "word none gated inputs", "chunk": "count",
}  # fmt: skip
PARTS = (
    "embedding positions projection attention cross_attention recurrent ffn experts shared_experts router norm pooler lm_head "
    "vision audio other"
)
EXTRA = {
    "name": "text!", "shape": "shape!", "part": f"word {PARTS}", "times": "count0",
    "rows": "word token encoder_token logit sequence patch image_token none", "copies": "count", "used": "count",
    "buffer": "flag", "after": "flag",
}  # fmt: skip
BLOCK = {
    "heads": "count", "kv_heads": "count", "head_dim": "count", "v_head_dim": "count", "attention": "flag", "ffn": "count0",
    "gated": "flag", "activation": "text",
    "biases": "words", "norm": "word rmsnorm layernorm none", "norm_bias": "flag",
    "norm_form": "word plain offset half upcast written", "scores": "word fp32 own upcast", "softcap": "flag",
    "fused": "named", "dropout": "named",
    "norm_placement": "word pre post sandwich output", "parallel": "word none one-norm two-norms",
    "qk_norm": "word none head per-head full", "window": "count", "sinks": "flag", "global_attention": "flag",
    "attention_norm": "flag", "ffn_norm": "flag", "qk_norm_bias": "flag", "chunked": "flag",
    "output_gate": "word none full head", "values_are_keys": "flag", "reuses_kv": "word none cache projections",
    "attention_experts": "count", "differential": "flag",
    "mla": "record mla", "moe": "record moe", "recurrent": "record recurrent", "index": "record index",
    "shared_blocks": "count", "image_cache": "count", "extra": "records extra", "states": "records state",
}  # fmt: skip
STACK = {
    **BLOCK, "layers": "layers!", "pattern": "text", "kinds": "kinds", "hidden": "count", "final_norm": "flag",
    "outside": "records extra",
}  # fmt: skip
RECORD_FIELDS: dict[str, dict[str, str]] = {
    "moe": MOE,
    "mla": MLA,
    "recurrent": RECURRENT,
    "index": {"heads": "count!", "dim": "count!", "top_k": "count!", "type": "word tokens pools blocks", "pool": "count"},
    "extra": EXTRA,
    "state": {"name": "text!", "shape": "shape!", "dtype": "word fp32 bf16 fp16"},
    "kind": {**BLOCK, "windowed": "flag"},
    "encoder": STACK,
    "vision": {
        **STACK, "image": "count", "patch": "count!", "channels": "count", "tokens": "count", "frames": "count",
        "patch_bias": "flag", "class_token": "flag", "position_rows": "count0", "embedding_norm": "flag",
        "projector": "word norm-linear linear mlp none",
    },
    "published": {"params": "published", "active": "published", "tokens": "published", "note": "text"},
    "models": {
        **STACK, "layers": "layers", "title": "text", "family": "text!", "aliases": "texts", "hub": "texts", "sources": "sources!",
        "status": "word published estimate unpublished", "note": "text", "published": "record published",
        "type": "word decoder encoder encoder-decoder", "hidden": "count", "vocab": "count", "context": "count",
        "dtype": "word bf16 fp16 fp32", "native_quant": "text",
        "distinct_layers": "layers", "encoder": "record encoder", "vision": "record vision", "audio": "record encoder",
        "unknown_cache": "text",
        "positions": "word rotary learned sinusoidal alibi relative disentangled none", "position_rows": "count",
        "rotary_dim": "count", "relative_buckets": "count", "token_types": "count0", "embedding_dim": "count",
        "embedding_norm": "flag", "final_norm": "flag", "pooler": "flag", "head": "flag", "tied_head": "flag",
        "head_bias": "flag", "logit_softcap": "flag",
    },
    "tflops": dict.fromkeys(("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp6", "fp4", "int8", "int4"), "figure"),
    "interconnect": {"type": "text!", "gb_s": "figure"},
    "price": {"usd_per_hour": "figure!", "provider": "text!", "kind": "text", "date": "text"},
    "gpus": {
        "title": "text!", "vendor": "text!", "architecture": "text!", "form_factor": "text", "aliases": "texts", "group": "texts",
        "marketed_gb": "figure!", "memory_type": "text", "cuda_bytes": "published", "driver_bytes": "published",
        "bandwidth_gb_s": "figure!", "tflops": "record! tflops", "tdp_w": "watts", "interconnect": "record interconnect",
        "gpus_per_node": "watts", "devices": "bits",
        "release_year": "year", "prices": "records price", "verified": "texts", "unverified": "texts",
        "sources": "sources!", "note": "text", "status": "word available announced",
    },
    "overhead": {"name": "text!", "bits": "bits_beside!", "per": "per!", "file_only": "flag"},
    "format": {"bits": "bits!", "overhead": "records overhead", "block": "count", "tile": "count"},
    "rule": {
        "tensors": "words!", "format": "text!", "instead_of": "text",
        "layers": "word more-bits first-eighth first-sixteenth middle", "first": "count",
        "counted": "word layers tensors running", "tied": "flag", "moe": "flag", "experts": "count", "min_experts": "count",
        "min_groups": "count", "depth": "count", "having": "texts", "lacking": "texts",
    },
    "quants": {
        "title": "text!", "kind": "text!", "aliases": "texts", "container": "word safetensors gguf",
        "format": "record! format", "rules": "records! rule", "runtimes": "texts", "earlier": "text",
        "sources": "sources!", "note": "text",
    },
}  # fmt: skip
ALLOCATION = {
    "utilization_percent": "share", "block": "count", "prompt_tokens": "count", "prompt_tokens_large": "count",
    "sequences": "count", "sequences_large": "count", "logit_bytes": "count", "graph_bytes": "bytes", "graphs_in_budget": "flag",
    "process_bytes": "bytes", "peer_bytes": "bytes", "state_blocks": "count", "hybrid_groups": "flag", "vocab_multiple": "count",
    "window_share_percent": "share", "latent": "word latent expanded", "mask_bytes": "count", "copies": "count",
}  # fmt: skip
RECORD_FIELDS |= {
    "allocation": ALLOCATION,
    "version": {**ALLOCATION, "before": "text", "since": "text", "why": "text!"},
    "padding": {"quants": "sources!", "architectures": "texts", "inner": "count!", "read": "count!", "written": "count!"},
    "runtimes": {
        "title": "text!", "kind": "word! paged static cells eager", "aliases": "texts", "allocation": "record! allocation",
        "versions": "records version", "expert_padding": "records padding", "error_percent": "errors",
        "sources": "sources!", "note": "text",
    },
}  # fmt: skip
NEEDED_OF_MODELS = ("layers", "hidden", "vocab")


def test_the_table_of_fields_is_complete() -> None:
    """Each record's fields here are those that a spec file may have, so that mistakes are made in all of them."""
    here = {frozenset(fields) for fields in RECORD_FIELDS.values()}
    schemas = [validate.json_schema(kind) for kind in catalogue.KINDS]
    records = [record for schema in schemas for record in (schema, *schema.get("$defs", {}).values()) if "properties" in record]
    there = {frozenset(record["properties"]) for record in records}
    # Told apart by what the nearest record here lacks or has too much, not by all of its fields.
    differences = [min((sorted(fields ^ other) for other in here), key=len) for fields in there]
    assert [names for names in differences if names] == []
    assert len(here) == len(there)


class Mapping(NamedTuple):
    """A mapping of a spec: where it is, what it holds, and the record that it stands for."""

    path: tuple[str | int, ...]
    data: dict[str, Any]
    record: str

    def at(self, key: str) -> str:
        return ".".join(map(str, (*self.path, key)))


def mappings(data: dict[str, Any], record: str, path: tuple[str | int, ...] = ()) -> list[Mapping]:
    """A spec's mappings, itself first."""
    found = [Mapping(path, data, record)]
    for key, value in data.items():
        what, *names = RECORD_FIELDS[record][key].split()
        if what.startswith("records"):
            for index, item in enumerate(value):
                found += mappings(item, names[0], (*path, key, index))
        elif what.startswith("record"):
            found += mappings(value, names[0], (*path, key))
        elif what == "kinds":
            for letter, kind in value.items():
                found += mappings(kind, "kind", (*path, key, letter))
    return found


@cache
def catalogue_specs() -> dict[tuple[str, str], dict[str, Any]]:
    """Kind and name -> data, of every file there is."""
    return {
        (kind, path.stem): read.read(path).data
        for kind in catalogue.KINDS
        for path in sorted((catalogue.folder() / kind).glob("*.yaml"))
    }


@cache
def names(kind: str) -> list[str]:
    """The files of a kind, those of several mappings (a mixture, kinds of layer) as often as they have some."""
    return [name for (k, name), data in catalogue_specs().items() if k == kind for _ in mappings(data, kind)]


Fields = Callable[[str], bool]
Draw = Callable[[st.SearchStrategy[Any]], Any]


def any_of(*fields: str) -> Fields:
    return lambda field: field in fields


def ends(*names: str) -> Fields:
    return lambda field: field.rsplit(".", 1)[-1] in names


def within(name: str) -> Fields:
    return lambda field: field == name or field.startswith(f"{name}.")


class Mistake(NamedTuple):
    """What was done: to which top-level keys, which fields a message about it may name, and text added at the end."""

    keys: frozenset[str]
    named: Fields
    what: str
    added: str = ""


def top(mapping: Mapping, key: str) -> frozenset[str]:
    return frozenset((str(mapping.path[0]) if mapping.path else key,))


def one(draw: Draw, options: Any) -> Any:
    return draw(st.sampled_from(list(options)))


def bad_values(record: str, key: str) -> list[tuple[Any, str]]:
    """Values that this field may not have, each with the part of the field that a message names beyond its own."""
    what, *words = RECORD_FIELDS[record][key].split()
    bad: list[tuple[Any, str]]
    if words and what.startswith("word"):
        near = [w for word in words for w in (f"{word}s", word[:-1], word.upper(), f" {word}") if w not in words]
        bad = [(value, "") for value in (*WORD, *near)]
    elif what.startswith("records"):
        bad = RECORDS
    elif what.startswith("record"):
        bad = [(value, "") for value in RECORD]
    else:
        bad = TYPES[what.rstrip("!")]
    # A needed field may not be null either.
    return [*bad, (None, "")] if what.endswith("!") else bad


def wrong_value(draw: Draw, kind: str, data: dict[str, Any]) -> Mistake:
    """A value of the wrong type or out of bounds, in a field that is there or not."""
    mapping = one(draw, mappings(data, kind))
    key = one(draw, RECORD_FIELDS[mapping.record])
    value, deeper = one(draw, bad_values(mapping.record, key))
    mapping.data[key] = copy.deepcopy(value)
    return Mistake(top(mapping, key), any_of(mapping.at(key) + deeper), f"{mapping.at(key)} = {value!r}")


def misspelt_key(draw: Draw, kind: str, data: dict[str, Any]) -> Mistake | None:
    filled = [m for m in mappings(data, kind) if m.data]
    if not filled:
        return None
    mapping = one(draw, filled)
    key = one(draw, mapping.data)
    at = draw(st.integers(0, len(key) - 1))
    spellings = (key[:at] + key[at + 1 :], key[:at] + key[at] + key[at:], key + "s", key.upper(), key.replace("_", "-"), "x" + key)
    wrong = one(draw, spellings)
    if wrong in RECORD_FIELDS[mapping.record] or not wrong:
        return None
    renamed = {wrong if k == key else k: value for k, value in mapping.data.items()}
    mapping.data.clear()
    mapping.data.update(renamed)
    # A needed key is also missed, where it stood or before.
    return Mistake(
        top(mapping, key) | top(mapping, wrong), any_of(mapping.at(wrong), mapping.at(key)), f"{mapping.at(key)} -> {wrong}"
    )


def unknown_key(draw: Draw, kind: str, data: dict[str, Any]) -> Mistake:
    mapping = one(draw, mappings(data, kind))
    key = one(draw, ("n_layer", "zzz", "_", "0", "Family", "heads ", "模型", "__class__", "<<", "true", "-", "layers:"))
    mapping.data[key] = copy.deepcopy(one(draw, (5, "text", [], {}, None)))
    return Mistake(top(mapping, key), any_of(mapping.at(key)), f"{mapping.at(key)} added")


def removed_key(draw: Draw, kind: str, data: dict[str, Any]) -> Mistake | None:
    needed = [
        (mapping, key)
        for mapping in mappings(data, kind)
        for key in mapping.data
        if "!" in RECORD_FIELDS[mapping.record][key].split()[0] or (mapping.record == "models" and key in NEEDED_OF_MODELS)
    ]
    if not needed:
        return None
    mapping, key = one(draw, needed)
    del mapping.data[key]
    return Mistake(top(mapping, key), any_of(mapping.at(key)), f"{mapping.at(key)} removed")


def nested(draw: Draw, kind: str, data: dict[str, Any]) -> Mistake | None:
    """A value put into a mapping or a list that does not belong there."""
    filled = [m for m in mappings(data, kind) if m.data]
    if not filled:
        return None
    mapping = one(draw, filled)
    key = one(draw, mapping.data)
    shape = one(draw, ("mapping", "list"))
    mapping.data[key] = {"value": mapping.data[key]} if shape == "mapping" else [mapping.data[key]]
    return Mistake(top(mapping, key), within(mapping.at(key)), f"{mapping.at(key)} in a {shape}")


def twice(draw: Draw, kind: str, data: dict[str, Any]) -> Mistake | None:  # noqa: ARG001 - all mistakes are made alike
    if not data:
        return None
    key = one(draw, data)
    return Mistake(frozenset((key,)), any_of(key), f"{key} twice", added=f"{key}: 5\n")


def impossible(draw: Draw, kind: str, data: dict[str, Any]) -> Mistake | None:
    """Values that are good one by one and cannot go together."""
    if kind == "quants" and data.get("format", {}).get("overhead"):
        data["format"].pop("tile", None)
        data["format"]["overhead"][0]["per"] = "block"
        return Mistake(frozenset(("format",)), any_of("format.overhead.0.per"), "per: block without a tile")
    if kind != "models" or not data.keys() >= set(NEEDED_OF_MODELS):
        return None
    made = one(draw, COMBINATIONS)
    named = made(data)
    return None if named is None else Mistake(COMBINATIONS[made], named, made.__name__)


def kv_heads(data: dict[str, Any]) -> Fields | None:
    if "mla" in data or "heads" not in data or "kinds" in data:
        return None
    data["kv_heads"] = data["heads"] + 1
    return ends("kv_heads")


def heads(data: dict[str, Any]) -> Fields | None:
    if "mla" in data or "head_dim" in data or "heads" not in data or "kinds" in data:
        return None
    data["heads"] = data["hidden"] + 1
    return ends("heads", "kv_heads")


def top_k(data: dict[str, Any]) -> Fields | None:
    if "moe" not in data:
        return None
    data["moe"]["top_k"] = data["moe"]["experts"] + 1
    return ends("top_k")


def first_dense(data: dict[str, Any]) -> Fields | None:
    if "moe" not in data:
        return None
    data["moe"]["first_dense"] = data["layers"]
    return ends("first_dense", "ffn")


def letter(data: dict[str, Any]) -> Fields | None:
    data["pattern"] = data.get("pattern", "")[1:] + "Q"
    return lambda field: field == "pattern" or field.startswith("kinds.")


def long_pattern(data: dict[str, Any]) -> Fields | None:
    data["pattern"] = data.get("pattern", "L") * (data["layers"] + 1)
    return any_of("pattern")


def unused_kind(data: dict[str, Any]) -> Fields | None:
    data.setdefault("kinds", {})["Z"] = {}
    return any_of("kinds.Z")


def no_window(data: dict[str, Any]) -> Fields | None:
    if "kinds" in data:  # what its layers are may stand there alone
        return None
    data["pattern"] = "S"
    data.pop("window", None)
    return any_of("pattern")


def distinct_layers(data: dict[str, Any]) -> Fields | None:
    data["distinct_layers"] = data["layers"] + 1
    return any_of("distinct_layers")


def encoder(data: dict[str, Any]) -> Fields | None:
    if data.pop("encoder", None) is None:
        data["encoder"] = {"layers": 2}
    return within("encoder")


def patch(data: dict[str, Any]) -> Fields | None:
    if "image" not in data.get("vision", {}):
        return None
    data["vision"]["patch"] = data["vision"]["image"] + 1
    return any_of("vision.patch")


def no_head(data: dict[str, Any]) -> Fields | None:
    data.update(head=False, tied_head=True)
    return any_of("tied_head", "head_bias")


def bias_of_no_norm(data: dict[str, Any]) -> Fields | None:
    data.update(norm="none", norm_bias=True)
    return ends("norm_bias")


def buckets(data: dict[str, Any]) -> Fields | None:
    data.update(positions="sinusoidal", relative_buckets=32)
    return any_of("relative_buckets", "rotary_dim", "position_rows")


def unpublished(data: dict[str, Any]) -> Fields | None:
    data["status"] = "unpublished"
    return any_of("status", "note")


def parallel(data: dict[str, Any]) -> Fields | None:
    data.update(parallel="two-norms", norm_placement="sandwich")
    return ends("parallel")


# Each with the top-level fields that it depends on: no other mistake may undo what it did.
STACKS = frozenset(("encoder", "kinds", "pattern", "window", "layers", "type"))
COMBINATIONS: dict[Callable[[dict[str, Any]], Fields | None], frozenset[str]] = {
    kv_heads: STACKS | {"kv_heads", "heads", "mla"},
    heads: STACKS | {"heads", "hidden", "head_dim", "mla", "kv_heads"},
    top_k: STACKS | {"moe"},
    first_dense: STACKS | {"moe", "ffn", "biases"},
    letter: STACKS,
    long_pattern: STACKS,
    unused_kind: STACKS,
    no_window: STACKS,
    distinct_layers: STACKS | {"distinct_layers"},
    encoder: STACKS | {"moe"},
    patch: frozenset(("vision",)),
    no_head: frozenset(("head", "tied_head", "head_bias", "type")),
    bias_of_no_norm: STACKS | {"norm", "norm_bias"},
    buckets: frozenset(("positions", "relative_buckets", "rotary_dim", "position_rows")),
    unpublished: frozenset(("status", "note", "layers", "hidden")),
    parallel: STACKS | {"parallel", "norm_placement"},
}
KINDS_OF_MISTAKE = (
    wrong_value,
    wrong_value,
    wrong_value,
    misspelt_key,
    unknown_key,
    removed_key,
    nested,
    twice,
    impossible,
    impossible,
)


@st.composite
def bad_specs(draw: Draw) -> tuple[str, str, list[Mistake]]:
    """A catalogue file's kind, its text with one to three mistakes in different fields, and what they are."""
    kind = one(draw, ("models", "models", "models", "gpus", "quants"))
    name = one(draw, names(kind))
    data = copy.deepcopy(catalogue_specs()[kind, name])
    made: list[Mistake] = []
    for _ in range(draw(st.integers(1, 3))):
        # No mistake is made where one was made before: it might undo it.
        spoilt = frozenset[str]().union(*(mistake.keys for mistake in made))
        rest = {key: copy.deepcopy(value) for key, value in data.items() if key not in spoilt}
        mistake = one(draw, KINDS_OF_MISTAKE)(draw, kind, rest)
        if mistake is None and not made:
            mistake = unknown_key(draw, kind, rest)
        if mistake is not None and not mistake.keys & spoilt:
            data = {**rest, **{key: value for key, value in data.items() if key in spoilt}}
            made.append(mistake)
    return kind, dumped(data) + "".join(mistake.added for mistake in made), made


def place(text: str, field: str) -> tuple[int, int]:
    """Line and column of a field, or of the nearest around it, found by PyYAML's own composer."""
    node: Any = yaml.compose(text, Loader=yaml.CSafeLoader)
    mark = node.start_mark
    for step in field.split("."):
        if isinstance(node, yaml.MappingNode):
            entries = [(key, value) for key, value in node.value if key.value == step]
            if not entries:
                break
            # Of a key that stands twice, the second is the mistake.
            key, node = entries[-1]
            mark = key.start_mark
        elif isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
            node = node.value[int(step)]
            mark = node.start_mark
        else:
            break
    return mark.line + 1, mark.column + 1


def refused_at(kind: str, text: str) -> SpecError:
    """The error of a bad spec, once its place was compared with the field's, and its message is in order."""
    with pytest.raises(SpecError) as caught:
        validate.validate(read.decode(text.encode(), "generated.yaml"), kind)
    error = caught.value
    assert error.file == "generated.yaml"
    assert (error.line, error.column) == place(text, error.field)
    assert str(error).startswith(f"generated.yaml:{error.line}:{error.column}: {error.field}: ")
    assert one_line(str(error))
    return error


def dumped(data: dict[str, Any]) -> str:
    return yaml.dump(data, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)


EVERYTHING: dict[str, str] = {
    "models": model(
        moe="{experts: 8, top_k: 2, ffn: 64}", mla=LATENT, published="{params: 5}", pattern="A",
        kinds="{A: {moe: {experts: 8, top_k: 2, ffn: 64}}}", encoder="{layers: 2}",
        vision="{layers: 2, hidden: 32, image: 28, patch: 14, mla: " + LATENT + "}",
    ),
    "gpus": gpu(interconnect="{type: link}", prices="[{usd_per_hour: 1, provider: a}, {usd_per_hour: 2, provider: b}]"),
    "quants": overhead("128"),
}  # fmt: skip
PLACES = [
    pytest.param(kind, mapping.path, key, bad_values(mapping.record, key), id=f"{kind}: {mapping.at(key)}")
    for kind, text in EVERYTHING.items()
    for mapping in mappings(read.decode(text.encode(), kind).data, kind)
    for key in RECORD_FIELDS[mapping.record]
]


@pytest.mark.parametrize(("kind", "path", "key", "values"), PLACES)
def test_every_wrong_value_of_every_field(kind: str, path: tuple[str | int, ...], key: str, values: list[tuple[Any, str]]) -> None:
    """One mistake at a time, in each field that there is."""
    for value, deeper in values:
        data: Any = read.decode(EVERYTHING[kind].encode(), kind).data
        mapping = data
        for step in path:
            mapping = mapping[step]
        mapping[key] = copy.deepcopy(value)
        error = refused_at(kind, dumped(data))
        assert error.field == ".".join(map(str, (*path, key))) + deeper, repr(value)


@settings(max_examples=2500, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(bad_specs())
def test_generated(bad: tuple[str, str, list[Mistake]]) -> None:
    kind, text, made = bad
    what = "; ".join(mistake.what for mistake in made)
    error = refused_at(kind, text)
    assert any(mistake.named(error.field) for mistake in made), f"{what}: the message names {error.field!r}"
