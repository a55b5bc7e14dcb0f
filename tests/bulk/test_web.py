"""Images by http: what is fetched, what is tried again, what is refused, each with its code."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsrv.bulk.errors import FetchError, GivenUpError
from clipsrv.bulk.sources import patience, web
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.bulk.sources.reader import Fetching
from clipsrv.errors import ImageTooLargeError
from tests.bulk.tool import Embed, finish, ids, lines, shards, vectors, wait_until
from tests.support.photos import cuttings
from tests.support.website import Website, website

BODY = bytes(range(256)) * 1_000


@pytest.fixture(scope="module")
def site() -> Iterator[Website]:
    files = {f"{number}.jpg": blob for number, blob in enumerate(cuttings(4))}
    with website({"a": BODY, "none": b"", **files}) as served:
        yield served


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow one another at once."""
    monkeypatch.setattr(patience, "_FIRST_DELAY", 0.001)


def inputs(seconds: float = 30.0, **options: Any) -> Inputs:
    return Inputs(["-"], fetching=Fetching(seconds, allow_private=True), **options)


def refusal(path: str, reading: Inputs | None = None) -> FetchError:
    with pytest.raises(FetchError) as caught:
        (reading or inputs()).read(path, 10**6)
    return caught.value


def test_the_whole_of_a_body_is_read_over_connections_that_are_kept(site: Website) -> None:
    reading = inputs()
    assert [reading.read(f"{site.url}/{name}", 10**6) for name in ("a", "none", "a")] == [BODY, b"", BODY]
    reading.close()
    assert reading.read(f"{site.url}/a", 10**6) == BODY


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_what_may_pass_is_tried_again(site: Website, fault: str) -> None:
    assert inputs().read(f"{site.url}/{fault}/2/a", 10**6) == BODY
    assert site.asked[f"/{fault}/2/a"] == 3


def test_what_does_not_pass_is_given_up_after_five_tries(site: Website) -> None:
    error = refusal(f"{site.url}/status/500/")
    assert (error.code, site.asked["/status/500/"]) == ("fetch_failed", 5)
    assert error.message == "The server answered 500. It was tried 5 times."
    assert refusal(f"{site.url}/cut/99/a").message.startswith("The connection ended before the whole of it had come.")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "not_found"),
        (410, "not_found"),
        (403, "fetch_denied"),
        (401, "fetch_denied"),
        (400, "fetch_failed"),
        (204, "fetch_failed"),
    ],
)
def test_what_cannot_pass_is_asked_for_once(site: Website, status: int, code: str) -> None:
    error = refusal(f"{site.url}/status/{status}/")
    assert (error.code, site.asked[f"/status/{status}/"]) == (code, 1)
    assert str(status) in error.message


def test_a_body_that_does_not_come_is_given_up_in_its_time(site: Website) -> None:
    assert "did not come within 0.5 s" in refusal(f"{site.url}/stall/9/a", inputs(0.5)).message


def test_a_body_that_is_too_large_is_not_read_to_its_end(site: Website) -> None:
    with pytest.raises(ImageTooLargeError, match="256,000 bytes"):
        inputs().read(f"{site.url}/a", 1_000)
    assert len(inputs().read(f"{site.url}/endless/9/a", 300_000)) == 300_001


def test_a_body_that_is_compressed_unasked_is_refused(site: Website) -> None:
    assert "compressed" in refusal(f"{site.url}/gzip/9/a").message


def test_a_part_is_asked_for_as_a_range_and_nothing_else_is_taken_for_it(site: Website) -> None:
    reading = inputs()
    assert reading._reader.part(f"{site.url}/a", 1_000, 300) == BODY[1_000:1_300]
    assert reading._reader.part(f"{site.url}/a", len(BODY) - 5, 300) == BODY[-5:]
    with pytest.raises(FetchError, match="200 where 206"):
        reading._reader.part(f"{site.url}/gzip/9/a", 5, 3)


def test_redirects_are_followed_five_times_and_never_out_of_http(site: Website) -> None:
    def moved(to: str) -> str:
        return f"{site.url}/moved/x/y?to={to}"

    assert inputs().read(moved("/a"), 10**6) == BODY
    for there in ("file:///etc/passwd", "ftp://host/a", "http://user:word@host/a", "data:image/png;base64,AA"):
        assert refusal(moved(there)).code == "url_forbidden"
    assert refusal(moved("")).code == "fetch_failed"
    around = f"{site.url}/moved/x/around"
    assert refusal(around).message == "It was moved more than 5 times."
    assert site.asked["/moved/x/around"] == 6
    with pytest.raises(FetchError, match="from https to http"):
        web._next(web._parse("https://host/a"), "http://host/a")


@pytest.mark.parametrize(
    "url",
    ["http://", "http://user@host/a", "http://user:word@host/", "http://ho\nst/", "http://[::1/a", "https://h:99999/"],
)
def test_what_is_no_url_of_http_or_names_a_user_is_refused(url: str) -> None:
    assert refusal(url).code == "url_forbidden"


def test_a_host_that_is_closed_is_tried_again_and_one_that_is_not_known_is_a_failure_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert "It was tried 5 times" in refusal(f"http://127.0.0.1:{port}/a").message
    assert refusal("http://no-such-host.invalid/a").code == "fetch_failed"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that lead to this machine, and to the address where clouds keep secrets."""
    found = {
        "private.test": ["127.0.0.1"],
        "secrets.test": ["169.254.169.254"],
        "six.test": ["::1"],
        "wrapped.test": ["::ffff:127.0.0.1"],
    }
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in found:
            return real(host, port, *args, **kwargs)
        return [
            (
                socket.AF_INET6 if ":" in one else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (one, port, 0, 0)[: 4 if ":" in one else 2],
            )
            for one in found[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


HOSTS = (
    *("127.0.0.1", "localhost", "LOCALHOST.", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]"),
    *("127.1", "0177.0.0.1", "2130706433", "0x7f.0.0.1", "①②⑦.⓪.⓪.①", "１２７.0.0.1", "127.0.0.1."),
    *("169.254.169.254", "10.0.0.1", "[fe80::1]", "[fd00:ec2::254]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
    *("private.test", "secrets.test", "six.test", "wrapped.test"),
)


@pytest.mark.parametrize("host", HOSTS)
def test_no_private_address_is_ever_connected_to(site: Website, names: None, host: str) -> None:
    port = site.url.rpartition(":")[2]
    before = site.asked.total()
    assert refusal(f"http://{host}:{port}/a", Inputs(["-"], fetching=Fetching(0.5))).code in (
        "url_forbidden",
        "fetch_failed",
    )
    assert site.asked.total() == before


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "[::1]", "private.test", "secrets.test", "localhost"])
def test_a_redirect_to_a_private_address_is_not_followed(
    site: Website, names: None, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.2 passes for a public address here."""
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.2")
    port = site.url.rpartition(":")[2]
    before = site.asked.total()
    with website({"a": BODY}, "127.0.0.2") as public:
        reading = Inputs(["-"], fetching=Fetching(5.0))
        assert reading.read(f"{public.url}/moved/x/y?to=/a", 10**6) == BODY
        error = refusal(f"{public.url}/moved/x/y?to=http://{host}:{port}/a", reading)
    assert error.code == "url_forbidden"
    assert "--allow-private-addresses" in error.message
    assert site.asked.total() == before


def test_a_proxy_of_the_environment_is_not_used(site: Website, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    before = site.asked.total()
    assert refusal("http://127.0.0.1:1/a", Inputs(["-"])).code == "url_forbidden"
    assert site.asked.total() == before


def test_a_fetch_ends_soon_after_the_job_was_asked_to_end(site: Website, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_to_end = threading.Event()
    monkeypatch.setattr(patience, "_GRACE", 0.1)
    reading = inputs(600.0, stop=asked_to_end.is_set)
    threading.Timer(0.2, asked_to_end.set).start()
    with pytest.raises(GivenUpError):
        reading.read(f"{site.url}/stall/9/a", 10**6)


def test_a_list_of_urls_gives_the_vectors_of_the_files_and_each_failure_is_a_row(
    embed: Embed, images: Path, tmp_path: Path, site: Website
) -> None:
    good = [f"{site.url}/{name}" for name in ("0.jpg", "busy/1/1.jpg", "cut/1/2.jpg", "moved/x/y?to=/3.jpg")]
    bad = [f"{site.url}/gone.jpg", f"{site.url}/status/403/", f"{site.url}/a", f"{site.url}/none", "http://user@x/"]
    (tmp_path / "list").write_text("\n".join([*good[:2], *bad, *good[2:]]))
    folder, limit = tmp_path / "files", ("--max-image-bytes", 200_000)
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(site.files[f"{number}.jpg"])
    embed("--files-from", tmp_path / "list", "--allow-private-addresses", "--out", tmp_path / "out.npy", *limit)
    embed(folder, "--out", tmp_path / "files.npy")
    assert ids(tmp_path / "out.npy") == good
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "files.npy").read_bytes()
    codes = [line["code"] for line in lines(tmp_path / "out.npy.errors.jsonl")]
    assert codes == ["not_found", "fetch_denied", "image_too_large", "empty_image", "url_forbidden"]
    # What failed is a list as it stands.
    said = embed("--files-from", tmp_path / "out.npy.errors.jsonl", "--out", tmp_path / "again.npy", status=2)
    assert "private" in said
    assert np.isfinite(vectors(tmp_path / "out.npy")).all()


def test_a_signal_ends_the_job_while_an_image_hangs_and_the_next_run_goes_on(
    embed: Embed, tmp_path: Path, site: Website
) -> None:
    urls = [f"{site.url}/0.jpg", f"{site.url}/1.jpg", f"{site.url}/stall/1/2.jpg"]
    (tmp_path / "list").write_text("\n".join(urls))
    args = (
        "--files-from",
        tmp_path / "list",
        "--allow-private-addresses",
        "--shard-size",
        2,
        "--out",
        tmp_path / "o.npy",
    )
    process = embed.start(*args, "--fetch-seconds", 3600)
    wait_until(lambda: shards(tmp_path / "o.npy") == 1 and site.asked["/stall/1/2.jpg"] == 1)
    os.kill(process.pid, signal.SIGTERM)
    status, said = finish(process)
    assert (status, "goes on from here" in said, shards(tmp_path / "o.npy")) == (143, True, 1)
    embed(*args)
    assert ids(tmp_path / "o.npy") == urls
