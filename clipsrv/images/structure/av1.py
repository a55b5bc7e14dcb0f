"""AV1 (AV1 bitstream specification, section 5): the largest frame that a still image's data may hold."""

from __future__ import annotations

from dataclasses import dataclass

from clipsrv.images.structure.bits import Bits
from clipsrv.images.structure.header import Count, Size

#: In one image: its layers, of which a container can tell four apart, or what an animation's first frame is made of.
MAX_FRAMES = 4

_SEQUENCE = 1
#: Units that begin with a frame's header.
_HEADERS = {3, 6, 7}
_KEY, _SWITCH = 0, 3
#: A tool that each frame header switches on or off itself.
_CHOSEN_BY_FRAME = 2


@dataclass(frozen=True)
class _Sequence:
    """What a sequence header says of sizes, and what one must know to find a frame's own."""

    largest: Size
    #: What the bits of a frame's own size can say.
    possible: Size
    #: A header for a single image, which leaves most out; its frame has no size of its own.
    reduced: bool = True
    #: Bits of a frame's time of presentation, if it has one; of its number, 0 without.
    time_bits: int = 0
    id_bits: int = 0
    screen_content: int = _CHOSEN_BY_FRAME
    integer_motion: int = _CHOSEN_BY_FRAME


def frame_size(data: bytes, units: Count) -> Size | None:
    """The size of the largest frame in `data`, or None if nothing says so. Raises ImageTooComplexError, or IndexError
    where data ends within a header."""
    frames = Count(MAX_FRAMES, "AVIF", "frames in one image")
    sequence: _Sequence | None = None
    largest: Size | None = None
    at = 0
    while at < len(data):
        units.add()
        kind, start, end = _unit(data, at)
        if kind == _SEQUENCE:
            sequence = _sequence(Bits(data[start : min(end, start + 256)]))
            largest = max(largest or sequence.largest, sequence.largest, key=lambda size: size.pixels)
        elif kind in _HEADERS:
            frames.add()
            if sequence and largest and _has_own_size(Bits(data[start : min(end, start + 64)]), sequence):
                largest = max(largest, sequence.possible, key=lambda size: size.pixels)
        at = end
    return largest


def _unit(data: bytes, at: int) -> tuple[int, int, int]:
    """Kind of the open bitstream unit at `at`, and where its payload begins and ends."""
    head = data[at]
    at += 2 if head & 4 else 1
    if not head & 2:
        return head >> 3 & 15, at, len(data)
    size = shift = 0
    while True:
        byte = data[at]
        at += 1
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128 or shift > 56:
            break
    return head >> 3 & 15, at, min(at + size, len(data))


def _sequence(bits: Bits) -> _Sequence:
    bits.take(3 + 1)  # profile, still
    reduced = bits.flag()
    time_bits = 0
    if reduced:
        bits.take(5)
    else:
        time_bits = _operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    largest = Size(bits.take(width_bits) + 1, bits.take(height_bits) + 1)
    possible = Size(1 << width_bits, 1 << height_bits)
    if reduced:
        return _Sequence(largest, possible)
    id_bits = 0
    if bits.flag():
        difference_bits = bits.take(4) + 2
        id_bits = difference_bits + bits.take(3) + 1
    bits.take(3 + 4)  # tools
    order = bits.flag()
    bits.take(2 if order else 0)
    screen_content = _CHOSEN_BY_FRAME if bits.flag() else bits.take(1)
    integer_motion = _CHOSEN_BY_FRAME if not screen_content or bits.flag() else bits.take(1)
    return _Sequence(largest, possible, False, time_bits, id_bits, screen_content, integer_motion)


def _operating_points(bits: Bits) -> int:
    """Reads timing and operating points; the bits of a frame's time, 0 if frames have none."""
    timing = bits.flag()
    equal = model = False
    delay_bits = time_bits = 0
    if timing:
        bits.take(64)
        equal = bits.flag()
        if equal:
            bits.exp_golomb()
        model = bits.flag()
        if model:
            delay_bits = bits.take(5) + 1
            bits.take(32 + 5)
            time_bits = bits.take(5) + 1
    delays = bits.flag()
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if model and bits.flag():
            bits.take(2 * delay_bits + 1)
        if delays and bits.flag():
            bits.take(4)
    return 0 if equal else time_bits


def _has_own_size(bits: Bits, sequence: _Sequence) -> bool:
    """Whether a frame has another size than its sequence (frame_size_override_flag)."""
    if sequence.reduced:
        return False
    if bits.flag():  # shows a frame that is there
        return False
    kind, shown = bits.take(2), bits.flag()
    if shown:
        bits.take(sequence.time_bits)
    else:
        bits.take(1)
    if kind != _SWITCH and not (kind == _KEY and shown):
        bits.take(1)
    bits.take(1)
    screen_content = bits.take(1) if sequence.screen_content == _CHOSEN_BY_FRAME else sequence.screen_content
    if screen_content and sequence.integer_motion == _CHOSEN_BY_FRAME:
        bits.take(1)
    bits.take(sequence.id_bits)
    return kind == _SWITCH or bits.flag()
