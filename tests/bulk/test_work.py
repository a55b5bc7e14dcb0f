"""Files that are there whole or not at all, and one driver at a time for a part of a job."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.work.folder import Folder
from clipsrv.bulk.work.ids import Ids
from clipsrv.bulk.work.model import fetch_model, publish_model
from clipsrv.bulk.work.place import Place
from clipsrv.errors import ConfigError, ModelError
from tests.bulk.tool import wait_until


@pytest.fixture(params=["a folder", "an object store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "work") if request.param == "a folder" else f"memory://{uuid.uuid4().hex}/work")


def test_what_is_written_is_read_and_listed(folder: Folder) -> None:
    assert folder.read("a/b") is None
    assert folder.names("a") == set()
    folder.write("a/b", b"1")
    folder.write("a/b", b"2")
    assert folder.read("a/b") == b"2"
    assert folder.names("a") == {"b"}
    folder.remove("a/b")
    folder.remove("a/b")
    assert folder.names("a") == set()


def test_a_file_is_made_by_one_only(folder: Folder) -> None:
    assert folder.create("a/b", b"first")
    assert not folder.create("a/b", b"second")
    assert folder.read("a/b") == b"first"
    assert folder.names("a") == {"b"}


def test_a_draft_is_seen_under_its_name_only_when_it_is_published(folder: Folder) -> None:
    with folder.draft("out/shard") as draft:
        draft.file.write(b"half")
        assert folder.read("out/shard") is None
        assert "shard" not in folder.names("out")
        draft.publish()
    assert folder.read("out/shard") == b"half"
    with folder.draft("out/shard") as draft:
        draft.file.write(b"other")
    assert folder.read("out/shard") == b"half"
    assert folder.names("out") == {"shard"}


def test_what_a_killed_process_left_of_a_draft_is_taken_away(folder: Folder) -> None:
    folder.write("out/_shard.0123.tmp", b"left")
    folder.write("out/_other.0123.tmp", b"of another")
    with folder.draft("out/shard") as draft:
        draft.publish()
    assert folder.names("out") == {"_other.0123.tmp", "shard"}


def test_many_may_write_the_same_file_at_once(folder: Folder) -> None:
    def write(number: int) -> None:
        for _ in range(10):
            folder.write("sign", b"%d" % number)

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    assert folder.read("sign") in {b"0", b"1", b"2", b"3"}
    assert folder.names("") == {"sign"}


def test_what_a_store_refuses_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file/inner/"):
        Folder(str(tmp_path / "file" / "inner")).write("a", b"")
    with pytest.raises(ConfigError, match="nosuch://"):
        Folder("nosuch://bucket/work")


def test_a_model_on_its_way_is_checked_by_its_checksums(folder: Folder, models_dir: Path, tmp_path: Path) -> None:
    digest = publish_model(models_dir / "tiny", folder)
    assert publish_model(models_dir / "tiny", folder) == digest
    assert fetch_model(models_dir, "tiny", folder, digest) == models_dir
    fetched = fetch_model(tmp_path, "tiny", folder, digest)
    assert fetch_model(tmp_path, "tiny", folder, digest) == fetched != models_dir
    for path in (models_dir / "tiny").iterdir():
        assert (fetched / "tiny" / path.name).read_bytes() == path.read_bytes()
    (fetched / "tiny" / "vision.fp32.onnx").write_bytes(b"damaged here")
    assert fetch_model(fetched, "tiny", folder, digest) == fetched, "a damaged copy is copied again"
    assert (fetched / "tiny" / "vision.fp32.onnx").read_bytes() != b"damaged here"
    shutil.rmtree(fetched)
    vision = f"model/{digest}/vision.fp32.onnx"
    folder.write(vision, (folder.read(vision) or b"")[:-1] + b"x")
    with pytest.raises(ModelError, match="differs from its manifest"):
        fetch_model(tmp_path, "tiny", folder, digest)
    assert not (fetched / "tiny").exists()
    folder.write(f"model/{digest}/manifest.json", b"{}")
    with pytest.raises(ModelError, match="its manifest is another"):
        fetch_model(tmp_path, "tiny", folder, digest)


def test_a_disk_without_room_for_ids_is_one_line(tmp_path: Path) -> None:
    with closing(Ids()) as ids:
        ids.add("a", "a", 0)
        shutil.rmtree(ids._folder.name)
        with pytest.raises(OutputError, match="Cannot keep the ids"):
            ids.repeated()


@pytest.fixture
def place(folder: Folder) -> Iterator[Place]:
    """A place that is held, and shows it often."""
    with closing(Place(folder, "0-of-1", beat=0.02, lease=30)) as held:
        assert held.take()
        yield held


def test_a_second_driver_is_refused_while_the_first_lives(folder: Folder, place: Place) -> None:
    _as_of_another_machine(folder, place)
    second = Place(folder, "0-of-1", beat=0.02, lease=30)
    said: list[str] = []
    assert not second.take(said.append)
    assert f"process {os.getpid()} on" in second.holder()
    assert "to see whether" in said[0]
    assert Place(folder, "0-of-1", beat=0.02, lease=30).is_held()
    place.check()


def test_another_part_is_free_and_a_place_that_was_left_too(folder: Folder, place: Place) -> None:
    with closing(Place(folder, "1-of-2")) as other:
        assert not other.is_held()
        assert other.take()
    place.close()
    with closing(Place(folder, "0-of-1")) as next_one:
        assert next_one.take()


def test_who_is_silent_for_long_is_gone_and_finds_out_when_he_is_not(folder: Folder, place: Place) -> None:
    silent = {"token": "x", "beat": 7, "pid": 1, "host": "elsewhere", "namespace": ""}
    folder.write("drivers/1-of-2.json", json.dumps(silent).encode())
    began = time.monotonic()
    with closing(Place(folder, "1-of-2", beat=0.04, lease=0.2)) as successor:
        assert successor.take()
        assert time.monotonic() - began >= 0.2
    # and the one that another took for gone
    folder.write("drivers/0-of-1.json", json.dumps(silent).encode())
    wait_until(lambda: place._lost)
    with pytest.raises(OutputError, match="process 1 on elsewhere"):
        place.check()
    place.close()
    assert folder.read("drivers/0-of-1.json") is not None


def test_a_process_of_this_machine_that_has_ended_is_not_waited_for(folder: Folder) -> None:
    with closing(Place(folder, "0-of-1", beat=0.02, lease=600)) as dead:
        dead.take()
        holder = json.loads(folder.read("drivers/0-of-1.json") or b"")
        dead._lost = True  # as after kill -9: the file stays
        dead.close()
    process = os.fork()
    if not process:
        os._exit(0)
    os.waitpid(process, 0)
    folder.write("drivers/0-of-1.json", json.dumps({**holder, "pid": process}).encode())
    with closing(Place(folder, "0-of-1", beat=0.02, lease=600)) as successor:
        assert successor.take()


def test_a_place_whose_file_is_damaged_is_free(folder: Folder) -> None:
    folder.write("drivers/0-of-1.json", b"[")
    with closing(Place(folder, "0-of-1", beat=0.02, lease=600)) as place:
        assert place.take()


def _as_of_another_machine(folder: Folder, place: Place) -> None:
    """A process that holds a place knows itself for an earlier one by its number: this one is to be another's."""
    sign = place._sign
    place._sign = lambda number: json.dumps({**json.loads(sign(number)), "host": "elsewhere"}).encode()  # type: ignore[method-assign]
    wait_until(lambda: b"elsewhere" in (folder.read("drivers/0-of-1.json") or b""))
