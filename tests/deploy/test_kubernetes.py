"""deploy/kubernetes holds objects that Kubernetes takes, which fit one another and the server."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from clipsrv.config import Config

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
OBJECTS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "kustomization.yaml"
}
#: The oldest Kubernetes of today's clouds, and the newest that the schemas know.
VERSIONS = ("1.31", kubernetes_validate.latest_version())


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = OBJECTS["deployment"]["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    assert isinstance(only, dict)
    return only


def variables() -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container()["env"] if "value" in entry}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_is_one_of_kubernetes_with_no_field_it_does_not_know(name: str, version: str) -> None:
    kubernetes_validate.validate(OBJECTS[name], version, strict=True)
    misspelt = deepcopy(OBJECTS[name])
    misspelt["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, version, strict=True)


def test_apply_makes_every_object() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
    assert sorted(kustomization["resources"]) == sorted(f"{name}.yaml" for name in OBJECTS)


def test_the_service_named_clipsrv_leaves_the_pods_settings_alone() -> None:
    assert OBJECTS["service"]["metadata"]["name"] == "clipsrv"  # whence CLIPSRV_PORT=tcp://... in every pod
    assert pod()["enableServiceLinks"] is False
    assert variables()["CLIPSRV_PORT"] == str(container()["ports"][0]["containerPort"])


def test_every_object_means_the_same_pods_and_the_same_port() -> None:
    labels = OBJECTS["deployment"]["spec"]["template"]["metadata"]["labels"]
    port = container()["ports"][0]["name"]
    assert OBJECTS["deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["disruption-budget"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["network-policy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert OBJECTS["service"]["spec"]["selector"] == labels
    assert OBJECTS["service"]["spec"]["ports"][0]["targetPort"] == port
    assert OBJECTS["network-policy"]["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port}]
    assert {container()[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {
        port
    }


def test_nothing_leaves_a_pod() -> None:
    policy = OBJECTS["network-policy"]["spec"]
    assert "Egress" in policy["policyTypes"]
    assert policy["egress"] == []


def test_accepted_work_is_finished_before_a_pod_is_killed() -> None:
    pause = container()["lifecycle"]["preStop"]["exec"]["command"][-1]
    seconds = float(pause.partition("sleep(")[2].rstrip(")"))
    assert float(variables()["CLIPSRV_GRACE"]) + seconds < pod()["terminationGracePeriodSeconds"]


def test_the_variables_of_the_pod_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from clipsrv.cli import read_config
    from clipsrv.config import unknown_variables

    for name, value in variables().items():
        monkeypatch.setenv(name, value)
    config = read_config([])
    assert (config.port, config.log_format, config.allowed_hosts) == (5000, "json", "*")
    assert config.host == Config.host  # the image's own CLIPSRV_HOST stays
    assert not [name for name in unknown_variables() if name in variables()]
