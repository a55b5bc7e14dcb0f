"""Trains the demo model: images of different vendors and phrases of one emoji are drawn to one place.

The loop of the training and its losses only; the command line is in __main__.py.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizerFast

from conversions.demo.augment import augment
from conversions.demo.images import Images
from conversions.demo.model import DIMENSION, Proxies, Towers, normalise
from conversions.demo.names import Phrases
from conversions.demo.sources import VENDORS

PATCHES = 49


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training run; on one machine it decides the model, but for rounding.

    The rates rise over `warmup` steps, stay, and fall to nothing over the last `cooling` share of the steps.
    Until they fall, only `kept_patches` of the 49 patches are looked at. `goes_on` says that the model is
    trained already.
    """

    steps: int
    batch: int = 256
    seed: int = 0
    rate: float = 2e-3
    matrix_rate: float = 0.02
    weight_decay: float = 0.1
    warmup: int = 50
    cooling: float = 0.35
    kept_patches: int = 28
    smoothing: float = 0.1
    average: float = 0.995
    goes_on: bool = False
    compile: bool = True


class Pairs:
    """Draws, for a set of emoji, two images each, of different vendors where there are two."""

    def __init__(self, images: Images) -> None:
        self.images = images
        families = [VENDORS[number].family for number in images.vendor]
        self.by_emoji: dict[int, dict[str, list[int]]] = {}
        for row, (emoji, family) in enumerate(zip(images.emoji, families, strict=True)):
            self.by_emoji.setdefault(int(emoji), {}).setdefault(family, []).append(row)
        self.emoji = np.array(sorted(self.by_emoji))

    def draw(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Drawings uint8 (2 n, 4, 128, 128): the first images of all, then the second ones."""
        rows: list[list[int]] = [[], []]
        for index in indices:
            families = list(self.by_emoji[int(index)].values())
            order = rng.permutation(len(families))
            for view in range(2):
                family = families[order[view % len(order)]]
                rows[view].append(family[rng.integers(len(family))])
        return torch.from_numpy(self.images.rgba[np.array(rows[0] + rows[1])])


def contrast(scores: Tensor, correct: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of score rows (n, m) against evenly shared correct columns, bool (n, m)."""
    target = correct.float() / correct.sum(dim=1, keepdim=True)
    return F.cross_entropy(scores, target, label_smoothing=smoothing)


def loss_of(
    images: Tensor, texts: Tensor, proxies: Tensor, scale: Tensor, fits: Tensor, own: Tensor, smoothing: float
) -> Tensor:
    """The training loss.

    `images` (2 n, d): two views; `texts` (n, d); `proxies` (emoji, d); all unit length. `fits`, bool
    (n, emoji): what each phrase may mean; `own`, int64 (n,): the emoji of each row.
    """
    first, second = images.chunk(2)
    itself = torch.eye(len(own), dtype=torch.bool)
    meant = fits[:, own]
    both = torch.cat([meant, meant], dim=1)
    to_images = contrast(scale * texts @ images.T, both)
    to_texts = contrast(scale * images @ texts.T, both.T)
    between = contrast(scale * first @ second.T, itself) + contrast(scale * second @ first.T, itself)
    named = F.cross_entropy(scale * images @ proxies.T, own.repeat(2), label_smoothing=smoothing)
    told = contrast(scale * texts @ proxies.T, fits, smoothing)
    return (to_images + to_texts) / 2 + between / 2 + named + told


class Trainer:
    """Holds the model, its running average and the optimisers; `run` trains."""

    def __init__(
        self, recipe: Recipe, model: CLIPModel, tokenizer: CLIPTokenizerFast, phrases: Phrases, images: Images
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.tokenizer = tokenizer
        self.phrases = phrases
        self.pairs = Pairs(images)
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.towers = Towers(model)
        self.images = torch.compile(self.towers.images, dynamic=False) if recipe.compile else self.towers.images
        self.rng = np.random.default_rng(recipe.seed)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        torch.manual_seed(recipe.seed)
        self.proxies = Proxies(torch.randn(len(phrases.emoji), DIMENSION) * DIMENSION**-0.5)
        if recipe.goes_on:
            with torch.no_grad():
                self.proxies.weight.copy_(self.embed_texts([one.label for one in phrases.emoji]))
        self.optimisers = self._optimisers()

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        # Muon for the square-ish matrices inside the towers, AdamW for all else: fewer steps to the same loss.
        matrices, others, plain = [], [], []
        for name, value in [*self.model.named_parameters(), *self.proxies.named_parameters()]:
            if value.ndim == 2 and ".layers." in name:
                matrices.append(value)
            elif value.ndim >= 2 and "embedding" in name:
                others.append(value)
            else:
                plain.append(value)
        recipe = self.recipe
        decayed = {"params": others, "weight_decay": recipe.weight_decay}
        adam = torch.optim.AdamW([decayed, {"params": plain, "weight_decay": 0.0}], lr=recipe.rate, betas=(0.9, 0.98))
        muon = torch.optim.Muon(
            matrices,
            lr=recipe.matrix_rate,
            weight_decay=recipe.weight_decay,
            momentum=0.95,
        )
        return [adam, muon]

    def run(self, each: Callable[[int, float, float], None], minutes: float = math.inf) -> CLIPModel:
        """Trains and returns the averaged model; calls `each` with step, loss and seconds after every step.

        When `minutes` would run out before `recipe.steps` are done, cooling starts early enough; `self.recipe`
        then holds the number of steps taken, and a run with that number repeats this one.
        """
        started = time.monotonic()
        rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers]
        queue = np.empty(0, dtype=np.int64)
        step, warm = 0, True
        while step < self.recipe.steps:
            # Cooling steps look at all patches and take about half as long again.
            if warm and time.monotonic() - started > 60 * minutes * (1 - 1.3 * self.recipe.cooling):
                steps = math.ceil(step / (1 - self.recipe.cooling))
                self.recipe = dataclasses.replace(self.recipe, steps=min(steps, self.recipe.steps))
            warm = warm and step < self.cool_from
            if len(queue) < self.recipe.batch:
                queue = self.rng.permutation(self.pairs.emoji)
            chosen, queue = queue[: self.recipe.batch], queue[self.recipe.batch :]
            for optimiser, base in zip(self.optimisers, rates, strict=True):
                for group, rate in zip(optimiser.param_groups, base, strict=True):
                    group["lr"] = rate * self._schedule(step)
            loss = self.step(step, chosen)
            step += 1
            each(step, loss, time.monotonic() - started)
        return self.averaged

    @property
    def cool_from(self) -> int:
        """The first step of the cooling."""
        return math.floor(self.recipe.steps * (1 - self.recipe.cooling))

    def _schedule(self, step: int) -> float:
        rise = (step + 1) / self.recipe.warmup
        fall = (self.recipe.steps - step) / (self.recipe.steps - self.cool_from + 1)
        return min(1.0, rise, fall)

    def step(self, step: int, chosen: NDArray[np.int64]) -> float:
        """One update from the emoji `chosen`; returns the loss."""
        texts, fits = self.phrases.draw_batch(chosen, self.rng)
        pixels = normalise(augment(self.pairs.draw(chosen, self.rng), self.generator))
        keep = None
        if step < self.cool_from:
            order = torch.rand((len(pixels), PATCHES), generator=self.generator).argsort(dim=1)
            keep = order[:, : self.recipe.kept_patches]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            images = self.images(pixels, keep)
            phrases = self.embed_texts(texts)
        scale = self.model.logit_scale.exp().clamp(max=100)
        wanted = torch.from_numpy(fits), torch.from_numpy(chosen)
        loss = loss_of(images, phrases, self.proxies(), scale, *wanted, self.recipe.smoothing)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_([*self.model.parameters(), *self.proxies.parameters()], 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self._average(step)
        return float(loss.detach())

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Unit vectors (n, 192), in two groups so that a few long phrases do not pad all the others."""
        rows = self.tokenizer(texts, truncation=True, max_length=77)["input_ids"]
        end = self.tokenizer.eos_token_id
        groups = [[i for i, row in enumerate(rows) if (len(row) > 16) == long] for long in (False, True)]
        embedded = []
        for group in filter(None, groups):
            longest = max(len(rows[i]) for i in group)
            ids = torch.tensor([rows[i] + [end] * (longest - len(rows[i])) for i in group])
            embedded.append(self.towers.texts(ids))
        order = torch.tensor([i for group in groups for i in group])
        return torch.cat(embedded)[order.argsort()]

    @torch.no_grad()
    def _average(self, step: int) -> None:
        decay = min(self.recipe.average, (1 + step) / (10 + step))
        for mean, value in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
