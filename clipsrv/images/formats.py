"""Which image formats are read, what a file looks like by its first bytes, and what to say of one that is not read.

The plugins named here register Pillow's decoders; no other decoder ever runs.
"""

from __future__ import annotations

from contextlib import suppress

from PIL import (  # Image.open by itself knows only a few
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
    features,
)

from clipsrv.errors import ImageError, InvalidImageError, NotAnImageError, UnsupportedImageFormatError

with suppress(ImportError):  # the extra heic
    import pillow_heif

    # One image is decoded by one thread, like any other; what lies beside it in the file is never looked at.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)

_HAVE = {"AVIF": features.check("avif"), "HEIF": "HEIF" in Image.OPEN}
#: The only decoders that ever run (JPEG's also opens MPO, a phone's stereo JPEG; DIB is a BMP without file header).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", *(name for name, here in _HAVE.items() if here))
#: What users are told: a phone's HEIF is called HEIC, after its compression.
FORMAT_NAMES = tuple({"HEIF": "HEIC"}.get(name, name) for name in FORMATS if name != "DIB")

#: Offset, bytes there, and the format.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG", "PNG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
    *((0, order, "TIFF") for order in (b"II*\x00", b"MM\x00*")),
    (4, b"ftypavif", "AVIF"),
    *((4, b"ftyp" + brand, "HEIC") for brand in (b"heic", b"heix", b"mif1")),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG or another XML document"),
    (0, b"\x1f\x8b", "gzip (perhaps SVGZ)"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"icns", "ICNS"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    *((0, start, "JPEG XL") for start in (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")),
    (0, b"DDS ", "DDS"),
    (0, b"SIMPLE  =", "FITS"),
)
#: Bytes that show what a file looks like.
HEAD = 4096


def unidentified(head: bytes) -> ImageError:
    """The error for a file that begins with `head` and that no decoder wants, with what it seems to be."""
    accepted = ", ".join(FORMAT_NAMES)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for offset, signature, name in _SIGNATURES:
        if (start if signature.startswith(b"<") else head)[offset:].startswith(signature):
            if name in FORMAT_NAMES:
                return InvalidImageError(f"The image begins like {name} but its header is damaged or cut off.")
            return UnsupportedImageFormatError(f"The image looks like {name}; accepted are {accepted}.", format=name)
    return NotAnImageError(f"This is not an image that can be read; accepted are {accepted}.")
