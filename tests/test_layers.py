"""Every arrow of the house points one way: who may import whom, read from the source, and proven in a process."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "clipsrv").rglob("*.py"))

#: Packages that only some files may import: design.md's house.
ONLY = {
    "onnxruntime": {"session", "encoder", "doctor"},
    "aiohttp": {"server"},
    "multipart": {"server"},
    "orjson": {"server", "bulk"},
    "PIL": {"image", "preprocess", "resize"},
    "tokenizers": {"tokenizer"},
    "tqdm": {"bulk"},
    "pyarrow": {"bulk"},
    "psycopg": {"bulk"},
}
#: What never runs in the server at all.
NEVER = {"torch", "transformers", "optimum", "onnx", "conversions", "tests", "requests", "urllib3", "httpx"}

#: Lower layers first; a module of clipsrv imports only from the rows above its own (or what its own row allows).
MAY_IMPORT: dict[str, set[str]] = {
    "_resize": set(),
    "errors": set(),
    "observer": set(),
    "machine": set(),
    "fairness": set(),
    "budget": set(),
    "embeddings": set(),
    "config": {"errors"},
    "manifest": {"errors"},
    "admission": {"errors"},
    "batcher": {"errors", "fairness", "observer"},
    "decoding": {"errors", "fairness"},
    "signatures": {"errors"},
    "image": {"errors", "signatures"},
    "memory": {"config", "image", "machine"},
    "resize": {"_resize"},
    "preprocess": {"manifest", "resize"},
    "tokenizer": {"errors"},
    "session": {"errors", "manifest"},
    "encoder": {"errors", "manifest"},
    "model": {"budget", "encoder", "errors", "image", "machine", "manifest", "preprocess", "session", "tokenizer"},
    "engine": {"batcher", "embeddings", "encoder", "errors", "model", "observer", "tokenizer"},
    "embedder": {
        *("admission", "batcher", "budget", "decoding", "embeddings", "encoder", "engine", "errors", "image"),
        *("model", "observer", "tokenizer"),
    },
}
#: Standard library that the pure modules and the policies must not know.
PURE = {
    "image",
    "preprocess",
    "resize",
    "signatures",
    "tokenizer",
    "embeddings",
    "manifest",
    "errors",
    "config",
    "machine",
    "fairness",
}
NOT_PURE = {"asyncio", "threading", "socket", "subprocess", "logging"}
POLICIES = {"batcher", "admission", "fairness"}


def room(path: Path) -> str:
    """The module's name in clipsrv, or the package it is in: server, bulk."""
    parts = path.relative_to(ROOT / "clipsrv").with_suffix("").parts
    return parts[0]


def imports(path: Path) -> Iterator[str]:
    """Every module a file names in an import statement, wherever it stands; never relative."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            yield node.module
            if node.module in {"clipsrv", "clipsrv.server", "clipsrv.bulk"}:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(path: Path) -> set[str]:
    """Rooms of clipsrv that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("clipsrv.")} - {room(path), "__version__"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    packages = {name.partition(".")[0] for name in imports(path)}
    assert not packages & NEVER
    for package, rooms in ONLY.items():
        assert package not in packages or room(path) in rooms, f"{package} belongs to {sorted(rooms)}"
    if room(path) in PURE:
        assert not packages & NOT_PURE
    if room(path) in POLICIES:
        assert not packages & {"numpy", "PIL", "aiohttp"}
    if room(path) in MAY_IMPORT:
        assert own(path) <= MAY_IMPORT[room(path)]
    if room(path) not in {"server", "cli", "__main__"}:
        assert "server" not in own(path), "nothing below knows of HTTP"


def test_every_module_has_a_place_in_the_house() -> None:
    assert {room(path) for path in SOURCES} <= {*MAY_IMPORT, "server", "bulk", "cli", "doctor", "__main__", "__init__"}


def test_the_arrows_make_no_circle() -> None:
    order = list(MAY_IMPORT)
    for name, targets in MAY_IMPORT.items():
        assert all(order.index(target) < order.index(name) for target in targets)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_outgrows_its_budget_and_each_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    assert ast.get_docstring(ast.parse(text))


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


def test_help_is_instant() -> None:
    program = "import clipsrv.cli\ntry: clipsrv.cli.main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_by(program) & {"numpy", "PIL", "onnxruntime", "aiohttp", "tokenizers", "orjson", "multipart"}
