"""What a checkpoint's processor asks of an image, as PreprocessSpec. Reads JSON; knows nothing of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipsrv.specs import PreprocessSpec
from conversions.errors import CheckpointError
from conversions.files import PREPROCESSOR, PROCESSOR, read_object

#: PIL.Image.Resampling, as the files have it.
_RESAMPLING = {2: "bilinear", 3: "bicubic"}
_STEPS = ("do_resize", "do_rescale", "do_normalize")


def read_steps(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The processor's settings and the file they are in: preprocessor_config.json, or without one the image_processor
    of processor_config.json, as transformers 5 saves them. transformers looks for them in the same order."""
    file = folder / PREPROCESSOR
    if not file.is_file() and (folder / PROCESSOR).is_file():
        file = folder / PROCESSOR
    raw = read_object(file)
    steps = raw.get("image_processor", raw)
    if not isinstance(steps, dict):
        raise CheckpointError(f"{file} does not hold a JSON object under image_processor.")
    return file, steps


def cropped(folder: Path) -> PreprocessSpec:
    """CLIP's steps: the shortest edge resized, or both squashed, then a square cut from the centre.

    Sizes are numbers in the old form of the file, mappings in the new one. Raises CheckpointError for other steps.
    """
    file, raw = read_steps(folder)
    size, crop = raw.get("size", 224), raw.get("crop_size", 224)
    if isinstance(size, dict) and size.get("height") is not None:
        resize, edge = "squash", _square(size)
    else:
        resize, edge = "shortest_edge", size.get("shortest_edge") if isinstance(size, dict) else size
    side = _square(crop) if isinstance(crop, dict) else crop
    undone = [step for step in (*_STEPS, "do_center_crop", "do_convert_rgb") if raw.get(step, True) is not True]
    if undone or not isinstance(edge, int) or not isinstance(side, int):
        raise CheckpointError(
            f"{file} asks for other steps than CLIP's (resize the shortest edge, cut a square, "
            f"rescale, normalise): {', '.join(undone) or f'size {size}, crop_size {crop}'}."
        )
    return _spec(file, raw, shortest_edge=edge, crop_size=side, resize=resize)


def squashed(folder: Path) -> PreprocessSpec:
    """SigLIP's steps: squashed to a square, nothing cut. Raises CheckpointError for other steps."""
    file, raw = read_steps(folder)
    size = raw.get("size", {"height": 224, "width": 224})
    side = _square(size) if isinstance(size, dict) else None
    undone = [step for step in _STEPS if raw.get(step, True) is not True]
    undone += ["do_center_crop"] if raw.get("do_center_crop") else []
    if undone or not isinstance(side, int):
        raise CheckpointError(
            f"{file} asks for other steps than SigLIP's (squash to a square, rescale, normalise): "
            f"{', '.join(undone) or f'size {size}'}."
        )
    return _spec(file, raw, shortest_edge=side, crop_size=side, resize="squash")


def _square(size: dict[str, Any]) -> Any:
    return size.get("height") if size.get("height") == size.get("width") else None


def _spec(file: Path, raw: dict[str, Any], **sizes: Any) -> PreprocessSpec:
    resample = raw.get("resample", 3)
    if resample not in _RESAMPLING:
        raise CheckpointError(f"{file}: resample {resample} is neither bilinear (2) nor bicubic (3).")
    try:
        mean, std = (tuple(map(float, raw[key])) for key in ("image_mean", "image_std"))
        (red, green, blue), (red_std, green_std, blue_std) = mean, std
        return PreprocessSpec(
            image_mean=(red, green, blue),
            image_std=(red_std, green_std, blue_std),
            rescale_factor=float(raw.get("rescale_factor", 1 / 255)),
            resample=_RESAMPLING[resample],
            **sizes,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} has no usable sizes, image_mean, image_std or rescale_factor: {error!r}."
        ) from None
