"""Command line of the demo model's training: `python -m conversions.demo --out FOLDER`."""

import argparse
import dataclasses
import math
from pathlib import Path

import numpy as np
import torch

from conversions.demo.images import load_images
from conversions.demo.model import VOCABULARY, Towers, save, training_model, training_size
from conversions.demo.names import Phrases, load_emoji
from conversions.demo.quick_check import quick_check
from conversions.demo.sources import HELD_OUT, fetch
from conversions.demo.train import Recipe, Trainer
from conversions.demo.vocabulary import build_tokenizer

SAVE_EVERY = 200


def main() -> None:
    """Fetches the data, trains, and writes a checkpoint every 200 steps and at the end."""
    parser = argparse.ArgumentParser(prog="train-demo-model", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the Hugging Face checkpoint")
    parser.add_argument("--cache", type=Path, default=Path("build/demo"), help="folder for packages and drawings")
    parser.add_argument("--steps", type=int, default=1422)
    parser.add_argument("--minutes", type=float, default=math.inf, help="cool down earlier to end in this time")
    parser.add_argument("--start", type=Path, help="checkpoint to go on from, with smaller steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile and a C++ compiler")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    modules = fetch(arguments.cache / "npm")
    emoji = load_emoji(modules)
    images = load_images(modules, arguments.cache, emoji)
    phrases = Phrases(emoji)
    tokenizer = build_tokenizer(phrases.corpus(), VOCABULARY, arguments.out)
    recipe = Recipe(arguments.steps, seed=arguments.seed, compile=not arguments.no_compile)
    if arguments.start is None:
        model = training_model(len(tokenizer), arguments.seed)
    else:
        model = training_size(arguments.start)
        recipe = dataclasses.replace(recipe, goes_on=True, rate=recipe.rate * 0.6, matrix_rate=recipe.matrix_rate * 0.6)
    trainer = Trainer(recipe, model, tokenizer, phrases, images.without(HELD_OUT))
    unseen = images.of(HELD_OUT)
    losses: list[float] = []

    def each(step: int, loss: float, seconds: float) -> None:
        losses.append(loss)
        if step % 20 == 0:
            print(f"step {step:5d}  loss {np.mean(losses[-20:]):7.3f}  {seconds:6.0f} s", flush=True)
        if step % SAVE_EVERY == 0 or step == trainer.recipe.steps:
            save(trainer.averaged, tokenizer, arguments.out)
            print(f"step {step:5d}  {quick_check(Towers(trainer.averaged), tokenizer, emoji, unseen)}", flush=True)

    trainer.run(each, arguments.minutes)
    print(f"done: --steps {trainer.recipe.steps} --seed {arguments.seed} repeats this run", flush=True)


if __name__ == "__main__":
    main()
