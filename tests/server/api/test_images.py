"""The guide's /embed and /embed/batch in every form they take and give: api.md, on a real model."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

from clipsrv.models.model import Model
from tests.support.model import DIMENSIONS, truth
from tests.support.photos import cuttings, encode, opened, photo
from tests.support.serving import Client, form_data

IMAGES = cuttings(5)
Serve = Callable[..., Awaitable[Client]]


def b64(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


@pytest.mark.parametrize(
    "send",
    [
        lambda blob: {"data": form_data("image", [blob])},
        lambda blob: {"data": blob, "headers": {"Content-Type": "image/jpeg"}},
        lambda blob: {"data": blob, "headers": {"Content-Type": "application/octet-stream"}},
        lambda blob: {"json": {"image": b64(blob)}},
        lambda blob: {"json": {"image": f"data:image/jpeg;base64,{b64(blob)}"}},
        lambda blob: {"json": {"image": base64.urlsafe_b64encode(blob).decode().rstrip("=")}},
    ],
    ids=["form", "image/*", "octet-stream", "base64", "data URI", "URL-safe base64"],
)
async def test_an_image_may_be_sent_in_every_documented_form(
    client: Client, send: Callable[[bytes], dict[str, Any]]
) -> None:
    blob = photo("rocket.jpg")
    answer = await client.post("/embed", **send(blob))
    assert answer.status == 200, answer.body
    assert answer.json == {"embedding": answer.json["embedding"], "dimensions": DIMENSIONS, "model": "tiny"}
    np.testing.assert_allclose(np.float32(answer.json["embedding"]), truth(blob), atol=1e-6)


async def test_every_form_of_answer_carries_the_same_float32(client: Client) -> None:
    blob = IMAGES[0]
    plain = await client.post("/embed", data=form_data("image", [blob]))
    vector = np.array(plain.json["embedding"], np.float32)
    assert np.linalg.norm(vector.astype(np.float64)) == pytest.approx(1, abs=1e-6)
    packed = await client.post("/embed?encoding=base64", data=form_data("image", [blob]))
    assert np.array_equal(np.frombuffer(base64.b64decode(packed.json["embedding"]), "<f4"), vector)
    file = await client.post("/embed", data=form_data("image", [blob]), headers={"Accept": "application/x-npy"})
    assert file.headers["Content-Type"] == "application/x-npy"
    rows = np.load(BytesIO(file.body), allow_pickle=False)
    assert (rows.shape, rows.dtype) == ((1, DIMENSIONS), np.float32)
    assert np.array_equal(rows[0], vector)


async def test_floats_in_json_have_no_more_digits_than_they_need(client: Client) -> None:
    answer = await client.post("/embed", data=form_data("image", [IMAGES[0]]))
    written = json.loads(answer.body, parse_float=str)["embedding"]
    for text in written:
        assert len(text.lstrip("-0.").replace(".", "").split("e")[0]) <= 9
        assert np.float32(text) == np.float32(float(text))


async def test_answers_say_what_they_are_and_where_the_time_went(client: Client, model: Model) -> None:
    answer = await client.post("/embed", data=form_data("image", [IMAGES[0]]), headers={"X-Request-Id": "mine-1"})
    assert answer.headers["X-Request-Id"] == "mine-1"
    assert answer.headers["X-Embedding-Id"] == model.embedding_id
    stages = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))
    assert set(stages) == {"read", "cache", "decode", "queue", "inference"}
    assert all(float(took) >= 0 for took in stages.values())
    strange = await client.get("/health", headers={"X-Request-Id": "a b; c"})
    assert strange.headers["X-Request-Id"] != "a b; c"


async def test_an_answer_the_client_cannot_take_is_refused(client: Client) -> None:
    answer = await client.post("/embed", data=form_data("image", [IMAGES[0]]), headers={"Accept": "text/html"})
    assert (answer.status, answer.json["error"]["code"]) == (406, "not_acceptable")


async def test_a_batch_is_answered_in_the_order_sent(client: Client) -> None:
    answer = await client.post("/embed/batch", data=form_data("images", IMAGES))
    assert answer.status == 200
    assert {**answer.json, "embeddings": 0} == {"embeddings": 0, "count": 5, "dimensions": DIMENSIONS, "model": "tiny"}
    for vector, blob in zip(answer.json["embeddings"], IMAGES, strict=True):
        np.testing.assert_allclose(np.float32(vector), truth(blob), atol=1e-6)


async def test_a_batch_in_json_and_packed(client: Client) -> None:
    plain = await client.post("/embed/batch", data=form_data("images", IMAGES))
    packed = await client.post("/embed/batch?encoding=base64", json={"images": [b64(blob) for blob in IMAGES]})
    rows = [np.frombuffer(base64.b64decode(text), "<f4") for text in packed.json["embeddings"]]
    np.testing.assert_allclose(rows, np.float32(plain.json["embeddings"]), atol=1e-6)
    file = await client.post(
        "/embed/batch", data=form_data("images", IMAGES), headers={"Accept": "application/x-npy;q=1, */*;q=0.1"}
    )
    np.testing.assert_allclose(np.load(BytesIO(file.body)), rows, atol=1e-6)


async def test_a_batch_of_one_is_a_batch(client: Client) -> None:
    answer = await client.post("/embed/batch", data=form_data("images", IMAGES[:1]))
    assert (answer.json["count"], len(answer.json["embeddings"])) == (1, 1)


async def test_bad_images_are_all_named_and_nothing_computed_is_returned(client: Client) -> None:
    blobs = [IMAGES[0], b"", IMAGES[1], b"%PDF-1.7 and more", IMAGES[2][:500]]
    answer = await client.post("/embed/batch", data=form_data("images", blobs))
    assert answer.status == 422
    assert "embeddings" not in answer.json
    named = {one["index"]: one["code"] for one in answer.json["error"]["details"]["images"]}
    assert named == {1: "empty_image", 3: "unsupported_image_format", 4: "truncated_image"}


async def test_null_stands_for_a_bad_image_if_asked_for(client: Client) -> None:
    blobs = [IMAGES[0], b"nothing", IMAGES[1]]
    answer = await client.post("/embed/batch?on_error=null", data=form_data("images", blobs))
    assert (answer.status, answer.json["count"]) == (200, 3)
    first, hole, last = answer.json["embeddings"]
    assert hole is None
    np.testing.assert_allclose(np.array([first, last], np.float32), [truth(blobs[0]), truth(blobs[2])], atol=1e-6)
    assert [(one["index"], one["code"]) for one in answer.json["errors"]] == [(1, "not_an_image")]
    none = await client.post("/embed/batch?on_error=null", data=form_data("images", IMAGES[:2]))
    assert none.json["errors"] == []


PART = (11, 7, 50, 41)


def cut(blob: bytes, region: tuple[int, int, int, int] = PART) -> bytes:
    """The same part, saved without loss."""
    left, top, width, height = region
    with Image.open(BytesIO(blob)) as image:
        return encode(image.crop((left, top, left + width, top + height)))


@pytest.mark.parametrize(
    "ask",
    [
        lambda blob: ("/embed?crop=11,7,50,41", {"data": form_data("image", [blob])}),
        lambda blob: ("/embed?crop=11,7,50,41", {"data": blob, "headers": {"Content-Type": "image/jpeg"}}),
        lambda blob: ("/embed?crop=11,7,50,41", {"json": {"image": b64(blob)}}),
        lambda blob: ("/embed", {"json": {"image": b64(blob), "crop": [11, 7, 50, 41], "model": "tiny"}}),
        lambda blob: ("/embed?crop=11,7,50,41", {"json": {"image": b64(blob), "crop": [11, 7, 50.0, 41]}}),
    ],
    ids=["form", "raw", "JSON", "in JSON", "twice the same"],
)
async def test_a_part_has_the_vector_of_the_same_part_sent_alone(
    client: Client, ask: Callable[[bytes], tuple[str, dict[str, Any]]]
) -> None:
    path, options = ask(IMAGES[0])
    answer = await client.post(path, **options)
    assert answer.status == 200, answer.body
    alone = await client.post("/embed", data=form_data("image", [cut(IMAGES[0])]))
    assert answer.json == alone.json
    assert (
        answer.json["embedding"]
        != (await client.post("/embed", data=form_data("image", [IMAGES[0]]))).json["embedding"]
    )


async def test_each_image_of_a_batch_may_have_its_own_part_or_none(client: Client) -> None:
    blob = IMAGES[1]
    parts = [(0, 0, 40, 60), (40, 0, 40, 60)]
    images = [b64(blob), {"image": b64(blob)}, *({"image": b64(blob), "crop": list(part)} for part in parts)]
    answer = await client.post("/embed/batch", json={"images": images})
    expected = [truth(blob), truth(blob), *(truth(cut(blob, part)) for part in parts)]
    np.testing.assert_allclose(np.float32(answer.json["embeddings"]), expected, atol=1e-6)


async def test_an_image_of_a_large_document_may_have_its_part(client: Client) -> None:
    blob = encode(opened("rocket.jpg"))
    answer = await client.post("/embed/batch", json={"images": [{"image": b64(blob), "crop": [300, 200, 100, 80]}]})
    np.testing.assert_allclose(
        np.float32(answer.json["embeddings"][0]), truth(cut(blob, (300, 200, 100, 80))), atol=1e-6
    )


async def test_a_part_that_is_not_inside_the_image_is_422_by_its_place(client: Client) -> None:
    alone = await client.post("/embed?crop=0,0,60,80", data=form_data("image", [IMAGES[0]]))
    assert (alone.status, alone.json["error"]["code"]) == (422, "crop_outside_image")
    assert alone.json["error"]["message"] == (
        "The crop [0, 0, 60, 80] is not inside the image, which has 80x60 pixels, upright."
    )
    images = [b64(IMAGES[0]), *({"image": b64(IMAGES[0]), "crop": crop} for crop in ([79, 59, 1, 1], [-1, 0, 9, 9]))]
    answer = await client.post("/embed/batch", json={"images": images})
    assert answer.status == 422
    assert [(one["index"], one["code"]) for one in answer.json["error"]["details"]["images"]] == [
        (2, "crop_outside_image")
    ]
    answer = await client.post("/embed/batch?on_error=null", json={"images": images})
    assert (answer.status, [one["index"] for one in answer.json["errors"]]) == (200, [2])


@pytest.mark.parametrize(
    "crop", ["1,2,3", [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, "4"], [1, 2, 3, 4.5], [1, 2, 3, True], {}, 7, [1e300] * 3]
)
async def test_a_crop_that_is_not_four_whole_numbers_is_400(client: Client, crop: Any) -> None:
    for path, body in (
        ("/embed", {"image": b64(IMAGES[0]), "crop": crop}),
        ("/embed/batch", {"images": [{"image": b64(IMAGES[0]), "crop": crop}]}),
    ):
        answer = await client.post(path, json=body)
        assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_field")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/embed?crop=", "invalid_field"),
        ("/embed?crop=1,2,3", "invalid_field"),
        ("/embed?crop=1,2,3,4.0", "invalid_field"),
        ("/embed?crop=1,2,3,99999999999", "invalid_field"),
        ("/embed?crop=1,2,30,30&crop=1,2,31,30", "unknown_option"),
        ("/embed/batch?crop=1,2,30,30", "unknown_option"),
        ("/embed/text?crop=1,2,30,30", "unknown_option"),
    ],
)
async def test_a_crop_in_the_query_that_is_none_or_has_no_place_there_is_400(
    client: Client, path: str, code: str
) -> None:
    answer = await client.post(path, json={"image": b64(IMAGES[0])})
    assert (answer.status, answer.json["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/embed?crop=1,2,3,4", {"image": "AA==", "crop": [1, 2, 3, 5]}, "invalid_field"),
        ("/embed", {"image": "AA==", "crop": [1, 2, 3, 4], "box": []}, "unexpected_field"),
        ("/embed", {"crop": [1, 2, 3, 4]}, "missing_image"),
        ("/embed/batch", {"images": ["AA=="], "crop": [1, 2, 3, 4]}, "unexpected_field"),
        ("/embed/batch", {"images": [{"image": "AA==", "box": []}]}, "unexpected_field"),
        ("/embed/batch", {"images": [{"crop": [1, 2, 3, 4]}]}, "invalid_field"),
        ("/embed/batch", {"images": [{"image": {"image": "AA=="}}]}, "invalid_field"),
    ],
)
async def test_a_crop_in_the_wrong_company_is_400_by_name(client: Client, path: str, body: Any, code: str) -> None:
    answer = await client.post(path, json=body)
    assert (answer.status, answer.json["error"]["code"]) == (400, code)


async def test_a_numpy_file_cannot_say_which_images_failed(client: Client) -> None:
    answer = await client.post(
        "/embed/batch?on_error=null", data=form_data("images", IMAGES), headers={"Accept": "application/x-npy"}
    )
    assert answer.status == 406


async def test_what_nobody_foresaw_is_500_and_says_nothing(serve_here: Serve, model: Model) -> None:
    class Broken(Model):
        def read_image(self, *arguments: object, **options: object) -> NoReturn:
            raise LookupError("secret")

    client = await serve_here(lambda: Broken(**vars(model)))
    answer = await client.post("/embed", data=form_data("image", [IMAGES[0]]))
    assert (answer.status, answer.json["error"]["code"]) == (500, "internal")
    assert b"secret" not in answer.body
