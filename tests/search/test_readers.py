"""What a damaged index is refused for, in every form: by the name of the file, and of the line or the row."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsrv.errors import ConfigError
from clipsrv.runtime.vectors import Vectors
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.opening import open_held, open_index
from tests.search.conftest import FORMS

Damage = Callable[[Path], object]


def cut(name: str, length: int) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:length])

    return damage


def without_the_last_line(name: str) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))

    return damage


def facts(name: str, **changes: object) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / f"{name}.manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def array(change: Callable[[Vectors], object]) -> Damage:
    return lambda folder: np.save(folder / "x.npy", np.asarray(change(np.load(folder / "x.npy"))))


def nan(vectors: Vectors) -> Vectors:
    vectors[3] = np.nan
    return vectors


def line(number: int, text: str) -> Damage:
    def damage(folder: Path) -> None:
        lines = (folder / "x.jsonl").read_text().splitlines()
        lines[number] = text
        (folder / "x.jsonl").write_text("\n".join(lines) + "\n")

    return damage


def table(change: Callable[[pa.Table], pa.Table]) -> Damage:
    def damage(folder: Path) -> None:
        whole = pq.read_table(folder / "x.parquet")
        pq.write_table(change(whole), folder / "x.parquet")

    return damage


def gone(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


ITEM = '{"id": "a", "path": "a", "sha256": "", "embedding": '
DAMAGED: dict[str, tuple[str, Damage, str]] = {
    "no manifest": ("x.npy", gone("x.npy.manifest.json"), "has no x.npy.manifest.json: nobody knows which model"),
    "no manifest of JSON lines": ("x.jsonl", gone("x.jsonl.manifest.json"), "has no x.jsonl.manifest.json"),
    "a manifest cut short": ("x.npy", cut("x.npy.manifest.json", 20), "Cannot read"),
    "a manifest that is a list": (
        "x.npy",
        lambda folder: (folder / "x.npy.manifest.json").write_text("[]"),
        "does not say which model",
    ),
    "a manifest without an id": ("x.npy", facts("x.npy", embedding_id=None), "does not say which model"),
    "an id that would move the cursor": (
        "x.npy",
        facts("x.npy", embedding_id="\x1b[2J"),
        "does not say which model",
    ),
    "no ids": ("x.npy", gone("x.npy.ids.jsonl"), "the ids of"),
    "fewer ids than vectors": ("x.npy", without_the_last_line("x.npy.ids.jsonl"), "has 12 lines and"),
    "ids cut short": ("x.npy", cut("x.npy.ids.jsonl", -1), "has 12 lines and"),
    "an array cut short": ("x.npy", cut("x.npy", 1000), "was cut short: of its 13 rows 3 are there"),
    "the head of an array cut short": ("x.npy", cut("x.npy", 60), "is no NumPy file of vectors, or was cut short."),
    "an array of one axis": ("x.npy", array(lambda vectors: vectors[0]), "holds float32 of shape"),
    "an array of nothing": ("x.npy", cut("x.npy", 0), "is no NumPy file"),
    "another kind of file": ("x.npy", lambda folder: (folder / "x.npy").write_text("hello " * 9), "is no NumPy file"),
    "objects": ("x.npy", array(lambda vectors: np.array([{}], object)), "is no NumPy file"),
    "float64": ("x.npy", array(lambda vectors: vectors.astype(float)), "holds float64"),
    "columns first": ("x.npy", array(np.asfortranarray), "not rows of float32"),
    "more dimensions": ("x.npy", array(lambda vectors: np.hstack([vectors, vectors])), "do not belong together"),
    "fewer rows than its manifest": ("x.npy", facts("x.npy", rows=99), "tells of 99 rows"),
    "no rows": ("x.npy", facts("x.npy", rows=0), "holds no vectors"),
    "a row of NaN": ("x.npy", array(nan), "is not finite: an image that could not be used"),
    "JSON cut within a line": ("x.jsonl", cut("x.jsonl", -30), "x.jsonl, line 13, is not an object"),
    "JSON cut behind a line": ("x.jsonl", without_the_last_line("x.jsonl"), "it was cut short"),
    "an embedding too short": ("x.jsonl", line(4, ITEM + "[1, 0]}"), "x.jsonl, line 5, is not"),
    "an embedding that is none": ("x.jsonl", line(4, ITEM + "null}"), "line 5, is not"),
    "an embedding of texts": ("x.jsonl", line(4, f"{ITEM}{json.dumps(['1'] * 64)}}}"), "line 5, is not"),
    "a line that is none": ("x.jsonl", line(4, "[]"), "line 5, is not"),
    "no lines": ("x.jsonl", lambda folder: (folder / "x.jsonl").write_bytes(b""), "has 0 rows"),
    "a table cut short": ("x.parquet", cut("x.parquet", -50), "is no Parquet file, or is damaged"),
    "damaged pages": (
        "x.parquet",
        lambda folder: (folder / "x.parquet").write_bytes(
            (data := (folder / "x.parquet").read_bytes())[:4] + bytes(2000) + data[2004:]
        ),
        "x.parquet",
    ),
    "a table without an embedding": ("x.parquet", table(lambda whole: whole.drop(["embedding"])), "is not there"),
    "a table without rows": ("x.parquet", table(lambda whole: whole.slice(0, 0)), "holds no vectors"),
    "a table with holes": (
        "x.parquet",
        table(lambda whole: whole.set_column(0, "id", [[None, *whole.column("id").to_pylist()[1:]]])),
        "has rows without",
    ),
    "a table of nobody": ("x.parquet", table(lambda whole: whole.replace_schema_metadata({})), ""),
    "metadata that is none": (
        "x.parquet",
        table(lambda whole: whole.replace_schema_metadata({"clipsrv": "{"})),
        "does not say which model",
    ),
    "a dataset cut short": (
        "x.lance",
        lambda folder: [path.write_bytes(path.read_bytes()[:50]) for path in folder.glob("x.lance/data/*")],
        "cannot be read",
    ),
    "versions that are none": (
        "x.lance",
        lambda folder: [path.write_bytes(b"x" * 20) for path in folder.glob("x.lance/_versions/*.manifest")],
        "cannot be read",
    ),
    "a folder that is no dataset": (
        "y.lance",
        lambda folder: (folder / "y.lance").mkdir(),
        "is no Lance dataset, or nothing was stored in it yet",
    ),
    "a dataset without rows": (
        "x.lance",
        lambda folder: lance.dataset(str(folder / "x.lance")).delete("true"),
        "holds no vectors",
    ),
    "a dataset of somebody else": (
        "y.lance",
        lambda folder: lance.write_dataset(pa.table({"id": ["a"]}), str(folder / "y.lance")),
        "does not say which model",
    ),
    "a folder": ("d.npy", lambda folder: (folder / "d.npy").mkdir(), ""),
    "a job that is not finished": (
        "y.npy",
        lambda folder: (folder / "y.npy.parts").mkdir(),
        "is not finished: run the same embed command again",
    ),
    "nothing": ("y.npy", lambda folder: None, "There is no"),
}


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_index_is_refused_by_what_is_wrong(indexes: Path, name: str, damage: Damage, said: str) -> None:
    query = np.load(indexes / "x.npy")[0].copy()
    damage(indexes)
    if name == "x.parquet" and not said:  # its manifest beside it tells as much
        assert open_index(str(indexes / name), "").nearest(query, 1)[0].score == pytest.approx(1)
        (indexes / "x.parquet.manifest.json").unlink()
        said = "has no x.parquet.manifest.json"
    with pytest.raises(UnusableIndexError) as caught, closing(open_index(str(indexes / name), "")) as index:
        index.nearest(query, 20)
    assert said in caught.value.message
    assert name.partition(".")[0] in caught.value.message


@pytest.mark.parametrize("form", FORMS)
def test_held_it_finds_the_same_and_tells_of_every_row(made: Path, form: str) -> None:
    query = np.load(made / "x.npy")[5].copy()
    held, read = open_held(str(made / f"x.{form}")), open_index(str(made / f"x.{form}"), "")
    assert held.nearest(query, 7) == read.nearest(query, 7)
    assert [held.item(row).id for row in range(len(held))] == [
        json.loads(line)["id"] for line in (made / "x.npy.ids.jsonl").read_text().splitlines()
    ]
    held.close()
    read.close()


def test_rows_that_nobody_counted_are_held_too_and_more_than_memory_are_refused(indexes: Path) -> None:
    query = np.load(indexes / "x.npy")[5].copy()
    facts("x.jsonl", rows=None)(indexes)
    with closing(open_held(str(indexes / "x.jsonl"))) as held, closing(open_held(str(indexes / "x.npy"))) as whole:
        assert len(held) == 13
        assert held.nearest(query, 20) == whole.nearest(query, 20)
    facts("x.jsonl", rows=2**50)(indexes)
    with pytest.raises(UnusableIndexError, match="not enough memory for"):
        open_held(str(indexes / "x.jsonl"))


def test_a_table_is_not_held() -> None:
    with pytest.raises(ConfigError, match="by SQL"):
        open_held("postgresql://localhost/shop")
    with pytest.raises(ConfigError, match=r"\.lance\.$"):
        open_held("notes.txt")


def test_what_is_mapped_stays_when_another_takes_its_name_and_is_refused_when_it_is_written_over(
    indexes: Path,
) -> None:
    held = open_held(str(indexes / "x.npy"))
    vectors = np.load(indexes / "x.npy")
    before = held.nearest(vectors[0], 3)
    np.save(indexes / "new.npy", vectors[::-1])
    os.replace(indexes / "new.npy", indexes / "x.npy")
    assert held.nearest(vectors[0], 3) == before
    (indexes / "x.npy").unlink()
    assert held.nearest(vectors[0], 3) == before
    held.close()
    np.save(indexes / "x.npy", vectors)
    held = open_held(str(indexes / "x.npy"))
    (indexes / "x.npy").write_bytes(b"short")
    with pytest.raises(UnusableIndexError, match="was written over while it was in use"):
        held.nearest(vectors[0], 3)
    held.close()


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("x.npy", "x.jsonl", "x.parquet"):
        os.mkfifo(tmp_path / name)
        (tmp_path / f"{name}.manifest.json").write_text('{"embedding_id": "a", "dimensions": 4}')
        with pytest.raises(UnusableIndexError, match="not a regular file"):
            open_index(str(tmp_path / name), "")
