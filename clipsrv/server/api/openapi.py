"""/openapi.json: the HTTP contract in OpenAPI 3.1. Tests hold it against the routes, the error table and real answers.

Written as data, with short functions for what repeats. Knows the limits of the configuration, nothing of how they work.
"""

from __future__ import annotations

from clipsrv import __version__
from clipsrv.config import Config
from clipsrv.models.scoring import LONGEST_LABEL, TEMPLATE
from clipsrv.server.api.health_schema import HEALTH
from clipsrv.server.api.operations import JSON, OPENAI, STATUSES, WEAVIATE, error, get, option, page, post, probe
from clipsrv.server.api.schemas import (
    ANSWERED,
    BAD_IMAGE,
    BYTES,
    CLASSES,
    COUNT,
    CROP,
    CROP_OPTION,
    DIMENSIONS,
    EMBEDDINGS,
    ENCODED,
    ERROR,
    LINE,
    META,
    MODEL,
    MODELS,
    OPENAI_ERROR,
    OPENAI_MODELS,
    STRING,
    VECTOR,
    VECTORIZED,
    WEAVIATE_ERROR,
    Schema,
    asked_of,
    embeddings_asked,
    shape,
    vectorize_asked,
)
from clipsrv.server.api.search_schema import describe_search
from clipsrv.server.wire.inputs import LONGEST_TEXT
from clipsrv.settings import texts_of_a_request


def describe(config: Config) -> Schema:
    """The document for a server of this configuration."""
    many = {"maxItems": config.max_images, "minItems": 1}
    part = shape({"image": ENCODED, "crop": CROP}, optional=("crop",))
    images = asked_of("images", {"type": "array", "items": {"oneOf": [ENCODED, part]}, **many})
    text = {**STRING, "maxLength": LONGEST_TEXT}
    texts = {"type": "array", "items": text, "maxItems": texts_of_a_request(config), "minItems": 1}
    one: Schema = {"embedding": VECTOR, "dimensions": DIMENSIONS, "model": ANSWERED}
    several: Schema = {
        "embeddings": {"type": "array", "items": {"anyOf": [VECTOR, {"type": "null"}]}},
        "count": {**COUNT, "description": "of vectors"},
        "dimensions": DIMENSIONS,
        "model": ANSWERED,
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
    encoding = option("encoding", "json", "base64", means="how vectors are written")
    paths = {
        "/embed": post(
            "embedImage",
            "The vector of one image",
            {
                "multipart/form-data": shape({"image": BYTES}),
                "image/*": BYTES,
                "application/octet-stream": BYTES,
                JSON: asked_of("image", ENCODED, optional=("crop",), crop=CROP),
            },
            shape(one),
            [encoding, CROP_OPTION, MODEL],
        ),
        "/embed/batch": post(
            "embedImages",
            "The vectors of several images, in the order sent",
            {"multipart/form-data": shape({"images": {"type": "array", "items": BYTES, **many}}), JSON: images},
            shape({**several, **failed}, optional=("errors",)),
            [encoding, option("on_error", "fail", "null", means="what an image that cannot be used gives"), MODEL],
            line=LINE,
        ),
        "/embed/text": post(
            "embedText",
            "The vector of a text, or of several, in the space of the images",
            {JSON: {"oneOf": [asked_of("text", text), asked_of("texts", texts)]}},
            by_text,
            [encoding, MODEL],
        ),
        "/classify": post(
            "classifyImage",
            "How well each of some labels fits one image",
            {
                "multipart/form-data": shape({"image": BYTES, **asked}, optional=("template",)),
                JSON: asked_of("image", ENCODED, optional=("template",), **asked),
            },
            CLASSES,
            [MODEL],
            npy=False,
        ),
        "/search": describe_search(text),
        "/v1/embeddings": post(
            "createEmbeddings",
            "OpenAI's: vectors of texts and images, in the order sent",
            {JSON: embeddings_asked(config.max_images + texts_of_a_request(config))},
            EMBEDDINGS,
            [],
            npy=False,
            errors=OPENAI,
        ),
        "/v1/models": get("listModels", "OpenAI's: the names that model may have", OPENAI_MODELS, errors=OPENAI),
        "/vectorize": post(
            "vectorize",
            "Weaviate's: vectors of texts and of images",
            {JSON: vectorize_asked(config.max_images, texts_of_a_request(config))},
            VECTORIZED,
            [MODEL],
            npy=False,
            errors=WEAVIATE,
        ),
        "/meta": get("meta", "Weaviate's: the model in use", META, errors=WEAVIATE),
        "/.well-known/live": probe("wellKnownLive", "Weaviate's: the process can answer", errors=WEAVIATE),
        "/.well-known/ready": probe("wellKnownReady", "Weaviate's: requests are being served", errors=WEAVIATE),
        "/health": get("health", "Whether requests are being served", HEALTH, also=(503,), open_to_all=True),
        "/health/live": get("live", "Answers while the process can", shape({"status": STRING}), open_to_all=True),
        "/models": get("models", "The models there are, and those served", MODELS),
        "/metrics": get("metrics", "Prometheus text", None),
        "/openapi.json": get("openapi", "This document", {"type": "object"}),
        **({"/": page("page", "The web page, or for programs where to look")} if config.page else {}),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "clipsrv", "version": __version__, "summary": "CLIP embeddings of images and texts"},
        "paths": paths,
        "components": {
            "schemas": {
                "Error": ERROR,
                "BadImage": BAD_IMAGE,
                "OpenAIError": OPENAI_ERROR,
                "WeaviateError": WEAVIATE_ERROR,
            },
            "responses": {
                f"{whose}{status}": error(status, whose) for whose in ("", OPENAI, WEAVIATE) for status in STATUSES
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        # Without API keys configured the server asks for none.
        "security": [{}, {"bearer": []}, {"header": []}],
    }


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
