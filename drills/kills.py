"""Everything of a job on a Ray cluster, in the middle of the work: killed, taken away, or misbehaving.

Each job is given 8,000 images and a cluster of two nodes, and its output is compared with that of a run on one machine
that nobody disturbed: Parquet to the byte; in an object store and in a database row for row.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.dataset as ds

from drills.emulators import BUCKET, STORES, wait_for
from drills.harms import ON_DISK, SETTINGS, Attempt, cluster
from drills.proxy import Proxy, proxy
from tests.support.model import write_model
from tests.support.photos import cuttings
from tests.support.postgres import Postgres

#: The rows of an output by their ids: the checksum of the image and the bytes of the vector.
Rows = Mapping[str, tuple[str, bytes]]


def kills() -> int:
    """Prints a line for each; 1 if one did not end as it should."""
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _images(folder)
        whole = Attempt(folder / "whole", folder / "models", str(folder / "many"), None, "")  # type: ignore[arg-type]
        _run_alone(whole)
        expected = _rows(whole.folder / "out.parquet")
        for number, (what, harm) in enumerate(ON_DISK.items()):
            with cluster() as (address, running):
                job = Attempt(folder / str(number), folder / "models", str(folder / "many"), running, address)
                wrong += _tell(what, job, harm, lambda job=job: _same(job.folder, whole.folder))  # type: ignore[misc]
        wrong += _database(folder, expected) + _store(folder, expected)
    return int(wrong > 0)


def _tell(what: str, job: Attempt, harm: Callable[[Attempt], None], same: Callable[[], bool]) -> int:
    job.folder.mkdir(parents=True, exist_ok=True)
    job.start()
    job.until(3)
    harm(job)
    status = job.process.wait(900)
    good = same() and status == 0
    print(f"{what}: {job.said or 'goes on'}; status {status}, {'the same' if good else 'ANOTHER'} output", flush=True)
    return int(not good)


def _database(folder: Path, expected: Rows) -> int:
    postgres = Postgres()

    def away(job: Attempt) -> None:
        postgres.kill()
        time.sleep(5)
        postgres.up()

    def same() -> bool:
        found = postgres.query("SELECT id, sha256, embedding::real[] FROM image_embeddings")
        return {row[0]: (row[1], _bytes(row[2])) for row in found} == expected

    try:
        with cluster() as (address, running):
            job = Attempt(folder / "database", folder / "models", str(folder / "many"), running, address, postgres.url)
            return _tell("the database, kill -9, and back after 5 s", job, away, same)
    finally:
        postgres.remove()


def _store(folder: Path, expected: Rows) -> int:
    """Images, work and output in S3, which is busy at every ninth question and cuts every thirteenth answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    asked: list[Proxy] = []

    def fault(path: str, times: int) -> str | None:
        count = sum(asked[0].asked.values())
        if path.endswith(".jpg") and count % 13 == 5:
            return "cut"
        return "busy" if count % 9 == 2 else None

    store, base = STORES["s3"], f"s3://{BUCKET}/many"
    with ExitStack() as opened:
        opened.enter_context(store.serving(port, folder))
        asked.append(opened.enter_context(proxy(f"http://127.0.0.1:{port}", fault)))
        wait_for(port)
        os.environ.update(store.environment(f"http://127.0.0.1:{port}"))
        there = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
        few = sorted((folder / "many").iterdir())[:1_000]
        there.pipe({f"{BUCKET}/many/{path.name}": path.read_bytes() for path in few})
        os.environ.update(store.environment(asked[0].url))
        names = {str(folder / "many" / path.name) for path in few}
        here = {Path(name).name: row for name, row in expected.items() if name in names}
        with cluster() as (address, running):
            where = (f"s3://{BUCKET}/out.parquet", f"s3://{BUCKET}/job", ("--relative-to", base))
            job = Attempt(folder / "store", folder / "models", base, running, address, *where)

            def same() -> bool:
                os.environ.update(store.environment(f"http://127.0.0.1:{port}"))
                direct = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
                job.said = f"{asked[0].faults['busy']:,} times 503, {asked[0].faults['cut']:,} cut"
                return _rows(f"{BUCKET}/out.parquet", direct) == here

            return _tell("S3, busy and cutting all the time", job, lambda job: None, same)


def _run_alone(job: Attempt) -> None:
    job.folder.mkdir()
    command = [sys.executable, "-m", "clipsrv", "embed", *SETTINGS, "--models-dir", str(job.models), "--quiet"]
    where = ["--work", str(job.folder / "work"), "--out", str(job.folder / "out.parquet")]
    subprocess.run([*command, job.images, *where], check=True)


def _images(folder: Path) -> None:
    write_model(folder / "models" / "tiny")
    (folder / "many").mkdir()
    blobs = cuttings(300, (48, 36))
    for number in range(8_000):
        blob = b"broken" if number % 97 == 5 else blobs[(number * number + number // 7) % 300]
        (folder / "many" / f"{number:04d}.jpg").write_bytes(blob)


def _rows(out: Path | str, store: object = None) -> Rows:
    """The rows of a folder of Parquet files by their ids."""
    table = ds.dataset(out, filesystem=store, format="parquet").to_table().to_pylist()
    assert len({row["id"] for row in table}) == len(table), "a row is there twice"
    return {row["id"]: (row["sha256"], _bytes(row["embedding"])) for row in table}


def _bytes(vector: list[float]) -> bytes:
    return np.array(vector, np.float32).tobytes()


def _same(folder: Path, whole: Path) -> bool:
    made, expected = (
        {path.name: path.read_bytes() for path in (one / "out.parquet").glob("s*")} for one in (folder, whole)
    )
    return made == expected
