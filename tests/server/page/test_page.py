"""The page at /: its files and headers here, all that it does in Chromium (the *.test.ts beside this, run by Node)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from clipsrv.config import Config
from clipsrv.server.api.openapi import describe
from clipsrv.server.page.files import POLICY
from tests.support.index import write_index
from tests.support.model import NAME, make_model, write_model
from tests.support.serving import Client, drawn, serving

Serve = Callable[..., Awaitable[Client]]
ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "clipsrv" / "server" / "page" / "static").iterdir())
#: What browsers send, and what programs do.
BROWSERS = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "text/html",
    "application/json;q=0.5, text/html",
)
PROGRAMS = ("*/*", "application/json", "application/json, text/html;q=0.5", "text/plain", "text/html;q=0, */*")
#: Where Chromium is looked for: on the PATH, and where macOS has it.
CHROMIUM = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


@pytest.mark.parametrize("accept", BROWSERS)
async def test_a_browser_gets_the_page_under_a_strict_policy(client: Client, accept: str) -> None:
    reply = await client.get("/", headers={"Accept": accept})
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert reply.headers["Vary"] == "Accept"
    rules = dict(rule.split(" ", 1) for rule in reply.headers["Content-Security-Policy"].split("; "))
    assert rules.pop("default-src") == rules.pop("base-uri") == rules.pop("frame-ancestors") == "'none'"
    assert rules.pop("form-action") == "'none'"
    assert rules.pop("img-src") == "'self' blob:"
    assert rules.pop("require-trusted-types-for") == "'script'"
    assert rules.pop("trusted-types") == "worker"
    assert set(rules.values()) == {"'self'"}
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("accept", PROGRAMS)
async def test_a_program_is_told_where_to_look(client: Client, accept: str) -> None:
    reply = await client.get("/", headers={"Accept": accept})
    assert reply.json["contract"] == "/openapi.json"
    for path in ("contract", "health", "models"):
        assert (await client.get(reply.json[path])).status == 200


async def test_every_file_of_the_page_is_served_as_what_it_is_and_no_other(client: Client) -> None:
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    for path in FILES:
        reply = await client.get(f"/page/{path.name}")
        assert (reply.status, reply.body) == (200, path.read_bytes())
        assert reply.headers["Content-Type"].partition(";")[0] == types[path.suffix]
        assert reply.headers["Content-Security-Policy"] == POLICY
        assert reply.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["", "nothing.js", "../files.py", "..%2ffiles.py", "%2e%2e/files.py", "static/main.js", "main.js%00", "main.js/"],
)
async def test_no_path_leads_out_of_the_files_of_the_page(path: str) -> None:
    async with serving() as served:
        assert (await served.get(f"/page/{path}")).status == 404


async def test_the_page_is_open_without_a_key_and_nothing_else_is() -> None:
    async with serving(api_keys="a-key-that-nobody-guesses") as served:
        for path in ("/", "/page/main.js", "/page/style.css"):
            assert (await served.get(path)).status == 200
        for path in ("/page", "/pages/main.js", "/models", "//page/main.js"):
            assert (await served.get(path)).status == 401, path
        for path in ("/page/../models", "/page/%2e%2e/models"):
            assert (await served.get(path)).status == 404, path


async def test_without_the_page_there_is_nothing_at_its_place(serve_here: Serve) -> None:
    client = await serve_here(page=False)
    for path in ("/", "/page/main.js"):
        reply = await client.get(path, headers={"Accept": "text/html"})
        assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")
    documented = (await client.get("/openapi.json")).json["paths"]
    assert set(describe(Config())["paths"]) - set(documented) == {"/"}


class _Page(HTMLParser):
    """What a policy against code in HTML would refuse, and the files that the page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []
        self.files: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in names):
            self.refused.append(tag)
        self.refused += [name for name in names if name == "style" or name.startswith("on")]
        asked = (names.get("src"), names.get("href") if tag == "link" else None)
        self.files |= {address for address in asked if address}


def test_the_page_holds_no_code_and_names_no_other_host() -> None:
    page = _Page()
    page.feed((ROOT / "clipsrv/server/page/static/index.html").read_text(encoding="utf-8"))
    assert page.refused == []
    assert page.files == {"page/icon.svg", "page/style.css", "page/main.js"}
    for path in FILES:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.findall(
            r"https?:|innerHTML|insertAdjacentHTML|document\.write|\beval\(|@import|\burl\([^)]*:", text
        ), path
        for name in re.findall(r"^import .*'(.*?)'", text, re.MULTILINE):
            assert (path.parent / name).is_file()
        assert len(text.splitlines()) <= 250 or path.suffix == ".css"


@pytest.mark.timeout(900)
def test_the_page_does_in_chromium_what_it_promises(npm: str, tmp_path: Path) -> None:
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert chromium, "Chromium is missing: apt install chromium, or Google Chrome"
    write_model(tmp_path / NAME)
    write_model(tmp_path / "other", weights_sha256="1" * 64)
    images = {f"photos/{number:03}.png": drawn(number, (48, 32)) for number in range(260)}
    (tmp_path / "index" / "photos").mkdir(parents=True)
    for path, blob in images.items():
        (tmp_path / "index" / path).write_bytes(blob)
    index = write_index(tmp_path / "index" / "x.npy", make_model(), images)
    (tmp_path / "index" / "photos" / "004.png").unlink()
    environment = os.environ | {
        "CLIPSRV_TEST_CHROMIUM": chromium,
        "CLIPSRV_TEST_PYTHON": sys.executable,
        "CLIPSRV_TEST_MODEL": NAME,
        "CLIPSRV_TEST_INDEX": str(index),
        "CLIPSRV_MODELS_DIR": str(tmp_path),
    }
    command = ["node", "--import", "tsx", "--test", "--test-timeout=800000", "tests/server/page/suite.ts"]
    for _ in range(2):  # Chromium drops what it loads when the machine's network changes: what fails twice is a fault
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if ran.returncode == 0:
            break
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-5_000:]
    (passed,) = re.findall(r"^\S pass (\d+)$", ran.stdout, re.MULTILINE)
    written = sum(path.read_text(encoding="utf-8").count("\ntest(") for path in Path(__file__).parent.glob("*.test.ts"))
    assert int(passed) >= written > 15
