"""Images in an object store: a real S3 server, which objects are found, and the vectors of the same files on a disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.records import Entry
from clipsrv.bulk.sources import objects, patience
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.errors import ConfigError
from tests.bulk.tool import Embed, ids, lines
from tests.support.s3 import Bucket, s3_server
from tests.support.website import Website, website

KEYS = ("a.jpg", "b/c.PNG", "b/d.webp", "b/x[1].jpg", "notes.txt", ".hidden.jpg", ".cache/x.jpg", "z z+%41é.jpeg")


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patched, s3_server(patched):
        made = Bucket("images")
        made.put({f"in/{key}": key.encode() for key in KEYS})
        made.put({"in/empty.jpg": b""})
        yield made


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow one another at once."""
    monkeypatch.setattr(patience, "_FIRST_DELAY", 0.001)


def found(*paths: str, **options: Any) -> list[str]:
    return [entry.id for entry in Inputs(paths, relative_to="s3://images/in", **options).entries()]


def test_a_folder_gives_its_images_in_the_order_of_keys_without_hidden_ones(bucket: Bucket) -> None:
    wanted = ["a.jpg", "b/c.PNG", "b/d.webp", "b/x[1].jpg", "empty.jpg", "z z+%41é.jpeg"]
    assert found("s3://images/in") == found("s3://images/in/") == wanted
    assert [entry.id for entry in Inputs(["s3://images"]).entries()] == [f"s3://images/in/{key}" for key in wanted]


def test_globs_and_single_objects_are_found_as_files_are(bucket: Bucket) -> None:
    assert found("s3://images/in/[ab]*") == ["a.jpg", "b/c.PNG", "b/d.webp", "b/x[1].jpg"]
    assert found("s3://images/**/*.webp") == ["b/d.webp"]
    assert found("s3://images/in/*.jpg") == ["a.jpg", "empty.jpg"]
    assert found("s3://images/in/.h*", "s3://images/in/notes.txt", "s3://images/in/b/x[1].jpg") == [
        *(".hidden.jpg", "notes.txt", "b/x[1].jpg")
    ]


def test_listings_of_several_pages_are_read_to_their_end(bucket: Bucket) -> None:
    bucket.put({f"many/{number:04d}.jpg": b"x" for number in range(1_005)})
    assert [entry.id for entry in Inputs(["s3://images/many"], relative_to="s3://images/many").entries()] == [
        f"{number:04d}.jpg" for number in range(1_005)
    ]


def test_entries_have_the_size_and_etag_that_the_store_tells_and_every_key_is_read(bucket: Bucket) -> None:
    inputs = Inputs(["s3://images/in"])
    entries = [entry for entry in inputs.entries() if isinstance(entry, Entry)]
    for entry in entries:
        body = inputs.read(entry.path, 100)
        assert body == (b"" if "empty" in entry.path else entry.path.removeprefix("s3://images/in/").encode())
        assert entry.size == len(body)
        assert entry.etag
    assert inputs.read("s3://images/in/a.jpg", 3) == b"a.jp"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("s3://images/gone.jpg", "There is no object of this name"),
        ("s3://images/in/x*.jpg", "Nothing matches"),
        ("s3://no-such-bucket/", "There is no object"),
    ],
)
def test_what_is_not_there_is_refused_up_front(bucket: Bucket, path: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        list(Inputs([path]).entries())


def test_a_store_whose_library_is_not_there_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(objects.EXTRAS, "gs", "gs")
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"gs:// needs a library: .*\[gs\]"):
        list(Inputs(["gs://bucket/photos"]).entries())


@pytest.fixture
def faulty(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Website]:
    """A store whose every object is busy and then cut, before it comes whole."""
    with website({"k": b"whole" * 1_000}) as site:
        monkeypatch.setenv("AWS_ENDPOINT_URL", site.url)
        yield site


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_a_store_that_is_busy_or_cuts_its_answers_is_asked_again(faulty: Website, fault: str) -> None:
    assert Inputs([]).read(f"s3://{fault}/2/k", 10**6) == b"whole" * 1_000
    assert faulty.asked[f"/{fault}/2/k"] == 3


def test_what_a_store_refuses_is_asked_for_once(faulty: Website) -> None:
    with pytest.raises(FetchError) as caught:
        Inputs([]).read("s3://status/403/k", 10**6)
    assert (caught.value.code, faulty.asked["/status/403/k"]) == ("fetch_denied", 1)


class GoogleError(Exception):
    """As gcsfs tells a status."""

    code = 429


class AzureError(Exception):
    """As azure.core tells a status."""

    def __init__(self, status: int) -> None:
        super().__init__("no")
        self.status_code = status


@pytest.mark.parametrize(
    ("error", "code", "again"),
    [
        (OSError("Forbidden: https://storage.googleapis.com/b/o\nno"), "fetch_denied", False),  # as gcsfs tells 403
        (AzureError(403), "fetch_denied", False),
        (AzureError(401), "fetch_denied", False),
        (AzureError(404), "not_found", False),
        (AzureError(400), "fetch_failed", False),
        (AzureError(503), "fetch_failed", True),
        (AzureError(429), "fetch_failed", True),
        (GoogleError("slowly"), "fetch_failed", True),
        (OSError(16, "SlowDown"), "fetch_failed", True),  # as s3fs tells 503
        (TimeoutError(), "fetch_failed", True),
    ],
    ids=str,
)
async def test_what_each_stores_library_raises_is_told_as_what_it_is(error: Exception, code: str, again: bool) -> None:
    async def asked() -> None:
        raise error

    with pytest.raises(FetchError) as caught:
        await objects._translated(asked())
    assert (caught.value.code, caught.value.again) == (code, again)


def test_the_vectors_are_those_of_the_same_files_and_a_bad_object_is_a_row(
    embed: Embed, images: Path, tmp_path: Path, bucket: Bucket
) -> None:
    bucket.put({f"photos/{path.relative_to(images)}": path.read_bytes() for path in images.rglob("*.*")})
    embed("s3://images/photos", "--relative-to", "s3://images/photos", "--out", tmp_path / "s3.npy", "--shard-size", 4)
    embed(images, "--relative-to", images, "--out", tmp_path / "files.npy", "--shard-size", 4)
    assert ids(tmp_path / "s3.npy") == ids(tmp_path / "files.npy")
    assert (tmp_path / "s3.npy").read_bytes() == (tmp_path / "files.npy").read_bytes()
    codes = {line["id"]: line["code"] for line in lines(tmp_path / "s3.npy.errors.jsonl")}
    assert codes == {line["id"]: line["code"] for line in lines(tmp_path / "files.npy.errors.jsonl")}
    (tmp_path / "list").write_text("s3://images/photos/01.jpg\ns3://images/photos/gone.jpg\n")
    embed("--files-from", tmp_path / "list", "--out", tmp_path / "list.npy")
    assert [line["code"] for line in lines(tmp_path / "list.npy.errors.jsonl")] == ["not_found"]
