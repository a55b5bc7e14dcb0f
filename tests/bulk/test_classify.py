"""What the classify command makes of files: the server's scores in both formats, and the rest as embed does it."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest

from tests.bulk.tool import Embed, finish, lines, shards, wait_until
from tests.support.server import ServerProcess
from tests.support.wire import BOUNDARY, form, part

LABELS = ["cat", "a red, red dress", "赤いハート"]


@pytest.fixture(scope="session")
def classify(models_dir: Path) -> Embed:
    """The command with the small model."""
    return Embed(models_dir, "classify")


def rows(out: Path) -> list[dict[str, str]]:
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def over_http(server: ServerProcess, path: Path, template: str) -> list[tuple[str, float]]:
    parts = [part(path.read_bytes()), part(template.encode(), "template")]
    parts += [part(label.encode(), "labels") for label in LABELS]
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    with urlopen(Request(f"{server.url}/classify", form(*parts), kind)) as response:
        return [(one["label"], one["score"]) for one in json.load(response)["labels"]]


def test_scores_are_those_of_the_server_in_both_formats(
    classify: Embed, images: Path, tmp_path: Path, server: ServerProcess
) -> None:
    for name in ("tags.csv", "tags.jsonl"):
        classify(images, "--labels", *LABELS, "--template", "a photo of {}", "--top", 0, "--out", tmp_path / name)
    table, objects = rows(tmp_path / "tags.csv"), lines(tmp_path / "tags.jsonl")
    assert len(objects) == 21
    assert len(table) == 3 * 21
    for place, one in enumerate(objects):
        of_image = table[3 * place : 3 * place + 3]
        assert {row["id"] for row in of_image} == {one["id"]}
        assert [row["rank"] for row in of_image] == ["1", "2", "3"]
        assert [(row["label"], float(row["score"])) for row in of_image] == [
            (label["label"], label["score"]) for label in one["labels"]
        ]
    for one in objects[:3]:
        expected = over_http(server, Path(one["path"]), "a photo of {}")
        assert [label["label"] for label in one["labels"]] == [label for label, _ in expected]
        found = [label["score"] for label in one["labels"]]
        np.testing.assert_allclose(found, [score for _, score in expected], atol=1e-4)


def test_labels_come_from_a_file_too_and_the_best_alone_is_written(
    classify: Embed, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("\ufeffcat\r\n\r\n  赤いハート \n", encoding="utf-8")
    out = tmp_path / "tags.csv"
    said = classify(images, "--labels-file", tmp_path / "labels.txt", "--labels", "dog", "--out", out)
    assert "21 images in" in said
    assert "2 bad" in said
    assert "reads no letter" not in said  # nobody has told which languages the small model knows
    assert len(rows(out)) == 21
    assert {row["label"] for row in rows(out)} <= {"cat", "赤いハート", "dog"}
    assert {Path(line["path"]).name for line in lines(tmp_path / "tags.csv.errors.jsonl")} == {"broken.jpg", "text.png"}
    facts = json.loads((tmp_path / "tags.csv.manifest.json").read_text(encoding="utf-8"))
    assert (facts["labels"], facts["scoring"]["kind"], facts["rows"]) == (["dog", "cat", "赤いハート"], "softmax", 21)


def test_labels_that_the_model_cannot_read_are_named_before_the_work(
    classify: Embed, images: Path, tmp_path: Path
) -> None:
    wanted = ("--model", "demo", "--labels", "cat", "кот", "--out", tmp_path / "tags.csv")
    said = classify(sorted(images.glob("*.jpg"))[-1], *wanted)
    assert said.startswith("demo knows English and Japanese, and reads no letter of the labels 'кот': their scores")


def test_a_killed_job_goes_on_and_ends_as_one_that_was_not(classify: Embed, many: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "tags.csv", tmp_path / "whole.csv"
    wanted = (many, "--shard-size", 10, "--labels", *LABELS)
    classify(*wanted, "--out", whole)
    process = classify.start(*wanted, "--out", out)
    wait_until(lambda: shards(out) >= 2)
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert not out.exists()
    classify(*wanted, "--out", out)
    assert out.read_bytes() == whole.read_bytes()


def test_other_labels_are_another_job(classify: Embed, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "tags.csv"
    classify(images, "--labels", *LABELS, "--out", out)
    assert "complete already" in classify(images, "--labels", *LABELS, "--out", out)
    said = classify(images, "--labels", "cat", "--out", out, status=6)
    assert 'labels was ["cat", "a red, red dress"' in said
    classify(images, "--labels", "cat", "--out", out, "--restart")
    assert {row["label"] for row in rows(out)} == {"cat"}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--out", "x.csv"), 2, "There is no label"),
        (("--labels", "a", "a", "--out", "x.csv"), 2, "'a' is there more than once"),
        (("--labels", "a", "--template", "photo", "--out", "x.csv"), 2, "must hold {} once"),
        (("--labels", "a", "--top=-1", "--out", "x.csv"), 2, "--top must be 0 or more"),
        (("--labels", "a", "--out", "x.npy"), 2, "must end in .csv or .jsonl"),
        (("--labels", "a", "--out", "postgresql://x/y"), 2, "must end in .csv or .jsonl"),
        (("--labels", b"\xff".decode("utf-8", "surrogateescape"), "--out", "x.csv"), 2, "cannot be read"),
        (("--labels-file", "not there", "--out", "x.csv"), 2, "Cannot read the labels of not there"),
        (("--labels", "a", "--model", "nothing", "--out", "x.csv"), 3, "No model 'nothing'"),
        (("--labels", "a", "--out", "/not/there/x.csv"), 6, "/not/there"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    classify: Embed, images: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    *rest, out = arguments
    out = out if out.startswith(("/", "postgresql:")) else str(tmp_path / out)
    line = classify(images, *rest, out, status=status)
    assert said in line
    assert line.count("\n") == 1


def test_labels_that_are_not_utf_8_are_refused_by_the_name_of_their_file(
    classify: Embed, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_bytes("赤".encode("cp932"))
    said = classify(images, "--labels-file", tmp_path / "labels.txt", "--out", tmp_path / "x.csv", status=2)
    assert "labels.txt are not text in UTF-8" in said
