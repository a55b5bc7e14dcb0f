"""What happens often is said at once, and then once an hour with how often it was."""

from __future__ import annotations

from clipsrv.serving.reminder import Reminder


def test_the_first_is_told_at_once_and_what_follows_once_an_hour() -> None:
    now = [100.0]
    reminder = Reminder(clock=lambda: now[0])
    told = []
    for seconds in (0, 1, 1, 3597, 1, 1, 3599, 1, 7200):
        now[0] += seconds
        told.append(reminder.count())
    assert told == [1, 0, 0, 0, 4, 0, 2, 0, 2]
