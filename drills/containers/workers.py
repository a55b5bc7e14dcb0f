"""`--workers 2` in the image and under systemd: health, vectors, limits, a worker that is killed or hangs, SIGTERM."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from drills.containers.engine import IMAGE, CommandFailed, Report, ask, build, served
from drills.containers.images import finish_accepted_work, is_vector, peak_memory

#: Gives the /health of a server, {} while it does not answer.
Health = Callable[[], dict[str, Any]]
Run = Callable[..., str]

_LIMITS = ("--memory", "700m", "--memory-swap", "700m", "--cpus", "1")


def workers(report: Report) -> None:
    with served(build("cpu"), "--workers", "2", options=_LIMITS) as (container, url):
        container.become_healthy()
        answers = [ask(f"{url}/embed", IMAGE) for _ in range(20)]
        report.expect(
            "read-only, 700 MB, one core: healthy, and gives vectors", all(is_vector(a, 192) for a in answers)
        )
        report.expect("both give the same", len({json.dumps(body["embedding"]) for _, body in answers}) == 1)
        said = container.logs()
        report.expect("each has one thread", said.count("threads 1 (the CPU quota for 2 workers)") == 2)
        report.expect("the start warns of what requests may take", "MiB at worst and 700 MiB are allowed" in said)
        come_back(report, container.run, lambda: ask(f"{url}/health")[1], container.logs)
        peak = peak_memory(container.run)
        report.expect("within the limit", container.inspect("{{.State.OOMKilled}}") == "false", f"peak {peak:.0f} MB")
        finish_accepted_work(report, container.stop, url)
        count = container.logs().count("stopped, 0 requests left unfinished")
        report.expect("each finished its requests", count == 2, count)


def come_back(report: Report, run: Run, health: Health, log: Callable[[], str]) -> None:
    """A worker that is killed, and one whose event loop hangs, is another process soon; the other worker stays."""
    seen = set[int]()
    for _ in range(200):
        seen.add(health()["worker"])
        if len(seen) == 2:
            break
    report.expect("both workers answer /health", seen == {1, 2})
    for number, name, words in (
        (1, "KILL", "worker 1 was ended by SIGKILL; starting it again"),
        (2, "STOP", "worker 2 gave no sign of its event loop for 60 s: killing it"),
    ):
        before = _pids(health())
        run("sh", "-c", f"kill -{name} {before[number - 1]}")
        began = time.monotonic()
        after = _changed(before, health)
        report.expect(
            f"SIG{name} to worker {number}: said in the log", words in log(), f"{time.monotonic() - began:.1f} s"
        )
        stayed = [old == new for old, new in zip(before, after, strict=True)]
        report.expect("and it alone is another process", stayed == [number != 1, number != 2])


def _changed(before: list[int], health: Health, seconds: float = 120) -> list[int]:
    """Process ids once both are ready and not the same as before. Raises CommandFailed if it does not come to that."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        with suppress(OSError):  # the connection was the worker's
            if len(now := _pids(health())) == len(before) and now != before:
                return now
        time.sleep(0.5)
    raise CommandFailed(f"both workers are not ready again within {seconds:g} s")


def _pids(health: dict[str, Any]) -> list[int]:
    """Process ids of the workers that are ready."""
    return [worker["pid"] for worker in health.get("workers", []) if worker["status"] == "healthy"]
