"""Recall of a finished checkpoint on the vendors it has never seen: `python -m conversions.demo.evaluate FOLDER`.

Uses the checkpoint as any user of transformers would: its own preprocessing at 224 px and its own tokenizer.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

from conversions.demo.augment import augment, on_white
from conversions.demo.images import Images, load_images
from conversions.demo.model import full_size, training_model
from conversions.demo.names import ENGLISH, JAPANESE, Emoji, load_emoji
from conversions.demo.recall import Recall, search
from conversions.demo.sources import HELD_OUT, fetch

# The 64 px set is the only Noto set with flags.
SEEN = ("noto-64px", "twemoji")
FEW, DRAWS = 70, 50
#: How each language is called, and a sentence in it.
SENTENCES = {ENGLISH: ("English", "a photo of a {}"), JAPANESE: ("Japanese", "{}の写真")}


class Checkpoint:
    """A checkpoint folder, or an untrained model of the same shape, as functions to unit vectors."""

    def __init__(self, folder: Path, *, trained: bool = True) -> None:
        self.processor = CLIPImageProcessor.from_pretrained(folder)
        self.tokenizer = CLIPTokenizerFast.from_pretrained(folder)
        fresh = full_size(training_model(len(self.tokenizer), seed=0))
        self.model = CLIPModel.from_pretrained(folder).eval() if trained else fresh

    @torch.no_grad()
    def images(self, pixels: Tensor) -> NDArray[np.float32]:
        """Images uint8 (n, 3, side, side) to unit vectors (n, 192)."""
        vectors = []
        for part in torch.split(pixels.permute(0, 2, 3, 1), 64):
            opened = [Image.fromarray(one.numpy()) for one in part]
            pixels = self.processor(opened, return_tensors="pt")["pixel_values"]
            vectors.append(F.normalize(self.model.get_image_features(pixel_values=pixels), dim=-1))
        return np.asarray(torch.cat(vectors).numpy())

    @torch.no_grad()
    def texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Texts to unit vectors (n, 192)."""
        vectors = []
        for start in range(0, len(texts), 256):
            batch = self.tokenizer(texts[start : start + 256], padding=True, truncation=True, return_tensors="pt")
            vectors.append(F.normalize(self.model.get_text_features(**batch), dim=-1))
        return np.asarray(torch.cat(vectors).numpy())


def recalls(checkpoint: Checkpoint, emoji: list[Emoji], images: Images) -> dict[str, Recall]:
    """All searches of the recall table, by what is searched for and where."""
    found: dict[str, Recall] = {}
    for vendor in HELD_OUT:
        unseen = images.of(vendor)
        rgba = torch.from_numpy(unseen.rgba)
        clean = checkpoint.images(on_white(rgba))
        taken = augment(rgba, torch.Generator().manual_seed(0))
        disturbed = checkpoint.images((taken * 255).round().to(torch.uint8))
        found |= _by_text(checkpoint, emoji, vendor, unseen.emoji, clean, disturbed)
        for other in SEEN:
            seen = images.of(other)
            gallery = checkpoint.images(on_white(torch.from_numpy(seen.rgba)))
            for kind, queries in ((vendor, clean), (f"{vendor}, disturbed,", disturbed)):
                found[f"image of {kind} to image of {other}"] = search(queries, unseen.emoji, gallery, seen.emoji)
    return found


def _by_text(
    checkpoint: Checkpoint,
    emoji: list[Emoji],
    vendor: str,
    owners: NDArray[np.int64],
    clean: NDArray[np.float32],
    disturbed: NDArray[np.float32],
) -> dict[str, Recall]:
    labels = np.arange(len(emoji))
    found = {}
    for language, (title, sentence) in SENTENCES.items():
        labelled = [one.words[language].label for one in emoji]
        names, sentences = checkpoint.texts(labelled), checkpoint.texts([sentence.format(name) for name in labelled])
        found[f"{title} name to {vendor}"] = search(names, labels, clean, owners)
        found[f"{title}, '{sentence.format('NAME')}' to {vendor}"] = search(sentences, labels, clean, owners)
        found[f"{title} name to {vendor}, disturbed"] = search(names, labels, disturbed, owners)
        found[f"{title} name to {vendor}, among {FEW}"] = few(names, labels, clean, owners)
    return found


def by_kind(checkpoint: Checkpoint, emoji: list[Emoji], images: Images) -> str:
    """Recall at 10 of the names of each kind of emoji, one line for each language and held-out vendor."""
    lines = []
    for vendor in HELD_OUT:
        unseen = images.of(vendor)
        gallery = checkpoint.images(on_white(torch.from_numpy(unseen.rgba)))
        for language, (title, _) in SENTENCES.items():
            names = checkpoint.texts([one.words[language].label for one in emoji])
            shown = []
            for kind in sorted({one.kind for one in emoji}):
                labels = np.array([i for i, one in enumerate(emoji) if one.kind == kind and i in set(unseen.emoji)])
                if len(labels):
                    shown.append(f"{kind} {search(names[labels], labels, gallery, unseen.emoji).at_10:.0%}")
            lines.append(f"{title} name to {vendor}, R@10: {', '.join(shown)}")
    return "\n".join(lines)


def few(
    names: NDArray[np.float32],
    labels: NDArray[np.int64],
    images: NDArray[np.float32],
    owners: NDArray[np.int64],
) -> Recall:
    """The mean of 50 searches among 70 images drawn at random, with the names of just these 70."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        rows = rng.choice(len(owners), FEW, replace=False)
        known = np.isin(labels, owners[rows])
        found.append(search(names[known], labels[known], images[rows], owners[rows]))
    at_1, at_10 = (float(np.mean([getattr(one, field) for one in found])) for field in ("at_1", "at_10"))
    return Recall(FEW, FEW, at_1, at_10, found[0].chance_at_10)


def table(trained: dict[str, Recall], untrained: dict[str, Recall]) -> str:
    """The recall table in Markdown."""
    lines = [
        "| search | among | R@1 | R@10 | chance R@10 | untrained R@10 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in trained.items():
        shares = (one.at_1, one.at_10, one.chance_at_10, untrained[name].at_10)
        lines.append(f"| {name} | {one.gallery} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table and, with --json, writes the figures to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/demo"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    modules = fetch(arguments.cache / "npm")
    emoji = load_emoji(modules)
    images = load_images(modules, arguments.cache, emoji)
    checkpoint = Checkpoint(arguments.checkpoint)
    trained = recalls(checkpoint, emoji, images)
    untrained = recalls(Checkpoint(arguments.checkpoint, trained=False), emoji, images)
    print(table(trained, untrained))
    print(by_kind(checkpoint, emoji, images))
    if arguments.json:
        figures = {"trained": trained, "untrained": untrained}
        shown = {kind: {name: asdict(one) for name, one in found.items()} for kind, found in figures.items()}
        arguments.json.write_text(json.dumps(shown, indent=2) + "\n")


if __name__ == "__main__":
    main()
