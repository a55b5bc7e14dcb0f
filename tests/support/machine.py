"""A machine as Linux shows it, in a folder: what the process is, and the groups that bound it."""

from __future__ import annotations

from pathlib import Path


class Machine:
    """A /proc/self and trees of control groups as Linux shows them (cgroups(7), proc_pid_mountinfo(5))."""

    def __init__(self, folder: Path) -> None:
        self.proc, self._folder = folder / "proc", folder
        self.proc.mkdir()
        self._write("proc/mountinfo", "24 1 0:22 / / rw,relatime shared:1 - ext4 /dev/vda rw\n")

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def stands(self, *lines: str) -> Machine:
        """Where the process is: lines of /proc/self/cgroup."""
        self._write("proc/cgroup", "".join(f"{line}\n" for line in lines))
        return self

    def tree(self, mount: str, *controllers: str, root: str = "/") -> Machine:
        """Mounts a tree: of version 1 with its controllers, of version 2 without."""
        where = str(self._folder / mount).replace(" ", "\\040")
        options = ",".join(["rw", *controllers])
        kind = f"cgroup cgroup {options}" if controllers else "cgroup2 cgroup2 rw,nsdelegate"
        with (self.proc / "mountinfo").open("a") as file:
            file.write(f"32 24 0:29 {root} {where} rw,nosuid shared:9 master:3 - {kind}\n")
        return self

    def group(self, folder: str, **files: str) -> Machine:
        """A group's files, in the tree's folder; dots of their names are written as two underscores."""
        for name, text in files.items():
            self._write(f"{folder}/{name.replace('__', '.')}", f"{text}\n")
        return self
