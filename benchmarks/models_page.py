"""Writes the tables of docs/models.md and docs/models.ja.md from what clipsrv/models knows.

`python -m benchmarks.models_page`.

Between the marks only; the words around them are written by hand. A test holds both pages equal to this.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clipsrv.models.known import CHOICES, KNOWN, Found, KnownModel
from clipsrv.models.shapes import SHAPES

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {"en": DOCS / "models.md", "ja": DOCS / "models.ja.md"}
WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "head": "| need | model | why | languages | finds English / Japanese | licence |",
        "all": "| model | languages | what for | finds English / Japanese | licence | checkpoint |",
        "sizes": "| models | parameters | speed, fp32 | speed, int8 | memory, fp32 |",
        "million": "{0:.0f} million",
        "en": "English",
        "ja": "Japanese",
        "zh": "Chinese",
        "many": "100 and more",
        "speed": "speed on 2 cores",
        "licence": "free licence, also for a shop",
    },
    "ja": {
        "head": "| 目的 | モデル | 理由 | 対応言語 | 検索精度 英語 / 日本語 | ライセンス |",
        "all": "| モデル | 対応言語 | 用途 | 検索精度 英語 / 日本語 | ライセンス | チェックポイント |",
        "sizes": "| モデル | パラメーター数 | 速さ fp32 | 速さ int8 | メモリ fp32 |",
        "million": "{1:.1f} 億",
        "en": "英語",
        "ja": "日本語",
        "zh": "中国語",
        "many": "100 以上",
        "Japanese": "日本語",
        "fashion": "ファッション",
        "speed": "2 コアでの速さ",
        "quality": "品質",
        "licence": "商用でも自由なライセンス",
        "see the model card": "モデルカードを参照",
        "research only (Apple)": "研究用途のみ (Apple)",
    },
}
PURPOSES_JA = {
    "vit-b-32": "OpenAI の中で最速",
    "vit-b-16": "速さと品質の中間",
    "vit-l-14": "高品質",
    "vit-l-14-336": "OpenAI の中で最高品質。低速",
    "laion-b-32": "vit-b-32 と同じ速さで、より多く見つかる",
    "laion-b-16": "vit-b-16 相当で、より多く見つかる",
    "laion-l-14": "vit-l-14 相当で、より多く見つかる",
    "laion-h-14": "大型。GPU 向き",
    "datacomp-b-32": "選別した学習データ。vit-b-32 と同じ速さ",
    "datacomp-b-16": "選別した学習データ",
    "datacomp-l-14": "選別した学習データ",
    "dfn-l-14": "大きさの割に高品質",
    "fashion-clip": "衣料品。vit-b-32 と同じ速さ",
    "marqo-fashion": "衣料品。fashion-clip より多く見つかる",
    "marqo-shop-b": "商品全般",
    "xlm-roberta-b-32": "日本語に強い。画像は vit-b-32 と同じ速さ",
    "metaclip2-b-32": "vit-b-32 と同じ速さ",
    "chinese-clip-b-16": "vit-b-16 と同じ大きさ",
    "siglip2-b-16-256": "CPU で使える高品質",
    "siglip2-b-32-256": "vit-b-32 の四分の三の速さ",
    "siglip2-so400m-14-384": "大型。GPU 向き",
    "waon-siglip2-b-16-256": "日本語優先。SigLIP 2 を追加学習したもの",
}


def by_need(language: str) -> str:
    """The table by need: what to take for each, best first."""
    words = WORDS[language]
    lines = [words["head"], "|---|---|---|---|---|---|"]
    for need, names in CHOICES.items():
        for name in names:
            known = KNOWN[name]
            facts = (words.get(need, need), f"`{name}`", _purpose(language, name), _languages(known, words))
            lines.append(_row(*facts, _found(known.found), _license(known, words)))
    return "\n".join(lines)


def of_all(language: str) -> str:
    """The table of everything that `python -m conversions --list` names."""
    words = WORDS[language]
    lines = [words["all"], "|---|---|---|---|---|---|"]
    for name, known in KNOWN.items():
        place = f"[{known.repo}](https://huggingface.co/{known.repo})"
        facts = (f"`{name}`", _languages(known, words), _purpose(language, name))
        lines.append(_row(*facts, _found(known.found), _license(known, words), place))
    return "\n".join(lines)


def commands(language: str) -> str:
    """What to type for each model of the table by need, once."""
    words, lines, said = WORDS[language], ["```bash"], set[str]()
    extras = sorted({KNOWN[name].extra for names in CHOICES.values() for name in names if KNOWN[name].extra})
    lines.append(f"pip install --editable '.[{','.join(['convert', *extras])}]'")
    for need, names in CHOICES.items():
        new = [name for name in names if name not in said]
        said.update(new)
        if new:
            lines += ["", f"# {words.get(need, need)}"]
        for name in new:
            lines += [f"python -m conversions {name}", f"python -m clipsrv --model {name}"]
    return "\n".join([*lines, "```"])


def of_sizes(language: str) -> str:
    """The table of what was measured of each architecture."""
    words = WORDS[language]
    lines = [words["sizes"], "|---|---:|---:|---:|---:|"]
    for name, shape in SHAPES.items():
        models = ", ".join(f"`{model}`" for model, known in KNOWN.items() if known.shape == name)
        speeds = ("-" if one is None else f"{one:.2g}" for one in (shape.fp32, shape.int8))
        memory = "-" if shape.memory is None else f"{shape.memory:.1f} GiB"
        lines.append(_row(models, words["million"].format(shape.parameters, shape.parameters / 100), *speeds, memory))
    return "\n".join(lines)


def filled(page: str, language: str) -> str:
    """`page` with the tables of today between their marks. Raises ValueError where a mark is missing."""
    for mark, table in (("needs", by_need), ("commands", commands), ("sizes", of_sizes), ("all", of_all)):
        before, begin, rest = page.partition(f"<!-- {mark}: begin -->\n")
        _, end, after = rest.partition(f"<!-- {mark}: end -->")
        if not begin or not end:
            raise ValueError(f"the page needs a begin and an end for {mark}")
        page = f"{before}{begin}{table(language)}\n{end}{after}"
    return page


def _purpose(language: str, name: str) -> str:
    return PURPOSES_JA[name] if language == "ja" else KNOWN[name].purpose


def _languages(known: KnownModel, words: Mapping[str, str]) -> str:
    return ", ".join(words[one] for one in known.languages)


def _license(known: KnownModel, words: Mapping[str, str]) -> str:
    return words.get(known.license, known.license)


def _found(found: Found) -> str:
    if found == Found():
        return "-"
    return " / ".join("-" if one is None else f"{one:.1f}" for one in (found.english, found.japanese))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    for language, path in PAGES.items():
        path.write_text(filled(path.read_text(encoding="utf-8"), language), encoding="utf-8")


if __name__ == "__main__":
    main()
