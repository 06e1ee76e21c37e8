"""Properties over invented models: parts add up, more of anything never takes less, YAML round trips change nothing."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcalc import resolve
from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.engines import fit, flops, kv, params, weights
from llmcalc.specs import catalogue, read, validate

QUANTS = sorted(catalogue.entries("quants"))


@st.composite
def specs(draw: Any) -> dict[str, Any]:
    """A spec that is valid, as plain data: any mixture of what the format can say."""
    kind = draw(st.sampled_from(["decoder", "decoder", "encoder", "encoder-decoder"]))
    kv_heads = draw(st.integers(1, 4))
    heads = kv_heads * draw(st.integers(1, 4))
    layers = draw(st.integers(1, 9))
    spec: dict[str, Any] = {
        "family": "invented", "sources": ["a test"], "type": kind, "layers": layers, "heads": heads,
        "hidden": heads * draw(st.integers(1, 24)), "vocab": draw(st.integers(1, 5000)), "ffn": draw(st.integers(1, 600)),
        "context": draw(st.integers(1, 100_000)), "gated": draw(st.booleans()),
        "norm": draw(st.sampled_from(["rmsnorm", "layernorm", "none"])),
        "biases": draw(st.sampled_from([["all"], ["qkv"], ["attention", "ffn"], ["o", "down"]])),
        "positions": draw(st.sampled_from(["rotary", "learned", "alibi", "relative", "none"])),
    }  # fmt: skip
    if draw(st.booleans()):
        spec["head_dim"] = draw(st.integers(1, 200))
    latent = kind == "decoder" and draw(st.integers(0, 3)) == 0
    if latent:
        spec["mla"] = {"kv_rank": draw(st.integers(1, 300)), "nope_dim": draw(st.integers(1, 100)),
                       "rope_dim": draw(st.integers(1, 100)), "v_dim": draw(st.integers(1, 100))}  # fmt: skip
        if draw(st.booleans()):
            spec["mla"]["q_rank"] = draw(st.integers(1, 300))
    else:
        spec["kv_heads"] = kv_heads
        spec["qk_norm"] = draw(st.sampled_from(["none", "head", "per-head", "full"]))
        spec["sinks"] = draw(st.booleans())
    if draw(st.booleans()):
        spec["moe"] = {"experts": (experts := draw(st.integers(1, 12))), "top_k": draw(st.integers(1, experts)),
                       "ffn": draw(st.integers(1, 300)), "shared": draw(st.integers(0, 2)),
                       "every": (every := draw(st.integers(1, layers))),
                       "first_dense": draw(st.integers(0, layers // every * every - 1))}  # fmt: skip
    if draw(st.booleans()):
        spec["window"] = draw(st.integers(1, 5000))
        if draw(st.booleans()):
            spec["pattern"] = draw(st.text("SL", min_size=1, max_size=layers))
    placement = draw(st.sampled_from(["pre", "post", "sandwich", "output"]))
    spec["norm_placement"] = placement
    if placement == "pre":
        spec["parallel"] = draw(st.sampled_from(["none", "one-norm", "two-norms"]))
    if kind == "encoder":
        spec["pooler"] = draw(st.booleans())
    else:
        spec["tied_head"] = draw(st.booleans())
    if kind == "encoder-decoder":
        spec["encoder"] = {"layers": layers + draw(st.integers(0, 4))}
    return spec


def blueprint(spec: dict[str, Any]) -> Blueprint:
    document = read.parse(json.dumps(spec), "invented.yaml")
    return lower(validate.validate(document, "models"), "invented")


SETTINGS = settings(max_examples=120, deadline=None)


@given(specs())
@SETTINGS
def test_parts_add_up_and_nothing_is_negative(spec: dict[str, Any]) -> None:
    b = blueprint(spec)
    c = params.count(b)
    assert sum(c.parts.values()) == c.total == params.explain(b).value
    assert sum(c.active_parts.values()) == c.active == params.explain(b, active=True).value
    assert 0 < c.active <= c.total
    assert all(value >= 0 for value in c.parts.values())
    assert c.embedding + c.lm_head <= c.total


@given(specs(), st.integers(1, 300_000), st.integers(1, 64), st.sampled_from(sorted(kv.CACHE_BITS)))
@SETTINGS
def test_more_context_or_batch_never_takes_less(spec: dict[str, Any], context: int, batch: int, dtype: str) -> None:
    b = blueprint(spec)
    less = kv.size(b, context, batch, dtype, context)
    for more in (kv.size(b, context + 1, batch, dtype, context + 1), kv.size(b, context, batch + 1, dtype, context)):
        assert more.kv_bytes >= less.kv_bytes
        assert more.total >= less.total
    assert less.bytes_per_token <= less.bytes_per_token_windowed
    assert kv.explain(b, context, batch, dtype, context).value == less.kv_bytes
    if b.caches and dtype == "bf16" and not any(cache.window for cache in b.caches):
        assert less.kv_bytes == batch * context * less.bytes_per_token


@given(specs(), st.integers(1, 5000), st.integers(1, 8))
@SETTINGS
def test_flops(spec: dict[str, Any], context: int, batch: int) -> None:
    b = blueprint(spec)
    c = flops.count(b, context, batch, encoder_context=context)
    assert 0 < c.forward_causal <= c.forward_full == c.forward
    assert c.training == c.forward + c.backward
    assert c.prefill <= c.forward
    assert flops.count(b, context, 2 * batch, encoder_context=context).forward == 2 * c.forward
    assert flops.explain(b, context, batch, encoder_context=context).value == c.forward
    if c.decode_per_token is not None:
        assert flops.explain_decode(b, context, batch, encoder_context=context).value == c.decode_per_token
    assert (c.decode_per_token is None) == (spec["type"] == "encoder")


@given(specs(), st.sampled_from(QUANTS))
@SETTINGS
def test_no_quantisation_takes_less_than_its_bits(spec: dict[str, Any], name: str) -> None:
    b, method = blueprint(spec), resolve.method(name)
    size = weights.size(b, method)
    least = min(16, *(form.bits for form in method.formats.values()))
    stored = sum(w.elements for w in b.weights)
    assert size.weight_bytes * 8 >= least * stored
    assert sum(size.parts.values()) == size.weight_bytes == weights.explain(b, method).value
    assert weights.size(b, resolve.unquantised(), "fp32").weight_bytes == 4 * stored


@given(specs())
@SETTINGS
def test_a_deeper_model_is_larger(spec: dict[str, Any]) -> None:
    deeper = {**spec, "layers": spec["layers"] + 1}
    assert params.count(blueprint(deeper)).total > params.count(blueprint(spec)).total


@given(specs(), st.integers(1, 5), st.integers(1, 2000), st.integers(1, 8), st.integers(0, 2**31))
@SETTINGS
def test_fit_over_gpus(spec: dict[str, Any], gpus: int, context: int, batch: int, available: int) -> None:
    """The verdict, the number of GPUs and the largest context and batch all say the same."""
    demand = fit.Demand(blueprint(spec), resolve.unquantised(), reserve=2**20, encoder_context=context)
    answer = fit.fit(demand, available, gpus=gpus, context=context, batch=batch)
    assert answer.fits == (answer.min_gpus is not None and answer.min_gpus <= gpus)
    assert answer.fits == (answer.max_batch is None or answer.max_batch >= batch)
    if answer.max_context is not None and context <= spec["context"]:
        assert answer.fits == (answer.max_context >= context)
    if answer.max_batch:
        assert fit.fit(demand, available, gpus=gpus, context=context, batch=answer.max_batch).fits
        assert not fit.fit(demand, available, gpus=gpus, context=context, batch=answer.max_batch + 1).fits
    if answer.max_context:
        assert fit.fit(demand, available, gpus=gpus, context=answer.max_context, batch=batch).fits
        if answer.max_context < spec["context"]:
            assert not fit.fit(demand, available, gpus=gpus, context=answer.max_context + 1, batch=batch).fits
    whole = fit.fit(demand, available, gpus=1, context=context, batch=batch).load
    assert answer.load.weight_bytes <= whole.weight_bytes == demand.weight_bytes
    assert whole.kv_bytes == demand.cache_bytes(context, batch)


def test_weights_over_gpus_sum_to_the_whole() -> None:
    for name in ("llama3-70b", "deepseek-v3", "t5-3b", "gemma3-4b", "albert-base-v2", "gpt-oss-20b", "mixtral-8x7b"):
        for quant in ("nf4", "q4_k_m", "fp8-block"):
            b, method = resolve.model(name).blueprint, resolve.method(quant)
            assert sum(fit.Demand(b, method).weights) == weights.size(b, method).weight_bytes


@given(specs())
@SETTINGS
def test_the_compiled_catalogue_gives_the_same_record(spec: dict[str, Any]) -> None:
    """Building from validated data and reading the YAML lower to one blueprint."""
    from llmcalc.specs.model import ModelSpec

    assert lower(catalogue.build(ModelSpec, spec), "invented") == blueprint(spec)


@pytest.mark.parametrize("name", ["llama3-8b", "deepseek-v3", "gemma3-4b", "t5-base", "albert-base-v2"])
def test_a_catalogue_file_read_directly_is_the_catalogue_model(name: str) -> None:
    path = catalogue.entries("models")[name].path
    assert resolve.model(str(path)).blueprint == resolve.model(name).blueprint


def check_dataflow(b: Blueprint) -> None:
    """Within a layer, what an operation reads has been written before it, and what it writes is read after it."""
    given_to_layers = {"x", "encoded", "positions"}
    layers: dict[str, list[Any]] = {}
    for op in b.ops:
        if op.layers:
            layers.setdefault(op.name.rpartition(".")[0], []).append(op)
    for ops in layers.values():
        written = set(given_to_layers)
        for op in ops:
            assert set(op.reads) <= written, f"{op.name} reads {set(op.reads) - written}"
            written.add(op.writes)
        read = {name for op in ops for name in op.reads}
        assert {op.writes for op in ops} - read <= {"x"}, "written, never read"
        assert ops[-1].writes == "x"


@given(specs())
@SETTINGS
def test_activations_are_written_before_they_are_read(spec: dict[str, Any]) -> None:
    check_dataflow(blueprint(spec))


def test_activations_of_the_whole_catalogue() -> None:
    for model in resolve.whole_catalogue():
        check_dataflow(model.blueprint)
