"""An encoded image's header: judged before any decoder sees the file, and what decoding it will cost.

Knows nothing of models, batches or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from clipsrv.errors import (
    AspectRatioTooLargeError,
    EmptyImageError,
    ImageError,
    ImageTooComplexError,
    ImageTooLargeError,
)
from clipsrv.images import formats
from clipsrv.images.region import Region
from clipsrv.images.structure import bmp, gif, heif, jpeg, png, tiff, webp
from clipsrv.images.structure.header import BYTES_PER_PIXEL, OUTSIDE, Header, Kind, damaged
from clipsrv.settings import DEFAULT_LIMITS, ImageLimits

_READERS: Mapping[str, Callable[[bytes], Header]] = {
    "JPEG": jpeg.read,
    "PNG": png.read,
    "WEBP": webp.read,
    "GIF": gif.read,
    "BMP": bmp.read_bmp,
    "DIB": bmp.read_dib,
    "TIFF": tiff.read,
    "AVIF": heif.read,
    "HEIF": heif.read,
}
#: Scales that libjpeg decodes at.
_SCALES = (8, 4, 2, 1)


@dataclass(frozen=True)
class OpenedImage:
    """An image whose header has been judged. `cost` is what decoding it counts in a PixelBudget: as many pixels as take
    its memory. `reduce_to` and `region` are as asked for."""

    header: Header
    cost: int
    reduce_to: int | None
    region: Region | None = None


def open_image(
    blob: bytes | memoryview,
    limits: ImageLimits = DEFAULT_LIMITS,
    *,
    reduce_to: int | None = None,
    region: Region | None = None,
) -> OpenedImage:
    """Judges the header of `blob`. `reduce_to` lets a JPEG be decoded at 1/2, 1/4 or 1/8 size as long as both sides
    stay at least that many pixels; not where only a `region` is wanted, which is held to the limits as the image is.
    Raises ImageError."""
    if not blob:
        raise EmptyImageError("The image is empty (0 bytes).")
    if len(blob) > limits.max_bytes:
        raise ImageTooLargeError(
            f"The image has {len(blob):,} bytes; at most {limits.max_bytes:,} are accepted.", limit=limits.max_bytes
        )
    data = bytes(blob)
    header = _read(data)
    _judge(header, limits)
    if region is not None:
        region.check(max(header.size))
        judge_sides((region.width, region.height), limits)
        reduce_to = None
    cost = -(-_memory(header, reduce_to) // BYTES_PER_PIXEL)
    if cost > limits.max_cost:
        raise ImageTooComplexError(
            f"Decoding the image may take the memory of {cost:,} pixels; at most {limits.max_cost:,} are accepted.",
            limit=limits.max_cost,
        )
    return OpenedImage(header, cost, reduce_to if header.scalable else None, region)


def _read(data: bytes) -> Header:
    format = formats.format_of(data)
    if format is None:
        raise formats.unidentified(data[: formats.HEAD])
    problem: ImageError | None = None
    try:
        header = _READERS[format](data)
    except ImageError as error:
        problem = error.with_traceback(None)
    except OUTSIDE:
        problem = damaged(formats.shown(format))
    else:
        if header.format not in formats.FORMATS:
            problem = formats.unread(header.format)
        elif min(header.size) <= 0:
            problem = damaged(formats.shown(format))
    if problem and format not in formats.FORMATS:
        problem = formats.unread(format)
    try:
        if problem:
            raise problem  # out here, so that it does not hold the other
    finally:
        del problem  # nor this frame, which would hold it in turn
    return header


def judge_sides(size: tuple[int, int], limits: ImageLimits) -> None:
    """Raises ImageTooLargeError for a side too long, AspectRatioTooLargeError."""
    width, height = size
    if max(width, height) > limits.max_side:
        raise ImageTooLargeError(
            f"The image is {width}x{height} pixels; at most {limits.max_side:,} a side are accepted.",
            limit=limits.max_side,
        )
    if max(width, height) > limits.max_aspect_ratio * min(width, height):
        raise AspectRatioTooLargeError(
            f"The image is {width}x{height} pixels: longer than 1:{limits.max_aspect_ratio}.",
            limit=limits.max_aspect_ratio,
        )


def _judge(header: Header, limits: ImageLimits) -> None:
    judge_sides(header.size, limits)
    limit = limits.max_pixels
    if header.kind is Kind.CANVAS:
        limit = min(limit, limits.max_canvas_pixels)
    if header.kind is Kind.DEEP:
        limit = min(limit, limits.max_deep_pixels)
    if header.claimed > limit:
        raise ImageTooLargeError(
            f"The image has too many pixels; at most {limit:,} are accepted for its kind.", limit=limit
        )


def _memory(header: Header, reduce_to: int | None) -> int:
    """Bytes that decoding takes: less for a JPEG that is decoded smaller, unless all its coefficients are kept."""
    if reduce_to is None or not header.scalable or header.kept_whole:
        return header.memory
    wanted = min(header.size) // reduce_to
    scale = next((scale for scale in _SCALES if wanted >= scale), 1)
    return BYTES_PER_PIXEL * -(-header.size.width // scale) * -(-header.size.height // scale)
