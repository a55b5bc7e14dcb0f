"""The memory of a process and its children, as the measurement of several workers tells it."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.processes import memory

#: Holds 64 MiB of its own, has a child that shares them, and ends when its standard input does.
HOLDS = """
import os, sys
held = bytearray(os.urandom(2**20)) * 64
child = os.fork()
if child:
    print("held", flush=True)
sys.stdin.read()
"""


def test_what_a_child_shares_counts_once_and_is_nobodys_own() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        proportional, private = memory(process.pid)
        assert process.stdin is not None
        process.stdin.close()
    assert 64 <= proportional < 128
    assert private < 64
