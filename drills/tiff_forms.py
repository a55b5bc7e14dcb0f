"""Every form of TIFF that can be written by hand: read right, or refused as a form of TIFF; never some other image.

python -m drills.tiff_forms. What is in a file is known, and tifffile is asked as well. Exit status 1 if one is wrong.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter, defaultdict
from io import BytesIO

import numpy as np
import tifffile

from clipsrv.errors import ImageError, UnsupportedImageFormatError
from clipsrv.images.decode import decode_image
from tests.support.tiffs import Kind, Layout, Samples, kinds, layouts, samples_of, shown, tiff

#: Levels that rounding in another order may differ by.
_TOLERANCE = 2


def judge(samples: Samples, kind: Kind, layout: Layout) -> str:
    """right, refused, or what is wrong."""
    blob = tiff(samples, kind, layout)
    try:
        found = np.asarray(decode_image(blob)).astype(int)
    except UnsupportedImageFormatError:
        return "refused"
    except ImageError as error:
        return f"WRONG: {error.code}"
    if np.abs(found - shown(samples, kind)).max() > _TOLERANCE:
        return "WRONG: another image"
    return "right" if agrees(blob, samples, layout) else "WRONG: tifffile reads something else"


def agrees(blob: bytes, samples: Samples, layout: Layout) -> bool:
    """Whether tifffile finds in a file what was written."""
    read = tifffile.imread(BytesIO(blob))
    if layout.planar == 2 and samples.shape[2] > 1:
        read = np.moveaxis(read, 0, -1)
    return np.array_equal(read.reshape(samples.shape).astype(np.float64), samples.astype(np.float64))


def run() -> int:
    warnings.simplefilter("ignore")
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for kind in kinds():
        samples = samples_of(kind)
        name = f"{kind.colour} {samples.shape[2]} x {kind.bits} bits {kind.kind} {kind.extra}"
        for layout in layouts(kind):
            table[name][judge(samples, kind, layout)] += 1
    total: Counter[str] = sum(table.values(), Counter())
    for name, counts in table.items():
        print(f"{name:36} {dict(counts)}")
    print("all", dict(total))
    return 1 if any(answer.startswith("WRONG") for answer in total) else 0


if __name__ == "__main__":
    sys.exit(run())
