"""Who may ask: API keys, the Host the caller meant, and the web page it comes from. Judged from headers alone.

A page anywhere can make a browser post a form to localhost, or point its own name at 127.0.0.1; both are refused here.
Knows nothing of endpoints beyond which of them are open.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from clipsrv.config import flag, variable
from clipsrv.errors import ConfigError
from clipsrv.server.wire.envelope import (
    HostForbiddenError,
    OriginForbiddenError,
    TooManyFailuresError,
    UnauthorizedError,
)

#: Answered without a key, so that a supervisor needs none.
OPEN_PATHS = frozenset({"/health", "/health/live", "/.well-known/live", "/.well-known/ready", "/"})
#: Where the files of the web page lie: open too, for a browser asks for them without a key.
PAGE_PATH = "/page/"
#: The path that `metrics_keys` open.
METRICS_PATH = "/metrics"
#: A key shorter than this can be guessed.
SHORT_KEY = 16
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TABLE = 4096


class Key(NamedTuple):
    """What is kept of an API key: enough to know it again."""

    digest: bytes
    length: int


@dataclass(frozen=True)
class Rules:
    """`hosts` None allows every Host; `origins` are those whose pages may ask; no `keys` means no key is needed.

    `metrics_keys` open /metrics, beside `keys`, and nothing else. One address may present `failures` wrong keys a
    second, 0 for any number.
    """

    hosts: frozenset[str] | None
    origins: frozenset[str]
    keys: tuple[Key, ...]
    metrics_keys: tuple[Key, ...]
    failures: int


def read_keys(listed: str, file: str = "", setting: str = "api_keys") -> tuple[str, ...]:
    """The keys of a comma-separated list, that of `setting`, and of a file with one a line (# begins a comment).

    A byte order mark, as Windows' editors write it, is no part of a key.

    Raises ConfigError if the file cannot be read, or holds no key: "protected, but by nothing" is a mistake.
    """
    keys = [key.strip() for key in listed.split(",")] if listed else []
    if file:
        try:
            lines = [line.strip() for line in Path(file).read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise ConfigError(f"CLIPSRV_API_KEY_FILE (--api-key-file) {file!r} cannot be read: {reason}.") from None
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ConfigError(f"CLIPSRV_API_KEY_FILE (--api-key-file) {file!r} holds no key; write one a line.")
        keys += found
    if not all(keys):
        raise ConfigError(f"{variable(setting)} ({flag(setting)}) holds an empty key; separate keys by single commas.")
    if not all(key.isprintable() for key in keys):
        raise ConfigError("A key holds characters that no header can carry; was its file saved as UTF-16?")
    return tuple(keys)


def make_rules(
    host: str,
    allowed_hosts: str,
    allowed_origins: str,
    *,
    keys: Iterable[str] = (),
    metrics_keys: Iterable[str] = (),
    failures: int = 0,
) -> Rules:
    """Rules for a server that listens on `host`. On loopback only loopback's names and `allowed_hosts` pass as Host."""
    listed = {name.lower().strip("[]") for name in _split(allowed_hosts)}
    hosts = frozenset(listed | set(_LOOPBACK) | {host.strip("[]").lower()}) if listed or is_loopback(host) else None
    return Rules(
        hosts=None if "*" in listed else hosts,
        origins=frozenset(origin.lower().rstrip("/") for origin in _split(allowed_origins)),
        keys=_kept(keys),
        metrics_keys=_kept(metrics_keys),
        failures=failures,
    )


def _kept(keys: Iterable[str]) -> tuple[Key, ...]:
    return tuple(Key(sha256(key.encode()).digest(), len(key)) for key in keys)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    return host.strip("[]").lower() in _LOOPBACK or host.startswith("127.")


class Guard:
    """Applies the rules to a request's headers, before its body is read."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._wrong_keys = rules, WrongKeys(rules.failures)

    @property
    def key_lengths(self) -> list[int]:
        return [key.length for key in self._rules.keys]

    def admit(self, request: web.Request, address: str) -> str:
        """The caller's name for fair sharing: its key's number, or its `address`.

        Raises HostForbiddenError, OriginForbiddenError, UnauthorizedError or TooManyFailuresError.
        """
        self._check_host(request)
        self._check_origin(request)
        keys = self._rules.keys + (self._rules.metrics_keys if request.path == METRICS_PATH else ())
        if not keys or request.path in OPEN_PATHS or request.path.startswith(PAGE_PATH) or _is_preflight(request):
            return address
        self._wrong_keys.check(address)
        number = _match(_presented(request), keys)
        if number is None:
            self._wrong_keys.count(address)
            raise UnauthorizedError("Send a valid API key: Authorization: Bearer KEY, or X-API-Key: KEY.")
        return f"key {number}"

    def cors_headers(self, request: web.Request) -> dict[str, str]:
        """What a browser must be told so that a page of an allowed origin may read the answer; else nothing."""
        if not self._rules.origins:
            return {}
        headers = {"Vary": "Origin"}
        origin = request.headers.get(hdrs.ORIGIN, "")
        if self._listed(origin):
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            if _is_preflight(request):
                headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, POST"
                headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = "Content-Type, Authorization, X-API-Key, X-Request-Id"
                headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "600"
            else:
                headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = (
                    "X-Request-Id, X-Embedding-Id, Retry-After, Server-Timing, X-Cache"
                )
        return headers

    def _check_host(self, request: web.Request) -> None:
        # Not request.host: for want of the header it looks up this machine's own name, which may take seconds.
        host = request.headers.get(hdrs.HOST)
        if self._rules.hosts is not None and host is not None and _name_of(host) not in self._rules.hosts:
            raise HostForbiddenError("This Host is not served here; allow it with --allowed-hosts.")

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None:
            if _authority(origin) != request.headers.get(hdrs.HOST, "").lower() and not self._listed(origin):
                raise OriginForbiddenError("Pages of this origin may not ask here; allow it with --allowed-origins.")
        elif request.method == hdrs.METH_POST and request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}:
            raise OriginForbiddenError("Pages of other sites may not ask here; allow them with --allowed-origins.")

    def _listed(self, origin: str) -> bool:
        return bool(origin) and (origin.lower() in self._rules.origins or "*" in self._rules.origins)


class WrongKeys:
    """Wrong keys of late by address. The table is bounded: whoever has many addresses is not stopped by it."""

    def __init__(self, a_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`a_second`: as many as an address may send in one before it must wait; 0 for any number."""
        self._a_second, self._clock = a_second, clock
        self._found: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises TooManyFailuresError while `address` must wait."""
        count, since = self._found.get(address, (0, 0.0))
        if self._a_second and count >= self._a_second and self._clock() - since < 1:
            raise TooManyFailuresError("Too many wrong API keys from this address; wait a second.", retry_after=1)

    def count(self, address: str) -> None:
        now = self._clock()
        count, since = self._found.pop(address, (0, now))
        self._found[address] = (count + 1, since) if now - since < 1 else (1, now)
        if len(self._found) > _TABLE:
            self._found.popitem(last=False)

    def __len__(self) -> int:
        return len(self._found)


def _presented(request: web.Request) -> bytes:
    """The key sent, b"" for none or for several. As bytes: a comparison of str fails on what is not ASCII."""
    sent = request.headers.getall(hdrs.AUTHORIZATION, []) + [
        f"Bearer {key}" for key in request.headers.getall("X-API-Key", [])
    ]
    scheme, _, key = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    return key.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""


def _match(key: bytes, keys: Iterable[Key]) -> int | None:
    """The number of the key that is the same, from 1 on."""
    digest, number = sha256(key).digest(), None
    for index, known in enumerate(keys, 1):  # all of them: time must not tell which one fits
        if hmac.compare_digest(digest, known.digest):
            number = index
    return number


def _is_preflight(request: web.Request) -> bool:
    return request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers


def _name_of(host: str) -> str:
    """The name of a Host header, without port and brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _split(listed: str) -> list[str]:
    return [name for name in (part.strip() for part in listed.split(",")) if name]
