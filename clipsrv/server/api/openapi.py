"""/openapi.json: the HTTP contract in OpenAPI 3.1. Tests hold it against the routes, the error table and real answers.

Written as data, with short functions for what repeats. Knows the limits of the configuration, nothing of how they work.
"""

from __future__ import annotations

from clipsrv import __version__
from clipsrv.config import Config
from clipsrv.models.scoring import LONGEST_LABEL, TEMPLATE
from clipsrv.server.api.schemas import (
    BAD_IMAGE,
    BYTES,
    CLASSES,
    COUNT,
    ENCODED,
    ERROR,
    HEALTH,
    MODEL,
    MODELS,
    NPY,
    STRING,
    VECTOR,
    Schema,
    asked_of,
    shape,
)
from clipsrv.server.wire.errors import COMMON_HEADERS
from clipsrv.server.wire.inputs import LONGEST_TEXT
from clipsrv.settings import texts_of_a_request

_JSON = "application/json"

#: What each status means to a caller, and whether waiting helps.
_ERRORS: dict[int, tuple[str, bool]] = {
    400: ("The request is not put together as documented", False),
    401: ("No valid API key", False),
    403: ("A Host, or the web page of an origin, that is not allowed", False),
    404: ("Not found, a model that is not served, or for texts and labels one without a text tower", False),
    405: ("Another method; see Allow", False),
    406: ("Accept allows no form this endpoint has", False),
    408: ("The request did not arrive in time", False),
    413: ("Too many bytes, parts, images, texts or values of JSON", False),
    415: ("A Content-Type or Content-Encoding that is not accepted", False),
    417: ("An Expect other than 100-continue", False),
    422: ("The envelope is fine, the image is not", False),
    429: ("Full: try again after Retry-After seconds", True),
    431: ("The request line or the headers are too long", False),
    500: ("A bug in the server", False),
    503: ("Starting, stopping, the model cannot be loaded, or inference does not work", True),
    504: ("Not finished before the deadline", False),
}
_ALWAYS = (400, 401, 403, 405, 408, 417, 429, 431, 500, 503)
_EMBED = (*_ALWAYS, 404, 406, 413, 415, 422, 504)


def describe(config: Config) -> Schema:
    """The document for a server of this configuration."""
    many = {"maxItems": config.max_images, "minItems": 1}
    images = asked_of("images", {"type": "array", "items": ENCODED, **many})
    text = {**STRING, "maxLength": LONGEST_TEXT}
    texts = {"type": "array", "items": text, "maxItems": texts_of_a_request(config), "minItems": 1}
    one: Schema = {"embedding": VECTOR, "dimensions": COUNT, "model": STRING}
    several: Schema = {
        "embeddings": {"type": "array", "items": {"anyOf": [VECTOR, {"type": "null"}]}},
        "count": COUNT,
        "dimensions": COUNT,
        "model": STRING,
    }
    failed = {"errors": {"type": "array", "items": {"$ref": "#/components/schemas/BadImage"}}}
    truncated = {"type": "array", "items": COUNT, "description": "indices of texts cut to the model's length"}
    single = {**one, "truncated": {"type": "boolean", "description": "the text was cut to the model's length"}}
    foreign = {**truncated, "description": "indices of texts without a letter that the model reads; left out if none"}
    alone = {"type": "boolean", "description": "the text has no letter that the model reads; left out otherwise"}
    by_text = {
        "oneOf": [
            shape({**single, "unknown_script": alone}, optional=("unknown_script",)),
            shape({**several, "truncated": truncated, "unknown_script": foreign}, optional=("unknown_script",)),
        ]
    }
    asked = _labels(texts_of_a_request(config))
    encoding = _option("encoding", "json", "base64")
    paths = {
        "/embed": _post(
            "embedImage",
            "The vector of one image",
            {
                "multipart/form-data": shape({"image": BYTES}),
                "image/*": BYTES,
                "application/octet-stream": BYTES,
                _JSON: asked_of("image", ENCODED),
            },
            shape(one),
            [encoding, MODEL],
        ),
        "/embed/batch": _post(
            "embedImages",
            "The vectors of several images, in the order sent",
            {"multipart/form-data": shape({"images": {"type": "array", "items": BYTES, **many}}), _JSON: images},
            shape({**several, **failed}, optional=("errors",)),
            [encoding, _option("on_error", "fail", "null"), MODEL],
        ),
        "/embed/text": _post(
            "embedText",
            "The vector of a text, or of several, in the space of the images",
            {_JSON: {"oneOf": [asked_of("text", text), asked_of("texts", texts)]}},
            by_text,
            [encoding, MODEL],
        ),
        "/classify": _post(
            "classifyImage",
            "How well each of some labels fits one image",
            {
                "multipart/form-data": shape({"image": BYTES, **asked}, optional=("template",)),
                _JSON: asked_of("image", ENCODED, optional=("template",), **asked),
            },
            CLASSES,
            [MODEL],
            npy=False,
        ),
        "/health": _get("health", "Whether requests are being served", HEALTH, also=(503,), open_to_all=True),
        "/health/live": _get("live", "Answers while the process can", shape({"status": STRING}), open_to_all=True),
        "/models": _get("models", "The models there are, and those served", MODELS),
        "/metrics": _get("metrics", "Prometheus text", None),
        "/openapi.json": _get("openapi", "This document", {"type": "object"}),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "clipsrv", "version": __version__, "summary": "CLIP embeddings of images and texts"},
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR, "BadImage": BAD_IMAGE},
            "responses": {str(status): _error(status) for status in _ERRORS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        # Without API keys configured the server asks for none.
        "security": [{}, {"bearer": []}, {"header": []}],
    }


def _error(status: int) -> Schema:
    text, waiting_helps = _ERRORS[status]
    headers = {"Retry-After": {"schema": COUNT, "description": "seconds"}} if waiting_helps else {}
    return {
        "description": text,
        "headers": {**_headers(), **headers},
        "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _headers(*more: str) -> Schema:
    return {name: {"schema": STRING} for name in (*COMMON_HEADERS, "X-Request-Id", *more)}


def _option(name: str, *values: str) -> Schema:
    return {"name": name, "in": "query", "schema": {"type": "string", "enum": list(values), "default": values[0]}}


def _responses(statuses: tuple[int, ...]) -> Schema:
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}


def _labels(most: int) -> Schema:
    one = {**STRING, "minLength": 1, "maxLength": LONGEST_LABEL, "pattern": r"\S"}
    template = {
        **STRING,
        "maxLength": LONGEST_LABEL,
        "pattern": r"\{\}",
        "default": TEMPLATE,
        "description": "holds {} once, where each label is put",
    }
    return {
        "labels": {"type": "array", "items": one, "minItems": 1, "maxItems": most, "uniqueItems": True},
        "template": template,
    }


def _post(
    name: str, summary: str, bodies: dict[str, Schema], answer: Schema, options: list[Schema], *, npy: bool = True
) -> Schema:
    ok = {
        "description": summary,
        "headers": _headers("X-Embedding-Id", "Server-Timing"),
        "content": {_JSON: {"schema": answer}, **({"application/x-npy": NPY} if npy else {})},
    }
    content = {kind: {"schema": schema} for kind, schema in bodies.items()}
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "parameters": options,
            "requestBody": {"required": True, "content": content},
            "responses": {"200": ok, **_responses(_EMBED)},
        }
    }


def _get(
    name: str, summary: str, answer: Schema | None, *, also: tuple[int, ...] = (), open_to_all: bool = False
) -> Schema:
    content = {"text/plain": {"schema": STRING}} if answer is None else {_JSON: {"schema": answer}}
    ok = {"description": summary, "headers": _headers(), "content": content}
    responses = {"200": ok, **_responses(_ALWAYS)}
    for status in also:
        responses[str(status)] = {**ok, "description": _ERRORS[status][0]}
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            **({"security": [{}]} if open_to_all else {}),
            "responses": responses,
        }
    }
