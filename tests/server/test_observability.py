"""What is counted, what is logged, and that neither can stop the server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clipsrv import __version__
from clipsrv.server.logs import LogPump, TextFormatter, fields, set_up
from tests.support.faulty import HangingEncoder
from tests.support.serving import Served, drawn, eventually, make_model, part, serving

GOOD = drawn(1)


async def values(served: Served) -> dict[str, float]:
    text = (await served.get("/metrics")).body.decode()
    return {
        sample.name + json.dumps(sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_metrics_are_those_of_the_traffic() -> None:
    async with serving() as served:
        await served.post("/embed", GOOD)
        await served.form(*[part(drawn(seed), "images") for seed in range(5)], path="/embed/batch")
        await served.post("/embed", b"junk")
        await served.post("/embed/text", b'{"texts": ["a", "b", "c"]}', "application/json")
        found = await values(served)
    assert found['clipsrv_requests_total{"route": "/embed", "status": "200"}'] == 1
    assert found['clipsrv_requests_total{"route": "/embed/batch", "status": "200"}'] == 1
    assert found['clipsrv_requests_total{"route": "/embed", "status": "422"}'] == 1
    assert found['clipsrv_errors_total{"code": "not_an_image"}'] == 1
    assert (found["clipsrv_images_total{}"], found["clipsrv_texts_total{}"]) == (6, 3)
    assert found["clipsrv_batch_size_sum{}"] == 9
    for stage, count in (("decode", 6), ("tokenize", 3), ("queue", 9), ("request", 4)):
        assert found[f'clipsrv_stage_seconds_count{{"stage": "{stage}"}}'] == count
    for route, count in (("/embed", 2), ("/embed/batch", 1), ("/embed/text", 1)):
        assert found[f'clipsrv_request_seconds_count{{"route": "{route}"}}'] == count
    assert found[f'clipsrv_build_info{{"version": "{__version__}"}}'] == 1
    assert found["clipsrv_slots{}"] == 256
    assert not [name for name in found if "_created" in name]
    assert found["clipsrv_model_ready{}"] == 1
    assert found["clipsrv_inflight{}"] == 1  # the one that asks
    assert found["process_resident_memory_bytes{}"] > 2**20
    assert found["process_open_fds{}"] > 3
    assert any(name.startswith("clipsrv_model_info") and '"device": "cpu"' in name for name in found)


async def test_the_gauges_show_what_waits_and_return_to_nothing() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), max_batch_size=1) as served:
        encoder.go_on.clear()
        waiting = [asyncio.create_task(served.post("/embed", GOOD)) for _ in range(5)]
        await eventually(lambda: encoder.entered.is_set() and served.engine.images.queued == 4)
        found = await values(served)
        assert found["clipsrv_queue_images{}"] == 4
        assert found["clipsrv_slots_in_use{}"] == 5
        assert found["clipsrv_body_bytes_inflight{}"] == 5 * len(GOOD)
        assert found["clipsrv_inflight{}"] == 6
        encoder.go_on.set()
        await asyncio.gather(*waiting)
        found = await values(served)
        assert [found[f"clipsrv_{name}{{}}"] for name in ("queue_images", "slots_in_use", "inflight")] == [0, 0, 1]


async def test_a_pause_of_the_loop_is_seen_for_as_long_as_it_takes_to_scrape() -> None:
    async with serving() as served:
        await asyncio.sleep(0.3)
        time.sleep(1)  # noqa: ASYNC251 - the pause
        await asyncio.sleep(0.3)
        assert (await values(served))["clipsrv_loop_lag_seconds{}"] > 0.8


async def test_two_servers_in_one_process_count_apart() -> None:
    async with serving() as one, serving() as other:
        await one.post("/embed", GOOD)
        assert (await values(one))["clipsrv_images_total{}"] == 1
        assert (await values(other))["clipsrv_images_total{}"] == 0


async def test_a_request_is_logged_once_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "clipsrv.access")
    async with serving() as served:
        await served.post("/embed", GOOD, "image/png", "X-Request-Id: mine")
        await served.post("/embed", b"junk")
        await served.post("/embed/text", b'{"texts": ["a", "b"]}', "application/json")
    good, bad, text = [vars(record)["fields"] for record in caplog.records if record.name == "clipsrv.access"]
    assert (good["request_id"], good["route"], good["status"], good["images"]) == ("mine", "/embed", 200, 1)
    assert good["bytes_in"] == len(GOOD)
    assert good["total_ms"] >= good["infer_ms"] > 0
    assert (bad["status"], bad["code"]) == (422, "not_an_image")
    assert (text["route"], text["texts"], "images" in text) == ("/embed/text", 2, False)


async def test_server_timing_names_every_stage() -> None:
    async with serving() as served:
        timing = (await served.post("/embed", GOOD)).headers["server-timing"]
    assert [stage.partition(";")[0] for stage in timing.split(", ")] == ["read", "decode", "queue", "inference"]


@pytest.mark.usefixtures("logging_restored")
def test_json_lines_hold_level_message_facts_and_traceback() -> None:
    stream = StringIO()
    pump = set_up("info", "json", stream)
    logging.getLogger("x").info("request", extra=fields(status=200, route="/embed"))
    try:
        raise ValueError("inside\nout")
    except ValueError:
        logging.getLogger("x").exception("failed")
    logging.getLogger("x").debug("not shown")
    pump.close()
    first, second = map(json.loads, stream.getvalue().splitlines())
    moment = datetime.fromisoformat(first["ts"])
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=5)
    assert (first["level"], first["message"], first["status"], first["route"]) == ("info", "request", 200, "/embed")
    assert "ValueError" in second["error"]


@pytest.mark.usefixtures("logging_restored")
def test_text_lines_are_for_people_and_a_traceback_is_indented() -> None:
    stream = StringIO()
    pump = set_up("info", "text", stream)
    logging.getLogger("x").warning("careful %s", "here", extra=fields(route="/embed"))
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("x").exception("failed")
    pump.close()
    first, second, *rest = stream.getvalue().splitlines()
    assert first.endswith("WARNING careful here route=/embed")
    assert second.endswith("ERROR failed")
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_a_reader_that_has_stopped_costs_lines_and_not_time() -> None:
    read, write = os.pipe()
    stream = os.fdopen(write, "w")
    pump = LogPump(stream, "text", room=50)
    logger = logging.Logger("blocked")
    logger.addHandler(pump)
    done = threading.Event()

    def flood() -> None:
        for _ in range(3000):
            logger.info("x" * 1000)
        done.set()

    threading.Thread(target=flood, daemon=True).start()
    assert done.wait(20), "logging waited for its reader"
    assert pump.dropped > 1000

    def read_on() -> None:
        while os.read(read, 2**16):
            pass

    reader = threading.Thread(target=read_on)
    reader.start()
    pump.close()
    stream.close()
    reader.join(20)
    assert not reader.is_alive()
    os.close(read)


def test_a_reader_that_has_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    pump = LogPump(stream, "text")
    pump.emit(logging.makeLogRecord({"msg": "unheard", "levelname": "INFO"}))
    pump.close()
    assert pump.dropped == 1
    with suppress(BrokenPipeError):
        stream.close()
    assert isinstance(pump.formatter, TextFormatter)
