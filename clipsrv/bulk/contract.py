"""What this job and the TypeScript catalogue job must agree on, from the one file that both packages carry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

_AGREED = json.loads(Path(__file__).with_name("contract.json").read_text(encoding="utf-8"))

#: Of the files in a folder only these are taken; files named one by one are taken whatever their names.
IMAGE_SUFFIXES: frozenset[str] = frozenset(_AGREED["image_suffixes"])
#: The table's columns in order, each with its definition; {dimensions} stands for the length of a vector.
COLUMNS: Mapping[str, str] = _AGREED["columns"]
#: Hashed, the advisory lock under which extension and table are made.
LOCK: str = _AGREED["lock"]
