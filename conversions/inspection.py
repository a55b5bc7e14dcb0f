"""Looking at what is converted: the list, and the re-check of one folder. Writes nothing."""

from __future__ import annotations

from pathlib import Path

from clipsrv.manifest import NAME, TEXT, VISION, ModelManifest, list_models, load_manifest, verify_files
from conversions import hub, verify
from conversions.checkpoint import Checkpoint
from conversions.convert import Say, find_checkpoint, reference
from conversions.errors import CheckpointError
from conversions.golden import TEXTS, golden_images
from conversions.known import KNOWN, HubCheckpoint


def list_all(models_dir: Path) -> str:
    """The known names and the folders of `models_dir`, for people."""
    converted = list_models(models_dir)
    lines = ["Known names (python -m conversions NAME):"]
    lines += [f"  {name:22} {known.repo} at {known.revision[:12]}: {known.purpose}" for name, known in KNOWN.items()]
    lines.append(f"Converted, in {models_dir}:")
    lines += [f"  {name:22} {_summary(manifest)}" for name, manifest in converted.items()]
    broken = sorted(path.name for path in models_dir.glob("*") if path.is_dir() and NAME.fullmatch(path.name))
    lines += [f"  {name:22} not a usable model folder" for name in broken if name not in converted]
    return "\n".join(lines if len(lines) > len(KNOWN) + 2 else [*lines, "  nothing yet"])


def verify_folder(folder: Path, source: HubCheckpoint | Path | None, *, offline: bool, say: Say) -> str:
    """Checks a model folder again and says what was checked.

    Files against the manifest always; equality with the original if its checkpoint is given, or still in the Hub's
    cache. Raises ModelError if a file changed or the checkpoint is another one, ParityError if the vectors differ.
    """
    manifest = load_manifest(folder)
    say(f"Comparing {len(manifest.files)} files with their checksums")
    verify_files(folder, manifest)
    lines = [f"{folder}: {len(manifest.files)} files are as they were converted."]
    precisions = [name for name in verify.LIMITS if name in manifest.towers[VISION].variants]
    checkpoint = _original(manifest, source, offline=offline, say=say)
    if checkpoint is None:
        say("Running the model on the golden images")
        verify.run_once(folder, manifest)
        lines.append(
            f"It runs ({', '.join(precisions)}). Equality with the original was not measured again, since the "
            "checkpoint is not at hand: give it with --checkpoint. As measured when it was converted:"
        )
        return "\n".join([*lines, verify.as_text(verify.from_json(manifest.parity))])
    _, originals = reference(checkpoint, say)
    say("Comparing the conversion with the original")
    table = verify.measure(folder, precisions, golden_images(), TEXTS, originals)
    verify.judge(table)
    return "\n".join([*lines, verify.as_text(table)])


def _summary(manifest: ModelManifest) -> str:
    precisions = ", ".join(sorted(manifest.towers[VISION].variants))
    megabytes = sum(spec.size for spec in manifest.files.values()) / 1e6
    text = "with text" if TEXT in manifest.towers else "images only"
    origin = f"{manifest.source.get('repo')} at {manifest.source.get('revision', '')[:12]}"
    return f"{manifest.dimensions} dimensions, {text}, {precisions}, {megabytes:.0f} MB, from {origin}"


def _original(
    manifest: ModelManifest, source: HubCheckpoint | Path | None, *, offline: bool, say: Say
) -> Checkpoint | None:
    if source is None:
        repo, revision = manifest.source.get("repo", ""), manifest.source.get("revision", "")
        known = HubCheckpoint(repo, revision, manifest.source["weights_sha256"])
        if revision == "local" or hub.find_cached(known) is None:
            return None
        source = known
    checkpoint = find_checkpoint(source, offline=offline, say=say)
    if checkpoint.source["weights_sha256"] != manifest.source["weights_sha256"]:
        raise CheckpointError(
            f"{manifest.name} was not made from this checkpoint: its weights hash to "
            f"{manifest.source['weights_sha256'][:12]}…, these to {checkpoint.source['weights_sha256'][:12]}…."
        )
    if changed := [part for part, made in manifest.made_from.items() if made != checkpoint.made_from[part]]:
        raise CheckpointError(
            f"{manifest.name} was made from it before its {' and '.join(changed)} changed: convert it again."
        )
    return checkpoint
