"""Every setting, once: a field is a flag is a CLIPSRV_* variable. Checked when built.

Knows nothing of what the settings do; an error names the variable to change.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, NoReturn

from clipsrv.errors import ConfigError
from clipsrv.providers.provider import PRECISIONS
from clipsrv.providers.table import DEVICES

_MIB = 2**20


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    many: bool = False,
) -> Any:
    """A field with what the command line needs of it: one line of help and the values allowed.

    What is `secret` is shown nowhere, and may be left out but not be empty. The flag of `many` may be repeated.
    """
    facts = {"help": help, "low": low, "high": high, "choices": choices, "secret": secret, "many": many}
    return field(default=default, metadata=facts, repr=not secret)


@dataclass(frozen=True)
class Config:
    """How to serve. Sizes in bytes, times in seconds. Raises ConfigError naming the variable that is out of range."""

    model: str = setting("vit-b-32", "model to serve: a folder of --models-dir")
    models_dir: str = setting("onnx_models", "folder of converted models")
    models: str = setting("", "more models to serve, loaded at the start: by commas, or repeated", many=True)
    on_demand: bool = setting(False, "serve every model of --models-dir, loaded when it is first asked for")
    max_loaded: int = setting(0, "models loaded at once; the one used longest ago makes room; 0 for any number", low=0)
    unload_after: float = setting(0.0, "seconds without a request after which a model is unloaded; 0 never", low=0)
    alias: str = setting("", "other names of models served, NAME=MODEL: by commas, or repeated", many=True)
    index: str = setting("", "what embed wrote, for POST /search: a path that ends in .npy, .jsonl, .parquet or .lance")
    device: str = setting("auto", "where to compute; mps is coreml", choices=DEVICES)
    precision: str = setting(
        "auto", "arithmetic of the model; auto never changes vectors noticeably", choices=("auto", *PRECISIONS)
    )
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 for every network")
    port: int = setting(5000, "port to listen on; 0 takes a free one", low=0, high=65535)
    workers: int = setting(
        1, "processes that share the port; cores, memory and slots are divided among them", low=1, high=256
    )
    threads: int = setting(
        0,
        "threads for one inference; 0 takes one a core, of two kinds the fast ones",
        low=0,
        high=1024,
    )
    decode_threads: int = setting(0, "threads that decode images; 0 takes the cores", low=0, high=1024)
    max_batch_size: int = setting(8, "images computed together at most; more helps GPUs only", low=1, high=1024)
    max_queue: int = setting(
        256, "slots: images accepted and not yet answered, over all requests", low=1, high=1_000_000
    )
    max_queue_per_caller: int = setting(
        0, "slots that one caller (API key or address) may hold; 0 takes three quarters", low=0, high=1_000_000
    )
    max_images: int = setting(64, "images in one request", low=1, high=100_000)
    max_images_streamed: int = setting(10_000, "images in one request that is answered line by line", low=1)
    max_texts: int = setting(2048, "texts in one request; sixteen share a slot of --max-queue", low=1, high=100_000)
    max_body_bytes: int = setting(128 * _MIB, "bytes of one request's body", low=1024)
    max_json_bytes: int = setting(128 * _MIB, "bytes of a body of JSON, in which images take a third more", low=1024)
    max_bytes_in_flight: int = setting(512 * _MIB, "bytes of all bodies being held", low=1024)
    max_image_bytes: int = setting(20 * _MIB, "bytes of one encoded image", low=64)
    max_pixels: int = setting(50_000_000, "pixels of one image; 16 million for GIF, WebP, AVIF", low=1)
    max_pixels_in_flight: int = setting(
        0, "pixels being decoded at once; 0 takes 16 million a thread, two largest images at least", low=0
    )
    cache_bytes: int = setting(
        64 * _MIB, "bytes of vectors kept for whoever asks the same again; 0 computes everything", low=0
    )
    max_aspect_ratio: int = setting(200, "long side of an image by its short side", low=1, high=10_000)
    max_connections: int = setting(2048, "open connections; more are closed at once", low=1)
    header_timeout: float = setting(10.0, "seconds for a request's head, and of a pause in a body", low=0.1)
    keep_alive: float = setting(75.0, "seconds an idle connection is kept: longer than a proxy keeps it", low=0.1)
    body_timeout: float = setting(30.0, "seconds for a request's body, beside those of --min-upload-rate", low=0.1)
    min_upload_rate: int = setting(500_000, "bytes of a body that give it one second more", low=1)
    answer_timeout: float = setting(30.0, "seconds for a caller to take its answer", low=0.1)
    deadline: float = setting(60.0, "seconds for a request once its body is read", low=0.1)
    probe_after: float = setting(60.0, "seconds without an inference after which one is made, for /health", low=0.1)
    grace: float = setting(20.0, "seconds to finish accepted work after SIGTERM", low=0)
    exif_orientation: bool = setting(True, "turn photos as their EXIF orientation says")
    fast_decode: bool = setting(False, "decode large JPEGs at reduced size: faster, slightly other vectors")
    text: bool = setting(True, "load the text tower; --no-text saves its memory")
    page: bool = setting(True, "serve the web page at /; --no-page leaves it out")
    api_keys: str = setting("", "API keys, separated by commas; better in --api-key-file", secret=True)
    api_key_file: str = setting("", "file of API keys, one a line")
    metrics_keys: str = setting("", "keys that open /metrics and nothing else, separated by commas", secret=True)
    auth_failures: int = setting(10, "wrong keys a second from one address before it must wait; 0 never", low=0)
    allowed_hosts: str = setting("", "names by which callers may address the server, by commas; * for any")
    trusted_proxies: str = setting("", "proxies whose X-Forwarded-For is believed: addresses, networks, by commas")
    allowed_origins: str = setting("", "web pages' origins that may ask from a browser, by commas; * for any")
    log_format: str = setting("text", "log lines for people or for programs", choices=("text", "json"))
    log_level: str = setting("info", "least important messages shown", choices=("debug", "info", "warning", "error"))

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item, getattr(self, item.name))
        if self.max_queue < self.max_images:
            raise ConfigError(
                f"CLIPSRV_MAX_QUEUE is {self.max_queue}, less than CLIPSRV_MAX_IMAGES {self.max_images}: "
                "such a request could never be accepted."
            )
        if 0 < self.max_queue_per_caller < self.max_images:
            raise ConfigError("CLIPSRV_MAX_QUEUE_PER_CALLER must be at least CLIPSRV_MAX_IMAGES, or 0.")
        if 0 < self.max_pixels_in_flight < self.max_pixels:
            raise ConfigError("CLIPSRV_MAX_PIXELS_IN_FLIGHT must be at least CLIPSRV_MAX_PIXELS, or 0.")

    @property
    def queue_per_caller(self) -> int:
        """`max_queue_per_caller` with its default worked out."""
        return self.max_queue_per_caller or max(3 * self.max_queue // 4, self.max_images)


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"CLIPSRV_{name.upper()}"


def flag(name: str) -> str:
    """The command line's flag of a field."""
    return "--" + name.replace("_", "-")


class Parser(argparse.ArgumentParser):
    """Says what is wrong with arguments in one line, and where the rest is told. No option may be shortened."""

    def __init__(self, prog: str, description: str, **others: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, formatter_class=formatter, allow_abbrev=False, **others)

    def error(self, message: str) -> NoReturn:
        self.exit(ConfigError.exit_status, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_flags(parser: argparse.ArgumentParser, names: Collection[str], **helps: str) -> None:
    """Adds the flags of the fields named, with their help, default and variable; `helps` says help and default of some
    otherwise."""
    for item in fields(Config):
        if item.name not in names:
            continue
        text = helps.get(item.name) or f"{item.metadata['help']} (default: {str(item.default).lower()})"
        text += f" [{variable(item.name)}]"
        if isinstance(item.default, bool):
            parser.add_argument(flag(item.name), action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            choices = ",".join(item.metadata["choices"])
            metavar = f"{{{choices}}}" if choices else type(item.default).__name__.upper()
            action = "append" if item.metadata["many"] else "store"
            parser.add_argument(
                flag(item.name), action=action, default=None, metavar=metavar, help=text.replace("%", "%%")
            )


def read(given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Config:
    """The Config of a command line: what was `given` to flags wins over CLIPSRV_* variables, and they over defaults.

    A field whose flag was left out is None in `given`. The variable of a flag that was given is not read, nor is that
    of a field missing from `given`. Raises ConfigError.
    """
    values: dict[str, Any] = {}
    for item in fields(Config):
        if item.name not in given:
            continue
        value, name = given[item.name], variable(item.name)
        if value is None and name in environment and not _is_service_link(name, environment[name]):
            value = environment[name]
        if isinstance(value, list):
            value = ",".join(value)
        if value is not None:
            values[item.name] = value if isinstance(value, bool) else parse(item, value)
    return Config(**values)


def parse(item: Field[Any], text: str) -> Any:
    """A field's value from text. Raises ConfigError."""
    kind: type[Any] = type(item.default)
    named = f"{variable(item.name)} ({flag(item.name)})"
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{named} is not valid UTF-8.") from None
    if item.metadata["secret"] and not text.strip():
        raise ConfigError(f"{named} is empty; leave it out for none.")
    try:
        return _TRUTH[text.strip().lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ConfigError(f"{named} is {text[:64]!r}; it must be {wanted}.") from None


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """CLIPSRV_* variables that are no setting and no service link: most likely misspelt."""
    known = {variable(item.name) for item in fields(Config)}
    ours = {name for name in environment if name.startswith("CLIPSRV_")}
    return sorted(ours - known - set(service_links(environment)))


def service_links(environment: Mapping[str, str] = os.environ) -> list[str]:
    """CLIPSRV_* variables that tell of a Kubernetes Service: every pod beside one named clipsrv, or clipsrv-anything,
    gets them (kubernetes.io/docs/concepts/services-networking/service, "Environment variables"). No settings."""
    return sorted(name for name, text in environment.items() if _is_service_link(name, text))


_TRUTH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_LINK = re.compile(
    r"CLIPSRV_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
#: CLIPSRV_PORT itself is both: a link if it holds the Service's address.
_LINK_OR_SETTING, _ADDRESS = re.compile(r"CLIPSRV_(\w+_)?PORT", re.ASCII), re.compile("(tcp|udp|sctp)://.*")


def _is_service_link(name: str, text: str) -> bool:
    return bool(_LINK.fullmatch(name) or (_LINK_OR_SETTING.fullmatch(name) and _ADDRESS.fullmatch(text)))


def _check(item: Field[Any], value: Any) -> None:
    low, high, choices = (item.metadata[key] for key in ("low", "high", "choices"))
    allowed = None
    if choices and value not in choices:
        allowed = "one of " + ", ".join(choices)
    elif (low is not None and not value >= low) or (high is not None and not value <= high):
        allowed = f"{low:,} or more" if high is None else f"from {low:,} to {high:,}"
    if allowed:
        raise ConfigError(f"{variable(item.name)} ({flag(item.name)}) is {value!r}; it must be {allowed}.")
