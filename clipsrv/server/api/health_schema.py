"""What /health gives, in OpenAPI. Data only."""

from __future__ import annotations

from clipsrv.server.api.schemas import COUNT, RUNS, STRING, Schema, shape

_FAULT: Schema = {"fault": {**STRING, "description": "what is wrong; left out if nothing is"}}
_STATE = shape(
    {"status": {"enum": ["healthy", "unhealthy", "loading", "failed", "unloaded"]}, **_FAULT, **RUNS},
    optional=(*_FAULT, *RUNS),
)
_WORKERS: Schema = {
    "worker": {**COUNT, "description": "which of several processes answers, from 1; left out if there is one"},
    "workers": {
        "type": "array",
        "items": shape(
            {
                "status": {"enum": ["healthy", "starting", "draining", "unhealthy", "restarting"]},
                "pid": {**COUNT, "description": "of the process; left out while there is none"},
                **_FAULT,
            },
            optional=("pid", *_FAULT),
        ),
        "description": "all of them, in order; left out if there is one",
    },
}
HEALTH = shape(
    {
        "status": {"enum": ["healthy", "starting", "draining", "unhealthy"]},
        "model": {**STRING, "description": "that of --model"},
        **_FAULT,
        **RUNS,
        "models": {"type": "object", "additionalProperties": _STATE, "description": "of each that is served, by name"},
        **_WORKERS,
    },
    optional=(*_FAULT, *RUNS, *_WORKERS),
)
