"""What the rooms take of a Config arrives there, whatever it is."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import pytest

from clipsrv.config import Config
from clipsrv.settings import (
    DEFAULT_DECODING,
    DEFAULT_LIMITS,
    Decoding,
    ModelSettings,
    decode_threads,
    image_limits,
    model_settings,
    pixels_in_flight,
)


def test_the_defaults_of_a_config_are_those_of_the_rooms() -> None:
    assert image_limits(Config()) == DEFAULT_LIMITS
    assert model_settings(Config()) == ModelSettings()
    assert model_settings(Config()).decoding == DEFAULT_DECODING


def test_limits_of_images_are_those_asked_for() -> None:
    limits = image_limits(Config(max_image_bytes=1000, max_pixels=2000, max_aspect_ratio=3))
    assert asdict(limits) == {**asdict(DEFAULT_LIMITS), "max_bytes": 1000, "max_pixels": 2000, "max_aspect_ratio": 3}


def test_a_model_is_opened_as_asked_for() -> None:
    asked = Config(device="cpu", precision="int8", threads=3, text=False, exif_orientation=False, fast_decode=True)
    decoding = Decoding(exif_orientation=False, fast=True)
    assert model_settings(asked) == ModelSettings("cpu", "int8", 3, text=False, decoding=decoding)


def test_threads_that_decode_are_those_asked_for_or_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert decode_threads(Config(decode_threads=5)) == 5
    assert decode_threads(Config()) == 1


@pytest.mark.parametrize(
    ("settings", "pixels"),
    [
        ({"decode_threads": 2}, 100_000_000),  # two of the largest images
        ({"decode_threads": 64}, 1_024_000_000),  # a photo in every thread
        ({"decode_threads": 64, "max_pixels_in_flight": 50_000_000}, 50_000_000),
        ({"decode_threads": 2, "max_pixels": 200_000_000}, 400_000_000),
    ],
)
def test_pixels_at_once_are_those_asked_for_or_grow_with_the_threads(settings: dict[str, Any], pixels: int) -> None:
    assert pixels_in_flight(Config(**settings)) == pixels
