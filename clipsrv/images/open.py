"""An encoded image's header: judged before any pixel is decoded, and what decoding it will cost.

Knows nothing of models, batches or HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageFile, UnidentifiedImageError

from clipsrv.errors import AspectRatioTooLargeError, EmptyImageError, ImageError, ImageTooLargeError
from clipsrv.images.damage import DECODER_ERRORS, named
from clipsrv.images.formats import FORMATS, HEAD, unidentified
from clipsrv.images.rgb import DEEP_MODES
from clipsrv.settings import DEFAULT_LIMITS, ImageLimits

#: Decoders of these allocate the whole canvas at several bytes a pixel, whatever the size of the file.
_CANVAS_FORMATS = {"GIF", "WEBP", "AVIF"}

_TOO_MANY_PIXELS = "The image has too many pixels; at most {:,} are accepted for its kind."


@dataclass(frozen=True)
class OpenedImage:
    """An image whose header has been judged. `cost` is what decoding it counts in a PixelBudget."""

    file: ImageFile.ImageFile
    cost: int


def open_image(
    blob: bytes | memoryview, limits: ImageLimits = DEFAULT_LIMITS, *, reduce_to: int | None = None
) -> OpenedImage:
    """Judges the header of `blob`. `reduce_to` lets a JPEG be decoded at 1/2, 1/4 or 1/8 size as long as both sides
    stay at least that many pixels. Raises ImageError; MemoryError passes through."""
    if not blob:
        raise EmptyImageError("The image is empty (0 bytes).")
    if len(blob) > limits.max_bytes:
        raise ImageTooLargeError(
            f"The image has {len(blob):,} bytes; at most {limits.max_bytes:,} are accepted.", limit=limits.max_bytes
        )
    # Pillow refuses what is larger than twice this, as it must: it allocates a GIF's first frame while opening it.
    Image.MAX_IMAGE_PIXELS = max(DEFAULT_LIMITS.max_pixels, limits.max_pixels) // 2
    problem: ImageError
    try:
        image = Image.open(BytesIO(blob), formats=FORMATS)
        _judge(image, limits)
        return OpenedImage(image, _cost(image, reduce_to))
    except UnidentifiedImageError:
        problem = unidentified(bytes(blob[:HEAD]))
    except Image.DecompressionBombError:
        problem = ImageTooLargeError(_TOO_MANY_PIXELS.format(limits.max_pixels), limit=limits.max_pixels)
    except DECODER_ERRORS as error:
        problem = named(error)
    try:
        raise problem  # out here, so that it holds neither the decoder's error nor its frames
    finally:
        del problem  # nor this frame, which would hold it in turn


def _judge(image: ImageFile.ImageFile, limits: ImageLimits) -> None:
    (width, height), pixels = image.size, image.width * image.height
    if max(width, height) > limits.max_side:
        raise ImageTooLargeError(
            f"The image is {width}x{height} pixels; at most {limits.max_side:,} a side are accepted.",
            limit=limits.max_side,
        )
    limit = limits.max_pixels
    if image.format in _CANVAS_FORMATS:
        limit = min(limit, limits.max_canvas_pixels)
    if _is_deep(image):
        limit = min(limit, limits.max_deep_pixels)
    if pixels > limit:
        raise ImageTooLargeError(_TOO_MANY_PIXELS.format(limit), limit=limit)
    if max(width, height) > limits.max_aspect_ratio * min(width, height):
        raise AspectRatioTooLargeError(
            f"The image is {width}x{height} pixels: longer than 1:{limits.max_aspect_ratio}.",
            limit=limits.max_aspect_ratio,
        )


def _cost(image: ImageFile.ImageFile, reduce_to: int | None) -> int:
    """The image's pixels as its memory counts: scaling deep ones takes twice what others need, and a JPEG that is
    decoded smaller takes less, unless it is progressive, whose coefficients are kept at full size."""
    full = image.width * image.height * (2 if _is_deep(image) else 1)
    if reduce_to is None or image.format not in {"JPEG", "MPO"}:
        return full
    image.draft("RGB", (reduce_to, reduce_to))
    return full if "progressive" in image.info else image.width * image.height


def _is_deep(image: ImageFile.ImageFile) -> bool:
    raw_modes = [args[0] if isinstance(args := tile[3], tuple) and args else args for tile in image.tile[:1]]
    return image.mode in DEEP_MODES or any(isinstance(raw, str) and "16" in raw for raw in raw_modes)
