"""Is the conversion equal to the original? Runs clipsrv's own code, from bytes to unit vector, against the reference.

Imports neither torch nor transformers: the reference's answers come in as arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipsrv.errors import ModelCorruptError
from clipsrv.images.decode import decode_image
from clipsrv.images.preprocess import preprocess_image, resize_and_crop
from clipsrv.machine import usable_cores
from clipsrv.manifest import TEXT, VISION, ModelManifest, load_manifest, verify_files
from clipsrv.processor import this_processor
from clipsrv.providers.cpu import CPU
from clipsrv.providers.provider import DevicePlan
from clipsrv.runtime.choice import choose_precision
from clipsrv.runtime.encoder import Encoder, SessionEncoder
from clipsrv.runtime.session import open_session
from clipsrv.text.opening import open_tokenizer
from clipsrv.text.tokens import Tokenizer
from conversions.errors import ParityError
from conversions.golden import TEXTS, GoldenImage, golden_images

if TYPE_CHECKING:
    from conversions.reference import Originals

_BATCH = 8
_NEIGHBOURS = 10


@dataclass(frozen=True)
class Limit:
    """Worst allowed difference in one component, and worst error as a share of the mean distance between originals."""

    component: float
    relative: float


#: fp32 differs by the order of summation only. fp16 carries 11 bits: its error is that of the weights' rounding.
#: int8 has 7 bits and a sign for each value: docs/precision.md has what that does to the order of neighbours.
#: The graph for OpenVINO is measured as onnxruntime computes it, with activations rounded by 32 channels (MatMulNBits):
#: OpenVINO rounds them by other groups, which `python -m clipsrv doctor` measures where it runs.
LIMITS = {
    "fp32": Limit(1e-4, 0.01),
    "fp16": Limit(2e-3, 0.05),
    "int8": Limit(2e-2, 0.10),
    "int8-openvino": Limit(2e-2, 0.10),
}
#: Two conversions of one model: far below what another activation or epsilon changes.
SAME = Limit(1e-5, 0.0005)


@dataclass(frozen=True)
class Parity:
    """Measured on unit vectors. `neighbours_kept` is the share of each sample's ten nearest others, by the original,
    that are among the ten nearest by ours; of images, among the demo model's drawings. `inputs` differ from the
    reference's own in `differing_inputs` places before the model: bytes of the cropped images, or token ids."""

    worst_component: float
    worst_cosine: float
    relative_error: float
    neighbours_kept: float
    samples: int
    differing_inputs: int

    def within(self, limit: Limit) -> bool:
        return (
            self.differing_inputs == 0
            and self.worst_component <= limit.component
            and self.relative_error <= limit.relative
        )


Table = dict[str, dict[str, Parity]]


def measure(
    folder: Path, precisions: Sequence[str], images: Sequence[GoldenImage], texts: Sequence[str], originals: Originals
) -> Table:
    """Parity of the model folder by tower and precision. Raises ModelError or EngineError if it does not even run."""
    manifest = load_manifest(folder)
    table: Table = {VISION: {}, TEXT: {}}
    for precision in precisions:
        with opened(folder, manifest, VISION, precision) as encoder:
            table[VISION][precision] = _measure_images(encoder, manifest, images, originals)
        if precision in manifest.towers[TEXT].variants:
            with opened(folder, manifest, TEXT, precision) as encoder:
                table[TEXT][precision] = _measure_texts(encoder, _tokenizer(folder, manifest), texts, originals)
    return table


@contextmanager
def opened(folder: Path, manifest: ModelManifest, tower: str, variant: str) -> Iterator[Encoder]:
    """One graph of the folder on onnxruntime's own CPU kernels, whatever device it is meant for.

    Raises DeviceError for int8 where this CPU would get it wrong, ModelError if the files are not as the manifest says.
    """
    spec = manifest.towers[tower]
    if variant in CPU.precisions:
        choose_precision(variant, CPU.device, spec, this_processor())
    graph = spec.variants[variant]
    verify_files(folder, manifest, [name for name in (graph, f"{graph}.data") if name in manifest.files])
    plan = DevicePlan(CPU.device, usable_cores())
    encoder = SessionEncoder(open_session(folder / graph, plan), spec, manifest.dimensions)
    try:
        yield encoder
    finally:
        encoder.close()


def _tokenizer(folder: Path, manifest: ModelManifest) -> Tokenizer:
    spec = manifest.towers[TEXT]
    if spec.tokenizer is None:
        raise ModelCorruptError(f"{folder} has a text tower and no tokenizer.")
    return open_tokenizer(folder / spec.tokenizer, spec)


def run_once(folder: Path, manifest: ModelManifest) -> None:
    """Runs every graph once; the encoders raise if shapes or values are wrong."""
    image = preprocess_image(decode_image(golden_images()[0].blob), manifest.preprocess)
    for tower, spec in manifest.towers.items():
        ids = [_tokenizer(folder, manifest).encode(text).ids for text in TEXTS] if tower == TEXT else []
        batch = np.stack(ids) if ids else image[None]
        for variant in spec.variants:
            with opened(folder, manifest, tower, variant) as encoder:
                encoder.embed(batch)


def judge(table: Table) -> None:
    """Raises ParityError naming every tower and precision beyond its limit."""
    failed = [
        f"{tower} {precision}"
        for tower, rows in table.items()
        for precision, parity in rows.items()
        if not parity.within(LIMITS[precision])
    ]
    if failed:
        raise ParityError(f"The conversion differs from the original too much ({', '.join(failed)}): not kept.")


def compare(
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
    differing_inputs: int,
    neighbours: NDArray[np.bool_] | slice = slice(None),
) -> Parity:
    """Both (n, dimensions) of unit length, n > 1. Distances are Euclidean, the mean over all pairs of originals.
    `neighbours` chooses the rows among which neighbours are looked for."""
    spread = np.linalg.norm(theirs[:, None].astype(np.float64) - theirs[None], axis=-1)
    mean_distance = spread.sum() / (len(theirs) * (len(theirs) - 1))
    difference = ours.astype(np.float64) - theirs
    return Parity(
        worst_component=float(np.abs(difference).max()),
        worst_cosine=float((ours.astype(np.float64) * theirs).sum(axis=-1).min()),
        relative_error=float(np.linalg.norm(difference, axis=-1).max() / mean_distance),
        neighbours_kept=_neighbours_kept(ours[neighbours], theirs[neighbours]),
        samples=len(theirs),
        differing_inputs=differing_inputs,
    )


def _neighbours_kept(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    count = min(_NEIGHBOURS, len(theirs) - 1)
    pairs = zip(_nearest(ours, count), _nearest(theirs, count), strict=True)
    return sum(len(set(mine) & set(original)) for mine, original in pairs) / (count * len(theirs))


def _nearest(vectors: NDArray[np.float32], count: int) -> list[list[int]]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest: list[list[int]] = np.argsort(-scores, axis=1, kind="stable")[:, :count].tolist()
    return nearest


def as_json(table: Table) -> dict[str, dict[str, dict[str, float]]]:
    """The table for manifest.json."""
    return {tower: {precision: asdict(parity) for precision, parity in rows.items()} for tower, rows in table.items()}


def from_json(parity: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """The table back from a manifest."""
    return {tower: {precision: Parity(**row) for precision, row in rows.items()} for tower, rows in parity.items()}


def as_text(table: Mapping[str, Mapping[str, Parity]]) -> str:
    """The table for people."""
    lines = [
        f"{'tower':7} {'precision':13} {'samples':>7} {'worst component':>16} {'worst cosine':>13} "
        f"{'error/distance':>14} {'neighbours kept':>15}  inputs differing"
    ]
    for tower, rows in table.items():
        unit = "bytes of pixels" if tower == VISION else "token ids"
        for precision, row in rows.items():
            verdict = "ok" if row.within(LIMITS[precision]) else "TOO FAR"
            lines.append(
                f"{tower:7} {precision:13} {row.samples:7} {row.worst_component:16.2e} {row.worst_cosine:13.8f} "
                f"{row.relative_error:14.4%} {row.neighbours_kept:15.1%}  {row.differing_inputs} {unit}  {verdict}"
            )
    return "\n".join(lines)


def _measure_images(
    encoder: Encoder, manifest: ModelManifest, images: Sequence[GoldenImage], originals: Originals
) -> Parity:
    spec = manifest.preprocess
    pixels = np.empty((len(images), 3, spec.crop_size, spec.crop_size), np.float32)
    differing = 0
    for index, image in enumerate(images):
        decoded = decode_image(image.blob)
        preprocess_image(decoded, spec, pixels[index])
        crop = resize_and_crop(decoded, spec)
        differing += int((crop.transpose(2, 0, 1) != originals.crops[index]).sum())
    differing += _beyond_rounding(pixels, originals.pixels)
    drawn = np.array([image.drawn for image in images])
    return compare(_embed(encoder, pixels), originals.image_vectors, differing, neighbours=drawn)


def _measure_texts(encoder: Encoder, tokenizer: Tokenizer, texts: Sequence[str], originals: Originals) -> Parity:
    """Each text twice, padded as the server sends it and as short as the model may be given it; the one farther off
    counts."""
    ids = [tokenizer.encode(text).ids for text in texts]
    differing = sum(
        int((row[: len(expected)] != expected).sum()) for row, expected in zip(ids, originals.token_ids, strict=True)
    )
    padded = _embed(encoder, np.stack(ids))
    alone = [encoder.embed(row[None, : len(expected)]) for row, expected in zip(ids, originals.token_ids, strict=True)]
    bare, theirs = np.concatenate(alone), originals.text_vectors
    farther = np.linalg.norm(bare - theirs, axis=-1) > np.linalg.norm(padded - theirs, axis=-1)
    return compare(np.where(farther[:, None], bare, padded), theirs, differing)


def _embed(encoder: Encoder, batch: NDArray[np.generic]) -> NDArray[np.float32]:
    parts = [encoder.embed(batch[start : start + _BATCH]) for start in range(0, len(batch), _BATCH)]
    return np.concatenate(parts)


def _beyond_rounding(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> int:
    """Values that differ by more than float32's own rounding of the normalisation."""
    return int((np.abs(ours - theirs) > 1e-6).sum())
