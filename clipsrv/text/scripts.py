"""In which scripts a text is written, as far as that shows that a model cannot read it. Knows no tokenizer.

Only what is certain is said: many languages share the Latin letters, so a text in them may be in any.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

#: Where the blocks of Unicode change from one script to another. OTHER is what lies between, and Greek: its letters
#: are symbols elsewhere.
OTHER = ""
_BLOCKS = (
    (0x0400, "Cyrillic"),
    (0x0530, "Armenian"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0700, OTHER),
    (0x0750, "Arabic"),
    (0x0780, OTHER),
    (0x08A0, "Arabic"),
    (0x0900, "Indic"),
    (0x0E00, "Thai"),
    (0x0E80, OTHER),
    (0x10A0, "Georgian"),
    (0x1100, "Hangul"),
    (0x1200, OTHER),
    (0x2E80, "Han"),
    (0x3040, "Kana"),
    (0x3100, OTHER),
    (0x3130, "Hangul"),
    (0x3190, OTHER),
    (0x31F0, "Kana"),
    (0x3200, OTHER),
    (0x3400, "Han"),
    (0xA000, OTHER),
    (0xAC00, "Hangul"),
    (0xD7B0, OTHER),
    (0xF900, "Han"),
    (0xFB00, OTHER),
    (0xFB50, "Arabic"),
    (0xFE00, OTHER),
    (0xFF66, "Kana"),
    (0xFFA0, OTHER),
    (0x20000, "Han"),
    (0x3FFFF, OTHER),
)
_STARTS = [start for start, _ in _BLOCKS]
#: The scripts of languages whose models are known, beside Latin letters, which are read by all of them.
_SCRIPTS_OF = {"en": (), "ja": ("Han", "Kana"), "zh": ("Han",)}
#: Of letters that a model cannot read, more than its context holds.
_CHARACTERS = 256


def has_unknown_script(text: str, languages: Sequence[str]) -> bool:
    """Whether all letters of `text` are of scripts in which none of `languages` (en, ja, zh) is written.

    Never of Latin letters, of a text without letters, or of letters that some other model might read: one such letter
    and it is False. False for languages that are not known here, `many` among them, and for none.
    """
    if text.isascii() or not languages or not set(languages) <= set(_SCRIPTS_OF):
        return False
    known = {script for language in languages for script in _SCRIPTS_OF[language]}
    letters = [ord(one) for one in text[:_CHARACTERS] if one.isalpha()]
    return bool(letters) and all(script not in known and script != OTHER for script in map(_script, letters))


def _script(code: int) -> str:
    place = bisect_right(_STARTS, code)
    return _BLOCKS[place - 1][1] if place else OTHER
