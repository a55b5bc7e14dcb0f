"""The document against the routes, the error table, the specification's own validator, and real answers."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from clipsrv.config import Config
from clipsrv.models.model import Model
from clipsrv.server.api.openapi import describe
from clipsrv.server.app import build_app
from clipsrv.server.page import gallery
from clipsrv.server.wire.errors import STATUS
from tests.support.library import Given
from tests.support.server import ServerProcess
from tests.support.serving import Reply, Served, drawn, part, request, serving

DOCUMENT = describe(Config())
GOOD = drawn(1)
#: What the page asks for itself, and may be another in the next version.
OF_THE_PAGE = {"/page/{file}", *(route.path for route in gallery.ROUTES)}
JSON, NDJSON = "application/json", "application/x-ndjson"


def never(name: str) -> Model:
    raise AssertionError("not loaded here")


def test_it_is_valid_openapi() -> None:
    validate(DOCUMENT)


def test_it_has_every_route_and_no_other() -> None:
    app = build_app(Config(models_dir="nowhere"), Given(never))
    routes = {
        (route.resource.canonical, route.method.lower())
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD" and route.resource.canonical not in OF_THE_PAGE
    }
    assert {(path, method) for path, operations in DOCUMENT["paths"].items() for method in operations} == routes


def test_every_status_of_the_error_table_is_described() -> None:
    assert {str(status) for status in STATUS.values()} <= set(DOCUMENT["components"]["responses"])


def test_the_limits_are_those_of_the_configuration() -> None:
    body = describe(Config(max_images=7))["paths"]["/embed/batch"]["post"]["requestBody"]["content"][JSON]
    assert body["schema"]["properties"]["images"]["maxItems"] == 7


def check(path: str, method: str, reply: Reply) -> None:
    """Fails if the document does not describe this answer: its status, its headers and its body."""
    responses = DOCUMENT["paths"][path][method]["responses"]
    assert str(reply.status) in responses, f"{method} {path} may not answer {reply.status}"
    response: dict[str, Any] = responses[str(reply.status)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    for name, described in response["headers"].items():
        if "left out" not in described.get("description", ""):
            assert name.lower() in reply.headers, f"{name} is missing"
    if "content" not in response:
        assert reply.body == b""
        return
    kind = reply.headers["content-type"].partition(";")[0]
    assert kind in response["content"], f"{kind} is not described"
    if kind == NDJSON:
        for line in reply.body.splitlines():
            Draft202012Validator(response["content"][NDJSON]["schema"]).validate(json.loads(line))
    if kind == JSON:
        schema = {**response["content"][JSON]["schema"], "components": DOCUMENT["components"]}
        Draft202012Validator(schema).validate(reply.json)


async def post(served: Served, path: str, body: bytes, kind: str, *headers: str) -> None:
    check(path.partition("?")[0], "post", await served.post(path, body, kind, *headers))


async def test_every_kind_of_answer_is_as_described() -> None:
    encoded = json.dumps({"images": [base64.b64encode(GOOD).decode()] * 2}).encode()
    async with serving(max_images=4, cache_bytes=2**20) as served:
        for path in ("/", "/health", "/health/live", "/models", "/v1/models", "/meta", "/metrics", "/openapi.json"):
            check(path, "get", await served.get(path))
            check(path, "get", await served.get(path, "Host: evil.example"))
        assert (await served.get("/openapi.json")).json["openapi"] == "3.1.0"
        for option in ("", "?encoding=base64", "?encoding=nonsense"):
            await post(served, "/embed" + option, GOOD, "image/png")
            await post(served, "/embed/batch" + option, encoded, JSON)
        await post(served, "/embed", GOOD, "image/png", "Accept: application/x-npy")
        await post(served, "/embed", GOOD, "image/png", "Accept: text/html")
        await post(served, "/embed", GOOD[:50], "image/png")
        await post(served, "/embed", b"", "text/plain")
        await post(served, "/embed", b"{}", JSON)
        await post(served, "/embed", GOOD, "image/png", "Expect: nonsense")
        await post(served, "/embed", GOOD, "image/png", "Content-Length: 99999999999")
        holed = json.dumps({"images": ["AAAA", base64.b64encode(GOOD).decode()]}).encode()
        await post(served, "/embed/batch?on_error=null", holed, JSON)
        await post(served, "/embed/batch", holed, JSON)
        await post(served, "/embed/batch", json.dumps({"images": ["AAAA"] * 5}).encode(), JSON)
        for body in (encoded, holed, holed[:-1], b"{}"):
            streamed = await served.client.post(
                "/embed/batch", data=body, headers={"Content-Type": JSON, "Accept": NDJSON}
            )
            check("/embed/batch", "post", streamed)
        await post(served, "/embed/text", b'{"text": "a cat"}', JSON)
        labelled = {"image": base64.b64encode(GOOD).decode(), "labels": ["cat", "dog"]}
        await post(served, "/classify", json.dumps(labelled).encode(), JSON)
        await post(served, "/classify", json.dumps(labelled | {"template": "cat"}).encode(), JSON)
        await post(served, "/classify", json.dumps(labelled).encode(), JSON, "Accept: application/x-npy")
        await post(served, "/search", b'{"text": "a cat"}', JSON)
        for mixed in (
            ["a", *json.loads(encoded)["images"]],
            ["data:image/png;base64,AAAA"],
            [{"image": "AAAA"}] * 5,
            [1],
        ):
            asked = json.dumps({"input": mixed, "encoding_format": "base64"}).encode()
            await post(served, "/v1/embeddings", asked, JSON)
        await post(served, "/v1/embeddings", b'{"input": "a cat"}', JSON)
        await post(served, "/v1/embeddings", b'{"input": "a cat", "model": "another"}', JSON)
        await post(served, "/v1/embeddings", b'{"input": "a cat"}', "text/plain")
        await post(served, "/v1/embeddings", b"{}", JSON, "Expect: nonsense")
        await post(served, "/v1/embeddings", b"{}", JSON, "Content-Length: 99999999999")
        for body in (b'{"texts": ["a"]}', b'{"images": ["AAAA"]}', b'{"texts": "a"}', b"{}", b'{"model": "another"}'):
            await post(served, "/vectorize", body, JSON)
        for path in ("/embed", "/embed/batch", "/embed/text", "/classify", "/search", "/v1/embeddings", "/vectorize"):
            reply = await served.send(request("GET", path, None))
            assert reply.status == 405
            check(path, "post", reply)
        check("/embed/batch", "post", await served.form(part(GOOD, "images"), path="/embed/batch"))
        served.embedder.drain()
        for path in ("/health", "/.well-known/ready", "/.well-known/live"):
            check(path, "get", await served.get(path))
        await post(served, "/embed", GOOD, "image/png")
        await post(served, "/v1/embeddings", b'{"input": "a cat"}', JSON)


@pytest.mark.parametrize("key", ["", "X-API-Key: wrong"])
async def test_answers_without_a_key_are_as_described(key: str) -> None:
    async with serving(api_keys="k" * 20) as served:
        check("/models", "get", await served.get("/models", *filter(None, [key])))


def test_hundreds_of_requests_made_from_the_document_are_answered_as_it_says(
    server: ServerProcess, tmp_path: Path
) -> None:
    """Schemathesis: well-formed, malformed and absurd; no 500, no status, header or body that is not described."""
    config = Path(__file__).with_name("schemathesis.toml")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    options = ["--max-examples=40", "--seed=1", "--phases=coverage,fuzzing", "--continue-on-failure", "--no-color"]
    done = subprocess.run(
        [*command, f"{server.url}/openapi.json", *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
    assert "Tested: 16" in done.stdout  # all but the document itself
    assert server.process.poll() is None
