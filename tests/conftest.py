"""Fixtures for the whole suite: one small real model, and the real server beside or inside the test process."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import pytest_asyncio

from clipsrv.config import Config
from clipsrv.models.model import Model
from clipsrv.server.app import open_library
from tests.conversions.conftest import MAKE_CHECKPOINT, ROOT, command, environment
from tests.support.debugging import DEBUGGING, no_callback_keeps_the_loop
from tests.support.model import NAME, make_model, write_model
from tests.support.npm import installed
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess, demo_alone
from tests.support.serving import Client, serving

# A verdict on a change must not depend on luck; by hand every run looks at other examples.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In asyncio's debug mode only tests that use its loop are run: the second run of scripts/test."""
    if DEBUGGING:
        chosen = [item for item in items if item.get_closest_marker("asyncio")]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest_asyncio.fixture(autouse=DEBUGGING)
async def nothing_keeps_the_loop() -> AsyncIterator[None]:
    """In the debug mode, no callback takes the loop for long."""
    asyncio.get_running_loop().slow_callback_duration = math.inf
    with no_callback_keeps_the_loop():
        yield


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that holds one, `tiny`. Tests do not write to it."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / NAME)
    return folder


@pytest.fixture(scope="session")
def npm() -> str:
    """The npm command, with node_modules as package-lock.json says."""
    return installed()


@pytest.fixture(scope="session")
def tiny_model(models_dir: Path) -> Path:
    """The model folder itself."""
    return models_dir / NAME


@pytest.fixture
def model() -> Model:
    """The small model, open on the CPU with one thread; whoever uses it may close it."""
    return make_model()


@pytest.fixture
def config(models_dir: Path) -> Callable[..., Config]:
    """A Config that serves the small model, with the changes given."""

    def make(**changes: Any) -> Config:
        return Config(**{"model": NAME, "models_dir": str(models_dir), "device": "cpu", "port": 0, **changes})

    return make


@pytest_asyncio.fixture
async def serve_here(config: Callable[..., Config]) -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    """serve_here(load=None, wait=True, **settings): a client of the small model's server in this process."""
    async with AsyncExitStack() as running:

        async def start(load: Callable[[], Model] | None = None, *, wait: bool = True, **settings: Any) -> Client:
            chosen = config(**settings)
            here = serving(load or (open_library(chosen) if settings else None), wait=wait, **vars(chosen))
            return (await running.enter_async_context(here)).client

        yield start


@pytest_asyncio.fixture
async def client(serve_here: Callable[..., Awaitable[Client]]) -> Client:
    """A client of the small model's server in this process."""
    return await serve_here()


@pytest.fixture
def run_server(models_dir: Path) -> Iterator[Callable[..., ServerProcess]]:
    """run_server(*flags, env=None): a process of its own that serves the small model on a free port."""
    started: list[ServerProcess] = []

    def start(*flags: object, env: dict[str, str] | None = None) -> ServerProcess:
        common = ("--model", NAME, "--models-dir", models_dir, "--device", "cpu", "--port", 0)
        started.append(ServerProcess(*common, *flags, env=env))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="session")
def server(models_dir: Path) -> Iterator[ServerProcess]:
    """One process that serves the small model for every test that leaves it as it was."""
    running = ServerProcess("--model", NAME, "--models-dir", models_dir, "--device", "cpu", "--port", 0)
    yield running.ready()
    running.close()


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One process that serves the bundled model and knows of no other."""
    running = demo_alone(tmp_path_factory.mktemp("models"))
    yield running.ready()
    running.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL with pgvector."""
    database = Postgres()
    yield database
    database.remove()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    subprocess.run([sys.executable, MAKE_CHECKPOINT, "tiny", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def converted_model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint converted with every precision."""
    models = tmp_path_factory.mktemp("models")
    arguments = ("--checkpoint", tiny_checkpoint, "--name", "tiny", "--models-dir", models, "--precision", "fp16")
    done = subprocess.run(command(*arguments), cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return models / "tiny"
