"""The first SigLIP's texts beside transformers' SiglipTokenizer itself, over a small sentencepiece model trained here;
and SigLIP's images beside the golden pixels of transformers 5's Pillow processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import SiglipTokenizer

from clipsrv.images.decode import decode_image
from clipsrv.images.preprocess import preprocess_image, resize_and_crop
from clipsrv.specs import PreprocessSpec, TokenSpec, TowerSpec
from clipsrv.text.opening import open_tokenizer
from clipsrv.text.tokens import MAX_CHARACTERS, Tokenizer
from conversions.tokenizers.sentencepiece import marks, piece_id, without_prefix
from tests.golden.images import digest
from tests.golden.texts import GOLDEN, strings

pytestmark = pytest.mark.filterwarnings("ignore:This sequence already has")

CONTEXT = 16
#: Enough words of several scripts to train two thousand pieces on.
CORPUS = [text for text in strings()[:240] if 0 < len(text) < 400 and text.isprintable()]

telling = st.sampled_from(
    [
        "</s>",
        "<unk>",
        "▁",
        "_",
        "a.b",
        "\u3000",
        "\t",
        "\u00a8",
        "ﬁ",
        "Ａ",
        "İ",
        "Σ",
        "猫",
        "赤い",
        "é",
        "e\u0301",
        "'S",
    ]
)
texts = st.lists(st.one_of(telling, st.text(st.characters(exclude_categories=["Cs"]), max_size=6)), max_size=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as Google's SigLIP has it: unigram, its end mark also its padding."""
    folder = tmp_path_factory.mktemp("spiece")
    with (folder / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 3),
            model_writer=file,
            vocab_size=2500,
            model_type="unigram",
            character_coverage=0.98,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            hard_vocab_limit=False,
            minloglevel=2,
            num_threads=1,
        )
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> SiglipTokenizer:
    return SiglipTokenizer(str(folder / "spiece.model"), model_max_length=CONTEXT)


@pytest.fixture(scope="module")
def tokenizer(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("siglip") / "spiece.model"
    path.write_bytes(without_prefix(folder / "spiece.model"))
    named = marks({})
    spec = TokenSpec("siglip", piece_id(folder / "spiece.model", named[1]), "read", tuple(dict.fromkeys(named)))
    return open_tokenizer(path, TowerSpec("input_ids", "text_embeds", {"fp32": "t"}, CONTEXT, "spiece.model", spec))


def assert_parity(reference: SiglipTokenizer, tokenizer: Tokenizer, text: str) -> None:
    expected = reference(text, padding="max_length", max_length=CONTEXT, truncation=True)["input_ids"]
    tokens = tokenizer.encode(text)
    assert (tokens.ids.tolist(), tokens.length) == (expected, CONTEXT), ascii(text[:200])


def test_the_500_golden_strings_have_the_references_ids(reference: SiglipTokenizer, tokenizer: Tokenizer) -> None:
    for text in strings():
        if len(text) <= MAX_CHARACTERS:
            assert_parity(reference, tokenizer, text)


@settings(max_examples=600, deadline=None)
@given(texts.map("".join))
@example("")
@example("</s>")
@example("a </s> b")
@example("…")
def test_any_text_gives_the_references_ids(reference: SiglipTokenizer, tokenizer: Tokenizer, text: str) -> None:
    assert_parity(reference, tokenizer, text)


SPECS: dict[str, PreprocessSpec] = {
    name: PreprocessSpec(edge, edge, (0.5,) * 3, (0.5,) * 3, 0.00392156862745098, resample=name, resize="squash")
    for name, edge in (("bicubic", 224), ("bilinear", 256))
}
ROWS: dict[str, Any] = json.loads((GOLDEN / "preprocess_siglip.json").read_bytes())["files"]


@pytest.mark.parametrize("resample", SPECS)
@pytest.mark.parametrize("name", ROWS)
def test_squashed_images_have_the_references_pixels_and_values(name: str, resample: str) -> None:
    spec = SPECS[resample]
    image = decode_image((GOLDEN / "preprocess" / name).read_bytes())
    assert digest(resize_and_crop(image, spec)) == ROWS[name][resample]["pixels"]
    assert digest(preprocess_image(image, spec).astype(np.dtype("<f4"))) == ROWS[name][resample]["values"]
