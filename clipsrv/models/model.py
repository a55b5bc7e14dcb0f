"""A model folder made ready to run: manifest checked, files verified, both towers open on a proven device."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipsrv.errors import DeviceError, ModelNotFoundError
from clipsrv.images.budget import PixelBudget
from clipsrv.images.decode import DEFAULT_DECODING, Decoding, decode
from clipsrv.images.open import ImageLimits, open_image
from clipsrv.images.preprocess import preprocess_image
from clipsrv.machine import cpu_features
from clipsrv.manifest import NAME, TEXT, VISION, ModelManifest, TowerSpec, list_models, load_manifest, verify_files
from clipsrv.runtime.encoder import Encoder, SessionEncoder
from clipsrv.runtime.session import (
    DevicePlan,
    candidate_devices,
    choose_precision,
    graph_file,
    in_parts,
    open_session,
    variant,
)
from clipsrv.text.clip import Tokenizer

#: The guide's names, which `python -m conversions NAME` makes.
KNOWN_MODELS = ("vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336")

#: Models inside the installed package; in a checkout they lie in onnx_models/.
BUNDLED = Path(__file__).parent

#: Fast decoding keeps a JPEG's sides at least this many times the resized edge, so that the resize still averages.
FAST_DECODE_MARGIN = 2


@dataclass(frozen=True)
class Model:
    """What runs. `device` and `precision` are those in use, never those asked for; without a text tower
    `text_encoder` and `tokenizer` are None."""

    manifest: ModelManifest
    device: str
    precision: str
    threads: int
    image_encoder: Encoder
    text_encoder: Encoder | None
    tokenizer: Tokenizer | None
    decoding: Decoding

    @property
    def preprocessing_id(self) -> str:
        """Short hash of preprocessing and decoding; the defaults of decoding leave the manifest's own."""
        changed = {
            key: value for key, value in asdict(self.decoding).items() if value != getattr(DEFAULT_DECODING, key)
        }
        return self.manifest.preprocess.id_with(**changed)

    @property
    def embedding_id(self) -> str:
        """What must be equal for vectors to be comparable."""
        return self.manifest.embedding_id(variant(self.device, self.precision), self.preprocessing_id)

    def read_image(
        self, blob: bytes | memoryview, limits: ImageLimits, budget: PixelBudget | None = None
    ) -> NDArray[np.float32]:
        """Encoded bytes to `pixel_values` (3, S, S): the one path for server and bulk job. Raises ImageError."""
        spec = self.manifest.preprocess
        opened = open_image(
            blob, limits, reduce_to=FAST_DECODE_MARGIN * spec.shortest_edge if self.decoding.fast else None
        )
        with budget.hold(opened.cost) if budget else nullcontext():  # until the decoded image has been made small
            return preprocess_image(decode(opened, apply_orientation=self.decoding.exif_orientation), spec)

    def close(self) -> None:
        """Gives the memory and threads of both towers back. Closing twice is closing once."""
        self.image_encoder.close()
        if self.text_encoder is not None:
            self.text_encoder.close()

    def warm_up(self, batch_sizes: Iterable[int]) -> None:
        """Runs both towers at the batch sizes given. Raises EngineError."""
        size = self.manifest.preprocess.crop_size
        self.image_encoder.warm_up((3, size, size), batch_sizes)
        if self.text_encoder is not None and self.tokenizer is not None:
            ids = self.tokenizer.encode("warm-up").ids
            self.text_encoder.warm_up(ids.shape, (1,), fill=int(ids[0]))


def find_model(models_dir: Path, name: str) -> Path:
    """The folder of a model by name, in `models_dir` or among those bundled with an installed clipsrv.

    Raises ModelNotFoundError with the command that makes it.
    """
    for folder in (models_dir / name, BUNDLED / name):
        if NAME.fullmatch(name) and folder.is_dir():
            return folder
    there = ", ".join(list_models(models_dir)) or "none"
    cure = f"Make it with: python -m conversions {name}" if name in KNOWN_MODELS else "See python -m conversions --list"
    raise ModelNotFoundError(f"No model {name[:64]!r} in {models_dir} (there: {there}). {cure}")


def load_model(
    folder: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int,
    text: bool = True,
    decoding: Decoding = DEFAULT_DECODING,
) -> Model:
    """Opens the model of `folder` on the first possible device; `threads` is for one inference.

    Raises ModelError for the folder's faults, DeviceError if the device or precision asked for cannot be had.
    Only `auto` may pick another device than the first it tries.
    """
    manifest = load_manifest(folder)
    refusals: list[str] = []
    for candidate in candidate_devices(device):
        try:
            chosen = choose_precision(
                precision,
                candidate,
                manifest.towers[VISION],
                errors=manifest.relative_errors(VISION),
                features=cpu_features(),
            )
            return _open(folder, manifest, DevicePlan(candidate, threads, chosen), decoding, text=text)
        except DeviceError as error:
            if device != "auto":
                raise
            refusals.append(error.message)
    raise DeviceError(" ".join(refusals) or "This onnxruntime has no device that clipsrv knows.")


def _open(folder: Path, manifest: ModelManifest, plan: DevicePlan, decoding: Decoding, *, text: bool) -> Model:
    spec = manifest.towers.get(TEXT) if text else None
    # Both towers at once: hashing their files and packing their weights are one core's work each.
    with ThreadPoolExecutor(1, thread_name_prefix="open") as beside:
        text_tower = beside.submit(_open_text, folder, manifest, spec, plan)
        image_encoder = _open_tower(folder, manifest, manifest.towers[VISION], plan)
        text_encoder, tokenizer = text_tower.result()
    return Model(
        manifest=manifest,
        device=plan.device,
        precision=plan.precision,
        threads=plan.threads,
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        decoding=decoding,
    )


def _open_text(
    folder: Path, manifest: ModelManifest, spec: TowerSpec | None, plan: DevicePlan
) -> tuple[Encoder, Tokenizer] | tuple[None, None]:
    if spec is None or spec.tokenizer is None or spec.context_length is None:
        return None, None
    verify_files(folder, manifest, [spec.tokenizer])
    tokenizer = Tokenizer.from_file(folder / spec.tokenizer, spec.context_length)
    return _open_tower(folder, manifest, spec, plan), tokenizer


def _open_tower(folder: Path, manifest: ModelManifest, tower: TowerSpec, plan: DevicePlan) -> Encoder:
    graph = graph_file(tower, plan.device, plan.precision)
    verify_files(folder, manifest, [name for name in (graph, f"{graph}.data") if name in manifest.files])
    session, single = open_session(folder / graph, plan), None
    if in_parts(tower, plan):
        single = open_session(folder / graph, replace(plan, threads=1))
    return SessionEncoder(session, tower, manifest.dimensions, single=single, threads=plan.threads)
