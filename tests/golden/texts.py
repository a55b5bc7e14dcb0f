"""The golden texts, and Gemma's vocabulary framed as SigLIP 2's repositories have it. Knows no reference's answers."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).parent


def strings() -> list[str]:
    """The 500 strings of tokenizer_ids.json."""
    rows = json.loads((GOLDEN / "tokenizer_ids.json").read_bytes())["strings"]
    return [row["unit"] * row["repeat"] for row in rows]


def with_end(rules: Mapping[str, Any], end: str = "<eos>", number: int = 1) -> dict[str, Any]:
    """A tokenizer.json whose texts end with their mark and have none in front."""
    text = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}}]
    special = {end: {"id": end, "ids": [number], "tokens": [end]}}
    pair = [*text, {"Sequence": {"id": "B", "type_id": 1}}]
    frame = {"type": "TemplateProcessing", "single": text, "pair": pair, "special_tokens": special}
    return {**rules, "post_processor": frame}


def filled(shapes: Mapping[str, Sequence[int]]) -> dict[str, NDArray[np.float32]]:
    """Weights of these names and shapes: the same everywhere, none of them 0 or 1, gains around 1."""
    weights = {}
    for name, shape in shapes.items():
        values = np.random.default_rng(crc32(name.encode())).standard_normal(shape, np.float32)
        gain = len(shape) == 1 and name.endswith("weight")
        scale = 0.1 if len(shape) < 2 else 0.7 * float(np.prod(shape[1:])) ** -0.5
        weights[name] = np.asarray(gain + scale * values, np.float32)
    return weights


def save_tokenizers(folder: Path) -> None:
    """T5's and XLM-RoBERTa's tokenizers over one small sentencepiece model, as transformers saves them."""
    from transformers import T5TokenizerFast, XLMRobertaTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "spiece.model"
    model.write_bytes(lzma.decompress((GOLDEN / "spiece.model.xz").read_bytes()))
    T5TokenizerFast(str(model), extra_ids=0, pad_token="</s>").save_pretrained(folder / "siglip")
    XLMRobertaTokenizerFast(str(model)).save_pretrained(folder / "roberta")


def train_pieces() -> bytes:
    """The small model, anew: not the same bytes with every version of sentencepiece."""
    import io

    import sentencepiece

    written = io.BytesIO()
    sentences = [text for text in strings()[:240] if 0 < len(text) < 400 and text.isprintable()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 3),
        model_writer=written,
        vocab_size=2500,
        hard_vocab_limit=False,
        character_coverage=0.98,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=3,
        minloglevel=2,
        num_threads=1,
    )
    return written.getvalue()
