"""Object stores through fsspec: which objects lie below a name, in an order that stays, and ranges of their bytes.

Credentials, endpoints and regions are what each store's own library finds in the environment.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from clipsrv.bulk.errors import FetchError
from clipsrv.errors import ConfigError, ImageTooLargeError
from clipsrv.installation import how_to_install

#: Schemes, each with the extra that brings its library.
EXTRAS = {"s3": "s3", "gs": "gs", "az": "az"}
_GONE, _DENIED, _PAST_THE_END = frozenset({404, 410}), frozenset({401, 403}), 416
#: Statuses below 500 after which another try may help.
_BUSY = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Object:
    """One object: its URL, and what the store's listing says of it."""

    url: str
    size: int | None
    etag: str | None


class ObjectStore:
    """One kind of store. Futures raise FetchError. Safe for use by several threads."""

    def __init__(self, scheme: str) -> None:
        """Raises ConfigError if its library is not there, or refuses what the environment says."""
        try:
            import fsspec

            # Listings are asked for once, and must not stay in memory; what the environment says may change.
            self._files: Any = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)
        except ImportError:
            raise ConfigError(f"{scheme}:// needs a library: {how_to_install(EXTRAS[scheme])}") from None
        except ValueError as error:
            raise ConfigError(f"{scheme}:// cannot be opened: {error}.") from None
        self._scheme = scheme

    def fetch(self, url: str, max_bytes: int, start: int | None = None) -> Future[bytes]:
        """The bytes of an object, `max_bytes` + 1 at most; from `start` on if given, `max_bytes` at most."""
        end = max_bytes + 1 if start is None else start + max_bytes
        return self._submit(self._fetch(self._key(url), start or 0, end))

    def describe(self, url: str) -> Future[Object | None]:
        """The object of this name; None for a folder. The future raises FetchError where there is neither."""
        return self._submit(self._describe(self._key(url)))

    def folder(self, url: str, token: Any = None) -> Future[tuple[list[Object | str], Any]]:
        """A part of what lies in a folder, by name: objects, and URLs of folders to enter; and the token of the next
        part, None if it is the last. Of S3 all that is below the folder, in the order of keys, and no folders."""
        list_part = self._page if self._scheme == "s3" else self._level
        return self._submit(list_part(self._key(url), token))

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(_translated(work), self._files.loop)

    def _key(self, url: str) -> str:
        return url.partition("://")[2]

    async def _fetch(self, key: str, start: int, end: int) -> bytes:
        try:
            body: bytes = await self._files._cat_file(key, start=start, end=end)
        except Exception as error:
            if getattr(error, "errno", None) != errno.EINVAL and _status(error) != _PAST_THE_END:
                raise
            if start:
                return b""
            body = await self._files._cat_file(key)  # no range can be had of nothing
            if body:
                raise
        return body

    async def _describe(self, key: str) -> Object | None:
        found = await self._files._info(key)
        return None if found["type"] == "directory" else self._object(found)

    async def _page(self, key: str, token: str | None) -> tuple[list[Object], str | None]:
        bucket, _, prefix = key.partition("/")
        going_on = {"ContinuationToken": token} if token else {}
        prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        page = await self._files._call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **going_on)
        found = ({"name": f"{bucket}/{one['Key']}", "size": one["Size"], **one} for one in page.get("Contents", ()))
        return [self._object(one) for one in found], page.get("NextContinuationToken")

    async def _level(self, key: str, token: None) -> tuple[list[Object | str], None]:
        children = sorted(await self._files._ls(key.rstrip("/"), detail=True), key=lambda child: child["name"])
        return [
            f"{self._scheme}://{one['name']}" if one["type"] == "directory" else self._object(one) for one in children
        ], None

    def _object(self, found: dict[str, Any]) -> Object:
        etag = found.get("ETag") or found.get("etag")
        return Object(f"{self._scheme}://{found['name']}", found.get("size"), str(etag).strip('"') if etag else None)


async def _translated(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await work
    except (FetchError, ImageTooLargeError):
        raise
    except FileNotFoundError:
        raise FetchError("not_found", "There is no object of this name.") from None
    except PermissionError as error:
        raise FetchError("fetch_denied", f"The store refuses it: {_short(error)}.") from None
    except Exception as error:  # noqa: BLE001 - each store's library has its own
        status = _status(error)
        if status in _GONE:
            raise FetchError("not_found", "There is no object of this name.") from None
        if status in _DENIED:
            raise FetchError("fetch_denied", f"The store refuses it: {_short(error)}.") from None
        # None of them says of everything whether it may pass; what is neither a mistake nor a refusal may.
        again = status is None or status in _BUSY or not 400 <= status < 500
        raise FetchError("fetch_failed", f"The store did not give it: {_short(error)}.", again=again) from None


def _status(error: Exception) -> int | None:
    """The status of HTTP that an error of a store's library stands for, if it stands for one."""
    for name in ("status_code", "status", "code"):  # azure.core, aiohttp, gcsfs
        if str(status := getattr(error, name, None)).isdecimal():
            return int(str(status))
    return 403 if str(error).startswith("Forbidden") else None  # of this one gcsfs keeps the text only


def _short(error: Exception) -> str:
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return said if len(said) <= 200 else f"{said[:200]}..."
