"""deploy/kubernetes/ray holds a RayJob whose pods Kubernetes takes and whose command clipsrv takes."""

from __future__ import annotations

import shlex
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml

from clipsrv.bulk.command import embed_parser
from clipsrv.bulk.options import RAY
from tests.deploy.test_kubernetes import VERSIONS

PATH = Path(__file__).parents[2] / "deploy/kubernetes/ray/job.yaml"
JOB: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
CLUSTER: dict[str, Any] = JOB["spec"]["rayClusterSpec"]
GROUPS = {"head": CLUSTER["headGroupSpec"], "workers": CLUSTER["workerGroupSpecs"][0]}
#: Of KubeRay's definition, ray.io/v1, the fields that are used here.
JOB_FIELDS = {
    *("entrypoint", "backoffLimit", "submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"),
    "rayClusterSpec",
}
CLUSTER_FIELDS = {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def test_it_is_a_ray_job_with_no_field_that_kuberay_does_not_know() -> None:
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    assert set(JOB["spec"]) <= JOB_FIELDS
    assert set(CLUSTER) <= CLUSTER_FIELDS
    assert all(set(group) <= GROUP_FIELDS for group in GROUPS.values())
    assert all(isinstance(value, str) for group in GROUPS.values() for value in group["rayStartParams"].values())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("group", GROUPS)
def test_its_pods_are_pods_of_kubernetes(group: str, version: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": group}, **deepcopy(GROUPS[group]["template"])}
    kubernetes_validate.validate(pod, version, strict=True)
    pod["spec"]["nodeSelectors"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, version, strict=True)


def test_its_command_is_one_of_clipsrv_and_its_actors_fit_its_nodes() -> None:
    program = shlex.split(JOB["spec"]["entrypoint"])
    assert program[:4] == ["python", "-m", "clipsrv", "embed"]
    given = embed_parser().parse_args(program[4:])
    assert (given.engine, given.address) == (RAY, "auto")
    workers = GROUPS["workers"]
    (container,) = workers["template"]["spec"]["containers"]
    assert float(container["resources"]["limits"]["nvidia.com/gpu"]) * workers["maxReplicas"] >= (
        given.actors * given.gpus_per_actor
    )
    assert workers["minReplicas"] >= 1
    assert GROUPS["head"]["rayStartParams"]["num-cpus"] == "0"


def test_it_is_of_the_ray_that_clipsrv_is_tried_with() -> None:
    assert CLUSTER["rayVersion"] == ray.__version__
