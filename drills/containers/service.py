"""deploy/clipsrv.service under a real systemd: what its sandbox lets through, and what its supervisor does."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from drills.containers.engine import ROOT, Container, Report, docker, last, run, started
from drills.containers.workers import come_back

IMAGE, UNIT = "clipsrv-try:systemd", "clipsrv.service"
PYTHON = "/opt/clipsrv/.venv/bin/python -m clipsrv"
PICTURE = "/opt/clipsrv/tests/golden/preprocess/size-landscape.jpg"
#: systemd needs its cgroups, to mount, and to give a process namespaces of its own.
OPTIONS = (
    *("--cap-add", "SYS_ADMIN", "--cap-add", "SYS_PTRACE", "--security-opt", "seccomp=unconfined"),
    *("--security-opt", "apparmor=unconfined", "--tmpfs", "/run", "--tmpfs", "/run/lock"),
    *("--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"),
)


def service(report: Report) -> None:
    docker("build", "--tag", IMAGE, Path(__file__).parent / "systemd")
    with started(IMAGE, options=OPTIONS) as container:
        install(container)
        print(f"  {container.run('systemctl', '--version').splitlines()[0]}", flush=True)
        as_it_is(report, container)
        with_limits(report, container)
        supervised(report, container)
        with_workers(report, container)


def install(container: Container) -> None:
    """The commands of the unit's own first lines; what they fetch from a repository is copied."""
    with tempfile.TemporaryDirectory() as folder:
        run("git", "clone", "--quiet", ROOT, Path(folder) / "clipsrv")
        container.copy(Path(folder) / "clipsrv", "/opt/clipsrv")
    lines = (ROOT / "deploy" / UNIT).read_text(encoding="utf-8").splitlines()
    commands = [line[4:].partition("      ")[0] for line in lines if line.startswith("#   ")]
    for command in (part.strip().removeprefix("sudo ") for line in commands for part in line.split("&&")):
        if not command.startswith(("git clone", "cd ")):
            container.run("sh", "-c", f"cd /opt/clipsrv && {command}")


def as_it_is(report: Report, container: Container) -> None:
    said = container.run("systemd-analyze", "verify", f"/etc/systemd/system/{UNIT}")
    report.expect("systemd-analyze verify has nothing to say", said == "", said)
    said = last(container.run("systemd-analyze", "security", UNIT, "--no-pager")).strip("→ ")
    report.expect("systemd-analyze security", "OK" in said, said)
    report.expect("healthy", healthy(container))
    said = container.run("curl", "-sS", "-F", f"image=@{PICTURE}", "localhost:5000/embed")
    report.expect("/embed gives a vector", '"dimensions":192' in said)


def with_limits(report: Report, container: Container) -> None:
    """`doctor` and the server, in the same sandbox, under a quota of one core and 400 MiB."""
    drop_in(container, f"ExecStartPre={PYTHON} doctor", "CPUQuota=100%", "MemoryMax=400M")
    container.run("systemctl", "restart", UNIT)
    report.expect("healthy with CPUQuota=100% and MemoryMax=400M", healthy(container))
    said = journal(container)
    features = line(said, "CPU features")
    has_vnni = "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    report.expect("the CPU's features are seen", ("vnni" in features) is has_vnni, features)
    report.expect("one core is usable", "1 cores usable" in said, line(said, "cores usable"))
    report.expect("the limit of memory is seen", "400 MiB are allowed" in said, line(said, "are allowed"))
    refused = [word for word in ("not permitted", "Permission denied", "Traceback") if word in said]
    report.expect("the sandbox refuses nothing that is asked for", not refused, ", ".join(refused))


def with_workers(report: Report, container: Container) -> None:
    """Two of them, in the same sandbox."""
    drop_in(container, "Environment=CLIPSRV_WORKERS=2")
    container.run("systemctl", "restart", UNIT)
    report.expect("healthy with CLIPSRV_WORKERS=2", healthy(container))
    said = container.run("curl", "-sS", "-F", f"image=@{PICTURE}", "localhost:5000/embed")
    report.expect("/embed gives a vector", '"dimensions":192' in said)
    come_back(report, container.run, lambda: answered(container), lambda: journal(container))
    began = time.monotonic()
    container.run("systemctl", "stop", UNIT)
    found = [show(container, name) for name in ("Result", "ExecMainStatus")]
    seconds = f"{time.monotonic() - began:.1f} s"
    report.expect("systemctl stop ends all with status 0", found == ["success", "0"], f"{' '.join(found)}, {seconds}")
    report.expect("each finished its requests", journal(container).count("stopped, 0 requests left") >= 2)


def supervised(report: Report, container: Container) -> None:
    container.run("systemctl", "kill", "--signal", "KILL", UNIT)
    time.sleep(3)
    report.expect("killed, it is started again", healthy(container))
    container.run("systemctl", "stop", UNIT)
    found = [show(container, name) for name in ("Result", "ExecMainStatus")]
    report.expect("systemctl stop ends it with status 0", found == ["success", "0"], " ".join(found))
    drop_in(container, "ExecStart=", f"ExecStart={PYTHON} --model nothing")
    container.run("systemctl", "start", UNIT, check=False)
    limit = time.monotonic() + 60
    while show(container, "ActiveState") != "failed" and time.monotonic() < limit:
        time.sleep(1)
    found = [show(container, name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")]
    report.expect("a fault that stays is not tried again", found == ["failed", "3", "0"], " ".join(found))


def drop_in(container: Container, *lines: str) -> None:
    container.write(f"/etc/systemd/system/{UNIT}.d/drill.conf", "\n".join(("[Service]", *lines, "")))
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "reset-failed", UNIT, check=False)


def healthy(container: Container) -> bool:
    """Whether /health is 200 within a minute."""
    patience = ("--retry", "60", "--retry-delay", "1", "--retry-all-errors")
    return '"healthy"' in container.run("curl", "-sS", "-f", *patience, "localhost:5000/health", check=False)


def answered(container: Container) -> dict[str, Any]:
    """What /health says, {} if nobody answers."""
    body: dict[str, Any] = json.loads(container.run("curl", "-sS", "localhost:5000/health", check=False) or "{}")
    return body


def journal(container: Container) -> str:
    return container.run("journalctl", "--unit", UNIT, "--output", "cat", "--no-pager")


def show(container: Container, name: str) -> str:
    return container.run("systemctl", "show", "--property", name, "--value", UNIT).strip()


def line(said: str, part: str) -> str:
    """The last line that holds `part`."""
    return next((found.strip() for found in reversed(said.splitlines()) if part in found), "")
