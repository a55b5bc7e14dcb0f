"""Everything that can go wrong, in domain words. Knows nothing of HTTP: what can be wrong with a request
itself, and the statuses of all, live in server/wire/.

ClipsrvError
├── StartError                     the process cannot start; `exit_status` is the process's own
│   ├── ConfigError       2
│   ├── ModelError        3        (ModelNotFoundError, ModelCorruptError, ModelTooLargeError)
│   ├── AddressError      4
│   └── DeviceError       5
├── InvalidTextError               a text that no tokenizer can read
├── InvalidLabelsError             labels among which no image can be told, or a template that holds none
├── ImageError                     the envelope is fine, the image is not
│   ├── EmptyImageError · NotAnImageError · UnsupportedImageFormatError · TruncatedImageError
│   ├── InvalidImageError · ImageTooLargeError · ImageTooComplexError · AspectRatioTooLargeError
│   └── CropOutsideImageError
├── BadImagesError                 one or more ImageErrors of one request, with their places
├── ModelNotOfferedError           a request names a model that is not served
├── ModelUnavailableError          it is served, and cannot be loaded now
├── DimensionsNotOfferedError      it asks for vectors of a size that the model does not have
├── TextTowerMissingError          the model has no text tower, or it was left unloaded
├── NoIndexError                   nothing was indexed that could be searched
├── IndexUnavailableError          what is indexed cannot be searched now
├── OriginalError                  the file of an indexed image is not there any more, or is another by now
├── OverloadedError                no slots, or too many bytes in flight; knows when to come back
├── StartingError · ShuttingDownError
├── DeadlineExceededError
└── EngineError                    inference itself
    └── OutOfMemoryError · InferenceFailedError
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self


class ClipsrvError(Exception):
    """Base of all. `code` is stable and machine-readable; the message is one sentence that says what to do."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Any] = details

    def let_go(self) -> Self:
        """This error without the frames it came through, which hold images and bodies: for one that is kept."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self


class StartError(ClipsrvError):
    exit_status: ClassVar[int] = 1


class ConfigError(StartError):
    code = "invalid_config"
    exit_status = 2


class ModelError(StartError):
    code = "model_error"
    exit_status = 3


class ModelNotFoundError(ModelError):
    code = "unknown_model"


class ModelCorruptError(ModelError):
    code = "model_corrupt"


class ModelTooLargeError(ModelError):
    code = "model_too_large"


class AddressError(StartError):
    code = "address_unavailable"
    exit_status = 4


class DeviceError(StartError):
    code = "device_unavailable"
    exit_status = 5


class InvalidTextError(ClipsrvError):
    code = "invalid_text"


class InvalidLabelsError(ClipsrvError):
    code = "invalid_labels"


class ImageError(ClipsrvError):
    code = "invalid_image"


class EmptyImageError(ImageError):
    code = "empty_image"


class NotAnImageError(ImageError):
    code = "not_an_image"


class UnsupportedImageFormatError(ImageError):
    code = "unsupported_image_format"


class TruncatedImageError(ImageError):
    code = "truncated_image"


class InvalidImageError(ImageError):
    code = "invalid_image"


class ImageTooLargeError(ImageError):
    code = "image_too_large"


class ImageTooComplexError(ImageError):
    code = "image_too_complex"


class AspectRatioTooLargeError(ImageError):
    code = "aspect_ratio_too_large"


class CropOutsideImageError(ImageError):
    code = "crop_outside_image"


@dataclass(frozen=True)
class BadImage:
    """One image of a request that could not be used. `index` counts from 0 in the order sent."""

    index: int
    error: ImageError


class BadImagesError(ClipsrvError):
    """Raised for a whole request; `bad` is ordered by index and never empty."""

    code = "invalid_image"

    def __init__(self, bad: Sequence[BadImage]) -> None:
        super().__init__(bad[0].error.message if len(bad) == 1 else f"{len(bad)} images cannot be used.")
        self.bad = tuple(bad)


class ModelNotOfferedError(ClipsrvError):
    code = "model_not_found"


class ModelUnavailableError(ClipsrvError):
    code = "model_unavailable"


class DimensionsNotOfferedError(ClipsrvError):
    code = "dimensions_not_offered"


class TextTowerMissingError(ClipsrvError):
    code = "no_text_tower"


class NoIndexError(ClipsrvError):
    code = "no_index"


class IndexUnavailableError(ClipsrvError):
    code = "index_unavailable"


class OriginalError(ClipsrvError):
    code = "original_unavailable"


class OverloadedError(ClipsrvError):
    """`retry_after` is in seconds, computed from the queue and the measured throughput."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StartingError(ClipsrvError):
    code = "starting"


class ShuttingDownError(ClipsrvError):
    code = "shutting_down"


class DeadlineExceededError(ClipsrvError):
    code = "deadline_exceeded"


class EngineError(ClipsrvError):
    code = "inference_failed"


class OutOfMemoryError(EngineError):
    code = "out_of_memory"


class InferenceFailedError(EngineError):
    code = "inference_failed"
