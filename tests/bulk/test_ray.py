"""The engine that is a cluster: what a cluster of Ray makes is what one machine makes, also when an actor is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clipsrv.bulk.engines.fleet import Fleet, fleet
from clipsrv.errors import ConfigError
from tests.bulk.tool import SHARDS, Embed, finish, marks, same, wait_until

#: A cluster of two nodes of one core each, until its standard input ends.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a cluster of two nodes."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with (
        (tmp_path / "cluster.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as running,
    ):
        assert running.stdin
        assert running.stdout
        yield running.stdout.readline().strip()
        running.stdin.close()


def actors() -> list[psutil.Process]:
    """The processes of Ray in which a worker is."""
    everything = psutil.process_iter(["cmdline"])
    return [one for one in everything if any("MapWorker" in word for word in one.info["cmdline"] or ())]


@pytest.mark.timeout(600)  # a cluster takes ten seconds to start, and on a busy machine minutes
def test_a_cluster_of_two_nodes_makes_what_one_machine_makes_though_an_actor_is_killed(
    cluster: str, embed: Embed, many: Path, whole: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    args = (many, "--work", work, "--out", tmp_path / "out.parquet", *SHARDS)
    process = embed.start(*args, "--engine", "ray", "--address", cluster)
    wait_until(lambda: marks(work) >= 1 or process.poll() is not None, seconds=300)
    for actor in actors()[:1]:
        actor.send_signal(signal.SIGKILL)
    status, said = finish(process, seconds=300)
    assert status == 0, said
    assert "all 16 shards" in said
    assert same(tmp_path / "out.parquet", whole)


@pytest.mark.parametrize(
    ("nodes", "actors", "gpus", "expected"),
    [
        ([{"CPU": 2}], None, None, Fleet(1, 2, 0)),
        ([{"CPU": 2}], 2, None, Fleet(2, 1, 0)),
        ([{"CPU": 2}], 5, None, Fleet(5, 1, 0)),
        ([{"CPU": 16}, {"CPU": 8}, {}], None, None, Fleet(2, 8, 0)),
        ([{"CPU": 16}, {"CPU": 16}], 4, None, Fleet(4, 8, 0)),
        ([{"CPU": 32, "GPU": 4}, {"CPU": 8}], None, 1, Fleet(4, 8, 1)),
        ([{"CPU": 32, "GPU": 1}], None, 0.5, Fleet(2, 16, 0.5)),
    ],
    ids=str,
)
def test_cores_and_gpus_are_shared_among_actors(
    nodes: list[dict[str, float]], actors: int | None, gpus: float | None, expected: Fleet
) -> None:
    assert fleet(nodes, actors, gpus) == expected


def test_a_cluster_without_what_an_actor_needs_is_refused() -> None:
    with pytest.raises(ConfigError, match="a core and 1 GPUs"):
        fleet([{"CPU": 8}], None, 1)
