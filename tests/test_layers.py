"""Every arrow of the house points one way: who may import whom, read from the source, and proven in a process."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "clipsrv").rglob("*.py"))

#: Packages of others, and the rooms that may import them.
ONLY = {
    "onnxruntime": {"runtime", "doctor"},
    "aiohttp": {"server", "bulk"},
    "multipart": {"server"},
    "orjson": {"server", "bulk", "search"},
    "PIL": {"images"},
    "tokenizers": {"text"},
    "sentencepiece": {"text"},
    "ftfy": {"text"},
    "prometheus_client": {"server"},
    "tqdm": {"bulk", "embedding_model"},
    "pyarrow": {"bulk", "search"},
    "psycopg": {"bulk", "search"},
    "lance": {"bulk", "search"},
    "fsspec": {"bulk"},
    "ray": {"bulk"},
    "qdrant_client": {"bulk"},
}
#: What never runs in the server at all.
NEVER = {
    "torch",
    "transformers",
    "optimum",
    "onnx",
    "conversions",
    "tests",
    "drills",
    "benchmarks",
    "requests",
    "httpx",
}

GROUND = (
    "errors",
    "ahead",
    "installation",
    "processor",
    "cgroups",
    "machine",
    "topology",
    "providers",
    "config",
    "settings",
    "documents",
    "specs",
    "manifest",
)
#: The rooms from the ground up. A room imports what is named here and nothing else of clipsrv; its own files it may,
#: as the law of the room says (ROOMS_OF), or freely. What is known of providers lies on the ground: settings name them.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "ahead": (),
    "_cpu": (),
    "processor": ("_cpu",),
    "cgroups": (),
    "machine": ("cgroups",),
    "topology": ("machine",),
    "installation": (),
    "providers": ("errors", "installation"),
    "config": ("errors", "providers"),
    "settings": ("config", "errors", "machine", "topology"),
    "documents": (),
    "specs": (),
    "stderr": (),
    "manifest": ("errors", "documents", "specs"),
    "images": GROUND,
    "text": GROUND,
    "runtime": GROUND,
    "models": (*GROUND, "images", "text", "runtime"),
    "serving": (*GROUND, "images", "text", "runtime", "models"),
    "search": (*GROUND, "images", "runtime", "models"),
    "bulk": (*GROUND, "images", "runtime", "models", "search"),
    "doctor": (*GROUND, "images", "runtime", "models", "search"),
    "server": (*GROUND, "images", "text", "runtime", "models", "serving", "search"),
    "cli": (*GROUND, "stderr", "doctor", "server", "bulk", "search"),
    "__main__": ("cli",),
    "embedding_model": (*GROUND, "images", "runtime", "models"),
    "__init__": ("embedding_model",),
}
#: The same within rooms that have rooms of their own; files that stand in them by themselves are named too.
ROOMS_OF: dict[str, dict[str, tuple[str, ...]]] = {
    "images": {
        "budget": (),
        "damage": (),
        "orientation": (),
        "region": (),
        "resize": (),
        "structure": (),
        "formats": ("structure",),
        "rgb": ("structure",),
        "open": ("formats", "region", "structure"),
        "agreement": ("resize",),
        "preprocess": ("resize", "agreement"),
        "decode": ("damage", "open", "orientation", "rgb", "structure"),
        "given": ("damage", "open", "orientation", "rgb"),
        "thumbnail": ("budget", "open", "decode"),
    },
    "serving": {
        "admission": (),
        "fairness": (),
        "flights": (),
        "history": (),
        "inference": (),
        "memory": (),
        "observer": (),
        "offer": (),
        "outcome": (),
        "prompts": (),
        "reminder": (),
        "shelf": (),
        "together": (),
        "cache": ("outcome",),
        "keys": ("prompts",),
        "pool": ("fairness",),
        "batcher": ("fairness", "observer"),
        "workshop": ("admission", "cache", "inference", "pool"),
        "engine": ("batcher", "flights", "keys", "observer", "outcome", "prompts", "reminder", "workshop"),
        "recall": ("engine", "flights", "keys", "observer", "outcome", "prompts", "together"),
        "visit": ("engine", "outcome", "prompts", "recall", "shelf", "together"),
        "stream": ("admission", "outcome", "visit"),
        "keeper": ("engine", "history", "offer", "shelf", "workshop"),
        "stock": ("engine", "history", "keeper", "observer", "offer", "shelf", "workshop"),
        "embedder": (
            "admission",
            "engine",
            "observer",
            "offer",
            "outcome",
            "prompts",
            "stock",
            "stream",
            "visit",
            "workshop",
        ),
    },
    "search": {
        "errors": (),
        "words": (),
        "facts": ("errors", "words"),
        "lines": ("errors", "words"),
        "exact": ("errors", "words"),
        "streamed": ("errors", "words", "exact"),
        "held": ("errors", "words", "lines", "exact", "streamed"),
        "rows": ("held",),
        "readers": ("errors", "words", "facts", "lines", "exact", "streamed", "held"),
        "opening": ("errors", "words", "facts", "streamed", "held", "readers"),
        "originals": ("errors", "words"),
        "maker": ("errors", "words"),
        "served": ("maker", "opening"),
        "query": (),
        "sheet": ("errors", "words"),
        "run": ("errors", "words", "readers", "opening", "originals", "maker", "query", "sheet"),
        "command": ("run",),
    },
    "server": {
        "allowance": (),
        "logs": (),
        "metrics": (),
        "indexed": (),
        "listening": (),
        "signals": (),
        "workers": ("listening", "signals"),
        "wire": (),
        "http": ("logs", "metrics", "wire"),
        "api": ("indexed", "metrics", "workers", "wire", "http"),
        "page": ("indexed", "wire", "http"),
        "app": ("allowance", "indexed", "metrics", "wire", "http", "api", "page"),
        "lifecycle": ("allowance", "listening", "logs", "signals", "workers", "wire", "http", "api", "app"),
    },
    "bulk": {
        "errors": (),
        "contract": (),
        "voice": (),
        "deadline": (),
        "records": (),
        "pause": (),
        "outage": ("errors", "pause"),
        "sources": ("errors", "contract", "records", "pause"),
        "stores": ("errors", "contract", "records", "outage"),
        "options": ("sources",),
        "prepare": ("errors", "deadline", "records"),
        "job": ("errors", "records", "prepare"),
        "report": ("errors", "voice", "records", "stores", "job"),
        "assembly": ("deadline", "records", "options", "prepare", "job"),
        "work": ("errors", "records"),
        "sinks": ("errors", "contract", "records", "outage", "stores", "options", "work"),
        "progress": ("voice", "records"),
        "delivery": ("errors", "records", "progress", "work"),
        "worker": ("errors", "voice", "deadline", "records", "stores", "options", "job", "assembly", "work"),
        "engines": ("errors", "records", "pause", "work", "worker"),
        "sharded": (
            *("errors", "voice", "records", "outage", "options", "progress", "work", "sinks", "delivery", "worker"),
            "engines",
        ),
        "run": (
            *("errors", "voice", "deadline", "records", "outage", "sources", "stores", "options", "job", "report"),
            "assembly",
        ),
        "tags": ("records", "stores", "run"),
        "command": ("errors", "voice", "sources", "options", "sharded", "run"),
        "classify": ("options", "run", "tags", "command"),
    },
}
#: Beside clipsrv: what stands on which of its rooms.
BESIDE = {"conversions": (*GROUND, "images", "text", "runtime", "models")}

#: Standard library that pure rooms and policies must not know.
PURE = (
    "errors",
    "processor",
    "machine",
    "topology",
    "providers",
    "config",
    "settings",
    "documents",
    "specs",
    "manifest",
    "text",
    "images/agreement",
    "images/damage",
    "images/decode",
    "images/formats",
    "images/open",
    "images/orientation",
    "images/preprocess",
    "images/region",
    "images/rgb",
    "images/structure",
)
NOT_PURE = {"asyncio", "threading", "socket", "subprocess", "logging"}
POLICIES = tuple(
    f"serving/{name}"
    for name in (
        "admission",
        "batcher",
        "fairness",
        "flights",
        "history",
        "inference",
        "pool",
        "reminder",
        "shelf",
        "together",
    )
)

every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def place(path: Path) -> tuple[str, ...]:
    """A file's way through the rooms of clipsrv: ("server", "wire", "forms")."""
    return path.relative_to(ROOT / "clipsrv").with_suffix("").parts


def room_of(where: tuple[str, ...]) -> str:
    """The room that a file stands in, by MAY_IMPORT."""
    inner = "/".join(where[:2])
    return inner if inner in MAY_IMPORT else where[0]


def imports(path: Path) -> Iterator[str]:
    """Every module a file names in an import statement, wherever it stands; never relative."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            for alias in node.names:
                # `from package import module` names a module, `from module import name` does not
                full = f"{node.module}.{alias.name}"
                is_module = any(
                    (ROOT / Path(*full.split("."))).with_suffix(end).exists() for end in (".py", ".pyi", "")
                )
                yield full if is_module else node.module


def ours(path: Path) -> Iterator[tuple[str, ...]]:
    """Places of clipsrv that a file imports; clipsrv itself is ("__init__",)."""
    for name in imports(path):
        if name.partition(".")[0] == "clipsrv":
            yield tuple(name.split(".")[1:]) or ("__init__",)


def test_every_file_has_a_room_and_every_room_a_file() -> None:
    assert {room_of(place(path)) for path in SOURCES} <= set(MAY_IMPORT)
    for room, rooms in ROOMS_OF.items():
        assert {place(path)[1] for path in SOURCES if place(path)[0] == room} - {"__init__"} == set(rooms)


@every_source
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    here = place(path)
    for there in ours(path):
        if there == ("__init__",):
            continue  # the version
        if room_of(there) == room_of(here):
            rooms = ROOMS_OF.get(here[0])
            compiled = there[-1].startswith("_")  # a part of the file that imports it
            if rooms and len(there) > 1 and there[1] != here[1] and not compiled:
                assert there[1] in rooms[here[1]], f"{here[0]}/{here[1]} may not import {'/'.join(there)}"
        else:
            assert room_of(there) in MAY_IMPORT[room_of(here)], f"{room_of(here)} may not import {'/'.join(there)}"


@pytest.mark.parametrize("package", BESIDE)
def test_what_stands_beside_clipsrv_stops_where_it_should(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        for there in ours(path):
            assert room_of(there) in {*BESIDE[package], "__init__"}, f"{path} imports {'/'.join(there)}"


@every_source
def test_a_file_imports_only_the_packages_of_its_room(path: Path) -> None:
    packages = {name.partition(".")[0] for name in imports(path)}
    assert not packages & NEVER
    for package, rooms in ONLY.items():
        assert package not in packages or room_of(place(path)) in rooms, f"{package} belongs to {sorted(rooms)}"
    where = "/".join(place(path))
    if where.startswith(PURE):
        assert not packages & NOT_PURE
    if where in POLICIES:
        assert not packages & {"numpy", "PIL", "aiohttp"}


@pytest.mark.parametrize("law", [MAY_IMPORT, *ROOMS_OF.values()], ids=["clipsrv", *ROOMS_OF])
def test_the_law_has_no_circle(law: dict[str, tuple[str, ...]]) -> None:
    order = list(law)
    for name, targets in law.items():
        assert all(order.index(target) < order.index(name) for target in targets), name


def test_no_two_files_of_a_room_import_one_another_in_a_circle() -> None:
    arrows = {place(path): set(ours(path)) - {("__init__",)} for path in SOURCES}
    TopologicalSorter(arrows).prepare()  # raises CycleError


@every_source
def test_no_file_outgrows_its_budget_and_each_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("package", ["conversions", "drills", "benchmarks"])
def test_programs_beside_clipsrv_keep_to_the_same_budget_and_have_no_circle(package: str) -> None:
    arrows = {}
    for path in (ROOT / package).rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 250, path
        arrows[".".join(path.relative_to(ROOT).with_suffix("").parts)] = set(imports(path))
    TopologicalSorter(arrows).prepare()


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in memory after a statement in a fresh process."""
    program = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    return set(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
    )


def test_the_server_runs_without_torch_transformers_and_optimum() -> None:
    loaded = loaded_by("import clipsrv.server.lifecycle, clipsrv.cli")
    assert "onnxruntime" in loaded
    assert not loaded & NEVER


def test_importing_clipsrv_brings_nothing_of_others_until_a_model_is_opened() -> None:
    heavy = {"numpy", "PIL", "onnxruntime", "tokenizers", "tqdm"}
    assert not loaded_by("import clipsrv") & (heavy | {"aiohttp", "asyncio"})
    assert heavy <= loaded_by("import clipsrv; clipsrv.load") - {"aiohttp", "orjson"}


@pytest.mark.parametrize("command", [[], ["doctor"], ["embed"], ["classify"], ["search"]], ids=str)
def test_help_is_instant(command: list[str]) -> None:
    program = f"import clipsrv.cli\ntry: clipsrv.cli.main([*{command}, '--help'])\nexcept SystemExit: pass"
    assert not loaded_by(program) & {"numpy", "PIL", "onnxruntime", "aiohttp", "tokenizers", "orjson", "multipart"}
