"""python -m clipsrv"""

import sys

from clipsrv.cli import main

sys.exit(main())
