"""What the rooms take of a Config arrives there, whatever it is."""

from __future__ import annotations

import os
from dataclasses import asdict

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
