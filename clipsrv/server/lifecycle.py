"""From start to last answer: listen, load, serve, drain, leave. Everything that a signal or a port can do is here."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from aiohttp import web

from clipsrv import __version__
from clipsrv.config import Config
from clipsrv.errors import AddressError, ClipsrvError, StartError
from clipsrv.images.agreement import pixels_of_pillow, resize_is_pillows
from clipsrv.images.resize import COMPILED, HOW_TO_COMPILE
from clipsrv.machine import keep_large_blocks_apart, memory_limit
from clipsrv.models.known import in_words
from clipsrv.models.library import Library
from clipsrv.server.allowance import FewFiles, addresses_left, files_for, open_files, room_for, save_addresses
from clipsrv.server.api.state import BODIES, EMBEDDER
from clipsrv.server.app import build_app, make_runner, open_library, start
from clipsrv.server.http.connection import TOLD
from clipsrv.server.http.middleware import GUARD, REQUESTS
from clipsrv.server.http.security import SHORT_KEY, is_loopback
from clipsrv.serving.admission import Admission
from clipsrv.serving.embedder import Embedder
from clipsrv.serving.memory import memory_bound

logger = logging.getLogger("clipsrv")

#: Seconds after which a thread that runs Python gives way to one that waits, for Python's five milliseconds: whoever
#: comes back from the network waits so long for each thread that works, and the event loop does at every read.
_TURN = 0.0005
#: Image side of most models in pixels.
_USUAL_CROP = 224
#: Seconds to read what had been sent when the last request seemed to be done.
_LAST_CALLERS = 0.2
#: Seconds of the grace time, if it has as many twice, that are kept for telling what is left, and for leaving.
_FAREWELL = 1.0
#: Seconds after the first signal in which another is the same wish: supervisors signal a process, and then its group.
_ONE_WISH = 1.0


async def serve(config: Config, library: Library | None = None) -> None:
    """Serves the models of `library`, or those configured, until SIGTERM or SIGINT.

    Then finishes accepted work within the grace time, and answers 503 to what is left of it; a second signal ends at
    once. Raises StartError if the model, the device or the address cannot be had.
    """
    save_addresses()
    keep_large_blocks_apart()
    stop = _signalled()
    asyncio.get_running_loop().set_exception_handler(FewFiles().handle)
    room = room_for(config.max_connections, TOLD, open_files(files_for(config.max_connections, TOLD)))
    wanted, config = config.max_connections, replace(config, max_connections=room.connections)
    app = build_app(config, library or open_library(config))
    runner = make_runner(app, config)
    await runner.setup()
    gc.collect()
    sys.setswitchinterval(_TURN)
    gc.freeze()  # to look through all that was imported takes tens of milliseconds, each time, of everyone
    try:
        address = await _listen(runner, config, room.backlog)
        for warning in warnings(config, app[GUARD].key_lengths, wanted):
            logger.warning(warning)
        logger.info("clipsrv %s listens on %s; loading %s", __version__, address, config.model)
        await _run(runner, app, config, stop)
    finally:
        await runner.cleanup()


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
    bound = memory_bound(config, _USUAL_CROP)
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


async def _listen(runner: web.AppRunner, config: Config, backlog: int) -> str:
    bracketed = re.fullmatch(r"\[(.+)\]", config.host)
    host = bracketed[1] if bracketed else config.host
    try:
        await web.TCPSite(runner, host, config.port, backlog=backlog, reuse_port=False).start()
    except UnicodeError:
        raise AddressError(f"Cannot listen on {config.host}: this is no address and no host name.") from None
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AddressError(
            f"Cannot listen on {config.host}:{config.port}: {reason}. "
            f"Choose another with --port, or see what holds it with: {_who_holds(config.port, sys.platform)}"
        ) from None
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _who_holds(port: int, platform: str) -> str:
    """The command that tells, and who it often is."""
    if platform == "darwin":
        return f"lsof -nP -iTCP:{port}" + (" (on a Mac AirPlay Receiver has 5000)" if port == 5000 else "")
    return f"ss -ltnp 'sport = :{port}'"


def _signalled() -> asyncio.Event:
    """Set by SIGTERM or SIGINT; another one, a moment later, ends the process."""
    loop, stop, first = asyncio.get_running_loop(), asyncio.Event(), list[float]()

    def ask_to_stop(number: int) -> None:
        first.append(loop.time())
        if stop.is_set() and loop.time() - first[0] > _ONE_WISH:
            logger.warning("second signal: leaving at once")
            logging.shutdown()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop, number)
    return stop


async def _run(runner: web.AppRunner, app: web.Application, config: Config, stop: asyncio.Event) -> None:
    embedder = app[EMBEDDER]
    starting, stopping = asyncio.create_task(_start(app, config)), asyncio.create_task(stop.wait())
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


async def _start(app: web.Application, config: Config) -> None:
    try:
        await start(app)
    except StartError:
        raise
    except ClipsrvError as error:
        raise StartError(f"The model does not run: {error.message}") from error
    _announce(app[EMBEDDER], config)


async def _finish(runner: web.AppRunner, requests: Admission) -> None:
    """Returns once what was sent before the signal has its answer, even if it was still in the kernel's buffers."""
    await requests.wait_idle()
    await asyncio.sleep(_LAST_CALLERS)
    for site in list(runner.sites):
        await site.stop()
    await asyncio.sleep(_LAST_CALLERS)
    await requests.wait_idle()


def _announce(embedder: Embedder, config: Config) -> None:
    model = embedder.model
    assert model is not None
    logger.info(
        "ready: model %s (%d dimensions), device %s, precision %s, threads %d, batch up to %d, text %s%s",
        config.model,
        model.manifest.dimensions,
        model.device,
        model.precision,
        model.threads,
        config.max_batch_size,
        "on" if model.text_encoder else "off",
        f" (knows {in_words(model.languages)})" if model.text_encoder and model.languages else "",
    )
