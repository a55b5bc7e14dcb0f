"""Arguments to Config to run. Heavy imports stay inside the command that needs them, so that --help is instant."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, NoReturn

from clipsrv import __version__
from clipsrv.config import Config, Parser, add_flags, read, service_links, unknown_variables
from clipsrv.errors import ConfigError, DeviceError, StartError
from clipsrv.installation import how_to_install, program
from clipsrv.providers.table import extras
from clipsrv.stderr import set_apart

if TYPE_CHECKING:
    from clipsrv.server.workers.place import Place

logger = logging.getLogger("clipsrv")

_EXAMPLES = """\
examples:
  {0} --model demo
  {0} embed photos --model demo --out photos.npy
  {0} search photos.npy --text "red heart"
  {0} doctor --model vit-b-32"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command named first in `argv`, or `serve`; the exit status of StartError's kind on failure."""
    if sys.platform == "win32":
        print("clipsrv runs on Linux and macOS; on Windows run it in WSL 2 or in Docker.", file=sys.stderr)
        return StartError.exit_status
    open_standard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = arguments[0] if arguments else ""
    if first and not first.startswith("-") and first not in COMMANDS:
        return _no_command(first)
    command = COMMANDS[arguments.pop(0)][0] if first in COMMANDS else _serve
    if argv is None and command is not _doctor:  # then the process is ours
        set_apart()
        # Texts come to the tokenizers library one at a time: its pool of threads would be started for nothing.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Pillow warns of oddities in words taken from the image. What is dangerous raises, or is refused by its size.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        return command(arguments)
    except StartError as error:
        _say(f"clipsrv: {error.message}")
        return error.exit_status
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        _say(f"clipsrv: onnxruntime is not installed. Run one of: {'; '.join(map(how_to_install, extras()))}")
        return DeviceError.exit_status
    except KeyboardInterrupt:
        return 130


def serve_parser() -> argparse.ArgumentParser:
    """The parser of `serve`: one flag for each field of Config."""
    others = "\n".join(f"  {name:<8} {text}" for name, (_, text) in COMMANDS.items())
    about = "Serves CLIP embeddings of images and texts over HTTP.\n\ncommands:\n"
    return _parser("[serve] [options]", f"{about}{others}\n\n{_EXAMPLES.format(program())}")


def read_config(argv: Sequence[str], parser: argparse.ArgumentParser | None = None) -> Config:
    """Config of flags over CLIPSRV_* variables over defaults. Raises ConfigError."""
    return read(vars((parser or serve_parser()).parse_args(argv)))


def _parser(usage: str, description: str) -> argparse.ArgumentParser:
    ends = "Every option can also be set by the variable in brackets; the option wins."
    parser = Parser(program(), description, usage=f"%(prog)s {usage}", epilog=ends)
    parser.add_argument("--version", action="version", version=f"clipsrv {__version__}")
    add_flags(parser, [item.name for item in fields(Config)])
    return parser


def _no_command(word: str) -> int:
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, 1)
    meant = f": did you mean {near[0]}?" if near else f"; there are {', '.join(COMMANDS)}."
    _say(f"clipsrv: there is no command {ascii(word)[:64]}{meant}")
    return ConfigError.exit_status


def _serve(argv: Sequence[str]) -> int:
    config = read_config(argv)

    from clipsrv.server.logs import set_up
    from clipsrv.server.workers.place import Place

    place = Place.taken()
    set_up(config.log_level, config.log_format, always={"worker": place.number} if place else {})
    if place is not None:
        _work(config, place)
    _warn(argv)
    if config.workers > 1:
        return _supervise(config, argv)

    from clipsrv.server.http.rounds import run
    from clipsrv.server.lifecycle import serve

    try:
        run(serve(config))
    finally:
        logging.shutdown()  # what was logged is written before the last word on stderr
    # Decoding and inference threads cannot be stopped; what they still do is of no use to anyone.
    os._exit(0)


def _work(config: Config, place: Place) -> NoReturn:
    from clipsrv.server.http.rounds import run
    from clipsrv.server.lifecycle import serve
    from clipsrv.server.workers.worker import Worker

    worker, status = Worker(place), 0
    try:
        run(serve(config, worker=worker))
    except StartError as error:
        worker.tell_failure(error)
        status = error.exit_status
    finally:
        logging.shutdown()
        worker.close()
    os._exit(status)  # as above


def _supervise(config: Config, argv: Sequence[str]) -> int:
    import asyncio
    from importlib.util import find_spec

    from clipsrv.server.workers.supervisor import interpreter, supervise

    if find_spec("onnxruntime") is None:  # each worker would say so
        raise ModuleNotFoundError(name="onnxruntime")
    try:
        failure = asyncio.run(supervise(config, [*interpreter(), "-m", "clipsrv", "serve", *argv]))
    finally:
        logging.shutdown()
    if failure is None:
        return 0
    _say(f"clipsrv: {failure.message}")
    return failure.exit_status


def _warn(argv: Sequence[str]) -> None:
    for name in unknown_variables():
        logger.warning("%s is set but is no setting of clipsrv: misspelt?", ascii(name)[1:-1])
    if links := service_links():
        logger.info("%s: set by Kubernetes for a Service of that name, and no settings", ", ".join(links))

    for name, instead in (("--api-keys", "--api-key-file"), ("--metrics-keys", "CLIPSRV_METRICS_KEYS")):
        if any(argument.startswith(name) for argument in argv):
            logger.warning("%s shows the keys to everyone who can list processes: use %s", name, instead)


def _say(text: str) -> None:
    """The last word on stderr, if it can be written; the exit status says it too."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # a full disk, or whoever read has gone; Python would try once more at its end, and exit with 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def open_standard_streams() -> None:
    """Opens the null device where whoever started us had closed a standard stream: its number would become that of a
    socket or a file, and what a library prints would go there. `sys.stdin` stays None: nobody gave us anything."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            if number:
                setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _doctor(argv: Sequence[str]) -> int:
    about = "Says what this machine has, what would run on it and how fast, and the one thing to change.\n\n"
    config = read_config(argv, _parser("doctor [options]", about + "Takes the options of the server it would start."))

    from clipsrv import doctor

    try:
        return doctor.run(config)
    except BrokenPipeError:  # whoever read has seen enough; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _embed(argv: Sequence[str]) -> int:
    from clipsrv.bulk.command import run

    return run(argv)


def _classify(argv: Sequence[str]) -> int:
    from clipsrv.bulk.classify import run

    return run(argv)


def _search(argv: Sequence[str]) -> int:
    from clipsrv.search.command import run

    return run(argv)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "serve": (_serve, "serve over HTTP (the default)"),
    "doctor": (_doctor, "say what this machine has, what would run and how fast; takes the options of serve"),
    "embed": (_embed, "embed image files without a server; see embed --help"),
    "classify": (_classify, "say which of some labels image files are, without a server; see classify --help"),
    "search": (_search, "find images in what embed wrote, by a text or an image; see search --help"),
}
