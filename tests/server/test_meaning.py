"""What the vectors of the bundled model mean, asked through the real server: words find images, likeness is nearness.

The images are drawn by tests/support/drawings.py; the model has seen none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray

from clipsrv.config import Config
from clipsrv.server.app import open_library
from tests.support.drawings import disturbed, drawings
from tests.support.photos import encode
from tests.support.serving import Client, form_data, serving

NAMES = list(drawings())


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    config = Config(model="demo", device="cpu")
    async with serving(open_library(config), **vars(config)) as served:
        yield served.client


async def images(client: Client, blobs: list[bytes]) -> NDArray[np.float32]:
    answer = await client.post("/embed/batch", data=form_data("images", blobs))
    assert answer.status == 200, answer.body
    return np.array(answer.json["embeddings"], np.float32)


async def texts(client: Client, wanted: list[str]) -> NDArray[np.float32]:
    answer = await client.post("/embed/text", json={"texts": wanted})
    assert answer.status == 200, answer.body
    return np.array(answer.json["embeddings"], np.float32)


def nearest(queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> list[str]:
    return [NAMES[place] for place in (queries @ gallery.T).argmax(axis=1)]


async def test_an_image_of_a_thing_is_nearer_to_its_name_than_to_any_other(client: Client) -> None:
    shown = await images(client, [encode(image, "PNG") for image in drawings().values()])
    assert nearest(shown, await texts(client, NAMES)) == NAMES


async def test_the_name_of_a_thing_finds_its_image_first(client: Client) -> None:
    shown = await images(client, [encode(image, "PNG") for image in drawings().values()])
    assert nearest(await texts(client, NAMES), shown) == NAMES
    assert nearest(await texts(client, [f"a photo of a {name.upper()}" for name in NAMES]), shown) == NAMES


async def test_a_poor_photo_of_a_thing_is_nearest_to_the_clean_image_of_it(client: Client) -> None:
    clean = await images(client, [encode(image, "PNG") for image in drawings().values()])
    blobs = await asyncio.to_thread(lambda: [disturbed(image) for image in drawings().values()])
    poor = await images(client, blobs)
    assert nearest(poor, clean) == NAMES
