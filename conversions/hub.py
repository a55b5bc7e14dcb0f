"""Fetches a checkpoint from the Hugging Face Hub into its usual cache: only the files needed, checked, resumable.

Only the converter uses the network, and only here. Knows nothing of what is inside the files.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from conversions.checkpoint import (
    CONFIG,
    PREPROCESSOR,
    TOKENIZER,
    TOKENIZER_EXTRAS,
    VOCABULARY,
    WEIGHTS,
    hash_files,
    weight_files,
)
from conversions.errors import CheckpointError, ConversionError, DownloadError
from conversions.folder import require_space
from conversions.known import HubCheckpoint

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

T = TypeVar("T")

#: The libraries read these when they are imported. Xet is another client, with time limits of its own.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")

_TRIES = 3
#: A black hole with eight addresses costs ten seconds for each: the whole first contact has a limit of its own.
_REACH_SECONDS = 45.0
_SMALL_FILES = (CONFIG, PREPROCESSOR, TOKENIZER, *VOCABULARY, *TOKENIZER_EXTRAS)


def fetch(source: HubCheckpoint, *, offline: bool = False) -> tuple[Path, str]:
    """The checkpoint's folder in the Hub's cache, and the commit it is at. Downloads what is missing.

    A pinned revision that is in the cache already costs no network at all. Raises DownloadError if the Hub cannot
    be reached or sends other bytes than it promised, CheckpointError if it has no such checkpoint, ConversionError
    if the cache's disk is full or not writable.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        cached = find_cached(source)
    except HFValidationError:
        raise CheckpointError(f"{source.repo!r} is neither a folder nor a repository's name on the Hub.") from None
    if cached is not None:
        return cached, cached.name
    if offline:
        raise DownloadError(f"--offline: {source.repo} at {source.revision} is not in the cache of the Hub's files.")
    try:
        return _download(source)
    except OSError as error:
        # requests' errors are OSErrors too: what is left here without an errno is the network's doing.
        if error.errno is None:
            raise DownloadError(f"Download of {source.repo} failed: {_first_line(error)}. Run it again.") from None
        raise ConversionError(
            f"Cannot write the download of {source.repo}: {error.strerror} ({error.filename or 'cache'}). "
            "Free some space, or set HF_HOME to a folder elsewhere."
        ) from None


def find_cached(source: HubCheckpoint) -> Path | None:
    """The checkpoint's folder if the Hub's cache holds all of it (files appear there only when complete)."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source.repo, CONFIG, revision=source.revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        weights = weight_files(folder)
    except CheckpointError:
        return None
    has_tokenizer = (folder / TOKENIZER).exists() or all((folder / name).exists() for name in VOCABULARY)
    if not has_tokenizer or not (folder / PREPROCESSOR).exists():
        return None
    if source.weights_sha256 is not None and hash_files(weights) != source.weights_sha256:
        _forget(weights)
        return None
    return folder


def _download(source: HubCheckpoint) -> tuple[Path, str]:
    from huggingface_hub import HfApi, constants, hf_hub_download

    _refuse_downgrades(constants.ENDPOINT)
    reach: Callable[[], ModelInfo] = lambda: HfApi().model_info(  # noqa: E731 - one call, retried
        source.repo, revision=source.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    info = _within(_REACH_SECONDS, lambda: _retry(reach, source), constants.ENDPOINT)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    commit = info.sha or source.revision
    names = [name for name in _SMALL_FILES if name in sizes]
    first = next((name for name in WEIGHTS if name in sizes), None)
    if CONFIG not in sizes or first is None:
        raise CheckpointError(f"{source.repo} at {source.revision} has no {CONFIG if first else 'weights'}.")
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)

    def get(name: str) -> Path:
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        return Path(_retry(lambda: hf_hub_download(source.repo, name, revision=commit, etag_timeout=timeout), source))

    for name in names:
        get(name)
    folder = get(first).parent if first.endswith(".json") else get(CONFIG).parent
    wanted = _shards(folder / first) if first.endswith(".json") else [first]
    require_space(cache, sum(sizes.get(name, 0) for name in wanted if not (folder / name).exists()))
    weights = tuple(get(name) for name in wanted)
    promised = source.weights_sha256 or _promised(info, wanted)
    if promised is not None and hash_files(weights) != promised:
        _forget(weights)
        raise DownloadError(
            f"{source.repo}: the weights that arrived are not those expected (sha256 differs from {promised[:12]}…). "
            "The file has been deleted; something between here and the Hub changes downloads."
        )
    return folder, commit


def _retry(call: Callable[[], T], source: HubCheckpoint) -> T:
    import requests
    from huggingface_hub import errors

    for attempt in range(_TRIES):
        try:
            return call()
        except errors.GatedRepoError:
            raise CheckpointError(
                f"{source.repo} asks for consent on its page first; then set HF_TOKEN to your token."
            ) from None
        except errors.RepositoryNotFoundError:
            raise CheckpointError(
                f"The Hub has no repository {source.repo!r} (or it is private: set HF_TOKEN)."
            ) from None
        except errors.RevisionNotFoundError:
            raise CheckpointError(
                f"{source.repo} has no revision {source.revision!r}. Give another with --checkpoint {source.repo} "
                "--revision main --name NAME."
            ) from None
        except errors.LocalEntryNotFoundError as error:  # what hf_hub_download makes of a broken connection
            cause: Exception = error
        except (requests.RequestException, errors.HfHubHTTPError) as error:
            status = getattr(error.response, "status_code", None)
            if status is not None and status < 500 and status != 429:
                raise DownloadError(f"The Hub refused {source.repo}: {_first_line(error)}") from None
            cause = error
        if attempt < _TRIES - 1:
            time.sleep(2.0**attempt)
    raise DownloadError(
        f"The Hugging Face Hub does not answer after {_TRIES} tries: {_first_line(cause)}. Check the network, run it "
        "again (downloads resume), or pass a folder with --checkpoint."
    )


def _within(seconds: float, call: Callable[[], T], endpoint: str) -> T:
    """The result of `call`, or DownloadError after `seconds`; the thread left behind dies with the process."""
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise DownloadError(f"{endpoint} did not answer within {seconds:.0f} s. Check the network, then run it again.")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _refuse_downgrades(endpoint: str) -> None:
    """Makes every redirect from https to http fail; an http endpoint set by the user (a mirror) stays possible."""
    import requests
    from huggingface_hub import configure_http_backend

    class NoPlainHttp(requests.adapters.HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
            raise requests.exceptions.InvalidURL(f"refused to follow https to {request.url}", request=request)

    def session() -> requests.Session:
        made = requests.Session()
        if endpoint.startswith("https://"):
            made.mount("http://", NoPlainHttp())
        return made

    configure_http_backend(session)


def _shards(index: Path) -> list[str]:
    import json

    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


def _promised(info: ModelInfo, wanted: list[str]) -> str | None:
    """sha256 that the Hub's own listing gives for a single weights file."""
    for file in info.siblings or ():
        if [file.rfilename] == wanted and file.lfs is not None:
            return str(file.lfs.sha256)
    return None


def _forget(weights: tuple[Path, ...]) -> None:
    """Removes files from the cache, so that the next run fetches them again instead of trusting them."""
    for path in weights:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    """The reason at the bottom of a network error, without the wrappers of requests and urllib3 around it."""
    while isinstance(error.__cause__, OSError):  # huggingface_hub wraps what requests raised
        error = error.__cause__
    reason = getattr(error.args[0], "reason", None) if error.args else None
    text = str(reason).partition(": ")[2] if reason is not None else str(error).strip()
    return (text.splitlines() or [type(error).__name__])[0][:240]
