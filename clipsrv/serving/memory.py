"""How much memory the settings allow at most, so that a limit can be set with reason. Explained in docs/limits.md."""

from __future__ import annotations

from clipsrv.config import Config
from clipsrv.images.decode import BLOCK_BYTES, BLOCKS_PER_THREAD
from clipsrv.settings import (
    JSON_BYTES_PER_ITEM,
    JSON_SIGNS_PER_ITEM,
    decode_threads,
    image_limits,
    json_items,
    pixels_in_flight,
)

#: Bytes a pixel may cost while it is decoded and resized: four at 16 bits, or a canvas, its copy in RGB and a float.
DECODE_BYTES_PER_PIXEL = 16
#: Freed bytes that are kept for each decoding thread: by the C library at most 2 * DEFAULT_MMAP_THRESHOLD_MAX of
#: glibc's malloc.c, and blocks of pixels for the next image.
KEPT_BYTES_PER_THREAD = 64 * 2**20 + BLOCKS_PER_THREAD * BLOCK_BYTES
#: Copies of an encoded image that a decoding thread may hold: the file without what decoders need not see, and theirs.
FILE_COPIES = 2
#: Bytes of a search beside its index, of which there is one at a time: scores, and some vectors in float64.
SEARCH_BYTES = 32 * 2**20
#: Bytes aiohttp and asyncio may hold of a connection before anything is asked of it.
CONNECTION_BYTES = 128 * 1024
#: Copies of a body there may be at once: the form and its parts, or JSON text and what it encodes.
BODY_COPIES = 2

#: JSON is parsed one large document at a time: beside its body the rest without long strings, the parser's copy of that
#: and its strings, and for each sign an object's bytes: the most is 70, of {"a":{}} in a list.
JSON_BYTES = 3 * JSON_BYTES_PER_ITEM + 100 * JSON_SIGNS_PER_ITEM


def memory_bound(config: Config, crop_size: int) -> int:
    """Bytes beyond those of the idle server that requests can take together, whatever is sent.

    `crop_size` is the image side in pixels of the model with the largest. Models loaded on demand without --max-loaded
    are not counted: their number is not known.
    """
    pixel_values = 3 * 4 * crop_size**2
    return (
        BODY_COPIES * config.max_bytes_in_flight
        + DECODE_BYTES_PER_PIXEL * max(pixels_in_flight(config), image_limits(config).max_cost)
        + (KEPT_BYTES_PER_THREAD + FILE_COPIES * config.max_image_bytes) * decode_threads(config)
        + pixel_values * (config.max_queue + 2 * config.max_batch_size)
        + JSON_BYTES * json_items(config)
        + config.cache_bytes
        + (SEARCH_BYTES if config.index else 0)
        + CONNECTION_BYTES * config.max_connections
    )
