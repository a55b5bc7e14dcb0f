"""What decoders raise over damaged files, in domain words: their own messages stay inside."""

from __future__ import annotations

import re
import struct
import zlib

from clipsrv.errors import ImageError, InvalidImageError, TruncatedImageError

#: Seen from Pillow's decoders over some nine thousand damaged files; the last seven are insurance.
DECODER_ERRORS = (
    *(OSError, ValueError, SyntaxError, RuntimeError, EOFError, struct.error, zlib.error),
    *(KeyError, IndexError, TypeError, AttributeError, OverflowError, AssertionError, NotImplementedError),
    Warning,  # raised where warnings are errors
)


def named(error: Exception) -> ImageError:
    """The ImageError for what a decoder raised."""
    if isinstance(error, EOFError) or re.search("truncated|end of file", str(error), re.IGNORECASE):
        return TruncatedImageError("The image ends too early: it is truncated.")
    return InvalidImageError("The image is damaged and cannot be decoded.")
