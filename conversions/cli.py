"""The converter's command line: arguments, progress, one line for each failure, and the exit status.

Knows nothing of torch: whatever is heavy is imported by the work itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from clipsrv.errors import ClipsrvError, ConfigError, StartError
from clipsrv.installation import how_to_install
from clipsrv.manifest import NAME
from conversions.errors import ConversionError
from conversions.known import KNOWN, HubCheckpoint

#: A precision and the variants it is written as.
PRECISIONS = {"fp32": ("fp32",), "fp16": ("fp16",), "int8": ("int8", "int8-openvino")}
_NEEDED = ("torch", "transformers", "optimum", "onnx", "onnxruntime", "huggingface_hub", "threadpoolctl", "tqdm")

_DESCRIPTION = """\
Converts a CLIP or SigLIP checkpoint once, offline, to ONNX files that clipsrv serves, and proves them equal to the
original: both are run on the same images and texts, and nothing is written if they differ."""

_EPILOG = """\
examples:
  python -m conversions vit-b-32                          a model by name (--list shows them)
  python -m conversions vit-l-14 --precision fp16         with a half-precision graph for CUDA too
  python -m conversions waon-siglip2-b-16-256             knows Japanese
  python -m conversions --checkpoint google/siglip2-large-patch16-256 --name siglip2-large
  python -m conversions --checkpoint ./my-finetuned-clip --name mine
  python -m conversions --verify onnx_models/vit-b-32     is it still what was converted?

exit status: 0 done, 2 usage or a missing package, 3 checkpoint or model folder unusable,
  6 disk full or conversion failed, 7 the Hugging Face Hub cannot be reached. 130 interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(parser, args)
    except ClipsrvError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if args.debug:
            raise
        return error.exit_status if isinstance(error, StartError) else ConversionError.exit_status
    except KeyboardInterrupt:
        print("Interrupted: no half-made model is left behind.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conversions",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", metavar="NAME", help=f"one of {', '.join(KNOWN)}")
    parser.add_argument("--checkpoint", metavar="REPO_OR_FOLDER", help="any checkpoint of CLIP or SigLIP")
    parser.add_argument("--name", help="the model's name, with --checkpoint (default: NAME)")
    parser.add_argument("--revision", help="commit, tag or branch on the Hub (default: the pinned one, else main)")
    parser.add_argument(
        "--models-dir",
        type=Path,
        default=Path(os.environ.get("CLIPSRV_MODELS_DIR", "onnx_models")),
        metavar="DIR",
        help="where model folders lie (default: $CLIPSRV_MODELS_DIR, else onnx_models)",
    )
    parser.add_argument(
        "--precision",
        action="append",
        choices=PRECISIONS,
        default=[],
        help="a further precision to write; fp32 always is; may be repeated",
    )
    parser.add_argument(
        "--exact-texts",
        action="store_true",
        help="leave texts in fp32 beside int8 images: the embedding_id of folders converted before int8 took texts",
    )
    parser.add_argument("--license", metavar="TEXT", help="what the weights may be used under, for /models")
    parser.add_argument("--note", metavar="TEXT", help="what the model is and is not for, for /models")
    parser.add_argument(
        "--languages",
        type=_languages,
        metavar="CODES",
        help="what its texts may be in, as en,ja or many, for /models and the server's notice of other scripts",
    )
    parser.add_argument("--offline", action="store_true", help="use only what the Hub's cache on this disk holds")
    parser.add_argument("--force", action="store_true", help="convert again even if the folder is there and unchanged")
    parser.add_argument(
        "--wait",
        type=float,
        default=600,
        metavar="SECONDS",
        help="how long to wait for another converter of the same models folder (default: 600)",
    )
    parser.add_argument("--list", action="store_true", help="show the known names and what is converted, and end")
    parser.add_argument(
        "--verify",
        type=Path,
        metavar="FOLDER",
        help="check a converted folder: its checksums and, with the checkpoint at hand, its equality with the original",
    )
    parser.add_argument("--debug", action="store_true", help="show the libraries' warnings and full tracebacks")
    return parser


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    if args.list:
        from conversions.inspection import list_all

        print(list_all(args.models_dir))
        return 0
    _require_packages()
    if not args.debug:
        _quiet()
    from conversions.progress import Progress

    if args.verify is not None:
        from conversions.inspection import verify_folder

        with Progress(stages=5) as progress:
            report = verify_folder(
                args.verify, _source(args) if args.checkpoint else None, offline=args.offline, say=progress
            )
        print(report)
        return 0
    name, source = _target(parser, args)
    from conversions.convert import Job, convert
    from conversions.verify import as_text

    asked = {"fp32", *args.precision}
    precisions = tuple(variant for name, variants in PRECISIONS.items() if name in asked for variant in variants)
    facts = {key: getattr(args, key) for key in ("license", "note", "languages") if getattr(args, key)}
    job = Job(name, args.models_dir, source, precisions, args.offline, args.force, args.wait, facts, args.exact_texts)
    with Progress(job.stages) as progress:
        table = convert(job, progress)
    if table is None:
        print(
            f"{job.place} is there already and whole, made from the same checkpoint: nothing to do (--force does it)."
        )
    else:
        print(as_text(table))
        print(f"{job.place} is ready: python -m clipsrv --model {name}")
    return 0


def _target(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[str, HubCheckpoint | Path]:
    name = args.name or args.model
    if name is None:
        parser.error("give a NAME, or --checkpoint and --name (--list shows the known names)")
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} cannot be a model's name: letters, digits, '.', '_' and '-', at most 64.")
    if args.checkpoint is None and args.model not in KNOWN:
        raise ConfigError(
            f"Unknown model {args.model!r}. Known: {', '.join(KNOWN)}. Any other checkpoint: "
            "--checkpoint REPO_OR_FOLDER --name NAME."
        )
    return name, _source(args)


def _source(args: argparse.Namespace) -> HubCheckpoint | Path:
    if args.checkpoint is None:
        known = KNOWN[args.model]
        return known if args.revision is None else HubCheckpoint(known.repo, args.revision, license=known.license)
    folder = Path(args.checkpoint)
    looks_like_a_path = args.checkpoint.startswith((".", "/", "~")) or args.checkpoint.count("/") != 1
    if folder.is_dir() or looks_like_a_path:
        return folder.expanduser()
    return HubCheckpoint(args.checkpoint, args.revision or "main")


def _languages(text: str) -> str:
    codes = text.replace(",", " ").split()
    if not codes or not all(code == "many" or re.fullmatch("[a-z]{2,3}", code) for code in codes):
        raise argparse.ArgumentTypeError(f"{text!r} is not like en,ja or many")
    return " ".join(codes)


def _require_packages() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"Converting needs {', '.join(missing)}: {how_to_install('convert')}")


def _quiet() -> None:
    """Keeps the libraries' own notes off the screen: tracer warnings, deprecations, hints for other users."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import logging

    logging.disable(logging.WARNING)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
