"""docs/api.md and docs/api.ja.md, written from /openapi.json and from what a server of the demo model answers.

`scripts/write-api-page` writes both; tests/test_api_page.py holds them to what it would write.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clipsrv.config import Config
from clipsrv.errors import ClipsrvError
from clipsrv.server.api.openapi import describe
from clipsrv.server.api.operations import STATUSES
from clipsrv.server.wire.errors import status_of
from tests.support.api_words import HEADERS, INTRODUCTION, JAPANESE
from tests.support.server import ServerProcess, demo_alone

ROOT = Path(__file__).parents[2]
Schema = dict[str, Any]
Words = Callable[[str], str]

JSON = "application/json"
SERVER = "http://localhost:5000"
HEART, STAR = "examples/red-heart.png", "examples/star.png"
_POST = f'curl {SERVER}{{}} -H "Content-Type: {JSON}" -d'
#: One request of every operation; tests fail if one has none.
EXAMPLES = {
    "/embed": f'curl {SERVER}/embed -F "image=@{HEART}"',
    "/embed/batch": f'curl "{SERVER}/embed/batch?on_error=null" -F "images=@{HEART}" -F "images=@/dev/null"',
    "/embed/text": _POST.format("/embed/text") + """ '{"texts": ["red heart", "star"]}'""",
    "/classify": f'curl {SERVER}/classify -F "image=@{HEART}" -F "labels=red heart" -F "labels=star"',
    "/search": f'curl "{SERVER}/search?limit=2" -F "image=@{HEART}"',
    "/v1/embeddings": _POST.format("/v1/embeddings") + """ '{"model": "demo", "input": ["red heart"]}'""",
    "/vectorize": _POST.format("/vectorize") + """ '{"texts": ["red heart"]}'""",
}
REFUSED = f'curl "{SERVER}/embed?crop=200,200,100,100" -F "image=@{HEART}"'
#: What differs from run to run, and what is long.
_LEFT_OUT = {"request_id", "created", "parity", "license", "note"}


def pages(server: ServerProcess) -> dict[str, str]:
    """The text of both pages, by their names."""
    document = describe(Config())
    answers = {path: _example(command, server) for path, command in _commands(document).items()}
    answers[""] = _example(REFUSED, server)
    return {
        "api.md": "\n".join(_page(document, answers, str)),
        "api.ja.md": "\n".join(_page(document, answers, JAPANESE.__getitem__)),
    }


def _commands(document: Schema) -> dict[str, str]:
    """The example of each path: of those that are got, the path itself is one."""
    return {
        path: EXAMPLES[path] if "post" in operations else f"curl {SERVER}{path}"
        for path, operations in document["paths"].items()
    }


def _example(command: str, server: ServerProcess) -> str:
    done = subprocess.run(
        ["bash", "-c", f"{command.replace(SERVER, server.url)} -sS"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    if not done.stdout:
        shown = ""
    elif done.stdout.startswith("{"):
        shown = f"\n```json\n{json.dumps(_short(json.loads(done.stdout)), ensure_ascii=False)}\n```\n"
    else:
        shown = "\n```\n# HELP clipsrv_requests_total Requests answered; 499 if the caller had gone\n...\n```\n"
        assert shown.splitlines()[2] in done.stdout
    return f"```bash\n{command}\n```\n{shown}"


def _short(value: Any, name: str = "") -> Any:
    if name in _LEFT_OUT:
        return "..."
    if isinstance(value, dict):
        if "openapi" in value:
            return {"openapi": value["openapi"], "...": "..."}
        return {key: _short(one, key) for key, one in value.items()}
    if isinstance(value, list):
        if value and isinstance(value[0], float):
            return [round(value[0], 3), "..."]
        return [_short(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


def _page(document: Schema, answers: dict[str, str], say: Words) -> Iterator[str]:
    yield f"# {say('The HTTP API')}\n"
    yield say(INTRODUCTION) + "\n"
    yield "| | |\n|---|---|"
    for path, method, operation in _operations(document):
        yield f"| [`{method} {path}`](#{_anchor(method, path)}) | {say(operation['summary'])} |"
    title = say("Statuses and codes")
    yield f"| [{title}](#{_anchor(title)}) | {say('Every refusal, and what to do')} |\n"
    yield say(HEADERS)
    for path, method, operation in _operations(document):
        yield f"\n## {method} {path}\n"
        yield from _operation(operation, say)
        yield f"\n{answers[path].rstrip()}"
    yield f"\n## {say('Statuses and codes')}\n"
    yield from _refusals(document, answers[""], say)


def _operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method.upper(), operation


def _anchor(*words: str) -> str:
    kept = (c for c in " ".join(words).lower() if c.isalnum() or c in " -_")
    return "".join(kept).replace(" ", "-")


def _operation(operation: Schema, say: Words) -> Iterator[str]:
    opened = f" {say('Open to all.')}" if operation.get("security") == [{}] else ""
    yield f"{say(operation['summary'])}{say('.')}{opened}"
    if parameters := operation.get("parameters"):
        yield f"\n{say('In the query:')}\n"
        yield from _head(say)
        for one in parameters:
            yield _row(one["name"], one["schema"], say, required=False)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield from _body(say("Body"), kind, content["schema"], say)
    for status, response in operation["responses"].items():
        if "$ref" in response:
            continue
        if "content" not in response:
            yield f"\n{say('Answer')} {status}{say(', without a body.')}"
        elif status == "200":
            for kind, content in response["content"].items():
                yield from _body(f"{say('Answer')} {status}", kind, content["schema"], say)
        else:
            yield f"\n{say('Answer')} {status}: {say(response['description'])}; {say('the same fields.')}"
    refusals = [f"`{status}`" for status, response in operation["responses"].items() if "$ref" in response]
    yield f"\n{say('Refused with')} {', '.join(refusals)}."


def _body(what: str, kind: str, schema: Schema, say: Words) -> Iterator[str]:
    for number, one in enumerate(schema.get("oneOf", [schema])):
        title = f"{say('or')} " if number else ""
        if one.get("properties"):
            yield f"\n{what}, {title}`{kind}`:\n"
            yield from _head(say)
            yield from _fields(one, say)
        else:
            described = one.get("description") or {
                "text/plain": "plain text",
                "text/html": "the page",
                "application/x-npy": "a NumPy file, float32 (n, dimensions)",
            }.get(kind, "JSON")
            yield f"\n{what}, {title}`{kind}`: {say(described)}{say('.')}"


def _head(say: Words) -> Iterator[str]:
    yield f"| {say('field')} | {say('what')} | {say('meaning')} |"
    yield "|---|---|---|"


def _fields(schema: Schema, say: Words, before: str = "") -> Iterator[str]:
    """A row for each field, those of objects within beneath them: `labels[].score`, `models.NAME.status`."""
    for name, one in schema["properties"].items():
        yield _row(before + name, one, say, required=name in schema.get("required", ()))
        yield from _within(one, say, before + name)


def _within(one: Schema, say: Words, name: str) -> Iterator[str]:
    if "properties" in one:
        yield from _fields(one, say, f"{name}.")
    for inner in one.get("oneOf", ()):
        if "properties" in inner:
            yield from _fields(inner, say, f"{name}.")
    if isinstance(one.get("items"), dict):
        yield from _within(_resolved(one["items"]), say, f"{name}[]")
    if isinstance(one.get("additionalProperties"), dict):
        yield from _within(one["additionalProperties"], say, f"{name}.NAME")


def _row(name: str, schema: Schema, say: Words, *, required: bool) -> str:
    kind = _kind(schema, say) + ("" if required else say("; may be left out"))
    described = schema if "description" in schema else _resolved(schema.get("items", {}))
    meaning = say(described["description"]) if "description" in described else ""
    return f"| `{name}` | {kind} | {meaning} |"


def _resolved(schema: Schema) -> Schema:
    found: Schema = describe(Config())["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], schema)
    return found


def _kind(schema: Schema, say: Words) -> str:
    """A type in words, with its limits."""
    if "oneOf" in schema or "anyOf" in schema:
        inner = [part for one in _either(schema) for part in (_either(one) if "type" not in one else [one])]
        return say(" or ").join(dict.fromkeys(_kind(one, say) for one in inner))
    if "$ref" in schema:
        return say("object")
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        told = ", ".join(f"`{'null' if value is None else value}`" for value in values)
        return told + _limits({name: schema[name] for name in ("default",) if name in schema}, say)
    if schema.get("contentEncoding") == "base64":
        return say("base64 of little-endian float32")
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if schema.get("contentMediaType"):
        return say("file")
    return say(" or ").join(_list(schema, say) if kind == "array" else say(kind) for kind in kinds) + _limits(
        schema, say
    )


def _either(schema: Schema) -> list[Schema]:
    found: list[Schema] = schema.get("oneOf") or schema.get("anyOf") or [schema]
    return found


def _list(schema: Schema, say: Words) -> str:
    if "items" not in schema:
        return say("list")
    inner = _kind(schema["items"], say)
    return say("list of {}").format(
        f"({inner})" if say(" or ") in inner or say("list of {}").strip("{}") in inner else inner
    )


def _limits(schema: Schema, say: Words) -> str:
    exactly = "minItems" in schema and schema["minItems"] == schema.get("maxItems")
    told = [say("exactly {}").format(schema["minItems"])] if exactly else []
    told += [
        say(words).format(f"{schema[name]:,}")
        for name, words in (
            ("minItems", "at least {}"),
            ("maxItems", "at most {}"),
            ("minLength", "at least {} characters"),
            ("maxLength", "at most {} characters"),
            ("minimum", "from {}"),
        )
        if schema.get(name) and not exactly
    ]
    told += [say("none twice")] if schema.get("uniqueItems") else []
    told += [f"`{schema['pattern']}`".replace("|", "\\|")] if "pattern" in schema else []
    told += [say("by default {}").format(f"`{schema['default']}`")] if "default" in schema else []
    return f" ({', '.join(told)})" if told else ""


def _refusals(document: Schema, example: str, say: Words) -> Iterator[str]:
    schemas = document["components"]["schemas"]
    yield say("An error of the guide's endpoints, here of a part that is none of the image:") + "\n"
    yield example
    for name, title in (
        ("Error", "Its shape:"),
        ("BadImage", "An image that cannot be used, in `details.images` or in `errors`:"),
        ("OpenAIError", "The shape of errors under `/v1`:"),
        ("WeaviateError", "The shape of Weaviate's:"),
    ):
        yield f"{say(title)}\n"
        yield from _head(say)
        yield from _fields(schemas[name], say)
        yield ""
    yield f"{say('Under `/v1` 406 and 422 are 400. The codes are the same everywhere.')}\n"
    yield f"| {say('status')} | {say('meaning')} | {say('wait')} | {say('codes')} |"
    yield "|---|---|---|---|"
    for status, (meaning, waiting_helps) in STATUSES.items():
        codes = ", ".join(f"`{code}`" for code in _codes(status))
        yield f"| {status} | {say(meaning)} | {say('as `Retry-After` says') if waiting_helps else ''} | {codes} |"
    yield ""


def _codes(status: int) -> list[str]:
    """Codes that a request may be answered with: none of a start that fails."""
    kinds, found = [ClipsrvError], set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        blank = Exception.__new__(kind)
        ours = kind.__module__ == "clipsrv.errors" or kind.__module__.startswith("clipsrv.server.")
        if ours and not hasattr(kind, "exit_status") and status_of(blank) == status:
            found.add(kind.code)
    others = {404: ["not_found"], 405: ["method_not_allowed"], 417: ["expectation_failed"]}
    return sorted({*found, *others.get(status, ())})


def main() -> None:
    with TemporaryDirectory() as folder, closing(demo_alone(Path(folder))) as server:
        for name, text in pages(server.ready()).items():
            (ROOT / "docs" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
