"""What a file that no decoder wants looks like, by its first bytes: for an error that helps. Opens nothing."""

from __future__ import annotations

from collections.abc import Sequence

from clipsrv.errors import ImageError, InvalidImageError, NotAnImageError, UnsupportedImageFormatError

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


def unidentified(head: bytes, accepted_formats: Sequence[str]) -> ImageError:
    """The error for a file that begins with `head` and that no decoder wants, with what it seems to be."""
    accepted = ", ".join(accepted_formats)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for offset, signature, name in _SIGNATURES:
        if (start if signature.startswith(b"<") else head)[offset:].startswith(signature):
            if name in accepted_formats:
                return InvalidImageError(f"The image begins like {name} but its header is damaged or cut off.")
            return UnsupportedImageFormatError(f"The image looks like {name}; accepted are {accepted}.", format=name)
    return NotAnImageError(f"This is not an image that can be read; accepted are {accepted}.")
