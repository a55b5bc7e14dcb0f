"""The catalogue job: its own suite against this checkout's server and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.timeout(900)
def test_the_jobs_suite_passes_against_the_real_server_and_database(run_suite: Callable[[str], None]) -> None:
    run_suite("clients/catalogue")
