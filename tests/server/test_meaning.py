"""What the vectors of the bundled model mean, asked through the real server: words find pictures, likeness is nearness.

The pictures are drawn by tests/parts/drawings.py; the model has seen none of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray

from clipsrv.config import Config
from tests.parts.drawings import disturbed, drawings
from tests.parts.photos import encode
from tests.parts.server import Client, form

NAMES = list(drawings())


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    client = await Client.start(Config(model="demo", device="cpu"))
    yield client
    await client.close()


async def images(client: Client, blobs: list[bytes]) -> NDArray[np.float32]:
    answer = await client.post("/embed/batch", data=form("images", blobs))
    assert answer.status == 200, answer.body
    return np.array(answer.json["embeddings"], np.float32)


async def texts(client: Client, wanted: list[str]) -> NDArray[np.float32]:
    answer = await client.post("/embed/text", json={"texts": wanted})
    assert answer.status == 200, answer.body
    return np.array(answer.json["embeddings"], np.float32)


def nearest(queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> list[str]:
    return [NAMES[place] for place in (queries @ gallery.T).argmax(axis=1)]


async def test_a_picture_of_a_thing_is_nearer_to_its_name_than_to_any_other(client: Client) -> None:
    pictures = await images(client, [encode(picture, "PNG") for picture in drawings().values()])
    assert nearest(pictures, await texts(client, NAMES)) == NAMES


async def test_the_name_of_a_thing_finds_its_picture_first(client: Client) -> None:
    pictures = await images(client, [encode(picture, "PNG") for picture in drawings().values()])
    assert nearest(await texts(client, NAMES), pictures) == NAMES
    assert nearest(await texts(client, [f"a photo of a {name.upper()}" for name in NAMES]), pictures) == NAMES


async def test_a_poor_photo_of_a_thing_is_nearest_to_the_clean_picture_of_it(client: Client) -> None:
    clean = await images(client, [encode(picture, "PNG") for picture in drawings().values()])
    poor = await images(client, [disturbed(picture) for picture in drawings().values()])
    assert nearest(poor, clean) == NAMES
