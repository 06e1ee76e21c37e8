"""MODEL on the command line -> blueprint; --quant and --gpu -> what the engines take."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llmcalc.blueprint.lower import lower
from llmcalc.blueprint.parts import Blueprint
from llmcalc.errors import SpecError, UnknownName, Unpublished, UsageError
from llmcalc.specs import catalogue
from llmcalc.specs.model import ModelSpec

if TYPE_CHECKING:
    from llmcalc.engines.weights import Method
    from llmcalc.importers import sources
    from llmcalc.importers.tensors import Checkpoint
    from llmcalc.specs.quant import Format

DEFAULT_CONTEXT = 8192


class Model(NamedTuple):
    """A model that was asked for; ``notes`` say how it was come by, where it is no entry of the catalogue."""

    name: str
    spec: ModelSpec
    blueprint: Blueprint
    path: Path
    notes: tuple[str, ...] = ()


def _spec_file(text: str) -> Path | None:
    """The spec file that MODEL means, where it looks like a path."""
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or (path.suffix == "" and "/" in text and path.is_file()):
        return path
    return None


def is_spec_file(text: str) -> bool:
    """Whether MODEL means a file rather than a name."""
    return _spec_file(text) is not None


def spec_data(text: str) -> dict[str, Any]:
    """What a spec file says, as plain data. Raises SpecError."""
    from llmcalc.specs import read

    return read.read(Path(text)).data


def model(text: str) -> Model:
    """MODEL: a catalogue name, alias or hub id, a spec file, a config or checkpoint, or an id on the hub.

    Raises UnknownName, Unpublished, SpecError, UnknownArchitecture, SourceError.
    """
    if not text.strip():
        raise UsageError("MODEL is empty")
    path = _spec_file(text)
    if path is not None:
        from llmcalc.specs import read, validate

        name, spec = path.stem, validate.validate(read.read(path), "models")
    elif _is_elsewhere(text):
        return lowered(imported(text), text)
    else:
        name, spec = catalogue.model_spec(text)
        path = catalogue.path("models", name)
    if spec.status == "unpublished":
        raise Unpublished(f"{text}: {spec.note}")
    return Model(name, spec, lower(spec, name), path)


def as_trained(model: Model) -> Blueprint:
    """The model with a loss: an encoder that comes without a head gets that of masked language modelling."""
    with_loss = any(op.kind == "loss" for op in model.blueprint.ops)
    return model.blueprint if with_loss else lower(model.spec, model.name, masked=True)


def _is_elsewhere(text: str) -> bool:
    """Whether MODEL means files, or a repository that the catalogue does not have."""
    # A name of the catalogue may have a point in it, which is no reason to import what reads files.
    pointed = "." in text and (Path(text).exists() or not catalogue.knows("models", text))
    if not pointed and not any(mark in text for mark in "/\\@") and not Path(text).is_dir():
        return False
    from llmcalc.importers import sources

    if sources.is_source(text):
        return True
    if "/" not in text or catalogue.knows("models", text):
        return False
    from llmcalc.importers import hub

    return hub.is_hub_id(text)


def imported(text: str) -> "sources.Found":
    """What files or a repository say of a model, not lowered yet. Raises SpecError, UnknownArchitecture, SourceError."""
    from llmcalc.importers import sources

    return sources.local(text) if sources.is_source(text) else sources.from_hub(text)


def lowered(found: "sources.Found", text: str) -> Model:
    """The model that files or a repository hold. Tensors win over what the config predicts."""
    notes = list(found.notes)
    if found.spec is None:
        from llmcalc.importers import stored

        assert found.checkpoint is not None
        spec = ModelSpec(family="tensors", sources=[found.checkpoint.source])
        blueprint = stored.bare(found.checkpoint, found.name)
        return Model(found.name, spec, blueprint, Path(text), tuple(notes))
    spec = built(found.spec, text)
    blueprint = lower(spec, found.name)
    if found.checkpoint is None:
        return Model(found.name, spec, blueprint, Path(text), tuple(f"{found.name}: {note}" for note in notes))
    from llmcalc.importers import stored

    compared = stored.compare(blueprint, found.checkpoint)
    model = Model(found.name, spec, compared.blueprint, Path(text))
    notes += [*compared.notes, *_unlike(model, found.checkpoint)]
    return model._replace(notes=tuple(f"{found.name}: {note}" for note in notes))


def _unlike(model: Model, checkpoint: "Checkpoint") -> list[str]:
    """The note on files whose bytes are not those that their quantisation's rules come to."""
    from llmcalc.engines import weights

    method, word = stored_as(model, None, None)
    predicted = weights.size(model.blueprint, method).weight_bytes
    held = sum(tensor.bytes for tensor in checkpoint.tensors)
    if abs(held - predicted) <= 0.005 * predicted:
        return []
    return [f"the files hold {held:,} bytes of tensors, {word} would be {predicted:,}, which weights and fit go by"]


def built(data: dict[str, Any], source: str) -> ModelSpec:
    """The record of a spec's data that was not written by hand. Raises SpecError for a combination that no model has."""
    from llmcalc.specs.rules import check_model

    spec = catalogue.build(ModelSpec, data)
    for field, fault in check_model(spec):
        raise SpecError(f"describes no model that can be: {'.'.join(map(str, field))}: {fault}", source, 0)
    return spec


def models(texts: list[str]) -> list[Model]:
    """Several models; one bad name refuses them all."""
    return [model(text) for text in texts]


def whole_catalogue(family: str | None = None) -> list[Model]:
    """Every model with an architecture, by family and then size. Raises UnknownName for a family nobody has."""
    entries = catalogue.entries("models").values()
    if family is not None:
        wanted = catalogue.plain(family)
        kept = [e for e in entries if catalogue.plain(e.data["family"]) == wanted]
        if not kept:
            from difflib import get_close_matches

            families = sorted({e.data["family"] for e in entries})
            raise UnknownName("family", family, get_close_matches(family, families, n=3), "llmcalc models lists them")
        entries = kept  # type: ignore[assignment]
    found = []
    for entry in entries:
        if entry.data.get("status") != "unpublished":
            spec = catalogue.build(ModelSpec, entry.data)
            found.append(Model(entry.name, spec, lower(spec, entry.name), entry.path))
    size = {m.name: sum(w.elements for w in m.blueprint.weights) for m in found}
    return sorted(found, key=lambda m: (m.spec.family, size[m.name], m.name))


def chosen(texts: list[str] | None, family: str | None) -> tuple[list[Model], bool]:
    """The models named, or the catalogue's; and whether they were named. Raises UsageError for both at once."""
    if texts and family is not None:
        raise UsageError("--family filters the catalogue; leave it out where models are named")
    return (models(texts), True) if texts else (whole_catalogue(family), False)


def _at(path: Path, field: tuple[str | int, ...], error: Exception) -> SpecError:
    """An error that a value of a spec file leads to, at the place of the value."""
    from llmcalc.specs import read

    return read.read(path).error(field, str(error))


def method(name: str) -> "Method":
    """A quantisation with the formats that its rules name. Raises UnknownName."""
    from llmcalc.engines.weights import Method

    found, spec = catalogue.quant_spec(name)
    formats = {}
    for number, rule in enumerate(spec.rules):
        try:
            formats[rule.format] = catalogue.quant_spec(rule.format)[1].format
        except UnknownName as error:
            raise _at(catalogue.find("quants", found).path, ("rules", number, "format"), error) from None
    return Method(found, tuple(spec.rules), formats, tuple(spec.sources))


def stored_as(model: Model, quant: str | None, dtype: str | None) -> "tuple[Method, str]":
    """How a model's weights are held: as asked, else as published. The method, and a word for it.

    Raises UnknownName, and UsageError for a --dtype that the quantisation leaves nothing to apply to.
    """
    if quant is not None:
        found, spec = catalogue.quant_spec(quant)
        if spec.kind == "float" and dtype not in (None, found):
            raise UsageError(f"--quant {found} sets every tensor, so --dtype {dtype} contradicts it")
        return method(found), found
    if dtype is None and model.spec.native_quant is not None:
        try:
            return method(model.spec.native_quant), model.spec.native_quant
        except UnknownName as error:
            raise _at(model.path, ("native_quant",), error) from None
    return unquantised(), dtype or model.blueprint.dtype


def unquantised() -> "Method":
    """No quantisation: every tensor in its own dtype."""
    from llmcalc.engines.weights import Method

    return Method("none", (), {})


def context_of(asked: int | None, blueprint: Blueprint) -> int:
    """``--ctx``, or 8192, or the trained context where that is shorter."""
    if asked is not None:
        return asked
    return min(DEFAULT_CONTEXT, blueprint.context or DEFAULT_CONTEXT)


def format_bits(form: "Format") -> float:
    """Bits per weight of a 4096 x 4096 tensor in a format, scales and zero points included."""
    from llmcalc.engines.weights import tensor_bytes
    from llmcalc.quantity import Dim

    side = Dim(4096, "n")
    return 8 * int(tensor_bytes((side, side), form)) / int(side) ** 2
