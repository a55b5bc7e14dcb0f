"""OpenAI's /v1/embeddings and /v1/models as any program may ask: each vector its own, refusals in OpenAI's shape."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from clipsrv.models.model import Model
from clipsrv.runtime.vectors import Vectors
from tests.support.model import DIMENSIONS, truth
from tests.support.serving import Client, Reply, assert_as_before, drawn, eventually, request, serving

Serve = Callable[..., Awaitable[Client]]
PATH, JSON = "/v1/embeddings", "application/json"


def data_uri(blob: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(blob).decode()


def text_vector(model: Model, text: str) -> Vectors:
    assert model.tokenizer is not None
    assert model.text_encoder is not None
    return model.text_encoder.embed(model.tokenizer.encode(text).ids[None])[0]


def vectors_of(reply: Reply) -> list[Vectors]:
    """Checks all of an answer but the vectors, which it gives."""
    assert reply.status == 200, reply.body
    body = reply.json
    assert body["object"] == "list"
    assert [(row["object"], row["index"]) for row in body["data"]] == [
        ("embedding", index) for index in range(len(body["data"]))
    ]
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"]
    found = [row["embedding"] for row in body["data"]]
    return [
        np.array(np.frombuffer(base64.b64decode(one), "<f4") if isinstance(one, str) else one, np.float32)
        for one in found
    ]


def refused(reply: Reply) -> tuple[int, str, str | None, str]:
    """Status, type, param and code of an error in OpenAI's shape; fails if it has another."""
    body = reply.json
    assert set(body) == {"error", "detail"}, body
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] == body["detail"] != ""
    return reply.status, body["error"]["type"], body["error"]["param"], body["error"]["code"]


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_texts_and_images_in_one_list_have_each_its_own_vector(
    client: Client, model: Model, encoding: str
) -> None:
    items: list[Any] = []
    wanted = []
    for number in range(12):
        items.append(f"text number {number}")
        wanted.append(text_vector(model, items[-1]))
        if number % 3:
            blob = drawn(number)
            items.append({"image": base64.b64encode(blob).decode()} if number % 2 else data_uri(blob))
            wanted.append(truth(blob))
    answer = await client.post(PATH, json={"input": items, "encoding_format": encoding})
    np.testing.assert_allclose(vectors_of(answer), wanted, atol=1e-6)
    assert {type(row["embedding"]) for row in answer.json["data"]} == {str if encoding == "base64" else list}
    assert answer.json["model"] == "tiny"
    assert answer.headers["X-Embedding-Id"] == model.embedding_id


async def test_the_vectors_are_those_of_the_guides_endpoints_to_the_bit(client: Client) -> None:
    blob = drawn(3)
    ours = (await client.post("/embed/text", json={"text": "a dog"})).json["embedding"]
    assert (await client.post(PATH, json={"input": "a dog"})).json["data"][0]["embedding"] == ours
    ours = (await client.post("/embed", json={"image": data_uri(blob)})).json["embedding"]
    assert (await client.post(PATH, json={"input": data_uri(blob)})).json["data"][0]["embedding"] == ours


async def test_usage_counts_the_tokens_that_were_read_and_none_for_images(client: Client, model: Model) -> None:
    async def tokens(*items: str) -> int:
        return (await client.post(PATH, json={"input": items})).json["usage"]["total_tokens"]

    assert await tokens("a dog") == 4  # begin, a, dog, end
    assert await tokens("") == 2
    assert await tokens("a dog", data_uri(drawn(1)), "") == 6
    assert await tokens(data_uri(drawn(1))) == 0
    answer = await client.post(PATH, json={"input": ["a", "dog " * 300]})
    assert answer.json["usage"]["total_tokens"] == 3 + 77
    assert answer.json["truncated"] == [1]


async def test_two_thousand_texts_are_one_request_at_default_settings(client: Client, model: Model) -> None:
    texts = [f"{number} dogs" for number in range(2048)]
    answer = await client.post(PATH, json={"input": texts, "encoding_format": "base64"})
    found = vectors_of(answer)
    assert len(found) == 2048
    for number in (0, 1, 1000, 2047):
        np.testing.assert_allclose(found[number], text_vector(model, texts[number]), atol=1e-6)
    answer = await client.post(PATH, json={"input": [*texts, *[data_uri(drawn(1))] * 64]})
    assert len(vectors_of(answer)) == 2112  # as many slots as one caller may have
    answer = await client.post(PATH, json={"input": ["a"] * 2049})
    assert refused(answer) == (413, "invalid_request_error", None, "too_many_texts")
    answer = await client.post(PATH, json={"input": [data_uri(drawn(1))] * 65})
    assert refused(answer) == (413, "invalid_request_error", None, "too_many_images")


async def test_an_image_of_megabytes_is_an_image() -> None:
    blob = drawn(5, (900, 900), "BMP")
    assert len(blob) > 2**20
    async with serving() as served:
        (vector,) = vectors_of(await served.post(PATH, json.dumps({"input": [data_uri(blob)]}).encode(), JSON))
    np.testing.assert_allclose(vector, truth(blob), atol=1e-5)


async def test_only_a_size_that_the_model_has_is_given(client: Client) -> None:
    for name in ("dimensions", "output_dimension"):
        (vector,) = vectors_of(await client.post(PATH, json={"input": "a", name: DIMENSIONS}))
        assert vector.shape == (DIMENSIONS,)
        answer = await client.post(PATH, json={"input": "a", name: 32})
        assert refused(answer) == (400, "invalid_request_error", None, "dimensions_not_offered")
        assert "64 dimensions" in answer.json["detail"]


async def test_a_model_that_is_not_served_is_404_and_those_that_are_are_named(client: Client) -> None:
    answer = await client.post(PATH, json={"input": "a", "model": "text-embedding-3-small"})
    assert refused(answer) == (404, "invalid_request_error", None, "model_not_found")
    assert "tiny" in answer.json["detail"]
    offered = (await client.get("/v1/models")).json
    assert offered["object"] == "list"
    assert [row["id"] for row in offered["data"]] == ["tiny"]
    assert vectors_of(await client.post(PATH, json={"input": "a", "model": "tiny"}))


async def test_models_say_when_they_were_converted(serve_here: Serve) -> None:
    client = await serve_here(max_images=2)  # opened from its folder
    (row,) = (await client.get("/v1/models")).json["data"]
    assert row == {"id": "tiny", "object": "model", "created": 1_767_225_600, "owned_by": "clipsrv"}


async def test_bad_images_are_named_by_their_places_among_all_items(client: Client) -> None:
    cut = data_uri(drawn(1)[:60])
    answer = await client.post(PATH, json={"input": ["a", cut, data_uri(drawn(1)), "b", {"image": "AAAA"}]})
    assert refused(answer)[:3] == (400, "invalid_request_error", "input")
    assert "input[1]: " in answer.json["detail"]
    assert "input[4]: " in answer.json["detail"]
    assert "input[0]" not in answer.json["detail"]
    answer = await client.post(PATH, json={"input": [cut] * 20})
    assert "And 12 more." in answer.json["detail"]


async def test_addresses_and_token_ids_get_the_sentence_that_helps(client: Client) -> None:
    address = "https://a.example/dog.png"
    for item in ({"image": address}, {"url": address}, {"image_url": {"url": address}}):
        answer = await client.post(PATH, json={"input": [item]})
        assert refused(answer) == (400, "invalid_request_error", "input[0]", "remote_url_disabled")
        assert "send the bytes" in answer.json["detail"]
    for tokens in ([1, 2], [[1, 2], [3]]):
        answer = await client.post(PATH, json={"input": tokens})
        assert refused(answer) == (400, "invalid_request_error", "input", "invalid_field")
        assert "check_embedding_ctx_length=False" in answer.json["detail"]


async def test_so_many_token_ids_that_they_are_not_even_parsed_get_it_too() -> None:
    body = json.dumps({"input": [list(range(200_000))]}).encode()
    async with serving() as served:
        answer = await served.post(PATH, body, JSON)
    assert refused(answer) == (413, "invalid_request_error", None, "body_too_large")
    assert "check_embedding_ctx_length=False" in answer.json["detail"]


async def test_every_refusal_has_openais_shape_and_a_status_that_its_clients_know() -> None:
    async with serving(api_keys="k" * 20) as served:
        assert refused(await served.post(PATH, b"{}", JSON)) == (401, "invalid_request_error", None, "unauthorized")
    async with serving(max_images=2, max_json_bytes=2**20) as served:
        cases = [
            (await served.post(PATH, b"{", JSON), 400, "invalid_json"),
            (await served.post(PATH, b"[]", JSON), 400, "invalid_json"),
            (await served.post(PATH, b"", JSON), 400, "empty_body"),
            (await served.post(PATH, b"{}", JSON), 400, "invalid_field"),
            (await served.post(PATH, b"{}", "text/plain"), 415, "unsupported_media_type"),
            (await served.post(PATH, b"{}", JSON, "Content-Encoding: gzip"), 415, "unsupported_content_encoding"),
            (await served.post(PATH, b"{}", JSON, "Content-Length: 99999999999"), 413, "body_too_large"),
            (await served.post(PATH, b'{"input": "\\ud800"}', JSON), 400, "invalid_json"),
            (await served.send(request("GET", PATH, None)), 405, "method_not_allowed"),
            (await served.send(request("POST", "/v1/models", b"{}")), 405, "method_not_allowed"),
            (await served.post(PATH, b"{}", JSON, "Origin: http://evil.example"), 403, "origin_forbidden"),
        ]
        for reply, status, code in cases:
            assert refused(reply) == (
                status,
                "invalid_request_error",
                None if code != "invalid_field" else "input",
                code,
            )
        assert (await served.send(request("POST", PATH, b'{"input": "a"}'))).status == 200  # as some clients send it
        await assert_as_before(served)
        served.embedder.drain()
        assert refused(await served.post(PATH, b'{"input": "a"}', JSON)) == (503, "server_error", None, "shutting_down")


async def test_a_full_server_says_429_and_when_to_come_back(serve_here: Serve) -> None:
    client = await serve_here(max_queue=4, max_queue_per_caller=4, max_images=4)
    with client.embedder.workshop.slots.take(4):
        answer = await client.post(PATH, json={"input": "a"})
    assert refused(answer) == (429, "rate_limit_error", None, "overloaded")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_a_model_without_texts_says_so_and_embeds_images(serve_here: Serve) -> None:
    client = await serve_here(text=False)
    assert refused(await client.post(PATH, json={"input": ["a"]}))[3] == "no_text_tower"
    assert len(vectors_of(await client.post(PATH, json={"input": [data_uri(drawn(1))]}))) == 1


async def test_sixty_requests_at_once_get_each_its_own(model: Model) -> None:
    async with serving() as served:

        async def one(number: int) -> None:
            items = [f"dogs {number}", data_uri(drawn(number)), f"cats {number}"][number % 2 :]
            wanted = [text_vector(model, items[-1]), truth(drawn(number))]
            reply = await served.post(PATH, json.dumps({"input": items}).encode(), JSON)
            found = vectors_of(reply)
            np.testing.assert_allclose(found[-1], wanted[0], atol=1e-6)
            np.testing.assert_allclose(found[-2], wanted[1], atol=1e-6)

        await asyncio.gather(*map(one, range(60)))
        await eventually(lambda: served.bytes_held == 0)
        await assert_as_before(served)
