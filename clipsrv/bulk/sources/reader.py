"""Reads what lies elsewhere by its URL, in whatever thread asks: each attempt bounded, tried again where that helps."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.sources.objects import EXTRAS, Object, ObjectStore
from clipsrv.bulk.sources.patience import Patience

if TYPE_CHECKING:  # aiohttp would keep `embed --help` waiting
    from clipsrv.bulk.sources.web import Web

Result = TypeVar("Result")

_URL = re.compile(rf"({'|'.join(EXTRAS)}|https?)://", re.IGNORECASE)


@dataclass(frozen=True)
class Fetching:
    """How what lies elsewhere is fetched: `seconds` for one image, all tries together; whether also from private
    addresses."""

    seconds: float = 60.0
    allow_private: bool = False


def scheme_of(path: str) -> str | None:
    """s3, gs, az or http of a path that is a URL of one; None for the path of a file."""
    found = _URL.match(path)
    scheme = found[1].lower() if found else None
    return "http" if scheme == "https" else scheme


class Reader:
    """Opens each kind of store when it is first asked for. Safe for use by several threads."""

    def __init__(self, fetching: Fetching, stop: Callable[[], bool]) -> None:
        """`stop` tells that the job is to end: some seconds later every fetch raises GivenUpError."""
        self._fetching, self._patience = fetching, Patience(fetching.seconds, stop)
        self._stores: dict[str, ObjectStore] = {}
        self._web: Web | None = None
        self._lock = threading.Lock()

    def read(self, url: str, max_bytes: int) -> bytes:
        """All of it, of more the first `max_bytes` + 1. Raises FetchError, ImageTooLargeError, GivenUpError,
        ConfigError."""
        return self.insist(lambda: self._place(url).fetch(url, max_bytes))

    def part(self, url: str, start: int, length: int) -> bytes:
        """`length` bytes from `start` on, fewer where it ends. Raises as `read`."""
        return self.insist(lambda: self._place(url).fetch(url, length, start))

    def describe(self, url: str) -> Object | None:
        """The object of this name in its store; None for a folder. Raises FetchError, ConfigError."""
        if scheme_of(url) == "http":
            raise FetchError("fetch_failed", "Of what lies behind a URL nothing is known before it is fetched.")
        store = self._store(url)
        return self.insist(partial(store.describe, url))

    def below(self, url: str) -> Iterator[Object]:
        """Every object below a folder of a store, in an order that stays. Raises FetchError, ConfigError."""
        store, token = self._store(url), None
        while True:
            children, token = self.insist(partial(store.folder, url, token))
            for child in children:
                if isinstance(child, str):
                    yield from self.below(child)
                else:
                    yield child
            if token is None:
                return

    def close(self) -> None:
        """Ends connections and their thread."""
        with self._lock:
            if self._web is not None:
                self._web.close()
            self._web = None

    def insist(self, attempt: Callable[[], Future[Result]]) -> Result:
        """What `attempt` brings, again where that helps and within the time. Raises FetchError, GivenUpError."""
        return self._patience.insist(lambda seconds: self._patience.result(attempt(), seconds))

    def _place(self, url: str) -> Web | ObjectStore:
        if scheme_of(url) != "http":
            return self._store(url)
        with self._lock:
            if self._web is None:
                from clipsrv.bulk.sources.web import Web

                self._web = Web(allow_private=self._fetching.allow_private)
            return self._web

    def _store(self, url: str) -> ObjectStore:
        scheme = scheme_of(url) or ""
        with self._lock:
            if scheme not in self._stores:
                self._stores[scheme] = ObjectStore(scheme)
            return self._stores[scheme]
