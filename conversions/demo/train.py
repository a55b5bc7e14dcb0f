"""Trains the demo model: images of different vendors and phrases of one emoji, in every language, meet in one place.

The loop of the training only: what it makes small is in losses.py, the command line in __main__.py.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizerFast

from conversions.demo.augment import augment
from conversions.demo.clock import Clock, Spent
from conversions.demo.images import Images
from conversions.demo.losses import loss_of
from conversions.demo.model import DIMENSION, Proxies, Towers, normalise
from conversions.demo.pairs import Pairs
from conversions.demo.phrases import Phrases

PATCHES = 49
LENGTHS = (8, 16, 32)
WORDS = "text_model.embeddings.token_embedding.weight"


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


class Trainer:
    """Holds the model, its running average and the optimisers; `run` trains.

    `languages` has one Phrases for each language, all of the same emoji.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: CLIPModel,
        tokenizer: CLIPTokenizerFast,
        languages: Sequence[Phrases],
        images: Images,
    ) -> None:
        self.recipe = self.asked = recipe
        self.model = model
        self.tokenizer = tokenizer
        self.languages = languages
        self.pairs = Pairs(images)
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.towers = Towers(model)
        self.images = torch.compile(self.towers.images, dynamic=False) if recipe.compile else self.towers.images
        self.rng = np.random.default_rng(recipe.seed)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        torch.manual_seed(recipe.seed)
        emoji = languages[0].emoji
        self.proxies = Proxies(torch.randn(len(emoji), DIMENSION) * DIMENSION**-0.5)
        if recipe.goes_on:
            with torch.no_grad():
                self.proxies.weight.copy_(self.embed_texts([one.label for one in emoji]))
        self.optimisers = self._optimisers()
        self._rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers]
        self._queue = np.empty(0, dtype=np.int64)
        self.spent = Spent()
        self.done = 0

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

    def run(self, each: Callable[[int, float, Spent], None], minutes: float = math.inf) -> CLIPModel:
        """Trains and returns the averaged model; calls `each` with step, loss and time spent after every step.

        When `minutes` of wall time would run out before `recipe.steps` are done, cooling starts early enough;
        `self.recipe` then holds the number of steps taken, and a run with that number repeats this one.
        Goes on from where `restore` left it, if that was called.
        """
        clock = Clock(self.spent)
        while self.done < self.recipe.steps:
            # Cooling steps look at all patches and take about half as long again.
            cooled = self.done >= self.cool_from
            if not cooled and self.spent.wall > 60 * minutes * (1 - 1.3 * self.recipe.cooling):
                steps = math.ceil(self.done / (1 - self.recipe.cooling))
                self.recipe = dataclasses.replace(self.recipe, steps=min(steps, self.recipe.steps))
            if len(self._queue) < self.recipe.batch:
                self._queue = self.rng.permutation(self.pairs.emoji)
            chosen, self._queue = self._queue[: self.recipe.batch], self._queue[self.recipe.batch :]
            for optimiser, base in zip(self.optimisers, self._rates, strict=True):
                for group, rate in zip(optimiser.param_groups, base, strict=True):
                    group["lr"] = rate * self._schedule(self.done)
            loss = self.step(self.done, chosen)
            self.done += 1
            self.spent = clock.read()
            each(self.done, loss, self.spent)
        return self.averaged

    def state(self) -> dict[str, Any]:
        """Everything a later run needs to go on as if it had never stopped."""
        return {
            "asked": dataclasses.asdict(self.asked),
            "steps": self.recipe.steps,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "proxies": self.proxies.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "rng": self.rng.bit_generator.state,
            "generator": self.generator.get_state(),
            "queue": torch.from_numpy(self._queue),
            "spent": dataclasses.asdict(self.spent),
            "done": self.done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave. Raises ValueError if that was of another recipe or another vocabulary.

        As long as neither would have begun to cool, another number of steps is no other recipe.
        """
        was = Recipe(**state["asked"])
        if was != self.asked:
            cool = min(self.cool_from, math.floor(state["steps"] * (1 - was.cooling)))
            if dataclasses.replace(was, steps=self.asked.steps) != self.asked or state["done"] > cool:
                raise ValueError(f"step {state['done']} of {was} does not lead to {self.asked}")
        else:
            self.recipe = dataclasses.replace(self.asked, steps=state["steps"])
        words = len(state["model"][WORDS]), self.model.config.text_config.vocab_size
        if words[0] != words[1]:
            raise ValueError(f"its vocabulary has {words[0]} entries, and this one {words[1]}")
        for part in ("model", "averaged", "proxies"):
            getattr(self, part).load_state_dict(state[part])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.rng.bit_generator.state = state["rng"]
        self.generator.set_state(state["generator"])
        self._queue = state["queue"].numpy()
        self.spent = Spent(**state["spent"])
        self.done = state["done"]

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
        said = [phrases.draw_batch(chosen, self.rng) for phrases in self.languages]
        texts = [text for batch, _ in said for text in batch]
        fits = torch.from_numpy(np.concatenate([fitting for _, fitting in said]))
        pixels = normalise(augment(self.pairs.draw(chosen, self.rng), self.generator))
        keep = None
        if step < self.cool_from:
            order = torch.rand((len(pixels), PATCHES), generator=self.generator).argsort(dim=1)
            keep = order[:, : self.recipe.kept_patches]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            images = self.images(pixels, keep)
            phrases = self.embed_texts(texts)
        scale = self.model.logit_scale.exp().clamp(max=100)
        own = torch.from_numpy(chosen)
        loss = loss_of(images, phrases, self.proxies(), scale, fits, own, self.recipe.smoothing)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_([*self.model.parameters(), *self.proxies.parameters()], 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self._average(step)
        return float(loss.detach())

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Unit vectors (n, 192), in groups by length so that a few long phrases do not pad all the others."""
        rows = self.tokenizer(texts, truncation=True, max_length=77)["input_ids"]
        end = self.tokenizer.eos_token_id
        group_of = np.searchsorted(LENGTHS, [len(row) for row in rows])
        order = np.argsort(group_of, kind="stable")
        embedded = []
        for group in np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1):
            longest = max(len(rows[i]) for i in group)
            ids = torch.tensor([rows[i] + [end] * (longest - len(rows[i])) for i in group])
            embedded.append(self.towers.texts(ids))
        return torch.cat(embedded)[torch.from_numpy(order.argsort())]

    @torch.no_grad()
    def _average(self, step: int) -> None:
        decay = min(self.recipe.average, (1 + step) / (10 + step))
        for mean, value in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
