"""deploy/compose.yaml starts as its first lines say, each profile alone, with nothing set and with everything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipsrv.cli import read_config
from clipsrv.config import Config
from clipsrv.server.http.security import read_keys

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy/compose.yaml").read_text(encoding="utf-8")
REFERENCE = re.compile(r"\$\{(\w+)(?:(:?[-?])([^}]*))?\}")


def resolve(variables: dict[str, str]) -> dict[str, Any]:
    """The services by name, references replaced as Compose does, which does so in every profile's: whichever is
    started, a `${NAME:?}` without a value ends it."""

    def value(match: re.Match[str]) -> str:
        name, how, other = match.groups()
        there = variables.get(name) if how and how[0] != ":" else variables.get(name) or None
        assert there is not None or how is None or "?" not in how, f"{name} must be set: {other}"
        return there if there is not None else (other or "")

    services: dict[str, Any] = yaml.safe_load(REFERENCE.sub(value, TEXT))["services"]
    return services


def environment(service: dict[str, Any], variables: dict[str, str]) -> dict[str, str]:
    """A container's variables; one without a value is handed on if it is set."""
    given = service["environment"]
    return {
        name: str(variables[name] if value is None else value)
        for name, value in given.items()
        if value is not None or name in variables
    }


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Any:
    def read(given: dict[str, str]) -> Config:
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        return read_config([])

    return read


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_server_starts_with_nothing_set(profile: str, configured: Any) -> None:
    config = configured(environment(resolve({})[profile], {}))
    assert (config.model, config.api_keys) == ("demo", "")
    assert profile in config.allowed_hosts.split(",")


def test_a_server_takes_what_is_set(configured: Any) -> None:
    variables = {
        "MODEL": "vit-b-32",
        "CLIPSRV_API_KEYS": "one-of-the-keys,another",
        "CLIPSRV_ALLOWED_HOSTS": "a.example",
    }
    services = resolve(variables)
    config = configured(environment(services["cpu"], variables))
    assert (config.model, config.allowed_hosts) == ("vit-b-32", "a.example")
    assert read_keys(config.api_keys, "") == ("one-of-the-keys", "another")
    assert services["cpu"]["build"]["args"]["MODEL"] == "vit-b-32"


def test_the_database_has_a_password_whether_or_not_one_is_set() -> None:
    for variables in ({}, {"POSTGRES_PASSWORD": ""}, {"POSTGRES_PASSWORD": "another"}):
        database = resolve(variables)["database"]
        assert database["environment"]["POSTGRES_PASSWORD"] == (variables.get("POSTGRES_PASSWORD") or "catalogue")


def test_every_port_is_published_to_this_machine_only() -> None:
    for service in resolve({}).values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_every_service_belongs_to_a_profile_that_the_first_lines_name() -> None:
    named = re.findall(r"--profile (\w+)", TEXT.partition("\nname:")[0])
    assert [profile for service in resolve({}).values() for profile in service["profiles"]] == named
