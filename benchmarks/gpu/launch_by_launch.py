"""clipsrv's server, which records nothing on a card: what recording is worth is measured beside it."""

from __future__ import annotations

import sys

from clipsrv.cli import main
from clipsrv.runtime import recorded

if __name__ == "__main__":
    recorded.LARGEST = 0
    sys.exit(main())
