"""scripts/try-containers [STEP...]: the Dockerfile's targets and deploy/'s recipes in a real Docker engine.

cpu      the image: health, a vector, its user, a read-only file system, SIGTERM in the middle of work, sizes
limits   the same under --memory 300m --cpus 1
workers  the same with --workers 2: killed, hanging, stopped
gpu      the image, to its refusal on a machine without a GPU
convert  a checkpoint converted inside, served by the cpu image
compose  each profile of deploy/compose.yaml by itself, with nothing set and with values
service  deploy/clipsrv.service under a real systemd

Without STEP all of them. Needs Docker with Compose 2, whose ports 5000 and 5432 must be free. Base images come from a
registry, or stand under their names. PIP_EXTRA_INDEX_URL with PyTorch's CPU index keeps `convert` small. Exit status 1
if something is not as promised.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from drills.containers.compose import compose
from drills.containers.engine import CommandFailed, Report, stood_on
from drills.containers.images import convert, cpu, gpu, limits
from drills.containers.service import service
from drills.containers.workers import workers

STEPS: dict[str, Callable[[Report], None]] = {
    "cpu": cpu,
    "limits": limits,
    "workers": workers,
    "gpu": gpu,
    "convert": convert,
    "compose": compose,
    "service": service,
}


def main(names: list[str]) -> int:
    if unknown := set(names) - set(STEPS):
        print(f"{__doc__}\nunknown: {', '.join(sorted(unknown))}" if unknown != {"--help"} else __doc__)
        return 2 if unknown != {"--help"} else 0
    stood_on()
    report = Report()
    for name in names or STEPS:
        print(name, flush=True)
        try:
            STEPS[name](report)
        except CommandFailed as error:
            report.failed(name, error)
    print(f"\n{len(report.failures)} not as promised" if report.failures else "\neverything as promised")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
