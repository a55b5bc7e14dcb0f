"""clipsrv within a program: the server's vectors, from whatever an image is held in, by any number of threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import clipsrv
from clipsrv.errors import (
    BadImagesError,
    ConfigError,
    InferenceFailedError,
    InvalidLabelsError,
    InvalidTextError,
    ModelCorruptError,
    ModelNotFoundError,
    NotAnImageError,
    TextTowerMissingError,
)
from tests.support.drawings import drawings
from tests.support.model import DIMENSIONS, NAME, truth
from tests.support.photos import cuttings, drawn

BLOBS = cuttings(20)
#: Without loss, so that what Pillow and an array hold is the same.
PNG = drawn(5, (90, 60))


@pytest.fixture
def model(models_dir: Path) -> Iterator[clipsrv.EmbeddingModel]:
    with clipsrv.load(NAME, models_dir=models_dir, device="cpu", threads=1) as opened:
        yield opened


def test_vectors_are_those_of_the_server_in_the_order_given(model: clipsrv.EmbeddingModel) -> None:
    vectors = model.embed_images(BLOBS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (20, DIMENSIONS)
    np.testing.assert_allclose(vectors, [truth(blob) for blob in BLOBS], atol=1e-6)
    assert (model.name, model.dimensions, model.device, model.precision) == (NAME, DIMENSIONS, "cpu", "fp32")
    assert repr(model) == f"<EmbeddingModel tiny: {DIMENSIONS} dimensions, cpu, fp32>"


def test_an_image_has_one_vector_whatever_holds_it(model: clipsrv.EmbeddingModel, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    image = Image.open(BytesIO(PNG))
    held: list[Any] = [path, str(path), PNG, bytearray(PNG), memoryview(PNG), image, image.copy(), np.asarray(image)]
    vectors = model.embed_images(one for one in held)
    assert len(vectors) == len(held)
    assert (vectors == vectors[0]).all()
    many = np.stack([np.asarray(image)] * 3)
    assert (model.embed_images(many) == vectors[:3]).all()


def test_several_threads_may_share_a_model_and_even_an_image(model: clipsrv.EmbeddingModel) -> None:
    lazy = Image.open(BytesIO(PNG))
    expected = model.embed_images([*BLOBS, PNG])
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(model.embed_images, [*BLOBS, lazy]) for _ in range(8)]
        for one in found:
            np.testing.assert_allclose(one.result(), expected, atol=1e-6)


def test_texts_are_in_the_same_space_in_any_number(model: clipsrv.EmbeddingModel) -> None:
    texts = [f"a photo of {number} shoes" for number in range(20)] + ["", "猫"]
    vectors = model.embed_texts(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (22, DIMENSIONS)
    np.testing.assert_allclose(vectors[7], model.embed_texts([texts[7]])[0], atol=1e-6)


def test_nothing_asked_is_no_rows(model: clipsrv.EmbeddingModel) -> None:
    assert model.embed_images([]).shape == (0, DIMENSIONS)
    assert model.embed_texts([]).shape == (0, DIMENSIONS)
    assert model.classify([], ["cat"]) == []


def test_an_image_that_cannot_be_used_fails_the_call_by_its_place_and_name(
    model: clipsrv.EmbeddingModel, tmp_path: Path
) -> None:
    path = tmp_path / "note.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(BadImagesError, match=r"^images\[2\] \(.*note\.jpg\): This is not an image") as caught:
        model.embed_images([PNG, PNG, path])
    assert [(one.index, type(one.error)) for one in caught.value.bad] == [(2, NotAnImageError)]
    with pytest.raises(FileNotFoundError):
        model.embed_images([tmp_path / "nothing.jpg"])


def test_or_leaves_a_row_of_nan_and_is_told(model: clipsrv.EmbeddingModel, tmp_path: Path) -> None:
    images: list[Any] = [b"", PNG, tmp_path, np.zeros((4, 4, 3)), PNG, *[b"no image"] * 9]
    told: dict[int, Exception] = {}
    vectors = model.embed_images(images, on_error=told.__setitem__)
    assert list(told) == [0, 2, 3, *range(5, 14)]
    assert isinstance(told[2], IsADirectoryError)
    assert np.isnan(vectors).all(axis=1).tolist() == [index in told for index in range(14)]
    np.testing.assert_array_equal(vectors, model.embed_images(images, on_error="null"))
    found = model.classify([b"", PNG], ["cat"], on_error="null")
    assert found[0] is None
    assert found[1] is not None


def test_what_is_no_list_of_images_or_texts_is_a_type_error(model: clipsrv.EmbeddingModel) -> None:
    image = Image.open(BytesIO(PNG))
    for one in ("a.jpg", Path("a.jpg"), PNG, image, np.asarray(image)):
        with pytest.raises(TypeError, match="images is one image"):
            model.embed_images(one)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"images\[1\] is int"):
        model.embed_images([PNG, 5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="texts is one text"):
        model.embed_texts("a cat")
    with pytest.raises(TypeError, match=r"texts\[1\] is NoneType"):
        model.embed_texts(["a", None])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="labels is one label"):
        model.classify([PNG], "cat")
    with pytest.raises(TypeError, match=r"labels\[0\] is int"):
        model.classify([PNG], [5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="on_error is 'raise'"):
        model.embed_images([PNG], on_error="raise")  # type: ignore[arg-type]


def test_labels_are_scored_best_first_and_their_last_vectors_kept(model: clipsrv.EmbeddingModel) -> None:
    labels = ["cat", "a red dress", "赤いハート"]
    for _ in range(2):
        first, second = model.classify([PNG, BLOBS[0]], labels, template="{}")
        assert first
        assert second
        cosines = model.embed_texts(labels) @ model.embed_images([PNG])[0]
        assert [one.label for one in first] == [labels[place] for place in np.argsort(-cosines)]
        assert sum(one.score for one in first) == pytest.approx(1)
        assert model.classify([PNG, BLOBS[0]], labels, template="{}", top=1) == [first[:1], second[:1]]
    with pytest.raises(InvalidLabelsError):
        model.classify([PNG], ["cat", "cat"])
    for top in (0, -1):
        with pytest.raises(ValueError, match="top is"):
            model.classify([PNG], labels, top=top)


def test_the_bundled_model_is_found_from_anywhere_and_knows_drawings(tmp_path: Path) -> None:
    program = "import clipsrv; print(clipsrv.load().embed_texts(['red heart']).shape)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 192)\n"
    with clipsrv.load("demo", device="cpu") as demo:
        found = demo.classify(drawings().values(), list(drawings()), top=1)
        assert [one[0].label for one in found if one] == list(drawings())


def test_a_model_is_opened_by_name_or_by_its_folder(tiny_model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copied"))
    for folder in (copy, str(copy), os.path.join(".", os.path.relpath(copy))):
        with clipsrv.load(folder, device="cpu", threads=1) as opened:
            assert opened.embed_images([PNG]).shape == (1, DIMENSIONS)
    with pytest.raises(ModelNotFoundError, match="python -m conversions vit-b-32"):
        clipsrv.load("vit-b-32", models_dir=tmp_path)
    with pytest.raises(ModelNotFoundError):
        clipsrv.load(tmp_path / "demo")
    (copy / "vision.fp32.onnx").write_bytes(b"")
    with pytest.raises(ModelCorruptError):
        clipsrv.load(copy, device="cpu")


def test_what_cannot_be_meant_is_refused_with_the_option_to_change(models_dir: Path) -> None:
    with pytest.raises(ConfigError, match="--device"):
        clipsrv.load(NAME, models_dir=models_dir, device="gpu")
    with clipsrv.load(NAME, models_dir=models_dir, device="cpu", text=False) as blind:
        assert blind.embed_images([PNG]).shape == (1, DIMENSIONS)
        with pytest.raises(TextTowerMissingError):
            blind.embed_texts(["a"])


def test_a_text_that_is_none_and_a_model_that_is_closed_are_errors(models_dir: Path) -> None:
    model = clipsrv.load(NAME, models_dir=models_dir, device="cpu", threads=1)
    with pytest.raises(InvalidTextError):
        model.embed_texts(["\ud800"])
    model.close()
    model.close()
    with pytest.raises(InferenceFailedError, match="closed"):
        model.embed_images([PNG])


def test_progress_is_shown_only_when_asked_for(
    model: clipsrv.EmbeddingModel, capfd: pytest.CaptureFixture[str]
) -> None:
    model.embed_images(BLOBS)
    assert capfd.readouterr() == ("", "")
    model.embed_images(BLOBS, progress=True)
    model.embed_images((blob for blob in BLOBS), progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "20/20" in shown.err
    assert "20image" in shown.err


def test_what_it_does_not_have_is_an_attribute_error() -> None:
    assert set(clipsrv.__all__) <= {*dir(clipsrv), "EmbeddingModel", "load"}
    with pytest.raises(AttributeError, match="no attribute 'serve'"):
        clipsrv.serve  # noqa: B018
