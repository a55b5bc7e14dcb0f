"""Text to ids: equal to the golden ids of CLIPTokenizerFast, bounded in time, and the same from every thread.

The live comparison with transformers is in tests/conversions/test_golden_tokenizer.py.
"""

from __future__ import annotations

import json
import lzma
import re
import threading
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from clipsrv.errors import InvalidTextError, ModelCorruptError
from clipsrv.text.clip import WHITESPACE, ClipTokenizer
from clipsrv.text.tokens import MAX_CHARACTERS, ids_of

GOLDEN = Path(__file__).parents[1] / "golden"
START, END = 49406, 49407
EVERY_CHARACTER = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


@pytest.fixture(scope="module")
def rules() -> dict[str, Any]:
    return json.loads(lzma.decompress((GOLDEN / "tokenizer_openai.json.xz").read_bytes()))


@pytest.fixture(scope="module")
def write(rules: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
        path.write_text(json.dumps({**rules, **changes}), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def tokenizer(write: Callable[..., Path]) -> ClipTokenizer:
    return ClipTokenizer.from_file(write())


@pytest.fixture(scope="module")
def golden() -> list[tuple[str, list[int]]]:
    rows = json.loads((GOLDEN / "tokenizer_ids.json").read_bytes())["strings"]
    return [(row["unit"] * row["repeat"], row["ids"]) for row in rows]


def test_the_ids_of_500_strings_are_those_of_the_reference(
    tokenizer: ClipTokenizer, golden: list[tuple[str, list[int]]]
) -> None:
    assert len(golden) == 500
    for text, ids in golden:
        tokens = tokenizer.encode(text)
        assert (tokens.ids.dtype, tokens.ids.shape) == (np.dtype(np.int64), (77,))
        assert tokens.ids.tolist() == ids + [END] * (77 - len(ids)), ascii(text[:100])
        assert tokens.length == len(ids)


@pytest.mark.parametrize(
    ("words", "length", "truncated"), [(0, 2, False), (75, 77, False), (76, 77, True), (999, 77, True)]
)
def test_the_end_of_text_is_kept_and_truncation_is_told(
    tokenizer: ClipTokenizer, words: int, length: int, truncated: bool
) -> None:
    tokens = tokenizer.encode("cat " * words)
    assert (tokens.length, tokens.truncated) == (length, truncated)
    assert tokens.ids[length - 1] == END
    assert tokens.ids[1 : length - 1].tolist() == [2368] * (length - 2)


def test_a_shorter_context_cuts_earlier(write: Callable[..., Path]) -> None:
    tokens = ClipTokenizer.from_file(write(), context_length=5).encode("a photo of a cat")
    assert tokens.ids.tolist() == [START, 320, 1125, 539, END]
    assert tokens.truncated


def test_padding_is_the_files_own_and_its_truncation_is_not_used(write: Callable[..., Path]) -> None:
    backend = tokenizers.Tokenizer.from_file(str(write()))
    backend.enable_padding(pad_id=0, pad_token="!", length=9)
    backend.enable_truncation(4)
    path = write()
    backend.save(str(path))
    tokens = ClipTokenizer.from_file(path, context_length=8).encode("a photo of a cat")
    assert tokens.ids.tolist() == [START, 320, 1125, 539, 320, 2368, END, 0]
    assert (tokens.length, tokens.truncated) == (7, False)


@pytest.mark.parametrize("special", ["<|endoftext|>", "<|ENDOFTEXT|>"])
def test_a_literal_end_of_text_ends_what_the_tower_reads_as_in_the_reference(
    tokenizer: ClipTokenizer, special: str
) -> None:
    """The tower pools at the first largest id and attends backwards only: ids after it are not read."""
    with_literal = tokenizer.encode(f"a cat{special}a dog")
    pooled = int(with_literal.ids.argmax())
    plain = tokenizer.encode("a cat")
    assert pooled == plain.length - 1
    assert with_literal.ids[: pooled + 1].tolist() == plain.ids[: pooled + 1].tolist()


def test_a_long_text_leaves_pythons_lock_to_other_threads(write: Callable[..., Path]) -> None:
    backend, text = tokenizers.Tokenizer.from_file(str(write())), "7" * 50_000
    longest, turns, ended = 0.0, 0, threading.Event()

    def work() -> None:
        nonlocal longest, turns
        last = time.perf_counter()
        while not ended.is_set():
            now = time.perf_counter()
            longest, last, turns = max(longest, now - last), now, turns + 1

    def share() -> float:
        """The longest that the other thread had to wait during a call, as a share of the call."""
        nonlocal longest
        began, longest = time.perf_counter(), 0.0
        ids_of(backend, text)
        took, turn = time.perf_counter() - began, turns
        while turns < turn + 2:
            time.sleep(0.001)
        return longest / took

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert min(share() for _ in range(5)) < 0.5
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize(("text", "position"), [("\ud800", 0), ("a cat\udfff", 5), ("cat " * 1000 + "\udc80", 4000)])
def test_a_lone_surrogate_is_refused_wherever_it_is(tokenizer: ClipTokenizer, text: str, position: int) -> None:
    with pytest.raises(InvalidTextError, match="lone surrogate") as caught:
        tokenizer.encode(text)
    assert caught.value.details == {"position": position}


def test_only_whitespace_of_the_tokenizers_library_separates_words() -> None:
    whitespace = tokenizers.normalizers.Replace(tokenizers.Regex(r"\s"), "")
    theirs = [character for character in EVERY_CHARACTER if whitespace.normalize_str(character) == ""]
    assert theirs == re.findall(f"[{WHITESPACE}]", "".join(EVERY_CHARACTER))


def test_composition_never_reaches_across_whitespace() -> None:
    """So what follows whitespace cannot change what stands before it: the words can be cut off unseen."""
    whitespace = set(re.findall(f"[{WHITESPACE}]", "".join(EVERY_CHARACTER)))
    assert all(unicodedata.combining(space) == 0 for space in whitespace)
    assert {unicodedata.normalize("NFC", space) for space in whitespace} <= whitespace
    for character in EVERY_CHARACTER:
        canonical = re.fullmatch("[0-9A-F ]+", unicodedata.decomposition(character))
        if canonical and character not in whitespace:
            assert whitespace.isdisjoint(chr(int(code, 16)) for code in canonical.group().split())


def test_every_character_that_is_not_whitespace_makes_a_token(rules: dict[str, Any]) -> None:
    """Each is found by one part of the split's pattern, and every byte it can turn into is in the vocabulary."""
    text = re.sub(f"[{WHITESPACE}]", "", "".join(EVERY_CHARACTER))
    pieces = tokenizers.normalizers.Replace(tokenizers.Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "")
    lower = tokenizers.normalizers.Sequence([tokenizers.normalizers.NFC(), tokenizers.normalizers.Lowercase()])
    assert pieces.normalize_str(lower.normalize_str(text)) == ""
    for byte in tokenizers.pre_tokenizers.ByteLevel.alphabet():
        assert {byte, byte + "</w>"} <= rules["model"]["vocab"].keys()


@pytest.mark.parametrize("separator", [" ", "\r\n", "\u3000", "\x85"])
def test_words_past_the_context_change_nothing(tokenizer: ClipTokenizer, separator: str) -> None:
    first = separator.join(f"word{index}" for index in range(76))
    short, long = tokenizer.encode(first), tokenizer.encode(first + separator + "\u0301\u0308 <|endoftext|> more " * 50)
    assert short.ids.tolist() == long.ids.tolist()
    assert long.truncated


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("cat " * 2_500_000, id="10 MB of words"),
        pytest.param(" " * 10_000_000 + "cat", id="10 MB of spaces before a word"),
        pytest.param("a" * MAX_CHARACTERS, id="one long word"),
        pytest.param("\u0130" * MAX_CHARACTERS, id="capitals that become two characters"),
        pytest.param("\U0001d160" * MAX_CHARACTERS, id="characters that decompose into three"),
        pytest.param("a" + "\u0301\u0323" * (MAX_CHARACTERS // 2 - 1), id="deep combining marks"),
        pytest.param("\u1112\u1161\u11ab" * (MAX_CHARACTERS // 3), id="letters that compose"),
        pytest.param("<|" * (MAX_CHARACTERS // 2), id="beginnings of special tokens"),
    ],
)
def test_hostile_text_is_tokenized_in_bounded_time(tokenizer: ClipTokenizer, text: str) -> None:
    started = time.process_time()
    tokens = tokenizer.encode(text)
    assert time.process_time() - started < 2, "about 0.1 s is expected"
    assert tokens.length <= 77


@pytest.mark.parametrize(
    "text", ["a" * (MAX_CHARACTERS + 1), "a" * 10_000_000, "cat " * 70 + "\u0301" * MAX_CHARACTERS]
)
def test_words_too_long_to_tokenize_are_refused_at_once(tokenizer: ClipTokenizer, text: str) -> None:
    started = time.process_time()
    with pytest.raises(InvalidTextError, match="more than 10,000") as caught:
        tokenizer.encode(text)
    assert time.process_time() - started < 2, "about 0.1 s is expected"
    assert caught.value.details == {"limit": MAX_CHARACTERS}


def test_threads_get_the_ids_one_thread_gets(tokenizer: ClipTokenizer, golden: list[tuple[str, list[int]]]) -> None:
    texts = [text for text, _ in golden] * 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(tokenizer.encode, texts))
    assert [tokens.ids.tolist() for tokens in together] == [tokenizer.encode(text).ids.tolist() for text in texts]


def test_a_file_of_transformers_5_gives_the_same_ids(write: Callable[..., Path], rules: dict[str, Any]) -> None:
    split, byte_level = rules["pre_tokenizer"]["pretokenizers"]
    pattern = {"Regex": r"<\|startoftext\|>|<\|endoftext\|>|" + split["pattern"]["Regex"]}
    newer = {"type": "Sequence", "pretokenizers": [{**split, "pattern": pattern}, byte_level]}
    tokens = ClipTokenizer.from_file(write(pre_tokenizer=newer)).encode("It's a cat<|endoftext|>")
    assert tokens.ids[: tokens.length].tolist() == [START, 585, 568, 320, 2368, END, END]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer": None}, "are not CLIP's"),
        ({"normalizer": {"type": "Lowercase"}}, "are not CLIP's"),
        ({"pre_tokenizer": None}, "TypeError"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "KeyError"),
        ({"model": {"type": "BPE", "vocab": {}, "merges": [], "unk_token": None}}, "are not CLIP's"),
        ({"added_tokens": [{"content": "two words"}]}, "are not CLIP's"),
        ({"decoder": {"type": "Nonsense"}}, "Exception"),
        ({"post_processor": None}, "An empty text has 0 tokens"),
    ],
)
def test_a_tokenizer_without_clips_rules_is_refused(
    write: Callable[..., Path], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelCorruptError, match=reason):
        ClipTokenizer.from_file(write(**changes))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ModelCorruptError, match=r"tokenizer\.json"):
        ClipTokenizer.from_file(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelCorruptError, match=r"tokenizer\.json"):
        ClipTokenizer.from_file(tmp_path / "tokenizer.json")


def test_a_context_without_room_for_a_token_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(ModelCorruptError, match="the context 2"):
        ClipTokenizer.from_file(write(), context_length=2)
