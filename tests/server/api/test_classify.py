"""/classify: the image and the labels sent in either form, scored as the model was trained, refused by name."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aiohttp import FormData

from clipsrv.models.scoring import scores
from clipsrv.specs import ScoringSpec
from tests.support.drawings import drawings
from tests.support.model import CountingTexts, make_model
from tests.support.photos import encode
from tests.support.serving import Client, drawn, form, part, serving

Serve = Callable[..., Awaitable[Client]]
IMAGE = drawn(3)
BASE64 = base64.b64encode(IMAGE).decode()
LABELS = ["cat", "a red dress", "赤いハート"]


def classify_form(labels: list[str], template: str | None = None, image: bytes | None = IMAGE) -> FormData:
    """As curl, browsers and requests send it."""
    data = FormData()
    for label in labels:
        data.add_field("labels", label)
    if template is not None:
        data.add_field("template", template)
    if image is not None:
        data.add_field("image", image, filename="image.png", content_type="image/png")
    return data


async def by_hand(client: Client, labels: list[str], template: str, scoring: ScoringSpec) -> dict[str, Any]:
    """The scores by label, of the vectors that the other endpoints give."""
    answer = await client.post("/embed/text", json={"texts": [template.replace("{}", label) for label in labels]})
    cosines = np.array(answer.json["embeddings"]) @ (await client.embed(IMAGE)).astype(np.float64)
    return dict(zip(labels, scores(cosines[None], scoring)[0], strict=True))


@pytest.mark.parametrize("scoring", [ScoringSpec("softmax", 100.0), ScoringSpec("sigmoid", 20.0, -1.5)])
async def test_scores_are_those_of_the_vectors_by_the_models_own_scoring(scoring: ScoringSpec) -> None:
    model = make_model()
    model = replace(model, manifest=replace(model.manifest, scoring=scoring))
    async with serving(model) as served:
        client = served.client
        answer = await client.post("/classify", data=classify_form(LABELS, "a photo of {}"))
        assert answer.status == 200, answer.body
        assert (answer.json["scoring"], answer.json["model"], answer.json["truncated"]) == (scoring.kind, "tiny", [])
        found = [(one["label"], one["score"]) for one in answer.json["labels"]]
        expected = await by_hand(client, LABELS, "a photo of {}", scoring)
        assert [label for label, _ in found] == sorted(LABELS, key=lambda label: -expected[label])
        np.testing.assert_allclose([score for _, score in found], [expected[label] for label, _ in found], atol=1e-4)
        assert answer.headers["X-Embedding-Id"] == model.embedding_id
        assert "inference;dur=" in answer.headers["Server-Timing"]


async def test_a_form_and_json_are_answered_alike_in_any_order_of_parts(client: Client) -> None:
    by_form = await client.post("/classify", data=classify_form(LABELS, "{}"))
    by_json = await client.post("/classify", json={"image": BASE64, "labels": LABELS, "template": "{}"})
    first = FormData()
    first.add_field("image", IMAGE, filename="a.png")
    for label in LABELS:
        first.add_field("labels", label)
    first.add_field("template", "{}")
    assert by_form.status == by_json.status == 200
    assert by_form.json == by_json.json == (await client.post("/classify", data=first)).json


async def test_without_a_template_it_is_that_of_transformers(client: Client) -> None:
    without = await client.post("/classify", json={"image": BASE64, "labels": LABELS, "template": None})
    named = await client.post("/classify", data=classify_form(LABELS, "This is a photo of {}."))
    assert without.json == named.json


async def test_labels_are_computed_once_and_remembered_by_the_model_that_made_them() -> None:
    counting = CountingTexts()
    async with serving(replace(make_model(), text_encoder=counting), cache_bytes=2**20) as served:
        warm = counting.texts
        answers = [await served.client.post("/classify", data=classify_form(LABELS)) for _ in range(3)]
        assert counting.texts - warm == len(LABELS)
        assert answers[0].json == answers[2].json
        await served.client.post("/classify", data=classify_form([*LABELS, "another"]))
        await served.client.post("/classify", data=classify_form(LABELS, "{}"))
        assert counting.texts - warm == 2 * len(LABELS) + 1


async def test_labels_that_the_model_does_not_read_whole_are_named(client: Client) -> None:
    long = "word " * 150
    for _ in range(2):  # computed, and remembered
        answer = await client.post("/classify", data=classify_form(["cat", long]))
        assert answer.json["truncated"] == [long]


async def test_labels_in_a_script_that_the_model_does_not_read_are_named_each_time(serve_here: Serve) -> None:
    model = make_model()
    source = {**model.manifest.source, "languages": "en"}
    client = await serve_here(lambda: replace(model, manifest=replace(model.manifest, source=source)))
    for template in (None, None, "{}", "{}"):  # computed, and remembered
        answer = await client.post("/classify", data=classify_form(LABELS, template))
        assert answer.json["unknown_script"] == ["赤いハート"]
    answer = await client.post("/classify", data=classify_form(["cat"], "{}"))
    assert "unknown_script" not in answer.json
    answer = await client.post("/classify", data=classify_form(["赤い cat"], "{}"))
    assert "unknown_script" not in answer.json
    answer = await client.post("/classify", data=classify_form(["赤い"], "{} cat"))
    assert answer.json["unknown_script"] == ["赤い"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"labels": ["a"]}, "missing_image"),
    "no labels": ({"image": BASE64}, "invalid_labels"),
    "an empty list": ({"image": BASE64, "labels": []}, "invalid_labels"),
    "an empty label": ({"image": BASE64, "labels": ["a", " "]}, "invalid_labels"),
    "a label twice": ({"image": BASE64, "labels": ["a", "b", "a"]}, "invalid_labels"),
    "a label too long": ({"image": BASE64, "labels": ["a" * 1001]}, "invalid_labels"),
    "a label far too long": ({"image": BASE64, "labels": ["a" * 900_000]}, "invalid_labels"),
    "labels that are a string": ({"image": BASE64, "labels": "a,b"}, "invalid_field"),
    "labels that are no strings": ({"image": BASE64, "labels": ["a", 5]}, "invalid_field"),
    "a template without its place": ({"image": BASE64, "labels": ["a"], "template": "a photo"}, "invalid_labels"),
    "a template with two": ({"image": BASE64, "labels": ["a"], "template": "{} {}"}, "invalid_labels"),
    "a template that is no string": ({"image": BASE64, "labels": ["a"], "template": 1}, "invalid_field"),
    "another field": ({"image": BASE64, "labels": ["a"], "candidate_labels": ["b"]}, "unexpected_field"),
    "an image that is none": ({"image": ["x"], "labels": ["a"]}, "invalid_field"),
    "a URL": ({"image": "https://example.com/a.jpg", "labels": ["a"]}, "remote_url_disabled"),
}


@pytest.mark.parametrize(("body", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_classified_is_400_by_name(client: Client, body: dict[str, Any], code: str) -> None:
    answer = await client.post("/classify", json=body)
    assert (answer.status, answer.code) == (400, code), answer.body


FORMS: dict[str, tuple[bytes, int, str]] = {
    "no labels": (form(part(IMAGE)), 400, "invalid_labels"),
    "no image": (form(part(b"cat", "labels")), 400, "missing_image"),
    "two images": (form(part(IMAGE), part(IMAGE), part(b"cat", "labels")), 400, "duplicate_field"),
    "two templates": (form(part(b"{}", "template"), part(b"{}", "template"), part(IMAGE)), 400, "duplicate_field"),
    "another field": (form(part(IMAGE), part(b"cat", "labels"), part(b"x", "label")), 400, "unexpected_field"),
    "a label that is not UTF-8": (form(part(IMAGE), part(b"\xff\xfe", "labels")), 400, "invalid_labels"),
    "a label of a megabyte": (form(part(IMAGE), part(b"a" * 900_000, "labels")), 400, "invalid_labels"),
    "a bad image": (form(part(b"nothing"), part(b"cat", "labels")), 422, "not_an_image"),
}


@pytest.mark.parametrize(("body", "status", "code"), FORMS.values(), ids=FORMS)
async def test_a_form_that_cannot_be_classified_is_refused_by_name(
    client: Client, body: bytes, status: int, code: str
) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=limit"}
    answer = await client.post("/classify", data=body, headers=kind)
    assert (answer.status, answer.code) == (status, code), answer.body


async def test_more_labels_than_texts_are_allowed_are_refused(serve_here: Serve) -> None:
    client = await serve_here(max_texts=2)
    for sent in ({"data": classify_form(list("abc"))}, {"json": {"image": BASE64, "labels": list("abc")}}):
        answer = await client.post("/classify", **sent)
        assert (answer.status, answer.code) == (413, "too_many_texts")
        assert answer.json["error"]["details"] == {"limit": 2}
    assert (await client.post("/classify", data=classify_form(list("ab")))).status == 200


async def test_as_many_labels_as_the_slots_of_a_caller_hold_are_accepted(serve_here: Serve) -> None:
    client = await serve_here(max_queue=4, max_queue_per_caller=2, max_images=2)
    labels = [f"label {number}" for number in range(33)]
    assert (await client.post("/classify", data=classify_form(labels[:32]))).status == 200
    assert (await client.post("/classify", data=classify_form(labels))).code == "too_many_texts"


async def test_without_a_text_tower_there_is_nothing_to_classify_with(serve_here: Serve) -> None:
    client = await serve_here(text=False)
    answer = await client.post("/classify", data=classify_form(LABELS))
    assert (answer.status, answer.code) == (404, "no_text_tower")


async def test_only_json_is_answered_and_only_forms_and_json_are_read(client: Client) -> None:
    answer = await client.post("/classify", data=classify_form(LABELS), headers={"Accept": "application/x-npy"})
    assert (answer.status, answer.code) == (406, "not_acceptable")
    answer = await client.post("/classify", data=IMAGE, headers={"Content-Type": "image/png"})
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


async def test_a_bad_image_is_422_and_leaves_the_next_request_alone(client: Client) -> None:
    answer = await client.post("/classify", data=classify_form(LABELS, image=IMAGE[:40]))
    assert answer.status == 422
    assert answer.json["error"]["details"]["images"][0]["index"] == 0
    assert (await client.post("/classify", data=classify_form(LABELS))).status == 200


async def test_the_bundled_model_tells_drawings_apart_by_their_names(serve_here: Serve) -> None:
    client = await serve_here(model="demo", models_dir="onnx_models")
    for name, image in drawings().items():
        data = classify_form(list(drawings()), image=encode(image, "PNG"))
        answer = await client.post("/classify", data=data)
        assert answer.json["model"] == "demo"
        assert answer.json["labels"][0]["label"] == name, answer.json
