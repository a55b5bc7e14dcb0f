"""Every setting is a field, a flag and a variable; what is wrong is refused by the variable's name."""

from __future__ import annotations

import os
from dataclasses import Field, fields
from typing import Any

import pytest

from clipsrv.config import Config, flag, from_environment, parse, unknown_variables, variable
from clipsrv.errors import ConfigError

FIELDS = fields(Config)
BY_NAME = {item.name: item for item in FIELDS}


@pytest.mark.parametrize("item", FIELDS, ids=lambda item: item.name)
def test_every_setting_has_a_line_of_help_and_a_valid_default(item: Field[Any]) -> None:
    assert 10 < len(item.metadata["help"]) < 100
    assert item.metadata["help"][0].islower() or item.metadata["help"].startswith("API")
    assert getattr(Config(), item.name) == item.default


@pytest.mark.parametrize("item", FIELDS, ids=lambda item: item.name)
def test_every_setting_can_be_given_as_a_variable(item: Field[Any]) -> None:
    text = "a-long-enough-key" if item.metadata["secret"] else str(item.default)
    expected = text if item.metadata["secret"] else item.default
    assert from_environment({variable(item.name): text, "HOME": "x"}) == {item.name: expected}


def test_variables_come_from_the_process_where_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "CLIPSRV_PORT", "1234")
    assert from_environment()["port"] == 1234


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("port", 65536, "from 0 to 65,535"),
        ("port", -1, "from 0 to 65,535"),
        ("max_batch_size", 0, "from 1 to 1,024"),
        ("max_body_bytes", 10, "1,024 or more"),
        ("deadline", 0.0, "0.1 or more"),
        ("deadline", float("nan"), "0.1 or more"),
        ("device", "gpu", "one of auto, cpu, cuda, coreml, mps, openvino"),
        ("precision", "fp8", "one of auto, fp32"),
        ("log_level", "loud", "one of debug, info"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_variable_and_flag(name: str, value: object, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{name: value})
    assert caught.value.message.startswith(f"{variable(name)} ({flag(name)}) is {value!r}; it must be {allowed}")


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("port", "http", "a whole number"),
        ("port", "5000.0", "a whole number"),
        ("port", "", "a whole number"),
        ("deadline", "soon", "a number"),
        ("text", "maybe", "true or false"),
    ],
)
def test_text_that_cannot_be_read_is_refused_by_its_variable_and_flag(name: str, text: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted) as caught:
        parse(BY_NAME[name], text)
    assert variable(name) in caught.value.message
    assert flag(name) in caught.value.message


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("True", True), (" yes ", True), ("ON", True), ("0", False), ("off", False)]
)
def test_true_and_false_are_read_as_people_write_them(text: str, value: bool) -> None:
    assert parse(BY_NAME["text"], text) is value


def test_a_secret_is_never_empty_and_never_shown() -> None:
    with pytest.raises(ConfigError, match=r"CLIPSRV_API_KEYS .* is empty"):
        parse(BY_NAME["api_keys"], "  ")
    assert "sesame" not in repr(Config(api_keys="open-sesame"))


@pytest.mark.parametrize(
    "settings",
    [
        {"max_queue": 10, "max_images": 11},
        {"max_queue_per_caller": 10, "max_images": 11},
        {"max_pixels": 200, "max_pixels_in_flight": 199},
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="CLIPSRV_MAX_"):
        Config(**settings)


def test_one_callers_share_of_the_queue_is_three_quarters_but_room_for_one_request() -> None:
    assert Config(max_queue=1000).queue_per_caller == 750
    assert Config(max_queue=80, max_images=70).queue_per_caller == 70
    assert Config(max_queue_per_caller=100).queue_per_caller == 100


def test_misspelt_variables_are_found() -> None:
    environment = {"CLIPSRV_PROT": "1", "CLIPSRV_PORT": "1", "CLIPSRV_": "1", "PATH": "/"}
    assert unknown_variables(environment) == ["CLIPSRV_", "CLIPSRV_PROT"]
