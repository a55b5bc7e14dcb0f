"""PyTorch in tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On cores that other tests use too, threads of models as small as the tests' spend most of their time waiting for
    each other, spinning."""
    import torch  # which whoever only takes a name from a conftest does not need

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
