"""The manifest of work: a list of any length written once, in shards, each id once."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.records import BadFile, Entry
from clipsrv.bulk.sources.listing import write_listing
from clipsrv.bulk.work import plan as plans
from clipsrv.bulk.work.folder import Folder
from clipsrv.bulk.work.plan import Plan, read_plan, write_plan
from clipsrv.errors import ConfigError


@pytest.fixture(params=["a folder", "an object store"])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """An empty work folder."""
    return Folder(str(tmp_path / "work") if request.param == "a folder" else f"memory://{uuid.uuid4().hex}/work")


def planned(work: Folder, entries: Iterable[Entry | BadFile], rows: int) -> Plan:
    return write_plan(work, entries, rows, {"model": "tiny"}, "what was named")


def everything(plan: Plan) -> Iterator[Entry | BadFile]:
    for number in range(plan.shards):
        yield from plan.shard(number).entries()


def test_the_list_is_read_again_as_it_was_written(work: Folder) -> None:
    entries = [Entry(f"id {number}", f"s3://b/{number}.jpg", number, f"etag {number}") for number in range(25)]
    entries[7] = Entry("id 7", "no size and no etag")
    listed: list[Entry | BadFile] = [*entries, BadFile("", "a list, line 9", "bad_entry", "no path")]
    assert planned(work, listed, 10).count == 26
    plan = read_plan(work)
    assert plan is not None
    assert list(everything(plan)) == listed
    assert [plan.size(number) for number in range(plan.shards)] == [10, 10, 6]
    assert list(plan.shard(1).entries(4)) == listed[14:20]
    assert plan.facts == {"model": "tiny"}


def test_a_shard_is_a_table_of_id_uri_size_and_etag(tmp_path: Path) -> None:
    planned(Folder(str(tmp_path)), [Entry("a", "a.jpg", 5, "x")], 10)
    (row,) = pq.read_table(tmp_path / "inputs" / "000000.parquet").to_pylist()
    assert {name: row[name] for name in ("id", "uri", "size", "etag")} == {
        "id": "a",
        "uri": "a.jpg",
        "size": 5,
        "etag": "x",
    }


def test_of_several_entries_with_one_id_those_are_kept_that_a_list_in_one_piece_keeps(
    work: Folder, tmp_path: Path
) -> None:
    choose = random.Random(5)
    entries = [Entry(str(choose.randrange(300)), f"{choose.randrange(3)}.jpg") for _ in range(1000)]
    plan = planned(work, entries, 64)
    kept = list(everything(plan))
    expected = list(write_listing(entries, tmp_path / "list").entries())
    assert [(one.id, one.path) for one in kept] == [(one.id, one.path) for one in expected]
    assert {one.code for one in kept if isinstance(one, BadFile)} == {"duplicate_id"}
    assert plan.count == len(kept) == sum(map(plan.size, range(plan.shards)))
    assert len({one.id for one in kept if isinstance(one, Entry)}) == len({one.id for one in entries})


def test_a_shard_of_nothing_but_repeated_entries_is_empty(work: Folder) -> None:
    plan = planned(work, [Entry("a", "a")] * 5, 2)
    assert [plan.size(number) for number in range(plan.shards)] == [1, 0, 0]


def test_a_name_that_is_not_unicode_is_a_bad_entry(work: Folder) -> None:
    plan = planned(work, [Entry("good", "a"), Entry("\udcff", "b")], 10)
    assert [one.code for one in everything(plan) if isinstance(one, BadFile)] == ["invalid_name"]


def test_a_list_without_an_entry_that_can_be_used_is_refused_and_no_plan(work: Folder) -> None:
    with pytest.raises(ConfigError, match="No image found in what was named"):
        planned(work, [], 10)
    with pytest.raises(ConfigError, match="no path"):
        planned(work, [BadFile("", "line 1", "bad_entry", "no path")], 10)
    assert read_plan(work) is None


def test_a_list_that_was_cut_short_by_a_kill_is_written_again(work: Folder) -> None:
    def broken() -> Iterator[Entry]:
        yield from (Entry(str(number), "a") for number in range(25))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned(work, broken(), 10)
    assert read_plan(work) is None
    assert [one.id for one in everything(planned(work, [Entry("a", "a")], 10))] == ["a"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": 1, "short": []}'])
def test_a_damaged_index_is_named(work: Folder, content: bytes) -> None:
    work.write(plans.INDEX, content)
    with pytest.raises(OutputError, match=r"index\.json is damaged"):
        read_plan(work)


def test_a_shard_that_is_not_what_was_planned_is_named(work: Folder) -> None:
    plan = planned(work, [Entry(str(number), "a") for number in range(20)], 10)
    work.write(plans.inputs(0), work.read(plans.inputs(1)) or b"")
    assert len(list(plan.shard(0).entries())) == 10
    work.write(plans.inputs(0), b"PAR1")
    with pytest.raises(OutputError, match=r"inputs/000000\.parquet"):
        list(plan.shard(0).entries())
    work.remove(plans.inputs(0))
    with pytest.raises(OutputError, match=r"inputs/000000\.parquet"):
        list(plan.shard(0).entries())
