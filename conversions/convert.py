"""The use case: checkpoint in, verified model folder out, in one step or not at all.

Joins the other modules; the heavy ones are imported where their stage begins.
"""

from __future__ import annotations

import datetime
import gc
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from clipsrv import __version__
from clipsrv.errors import ModelError, StartError
from clipsrv.manifest import (
    MANIFEST_NAME,
    TEXT,
    VISION,
    FileSpec,
    ModelManifest,
    load_manifest,
    verify_files,
)
from conversions import hub, verify
from conversions.checkpoint import TOKENIZER, Checkpoint, hash_files, open_checkpoint
from conversions.errors import ConversionError
from conversions.folder import locked, partial_folder, publish, require_space
from conversions.golden import TEXTS, golden_images
from conversions.known import HubCheckpoint

if TYPE_CHECKING:
    from transformers import CLIPModel

    from conversions.reference import Originals

TOWERS = (VISION, TEXT)
#: A text is computed once and searched with many times: int8 would save little there and cost accuracy.
TOWERS_OF = {"int8": (VISION,), "int8-openvino": (VISION,)}
_LIBRARIES = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime", "numpy", "pillow")
_RAW = "raw"


@dataclass(frozen=True)
class Job:
    """One conversion. `source` is a repository of the Hub or a folder; `precisions` are variants of optimize.py, fp32
    always among them.

    `facts` (license, note) are what the user says of the model, and go before what the source says.
    """

    name: str
    models_dir: Path
    source: HubCheckpoint | Path
    precisions: tuple[str, ...] = ("fp32",)
    offline: bool = False
    force: bool = False
    wait: float = 600.0
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def stages(self) -> int:
        """How many stages `convert` announces, the waiting for another converter not counted."""
        written = sum(len(TOWERS_OF.get(precision, TOWERS)) for precision in self.precisions)
        return 5 + len(TOWERS) + written

    @property
    def place(self) -> Path:
        return self.models_dir / self.name


#: Told the name of every stage as it begins.
Say = Callable[[str], None]


def convert(job: Job, say: Say) -> verify.Table | None:
    """Makes the model folder of `job`; None if it is there already, whole and of the same weights.

    Raises StartError; whatever it is, the folder is then what it was before.
    """
    with _explained(job.models_dir), locked(job.models_dir, job.wait, say):
        return _convert(job, say)


def _convert(job: Job, say: Say) -> verify.Table | None:
    if isinstance(job.source, HubCheckpoint) and _is_done(job, job.source.weights_sha256):
        return None
    checkpoint = find_checkpoint(job.source, offline=job.offline, say=say)
    if _is_done(job, checkpoint.source["weights_sha256"]):
        return None
    # fp32, half of that for each further precision, and for a while a tower's graph as it was exported.
    require_space(job.models_dir, (3 + len(job.precisions)) * checkpoint.weight_bytes // 2 + 2**20)
    # Explained before the partial folder goes: afterwards a full disk no longer looks full.
    with partial_folder(job.models_dir, job.name) as partial, _explained(job.models_dir):
        table = _build(job, checkpoint, partial, say)
        say("Moving it into place")
        publish(partial, job.place)
    return table


def find_checkpoint(source: HubCheckpoint | Path, *, offline: bool, say: Say) -> Checkpoint:
    """The checkpoint on this disk, downloaded if need be."""
    if isinstance(source, Path):
        say(f"Reading {source}")
        return open_checkpoint(source, source.resolve().name, "local", "unknown")
    say(f"Fetching {source.repo}")
    folder, commit = hub.fetch(source, offline=offline)
    return open_checkpoint(folder, source.repo, commit, source.license)


def reference(checkpoint: Checkpoint, say: Say) -> tuple[CLIPModel, Originals]:
    """The original model, and its answers to the golden images and texts."""
    say("Loading PyTorch and the original")
    from conversions.reference import compute_originals, load_original

    model = load_original(checkpoint)
    say("Asking the original for its vectors")
    return model, compute_originals(model, checkpoint, golden_images(), TEXTS)


def _build(job: Job, checkpoint: Checkpoint, partial: Path, say: Say) -> verify.Table:
    model, originals = reference(checkpoint, say)
    towers = {tower: _write_tower(model, tower, job.precisions, partial, say) for tower in TOWERS}
    del model
    gc.collect()
    _write_tokenizer(checkpoint, partial / TOKENIZER)
    from conversions.export import tower_spec

    manifest = ModelManifest(
        name=job.name,
        dimensions=checkpoint.dimensions,
        preprocess=checkpoint.preprocess,
        towers={
            tower: tower_spec(tower, variants, checkpoint.context_length, TOKENIZER)
            for tower, variants in towers.items()
        },
        files=_checksums(partial),
        source={**checkpoint.source, **job.facts},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={"clipsrv": __version__, "python": platform.python_version()}
        | {name: version(name) for name in _LIBRARIES},
    )
    (partial / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    say("Comparing the conversion with the original")
    table = verify.measure(partial, job.precisions, golden_images(), TEXTS, originals)
    verify.judge(table)
    (partial / MANIFEST_NAME).write_text(replace(manifest, parity=verify.as_json(table)).to_json(), encoding="utf-8")
    return table


def _write_tower(model: CLIPModel, tower: str, precisions: Sequence[str], partial: Path, say: Say) -> dict[str, str]:
    """Writes the tower's graphs; returns the file name of each precision."""
    from conversions.export import export_tower
    from conversions.optimize import VARIANTS, RawGraph

    scratch = partial / _RAW
    scratch.mkdir()
    config = model.config.vision_config if tower == VISION else model.config.text_config
    raw = RawGraph(scratch / f"{tower}.onnx", heads=config.num_attention_heads, width=config.hidden_size)
    say(f"Exporting the {tower} tower")
    export_tower(model, tower, raw.path)
    variants = {}
    for precision in precisions:
        if tower not in TOWERS_OF.get(precision, TOWERS):
            continue
        say(f"Writing {tower} {precision}")
        variants[precision] = f"{tower}.{precision}.onnx"
        VARIANTS[precision](raw, partial / variants[precision])
    shutil.rmtree(scratch)
    return variants


def _write_tokenizer(checkpoint: Checkpoint, path: Path) -> None:
    """tokenizer.json as the checkpoint has it, or made from its vocabulary and merges."""
    if (checkpoint.folder / TOKENIZER).is_file():
        shutil.copyfile(checkpoint.folder / TOKENIZER, path)
        return
    from conversions.reference import load_tokenizer

    load_tokenizer(checkpoint).backend_tokenizer.save(str(path))


def _checksums(folder: Path) -> dict[str, FileSpec]:
    files = {}
    for path in sorted(folder.iterdir()):
        # Some writers make files that only their owner may read; the server may run as somebody else.
        path.chmod(0o644)
        files[path.name] = FileSpec(sha256=hash_files((path,)), size=path.stat().st_size)
    return files


def _is_done(job: Job, weights_sha256: str | None) -> bool:
    """Whether the folder is whole and was made from these weights with every precision asked for."""
    if job.force or weights_sha256 is None:
        return False
    try:
        manifest = load_manifest(job.place)
        verify_files(job.place, manifest)
    except ModelError:
        return False
    there = manifest.towers[VISION].variants
    return manifest.source["weights_sha256"] == weights_sha256 and all(name in there for name in job.precisions)


@contextmanager
def _explained(models_dir: Path) -> Iterator[None]:
    """Makes a ConversionError of whatever torch, onnx, onnxruntime or the disk raise."""
    try:
        yield
    except StartError:
        raise
    except Exception as error:
        raise ConversionError(_why(error, models_dir)) from error


def _why(error: Exception, models_dir: Path) -> str:
    """One sentence for an error of torch, onnx, onnxruntime or the disk."""
    reason = (str(error).strip().splitlines() or [""])[0][:240]
    full = shutil.disk_usage(models_dir).free < 2**20
    if isinstance(error, OSError) and error.errno is not None:
        reason = f"{error.strerror} ({Path(str(error.filename or models_dir)).name})"
    if full:
        return f"The disk of {models_dir} is full. Free some space and run it again. ({type(error).__name__}: {reason})"
    return f"The conversion failed and nothing was written: {type(error).__name__}: {reason}"
