"""The address to listen on: as it is written, taken for several processes, and in words what is wrong with it."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clipsrv.errors import AddressError

#: Connections that may wait to be accepted until the first worker says otherwise.
_WAITING = 1024


async def bind(host: str, port: int) -> list[socket.socket]:
    """A socket that listens for each address of `host`, for other processes to inherit: who comes waits until one of
    them accepts. Raises AddressError."""
    loop = asyncio.get_running_loop()
    with explained(host, port):
        server = await loop.create_server(asyncio.Protocol, bare(host), port, start_serving=False)
        doors = [sock.dup() for sock in server.sockets]
        server.close()
        for door in doors:
            door.listen(_WAITING)
    return doors


@contextmanager
def explained(host: str, port: int) -> Iterator[None]:
    """What the system says of this address, as an AddressError."""
    try:
        yield
    except UnicodeError:
        raise AddressError(f"Cannot listen on {host}: this is no address and no host name.") from None
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AddressError(
            f"Cannot listen on {host}:{port}: {reason}. "
            f"Choose another with --port, or see what holds it with: {who_holds(port, sys.platform)}"
        ) from None


def who_holds(port: int, platform: str) -> str:
    """The command that tells, and who it often is."""
    if platform == "darwin":
        return f"lsof -nP -iTCP:{port}" + (" (on a Mac AirPlay Receiver has 5000)" if port == 5000 else "")
    return f"ss -ltnp 'sport = :{port}'"


def bare(host: str) -> str:
    """A host without the brackets of IPv6."""
    bracketed = re.fullmatch(r"\[(.+)\]", host)
    return bracketed[1] if bracketed else host


def url(address: Sequence[Any]) -> str:
    """That of what `getsockname` says."""
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
