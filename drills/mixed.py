"""Texts and images over every protocol and two models at once, and each vector compared with its own.

scripts/mixed-load [--items 20000] [--callers 32]: the server as a process, of the demo model and of the small model of
the tests, whose vectors have other dimensions. What each item must give is computed beside it, alone, by the model
itself. Prints what was asked and the largest difference; exit status 1 if one vector was not its own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from aiohttp import ClientSession, ClientTimeout

from clipsrv.models.folders import find_model
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.runtime.vectors import Vectors
from clipsrv.settings import ImageLimits, ModelSettings
from tests.support.model import NAME, write_model
from tests.support.photos import drawn
from tests.support.server import ServerProcess
from tests.support.serving import form_data

DISTINCT = 300
#: Components differ by the order in which a batch is summed up, and vectors of two items by hundreds of times that.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Item:
    """An image or a text, and its vector by each model's name."""

    content: bytes | str
    vectors: dict[str, Vectors]

    @property
    def is_image(self) -> bool:
        return isinstance(self.content, bytes)

    @property
    def base64(self) -> str:
        assert isinstance(self.content, bytes)
        return base64.b64encode(self.content).decode()


Ask = Callable[[ClientSession, list[Item], str], Any]


async def guide_form(session: ClientSession, items: list[Item], model: str) -> Any:
    blobs = [item.content for item in items if isinstance(item.content, bytes)]
    data = form_data("images", blobs)
    return (await post(session, f"/embed/batch?model={model}", data=data))["embeddings"]


async def guide_json(session: ClientSession, items: list[Item], model: str) -> Any:
    body = {"images": [item.base64 for item in items], "model": model}
    return (await post(session, "/embed/batch", json=body))["embeddings"]


async def guide_image(session: ClientSession, items: list[Item], model: str) -> Any:
    head = {"Content-Type": "image/png"}
    return [
        (await post(session, f"/embed?model={model}", data=item.content, headers=head))["embedding"] for item in items
    ]


async def guide_texts(session: ClientSession, items: list[Item], model: str) -> Any:
    return (await post(session, "/embed/text", json={"texts": _contents(items), "model": model}))["embeddings"]


async def openai_mixed(session: ClientSession, items: list[Item], model: str) -> Any:
    body = {"input": [f"data:image/png;base64,{one.base64}" if one.is_image else one.content for one in items]}
    answer = await post(session, "/v1/embeddings", json={**body, "model": model, "encoding_format": "base64"})
    return [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]


async def jina_objects(session: ClientSession, items: list[Item], model: str) -> Any:
    body = {"input": [{"image": one.base64} if one.is_image else {"text": one.content} for one in items]}
    return [row["embedding"] for row in (await post(session, "/v1/embeddings", json={**body, "model": model}))["data"]]


async def weaviate(session: ClientSession, items: list[Item], model: str) -> Any:
    images, texts = [one for one in items if one.is_image], [one for one in items if not one.is_image]
    body = {"images": [one.base64 for one in images], "texts": _contents(texts)}
    answer = await post(session, f"/vectorize?model={model}", json=body)
    rows = {True: iter(answer["imageVectors"]), False: iter(answer["textVectors"])}
    return [next(rows[item.is_image]) for item in items]


#: How to ask, and for what: images alone, texts alone, or both at once.
Protocol = tuple[Ask, str]
PROTOCOLS: tuple[Protocol, ...] = (
    *((guide_form, "images"), (guide_json, "images"), (guide_image, "images"), (guide_texts, "texts")),
    *((openai_mixed, "both"), (jina_objects, "both"), (weaviate, "both")),
)


def _contents(items: list[Item]) -> list[Any]:
    return [item.content for item in items]


async def post(session: ClientSession, path: str, **options: Any) -> Any:
    while True:
        async with session.post(path, **options) as answer:
            body = await answer.read()
            if answer.status == 429:
                await asyncio.sleep(0.1)
                continue
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status} {body[:300]!r}")
            return json.loads(body)


def made(models: dict[str, Model]) -> list[Item]:
    """Images and texts, each embedded alone by each model, and of each kind none that another is like to a model."""
    return [*_distinct(map(drawn, count()), models), *_distinct(texts(), models)]


def texts() -> Iterator[str]:
    """Texts without end."""
    return (f"{number} red hearts beside {number * 7 % 100} blue circles, {number % 13}" for number in count())


def _distinct(contents: Iterable[bytes | str], models: dict[str, Model]) -> list[Item]:
    items: list[Item] = []
    for content in contents:
        item = Item(content, {name: _alone(model, content) for name, model in models.items()})
        if all(apart(item, other) > 100 * TOLERANCE for other in items):
            items.append(item)
        if len(items) == DISTINCT:
            break
    return items


def apart(one: Item, other: Item) -> float:
    """The least, over the models, by which their vectors differ in the largest component."""
    return min(float(np.abs(one.vectors[name] - other.vectors[name]).max()) for name in one.vectors)


def _alone(model: Model, content: bytes | str) -> Vectors:
    if isinstance(content, bytes):
        return model.image_encoder.embed(model.read_image(content, ImageLimits())[None])[0]
    assert model.text_encoder is not None
    return model.text_encoder.embed(model.read_text(content).ids[None])[0]


@dataclass(frozen=True)
class Load:
    """So many vectors, asked for by so many callers at once, in an order that the seed tells."""

    items: int
    callers: int
    seed: int


#: Whether a vector is the item's own by the model of this name.
IsOwn = Callable[[Vectors, Item, str], bool]


def equals(row: Vectors, item: Item, model: str) -> bool:
    return _difference(row, item, model) <= TOLERANCE


def _difference(row: Vectors, item: Item, model: str) -> float:
    own = item.vectors[model]
    return float(np.abs(row - own).max()) if len(row) == len(own) else 1.0


async def storm(
    url: str, items: list[Item], protocols: Sequence[Protocol], load: Load, is_own: IsOwn = equals
) -> tuple[Counter[str], float, int]:
    """How many vectors came over each protocol and model, the largest difference, and how many were not their own."""
    asked, worst, wrong = Counter[str](), 0.0, 0
    choice, models = random.Random(load.seed), sorted(items[0].vectors)
    kinds = {
        "images": [item for item in items if item.is_image],
        "texts": [item for item in items if not item.is_image],
        "both": items,
    }

    async def call(session: ClientSession) -> None:
        nonlocal worst, wrong
        while asked.total() < load.items:
            ask, kind = choice.choice(protocols)
            model, some = choice.choice(models), choice.choices(kinds[kind], k=choice.randint(1, 24))
            asked[f"{ask.__name__.replace('_', ', ')}: {model}"] += len(some)
            found = await ask(session, some, model)
            if len(found) != len(some):
                raise RuntimeError(f"{ask.__name__}: {len(found)} vectors of {len(some)} items")
            for row, item in zip(found, some, strict=True):
                row = np.asarray(row, np.float32)
                worst, wrong = max(worst, _difference(row, item, model)), wrong + (not is_own(row, item, model))

    async with ClientSession(url, timeout=ClientTimeout(300)) as session:
        await asyncio.gather(*(call(session) for _ in range(load.callers)))
    return asked, worst, wrong


def _ours(load: Load, cache_bytes: int) -> tuple[Counter[str], float, int]:
    with TemporaryDirectory() as folder:
        write_model(Path(folder) / NAME)
        settings = ModelSettings(device="cpu")
        models = {name: load_model(find_model(Path(folder), name), settings) for name in ("demo", NAME)}
        items = made(models)
        flags = ("--model", "demo", "--models", NAME, "--models-dir", folder, "--device", "cpu", "--port", 0)
        server = ServerProcess(*flags, "--cache-bytes", cache_bytes)
        try:
            server.ready()
            return asyncio.run(storm(server.url, items, PROTOCOLS, load))
        finally:
            server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache-bytes", type=int, default=0, help="0, so that every item is computed each time")
    arguments = parser.parse_args()
    load = Load(arguments.items, arguments.callers, arguments.seed)
    asked, worst, wrong = _ours(load, arguments.cache_bytes)
    for name, vectors in sorted(asked.items()):
        print(f"{vectors:7,}  {name}")
    print(f"{asked.total():7,}  in all, by {arguments.callers} callers at once; {wrong} not their own")
    print(f"largest difference {worst:.1e}; different items differ by {100 * TOLERANCE:.0e} at least")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
