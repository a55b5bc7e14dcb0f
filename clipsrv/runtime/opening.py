"""A tower's graph to an encoder, by the session that its plan is best served with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from clipsrv.errors import DeviceError, ModelCorruptError
from clipsrv.providers.provider import DevicePlan
from clipsrv.providers.table import provider
from clipsrv.runtime.choice import in_parts, text_rows
from clipsrv.runtime.encoder import SessionEncoder
from clipsrv.runtime.recorded import RecordedSession
from clipsrv.runtime.session import open_session
from clipsrv.specs import TowerSpec


def open_encoder(graph: Path, tower: TowerSpec, dimensions: int, plan: DevicePlan) -> SessionEncoder:
    """`graph` is the tower's file for the plan. Raises as open_session and SessionEncoder do."""
    if provider(plan.device).recording and tower.tokenizer is None:  # texts differ in length
        with suppress(DeviceError, ModelCorruptError):  # a graph that cannot be recorded, or what is found again below
            recording = open_session(graph, plan, recording=True)
            return SessionEncoder(RecordedSession(recording, plan.device, dimensions), tower, dimensions)
    session = open_session(graph, plan)
    rows = text_rows(tower, plan)
    parting = session if rows or in_parts(tower, plan) else None
    return SessionEncoder(session, tower, dimensions, parting=parting, threads=plan.threads, text_rows=rows)
