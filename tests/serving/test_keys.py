"""Two items have one key only if all that makes their vector is the same: whatever else they share."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from clipsrv.images.region import Cropped, Encoded, Region
from clipsrv.models.model import Model
from clipsrv.serving.keys import image_key, space_of, text_key
from clipsrv.serving.prompts import Prompt
from clipsrv.settings import Decoding

SPACE = bytes(32)


def test_the_same_bytes_have_one_key_however_they_are_held() -> None:
    keys = {image_key(SPACE, held) for held in (b"abc", memoryview(b"abc"), memoryview(bytearray(b"abc")))}
    assert len(keys) == 1
    assert text_key(SPACE, Prompt("a cat", "a cat")) == text_key(SPACE, Prompt("a " + "cat", "a cat"))


def test_everything_but_the_bytes_may_be_equal_or_the_bytes_and_nothing_else(model: Model) -> None:
    """Images of equal bytes, parts, texts of the same letters, labels, models, precisions and decodings."""
    spaces = [
        space_of(model),
        space_of(replace(model, decoding=Decoding(fast=True))),
        space_of(replace(model, decoding=Decoding(exif_orientation=False))),
        space_of(replace(model, precision="int8")),
        space_of(replace(model, device="cuda", precision="fp16")),
        space_of(replace(model, manifest=replace(model.manifest, created="2026-01-02T00:00:00+00:00"))),
        space_of(replace(model, manifest=replace(model.manifest, dimensions=65))),
    ]
    images: list[Encoded] = [
        b"(1, 2, 3, 4)a cat",
        b"a cat",
        b"",
        Cropped(b"a cat", Region(1, 2, 3, 4)),
        Cropped(b"a cat", Region(1, 2, 3, 5)),
        Cropped(b"a cat", Region(12, 2, 3, 4)),
        Cropped(b"a cat", Region(0, 0, 0, 0)),
        Cropped(b", 4)a cat", Region(1, 2, 3, 4)),
    ]
    prompts = [
        *(Prompt(text, text) for text in ("a cat", "A cat", "a cat ", "", "=cata cat", "\ud800")),
        *(Prompt("a cat", label) for label in ("cat", "a", "", "a ca")),
        Prompt("ta cat", "ca"),
    ]
    keys = [image_key(space, image) for space in spaces for image in images]
    keys += [text_key(space, prompt) for space in spaces for prompt in prompts]
    assert len(set(keys)) == len(keys) == len(spaces) * (len(images) + len(prompts))
    assert {len(key) for key in keys} == {32}


@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), min_size=2, max_size=2, unique=True))
def test_no_text_passes_for_another_with_part_of_its_label(pairs: list[tuple[str, str]]) -> None:
    one, other = (text_key(SPACE, Prompt(*pair)) for pair in pairs)
    assert one != other


def test_parts_of_one_image_differ_by_every_number() -> None:
    regions = [Region(*((9,) * place + (8,) + (9,) * (3 - place))) for place in range(4)]
    for one, other in combinations([image_key(SPACE, Cropped(b"x", region)) for region in regions], 2):
        assert one != other
