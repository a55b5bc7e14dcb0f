"""Encoded bytes to an RGB image, within limits. This is the attack surface: every decoder call is in this file.

Knows nothing of models, batches or HTTP. The header is judged before any pixel is decoded.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import (  # the plugins register the decoders of FORMATS; Image.open by itself knows only a few
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
    features,
)

from clipsrv.errors import (
    AspectRatioTooLargeError,
    EmptyImageError,
    ImageTooLargeError,
    InvalidImageError,
    TruncatedImageError,
)
from clipsrv.images.signatures import unidentified

with suppress(ImportError):  # the extra heic
    import pillow_heif

    # One image is decoded by one thread, like any other; what lies beside it in the file is never looked at.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)

_HAVE = {"AVIF": features.check("avif"), "HEIF": "HEIF" in Image.OPEN}
#: The only decoders that ever run (JPEG's also opens MPO, a phone's stereo JPEG; DIB is a BMP without file header).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", *(name for name, here in _HAVE.items() if here))
#: What users are told: a phone's HEIF is called HEIC, after its compression.
FORMAT_NAMES = tuple({"HEIF": "HEIC"}.get(name, name) for name in FORMATS if name != "DIB")

#: Decoders of these allocate the whole canvas at several bytes a pixel, whatever the size of the file.
_CANVAS_FORMATS = {"GIF", "WEBP", "AVIF"}
_DEEP_MODES = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}

_ORIENTATION = 0x0112
#: What turns an image of each EXIF orientation upright (as ImageOps.exif_transpose, which also rewrites the EXIF).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: Seen from Pillow's decoders over some nine thousand damaged files; the last seven are insurance.
_DECODER_ERRORS = (
    *(OSError, ValueError, SyntaxError, RuntimeError, EOFError, struct.error, zlib.error),
    *(KeyError, IndexError, TypeError, AttributeError, OverflowError, AssertionError, NotImplementedError),
    Warning,  # raised where warnings are errors
)


#: Freed blocks of pixels that are kept for the next image, for each thread that decodes, and what one may measure:
#: Pillow's own 16 MiB (libImaging/Storage.c). A photo of 12 megapixels takes three.
BLOCKS_PER_THREAD, BLOCK_BYTES = 4, 16 * 2**20


@dataclass(frozen=True)
class ImageLimits:
    """What an image may claim in its header. Pixels are width times height; `max_aspect_ratio` is long by short.

    Canvas formats (GIF, WebP, AVIF) and images deeper than 8 bits have smaller limits, because their decoders
    need more bytes a pixel: a 186-byte WebP of 7000x7000 costs 770 MB.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_canvas_pixels: int = 16_000_000
    max_deep_pixels: int = 25_000_000
    max_side: int = 16_384
    max_aspect_ratio: int = 200


@dataclass(frozen=True)
class Decoding:
    """What may change pixels: turning photos as EXIF says, and `fast` decoding of large JPEGs at 1/2, 1/4 or 1/8."""

    exif_orientation: bool = True
    fast: bool = False


DEFAULT_DECODING = Decoding()


def reuse_memory(threads: int) -> None:
    """Lets `threads` decoding threads hand the memory of their images on to the next ones, in the whole process.

    Pages fresh from the system cost a fault each, which is up to half the time of decoding a large photo. Pillow clears
    the memory before it is used again.
    """
    Image.core.set_blocks_max(BLOCKS_PER_THREAD * threads)  # type: ignore[attr-defined]


def decode_image(
    blob: bytes | memoryview,
    limits: ImageLimits = ImageLimits(),
    *,
    apply_orientation: bool = True,
    reduce_to: int | None = None,
    hold: Callable[[int], AbstractContextManager[object]] | None = None,
) -> Image.Image:
    """Decodes the first frame of `blob` to an RGB image, EXIF orientation applied (a TIFF's and HEIC's always).

    Modes follow Pillow's `convert("RGB")` as the reference does (alpha dropped, palette looked up, CMYK without
    a profile), but for 16-bit, I and F images, which are scaled to 8 bits instead of clipped. `reduce_to` lets
    a JPEG be decoded at 1/2, 1/4 or 1/8 size as long as both sides stay at least that many pixels. `hold`, given the
    image's pixels, is a context in which decoding may use memory. Raises ImageError; MemoryError passes through.
    """
    if not blob:
        raise EmptyImageError("The image is empty (0 bytes).")
    if len(blob) > limits.max_bytes:
        raise ImageTooLargeError(
            f"The image has {len(blob):,} bytes; at most {limits.max_bytes:,} are accepted.", limit=limits.max_bytes
        )
    # Pillow refuses what is larger than twice this, as it must: it allocates a GIF's first frame while opening it.
    Image.MAX_IMAGE_PIXELS = max(ImageLimits.max_pixels, limits.max_pixels) // 2
    try:
        with Image.open(BytesIO(blob), formats=FORMATS) as image:
            _check_header(image, limits)
            with hold(_weight(image)) if hold else nullcontext():
                if reduce_to is not None and image.format in {"JPEG", "MPO"}:
                    image.draft("RGB", (reduce_to, reduce_to))
                image.load()
                return to_rgb(_oriented(image) if apply_orientation else image)
    except UnidentifiedImageError:
        raise unidentified(bytes(blob[:4096]), FORMAT_NAMES) from None
    except Image.DecompressionBombError:
        raise ImageTooLargeError(_TOO_MANY_PIXELS.format(limits.max_pixels), limit=limits.max_pixels) from None
    except _DECODER_ERRORS as error:
        if isinstance(error, EOFError) or re.search("truncated|end of file", str(error), re.IGNORECASE):
            raise TruncatedImageError("The image ends too early: it is truncated.") from None
        raise InvalidImageError("The image is damaged and cannot be decoded.") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB image of any decoded one: Pillow's `convert("RGB")`, and scaling for 16-bit, I and F images.

    16 bits are divided by 257, so that white stays white. I and F have no natural range: the image's own
    smallest and largest finite values become 0 and 255. `image.info` loses its transparency. Raises
    InvalidImageError if no value is finite.
    """
    if image.mode in _DEEP_MODES:
        return Image.fromarray(_to_8_bit(image)).convert("RGB")
    # convert("RGB") would look transparency up, and stumble over a damaged one, only to drop it.
    image.info.pop("transparency", None)
    # convert() copies even when there is nothing to convert: 5 ms of a 12-megapixel photo.
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bit(image: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(image)
    if image.mode not in {"I", "F"}:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise InvalidImageError("The image has no finite pixel value.")
    low, high = values[finite].min(), values[finite].max()
    scaled = (np.where(finite, values, low) - low) * (255 / (high - low or 1))
    result: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return result


def _oriented(image: ImageFile.ImageFile) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except _DECODER_ERRORS:
        return image  # a damaged EXIF block says nothing about orientation
    return image if turn is None else image.transpose(turn)


_TOO_MANY_PIXELS = "The image has too many pixels; at most {:,} are accepted for its kind."


def _check_header(image: ImageFile.ImageFile, limits: ImageLimits) -> None:
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


def _weight(image: ImageFile.ImageFile) -> int:
    """The image's pixels as its memory counts: scaling deep ones takes twice what others need."""
    return image.width * image.height * (2 if _is_deep(image) else 1)


def _is_deep(image: ImageFile.ImageFile) -> bool:
    raw_modes = [args[0] if isinstance(args := tile[3], tuple) and args else args for tile in image.tile[:1]]
    return image.mode in _DEEP_MODES or any(isinstance(raw, str) and "16" in raw for raw in raw_modes)
