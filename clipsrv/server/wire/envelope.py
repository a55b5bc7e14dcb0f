"""What can be wrong with a request itself, whatever it carries: its envelope, and who sends it.

ClipsrvError
├── InvalidRequestError
│   ├── EmptyBodyError · MissingImageError · EmptyBatchError · UnexpectedFieldError · DuplicateFieldError
│   ├── MalformedMultipartError · UnsupportedPartEncodingError
│   ├── InvalidJsonError · InvalidFieldError · InvalidBase64Error · RemoteUrlError · UnknownOptionError
│   ├── BodyTooLargeError · TooManyImagesError · TooManyTextsError · TooManyPartsError
│   ├── UnsupportedMediaTypeError · UnsupportedContentEncodingError · NotAcceptableError
│   ├── RequestTimeoutError
│   └── UnauthorizedError · ForbiddenError (HostForbiddenError, OriginForbiddenError)
└── OverloadedError
    └── TooManyFailuresError
"""

from __future__ import annotations

from clipsrv.errors import ClipsrvError, OverloadedError


class InvalidRequestError(ClipsrvError):
    code = "invalid_request"


class EmptyBodyError(InvalidRequestError):
    code = "empty_body"


class MissingImageError(InvalidRequestError):
    code = "missing_image"


class EmptyBatchError(InvalidRequestError):
    code = "empty_batch"


class UnexpectedFieldError(InvalidRequestError):
    code = "unexpected_field"


class DuplicateFieldError(InvalidRequestError):
    code = "duplicate_field"


class MalformedMultipartError(InvalidRequestError):
    code = "malformed_multipart"


class UnsupportedPartEncodingError(InvalidRequestError):
    code = "unsupported_part_encoding"


class InvalidJsonError(InvalidRequestError):
    code = "invalid_json"


class InvalidFieldError(InvalidRequestError):
    code = "invalid_field"


class InvalidBase64Error(InvalidRequestError):
    code = "invalid_base64"


class RemoteUrlError(InvalidRequestError):
    code = "remote_url_disabled"


class UnknownOptionError(InvalidRequestError):
    code = "unknown_option"


class BodyTooLargeError(InvalidRequestError):
    code = "body_too_large"


class TooManyImagesError(InvalidRequestError):
    code = "too_many_images"


class TooManyTextsError(InvalidRequestError):
    code = "too_many_texts"


class TooManyPartsError(InvalidRequestError):
    code = "too_many_parts"


class UnsupportedMediaTypeError(InvalidRequestError):
    code = "unsupported_media_type"


class UnsupportedContentEncodingError(InvalidRequestError):
    code = "unsupported_content_encoding"


class NotAcceptableError(InvalidRequestError):
    code = "not_acceptable"


class RequestTimeoutError(InvalidRequestError):
    code = "request_timeout"


class UnauthorizedError(InvalidRequestError):
    code = "unauthorized"


class ForbiddenError(InvalidRequestError):
    code = "forbidden"


class HostForbiddenError(ForbiddenError):
    code = "host_forbidden"


class OriginForbiddenError(ForbiddenError):
    code = "origin_forbidden"


class TooManyFailuresError(OverloadedError):
    code = "too_many_failures"
