"""An opened image to RGB. This is the attack surface: decoders run here, within what open_image has judged.

Knows nothing of models, batches or HTTP.
"""

from __future__ import annotations

from PIL import Image

from clipsrv.errors import ImageError
from clipsrv.images.damage import DECODER_ERRORS, named
from clipsrv.images.open import OpenedImage, open_image
from clipsrv.images.orientation import upright
from clipsrv.images.rgb import to_rgb
from clipsrv.settings import DEFAULT_LIMITS, ImageLimits

#: Freed blocks of pixels that are kept for the next image, for each thread that decodes, and what one may measure:
#: Pillow's own 16 MiB (libImaging/Storage.c). A photo of 12 megapixels takes three.
BLOCKS_PER_THREAD, BLOCK_BYTES = 4, 16 * 2**20


def reuse_memory(threads: int) -> None:
    """Lets `threads` decoding threads hand the memory of their images on to the next ones, in the whole process.

    Pages fresh from the system cost a fault each, which is up to half the time of decoding a large photo. Pillow clears
    the memory before it is used again.
    """
    Image.core.set_blocks_max(BLOCKS_PER_THREAD * threads)  # type: ignore[attr-defined]


def decode(opened: OpenedImage, *, apply_orientation: bool = True) -> Image.Image:
    """The first frame as an RGB image, EXIF orientation applied (a TIFF's and HEIC's always).

    Modes follow Pillow's `convert("RGB")` as the reference does (alpha dropped, palette looked up, CMYK without
    a profile), but for 16-bit, I and F images, which are scaled to 8 bits instead of clipped. An image is decoded
    once. Raises ImageError; MemoryError passes through.
    """
    image, problem = opened.file, None
    try:
        image.load()
        return to_rgb(upright(image) if apply_orientation else image)
    except ImageError as error:
        problem = error
    except DECODER_ERRORS as error:
        problem = named(error)
    image.close()  # whoever keeps the error must not keep the pixels
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
