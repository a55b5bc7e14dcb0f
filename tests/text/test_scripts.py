"""A text is said to be in a script that a model does not read only where that is certain."""

from __future__ import annotations

import pytest

from clipsrv.text.scripts import has_unknown_script

ENGLISH, BOTH, CHINESE = ("en",), ("en", "ja"), ("zh",)


@pytest.mark.parametrize(
    "text", ["猫", "赤いハート", "ねこ", "ﾈｺ", "🐈猫!", "「犬」 12", "кошка", "고양이", "แมว", "قطة", "חתול", "बिल्ली"]
)
def test_a_text_whose_letters_are_all_of_other_scripts_is_unknown_to_a_model_of_english(text: str) -> None:
    assert has_unknown_script(text, ENGLISH)


@pytest.mark.parametrize(
    "text",
    [
        "red heart",
        "Tシャツ",
        "SONY カメラ",
        "naïve café",
        "Rotes Herz",
        "ｒｅｄ",
        "𝓁𝑜𝓋𝑒",
        "❤️",
        "",
        " ",
        "1024",
        "①②",
        "μ",
        "π Ω",
        "™",
        "⼀a",
    ],
)
def test_a_text_that_may_be_read_or_has_no_letters_is_not(text: str) -> None:
    assert not has_unknown_script(text, ENGLISH)


@pytest.mark.parametrize(
    ("languages", "known", "unknown"),
    [
        (BOTH, ["猫", "ねこ", "red", "々"], ["고양이", "кошка"]),
        (CHINESE, ["猫", "red"], ["ねこ", "고양이"]),
    ],
)
def test_each_language_knows_its_own_scripts_and_latin_letters(
    languages: tuple[str, ...], known: list[str], unknown: list[str]
) -> None:
    assert not [text for text in known if has_unknown_script(text, languages)]
    assert [text for text in unknown if not has_unknown_script(text, languages)] == []


@pytest.mark.parametrize("languages", [(), ("many",), ("en", "many"), ("en", "de"), ("xx",)])
def test_nothing_is_said_of_a_model_whose_languages_or_scripts_are_not_known(languages: tuple[str, ...]) -> None:
    assert not has_unknown_script("猫", languages)


def test_of_a_long_text_what_the_model_would_read_decides() -> None:
    assert has_unknown_script("猫" * 300 + " cat", ENGLISH)
    assert not has_unknown_script("猫" * 200 + " cat", ENGLISH)
    assert not has_unknown_script(" " * 300 + "猫", ENGLISH)
