"""What open_clip itself makes of small models with weights that anybody can make again: vectors, ids, pixels.

The converter does without open_clip, so this runs in an environment of its own, from the repository:

    pip install open_clip_torch==3.3.0 torch==2.13.0 torchvision==0.28.0 transformers==4.57.6
    pip install sentencepiece protobuf pillow==13.0.0
    python -m tests.golden.open_clip tests/golden

It rewrites open_clip.json: of a SigLIP of timm and of a ViT beside XLM-RoBERTa the configuration, the shapes of the
weights, ids of the golden texts, and vectors of a few images and texts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests.golden.images import digest
from tests.golden.texts import GOLDEN, filled, save_tokenizers, strings

WIDTH = 128
#: Shapes of both kinds, small and large, upright and not; and texts of several scripts.
IMAGES = ("size-odd.jpg", "size-portrait.jpg", "size-banner.jpg", "size-one-more.jpg", "size-tower.jpg", "mode-L.png")
TEXTS = tuple(range(0, 500, 41))
SIGLIP = {
    "model_cfg": {
        "embed_dim": WIDTH,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 64,
            "timm_model_name": "vit_base_patch16_siglip_64",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 64,
            "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": WIDTH,
            "heads": 2,
            "layers": 2,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
        },
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
}
ROBERTA = {
    "model_cfg": {
        "embed_dim": 96,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": WIDTH, "patch_size": 16},
        "text_cfg": {
            "hf_model_name": "xlm-roberta-base",
            "hf_tokenizer_name": "xlm-roberta-base",
            "hf_pooler_type": "mean_pooler",
        },
    },
    "preprocess_cfg": {},
}


def without_compiled_torchvision() -> None:
    """Lets torchvision be imported beside a PyTorch that its compiled operators were not built for: none is used."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    without_compiled_torchvision.library = library  # type: ignore[attr-defined]  # it ends with its object


def describe(kind: str, config: Any, scratch: Path) -> dict[str, Any]:
    """One golden entry: builds the model of `config`, fills it, and asks it."""
    import open_clip
    from open_clip.model import CustomTextCLIP
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
    from timm.models import register_model
    from timm.models.vision_transformer import VisionTransformer
    from transformers import XLMRobertaConfig

    def vit_base_patch16_siglip_64(pretrained: bool = False, **options: Any) -> Any:
        sizes = {"img_size": 64, "patch_size": 16, "embed_dim": WIDTH, "depth": 2, "num_heads": 2}
        return VisionTransformer(**sizes, class_token=False, global_pool="map", num_classes=0)

    register_model(vit_base_patch16_siglip_64)
    tokenizer_folder = scratch / kind
    text = dict(config["model_cfg"]["text_cfg"])
    clean = text.get("tokenizer_kwargs", {}).get("clean", "whitespace")
    tokenizer = open_clip.tokenizer.HFTokenizer(
        str(tokenizer_folder), context_length=text.get("context_length", 77), clean=clean
    )
    if kind == "siglip":
        text["vocab_size"] = config["model_cfg"]["text_cfg"]["vocab_size"] = len(tokenizer.tokenizer)
    else:
        small = XLMRobertaConfig(
            vocab_size=len(tokenizer.tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=2 * WIDTH,
            max_position_embeddings=130,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        )
        small.save_pretrained(scratch / "small-roberta")
        text |= {"hf_model_name": str(scratch / "small-roberta"), "hf_model_pretrained": False}
    whole = {**config["model_cfg"], "text_cfg": text}
    whole.pop("custom_text", None)
    model = CustomTextCLIP(**whole).eval()
    state = {name: value for name, value in model.state_dict().items() if "position_ids" not in name}
    shapes = {name: list(value.shape) for name, value in state.items()}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in filled(shapes).items()}, strict=False)
    steps = merge_preprocess_dict(PreprocessCfg(size=64), config["preprocess_cfg"])
    transform = image_transform_v2(PreprocessCfg(**steps), is_train=False)
    opened = [Image.open(GOLDEN / "preprocess" / name).convert("RGB") for name in IMAGES]
    pixels = torch.stack([transform(image) for image in opened])
    ids = tokenizer(strings())
    with torch.inference_mode():
        images = model.encode_image(pixels, normalize=True)
        texts = model.encode_text(ids[list(TEXTS)], normalize=True)
    return {
        "config": config,
        "shapes": shapes,
        "pixels": [digest(one.numpy().astype("<f4")) for one in pixels],
        "ids": ids.tolist(),
        "images": [[round(value, 8) for value in row] for row in images.tolist()],
        "texts": [[round(value, 8) for value in row] for row in texts.tolist()],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden.open_clip", description=__doc__.splitlines()[0])
    parser.add_argument("golden", type=Path, help="tests/golden")
    options = parser.parse_args(arguments)
    without_compiled_torchvision()
    with tempfile.TemporaryDirectory() as scratch:
        save_tokenizers(Path(scratch))
        entries = {
            kind: describe(kind, config, Path(scratch)) for kind, config in (("siglip", SIGLIP), ("roberta", ROBERTA))
        }
    packages = ("open_clip_torch", "timm", "torchvision", "transformers", "ftfy", "pillow", "torch")
    made_with = {name: version(name) for name in packages}
    document = {"made_with": made_with, "image_names": IMAGES, "text_places": TEXTS, **entries}
    text = json.dumps(document, separators=(",", ":"))
    (options.golden / "open_clip.json").write_text(text.replace("],[", "],\n[") + "\n", encoding="utf-8")
    print({kind: len(entry["shapes"]) for kind, entry in entries.items()}, len(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
