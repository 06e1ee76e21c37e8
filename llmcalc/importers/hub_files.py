"""The files of one repository on the Hugging Face hub, a few bytes of each: from the caches, or over the network.

Session, endpoint, token, cache and offline mode are those of the hub's own client (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE),
an optional dependency that is imported when a repository is opened. The requests are made here: the client's downloads
go on for minutes where nobody answers, wait as long as a server tells them to, and take files of any size.

A file in the client's cache is read there. What was fetched is kept in the client's folder for such things, by commit, so the next
run asks one question and an offline one none. Nothing that the network sends is believed: answers are bounded in bytes and in time.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

from llmcalc.errors import SourceError, printable
from llmcalc.importers.safetensors import MAX_READ, header_length
from llmcalc.importers.tensors import fault, opened

CONFIG = "config.json"
COMMIT = re.compile(r"[0-9a-f]{40}")
TOKEN = re.compile(r"[!-~]+")
SENT = re.compile(r"bytes (?P<first>[0-9]{1,20})-[0-9]{1,20}/(?:(?P<size>[0-9]{1,20})|\*)")
# Most headers fit into the first bytes asked for. All of a repository's together: twice what the largest known one has, and more.
FIRST_BYTES, HEADERS_LIMIT = 100_000, 2**27
# Seconds that one answer may take as a whole; how long a server may be silent is HF_HUB_DOWNLOAD_TIMEOUT, 10 where not set.
PATIENCE = 60.0


class Unreachable(SourceError):
    """No answer from the hub, or none to the question: what is in the cache can stand in."""


class Excerpt(NamedTuple):
    """Bytes of a file, and the size of the whole file where that is known."""

    data: bytes
    size: int | None


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing, whoever else writes there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(uuid4().hex)
    draft.write_bytes(data)
    draft.replace(path)


class Repository:
    """A repository at a revision. ``commit`` is known from the first answer on, and what is asked for then is of this commit."""

    def __init__(self, repo_id: str, revision: str) -> None:
        try:
            self.client: Any = import_module("huggingface_hub")
            self.constants: Any = import_module("huggingface_hub.constants")
            self.failures: Any = (import_module("huggingface_hub.errors").HTTPError, OSError, ValueError, KeyError, ImportError)
            if self.client.__version__.startswith("0."):  # another transport, without streams
                raise ImportError
        except ImportError:
            need = "reading from the Hugging Face hub needs its client, huggingface_hub 1.0 or later"
            raise SourceError(f"{repo_id}: {need}: pip install 'llmcalc-sizing[hub]'") from None
        except (ValueError, KeyError) as error:  # it reads HF_ENDPOINT and its like when it is imported
            raise SourceError(f"{repo_id}: huggingface_hub does not load: {printable(str(error))}") from None
        self.id, self.revision = repo_id, revision
        self.source = repo_id if revision == "main" else f"{repo_id}@{revision}"
        self.commit: str | None = revision if COMMIT.fullmatch(revision) else None
        self.folder = Path(self.constants.HF_ASSETS_CACHE, "llmcalc", repo_id.replace("/", "--"))
        self.taken: list[int] = []  # sizes of headers; appending is atomic
        self.offline = False
        if self.constants.HF_HUB_OFFLINE:
            self.go_offline()

    def go_offline(self) -> bool:
        """Ask the network nothing from here on; whether the caches know which commit the revision is."""
        self.offline = True
        seen = self._downloaded(CONFIG, self.revision)
        if seen is not None:
            self.commit = seen.parent.name
        elif self.commit is None:
            with suppress(OSError, ValueError):
                found = COMMIT.fullmatch(self._ref().read_text(encoding="ascii"))
                self.commit = found and found[0]
        return self.commit is not None and self._local(CONFIG) is not None

    def without(self, name: str) -> SourceError:
        """The error for a file that the repository, or offline the cache, does not have."""
        if self.offline:
            return SourceError(f"{self.source} is not in the cache, and HF_HUB_OFFLINE is set: unset it, or name a local file")
        return SourceError(
            f"{self.source} has no {name} to read a model from; a GGUF file of it can be downloaded and named instead"
        )

    def text(self, name: str, limit: int) -> bytes | None:
        """All of a small file; None where there is none. Raises SpecError beyond ``limit`` bytes, SourceError."""
        found = self._excerpt(name, 0, limit + 1)
        if found is None:
            return None
        if len(found.data) > limit:
            raise fault(f"larger than {limit >> 20} MiB", f"{self.source}/{name}")
        return found.data

    def header(self, name: str) -> Excerpt | None:
        """The JSON header of a safetensors file, and that file's size; None where there is none. Raises SpecError, SourceError."""
        kept = self._kept(f"{name}.header")
        if kept is not None:
            with opened(kept) as (stream, _):
                return Excerpt(size=int.from_bytes(stream.read(8), "little"), data=stream.read(MAX_READ))
        source = f"{self.source}/{name}"
        start = self._excerpt(name, 0, FIRST_BYTES, ranged=True)
        if start is None:
            return None
        length = header_length(start.data[:8], source, start.size)
        self.taken.append(length)
        if length > MAX_READ:
            raise fault(f"a header of {length:,} bytes; llmcalc reads up to {MAX_READ:,}", source)
        if sum(self.taken) > HEADERS_LIMIT:
            raise fault(f"headers of more than {HEADERS_LIMIT >> 20} MiB in all", source)
        data = start.data[8 : 8 + length]
        if len(data) < length:
            rest = self._excerpt(name, 8 + len(data), length - len(data), ranged=True)
            data += rest.data if rest else b""
        if len(data) < length:
            raise fault(f"ends after {8 + len(data):,} bytes, within its header of {length:,}", source)
        if start.size is not None and self._local(name) is None:
            self.keep(f"{name}.header", start.size.to_bytes(8, "little") + data)
        return Excerpt(data, start.size)

    # Caches: the client's, and ours beside it.

    def _ref(self) -> Path:
        """Where the commit of the revision is kept, as it was last seen."""
        return self.folder / "refs" / quote(self.revision, safe="")

    def _kept(self, name: str) -> Path | None:
        """A file that we keep."""
        if self.commit is None:
            return None
        path = self.folder / self.commit / name
        with suppress(OSError):  # a folder that may not be looked into
            return path if path.is_file() else None
        return None

    def _downloaded(self, name: str, revision: str) -> Path | None:
        """A file that the client keeps."""
        with suppress(OSError, ValueError):
            path = self.client.try_to_load_from_cache(self.id, name, revision=revision)
            return Path(path) if isinstance(path, str) else None
        return None

    def _local(self, name: str) -> Path | None:
        """A file of the repository that is on this machine."""
        return (self._downloaded(name, self.commit) or self._kept(name)) if self.commit else None

    def keep(self, name: str, data: bytes) -> None:
        """Keep a file of this commit, one that proved good; where the disk is full or may not be written, do without."""
        if self.offline or self.commit is None:
            return
        with suppress(OSError):
            if self._local(name) is None:
                _write(self.folder / self.commit / name, data)
            if name == CONFIG and self.commit != self.revision:
                _write(self._ref(), self.commit.encode())

    # Excerpts: from the disk, else from the hub.

    def _excerpt(self, name: str, first: int, count: int, *, ranged: bool = False) -> Excerpt | None:
        """``count`` bytes of a file from ``first`` on, fewer where it ends; None where there is no such file."""
        path = self._local(name)
        if path is not None:
            with opened(path) as (stream, size):
                stream.seek(first)
                return Excerpt(stream.read(count), size)
        if self.offline or self._kept(f"{name}.none"):
            return None
        asked = {"Range": f"bytes={first}-{first + count - 1}"} if ranged else {}
        try:
            url = self.client.hf_hub_url(self.id, name, revision=self.commit or self.revision)
            with self.client.get_session().stream(
                "GET",
                url,
                headers={**self._headers(), **asked},
                timeout=self.constants.HF_HUB_DOWNLOAD_TIMEOUT,
                follow_redirects=True,
            ) as answer:
                return self._read(answer, name, first, count)
        except self.failures as error:
            reason = printable(str(error) or type(error).__name__)[:200]
            raise Unreachable(f"{self.source}: {self.constants.ENDPOINT} gives no answer: {reason}") from None

    def _headers(self) -> dict[str, str]:
        """Who asks. Not from the client's own builder, which first downloads a list of the programs that may be running it."""
        token = None if self.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else self.client.get_token()
        if token and not TOKEN.fullmatch(token):  # said here, since the errors of others would quote it
            raise SourceError(
                f"{self.source}: the token in HF_TOKEN (or of `hf auth login`) is none: it holds spaces or control characters"
            )
        # Ranges count the bytes of the file, not of something packed.
        return {"user-agent": "llmcalc", "accept-encoding": "identity"} | ({"authorization": f"Bearer {token}"} if token else {})

    def _read(self, answer: Any, name: str, first: int, count: int) -> Excerpt | None:
        """What was asked for out of an answer, and not a byte more; None if it says that there is no such file."""
        commits = [step.headers.get("x-repo-commit", "") for step in (*answer.history, answer)]
        self.commit = self.commit or next(filter(COMMIT.fullmatch, commits), None)
        source, status = f"{self.source}/{name}", answer.status_code
        if status == 404 and answer.headers.get("x-error-code", "EntryNotFound") == "EntryNotFound":
            self.keep(f"{name}.none", b"")
            return None
        if status == 416:  # nothing stands there
            return Excerpt(b"", None)
        if status not in (200, 206):
            raise self._refusal(answer)
        said = answer.headers.get("content-length", "")
        # A server that ignores the range sends the whole file; packed, it does not say how large that is.
        size, skip = int(said) if said.isdecimal() and "content-encoding" not in answer.headers else None, first
        if status == 206:
            sent = SENT.fullmatch(answer.headers.get("content-range", ""))
            if sent is None or int(sent["first"]) != first:
                raise Unreachable(f"{source}: the server sends another range of bytes than it was asked for")
            size, skip = int(sent["size"]) if sent["size"] else None, 0
        data, patience = bytearray(), time.monotonic() + PATIENCE
        for chunk in answer.iter_bytes():
            data += chunk
            if len(data) > skip + count:  # an answer of just the right size is read to its end, which keeps the connection
                break
            if time.monotonic() > patience:
                raise Unreachable(f"{source}: not here after {PATIENCE:g} seconds")
        data = data[skip : skip + count]
        if size is not None and len(data) < min(count, size - first):
            raise Unreachable(f"{source}: the server sends {len(data):,} bytes of the {min(count, size - first):,} asked for")
        return Excerpt(bytes(data), size)

    def _refusal(self, answer: Any) -> SourceError:
        """The error for an answer that is none; its headers say all that is needed."""
        status, code = answer.status_code, answer.headers.get("x-error-code", "")
        said, hub = printable(answer.headers.get("x-error-message", "")[:200]), self.constants.ENDPOINT
        if code == "GatedRepo":
            return SourceError(
                f"{self.id} is gated: accept its licence at {hub}/{self.id} and set HF_TOKEN to a token of that account"
            )
        if code == "RevisionNotFound":
            return SourceError(f"{self.id} has no revision {self.revision!r}")
        if status == 401 and "credentials" in said.lower():
            return SourceError(f"{self.source}: {hub} does not accept the token of HF_TOKEN (or of `hf auth login`)")
        if code == "RepoNotFound" or status in (401, 404):
            return SourceError(
                f"{self.id}: no such repository at {hub}, or a private one: then set HF_TOKEN to a token that may read it"
            )
        reason = f"{answer.url.host} answers {status}{f' ({said})' if said else ''}"
        if status == 403:
            return SourceError(f"{self.source}: {reason}: the token in HF_TOKEN (or of `hf auth login`) may not read it")
        return Unreachable(f"{self.source}: {reason}; try again later")
