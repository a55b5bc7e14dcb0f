"""The training loop, its losses, and the step from the training size to the full size."""

import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel, CLIPTokenizerFast

from conversions.demo.model import Towers, full_size, save, training_model, training_size
from conversions.demo.names import Phrases
from conversions.demo.sources import HELD_OUT
from conversions.demo.train import Recipe, Trainer, contrast, loss_of
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


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizerFast:
    return build_tokenizer(Phrases(EMOJI).corpus(), VOCABULARY, tmp_path_factory.mktemp("tokenizer"))


def train(tokenizer: CLIPTokenizerFast, seed: int) -> tuple[list[float], CLIPModel]:
    recipe = Recipe(steps=3, batch=len(EMOJI), seed=seed, warmup=1, compile=False)
    model = training_model(len(tokenizer), seed)
    trainer = Trainer(recipe, model, tokenizer, Phrases(EMOJI), drawings().without(HELD_OUT))
    losses: list[float] = []
    return losses, trainer.run(lambda step, loss, seconds: losses.append(loss))


def test_the_same_seed_gives_the_same_losses_and_weights(tokenizer: CLIPTokenizerFast) -> None:
    first_losses, first = train(tokenizer, seed=7)
    losses, model = train(tokenizer, seed=7)
    assert len(losses) == 3
    assert losses == first_losses
    for name, value in model.state_dict().items():
        assert torch.equal(value, first.state_dict()[name]), name


def test_another_seed_gives_other_losses(tokenizer: CLIPTokenizerFast) -> None:
    assert train(tokenizer, seed=8)[0] != train(tokenizer, seed=7)[0]


def test_running_out_of_time_cools_down_and_tells_the_steps_taken(tokenizer: CLIPTokenizerFast) -> None:
    recipe = Recipe(steps=10_000, batch=len(EMOJI), compile=False)
    model = training_model(len(tokenizer), 0)
    trainer = Trainer(recipe, model, tokenizer, Phrases(EMOJI), drawings().without(HELD_OUT))
    seen: list[int] = []
    trainer.run(lambda step, loss, seconds: seen.append(step), minutes=0.02)
    assert seen[-1] == trainer.recipe.steps < 100


def test_full_size_sees_a_224_px_image_as_training_sees_its_half() -> None:
    model = training_model(VOCABULARY, 0)
    small = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    with torch.no_grad():
        wanted = Towers(model).images(small)
        found = full_size(model).get_image_features(pixel_values=large)
    torch.testing.assert_close(torch.nn.functional.normalize(found, dim=-1), wanted, atol=1e-5, rtol=1e-5)


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
