"""What people have typed into scripts, dashboards and databases stays: names and defaults of the first release.

More may be added; a name that goes, or means something else, fails here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clipsrv import errors
from clipsrv.errors import ClipsrvError, StartError
from clipsrv.server.wire import envelope
from clipsrv.server.wire.errors import status_of
from tests.support.faulty import BrokenEncoder
from tests.support.model import make_model
from tests.support.photos import drawn
from tests.support.serving import serving
from tests.test_errors import family

ROOT = Path(__file__).parents[1]

#: Each is also a variable: --max-queue is CLIPSRV_MAX_QUEUE. None: the default has changed since (CHANGELOG.md).
SETTINGS = {
    "--model": "vit-b-32",
    "--models-dir": "onnx_models",
    "--device": "auto",
    "--precision": "auto",
    "--host": "127.0.0.1",
    "--port": "5000",
    "--threads": "0",
    "--decode-threads": "0",
    "--max-batch-size": "8",
    "--max-queue": "256",
    "--max-queue-per-caller": "0",
    "--max-images": "64",
    "--max-body-bytes": "134217728",
    "--max-bytes-in-flight": "536870912",
    "--max-image-bytes": "20971520",
    "--max-pixels": "50000000",
    "--max-pixels-in-flight": None,
    "--max-aspect-ratio": "200",
    "--max-connections": "2048",
    "--header-timeout": "10.0",
    "--body-timeout": "30.0",
    "--min-upload-rate": "500000",
    "--answer-timeout": "30.0",
    "--deadline": "60.0",
    "--probe-after": "60.0",
    "--grace": "20.0",
    "--exif-orientation": "true",
    "--fast-decode": "false",
    "--text": "true",
    "--api-keys": "",
    "--api-key-file": "",
    "--auth-failures": "10",
    "--allowed-hosts": "",
    "--allowed-origins": "",
    "--log-format": "text",
    "--log-level": "info",
}
#: Of the settings, those that the bulk job takes too; and its own options.
EMBED_SETTINGS = (
    *("--model", "--models-dir", "--device", "--precision", "--threads", "--decode-threads", "--max-batch-size"),
    *("--max-image-bytes", "--max-pixels", "--max-pixels-in-flight", "--max-aspect-ratio", "--exif-orientation"),
    "--fast-decode",
)
EMBED = {
    "--files-from": None,
    "--null": None,
    "--encoding": "as marked, else the bytes of the paths",
    "--relative-to": "paths as given",
    "--out": None,
    "--table": "image_embeddings",
    "--patience": "600",
    "--image-seconds": "300",
    "--errors": None,
    "--strict": None,
    "--restart": None,
    "--as-listed": None,
    "--shard-size": "256",
    "--quiet": None,
}
CONVERSIONS = {
    "--checkpoint": None,
    "--name": "NAME",
    "--revision": None,
    "--models-dir": "$CLIPSRV_MODELS_DIR, else onnx_models",
    "--precision": None,
    "--license": None,
    "--note": None,
    "--languages": None,
    "--offline": None,
    "--force": None,
    "--wait": "600",
    "--list": None,
    "--verify": None,
    "--debug": None,
}
EXIT_STATUSES = {
    "invalid_config": 2,
    "model_error": 3,
    "unknown_model": 3,
    "model_corrupt": 3,
    "address_unavailable": 4,
    "device_unavailable": 5,
}
ERRORS = {
    400: {
        *("invalid_request", "empty_body", "missing_image", "empty_batch", "unexpected_field", "duplicate_field"),
        *("malformed_multipart", "unsupported_part_encoding", "invalid_json", "invalid_field", "invalid_base64"),
        *("invalid_text", "unknown_option"),
    },
    401: {"unauthorized"},
    403: {"forbidden", "host_forbidden", "origin_forbidden"},
    404: {"no_text_tower"},
    406: {"not_acceptable"},
    408: {"request_timeout"},
    413: {"body_too_large", "too_many_images", "too_many_texts", "too_many_parts"},
    415: {"unsupported_media_type", "unsupported_content_encoding"},
    422: {
        *("invalid_image", "empty_image", "not_an_image", "unsupported_image_format", "truncated_image"),
        *("image_too_large", "aspect_ratio_too_large"),
    },
    429: {"overloaded", "too_many_failures"},
    503: {"starting", "shutting_down", "inference_failed", "out_of_memory"},
    504: {"deadline_exceeded"},
}
#: Names of samples, and the labels by which they are told apart.
METRICS = {
    "clipsrv_requests_total": {"route", "status"},
    "clipsrv_errors_total": {"code"},
    "clipsrv_queue_rejected_total": {"reason"},
    "clipsrv_cancelled_total": {"stage"},
    "clipsrv_inference_failures_total": {"code"},
    "clipsrv_images_total": set[str](),
    "clipsrv_texts_unknown_script_total": set[str](),
    "clipsrv_batch_size_bucket": {"le"},
    "clipsrv_stage_seconds_bucket": {"stage", "le"},
    "clipsrv_loop_lag_seconds": set[str](),
    "clipsrv_model_info": {"model", "device", "precision", "embedding_id"},
    "clipsrv_inflight": set[str](),
    "clipsrv_slots_in_use": set[str](),
    "clipsrv_queue_images": set[str](),
    "clipsrv_body_bytes_inflight": set[str](),
    "clipsrv_decode_pixels_inflight": set[str](),
    "clipsrv_model_ready": set[str](),
}
ROUTES = {
    *("POST /embed", "POST /embed/batch", "POST /embed/text"),
    *("POST /v1/embeddings", "GET /v1/models", "POST /vectorize", "GET /meta"),
    *("GET /.well-known/live", "GET /.well-known/ready"),
    *("GET /health", "GET /health/live", "GET /models", "GET /metrics", "GET /openapi.json"),
}


def options_of(*command: str) -> dict[str, str]:
    """What `python -m ... --help` says of each option, by its long name."""
    program = [sys.executable, "-m", *command, "--help"]
    environment = {"COLUMNS": "200", "PATH": "/usr/bin"}
    done = subprocess.run(program, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    _, _, options = done.stdout.partition("\noptions:")
    entries = [re.sub(r"\s+", " ", entry.partition("\n\n")[0]) for entry in re.split(r"\n  (?=-)", options)[1:]]
    return {found[0]: entry for entry in entries if (found := re.search(r"--[a-z][a-z-]*", entry))}


def assert_described(options: dict[str, str], flags: dict[str, str | None]) -> None:
    for flag, default in flags.items():
        assert default is None or f"(default: {default})" in options[flag], options[flag]
    assert flags.keys() <= options.keys()


def test_serve_takes_every_setting_with_its_default_and_its_variable() -> None:
    options = options_of("clipsrv", "serve")
    assert_described(options, SETTINGS)
    for flag in SETTINGS:
        assert options[flag].endswith(f"[CLIPSRV_{flag[2:].replace('-', '_').upper()}]")


def test_doctor_takes_the_settings_too() -> None:
    assert_described(options_of("clipsrv", "doctor"), SETTINGS)


def test_embed_takes_its_options_and_settings_with_their_defaults() -> None:
    settings = {flag: SETTINGS[flag] for flag in EMBED_SETTINGS}
    assert_described(options_of("clipsrv", "embed"), {**EMBED, **settings})


def test_the_converter_takes_its_options_with_their_defaults() -> None:
    assert_described(options_of("conversions"), CONVERSIONS)


def test_every_error_has_its_code_and_status() -> None:
    there = {
        (status_of(kind.__new__(kind)), kind.code) for kind in family(modules=(errors.__name__, envelope.__name__))
    }
    assert {(status, code) for status, codes in ERRORS.items() for code in codes} <= there


def test_every_failure_to_start_has_its_exit_status() -> None:
    statuses = {kind.code: kind.exit_status for kind in family(StartError) if issubclass(kind, StartError)}
    assert EXIT_STATUSES.items() <= statuses.items()


async def test_every_metric_has_its_name_and_labels_and_every_route_is_there() -> None:
    encoder = BrokenEncoder()
    async with serving(make_model(encoder)) as served:
        await served.post("/embed", drawn(1))
        await served.post("/embed", b"junk")
        encoder.broken = True
        await served.post("/embed", drawn(1))
        text = (await served.get("/metrics")).body.decode()
        there = {f"{route.method} {route.resource.canonical}" for route in served.app.router.routes() if route.resource}
    labels: dict[str, set[str]] = {}
    for family_of in text_string_to_metric_families(text):
        for sample in family_of.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    assert [name for name, wanted in METRICS.items() if name not in labels or not wanted <= labels[name]] == []
    assert there >= ROUTES


@pytest.mark.parametrize("kind", [ClipsrvError, StartError])
def test_what_has_no_name_of_its_own_is_an_internal_error(kind: type[ClipsrvError]) -> None:
    assert (status_of(kind.__new__(kind)), kind.code) == (500, "internal")
