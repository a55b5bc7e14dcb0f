"""More than the server can do: refused early and with a time to come back, shared fairly, and over when it is over."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import numpy as np

from tests.support.faulty import HangingEncoder, SlowEncoder, SteppedEncoder
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
    encoder = HangingEncoder()
    async with serving(make_model(encoder), max_queue=2, max_queue_per_caller=2, max_images=1) as served:
        encoder.shut()
        busy = [asyncio.create_task(served.post("/embed", GOOD)) for _ in range(2)]
        await eventually(lambda: served.embedder.workshop.slots.in_use == 2)
        reply = await served.send(request("POST", "/embed", None, IMAGE, "Content-Length: 5000000"))
        assert (reply.status, reply.code) == (429, "overloaded")
        assert 1 <= int(reply.headers["retry-after"]) <= 30
        assert not any(one.done() for one in busy)
        encoder.go_on.set()
        assert [(await one).status for one in busy] == [200, 200]
        await assert_as_before(served)
        assert 'queue_rejected_total{reason="full"} 1.0' in (await served.get("/metrics")).body.decode()


async def test_a_server_that_has_just_begun_tells_a_time_by_its_pace_and_not_by_its_age() -> None:
    async with serving(make_model(SlowEncoder(0.02)), max_queue=40, max_batch_size=4, max_images=1) as served:
        replies = await asyncio.gather(*(served.post("/embed", GOOD) for _ in range(120)))
        told = {int(reply.headers["retry-after"]) for reply in replies if reply.status == 429}
        assert told
        assert max(told) < 15, "40 images at 200 a second; 30 is what was told whatever the pace"


async def test_a_thousand_uploads_at_once_are_all_answered_200_with_their_vector_or_429() -> None:
    async def one(served: Served, blob: bytes) -> tuple[int, str]:
        reply = await served.send(request("POST", "/embed", blob, IMAGE), seconds=60)
        if reply.status != 200:
            return reply.status, reply.code
        return 200, "right" if np.allclose(reply.json["embedding"], truths[blob], atol=1e-6) else "wrong"

    def drawings() -> dict[bytes, Any]:
        return {blob: truth(blob) for blob in (drawn(seed) for seed in range(20))}

    truths = await asyncio.to_thread(drawings)
    blobs = list(truths)
    async with serving(make_model(SlowEncoder(0.02)), max_queue=64) as served:
        uploads = []
        for index in range(1000):
            uploads.append(asyncio.create_task(one(served, blobs[index % 20])))
            if index % 50 == 49:
                await asyncio.sleep(0)  # to make a thousand in one go keeps the loop in debug mode
        counts = Counter(await asyncio.gather(*uploads))
        await assert_as_before(served)
    assert set(counts) == {(200, "right"), (429, "overloaded")}


async def test_announced_bytes_that_never_come_shut_nobody_out() -> None:
    async with serving(max_bytes_in_flight=2_000_000, max_body_bytes=1_500_000) as served:
        stalled = [await served.connect() for _ in range(50)]
        for _, writer in stalled:
            writer.write(request("POST", "/embed", b"x", IMAGE, "Content-Length: 1400000"))
        await eventually(lambda: served.bytes_held == 50)
        assert (await served.post("/embed", GOOD)).status == 200
        for _, writer in stalled:
            writer.close()
        await eventually(lambda: served.bytes_held == 0)
        await assert_as_before(served)


async def test_bytes_held_never_pass_the_limit_and_the_rest_is_told_429() -> None:
    async with serving(max_bytes_in_flight=3_000_000, max_body_bytes=1_500_000) as served:
        unfinished = request("POST", "/embed", b"x" * 1_000_000, IMAGE, "Content-Length: 1400000")
        held = [await served.connect() for _ in range(2)]
        for _, writer in held:
            writer.write(unfinished)
        await eventually(lambda: served.bytes_held == 2_000_000)
        chunks = b"%x\r\n%b\r\n" % (50_000, bytes(50_000)) * 28
        unannounced = request("POST", "/embed", chunks, IMAGE, "Transfer-Encoding: chunked")
        for body in (unfinished, unannounced, unfinished):
            reply = await served.send(body)
            assert (reply.status, reply.code) == (429, "overloaded")
            await eventually(lambda: served.bytes_held == 2_000_000)
        for _, writer in held:
            writer.close()
        await eventually(lambda: served.bytes_held == 0)
        await assert_as_before(served)


async def test_a_single_image_beside_a_request_of_512_waits_for_two_batches_at_most() -> None:
    encoder = SteppedEncoder()
    async with serving(make_model(encoder), max_images=512, max_queue=1024, max_batch_size=16) as served:
        bulk = asyncio.create_task(served.form(*[part(GOOD, "images")] * 512, path="/embed/batch"))
        await eventually(lambda: sum(encoder.sizes) + served.engine.images.queued == 512)
        single = asyncio.create_task(served.post("/embed", drawn(7)))
        await eventually(lambda: sum(encoder.sizes) + served.engine.images.queued == 513)
        encoder.allow(2)  # the one in work, and the next
        np.testing.assert_allclose((await single).json["embedding"], truth(drawn(7)), atol=1e-6)
        assert not bulk.done()
        encoder.allow(1000)
        assert (await bulk).json["count"] == 512


async def test_a_caller_with_many_requests_gets_no_more_turns_than_one_with_a_single_one() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), api_keys=",".join(KEYS), max_batch_size=2) as served:
        encoder.shut()
        order: list[str] = []

        async def ask(key: str, seed: int) -> None:
            assert (await served.post("/embed", drawn(seed), "image/png", by(key))).status == 200
            order.append(key)

        flood = [asyncio.create_task(ask(KEYS[0], seed)) for seed in range(20)]
        await eventually(lambda: served.embedder.workshop.slots.in_use == 20)
        lone = asyncio.create_task(ask(KEYS[1], 99))
        await eventually(lambda: sum(encoder.sizes) + served.engine.images.queued == 21)
        encoder.go_on.set()
        await asyncio.gather(*flood, lone)
        assert order.index(KEYS[1]) < 6


async def test_a_flooding_caller_leaves_slots_for_others() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), api_keys=",".join(KEYS), max_queue=8, max_images=4) as served:
        encoder.shut()
        flood = [asyncio.create_task(served.post("/embed", GOOD, "image/png", by(KEYS[0]))) for _ in range(12)]
        await eventually(lambda: sum(task.done() for task in flood) == 6)
        lone = asyncio.create_task(served.post("/embed", GOOD, "image/png", by(KEYS[1])))
        await eventually(lambda: served.embedder.workshop.slots.in_use == 7)
        encoder.go_on.set()
        assert (await lone).status == 200
        assert Counter([(await one).status for one in flood]) == {200: 6, 429: 6}


async def test_work_whose_caller_has_gone_is_not_computed() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), max_batch_size=1) as served:
        encoder.shut()
        writers = []
        for _ in range(30):
            _, writer = await served.connect()
            writer.write(OK)
            writers.append(writer)
        await eventually(lambda: served.engine.images.queued == 29)
        for writer in writers:
            writer.transport.abort()
        await eventually(lambda: served.embedder.workshop.slots.in_use == 0)
        encoder.go_on.set()
        await assert_as_before(served)
        assert list(encoder.sizes) == [1, 1], "the one in work, and the one that was asked for afterwards"
        metrics = (await served.get("/metrics")).body.decode()
        assert 'clipsrv_cancelled_total{stage="queue"} 29.0' in metrics
        assert 'clipsrv_cancelled_total{stage="compute"} 1.0' in metrics


async def test_a_deadline_in_the_queue_is_504_and_the_work_is_not_done() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), deadline=2, max_batch_size=1) as served:
        encoder.shut()
        replies = await asyncio.gather(*(served.post("/embed", GOOD) for _ in range(6)))
        assert {(reply.status, reply.code) for reply in replies} == {(504, "deadline_exceeded")}
        encoder.go_on.set()
        await eventually(lambda: served.embedder.status == "healthy")
        await assert_as_before(served)
        assert list(encoder.sizes) == [1, 1], "the one in work, and the one that was asked for afterwards"


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
