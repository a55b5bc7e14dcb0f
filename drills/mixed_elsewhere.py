"""The mixed load of drills.mixed against somebody else's server that answers /v1/embeddings as vLLM does.

python -m drills.mixed_elsewhere URL MODEL [--items 20000] [--callers 32]. What each item must give is what that server
itself gives for it alone, asked one after another before the load. A vector that is nearer to another item's than to
its own is not its own, whatever the precision. Exit status 1 if one was not.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np
from aiohttp import ClientSession, ClientTimeout

from clipsrv.runtime.vectors import Vectors
from drills.mixed import DISTINCT, TOLERANCE, Ask, IsOwn, Item, Load, Protocol, apart, post, storm, texts
from tests.support.photos import drawn


async def strings(session: ClientSession, items: list[Item], model: str) -> Any:
    """Texts in OpenAI's form."""
    body = {"input": [item.content for item in items], "model": model}
    return [row["embedding"] for row in (await post(session, "/v1/embeddings", json=body))["data"]]


async def messages(session: ClientSession, items: list[Item], model: str) -> Any:
    """Images in vLLM's form, of which a request has one."""
    found = []
    for item in items:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{item.base64}"}}
        body = {"messages": [{"role": "user", "content": [image]}], "model": model}
        found.append((await post(session, "/v1/embeddings", json=body))["data"][0]["embedding"])
    return found


PROTOCOLS: tuple[Protocol, ...] = ((strings, "texts"), (messages, "images"))


async def made(url: str, model: str, distinct: int) -> list[Item]:
    """So many images and as many texts, each with the vector it has alone, and of each kind none like another."""
    async with ClientSession(url, timeout=ClientTimeout(300)) as session:
        return [
            *await _distinct(session, messages, map(drawn, count()), model, distinct),
            *await _distinct(session, strings, texts(), model, distinct),
        ]


async def _distinct(
    session: ClientSession, ask: Ask, contents: Iterable[bytes | str], model: str, distinct: int
) -> list[Item]:
    found: list[Item] = []
    remaining: Iterator[bytes | str] = iter(contents)
    while len(found) < distinct:
        item = Item(next(remaining), {})
        item.vectors[model] = np.asarray((await ask(session, [item], model))[0], np.float32)
        if all(apart(item, other) > 100 * TOLERANCE for other in found):
            found.append(item)
    return found


def nearest_of(items: list[Item], model: str) -> IsOwn:
    """Whether no other item's vector is nearer to the row than the item's own."""
    table = np.stack([item.vectors[model] for item in items])
    place = {id(item): number for number, item in enumerate(items)}

    def is_own(row: Vectors, item: Item, _: str) -> bool:
        return int(np.abs(table - row).max(axis=1).argmin()) == place[id(item)]

    return is_own


async def run(url: str, model: str, load: Load) -> int:
    items = await made(url, model, DISTINCT)
    asked, worst, wrong = await storm(url, items, PROTOCOLS, load, nearest_of(items, model))
    for name, vectors in sorted(asked.items()):
        print(f"{vectors:7,}  {name}")
    print(f"{asked.total():7,}  in all, by {load.callers} callers at once; {wrong} not their own")
    print(f"largest difference to the item's vector alone {worst:.1e}")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    load = Load(arguments.items, arguments.callers, arguments.seed)
    return asyncio.run(run(arguments.url, arguments.model, load))


if __name__ == "__main__":
    sys.exit(main())
