"""One thread for PyTorch."""

from tests.support.pytorch import one_thread

__all__ = ["one_thread"]
