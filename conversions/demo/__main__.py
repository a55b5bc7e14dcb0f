"""Command line of the demo model's training: `python -m conversions.demo --out FOLDER`."""

import argparse
import dataclasses
import math
import pickle
from pathlib import Path

import numpy as np
import torch

from conversions.demo.clock import Spent
from conversions.demo.images import load_images
from conversions.demo.model import VOCABULARY, Towers, save, training_model, training_size
from conversions.demo.names import LANGUAGES, load_emoji
from conversions.demo.phrases import Phrases, corpus
from conversions.demo.quick_check import quick_check
from conversions.demo.sources import HELD_OUT, fetch
from conversions.demo.train import Recipe, Trainer
from conversions.demo.vocabulary import build_tokenizer

CHECK_EVERY, KEEP_EVERY = 200, 20


def main() -> None:
    """Fetches the data and trains; writes a checkpoint every 200 steps and at the end, and its state every 20."""
    parser = argparse.ArgumentParser(prog="train-demo-model", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the Hugging Face checkpoint")
    parser.add_argument("--cache", type=Path, default=Path("build/demo"), help="folder for packages and drawings")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--minutes", type=float, default=math.inf, help="cool down earlier to end in this time")
    parser.add_argument("--start", type=Path, help="checkpoint to go on from, with smaller steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile and a C++ compiler")
    parser.add_argument("--fresh", action="store_true", help="begin again, although a run that was ended could go on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    modules = fetch(arguments.cache / "npm")
    emoji = load_emoji(modules)
    images = load_images(modules, arguments.cache, emoji)
    languages = [Phrases(emoji, language) for language in LANGUAGES]
    tokenizer = build_tokenizer(corpus(languages), VOCABULARY, arguments.out)
    recipe = Recipe(arguments.steps, seed=arguments.seed, compile=not arguments.no_compile)
    if arguments.start is None:
        model = training_model(len(tokenizer), arguments.seed)
    else:
        model = training_size(arguments.start)
        recipe = dataclasses.replace(recipe, goes_on=True, rate=recipe.rate * 0.6, matrix_rate=recipe.matrix_rate * 0.6)
    trainer = Trainer(recipe, model, tokenizer, languages, images.without(*HELD_OUT))
    kept = arguments.out / "training.pt"
    if kept.exists() and not arguments.fresh:
        go_on(trainer, kept)
    # Of the other held-out vendor nothing is known until the model is finished: see evaluate.py.
    unseen = images.of(HELD_OUT[0])
    losses: list[float] = []

    def each(step: int, loss: float, spent: Spent) -> None:
        losses.append(loss)
        if step % 20 == 0:
            time = f"{spent.wall:6.0f} s, {spent.cpu:6.0f} s of processor time"
            print(f"step {step:5d}  loss {np.mean(losses[-20:]):7.3f}  {time}", flush=True)
        last = step == trainer.recipe.steps
        if step % CHECK_EVERY == 0 or last:
            save(trainer.averaged, tokenizer, arguments.out)
            print(f"step {step:5d}  {quick_check(Towers(trainer.averaged), tokenizer, emoji, unseen)}", flush=True)
        if step % KEEP_EVERY == 0 and not last:
            keep(trainer, kept)

    trainer.run(each, arguments.minutes)
    kept.unlink(missing_ok=True)
    print(f"done: --steps {trainer.recipe.steps} --seed {arguments.seed} repeats this run", flush=True)


def keep(trainer: Trainer, path: Path) -> None:
    """Writes where `trainer` stands, whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(trainer.state(), partial)
    partial.replace(path)


def go_on(trainer: Trainer, path: Path) -> None:
    """Goes on from what `keep` wrote. Ends the program if that is of another run or cannot be read."""
    try:
        trainer.restore(torch.load(path, weights_only=True))
    except (ValueError, KeyError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise SystemExit(f"{path} cannot be gone on from: {error}. Begin again with --fresh.") from None
    print(f"goes on from step {trainer.done}", flush=True)


if __name__ == "__main__":
    main()
