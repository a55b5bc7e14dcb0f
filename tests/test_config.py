"""Every setting is a field, a flag and a variable; what is wrong is refused by the variable's name."""

from __future__ import annotations

import argparse
import os
from dataclasses import Field, fields
from typing import Any

import pytest

from clipsrv.config import Config, add_flags, flag, parse, read, service_links, unknown_variables, variable
from clipsrv.errors import ConfigError

FIELDS = fields(Config)
BY_NAME = {item.name: item for item in FIELDS}
#: What a command line without any option gives.
NOTHING: dict[str, Any] = dict.fromkeys(BY_NAME)


@pytest.mark.parametrize("item", FIELDS, ids=lambda item: item.name)
def test_every_setting_has_a_line_of_help_and_a_valid_default(item: Field[Any]) -> None:
    assert 10 < len(item.metadata["help"]) < 100
    assert item.metadata["help"][0].islower() or item.metadata["help"].startswith("API")
    assert getattr(Config(), item.name) == item.default


@pytest.mark.parametrize("item", FIELDS, ids=lambda item: item.name)
def test_every_setting_can_be_given_as_a_variable_or_an_option(item: Field[Any]) -> None:
    text = "a-long-enough-key" if item.metadata["secret"] else str(item.default)
    value: dict[str, Any] = {item.name: text if item.metadata["secret"] else item.default}
    expected = Config(**value)
    assert read(NOTHING, {variable(item.name): text, "HOME": "x"}) == expected
    assert read(NOTHING | {item.name: text}, {}) == expected


def test_a_flag_that_may_be_repeated_is_a_list_by_commas_too() -> None:
    assert read(NOTHING | {"models": ["a", "b,c"], "alias": ["x=a"]}, {}) == Config(models="a,b,c", alias="x=a")
    assert read(NOTHING, {"CLIPSRV_MODELS": "a,b"}).models == "a,b"
    parser = argparse.ArgumentParser()
    add_flags(parser, ["alias", "model"])
    assert vars(parser.parse_args(["--alias", "x=a", "--alias", "y=a"])) == {"alias": ["x=a", "y=a"], "model": None}


def test_variables_come_from_the_process_where_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "CLIPSRV_PORT", "1234")
    assert read(NOTHING).port == 1234


@pytest.mark.parametrize("item", FIELDS, ids=lambda item: item.name)
def test_the_variable_of_an_option_that_was_given_is_not_even_read(item: Field[Any]) -> None:
    given = "a-long-enough-key" if item.metadata["secret"] else str(item.default)
    assert read(NOTHING | {item.name: given}, {variable(item.name): "\udcff nonsense"}) == read({item.name: given}, {})


def test_a_command_without_a_field_reads_neither_its_option_nor_its_variable() -> None:
    environment = {"CLIPSRV_PORT": "nonsense", "CLIPSRV_THREADS": "3"}
    assert read({"threads": None, "paths": ["a"]}, environment) == Config(threads=3)


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
    wrong: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.message.startswith(f"{variable(name)} ({flag(name)}) is {value!r}; it must be {allowed}")


def test_the_ends_of_a_range_belong_to_it() -> None:
    assert (Config(port=0).port, Config(port=65535).port) == (0, 65535)
    assert Config(deadline=0.1).deadline == 0.1


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


@pytest.mark.parametrize("name", ["port", "deadline", "text", "model", "models_dir", "host", "api_keys", "device"])
def test_bytes_that_are_not_utf_8_are_refused_by_name(name: str) -> None:
    """As os.environ gives them: b"\\xff" is "\\udcff", which can be neither printed nor sent."""
    with pytest.raises(ConfigError, match=r"is not valid UTF-8\.$") as caught:
        read(NOTHING, {variable(name): "a\udcff"})
    assert caught.value.message.startswith(f"{variable(name)} ({flag(name)})")
    caught.value.message.encode()


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
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="CLIPSRV_MAX_"):
        Config(**settings)


def test_one_callers_share_of_the_queue_is_three_quarters_but_room_for_one_request() -> None:
    assert Config(max_queue=1000).queue_per_caller == 750
    assert Config(max_queue=80, max_images=70).queue_per_caller == 70
    assert Config(max_queue_per_caller=100).queue_per_caller == 100


def test_misspelt_variables_are_found() -> None:
    environment = {"CLIPSRV_PROT": "1", "CLIPSRV_PORT": "1", "CLIPSRV_": "1", "CLIPSRV_GPU_PORT": "1", "PATH": "/"}
    assert unknown_variables(environment) == ["CLIPSRV_", "CLIPSRV_GPU_PORT", "CLIPSRV_PROT"]


def links(service: str, address: str, *ports: tuple[str, int, str]) -> dict[str, str]:
    """What a kubelet sets for a Service (kubernetes/pkg/kubelet/envvars/envvars.go)."""
    name, found = service.upper().replace("-", "_"), dict[str, str]()
    host = f"[{address}]" if ":" in address else address
    found |= {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(ports[0][1])}
    found[f"{name}_PORT"] = f"{ports[0][2].lower()}://{host}:{ports[0][1]}"
    for label, port, protocol in ports:
        found[f"{name}_SERVICE_PORT_{label.upper().replace('-', '_')}"] = str(port)
        prefix = f"{name}_PORT_{port}_{protocol}"
        found |= {prefix: f"{protocol.lower()}://{host}:{port}", f"{prefix}_PROTO": protocol.lower()}
        found |= {f"{prefix}_PORT": str(port), f"{prefix}_ADDR": address}
    return found


@pytest.mark.parametrize(
    "environment",
    [
        links("clipsrv", "10.96.12.7", ("http", 5000, "TCP")),
        links("clipsrv", "fd00:10:96::c7", ("http", 5000, "TCP"), ("http-metrics", 9090, "TCP")),
        links("clipsrv", "10.96.12.7", ("dns", 53, "UDP"), ("sigtran", 2905, "SCTP")),
        links("clipsrv-gpu", "10.96.12.8", ("http", 80, "TCP")),
    ],
)
def test_the_service_links_of_kubernetes_are_no_settings_and_not_misspelt(environment: dict[str, str]) -> None:
    assert read(NOTHING, environment) == Config()
    assert service_links(environment) == sorted(environment)
    assert unknown_variables(environment) == []
    assert read(NOTHING | {"port": "6000"}, environment).port == 6000


def test_a_port_set_beside_service_links_counts() -> None:
    environment = links("clipsrv", "10.96.12.7", ("http", 5000, "TCP")) | {"CLIPSRV_PORT": "7000"}
    assert read(NOTHING, environment).port == 7000
    assert "CLIPSRV_PORT" not in service_links(environment)


@pytest.mark.parametrize("text", ["10.96.12.7:5000", "http://10.96.12.7:5000", "tcp:5000"])
def test_what_is_no_service_link_is_still_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"CLIPSRV_PORT .* must be a whole number"):
        read(NOTHING, {"CLIPSRV_PORT": text})
