"""Indexes as embed writes them, by its own writers, of images that a test has at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from clipsrv.bulk.records import Row, Shard
from clipsrv.bulk.stores.lance import LanceStore
from clipsrv.bulk.stores.outputs import writer_for
from clipsrv.models.model import Model
from clipsrv.search.facts import beside
from clipsrv.settings import ImageLimits


def write_index(out: Path, model: Model, images: Mapping[str, bytes], /, **facts: object) -> Path:
    """An index of `images` by their paths, made by `model`; its manifest, written last, has `facts` in place of its
    own."""
    rows = [Row(path, path, hashlib.sha256(blob).hexdigest()) for path, blob in images.items()]
    pixels = np.stack([model.read_image(blob, ImageLimits()) for blob in images.values()])
    vectors = model.image_encoder.embed(pixels)
    told = {
        "model": model.manifest.name,
        "embedding_id": model.embedding_id,
        "dimensions": model.manifest.dimensions,
        "rows": len(rows),
        **facts,
    }
    if out.suffix == ".lance":
        with closing(LanceStore(out, told, list(images), prune=True)) as store:
            store.write(Shard(0, rows, vectors))
            store.finish()
        return out
    writer_for(out)(out, lambda: [Shard(0, rows, vectors)], len(rows), told)
    manifest = beside(out, "manifest.json")
    manifest.with_suffix(".new").write_text(json.dumps(told), encoding="utf-8")
    manifest.with_suffix(".new").replace(manifest)
    return out
