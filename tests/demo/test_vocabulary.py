"""The demo tokenizer has CLIP's form, so that everything written for CLIP's tokenizer reads it."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import CLIPTokenizerFast

from conversions.demo.model import configuration
from conversions.demo.vocabulary import build_tokenizer

CORPUS = ["red heart", "a photo of a red heart", "smiling face", "face with tears of joy", "heart"] * 3
SIZE = 540


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(CORPUS, SIZE, target)
    return target


def test_vocabulary_is_bytes_then_bytes_ending_a_word_then_merges_then_the_two_marks(folder: Path) -> None:
    vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text())
    entries = sorted(vocabulary, key=lambda entry: vocabulary[entry])
    merges = (folder / "merges.txt").read_text().splitlines()[1:]
    assert list(vocabulary.values()) == list(range(SIZE))
    assert entries[256:512] == [f"{entry}</w>" for entry in entries[:256]]
    assert entries[512:-2] == [merge.replace(" ", "") for merge in merges]
    assert entries[-2:] == ["<|startoftext|>", "<|endoftext|>"]


def test_letter_case_and_repeated_spaces_do_not_change_the_ids(folder: Path) -> None:
    tokenizer = CLIPTokenizerFast.from_pretrained(folder)
    assert tokenizer("RED   Heart")["input_ids"] == tokenizer("red heart")["input_ids"]


@pytest.mark.parametrize("text", ["red heart", "❤️", "日本語", "", "a\x00b", "naïve café"])
def test_every_text_is_known_and_stands_between_the_two_marks(folder: Path, text: str) -> None:
    tokenizer = CLIPTokenizerFast.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (SIZE - 2, SIZE - 1)
    assert SIZE - 1 not in ids[1:-1]


def test_long_texts_are_cut_to_77_ids_and_keep_the_end_mark(folder: Path) -> None:
    tokenizer = CLIPTokenizerFast.from_pretrained(folder)
    ids = tokenizer("heart " * 500, truncation=True)["input_ids"]
    assert len(ids) == 77
    assert ids[-1] == SIZE - 1


def test_tokenizer_json_alone_gives_the_same_ids(folder: Path) -> None:
    alone = Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole = CLIPTokenizerFast.from_pretrained(folder)
    for text in ("A photo of a Red Heart!", "joy 123", "❤️ it's"):
        assert alone.encode(text).ids == whole(text)["input_ids"]


def test_configuration_names_the_tokenizers_marks(folder: Path) -> None:
    tokenizer = CLIPTokenizerFast.from_pretrained(folder)
    text = configuration(len(tokenizer), image_size=224).text_config
    assert text.bos_token_id == tokenizer.bos_token_id
    assert text.eos_token_id == tokenizer.eos_token_id == max(tokenizer.get_vocab().values())
    assert text.pad_token_id == tokenizer.pad_token_id
