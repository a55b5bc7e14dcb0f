"""Facts of a model folder in parts: how it wants its images, what each tower takes and gives, which file is which.

Each checks itself when built and raises ValueError in words. Knows nothing of files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

#: More than any model has: what is larger is damage, and would only take memory.
MAX_EDGE, MAX_CONTEXT, MAX_DIMENSIONS = 4096, 8192, 65536

_CHOICES = {
    "resample": ("bicubic", "bilinear"),
    "resize": ("shortest_edge", "squash"),
    "crop_offset": ("floor", "round"),
}


@dataclass(frozen=True)
class PreprocessSpec:
    """Preprocessing facts in Hugging Face's own words (preprocessor_config.json of the checkpoint).

    `resize`: "shortest_edge" makes the shorter side as long as `shortest_edge`, "squash" both. `resample`: the filter.
    Then the centre is cut, `crop_size` pixels a side, its offset floored or ("round") rounded half to even.
    `image_mean`, `image_std` are one float per RGB channel of the image after multiplication by `rescale_factor`.
    """

    shortest_edge: int
    crop_size: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    rescale_factor: float = 1 / 255
    resample: str = "bicubic"
    resize: str = "shortest_edge"
    crop_offset: str = "floor"

    def __post_init__(self) -> None:
        whole(self.crop_size, "crop_size", 1, MAX_EDGE)
        whole(self.shortest_edge, "shortest_edge", self.crop_size, MAX_EDGE)
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r}: only {' and '.join(known)} are implemented")
        for name, values in (("image_mean", self.image_mean), ("image_std", self.image_std)):
            if len(values) != 3 or not all(isfinite(value) for value in values):
                raise ValueError(f"{name} must be three numbers")
        if not all(std > 0 for std in self.image_std):
            raise ValueError("image_std must be positive")
        if not 0 < self.rescale_factor < float("inf"):
            raise ValueError("rescale_factor must be positive")

    @property
    def id(self) -> str:
        """Short hash of every fact above."""
        return self.id_with()

    def id_with(self, **options: bool | str) -> str:
        """`id` where all `options` have their defaults, else another: vectors of different ids must not be compared."""
        facts = asdict(self)
        # Facts that came later count where they are not what was true before: the ids of then stay.
        for item in fields(self):
            if item.name in ("resize", "crop_offset") and facts[item.name] == item.default:
                del facts[item.name]
        return short_hash(facts | options)


@dataclass(frozen=True)
class TokenSpec:
    """How a text becomes ids beside what tokenizer.json says. `kind` names the rules, a file of clipsrv/text.

    `pad_id` fills the context up; without one it is the tokenizer's own. `padding` "read": the model looks at it, so
    ids are never cut to the longest text of a batch; "ignored": it cannot change a vector. `marks` are the special
    tokens that count when written out in a text, where tokenizer.json has none: the unknown first, the end last.
    `clean` names what is done to a text beforehand (clipsrv/text/clean.py).
    """

    kind: str = "clip"
    pad_id: int | None = None
    padding: str = "ignored"
    marks: tuple[str, ...] = ()
    clean: str = "none"

    def __post_init__(self) -> None:
        if self.pad_id is not None:
            whole(self.pad_id, "pad_id", 0, 2**31)
        if self.padding not in ("ignored", "read"):
            raise ValueError(f"padding {self.padding!r}: it is ignored or read")


@dataclass(frozen=True)
class ScoringSpec:
    """How likenesses become scores: with `scale` and `bias`, softmax over all labels of an image or sigmoid of each."""

    kind: str
    scale: float
    bias: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("softmax", "sigmoid") or not isfinite(self.scale) or not isfinite(self.bias):
            raise ValueError(f"scoring must be softmax or sigmoid of finite numbers, not {self}")


@dataclass(frozen=True)
class TowerSpec:
    """One half of the model. `variants` maps a precision (fp32, fp16, int8) to the graph's file name;
    int8-openvino is int8 as OpenVINO computes it.

    Vision: input float32 (n, 3, S, S), output (n, dimensions). Text: input int64 (n, length <= context_length),
    output (n, dimensions); a graph of packed texts has further inputs (runtime/packing.py), as the graph itself tells.
    Outputs are not yet of unit length. Weights kept outside a graph lie in the file of
    its name plus ".data".
    """

    input: str
    output: str
    variants: Mapping[str, str]
    context_length: int | None = None
    tokenizer: str | None = None
    tokens: TokenSpec = TokenSpec()

    def __post_init__(self) -> None:
        if "fp32" not in self.variants:
            raise ValueError("every tower needs an fp32 variant")
        if self.context_length is not None:
            whole(self.context_length, "context_length", 3, MAX_CONTEXT)

    @property
    def files(self) -> tuple[str, ...]:
        """The files it names: a graph for each precision, and its tokenizer."""
        return (*self.variants.values(), *filter(None, [self.tokenizer]))


@dataclass(frozen=True)
class FileSpec:
    sha256: str
    size: int

    def __post_init__(self) -> None:
        whole(self.size, "size", 0, 2**63)


def whole(value: Any, name: str, low: int, high: int) -> int:
    """`value`, a whole number from `low` to `high`. Raises ValueError."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return value


def short_hash(facts: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that stand for `facts`, whatever their order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
