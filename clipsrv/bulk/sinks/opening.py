"""Which sink an --out means."""

from __future__ import annotations

from collections.abc import Callable

from clipsrv.bulk.options import JobOptions
from clipsrv.bulk.records import Facts, Sink
from clipsrv.bulk.work.plan import Plan
from clipsrv.errors import ConfigError
from clipsrv.installation import how_to_install


def open_sink(options: JobOptions, facts: Facts, plan: Plan, say: Callable[[str], None]) -> Sink:
    """The sink of a job whose vectors are of `facts`; `say` is told while it is away. Raises ConfigError or
    OutputError."""
    try:
        if options.out.lower().rstrip("/").endswith(".parquet"):
            from clipsrv.bulk.sinks.parquet import ParquetSink

            return ParquetSink(options.out, facts, plan.mark)
    except ImportError as error:
        raise ConfigError(f"This output needs {error.name}: {how_to_install('shards')}") from None
    raise ConfigError("--out of a job in shards (--work) must end in .parquet.")
