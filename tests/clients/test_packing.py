"""The TypeScript client as a package: what scripts/pack-client makes works in an empty project."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.server import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import { readFile } from 'node:fs/promises';
import { ClipClient } from 'clipsrv-client';
import { FormData } from 'clipsrv-client/form-data';

const client = new ClipClient({ baseUrl: process.argv[2] });
console.log((await client.embedImage(await readFile(process.argv[3]))).length, typeof new FormData().append);
"""


@pytest.fixture(scope="module")
def package(npm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    done = subprocess.run([ROOT / "scripts/pack-client", folder], capture_output=True, text=True, check=True)
    path = Path(done.stdout.removesuffix("\n"))
    assert path.parent == folder
    return path


def test_it_holds_what_is_imported_its_types_its_source_and_its_licence(package: Path) -> None:
    with tarfile.open(package) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    modules = {path.stem for path in (ROOT / "clients/typescript/src").glob("*.ts")}
    wanted = {f"dist/{name}{end}" for name in modules for end in (".js", ".d.ts", ".js.map")}
    assert names == {"package.json", "README.md", "LICENSE", *wanted, *(f"src/{name}.ts" for name in modules)}


def test_it_is_installed_in_an_empty_project_and_asks_a_server(
    package: Path, npm: str, server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "package.json").write_text(json.dumps({"name": "shop", "private": True}), encoding="utf-8")
    (tmp_path / "program.mjs").write_text(PROGRAM, encoding="utf-8")
    subprocess.run([npm, "install", "--offline", "--no-audit", "--silent", package], cwd=tmp_path, check=True)
    command = ["node", "program.mjs", server.url, str(ROOT / "examples/star.png")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("64 function\n", "")
