"""Docker by its own command line: images, containers, and what was expected of them."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: What the recipes read from the shell; a drill begins with none of it.
TAKEN = ("MODEL", "POSTGRES_PASSWORD", "COMPOSE_PROFILES")
IMAGE = (ROOT / "tests/golden/preprocess/size-landscape.jpg").read_bytes()


class CommandFailed(Exception):
    """A command that was to succeed did not; the message is its last words."""


@dataclass
class Report:
    """What was expected, line by line, and how much of it did not hold."""

    failures: list[str] = field(default_factory=list)

    def expect(self, what: str, holds: bool, shown: object = "") -> None:
        print(f"  {'ok  ' if holds else 'FAIL'} {what}{f': {shown}' if shown != '' else ''}", flush=True)
        if not holds:
            self.failures.append(what)

    def failed(self, what: str, error: Exception) -> None:
        self.expect(what, False, error)


def run(
    *command: str | Path, check: bool = True, text: str | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """Output of a command, both streams together. Raises CommandFailed unless `check` is False or it succeeds."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("CLIPSRV_") and name not in TAKEN
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**inherited, **(variables or {})},
        input=text,
        stdin=None if text is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise CommandFailed(f"{shlex.join(map(str, command))}: status {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def docker(
    *words: str | Path, check: bool = True, text: str | None = None, variables: Mapping[str, str] | None = None
) -> str:
    return run("docker", *words, check=check, text=text, variables=variables)


def build(target: str, *options: str) -> str:
    """The tag of the Dockerfile's target, built. Prints how long that took."""
    began, tag = time.monotonic(), f"clipsrv:{target}"
    docker("build", "--target", target, "--tag", tag, *options, ".")
    print(f"  built {tag} in {time.monotonic() - began:.0f} s", flush=True)
    return tag


class Container:
    """One that was started, by its id."""

    def __init__(self, number: str) -> None:
        self._id = number

    def inspect(self, template: str) -> str:
        return docker("inspect", "--format", template, self._id).strip()

    def logs(self) -> str:
        return docker("logs", self._id)

    def run(self, *words: str, check: bool = True) -> str:
        """Output of a program inside."""
        return docker("exec", self._id, *words, check=check)

    def write(self, path: str, text: str) -> None:
        """A file inside, and its folder."""
        docker("exec", "--interactive", self._id, "sh", "-c", f"mkdir -p $(dirname {path}) && cat > {path}", text=text)

    def copy(self, source: Path, target: str) -> None:
        docker("cp", source, f"{self._id}:{target}")

    def become_healthy(self, seconds: float = 120) -> None:
        """Waits for the image's own HEALTHCHECK. Raises CommandFailed with the log if it does not come to that."""
        limit = time.monotonic() + seconds
        while (state := self.inspect("{{.State.Status}} {{.State.Health.Status}}")) != "running healthy":
            if time.monotonic() > limit or not state.startswith("running"):
                raise CommandFailed(f"{state}\n{self.logs()[-3000:]}")
            time.sleep(0.5)

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Waits for a line of the log. Raises CommandFailed with the log if it does not come."""
        limit = time.monotonic() + seconds
        while text not in (log := self.logs()):
            if time.monotonic() > limit:
                raise CommandFailed(f"no {text!r} in\n{log[-3000:]}")
            time.sleep(0.2)

    def wait(self) -> int:
        """Exit status of one that ends by itself."""
        return int(docker("wait", self._id))

    def stop(self) -> tuple[int, float]:
        """Exit status, and seconds from SIGTERM to the end."""
        began = time.monotonic()
        docker("stop", "--time", "60", self._id)
        return int(self.inspect("{{.State.ExitCode}}")), time.monotonic() - began


@contextmanager
def started(image: str, *words: str, options: tuple[str, ...] = ()) -> Iterator[Container]:
    """A container of `image` in the background, which is gone afterwards."""
    number = docker("run", "--detach", *options, image, *words).strip().splitlines()[-1]
    try:
        yield Container(number)
    finally:
        docker("rm", "--force", "--volumes", number)


@contextmanager
def served(image: str, *words: str, options: tuple[str, ...] = ()) -> Iterator[tuple[Container, str]]:
    """A container of `image` as README.md starts it (read-only, no capabilities), and its address on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    hardened = ("--read-only", "--cap-drop", "ALL", "--publish", f"127.0.0.1:{port}:5000")
    with started(image, *words, options=(*hardened, *options)) as container:
        yield container, f"http://127.0.0.1:{port}"


def last(said: str) -> str:
    """The last line."""
    return (said.strip().splitlines() or [""])[-1]


def ask(url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """Status and JSON of an answer. An image as the body, unless the headers say what it is."""
    request = urllib.request.Request(url, body, {"Content-Type": "image/jpeg", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def stood_on() -> None:
    """Prints what the drill runs on: a registry's images, or stand-ins of the same name."""
    print("docker", docker("version", "--format", "engine {{.Server.Version}}, client {{.Client.Version}}").strip())
    for image in ("python:3.11-slim-bookworm", "python:3.11-bookworm"):
        if docker("image", "ls", "--quiet", image).strip() == "":
            docker("pull", "--quiet", image)
        digests, size = docker("image", "inspect", "--format", "{{.RepoDigests}} {{.Size}}", image).rsplit(maxsplit=1)
        inside = "import platform as p; print(p.python_version(), p.freedesktop_os_release()['PRETTY_NAME'])"
        what = docker("run", "--rm", image, "python3", "-c", inside).strip()
        origin = f"from a registry, {digests}" if "@" in digests else "a stand-in made on this machine"
        print(f"{image}: {origin}; Python {what}; {int(size) / 1e6:.1f} MB", flush=True)
    sys.stdout.flush()
