"""The embed subcommand: arguments to a job. Imports what is heavy only once the arguments are read."""

from __future__ import annotations

import argparse
import logging
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from typing import Any

from clipsrv.bulk.errors import ENGINE_EXIT_STATUS, GivenUpError, OutputError
from clipsrv.bulk.options import ENGINES, LOCAL, JobOptions
from clipsrv.bulk.sources.columns import Columns
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.bulk.sources.reader import Fetching
from clipsrv.bulk.voice import Voice
from clipsrv.config import Config, Parser, add_flags, read
from clipsrv.errors import ConfigError, EngineError, StartError
from clipsrv.installation import how_to_install, program

#: Gives the signal received, if any.
Received = Callable[[], int | None]

#: The server's settings that mean the same here.
SETTINGS = (
    *("model", "models_dir", "device", "precision", "threads", "decode_threads", "max_batch_size"),
    *("max_image_bytes", "max_pixels", "max_pixels_in_flight", "max_aspect_ratio", "exif_orientation"),
    "fast_decode",
)

EXIT_STATUS = """
exit status:
  0  every image that can be used is in the output  5  the device is not there
  1  --strict, and an image cannot be used           6  the output cannot be written or continued
  2  wrong arguments, or no image can be used         7  inference failed, or memory ran out
  3  no such model                                    8  an image took too long; the next run leaves it out
                                            130, 143  interrupted; the shard in work was finished
Whatever the status, run the same command again to go on where it ended.
"""


def embed_parser() -> argparse.ArgumentParser:
    """The parser of `embed`: its own arguments, and a flag for each of SETTINGS."""
    parser = job_parser("embed", "Embeds image files without a server.")
    add = parser.add_argument
    add(
        "--out",
        required=True,
        metavar="FILE",
        help="FILE.npy, FILE.parquet, FILE.jsonl, FILE.lance or postgresql://...",
    )
    add("--table", default="image_embeddings", help="table of a postgresql:// output (default: %(default)s)")
    add(
        "--patience",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="wait for a database that is away, or a cluster without room (default: 600)",
    )
    _add_shards(parser)
    add("--prune", action="store_true", help="take away rows of images that are not named any more (FILE.lance)")
    add("--ann", action="store_true", help="make its index for approximate search, or bring it up to date (FILE.lance)")
    return parser


def _add_shards(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("a job in shards, for one machine or many (docs/scale.md)").add_argument
    add("--work", metavar="FOLDER", help="where its list and what is done of it are kept: a path, s3://... and such")
    add("--rows-per-shard", type=int, default=100_000, metavar="N", help="images of a shard (default: %(default)s)")
    add("--shard", metavar="I/N", help="compute every N-th shard from the I-th on, from 0 (default: 0/1, all)")
    add("--engine", choices=ENGINES, default=LOCAL, help="who computes: this machine, or a cluster (default: local)")
    add(
        "--address",
        metavar="ADDRESS",
        help="of the Ray cluster; auto: the one this machine is of (default: one made here)",
    )
    add("--actors", type=int, metavar="N", help="processes of Ray that hold a model each (default: as many as fit)")
    add("--gpus-per-actor", type=float, metavar="F", help="GPUs of each, 0.5 for two on one (default: 0)")


def job_parser(command: str, about: str) -> argparse.ArgumentParser:
    """What every job over image files takes."""
    parser = Parser(f"{program()} {command}", about, epilog=EXIT_STATUS)
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        metavar="PATH",
        help='image, folder, "glob", each also at s3://, gs:// or az://, URL, or - for a list on standard input',
    )
    add(
        "--files-from",
        action="append",
        default=[],
        metavar="LIST",
        help="file of one path, or JSON with id and path, a line",
    )
    add("-0", "--null", action="store_true", help="paths of lists end in NUL, as find -print0 writes them")
    add(
        "--fetch-seconds",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="for one image that lies elsewhere, all tries together (default: 60)",
    )
    add("--fetch-threads", type=int, default=32, metavar="N", help="images fetched at once (default: %(default)s)")
    add(
        "--allow-private-addresses", action="store_true", help="fetch http(s) URLs of this machine and its networks too"
    )
    add("--encoding", metavar="NAME", help="of lists: utf-16, cp932 (default: as marked, else the bytes of the paths)")
    add("--query", metavar="SQL", help="rows of a postgresql://... that is named: an id, and a path, URL or image")
    add("--id-column", metavar="NAME", help="of Parquet, a query and lists of objects: ids (default: id)")
    add(
        "--image-column",
        metavar="NAME",
        help="paths, URLs or bytes of images (default: path, or the only other one)",
    )
    add("--relative-to", metavar="FOLDER", help="ids are paths relative to this folder (default: paths as given)")
    add(
        "--image-seconds",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="end when an image takes longer to decode, and leave it out of the next run; 0: never (default: 300)",
    )
    add(
        "--errors",
        metavar="FILE",
        help="where bad images are listed (default: FILE.errors.jsonl, TABLE.errors.jsonl)",
    )
    add("--strict", action="store_true", help="end at an image that cannot be used")
    add("--restart", action="store_true", help="begin again, over an unfinished or finished output")
    add("--as-listed", action="store_true", help="go on with the list as first taken, whatever was added since")
    add("--shard-size", type=int, default=256, metavar="N", help="images stored together (default: %(default)s)")
    add("--quiet", action="store_true", help="say nothing but errors")
    add_flags(parser, SETTINGS, model="model that embeds: a folder of --models-dir (default: vit-b-32)")
    return parser


def run(argv: Sequence[str]) -> int:
    """Embeds what the arguments name and returns the exit status. Failures are one line on stderr."""
    return carry_out(vars(embed_parser().parse_args(argv)), _embed)


def carry_out(given: Mapping[str, Any], job: Callable[[JobOptions, Config, Received], int]) -> int:
    """The exit status of `job` with what was `given` to a parser. Failures are one line on stderr."""
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs, object for object, what it raises too
    try:
        options, config = _options(given), read({name: given[name] for name in SETTINGS})
        with _stopping_at_a_shard() as received, closing(_stoppable(options.inputs, received)) as inputs:
            try:
                return job(replace(options, inputs=inputs), config, received)
            except GivenUpError as error:
                message, status = str(error), 128 + (received() or 0)
    except StartError as error:
        message, status = error.message, error.exit_status
    except EngineError as error:
        message, status = error.message, ENGINE_EXIT_STATUS
    except sqlite3.Error as error:
        message, status = f"Cannot keep the index of this job on the disk: {error}.", OutputError.exit_status
    Voice().write(f"clipsrv: {message}\n")
    return status


def _embed(options: JobOptions, config: Config, received: Received) -> int:
    if options.work is not None:
        try:
            from clipsrv.bulk.sharded import run_in_shards
        except ImportError as error:
            raise ConfigError(f"A job in shards needs {error.name}: {how_to_install('shards')}") from None
        return run_in_shards(options, config, received)
    from clipsrv.bulk.run import run_job

    return run_job(options, config, received)


def _stoppable(inputs: Inputs, received: Received) -> Inputs:
    return replace(inputs, stop=lambda: received() is not None)


def _options(given: Mapping[str, Any]) -> JobOptions:
    fetching = Fetching(given["fetch_seconds"], given["allow_private_addresses"])
    lists = (given["paths"], given["files_from"], given["null"])
    columns = Columns(given["id_column"], given["image_column"])
    inputs = Inputs(*lists, given["relative_to"], given["encoding"], fetching, columns, given["query"])
    names = (item.name for item in fields(JobOptions) if item.name in given)
    return JobOptions(inputs, **{name: given[name] for name in names})


@contextmanager
def _stopping_at_a_shard() -> Iterator[Received]:
    """A function that gives the signal received, if any; a second signal ends the process at once."""
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        received.append(number)
        for name, handler in before.items():
            signal.signal(name, signal.SIG_DFL if name == number else handler)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
