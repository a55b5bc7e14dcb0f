"""One driver at a time for a part of a job: a file that its holder writes anew again and again.

No two machines' clocks are compared: who waits watches whether the file changes. A holder that was thought gone, and
was not, finds that out and stops; what it wrote meanwhile is what its successor writes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.work.folder import Folder

#: Seconds between two signs of life, and after which without one a holder counts as gone.
BEAT, LEASE = 10.0, 60.0


class Place:
    """The place `name` of a job in `folder`, held from `take` to `close`."""

    def __init__(self, folder: Folder, name: str, *, beat: float = BEAT, lease: float = LEASE) -> None:
        self._folder, self._file = folder, f"drivers/{name}.json"
        self._beat, self._lease = beat, lease
        self._token = uuid.uuid4().hex
        self._lost = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._live, name="place", daemon=True)

    def take(self, say: Callable[[str], None] = lambda message: None) -> bool:
        """Takes the place, from a holder that is gone too; False if its holder is alive. `say` is told of a wait.
        Raises OutputError."""
        if not self._folder.create(self._file, self._sign(0)):
            if not self._is_gone(say):
                return False
            self._folder.write(self._file, self._sign(0))
            time.sleep(min(1.0, self._beat))  # of two that find it gone, the one that wrote last has it
            if self._holder().get("token") != self._token:
                return False
        self._thread.start()
        return True

    def is_held(self, say: Callable[[str], None] = lambda message: None) -> bool:
        """Whether somebody holds it and is alive."""
        return bool(self._holder()) and not self._is_gone(say)

    def holder(self) -> str:
        """Who holds it, for people."""
        found = self._holder()
        return f"process {found.get('pid', '?')} on {found.get('host', '?')}"

    def check(self) -> None:
        """Raises OutputError if another has taken the place, since this process was silent for so long."""
        if self._lost:
            raise OutputError(f"Another driver took over the work in {self._folder.url}: {self.holder()}.")

    def close(self) -> None:
        """Leaves the place to others."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
            with suppress(OutputError):  # it is held to be gone after a while, then
                if not self._lost and self._holder().get("token") == self._token:
                    self._folder.remove(self._file)

    def _is_gone(self, say: Callable[[str], None]) -> bool:
        first = self._holder()
        if not first or _is_dead(first):
            return True
        say(f"Waiting up to {self._lease:g} s to see whether {self.holder()} is at work in {self._folder.url} still.")
        ends = time.monotonic() + self._lease
        while time.monotonic() < ends:
            time.sleep(self._beat / 4)
            if self._holder() != first:
                return not self._holder()
        return True

    def _live(self) -> None:
        number = 0
        while not self._closed.wait(self._beat):
            number += 1
            with suppress(OutputError):  # of a store that is away for a moment; the next sign may come through
                found = self._holder()
                if found and found.get("token") != self._token:
                    self._lost = True
                    return
                self._folder.write(self._file, self._sign(number))

    def _holder(self) -> dict[str, Any]:
        try:
            found = json.loads(self._folder.read(self._file) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _sign(self, number: int) -> bytes:
        return json.dumps({"token": self._token, "beat": number, "pid": os.getpid(), **_here()}).encode()


def _here() -> dict[str, str]:
    """This machine, and the part of it in which process ids mean something."""
    namespace = Path("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "namespace": os.readlink(namespace) if namespace.exists() else ""}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that has ended."""
    if any(holder.get(name) != value for name, value in _here().items()):
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, KeyError, TypeError, ValueError):
        return False
    return int(holder["pid"]) == os.getpid()
