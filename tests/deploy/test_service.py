"""deploy/clipsrv.service gives the server what it needs, and time to stop."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from clipsrv.config import Config, variable
from clipsrv.errors import ConfigError, DeviceError, ModelError

DEPLOY = Path(__file__).parents[2] / "deploy"


def assignments(name: str) -> list[tuple[str, str]]:
    """The NAME=VALUE lines of a unit or an environment file, in order."""
    lines = (DEPLOY / name).read_text(encoding="utf-8").splitlines()
    return [(line.partition("=")[0], line.partition("=")[2]) for line in lines if "=" in line and line[0] not in "#["]


UNIT = dict(assignments("clipsrv.service"))


def test_the_features_of_the_cpu_can_be_read() -> None:
    assert UNIT["ProtectProc"] == "invisible"  # of other users' processes, not of the machine
    assert UNIT.get("ProcSubset", "all") == "all"


def test_faults_that_do_not_heal_by_themselves_are_not_tried_again() -> None:
    statuses = {error.exit_status for error in (ConfigError, ModelError, DeviceError)}
    assert {int(status) for status in UNIT["RestartPreventExitStatus"].split()} == statuses


def test_threads_may_give_way_and_workers_keep_to_a_node_whatever_else_of_priorities_is_forbidden() -> None:
    filters = [value for name, value in assignments("clipsrv.service") if name == "SystemCallFilter"]
    assert filters[-2:] == [
        "~@privileged @resources",
        "setpriority sched_setaffinity",
    ]  # the later line wins: systemd.exec(5)


def test_accepted_work_is_finished_before_the_process_is_killed() -> None:
    assert float(UNIT["TimeoutStopSec"]) > Config.grace


def test_there_are_files_for_every_connection() -> None:
    assert int(UNIT["LimitNOFILE"]) > 2 * Config.max_connections


def test_the_variables_of_the_environment_file_are_settings() -> None:
    known = {variable(item.name) for item in fields(Config)}
    assert {name for name, _ in assignments("clipsrv.env")} <= known
