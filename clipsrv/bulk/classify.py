"""The classify subcommand: arguments, and the job whose vectors end in labels."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clipsrv.bulk.command import Received, carry_out, job_parser
from clipsrv.bulk.options import JobOptions
from clipsrv.config import Config
from clipsrv.errors import ConfigError


def classify_parser() -> argparse.ArgumentParser:
    """The parser of `classify`: its own arguments, and those of every job."""
    parser = job_parser(
        "classify",
        "Says which of some labels each image file is, without a server. Put the images before --labels, or options\n"
        "between: whatever follows --labels is a label.",
    )
    add = parser.add_argument
    add("--out", required=True, metavar="FILE", help="FILE.csv or FILE.jsonl")
    add("--labels", action="extend", nargs="+", default=[], metavar="LABEL", help="what an image may be")
    add("--labels-file", action="append", default=[], metavar="FILE", help="file of one label a line, in UTF-8")
    add("--template", metavar="TEXT", help='what the model reads, with {} for the label ("This is a photo of {}.")')
    add("--top", type=int, default=1, metavar="N", help="labels written of each image; 0: all (default: 1)")
    return parser


def run(argv: Sequence[str]) -> int:
    """Classifies what the arguments name and returns the exit status. Failures are one line on stderr."""
    parser = classify_parser()
    given = vars(parser.parse_args(argv))
    if given["labels"] and not given["paths"] and not given["files_from"]:
        taken = next(filter(os.path.lexists, given["labels"]), given["labels"][-1])
        parser.error(f"no images are named; what follows --labels is a label, {taken[:64]!r} too: put images before it")
    return carry_out(given, partial(_classify, given))


def _classify(given: dict[str, Any], options: JobOptions, config: Config, received: Received) -> int:
    from clipsrv.bulk.run import run_into_file
    from clipsrv.bulk.tags import Asked, product
    from clipsrv.models.scoring import TEMPLATE

    labels = [*given["labels"], *(label for name in given["labels_file"] for label in _read(name))]
    template = TEMPLATE if given["template"] is None else given["template"]
    asked = Asked(tuple(labels), template, given["top"], config.max_batch_size)
    return run_into_file(options, config, received, product(asked, Path(options.out)))


def _read(name: str) -> list[str]:
    try:
        lines = Path(name).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ConfigError(f"Cannot read the labels of {name}: {error.strerror}.") from None
    except ValueError:
        raise ConfigError(f"The labels of {name} are not text in UTF-8.") from None
    return [label for line in lines if (label := line.strip())]
