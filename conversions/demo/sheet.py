"""Makes conversions/drawings.webp: `python -m conversions.demo.sheet [FOLDER_FOR_PACKAGES]`.

Sixty of the drawings the demo model is trained on, evenly taken from Noto's in the order of Unicode, for
conversions/golden.py to cut out again. Noto Emoji is under Apache-2.0: see onnx_models/demo/LICENSES.md.
"""

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from conversions.demo.sources import fetch
from conversions.golden import ACROSS, DRAWINGS, SHEET, SIDE

PACKAGE, QUALITY = "emoji-datasource-google", 90


def main() -> None:
    """Fetches the packages and writes the sheet."""
    package = fetch(Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo/npm")) / PACKAGE
    emoji = sorted(filter(_is_wanted, json.loads((package / "emoji.json").read_text())), key=lambda x: x["sort_order"])
    sheet = Image.new("RGB", (ACROSS * SIDE, DRAWINGS // ACROSS * SIDE), "white")
    for place in range(DRAWINGS):
        file = package / f"img/google/{SIDE}" / emoji[place * len(emoji) // DRAWINGS]["image"]
        with Image.open(file) as opened:
            drawing = opened.convert("RGBA")
        sheet.paste(drawing, (place % ACROSS * SIDE, place // ACROSS * SIDE), drawing)
    sheet.save(SHEET, "WEBP", quality=QUALITY, method=6)


def _is_wanted(emoji: dict[str, Any]) -> bool:
    """Drawn by Noto, and neither a flag nor a part of other emoji."""
    return bool(emoji["has_img_google"]) and emoji["category"] not in {"Flags", "Component"}


if __name__ == "__main__":
    main()
