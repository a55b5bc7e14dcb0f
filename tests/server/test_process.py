"""The server as a process: what it prints, the guide's own commands, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from clipsrv.manifest import load_manifest
from clipsrv.specs import FileSpec
from tests.support.model import write_model
from tests.support.photos import cuttings, photo_path
from tests.support.server import ROOT, ServerProcess, ask
from tests.support.wire import Reply, request

Run = Callable[..., ServerProcess]


def curl(*arguments: str) -> str:
    program = shutil.which("curl")
    assert program, "curl is missing: the guide's commands cannot be tried"
    return subprocess.run([program, "-sS", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout


# --- start ---


def test_the_start_prints_model_device_threads_batch_and_address(server: ServerProcess) -> None:
    assert "http://127.0.0.1:" in server.wait_for("listens on")
    ready = server.wait_for("ready:")
    for said in ("model tiny (64 dimensions)", "device cpu", "precision fp32", "threads ", "batch up to 8", "text on"):
        assert said in ready


def test_settings_come_from_variables_and_misspelt_ones_are_told(run_server: Run) -> None:
    server = run_server(env={"CLIPSRV_MAX_BATCH_SIZE": "3", "CLIPSRV_DEVCIE": "cuda"}).ready()
    assert "batch up to 3" in server.log
    assert "CLIPSRV_DEVCIE is set but is no setting of clipsrv" in server.log


def test_beside_a_kubernetes_service_named_clipsrv_it_starts_and_says_once_whose_variables_those_are(
    run_server: Run,
) -> None:
    """deploy/kubernetes as the kubelet starts it: the Service's variables, and a port given as an option."""
    address = "tcp://10.96.12.7:5000"
    links = {"CLIPSRV_SERVICE_HOST": "10.96.12.7", "CLIPSRV_SERVICE_PORT": "5000", "CLIPSRV_SERVICE_PORT_HTTP": "5000"}
    links |= {"CLIPSRV_PORT": address, "CLIPSRV_PORT_5000_TCP": address, "CLIPSRV_PORT_5000_TCP_PROTO": "tcp"}
    links |= {"CLIPSRV_PORT_5000_TCP_PORT": "5000", "CLIPSRV_PORT_5000_TCP_ADDR": "10.96.12.7"}
    server = run_server(env=links).ready()
    assert "misspelt" not in server.log
    assert server.log.count("set by Kubernetes for a Service of that name") == 1
    assert all(server.log.count(f"{name},") + server.log.count(f"{name}:") == 1 for name in links)


def test_a_misspelt_variable_is_told_even_if_its_name_is_not_utf_8(run_server: Run) -> None:
    server = run_server(env={"CLIPSRV_P\udcff": "1"}).ready()
    assert "CLIPSRV_P\\udcff is set but is no setting" in server.log
    assert "Traceback" not in server.log


# --- the guide's commands, to the letter but for port and paths ---


def test_curl_health_and_models(server: ServerProcess) -> None:
    health = json.loads(curl(f"{server.url}/health"))
    assert {"status": "healthy", "model": "tiny", "device": "cpu", "dimensions": 64}.items() <= health.items()
    models = json.loads(curl(f"{server.url}/models"))
    assert models["models"][:4] == ["vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336"]
    assert models["current"] == "tiny"


def test_curl_embed(server: ServerProcess) -> None:
    answer = json.loads(curl("-X", "POST", f"{server.url}/embed", "-F", f"image=@{photo_path('china.jpg')}"))
    assert set(answer) == {"embedding", "dimensions", "model"}
    assert (len(answer["embedding"]), answer["dimensions"], answer["model"]) == (64, 64, "tiny")


def test_curl_embed_batch(server: ServerProcess) -> None:
    paths = [photo_path(name) for name in ("china.jpg", "astronaut.png", "rocket.jpg")]
    fields = [part for path in paths for part in ("-F", f"images=@{path}")]
    answer = json.loads(curl("-X", "POST", f"{server.url}/embed/batch", *fields))
    assert (answer["count"], answer["dimensions"]) == (3, 64)
    single = json.loads(curl("-X", "POST", f"{server.url}/embed", "-F", f"image=@{paths[1]}"))
    assert answer["embeddings"][1] == pytest.approx(single["embedding"], abs=1e-6)


# --- the end ---


def test_sigterm_of_an_idle_server_ends_it_with_0(run_server: Run) -> None:
    server = run_server().ready()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "stopped, 0 requests left unfinished" in server.log


def test_sigterm_before_the_model_is_ready_ends_it_with_0(run_server: Run) -> None:
    server = run_server()
    server.wait_for("listens on")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


SLOW = """
import sys, time
from clipsrv import cli
from clipsrv.runtime import encoder
real = encoder.SessionEncoder.embed
def slow(self, batch):
    time.sleep({seconds})
    return real(self, batch)
encoder.SessionEncoder.warm_up = lambda *arguments, **options: None
encoder.SessionEncoder.embed = slow
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def run_slow(models_dir: Path, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """The server in a process of its own where each inference takes some seconds."""
    started: list[ServerProcess] = []

    def start(seconds: float, *flags: object) -> ServerProcess:
        program = tmp_path / "slow.py"
        program.write_text(SLOW.format(seconds=seconds))
        common = ("--model", "tiny", "--models-dir", models_dir, "--device", "cpu", "--port", 0, "--log-level", "info")
        started.append(ServerProcess(*common, *flags, command=[sys.executable, str(program)]))
        return started[-1].ready()

    yield start
    for server in started:
        server.close()


class Asking(threading.Thread):
    """Asks for one image's vector and keeps the status, or the error's name."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.outcome = url, ""
        self.start()

    def run(self) -> None:
        headers = {"Content-Type": "image/jpeg"}
        request = urllib.request.Request(f"{self.url}/embed", cuttings(1)[0], headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                self.outcome = str(response.status)
        except OSError as error:
            self.outcome = type(error).__name__


def wait_until_in_work(server: ServerProcess) -> None:
    for _ in range(300):
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as response:
            if b"clipsrv_slots_in_use 1.0" in response.read():
                return
        threading.Event().wait(0.05)
    raise AssertionError("the request did not arrive")


def test_sigterm_finishes_accepted_work_and_refuses_new_and_signals_in_one_moment_are_one_wish(
    run_slow: Callable[..., ServerProcess],
) -> None:
    server = run_slow(3)
    asking = Asking(server.url)
    wait_until_in_work(server)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        server.signal(number)
    server.wait_for("finishing")
    for number in (signal.SIGINT, signal.SIGTERM):
        server.signal(number)
    late = Asking(server.url)
    late.join(30)
    assert late.outcome in {"HTTPError", "URLError"}, "503, or nobody listens any more"
    asking.join(60)
    assert asking.outcome == "200"
    assert server.wait() == 0
    assert "stopped, 0 requests left unfinished" in server.log
    assert "second signal" not in server.log


def test_work_beyond_the_grace_time_is_left_and_said(run_slow: Callable[..., ServerProcess]) -> None:
    server = run_slow(20, "--grace", 0.5)
    asking = Asking(server.url)
    wait_until_in_work(server)
    server.signal(signal.SIGTERM)
    assert server.wait(15) == 0
    assert "stopped, 1 requests left unfinished" in server.log
    asking.join(10)
    assert asking.outcome in {"HTTPError", "RemoteDisconnected", "ConnectionResetError", "URLError"}


def test_a_signal_while_the_model_loads_ends_the_process_at_once(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "large", text=False)
    size = 64 * 2**30  # of zeros that take no room: nobody hashes them in ten seconds
    with (folder / "vision.fp32.onnx.data").open("wb") as file:
        file.truncate(size)
    manifest = load_manifest(folder)
    files = {**manifest.files, "vision.fp32.onnx.data": FileSpec("0" * 64, size)}
    (folder / "manifest.json").write_text(replace(manifest, files=files).to_json(), encoding="utf-8")
    server = ServerProcess("--model", "large", "--models-dir", tmp_path, "--port", 0)
    try:
        server.wait_for("listens on")
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert "stopped, 0 requests left unfinished" in server.log
        assert "Traceback" not in server.log
    finally:
        server.close()


def test_a_second_signal_ends_at_once(run_slow: Callable[..., ServerProcess]) -> None:
    server = run_slow(20)
    Asking(server.url)
    wait_until_in_work(server)
    server.signal(signal.SIGTERM)
    server.wait_for("finishing")
    threading.Event().wait(1.2)  # by now it is another wish
    server.signal(signal.SIGTERM)
    assert server.wait(10) == -signal.SIGTERM
    assert "second signal" in server.log


SLOW_TO_READ = """
import sys, time
from clipsrv import cli
from clipsrv.models.model import Model
Model.read_image = lambda *arguments, **options: time.sleep(60)
sys.exit(cli.main(sys.argv[1:]))
"""


def test_an_image_that_decodes_past_the_grace_time_is_503_and_the_process_ends_within_it(models_dir: Path) -> None:
    flags = ("--model", "tiny", "--models-dir", models_dir, "--device", "cpu", "--port", 0, "--grace", 6)
    server = ServerProcess(*flags, command=[sys.executable, "-c", SLOW_TO_READ]).ready()
    try:
        replies: list[Reply] = []
        data = request("POST", "/embed", cuttings(1)[0], "Content-Type: image/jpeg")
        asking = threading.Thread(target=lambda: replies.append(server.ask(data, 60)))
        asking.start()
        wait_until_in_work(server)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        asking.join(30)
        assert (replies[0].status, replies[0].code) == (503, "shutting_down")
        assert "stopped, 1 requests left unfinished" in server.log
        begin, end = (
            datetime.fromisoformat(server.wait_for(text).split()[0]) for text in ("stopping: finishing", "stopped, 1")
        )
        assert 4 < (end - begin).total_seconds() < 6
    finally:
        server.close()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_closed_at_the_start_do_no_harm(closed: str, models_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address: tuple[str, int] = probe.getsockname()[:2]
    flags = ("--model", "tiny", "--models-dir", models_dir, "--device", "cpu", "--port", address[1])
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "clipsrv")
    process = subprocess.Popen([*shell, *map(str, flags)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(300):
            with suppress(OSError):
                if ask(address, request("GET", "/health", None)).status == 200:
                    break
            threading.Event().wait(0.1)
        streams = {number: os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)}
        assert not [target for target in streams.values() if not target.startswith(("/", "pipe:"))], streams
        image = request("POST", "/embed", cuttings(1)[0], "Content-Type: image/jpeg")
        assert ask(address, image).status == 200
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in said
    finally:
        process.kill()
        process.communicate()


#: A server that says when its threads give way sooner than Python's own do.
TURNS = """
import sys, threading, time
from clipsrv import cli

def tell():
    while sys.getswitchinterval() >= 0.001:
        time.sleep(0.05)
    print("turns are short", file=sys.stderr, flush=True)

threading.Thread(target=tell, daemon=True).start()
sys.exit(cli.main(sys.argv[1:]))
"""


def test_threads_that_run_python_give_way_within_a_millisecond(models_dir: Path) -> None:
    flags = ("--model", "tiny", "--models-dir", models_dir, "--device", "cpu", "--port", 0)
    server = ServerProcess(*flags, command=(sys.executable, "-c", TURNS))
    try:
        server.wait_for("turns are short")
    finally:
        server.close()
