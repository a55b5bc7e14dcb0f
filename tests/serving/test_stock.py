"""Models that come, go and change while they are served."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from clipsrv.errors import (
    DeadlineExceededError,
    DeviceError,
    ModelCorruptError,
    ModelNotFoundError,
    ModelTooLargeError,
    ModelUnavailableError,
    OverloadedError,
    ShuttingDownError,
    StartError,
)
from clipsrv.models.model import Model
from clipsrv.serving import history, keeper
from clipsrv.serving.embedder import Embedder
from clipsrv.settings import ServingSettings
from tests.support.faulty import HangingEncoder
from tests.support.library import Given
from tests.support.model import make_model
from tests.support.photos import cuttings
from tests.support.serving import eventually

IMAGES = cuttings(4)
SETTINGS = ServingSettings(max_batch_size=4, max_queue=16, max_queue_per_caller=16)


@pytest.fixture(autouse=True)
def in_quick_succession(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper looks often, and what failed is tried again soon."""
    monkeypatch.setattr(keeper, "_LOOK", 0.01)
    monkeypatch.setattr(keeper, "_LEAST", 0.01)
    monkeypatch.setattr(history, "TRY_AGAIN_AFTER", 0.05)


class Shop:
    """Makes small models, counts them by name, and waits or fails where it is told to."""

    def __init__(self, others: tuple[str, ...] = ("b", "c")) -> None:
        self.given = Given(self.make, ["a"], others)
        self.made = Counter[str]()
        self.problems: dict[str, StartError] = {}
        self.gates: dict[str, threading.Event] = {}

    def make(self, name: str) -> Model:
        self.made[name] += 1
        if name in self.gates:
            self.gates[name].wait(60)
        if name in self.problems:
            raise self.problems[name]
        model = make_model()
        return replace(model, manifest=replace(model.manifest, name=f"{name}{self.made[name]}"))

    @asynccontextmanager
    async def serving(self, **settings: object) -> AsyncIterator[Embedder]:
        embedder = Embedder(self.given, replace(SETTINGS, **settings))  # type: ignore[arg-type]
        try:
            await embedder.start()
            yield embedder
        finally:
            for gate in self.gates.values():
                gate.set()
            await embedder.close()


async def ask(embedder: Embedder, model: str | None = None) -> str:
    """Which model, of all that were made, gave the vector."""
    return (await embedder.embed_images(IMAGES[:1], model=model)).model.manifest.name


def answers(embedder: Embedder, made: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return await ask(embedder) == made

    return look


# --- going ---


async def test_a_model_that_nobody_asks_for_is_unloaded_and_loaded_again_when_it_is_asked_for() -> None:
    shop = Shop()
    async with shop.serving(unload_after=0.05) as embedder:
        assert await ask(embedder, "b") == "b1"
        await eventually(lambda: embedder.stock.states() == {"a": "unloaded", "b": "unloaded", "c": "unloaded"})
        assert (embedder.status, embedder.fault, embedder.model) == ("healthy", None, None)
        assert await ask(embedder) == "a2"
        assert await ask(embedder, "b") == "b2"


async def test_a_model_that_is_served_no_more_gives_its_memory_back_and_may_come_again() -> None:
    shop = Shop()
    async with shop.serving() as embedder:
        assert await ask(embedder, "b") == "b1"
        shop.given.others.remove("b")
        await eventually(lambda: not embedder.stock.shelf.has("b"))
        assert await ask(embedder) == "a1"
        shop.given.others.append("b")
        assert await ask(embedder, "b") == "b2"


async def test_a_model_in_use_is_not_unloaded_however_long_it_takes() -> None:
    gate, shop = HangingEncoder(), Shop()
    shop.given._make = lambda name: make_model(gate if name == "b" else None)
    async with shop.serving(unload_after=0.02) as embedder:
        await embedder.embed_images(IMAGES[:1], model="b")
        gate.shut()
        asking = asyncio.create_task(embedder.embed_images(IMAGES, model="b"))
        await asyncio.to_thread(gate.entered.wait, 30)
        await asyncio.sleep(0.1)
        assert not asking.done()
        gate.go_on.set()
        assert len((await asking).vectors) == 4


async def test_with_room_for_one_two_models_in_turn_are_all_answered_by_the_one_they_named() -> None:
    shop = Shop()
    async with shop.serving(max_loaded=1) as embedder:
        names = ["a", "b"] * 6
        answers = await asyncio.gather(*(ask(embedder, name) for name in names))
        assert [answer[0] for answer in answers] == names
        assert len(list(embedder.stock.shelf)) == 1
        for name in names:
            assert (await ask(embedder, name))[0] == name
        assert sorted(embedder.stock.states().values()) == ["healthy", "unloaded", "unloaded"]


# --- changing ---


async def test_a_model_that_has_changed_is_loaded_anew_once_it_has_settled() -> None:
    shop = Shop()
    shop.given.versions["a"] = 1
    async with shop.serving() as embedder:
        assert await ask(embedder) == "a1"
        shop.given.versions["a"] = 2
        await eventually(answers(embedder, "a2"))
        await eventually(lambda: len(list(embedder.stock.shelf)) == 1)
        assert shop.made["a"] == 2


async def test_a_model_that_is_still_being_copied_is_left_alone() -> None:
    shop = Shop()
    look = keeper.Keeper.look
    async with shop.serving() as embedder:
        embedder.stock._keeping.cancel()  # type: ignore[union-attr]
        for version in range(5):
            shop.given.versions["a"] = version
            await look(embedder.stock._keeper)
        assert shop.made["a"] == 1
        await look(embedder.stock._keeper)
        assert shop.made["a"] == 2
        await look(embedder.stock._keeper)
        assert shop.made["a"] == 2


async def test_a_change_that_cannot_be_loaded_leaves_the_old_model_and_is_not_tried_over_and_over() -> None:
    shop = Shop()
    shop.given.versions["a"] = 1
    async with shop.serving() as embedder:
        shop.problems["a"] = ModelCorruptError("half of it")
        shop.given.versions["a"] = 2
        await eventually(lambda: shop.made["a"] == 2)
        await asyncio.sleep(0.2)
        assert shop.made["a"] == 2
        assert (await ask(embedder), embedder.status) == ("a1", "healthy")
        shop.problems.clear()
        shop.given.versions["a"] = 3
        await eventually(answers(embedder, "a3"))


async def test_a_model_whose_files_were_written_over_is_not_served_on_when_it_cannot_be_loaded_anew() -> None:
    shop = Shop()
    shop.given.versions["a"] = 1
    async with shop.serving() as embedder:
        shop.problems["a"], shop.given.written_over = ModelCorruptError("garbage"), {"a"}
        shop.given.versions["a"] = 2
        await eventually(lambda: embedder.fault == "loading")
        with pytest.raises(ModelUnavailableError):
            await ask(embedder)
        shop.problems.clear()
        shop.given.versions["a"] = 3
        await eventually(lambda: embedder.status == "healthy")


async def test_a_model_whose_folder_is_gone_is_served_on_while_it_is_loaded() -> None:
    shop = Shop()
    shop.given.versions["a"] = 1
    async with shop.serving() as embedder:
        del shop.given.versions["a"]
        await asyncio.sleep(0.1)
        assert (await ask(embedder), shop.made["a"]) == ("a1", 1)


# --- failing ---


@pytest.mark.parametrize("name", ["a", "b"])
async def test_what_ends_the_start_is_left_to_its_last_word(name: str, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    shop.given = Given(shop.make, ["a", "b"])
    shop.problems[name] = ModelCorruptError("damaged")
    with pytest.raises(ModelCorruptError, match="damaged"):
        async with shop.serving():
            raise AssertionError
    assert "damaged" not in caplog.text


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (ModelCorruptError("/secret/path"), "damaged or incomplete"),
        (ModelTooLargeError("/secret/path"), "not enough memory"),
        (ModelNotFoundError("/secret/path"), "its folder is gone"),
        (DeviceError("/secret/path"), "device or precision"),
    ],
)
async def test_a_model_that_cannot_be_loaded_says_why_without_what_the_log_tells(
    problem: StartError, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop()
    shop.problems["b"] = problem
    async with shop.serving() as embedder:
        with pytest.raises(ModelUnavailableError, match=reason) as caught:
            await ask(embedder, "b")
        assert "secret" not in caught.value.message
        assert "b cannot be loaded: /secret/path" in caplog.text
        assert await ask(embedder) == "a1"


async def test_a_hundred_callers_of_a_model_that_never_loads_have_it_tried_once_and_put_nobody_else_away() -> None:
    shop = Shop()
    shop.problems["b"] = ModelCorruptError("never")
    async with shop.serving(max_loaded=1, max_queue=100, max_queue_per_caller=100) as embedder:
        outcomes = await asyncio.gather(*(ask(embedder, "b") for _ in range(50)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ModelUnavailableError}
        tried = shop.made["b"]
        assert await ask(embedder) == "a2"
        history_of = embedder.stock._history
        history_of.failed("b", None, ModelCorruptError("never"))  # just now, however slow this machine is
        outcomes = await asyncio.gather(*(ask(embedder, "b") for _ in range(50)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ModelUnavailableError}
        assert shop.made["b"] == tried == 1
        assert await ask(embedder) == "a2"


async def test_a_default_model_that_cannot_be_loaded_again_is_a_fault_and_is_tried_until_it_can() -> None:
    shop = Shop()
    async with shop.serving() as embedder:
        shop.problems["a"] = ModelCorruptError("a bad disk")
        await embedder.stock.shelf.evict("a")
        with pytest.raises(ModelUnavailableError):
            await ask(embedder)
        assert (embedder.status, embedder.fault) == ("unhealthy", "loading")
        await eventually(lambda: shop.made["a"] > 3)
        shop.problems.clear()
        await eventually(lambda: embedder.status == "healthy")
        assert embedder.engine is not None


async def test_the_keeper_goes_on_after_a_look_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    shop.given.versions["a"] = 1

    def refresh() -> None:
        shop.given.refresh = lambda: None  # type: ignore[method-assign]
        raise OSError("the disk is away")

    async with shop.serving() as embedder:
        shop.given.refresh = refresh  # type: ignore[method-assign]
        await eventually(lambda: "could not be looked after" in caplog.text)
        shop.given.versions["a"] = 2
        await eventually(answers(embedder, "a2"))


# --- waiting ---


async def test_who_waits_for_a_model_leaves_half_of_the_slots_to_others() -> None:
    shop = Shop()
    shop.gates["b"] = threading.Event()
    async with shop.serving() as embedder:
        waiting = [asyncio.create_task(embedder.embed_images(IMAGES, model="b")) for _ in range(3)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [type(task.exception()) for task in waiting if task.done()] == [OverloadedError]
        assert embedder.workshop.slots.in_use == 8
        assert len((await embedder.embed_images(IMAGES * 2)).vectors) == 8
        shop.gates["b"].set()
        assert [len((await task).vectors) for task in waiting if not task.done() or not task.exception()] == [4, 4]
        assert embedder.workshop.slots.in_use == 0
        assert len((await embedder.embed_images(IMAGES * 4, model="b")).vectors) == 16


async def test_past_the_deadline_who_waits_for_a_model_is_told_that_it_is_being_loaded() -> None:
    shop = Shop()
    shop.gates["b"] = threading.Event()
    async with shop.serving(deadline=0.1) as embedder:
        with pytest.raises(DeadlineExceededError, match="b is still being loaded"):
            await ask(embedder, "b")
        assert embedder.workshop.slots.in_use == 0


async def test_stopping_fails_who_waits_for_a_model_at_once() -> None:
    shop = Shop()
    shop.gates["b"] = threading.Event()
    async with shop.serving() as embedder:
        waiting = [asyncio.create_task(ask(embedder, name)) for name in ("b", "b", "c")]
        await eventually(lambda: shop.made["b"] == 1)
        embedder.stop()
        outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        assert {type(outcome) for outcome in outcomes} == {ShuttingDownError}


async def test_all_models_named_are_loaded_at_the_start_and_the_first_is_served_before_the_others() -> None:
    shop = Shop(())
    shop.given._offer = replace(shop.given._offer, named=("a", "b"))
    shop.gates["b"] = threading.Event()
    embedder = Embedder(shop.given, SETTINGS)
    starting = asyncio.create_task(embedder.start())
    await eventually(lambda: shop.made["b"] == 1)
    assert (embedder.status, embedder.stock.states()) == ("healthy", {"a": "healthy", "b": "loading"})
    assert await ask(embedder) == "a1"
    shop.gates["b"].set()
    await starting
    assert embedder.stock.states() == {"a": "healthy", "b": "healthy"}
    await embedder.close()


async def test_a_model_named_that_cannot_be_loaded_ends_the_start() -> None:
    shop = Shop(())
    shop.given._offer = replace(shop.given._offer, named=("a", "b"))
    shop.problems["b"] = DeviceError("no int8 in b")
    with pytest.raises(DeviceError, match="no int8 in b"):
        async with shop.serving():
            pass


async def test_inference_that_hangs_is_a_fault_of_a_model_that_is_not_loaded_too() -> None:
    gate, shop = HangingEncoder(), Shop()
    shop.given._make = lambda name: make_model(gate if name == "b" else None)
    async with shop.serving(deadline=0.2) as embedder:
        await embedder.embed_images(IMAGES[:1], model="b")
        gate.shut()
        asking = asyncio.create_task(embedder.embed_images(IMAGES, model="b"))
        await eventually(lambda: embedder.stock.fault_of("c") == "hanging")
        gate.go_on.set()
        await asyncio.gather(asking, return_exceptions=True)


async def test_vectors_are_the_same_whatever_was_loaded_and_unloaded_in_between() -> None:
    shop = Shop()
    async with shop.serving(max_loaded=1) as embedder:
        embed = partial(embedder.embed_images, IMAGES)
        first = np.array((await embed()).vectors)
        for name in "bca":
            assert np.array_equal(np.array((await embed(model=name)).vectors), first)
