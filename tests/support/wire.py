"""HTTP as raw bytes on a socket: requests that no client library would send, and the replies to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDict

BOUNDARY = "limit"


@dataclass(frozen=True)
class Reply:
    """An answer whole; the names of headers in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code; fails if the body is not the error body."""
        document = self.json
        assert set(document) == {"error", "request_id"}, document
        assert set(document["error"]) == {"code", "message", "details"}, document
        return str(document["error"]["code"])


def request(method: str, path: str, body: bytes | None, *headers: str) -> bytes:
    """The bytes of a request; Content-Length is added unless the headers frame it themselves."""
    lines = [f"{method} {path} HTTP/1.1", *headers]
    lowered = [line.lower() for line in headers]
    if not any(line.startswith("host:") for line in lowered):
        lines.insert(1, "Host: localhost")
    if body is not None and not any(line.startswith(("content-length:", "transfer-encoding:")) for line in lowered):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape") + (body or b"")


def part(body: bytes, name: str = "image", head: str | bytes | None = None) -> bytes:
    """One part of a form."""
    if head is None:
        head = f'Content-Disposition: form-data; name="{name}"; filename="a.png"'
    return (head if isinstance(head, bytes) else head.encode()) + b"\r\n\r\n" + body


def form(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    mark = f"--{BOUNDARY}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + end


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """The next reply on a connection. Raises ConnectionError if it ends without one."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError as error:
        raise ConnectionError(f"closed after {error.partial!r}") from None
    fields = (line.partition(":") for line in head[1:] if line)
    headers = CIMultiDict((name, value.strip()) for name, _, value in fields)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Reply(int(head[0].split(" ")[1]), headers, body)


@dataclass
class Caller:
    """Writes raw bytes to a server, each request on a connection of its own."""

    port: int
    host: str = "127.0.0.1"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port, limit=2**24)

    async def send(self, *pieces: bytes, seconds: float = 10) -> Reply:
        """The reply to raw bytes. Raises ConnectionError if it ends without one, TimeoutError after `seconds`."""
        async with asyncio.timeout(seconds):
            reader, writer = await self.connect()
            try:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                return await read_reply(reader)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def post(self, path: str, body: bytes, kind: str = "image/png", *headers: str) -> Reply:
        return await self.send(request("POST", path, body, f"Content-Type: {kind}", *headers))

    async def get(self, path: str, *headers: str) -> Reply:
        return await self.send(request("GET", path, None, *headers))

    async def form(self, *parts: bytes, path: str = "/embed") -> Reply:
        return await self.post(path, form(*parts), f"multipart/form-data; boundary={BOUNDARY}")
