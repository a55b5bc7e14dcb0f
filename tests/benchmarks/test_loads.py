"""What loads hold, and how each server is asked for it."""

from __future__ import annotations

import json
from base64 import b64decode
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.asking import Ask, ask_guide, ask_infinity, ask_vllm, first_vector
from benchmarks.loads import LOADS, Load
from benchmarks.photos import PhotoKind
from benchmarks.phrases import make_texts

SMALL = PhotoKind(48, 32)


def body(request: bytes) -> Any:
    """The JSON of a request, which says its own length."""
    head, _, rest = request.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(rest)}".encode() in head
    return json.loads(rest)


def test_texts_are_told_apart_and_the_same_each_time() -> None:
    every = make_texts(6912)
    assert len(set(every)) == 6912
    assert make_texts(5) == every[:5]
    with pytest.raises(ValueError, match="6,912"):
        make_texts(6913)


def test_loads_have_names_of_their_own() -> None:
    assert len({load.name for load in LOADS}) == len(LOADS)


def test_a_load_sends_requests_of_as_many_texts_as_it_says(tmp_path: Path) -> None:
    requests = Load("lists", 1, texts=100).requests(tmp_path)
    assert {len(one) for one in requests} == {100}
    assert len(requests) >= 3


def test_a_caller_of_a_mixed_load_sends_an_image_and_a_text_in_turn(tmp_path: Path) -> None:
    load = Load("mixed", 4, images=1, texts=1, photo=SMALL)
    kinds = [type(one[0]) for one in load.requests(tmp_path)]
    for caller in range(4):
        mine = kinds[caller::4]
        assert all({*pair} == {bytes, str} for pair in pairwise(mine))
    assert load.items == 1
    assert kinds[:4].count(bytes) == 2  # and callers do not march in step


def test_what_is_asked_again_is_as_few_as_it_says(tmp_path: Path) -> None:
    requests = Load("again", 8, texts=1, again=5).requests(tmp_path)
    assert len({one[0] for one in requests}) == 5


@pytest.mark.parametrize("ask", [ask_guide, ask_infinity, ask_vllm])
def test_texts_are_sent_word_for_word(ask: Ask) -> None:
    assert ["red", "blue"] in body(ask(["red", "blue"], "JPEG", "localhost")).values()


def test_an_image_is_sent_byte_for_byte() -> None:
    form = ask_guide([b"\xff\xd8 photo"], "JPEG", "localhost")
    assert b"image/jpeg\r\n\r\n\xff\xd8 photo\r\n--" in form
    uri = body(ask_infinity([b"\xff\xd8 photo"], "JPEG", "localhost"))["input"][0]
    message = body(ask_vllm([b"\xff\xd8 photo"], "JPEG", "localhost"))["messages"][0]
    assert message["content"][0]["image_url"]["url"] == uri
    assert b64decode(uri.removeprefix("data:image/jpeg;base64,")) == b"\xff\xd8 photo"


def test_vllm_is_never_asked_for_several_images_at_once() -> None:
    with pytest.raises(ValueError, match="too many values"):
        ask_vllm([b"one", b"two"], "JPEG", "localhost")


@pytest.mark.parametrize(
    "answer",
    [{"embedding": [1.0, 2.0]}, {"embeddings": [[1.0, 2.0], [3.0, 4.0]]}, {"data": [{"embedding": [1.0, 2.0]}]}],
)
def test_the_first_vector_of_any_answer_is_found(answer: dict[str, Any]) -> None:
    assert first_vector(answer) == [1.0, 2.0]
