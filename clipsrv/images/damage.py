"""What decoders raise over damaged files, in domain words: their own messages stay inside."""

from __future__ import annotations

import re
import struct
import zlib

from PIL.Image import DecompressionBombError

from clipsrv.errors import ImageError, InvalidImageError, TruncatedImageError

#: Seen from Pillow's decoders over some two hundred thousand damaged files; the last six are insurance.
DECODER_ERRORS = (
    *(OSError, ValueError, SyntaxError, RuntimeError, EOFError, struct.error, zlib.error),
    *(DecompressionBombError, ArithmeticError),  # a decoder that finds more than was judged; a clock of no ticks
    *(KeyError, IndexError, TypeError, AttributeError, AssertionError, NotImplementedError),
    Warning,  # raised where warnings are errors
)


def named(error: Exception) -> ImageError:
    """The ImageError for what a decoder raised."""
    if isinstance(error, EOFError) or re.search("truncated|end of file", str(error), re.IGNORECASE):
        return TruncatedImageError("The image ends too early: it is truncated.")
    return InvalidImageError("The image is damaged and cannot be decoded.")
