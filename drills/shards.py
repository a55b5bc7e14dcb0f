"""A job in shards at its limits: a list of millions, rows without images, and everything of a cluster killed.

python -m drills.shards plan [ROWS]    the list alone, of 50 million synthetic rows: seconds, and the most memory
python -m drills.shards rows [ROWS]    rows that name no image, by each engine: what a row costs beside its image
python -m drills.shards rates MODELS NAME   images a second of local, and of Ray with one and two actors
python -m drills.shards kills          an actor, a node and the driver of a Ray cluster, kill -9; two drivers at once
Exit status 1 if an output is not, to the byte, that of a run that nobody disturbed.
"""

from __future__ import annotations

import io
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from PIL import Image

from clipsrv.bulk.records import Entry
from clipsrv.bulk.work.folder import Folder
from clipsrv.bulk.work.plan import write_plan
from tests.support.model import write_model
from tests.support.photos import cuttings

_MIB = 2**20
#: A cluster of two nodes, of which a line on its standard input ends the second.
CLUSTER = """
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
_SETTINGS = ("--model", "tiny", "--device", "cpu", "--threads", "1", "--shard-size", "8", "--rows-per-shard", "64")


def plan(rows: int) -> None:
    """The list of an object store of so many images."""
    with tempfile.TemporaryDirectory() as folder:
        entries = (
            Entry(
                f"{row:012d}", f"s3://bucket/photos/{row % 4096:03x}/{row:012d}.jpg", 1_000_000 + row, f'"{row:032x}"'
            )
            for row in range(rows)
        )
        before, began = _most_memory(), time.monotonic()
        made = write_plan(Folder(folder), entries, 102_400, {}, "synthetic rows")
        seconds, size = time.monotonic() - began, sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    print(
        f"{made.count:,} rows in {made.shards:,} shards: {seconds:.0f} s ({rows / seconds:,.0f} rows/s), "
        f"{size / _MIB:,.0f} MiB of Parquet; {before:.0f} MiB of memory before, {_most_memory():.0f} MiB at most"
    )


def rows(most: int) -> None:
    """What a row costs beside its image, by rows that name no file: each is listed, read in vain and reported."""
    for engine in (("--engine", "local"), ("--engine", "ray", "--actors", "1"), ("--engine", "ray", "--actors", "2")):
        count = 1_000
        while count <= most:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write_model(folder / "models" / "tiny")
                (folder / "real.jpg").write_bytes(cuttings(1)[0])
                names = [str(folder / "real.jpg"), *(f"/nowhere/{row:09d}.jpg" for row in range(count - 1))]
                (folder / "list").write_text("\n".join(names))
                began = time.monotonic()
                process = _start(folder, "--files-from", str(folder / "list"), *engine, settings=_SETTINGS[:6])
                memory = _watch(process)
                assert process.returncode == 0, count
            seconds = time.monotonic() - began
            print(
                f"{' '.join(engine[1:])}: {count:,} rows in {seconds:.1f} s, {1e6 * seconds / count:,.0f} us a row; "
                f"driver {memory['driver']:.0f} MiB, actors {memory['actors']:.0f} MiB at most",
                flush=True,
            )
            count *= 10


def rates(models_dir: str, model: str, count: int = 768) -> None:
    """Images a second of the same job by each engine on this machine's cores, from the end of its first shard to that
    of its last: starting it does not count."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "many").mkdir()
        small = [Image.open(io.BytesIO(blob)).convert("RGB") for blob in cuttings(300, (48, 36))]
        for number in range(count):  # no two alike
            large = (
                small[number % 300].resize((640, 480)).point(lambda value, more=number // 300: min(255, value + more))
            )
            large.save(folder / "many" / f"{number:04d}.jpg", quality=90)
        settings = ("--model", model, "--models-dir", models_dir, "--device", "cpu", "--shard-size", "64")
        for actors in ("0", "1", "2"):
            here = folder / actors
            engine = ("--engine", "ray", "--actors", actors) if actors != "0" else ()
            process = _start(here, str(folder / "many"), *engine, "--rows-per-shard", "128", settings=settings)
            memory = _watch(process)
            marks = sorted(path.stat().st_mtime for path in (here / "work" / "done").iterdir())
            rate = (count - 128) / (marks[-1] - marks[0])
            what = f"ray, {actors} actors" if engine else "local"
            print(
                f"{what}: {rate:.2f} images/s; driver {memory['driver']:.0f} MiB, actors {memory['actors']:.0f} MiB",
                flush=True,
            )


def kills() -> int:
    """Everything of a cluster, in the middle of the work."""
    with tempfile.TemporaryDirectory() as name:
        folder, wrong = Path(name), 0
        _images(folder)
        assert _start(folder / "whole", str(folder / "many")).wait() == 0
        for what in ("actor", "node", "driver", "second driver"):
            here = folder / what.replace(" ", "-")
            with _cluster() as (address, cluster):
                process = _start(here, str(folder / "many"), "--engine", "ray", "--address", address)
                _wait(here, process, 3)
                status = "-"
                if what == "actor":
                    _actors()[0].kill()
                elif what == "node":
                    assert cluster.stdin
                    cluster.stdin.write("\n")
                    cluster.stdin.flush()
                elif what == "driver":
                    process.kill()
                    process.wait()
                    process = _start(here, str(folder / "many"), "--engine", "ray", "--address", address)
                else:
                    status = str(_start(here, str(folder / "many"), "--engine", "ray", "--address", address).wait())
                ended = process.wait(600)
            same = _same(here, folder / "whole")
            wrong += not same or ended != 0
            print(
                f"{what}: exit {ended}, the second's {status}, {'the same' if same else 'ANOTHER'} output", flush=True
            )
    return int(wrong > 0)


def _start(folder: Path, *args: str, settings: tuple[str, ...] = _SETTINGS) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    if "--models-dir" not in settings:
        models = next(parent / "models" for parent in (folder, *folder.parents) if (parent / "models").is_dir())
        settings = (*settings, "--models-dir", str(models))
    command = [sys.executable, "-m", "clipsrv", "embed", *settings, "--quiet", *args]
    return subprocess.Popen([*command, "--work", str(folder / "work"), "--out", str(folder / "out.parquet")])


def _watch(process: subprocess.Popen[bytes]) -> dict[str, float]:
    most = {"driver": 0.0, "actors": 0.0}
    while process.poll() is None:
        try:
            most["driver"] = max(most["driver"], psutil.Process(process.pid).memory_info().rss / _MIB)
            most["actors"] = max(most["actors"], sum(actor.memory_info().rss for actor in _actors()) / _MIB)
        except psutil.Error:
            pass  # it has just ended
        time.sleep(0.2)
    return most


def _actors() -> list[psutil.Process]:
    everything = psutil.process_iter(["cmdline"])
    return [one for one in everything if any("MapWorker" in word for word in one.info["cmdline"] or ())]


def _wait(folder: Path, process: subprocess.Popen[bytes], shards: int) -> None:
    while len(list((folder / "work" / "done").glob("*"))) < shards:
        assert process.poll() is None, "it ended before anything could be killed"
        time.sleep(0.01)


def _images(folder: Path) -> None:
    write_model(folder / "models" / "tiny")
    (folder / "many").mkdir()
    blobs = cuttings(300, (48, 36))
    for number in range(8_000):
        blob = b"broken" if number % 97 == 5 else blobs[(number * number + number // 7) % 300]
        (folder / "many" / f"{number:04d}.jpg").write_bytes(blob)


def _same(folder: Path, whole: Path) -> bool:
    made, expected = (
        {path.name: path.read_bytes() for path in (one / "out.parquet").glob("s*")} for one in (folder, whole)
    )
    return made == expected


@contextmanager
def _cluster() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", CLUSTER], stdin=pipe, stdout=pipe, text=True) as running:
        assert running.stdout
        try:
            yield running.stdout.readline().strip(), running
        finally:
            running.send_signal(signal.SIGINT)


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    what, *given = sys.argv[1:] or ["kills"]
    if what == "plan":
        plan(int(given[0]) if given else 50_000_000)
    elif what == "rates":
        rates(given[0], given[1])
    elif what == "rows":
        rows(int(given[0]) if given else 1_000_000)
    else:
        sys.exit(kills())
