"""What the rooms take of a Config arrives there, whatever it is."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import pytest

from clipsrv.config import Config
from clipsrv.errors import ConfigError
from clipsrv.machine import usable_cores
from clipsrv.settings import (
    DEFAULT_DECODING,
    DEFAULT_LIMITS,
    Decoding,
    ModelSettings,
    OfferSettings,
    decode_threads,
    image_limits,
    model_settings,
    offer_settings,
    pixels_in_flight,
    serving_settings,
    share_of,
    texts_of_a_request,
    threads_of,
)
from clipsrv.topology import Threads, inference_threads


def test_the_defaults_of_a_config_are_those_of_the_rooms() -> None:
    assert image_limits(Config()) == DEFAULT_LIMITS
    assert model_settings(Config()) == ModelSettings()
    assert model_settings(Config()).decoding == DEFAULT_DECODING


def test_models_are_named_once_and_blanks_and_empty_entries_are_none() -> None:
    offer = offer_settings(Config(model="a", models=" b, a ,,c", alias=" x = a ,y=b,,x=a", max_loaded=3))
    assert offer == OfferSettings(("a", "b", "c"), on_demand=False, aliases={"x": "a", "y": "b"})
    assert offer_settings(Config()) == OfferSettings(("vit-b-32",))


def test_an_alias_may_mean_any_model_where_all_are_served() -> None:
    assert offer_settings(Config(alias="x=anything", on_demand=True)).aliases == {"x": "anything"}
    with pytest.raises(ConfigError, match="anything is not served"):
        offer_settings(Config(alias="x=anything"))


def test_no_limit_of_models_is_none() -> None:
    assert (serving_settings(Config()).max_loaded, serving_settings(Config()).unload_after) == (None, None)
    settings = serving_settings(Config(max_loaded=2, unload_after=0.5))
    assert (settings.max_loaded, settings.unload_after) == (2, 0.5)


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


@pytest.mark.parametrize("workers", [1, 4])
def test_threads_are_those_asked_for_or_the_share_of_the_machine(workers: int) -> None:
    assert threads_of(Config(workers=workers, threads=3)) == Threads(3, "as set")
    assert threads_of(Config(workers=workers)) == inference_threads(workers)


@pytest.mark.parametrize(("threads", "cpus"), [(4, frozenset({4, 5, 6, 7})), (5, None)])
def test_a_worker_keeps_to_its_node_if_the_threads_asked_for_fit_there(
    monkeypatch: pytest.MonkeyPatch, threads: int, cpus: frozenset[int] | None
) -> None:
    share = Threads(2, "", frozenset({4, 5, 6, 7}))
    monkeypatch.setattr("clipsrv.settings.inference_threads", lambda workers, number: share if number == 3 else None)
    assert threads_of(Config(workers=4, threads=threads), 3) == Threads(threads, "as set", cpus)


def test_one_worker_has_the_whole() -> None:
    config = Config()
    assert share_of(config, 3) is config


@pytest.mark.parametrize("workers", [2, 3, 4, 16, 256])
def test_several_workers_divide_what_bounds_the_server_and_each_takes_the_largest_request(workers: int) -> None:
    whole = Config(workers=workers)
    share = share_of(whole, 3)
    assert share.threads == 3
    assert share.decode_threads == max(1, usable_cores() // workers)
    assert share.cache_bytes == whole.cache_bytes // workers
    assert share.max_connections == whole.max_connections // workers
    divided = ("max_queue", "queue_per_caller", "max_bytes_in_flight")
    for name in divided:
        assert getattr(whole, name) // workers <= getattr(share, name) <= getattr(whole, name)
    assert share.max_bytes_in_flight == max(2**29 // workers, 2**27)
    assert share.max_pixels_in_flight == max(pixels_in_flight(whole) // workers, 50_000_000)
    assert texts_of_a_request(share) == texts_of_a_request(whole)
    assert share.queue_per_caller >= share.max_images
    assert share.max_queue >= share.queue_per_caller


def test_what_was_set_for_one_process_is_so_in_each() -> None:
    share = share_of(
        Config(workers=4, threads=3, decode_threads=5, max_queue=64, max_images=64, max_pixels_in_flight=0), 3
    )
    assert (share.threads, share.decode_threads, share.max_queue, share.auth_failures) == (3, 5, 64, 10)
