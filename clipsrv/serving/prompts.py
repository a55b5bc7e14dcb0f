"""A text as it is asked for: alone, or as a label in a template."""

from __future__ import annotations

from typing import NamedTuple


class Prompt(NamedTuple):
    """A `text` for the model, and what of it is the caller's own: another template makes the same text of another
    `label`, and only the label says in which script the caller writes."""

    text: str
    label: str
