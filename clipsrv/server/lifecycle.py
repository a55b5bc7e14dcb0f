"""From start to last answer: listen, load, serve, drain, leave, as the only process or as one of several."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from aiohttp import web

from clipsrv import __version__
from clipsrv.config import Config
from clipsrv.errors import ClipsrvError, StartError
from clipsrv.images.agreement import pixels_of_pillow, resize_is_pillows
from clipsrv.images.resize import COMPILED, HOW_TO_COMPILE
from clipsrv.machine import keep_large_blocks_apart, memory_limit
from clipsrv.models.known import in_words
from clipsrv.models.library import Library
from clipsrv.server.allowance import FewFiles, addresses_left, files_for, open_files, room_for, save_addresses
from clipsrv.server.api.state import BODIES, EMBEDDER, WORKER, own_state
from clipsrv.server.app import build_app, make_runner, open_library, start
from clipsrv.server.http.connection import TOLD
from clipsrv.server.http.middleware import GUARD, METRICS, REQUESTS
from clipsrv.server.http.rounds import each_had_its_turn
from clipsrv.server.http.security import SHORT_KEY, is_loopback
from clipsrv.server.listening import bare, explained, url
from clipsrv.server.signals import signalled
from clipsrv.server.workers.worker import Worker
from clipsrv.serving.admission import Admission
from clipsrv.serving.embedder import Embedder
from clipsrv.serving.memory import memory_bound
from clipsrv.settings import share_of, threads_of
from clipsrv.topology import Threads, keep_to

logger = logging.getLogger("clipsrv")

#: Seconds after which a thread that runs Python gives way to one that waits, for Python's five milliseconds: whoever
#: comes back from the network waits so long for each thread that works, and the event loop does at every read.
_TURN = 0.0005
#: Image side of most models in pixels.
_USUAL_CROP = 224
#: Seconds to read what had been sent when the last request seemed to be done.
_LAST_CALLERS = 0.2
#: Turns of each connection until all that it had sent is a request: it is accepted, read, and the request begins.
_TURNS = 3
#: Seconds of the grace time, if it has as many twice, that are kept for telling what is left, and for leaving.
_FAREWELL = 1.0
_THREADS = web.AppKey("threads", Threads)


async def serve(config: Config, library: Library | None = None, worker: Worker | None = None) -> None:
    """Serves the models of `library`, or those configured, until SIGTERM or SIGINT; as one `worker` of several, which
    has its share of what `config` gives to all, also until whoever started them has gone.

    Then finishes accepted work within the grace time, and answers 503 to what is left of it; a second signal ends at
    once. Raises StartError if the model, the device or the address cannot be had.
    """
    config, threads = take_share(config, worker.number if worker else 1)
    save_addresses()
    keep_large_blocks_apart()
    stop = signalled()
    asyncio.get_running_loop().set_exception_handler(FewFiles().handle)
    room = room_for(config.max_connections, TOLD, open_files(files_for(config.max_connections, TOLD)))
    wanted, config = config.max_connections, replace(config, max_connections=room.connections)
    app = build_app(config, library or open_library(config))
    app[_THREADS] = threads
    if worker is not None:
        app[WORKER] = worker
    runner = make_runner(app, config)
    await runner.setup()
    gc.collect()
    sys.setswitchinterval(_TURN)
    gc.freeze()  # to look through all that was imported takes tens of milliseconds, each time, of everyone
    try:
        if worker is None:
            await _listen(runner, config, room.backlog)
        if worker is None or worker.number == 1:
            for warning in warnings(config, app[GUARD].key_lengths, wanted):
                logger.warning(warning)
        if worker is None:
            where = url(runner.addresses[0])
            logger.info("clipsrv %s listens on %s; loading %s", __version__, where, config.model)
            await _run(runner, app, config, stop)
        else:
            await _work(worker, runner, app, config, stop, room.backlog)
    finally:
        await runner.cleanup()


def take_share(config: Config, number: int) -> tuple[Config, Threads]:
    """The settings and threads of the worker `number`. The calling thread, and those it starts, keep to its CPUs."""
    threads = threads_of(config, number)
    if threads.cpus is not None and not keep_to(threads.cpus):
        logger.warning("this worker may not keep to its NUMA node: the system does not let it choose its CPUs")
    return share_of(config, threads.count), threads


def warnings(config: Config, key_lengths: Sequence[int], wanted: int = 0) -> list[str]:
    """What a careful person would want to be told about these settings on this machine; so many connections were
    `wanted`."""
    found = []
    if not key_lengths and not is_loopback(config.host):
        found.append(f"listening on {config.host} without API keys: whoever reaches it may use it (--api-key-file)")
    if any(length < SHORT_KEY for length in key_lengths):
        found.append(f"an API key is shorter than {SHORT_KEY} characters: it can be guessed")
    if wanted > config.max_connections:
        found.append(
            f"{config.max_connections} connections at most, and not {wanted}: so few files may be open; raise the hard "
            f"limit (ulimit -Hn) to {files_for(wanted, TOLD)}, or lower --max-connections"
        )
    bound = config.workers * memory_bound(config, _USUAL_CROP)
    limit = min((limit for limit in (memory_limit(), addresses_left()) if limit is not None), default=bound)
    if bound > limit:
        found.append(
            f"requests may take {bound >> 20} MiB at worst and {limit >> 20} MiB are allowed: lower "
            "--max-bytes-in-flight, --max-pixels, --max-queue or --cache-bytes"
        )
    if not COMPILED:
        found.append(f"images are resized by Pillow, equal but several times slower: {HOW_TO_COMPILE}")
    elif not resize_is_pillows():
        found.append("images are resized by Pillow, several times slower: the compiled resize gives other pixels here")
    if pixels_of_pillow():
        found.append("this Pillow gives other pixels than 13.0: vectors have another embedding_id and are not compared")
    return found


async def _listen(runner: web.AppRunner, config: Config, backlog: int) -> None:
    with explained(config.host, config.port):
        await web.TCPSite(runner, bare(config.host), config.port, backlog=backlog, reuse_port=False).start()


async def _work(
    worker: Worker, runner: web.AppRunner, app: web.Application, config: Config, stop: asyncio.Event, backlog: int
) -> None:
    async def attend() -> None:
        await worker.attend(lambda: own_state(app), app[METRICS].render)
        stop.set()

    async def opened() -> None:
        if not worker.at_once:
            await worker.take_connections(runner, backlog)

    logger.info("loading %s", config.model)
    attending = asyncio.create_task(attend())
    if worker.at_once:
        await worker.take_connections(runner, backlog)
    await _run(runner, app, config, stop, opened)
    attending.cancel()
    await asyncio.gather(attending, return_exceptions=True)


async def _nothing() -> None:
    """What there is to do for one that listens already."""


async def _run(
    runner: web.AppRunner,
    app: web.Application,
    config: Config,
    stop: asyncio.Event,
    opened: Callable[[], Awaitable[None]] = _nothing,
) -> None:
    embedder = app[EMBEDDER]
    starting, stopping = asyncio.create_task(_start(app, config, opened)), asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        await starting
        await stopping
    logger.info("stopping: finishing %d requests within %g s", app[REQUESTS].in_use, config.grace)
    embedder.drain()
    app[BODIES].hurry()
    with suppress(TimeoutError):
        async with asyncio.timeout(config.grace - min(_FAREWELL, config.grace / 2)):
            await _finish(runner, app[REQUESTS])
    logger.info("stopped, %d requests left unfinished", app[REQUESTS].in_use)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)


async def _start(app: web.Application, config: Config, opened: Callable[[], Awaitable[None]]) -> None:
    try:
        await start(app)
    except StartError:
        raise
    except ClipsrvError as error:
        raise StartError(f"The model does not run: {error.message}") from error
    await opened()
    _announce(app[EMBEDDER], config, app[_THREADS].why)


async def _finish(runner: web.AppRunner, requests: Admission) -> None:
    """Returns once what was sent before the signal has its answer, even if it was still in the kernel's buffers."""
    await requests.wait_idle()
    await _read(runner)
    for site in list(runner.sites):
        await site.stop()
    await _read(runner)
    await requests.wait_idle()


async def _read(runner: web.AppRunner) -> None:
    """What has been sent already. On a busy machine thousands of callers take longer than the time for the last one."""
    await asyncio.sleep(_LAST_CALLERS)
    for _ in range(_TURNS):
        await each_had_its_turn(len(runner.server.connections) if runner.server else 0)


def _announce(embedder: Embedder, config: Config, why: str) -> None:
    model = embedder.model
    assert model is not None
    logger.info(
        "ready: model %s (%d dimensions), device %s, precision %s, threads %d (%s), batch up to %d, text %s%s",
        config.model,
        model.manifest.dimensions,
        model.device,
        model.precision,
        model.threads,
        why,
        config.max_batch_size,
        "on" if model.text_encoder else "off",
        f" (knows {in_words(model.languages)})" if model.text_encoder and model.languages else "",
    )
