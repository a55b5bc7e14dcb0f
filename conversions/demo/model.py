"""The demo model: an ordinary `CLIPModel` of about 3.7 million parameters, and how it is trained cheaply.

Training sees 112 px images with 16 px patches. `full_size` then doubles each patch kernel and quarters it:
on a 224 px image that is the same as averaging 2 x 2 pixels first, so nothing is lost and a batch costs
a quarter in pixels.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

DIMENSION = 192
VOCABULARY = 2048
PATCHES = "vision_model.embeddings.patch_embedding.weight"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def configuration(vocabulary: int, *, image_size: int) -> CLIPConfig:
    """CLIP's configuration for 7 x 7 patches at 112 or 224 px.

    The end-of-text token is the last id, so both ways transformers pools text (the highest id, as when
    `eos_token_id` is 2, and the first `eos_token_id`) find the same place.
    """
    vision = {
        "hidden_size": 192,
        "intermediate_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "image_size": image_size,
        "patch_size": image_size // 7,
    }
    text = {
        "hidden_size": 192,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "vocab_size": vocabulary,
        "max_position_embeddings": 77,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    shared = {"hidden_act": "quick_gelu", "projection_dim": DIMENSION}
    return CLIPConfig(vision_config={**vision, **shared}, text_config={**text, **shared}, projection_dim=DIMENSION)


def training_model(vocabulary: int, seed: int) -> CLIPModel:
    """A fresh model for 112 px images, the same for the same seed."""
    torch.manual_seed(seed)
    config = configuration(vocabulary, image_size=112)
    # Written-out attention trains faster here than the fused kernel, whose backward pass is slow on a CPU.
    config._attn_implementation = "eager"
    return CLIPModel(config)


def full_size(model: CLIPModel) -> CLIPModel:
    """The same model for 224 px images with 32 px patches, without what only training needs."""
    config = configuration(model.config.text_config.vocab_size, image_size=224)
    grown = CLIPModel(config)
    weights = {name: value.detach().float().clone() for name, value in model.state_dict().items()}
    weights[PATCHES] = weights[PATCHES].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) / 4
    grown.load_state_dict(weights)
    grown.train(False)
    return grown


def training_size(folder: Path) -> CLIPModel:
    """A saved full-size checkpoint as a model to train on: the inverse of `full_size`, exact."""
    saved = CLIPModel.from_pretrained(folder)
    model = training_model(saved.config.text_config.vocab_size, seed=0)
    weights = saved.state_dict()
    weights[PATCHES] = F.avg_pool2d(weights[PATCHES], 2) * 4
    model.load_state_dict(weights)
    return model


def image_processor() -> CLIPImageProcessor:
    """The preprocessing of openai/clip-vit-base-patch32."""
    return CLIPImageProcessor(
        do_resize=True,
        size={"shortest_edge": 224},
        resample=Image.Resampling.BICUBIC,
        do_center_crop=True,
        crop_size={"height": 224, "width": 224},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(MEAN),
        image_std=list(STD),
        do_convert_rgb=True,
    )


def save(model: CLIPModel, tokenizer: CLIPTokenizerFast, folder: Path) -> None:
    """Writes a complete Hugging Face checkpoint of the full-size model."""
    full_size(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)


def normalise(image: Tensor) -> Tensor:
    """Images float (n, 3, side, side) in 0..1 to what the vision tower takes."""
    return (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@dataclass(frozen=True)
class Towers:
    """The two towers as plain functions to unit vectors; `model` stays the owner of the weights."""

    model: CLIPModel

    def images(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Normalised pixels (n, 3, s, s) to unit vectors (n, 192).

        `keep`, int64 (n, k), names the patches that are looked at; the others are dropped, which makes
        training faster and the model less dependent on any one part.
        """
        vision = self.model.vision_model
        embeddings = vision.embeddings
        # As CLIPVisionEmbeddings does, but patch by patch: what is dropped is never multiplied.
        kernel = embeddings.patch_embedding.weight
        count, side = len(pixels), kernel.shape[-1]
        across = pixels.shape[-1] // side
        patches = pixels.view(count, 3, across, side, across, side).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        places = embeddings.position_embedding.weight
        own = places[1:].expand(count, -1, -1)
        if keep is not None:
            patches, own = (rows.gather(1, keep[:, :, None].expand(-1, -1, rows.shape[2])) for rows in (patches, own))
        looked_at = F.linear(patches, kernel.flatten(1)).float() + own
        first = (embeddings.class_embedding + places[0]).expand(count, 1, -1)
        tokens = torch.cat([first, looked_at], dim=1)
        hidden = vision.encoder(inputs_embeds=vision.pre_layrnorm(tokens)).last_hidden_state
        pooled = vision.post_layernorm(hidden[:, 0])
        return F.normalize(self.model.visual_projection(pooled).float(), dim=-1)

    def texts(self, ids: Tensor) -> Tensor:
        """Token ids int64 (n, length), padded with the end-of-text token, to unit vectors (n, 192)."""
        return F.normalize(self.model.get_text_features(input_ids=ids).float(), dim=-1)


class Proxies(nn.Module):
    """One learnt unit vector for each emoji, a meeting point for its images and phrases; left behind after."""

    def __init__(self, beginning: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(beginning)

    def forward(self) -> Tensor:
        """Unit vectors (count, 192)."""
        return F.normalize(self.weight, dim=-1)
