"""A window of a resized image equals the same part of what Pillow makes of the whole, whatever computes it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from clipsrv import images
from clipsrv.images import _resize, resize
from clipsrv.images.resize import FILTERS, KERNELS, Kernel, resize_window

every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def noise(width: int, height: int, seed: int, *, two_levels: bool) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(np.where(values < 128, np.uint8(0), np.uint8(255)) if two_levels else values)


def assert_window_equals_pillow(
    image: Image.Image, new_size: tuple[int, int], offset: tuple[int, int], kernel: Kernel, resample: str = "bicubic"
) -> None:
    size = min(new_size[0] - offset[0], new_size[1] - offset[1], 40)
    left, top = offset
    whole = np.asarray(image.resize(new_size, Image.Resampling[resample.upper()]))
    window = resize_window(image, new_size, offset, size, resample, kernel)
    assert np.array_equal(window, whole[top : top + size, left : left + size])


sides = st.integers(1, 300)


@every_kernel
@settings(max_examples=200, deadline=None)
@given(
    width=sides,
    height=sides,
    new_width=sides,
    new_height=sides,
    across=st.floats(0, 1),
    down=st.floats(0, 1),
    seed=st.integers(0, 99),
    two_levels=st.booleans(),
    resample=st.sampled_from(sorted(FILTERS)),
)
@example(300, 300, 20, 250, 0.5, 0.5, 0, True, "bicubic")
@example(300, 300, 250, 20, 0.5, 0.5, 0, True, "bilinear")
@example(1, 300, 10, 200, 0.5, 0.5, 0, True, "bicubic")
@example(1, 1, 300, 300, 0.5, 0.5, 0, True, "bilinear")
@example(300, 200, 300, 200, 0.5, 0.5, 0, True, "bilinear")
def test_a_window_equals_the_same_part_of_the_whole_resized_by_pillow(
    kernel: Kernel,
    width: int,
    height: int,
    new_width: int,
    new_height: int,
    across: float,
    down: float,
    seed: int,
    two_levels: bool,
    resample: str,
) -> None:
    offset = round(across * (new_width - 1)), round(down * (new_height - 1))
    image = noise(width, height, seed, two_levels=two_levels)
    assert_window_equals_pillow(image, (new_width, new_height), offset, kernel, resample)


@every_kernel
@pytest.mark.parametrize("new_height", range(100, 300, 8))
def test_the_order_of_passes_turns_where_pillow_turns_it(new_height: int, kernel: Kernel) -> None:
    """Around 2 * (width - new_width) == height - new_height; a Pillow that decides otherwise fails here."""
    width, new_width, height = 200, 140, 300
    image = noise(width, height, new_height, two_levels=True)
    for near in (new_height, 300 - 2 * (width - new_width), 300 - 2 * (width - new_width) + 1):
        assert_window_equals_pillow(image, (new_width, near), (0, 0), kernel)


def test_the_order_of_passes_shows_in_the_pixels() -> None:
    """Otherwise the tests above would not notice a change of order."""
    image = noise(200, 300, 1, two_levels=True)
    columns, rows = (resize._axis(*axis, 0, 100, "bicubic") for axis in ((200, 140), (300, 100)))
    rows_first, columns_first = (
        in_order(image, columns, rows, resize.FASTEST)[:, :, :3]
        for in_order in (resize._rows_first, resize._columns_first)
    )
    assert not np.array_equal(rows_first, columns_first)
    whole = np.asarray(image.resize((140, 100), Image.Resampling.BICUBIC))
    assert np.array_equal(rows_first, whole[:, :100])


@pytest.mark.parametrize("size", [(2600, 1700), (1700, 2600), (900, 5000)])
def test_an_image_of_several_strips_is_resized_as_one(size: tuple[int, int]) -> None:
    image = noise(*size, 2, two_levels=False)
    assert size[0] * size[1] * 4 > 3 * resize._STRIP
    whole = np.asarray(image.resize((300, 400), Image.Resampling.BICUBIC))
    assert np.array_equal(resize_window(image, (300, 400), (38, 88), 224), whole[88:312, 38:262])


@pytest.mark.parametrize(("width", "height"), [(1, 200), (200, 1), (4000, 20), (20, 4000)])
def test_a_long_thin_image_makes_no_giant_intermediate(width: int, height: int) -> None:
    """The whole resized image would take 40 MB. Pillow's memory is not Python's: the process is measured."""
    program = (
        "import resource; from PIL import Image; from clipsrv.images.preprocess import resize_and_crop\n"
        "from clipsrv.specs import PreprocessSpec; spec = PreprocessSpec(224, 224, (0.5,) * 3, (0.5,) * 3)\n"
        "resize_and_crop(Image.new('RGB', (800, 300)), spec)\n"
        f"image = Image.new('RGB', ({width}, {height}))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert resize_and_crop(image, spec).shape == (224, 224, 3)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    grown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown) * unit < 12 * 2**20


def test_the_compiled_kernel_is_here_and_used() -> None:
    """It is optional for those who install clipsrv, but not for those who change it: a C compiler is needed here."""
    assert resize.COMPILED
    assert list(KERNELS) == ["numpy", "C", "C with AVX2"][: 2 + _resize.HAS_AVX2]
    assert resize.FASTEST is list(KERNELS.values())[-1]


def load_again() -> ModuleType:
    """resize.py as it would be imported now, beside the one in use."""
    assert resize.__file__ is not None
    spec = importlib.util.spec_from_file_location("resize_again", resize.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_where_it_could_not_be_compiled_numpy_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(images, "_resize")
    monkeypatch.setitem(sys.modules, "clipsrv.images._resize", None)
    again = load_again()
    assert (again.COMPILED, again.FASTEST_NAME) == (False, "numpy")


def test_a_cpu_without_avx2_takes_the_plain_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_resize, "HAS_AVX2", False)
    again = load_again()
    assert (again.COMPILED, again.FASTEST_NAME) == (True, "C")


compiled_passes = pytest.mark.parametrize("name", [name for name in dir(_resize) if not name.startswith(("_", "HAS"))])


@compiled_passes
@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"width": -8},
        {"width": 7},
        {"width": 2**62},
        {"image": bytes(3)},
        {"first": np.zeros(0, np.int32)},
        {"first": np.array([-1, 0], np.int32)},
        {"first": np.array([0, 5], np.int32)},
        {"first": np.array([0, 2**31 - 1], np.int32)},
        {"weights": np.zeros(7, np.int32)},
        {"weights": np.zeros((2, 5, 4), np.int32)},
        {"out": np.zeros(63, np.uint8)},
        {"out": np.zeros(65, np.uint8)},
    ],
    ids=str,
)
def test_the_compiled_passes_refuse_what_would_leave_their_memory(name: str, change: dict[str, object]) -> None:
    """Weights of 2 outputs and 4 taps over 8x8 pixels fit both directions."""
    along = name.startswith("along")
    whole: dict[str, object] = {
        "image": bytes(8 * 8 * 4),
        "width": 8,
        "first": np.array([0, 4], np.int32),
        "weights": np.zeros((2, 4, 4) if along else (2, 4), np.int32),
        "out": np.zeros(8 * 2 * 4, np.uint8),
    }
    compiled = getattr(_resize, name)
    compiled(*whole.values())
    with pytest.raises(ValueError, match=r"image|weights|room|sources"):
        compiled(*(whole | change).values())


@compiled_passes
def test_the_compiled_passes_write_into_writable_memory_only(name: str) -> None:
    with pytest.raises((TypeError, BufferError), match=r"read-write|writable"):
        getattr(_resize, name)(bytes(256), 8, np.zeros(1, np.int32), np.zeros(16, np.int32), bytes(32))
