"""Several processes behind one port: callers see one server, whichever of them answers, dies or cannot start."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.server.workers.pair import Pair, is_there, until
from tests.support.model import NAME, truth
from tests.support.photos import drawn

GOOD = drawn(1)
#: What every Python of a server runs first: in the second worker something is planted.
PLANTED = """
import os, pathlib, signal, time
if os.environ.get("_CLIPSRV_WORKER", "").startswith("2 "):
    {}
"""


@pytest.fixture
def start(models_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """start(*flags, planted=""): two workers, of which the second runs `planted` first."""
    started: list[Pair] = []

    def run(*flags: object, planted: str = "pass", folder: Path = models_dir) -> Pair:
        (tmp_path / "sitecustomize.py").write_text(PLANTED.format(planted))
        root = Path(__file__).parents[3]
        started.append(Pair(folder, *flags, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}))
        return started[-1]

    yield run
    for server in started:
        server.close()


def embed(connection: http.client.HTTPConnection, image: bytes = GOOD) -> bytes:
    connection.request("POST", "/embed", image, {"Content-Type": "image/png"})
    response = connection.getresponse()
    assert response.status == 200
    return response.read()


def begin(connection: http.client.HTTPConnection) -> None:
    """The first half of a request."""
    connection.putrequest("POST", "/embed")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", str(len(GOOD)))
    connection.endheaders(GOOD[:40])


def end(connection: http.client.HTTPConnection) -> int:
    connection.send(GOOD[40:])
    return connection.getresponse().status


def metrics(connection: http.client.HTTPConnection) -> dict[str, float]:
    connection.request("GET", "/metrics")
    families = text_string_to_metric_families(connection.getresponse().read().decode())
    return {f"{s.name}{sorted(s.labels.items())}": s.value for family in families for s in family.samples}


def test_both_answer_with_the_vectors_of_one_and_their_log_lines_tell_them_apart(pair: Pair) -> None:
    answers = {number: embed(connection) for number, connection in pair.to_each().items()}
    assert answers[1] == answers[2]
    assert np.allclose(json.loads(answers[1])["embedding"], truth(GOOD), atol=1e-6)
    told = {f"worker={number}" for number in (1, 2)}
    until(lambda: told <= {line.split()[-1] for line in pair.lines if "route=/embed " in line})


def test_health_names_who_answers_and_how_all_are(pair: Pair) -> None:
    for number, connection in pair.to_each().items():
        connection.request("GET", "/health")
        body = json.loads(connection.getresponse().read())
        assert (body["status"], body["worker"]) == ("healthy", number)
        assert [worker["status"] for worker in body["workers"]] == ["healthy", "healthy"]
        assert len({worker["pid"] for worker in body["workers"]} | {pair.process.pid}) == 3


def test_metrics_add_up_whoever_is_asked(pair: Pair) -> None:
    ours = pair.to_each()
    name = "clipsrv_images_total[]"
    before = metrics(ours[1])[name]
    for times, number in ((3, 1), (2, 2)):
        for count in range(times):
            embed(ours[number], drawn(10 * number + count))
    one, other = metrics(ours[1]), metrics(ours[2])
    assert one[name] == other[name] == before + 5
    assert one["clipsrv_workers[]"] == one["clipsrv_workers_ready[]"] == 2
    assert one["clipsrv_model_ready[]"] == one["clipsrv_model_loaded[('model', 'tiny')]"] == 1
    assert one["process_resident_memory_bytes[]"] > 2 * 2**20


def test_a_worker_that_is_killed_loses_its_requests_only_and_is_back(pair: Pair) -> None:
    ours, before = pair.to_each(), pair.pids()
    answered = "clipsrv_requests_total[('route', '/embed'), ('status', '200')]"
    embed(ours[1])
    counted = metrics(ours[2])[answered]
    for connection in ours.values():
        begin(connection)
    os.kill(before[0], signal.SIGKILL)
    with pytest.raises((OSError, http.client.HTTPException)):
        end(ours[1])
    assert end(ours[2]) == 200
    ours[2].close()

    def is_back() -> bool:
        body = pair.health()  # and answered in the meantime, healthy
        assert body["status"] == "healthy"
        is_new = body["workers"][0].get("pid") not in {None, before[0]}  # that it has ended may not be known yet
        return is_new and [worker["status"] for worker in body["workers"]] == ["healthy", "healthy"]

    until(is_back)
    assert pair.pids()[1] == before[1]
    assert "worker 1 was ended by SIGKILL; starting it again" in pair.log
    both = metrics(pair.to_each()[1])
    assert both[answered] == counted + 1  # also what the dead one had counted
    assert both["clipsrv_worker_restarts_total[]"] >= 1


def test_sigterm_finishes_what_both_have_accepted(start: Callable[..., Pair]) -> None:
    server = start("--grace", 60).all_ready()
    ours, pids = server.to_each(), server.pids()
    for connection in ours.values():
        begin(connection)
    server.signal(signal.SIGTERM)
    until(lambda: server.log.count("stopping: finishing 1 requests") == 2)
    assert [end(connection) for connection in ours.values()] == [200, 200]
    assert server.wait(60) == 0
    assert server.log.count("stopped, 0 requests left unfinished") == 2
    assert not [pid for pid in pids if is_there(pid)]


def test_a_second_signal_ends_all_at_once(start: Callable[..., Pair]) -> None:
    server = start("--grace", 600).all_ready()
    ours, pids = server.to_each(), server.pids()
    begin(ours[1])
    server.signal(signal.SIGTERM)
    server.wait_for("stopping: finishing 1 requests", 60)
    time.sleep(1.2)  # by now it is another wish
    server.signal(signal.SIGTERM)
    assert server.wait(60) == -signal.SIGTERM
    until(lambda: not any(map(is_there, pids)))


def test_health_is_503_until_all_are_ready_and_workers_whose_supervisor_is_killed_finish_and_leave(
    start: Callable[..., Pair], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    server = start(planted=f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)")
    server.wait_for("ready: model", 120)
    connection, body = server.to_someone()
    assert json.loads(body)["status"] == "starting"
    connection.request("GET", "/.well-known/ready")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (503, b'{"error":"The server is starting."}')
    go.touch()
    server.all_ready()
    until(lambda: server.health()["status"] == "healthy")
    ours, pids = server.to_each(), server.pids()
    begin(ours[1])
    server.signal(signal.SIGKILL)
    until(lambda: "stopping: finishing 1 requests" in server.log)
    assert end(ours[1]) == 200
    until(lambda: not any(map(is_there, pids)))


def test_a_worker_that_dies_before_it_is_ready_ends_the_whole(start: Callable[..., Pair]) -> None:
    server = start(planted="os.kill(os.getpid(), signal.SIGKILL)")
    assert server.wait(120) == 1
    assert server.log.count("clipsrv: Worker 2 was ended by SIGKILL before it was ready.") == 1


@pytest.mark.parametrize(("fault", "status"), [("model", 3), ("port", 4)])
def test_what_no_worker_can_start_with_is_said_once_with_its_status(
    fault: str, status: int, start: Callable[..., Pair], pair: Pair, models_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(models_dir, tmp_path / "models")
    if fault == "model":
        (folder / NAME / "vision.fp32.onnx").write_bytes(b"")
    flags = ("--port", pair.address[1]) if fault == "port" else ()
    server = start(*flags, folder=folder)
    assert server.wait(120) == status
    assert sum(line.startswith(("clipsrv: ", "python -m clipsrv: ")) for line in server.lines) == 1
    assert "Traceback" not in server.log
