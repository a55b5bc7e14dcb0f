"""More than the server can do: refused early and with a time to come back, shared fairly, and over when it is over."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from clipsrv.errors import OverloadedError, ShuttingDownError
from clipsrv.serving.admission import Admission
from clipsrv.serving.fairness import Turns
from clipsrv.serving.pool import DecodePool
from tests.support.faulty import HangingEncoder, SlowEncoder
from tests.support.serving import (
    Served,
    assert_as_before,
    drawn,
    eventually,
    make_model,
    part,
    read_reply,
    request,
    serving,
    truth,
)

GOOD = drawn(1)
IMAGE = "Content-Type: image/png"
OK = request("POST", "/embed", GOOD, IMAGE)
KEYS = ("first" * 8, "second" * 8)


def by(key: str) -> str:
    return f"Authorization: Bearer {key}"


async def test_a_full_server_says_429_and_when_to_come_back_before_the_body_is_sent() -> None:
    async with serving(make_model(SlowEncoder(0.5)), max_queue=2, max_queue_per_caller=2, max_images=1) as served:
        busy = [asyncio.create_task(served.post("/embed", GOOD)) for _ in range(2)]
        await eventually(lambda: served.embedder.admission.in_use == 2)
        began = time.monotonic()
        reply = await served.send(request("POST", "/embed", None, IMAGE, "Content-Length: 5000000"))
        assert (reply.status, reply.code) == (429, "overloaded")
        assert 1 <= int(reply.headers["retry-after"]) <= 30
        assert time.monotonic() - began < 0.4
        assert [(await one).status for one in busy] == [200, 200]
        await assert_as_before(served)
        assert 'queue_rejected_total{reason="full"} 1.0' in (await served.get("/metrics")).body.decode()


async def test_a_thousand_uploads_at_once_are_all_answered_200_or_429_and_a_refusal_is_quick() -> None:
    async def one(served: Served, blob: bytes) -> tuple[int, bool]:
        reply = await served.send(request("POST", "/embed", blob, IMAGE), seconds=60)
        right = reply.status != 200 or np.allclose(reply.json["embedding"], truths[blob], atol=1e-6)
        return reply.status, right

    truths = {blob: truth(blob) for blob in (drawn(seed) for seed in range(20))}
    blobs = list(truths)
    async with serving(make_model(SlowEncoder(0.02)), max_queue=64) as served:
        answers = await asyncio.gather(*(one(served, blobs[index % 20]) for index in range(1000)))
        await assert_as_before(served)
    counts = Counter(status for status, _ in answers)
    assert set(counts) == {200, 429}
    assert sum(counts.values()) == 1000
    assert all(right for _, right in answers)


async def test_announced_bytes_that_never_come_shut_nobody_out() -> None:
    async with serving(max_bytes_in_flight=2_000_000, max_body_bytes=1_500_000) as served:
        stalled = [await served.connect() for _ in range(50)]
        for _, writer in stalled:
            writer.write(request("POST", "/embed", b"x", IMAGE, "Content-Length: 1400000"))
        await asyncio.sleep(0.1)
        assert (await served.post("/embed", GOOD)).status == 200
        for _, writer in stalled:
            writer.close()
        await eventually(lambda: served.bytes_held == 0)
        await assert_as_before(served)


async def test_bytes_held_never_pass_the_limit_and_the_rest_is_told_429() -> None:
    async with serving(max_bytes_in_flight=3_000_000, max_body_bytes=1_500_000) as served:
        body = request("POST", "/embed", b"x" * 1_000_000, IMAGE, "Content-Length: 1400000")
        held = [await served.connect() for _ in range(6)]
        peak = 0
        for _, writer in held:
            writer.write(body)
            await writer.drain()
            await asyncio.sleep(0.05)
            peak = max(peak, served.bytes_held)
        assert 2_000_000 <= peak <= 3_000_000
        reply = await read_reply(held[-1][0])
        assert (reply.status, reply.code) == (429, "overloaded")
        for _, writer in held:
            writer.close()
        await eventually(lambda: served.bytes_held == 0)
        await assert_as_before(served)


async def test_a_single_image_beside_a_request_of_512_waits_for_two_batches_at_most() -> None:
    encoder = SlowEncoder(0.05)
    settings: dict[str, Any] = {"max_images": 512, "max_queue": 1024, "max_batch_size": 16}
    async with serving(make_model(encoder), **settings) as served:
        bulk = asyncio.create_task(served.form(*[part(GOOD, "images")] * 512, path="/embed/batch"))
        await eventually(lambda: len(encoder.sizes) >= 2)
        at = len(encoder.sizes)
        single = await served.post("/embed", drawn(7))
        assert len(encoder.sizes) - at <= 4
        assert not bulk.done()
        np.testing.assert_allclose(single.json["embedding"], truth(drawn(7)), atol=1e-6)
        assert (await bulk).json["count"] == 512


async def test_a_caller_with_many_requests_gets_no_more_turns_than_one_with_a_single_one() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), api_keys=",".join(KEYS), max_batch_size=2) as served:
        encoder.go_on.clear()
        order: list[str] = []

        async def ask(key: str, seed: int) -> None:
            assert (await served.post("/embed", drawn(seed), "image/png", by(key))).status == 200
            order.append(key)

        flood = [asyncio.create_task(ask(KEYS[0], seed)) for seed in range(20)]
        await eventually(lambda: served.embedder.admission.in_use == 20)
        lone = asyncio.create_task(ask(KEYS[1], 99))
        await eventually(lambda: served.embedder.admission.in_use == 21)
        await asyncio.sleep(0.2)
        encoder.go_on.set()
        await asyncio.gather(*flood, lone)
        assert order.index(KEYS[1]) < 6


async def test_a_flooding_caller_leaves_slots_for_others() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), api_keys=",".join(KEYS), max_queue=8, max_images=4) as served:
        encoder.go_on.clear()
        flood = [asyncio.create_task(served.post("/embed", GOOD, "image/png", by(KEYS[0]))) for _ in range(12)]
        await eventually(lambda: sum(task.done() for task in flood) == 6)
        lone = asyncio.create_task(served.post("/embed", GOOD, "image/png", by(KEYS[1])))
        await eventually(lambda: served.embedder.admission.in_use == 7)
        encoder.go_on.set()
        assert (await lone).status == 200
        assert Counter([(await one).status for one in flood]) == {200: 6, 429: 6}


async def test_work_whose_caller_has_gone_is_not_computed() -> None:
    encoder = SlowEncoder(0.1)
    async with serving(make_model(encoder), max_batch_size=1) as served:
        writers = []
        for _ in range(30):
            _, writer = await served.connect()
            writer.write(OK)
            writers.append(writer)
        await eventually(lambda: len(encoder.sizes) >= 2)
        for writer in writers:
            writer.transport.abort()
        await eventually(lambda: served.embedder.admission.in_use == 0)
        await asyncio.sleep(0.2)
        assert len(encoder.sizes) < 8
        metrics = (await served.get("/metrics")).body.decode()
        assert 'clipsrv_cancelled_total{stage="queue"} 0.0' not in metrics
        await assert_as_before(served)


async def test_a_deadline_in_the_queue_is_504_and_the_work_is_not_done() -> None:
    encoder = SlowEncoder(0.4)
    async with serving(make_model(encoder), deadline=0.6, max_batch_size=1) as served:
        replies = await asyncio.gather(*(served.post("/embed", GOOD) for _ in range(6)))
        assert Counter(reply.status for reply in replies) == {200: 1, 504: 5}
        assert {reply.code for reply in replies if reply.status == 504} == {"deadline_exceeded"}
        await asyncio.sleep(0.5)
        assert len(encoder.sizes) <= 2
        await assert_as_before(served)


async def test_speed_is_back_as_soon_as_the_storm_is_over() -> None:
    async with serving(make_model(SlowEncoder(0.01)), max_queue=64) as served:
        await asyncio.gather(*(served.post("/embed", GOOD) for _ in range(300)))
        began = time.monotonic()
        await assert_as_before(served)
        assert time.monotonic() - began < 5


async def test_three_thousand_requests_of_every_fate_swap_no_vector() -> None:
    images = [drawn(seed) for seed in range(200)]
    truths = [truth(blob) for blob in images]
    random = np.random.default_rng(5)
    wrong, counts = 0, Counter[str]()

    async def client(served: Served, numbers: list[int]) -> None:
        nonlocal wrong
        reader, writer = await served.connect()
        for number in numbers:
            fate = random.random()
            if fate < 0.1:  # gives up and comes back
                writer.write(request("POST", "/embed", images[number], IMAGE))
                writer.transport.abort()
                reader, writer = await served.connect()
                counts["cut"] += 1
            elif fate < 0.2:
                writer.write(request("POST", "/embed", images[number][:40], IMAGE))
                counts[str((await read_reply(reader)).status)] += 1
            else:
                writer.write(request("POST", "/embed", images[number], IMAGE))
                reply = await read_reply(reader)
                counts[str(reply.status)] += 1
                wrong += not np.allclose(reply.json["embedding"], truths[number], atol=1e-6)
        writer.close()

    async with serving() as served:
        await asyncio.gather(*(client(served, list(random.integers(0, 200, 60))) for _ in range(50)))
        await assert_as_before(served)
    assert wrong == 0
    assert set(counts) == {"cut", "200", "422"}
    assert sum(counts.values()) == 3000


def test_turns_go_round_the_callers_and_within_a_caller_round_its_requests() -> None:
    turns: Turns[str] = Turns()
    for item in ("a1x", "a1y", "a2x", "b1x", "b1y", "b1z"):
        turns.add(item, item[0], item[:2])
    assert len(turns) == 6
    assert [turns.take() for _ in range(6)] == ["a1x", "b1x", "a2x", "b1y", "a1y", "b1z"]
    assert not turns
    with pytest.raises(LookupError):
        turns.take()


def test_one_holder_may_not_have_all_slots() -> None:
    admission = Admission(10, "slots", per_holder=6)
    first = admission.take(6, "greedy")
    with pytest.raises(OverloadedError):
        admission.take(1, "greedy")
    with admission.take(4, "other"), pytest.raises(OverloadedError):
        admission.take(1, "third")
    first.release()
    assert admission.in_use == 0
    assert not admission._held


async def test_decoding_takes_turns_and_a_slot_is_freed_by_its_thread() -> None:
    pool, order = DecodePool(1), list[str]()

    async def one(name: str) -> None:
        def decode() -> None:
            time.sleep(0.01)
            order.append(name)

        await pool.run(decode, name[0], name)

    tasks = [asyncio.create_task(one(f"a{number}")) for number in range(20)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(one("b")))
    await asyncio.sleep(0.02)
    tasks[10].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order.index("b") <= 3
    assert len(order) == 20
    assert pool._free == 2
    assert pool.lost(0) == 0


async def test_a_stopped_pool_fails_what_waits_and_takes_no_more() -> None:
    pool = DecodePool(1)
    tasks = [asyncio.create_task(pool.run(lambda: time.sleep(0.05))) for _ in range(5)]
    await asyncio.sleep(0.01)
    pool.stop()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] is None
    assert all(isinstance(result, ShuttingDownError) for result in results[1:])
    with pytest.raises(ShuttingDownError):
        await pool.run(lambda: None)
