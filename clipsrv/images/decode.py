"""An opened image to RGB. This is the attack surface: decoders run here, within what open_image has judged.

Knows nothing of models, batches or HTTP.
"""

from __future__ import annotations

import hashlib
from io import BytesIO

from PIL import Image

from clipsrv.errors import ImageError, InvalidImageError
from clipsrv.images.damage import DECODER_ERRORS, named
from clipsrv.images.open import OpenedImage, open_image
from clipsrv.images.orientation import upright
from clipsrv.images.rgb import to_rgb
from clipsrv.images.structure.header import truncated
from clipsrv.settings import DEFAULT_LIMITS, ImageLimits

#: Freed blocks of pixels that are kept for the next image, for each thread that decodes, and what one may measure:
#: Pillow's own 16 MiB (libImaging/Storage.c). A photo of 12 megapixels takes three.
BLOCKS_PER_THREAD, BLOCK_BYTES = 4, 16 * 2**20

_END_OF_JPEG = b"\xff\xd9"
#: What is put behind a JPEG that lacks its end mark. Whoever misses coded data takes it from there, and sees something
#: else each time.
_FILLINGS = (b"", b"\x35\x9c\xe1\x07\x5a" * 16, b"\xca\x63\x1e\xf8\xa5" * 16)


def reuse_memory(threads: int) -> None:
    """Lets `threads` decoding threads hand the memory of their images on to the next ones, in the whole process.

    Pages fresh from the system cost a fault each, which is up to half the time of decoding a large photo. Pillow clears
    the memory before it is used again.
    """
    Image.core.set_blocks_max(BLOCKS_PER_THREAD * threads)  # type: ignore[attr-defined]


def decode(opened: OpenedImage, *, apply_orientation: bool = True) -> Image.Image:
    """The first frame, or the region of it that was asked for, as an RGB image, EXIF orientation applied (a TIFF's and
    HEIC's always).

    Modes follow Pillow's `convert("RGB")` as the reference does (alpha dropped, palette looked up, CMYK without
    a profile), but for 16-bit, I and F images, which are scaled to 8 bits instead of clipped: a region by its own
    extremes, as if it had been sent alone. Raises ImageError; MemoryError passes through.
    """
    problem: ImageError
    try:
        image = _loaded(opened) if opened.header.ends else _loaded_without_end(opened)
        if apply_orientation:
            image = upright(image)
        if opened.region is not None:
            image = opened.region.cut(image)
        return to_rgb(image, opened.header.levels)
    except ImageError as error:
        problem = error.with_traceback(None)
    except DECODER_ERRORS as error:
        problem = named(error)
    try:
        raise problem  # out here, so that it holds neither the decoder's error nor its frames
    finally:
        del problem  # nor this frame, which would hold it in turn


def decode_image(
    blob: bytes | memoryview,
    limits: ImageLimits = DEFAULT_LIMITS,
    *,
    apply_orientation: bool = True,
    reduce_to: int | None = None,
) -> Image.Image:
    """`open_image` and `decode` at once, for callers without a budget."""
    return decode(open_image(blob, limits, reduce_to=reduce_to), apply_orientation=apply_orientation)


def _loaded(opened: OpenedImage, behind: bytes = b"") -> Image.Image:
    """The image as it is stored, with its pixels."""
    header = opened.header
    data = header.data + behind if behind else header.data
    if Image.MAX_IMAGE_PIXELS is not None:  # ours may be more
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, header.claimed)
    image = Image.open(BytesIO(data), formats=(header.format,))
    if image.width * image.height > header.claimed:
        raise InvalidImageError("The image is damaged: its decoder finds it larger than its header says.")
    if opened.reduce_to is not None:
        image.draft("RGB", (opened.reduce_to, opened.reduce_to))
    # In one piece: libjpeg cannot stop within arithmetic coding, and in padding it begins anew with each piece.
    image.decodermaxblock = len(data)
    image.load()
    if header.ycbcr:
        return Image.frombytes("YCbCr", image.size, image.tobytes())
    return image.crop(header.crop) if header.crop else image


def _loaded_without_end(opened: OpenedImage) -> Image.Image:
    """A JPEG that lacks only its end mark. Raises TruncatedImageError if it lacks more: then what is put behind it
    shows in its pixels."""
    seen: set[bytes] = set()
    for filling in _FILLINGS:
        try:
            image = _loaded(opened, filling + _END_OF_JPEG)
        except DECODER_ERRORS:
            raise truncated() from None
        seen.add(hashlib.sha256(image.tobytes()).digest())
        if len(seen) > 1:
            raise truncated()
    return image
