"""docs/house.md names files that are there, and every room."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_layers import MAY_IMPORT

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")


def test_every_file_and_folder_named_is_there() -> None:
    tables = PAGE.partition("## I want to add")[2].partition("## Tests")[0]
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:md|cfg))`", tables)
    assert len(named) > 30
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_room_is_in_the_table_of_rooms() -> None:
    rooms = {name for name in MAY_IMPORT if (ROOT / "clipsrv" / name).is_dir()}
    table = PAGE.partition("## Rooms")[2].partition("## I want to add")[0]
    assert {room for room in rooms if f"{room}/`" not in table} == set()


def test_every_drill_is_named() -> None:
    programs = [path for path in (ROOT / "scripts").iterdir() if "-m drills." in path.read_text(encoding="utf-8")]
    assert [path.name for path in programs if path.name not in PAGE] == []
