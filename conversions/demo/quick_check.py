"""A recall figure while training runs: names against drawings of a held-out vendor, at the training size."""

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPTokenizerFast

from conversions.demo.augment import SIZE, on_white
from conversions.demo.images import Images
from conversions.demo.model import Towers, normalise
from conversions.demo.names import LANGUAGES, Emoji
from conversions.demo.recall import search


@torch.no_grad()
def quick_check(towers: Towers, tokenizer: CLIPTokenizerFast, emoji: list[Emoji], unseen: Images) -> str:
    """One line: text-to-image recall at 1 and 10 over all `unseen` drawings on white, for each language."""
    vectors = []
    for part in torch.split(torch.from_numpy(unseen.rgba), 256):
        page = on_white(part).float() / 255
        small = F.interpolate(page, size=(SIZE, SIZE), mode="bicubic", antialias=True, align_corners=False)
        vectors.append(towers.images(normalise(small.clamp(0, 1))))
    gallery = torch.cat(vectors).numpy()
    shown = []
    for language in LANGUAGES:
        ids = tokenizer([one.words[language].label for one in emoji], padding=True, return_tensors="pt")["input_ids"]
        texts = torch.cat([towers.texts(part) for part in torch.split(ids, 256)])
        found = search(texts.numpy(), np.arange(len(emoji)), gallery, unseen.emoji)
        shown.append(f"{language} R@1 {found.at_1:.3f} R@10 {found.at_10:.3f}")
    return ", ".join(shown)
