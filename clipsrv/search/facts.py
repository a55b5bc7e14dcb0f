"""Whose vectors an index holds, out of what `embed` wrote beside or into it."""

from __future__ import annotations

import re
from pathlib import Path

import orjson

from clipsrv.documents import read_json
from clipsrv.manifest import NAME
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.words import Facts

#: The key of the facts in the metadata of a Parquet file or a Lance table.
KEY = b"clipsrv"
#: What can be an embedding_id, and be shown to people.
_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
_CURE = "Copy the manifest that embed wrote beside its output, or embed again."


def beside(path: Path, what: str) -> Path:
    """The name of a file that `embed` writes beside its output."""
    return path.with_name(f"{path.name}.{what}")


def read_facts(path: Path) -> Facts:
    """The facts of the output `path`, from its manifest. Raises UnusableIndexError."""
    manifest = beside(path, "manifest.json")
    try:
        return facts_of(read_json(manifest), str(manifest))
    except FileNotFoundError:
        raise UnusableIndexError(
            f"{path} has no {manifest.name}: nobody knows which model made its vectors. {_CURE}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UnusableIndexError(f"Cannot read {manifest}: {reason}. {_CURE}") from None


def facts_of(document: object, where: str) -> Facts:
    """Of a manifest's document. Raises UnusableIndexError if it does not say what it should."""
    found = document if isinstance(document, dict) else {}
    embedding_id, model = found.get("embedding_id"), found.get("model", "")
    dimensions, rows = found.get("dimensions"), found.get("rows")
    if (
        isinstance(embedding_id, str)
        and _ID.fullmatch(embedding_id)
        and isinstance(model, str)
        and isinstance(dimensions, int)
        and isinstance(rows, int | None)
        and dimensions > 0
    ):
        return Facts(embedding_id, dimensions, model if NAME.fullmatch(model) else "", rows)
    raise UnusableIndexError(f"{where} does not say which model made the vectors. {_CURE}")


def parsed(text: bytes) -> object:
    """A document in JSON, or None if it is none."""
    try:
        return orjson.loads(text)
    except ValueError:
        return None
