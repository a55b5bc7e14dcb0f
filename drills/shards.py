"""A job in shards at its limits: a list of millions, rows without images, and everything of a cluster killed.

python -m drills.shards plan [ROWS]    the list alone, of 50 million synthetic rows: seconds, and the most memory
python -m drills.shards rows [ROWS [image | nothing]]   by each engine, what a row costs beside its image
python -m drills.shards rates MODELS NAME   images a second of local, and of Ray with one and two actors
python -m drills.shards fetches        images a second of a folder, of http and of S3
python -m drills.shards kills          actor, node, driver and database killed, two drivers, a store that misbehaves
Exit status 1 if an output is not, to the byte, that of a run that nobody disturbed.
"""

from __future__ import annotations

import io
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import fsspec
import psutil
import pyarrow.parquet as pq
from PIL import Image

from clipsrv.bulk.records import Entry
from clipsrv.bulk.work.folder import Folder
from clipsrv.bulk.work.plan import write_plan
from drills.emulators import BUCKET, STORES, wait_for
from drills.kills import kills
from tests.support.model import write_model
from tests.support.photos import cuttings
from tests.support.website import website

_MIB = 2**20
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


def rows(most: int, kind: str) -> None:
    """What a row costs, by a model that computes next to nothing. An "image" of 64 pixels is listed, read, hashed,
    decoded, has its vector and is stored; "nothing" are files that are not there, but for one."""
    for engine in (("--engine", "local"), ("--engine", "ray", "--actors", "1"), ("--engine", "ray", "--actors", "2")):
        count = 1_000
        while count <= most:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write_model(folder / "models" / "tiny")
                image = folder / "small.png"
                Image.new("RGB", (8, 8), (90, 20, 160)).save(image)
                with (folder / "list").open("w") as out:
                    for row in range(count):
                        there = kind == "image" or row == 0
                        entry = {"id": f"{row:09d}", "path": str(image if there else f"/nowhere/{row:09d}.jpg")}
                        out.write(json.dumps(entry) + "\n")
                began = time.monotonic()
                process = _start(folder, "--files-from", str(folder / "list"), *engine, settings=_SETTINGS[:6])
                memory = _watch(process)
                seconds = time.monotonic() - began
                assert process.returncode == 0, count
                found = sum(pq.read_metadata(path).num_rows for path in folder.glob("out.parquet/s*"))
                assert found == (count if kind == "image" else 1)
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
        _photos(folder / "many", count)
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


def fetches(count: int = 1_000) -> None:
    """Images a second of a folder, and of the same images by http and from S3, whose servers are on this machine too
    and written in Python: by a model that computes next to nothing, without the time that one image takes to start."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        folder = Path(name)
        write_model(folder / "models" / "tiny")
        _photos(folder / "many", count)
        files = sorted((folder / "many").iterdir())
        site = opened.enter_context(website({path.name: path.read_bytes() for path in files}))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        opened.enter_context(STORES["s3"].serving(port, folder))
        wait_for(port)
        os.environ.update(STORES["s3"].environment(f"http://127.0.0.1:{port}"))
        there = fsspec.filesystem("s3", skip_instance_cache=True)
        there.pipe({f"{BUCKET}/many/{path.name}": path.read_bytes() for path in files})
        sizes = sum(path.stat().st_size for path in files) / count / 1024
        best: dict[tuple[str, str], float] = {}
        bases = (str(folder / "many"), site.url, f"s3://{BUCKET}/many")
        kinds = [(base, threads) for base in bases for threads in ("8", "32")]
        for base, threads in kinds * 3:  # in turn, and the best of three: who else is at work disturbs all alike
            took = {}
            for rows in (1, count):
                (folder / "list").write_text("".join(f"{base}/{path.name}\n" for path in files[:rows]))
                here = Path(tempfile.mkdtemp(dir=folder))
                (here / "models").symlink_to(folder / "models")
                more = ("--allow-private-addresses", "--fetch-threads", threads)
                began = time.monotonic()
                assert _start(here, "--files-from", str(folder / "list"), *more, settings=_SETTINGS[:4]).wait() == 0
                took[rows] = time.monotonic() - began
            rate = (count - 1) / (took[count] - took[1])
            best[base, threads] = max(rate, best.get((base, threads), 0.0))
        for base, threads in kinds:
            kind = base.partition(":")[0] if "//" in base else "a folder"
            print(f"{kind}, {threads} threads: {best[base, threads]:.0f} images/s of {sizes:.0f} KiB")


def _photos(folder: Path, count: int) -> None:
    """So many JPEGs of 640x480, no two alike."""
    folder.mkdir()
    small = [Image.open(io.BytesIO(blob)).convert("RGB") for blob in cuttings(300, (48, 36))]
    for number in range(count):
        large = small[number % 300].resize((640, 480)).point(lambda value, more=number // 300: min(255, value + more))
        large.save(folder / f"{number:05d}.jpg", quality=90)


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


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    what, *given = sys.argv[1:] or ["kills"]
    if what == "plan":
        plan(int(given[0]) if given else 50_000_000)
    elif what == "rates":
        rates(given[0], given[1])
    elif what == "fetches":
        fetches()
    elif what == "rows":
        rows(int(given[0]) if given else 100_000, given[1] if given[1:] else "image")
    else:
        sys.exit(kills())
