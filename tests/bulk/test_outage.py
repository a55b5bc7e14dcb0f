"""Waiting for what is away: until it is back, until patience ends, or until the job is to end."""

from __future__ import annotations

import pytest

from clipsrv.bulk.errors import AwayError, GivenUpError, OutputError
from clipsrv.bulk.outage import Outage


class Server:
    """Away for so many attempts."""

    def __init__(self, away: int) -> None:
        self.away, self.asked = away, 0

    def ask(self) -> str:
        self.asked += 1
        if self.asked <= self.away:
            raise AwayError("no answer")
        return "row"


def test_it_is_asked_again_until_it_is_back_and_every_wait_is_told() -> None:
    told, server = list[str](), Server(away=2)
    assert Outage(60, told.append, lambda: False).outlast("Qdrant", server.ask) == "row"
    assert told == [
        "Qdrant is away (no answer); trying again in 0.25 s.",
        "Qdrant is away (no answer); trying again in 0.5 s.",
    ]


def test_without_patience_it_is_asked_once() -> None:
    server = Server(away=9)
    with pytest.raises(OutputError, match=r"^The database stayed away: no answer\.$"):
        Outage(0, lambda message: None, lambda: False).outlast("The database", server.ask)
    assert server.asked == 1


def test_a_job_that_is_to_end_waits_no_longer_but_takes_what_is_there() -> None:
    outage, server = Outage(600, lambda message: None, lambda: True), Server(away=1)
    with pytest.raises(GivenUpError, match="goes on from here"):
        outage.outlast("The database", server.ask)
    assert server.asked == 1
    assert outage.outlast("The database", server.ask) == "row"
