"""Callers take turns, and within a caller its requests: a crowd of one does not hold up the others."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsrv.serving.fairness import Turns


def drain(turns: Turns[str]) -> str:
    return " ".join(turns.take() for _ in range(len(turns)))


def test_callers_take_turns_and_keep_the_order_of_their_own() -> None:
    turns: Turns[str] = Turns()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        turns.add(item, caller=item[0])
    assert drain(turns) == "a1 b1 c1 a2 c2 a3"


def test_requests_of_one_caller_share_its_turns() -> None:
    turns: Turns[str] = Turns()
    for item in ("ax1", "ax2", "ay1", "ay2", "b1", "b2", "b3"):
        turns.add(item, caller=item[0], request=item[1])
    assert [turns.take() for _ in range(4)] == ["ax1", "b1", "ay1", "b2"]


def test_the_turn_goes_on_where_it_was_left_when_more_arrives() -> None:
    turns: Turns[str] = Turns()
    for item in ("a1", "a2", "b1"):
        turns.add(item, caller=item[0])
    assert turns.take() == "a1"
    turns.add("a3", caller="a")
    turns.add("c1", caller="c")
    assert drain(turns) == "b1 a2 c1 a3"


def test_nothing_waits_in_the_beginning_and_after_clearing() -> None:
    turns: Turns[str] = Turns()
    assert not turns
    turns.add("a")
    assert turns
    assert list(turns) == ["a"]
    turns.clear()
    with pytest.raises(LookupError):
        turns.take()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=60))
def test_everything_comes_out_once_in_the_order_of_its_request_and_nobody_waits_two_rounds(
    arrivals: list[tuple[int, int]],
) -> None:
    turns: Turns[tuple[int, int, int]] = Turns()
    for number, (caller, request) in enumerate(arrivals):
        turns.add((caller, request, number), caller, request)
    assert len(turns) == len(arrivals)
    taken = [turns.take() for _ in arrivals]
    assert sorted(number for _, _, number in taken) == list(range(len(arrivals)))
    by_request: dict[tuple[int, int], list[int]] = defaultdict(list)
    for caller, request, number in taken:
        by_request[caller, request].append(number)
    assert all(numbers == sorted(numbers) for numbers in by_request.values())
    callers = [caller for caller, _, _ in taken]
    for place, caller in enumerate(callers):
        if caller in callers[place + 1 :]:
            between = callers[place + 1 : callers.index(caller, place + 1)]
            assert len(between) == len(set(between)), "somebody had two turns in one round"
