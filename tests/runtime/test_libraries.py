"""A provider's own libraries are found in their packages, and a missing one is named."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest

from clipsrv import _cpu
from clipsrv.errors import DeviceError
from clipsrv.models.loading import load_model
from clipsrv.runtime import libraries
from clipsrv.settings import ModelSettings
from tests.runtime.conftest import BuiltWith
from tests.runtime.test_session import FallingBack

LIBRARY = "libonnxruntime_providers_cuda.so"


def test_a_library_that_cannot_be_loaded_is_named_in_the_loaders_words(tmp_path: Path) -> None:
    (tmp_path / LIBRARY).write_bytes(b"not a library")
    assert f"{LIBRARY}: file too short" in libraries.missing(LIBRARY, tmp_path)
    assert "libnone.so: cannot open shared object file" in libraries.missing("libnone.so", tmp_path)


def test_a_library_that_can_be_loaded_is_not_missing() -> None:
    (library,) = Path(_cpu.__file__).parent.glob("_cpu.*.so")
    assert libraries.missing(library.name, library.parent) == ""


def test_what_onnxruntime_misses_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load libcublas.so.13"))
    libraries.preload()
    assert capsys.readouterr() == ("", "")


def test_a_device_that_is_refused_names_the_library_that_was_missing(
    built_with: BuiltWith, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    """On a machine without the driver, and with onnxruntime-gpu, it is libcuda.so.1."""
    built_with("cuda", "cpu")
    monkeypatch.setattr(ort, "InferenceSession", FallingBack)
    with pytest.raises(DeviceError, match=rf"fell back to CPUExecutionProvider, for .*{LIBRARY}"):
        load_model(tiny_model, ModelSettings(device="cuda", threads=1))
