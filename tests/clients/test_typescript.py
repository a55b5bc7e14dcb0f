"""The TypeScript client: its own suite against this checkout's server, and the error codes it knows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from clipsrv import errors
from clipsrv.server.wire import errors as server_errors

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(900)
def test_the_clients_suite_passes_against_the_real_server(run_suite: Callable[..., None]) -> None:
    run_suite("clients/typescript")


def test_the_client_knows_every_error_code_of_the_server() -> None:
    source = (ROOT / "clients/typescript/src/errors.ts").read_text(encoding="utf-8")
    listed = re.search(r"ERROR_CODES = \[(.*?)\]", source, re.DOTALL)
    assert listed is not None
    known = set(re.findall(r"'(\w+)'", listed[1]))
    assert _request_codes() - known == set()


def _request_codes() -> set[str]:
    """Codes of every failure that can reach a client; StartError ends the process before there is one."""
    codes, waiting = {code for code, _ in server_errors._HTTP_ERRORS.values()}, [errors.ClipsrvError]
    while waiting:
        kind = waiting.pop()
        if not issubclass(kind, errors.StartError):
            codes.add(kind.code)
            waiting += kind.__subclasses__()
    return codes
