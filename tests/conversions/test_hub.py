"""Downloading with huggingface_hub itself, from a stand-in Hub on a real socket, in a process of its own.

Each case prints the folder that `fetch` returns, or ends with the converter's exit status and one line.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from conversions.hub import _refuse_downgrades
from tests.conversions.conftest import ROOT, environment
from tests.conversions.stand_in_hub import COMMIT, REPO, StandInHub, stand_in_hub

FETCH = """
import sys
from clipsrv.errors import StartError
from conversions.hub import fetch
from conversions.known import HubCheckpoint
repo, revision, sha256, offline = sys.argv[1:]
try:
    print(*fetch(HubCheckpoint(repo, revision, sha256 or None), offline=bool(offline)), sep="\\n")
except StartError as error:
    print(error.message, file=sys.stderr)
    sys.exit(error.exit_status)
"""
NEEDED = ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[StandInHub]:
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in (*NEEDED, "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_text(f'{{"file": "{name}"}}')
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "README.md", "evil.py"):
        (folder / name).write_text("not needed")
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    with stand_in_hub(folder) as running:
        yield running


def fetch(
    hub_url: str, home: Path, *, repo: str = REPO, revision: str = COMMIT, sha256: str = "", offline: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FETCH, repo, revision, sha256, offline],
        cwd=ROOT,
        env=environment(HF_ENDPOINT=hub_url, HF_HOME=str(home), HF_HUB_DOWNLOAD_TIMEOUT="2"),
        capture_output=True,
        text=True,
        timeout=100,
    )


def sha256_of(hub: StandInHub) -> str:
    return hashlib.sha256(hub.files["model.safetensors"]).hexdigest()


def test_only_the_needed_files_are_fetched_and_they_arrive_whole(hub: StandInHub, tmp_path: Path) -> None:
    done = fetch(hub.url, tmp_path / "hf", sha256=sha256_of(hub))
    assert done.returncode == 0, done.stderr
    folder, commit = done.stdout.split()
    assert commit == COMMIT
    for name in NEEDED:
        assert (Path(folder) / name).read_bytes() == hub.files[name]
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "README.md", "evil.py"):
        assert not hub.downloads(name)


def test_a_branch_is_resolved_to_its_commit(hub: StandInHub, tmp_path: Path) -> None:
    done = fetch(hub.url, tmp_path / "hf", revision="main")
    assert done.stdout.split()[1] == COMMIT


def test_a_pinned_revision_in_the_cache_needs_no_network(hub: StandInHub, tmp_path: Path) -> None:
    first = fetch(hub.url, tmp_path / "hf")
    asked = len(hub.asked)
    for offline in ("", "1"):
        again = fetch(hub.url, tmp_path / "hf", sha256=sha256_of(hub), offline=offline)
        assert again.stdout == first.stdout
    assert len(hub.asked) == asked


def test_a_branch_is_asked_for_again_unless_offline(hub: StandInHub, tmp_path: Path) -> None:
    """What it names may have been mended meanwhile."""
    first = fetch(hub.url, tmp_path / "hf", revision="main")
    asked = len(hub.asked)
    assert fetch(hub.url, tmp_path / "hf", revision="main", offline="1").stdout == first.stdout
    assert len(hub.asked) == asked
    assert fetch(hub.url, tmp_path / "hf", revision="main").stdout == first.stdout
    assert len(hub.asked) > asked
    assert len(hub.downloads("model.safetensors")) == 1


def test_a_checkpoint_saved_by_transformers_5_is_fetched_whole(hub: StandInHub, tmp_path: Path) -> None:
    hub.files["processor_config.json"] = hub.files.pop("preprocessor_config.json")
    done = fetch(hub.url, tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.split()[0]) / "processor_config.json").exists()
    assert fetch(hub.url, tmp_path / "hf", offline="1").stdout == done.stdout


def test_shards_and_their_index_are_fetched_and_no_others(hub: StandInHub, tmp_path: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    del hub.files["model.safetensors"]
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    hub.files |= dict.fromkeys([*shards, "pytorch_model-00001-of-00001.bin", "other-1.safetensors"], b"weights")
    done = fetch(hub.url, tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    there = {path.name for path in Path(done.stdout.split()[0]).iterdir()}
    assert {name for name in there if "model" in name} == {*shards, "model.safetensors.index.json"}


def test_of_a_repository_of_open_clip_its_own_weights_are_fetched_and_no_code(hub: StandInHub, tmp_path: Path) -> None:
    hub.files["config.json"] = b'{"model_type": "siglip", "auto_map": {"AutoModel": "evil.Model"}}'
    hub.files["open_clip_config.json"] = b'{"model_cfg": {}}'
    hub.files["open_clip_model.safetensors"] = b"weights"
    done = fetch(hub.url, tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    there = {path.name for path in Path(done.stdout.split()[0]).iterdir()}
    assert "open_clip_model.safetensors" in there
    assert not there & {"model.safetensors", "pytorch_model.bin", "evil.py"}
    assert fetch(hub.url, tmp_path / "hf", offline="1").stdout == done.stdout


def test_a_cache_without_its_weights_is_completed(hub: StandInHub, tmp_path: Path) -> None:
    folder = Path(fetch(hub.url, tmp_path / "hf").stdout.split()[0])
    (folder / "model.safetensors").resolve().unlink()
    (folder / "model.safetensors").unlink()
    assert fetch(hub.url, tmp_path / "hf", offline="1").returncode == 7
    hub.fault(f"/revision/{COMMIT}", 500)
    assert fetch(hub.url, tmp_path / "hf").returncode == 0
    assert (folder / "model.safetensors").exists()


def test_offline_with_an_empty_cache_ends_with_status_7_at_once(hub: StandInHub, tmp_path: Path) -> None:
    done = fetch(hub.url, tmp_path / "hf", offline="1")
    assert (done.returncode, hub.asked) == (7, [])
    assert "--offline" in done.stderr


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_asked_again(hub: StandInHub, tmp_path: Path, status: int) -> None:
    hub.fault(f"/revision/{COMMIT}", status)
    hub.fault("/model.safetensors", status)
    done = fetch(hub.url, tmp_path / "hf")
    assert done.returncode == 0, done.stderr


def test_a_hub_that_stays_in_trouble_ends_with_status_7_and_one_line(hub: StandInHub, tmp_path: Path) -> None:
    hub.fault(f"/revision/{COMMIT}", *[500] * 50)
    done = fetch(hub.url, tmp_path / "hf")
    assert done.returncode == 7
    assert "does not answer after 3 tries" in done.stderr
    assert "500" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_download_cut_in_the_middle_resumes_where_it_stopped(hub: StandInHub, tmp_path: Path) -> None:
    hub.files["model.safetensors"] = os.urandom(24 * 2**20)  # huggingface_hub writes chunks of 10 MiB
    hub.fault("/model.safetensors", "cut")
    done = fetch(hub.url, tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.split()[0]) / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert hub.downloads("model.safetensors")[1].endswith(f"bytes={10 * 2**20}-")


def test_a_download_cut_every_time_ends_with_status_7_and_the_next_run_completes_it(
    hub: StandInHub, tmp_path: Path
) -> None:
    hub.fault("/model.safetensors", *["cut"] * 3)
    failed = fetch(hub.url, tmp_path / "hf")
    assert failed.returncode == 7
    assert "Traceback" not in failed.stderr
    hub.faults.clear()
    done = fetch(hub.url, tmp_path / "hf", sha256=sha256_of(hub))
    assert done.returncode == 0, done.stderr


def test_a_stalled_download_is_given_up_and_resumed(hub: StandInHub, tmp_path: Path) -> None:
    hub.fault("/model.safetensors", "stall")
    began = time.monotonic()
    done = fetch(hub.url, tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 15


def test_other_bytes_than_promised_are_deleted_and_refused(hub: StandInHub, tmp_path: Path) -> None:
    hub.fault("/model.safetensors", "other")
    done = fetch(hub.url, tmp_path / "hf")
    assert done.returncode == 7
    assert "not those expected" in done.stderr
    assert not list((tmp_path / "hf").rglob("model.safetensors"))
    assert fetch(hub.url, tmp_path / "hf").returncode == 0


def test_weights_that_are_not_the_pinned_ones_are_refused(hub: StandInHub, tmp_path: Path) -> None:
    assert fetch(hub.url, tmp_path / "hf", sha256="0" * 64).returncode == 7
    fetch(hub.url, tmp_path / "hf")
    assert fetch(hub.url, tmp_path / "hf", sha256="0" * 64, offline="1").returncode == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"repo": "nobody/nothing"}, "no repository 'nobody/nothing'"),
        ({"revision": "f" * 40}, "no revision"),
        ({"repo": "not a repo"}, "not a repo"),
    ],
)
def test_what_the_hub_does_not_have_ends_with_status_3(
    hub: StandInHub, tmp_path: Path, change: dict[str, str], words: str
) -> None:
    done = fetch(hub.url, tmp_path / "hf", **change)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert words in done.stderr


def test_a_repository_without_weights_ends_with_status_3(hub: StandInHub, tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        del hub.files[name]
    done = fetch(hub.url, tmp_path / "hf")
    assert (done.returncode, done.stderr.strip()) == (3, f"{REPO} at {COMMIT} has no weights.")


def test_pickled_weights_are_taken_only_where_there_are_no_safetensors(hub: StandInHub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    done = fetch(hub.url, tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    assert hub.downloads("pytorch_model.bin")


def test_a_refused_connection_ends_with_status_7_and_one_line(tmp_path: Path) -> None:
    done = fetch("http://127.0.0.1:9", tmp_path / "hf")
    assert (done.returncode, len(done.stderr.splitlines())) == (7, 1)
    assert "refused" in done.stderr


def test_a_name_that_does_not_resolve_ends_with_status_7_and_one_line(tmp_path: Path) -> None:
    done = fetch("http://hub.invalid", tmp_path / "hf")
    assert (done.returncode, len(done.stderr.splitlines())) == (7, 1)
    assert "hub.invalid" in done.stderr


def test_a_hub_that_accepts_and_says_nothing_ends_within_a_minute(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        done = fetch(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path / "hf")
    assert (done.returncode, len(done.stderr.splitlines())) == (7, 1)
    assert time.monotonic() - began < 60


def test_a_redirect_from_https_to_http_is_refused_and_a_mirror_on_http_is_not(hub: StandInHub) -> None:
    from huggingface_hub import configure_http_backend
    from huggingface_hub.utils._http import get_session

    try:
        _refuse_downgrades("https://huggingface.co")
        with pytest.raises(requests.RequestException, match="No connection adapters"):
            get_session().get(hub.url)
        assert hub.asked == []
        _refuse_downgrades(hub.url)
        assert get_session().get(hub.url, timeout=5).status_code == 404
    finally:
        configure_http_backend()


def test_a_cache_that_cannot_be_written_ends_with_status_6(hub: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = fetch(hub.url, tmp_path / "file" / "hf")
    assert (done.returncode, len(done.stderr.splitlines())) == (6, 1)
    assert "HF_HOME" in done.stderr
