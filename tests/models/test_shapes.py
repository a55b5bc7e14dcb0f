"""Which models a machine is up to, told from their architectures alone."""

from __future__ import annotations

import pytest

from clipsrv.models.known import CHOICES, KNOWN, suited
from clipsrv.models.shapes import SHAPES, fits, memory_to_convert


def test_every_model_among_the_choices_is_of_a_shape_that_is_known() -> None:
    assert {KNOWN[name].shape for names in CHOICES.values() for name in names} <= set(SHAPES)
    assert {*SHAPES} <= {known.shape for known in KNOWN.values()}


def test_a_conversion_of_150_million_parameters_takes_three_gigabytes() -> None:
    assert memory_to_convert(600_000_000) == 3_000_000_000


@pytest.mark.parametrize(
    ("shape", "gigabytes", "on_cpu", "fit"),
    [
        ("b-32", 4, True, True),
        ("b-32", 2, True, False),
        ("siglip2-b-16-256", 8, True, True),
        ("siglip2-b-16-256", 4, False, False),
        ("siglip2-so400m-14-384", 64, True, False),
        ("siglip2-so400m-14-384", 64, False, True),
        ("siglip2-so400m-14-384", 16, False, False),
    ],
)
def test_a_shape_fits_a_machine_by_its_memory_and_on_a_cpu_by_its_speed(
    shape: str, gigabytes: int, on_cpu: bool, fit: bool
) -> None:
    assert fits(SHAPES[shape], gigabytes * 10**9, on_cpu=on_cpu) == fit


def test_the_first_choice_that_fits_is_taken() -> None:
    assert suited("quality", 64 * 10**9, on_cpu=False) == "siglip2-so400m-14-384"
    assert suited("quality", 64 * 10**9, on_cpu=True) == "siglip2-b-16-256"
    assert suited("quality", 10**9, on_cpu=True) is None
