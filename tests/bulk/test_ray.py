"""The engine that is a cluster: what a cluster of Ray makes is what one machine makes, also when an actor is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsrv.bulk.engines.arriving import arriving
from clipsrv.bulk.engines.fleet import Fleet, fleet
from clipsrv.bulk.engines.pieces import Pieces, cut, rows_of
from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.options import JobOptions
from clipsrv.bulk.records import Entry
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.bulk.work.folder import Folder
from clipsrv.bulk.work.plan import inputs, write_plan
from clipsrv.bulk.worker import Orders
from clipsrv.config import Config
from clipsrv.errors import ConfigError, ModelError
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
#: Has all cores of the cluster, until its standard input ends.
SOMEBODY_ELSE = """
import sys, ray
ray.init(sys.argv[1], log_to_driver=False)
holder = ray.remote(num_cpus=1)(type("Holder", (), {"here": lambda self: None}))
held = [holder.remote() for _ in range(2)]
ray.get([one.here.remote() for one in held])
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for temporary files of both nodes."""
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture(scope="module")
def cluster(nodes: Path) -> Iterator[str]:
    """The address of a cluster of two nodes."""
    # Ray's own folder has a short name: its sockets lie there.
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "/tmp", "TMPDIR": str(nodes)}
    with (
        (nodes / "cluster.log").open("wb") as log,
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
def test_a_cluster_makes_what_one_machine_makes_though_it_has_no_model_and_an_actor_is_killed(
    cluster: str, nodes: Path, embed: Embed, models_dir: Path, many: Path, whole: Path, tmp_path: Path
) -> None:
    work, alone = tmp_path / "work", os.open(models_dir, os.O_PATH)
    asked = (many, "--work", work, "--out", tmp_path / "out.parquet", *SHARDS, "--engine", "ray", "--address", cluster)
    args = (*asked, "--models-dir", f"/proc/self/fd/{alone}")  # of the driver alone
    process = embed.start(*args, pass_fds=(alone,))
    wait_until(lambda: marks(work) >= 1 or process.poll() is not None, seconds=300)
    for actor in actors()[:1]:
        actor.send_signal(signal.SIGKILL)
    status, said = finish(process, seconds=300)
    assert status == 0, said
    assert "all 16 shards" in said
    assert re.search(r"1,000 of 1,000 images, 11 bad, [\d.,]+ images/s, 0 s left", said), "rate and remaining time"
    assert same(tmp_path / "out.parquet", whole)
    (fetched,) = nodes.glob("clipsrv-models-*/*/tiny")
    assert (fetched / "vision.fp32.onnx").read_bytes() == (models_dir / "tiny" / "vision.fp32.onnx").read_bytes()
    assert len(pq.read_table(work / "failures")) == 11
    _expect_refusal_of_a_damaged_model(embed, args, alone, work, fetched)


def _expect_refusal_of_a_damaged_model(
    embed: Embed, args: tuple[object, ...], alone: int, work: Path, fetched: Path
) -> None:
    """Where neither the copy of the nodes nor that on its way to them is whole."""
    (on_its_way,) = work.glob("model/*/vision.fp32.onnx")
    for damaged in (fetched / "vision.fp32.onnx", on_its_way):
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    status, said = finish(embed.start(*args, pass_fds=(alone,)), seconds=300)
    assert (status, "differs from its manifest" in said) == (3, True), said


@pytest.mark.timeout(600)
def test_a_cluster_without_room_for_an_actor_is_an_error_in_its_time_and_hears_a_signal_before(
    cluster: str, embed: Embed, many: Path, tmp_path: Path
) -> None:
    args = (many, "--work", tmp_path / "work", "--out", tmp_path / "out.parquet", *SHARDS, "--engine", "ray")
    with _all_cores_taken(cluster):
        waiting = embed.start(*args, "--address", cluster)
        assert waiting.stderr
        taken = "an actor takes 1 CPUs; 0 of 2 CPUs of the cluster are free."
        assert f"Waiting for an actor to start: {taken}\n" in waiting.stderr  # reads up to that line
        waiting.send_signal(signal.SIGTERM)
        assert finish(waiting, seconds=300)[0] == 128 + signal.SIGTERM
        status, said = finish(embed.start(*args, "--address", cluster, "--patience", 0), seconds=300)
        assert (status, f"No actor could start within 0 s (--patience): {taken}" in said) == (5, True), said


@contextmanager
def _all_cores_taken(cluster: str) -> Iterator[None]:
    command = [sys.executable, "-c", SOMEBODY_ELSE, cluster]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "taken\n"
        yield
        other.stdin.close()


def test_what_ends_the_work_of_an_actor_ends_the_job_as_what_it_is(models_dir: Path, tmp_path: Path) -> None:
    work = Folder(str(tmp_path))
    plan = write_plan(work, [Entry("a", "gone.jpg")], 8, {}, "a list")
    (piece,) = cut(plan, [0], 8)
    options = JobOptions(Inputs(("photos",)), "out.parquet", work=work.url)
    orders = Orders(options, Config(model="tiny", models_dir=str(models_dir), device="cpu"), work.url, cores=1)
    table = pa.Table.from_pylist([piece._asdict()])
    assert [bad.code for bad in rows_of(Pieces(orders, plan, {})(table)).bad] == ["unreadable_file"]
    with pytest.raises(ModelError, match="another embedding_id"):
        rows_of(Pieces(orders, plan, {"embedding_id": "other"})(table))
    work.write(inputs(0), b"half")
    with pytest.raises(OutputError, match=r"Cannot read .*000000\.parquet"):
        rows_of(Pieces(orders, plan, {})(table))


def test_who_waits_for_what_never_comes_is_told_of_it_and_ends_when_asked() -> None:
    never, told = threading.Event(), list[float]()

    def things() -> Iterator[int]:
        yield from (1, 2)
        never.wait(60)

    found = list(arriving(things(), lambda: len(told) > 1, told.append, every=0.01))
    assert found == [1, 2]
    assert told[1] > told[0] > 0
    never.set()


def test_what_fails_elsewhere_fails_here_after_what_came_before() -> None:
    def things() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    found: list[int] = []
    with pytest.raises(OSError, match="gone"):
        found.extend(arriving(things(), lambda: False, lambda seconds: None))
    assert found == [1]
    assert list(arriving(iter("ab"), lambda: False, lambda seconds: None)) == ["a", "b"]


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
