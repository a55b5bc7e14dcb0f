"""The design of the self-hosting guide taken literally, Flask + PyTorch + transformers: the baseline of every ratio.

    python -m benchmarks.flask_baseline CHECKPOINT PORT [DEVICE]

CHECKPOINT is a local folder in Hugging Face's layout, DEVICE PyTorch's word for where to compute (default cpu).
"""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

import torch
from flask import Flask, Response, jsonify, request
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
from werkzeug.datastructures import FileStorage


def build_app(checkpoint: str, device: str = "cpu") -> Flask:
    """An app with the guide's /embed, /embed/batch, /embed/text and /health."""
    model: Any = AutoModel.from_pretrained(checkpoint).eval().to(device)
    processor: Any = AutoImageProcessor.from_pretrained(checkpoint, use_fast=False)
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    # SigLIP pools the last position, so that its texts are as long as its context; CLIP's only as the longest of them.
    siglip = model.config.model_type.startswith("siglip")
    filling = {"padding": "max_length" if siglip else True, "max_length": 64 if siglip else 77, "truncation": True}
    app = Flask(__name__)

    def images_to_vectors(files: list[FileStorage]) -> list[list[float]]:
        images = [Image.open(BytesIO(file.read())).convert("RGB") for file in files]
        with torch.no_grad():
            return unit(model.get_image_features(**processor(images=images, return_tensors="pt").to(device)))

    def texts_to_vectors(texts: list[str]) -> list[list[float]]:
        with torch.no_grad():
            return unit(model.get_text_features(**tokenizer(texts, return_tensors="pt", **filling).to(device)))

    @app.post("/embed")
    def embed() -> Response:
        return one(images_to_vectors([request.files["image"]]))

    @app.post("/embed/batch")
    def embed_batch() -> Response:
        return many(images_to_vectors(request.files.getlist("images")))

    @app.post("/embed/text")
    def embed_text() -> Response:
        asked: Any = request.get_json()
        return many(texts_to_vectors(asked["texts"])) if "texts" in asked else one(texts_to_vectors([asked["text"]]))

    @app.get("/health")
    def health() -> Response:
        return jsonify({"status": "healthy"})

    return app


def unit(features: torch.Tensor) -> list[list[float]]:
    return (features / features.norm(dim=-1, keepdim=True)).tolist()


def one(vectors: list[list[float]]) -> Response:
    return jsonify({"embedding": vectors[0], "dimensions": len(vectors[0]), "model": "baseline"})


def many(vectors: list[list[float]]) -> Response:
    return jsonify({"embeddings": vectors, "count": len(vectors), "dimensions": len(vectors[0])})


if __name__ == "__main__":
    build_app(sys.argv[1], *sys.argv[3:]).run(port=int(sys.argv[2]), threaded=True)
