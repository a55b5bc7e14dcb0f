"""clipsrv within a program: a model that turns images and texts into vectors, without a server or a command.

Reached as clipsrv.load, which brings this in only then.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np
from tqdm import tqdm

from clipsrv.ahead import in_order
from clipsrv.config import Config
from clipsrv.images.budget import PixelBudget
from clipsrv.models.folders import find_model
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.models.reading import Encoded, Image, ImageReader, Pixels
from clipsrv.models.scoring import TEMPLATE, Labels, LabelScore, ranked, scoring_of, similarities
from clipsrv.models.texts import embed_texts
from clipsrv.runtime.vectors import Vectors
from clipsrv.settings import decode_threads, image_limits, model_settings, pixels_in_flight

#: What becomes of an image that cannot be used: it fails the call, leaves a row of NaN, or that and is told.
OnError = Literal["fail", "null"] | Callable[[int, Exception], object]

#: Texts whose tokens are made and computed at once, for each image of a batch.
_TEXTS_AT_ONCE = 4

Item = TypeVar("Item")


def load(
    model: str | os.PathLike[str] = "demo",
    *,
    models_dir: str | os.PathLike[str] = Config.models_dir,
    device: str = Config.device,
    precision: str = Config.precision,
    threads: int = Config.threads,
    decode_threads: int = Config.decode_threads,
    max_batch_size: int = Config.max_batch_size,
    max_image_bytes: int = Config.max_image_bytes,
    max_pixels: int = Config.max_pixels,
    max_aspect_ratio: int = Config.max_aspect_ratio,
    exif_orientation: bool = Config.exif_orientation,
    fast_decode: bool = Config.fast_decode,
    text: bool = Config.text,
) -> EmbeddingModel:
    """Opens a model: the name of a folder in `models_dir`, or the path of one. The others are the command's options of
    these names, whose variables are not read here.

    Raises ConfigError, ModelError or DeviceError, of clipsrv.errors.
    """
    is_name = isinstance(model, str) and os.path.basename(model) == model
    config = Config(
        model=os.fspath(model),
        models_dir=os.fspath(models_dir),
        device=device,
        precision=precision,
        threads=threads,
        decode_threads=decode_threads,
        max_batch_size=max_batch_size,
        max_image_bytes=max_image_bytes,
        max_pixels=max_pixels,
        max_aspect_ratio=max_aspect_ratio,
        exif_orientation=exif_orientation,
        fast_decode=fast_decode,
        text=text,
    )
    folder = find_model(Path(config.models_dir), config.model) if is_name else Path(model)
    return EmbeddingModel(load_model(folder, model_settings(config)), config)


class EmbeddingModel:
    """A model in this process, made by `load`. Several threads may use it at once; they take turns at computing.

    A context manager, which closes it.
    """

    def __init__(self, model: Model, config: Config) -> None:
        self._model, self._limits = model, image_limits(config)
        self._batch_size, self._threads = config.max_batch_size, decode_threads(config)
        self._budget = PixelBudget(pixels_in_flight(config))
        self._computing, self._pillow = threading.Lock(), threading.Lock()
        self._known: tuple[Labels, Vectors] | None = None

    @property
    def name(self) -> str:
        return self._model.manifest.name

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return self._model.manifest.dimensions

    @property
    def embedding_id(self) -> str:
        """What must be equal for vectors to be comparable."""
        return self._model.embedding_id

    @property
    def device(self) -> str:
        """The one that computes, never the one asked for."""
        return self._model.device

    @property
    def precision(self) -> str:
        return self._model.precision

    def embed_images(self, images: Iterable[Image], *, on_error: OnError = "fail", progress: bool = False) -> Vectors:
        """Unit vectors (n, dimensions), float32, of any number of images in flat memory, in their order.

        An image that cannot be used raises BadImagesError, or the OSError of its file; with `on_error` "null" its row
        is NaN; so it is with a function, which is told its index and the error. `progress` shows a bar on stderr.
        Raises TypeError for what is no image at all, EngineError.
        """
        if isinstance(images, str | os.PathLike | Encoded) or not _is_batch(images):
            raise TypeError("images is one image: give a list of images")
        if on_error not in ("fail", "null") and not callable(on_error):
            raise ValueError(f"on_error is {on_error!r}; it must be fail, null or a function")
        rows: list[Vectors] = []
        batch: list[Pixels | None] = []
        ahead = self._threads + 2 * self._batch_size
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool:
            read = ImageReader(self._model, self._limits, self._budget, self._pillow, failing=on_error == "fail")
            prepared = in_order(pool, read, enumerate(images), ahead)
            count = len(images) if isinstance(images, Sized) else None
            for index, found in enumerate(_shown(prepared, progress, "image", count)):
                if isinstance(found, Exception):
                    if callable(on_error):
                        on_error(index, found)
                    batch.append(None)
                else:
                    batch.append(found)
                if len(batch) == self._batch_size:
                    rows.append(self._compute(batch))
                    batch = []
        if batch:
            rows.append(self._compute(batch))
        return np.concatenate(rows) if rows else np.empty((0, self.dimensions), np.float32)

    def embed_texts(self, texts: Iterable[str], *, progress: bool = False) -> Vectors:
        """Unit vectors (n, dimensions), float32, of texts in the space of the images. What does not fit the model's
        context is not read.

        Raises InvalidTextError, TextTowerMissingError, EngineError, and TypeError for what is no text.
        """
        wanted = _listed(texts, "text")
        few = _TEXTS_AT_ONCE * self._batch_size
        starts = range(0, len(wanted), few)
        shown = _shown(starts, progress, "batch", len(starts))
        rows = [self._embed_few(wanted[at : at + few]) for at in shown]
        return np.concatenate(rows) if rows else self._embed_few([])

    def classify(
        self,
        images: Iterable[Image],
        labels: Iterable[str],
        *,
        template: str = TEMPLATE,
        top: int | None = None,
        on_error: OnError = "fail",
        progress: bool = False,
    ) -> list[list[LabelScore] | None]:
        """For each image its labels with score and similarity, best first, or the `top` of them; None for one that
        cannot be used and does not fail the call. `template` holds {} where a label is put; the vectors of the labels
        used last are kept.

        Raises InvalidLabelsError, ValueError if `top` is less than 1, and as both of the above.
        """
        if top is not None and top < 1:
            raise ValueError(f"top is {top}; it must be 1 or more, or None for all labels")
        wanted = tuple(_listed(labels, "label"))
        prompts = self._prompts(Labels(wanted, template))
        vectors = self.embed_images(images, on_error=on_error, progress=progress)
        scoring = scoring_of(self._model.manifest)
        cosines = similarities(vectors, prompts)
        return [None if np.isnan(row[0]) else ranked(wanted, row, scoring, top) for row in cosines]

    def close(self) -> None:
        """Gives memory and threads back; using it is then an InferenceFailedError. Closing twice is closing once."""
        with self._computing:
            self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EmbeddingModel {self.name}: {self.dimensions} dimensions, {self.device}, {self.precision}>"

    def _compute(self, batch: Sequence[Pixels | None]) -> Vectors:
        """Their vectors (n, dimensions), NaN where there are no pixels."""
        rows = np.full((len(batch), self.dimensions), np.nan, np.float32)
        there = [place for place, pixels in enumerate(batch) if pixels is not None]
        if there:
            with self._computing:
                rows[there] = self._model.image_encoder.embed(np.stack([p for p in batch if p is not None]))
        return rows

    def _embed_few(self, texts: Sequence[str]) -> Vectors:
        with self._computing:
            return embed_texts(self._model, texts, self._batch_size).vectors

    def _prompts(self, labels: Labels) -> Vectors:
        known = self._known
        if known is None or known[0] != labels:
            known = self._known = (labels, self.embed_texts(labels.prompts))
        return known[1]


def _is_batch(images: Iterable[Any]) -> bool:
    """Whether it is several images: an array has an axis for them, and an image of Pillow's cannot be gone through."""
    return images.ndim == 4 if isinstance(images, np.ndarray) else isinstance(images, Iterable)


def _listed(strings: Iterable[str], what: str) -> list[str]:
    """Raises TypeError unless they are several strings."""
    if isinstance(strings, str):
        raise TypeError(f"{what}s is one {what}: give a list of {what}s")
    found = list(strings)
    for index, string in enumerate(found):
        if not isinstance(string, str):
            raise TypeError(f"{what}s[{index}] is {type(string).__name__}, not str")
    return found


def _shown(items: Iterable[Item], progress: bool, unit: str, total: int | None) -> Iterable[Item]:
    return tqdm(items, total=total, unit=unit, dynamic_ncols=True) if progress else items
