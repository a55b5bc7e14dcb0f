"""A model that is closed leaves nothing behind: no memory, no thread, and no answer."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsrv.errors import InferenceFailedError, ModelCorruptError
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.runtime.encoder import SessionEncoder
from clipsrv.settings import ModelSettings
from tests.support.heavy import write_heavy_model
from tests.support.model import SIZE, write_model

#: Weights of the heavy model's vision tower in MiB: one model that is not given back shows among fifty.
HEAVY = 24

OPEN_AND_CLOSE = """
import gc, json, sys
from pathlib import Path

import psutil

from clipsrv.models.loading import load_model
from clipsrv.settings import ModelSettings

gc.disable()  # what is given back only when Python happens to look for cycles is not given back
process, folder, times, text = psutil.Process(), Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "text"
closed = []  # whoever still holds an encoder holds nothing that is large
for _ in range(times):
    model = load_model(folder, ModelSettings("cpu", threads=2, text=text))
    model.warm_up([1, 3])
    opened = process.memory_info().rss
    model.close()
    closed.append((model.image_encoder, model.text_encoder))
    del model
    print(json.dumps([opened / 2**20, process.memory_info().rss / 2**20, process.num_threads()]))
"""


@pytest.fixture(scope="module")
def heavy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with a layer of HEAVY MiB in its vision tower."""
    return write_heavy_model(tmp_path_factory.mktemp("models") / "heavy", HEAVY)


@pytest.mark.parametrize(("times", "towers"), [(50, "vision"), (15, "text")])
def test_a_model_opened_and_closed_many_times_leaves_memory_and_threads_as_they_were(
    heavy_model: Path, times: int, towers: str
) -> None:
    command = [sys.executable, "-c", OPEN_AND_CLOSE, str(heavy_model), str(times), towers]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) == times
    opened, settled, _ = seen[times // 3]  # allocators take some rounds until they ask for no more
    assert opened - settled > HEAVY, "while it is open, it takes memory"
    assert max(closed for _, closed, _ in seen[times // 3 :]) - settled < HEAVY
    assert {threads for _, _, threads in seen} == {seen[0][2]}


def embed_text(model: Model) -> None:
    assert model.text_encoder is not None
    assert model.tokenizer is not None
    model.text_encoder.embed(model.tokenizer.encode("a photo").ids[None])


def embed_image(model: Model) -> None:
    model.image_encoder.embed(np.ones((1, 3, SIZE, SIZE), np.float32))


def test_a_closed_model_says_so_and_may_be_closed_again(tiny_model: Path) -> None:
    model = load_model(tiny_model, ModelSettings("cpu", threads=1))
    embed_image(model)
    embed_text(model)
    model.close()
    model.close()
    for embed in (embed_image, embed_text):
        with pytest.raises(InferenceFailedError, match="The model is closed"):
            embed(model)


@pytest.mark.parametrize("broken", ["vision.fp32.onnx", "text.fp32.onnx", "tokenizer.json"])
def test_a_model_that_cannot_be_opened_whole_closes_what_it_had_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    opened: list[SessionEncoder] = []
    closed: list[SessionEncoder] = []

    class Watched(SessionEncoder):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            opened.append(self)

        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr("clipsrv.runtime.opening.SessionEncoder", Watched)
    folder = write_model(tmp_path / "broken")
    (folder / broken).write_bytes(b"broken")
    with pytest.raises(ModelCorruptError, match=broken):
        load_model(folder, ModelSettings("cpu", threads=1))
    assert len(opened) == 1
    assert closed == opened


def test_an_inference_that_is_running_is_finished_and_the_next_one_refused(tiny_model: Path) -> None:
    """Callers that do not know of the end get vectors or the one error, whatever the moment."""
    started = threading.Barrier(4)
    ends: list[str] = []

    def ask(model: Model) -> None:
        started.wait()
        try:
            while True:
                embed_image(model)
        except InferenceFailedError as error:
            ends.append(error.message)

    for _ in range(20):
        model = load_model(tiny_model, ModelSettings("cpu", threads=1, text=False))
        threads = [threading.Thread(target=ask, args=(model,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait()
        model.close()
        for thread in threads:
            thread.join()
    assert ends == ["The model is closed."] * 60
