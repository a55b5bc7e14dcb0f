"""Which image formats are read, what a file is by its first bytes, and what to say of one that is not read.

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

from clipsrv.errors import ImageError, NotAnImageError, UnsupportedImageFormatError
from clipsrv.images.structure.tiff_tags import STARTS

with suppress(ImportError):  # the extra heic
    import pillow_heif

    # One image is decoded by one thread, like any other; what lies beside it in the file is never looked at.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)

_HAVE = {"AVIF": features.check("avif"), "HEIF": "HEIF" in Image.OPEN}
#: The only decoders that ever run (JPEG's also opens MPO, a phone's stereo JPEG; DIB is a BMP without file header).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", *(name for name, here in _HAVE.items() if here))
#: What users are told: a phone's HEIF is called HEIC, after its compression.
_SHOWN = {"HEIF": "HEIC", "DIB": "BMP"}
FORMAT_NAMES = tuple(_SHOWN.get(name, name) for name in FORMATS if name != "DIB")

#: Offset, bytes there, and the decoder.
_STARTS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG", "PNG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
    *((0, start, "TIFF") for start in STARTS),
    *((4, b"ftyp" + brand, "AVIF") for brand in (b"avif", b"avis")),
    *((4, b"ftyp" + brand, "HEIF") for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm")),
    *((4, b"ftyp" + brand, "HEIF") for brand in (b"hevs", b"mif1", b"msf1")),
    *((0, bytes([length, 0, 0, 0]), "DIB") for length in (12, 40, 52, 56, 64, 108, 124)),
)
#: The same of formats that are not read.
_OTHERS: tuple[tuple[int, bytes, str], ...] = (
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


def shown(format: str) -> str:
    """What users call a format."""
    return _SHOWN.get(format, format)


def format_of(data: bytes) -> str | None:
    """The decoder for a file, or None if there is none for what it begins with."""
    return next((name for offset, start, name in _STARTS if data.startswith(start, offset)), None)


def unread(format: str) -> ImageError:
    """The error for a file whose decoder is not installed."""
    cure = " HEIC is read where the package pillow-heif is installed." if format == "HEIF" else ""
    return UnsupportedImageFormatError(
        f"The image looks like {shown(format)}; accepted are {', '.join(FORMAT_NAMES)}.{cure}", format=shown(format)
    )


def unidentified(head: bytes) -> ImageError:
    """The error for a file that begins with `head` and that has no decoder, with what it seems to be."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for offset, signature, name in _OTHERS:
        if (start if signature.startswith(b"<") else head).startswith(signature, offset):
            return UnsupportedImageFormatError(
                f"The image looks like {name}; accepted are {', '.join(FORMAT_NAMES)}.", format=name
            )
    return NotAnImageError(f"This is not an image that can be read; accepted are {', '.join(FORMAT_NAMES)}.")
