"""Shards as Arrow tables, which Parquet files and Lance datasets take: the columns, and the facts beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from clipsrv.bulk.records import Facts, Shard
from clipsrv.search.facts import KEY

#: The columns of texts.
TEXTS = ("id", "path", "sha256")


def schema_of(facts: Facts) -> Any:
    """Columns id, path, sha256 and embedding (list of a fixed number of float32); `facts` under the key clipsrv."""
    import pyarrow as pa

    vectors = pa.list_(pa.float32(), facts["dimensions"])
    columns = {**dict.fromkeys(TEXTS, pa.string()), "embedding": vectors}
    return pa.schema(columns, metadata={KEY: json.dumps(facts)})


def table_of(shards: Sequence[Shard], schema: Any) -> Any:
    """The rows of at least one shard."""
    import pyarrow as pa

    flat = pa.array(np.concatenate([shard.vectors for shard in shards]).ravel())
    texts = [pa.array([getattr(row, name) for shard in shards for row in shard.rows], pa.string()) for name in TEXTS]
    vectors = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type)
    return pa.table([*texts, vectors], schema=schema)
