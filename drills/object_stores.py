"""Images, work and output in object stores of three makers: S3 by moto, Google's and Azure's by their emulators.

python -m drills.object_stores [NAME ...]   s3, gs or az; all without
Each is asked for the same: what lies there is found as in a folder and read whatever its name, the vectors are those of
the files, a job in shards has its list, marks and output there; and by a proxy before it: busy and cut answers are
asked for again, refused ones once. Exit status 1 if one of them does not.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.parquet as pq

from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.bulk.work.folder import Folder
from clipsrv.errors import ConfigError
from drills.emulators import BUCKET, STORES, Store, wait_for
from drills.proxy import Proxy, proxy
from tests.support.model import write_model
from tests.support.photos import cuttings

#: Names that are files' names too, each its own content; of folders those that begin with a dot are not gone into.
KEYS = ("a.jpg", "b/c.PNG", "b/d.webp", "b/x[1].jpg", "notes.txt", ".hidden.jpg", ".cache/x.jpg", "z z+%41é#?.jpeg")
_MODEL = ("--model", "tiny", "--device", "cpu", "--threads", "1", "--shard-size", "8", "--quiet")


def check(name: str, store: Store, folder: Path) -> Iterator[tuple[str, bool]]:
    """What was asked for, and whether it was so."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    behind = f"http://127.0.0.1:{port}"
    with store.serving(port, folder), proxy(behind, _fault) as before:
        wait_for(port)
        os.environ.update(store.environment(before.url))
        files = _fill(store, folder)
        yield "found as in a folder", _found(store)
        yield "read, whatever its name", _read(store)
        yield "what is not there is refused up front", _refused(store)
        out, local = folder / "store.npy", folder / "local.npy"
        _embed(folder, f"{store.url}/photos", "--relative-to", f"{store.url}/photos", "--out", str(out))
        _embed(folder, str(files), "--relative-to", str(files), "--out", str(local))
        yield "vectors are those of the files", out.read_bytes() == local.read_bytes()
        yield "list, marks and output of a job in shards are there", _in_shards(store, folder, files)
        yield from _faults(store, folder, before)


def _found(store: Store) -> bool:
    def found(path: str) -> list[str]:
        return [entry.id for entry in Inputs([path], relative_to=f"{store.url}/in").entries()]

    images = ["a.jpg", "b/c.PNG", "b/d.webp", "b/x[1].jpg", "empty.jpg", KEYS[-1]]
    return (
        sorted(found(f"{store.url}/in")) == sorted(found(f"{store.url}/in/")) == sorted(images)
        and sorted(found(f"{store.url}/in/[ab]*")) == images[:4]
        and found(f"{store.url}/**/*.webp") == ["b/d.webp"]
        and found(f"{store.url}/in/b/x[1].jpg") == ["b/x[1].jpg"]
        and found(f"{store.url}/in/.h*") == [".hidden.jpg"]
    )


def _read(store: Store) -> bool:
    inputs = Inputs([])
    whole = all(inputs.read(f"{store.url}/in/{key}", 100) == key.encode() for key in KEYS)
    return (
        whole
        and inputs.read(f"{store.url}/in/empty.jpg", 100) == b""
        and inputs.read(f"{store.url}/in/a.jpg", 3) == b"a.jp"
        and [inputs._part(f"{store.url}/in/a.jpg", at, 2) for at in (1, 4, 5, 50)] == [b".j", b"g", b"", b""]
    )


def _refused(store: Store) -> bool:
    for path, reason in (
        (f"{store.url}/gone.jpg", "There is no object"),
        (f"{store.url}/in/x*.jpg", "Nothing matches"),
        (f"{store.scheme}://no-such-bucket/", "There is no object"),
    ):
        try:
            list(Inputs([path]).entries())
        except ConfigError as error:
            if reason in str(error):
                continue
            print(error)
        return False
    return True


def _in_shards(store: Store, folder: Path, files: Path) -> bool:
    job = ("--work", f"{store.url}/job", "--out", f"{store.url}/out.parquet", "--rows-per-shard", "16")
    for part in ("1/2", "0/2"):
        _embed(folder, f"{store.url}/photos", "--relative-to", f"{store.url}/photos", *job, "--shard", part)
    local = ("--work", str(folder / "job"), "--out", str(folder / "out.parquet"), "--rows-per-shard", "16")
    _embed(folder, str(files), "--relative-to", str(files), *local)
    found, work = Folder(f"{store.url}/out.parquet"), Folder(f"{store.url}/job")
    expected = {path.name: path for path in (folder / "out.parquet").iterdir()}
    same = found.names("") == set(expected)
    for name, path in expected.items():
        if same and name.endswith(".parquet"):
            with found.open(name) as file:
                there, here = (pq.read_table(one).drop_columns(["path"]) for one in (file, path))
            same = there.equals(here)
    once = work.create("once", b"first") and not (store.knows_conditions and work.create("once", b"second"))
    return same and once and len(expected) == 5


def _faults(store: Store, folder: Path, before: Proxy) -> Iterator[tuple[str, bool]]:
    names = ("busy.jpg", "cut.jpg", "denied.jpg", "gone.jpg")
    (folder / "list").write_text("".join(f"{store.url}/faulty/{name}\n" for name in names))
    began, out = time.monotonic(), folder / "faulty.npy"
    _embed(folder, "--files-from", str(folder / "list"), "--out", str(out))
    rows = [json.loads(line) for line in out.with_name("faulty.npy.ids.jsonl").read_text().splitlines()]
    got = {Path(row["id"]).name for row in rows}
    bad = {Path(one["id"]).name: one["code"] for one in map(json.loads, _lines(folder / "faulty.npy.errors.jsonl"))}
    seconds, wanted = time.monotonic() - began, {"busy.jpg", "cut.jpg"}
    yield f"busy and cut answers are asked for again ({seconds:.0f} s)", got == wanted and before.faults["cut"] > 0
    yield "403 and 404 are told apart", bad == {"denied.jpg": "fetch_denied", "gone.jpg": "not_found"}
    yield (
        "what is refused is asked for once",
        [times for path, times in before.asked.items() if path.endswith("denied.jpg")] == [1],
    )


def _fault(path: str, times: int) -> str | None:
    name = path.rpartition("/")[2].rpartition("%2F")[2]
    if name == "denied.jpg":
        return "refused"
    return {"busy.jpg": "busy", "cut.jpg": "cut"}.get(name) if times == 1 else None


def _fill(store: Store, folder: Path) -> Path:
    """Puts everything there, and the images into a folder too, which it gives."""
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    files, there = folder / "photos", fsspec.filesystem(store.scheme, skip_instance_cache=True)
    files.mkdir()
    if store.scheme == "az":
        there.mkdir(BUCKET)
    objects = {**{f"in/{key}": key.encode() for key in KEYS}, "in/empty.jpg": b""}
    blobs = cuttings(64, (48, 36))
    objects |= {f"photos/{number:02d}.jpg": blob for number, blob in enumerate(blobs)}
    objects |= {f"faulty/{name}.jpg": blob for name, blob in zip(("busy", "cut", "denied"), blobs, strict=False)}
    for key, body in objects.items():
        there.pipe_file(f"{BUCKET}/{key}", body)
        if key.startswith("photos"):
            (folder / key).write_bytes(body)
    return files


def _embed(folder: Path, *args: str) -> None:
    command = [sys.executable, "-m", "clipsrv", "embed", *_MODEL, "--models-dir", str(folder / "models"), *args]
    subprocess.run(command, check=True)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def main(names: list[str]) -> int:
    wrong = 0
    for name in names or list(STORES):
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder, "models", "tiny"))
            for what, good in check(name, STORES[name], Path(folder)):
                wrong += not good
                print(f"{name:7}{'yes' if good else 'NO ':4}{what}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
