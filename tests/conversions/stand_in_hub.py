"""A small Hugging Face Hub on a real socket: the API's listing and the files of one repository, with faults on demand.

Speaks what huggingface_hub asks for: /api/models/REPO/revision/REV, HEAD and GET of /REPO/resolve/COMMIT/FILE with
ETag, X-Repo-Commit and byte ranges.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPO, COMMIT = "someone/clip", "c0ffee" * 6 + "c0de"


class StandInHub(ThreadingHTTPServer):
    """Serves `files`. `faults` are used up in order by the requests whose path ends with their key.

    A fault is a status to answer with, "cut" (half the body, then the connection ends), "stall" (headers, then
    silence) or "other" (as many bytes, but others).
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.faults: dict[str, deque[int | str]] = {}
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self, path: str, *faults: int | str) -> None:
        self.faults[path] = deque(faults)

    def downloads(self, name: str) -> list[str]:
        """The GET requests for a file, each with the range asked for."""
        return [line for line in self.asked if line.startswith("GET ") and f"/{name} " in f"{line} "]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        # huggingface_hub asks for every file twice; a fault is meant for the GET that brings its bytes.
        fault = self._fault(path) if self.command == "GET" else None
        if isinstance(fault, int):
            self._answer(fault, b"{}")
        elif path == f"/api/models/{REPO}/revision/{COMMIT}" or path == f"/api/models/{REPO}/revision/main":
            self._answer(200, json.dumps(self._listing()).encode())
        elif path.startswith(f"/{REPO}/resolve/{COMMIT}/"):
            self._file(path.rpartition("/")[2], fault)
        elif path.startswith(f"/api/models/{REPO}/"):
            self._answer(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
        else:
            self._answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _fault(self, path: str) -> int | str | None:
        for end, faults in self.server.faults.items():
            if path.endswith(end) and faults:
                return faults.popleft()
        return None

    def _listing(self) -> dict[str, Any]:
        siblings = []
        for name, content in self.server.files.items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _git_id(content)}
            if name.startswith(("model.", "pytorch_model.")):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return {"id": REPO, "modelId": REPO, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}

    def _file(self, name: str, fault: str | None) -> None:
        content = self.server.files.get(name)
        if content is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha256(content).hexdigest() if name.startswith("model.") else _git_id(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        status, wanted = 200, self.headers.get("Range")
        if fault == "other":
            content = bytes(byte ^ 1 for byte in content)
        if wanted is not None:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            status, content = 206, content[start:]
        self._answer(status, content, headers, fault)

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, fault: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "stall":
            self.wfile.flush()
            time.sleep(20)
        if fault in ("cut", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def stand_in_hub(folder: Path) -> Iterator[StandInHub]:
    hub = StandInHub(folder)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
