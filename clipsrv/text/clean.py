"""What open_clip does to a text before any tokenizer sees it. Its ids are open_clip's only after the same cleaning."""

from __future__ import annotations

import html
import string
from collections.abc import Callable

from clipsrv.errors import ConfigError
from clipsrv.installation import how_to_install

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

Clean = Callable[[str], str]


def cleaning(name: str) -> Clean:
    """The cleaning of that name: `none`, or open_clip's `whitespace` and `canonicalize`.

    Raises ConfigError without the ftfy package, which open_clip's are made with; ValueError for another name.
    """
    if name == "none":
        return str
    try:
        return {"whitespace": _whitespace, "canonicalize": _canonical}[name]()
    except KeyError:
        raise ValueError(f"texts cleaned by {name!r}") from None


def _whitespace() -> Clean:
    """Mojibake repaired, HTML entities resolved, runs of whitespace made one space."""
    try:
        from ftfy import fix_text
    except ImportError:
        raise ConfigError(f"This model's texts are cleaned by ftfy: {how_to_install('open_clip')}") from None

    def clean(text: str) -> str:
        return " ".join(html.unescape(html.unescape(fix_text(text))).split())

    return clean


def _canonical() -> Clean:
    """As `_whitespace`, without punctuation and in small letters."""
    repaired = _whitespace()

    def clean(text: str) -> str:
        bare = repaired(text).replace("_", " ").translate(_NO_PUNCTUATION).lower()
        return " ".join(bare.split())

    return clean
