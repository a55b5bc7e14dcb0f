"""Builds a small tokenizer in exactly CLIP's form: lower case, byte-level BPE with `</w>`, two marks.

Form: `CLIPTokenizer` of transformers and OpenAI's `simple_tokenizer.py`: 256 bytes, the same 256 with
`</w>`, one entry for each merge, then <|startoftext|> and <|endoftext|>.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizerFast
from transformers.models.clip.tokenization_clip import bytes_to_unicode

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 77
# As in transformers' CLIPConverter, so that merges are learnt on the very pieces they will meet.
PIECES = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def build_tokenizer(corpus: Iterable[str], size: int, folder: Path) -> CLIPTokenizerFast:
    """Learns `size` - 514 merges from `corpus` and writes vocab.json, merges.txt, tokenizer.json to `folder`.

    The result has at most `size` entries; fewer when the corpus is too small to merge that often.
    """
    folder.mkdir(parents=True, exist_ok=True)
    merges = _learn_merges(corpus, size)
    letters = list(bytes_to_unicode().values())
    entries = [*letters, *(f"{letter}</w>" for letter in letters)]
    entries += ["".join(pair) for pair in merges]
    entries += [START, END]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    tokenizer = CLIPTokenizerFast(
        vocab_file=str(folder / "vocab.json"),
        merges_file=str(folder / "merges.txt"),
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _learn_merges(corpus: Iterable[str], size: int) -> list[tuple[str, str]]:
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    pairs = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in pairs][: size - 514]
