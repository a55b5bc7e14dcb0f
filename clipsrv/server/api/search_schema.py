"""What /search takes and gives, in OpenAPI. Data only."""

from __future__ import annotations

from clipsrv.server.api.operations import JSON, post
from clipsrv.server.api.schemas import BYTES, CROP, CROP_OPTION, ENCODED, MODEL, STRING, Schema, asked_of, shape

#: The results of a search where nobody says how many, and the most there may be.
LIMIT, MOST = 10, 1000

_ONE = shape(
    {
        "id": {**STRING, "description": "of the image, as it was embedded"},
        "path": {**STRING, "description": "where the image lay when it was embedded"},
        "score": {"type": "number", "description": "the cosine of both vectors"},
    }
)
_RESULTS = shape(
    {
        "results": {
            "type": "array",
            "items": _ONE,
            "description": "the nearest first; those that are equally near in the order of the index",
        },
        "model": {**STRING, "description": "the model that made the index"},
        "truncated": {"type": "boolean", "description": "the text was cut to the model's length; left out otherwise"},
        "unknown_script": {
            "type": "boolean",
            "description": "the text has no letter that the model reads; left out otherwise",
        },
    },
    optional=("truncated", "unknown_script"),
)
_LIMIT: Schema = {
    "name": "limit",
    "in": "query",
    "schema": {
        "type": "integer",
        "minimum": 1,
        "maximum": MOST,
        "default": LIMIT,
        "description": "results at most",
    },
}


def describe_search(text: Schema) -> Schema:
    """The operations of /search, which takes an image or what `text` describes."""
    image = asked_of("image", ENCODED, optional=("crop",), crop=CROP)
    return post(
        "search",
        "The images of the index that are nearest to an image or a text; without --index 404 no_index",
        {
            "multipart/form-data": shape({"image": BYTES}),
            "image/*": BYTES,
            "application/octet-stream": BYTES,
            JSON: {"oneOf": [image, asked_of("text", text)]},
        },
        _RESULTS,
        [_LIMIT, CROP_OPTION, MODEL],
        npy=False,
    )
