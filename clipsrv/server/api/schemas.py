"""The shapes of what goes in and out over HTTP, as JSON Schema: the words of /openapi.json. Data only."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
DIMENSIONS: Schema = {**COUNT, "description": "numbers of a vector"}
ANSWERED: Schema = {**STRING, "description": "the model that answered"}
FLOATS: Schema = {"type": "array", "items": {"type": "number"}}
BASE64: Schema = {"type": "string", "contentEncoding": "base64", "description": "little-endian float32"}
VECTOR: Schema = {"oneOf": [FLOATS, BASE64], "description": "of unit length"}
BYTES: Schema = {
    "type": "string",
    "contentMediaType": "application/octet-stream",
    "description": "the file as it is: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, or HEIC where its decoder is installed",
}
ENCODED: Schema = {"type": "string", "description": "base64, standard or URL-safe, or a base64 data URI"}
CROP: Schema = {
    "type": "array",
    "items": COUNT,
    "minItems": 4,
    "maxItems": 4,
    "description": "x, y, width and height of the part that is meant, in pixels of the upright image",
}
NPY: Schema = {"schema": {"type": "string", "contentMediaType": "application/x-npy"}}


def shape(properties: Schema, *, optional: tuple[str, ...] = ()) -> Schema:
    """An object of these properties and no other, all of them there but the `optional`."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_WHICH: Schema = {**STRING, "description": "the model, by its name or an alias; that of --model if left out"}
#: The query's option that names a model.
MODEL: Schema = {"name": "model", "in": "query", "schema": _WHICH}
#: The query's option that names a part of the image.
CROP_OPTION: Schema = {
    "name": "crop",
    "in": "query",
    "schema": {**STRING, "pattern": r"^\d{1,9}(,\d{1,9}){3}$", "description": CROP["description"]},
}


def asked_of(field: str, wanted: Schema, *, optional: tuple[str, ...] = (), **more: Schema) -> Schema:
    """A body of JSON: what is wanted, and of which model."""
    return shape({field: wanted, **more, "model": _WHICH}, optional=(*optional, "model"))


_PLACE: Schema = {**COUNT, "description": "counted from 0 in the order sent"}
_CODE: Schema = {**STRING, "description": "for programs: it stays what it is"}
_MESSAGE: Schema = {**STRING, "description": "a sentence for people"}
BAD_IMAGE = {
    **shape({"index": _PLACE, "code": _CODE, "message": _MESSAGE}),
    "additionalProperties": True,
    "description": "an image that cannot be used; a limit or a format stands beside these where there is one",
}
_DETAILS: Schema = {
    "type": "object",
    "description": "what the code leaves open; images lists those that cannot be used",
}
_ID: Schema = {**STRING, "description": "that of X-Request-Id, which the log has too"}
ERROR = shape({"error": shape({"code": _CODE, "message": _MESSAGE, "details": _DETAILS}), "request_id": _ID})
_STATUS: Schema = {**COUNT, "description": "that of an answer of its own"}
_LATE = shape({"code": _CODE, "message": _MESSAGE, "details": _DETAILS, "status": _STATUS})
_TOLD: Schema = {**COUNT, "description": "of the images told of so far"}
_DONE: Schema = {**FLAG, "description": "every image sent has its line; a stream without this line is incomplete"}
_FAILED: Schema = {**COUNT, "description": "of these, the images that gave no vector"}
_LAST: Schema = {"done": _DONE, "count": _TOLD, "failed": _FAILED, "dimensions": DIMENSIONS, "model": ANSWERED}
_WHOLE = shape({**_LAST, "error": _LATE, "request_id": _ID}, optional=("error", "request_id"))
#: A line of an answer in lines: of an image, or the last.
LINE = {"oneOf": [shape({"index": _PLACE, "embedding": VECTOR}), shape({"index": _PLACE, "error": _LATE}), _WHOLE]}
CLASSES = shape(
    {
        "labels": {
            "type": "array",
            "items": shape(
                {
                    "label": STRING,
                    "score": {"type": "number", "description": "what the model was trained to make of the similarity"},
                    "similarity": {"type": "number", "description": "the cosine"},
                }
            ),
            "description": "best first",
        },
        "scoring": {
            "enum": ["softmax", "sigmoid"],
            "description": "softmax: scores add up to 1 over the labels; sigmoid: each label by itself",
        },
        "model": ANSWERED,
        "truncated": {"type": "array", "items": STRING, "description": "labels cut to the model's length"},
        "unknown_script": {
            "type": "array",
            "items": STRING,
            "description": "labels that have no letter that the model reads; left out if none",
        },
    },
    optional=("unknown_script",),
)
#: A model in use; what it was asked to be never stands here.
RUNS: Schema = {
    "device": {**STRING, "description": "where it computes"},
    "precision": {**STRING, "description": "the arithmetic"},
    "dimensions": DIMENSIONS,
    "embedding_id": {**STRING, "description": "of the vectors: those of another cannot be compared with them"},
    "text": {**FLAG, "description": "texts can be embedded"},
}
_KNOWN: Schema = {
    "converted": {**FLAG, "description": "its folder is there; nothing else is told otherwise"},
    "image_size": {**COUNT, "description": "pixels of a side, after preprocessing"},
    "preprocessing_id": {**STRING, "description": "of how images are prepared"},
    "normalized": {**FLAG, "description": "vectors have unit length"},
    "license": STRING,
    "note": STRING,
    "languages": {"type": "array", "items": STRING, "description": "of texts it knows; many for a hundred"},
    "parity": {"type": "object", "description": "how near the original it is, as measured at the conversion"},
    "loaded": {**FLAG, "description": "it is in memory; left out if it is not served"},
    **RUNS,
}
MODELS = shape(
    {
        "models": {"type": "array", "items": STRING, "description": "those in the folder, and the guide's four"},
        "current": {**STRING, "description": "that of --model"},
        "aliases": {"type": "object", "additionalProperties": STRING, "description": "other names, and what they mean"},
        "details": {
            "type": "object",
            "additionalProperties": shape(_KNOWN, optional=tuple(_KNOWN)),
            "description": "of each, by name",
        },
    }
)


OPENAI_ERROR = shape(
    {
        "error": shape(
            {
                "message": _MESSAGE,
                "type": {"enum": ["invalid_request_error", "rate_limit_error", "server_error"]},
                "param": {"type": ["string", "null"], "description": "the field that is wrong"},
                "code": _CODE,
            }
        ),
        "detail": {**STRING, "description": "the message once more"},
    }
)
OPENAI_MODELS = shape(
    {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "items": shape(
                {
                    "id": {**STRING, "description": "a name or an alias"},
                    "object": {"const": "model"},
                    "created": {**COUNT, "description": "the conversion, in seconds since 1970; 0 if nobody knows"},
                    "owned_by": STRING,
                }
            ),
        },
    }
)
EMBEDDINGS = shape(
    {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "items": shape({"object": {"const": "embedding"}, "index": _PLACE, "embedding": VECTOR}),
        },
        "model": ANSWERED,
        "usage": shape(
            {"prompt_tokens": {**COUNT, "description": "of texts; an image has none"}, "total_tokens": COUNT}
        ),
        **{
            name: {"type": "array", "items": COUNT, "description": f"indices of texts {what}; left out if none"}
            for name, what in (
                ("truncated", "cut to the model's length"),
                ("unknown_script", "without a letter that the model reads"),
            )
        },
    },
    optional=("truncated", "unknown_script"),
)


def embeddings_asked(most: int) -> Schema:
    """The body of /v1/embeddings, of at most so many items. Fields that are not named here may stand beside these."""
    item = {
        "type": ["string", "object"],
        "description": "a text; the data URI of an image; or an object that holds one of them as text, image, bytes, "
        "image_url, image_base64 or content",
    }
    return {
        "type": "object",
        "properties": {
            "input": {"type": ["string", "object", "array", "null"], "items": item, "minItems": 1, "maxItems": most},
            "messages": {"type": ["array", "null"], "minItems": 1, "maxItems": 1, "description": "in place of input"},
            "model": {**_WHICH, "type": ["string", "null"]},
            "encoding_format": {"enum": ["float", "base64", None], "description": "base64 of little-endian float32"},
            "dimensions": {
                "type": ["integer", "null"],
                "minimum": 1,
                "description": "those of the model and no others",
            },
        },
        "anyOf": [{"required": ["input"]}, {"required": ["messages"]}],
    }


WEAVIATE_ERROR = shape({"error": _MESSAGE})
VECTORIZED = shape(
    {"textVectors": {"type": "array", "items": FLOATS}, "imageVectors": {"type": "array", "items": FLOATS}}
)
META = shape({"model": STRING, **RUNS}, optional=tuple(RUNS))


def vectorize_asked(images: int, texts: int) -> Schema:
    """The body of /vectorize, of at most so many. Fields that are not named here may stand beside these."""
    return {
        "type": "object",
        "properties": {
            "texts": {"type": ["array", "null"], "items": STRING, "maxItems": texts},
            "images": {"type": ["array", "null"], "items": ENCODED, "maxItems": images},
            "model": _WHICH,
        },
    }
