"""One row for each failure, one body for all."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from clipsrv import errors
from clipsrv.errors import BadImage, BadImagesError, ClipsrvError, OverloadedError, StartError
from clipsrv.server.wire import envelope
from clipsrv.server.wire.errors import STATUS, Failure, error_response, failure_of, failure_of_http, status_of
from tests.test_errors import family

KINDS = tuple(family(modules=(errors.__name__, envelope.__name__)))

#: The contract: api.md's table. A class that is missing here fails the test below.
EXPECTED = {
    400: {
        *("InvalidRequestError", "EmptyBodyError", "MissingImageError", "EmptyBatchError", "UnexpectedFieldError"),
        *("DuplicateFieldError", "MalformedMultipartError", "UnsupportedPartEncodingError", "InvalidJsonError"),
        *("InvalidFieldError", "InvalidBase64Error", "RemoteUrlError", "InvalidTextError", "UnknownOptionError"),
        *("InvalidLabelsError", "DimensionsNotOfferedError"),
    },
    401: {"UnauthorizedError"},
    403: {"ForbiddenError", "OriginForbiddenError", "HostForbiddenError"},
    404: {"TextTowerMissingError", "ModelNotOfferedError", "NoIndexError", "OriginalError"},
    406: {"NotAcceptableError"},
    408: {"RequestTimeoutError"},
    413: {"BodyTooLargeError", "TooManyImagesError", "TooManyTextsError", "TooManyPartsError"},
    415: {"UnsupportedMediaTypeError", "UnsupportedContentEncodingError"},
    422: {
        *("ImageError", "EmptyImageError", "NotAnImageError", "UnsupportedImageFormatError", "TruncatedImageError"),
        *("InvalidImageError", "ImageTooLargeError", "ImageTooComplexError", "AspectRatioTooLargeError"),
        *("CropOutsideImageError", "BadImagesError"),
    },
    429: {"OverloadedError", "TooManyFailuresError"},
    500: {"ClipsrvError"},
    503: {
        *("StartingError", "ShuttingDownError", "EngineError", "OutOfMemoryError", "InferenceFailedError"),
        *("ModelUnavailableError", "IndexUnavailableError"),
    },
    504: {"DeadlineExceededError"},
}
STATUS_OF_NAME = {name: status for status, names in EXPECTED.items() for name in names}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not issubclass(kind, StartError)])
def test_every_failure_has_its_status_of_the_contract(kind: type[ClipsrvError]) -> None:
    assert status_of(kind.__new__(kind)) == STATUS_OF_NAME[kind.__name__]


def test_the_table_names_no_class_twice_and_none_that_is_gone() -> None:
    assert set(STATUS) <= set(KINDS)
    assert set(STATUS_OF_NAME) == {kind.__name__ for kind in KINDS if not issubclass(kind, StartError)}


def body(failure: Failure) -> dict[str, object]:
    response = error_response(failure, "id-1")
    assert isinstance(response.body, bytes)
    assert (response.status, response.content_type) == (failure.status, "application/json")
    document = json.loads(response.body)
    assert set(document) == {"error", "request_id"}
    assert document["request_id"] == "id-1"
    assert set(document["error"]) == {"code", "message", "details"}
    return document["error"]


def test_details_reach_the_client() -> None:
    error = body(failure_of(envelope.BodyTooLargeError("Too large.", limit=5)))
    assert error == {"code": "body_too_large", "message": "Too large.", "details": {"limit": 5}}


def test_bad_images_are_listed_with_their_places() -> None:
    bad = [BadImage(1, errors.EmptyImageError("Empty.")), BadImage(4, errors.ImageTooLargeError("Large.", limit=9))]
    error = body(failure_of(BadImagesError(bad)))
    assert (error["code"], error["message"]) == ("invalid_image", "2 images cannot be used.")
    assert error["details"] == {
        "images": [
            {"index": 1, "code": "empty_image", "message": "Empty."},
            {"index": 4, "code": "image_too_large", "message": "Large.", "limit": 9},
        ]
    }
    assert body(failure_of(BadImagesError(bad[:1])))["code"] == "empty_image"


def test_waiting_is_advised_where_it_helps() -> None:
    overloaded = error_response(failure_of(OverloadedError("Full.", retry_after=7.0)), "id-1")
    assert (overloaded.status, overloaded.headers["Retry-After"]) == (429, "7")
    for kind in (errors.StartingError, errors.ShuttingDownError, errors.OutOfMemoryError):
        assert int(error_response(failure_of(kind("Later.")), "id-1").headers["Retry-After"]) > 0
    assert "Retry-After" not in failure_of(envelope.EmptyBodyError("No.")).headers


def test_a_wrong_media_type_is_told_the_right_ones() -> None:
    assert "multipart/form-data" in failure_of(envelope.UnsupportedMediaTypeError("No.")).headers["Accept-Post"]


def test_aiohttps_own_refusals_have_the_same_body() -> None:
    assert body(failure_of_http(web.HTTPNotFound()))["code"] == "not_found"
    refused = failure_of_http(web.HTTPMethodNotAllowed("PUT", ["POST"]))
    assert (refused.headers["Allow"], body(refused)["code"]) == ("POST", "method_not_allowed")
    assert body(refused)["message"] == "This endpoint takes POST."
    several = failure_of_http(web.HTTPMethodNotAllowed("PUT", ["HEAD", "GET"]))
    assert body(several)["message"] == "This endpoint takes GET or HEAD."


def test_a_shape_decides_status_and_body_and_the_headers_stay() -> None:
    def other(failure: Failure, request_id: str) -> tuple[int, dict[str, object]]:
        return 400, {"detail": failure.message, "id": request_id}

    response = error_response(Failure(422, "c", "Why.", headers={"Retry-After": "3"}), "id-1", other)
    assert (response.status, response.headers["Retry-After"]) == (400, "3")
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {"detail": "Why.", "id": "id-1"}
