"""Words of any script."""

from __future__ import annotations

import re
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from selfemo_jobs.rewards import word_units
from selfemo_jobs.rewards.word_units import (
    contains_run,
    is_unspaced,
    normalize_text,
    spaced_text,
    split_words,
)

#: The rule of text in Latin script: letters and digits, with apostrophes inside.
ENGLISH_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def one_apostrophe(text: str) -> str:
    return text.replace("’", "'").replace("ʼ", "'")


#: Letters of the first Unicode blocks, and the signs of English typography. The Turkish capital İ
#: has a combining mark in lower case.
LATIN = st.text(
    st.one_of(
        st.characters(max_codepoint=0x2FF, exclude_characters="İ"),
        st.sampled_from("’‘“”…–—•†‹›abcXYZ'_ -"),
    )
)


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_ascii_has_the_words_of_the_english_rule(text: str) -> None:
    assert split_words(text) == ENGLISH_WORD.findall(text.lower())
    assert spaced_text(text) == text


@given(LATIN)
def test_latin_letters_and_typography_have_the_words_of_the_english_rule(text: str) -> None:
    words = ENGLISH_WORD.findall(one_apostrophe(text.lower()))
    assert split_words(text) == words
    assert spaced_text(text) == (text if text.isascii() else " ".join(words))


@pytest.mark.parametrize("sign", ["'", "’", "ʼ"])
def test_all_forms_of_the_apostrophe_are_one(sign: str) -> None:
    assert split_words(f"Don{sign}t, 今天") == ["don't", "今", "天"]
    assert split_words(f"Don{sign}t") == ["don't"]


@given(LATIN)
def test_the_rule_for_all_scripts_is_the_english_rule_for_english(text: str) -> None:
    """The shorter way for plain text changes nothing."""
    assert word_units._WORD.findall(text.lower()) == ENGLISH_WORD.findall(text.lower())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # Han, Hiragana and Katakana: a character is a word, whatever stands between
        ("我们赢了！", ["我", "们", "赢", "了"]),
        ("你好，世界。", ["你", "好", "世", "界"]),
        ("你好 世界", ["你", "好", "世", "界"]),
        ("だいじょうぶ？", ["だ", "い", "じ", "ょ", "う", "ぶ"]),
        ("コーヒー、佐々木", ["コ", "ー", "ヒ", "ー", "佐", "々", "木"]),
        ("か\u3099", ["が"]),  # a voiced sound mark is composed with its kana
        ("ﾊﾟﾝ・ＯＫ！", ["パ", "ン", "ok"]),
        ("葛\U000e0100", ["葛"]),  # a variant of the same character
        # Southeast Asia: a grapheme cluster is a word
        ("ดีใจมาก", ["ดี", "ใ", "จ", "ม", "า", "ก"]),
        ("น้ำ", ["น้ำ"]),
        ("ດີໃຈ", ["ດີ", "ໃ", "ຈ"]),
        ("ខ្ញុំ", ["ខ្ញុំ"]),
        ("တော်။", ["တေ", "ာ်"]),
        # scripts with blanks: marks stay in their word
        ("कैसे हो? मुझे खुशी है।", ["कैसे", "हो", "मुझे", "खुशी", "है"]),
        ("كيف حالُكَ؟ أنا بخير،", ["كيف", "حالُكَ", "أنا", "بخير"]),
        ('מה שְׁלוֹמֵךְ? צה"ל', ["מה", "שְׁלוֹמֵךְ", 'צה"ל']),
        ('אמר "כן" והלך', ["אמר", "כן", "והלך"]),
        ("می\u200cخواهم بروم", ["می\u200cخواهم", "بروم"]),
        ("क\u094d\u200dष", ["क\u094d\u200dष"]),
        ("Приве́т, мир", ["приве́т", "мир"]),
        ("오늘은 정말 기뻐요!", ["오늘은", "정말", "기뻐요"]),
        ("cafe\u0301 I\u0307", ["café", "i̇"]),
        # several scripts in one text, and digits
        ("我很 happy", ["我", "很", "happy"]),
        ("我很happy啊don't", ["我", "很", "happy", "啊", "don't"]),
        ("我今年３０岁，2024年", ["我", "今", "年", "30", "岁", "2024", "年"]),
        ("๒๕๖๗ ปี", ["๒๕๖๗", "ปี"]),
        ("一二三〇", ["一", "二", "三", "〇"]),
        # no words at all
        ("？！。…—", []),
        ("؟،", []),
        ("🙂👍🏽 👩\u200d👩\u200d👧", []),
        ("\u200d\u0301", []),
        ("", []),
    ],
)
def test_words_by_script(text: str, words: list[str]) -> None:
    assert split_words(text) == words


#: Letters, marks and signs of all scripts that the rules tell apart.
ANY_SCRIPT = st.text(
    st.sampled_from(
        "aZé7_'’-. \u200c\u200d\u0301\u00ad我々ー゙ガがｶﾞＡ１，。？กำี้ใ๗ຂີ່ខ្ញុំမော်اُنـ؟حשׁל״\"कि्ष़।한국жё😀️"
    )
)


@given(ANY_SCRIPT)
def test_words_are_words_again(text: str) -> None:
    """Each word is one word, and a blank between words changes none of them."""
    words = split_words(text)
    for word in words:
        assert split_words(word) == [word]
        assert any(unicodedata.category(c)[0] in "LNM" for c in word)
        if is_unspaced(word):
            assert len(regex.findall(r"\X", word)) == 1
    assert split_words(" ".join(words)) == words


@given(ANY_SCRIPT)
def test_case_width_and_composition_do_not_change_words(text: str) -> None:
    assert split_words(normalize_text(text)) == split_words(text)
    assert normalize_text(normalize_text(text)) == normalize_text(text)
    assert split_words(unicodedata.normalize("NFC", text)) == split_words(text)


@given(st.text())
def test_any_text_has_words(text: str) -> None:
    assert split_words(" ".join(split_words(text))) == split_words(text)


def test_a_run_is_found_at_whole_words_only() -> None:
    words = ["开", "心", "happy", "了"]
    assert contains_run(words, ["开"]) and contains_run(words, ["心", "happy", "了"])
    assert not contains_run(words, ["hap"])
    assert not contains_run(words, ["开", "了"])
    assert not contains_run([], ["开"])


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("我很 happy！", "我 很 happy"),
        ("ＯＫ！", "ok"),  # fullwidth punctuation does not make texts differ
        ("كيف حالك؟", "كيف حالك"),
        ("？？？", ""),
        ("…", ""),
        ("Café, “naïve” – don’t!", "café naïve don't"),
        ("", ""),
    ],
)
def test_blanks_are_added_where_english_has_them(text: str, spaced: str) -> None:
    assert spaced_text(text) == spaced
