"""Text search over held-out drawings through a running server: `python -m conversions.demo.through_http URL`.

What a user would do: post images to /embed/batch and words to /embed/text, and sort by the dot product.
"""

import argparse
import json
import urllib.request
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from conversions.demo.augment import on_white
from conversions.demo.images import load_images
from conversions.demo.names import LANGUAGES, load_emoji
from conversions.demo.sources import HELD_OUT, fetch

BATCH = 50


def main() -> None:
    """Prints, for some names of each language, the five nearest drawings, and how often the right one is near."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="address of a server of the demo model, such as http://127.0.0.1:5000")
    parser.add_argument("--cache", type=Path, default=Path("build/demo"), help="folder for packages and drawings")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    modules = fetch(arguments.cache / "npm")
    emoji = load_emoji(modules)
    drawn = load_images(modules, arguments.cache, emoji)
    for vendor in HELD_OUT:
        unseen = drawn.of(vendor)
        chosen = np.random.default_rng(arguments.seed).choice(len(unseen.emoji), arguments.images, replace=False)
        drawings = on_white(torch.from_numpy(unseen.rgba[chosen])).permute(0, 2, 3, 1).numpy()
        found = embed_images(arguments.url, [png(drawing) for drawing in drawings])
        owners = unseen.emoji[chosen]
        for language in LANGUAGES:
            names = [emoji[index].words[language].label for index in owners]
            show(f"{language}, {vendor}", names, owners, embed_texts(arguments.url, names) @ found.T)


def show(title: str, names: list[str], owners: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
    """Prints the five best of every twentieth search, and recall. `scores` (names, drawings), both of `owners`."""
    order = np.argsort(-scores, axis=1)
    for row in range(0, len(names), max(1, len(names) // 20)):
        print(f"{names[row]:32} {', '.join(names[column] for column in order[row, :5])}")
    places = [int(np.flatnonzero(owners[order[row]] == owners[row])[0]) for row in range(len(names))]
    recalls = (f"R@{k} {np.mean([place < k for place in places]):.1%}" for k in (1, 10))
    print(f"{title}, {len(names)} drawings it has never seen: {', '.join(recalls)}")


def png(pixels: NDArray[np.uint8]) -> bytes:
    """One drawing, uint8 (side, side, 3), as a PNG file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def embed_images(url: str, blobs: list[bytes]) -> NDArray[np.float32]:
    """Unit vectors (n, dimensions) of encoded images, by multipart requests of at most BATCH."""
    edge = "demo-drawings"
    rows = []
    for start in range(0, len(blobs), BATCH):
        head = f'--{edge}\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'.encode()
        body = b"".join(head + blob + b"\r\n" for blob in blobs[start : start + BATCH]) + f"--{edge}--\r\n".encode()
        rows += post(f"{url}/embed/batch", body, f"multipart/form-data; boundary={edge}")["embeddings"]
    return np.array(rows, np.float32)


def embed_texts(url: str, texts: list[str]) -> NDArray[np.float32]:
    """Unit vectors (n, dimensions) of texts."""
    rows = []
    for start in range(0, len(texts), BATCH):
        body = json.dumps({"texts": texts[start : start + BATCH]}).encode()
        rows += post(f"{url}/embed/text", body, "application/json")["embeddings"]
    return np.array(rows, np.float32)


def post(url: str, body: bytes, kind: str) -> dict[str, list[list[float]]]:
    """The server's JSON answer. Raises urllib.error.HTTPError."""
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": kind})) as answer:
        document: dict[str, list[list[float]]] = json.load(answer)
    return document


if __name__ == "__main__":
    main()
