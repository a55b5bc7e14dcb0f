"""What Hugging Face's CLIPImageProcessor makes of images: the golden set, and a comparison on random ones.

    python -m tests.golden.processor tests/golden    writes preprocess.json from the files in preprocess/
    python -m tests.golden.processor --inputs PHOTO tests/golden    makes those files anew first
    python -m tests.golden.processor --cases 3000    compares clipsrv with the processor on random images

Two departures of clipsrv are part of the reference here: EXIF orientation is applied first, as
transformers.image_utils.load_image does, and 16-bit, I and F images are scaled to 8 bits instead of clipped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPImageProcessor

from clipsrv.images.preprocess import preprocess_image, resize_and_crop
from clipsrv.images.rgb import to_rgb
from clipsrv.specs import PreprocessSpec
from tests.golden.images import departed, digest, random_image, write_inputs

PROCESSOR: Any = CLIPImageProcessor()  # its defaults are those of OpenAI's checkpoints
SPEC = PreprocessSpec(
    shortest_edge=PROCESSOR.size["shortest_edge"],
    crop_size=PROCESSOR.crop_size["height"],
    image_mean=tuple(PROCESSOR.image_mean),
    image_std=tuple(PROCESSOR.image_std),
    rescale_factor=PROCESSOR.rescale_factor,
)


def reference(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The processor's uint8 pixels after the crop (S, S, 3) and its float32 `pixel_values` (3, S, S)."""
    # Without input_data_format an image 1 or 3 pixels high is taken for channels first.
    options: dict[str, Any] = {"input_data_format": "channels_last", "return_tensors": "np"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Palette images with Transparency")
        crop = PROCESSOR(image, do_rescale=False, do_normalize=False, **options)["pixel_values"][0]
        return np.ascontiguousarray(crop.transpose(1, 2, 0)), PROCESSOR(image, **options)["pixel_values"][0]


def describe(path: Path) -> dict[str, Any]:
    """One golden row: what the file holds, and sha256 of the reference's pixels and values (little-endian)."""
    with Image.open(path) as image:
        facts = {"mode": image.mode, "size": list(image.size), "orientation": image.getexif().get(0x0112, 1)}
        pixels, values = reference(departed(image))
    digests = {"pixels": digest(pixels), "values": digest(values.astype("<f4"))}
    return facts | digests | {"first": [float(value) for value in values[:, 0, 0]]}


def compare(cases: int, seed: int = 0) -> Counter[str]:
    """Random images by clipsrv and by the processor: how many of each mode, and how many differ in any byte."""
    count: Counter[str] = Counter()
    rng = np.random.default_rng(seed)
    for _ in range(cases):
        image = random_image(rng)
        pixels, values = reference(image)
        rgb = to_rgb(image.copy())
        same = np.array_equal(resize_and_crop(rgb, SPEC), pixels)
        same = same and preprocess_image(rgb, SPEC).tobytes() == values.tobytes()
        count.update([image.mode, *(["long and thin"] if max(image.size) > 4 * min(image.size) else [])])
        if not same:
            count["differing"] += 1
            print(f"differs: mode {image.mode}, {image.width}x{image.height}", file=sys.stderr)
    return count


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden.processor", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="where preprocess.json and the folder preprocess/ lie")
    parser.add_argument(
        "--inputs", type=Path, metavar="PHOTO", help="a photograph to make the files of preprocess/ from"
    )
    parser.add_argument("--cases", type=int, default=0, help="random images to compare")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if options.folder is None and not options.cases:
        parser.error("give a folder, or --cases")
    if options.folder is not None:
        inputs = options.folder / "preprocess"
        if options.inputs is not None:
            write_inputs(options.inputs, inputs)
        rows = {path.name: describe(path) for path in sorted(inputs.iterdir())}
        made_with = {name: version(name) for name in ("transformers", "pillow", "numpy")}
        text = json.dumps({"made_with": made_with, "files": rows}, indent=1) + "\n"
        (options.folder / "preprocess.json").write_text(text, encoding="utf-8")
        print(f"{len(rows)} files")
    if options.cases:
        started = time.monotonic()
        count = compare(options.cases, options.seed)
        differing = count.pop("differing", 0)
        print(f"{options.cases} cases, {differing} differing, {time.monotonic() - started:.0f} s")
        print(", ".join(f"{mode} {number}" for mode, number in sorted(count.items())))
        return 1 if differing else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
