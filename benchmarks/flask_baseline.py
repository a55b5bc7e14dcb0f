"""The design of the self-hosting guide taken literally, Flask + PyTorch + transformers: the baseline of every ratio.

    python -m benchmarks.flask_baseline CHECKPOINT PORT

CHECKPOINT is a local folder in Hugging Face's layout.
"""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

import torch
from flask import Flask, Response, jsonify, request
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection
from werkzeug.datastructures import FileStorage


def build_app(checkpoint: str) -> Flask:
    """An app with the guide's /embed, /embed/batch and /health."""
    model = CLIPVisionModelWithProjection.from_pretrained(checkpoint).eval()
    processor = CLIPImageProcessor.from_pretrained(checkpoint)
    app = Flask(__name__)

    def vectors(files: list[FileStorage]) -> list[list[float]]:
        images = [Image.open(BytesIO(file.read())).convert("RGB") for file in files]
        inputs: Any = processor(images=images, return_tensors="pt")
        with torch.no_grad():
            features = model(**inputs).image_embeds
            features = features / features.norm(dim=-1, keepdim=True)
        return [row.tolist() for row in features]

    @app.post("/embed")
    def embed() -> Response:
        (vector,) = vectors([request.files["image"]])
        return jsonify({"embedding": vector, "dimensions": len(vector), "model": "baseline"})

    @app.post("/embed/batch")
    def embed_batch() -> Response:
        found = vectors(request.files.getlist("images"))
        return jsonify({"embeddings": found, "count": len(found), "dimensions": len(found[0])})

    @app.get("/health")
    def health() -> Response:
        return jsonify({"status": "healthy"})

    return app


if __name__ == "__main__":
    build_app(sys.argv[1]).run(port=int(sys.argv[2]), threaded=True)
