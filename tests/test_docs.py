"""Every console block of the documentation is run, and prints what the page shows."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmcalc import resolve
from llmcalc.blueprint.lower import lower
from llmcalc.engines import flops, kv, params
from llmcalc.importers import classes, config_json
from llmcalc.importers.config import Source
from llmcalc.specs import read, rules, validate, write
from tests.console import GENERATED, ROOT, Step, agrees, generated, pages, run, steps

STEPS = [step for page in pages() for step in steps(page)]


@pytest.mark.parametrize("step", [pytest.param(s, id=f"{s.file.name}:{s.line}") for s in STEPS])
def test_console_blocks(step: Step) -> None:
    got = run(step.command)
    shown = [line.rstrip() for line in step.shown]
    assert agrees(shown, got), "\n".join(got) + "\n\npython tests/console.py brings the pages up to date"


def test_the_pages_have_console_blocks() -> None:
    by_page = {page.name: len(steps(page)) for page in pages()}
    assert by_page["README.md"] >= 5
    assert by_page["conventions.md"] >= 3
    assert by_page["spec-format.md"] >= 3


def test_a_changed_output_is_noticed() -> None:
    assert agrees(["a", "...", "z"], ["a", "b", "c", "z"])
    assert agrees(["a", "..."], ["a"])
    assert not agrees(["a", "...", "z"], ["a", "b", "c"])
    assert not agrees(["total 1"], ["total 2"])


def test_the_spec_in_the_readme_is_a_model_of_ten_lines() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    assert len(block[1].splitlines()) <= 10
    validate.validate(read.parse(block[1], "README.md"), "models")


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in pages()])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_anchors_in_links_exist() -> None:
    for page in pages():
        for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            if target.startswith("http"):
                continue
            text = ((page.parent / target) if target else page).read_text(encoding="utf-8")
            heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower().replace("`", "")).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{page.name} links to {target}#{anchor}"


def test_counts_in_the_readme_are_the_catalogues() -> None:
    from llmcalc.specs import catalogue

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"(\d+) models, (\d+) GPUs, (\d+) quantisations and (\d+) runtimes", text)
    assert found is not None
    assert [int(n) for n in found.groups()] == [len(catalogue.entries(kind)) for kind in catalogue.KINDS]


def test_examples_are_valid() -> None:
    for path in sorted((ROOT / "docs" / "examples").glob("*.yaml")):
        if path.stem != "broken":
            assert resolve.model(str(path)).blueprint.weights
            assert yaml.safe_load(path.read_text(encoding="utf-8"))


# Sections of docs/spec-format.md -> the records whose fields their tables list.
LAYER = ("Attention", "FFN", "Norms", "What a layer shares, keeps and adds", "What training keeps")
SECTIONS = {
    "ModelSpec": ("Identity and sources", "Shape", "Positions and ends", *LAYER),
    "Kind": ("Layers that differ: `pattern` and `kinds`", *LAYER),
    "Stack": ("Shape", *LAYER),
    "Vision": ("Encoders and towers", "Shape", *LAYER),
    "Moe": ("Mixture of experts: `moe`",),
    "Mla": ("Multi-head latent attention: `mla`",),
    "Index": ("Index of sparse attention: `index`",),
    "Recurrent": ("Recurrent mixers",),
    "Extra": ("Further tensors: `extra` and `outside`",),
    "PublishedFigures": ("Identity and sources",),
    "State": ("What a layer shares, keeps and adds",),
}
# Records whose fields stand in the row of the field that holds them.
IN_A_ROW = {"PublishedFigures": "published", "State": "states"}


def rows(title: str) -> dict[str, str]:
    """Field -> the rest of its row, of the tables of fields in one section."""
    text = (ROOT / "docs" / "spec-format.md").read_text(encoding="utf-8")
    section = re.split(r"^##+ ", text.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    found: dict[str, str] = {}
    for table in re.findall(r"^\| field \|.*\n((?:\|.*\n)+)", section, re.MULTILINE):
        for first, rest in re.findall(r"^\| (`.*?) \| (.*)$", table, re.MULTILINE):
            found |= dict.fromkeys(re.findall(r"`(\w+)`", first), rest)
    return found


def properties() -> Iterator[tuple[str, str, Any]]:
    """Record, field and schema of each field of a model's spec."""
    schema = validate.json_schema("models")
    for record, definition in {"ModelSpec": schema, **schema["$defs"]}.items():
        for field, said in definition["properties"].items():
            yield record, field, said


def words(said: Any) -> set[str]:
    """The words that a field allows."""
    options = [said, *said.get("anyOf", ()), said.get("items", {})]
    return {word for option in options for word in (*option.get("enum", ()), *option.get("items", {}).get("enum", ()))}


@pytest.mark.parametrize(("record", "field", "said"), [pytest.param(*each, id=".".join(each[:2])) for each in properties()])
def test_every_field_is_in_the_tables_with_its_words(record: str, field: str, said: Any) -> None:
    listed = {name: rest for title in reversed(SECTIONS[record]) for name, rest in rows(title).items()}
    if record in IN_A_ROW:
        listed = dict.fromkeys(re.findall(r"`(\w+)`", row := listed[IN_A_ROW[record]]), row)
    assert field in listed
    if record == "Recurrent" and field == "type":
        return  # in the table of types
    if field == "biases":
        return  # below the table
    assert words(said) <= set(re.findall(r"`([\w-]+)`", listed[field]))


def test_the_tables_list_no_other_fields() -> None:
    known = {field for _, field, _ in properties()}
    for titles in SECTIONS.values():
        for title in titles:
            assert set(rows(title)) <= known, title


def test_the_table_of_mixers_says_what_each_type_needs() -> None:
    text = (ROOT / "docs" / "spec-format.md").read_text(encoding="utf-8")
    table = text.split("| type | needs | tensors | state |\n", 1)[1].split("\n\n", 1)[0]
    cells = [line.split("|")[1:3] for line in table.splitlines()[1:]]
    assert {kind.strip(" `"): tuple(re.findall(r"`(\w+)`", needs)) for kind, needs in cells} == rules.MIXERS


def test_words_of_biases_are_named() -> None:
    text = (ROOT / "docs" / "spec-format.md").read_text(encoding="utf-8")
    allowed = next(words(said) for record, field, said in properties() if (record, field) == ("Kind", "biases"))
    paragraph = text.split("`biases` takes the names", 1)[1].split("\n\n", 1)[0]
    assert allowed <= set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", paragraph))))


def test_generated_tables_are_up_to_date() -> None:
    text = (ROOT / "docs" / "importing.md").read_text(encoding="utf-8")
    found = {name: body for _, name, body, _ in GENERATED.findall(text)}
    made = {name: generated(name) for name in ("types", "refused", "gguf")}
    assert found == made, "python tests/console.py brings them up to date"


def test_the_release_of_transformers_is_the_one_read() -> None:
    text = (ROOT / "docs" / "importing.md").read_text(encoding="utf-8")
    assert set(re.findall(r"transformers (\d[\d.]*\d)", text)) == {classes.version()}


@pytest.mark.parametrize("name", ["small-gemma", "small-mamba"])
def test_configs_among_the_examples_are_shown_as_they_are_and_go_round(name: str, tmp_path: Path) -> None:
    folder = ROOT / "docs" / "examples" / name
    page = (ROOT / "docs" / "importing.md").read_text(encoding="utf-8")
    shown = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert name != "small-gemma" or (folder / "config.json").read_text(encoding="utf-8") in shown
    source = resolve.imported(str(folder))
    assert source.spec is not None
    (tmp_path / f"{name}.yaml").write_text(write.write(source.spec), encoding="utf-8")
    assert resolve.model(str(tmp_path / f"{name}.yaml")).blueprint == resolve.model(str(folder)).blueprint


# Specs among the examples, and the config that they were written after (its class's defaults are DeepSeek-V3.2's own).
WRITTEN_AFTER = {
    "deepseek-v3.2-exp": {"model_type": "deepseek_v32", "architectures": ["DeepseekV32ForCausalLM"]},
    "nemotron-nano-9b-v2": {
        "model_type": "nemotron_h", "architectures": ["NemotronHForCausalLM"], "hidden_size": 4480, "intermediate_size": 15_680,
        "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131_072,
        "max_position_embeddings": 131_072, "hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-",
        "mamba_num_heads": 128, "mamba_head_dim": 80, "n_groups": 8, "ssm_state_size": 128, "conv_kernel": 4, "chunk_size": 128,
        "tie_word_embeddings": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN_AFTER)
def test_real_examples_count_as_their_configs_do(name: str) -> None:
    found = config_json.from_config(WRITTEN_AFTER[name], Source("config.json"))
    from_it = lower(resolve.built(found.spec, name), name)
    written = resolve.model(str(ROOT / "docs" / "examples" / f"{name}.yaml")).blueprint
    assert params.count(written) == params.count(from_it)
    assert kv.size(written, 10_000) == kv.size(from_it, 10_000)
    assert flops.count(written, 10_000) == flops.count(from_it, 10_000)


def test_the_published_count_of_the_hybrid_example() -> None:
    """As the hub lists the elements of its safetensors files."""
    blueprint = resolve.model(str(ROOT / "docs" / "examples" / "nemotron-nano-9b-v2.yaml")).blueprint
    assert params.count(blueprint).total == 8_888_227_328
