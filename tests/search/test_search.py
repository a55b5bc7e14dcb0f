"""The search command: what it finds in every form, what it prints, and what it refuses by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipsrv.cli import main
from clipsrv.models.model import Model
from clipsrv.models.texts import embed_texts
from tests.search.conftest import FORMS, Search
from tests.support.model import write_model
from tests.support.postgres import Postgres

CASES = [f"x.{form}" for form in FORMS]


@pytest.mark.parametrize("name", CASES)
def test_an_image_finds_itself_and_its_copy_first(search: Search, made: Path, photos: Path, name: str) -> None:
    status, out, said = search(made / name, "--image", photos / "04.jpg", "--limit", 3, "--json")
    assert (status, said) == (0, "")
    answer = json.loads(out)
    assert answer["model"] == "tiny"
    first, second, third = answer["results"]
    assert [Path(first["path"]).name, Path(second["path"]).name] == ["04.jpg", "copy.jpg"]
    assert first["score"] == second["score"] == pytest.approx(1, abs=1e-6)
    assert third["score"] < 1
    assert first["id"] == first["path"] == str(photos / "04.jpg")
    assert first["sha256"] == second["sha256"]


@pytest.mark.parametrize("name", CASES)
def test_a_text_finds_what_its_vector_is_nearest_to(search: Search, made: Path, model: Model, name: str) -> None:
    _, out, _ = search(made / name, "--text", "a red heart", "--limit", 5, "--json")
    vectors, (query,) = np.load(made / "x.npy"), embed_texts(model, ["a red heart"], 8).vectors
    ids = [json.loads(line)["id"] for line in (made / "x.npy.ids.jsonl").read_text().splitlines()]
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    expected = [ids[row] for row in np.argsort(-scores, kind="stable")[:5]]
    assert [one["id"] for one in json.loads(out)["results"]] == expected
    assert [one["score"] for one in json.loads(out)["results"]] == pytest.approx(np.sort(scores)[::-1][:5])


def test_several_texts_and_images_are_looked_for_by_their_mean(search: Search, made: Path, photos: Path) -> None:
    both = ("--image", photos / "02.jpg", "--image", photos / "09.jpg")
    _, out, _ = search(made / "x.npy", *both, "--limit", 2)
    assert {Path(line.split("  ", 1)[1]).name for line in out.splitlines()} == {"02.jpg", "09.jpg"}
    status, mixed, _ = search(made / "x.npy", *both, "--text", "cat", "--limit", 2)
    assert (status, len(mixed.splitlines())) == (0, 2)


def test_lines_are_a_score_and_a_path_that_moves_no_cursor(
    search: Search, photos: Path, models_dir: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "a\n\x1b[2Jあ.jpg"
    odd.write_bytes((photos / "01.jpg").read_bytes())
    common = ("--model", "tiny", "--models-dir", str(models_dir), "--quiet")
    assert main(["embed", str(odd), *common, "--out", str(tmp_path / "x.npy")]) == 0
    assert search(tmp_path / "x.npy", "--image", odd)[1] == f"1.0000  {tmp_path}/a\\n\\x1b[2Jあ.jpg\n"


def test_the_table_holds_what_a_file_holds(
    search: Search, made: Path, photos: Path, postgres: Postgres, models_dir: Path, tmp_path: Path
) -> None:
    table = ("--table", "searched")
    common = ("--model", "tiny", "--models-dir", str(models_dir), "--device", "cpu", "--threads", "1", "--quiet")
    errors = ("--errors", str(tmp_path / "e"))
    assert main(["embed", str(photos), *common, "--out", postgres.url, *table, *errors]) == 0
    # An index that is approximate must not be asked.
    postgres.query("CREATE INDEX ON searched USING hnsw (embedding vector_cosine_ops)")
    of_table = json.loads(search(postgres.url, *table, "--image", photos / "04.jpg", "--json")[1])["results"]
    of_file = json.loads(search(made / "x.npy", "--image", photos / "04.jpg", "--json")[1])["results"]
    assert [one["id"] for one in of_table] == [one["id"] for one in of_file]
    assert [one["score"] for one in of_table] == pytest.approx([one["score"] for one in of_file], abs=1e-6)
    assert search(postgres.url, "--table", "nothing", "--text", "x")[0] == 6
    postgres.query("UPDATE searched SET embedding_id = 'other' WHERE id LIKE '%copy.jpg'")
    status, _, said = search(postgres.url, *table, "--text", "x")
    assert status == 6
    assert "two embedding_ids" in said
    postgres.query("DELETE FROM searched")
    assert "holds no vectors" in search(postgres.url, *table, "--text", "x")[2]
    postgres.query("ALTER TABLE searched DROP COLUMN location")
    assert "has no column location" in search(postgres.url, *table, "--text", "x")[2]
    postgres.query("DROP TABLE searched")


def test_a_database_that_is_not_there_is_said_without_its_password(search: Search) -> None:
    status, _, said = search("postgresql://me:geheim@127.0.0.1:1/shop", "--text", "x")
    assert status == 6
    assert "cannot be searched" in said
    assert "geheim" not in said
    assert search("postgresql://me:geheim@[::1/shop", "--text", "x")[0] == 2


def test_the_sheet_shows_thumbnails_and_escapes_names(
    search: Search, photos: Path, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "i"
    folder.mkdir()
    odd = folder / '<b>"&.jpg'
    for path in (odd, folder / "gone.jpg", folder / "other.jpg"):
        path.write_bytes((photos / "01.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    common = ("--model", "tiny", "--models-dir", str(models_dir), "--quiet")
    assert main(["embed", "i", *common, "--out", "x.npy"]) == 0
    (folder / "gone.jpg").unlink()
    Image.new("RGB", (40, 40)).save(folder / "other.jpg")
    monkeypatch.chdir(photos)  # paths are then found from the folder of the index
    assert search(tmp_path / "x.npy", "--text", "<script>", "--html", tmp_path / "out.html")[0] == 0
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "<h1>&lt;script&gt;</h1>" in page
    assert "i/&lt;b&gt;&quot;&amp;.jpg" in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert "i/gone.jpg is not there any more." in page
    assert "i/other.jpg is another image by now." in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


REFUSED: dict[str, tuple[tuple[str, ...], int, str]] = {
    "nothing to search for": (("x.npy",), 2, "Nothing to search for"),
    "an empty text": (("x.npy", "--text", " "), 2, "--text is empty"),
    "no results": (("x.npy", "--text", "a", "--limit", "0"), 2, "--limit is 0"),
    "no index": (("nothing.npy", "--text", "a"), 6, "There is no"),
    "another kind of file": (("x.csv", "--text", "a"), 2, "its name must end in .npy, .jsonl, .parquet, .lance, or be"),
    "an image that is not there": (("x.npy", "--image", "nothing.jpg"), 2, "Cannot read --image nothing.jpg"),
    "an image that is none": (("x.npy", "--image", "text.jpg"), 1, "--image text.jpg: "),
    "a text that is not Unicode": (("x.npy", "--text", "\udcff"), 1, "clipsrv: "),
    "a model that is not there": (("x.npy", "--text", "a", "--model", "nothing"), 3, "No model 'nothing'"),
    "another model": (("x.npy", "--text", "a", "--model", "demo"), 6, "demo makes others. They cannot be compared"),
    "a precision it was not made with": (("x.npy", "--text", "a", "--precision", "fp16"), 3, "with auto, fp16 makes"),
    "a sheet that cannot be written": (("x.npy", "--text", "a", "--html", "no/where.html"), 6, "Cannot write"),
}


@pytest.mark.parametrize(("args", "status", "said"), REFUSED.values(), ids=REFUSED)
def test_a_search_that_cannot_be_done_is_refused_in_one_line(
    search: Search, indexes: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], status: int, said: str
) -> None:
    monkeypatch.chdir(indexes)
    (indexes / "text.jpg").write_text("no image")
    found = search(*args)
    assert (found[0], found[1]) == (status, "")
    assert said in found[2]
    assert found[2].count("\n") == 1


def test_an_index_of_a_model_that_is_not_here_is_refused_by_its_name(
    search: Search, made: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "models" / "tiny", weights_sha256="1" * 64)
    status, _, said = search(made / "x.npy", "--text", "a", "--models-dir", tmp_path / "models")
    assert status == 3
    assert "a model called tiny made" in said
    assert "(there: demo, tiny)" in said


def test_the_maker_is_found_whatever_its_folder_is_called_and_as_it_decoded(
    search: Search, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    write_model(folder / "tiny")
    common = ("--models-dir", str(folder), "--model", "tiny", "--quiet", "--no-exif-orientation", "--fast-decode")
    assert main(["embed", str(photos), *common, "--out", str(tmp_path / "x.npy")]) == 0
    (folder / "tiny").rename(folder / "renamed")
    write_model(folder / "tiny", weights_sha256="1" * 64)
    found = search(tmp_path / "x.npy", "--image", photos / "03.jpg", "--models-dir", folder, "--limit", 1)
    assert found == (0, f"1.0000  {photos}/03.jpg\n", "")


def test_a_model_without_texts_searches_by_images_only(search: Search, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    write_model(folder / "tiny", text=False)
    common = ("--models-dir", str(folder), "--model", "tiny", "--quiet")
    assert main(["embed", str(photos), *common, "--out", str(tmp_path / "x.npy")]) == 0
    status, _, said = search(tmp_path / "x.npy", "--text", "a", "--models-dir", folder)
    assert (status, said) == (1, "clipsrv: tiny has no text tower: search for an image (--image).\n")
    assert search(tmp_path / "x.npy", "--image", photos / "01.jpg", "--models-dir", folder)[0] == 0


def test_what_the_model_did_not_read_of_a_text_is_said(search: Search, made: Path) -> None:
    status, _, said = search(made / "x.npy", "--text", "word " * 150)
    assert status == 0
    assert "only the beginning was read" in said


def test_the_ann_index_of_lance_is_asked_and_held_against_what_is_exact(
    search: Search, photos: Path, models_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.lance"
    common = ("--model", "tiny", "--models-dir", str(models_dir), "--quiet", "--out", str(out))
    assert main(["embed", str(photos / "00.jpg"), *common]) == 0
    status, _, said = search(out, "--text", "a", "--ann")
    assert status == 6
    assert "has no ANN index: make it with embed --out x.lance --ann" in said
    for _ in range(2):  # made, and brought up to date
        assert main(["embed", str(photos), *common, "--ann"]) == 0
        status, found, said = search(out, "--image", photos / "04.jpg", "--ann", "--limit", 5)
        assert (status, found) == (0, search(out, "--image", photos / "04.jpg", "--limit", 5)[1])
        assert "found 5 of the 5 nearest (recall 1.00)" in said


def test_only_lance_has_an_ann_index(
    search: Search, made: Path, models_dir: Path, photos: Path, tmp_path: Path
) -> None:
    status, _, said = search(made / "x.npy", "--text", "a", "--ann")
    assert status == 2
    assert "--ann is for an index that ends in .lance" in said
    common = ("--model", "tiny", "--models-dir", str(models_dir), "--quiet")
    assert main(["embed", str(photos), *common, "--out", str(tmp_path / "x.npy"), "--ann"]) == 2


@pytest.mark.parametrize(
    ("stream", "status", "said"), [("/dev/full", 6, "Cannot write what was found"), ("|", 141, "")]
)
def test_results_that_nobody_takes_are_no_traceback(
    made: Path, models_dir: Path, stream: str, status: int, said: str
) -> None:
    command = [sys.executable, "-m", "clipsrv", "search", str(made / "x.npy"), "--text", "a"]
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer if stream == "|" else stream, "wb") as out:
        done = subprocess.run(
            [*command, "--models-dir", str(models_dir)], stdout=out, stderr=subprocess.PIPE, text=True
        )
    if stream != "|":
        os.close(writer)
    assert done.returncode == status
    assert said in done.stderr
    assert done.stderr.count("\n") <= 1


def test_a_text_in_letters_that_the_model_does_not_know_is_said(search: Search, photos: Path, tmp_path: Path) -> None:
    common = ("--model", "demo", "--models-dir", "onnx_models", "--quiet")
    assert main(["embed", str(photos / "00.jpg"), *common, "--out", str(tmp_path / "x.npy")]) == 0
    status, out, said = search(tmp_path / "x.npy", "--text", "кот", "--models-dir", "onnx_models")
    assert (status, len(out.splitlines())) == (0, 1)
    assert "demo knows English and Japanese, and reads no letter of 'кот'" in said


def test_a_model_that_is_damaged_is_refused_for_that_and_not_as_another(
    search: Search, made: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "models" / "tiny")
    (tmp_path / "models" / "tiny" / "manifest.json").write_text("{")
    for args in (("--model", "tiny"), ()):
        status, _, said = search(made / "x.npy", "--text", "a", "--models-dir", tmp_path / "models", *args)
        assert status == 3
        assert ("manifest.json is not a model manifest" in said) == bool(args)
