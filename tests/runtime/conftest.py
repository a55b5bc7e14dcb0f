"""What the tests of devices share."""

from __future__ import annotations

from collections.abc import Callable

import onnxruntime as ort
import pytest

from clipsrv.providers.table import provider

BuiltWith = Callable[..., None]


@pytest.fixture
def built_with(monkeypatch: pytest.MonkeyPatch) -> BuiltWith:
    """built_with("cuda", "cpu"): this onnxruntime was built with these providers."""

    def set_providers(*devices: str) -> None:
        names = [provider(device).onnx_name for device in devices]
        monkeypatch.setattr(ort, "get_available_providers", lambda: names)

    return set_providers
