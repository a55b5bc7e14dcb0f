"""deploy/kubernetes holds objects that Kubernetes takes, which fit one another and the server."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from clipsrv import settings
from clipsrv.cli import read_config
from clipsrv.config import Config, unknown_variables
from clipsrv.serving.memory import memory_bound
from tests.support.serving import serving

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


OBJECTS = {path.stem: load(path.name) for path in sorted(FOLDER.glob("*.yaml")) if path.name != "kustomization.yaml"}
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
    assert sorted(load("kustomization.yaml")["resources"]) == sorted(f"{name}.yaml" for name in OBJECTS)
    assert load("prometheus/kustomization.yaml")["resources"] == ["pod-monitor.yaml"]


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


def test_the_autoscaler_alone_says_how_many_pods_there_are() -> None:
    assert "replicas" not in OBJECTS["deployment"]["spec"]
    assert OBJECTS["autoscaler"]["spec"]["scaleTargetRef"]["name"] == OBJECTS["deployment"]["metadata"]["name"]
    assert OBJECTS["autoscaler"]["spec"]["minReplicas"] > OBJECTS["disruption-budget"]["spec"]["minAvailable"]


async def test_the_autoscaler_goes_by_a_metric_that_is_there_and_that_the_adapter_offers() -> None:
    (wanted,) = OBJECTS["autoscaler"]["spec"]["metrics"]
    name = wanted["pods"]["metric"]["name"]
    async with serving() as served:
        families = text_string_to_metric_families((await served.get("/metrics")).body.decode())
    assert {family.name: family.type for family in families}[name] == "gauge"
    (rule,) = load("prometheus/adapter-values.yaml")["rules"]["custom"]
    assert f"{name}{{" in rule["seriesQuery"]
    promql.parse(rule["seriesQuery"])
    query = rule["metricsQuery"]
    for part, text in (("Series", name), ("LabelMatchers", 'pod="a"'), ("GroupBy", "pod")):
        query = query.replace(f"<<.{part}>>", text)
    promql.parse(query)


async def test_prometheus_has_a_key_of_its_own_which_the_pods_know() -> None:
    (endpoint,) = load("prometheus/pod-monitor.yaml")["spec"]["podMetricsEndpoints"]
    given = endpoint["authorization"]["credentials"]
    known = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container()["env"] if "valueFrom" in entry}
    assert known["CLIPSRV_METRICS_KEYS"] == {**given, "optional": True}
    assert endpoint["port"] == container()["ports"][0]["name"]
    labels = OBJECTS["deployment"]["spec"]["template"]["metadata"]["labels"]
    assert load("prometheus/pod-monitor.yaml")["spec"]["selector"]["matchLabels"] == labels
    async with serving(api_keys="k" * 20, metrics_keys="m" * 20) as served:
        header = f"Authorization: {endpoint['authorization']['type']} {'m' * 20}"
        assert (await served.get(endpoint["path"], header)).status == 200


def test_the_memory_of_a_pod_holds_what_requests_may_take_and_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = container()["resources"]["limits"]
    monkeypatch.setattr(settings, "usable_cores", lambda: int(limits["cpu"]))
    for name, value in variables().items():
        monkeypatch.setenv(name, value)
    assert limits["memory"].endswith("Gi")
    assert int(limits["memory"][:-2]) * 2**30 >= memory_bound(read_config([]), 224) + 2**30


def test_nothing_leaves_a_pod() -> None:
    policy = OBJECTS["network-policy"]["spec"]
    assert "Egress" in policy["policyTypes"]
    assert policy["egress"] == []


def test_accepted_work_is_finished_before_a_pod_is_killed() -> None:
    pause = container()["lifecycle"]["preStop"]["exec"]["command"][-1]
    seconds = float(pause.partition("sleep(")[2].rstrip(")"))
    assert float(variables()["CLIPSRV_GRACE"]) + seconds < pod()["terminationGracePeriodSeconds"]


def test_the_variables_of_the_pod_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables().items():
        monkeypatch.setenv(name, value)
    config = read_config([])
    assert (config.port, config.log_format, config.allowed_hosts) == (5000, "json", "*")
    assert config.host == Config.host  # the image's own CLIPSRV_HOST stays
    assert not [name for name in unknown_variables() if name in variables()]
