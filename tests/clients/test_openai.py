"""OpenAI's own client for Python against the real server, through its public API: vectors, usage, its own errors."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable

import numpy as np
import openai
import pytest

from clipsrv.models.model import Model
from tests.support.model import truth
from tests.support.serving import Client, drawn

Serve = Callable[..., Awaitable[Client]]
KEY = "a-key-of-the-test-suite"


def asking(client: Client, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=str(client.session._build_url("/v1")), api_key=key, max_retries=0)


def data_uri(blob: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(blob).decode()


async def test_texts_and_images_mixed_have_each_its_own_vector(serve_here: Serve, model: Model) -> None:
    blobs = [drawn(seed) for seed in range(4)]
    items = [item for seed, blob in enumerate(blobs) for item in (f"text {seed}", data_uri(blob))]
    async with asking(await serve_here(api_keys=KEY)) as client:
        as_it_likes = await client.embeddings.create(model="tiny", input=items)
        in_floats = await client.embeddings.create(model="tiny", input=items, encoding_format="float", dimensions=64)
    assert model.tokenizer is not None
    assert model.text_encoder is not None
    ids = np.stack([model.tokenizer.encode(f"text {seed}").ids for seed in range(4)])
    wanted = [row for pair in zip(model.text_encoder.embed(ids), map(truth, blobs), strict=True) for row in pair]
    for answer in (as_it_likes, in_floats):
        assert [row.index for row in answer.data] == list(range(8))
        np.testing.assert_allclose([row.embedding for row in answer.data], wanted, atol=1e-6)
        assert (answer.model, answer.usage.prompt_tokens) == ("tiny", 4 * 4)


async def test_two_thousand_texts_are_one_request(serve_here: Serve) -> None:
    async with asking(await serve_here()) as client:
        answer = await client.embeddings.create(model="tiny", input=[f"{number} dogs" for number in range(2048)])
    assert len(answer.data) == 2048
    assert len({tuple(row.embedding) for row in answer.data}) > 1000


async def test_models_are_listed(serve_here: Serve) -> None:
    async with asking(await serve_here()) as client:
        assert [one.id async for one in client.models.list()] == ["tiny"]


async def test_it_raises_its_own_errors_with_what_to_do_in_their_messages(serve_here: Serve) -> None:
    served = await serve_here(api_keys=KEY, max_queue=4, max_queue_per_caller=4, max_images=4)
    async with asking(served) as client:
        with pytest.raises(openai.NotFoundError, match="there are: tiny"):
            await client.embeddings.create(model="text-embedding-3-small", input="a")
        with pytest.raises(openai.BadRequestError, match="Send the texts themselves") as tokens:
            await client.embeddings.create(model="tiny", input=[[1, 2, 3]])
        assert (tokens.value.param, tokens.value.code, tokens.value.type) == (
            "input",
            "invalid_field",
            "invalid_request_error",
        )
        with pytest.raises(openai.BadRequestError, match=r"input\[1\]: "):
            await client.embeddings.create(model="tiny", input=["a", data_uri(b"no image")])
        with served.embedder.workshop.slots.take(4), pytest.raises(openai.RateLimitError) as full:
            await client.embeddings.create(model="tiny", input="a")
        assert full.value.response.headers["retry-after"] == "1"
    async with asking(served, "another") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.embeddings.create(model="tiny", input="a")
    served.embedder.drain()
    async with asking(served) as client:
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            await client.embeddings.create(model="tiny", input="a")
