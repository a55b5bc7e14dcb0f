"""What is done to a job on a Ray cluster while it works."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import psutil

#: A cluster of two nodes, of which a line on its standard input ends the second.
_CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
sys.stdin.read()
cluster.shutdown()
"""
SETTINGS = ("--model", "tiny", "--device", "cpu", "--threads", "1", "--shard-size", "8", "--rows-per-shard", "64")
_SECOND_DRIVER_IS_REFUSED = 6


@dataclass
class Attempt:
    """A job that runs on a cluster, in a folder of its own."""

    folder: Path
    models: Path
    images: str
    cluster: subprocess.Popen[str]
    address: str
    out: str = ""
    work: str = ""
    more: tuple[str, ...] = ()
    said: str = ""
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "clipsrv", "embed", *SETTINGS, "--models-dir", str(self.models), "--quiet"]
        command += [self.images, "--engine", "ray", "--address", self.address, *self.more, *more]
        where = [
            "--work",
            self.work or str(self.folder / "work"),
            "--out",
            self.out or str(self.folder / "out.parquet"),
        ]
        self.process = subprocess.Popen([*command, *where])
        return self.process

    def done(self) -> int:
        if self.work:
            there = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
            key = f"{self.work.partition('://')[2]}/done"
            return len(there.ls(key, detail=False)) if there.exists(key) else 0
        return len(list((self.folder / "work" / "done").glob("*")))

    def until(self, shards: int) -> None:
        while self.done() < shards:
            assert self.process.poll() is None, "it ended before anything could be done to it"
            time.sleep(0.05 if not self.work else 0.5)


def actor(job: Attempt) -> None:
    everything = psutil.process_iter(["cmdline"])
    next(one for one in everything if any("MapWorker" in word for word in one.info["cmdline"] or ())).kill()


def node(job: Attempt) -> None:
    assert job.cluster.stdin
    job.cluster.stdin.write("\n")
    job.cluster.stdin.flush()


def driver(job: Attempt) -> None:
    job.process.kill()
    job.process.wait()
    job.start()


def sigterm(job: Attempt) -> None:
    began = time.monotonic()
    job.process.send_signal(signal.SIGTERM)
    status = job.process.wait(600)
    job.said = f"status {status} after {time.monotonic() - began:.0f} s"
    assert status == 128 + signal.SIGTERM
    job.start()


def second_driver(job: Attempt) -> None:
    first = job.process
    status = job.start().wait(600)
    assert status == _SECOND_DRIVER_IS_REFUSED, status
    job.said, job.process = f"the second: status {status}", first


def half_a_list(job: Attempt) -> None:
    """Of a shard that is not done; the next run cannot make it whole, and must say so."""
    driver_was = job.process
    driver_was.kill()
    driver_was.wait()
    last = max((job.folder / "work" / "inputs").iterdir())
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    status = job.start().wait(600)
    job.said = f"status {status} while {last.name} was half"
    assert status == _SECOND_DRIVER_IS_REFUSED, status
    last.write_bytes(whole)
    job.start()


ON_DISK: dict[str, Callable[[Attempt], None]] = {
    "an actor, kill -9": actor,
    "a node, taken away": node,
    "the driver, kill -9, and run again": driver,
    "the driver, SIGTERM, and run again": sigterm,
    "a second driver at once": second_driver,
    "a list of a shard cut in half, then mended": half_a_list,
}


@contextmanager
def cluster() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _CLUSTER], stdin=pipe, stdout=pipe, text=True) as running:
        assert running.stdout
        try:
            yield running.stdout.readline().strip(), running
        finally:
            running.send_signal(signal.SIGINT)
