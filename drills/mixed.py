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
from collections.abc import Callable, Iterable
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
    return (await _post(session, f"/embed/batch?model={model}", data=data))["embeddings"]


async def guide_json(session: ClientSession, items: list[Item], model: str) -> Any:
    body = {"images": [item.base64 for item in items], "model": model}
    return (await _post(session, "/embed/batch", json=body))["embeddings"]


async def guide_image(session: ClientSession, items: list[Item], model: str) -> Any:
    head = {"Content-Type": "image/png"}
    return [
        (await _post(session, f"/embed?model={model}", data=item.content, headers=head))["embedding"] for item in items
    ]


async def guide_texts(session: ClientSession, items: list[Item], model: str) -> Any:
    return (await _post(session, "/embed/text", json={"texts": _contents(items), "model": model}))["embeddings"]


async def openai_mixed(session: ClientSession, items: list[Item], model: str) -> Any:
    body = {"input": [f"data:image/png;base64,{one.base64}" if one.is_image else one.content for one in items]}
    answer = await _post(session, "/v1/embeddings", json={**body, "model": model, "encoding_format": "base64"})
    return [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]


async def jina_objects(session: ClientSession, items: list[Item], model: str) -> Any:
    body = {"input": [{"image": one.base64} if one.is_image else {"text": one.content} for one in items]}
    return [row["embedding"] for row in (await _post(session, "/v1/embeddings", json={**body, "model": model}))["data"]]


async def weaviate(session: ClientSession, items: list[Item], model: str) -> Any:
    images, texts = [one for one in items if one.is_image], [one for one in items if not one.is_image]
    body = {"images": [one.base64 for one in images], "texts": _contents(texts)}
    answer = await _post(session, f"/vectorize?model={model}", json=body)
    rows = {True: iter(answer["imageVectors"]), False: iter(answer["textVectors"])}
    return [next(rows[item.is_image]) for item in items]


#: What a protocol takes: images alone, texts alone, or both at once.
PROTOCOLS: tuple[tuple[Ask, str], ...] = (
    *((guide_form, "images"), (guide_json, "images"), (guide_image, "images"), (guide_texts, "texts")),
    *((openai_mixed, "both"), (jina_objects, "both"), (weaviate, "both")),
)


def _contents(items: list[Item]) -> list[Any]:
    return [item.content for item in items]


async def _post(session: ClientSession, path: str, **options: Any) -> Any:
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
    texts = (f"{number} red hearts beside {number * 7 % 100} blue circles, {number % 13}" for number in count())
    return [*_distinct(map(drawn, count()), models), *_distinct(texts, models)]


def _distinct(contents: Iterable[bytes | str], models: dict[str, Model]) -> list[Item]:
    items: list[Item] = []
    for content in contents:
        item = Item(content, {name: _alone(model, content) for name, model in models.items()})
        if all(_apart(item, other) > 100 * TOLERANCE for other in items):
            items.append(item)
        if len(items) == DISTINCT:
            break
    return items


def _apart(one: Item, other: Item) -> float:
    """The least, over the models, by which their vectors differ in the largest component."""
    return min(float(np.abs(one.vectors[name] - other.vectors[name]).max()) for name in one.vectors)


def _alone(model: Model, content: bytes | str) -> Vectors:
    if isinstance(content, bytes):
        return model.image_encoder.embed(model.read_image(content, ImageLimits())[None])[0]
    assert model.text_encoder is not None
    return model.text_encoder.embed(model.read_text(content).ids[None])[0]


async def storm(url: str, items: list[Item], wanted: int, callers: int, seed: int) -> tuple[Counter[str], float, int]:
    """How many vectors came over each protocol and model, the largest difference, and how many were not their own."""
    asked, worst, wrong = Counter[str](), 0.0, 0
    choice = random.Random(seed)
    kinds = {
        "images": [item for item in items if item.is_image],
        "texts": [item for item in items if not item.is_image],
        "both": items,
    }

    async def call(session: ClientSession) -> None:
        nonlocal worst, wrong
        while asked.total() < wanted:
            ask, kind = choice.choice(PROTOCOLS)
            model, some = choice.choice(["demo", NAME]), choice.choices(kinds[kind], k=choice.randint(1, 24))
            asked[f"{ask.__name__.replace('_', ', ')}: {model}"] += len(some)
            found = await ask(session, some, model)
            if len(found) != len(some):
                raise RuntimeError(f"{ask.__name__}: {len(found)} vectors of {len(some)} items")
            for row, item in zip(found, some, strict=True):
                own = item.vectors[model]
                difference = float(np.abs(np.float32(row) - own).max()) if len(row) == len(own) else 1.0
                worst, wrong = max(worst, difference), wrong + (difference > TOLERANCE)

    async with ClientSession(url, timeout=ClientTimeout(300)) as session:
        await asyncio.gather(*(call(session) for _ in range(callers)))
    return asked, worst, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache-bytes", type=int, default=0, help="0, so that every item is computed each time")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        write_model(Path(folder) / NAME)
        settings = ModelSettings(device="cpu")
        models = {name: load_model(find_model(Path(folder), name), settings) for name in ("demo", NAME)}
        items = made(models)
        flags = ("--model", "demo", "--models", NAME, "--models-dir", folder, "--device", "cpu", "--port", 0)
        server = ServerProcess(*flags, "--cache-bytes", arguments.cache_bytes)
        try:
            server.ready()
            asked, worst, wrong = asyncio.run(
                storm(server.url, items, arguments.items, arguments.callers, arguments.seed)
            )
        finally:
            server.close()
    for name, vectors in sorted(asked.items()):
        print(f"{vectors:7,}  {name}")
    print(f"{asked.total():7,}  in all, by {arguments.callers} callers at once; {wrong} not their own")
    print(f"largest difference {worst:.1e}; different items differ by {100 * TOLERANCE:.0e} at least")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
