"""Emoji and what people call them, by language: labels, short names and keywords.

Must know nothing of images, of the model or of how phrases are drawn (phrases.py).
"""

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENGLISH, JAPANESE = "en", "ja"
LANGUAGES = (ENGLISH, JAPANESE)
SHORTCODE_SETS = {
    ENGLISH: ("cldr", "emojibase", "github", "iamcal", "joypixels"),
    JAPANESE: ("cldr-native", "emojibase-native"),
}
#: How "flag: Japan" is said in one breath, and what else the Japanese call a flag.
TURNED = {ENGLISH: ("{1} {0}",), JAPANESE: ("{1}の{0}",)}
FLAG, TURNED_FLAG = "旗", "{1}の国旗"


@dataclass(frozen=True)
class Words:
    """What one language calls an emoji. `keywords` may be shared with other emoji, `names` seldom are."""

    label: str
    names: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (self.label, *self.names, *self.keywords)


@dataclass(frozen=True)
class Emoji:
    """One emoji without skin tone, and its words in each of LANGUAGES. `kind` is Unicode's: flags, food & drink."""

    key: str
    char: str
    words: Mapping[str, Words]
    kind: str = ""

    @property
    def label(self) -> str:
        """The English name."""
        return self.words[ENGLISH].label


def codepoints(text: str) -> str:
    """The key of an emoji: hexadecimal code points in lower case joined by '-', variation selectors left out."""
    return "-".join(point for point in text.lower().split("-") if point != "fe0f")


def plain(text: str) -> str:
    """A name as a person would type it: lower case, '_' and '-' and ':' as spaces, curly quotes straight."""
    text = (
        unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'").replace("\u201c", "").replace("\u201d", "")
    )
    return re.sub(r"\s+", " ", re.sub(r"[_:\-]", " ", text)).strip()


def load_emoji(modules: Path) -> list[Emoji]:
    """All emoji of Unicode's recommended set without skin tones, in emojibase's order."""
    further: dict[str, dict[str, list[str]]] = {language: defaultdict(list) for language in LANGUAGES}
    for char, words in _read(modules / "emojilib" / "dist" / "emoji-en-US.json").items():
        further[ENGLISH][_key_of(char)] += words
    for entry in _read(modules / "emojibase-data" / "en-gb" / "data.json"):
        further[ENGLISH][codepoints(entry["hexcode"])] += [entry["label"], *entry.get("tags", ())]
    groups = _read(modules / "emojibase-data" / ENGLISH / "messages.json")["groups"]
    kinds = {group["order"]: group["message"] for group in groups}
    found: dict[str, dict[str, Words]] = defaultdict(dict)
    chars = {}
    for language in LANGUAGES:
        data = modules / "emojibase-data" / language
        shortcodes: dict[str, list[str]] = defaultdict(list)
        for name in SHORTCODE_SETS[language]:
            for hexcode, codes in _read(data / "shortcodes" / f"{name}.json").items():
                shortcodes[codepoints(hexcode)] += [codes] if isinstance(codes, str) else codes
        for entry in _read(data / "data.json"):
            if "group" in entry:
                key = codepoints(entry["hexcode"])
                chars[key] = entry["emoji"], kinds[entry["group"]]
                tags = [*entry.get("tags", ()), *further[language][key]]
                found[key][language] = words_of(language, entry["label"], shortcodes[key], tags)
    return [Emoji(key, char, found[key], kind) for key, (char, kind) in chars.items()]


def words_of(language: str, label: str, names: Iterable[str], keywords: Iterable[str]) -> Words:
    """Plain words, each of them once. Of "flag: Japan" the turn is a name and the parts are keywords."""
    whole = plain(label)
    parts = label.split(": ", 1) if ": " in label else []
    turns = [*TURNED[language], *([TURNED_FLAG] if FLAG in parts else [])] if parts else []
    short = _unique(map(plain, [*(turn.format(*parts) for turn in turns), *names]), {whole})
    return Words(whole, short, _unique(map(plain, [*keywords, *parts]), {whole, *short}))


def _unique(phrases: Iterable[str], known: set[str]) -> tuple[str, ...]:
    return tuple(phrase for phrase in dict.fromkeys(phrases) if phrase and phrase not in known)


def _key_of(char: str) -> str:
    return codepoints("-".join(f"{ord(point):x}" for point in char))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
