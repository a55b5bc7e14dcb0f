"""The exception tree: each has a code of its own kind, and the drawing in the docstring is the tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

from clipsrv import errors
from clipsrv.errors import BadImage, BadImagesError, ClipsrvError, EmptyImageError, OverloadedError, StartError


def family(
    kind: type[ClipsrvError] = ClipsrvError, modules: Sequence[str] = (errors.__name__,)
) -> Iterator[type[ClipsrvError]]:
    """`kind` and all below it that these modules define."""
    if kind.__module__ in modules:
        yield kind
        for child in kind.__subclasses__():
            yield from family(child, modules)


KINDS = tuple(family())


@pytest.mark.parametrize("kind", KINDS)
def test_every_code_is_a_stable_word(kind: type[ClipsrvError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", kind.code)


def test_the_drawing_names_every_class_once_and_no_other() -> None:
    assert errors.__doc__ is not None
    assert sorted(re.findall(r"\w+Error\b", errors.__doc__)) == sorted(kind.__name__ for kind in KINDS)


def test_exit_statuses_tell_the_kinds_of_start_errors_apart() -> None:
    statuses = {kind: kind.exit_status for kind in StartError.__subclasses__() if kind in KINDS}
    assert len(set(statuses.values())) == len(statuses) == 4
    assert 0 not in statuses.values()


def test_details_are_kept_for_programs() -> None:
    error = ClipsrvError("Too much.", limit=5)
    assert (error.message, str(error), error.details) == ("Too much.", "Too much.", {"limit": 5})


def test_one_bad_image_speaks_for_itself_and_several_are_counted() -> None:
    one, two = BadImage(3, EmptyImageError("Empty.")), BadImage(5, EmptyImageError("Empty too."))
    assert BadImagesError([one]).message == "Empty."
    assert BadImagesError([one, two]).message == "2 images cannot be used."
    assert BadImagesError([one, two]).bad == (one, two)


def test_overload_knows_when_to_come_back() -> None:
    assert OverloadedError("Full.", retry_after=7).retry_after == 7
