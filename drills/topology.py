"""scripts/try-topology KERNEL: what clipsrv takes of machines that nobody here has, as a real Linux shows them.

Boots KERNEL (the vmlinuz of Debian's linux-image-cloud-amd64, say) under QEMU's emulation, with this Python and clipsrv
as all there is. Needs qemu-system-x86_64, cpio and ldd. Exit status 1 if one is not as promised.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PYTHON, LIBRARY = Path(sys.base_prefix, "bin", "python3"), Path(sysconfig.get_paths()["stdlib"])
#: Runs as the only process. Each line tells the threads, reason and CPUs of all workers, one list for each count.
INIT = f"""#!{PYTHON}
import ctypes, json, os, sys
libc = ctypes.CDLL(None)
for kind, where in ((b"proc", b"/proc"), (b"sysfs", b"/sys"), (b"devtmpfs", b"/dev")):
    libc.mount(kind, where, kind, 0, None)
sys.stdout = sys.stderr = open("/dev/ttyS0", "w")
try:
    sys.path.insert(0, "/app")
    from clipsrv.topology import inference_threads, keep_to
    def tell(workers):
        shares = [inference_threads(workers, number) for number in range(1, workers + 1)]
        print("TOLD " + json.dumps([[one.count, one.why, sorted(one.cpus or ())] for one in shares]))
        return shares[-1]
    for workers in (1, 3):
        tell(workers)
    last = tell(2)
    assert last.cpus is None or (keep_to(last.cpus) and os.sched_getaffinity(0) == last.cpus)
finally:
    sys.stdout.flush()
    libc.reboot(0x4321FEDC)  # power off
"""


class Machine(NamedTuple):
    """QEMU's words for one, and what is to be told of it: for one process, for three workers, for two."""

    name: str
    words: str
    told: list[list[list[object]]]


def nodes(*cpus: str) -> str:
    """So many nodes of the CPUs given, one after another; of memory only where that is empty."""
    memory = (
        f"-object memory-backend-ram,size=768M,id=m{node} -numa node,nodeid={node},memdev=m{node}"
        + (f",cpus={which}" if which else "")
        for node, which in enumerate(cpus)
    )
    return f"-m {768 * len(cpus)} {' '.join(memory)}"


PAIRS, ONLY = "one a core of several CPUs", "one a CPU of the only core"
MACHINES = (
    Machine(
        "four cores",
        "-m 768 -smp 4",
        [
            [[4, "one a core", []]],
            [[1, "one a core for 3 workers", []]] * 3,
            [[2, "one a core for 2 workers", []]] * 2,
        ],
    ),
    Machine(
        "two CPUs of one core",
        "-m 768 -smp 2,sockets=1,cores=1,threads=2",
        [[[2, ONLY, []]], [[1, f"{ONLY} for 3 workers", []]] * 3, [[1, f"{ONLY} for 2 workers", []]] * 2],
    ),
    Machine(
        "two nodes of two cores of two CPUs",
        f"-smp 8,sockets=2,cores=2,threads=2 {nodes('0-3', '4-7')}",
        [
            [[4, f"{PAIRS}, 2 NUMA nodes", []]],
            [
                [1, f"{PAIRS} for 2 workers, NUMA node 0 of 2", [0, 1, 2, 3]],
                [2, f"{PAIRS}, NUMA node 1 of 2", [4, 5, 6, 7]],
                [1, f"{PAIRS} for 2 workers, NUMA node 0 of 2", [0, 1, 2, 3]],
            ],
            [[2, f"{PAIRS}, NUMA node 0 of 2", [0, 1, 2, 3]], [2, f"{PAIRS}, NUMA node 1 of 2", [4, 5, 6, 7]]],
        ],
    ),
    Machine(
        "nodes of three cores, of one, and of none",
        f"-smp 4,sockets=2,cores=2,threads=1 {nodes('0-2', '3', '')}",
        [
            [[4, "one a core, 2 NUMA nodes", []]],
            [
                [1, "one a core for 2 workers, NUMA node 0 of 2", [0, 1, 2]],
                [1, "one a core, NUMA node 1 of 2", [3]],
                [1, "one a core for 2 workers, NUMA node 0 of 2", [0, 1, 2]],
            ],
            [[3, "one a core, NUMA node 0 of 2", [0, 1, 2]], [1, "one a core, NUMA node 1 of 2", [3]]],
        ],
    ),
)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        print(__doc__)
        return 2
    failures = 0
    with tempfile.TemporaryDirectory(prefix="clipsrv-topology-") as folder:
        first = image(Path(folder))
        for machine in MACHINES:
            told = boot(Path(arguments[0]), first, machine)
            failures += told != machine.told
            print(f"{'ok  ' if told == machine.told else 'FAIL'} {machine.name}", flush=True)
            for line in told:
                print(f"       {line}", flush=True)
    print("everything as promised" if not failures else f"{failures} not as promised")
    return 1 if failures else 0


def image(folder: Path) -> Path:
    """A file system in memory that holds INIT and what it needs."""
    root = folder / "root"
    for name in ("proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    (root / "init").write_text(INIT, encoding="utf-8")
    (root / "init").chmod(0o755)
    left_out = shutil.ignore_patterns("site-packages", "test", "idlelib", "ensurepip", "__pycache__", "config-*", "*.a")
    shutil.copytree(LIBRARY, root / LIBRARY.relative_to("/"), ignore=left_out)
    for name in ("__init__", "cgroups", "machine", "topology"):
        copied([ROOT / "clipsrv" / f"{name}.py"], root / "app", ROOT)
    (root / "app/clipsrv/__init__.py").write_text("", encoding="utf-8")  # the package's own has all of clipsrv
    programs = [PYTHON, *(LIBRARY / "lib-dynload").glob("_ctypes.*.so")]
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    copied([PYTHON, *map(Path, re.findall(r"(/\S+\.so\S*) \(", said))], root, Path("/"))
    names = "\n".join(str(path.relative_to(root)) for path in [root, *root.rglob("*")])
    packed = subprocess.run(
        ["cpio", "--create", "--format=newc", "--quiet"],
        cwd=root,
        input=names.encode(),
        capture_output=True,
        check=True,
    )
    (folder / "initrd").write_bytes(gzip.compress(packed.stdout, 1))
    return folder / "initrd"


def copied(files: Iterable[Path], target: Path, base: Path) -> None:
    """Copies each to the place below `target` that it has below `base`; what a link leads to in the link's place."""
    for path in files:
        place = target / path.relative_to(base)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)


def boot(kernel: Path, first: Path, machine: Machine) -> list[list[list[object]]]:
    command: tuple[str | Path, ...] = (
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "Skylake-Client-noTSX-IBRS", "-nographic"),
        *("-no-reboot", "-net", "none", "-kernel", kernel, "-initrd", first, "-append"),
        *("console=ttyS0 tsc=unstable panic=-1 rdinit=/init", *machine.words.split()),
    )
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=600)
    said = done.stdout.decode(errors="replace")
    if told := re.findall(r"^TOLD (.*?)\r?$", said, re.MULTILINE):
        return [json.loads(line) for line in told]
    print(said[-2000:] + done.stderr.decode(errors="replace")[-1000:], flush=True)
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
