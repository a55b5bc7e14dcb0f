"""scripts/try-clients: OpenAI's clients, and those that speak as they do, against the real server of the demo model.

Each through its public API: texts, images, both in one list, 2,048 texts in one request, a model that is not served.
Every vector is compared with the one that the guide's endpoints give. Prints the table of docs/clients.md; exit status
1 if something is not as promised. The programs run in environments of their own, pinned, which the script makes.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.photos import drawn
from tests.support.server import ServerProcess

HERE = Path(__file__).parent
PYTHON = HERE / ".venv" / "bin" / "python"
MODEL, ALIAS = "demo", "text-embedding-3-small"
CASES = {
    "texts": "texts",
    "images": "images",
    "mixed": "both in one list",
    "many": "2,048 texts",
    "unknown": "an unknown model",
}
TEXTS = ["a red heart", "a blue circle", "", "赤いハート"]


def asked(url: str, path: str, body: Any) -> Any:
    """The vectors of one of the guide's endpoints."""
    head = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url + path, json.dumps(body).encode(), head)) as answer:
        return json.load(answer)["embeddings"]


def job_of(url: str, folder: Path) -> dict[str, Any]:
    """What the programs are to ask, and the vectors they must get."""
    blobs = [drawn(seed) for seed in range(4)]
    paths = [folder / f"{place}.png" for place in range(len(blobs))]
    for path, blob in zip(paths, blobs, strict=True):
        path.write_bytes(blob)
    encoded = [base64.b64encode(blob).decode() for blob in blobs]
    uris = [f"data:image/png;base64,{one}" for one in encoded]
    texts, images = asked(url, "/embed/text", {"texts": TEXTS}), asked(url, "/embed/batch", {"images": encoded})
    several = [f"{number} red hearts" for number in range(2048)]
    return {
        "v1": f"{url}/v1",
        "model": ALIAS,
        "paths": [str(path) for path in paths],
        "cases": {
            "texts": [TEXTS, texts],
            "images": [uris, images],
            "mixed": [
                [item for pair in zip(TEXTS, uris, strict=True) for item in pair],
                [row for pair in zip(texts, images, strict=True) for row in pair],
            ],
            "many": [several, asked(url, "/embed/text", {"texts": several})],
        },
    }


def results(command: list[str]) -> list[dict[str, Any]]:
    """What a program says of each client. Raises CalledProcessError."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"client"')]


def main() -> int:
    if sys.argv[1:]:
        print(__doc__)
        return 0 if sys.argv[1:] == ["--help"] else 2
    server = ServerProcess("--model", MODEL, "--device", "cpu", "--port", 0, "--alias", f"{ALIAS}={MODEL}").ready()
    try:
        with TemporaryDirectory() as folder:
            job = Path(folder) / "job.json"
            job.write_text(json.dumps(job_of(server.url, Path(folder))), encoding="utf-8")
            rows = results([str(PYTHON), str(HERE / "asking.py"), str(job)])
            rows += results(["node", str(HERE / "asking.mjs"), str(job)])
    finally:
        server.close()
    print(f"| client | version | {' | '.join(CASES.values())} |\n|---|---|{'---|' * len(CASES)}")
    wrong = []
    for row in rows:
        found = [row["results"].get(case) for case in CASES]
        wrong += [f"{row['client']}, {case}: {said}" for case, said in row["results"].items() if said != "yes"]
        cells = ["no such call" if said is None else "yes" if said == "yes" else "no" for said in found]
        print(f"| {row['client']} | {row['version']} | {' | '.join(cells)} |")
    print("\n" + ("\n".join(wrong) if wrong else "everything as promised"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
