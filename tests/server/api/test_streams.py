"""/embed/batch answered line by line: every image its line, few of them held, and a last line that says what it is."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import psutil
import pytest
from aiohttp import ClientResponse, ClientSession, ClientTimeout
from PIL import Image

from clipsrv.server.api.state import BODIES
from tests.support.faulty import HangingEncoder, PoisonedEncoder, SlowEncoder
from tests.support.library import Given
from tests.support.photos import encode
from tests.support.server import ServerProcess
from tests.support.serving import (
    BOUNDARY,
    Reply,
    Served,
    assert_as_before,
    drawn,
    eventually,
    form,
    form_data,
    make_model,
    part,
    request,
    serving,
    truth,
)

NDJSON = "application/x-ndjson"
LINES = {"Accept": NDJSON}
FORM = {**LINES, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
GOOD = drawn(1)
MARK = f"--{BOUNDARY}".encode()
END = MARK + b"--\r\n"
PACKED = form(part(GOOD, head='Content-Disposition: form-data; name="images"\r\nContent-Encoding: gzip'))
Line = dict[str, Any]


def piece(blob: bytes, name: str = "images") -> bytes:
    """A part of a form with the boundary before it; it has ended when the next boundary is there."""
    return MARK + b"\r\n" + part(blob, name) + b"\r\n"


def encoded(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


def lines_of(reply: Reply) -> tuple[dict[int, Line], Line]:
    """The lines of images by their index, and the last one."""
    assert reply.headers["content-type"] == NDJSON
    *lines, last = map(json.loads, reply.body.splitlines())
    assert len({line["index"] for line in lines}) == len(lines) == last["count"]
    assert sum("error" in line for line in lines) == last["failed"]
    return {line["index"]: line for line in lines}, last


class Upload:
    """One streamed request whose body is sent piece by piece, while its answer is read."""

    def __init__(self, session: ClientSession, url: str, headers: dict[str, str]) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.taken = 0
        asking = session.post(url, data=self._body(), headers=headers, timeout=ClientTimeout(60))
        self._asking = asyncio.ensure_future(asking)

    async def _body(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece
            self.taken += 1

    def send(self, *pieces: bytes) -> None:
        for one in pieces:
            self._pieces.put_nowait(one)

    def end(self) -> None:
        self._pieces.put_nowait(None)

    async def answer(self) -> ClientResponse:
        return await self._asking

    async def line(self) -> Line:
        return json.loads(await (await self.answer()).content.readline())

    async def rest(self) -> list[Line]:
        body = await (await self.answer()).read()
        return [json.loads(line) for line in body.splitlines()]

    async def go(self) -> None:
        """The caller goes away in the middle."""
        if self._asking.done():
            (await self._asking).close()
        self._asking.cancel()
        await asyncio.gather(self._asking, return_exceptions=True)


@asynccontextmanager
async def uploading(served: Served, headers: dict[str, str] = FORM, query: str = "") -> AsyncIterator[Upload]:
    upload = Upload(served.client.session, f"/embed/batch{query}", headers)
    try:
        yield upload
    finally:
        await upload.go()


async def ask(served: Served, blobs: Sequence[bytes], query: str = "") -> Reply:
    return await served.client.post(f"/embed/batch{query}", data=form_data("images", blobs), headers=LINES)


async def ask_json(served: Served, document: Any, query: str = "") -> Reply:
    return await served.client.post(f"/embed/batch{query}", json=document, headers=LINES)


@pytest.mark.parametrize("kind", ["form", "json"])
async def test_every_image_has_a_line_with_its_own_vector_or_what_is_wrong_with_it(kind: str) -> None:
    blobs = [drawn(seed) for seed in range(40)]
    blobs[17] = b"no image"
    async with serving() as served:
        reply = (
            await ask(served, blobs)
            if kind == "form"
            else await ask_json(served, {"images": [*map(encoded, blobs)], "model": "tiny"})
        )
        assert reply.status == 200
        assert reply.headers["x-embedding-id"] == served.engine.model.embedding_id
        lines, last = lines_of(reply)
        assert last == {"done": True, "count": 40, "failed": 1, "dimensions": 64, "model": "tiny"}
        error = lines.pop(17)["error"]
        assert (error["status"], error["code"]) == (422, "not_an_image")
        for index, line in lines.items():
            np.testing.assert_allclose(line["embedding"], truth(blobs[index]), atol=1e-6)
        await assert_as_before(served)


async def test_vectors_come_in_base64_where_that_is_asked_for() -> None:
    async with serving() as served:
        lines, last = lines_of(await ask(served, [GOOD], "?encoding=base64&on_error=null&model=tiny"))
        vector = np.frombuffer(base64.b64decode(lines[0]["embedding"]), "<f4")
        np.testing.assert_allclose(vector, truth(GOOD), atol=1e-6)
        assert last["done"] is True


async def test_an_image_is_answered_while_the_next_is_still_to_come() -> None:
    async with serving() as served:
        async with uploading(served) as upload:
            upload.send(MARK + b"\r\n")
            for count in range(3):
                upload.send(part(GOOD, "images") + b"\r\n" + MARK + (b"\r\n" if count < 2 else b""))
                if count < 2:
                    assert (await upload.line())["index"] == count
            upload.send(b"--")
            upload.end()
            assert [line.get("index") for line in await upload.rest()] == [2, None]
        async with uploading(served, {**LINES, "Content-Type": "application/json"}) as upload:
            upload.send(b' {"images" : [')
            for count in range(3):
                text = json.dumps(encoded(GOOD)).encode()
                upload.send(*(text[at : at + 7] for at in range(0, len(text), 7)))
                assert (await upload.line())["index"] == count
                upload.send(b"\n,\t" if count < 2 else b" ] ")
            upload.send(b"}")
            upload.end()
            assert [line["done"] for line in await upload.rest()] == [True]


async def test_in_json_every_item_is_read_as_one_of_a_batch_is_and_fails_alone() -> None:
    items = [
        *("A!", "http://example.com/photo.jpg", {"image": 1}, {"image": encoded(GOOD), "size": 1}),
        *({"image": encoded(GOOD), "crop": [0, 0, 8, 8]}, {"image": encoded(GOOD), "crop": [0, 0, 800, 8]}),
    ]
    async with serving() as served:
        lines, last = lines_of(await ask_json(served, {"images": items}))
        assert (last["done"], last["count"], last["failed"]) == (True, 6, 5)
        whole = await served.client.post("/embed", json=items[4])
        np.testing.assert_allclose(lines.pop(4)["embedding"], whole.json["embedding"], atol=1e-6)
        codes = [lines[index]["error"]["code"] for index in sorted(lines)]
        assert codes[:3] == ["invalid_base64", "remote_url_disabled", "invalid_field"]
        assert codes[3:] == ["unexpected_field", "crop_outside_image"]
        body = b'{"images": ["%s", "\\q"]}' % encoded(GOOD).encode()
        reply = await served.client.post(
            "/embed/batch", data=body, headers={**LINES, "Content-Type": "application/json"}
        )
        assert lines_of(reply)[1]["error"]["code"] == "invalid_json"
        await assert_as_before(served)


async def test_lines_that_are_ready_together_are_told_each_and_whole() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), max_batch_size=64) as served:
        encoder.shut()
        asking = asyncio.create_task(ask(served, [drawn(seed) for seed in range(96)]))
        await eventually(lambda: served.embedder.workshop.slots.in_use == 96)
        encoder.go_on.set()
        lines, last = lines_of(await asking)
        assert (len(lines), last["done"]) == (96, True)
        for index, line in lines.items():
            np.testing.assert_allclose(line["embedding"], truth(drawn(index)), atol=1e-6)


async def test_a_caller_that_goes_away_while_its_next_image_waits_for_room_leaves_nothing_behind() -> None:
    encoder = HangingEncoder()
    large = await asyncio.to_thread(drawn, 1, size=(100, 100), form="BMP")
    async with serving(make_model(encoder), max_body_bytes=len(large) + 1) as served:
        encoder.shut()
        async with uploading(served) as upload:
            upload.send(*[piece(large)] * 3, piece(b"no image"))
            await eventually(lambda: served.bytes_held > 2 * len(large))
            assert served.embedder.workshop.slots.in_use == 1
        await eventually(lambda: served.connections == 0)
        encoder.go_on.set()
        await assert_as_before(served)


async def test_ten_thousand_images_in_one_request_take_no_more_memory_than_a_few(server: ServerProcess) -> None:
    images, process = 10_000, psutil.Process(server.process.pid)
    blob = await asyncio.to_thread(drawn, 1, size=(32, 32), form="BMP")
    expected, resident, indices = truth(blob), [], set()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(images // 10):
            yield piece(blob) * 10
        yield END

    async with (
        ClientSession(server.url, timeout=ClientTimeout(120)) as session,
        session.post("/embed/batch?encoding=base64", data=body(), headers=FORM) as answer,
    ):
        async for text in answer.content:
            line = json.loads(text)
            if "done" in line:
                break
            assert np.allclose(np.frombuffer(base64.b64decode(line["embedding"]), "<f4"), expected, atol=1e-5)
            indices.add(line["index"])
            if len(indices) % 1000 == 0:
                resident.append(process.memory_info().rss)
    assert line == {"done": True, "count": images, "failed": 0, "dimensions": 64, "model": "tiny"}
    assert indices == set(range(images))
    assert images * len(blob) > 30 * 10**6
    assert resident[-1] - resident[0] < 8 * 2**20


async def test_reading_pauses_while_slots_are_full_and_others_are_served() -> None:
    encoder = HangingEncoder()
    blob = await asyncio.to_thread(drawn, 1, size=(200, 200), form="BMP")
    async with serving(make_model(encoder), max_batch_size=2, max_queue=64) as served:
        encoder.shut()
        async with uploading(served) as upload:
            upload.send(*[piece(blob)] * 400)
            slots = served.embedder.workshop.slots
            await eventually(lambda: slots.in_use == 8)
            await asyncio.sleep(0.3)
            assert slots.in_use == 8, "four batches of two"
            assert served.bytes_held < 12 * len(blob)
            assert upload.taken < 200, "the caller waits"
            other = asyncio.create_task(served.post("/embed", GOOD))
            await eventually(lambda: slots.in_use == 9)
            encoder.go_on.set()
            assert (await other).status == 200
            upload.send(END)
            upload.end()
            *lines, last = await upload.rest()
            assert len(lines) == last["count"] == 400
            assert last["done"] is True
        await assert_as_before(served)


async def test_a_stream_waits_while_others_have_all_slots() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), max_queue=4, max_queue_per_caller=4, max_images=3) as served:
        encoder.shut()
        slots = served.embedder.workshop.slots
        async with uploading(served) as upload:
            upload.send(piece(GOOD), piece(GOOD))
            await eventually(lambda: slots.in_use == 1)
            busy = [asyncio.create_task(served.post("/embed", GOOD)) for _ in range(3)]
            await eventually(lambda: slots.in_use == 4)
            upload.send(piece(GOOD), END)
            upload.end()
            assert (await served.post("/embed", GOOD)).status == 429
            encoder.go_on.set()
            *lines, last = await upload.rest()
            assert (len(lines), last["done"]) == (3, True)
            assert [(await one).status for one in busy] == [200] * 3
        await assert_as_before(served)


async def test_streams_at_once_get_each_its_own_vectors() -> None:
    blobs = [[drawn(100 * stream + place) for place in range(30)] for stream in range(6)]
    async with serving() as served:
        replies = await asyncio.gather(*(ask(served, some) for some in blobs))
        for some, reply in zip(blobs, replies, strict=True):
            lines, last = lines_of(reply)
            assert last["done"] is True
            for place, blob in enumerate(some):
                np.testing.assert_allclose(lines[place]["embedding"], truth(blob), atol=1e-6)
        await assert_as_before(served)


async def test_a_caller_that_stops_reading_is_cut_off_and_leaves_nothing_behind() -> None:
    async with serving(answer_timeout=0.5) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.write(request("POST", "/embed/batch", None, *(f"{name}: {value}" for name, value in FORM.items()),
                             "Transfer-Encoding: chunked"))  # fmt: skip
        some = piece(GOOD) * 50
        sending = asyncio.create_task(_send_for_ever(writer, b"%x\r\n%s\r\n" % (len(some), some)))
        await eventually(lambda: served.connections == 1)
        await eventually(lambda: served.connections == 0)
        with pytest.raises(ConnectionError):
            await sending
        writer.close()
        await assert_as_before(served)
        assert 'streams_total{outcome="abandoned"} 1.0' in (await served.get("/metrics")).body.decode()


async def _send_for_ever(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()


async def test_a_caller_that_goes_away_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder)) as served:
        encoder.shut()
        async with uploading(served) as upload:
            upload.send(piece(GOOD), piece(b"no image"), piece(GOOD))
            assert (await upload.line())["error"]["code"] == "not_an_image"
        await eventually(lambda: served.connections == 0)
        encoder.go_on.set()
        await assert_as_before(served)
        text = (await served.get("/metrics")).body.decode()
        assert 'streams_total{outcome="abandoned"} 1.0' in text
        assert "streams_inflight 0.0" in text
        assert 'requests_total{route="/embed/batch",status="499"} 1.0' in text


async def test_once_the_server_stops_what_came_is_delivered_and_the_last_line_says_that_it_is_not_all() -> None:
    async with serving(make_model(SlowEncoder(0.05))) as served:
        async with uploading(served) as upload:
            upload.send(*[piece(GOOD)] * 5)
            await upload.line()
            served.embedder.drain()
            served.app[BODIES].hurry()
            upload.send(piece(GOOD))
            *lines, last = await upload.rest()
            assert len(lines) in (3, 4)
            assert all("embedding" in line for line in lines)
            assert (last["done"], last["count"]) == (False, 1 + len(lines))
            assert last["error"]["code"] == "shutting_down"
            assert last["error"]["status"] == 503
        reply = await ask(served, [GOOD])
        assert (reply.status, reply.code) == (503, "shutting_down")


async def test_when_the_grace_time_is_over_the_last_line_still_comes() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder)) as served:
        encoder.shut()
        async with uploading(served) as upload:
            upload.send(piece(b"no image"), *[piece(GOOD)] * 5)
            assert (await upload.line())["index"] == 0
            await eventually(lambda: served.embedder.workshop.slots.in_use == 4)
            served.embedder.stop()
            (last,) = await upload.rest()
            assert (last["done"], last["count"], last["error"]["code"]) == (False, 1, "shutting_down")
        encoder.go_on.set()


async def test_each_image_has_the_deadline_for_itself() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), deadline=0.3, max_batch_size=1) as served:
        encoder.shut()
        async with uploading(served) as upload:
            upload.send(piece(GOOD), piece(GOOD))
            error = (await upload.line())["error"]
            assert (error["status"], error["code"]) == (504, "deadline_exceeded")
            encoder.go_on.set()
            for _ in range(4):  # longer in all than the deadline
                await asyncio.sleep(0.1)
                upload.send(piece(GOOD))
            upload.send(END)
            upload.end()
            *lines, last = await upload.rest()
            assert (last["done"], last["count"]) == (True, 6)
            assert "embedding" in lines[-1]


async def test_an_image_on_which_inference_fails_is_told_alone() -> None:
    black = encode(Image.new("RGB", (40, 30)))
    async with serving(make_model(PoisonedEncoder("raise"))) as served:
        lines, last = lines_of(await ask(served, [GOOD, black, *[GOOD] * 6]))
        assert (last["done"], last["failed"]) == (True, 1)
        assert (lines[1]["error"]["status"], lines[1]["error"]["code"]) == (503, "inference_failed")
        await assert_as_before(served)


REFUSED = {
    "no part of that name": (400, "unexpected_field", form(part(GOOD)), FORM, ""),
    "nothing": (400, "empty_body", b"", FORM, ""),
    "no form": (400, "malformed_multipart", b"junk " * 100, FORM, ""),
    "no list": (400, "invalid_field", b'{"images": "AAAA"}', {**LINES, "Content-Type": "application/json"}, ""),
    "no image": (400, "empty_batch", b'{"images": []}', {**LINES, "Content-Type": "application/json"}, ""),
    "another type": (415, "unsupported_media_type", GOOD, {**LINES, "Content-Type": "image/png"}, ""),
    "packed": (415, "unsupported_content_encoding", GOOD, {**FORM, "Content-Encoding": "gzip"}, ""),
    "as a whole or not at all": (406, "not_acceptable", form(part(GOOD, "images")), FORM, "?on_error=fail"),
    "an option that is none": (400, "unknown_option", form(part(GOOD, "images")), FORM, "?on_errors=null"),
    "a model that is not served": (404, "model_not_found", form(part(GOOD, "images")), FORM, "?model=other"),
    "such a model in JSON": (
        *(404, "model_not_found"),
        json.dumps({"model": "other", "images": [encoded(GOOD)]}).encode(),
        *({**LINES, "Content-Type": "application/json"}, ""),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_wrong_before_the_first_image_has_its_own_status(case: str) -> None:
    status, code, body, headers, query = REFUSED[case]
    async with serving() as served:
        reply = await served.client.post(f"/embed/batch{query}", data=body, headers=headers)
        assert (reply.status, reply.code) == (status, code)
        await assert_as_before(served)


async def test_a_full_server_refuses_a_stream_before_its_body() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), max_queue=1, max_images=1) as served:
        encoder.shut()
        busy = asyncio.create_task(served.post("/embed", GOOD))
        await eventually(lambda: served.embedder.workshop.slots.in_use == 1)
        reply = await ask(served, [GOOD])
        assert (reply.status, reply.code) == (429, "overloaded")
        encoder.go_on.set()
        assert (await busy).status == 200


@pytest.mark.parametrize(
    ("code", "status", "pieces"),
    [
        pytest.param("malformed_multipart", 400, [piece(GOOD)], id="a form that ends in the middle"),
        pytest.param("unexpected_field", 400, [piece(GOOD), piece(GOOD, "image")], id="another field"),
        pytest.param("unsupported_part_encoding", 400, [piece(GOOD), PACKED], id="a part that is packed"),
        pytest.param("too_many_images", 413, [*[piece(GOOD)] * 3, END], id="too many"),
    ],
)
async def test_what_is_wrong_later_is_told_in_the_last_line_after_what_came_before(
    code: str, status: int, pieces: Sequence[bytes]
) -> None:
    async with serving(max_images_streamed=2) as served:
        async with uploading(served) as upload:
            upload.send(piece(GOOD), *pieces)
            upload.end()
            *lines, last = await upload.rest()
        assert all("embedding" in line for line in lines)
        assert len(lines) == last["count"] >= 1
        assert (last["done"], last["error"]["code"], last["error"]["status"]) == (False, code, status)
        assert last["request_id"] == (await upload.answer()).headers["x-request-id"]
        await assert_as_before(served)
        text = (await served.get("/metrics")).body.decode()
        assert f'errors_total{{code="{code}"}} 1.0' in text
        assert 'streams_total{outcome="incomplete"} 1.0' in text


async def test_bodies_larger_than_one_may_be_are_taken_and_images_larger_than_one_may_be_are_not() -> None:
    large = await asyncio.to_thread(drawn, 1, size=(120, 120), form="BMP")
    small = await asyncio.to_thread(drawn, 2, size=(60, 60), form="BMP")
    blobs = [small, large, small, large * 10, *[small] * 20]
    limits: dict[str, Any] = {
        "max_image_bytes": len(small),
        "max_body_bytes": 2 * len(small),
        "max_bytes_in_flight": 2**20,
    }
    async with serving(**limits) as served:
        for reply in (await ask(served, blobs), await ask_json(served, {"images": [*map(encoded, blobs)]})):
            lines, last = lines_of(reply)
            assert (last["done"], last["count"], last["failed"]) == (True, 24, 2)
            assert [lines[index]["error"]["code"] for index in (1, 3)] == ["image_too_large"] * 2
        await assert_as_before(served)


async def test_a_stream_waits_until_there_is_room_for_its_bytes_and_gives_up_after_the_time_of_a_body() -> None:
    async with serving(max_bytes_in_flight=2**20, body_timeout=1.0) as served:
        in_flight = served.app[BODIES].in_flight
        async with uploading(served) as upload:
            upload.send(piece(GOOD), piece(GOOD))
            await upload.line()
            lease = in_flight.take(2**20 - in_flight.in_use)
            upload.send(piece(GOOD), END)
            upload.end()
            await asyncio.sleep(0.1)
            lease.release()
            *lines, last = await upload.rest()
            assert (len(lines), last["done"]) == (2, True)
        async with uploading(served) as upload:
            upload.send(piece(GOOD), piece(GOOD))
            await upload.line()
            with in_flight.take(2**20 - in_flight.in_use):
                upload.send(piece(GOOD))
                (last,) = await upload.rest()
            assert (last["done"], last["error"]["code"], last["error"]["status"]) == (False, "overloaded", 429)
        await assert_as_before(served)


async def test_a_sender_that_pauses_or_drips_is_408_and_one_that_waits_for_us_is_not() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), header_timeout=0.5, body_timeout=1.0, max_batch_size=1) as served:
        async with uploading(served) as upload:
            upload.send(piece(GOOD), piece(GOOD))
            lines = await upload.rest()
            assert [lines[-1][key] for key in ("done", "count")] == [False, 1]
            assert (lines[-1]["error"]["code"], lines[-1]["error"]["status"]) == ("request_timeout", 408)
        async with uploading(served) as upload:
            upload.send(piece(GOOD), piece(GOOD))
            dripping = asyncio.create_task(_drip(upload))
            assert (await upload.rest())[-1]["error"]["code"] == "request_timeout"
            dripping.cancel()
        encoder.shut()
        async with uploading(served) as upload:
            upload.send(*[piece(GOOD)] * 500, END)
            upload.end()
            await asyncio.sleep(1.5)
            encoder.go_on.set()
            assert (await upload.rest())[-1]["done"] is True
        await assert_as_before(served)


async def _drip(upload: Upload) -> None:
    while True:
        upload.send(b"x")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("error", "code"), [(MemoryError(), "out_of_memory"), (RuntimeError("bug"), "internal")])
async def test_what_nobody_foresaw_is_told_in_the_last_line_too(error: Exception, code: str) -> None:
    async with serving() as served, uploading(served) as upload:
        upload.send(piece(GOOD), piece(GOOD))
        await upload.line()

        def fail() -> None:
            raise error

        served.app[BODIES]._check_room = fail
        upload.send(piece(GOOD))
        *_, last = await upload.rest()
        assert (last["done"], last["error"]["code"]) == (False, code)


async def test_json_may_name_its_model_before_its_images_or_the_same_after_them() -> None:
    models = Given(lambda name: make_model(), ["tiny", "other"])
    async with serving(models, models="other") as served:
        images = [encoded(GOOD)] * 2
        for document, query, name in (
            ({"model": "other", "images": images}, "", "other"),
            ({"images": images, "model": "tiny"}, "", "tiny"),
            ({"images": images, "model": "other"}, "?model=other", "other"),
        ):
            lines, last = lines_of(await ask_json(served, document, query))
            assert (len(lines), last["done"], last["model"]) == (2, True, name)
        lines, last = lines_of(await ask_json(served, {"images": images, "model": "other"}))
        assert (len(lines), last["done"], last["error"]["code"]) == (2, False, "invalid_field")
        reply = await ask_json(served, {"model": "other", "images": images}, "?model=tiny")
        assert (reply.status, reply.code) == (400, "invalid_field")


async def test_a_line_of_the_log_says_how_many_images_there_were_and_how_many_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "clipsrv.access")
    async with serving() as served:
        await ask(served, [GOOD, b"no image", GOOD])
        (record,) = [one for one in caplog.records if one.name == "clipsrv.access"]
        facts = record.fields  # type: ignore[attr-defined]
        assert (facts["status"], facts["images"], facts["failed"], facts["model"]) == (200, 3, 1, "tiny")
        assert "code" not in facts


async def test_a_caller_that_waits_to_be_invited_is() -> None:
    async with serving() as served:
        body = form(part(GOOD, "images"))
        head = request(*("POST", "/embed/batch", None), *(f"{name}: {value}" for name, value in FORM.items()),
                       f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close")  # fmt: skip
        reader, writer = await served.connect()
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"done":true' in answer
        writer.close()
