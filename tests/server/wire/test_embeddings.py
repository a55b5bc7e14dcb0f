"""Bodies of /v1/embeddings, in every dialect that a client speaks, to items and wishes; what is none is named."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipsrv.errors import ClipsrvError
from clipsrv.server.wire.documents import DocumentLimits, parse
from clipsrv.server.wire.embeddings import Wishes, embeddings_of
from clipsrv.server.wire.envelope import InvalidRequestError, TooManyImagesError, TooManyTextsError
from clipsrv.server.wire.items import Entry, ItemLimits, check, item_of

BARE = base64.b64encode(b"an image").decode()
URI = f"data:image/png;base64,{BARE}"
TEXT, IMAGE = "a dog", b"an image"

INPUTS: dict[str, tuple[dict[str, Any], list[str | bytes]]] = {
    "one text": ({"input": TEXT}, [TEXT]),
    "an empty text": ({"input": ""}, [""]),
    "several texts": ({"input": [TEXT, "a cat"]}, [TEXT, "a cat"]),
    "a text that is an address": ({"input": "https://a.example/b.png"}, ["https://a.example/b.png"]),
    "a text that looks like base64": ({"input": BARE}, [BARE]),
    "a data URI": ({"input": URI}, [IMAGE]),
    "a data URI in capitals": ({"input": [f"data:image/PNG;base64,{BARE}"]}, [IMAGE]),
    "a data URI of no kind": ({"input": [f"data:application/octet-stream;base64,{BARE}"]}, [IMAGE]),
    "texts and images": ({"input": [TEXT, URI, "a cat"]}, [TEXT, IMAGE, "a cat"]),
    "Jina's objects": ({"input": [{"text": TEXT}, {"image": BARE}, {"image": URI}]}, [TEXT, IMAGE, IMAGE]),
    "llama-index's bytes": ({"input": [{"bytes": BARE}]}, [IMAGE]),
    "llama-index's url": ({"input": [{"url": URI}]}, [IMAGE]),
    "one object": ({"input": {"text": TEXT}}, [TEXT]),
    "OpenAI's parts": (
        {"input": [{"type": "text", "text": TEXT}, {"type": "image_url", "image_url": {"url": URI, "detail": "low"}}]},
        [TEXT, IMAGE],
    ),
    "an image_url that is a string": ({"input": [{"type": "image_url", "image_url": URI}]}, [IMAGE]),
    "image_base64": ({"input": [{"type": "image_base64", "image_base64": BARE}]}, [IMAGE]),
    "Cohere's contents": (
        {
            "input": [
                {"content": [{"type": "text", "text": TEXT}]},
                {"content": [{"type": "image_url", "image_url": URI}]},
            ]
        },
        [TEXT, IMAGE],
    ),
    "a content that is a string": ({"input": [{"content": TEXT}]}, [TEXT]),
    "infinity's images": ({"input": [BARE, URI], "modality": "image"}, [IMAGE, IMAGE]),
    "infinity's texts": ({"input": [TEXT], "modality": "text"}, [TEXT]),
    "vLLM's message of an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URI}}]}]},
        [IMAGE],
    ),
    "a message of a text": ({"messages": [{"role": "user", "content": TEXT}]}, [TEXT]),
    "unknown fields beside": ({"input": TEXT, "user": "me", "task": "x", "truncate": True, "normalized": True}, [TEXT]),
    "fields of null": ({"input": TEXT, "messages": None, "model": None, "dimensions": None}, [TEXT]),
}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_in_any_dialect_becomes_its_items_in_order(name: str) -> None:
    document, items = INPUTS[name]
    entries, _ = embeddings_of(document)
    assert [item_of(entry) for entry in entries] == items


@pytest.mark.parametrize("escape", ["/", "\\/", "\\u002f", "\\u002F"])
def test_a_long_data_uri_is_an_image_however_json_writes_it(escape: str) -> None:
    image = bytes(90_000)
    uri = f"data:image/png;base64,{base64.b64encode(image).decode()}".replace("/", escape)
    body = b'{"input": ["%s", {"image": "%s"}]}' % (uri.encode(), uri.encode())
    entries, _ = embeddings_of(parse(body, DocumentLimits(2**20, 2048)))
    assert [item_of(entry) for entry in entries] == [image, image]


def test_a_long_text_is_a_text_whatever_its_letters() -> None:
    texts = ["data about dogs " * 20, "赤いドレス" * 40, "data:image\u3000" * 20]
    body = json.dumps({"input": texts}, ensure_ascii=False).encode()
    entries, _ = embeddings_of(parse(body, DocumentLimits(2**20, 2048)))
    assert [item_of(entry) for entry in entries] == texts


WISHES: dict[str, tuple[dict[str, Any], Wishes]] = {
    "none": ({}, Wishes(None, "float", None)),
    "what OpenAI's client sends": (
        {"model": "m", "encoding_format": "base64", "dimensions": 64},
        Wishes("m", "base64", 64),
    ),
    "Jina's": ({"encoding_type": "float", "embedding_type": ["float"]}, Wishes()),
    "infinity's through LiteLLM": ({"output_dimension": 64, "encoding_format": None}, Wishes(dimensions=64)),
}


@pytest.mark.parametrize("name", WISHES)
def test_what_is_asked_of_the_answer_is_read_under_each_of_its_names(name: str) -> None:
    document, wishes = WISHES[name]
    assert embeddings_of({"input": "a", **document})[1] == wishes


TOKENS = "check_embedding_ctx_length=False"
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({}, "input", "Send 'input'"),
    "both": ({"input": "a", "messages": []}, "input", "in its place"),
    "an empty list": ({"input": []}, "input", "is empty"),
    "a token": ({"input": 5}, "input", TOKENS),
    "tokens": ({"input": [1, 2, 3]}, "input", TOKENS),
    "arrays of tokens": ({"input": [[1, 2], [3]]}, "input", TOKENS),
    "tokens among texts": ({"input": ["a", [1, 2]]}, "input", TOKENS),
    "null in a list": ({"input": ["a", None]}, "input[1]", "must be a text"),
    "true": ({"input": True}, "input", "must be a text"),
    "a text and an image": ({"input": ["a", {"text": "a", "image": BARE}]}, "input[1]", "never a mean"),
    "an object of nothing": ({"input": [{"type": "text"}]}, "input[0]", "exactly one"),
    "an image of a list": ({"input": [{"image": [BARE]}]}, "input[0]", "must be a string"),
    "an image_url of nothing": ({"input": [{"image_url": {}}]}, "input[0]", "must be a string"),
    "two parts": ({"input": [{"content": [{"text": "a"}, {"image": BARE}]}]}, "input[0]", "one part"),
    "no part": ({"input": [{"content": []}]}, "input[0]", "one part"),
    "contents in contents": ({"input": [{"content": [{"content": "a"}]}]}, "input[0]", "one part"),
    "two messages": ({"messages": [{"content": "a"}] * 2}, "messages", "one message"),
    "the system's message": ({"messages": [{"role": "system", "content": "a"}]}, "messages", "the role 'user'"),
    "a message of nothing": ({"messages": [{"role": "user"}]}, "messages", "'content'"),
    "a message that is none": ({"messages": ["a"]}, "messages", "one message"),
    "another modality": ({"input": "a", "modality": "audio"}, "modality", "'text' or 'image'"),
    "a model that is no name": ({"input": "a", "model": 1}, "model", "must be a string"),
    "binary vectors": ({"input": "a", "encoding_type": "ubinary"}, "encoding_type", "'float' or 'base64'"),
    "a form that is none": ({"input": "a", "encoding_format": {}}, "encoding_format", "'float' or 'base64'"),
    "two forms": ({"input": "a", "encoding_format": "float", "embedding_type": "base64"}, "encoding_format", "one of"),
    "no dimensions": ({"input": "a", "dimensions": 0}, "dimensions", "at least 1"),
    "half a dimension": ({"input": "a", "output_dimension": 64.0}, "output_dimension", "a whole number"),
    "two sizes": ({"input": "a", "dimensions": 64, "output_dimension": 32}, "dimensions", "two sizes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_input_is_refused_by_the_name_of_its_field(name: str) -> None:
    document, param, words = WRONG[name]
    with pytest.raises(InvalidRequestError) as refused:
        embeddings_of(document)
    assert words in refused.value.message
    assert refused.value.details["param"] == param


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"image": "!"}, "invalid_base64"),
        ("data:image/svg+xml;utf8,<svg/>", "invalid_base64"),
        ({"image": "http://a.example"}, "remote_url_disabled"),
        ("x" * 1_000_001, "invalid_text"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_place(item: Any, code: str) -> None:
    entries, _ = embeddings_of({"input": ["a", item]})
    with pytest.raises(ClipsrvError) as refused:
        [item_of(entry) for entry in entries]
    assert refused.value.code == code
    assert refused.value.message.startswith("input[1]: ")
    assert refused.value.details["param"] == "input[1]"


def test_images_and_texts_have_limits_of_their_own_and_share_the_slots() -> None:
    text, image = Entry("a", False, ""), Entry(BARE, True, "")
    limits = ItemLimits(images=4, texts=64, slots=5)
    check([image] * 4 + [text] * 16, limits)
    with pytest.raises(TooManyImagesError):
        check([image] * 5, limits)
    with pytest.raises(TooManyTextsError, match="at most 64"):
        check([text] * 65, limits)
    with pytest.raises(TooManyTextsError, match="at most 16"):
        check([image] * 4 + [text] * 17, limits)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from([URI, BARE]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "image", "content", "url"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("input", "messages", "model", "encoding_format"), ANYTHING)))
def test_nothing_that_json_can_hold_is_more_than_a_refusal(document: dict[str, Any]) -> None:
    try:
        entries, _ = embeddings_of(document)
        assert all(isinstance(item_of(entry), str | bytes) for entry in entries)
    except ClipsrvError as error:
        assert error.code in {"invalid_field", "empty_batch", "invalid_base64", "remote_url_disabled"}
