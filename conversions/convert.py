"""The use case: checkpoint in, verified model folder out, in one step or not at all.

Joins the other modules; the heavy ones are imported where their stage begins.
"""

from __future__ import annotations

import datetime
import gc
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from clipsrv import __version__
from clipsrv.errors import ClipsrvError, ModelError
from clipsrv.manifest import MANIFEST_NAME, TEXT, VISION, ModelManifest, load_manifest, verify_files
from clipsrv.models.shapes import memory_to_convert
from clipsrv.specs import FileSpec, PreprocessSpec, ScoringSpec
from conversions import hub, verify
from conversions.checkpoint import Checkpoint, open_checkpoint
from conversions.errors import explained
from conversions.families.family import FUSED
from conversions.files import hash_files
from conversions.folder import locked, partial_folder, publish, require_space
from conversions.golden import TEXTS, golden_images
from conversions.known import HubCheckpoint
from conversions.texts import INT8, TOWERS, are_exact, leave_out, towers_of

if TYPE_CHECKING:
    from conversions.families.family import Identity, Original
    from conversions.reference import Originals

_LIBRARIES = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True)
class Job:
    """One conversion. `source` is a repository of the Hub or a folder; `precisions` are variants of optimize.py, fp32
    always among them.

    `exact_texts` leaves texts in fp32 beside int8 images. `facts` (license, note) are what the user says of the model,
    and go before what the source says.
    """

    name: str
    models_dir: Path
    source: HubCheckpoint | Path
    precisions: tuple[str, ...] = ("fp32",)
    offline: bool = False
    force: bool = False
    wait: float = 600.0
    facts: Mapping[str, str] = field(default_factory=dict)
    exact_texts: bool = False

    @property
    def stages(self) -> int:
        """How many stages `convert` announces, the waiting for another converter not counted."""
        written = sum(len(towers_of(name, exact_texts=self.exact_texts)) for name in self.precisions)
        return 5 + len(TOWERS) + written

    @property
    def place(self) -> Path:
        return self.models_dir / self.name


#: Told the name of every stage as it begins.
Say = Callable[[str], None]


def convert(job: Job, say: Say) -> verify.Table | None:
    """Makes the model folder of `job`; None if it is there already, whole and made from the same checkpoint.

    Raises StartError; whatever it is, the folder is then what it was before.
    """
    with explained(job.models_dir), locked(job.models_dir, job.wait, say):
        return _convert(job, say)


def _convert(job: Job, say: Say) -> verify.Table | None:
    old = _whole(job.place)
    enough = old is not None and not job.force and set(job.precisions) <= set(old.towers[VISION].variants)
    if old and enough and isinstance(job.source, HubCheckpoint) and _is_pinned(old, job.source):
        return None
    checkpoint = find_checkpoint(job.source, offline=job.offline, say=say)
    unchanged = old is not None and old.made_from == checkpoint.made_from
    if enough and unchanged:
        return None
    # fp32, half of that for each further precision, and for a while a tower's graph as it was exported: for fp16 twice.
    halves = 3 + len(job.precisions) + (FUSED in job.precisions)
    require_space(job.models_dir, halves * checkpoint.weight_bytes // 2 + 2**20)
    original, originals = reference(checkpoint, say)
    if old is not None and not old.made_from:
        unchanged = _is_the_same(job.place, old, checkpoint, originals)
        if enough and unchanged:
            return None
    if old and unchanged and are_exact(old) and not job.exact_texts:
        say("Leaving texts in fp32 as they are there, so that stored vectors keep their id")
        job = replace(job, exact_texts=True)
    # Explained before the partial folder goes: afterwards a full disk no longer looks full.
    with partial_folder(job.models_dir, job.name) as partial, explained(job.models_dir):
        tokenizer, content = checkpoint.family.tokenizer(checkpoint.folder, checkpoint.facts)
        (partial / tokenizer).write_bytes(content)
        scoring, identity = original.scoring, original.identity(content)
        towers = {
            tower: _write_tower(
                original, tower, job, old if unchanged else None, checkpoint.facts.preprocess, partial, say
            )
            for tower in TOWERS
        }
        del original
        gc.collect()
        if old and unchanged:
            identity = dict(old.identity)
        manifest = _describe(job, checkpoint, towers, partial, tokenizer, scoring, identity)
        say("Comparing the conversion with the original")
        table = verify.measure(partial, job.precisions, golden_images(), TEXTS, originals)
        if INT8 in table[TEXT] and not table[TEXT][INT8].within(verify.LIMITS[INT8]):
            say("Leaving texts in fp32: in int8 they would be too far from the original")
            manifest = leave_out(manifest, partial)
            del table[TEXT][INT8]
        verify.judge(table)
        _write_manifest(partial, replace(manifest, parity=verify.as_json(table)))
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


def reference(checkpoint: Checkpoint, say: Say) -> tuple[Original, Originals]:
    """The original model, and its answers to the golden images and texts."""
    say(f"Loading PyTorch and the original (about {memory_to_convert(checkpoint.weight_bytes) / 1e9:.1f} GB of memory)")
    from conversions.reference import compute_originals

    safetensors = ".safetensors" in checkpoint.weights[0].suffixes
    original = checkpoint.family.load(checkpoint.folder, checkpoint.facts, safetensors=safetensors)
    say("Asking the original for its vectors")
    return original, compute_originals(original, golden_images(), TEXTS)


def _describe(
    job: Job,
    checkpoint: Checkpoint,
    towers: Mapping[str, dict[str, str]],
    partial: Path,
    tokenizer: str,
    scoring: ScoringSpec,
    identity: Identity,
) -> ModelManifest:
    """The manifest of what lies in `partial`, which is written there so that it can be loaded."""
    from conversions.export import tower_spec

    manifest = ModelManifest(
        name=job.name,
        dimensions=checkpoint.facts.dimensions,
        preprocess=checkpoint.facts.preprocess,
        towers={tower: tower_spec(tower, variants, checkpoint.facts, tokenizer) for tower, variants in towers.items()},
        files=_checksums(partial),
        source={**checkpoint.source, **job.facts},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={"clipsrv": __version__, "python": platform.python_version()}
        | {name: version(name) for name in _LIBRARIES},
        family=checkpoint.family.name,
        scoring=scoring,
        made_from=checkpoint.made_from,
        identity=identity,
    )
    _write_manifest(partial, manifest)
    return manifest


def _write_manifest(folder: Path, manifest: ModelManifest) -> None:
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")


def _write_tower(
    original: Original, tower: str, job: Job, kept: ModelManifest | None, spec: PreprocessSpec, folder: Path, say: Say
) -> dict[str, str]:
    """If vectors of the folder that is there are to be `kept`, what it has in 8 bits is."""
    from conversions.towers import write_tower

    there = kept.towers[tower].variants if kept else {}
    return write_tower(
        original.tower(tower),
        tower,
        [name for name in job.precisions if tower in towers_of(name, exact_texts=job.exact_texts)],
        {name: job.place / graph for name, graph in there.items() if name.startswith(INT8)},
        spec=spec,
        folder=folder,
        say=say,
    )


def _checksums(folder: Path) -> dict[str, FileSpec]:
    files = {}
    for path in sorted(folder.iterdir()):
        # Some writers make files that only their owner may read; the server may run as somebody else.
        path.chmod(0o644)
        files[path.name] = FileSpec(sha256=hash_files((path,)), size=path.stat().st_size)
    return files


def _whole(place: Path) -> ModelManifest | None:
    """The manifest of the model there, if there is one and every file is as it says."""
    try:
        manifest = load_manifest(place)
        verify_files(place, manifest)
    except ModelError:
        return None
    return manifest


def _is_pinned(old: ModelManifest, source: HubCheckpoint) -> bool:
    """Whether it was made from this very commit, of which nothing can have changed: known without the network."""
    return (old.source["weights_sha256"], old.source.get("revision")) == (source.weights_sha256, source.revision)


def _is_the_same(place: Path, old: ModelManifest, checkpoint: Checkpoint, originals: Originals) -> bool:
    """Whether a folder of format 1, which does not say what it was made from, gives the original's vectors today.

    If so it keeps its identity, and with it the id of vectors that are stored somewhere.
    """
    if (
        old.source["weights_sha256"] != checkpoint.source["weights_sha256"]
        or old.preprocess != checkpoint.facts.preprocess
    ):
        return False
    try:
        table = verify.measure(place, ("fp32",), golden_images(), TEXTS, originals)
    except ClipsrvError:
        return False
    return all(rows["fp32"].within(verify.SAME) for rows in table.values())
