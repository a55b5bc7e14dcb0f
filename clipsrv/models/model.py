"""The running model: images and texts to what its towers take, and the ids of the vectors they give."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clipsrv.images.agreement import pixels_of_pillow
from clipsrv.images.budget import PixelBudget
from clipsrv.images.decode import decode
from clipsrv.images.open import OpenedImage, open_image
from clipsrv.images.preprocess import preprocess_image
from clipsrv.images.region import Cropped, Encoded
from clipsrv.machine import give_memory_back
from clipsrv.manifest import ModelManifest
from clipsrv.models.known import languages_of
from clipsrv.runtime.choice import variant
from clipsrv.runtime.encoder import Encoder, TextEncoder
from clipsrv.runtime.trial import Trial
from clipsrv.settings import DEFAULT_DECODING, Decoding, ImageLimits
from clipsrv.text.scripts import has_unknown_script
from clipsrv.text.tokens import Tokenizer, Tokens

#: Fast decoding keeps a JPEG's sides at least this many times the resized edge, so that the resize still averages.
FAST_DECODE_MARGIN = 2


def preprocessing_id(manifest: ModelManifest, decoding: Decoding) -> str:
    """Short hash of preprocessing and decoding; the defaults of decoding leave the manifest's own, and so does a Pillow
    that gives the pixels of the one it was made with."""
    changed: dict[str, bool | str] = {
        key: value for key, value in asdict(decoding).items() if value != getattr(DEFAULT_DECODING, key)
    }
    if other := pixels_of_pillow():
        changed["pixels"] = other
    return manifest.preprocess.id_with(**changed)


@dataclass(frozen=True)
class Model:
    """What runs. `device` and `precision` are those in use, never those asked for; without a text tower
    `text_encoder` and `tokenizer` are None. `trials` are of the devices that `auto` tried."""

    manifest: ModelManifest
    device: str
    precision: str
    threads: int
    image_encoder: Encoder
    text_encoder: TextEncoder | None
    tokenizer: Tokenizer | None
    decoding: Decoding
    trials: tuple[Trial, ...] = ()

    @property
    def preprocessing_id(self) -> str:
        """That of its manifest and its decoding."""
        return preprocessing_id(self.manifest, self.decoding)

    @property
    def embedding_id(self) -> str:
        """What must be equal for vectors to be comparable."""
        return self.manifest.embedding_id(variant(self.device, self.precision), self.preprocessing_id)

    def read_image(self, image: Encoded, limits: ImageLimits, budget: PixelBudget | None = None) -> NDArray[np.float32]:
        """Encoded bytes to `pixel_values` (3, S, S): the one path for server and bulk job. Raises ImageError."""
        opened = self.open_image(image, limits)
        with budget.hold(opened.cost) if budget else nullcontext():  # until the decoded image has been made small
            return self.decode_image(opened)

    def open_image(self, image: Encoded, limits: ImageLimits) -> OpenedImage:
        """The first half of `read_image`: the header, judged. Raises ImageError."""
        reduce_to = FAST_DECODE_MARGIN * self.manifest.preprocess.shortest_edge
        blob, region = image if isinstance(image, Cropped) else (image, None)
        return open_image(blob, limits, reduce_to=reduce_to if self.decoding.fast else None, region=region)

    def decode_image(self, opened: OpenedImage) -> NDArray[np.float32]:
        """The second half, which takes the time and the memory. Raises ImageError."""
        image = decode(opened, apply_orientation=self.decoding.exif_orientation)
        return preprocess_image(image, self.manifest.preprocess)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages whose texts it knows (en, ja, zh, many); () if nobody has said."""
        return languages_of(self.manifest)

    def read_text(self, text: str, own: str | None = None) -> Tokens:
        """A text to the tokens its tower takes, if it has one. Its script is judged by what of it is somebody's `own`,
        if not all is. Raises InvalidTextError."""
        assert self.tokenizer is not None
        tokens = self.tokenizer.encode(text)
        return replace(tokens, unknown_script=True) if self.is_foreign(text if own is None else own) else tokens

    def is_foreign(self, text: str) -> bool:
        """Whether all letters of a text are of scripts in which no language that it knows is written."""
        return has_unknown_script(text, self.languages)

    def close(self) -> None:
        """Gives the memory and threads of both towers back to the system. Closing twice is closing once."""
        self.image_encoder.close()
        if self.text_encoder is not None:
            self.text_encoder.close()
        give_memory_back()

    def warm_up(self, batch_sizes: Iterable[int]) -> None:
        """Runs both towers at the batch sizes given. Raises EngineError."""
        size = self.manifest.preprocess.crop_size
        self.image_encoder.warm_up((3, size, size), batch_sizes)
        if self.text_encoder is not None and self.tokenizer is not None:
            ids = self.tokenizer.encode("warm-up").ids
            self.text_encoder.warm_up(ids.shape, (1,), fill=int(ids[0]))
