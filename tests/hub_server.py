"""A stand-in for the Hugging Face hub on the loopback interface: the endpoints that its client uses, and a switchboard of faults.

Answers as the hub does (status, ``X-Error-Code``, ``X-Repo-Commit``, ``ETag``, ``X-Linked-Size``, ranges, redirects to a storage
host); writes down every request, and how many bytes of bodies went out.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Sparse(NamedTuple):
    """A file of which only the beginning has data; the rest, up to ``size``, is zeros."""

    start: bytes
    size: int

    def read(self, first: int, count: int) -> bytes:
        """So many bytes from there, fewer at the end."""
        count = max(0, min(count, self.size - first))
        return self.start[first : first + count].ljust(count, b"\0")


def safetensors(tensors: Mapping[str, tuple[str, list[int]]], pad: int = 0) -> Sparse:
    """A safetensors file of these tensors (dtype and shape), its data all zeros; ``pad`` makes the header longer."""
    widths, at, header = {"F32": 4, "BF16": 2, "F16": 2}, 0, {}
    for name, (dtype, shape) in tensors.items():
        size = widths[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode() + b" " * pad
    return Sparse(struct.pack("<Q", len(text)) + text, 8 + len(text) + at)


class Repo(NamedTuple):
    """What a repository holds, under one commit that ``main`` and its own hash name."""

    files: Mapping[str, Sparse]
    gated: bool = False
    commit: str | None = COMMIT


class Request(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]


class Hub(ThreadingHTTPServer):
    """The hub, and as its ``storage`` the host that it redirects to. Faults answer requests for a file of their name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}
        self.storage: Hub | None = None
        self.faults: dict[str, Callable[[Handler], None]] = {}
        self.token: str | None = None  # the one that opens gated repositories
        self.requests: list[Request] = []
        self.sent = 0
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """Where it stands."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self) -> list[str]:
        """The file names of the requests so far, in order; forgets them."""
        names = [request.path.rpartition("/")[2] for request in self.requests]
        self.requests.clear()
        return names

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up early is no error here."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.requests.append(Request(self.command, path, {key.lower(): value for key, value in self.headers.items()}))
        repo_id, _, rest = path[1:].partition("/resolve/")
        revision, _, name = rest.partition("/")
        if repo_id in hub.moved:
            return self.answer(307, b"", {"Location": path.replace(repo_id, hub.moved[repo_id])})
        fault = hub.faults.get(name)
        if fault is not None:
            return fault(self)
        repo, token = hub.repos.get(repo_id), self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and hub.token and token != hub.token:
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        if repo is None:
            return self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        if repo.gated and not token:
            return self.refuse(401, "GatedRepo", f"Access to model {repo_id} is restricted.")
        if repo.gated and hub.token is None:
            return self.refuse(403, "GatedRepo", f"Access to model {repo_id} is restricted.")
        if revision not in ("main", repo.commit):
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        known = {"X-Repo-Commit": repo.commit} if repo.commit else {}
        file = repo.files.get(name)
        if file is None:
            return self.refuse(404, "EntryNotFound", "Entry not found", known)
        tag = f'"{hashlib.sha1(file.start).hexdigest()}"'
        if hub.storage is not None and name.endswith(".safetensors"):
            target = f"{hub.storage.url}/{repo_id}/resolve/{revision}/{name}?signature=x"
            linked = {"X-Linked-Size": str(file.size), "X-Linked-Etag": tag}
            return self.answer(302, b"", {**known, **linked, "Location": target})
        return self.send_file(file, {**known, "ETag": tag})

    def refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """An error as the hub words it."""
        body = json.dumps({"error": message}).encode()
        self.answer(status, body, {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

    def send_file(self, file: Sparse, headers: Mapping[str, str]) -> None:
        """All of a file, or the range that was asked for."""
        span = self.headers.get("Range")
        if span is None:
            return self.answer(200, file, headers)
        first, _, last = span.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1, file.size)
        if start >= file.size:
            return self.answer(416, b"", {"Content-Range": f"bytes */{file.size}"})
        part = Sparse(file.read(start, end - start), end - start)
        return self.answer(206, part, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{file.size}"})

    def answer(self, status: int, body: bytes | Sparse, headers: Mapping[str, str], length: int | None = None) -> None:
        """Status, headers and body; ``length`` is what is promised where that is not what is sent."""
        body = body if isinstance(body, Sparse) else Sparse(body, len(body))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(body.size if length is None else length))
        self.end_headers()
        if self.command == "HEAD":
            return
        with suppress(OSError):
            for first in range(0, body.size, 2**16):
                piece = body.read(first, 2**16)
                self.server.sent += len(piece)  # before it can arrive
                self.wfile.write(piece)
        if length is not None:
            self.close_connection = True

    def drip(self) -> None:
        """A byte every twentieth of a second, within every limit on silence, for as long as somebody listens."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        with suppress(OSError):
            while not self.server.over.wait(0.05):
                self.wfile.write(b" ")
        self.close_connection = True

    def say_nothing(self) -> None:
        """No answer while the server stands."""
        self.server.over.wait()

    def babble(self) -> None:
        """What is no HTTP."""
        self.wfile.write(b"\0\xff" * 5000)
        self.close_connection = True

    def hang_up(self) -> None:
        """The connection ends without an answer."""
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        hub.shutdown()
        hub.server_close()
        thread.join()
