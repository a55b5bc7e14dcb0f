"""scripts/prove-gpu: what travels comes out whole, a time is kept, and every section that a CPU can run gives rows."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gpu import choosing, cores, engine, machine, pack, prepare, served, texts
from benchmarks.gpu.budget import NO_TIME, run_all
from benchmarks.gpu.command import main
from benchmarks.gpu.graphs import graph, session
from benchmarks.gpu.sections import SECTIONS, Section
from benchmarks.gpu.setting import Setting, cores_to_try
from benchmarks.gpu.unpack import Place, unpack

ROOT = Path(__file__).parents[2]
STAND_INS = "tests.benchmarks.stand_in_sections"
LARGE = bytes(range(256)) * 4096


def downloaded(requirements: Sequence[str], folder: Path) -> None:
    """In pip's place: a file for each requirement, of which onnxruntime-gpu's is large."""
    for requirement in requirements:
        name = requirement.partition("=")[0].partition("[")[0]
        (folder / f"{name}.file").write_bytes(LARGE if name == "onnxruntime-gpu" else name.encode())


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    (photographs / "one.jpeg").write_bytes(b"a photograph")
    pack.pack(tmp_path / "packed", photographs, 400_000, downloaded)
    return tmp_path / "packed"


def compiled(source: Path) -> None:
    """In the compiler's place: it takes away what was there, and makes nothing."""
    for file in source.glob("clipsrv/**/*.so"):
        file.unlink()


def test_what_was_packed_in_pieces_is_unpacked_whole(packed: Path, tmp_path: Path) -> None:
    folders = list(packed.iterdir())
    assert len(folders) > 3
    # The index, which names the pieces, is small and beside them.
    assert all(sum(file.stat().st_size for file in one.glob("*.*")) < 410_000 for one in folders)
    place = unpack(packed, tmp_path / "work", compile=compiled)
    assert (tmp_path / "work/packed/gpu/onnxruntime-gpu.file").read_bytes() == LARGE
    assert (tmp_path / "work/packed/both/aiohttp.file").read_bytes() == b"aiohttp"
    assert (tmp_path / "work/images/one.jpeg").read_bytes() == b"a photograph"
    for name in ("clipsrv/__init__.py", "scripts/make-random-checkpoint", "conversions/drawings.webp"):
        assert (place.source / name).read_bytes() == (ROOT / name).read_bytes()
    compiled_here = sorted(path.relative_to(ROOT) for path in ROOT.glob("clipsrv/**/*.so"))
    assert compiled_here == sorted(path.relative_to(place.source) for path in place.source.glob("clipsrv/**/*.so"))


def test_a_machine_can_begin_with_the_first_pieces_and_is_told_which_is_missing(packed: Path, tmp_path: Path) -> None:
    holding = [one for one in packed.iterdir() if any("gpu@" in file.name for file in one.iterdir())]
    for piece in holding[-1].glob("gpu@*"):
        piece.unlink()
    place = unpack(packed, tmp_path / "work", runtimes=("cpu",), compile=compiled)
    assert not (tmp_path / "work/packed/gpu").exists()
    assert str(tmp_path / "work/site/cpu") in place.environment("cpu")["PYTHONPATH"]
    with pytest.raises(SystemExit, match=r"gpu/onnxruntime-gpu\.file has not come whole: the piece at byte \d+"):
        unpack(packed, tmp_path / "work", compile=compiled)


def run(tmp_path: Path, *names: str, seconds: float = 60, most: float = 60) -> list[tuple[str, str, int]]:
    sections = [Section(name, name, f"{STAND_INS}:{name}", 0.1, most if name == "endless" else 60) for name in names]
    found = run_all(
        sections,
        Setting(str(tmp_path), "cpu"),
        Place(ROOT),
        tmp_path / "out",
        time.monotonic() + seconds,
        lambda line: None,
    )
    return [(one.name, one.end, len(one.rows)) for one in found]


def test_a_section_that_fails_loses_neither_its_rows_nor_the_others(tmp_path: Path) -> None:
    ends = run(tmp_path, "two_rows", "fails", "two_rows")
    assert ends == [
        ("two_rows", "whole", 2),
        ("fails", "failed: RuntimeError: no such card", 1),
        ("two_rows", "whole", 2),
    ]
    figures = json.loads((tmp_path / "out/results.json").read_text())
    assert figures[0]["rows"][1] == {"name": "b", "images/s": 1234.5, "note": "x | y"}
    page = (tmp_path / "out/results.md").read_text()
    assert "| name | images/s | note |\n| --- | ---: | --- |\n| a | 1.00 |  |\n| b | 1,234 | x \\| y |" in page


def test_a_section_that_takes_too_long_is_stopped_and_keeps_what_it_has(tmp_path: Path) -> None:
    ends = run(tmp_path, "endless", "two_rows", most=8)
    assert ends == [("endless", "cut short after 8 s", 1), ("two_rows", "whole", 2)]
    assert (tmp_path / "stopped").exists(), "it could end what it had started"


def test_what_does_not_fit_the_time_is_said_not_to_have_run(tmp_path: Path) -> None:
    assert run(tmp_path, "two_rows", seconds=0) == [("two_rows", NO_TIME, 0)]
    assert NO_TIME.capitalize() in (tmp_path / "out/results.md").read_text()


def test_a_section_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no section other"):
        main(["run", "--here", "--only", "machine,other", "--work", str(tmp_path)])


def test_every_section_is_there() -> None:
    for section in SECTIONS:
        module, _, function = section.measure.rpartition(":")
        assert hasattr({f"benchmarks.gpu.{one.__name__.rpartition('.')[2]}": one for one in MODULES}[module], function)
        assert 0 < section.least <= section.most


MODULES = (machine, prepare, engine, served, choosing, cores, texts)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, converted_model: Path) -> Setting:
    """A tiny model where prepare would have made it."""
    work = tmp_path_factory.mktemp("gpu")
    small = Setting(str(work), "cpu", ("tiny",), 0.02, (1, 4), (1, 2), (1,), golden=8)
    for place, made in ((small.checkpoint("tiny"), tiny_checkpoint), (small.models_dir / "tiny", converted_model)):
        place.parent.mkdir()
        place.symlink_to(made)
    return small


def test_a_model_that_is_there_is_not_made_again(setting: Setting) -> None:
    (row,) = prepare.measure(setting)
    assert (row["model"], row["checkpoint, s"], row["conversion, s"]) == ("tiny", 0, 0)


def test_models_are_made_in_the_precisions_that_are_measured(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a converter that notes its command, and writes what it is looked for by."""
    commands: list[Sequence[str]] = []

    def converted(command: Sequence[str]) -> None:
        commands.append(command)
        options = dict(zip(command[2::2], command[3::2], strict=True))
        made = Path(options["--models-dir"], options["--name"])
        made.mkdir(parents=True)
        (made / "manifest.json").touch()

    monkeypatch.setattr(prepare, "_run", converted)
    on_a_card = replace(setting, work=str(tmp_path), device="cuda", models=("tiny", "larger"))
    for model in on_a_card.models:
        on_a_card.checkpoint(model).mkdir(parents=True)
    rows = [*prepare.measure(on_a_card), *prepare.for_cpu(on_a_card)]
    assert [row["model"] for row in rows] == ["tiny", "larger", "tiny-on-cpu"]
    assert sorted(command[-1] for command in commands) == ["fp16", "fp16", "int8"]


def test_a_model_that_cannot_be_made_is_told(setting: Setting) -> None:
    with pytest.raises(RuntimeError, match="make-random-checkpoint unheard-of"):
        list(prepare.measure(replace(setting, models=("unheard-of",))))


def test_each_node_of_each_tower_is_told_by_where_it_ran(setting: Setting) -> None:
    rows = list(engine.providers(setting))
    assert [(row["tower"], row["nodes elsewhere"]) for row in rows] == [("vision", 0), ("text", 0)]
    assert all(isinstance(row["nodes on it"], int) and row["nodes on it"] > 50 for row in rows)


def test_vectors_are_held_against_pytorchs(setting: Setting) -> None:
    rows = list(engine.parity(setting))
    assert [row["vectors"] for row in rows] == ["clipsrv fp32", "clipsrv fp32 on the CPU"]
    assert all(float(str(row["largest component"])) < 1e-5 for row in rows)


def test_the_engine_is_timed_in_every_way_that_a_cpu_has(setting: Setting) -> None:
    rows = list(engine.engine(setting))
    assert [row["way"] for row in rows] == ["as served", "two in flight", "PyTorch eager"]
    assert all(float(str(row[f"batch {size}"])) > 0 for row in rows for size in setting.batches)


def test_texts_are_timed_and_held_against_the_cpus(setting: Setting) -> None:
    (row,) = texts.texts(setting)
    assert all(float(str(row[f"batch {size}"])) > 0 for size in (1, 8, 36, 64))
    assert (row["largest component, together"], row["alone"]) == (0, 0)


def test_a_way_that_this_machine_has_not_is_no_other_way_under_its_name(setting: Setting) -> None:
    """As TensorRT without its library."""
    one = graph(setting, "tiny", "fp32")
    with pytest.warns(UserWarning, match="Tensorrt"), pytest.raises(RuntimeError, match=r"CPU.* runs instead"):
        session(one, name="TensorrtExecutionProvider")


def test_servers_are_asked_over_http_and_decoding_is_told_from_the_engine(setting: Setting) -> None:
    (setting.images_dir).mkdir(exist_ok=True)
    names = [rival.name for rival in served.rivals(replace(setting, models=("tiny", "larger")))]
    assert names == [
        "clipsrv tiny fp32",
        "clipsrv tiny fp32 --max-batch-size 64",
        "flask + torch",
        "clipsrv larger fp32 --max-batch-size 64",
    ]
    on_a_card = replace(setting, device="cuda")
    assert [rival.command[2] for rival in served.rivals(on_a_card) if "launch by" in rival.name] == [
        "benchmarks.gpu.launch_by_launch"
    ]
    rows = list(served.answers(setting, served.rivals(setting)[0]))
    assert [(row["callers"], row["errors"]) for row in rows] == [(1, 0), (2, 0)]
    *_, verdict = served.decoding(setting)
    assert verdict["bound by"] in ("decoding", "the engine")


def test_auto_is_asked_beside_the_name_of_the_device(setting: Setting) -> None:
    rows = list(choosing.auto(setting))
    assert [(row["asked for"], row["took"], row["said"]) for row in rows] == [("cpu", "cpu", ""), ("auto", "cpu", "")]
    assert all(float(str(row["opened, s"])) > 0 for row in rows)


def test_a_server_of_several_processes_is_asked_as_one_is(setting: Setting) -> None:
    four_callers = replace(setting, callers=(4,))
    rows = list(served.workers(four_callers))
    assert [(row["server"], row["errors"]) for row in rows] == [
        (f"clipsrv tiny fp32 --workers {count}", 0) for count in (1, 2, 4)[: len(rows)]
    ]


def test_the_cpu_is_measured_by_its_cores_and_they_are_given_back(setting: Setting) -> None:
    (setting.models_dir / setting.on_cpu).symlink_to(setting.models_dir / "tiny")
    there = os.sched_getaffinity(0)
    alone, server = itertools.islice(cores.cores(setting), 2)  # then come those of several processes, as above
    assert os.sched_getaffinity(0) == there
    assert all(float(str(alone[f"{way}, batch 16"])) > 0 for way in ("as served", "threads share operators"))
    assert (alone["cores"], server["cores"]) == (1, 1)
    assert (server["server"], server["errors"]) == ("clipsrv tiny-on-cpu fp32", 0)


def test_cores_are_tried_as_far_as_they_are_there() -> None:
    assert [cores_to_try(there) for there in (1, 2, 12, 64)] == [[1], [2], [2, 4, 8], [2, 4, 8, 16]]
