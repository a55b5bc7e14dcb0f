"""Lance's ANN index beside looking at every vector: how much of the exact answer it finds, and how soon.

    python -m benchmarks.ann [--rows 200000] [--dimensions 512] [--folder /tmp]

Vectors lie in clusters, as those of photographs do: where no vector has neighbours there is nothing to be near to.
Questions are further vectors of the same clusters.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from clipsrv.bulk.records import Row, Shard
from clipsrv.bulk.stores.lance import LanceStore
from clipsrv.machine import usable_cores
from clipsrv.runtime.vectors import Vectors, unit
from clipsrv.search.opening import open_index
from clipsrv.search.readers.lance import LanceIndex

_SHARD, _LIMIT, _CLUSTERS, _SPREAD = 4096, 10, 2000, 0.8


def clustered(random: np.random.Generator, centers: Vectors, count: int) -> Vectors:
    noise = random.standard_normal((count, centers.shape[1]), np.float32) / np.sqrt(centers.shape[1])
    return unit(centers[random.integers(0, len(centers), count)] + _SPREAD * noise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--folder", help="where the dataset is made (default: the system's own for temporary files)")
    options = parser.parse_args()
    random = np.random.default_rng(1)
    centers = unit(random.standard_normal((_CLUSTERS, options.dimensions), np.float32))
    facts = {"model": "", "embedding_id": "random", "dimensions": options.dimensions}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder, "x.lance")
        with closing(LanceStore(path, facts, None, ann=True)) as store:
            for number, at in enumerate(range(0, options.rows, _SHARD)):
                vectors = clustered(random, centers, min(_SHARD, options.rows - at))
                rows = [Row(str(at + row), str(at + row), f"{at + row:064x}") for row in range(len(vectors))]
                store.write(Shard(number, rows, vectors))
            started = time.perf_counter()
            store.finish()
        print(f"{options.rows:,} x {options.dimensions}, {usable_cores()} cores")
        print(f"joined and indexed: {time.perf_counter() - started:.1f} s")
        took: dict[str, list[float]] = {"approximate": [], "exact": []}
        recalls: list[float] = []
        with closing(open_index(str(path), "")) as index:
            assert isinstance(index, LanceIndex)
            for query in clustered(random, centers, options.questions):
                started = time.perf_counter()
                found = index.approximate(query, _LIMIT)
                between = time.perf_counter()
                exact = index.nearest(query, _LIMIT)
                took["approximate"].append(between - started)
                took["exact"].append(time.perf_counter() - between)
                recalls.append(len({one.item.id for one in found} & {one.item.id for one in exact}) / _LIMIT)
        for name, spans in took.items():
            print(f"{name:<12} {statistics.median(spans):.3f} s (from {min(spans):.3f} to {max(spans):.3f})")
        print(f"recall of the nearest {_LIMIT}: {statistics.mean(recalls):.3f} (worst {min(recalls):.1f})")


if __name__ == "__main__":
    main()
