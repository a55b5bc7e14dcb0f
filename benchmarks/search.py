"""Searching a million vectors in a file, beside faiss and plain NumPy, which hold them in memory.

    python -m benchmarks.search [--rows 1000000] [--dimensions 512] [--folder /tmp]

All three are asked the same questions in turn, so that a machine that slows down slows all. The file is in the system's
cache, as it is after a first search; the first is timed by itself. faiss must find what we find, but for equal scores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np

from clipsrv.machine import usable_cores
from clipsrv.runtime.vectors import Vectors
from clipsrv.search.opening import open_index

_AT_ONCE, _LIMIT = 20_000, 10
Ask = Callable[[Vectors], list[int]]


def write_index(out: Path, rows: int, dimensions: int) -> None:
    """What `embed --out x.npy` would write of so many images, with random vectors."""
    random = np.random.default_rng(1)
    vectors = np.lib.format.open_memmap(out, "w+", np.float32, (rows, dimensions))
    for at in range(0, rows, _AT_ONCE):
        some = random.standard_normal((min(_AT_ONCE, rows - at), dimensions), np.float32)
        vectors[at : at + _AT_ONCE] = some / np.linalg.norm(some, axis=1, keepdims=True)
    vectors.flush()
    with out.with_name(f"{out.name}.ids.jsonl").open("w") as ids:
        for row in range(rows):
            ids.write(json.dumps({"id": str(row), "path": f"photos/{row}.jpg", "sha256": f"{row:064x}"}) + "\n")
    manifest = {"embedding_id": "random", "dimensions": dimensions, "rows": rows}
    out.with_name(f"{out.name}.manifest.json").write_text(json.dumps(manifest))


def seconds(ask: Ask, query: Vectors) -> tuple[float, list[int]]:
    started = time.perf_counter()
    found = ask(query)
    return time.perf_counter() - started, found


def ask_numpy(path: Path) -> Ask:
    vectors = np.load(path)

    def ask(query: Vectors) -> list[int]:
        scores = vectors @ query
        best = np.argpartition(-scores, _LIMIT)[:_LIMIT]
        return [int(row) for row in best[np.argsort(-scores[best])]]

    return ask


def ask_faiss(path: Path) -> Ask:
    vectors = np.load(path)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return lambda query: [int(row) for row in index.search(query[None], _LIMIT)[1][0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", help="where the file is made (default: the system's own for temporary files)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder, "random.npy")
        write_index(path, options.rows, options.dimensions)
        started = time.perf_counter()
        with closing(open_index(str(path), "")) as index:
            print(f"{options.rows:,} x {options.dimensions}, {usable_cores()} cores")
            print(f"opened, and every id counted: {time.perf_counter() - started:.2f} s")

            def ask_file(query: Vectors) -> list[int]:
                return [int(found.item.id) for found in index.nearest(query, _LIMIT)]

            print(f"first search: {seconds(ask_file, query(options.dimensions, 0))[0]:.2f} s")
            asked = {"clipsrv, file": ask_file, "NumPy, memory": ask_numpy(path), "faiss, memory": ask_faiss(path)}
            took: dict[str, list[float]] = {name: [] for name in asked}
            for turn in range(options.rounds):
                answers = {name: seconds(ask, query(options.dimensions, 1 + turn)) for name, ask in asked.items()}
                for name, (spent, found) in answers.items():
                    took[name].append(spent)
                    assert found == answers["clipsrv, file"][1], name
        for name, spans in took.items():
            print(f"{name:<14} {statistics.median(spans):.3f} s (from {min(spans):.3f} to {max(spans):.3f})")


def query(dimensions: int, seed: int) -> Vectors:
    found = np.random.default_rng(1000 + seed).standard_normal(dimensions, np.float32)
    return np.asarray(found / np.linalg.norm(found), np.float32)


if __name__ == "__main__":
    main()
