"""What is loaded, by name: once however many ask, kept while lent, and closed exactly once when nobody has it."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsrv.errors import ModelCorruptError, ShuttingDownError
from clipsrv.serving.shelf import Shelf


class Book:
    """Stands on the shelf, and knows when it was closed."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number, self.closed = name, number, 0
        self.may_close = asyncio.Event()
        self.may_close.set()

    async def close(self) -> None:
        await self.may_close.wait()
        self.closed += 1


class Library:
    """Loads books when its gate is open, one at a time; fails on the names told."""

    def __init__(self) -> None:
        self.books: list[Book] = []
        self.begun = Counter[str]()
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken = set[str]()
        self.loading = 0

    async def load(self, name: str) -> Book:
        self.begun[name] += 1
        self.loading += 1
        assert self.loading == 1, "two loads at once"
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if name in self.broken:
                raise ModelCorruptError(f"{name} is broken")
            self.books.append(Book(name, len(self.books)))
            return self.books[-1]
        finally:
            self.loading -= 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def turn(times: int = 10) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


# --- loading ---


async def test_however_many_ask_at_once_it_is_loaded_once_and_lent_to_all() -> None:
    library = Library()
    shelf = Shelf(library.load)
    library.gate.clear()
    asking = [asyncio.create_task(shelf.lease("a")) for _ in range(20)]
    await turn()
    assert shelf.get("a") is None
    library.gate.set()
    loans = await asyncio.gather(*asking)
    assert {loan.thing for loan in loans} == set(library.books) == {shelf.get("a")}
    assert library.begun == {"a": 1}
    for loan in loans:
        loan.give_back()
        loan.give_back()
    assert (await shelf.lease("a")).thing is library.books[0]


async def test_others_are_lent_while_one_loads() -> None:
    library = Library()
    shelf = Shelf(library.load)
    (await shelf.lease("a")).give_back()
    library.gate.clear()
    loading = asyncio.create_task(shelf.lease("b"))
    await turn()
    with await asyncio.wait_for(shelf.lease("a"), 1) as book:
        assert book.name == "a"
    assert not loading.done()
    library.gate.set()
    assert (await loading).thing.name == "b"


async def test_a_load_that_fails_fails_all_who_wait_and_the_next_one_who_asks_has_it_tried_again() -> None:
    library = Library()
    shelf = Shelf(library.load)
    library.broken.add("a")
    outcomes = await asyncio.gather(*(shelf.lease("a") for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ModelCorruptError}
    assert (library.begun["a"], list(shelf)) == (1, [])
    library.broken.clear()
    assert (await shelf.lease("a")).thing.name == "a"


async def test_a_load_goes_on_when_those_who_waited_for_it_go() -> None:
    library = Library()
    shelf = Shelf(library.load)
    library.gate.clear()
    waiting = [asyncio.create_task(shelf.lease("a")) for _ in range(3)]
    await turn()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    library.gate.set()
    assert (await shelf.lease("a")).thing.number == 0
    assert library.begun == {"a": 1}


async def test_a_failure_that_nobody_waits_for_any_more_is_nobodys() -> None:
    library = Library()
    shelf = Shelf(library.load)
    library.gate.clear()
    library.broken.add("a")
    waiting = asyncio.create_task(shelf.lease("a"))
    await turn()
    waiting.cancel()
    library.gate.set()
    await turn()
    assert list(shelf) == []
    gc.collect()  # "Task exception was never retrieved" would be logged, and a warning is an error


async def test_an_error_of_a_load_is_let_go_with_its_last_reader() -> None:
    class Large:
        pass

    async def load(name: str) -> Book:
        large = Large()
        held.append(weakref.ref(large))
        raise ModelCorruptError("broken")

    held: list[weakref.ref[Large]] = []
    shelf = Shelf(load)
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            with suppress(ModelCorruptError):
                await shelf.lease("a")
            await turn()
        assert [one() for one in held] == [None, None]
    finally:
        gc.enable()


# --- putting away ---


async def test_what_is_lent_is_closed_when_the_last_one_gives_it_back() -> None:
    library = Library()
    shelf = Shelf(library.load)
    loans = [await shelf.lease("a"), await shelf.lease("a")]
    evicting = asyncio.create_task(shelf.evict("a"))
    await turn()
    anew = await shelf.lease("a")
    assert anew.thing is not loans[0].thing
    loans[0].give_back()
    await turn()
    assert (library.books[0].closed, evicting.done()) == (0, False)
    loans[1].give_back()
    await evicting
    assert [book.closed for book in library.books] == [1, 0]
    assert list(shelf) == [anew.thing]


async def test_what_is_evicted_while_it_loads_serves_those_who_wait_for_it_and_is_closed() -> None:
    library = Library()
    shelf = Shelf(library.load)
    library.gate.clear()
    waiting = asyncio.create_task(shelf.lease("a"))
    await turn()
    evicting = asyncio.create_task(shelf.evict("a"))
    library.gate.set()
    with await waiting as book:
        await turn()
        assert book.closed == 0
    await evicting
    assert book.closed == 1
    await shelf.evict("never there")


async def test_what_nobody_has_had_for_a_while_is_put_away() -> None:
    library, clock = Library(), Clock()
    shelf = Shelf(library.load, clock=clock)
    for name in "abc":
        (await shelf.lease(name)).give_back()
    kept = await shelf.lease("b")
    clock.now = 50
    (await shelf.lease("c")).give_back()
    clock.now = 60
    await shelf.evict_idle(60)
    assert [book.closed for book in library.books] == [1, 0, 0], "b is lent, c was used ten seconds ago"
    kept.give_back()
    clock.now = 119
    await shelf.evict_idle(60)
    assert [book.name for book in shelf] == ["b"]


async def test_what_cannot_be_closed_does_not_keep_its_place(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(Book):
        async def close(self) -> None:
            raise OSError("it will not go")

    async def load(name: str) -> Book:
        return Stuck(name, 0)

    shelf = Shelf(load, 1)
    (await shelf.lease("a")).give_back()
    await shelf.evict("a")
    assert list(shelf) == []
    assert "a could not be closed" in caplog.text


# --- room ---


async def test_for_one_more_than_there_is_room_the_idle_one_used_longest_ago_goes_first() -> None:
    library, clock = Library(), Clock()
    shelf = Shelf(library.load, 2, clock)
    for name in "aba":
        clock.now += 1
        (await shelf.lease(name)).give_back()
    clock.now += 1
    with await shelf.lease("c"):
        assert sorted(book.name for book in shelf) == ["a", "c"]
    assert [(book.name, book.closed) for book in library.books] == [("a", 0), ("b", 1), ("c", 0)]


async def test_what_is_lent_longest_makes_room_when_all_are_and_then_is_loaded_in_its_turn() -> None:
    library = Library()
    shelf = Shelf(library.load, 1)
    first = await shelf.lease("a")
    other = asyncio.create_task(shelf.lease("b"))
    await turn()
    again = asyncio.create_task(shelf.lease("a"))  # who keeps asking for a does not keep b out
    await turn()
    assert (other.done(), again.done()) == (False, False)
    first.give_back()
    with await other as book:
        assert [one.name for one in shelf] == [book.name] == ["b"]
    assert (await again).thing.number == 2
    assert [book.closed for book in library.books] == [1, 1, 0]


async def test_memory_counts_until_it_is_given_back() -> None:
    library = Library()
    shelf = Shelf(library.load, 1)
    (await shelf.lease("a")).give_back()
    library.books[0].may_close.clear()
    waiting = asyncio.create_task(shelf.lease("b"))
    await turn()
    assert library.begun["b"] == 0, "a is not closed yet"
    library.books[0].may_close.set()
    assert (await waiting).thing.name == "b"


# --- replacing ---


async def test_a_replacement_stands_beside_the_old_one_until_it_is_loaded() -> None:
    library = Library()
    shelf = Shelf(library.load, 1)
    old = await shelf.lease("a")
    library.gate.clear()
    replacing = asyncio.create_task(shelf.replace("a"))
    await turn()
    assert (await shelf.lease("a")).thing is old.thing
    library.gate.set()
    await replacing
    new = await shelf.lease("a")
    assert new.thing is not old.thing
    assert old.thing.closed == 0


async def test_the_old_one_stays_when_its_replacement_does_not_load() -> None:
    library = Library()
    shelf = Shelf(library.load)
    (await shelf.lease("a")).give_back()
    library.broken.add("a")
    with pytest.raises(ModelCorruptError):
        await shelf.replace("a")
    assert shelf.get("a") is library.books[0]
    assert library.books[0].closed == 0


async def test_of_two_replacements_the_later_stays_and_every_other_is_closed() -> None:
    library = Library()
    shelf = Shelf(library.load)
    (await shelf.lease("a")).give_back()
    await asyncio.gather(shelf.replace("a"), shelf.replace("a"))
    await turn()
    assert shelf.get("a") is library.books[2]
    assert [book.closed for book in library.books] == [1, 1, 0]


async def test_who_asks_for_a_replacement_and_goes_has_it_all_the_same() -> None:
    library = Library()
    shelf = Shelf(library.load)
    (await shelf.lease("a")).give_back()
    library.gate.clear()
    replacing = asyncio.create_task(shelf.replace("a"))
    await turn()
    replacing.cancel()
    library.gate.set()
    await turn()
    assert shelf.get("a") is library.books[1]


# --- the end ---


async def test_closing_waits_for_what_is_lent_and_lends_no_more() -> None:
    library = Library()
    shelf = Shelf(library.load)
    loan = await shelf.lease("a")
    (await shelf.lease("b")).give_back()
    closing = asyncio.create_task(shelf.close())
    await turn()
    assert not closing.done()
    for refused in (shelf.lease("a"), shelf.lease("c"), shelf.replace("a")):
        with pytest.raises(ShuttingDownError):
            await refused
    loan.give_back()
    await closing
    assert [book.closed for book in library.books] == [1, 1]
    await shelf.close()


async def test_closing_in_the_middle_of_loads_fails_those_who_wait_and_waits_for_no_load() -> None:
    library = Library()
    shelf = Shelf(library.load)
    library.gate.clear()
    waiting = [asyncio.create_task(shelf.lease(name)) for name in "aab"]
    waiting.append(asyncio.create_task(shelf.lease("never begun")))
    await asyncio.sleep(0)
    await asyncio.wait_for(shelf.close(), 1)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ShuttingDownError}
    assert library.books == []


async def test_who_is_cancelled_as_the_shelf_closes_is_cancelled() -> None:
    library = Library()
    shelf = Shelf(library.load)
    library.gate.clear()
    waiting = asyncio.create_task(shelf.lease("a"))
    await turn()
    waiting.cancel()
    await shelf.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# --- any order of events ---


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([None, 1, 2]))
async def test_in_any_order_of_events_nothing_lent_is_closed_and_all_is_closed_once(
    seed: int, capacity: int | None
) -> None:
    chance, library = random.Random(seed), Library()
    shelf = Shelf(library.load, capacity)

    async def use(name: str) -> None:
        with suppress(ModelCorruptError, ShuttingDownError), await shelf.lease(name) as book:
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
                assert book.closed == 0, "closed while it was lent"

    async def quietly(work: Callable[[str], Awaitable[None]], name: str) -> None:
        with suppress(ModelCorruptError, ShuttingDownError):
            await work(name)

    tasks = []
    for _ in range(chance.randrange(60)):
        name = chance.choice("abc")
        event = chance.randrange(10)
        if event < 5:
            tasks.append(asyncio.create_task(use(name)))
        elif event == 5 and tasks:
            chance.choice(tasks).cancel()
        elif event == 6:
            tasks.append(asyncio.create_task(quietly(shelf.evict, name)))
        elif event == 7:
            tasks.append(asyncio.create_task(quietly(shelf.replace, name)))
        elif event == 8:
            library.broken ^= {name}
        await turn(chance.randrange(4))
        assert capacity is None or sum(not book.closed for book in library.books) <= capacity + 1
    if chance.random() < 0.5:
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    await asyncio.wait_for(shelf.close(), 10)
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [one for one in outcomes if one is not None and not isinstance(one, asyncio.CancelledError)] == []
    assert all(book.closed == 1 for book in library.books)
