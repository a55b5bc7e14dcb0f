"""python -m conversions: arguments to work to exit status. The heavy imports wait until the work needs them."""

from __future__ import annotations

import sys

from conversions.cli import main

if __name__ == "__main__":
    sys.exit(main())
