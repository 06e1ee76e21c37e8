"""Models read from the hub: the real client against a hub on the loopback interface, with everything that can go wrong."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

from llmcalc.errors import LlmcalcError, SourceError, SpecError
from llmcalc.importers import hub as importer
from llmcalc.importers import hub_files
from llmcalc.importers.hub import fetch, is_hub_id
from tests.hub_server import COMMIT, Handler, Hub, Repo, Sparse, safetensors, serving

client = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")

ROOT = Path(__file__).parents[1]
CONFIG = {"model_type": "llama", "hidden_size": 64}
# 4 GB of data behind a header of a few hundred bytes.
BIG = safetensors({"model.embed_tokens.weight": ("BF16", [1_000_000, 2000])})
SHARDS = {f"model-0000{i}-of-00003.safetensors": safetensors({f"layers.{i}.w": ("F32", [i, 8])}, pad=i) for i in (1, 2, 3)}
INDEX = {"metadata": {}, "weight_map": {f"layers.{i}.w": name for i, name in enumerate(SHARDS, 1)}}


def text(value: object) -> Sparse:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Sparse(raw, len(raw))


SINGLE = Repo({"config.json": text(CONFIG), "model.safetensors": BIG})
SHARDED = Repo({"config.json": text(CONFIG), "model.safetensors.index.json": text(INDEX), **SHARDS})


def with_file(name: str, file: Sparse, repo: Repo = SINGLE) -> Repo:
    return repo._replace(files={**repo.files, name: file})


def with_index(weight_map: object) -> Repo:
    return with_file("model.safetensors.index.json", text({"weight_map": weight_map}), SHARDED)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own for the client: no token, empty caches, no proxy."""
    for name, value in {
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_ASSETS_CACHE": str(tmp_path / "assets"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_STORED_TOKENS_PATH": str(tmp_path / "stored_tokens"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
        "HF_HUB_DOWNLOAD_TIMEOUT": 20,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client.close_session()
    yield tmp_path
    client.close_session()


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a model in one file, a model in three, and the client pointed at it."""
    assert home.is_dir()
    with serving() as server:
        point(monkeypatch, server.url)
        server.repos |= {"org/single": SINGLE, "org/sharded": SHARDED}
        yield server


def point(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/name", True),
        ("meta-llama/Llama-3.1-8B@main", True),
        ("org/name@refs/pr/3", True),
        ("a/b", True),
        ("_a/b_", True),
        ("org/" + "n" * 96, True),
        ("org/" + "n" * 97, False),
        ("llama3-70b", False),
        ("org/name/more", False),
        ("/org/name", False),
        ("org/", False),
        ("org/-name", False),
        ("org/name.", False),
        ("org/na--me", False),
        ("org/na..me", False),
        ("org/name.git", False),
        ("org/name@", False),
        ("org/name@../../x", False),
        ("org/name@a b", False),
        ("org/name@/x", False),
        ("../name", False),
        ("org/näme", False),
        ("org/name\n", False),
        ("https://huggingface.co/org/name", False),
        ("", False),
    ],
)
def test_ids_are_those_that_the_client_allows(name: str, expected: bool) -> None:
    assert is_hub_id(name) is expected
    if expected:
        import_module("huggingface_hub.utils").validate_repo_id(name.partition("@")[0])


def test_a_text_that_is_no_id_is_refused_before_anything_is_asked(hub: Hub) -> None:
    with pytest.raises(SourceError, match="no hub id; allowed: org/name and org/name@revision"):
        fetch("org/name/more", tensors=False)
    assert hub.asked() == []


# What works.


def test_a_config_alone(hub: Hub) -> None:
    found = fetch("org/single", tensors=False)
    assert found == ("org/single", COMMIT, CONFIG, None, ())
    assert hub.asked() == ["config.json"]


def test_one_file_of_4_gb_costs_its_first_100_kb(hub: Hub) -> None:
    found = fetch("org/single", tensors=True)
    assert found.checkpoint is not None
    assert found.checkpoint.tensors == (("model.embed_tokens.weight", (1_000_000, 2000), "BF16", 4 * 10**9),)
    assert found.checkpoint.file_bytes == BIG.size > 4 * 10**9
    assert found.checkpoint.files == ("org/single/model.safetensors",)
    assert hub.requests[-1].headers["range"] == "bytes=0-99999"
    assert hub.asked() == ["config.json", "model.safetensors"]
    assert hub.sent == hub_files.FIRST_BYTES + len(json.dumps(CONFIG))


def test_shards_are_read_in_the_order_of_their_names_and_of_one_commit(hub: Hub) -> None:
    found = fetch("org/sharded", tensors=True).checkpoint
    assert found is not None
    assert [(tensor.name, tensor.shape) for tensor in found.tensors] == [(f"layers.{i}.w", (i, 8)) for i in (1, 2, 3)]
    assert found.files == tuple(f"org/sharded/{name}" for name in SHARDS)
    assert found.file_bytes == sum(file.size for file in SHARDS.values())
    revisions = [request.path.split("/resolve/")[1].split("/")[0] for request in hub.requests]
    assert revisions == ["main"] + [COMMIT] * 5


@pytest.mark.parametrize("pad", [100_000 - 200, 100_000, 1_000_000])
def test_a_long_header_is_asked_for_in_two_parts(hub: Hub, pad: int) -> None:
    file = safetensors({"w": ("F32", [10**6])}, pad=pad)
    hub.repos["org/single"] = with_file("model.safetensors", file)
    found = fetch("org/single", tensors=True).checkpoint
    assert found is not None
    assert found.elements == 10**6
    header = len(file.start)
    assert hub.sent - len(json.dumps(CONFIG)) == max(header, hub_files.FIRST_BYTES)


def test_no_safetensors_is_a_note(hub: Hub) -> None:
    hub.repos["org/old"] = Repo({"config.json": text(CONFIG), "pytorch_model.bin": text(b"")})
    found = fetch("org/old", tensors=True)
    assert (found.config, found.checkpoint) == (CONFIG, None)
    assert found.notes == ("org/old: no model.safetensors and no model.safetensors.index.json; counts come from the config",)


def test_a_revision_can_be_named(hub: Hub) -> None:
    assert fetch(f"org/single@{COMMIT}", tensors=True).revision == COMMIT
    assert {request.path.split("/")[4] for request in hub.requests} == {COMMIT}


def test_a_server_that_names_no_commit_gives_the_revision(hub: Hub, home: Path) -> None:
    hub.repos["org/single"] = SINGLE._replace(commit=None)
    assert fetch("org/single", tensors=True).revision == "main"
    assert not (home / "assets").exists()


def test_a_server_that_ignores_ranges_is_hung_up_on(hub: Hub) -> None:
    def whole(request: Handler) -> None:
        request.answer(200, BIG, {"X-Repo-Commit": COMMIT})

    hub.faults["model.safetensors"] = whole
    found = fetch("org/single", tensors=True).checkpoint
    assert found is not None
    assert found.elements == 2 * 10**9
    assert hub.sent < 32 * 2**20, "4 GB were on offer; what stood in the sockets' buffers went out"


def test_a_long_header_from_a_server_that_ignores_ranges(hub: Hub) -> None:
    file = safetensors({"w": ("F32", [10**6])}, pad=300_000)
    hub.faults["model.safetensors"] = lambda request: request.answer(200, file, {"X-Repo-Commit": COMMIT})
    found = fetch("org/single", tensors=True).checkpoint
    assert found is not None
    assert (found.elements, found.file_bytes) == (10**6, file.size)


# The token.


def test_the_token_goes_to_the_endpoint_and_not_to_where_it_redirects(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.token = "hf_secret"
    with serving() as storage:
        hub.storage = storage
        storage.repos["org/single"] = SINGLE
        found = fetch("org/single", tensors=True)
        assert [request.headers.get("authorization") for request in hub.requests] == ["Bearer hf_secret"] * 2
        (moved,) = storage.requests
        assert "authorization" not in moved.headers
        assert "hf_secret" not in repr(moved)
        assert moved.headers["range"] == "bytes=0-99999"
    assert found.checkpoint is not None
    assert found.checkpoint.file_bytes == BIG.size


def test_the_stored_token_is_used_and_can_be_held_back(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "token").write_text("hf_stored\n")
    fetch("org/single", tensors=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    fetch("org/single", tensors=False)
    assert [request.headers.get("authorization") for request in hub.requests] == ["Bearer hf_stored", None]


@pytest.mark.parametrize("token", ["hf_\x01secret", "hf_sécret", "hf secret"])
def test_a_broken_token_is_not_quoted(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SourceError, match="the token in HF_TOKEN") as raised:
        fetch("org/single", tensors=False)
    assert "cret" not in str(raised.value)
    assert hub.asked() == []


def test_a_repository_with_a_new_name_is_followed_with_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    hub.moved["org/old-name"] = "org/single"
    found = fetch("org/old-name", tensors=True)
    assert (found.config, found.revision) == (CONFIG, COMMIT)
    assert found.checkpoint is not None
    assert [request.headers.get("authorization") for request in hub.requests] == ["Bearer hf_mine"] * 4


def test_a_commit_that_is_none_names_no_folder(hub: Hub, home: Path) -> None:
    hub.repos["org/single"] = SINGLE._replace(commit="../../../evil")
    assert fetch("org/single", tensors=True).revision == "main"
    assert sorted(home.iterdir()) == []


# Caches.


def test_a_second_run_asks_one_question_and_an_offline_one_none(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, first in {"org/single": 2, "org/sharded": 6}.items():
        found = fetch(name, tensors=True)
        assert len(hub.asked()) == first
        assert fetch(name, tensors=True) == found
        assert hub.asked() == ["config.json"]
        assert fetch(f"{name}@{COMMIT}", tensors=True).config == CONFIG
        assert hub.asked() == []
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert fetch(name, tensors=True) == found
        assert hub.asked() == []
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_a_branch_that_moved_is_read_anew(hub: Hub) -> None:
    fetch("org/single", tensors=True)
    moved = with_file("config.json", text({"hidden_size": 128}))._replace(commit="f" * 40)
    hub.repos["org/single"] = moved
    found = fetch("org/single", tensors=True)
    assert (found.revision, found.config) == ("f" * 40, {"hidden_size": 128})


def test_what_the_client_downloaded_is_read_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers leaves it: the files themselves in the client's own cache."""
    small = safetensors({"w": ("F32", [2, 3])})
    hub.repos["org/single"] = with_file("model.safetensors", small)
    for name in ("config.json", "model.safetensors"):
        client.hf_hub_download("org/single", name)
    hub.asked()
    online = fetch("org/single", tensors=True)
    assert hub.asked() == ["config.json"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = fetch("org/single", tensors=True)
    assert found == online
    assert found.checkpoint is not None
    assert (found.revision, found.checkpoint.elements, found.checkpoint.file_bytes) == (COMMIT, 6, small.size)
    assert hub.asked() == []


def test_offline_with_nothing_cached_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="org/single is not in the cache, and HF_HUB_OFFLINE is set: unset it"):
        fetch("org/single", tensors=True)
    assert hub.asked() == []


@pytest.mark.parametrize("name", ["org/single", "org/sharded"])
@pytest.mark.usefixtures("hub")
def test_offline_with_the_config_alone_is_a_note(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fetch(name, tensors=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = fetch(name, tensors=True)
    assert (found.config, found.checkpoint) == (CONFIG, None)
    assert found.notes == (f"{name}: offline, and no safetensors headers in the cache; counts come from the config",)


@pytest.mark.parametrize("down", ["refused", "busy"])
def test_the_cache_stands_in_for_a_hub_that_is_down(hub: Hub, monkeypatch: pytest.MonkeyPatch, down: str) -> None:
    found = fetch("org/sharded", tensors=True)
    if down == "refused":
        point(monkeypatch, "http://127.0.0.1:9")
    else:
        hub.faults["config.json"] = lambda request: request.answer(503, b"", {})
    again = fetch("org/sharded", tensors=True)
    assert again[:4] == found[:4]
    (note,) = again.notes
    assert note.startswith("org/sharded: ")
    assert note.endswith("; read from the cache instead")


def test_a_cache_that_cannot_be_written_is_done_without(hub: Hub, home: Path) -> None:
    (home / "assets").write_text("in the way")
    assert fetch("org/sharded", tensors=True) == fetch("org/sharded", tensors=True)
    assert len(hub.asked()) == 12


def test_caches_that_are_broken_are_done_without(hub: Hub, home: Path) -> None:
    """Refs that are not text, files where folders should be."""
    found = fetch("org/single", tensors=True)
    for folder in (home / "assets" / "llmcalc" / "org--single", home / "hub" / "models--org--single"):
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_bytes(b"\xff\0")
    (home / "hub" / "models--org--single" / "snapshots").write_text("in the way")
    assert fetch("org/single", tensors=True) == found
    hub.repos["org/single"] = SINGLE._replace(commit="f" * 40)
    assert fetch("org/single", tensors=True).revision == "f" * 40


def test_a_file_with_a_mistake_is_not_kept(hub: Hub) -> None:
    """It may have been cut off on the way."""
    hub.repos["org/sharded"] = with_file("model.safetensors.index.json", text(b'{"weight_map": {'), SHARDED)
    for _ in range(2):
        with pytest.raises(SpecError, match="not valid JSON"):
            fetch(f"org/sharded@{COMMIT}", tensors=True)
    hub.repos["org/sharded"] = SHARDED
    assert fetch(f"org/sharded@{COMMIT}", tensors=True).checkpoint is not None


# What the hub refuses.


def answer(status: int, body: bytes = b"", **headers: str) -> Callable[[Handler], None]:
    return lambda request: request.answer(status, body, {key.replace("_", "-"): value for key, value in headers.items()})


def test_gated_without_and_with_a_token_that_may_not(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["org/gated"] = SINGLE._replace(gated=True)
    expected = f"org/gated is gated: accept its licence at {hub.url}/org/gated and set HF_TOKEN to a token of that account"
    for token in ("", "hf_other"):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(SourceError) as raised:
            fetch("org/gated", tensors=True)
        assert str(raised.value) == expected
    hub.token = "hf_other"
    assert fetch("org/gated", tensors=True).checkpoint is not None


@pytest.mark.parametrize("token", ["", "hf_mine"])
@pytest.mark.usefixtures("hub")
def test_a_repository_that_is_not_there_or_private(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SourceError, match=r"no such repository at http://127\.0\.0\.1:[0-9]+, or a private one: then set HF_TOKEN"):
        fetch("org/absent", tensors=True)


def test_a_token_that_is_not_accepted(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hub.token = "hf_right"
    with pytest.raises(SourceError, match="does not accept the token of HF_TOKEN"):
        fetch("org/single", tensors=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("org/single@v9", "org/single has no revision 'v9'"),
        ("org/bare", "org/bare has no config.json to read a model from; a GGUF file of it can be downloaded and named instead"),
    ],
)
def test_what_is_not_there(hub: Hub, name: str, message: str) -> None:
    hub.repos["org/bare"] = Repo({"README.md": text(b"")})
    with pytest.raises(SourceError) as raised:
        fetch(name, tensors=True)
    assert str(raised.value) == message


# What goes wrong on the way: the answer to a request for one file, and what is said about it.

FAULTS: list[tuple[str, str, Callable[[Handler], None], str]] = [
    (
        "403",
        "config.json",
        answer(403, X_Error_Message="Token lacks a permission"),
        "127.0.0.1 answers 403 (Token lacks a permission): the token",
    ),
    ("429", "config.json", answer(429, Retry_After="100000"), "127.0.0.1 answers 429; try again later"),
    ("500", "config.json", answer(500), "127.0.0.1 answers 500; try again later"),
    ("503 for a header", "model.safetensors", answer(503), "127.0.0.1 answers 503; try again later"),
    ("escapes", "config.json", answer(500, X_Error_Message="\x1b[31mred"), "answers 500 (\\x1b[31mred)"),
    (
        "redirects for ever",
        "config.json",
        answer(302, Location="config.json"),
        "gives no answer: Exceeded maximum allowed redirects",
    ),
    ("redirect to a file", "config.json", answer(302, Location="file:///etc/passwd"), "gives no answer: "),
    ("redirect to nowhere", "config.json", answer(302), "127.0.0.1 answers 302; try again later"),
    ("not HTTP", "config.json", Handler.babble, "gives no answer: "),
    ("hangs up", "config.json", Handler.hang_up, "gives no answer: Server disconnected"),
    ("silent", "config.json", Handler.say_nothing, "gives no answer: timed out"),
    (
        "truncated",
        "config.json",
        lambda request: request.answer(200, b'{"a', {}, length=100),
        "gives no answer: peer closed connection",
    ),
    (
        "larger than allowed",
        "config.json",
        lambda request: request.answer(200, Sparse(b"{", 2**24 + 1), {}),
        "config.json: larger than 16 MiB",
    ),
    ("not JSON", "config.json", answer(200, b"<html>"), "org/single/config.json:1:1: not valid JSON: expecting value"),
    ("not an object", "config.json", answer(200, b"[]"), "org/single/config.json: is no JSON object"),
    ("empty", "config.json", answer(200, b""), "org/single/config.json:1:1: not valid JSON: expecting value"),
    ("deep", "config.json", answer(200, b'{"a":' + b"[" * 10**5), "nested more than 100 deep"),
    ("packed", "config.json", answer(200, b"{}", Content_Encoding="gzip"), "gives no answer: "),
    ("empty header", "model.safetensors", answer(416), "org/single/model.safetensors: 0 bytes; a safetensors file has at least 8"),
    (
        "header of 2^60",
        "model.safetensors",
        lambda request: request.send_file(Sparse(struct.pack("<Q", 2**60) + b"{", 2**62), {}),
        "no safetensors file: a header of 1,152,921,504,606,846,976 bytes",
    ),
    (
        "header of 99 MB",
        "model.safetensors",
        lambda request: request.send_file(Sparse(struct.pack("<Q", 99 * 10**6) + b"{", 2**32), {}),
        "a header of 99,000,000 bytes; llmcalc reads up to",
    ),
    (
        "header beyond the end",
        "model.safetensors",
        lambda request: request.send_file(Sparse(struct.pack("<Q", 1000) + b"{", 500), {}),
        "truncated: 508 bytes of the header are missing",
    ),
    (
        "short range",
        "model.safetensors",
        answer(206, b"\x10\0\0\0\0\0\0\0{}", Content_Range="bytes 0-99999/4000000"),
        "the server sends 10 bytes of the 100,000 asked for",
    ),
    ("another range", "model.safetensors", answer(206, b"{}", Content_Range="bytes 8-9/100"), "sends another range of bytes"),
    ("no range", "model.safetensors", answer(206, b"{}"), "sends another range of bytes"),
    (
        "wrong unit",
        "model.safetensors",
        answer(206, b"{}", Content_Range="bytes 0-" + "9" * 5000 + "/1"),
        "sends another range of bytes",
    ),
]


@pytest.mark.parametrize(("name", "fault", "message"), [pytest.param(*case[1:], id=case[0]) for case in FAULTS])
def test_a_fault_is_one_clear_line(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[[Handler], None], message: str
) -> None:
    if fault is Handler.say_nothing:
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    hub.faults[name] = fault
    with pytest.raises(LlmcalcError) as raised:
        fetch("org/single", tensors=True)
    assert message in str(raised.value)
    assert str(raised.value).isprintable()
    assert str(raised.value).startswith("org/single")


def test_a_dripping_answer_ends(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_files, "PATIENCE", 0.3)
    hub.faults["config.json"] = Handler.drip
    with pytest.raises(SourceError, match=r"org/single/config.json: not here after 0.3 seconds"):
        fetch("org/single", tensors=True)


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9 gives no answer: [Errno "),
        ("nonsense", "nonsense gives no answer: Request URL is missing an 'http://' or 'https://' protocol"),
        ("http://{x}", "gives no answer: "),
    ],
)
def test_no_hub_there(home: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str, message: str) -> None:
    assert home.is_dir()
    point(monkeypatch, endpoint)
    with pytest.raises(SourceError) as raised:
        fetch("org/single", tensors=True)
    assert message in str(raised.value)


# Indices.


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        (with_index([]), "weight_map"),
        (with_index({}), "weight_map"),
        (with_index({"w": 1}), "found 1, allowed: the name of a .safetensors file"),
        (with_index({"w": "../../other/resolve/main/model.safetensors"}), "allowed: the name of a .safetensors file"),
        (with_index({"w": "..safetensors/../x.safetensors"}), "allowed: the name of a .safetensors file"),
        (with_index({"w": "\x1b[2J.safetensors"}), "x1b[2J.safetensors' is no plain file name"),
        (with_index({"w": "pytorch_model.bin"}), "allowed: the name of a .safetensors file"),
        (with_index({"w": "absent.safetensors"}), "absent.safetensors"),
        (with_index({f"w{i}": f"{i}.safetensors" for i in range(2001)}), "2,001 files; allowed: 2,000"),
        (with_file("model.safetensors.index.json", text([]), SHARDED), "weight_map"),
        (with_file("model-00002-of-00003.safetensors", safetensors({"layers.1.w": ("F32", [1])}), SHARDED), "layers.1.w"),
    ],
)
def test_indices_that_are_refused(hub: Hub, repo: Repo, message: str) -> None:
    hub.repos["org/sharded"] = repo
    with pytest.raises(SpecError) as raised:
        fetch("org/sharded", tensors=True)
    assert message in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.usefixtures("hub")
def test_headers_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_files, "HEADERS_LIMIT", 2 * len(next(iter(SHARDS.values())).start))
    with pytest.raises(SpecError, match="headers of more than"):
        fetch("org/sharded", tensors=True)


# The client itself, in processes of their own: it reads the environment once.


def python(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    settings |= {"HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False)


FETCH = """
from llmcalc.errors import LlmcalcError
from llmcalc.importers.hub import fetch
try:
    print(fetch("org/sharded", tensors=True).checkpoint.elements)
except LlmcalcError as error:
    print(type(error).__name__, error)
"""


def test_the_environment_is_the_clients(hub: Hub, tmp_path: Path) -> None:
    """Endpoint, token, home and offline mode; and nothing is printed but the answer."""
    home = tmp_path / "home"
    online = python(FETCH, home, HF_ENDPOINT=hub.url, HF_TOKEN="hf_mine")
    assert (online.stdout, online.stderr) == ("48\n", "")
    assert {request.headers["authorization"] for request in hub.requests} == {"Bearer hf_mine"}
    assert len(hub.asked()) == 6
    offline = python(FETCH, home, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert (offline.stdout, offline.stderr) == ("48\n", "")
    assert hub.asked() == []


def test_the_environment_says_how_long_to_wait(hub: Hub, tmp_path: Path) -> None:
    hub.faults["config.json"] = Handler.say_nothing
    done = python(FETCH, tmp_path, HF_ENDPOINT=hub.url, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert done.stdout == f"Unreachable org/sharded: {hub.url} gives no answer: timed out\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("code", "environment", "message"),
    [
        ("import sys; sys.modules['huggingface_hub'] = None\n" + FETCH, {}, "pip install 'llmcalc-sizing[hub]'"),
        (
            FETCH,
            {"HF_HUB_DOWNLOAD_TIMEOUT": "soon"},
            "huggingface_hub does not load: invalid literal for int() with base 10: 'soon'",
        ),
    ],
)
def test_a_client_that_does_not_load(tmp_path: Path, code: str, environment: dict[str, str], message: str) -> None:
    done = python(code, tmp_path, **environment)
    assert done.stdout.startswith("SourceError org/sharded: ")
    assert message in done.stdout
    assert done.stderr == ""


def test_the_client_is_loaded_when_a_model_is_asked_for(tmp_path: Path) -> None:
    code = "import sys, llmcalc.importers.hub as hub; hub.is_hub_id('a/b'); print('huggingface_hub' in sys.modules)"
    assert python(code, tmp_path).stdout == "False\n"
    assert importer.is_hub_id("a/b")
