"""Images by http(s): one request a try, to public addresses only, redirects and sizes in bounds. Lists nothing.

The address that is judged is the one that is connected to, after every name was resolved: nothing that a name, a
redirect or a second look-up says leads elsewhere.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any

import aiohttp
from yarl import URL

from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.sources.addresses import is_public
from clipsrv.errors import ImageTooLargeError

_REDIRECTS = 5
_CONNECT_SECONDS, _SILENT_SECONDS = 10.0, 15.0
_BLOCK = 1 << 16
_MOVED = frozenset({301, 302, 303, 307, 308})
_GONE, _DENIED = frozenset({404, 410}), frozenset({401, 403, 407, 451})
_PAST_THE_END = 416
#: Statuses after which another try may help, beside all from 500.
_BUSY = frozenset({408, 425, 429})


class _PrivateAddressError(OSError):
    """An address that is not of the public Internet."""


class Web:
    """Connections that are kept, in a loop of its own thread. Safe for use by several threads."""

    def __init__(self, *, allow_private: bool) -> None:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_run, args=(self._loop,), name="web", daemon=True)
        thread.start()
        self._session = self._submit(_open(allow_private)).result()
        self.close = weakref.finalize(self, _end, self._loop, self._session, thread)

    def fetch(self, url: str, max_bytes: int, start: int | None = None) -> Future[bytes]:
        """The body, of a longer one `max_bytes` + 1 at most; from `start` on if given, as a range. The future raises
        FetchError or ImageTooLargeError."""
        return self._submit(self._fetch(_parse(url), max_bytes, start))

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _fetch(self, url: URL, max_bytes: int, start: int | None) -> bytes:
        headers = {} if start is None else {"Range": f"bytes={start}-{start + max_bytes - 1}"}
        try:
            for _ in range(_REDIRECTS + 1):
                async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                    if answer.status not in _MOVED:
                        return await _body(answer, max_bytes, start)
                    url = _next(url, answer.headers.get("Location", ""))
        except aiohttp.ClientError as error:
            raise _failure(error) from None
        except TimeoutError:
            raise FetchError("fetch_failed", "The server did not answer in time.", again=True) from None
        except ValueError as error:  # a name that no resolver takes
            raise FetchError("fetch_failed", f"The URL cannot be used: {error}.") from None
        raise FetchError("fetch_failed", f"It was moved more than {_REDIRECTS} times.")


async def _open(allow_private: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=partial(_socket, allow_private)),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(None, connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS),
        headers={"User-Agent": "clipsrv", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,  # a proxy would connect in our place, to whatever it likes
    )


def _socket(allow_private: bool, info: Any) -> socket.socket:
    family, kind, protocol, _, address = info
    if not allow_private and not is_public(address[0]):
        raise _PrivateAddressError("the address is private")
    return socket.socket(family, kind, protocol)


async def _body(answer: aiohttp.ClientResponse, max_bytes: int, start: int | None) -> bytes:
    if start is not None and answer.status == _PAST_THE_END:
        return b""
    _check(answer, start)
    if start is None and (answer.content_length or 0) > max_bytes:
        raise ImageTooLargeError(
            f"The image has {answer.content_length:,} bytes; at most {max_bytes:,} are accepted.", limit=max_bytes
        )
    body = bytearray()
    async for block in answer.content.iter_chunked(_BLOCK):
        body += block
        if len(body) > max_bytes:
            return bytes(body[: max_bytes + 1])
    return bytes(body)


def _check(answer: aiohttp.ClientResponse, start: int | None) -> None:
    """Raises FetchError unless the body is what was asked for."""
    status = answer.status
    if status in _GONE:
        raise FetchError("not_found", f"The server answered {status}: it is not there.")
    if status in _DENIED:
        raise FetchError("fetch_denied", f"The server answered {status}: it is not for everybody.")
    if status in _BUSY or status >= 500:
        after = answer.headers.get("Retry-After", "")
        seconds = float(after) if re.fullmatch(r"\d{1,4}", after) else 0.0
        raise FetchError("fetch_failed", f"The server answered {status}.", again=True, after=seconds)
    wanted = 200 if start is None else 206
    if status != wanted:
        raise FetchError("fetch_failed", f"The server answered {status} where {wanted} was wanted.")
    if start is not None and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise FetchError("fetch_failed", "The server sent another part than the one asked for.")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchError("fetch_failed", "The server compressed it, unasked.")


def _parse(text: str) -> URL:
    """Raises FetchError for what is no URL of http, or names a user."""
    try:
        # What is written as URLs are is sent as it stands: a signature may cover every letter of it.
        url = URL(text, encoded=re.fullmatch(r"[!-~]+", text) is not None)
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        usable = False
    if not usable or re.search(r"[\x00-\x1f\x7f]", text):
        raise FetchError("url_forbidden", "That is no URL of http or https.")
    if url.user is not None or url.password is not None:
        raise FetchError("url_forbidden", "A URL with a user's name is not fetched: outputs would hold it.")
    return url


def _next(url: URL, location: str) -> URL:
    try:
        there = _parse(str(url.join(URL(location))))
    except ValueError:
        raise FetchError("fetch_failed", "The server sent it on to what is no URL.") from None
    if url.scheme == "https" and there.scheme == "http":
        raise FetchError("url_forbidden", "The server sent it on from https to http.")
    return there


def _failure(error: aiohttp.ClientError) -> FetchError:
    cause = getattr(error, "os_error", None)
    if isinstance(cause, _PrivateAddressError):
        return FetchError("url_forbidden", "Its address is private; --allow-private-addresses fetches it all the same.")
    if isinstance(error, aiohttp.ClientSSLError):
        return FetchError("fetch_failed", "Its certificate does not hold.")
    if isinstance(error, aiohttp.InvalidURL):
        return FetchError("url_forbidden", "That is no URL of http or https.")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        again = getattr(cause, "errno", None) == socket.EAI_AGAIN
        return FetchError("fetch_failed", "Its host is not known.", again=again)
    if isinstance(error, aiohttp.ClientPayloadError):
        return FetchError("fetch_failed", "The connection ended before the whole of it had come.", again=True)
    return FetchError("fetch_failed", "There is no connection, or none that holds.", again=True)


def _end(loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession, thread: threading.Thread) -> None:
    async def end() -> None:
        await session.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(end(), loop)
    if thread is not threading.current_thread():  # where the collector runs is not in our hands
        thread.join(_CONNECT_SECONDS)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()
