"""Messages between the supervisor and a worker: a line of JSON each, both ways, over a pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any, Self

import orjson

Message = dict[str, Any]
#: Bytes of a message: several times those of all metrics.
_LONGEST = 16 * 2**20


class Channel:
    """One end. Nothing waits: messages are few and small."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Self:
        """Takes the socket: it is closed with the channel."""
        return cls(*await asyncio.open_connection(sock=sock, limit=_LONGEST))

    def send(self, message: Message) -> None:
        """To whoever is there; lost if nobody is any more, which `messages` tells."""
        if not self._writer.is_closing():
            self._writer.write(line(message))

    async def messages(self) -> AsyncIterator[Message]:
        """What comes, until the other end has gone, in the middle of a line too."""
        try:
            while (text := await self._reader.readline()).endswith(b"\n"):
                yield orjson.loads(text)
        except ConnectionError:
            return

    def close(self) -> None:
        self._writer.close()


def line(message: Message) -> bytes:
    """A message as it is sent."""
    return orjson.dumps(message) + b"\n"
