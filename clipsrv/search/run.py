"""The composition root of the search command: opens index and model, joins them, and tells what was found."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clipsrv.config import Config
from clipsrv.errors import ConfigError
from clipsrv.models.model import Model
from clipsrv.runtime.vectors import Vectors
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.maker import open_maker
from clipsrv.search.opening import open_index
from clipsrv.search.originals import original
from clipsrv.search.query import embed_query
from clipsrv.search.readers.lance import LanceIndex
from clipsrv.search.sheet import sheet
from clipsrv.search.words import Found, Index
from clipsrv.settings import image_limits, model_settings

MOST = 10_000


@dataclass(frozen=True)
class Asked:
    """What a person asks for. Raises ConfigError."""

    index: str
    texts: tuple[str, ...]
    images: tuple[str, ...]
    model: str | None
    table: str
    limit: int
    as_json: bool
    html: str | None
    ann: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MOST:
            raise ConfigError(f"--limit is {self.limit}; it must be from 1 to {MOST:,}.")
        if not self.texts and not self.images:
            raise ConfigError("Nothing to search for: give --text or --image.")
        if not all(text.strip() for text in self.texts):
            raise ConfigError("--text is empty.")

    @property
    def in_words(self) -> str:
        return " + ".join((*self.texts, *self.images))


def search(asked: Asked, config: Config, warn: Callable[[str], None]) -> None:
    """Writes what was found to stdout, and to the sheet if one is asked for. Raises StartError, ImageError,
    InvalidTextError, TextTowerMissingError, EngineError; OSError of stdout."""
    with closing(open_index(asked.index, asked.table)) as index:
        with closing(open_maker(index, Path(config.models_dir), model_settings(config), asked.model)) as model:
            query = embed_query(model, asked.texts, asked.images, image_limits(config))
            for warning in query.warnings:
                warn(warning)
            found = (
                _approximate(index, query.vector, asked.limit, warn)
                if asked.ann
                else index.nearest(query.vector, asked.limit)
            )
        if asked.html:
            _write_sheet(asked, Path(asked.html), model, found, config)
        write = _json if asked.as_json else _lines
        sys.stdout.buffer.write(write(model, found).encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()


def _approximate(index: Index, query: Vectors, limit: int, say: Callable[[str], None]) -> list[Found]:
    """What the ANN index finds; how much of it is right is said."""
    if not isinstance(index, LanceIndex):
        raise ConfigError("--ann is for an index that ends in .lance and was made with embed --ann.")
    started = time.perf_counter()
    found = index.approximate(query, limit)
    between = time.perf_counter()
    exact = index.nearest(query, limit)
    took, took_exactly = between - started, time.perf_counter() - between
    right = len({one.item.id for one in found} & {one.item.id for one in exact})
    say(
        f"The ANN index found {right} of the {len(exact)} nearest (recall {right / len(exact):.2f}) in {took:.3f} s; "
        f"looking at every vector took {took_exactly:.3f} s."
    )
    return found


def _json(model: Model, found: Sequence[Found]) -> str:
    results = [{**one.item._asdict(), "score": round(one.score, 7)} for one in found]
    answer = {"results": results, "model": model.manifest.name, "embedding_id": model.embedding_id}
    return json.dumps(answer, ensure_ascii=False, indent=1) + "\n"


def _lines(model: Model, found: Sequence[Found]) -> str:
    return "".join(f"{one.score:.4f}  {_printable(one.item.path)}\n" for one in found)


def _printable(path: str) -> str:
    """A path that cannot move a terminal's cursor, or end its own line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in path)


def _write_sheet(asked: Asked, out: Path, model: Model, found: Sequence[Found], config: Config) -> None:
    limits = image_limits(config)
    read = partial(original, beside=Path(asked.index).parent, max_bytes=limits.max_bytes)
    about = f"{len(found)} nearest in {Path(asked.index).name}, by {model.manifest.name}"
    try:
        out.write_text(sheet(asked.in_words, about, found, read, limits), encoding="utf-8")
    except OSError as error:
        raise UnusableIndexError(f"Cannot write {out}: {error.strerror or error}.") from None
