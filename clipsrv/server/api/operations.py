"""How one endpoint is described in OpenAPI: its operation, its answers, and what each status means to a caller."""

from __future__ import annotations

from clipsrv.server.api.schemas import COUNT, NPY, STRING, Schema
from clipsrv.server.wire.errors import COMMON_HEADERS
from clipsrv.server.wire.replies import NDJSON_TYPE

JSON = "application/json"

#: What each status means to a caller, and whether waiting helps.
STATUSES: dict[int, tuple[str, bool]] = {
    400: ("The request is not put together as documented", False),
    401: ("No valid API key", False),
    403: ("A Host, or the web page of an origin, that is not allowed", False),
    404: ("Not found, a model that is not served, for texts and labels one without a text tower, or no index", False),
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
#: Those of a connection that has no request yet.
_BEFORE = (400, 408, 431, 500, 503)
#: Whose errors are told in another shape, and which statuses then are 400.
OPENAI, WEAVIATE, _IS_400 = "OpenAI", "Weaviate", (406, 422)

_CACHE: Schema = {
    "schema": {"enum": ["hit", "miss", "partial"]},
    "description": "whether the vectors were known; left out where none was looked for",
}


def post(
    name: str,
    summary: str,
    bodies: dict[str, Schema],
    answer: Schema,
    options: list[Schema],
    *,
    npy: bool = True,
    line: Schema | None = None,
    errors: str = "",
) -> Schema:
    """The operations of a path that takes bodies, by their types, and answers with vectors or what was made of them.
    `npy`: vectors may be had as a NumPy file; `line`: or as lines of these; `errors`: whose shape they have, if not the
    server's own."""
    others = {**({"application/x-npy": NPY} if npy else {}), **({NDJSON_TYPE: {"schema": line}} if line else {})}
    ok = {
        "description": summary,
        "headers": {**_headers("X-Embedding-Id", "Server-Timing"), "X-Cache": _CACHE},
        "content": {JSON: {"schema": answer}, **others},
    }
    content = {kind: {"schema": schema} for kind, schema in bodies.items()}
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "parameters": options,
            "requestBody": {"required": True, "content": content},
            "responses": {"200": ok, **_responses(_EMBED, errors)},
        }
    }


def get(
    name: str,
    summary: str,
    answer: Schema | None,
    *,
    also: tuple[int, ...] = (),
    open_to_all: bool = False,
    errors: str = "",
) -> Schema:
    """The operations of a path that answers with JSON, or with plain text where `answer` is None; `also` with these
    statuses. `errors` as in `post`."""
    content = {"text/plain": {"schema": STRING}} if answer is None else {JSON: {"schema": answer}}
    ok = {"description": summary, "headers": _headers(), "content": content}
    responses = {"200": ok, **_responses(_ALWAYS, errors)}
    for status in also:
        responses[str(status)] = {**ok, "description": STATUSES[status][0]}
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            **({"security": [{}]} if open_to_all else {}),
            "responses": responses,
        }
    }


def probe(name: str, summary: str, *, errors: str) -> Schema:
    """The operations of a path that answers without a body, to whoever asks."""
    described = get(name, summary, None, open_to_all=True, errors=errors)
    described["get"]["responses"]["204"] = {"description": summary, "headers": _headers()}
    del described["get"]["responses"]["200"]
    return described


def page(name: str, summary: str) -> Schema:
    """The operations of a path that shows HTML to browsers and answers others with JSON, to whoever asks."""
    described = get(name, summary, {"type": "object"}, open_to_all=True)
    described["get"]["responses"]["200"]["content"] |= {"text/html": {"schema": STRING}}
    return described


def error(status: int, whose: str) -> Schema:
    """The answer of a status of STATUSES, in the shape of "" (the server's own), of OPENAI or of WEAVIATE."""
    text, waiting_helps = STATUSES[status]
    # What is refused before there is a request has the server's own shape.
    kinds = {"Error", f"{whose}Error"} if status in _BEFORE else {f"{whose}Error"}
    headers = {"Retry-After": {"schema": COUNT, "description": "seconds"}} if waiting_helps else {}
    return {
        "description": text,
        "headers": {**_headers(), **headers},
        "content": {JSON: {"schema": {"anyOf": [{"$ref": f"#/components/schemas/{kind}"} for kind in sorted(kinds)]}}},
    }


def _headers(*more: str) -> Schema:
    return {name: {"schema": STRING} for name in (*COMMON_HEADERS, "X-Request-Id", *more)}


def option(name: str, *values: str, means: str) -> Schema:
    """A parameter of the query that has one of `values`, the first of them where it is left out."""
    schema = {"type": "string", "enum": list(values), "default": values[0], "description": means}
    return {"name": name, "in": "query", "schema": schema}


def _responses(statuses: tuple[int, ...], whose: str) -> Schema:
    given = [status for status in sorted(statuses) if not (whose == OPENAI and status in _IS_400)]
    return {str(status): {"$ref": f"#/components/responses/{whose}{status}"} for status in given}
