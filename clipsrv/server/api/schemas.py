"""The shapes of what goes in and out over HTTP, as JSON Schema: the words of /openapi.json. Data only."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLOATS: Schema = {"type": "array", "items": {"type": "number"}}
BASE64: Schema = {"type": "string", "contentEncoding": "base64", "description": "little-endian float32"}
VECTOR: Schema = {"oneOf": [FLOATS, BASE64]}
BYTES: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}
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
CROP_OPTION: Schema = {"name": "crop", "in": "query", "schema": {**STRING, "pattern": r"^\d{1,9}(,\d{1,9}){3}$"}}


def asked_of(field: str, wanted: Schema, *, optional: tuple[str, ...] = (), **more: Schema) -> Schema:
    """A body of JSON: what is wanted, and of which model."""
    return shape({field: wanted, **more, "model": _WHICH}, optional=(*optional, "model"))


BAD_IMAGE = {
    **shape({"index": COUNT, "code": STRING, "message": STRING}),
    "additionalProperties": True,
    "description": "index counts from 0 in the order sent; a limit or a format stands beside it where there is one",
}
ERROR = shape(
    {"error": shape({"code": STRING, "message": STRING, "details": {"type": "object"}}), "request_id": STRING}
)
CLASSES = shape(
    {
        "labels": {
            "type": "array",
            "items": shape({"label": STRING, "score": {"type": "number"}, "similarity": {"type": "number"}}),
            "description": "best first; similarity is the cosine, score what the model was trained to make of it",
        },
        "scoring": {
            "enum": ["softmax", "sigmoid"],
            "description": "softmax: scores add up to 1 over the labels; sigmoid: each label by itself",
        },
        "model": STRING,
        "truncated": {"type": "array", "items": STRING, "description": "labels cut to the model's length"},
        "unknown_script": {
            "type": "array",
            "items": STRING,
            "description": "labels that have no letter that the model reads; left out if none",
        },
    },
    optional=("unknown_script",),
)
_STATE = {
    **shape({"status": {"enum": ["healthy", "unhealthy", "loading", "failed", "unloaded"]}}),
    "additionalProperties": True,
}
HEALTH = {
    **shape(
        {
            "status": {"enum": ["healthy", "starting", "draining", "unhealthy"]},
            "model": STRING,
            "models": {"type": "object", "additionalProperties": _STATE},
        }
    ),
    "additionalProperties": True,
}
MODELS = shape(
    {
        "models": {"type": "array", "items": STRING},
        "current": STRING,
        "aliases": {"type": "object", "additionalProperties": STRING},
        "details": {"type": "object", "additionalProperties": {"type": "object"}},
    }
)


OPENAI_ERROR = shape(
    {
        "error": shape(
            {
                "message": STRING,
                "type": {"enum": ["invalid_request_error", "rate_limit_error", "server_error"]},
                "param": {"type": ["string", "null"]},
                "code": STRING,
            }
        ),
        "detail": STRING,
    }
)
OPENAI_MODELS = shape(
    {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "items": shape({"id": STRING, "object": {"const": "model"}, "created": COUNT, "owned_by": STRING}),
        },
    }
)
EMBEDDINGS = shape(
    {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "items": shape({"object": {"const": "embedding"}, "index": COUNT, "embedding": VECTOR}),
        },
        "model": STRING,
        "usage": shape({"prompt_tokens": COUNT, "total_tokens": COUNT}),
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
            "model": {"type": ["string", "null"]},
            "encoding_format": {"enum": ["float", "base64", None]},
            "dimensions": {"type": ["integer", "null"], "minimum": 1},
        },
        "anyOf": [{"required": ["input"]}, {"required": ["messages"]}],
    }


WEAVIATE_ERROR = shape({"error": STRING})
VECTORIZED = shape(
    {"textVectors": {"type": "array", "items": FLOATS}, "imageVectors": {"type": "array", "items": FLOATS}}
)
META = {**shape({"model": STRING}), "additionalProperties": True}


def vectorize_asked(images: int, texts: int) -> Schema:
    """The body of /vectorize, of at most so many. Fields that are not named here may stand beside these."""
    return {
        "type": "object",
        "properties": {
            "texts": {"type": ["array", "null"], "items": STRING, "maxItems": texts},
            "images": {"type": ["array", "null"], "items": ENCODED, "maxItems": images},
            "model": STRING,
        },
    }
