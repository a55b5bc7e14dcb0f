"""The catalogue job: its own suite against this checkout's server and a real PostgreSQL, and its package."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.gpu.unpack import extract
from clipsrv.bulk.contract import COLUMNS

ROOT = Path(__file__).resolve().parents[2]


#: What scripts/generate-embeddings-from-catalog.ts is, of the compiled job.
PROGRAM = "import { main } from './main.js';\nprocess.exitCode = await main(process.argv.slice(2), process.env);\n"


@pytest.mark.timeout(900)
def test_the_jobs_suite_passes_against_the_real_server_and_database(run_suite: Callable[..., None], npm: str) -> None:
    compiled = ROOT / "clients" / "catalogue" / "dist"
    shutil.rmtree(compiled, ignore_errors=True)
    project = "clients/catalogue/tsconfig.compiled.json"
    subprocess.run([npm, "exec", "--", "tsc", "--project", project, "--noCheck"], cwd=ROOT, check=True)
    (compiled / "program.js").write_text(PROGRAM, encoding="utf-8")
    run_suite("clients/catalogue", CLIPSRV_TEST_CATALOGUE=str(compiled / "program.js"))


def test_the_package_carries_the_file_that_both_jobs_read(npm: str, tmp_path: Path) -> None:
    own = ROOT / "clipsrv" / "bulk" / "contract.json"
    command = [npm, "pack", "--workspace", "clients/catalogue", "--pack-destination", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        extract(archive, tmp_path)
    assert (tmp_path / "package" / "contract.json").read_bytes() == own.read_bytes()
    assert not (ROOT / "clients" / "catalogue" / "contract.json").exists()
    program = "import { COLUMNS } from './src/contract.ts'; console.log(Object.keys(COLUMNS).join())"
    ran = subprocess.run(
        [
            "node",
            "--import",
            (ROOT / "node_modules/tsx/dist/loader.mjs").as_uri(),
            "--input-type=module",
            "-e",
            program,
        ],
        cwd=tmp_path / "package",
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip().split(",") == list(COLUMNS)
