"""Emoji drawings as arrays: finds each vendor's image of an emoji and draws it once into a cache.

Must know nothing of the model. Drawing takes about a minute; training then reads arrays only.
"""

import io
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from conversions.demo.names import ENGLISH, Emoji, codepoints
from conversions.demo.sources import VENDORS, Vendor

SIDE = 128
WITH_CHARS = ("noto", "twemoji", "openmoji", "fluent-emoji-flat")


@dataclass(frozen=True)
class Images:
    """All drawings: `rgba` uint8 (n, 4, 128, 128), not premultiplied; `emoji` and `vendor` int64 (n,)."""

    rgba: NDArray[np.uint8]
    emoji: NDArray[np.int64]
    vendor: NDArray[np.int64]

    def of(self, *vendors: str) -> "Images":
        """The drawings of the named vendors only."""
        names = [vendor.name for vendor in VENDORS]
        mask = np.isin(self.vendor, [names.index(name) for name in vendors])
        return Images(self.rgba[mask], self.emoji[mask], self.vendor[mask])

    def without(self, *vendors: str) -> "Images":
        """The drawings of all other vendors."""
        return self.of(*(vendor.name for vendor in VENDORS if vendor.name not in vendors))


def load_images(modules: Path, cache: Path, emoji: list[Emoji]) -> Images:
    """Draws everything at first, reads the cache afterwards."""
    stored = cache / "images.npz"
    if not stored.exists():
        rgba, owner, vendors = [], [], []
        names = _Names(modules, emoji)
        for number, vendor in enumerate(VENDORS):
            for index, image in _draw(modules / vendor.package, vendor, emoji, names):
                rgba.append(image)
                owner.append(index)
                vendors.append(number)
        partial = stored.with_name("partial.npz")
        np.savez(partial, rgba=np.stack(rgba), emoji=np.array(owner), vendor=np.array(vendors))
        partial.rename(stored)
    with np.load(stored) as arrays:
        return Images(arrays["rgba"], arrays["emoji"], arrays["vendor"])


class _Names:
    """Finds the emoji an icon's name means: by its label, else by any other name that means one emoji only."""

    def __init__(self, modules: Path, emoji: list[Emoji]) -> None:
        self.index = {one.key: i for i, one in enumerate(emoji)}
        self.labels = {self.squeeze(one.label): i for i, one in enumerate(emoji)}
        keys: dict[str, set[int]] = defaultdict(set)
        for i, one in enumerate(emoji):
            for name in (*one.words[ENGLISH].names, *_unicode_name(one.key)):
                keys[self.squeeze(name)].add(i)
        for name in WITH_CHARS:
            for hexcode, slug in _read(modules / "@iconify-json" / name / "chars.json").items():
                if codepoints(hexcode) in self.index:
                    keys[self.squeeze(slug)].add(self.index[codepoints(hexcode)])
        self.keys = {key: next(iter(found)) for key, found in keys.items() if len(found) == 1}

    @staticmethod
    def squeeze(name: str) -> str:
        return re.sub("[^a-z0-9]", "", re.sub("^flag-for-(flag-)?", "flag-", name.lower()))

    def find(self, name: str) -> int | None:
        """None if it means none. Several drawings of one thing are numbered: baby-1, baby-2."""
        for key in map(self.squeeze, (name, re.sub(r"-\d$", "", name))):
            if key in self.labels:
                return self.labels[key]
            if key in self.keys:
                return self.keys[key]
        return None


def _unicode_name(key: str) -> list[str]:
    """What Unicode calls an emoji of one code point: old sets are named by it ("black heart suit")."""
    return [] if "-" in key else [unicodedata.name(chr(int(key, 16)), "")]


def _read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def _draw(package: Path, vendor: Vendor, emoji: list[Emoji], names: _Names) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Each emoji the vendor has drawn and the drawing, in the order of Unicode; several drawings where there are."""
    if vendor.kind == "files":
        yield from _from_files(package / vendor.folder, names)
        return
    icons = _read(package / "icons.json")
    chosen = _flags(icons, emoji) if vendor.kind == "flags" else _icons(package, icons, names)
    for index, found in sorted(chosen.items()):
        for name in found:
            image = _rasterise(icons, name)
            if image[3].any():
                yield index, image


def _icons(package: Path, icons: dict[str, Any], names: _Names) -> dict[int, list[str]]:
    chosen: dict[int, list[str]] = {}
    if (package / "chars.json").exists():
        for hexcode, name in _read(package / "chars.json").items():
            if codepoints(hexcode) in names.index:
                chosen[names.index[codepoints(hexcode)]] = [name]
    certain = set(chosen)
    for name in icons["icons"]:
        index = names.find(name)
        if index is not None and index not in certain:
            chosen.setdefault(index, []).append(name)
    for name in icons.get("aliases", {}):
        index = names.find(name)
        if index is not None:
            chosen.setdefault(index, [name])
    return chosen


def _flags(icons: dict[str, Any], emoji: list[Emoji]) -> dict[int, list[str]]:
    chosen = {}
    for index, one in enumerate(emoji):
        points = [int(point, 16) for point in one.key.split("-")]
        if len(points) == 2 and all(0x1F1E6 <= point <= 0x1F1FF for point in points):
            code = "".join(chr(point - 0x1F1E6 + ord("a")) for point in points)
            for name in (code, f"{code}-4x3"):
                if name in icons["icons"]:
                    chosen[index] = [name]
    return chosen


def _rasterise(icons: dict[str, Any], name: str) -> NDArray[np.uint8]:
    alias = icons.get("aliases", {}).get(name, {})
    icon = {**icons["icons"][alias.get("parent", name)], **alias}
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    body = icon["body"].replace("currentColor", "#000")
    if alias.get("hFlip"):
        body = f'<g transform="translate({width} 0) scale(-1 1)">{body}</g>'
    scale = SIDE / max(width, height)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{width * scale}" height="{height * scale}">{body}</svg>'
    )
    return _squared(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))))


def _from_files(folder: Path, names: _Names) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for path in sorted(folder.iterdir()):
        index = names.index.get(codepoints(path.stem))
        if index is not None:
            with Image.open(path) as image:
                yield index, _squared(image)


def _squared(image: Image.Image) -> NDArray[np.uint8]:
    """Fits an image into the middle of a transparent square; (4, 128, 128)."""
    image = image.convert("RGBA")
    ratio = SIDE / max(image.size)
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    resized = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(resized, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(square).transpose(2, 0, 1).copy()
