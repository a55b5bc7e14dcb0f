"""HEVC (ITU-T H.265, section 7.3): the largest picture that an image's data may hold."""

from __future__ import annotations

from clipsrv.images.structure.bits import Bits
from clipsrv.images.structure.header import Count, Size, unsupported

#: Kinds of units: below the first are slices.
_FIRST_OTHER, _PARAMETERS = 32, 33
#: More than any sequence parameter set takes up to its picture's size.
_HEAD = 256


def configured_size(record: bytes, units: Count) -> Size | None:
    """The largest size in a decoder configuration record (hvcC, ISO/IEC 14496-15), and None if it holds none."""
    largest: Size | None = None
    at = 23
    for _ in range(record[22]):
        count = int.from_bytes(record[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            units.add()
            length = int.from_bytes(record[at : at + 2], "big")
            largest = _larger(largest, record[at + 2 : at + 2 + min(length, _HEAD)])
            at += 2 + length
    return largest


def frame_size(data: bytes, length_bytes: int, units: Count) -> Size | None:
    """The largest size that image data, units behind their lengths, brings itself, and None if it brings none."""
    largest: Size | None = None
    at = pictures = 0
    while at + length_bytes < len(data):
        units.add()
        length = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        unit = data[at : at + min(length, _HEAD)]
        largest = _larger(largest, unit)
        pictures += _begins_picture(unit)
        if pictures > 1:
            raise unsupported("HEIC", "several pictures in one item")
        at += length
    return largest


def _begins_picture(unit: bytes) -> bool:
    """Whether a unit is the first slice of a picture of the base layer."""
    return len(unit) > 2 and unit[0] >> 1 & 63 < _FIRST_OTHER and not (unit[0] & 1 or unit[1] >> 3) and unit[2] >= 128


def _larger(largest: Size | None, unit: bytes) -> Size | None:
    """`largest`, or the size in `unit` if that is a sequence parameter set of the base layer and larger."""
    if len(unit) < 2 or unit[0] >> 1 & 63 != _PARAMETERS or unit[0] & 1 or unit[1] >> 3:
        return largest
    bits = Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)
    present = [(bits.flag(), bits.flag()) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take((88 if profile else 0) + (8 if level else 0))
    bits.exp_golomb()
    if bits.exp_golomb() == 3:
        bits.take(1)
    size = Size(bits.exp_golomb(), bits.exp_golomb())
    return max(largest or size, size, key=lambda size: size.pixels)
