"""The search subcommand: arguments to a search. Imports what is heavy only once the arguments are read."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from clipsrv.config import Parser, add_flags, read, variable
from clipsrv.errors import (
    ClipsrvError,
    EngineError,
    ImageError,
    InvalidTextError,
    StartError,
    TextTowerMissingError,
)
from clipsrv.installation import program

#: The server's settings that mean the same here.
SETTINGS = (
    *("model", "models_dir", "device", "precision", "threads"),
    *("max_image_bytes", "max_pixels", "max_aspect_ratio"),
)

EPILOG = """
INDEX is what embed wrote: FILE.npy, FILE.jsonl, FILE.parquet, FILE.lance or postgresql://...
The model is the one that made its vectors, found in --models-dir by the index's embedding_id; another --model than
that is refused.

exit status:
  0  found, or nothing is there to be found        6  the index cannot be read, or was made by another model
  1  the text or the image cannot be used           7  inference failed, or memory ran out
  2  wrong arguments                              130  interrupted
  3  no such model     5  the device is not there
"""
#: Exit statuses of what is no StartError.
_UNUSABLE_QUERY, _UNWRITABLE, _ENGINE = 1, 6, 7


def search_parser() -> argparse.ArgumentParser:
    """The parser of `search`: its own arguments, and a flag for each of SETTINGS."""
    about = "Finds the images of an index that are most like a text or an image, without a server."
    parser = Parser(f"{program()} search", about, epilog=EPILOG)
    add = parser.add_argument
    add("index", metavar="INDEX", help="what embed wrote")
    add("--text", action="append", default=[], metavar="TEXT", help="what to look for")
    add("--image", action="append", default=[], metavar="FILE", help="an image like which others are looked for")
    add("--limit", type=int, default=10, metavar="N", help="images found at most, 1 to 10,000 (default: %(default)s)")
    add("--json", action="store_true", help="print one JSON object: results with id, path, sha256 and score")
    add("--html", metavar="FILE", help="write a page of thumbnails too, which needs nothing beside itself")
    add("--ann", action="store_true", help="ask the ANN index of a .lance; how much it found is said (default: exact)")
    add("--table", default="image_embeddings", help="table of a postgresql:// index (default: %(default)s)")
    add_flags(parser, SETTINGS, model="model that made the index (default: found by the index)")
    return parser


def run(argv: Sequence[str]) -> int:
    """Searches for what the arguments say and returns the exit status. Failures are one line on stderr."""
    given = vars(search_parser().parse_args(argv))
    # Only a model that somebody named is held against the index; the default is the one that made it.
    named = given["model"] is not None or variable("model") in os.environ
    try:
        config = read({name: given[name] for name in SETTINGS})

        from clipsrv.search.run import Asked, search

        asked = Asked(
            index=given["index"],
            texts=tuple(given["text"]),
            images=tuple(given["image"]),
            model=config.model if named else None,
            table=given["table"],
            limit=given["limit"],
            as_json=given["json"],
            html=given["html"],
            ann=given["ann"],
        )
        search(asked, config, _say)
        return 0
    except (ImageError, InvalidTextError, TextTowerMissingError) as error:
        return _failed(error, _UNUSABLE_QUERY)
    except EngineError as error:
        return _failed(error, _ENGINE)
    except StartError as error:
        return _failed(error, error.exit_status)
    except MemoryError:
        _say("Memory ran out.")
        return _ENGINE
    except BrokenPipeError:  # whoever read has seen enough; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:  # a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _say(f"Cannot write what was found: {error.strerror or error}.")
        return _UNWRITABLE


def _failed(error: ClipsrvError, status: int) -> int:
    _say(error.message)
    return status


def _say(text: str) -> None:
    print(f"clipsrv: {text}", file=sys.stderr)
