"""What a caller would like to see in our log, and what answers, logs and metrics never tell."""

from __future__ import annotations

import base64
import json
import logging
from io import StringIO

import pytest
from PIL import TiffImagePlugin
from PIL.ExifTags import Base

from clipsrv.server.logs import JsonFormatter, TextFormatter, set_up
from tests.support.photos import encode, opened
from tests.support.serving import (
    BOUNDARY,
    Reply,
    drawn,
    form,
    part,
    request,
    serving,
)

GOOD = drawn(1)


@pytest.mark.parametrize("sent", ["abc-123_XYZ", "a" * 64])
async def test_a_sane_request_id_is_kept(sent: str) -> None:
    async with serving() as served:
        assert (await served.get("/health", f"X-Request-Id: {sent}")).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "a" * 65, "a b", "id;drop", "é", "%0d%0a", '"'])
async def test_another_request_id_is_replaced(sent: str) -> None:
    async with serving() as served:
        assert len((await served.get("/health", f"X-Request-Id: {sent}")).headers["x-request-id"]) == 32


INJECTIONS = ["\x1b[2J", "\x85", "\u2028", '"}\n{"level":"error"', "%0d%0aINJECTED", "\udcff", "'; drop --", "\x07" * 9]


async def test_one_request_is_one_log_line_whatever_it_holds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "clipsrv.access")
    count = 0
    async with serving() as served:
        for text in INJECTIONS:
            clean = "".join(char for char in text if char not in "\r\n\x00")
            quoted = "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogateescape"))
            name = f"Content-Disposition: form-data; name=\"image\"; filename*=utf-8''{quoted}"
            await served.post("/embed", form(part(GOOD, head=name)), f"multipart/form-data; boundary={BOUNDARY}")
            await served.get(f"/{quoted}")
            await served.get("/health", f"User-Agent: {clean}", f"X-Request-Id: {quoted}")
            count += 2 + ("\x1b" not in clean and "\x07" not in clean)
    records = [record for record in caplog.records if record.name == "clipsrv.access"]
    assert len(records) == count
    for record in records:
        assert len(TextFormatter().format(record).splitlines()) == 1
        line = JsonFormatter().format(record)
        assert len(line.splitlines()) == 1
        assert json.loads(line)["route"] in {"/embed", "/health", "unmatched"}
        assert "INJECTED" not in line


@pytest.mark.usefixtures("logging_restored")
async def test_no_file_name_image_or_vector_is_logged() -> None:
    name = 'Content-Disposition: form-data; name="image"; filename="/home/ann/on-the-beach.tif"'
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[Base.ImageDescription] = "Ann on the beach"
    blob = encode(opened().resize((40, 30)), "TIFF", tiffinfo=tags)
    packed = base64.b64encode(blob).decode()
    stream = StringIO()
    pump = set_up("debug", "json", stream)
    async with serving() as served:
        reply = await served.form(part(blob, head=name))
        assert reply.status == 200
        assert (await served.form(part(blob[:-60], head=name))).status == 422
        text = json.dumps({"text": "ann on the beach"}).encode()
        assert (await served.post("/embed/text", text, "application/json")).status == 200
        assert (await served.post("/embed", json.dumps({"image": packed}).encode(), "application/json")).status == 200
    pump.close()
    logged = stream.getvalue()
    assert '"route":"/embed"' in logged
    for secret in ("beach", packed[:20], *(str(value)[:8] for value in reply.json["embedding"])):
        assert secret not in logged


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
@pytest.mark.parametrize("text", INJECTIONS)
def test_a_message_with_hostile_text_is_still_one_printable_line(formatter: logging.Formatter, text: str) -> None:
    record = logging.makeLogRecord({"msg": "seen %s", "args": (text,), "levelname": "INFO", "fields": {"route": text}})
    line = formatter.format(record)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    line.encode("utf-8")


async def test_no_answer_tells_of_paths_versions_addresses_or_code() -> None:
    async with serving() as served:
        replies: list[Reply] = [
            await served.get("/nowhere"),
            await served.send(b"\xff\xfe\r\n\r\n"),
            await served.post("/embed", b"\x89PNG\r\n\x1a\n" + b"x" * 90),
            await served.post("/embed", b"<svg/>"),
            await served.post("/embed", GOOD[:50]),
            await served.post("/embed", b"{", "application/json"),
            await served.form(part(GOOD, "x\x7f")),
            await served.get("/models"),
            await served.get("/health"),
        ]
    for reply in replies:
        text = (reply.body.decode() + repr(reply.headers)).lower()
        for secret in ("traceback", "/usr", "site-packages", "0x", ".py", "aiohttp", "python", "pillow", "onnxruntime"):
            assert secret not in text, (secret, reply)


async def test_random_requests_add_no_series_to_the_metrics() -> None:
    async with serving() as served:

        async def series() -> int:
            lines = (await served.get("/metrics")).body.decode().splitlines()
            return len([line for line in lines if not line.startswith("#")])

        for path in ("/x", "/health", "/metrics"):
            await served.get(path)
        await served.send(request("PUT", "/embed", b""))
        before = await series()
        for number in range(100):
            await served.get(f"/{number}/{'a' * number}")
            await served.send(request(f"PUT{number}", f"/{number}", b"", "Content-Length: 0"))
        # Methods that are none are one more refusal: a status and a code, and their times.
        assert await series() - before <= 4
