"""Which sink an --out means."""

from __future__ import annotations

from clipsrv.bulk.options import JobOptions
from clipsrv.bulk.outage import Outage
from clipsrv.bulk.records import Facts, Sink
from clipsrv.bulk.work.plan import Plan
from clipsrv.errors import ConfigError
from clipsrv.installation import how_to_install
from clipsrv.search.words import URL_SCHEMES

#: How the address of a collection begins.
QDRANT_SCHEMES = ("qdrant://", "qdrants://")


def open_sink(options: JobOptions, facts: Facts, plan: Plan, outage: Outage) -> Sink:
    """The sink of a job whose vectors are of `facts`; `outage` waits for it while it is away. Raises ConfigError,
    OutputError or GivenUpError."""
    out, path = options.out, options.out.lower().rstrip("/")
    try:
        if out.startswith(URL_SCHEMES):
            from clipsrv.bulk.sinks.postgres import PostgresSink

            return PostgresSink(out, options.table, facts, outage)
        if out.startswith(QDRANT_SCHEMES):
            from clipsrv.bulk.sinks.qdrant import QdrantSink

            return QdrantSink(out, facts, outage)
        if path.endswith(".lance"):
            from clipsrv.bulk.sinks.lance import LanceSink

            return LanceSink(out, facts)
        if path.endswith(".parquet"):
            from clipsrv.bulk.sinks.parquet import ParquetSink

            return ParquetSink(out, facts, plan.mark)
    except ImportError as error:
        extra = {"psycopg": "postgres", "qdrant_client": "qdrant", "lance": "lance"}.get(error.name or "", "shards")
        raise ConfigError(f"This output needs {error.name}: {how_to_install(extra)}") from None
    raise ConfigError(
        "--out of a job in shards (--work) must end in .parquet or .lance, or be postgresql://... or qdrant://..."
    )
