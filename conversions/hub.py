"""Fetches a checkpoint from the Hugging Face Hub into its usual cache: only the files needed, checked, resumable.

Only the converter uses the network, and only here. Knows nothing of what is inside the files.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from fnmatch import fnmatch
from functools import partial, partialmethod
from pathlib import Path
from threading import Thread
from typing import TypeVar

from tqdm import tqdm

from conversions.errors import CheckpointError, ConversionError, DownloadError
from conversions.files import (
    CONFIG,
    OPEN_CLIP_CONFIG,
    SMALL_FILES,
    hash_files,
    is_complete,
    weight_files,
    weights_by_name,
)
from conversions.folder import require_space
from conversions.known import HubCheckpoint

T = TypeVar("T")

#: The libraries read these when they are imported. Xet is another client, with time limits of its own.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")

_TRIES = 3
#: A black hole with eight addresses costs ten seconds for each: the first contact of a try has a limit of its own.
_REACH_SECONDS = 15.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


class _Unseen(tqdm):  # type: ignore[type-arg]
    # The count of files; each file has a bar of its bytes.
    __init__ = partialmethod(tqdm.__init__, disable=True)


def fetch(source: HubCheckpoint, *, offline: bool = False) -> tuple[Path, str]:
    """The checkpoint's folder in the Hub's cache, and the commit it is at. Downloads what is missing.

    A commit that is in the cache already costs no network at all; a branch or tag is asked for again, unless
    `offline`. Raises DownloadError if the Hub cannot be reached or sends other bytes than it promised,
    CheckpointError if it has no such checkpoint, ConversionError if the cache's disk is full or not writable.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        cached = find_cached(source) if offline or _COMMIT.fullmatch(source.revision) else None
        if cached is not None:
            return cached, cached.name
        if offline:
            raise DownloadError(
                f"--offline: {source.repo} at {source.revision} is not in the cache of the Hub's files."
            )
        return _tried(source, lambda: _download(source))
    except HFValidationError:
        raise CheckpointError(f"{source.repo!r} is neither a folder nor a repository's name on the Hub.") from None
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
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(source.repo, revision=source.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    if not is_complete(folder):
        return None
    weights = weight_files(folder)
    if source.weights_sha256 is not None and hash_files(weights) != source.weights_sha256:
        _forget(weights)
        return None
    return folder


def _download(source: HubCheckpoint) -> tuple[Path, str]:
    from huggingface_hub import HfApi, constants, snapshot_download

    _refuse_downgrades(constants.ENDPOINT)
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    listing = partial(HfApi().model_info, source.repo, revision=source.revision, files_metadata=True, timeout=timeout)
    info = _within(_REACH_SECONDS, listing)
    files = {file.rfilename: file for file in info.siblings or ()}
    if not {CONFIG, OPEN_CLIP_CONFIG} & set(files):
        raise CheckpointError(f"{source.repo} at {source.revision} has no {CONFIG}.")
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    get = partial(snapshot_download, source.repo, etag_timeout=timeout, tqdm_class=_Unseen)
    # The weights come last: where they are, all is.
    folder = Path(get(revision=source.revision, allow_patterns=list(SMALL_FILES)))
    weights_of = weights_by_name(folder)
    first = next((name for name in weights_of if name in files), None)
    if first is None:
        raise CheckpointError(f"{source.repo} at {source.revision} has no weights.")
    wanted = [name for name in files if name == first or fnmatch(name, weights_of[first])]
    missing = [name for name in wanted if not (folder / name).exists()]
    require_space(cache, sum(files[name].size or 0 for name in missing))
    get(revision=folder.name, allow_patterns=wanted)
    if not is_complete(folder):  # a Hub in trouble is answered for with whatever the cache has
        raise DownloadError(f"{source.repo}: not every file arrived. Run it again.")
    weights = weight_files(folder)
    single = files[wanted[0]].lfs if len(wanted) == 1 else None
    promised = source.weights_sha256 or (single and single.sha256)
    if promised and hash_files(weights) != promised:
        _forget(weights)
        raise DownloadError(
            f"{source.repo}: the weights that arrived are not those expected (sha256 differs from {promised[:12]}…). "
            "The file has been deleted; something between here and the Hub changes downloads."
        )
    return folder, folder.name


def _tried(source: HubCheckpoint, call: Callable[[], T]) -> T:
    """The result of `call`, tried again while it is the network or the Hub that fails; what they mean, in our words."""
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
        except TimeoutError as error:
            cause = error
        if attempt < _TRIES - 1:
            time.sleep(2.0**attempt)
    raise DownloadError(
        f"The Hugging Face Hub does not answer after {_TRIES} tries: {_first_line(cause)}. Check the network, run it "
        "again (downloads resume), or pass a folder with --checkpoint."
    )


def _within(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`, or TimeoutError after `seconds`; the thread left behind dies with the process."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    return outcome.result(seconds)


def _refuse_downgrades(endpoint: str) -> None:
    """Makes every redirect from https to http fail; an http endpoint set by the user (a mirror) stays possible."""
    import requests
    from huggingface_hub import configure_http_backend

    def session() -> requests.Session:
        made = requests.Session()
        if endpoint.startswith("https://"):
            del made.adapters["http://"]
        return made

    configure_http_backend(session)


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
