"""The training loop, its losses, and the step from the training size to the full size."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPModel, CLIPTokenizerFast

from conversions.demo.__main__ import go_on, keep
from conversions.demo.clock import Spent
from conversions.demo.losses import contrast, loss_of
from conversions.demo.model import Towers, full_size, save, training_model, training_size
from conversions.demo.names import LANGUAGES
from conversions.demo.phrases import Phrases, corpus
from conversions.demo.sources import HELD_OUT
from conversions.demo.train import Recipe, Trainer
from conversions.demo.vocabulary import build_tokenizer
from tests.demo.samples import EMOJI, drawings

VOCABULARY = 530
# What openai/clip-vit-base-patch32 says of itself, with the sizes written out as transformers does today.
PREPROCESSING = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}


SAID = [Phrases(EMOJI, language) for language in LANGUAGES]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizerFast:
    return build_tokenizer(corpus(SAID), VOCABULARY, tmp_path_factory.mktemp("tokenizer"))


def trainer(tokenizer: CLIPTokenizerFast, **recipe: Any) -> Trainer:
    chosen = Recipe(**{"steps": 3, "batch": len(EMOJI), "warmup": 1, "compile": False, **recipe})
    model = training_model(len(tokenizer), chosen.seed)
    return Trainer(chosen, model, tokenizer, SAID, drawings().without(*HELD_OUT))


def train(tokenizer: CLIPTokenizerFast, seed: int) -> tuple[list[float], CLIPModel]:
    losses: list[float] = []
    return losses, trainer(tokenizer, seed=seed).run(lambda step, loss, spent: losses.append(loss))


@pytest.fixture(scope="module")
def first(tokenizer: CLIPTokenizerFast) -> tuple[list[float], CLIPModel]:
    """Losses and model of seed 7."""
    return train(tokenizer, seed=7)


@pytest.fixture(scope="module")
def whole(tokenizer: CLIPTokenizerFast) -> CLIPModel:
    """What five steps make without a pause."""
    return trainer(tokenizer, steps=5).run(lambda step, loss, spent: None)


def test_the_same_seed_gives_the_same_losses_and_weights(
    tokenizer: CLIPTokenizerFast, first: tuple[list[float], CLIPModel]
) -> None:
    first_losses, first_model = first
    losses, model = train(tokenizer, seed=7)
    assert len(losses) == 3
    assert losses == first_losses
    for name, value in model.state_dict().items():
        assert torch.equal(value, first_model.state_dict()[name]), name


def test_another_seed_gives_other_losses(tokenizer: CLIPTokenizerFast, first: tuple[list[float], CLIPModel]) -> None:
    assert train(tokenizer, seed=8)[0] != first[0]


def test_running_out_of_time_cools_down_and_tells_the_steps_taken(tokenizer: CLIPTokenizerFast) -> None:
    hurried = trainer(tokenizer, steps=10_000)
    seen: list[int] = []
    hurried.run(lambda step, loss, spent: seen.append(step), minutes=0.02)
    assert seen[-1] == hurried.recipe.steps < 100


class Killed(Exception):
    pass


def killed_after(tokenizer: CLIPTokenizerFast, after: int, path: Path, **recipe: Any) -> Trainer:
    """A training that was ended after `after` steps; its state lies at `path`."""
    ended = trainer(tokenizer, **recipe)

    def each(step: int, loss: float, spent: Spent) -> None:
        if step == after:
            keep(ended, path)
            raise Killed

    with pytest.raises(Killed):
        ended.run(each)
    return ended


@pytest.fixture(scope="module")
def ended(tokenizer: CLIPTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Path]:
    """A training of five steps that was killed after three, and its state."""
    path = tmp_path_factory.mktemp("ended") / "training.pt"
    return killed_after(tokenizer, 3, path, steps=5), path


def test_a_training_that_was_killed_goes_on_to_the_same_weights(
    tokenizer: CLIPTokenizerFast, whole: CLIPModel, ended: tuple[Trainer, Path]
) -> None:
    before, path = ended
    again = trainer(tokenizer, steps=5)
    go_on(again, path)
    steps: list[int] = []
    spent: list[Spent] = []

    def each(step: int, loss: float, so_far: Spent) -> None:
        steps.append(step)
        spent.append(so_far)

    model = again.run(each)
    assert steps == [4, 5]
    assert spent[0].wall > before.spent.wall
    assert spent[0].cpu > before.spent.cpu
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_until_it_cools_a_training_may_be_made_shorter(
    tokenizer: CLIPTokenizerFast, whole: CLIPModel, tmp_path: Path
) -> None:
    killed_after(tokenizer, 3, tmp_path / "training.pt", steps=50)
    shorter = trainer(tokenizer, steps=5)
    go_on(shorter, tmp_path / "training.pt")
    model = shorter.run(lambda step, loss, spent: None)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize("other", [{"seed": 1}, {"steps": 4}, {"batch": 2}])
def test_another_recipe_is_not_gone_on_with(
    tokenizer: CLIPTokenizerFast, ended: tuple[Trainer, Path], other: dict[str, int]
) -> None:
    with pytest.raises(SystemExit, match="Begin again with --fresh"):
        go_on(trainer(tokenizer, **{"steps": 5, **other}), ended[1])


def test_neither_another_vocabulary_nor_half_a_file_is_gone_on_with(
    tokenizer: CLIPTokenizerFast, ended: tuple[Trainer, Path], tmp_path: Path
) -> None:
    path = tmp_path / "training.pt"
    path.write_bytes(ended[1].read_bytes())
    other = build_tokenizer(corpus(SAID), VOCABULARY - 1, tmp_path / "tokenizer")
    with pytest.raises(SystemExit, match=f"vocabulary has {VOCABULARY} entries, and this one {VOCABULARY - 1}"):
        go_on(trainer(other, steps=5), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SystemExit, match="cannot be gone on from"):
        go_on(trainer(tokenizer, steps=5), path)


def test_full_size_sees_a_224_px_image_as_training_sees_its_half() -> None:
    model = training_model(VOCABULARY, 0)
    small = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    with torch.no_grad():
        wanted = Towers(model).images(small)
        found = full_size(model).get_image_features(pixel_values=large)
    torch.testing.assert_close(torch.nn.functional.normalize(found, dim=-1), wanted, atol=1e-5, rtol=1e-5)


def test_dropping_patches_before_they_are_multiplied_is_dropping_them_afterwards() -> None:
    model = training_model(VOCABULARY, 0)
    pixels = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([[3, 0, 48], [7, 6, 5]])
    vision = model.vision_model
    with torch.no_grad():
        tokens = vision.embeddings(pixels)
        rows = torch.cat([torch.zeros(2, 1, dtype=torch.int64), keep + 1], dim=1)
        chosen = torch.stack([one[kept] for one, kept in zip(tokens, rows, strict=True)])
        hidden = vision.encoder(inputs_embeds=vision.pre_layrnorm(chosen)).last_hidden_state
        wanted = model.visual_projection(vision.post_layernorm(hidden[:, 0]))
        found = Towers(model).images(pixels, keep)
    torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=-1), atol=1e-5, rtol=1e-5)


def test_texts_of_all_lengths_keep_their_place(tokenizer: CLIPTokenizerFast) -> None:
    texts = ["heart " * times for times in (40, 1, 9, 20, 2, 70, 1)]
    one = trainer(tokenizer)
    with torch.no_grad():
        together = one.embed_texts(texts)
        alone = torch.cat([one.embed_texts([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_saved_checkpoint_can_be_trained_on(tokenizer: CLIPTokenizerFast, tmp_path: Path) -> None:
    model = training_model(len(tokenizer), 3)
    save(model, tokenizer, tmp_path)
    again = training_size(tmp_path).state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again[name], value)


def test_a_saved_checkpoint_is_a_complete_clip(tokenizer: CLIPTokenizerFast, tmp_path: Path) -> None:
    save(training_model(len(tokenizer), 3), tokenizer, tmp_path)
    model = CLIPModel.from_pretrained(tmp_path)
    assert model.config.vision_config.hidden_act == model.config.text_config.hidden_act == "quick_gelu"
    assert (model.config.vision_config.image_size, model.config.vision_config.patch_size) == (224, 32)
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert stored == PREPROCESSING
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        assert (tmp_path / name).is_file()
    texts = CLIPTokenizerFast.from_pretrained(tmp_path)
    short, padded = (
        texts("red heart", return_tensors="pt"),
        texts("red heart", padding="max_length", return_tensors="pt"),
    )
    with torch.no_grad():
        first, second = (model.get_text_features(**one) for one in (short, padded))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


def test_contrast_is_lowest_when_the_scores_follow_the_correct_columns() -> None:
    correct = torch.tensor([[True, True, False], [False, False, True]])
    right = contrast(correct.float() * 20, correct)
    assert float(right) == pytest.approx((torch.log(torch.tensor(2.0)).item() + 0) / 2, abs=1e-4)
    assert float(contrast(-correct.float() * 20, correct)) > 10


def test_the_loss_forgives_a_phrase_for_another_emoji_it_fits() -> None:
    # The phrase of emoji 0 lies on emoji 1: half right if it fits both, wrong if it does not.
    axes = torch.eye(3)
    images, texts, own = axes[[0, 1, 0, 1]], axes[[1, 1]], torch.tensor([0, 1])
    shared = torch.tensor([[True, True, False], [False, True, False]])
    alone = torch.tensor([[True, False, False], [False, True, False]])
    forgiving, strict = (loss_of(images, texts, axes, torch.tensor(20.0), fits, own, 0.0) for fits in (shared, alone))
    assert float(forgiving) < float(strict) - 1
