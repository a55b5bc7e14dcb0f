"""Which objects of a store a URL names: one, those of a folder, or those that match a glob. Opens none of them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator

from clipsrv.bulk.contract import IMAGE_SUFFIXES
from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.sources.objects import Object
from clipsrv.bulk.sources.reader import Reader
from clipsrv.errors import ConfigError


def objects_of(url: str, reader: Reader) -> Iterator[Object]:
    """The objects that `url` names, as `local.files_of` finds files. Raises ConfigError."""
    try:
        yield from _named(url, reader)
    except FetchError as error:
        raise ConfigError(f"Cannot list {url!r}. {error.message}") from None


def _named(url: str, reader: Reader) -> Iterator[Object]:
    magic = glob.has_magic(url)
    try:
        one = reader.describe(url)
    except FetchError as error:
        if error.code != "not_found" or not magic:
            raise
        yield from _matches(url, reader)
        return
    if one is not None:
        yield one
    else:
        yield from (found for found in reader.below(url) if _is_image(found.url, len(url.rstrip("/"))))


def _matches(pattern: str, reader: Reader) -> Iterator[Object]:
    from fsspec.utils import glob_translate

    parts = pattern.split("/")
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base, wanted = "/".join(parts[:fixed]), re.compile(glob_translate(pattern))
    hidden = any(part.startswith(".") for part in parts[fixed:])
    found = False
    for one in reader.below(base):
        if not hidden and _is_hidden(one.url, len(base)):
            continue
        match = _first_match(one.url, len(base), wanted)
        if match == one.url or (match and _is_image(one.url, len(match))):
            found = True
            yield one
    if not found:
        raise ConfigError(f"Nothing matches {pattern!r}.")


def _first_match(url: str, base: int, wanted: re.Pattern[str]) -> str | None:
    """What matches of an object's URL: the folder nearest to the base, or the whole."""
    ends = [base + 1 + place.start() for place in re.finditer("/", url[base + 1 :])]
    return next((url[:end] for end in (*ends, len(url)) if wanted.match(url[:end])), None)


def _is_image(url: str, base: int) -> bool:
    return not _is_hidden(url, base) and os.path.splitext(url)[1].lower() in IMAGE_SUFFIXES


def _is_hidden(url: str, base: int) -> bool:
    return "/." in url[base:]
