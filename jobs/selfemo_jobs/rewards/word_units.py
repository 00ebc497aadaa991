"""Words of any script: the one place that decides where a word begins and ends.

Two kinds of scripts are told apart by Unicode's properties:

- Scripts with blanks between words (Latin, Cyrillic, Arabic, Hebrew, Devanagari, Hangul …). A word
  is a run of letters and digits with their combining marks. Apostrophes inside are part of it.
- Scripts without (:data:`UNSPACED_SCRIPTS`). Only a dictionary finds words there, so each grapheme
  cluster counts as a word: a Han character, a kana, a Thai consonant with its vowel sign and tone.

Penalties, diversity, near duplicates and the parsing of answers all use this module.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import regex

#: The scripts that are written without blanks between words, as sets of Unicode characters. Some
#: signs of Japanese and Chinese, such as the long-vowel mark, belong to several scripts: `scx` is
#: the property that names all of them.
UNSPACED_SCRIPTS = "".join(
    (
        *(rf"\p{{scx={name}}}" for name in ("Han", "Hiragana", "Katakana")),
        *(
            rf"\p{{Script={name}}}"
            for name in (
                *("Bopomofo", "Yi", "Thai", "Lao", "Khmer", "Myanmar"),
                *("Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet"),
            )
        ),
    )
)
#: A set: what a cluster of these scripts begins with. Unicode begins a cluster at some vowel signs
#: of Myanmar.
_CLUSTER = rf"[[{UNSPACED_SCRIPTS}]&&[\p{{L}}\p{{Nl}}\p{{M}}]]"
#: A set: letters of the scripts without blanks.
UNSPACED = rf"[[{UNSPACED_SCRIPTS}]&&[\p{{L}}\p{{Nl}}]]"
#: A set: letters and digits of all other scripts.
SPACED = rf"[[\p{{L}}\p{{N}}]--{UNSPACED}]"

_LETTER = rf"{SPACED}\p{{M}}*"
#: Between two letters of one word: an apostrophe, a joiner of Persian or Indic text, or the mark of
#: a Hebrew abbreviation.
_INSIDE = r"(?:['’\u200c\u200d]|(?<=\p{Hebrew}\p{M}*)[\"׳״](?=\p{Hebrew}))"
_WORD = regex.compile(rf"(?={_CLUSTER})\X|(?:{_LETTER})+(?:{_INSIDE}(?:{_LETTER})+)*", regex.V1)
_UNSPACED_WORD = regex.compile(_CLUSTER, regex.V1)
#: The same rule for text without such scripts and without combining marks, whose apostrophes have
#: one form. It is several times faster, and most text is of this kind.
_PLAIN_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
#: A character that text of this kind does not have: it has letters of the first Unicode blocks, and
#: the dashes, quotation marks and dots of typography.
_NOT_PLAIN = re.compile(r"[^\u0000-\u02ff\u2010-\u2027\u2030-\u205e]")
#: Letters and signs in the width of another script: fullwidth Latin, halfwidth kana.
_OTHER_WIDTH = regex.compile(r"[\uff00-\uffef]+")
_VARIATION_SELECTOR = regex.compile(r"\p{Variation_Selector}+")
#: White space within a line.
_BLANKS = regex.compile(r"[^\S\n]+")
#: Keyboards and word processors write other signs for the apostrophe.
_APOSTROPHES = str.maketrans({"’": "'", "ʼ": "'"})


def normalize_text(text: str) -> str:
    """Return a text in lower case, with one code for each character that looks the same.

    Fullwidth and halfwidth letters get their usual width. Marks are composed with their letters
    (Unicode's form NFC), and selectors of a glyph's variant are left out.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    str
        The normalized text. ASCII text is only put in lower case.

    Examples
    --------
    >>> normalize_text("ＯＫ, ﾊﾟﾝ")
    'ok, パン'
    """
    lower = text.lower()
    if lower.isascii():
        return lower
    usual = _OTHER_WIDTH.sub(lambda match: unicodedata.normalize("NFKC", match[0]), lower)
    return unicodedata.normalize("NFC", _VARIATION_SELECTOR.sub("", usual))


def normalize_answer(text: str) -> str:
    """Return the form in which answers are compared with labels.

    It is in lower case and usual widths, without selectors of a sign's variant, with single blanks
    and none at its ends.

    Parameters
    ----------
    text
        An answer or a label.

    Examples
    --------
    >>> normalize_answer(" Ｎｏ  emotion")
    'no emotion'
    """
    return str(_BLANKS.sub(" ", normalize_text(text))).strip()


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation.

    Parameters
    ----------
    text
        Text of any scripts, also several in one. Apostrophes within a word are part of the word;
        all their forms count as one.
        In a script without blanks between words, each grapheme cluster is one.

    Returns
    -------
    list of str
        The words, in order.

    Examples
    --------
    >>> split_words("Oh no, don't!")
    ['oh', 'no', "don't"]
    >>> split_words("我很 happy，真的！")
    ['我', '很', 'happy', '真', '的']
    >>> split_words("मुझे खुशी है।")
    ['मुझे', 'खुशी', 'है']
    """
    lower = text.lower().translate(_APOSTROPHES)
    if not _NOT_PLAIN.search(lower):
        return _PLAIN_WORD.findall(lower)
    words: list[str] = _WORD.findall(normalize_text(lower))
    return words


def is_unspaced(word: str) -> bool:
    """Return whether a word is one cluster of a script without blanks between words.

    Parameters
    ----------
    word
        A word, as :func:`split_words` returns it.

    Examples
    --------
    >>> is_unspaced("我"), is_unspaced("joy"), is_unspaced("2")
    (True, False, False)
    """
    return _UNSPACED_WORD.match(word) is not None


def contains_run(words: Sequence[str], run: Sequence[str]) -> bool:
    """Return whether some words contain others one after the other, in the same order.

    Parameters
    ----------
    words
        The words of a text, as :func:`split_words` returns them.
    run
        The words to look for, at least one.

    Examples
    --------
    >>> contains_run(["今", "天", "真", "开", "心"], ["开", "心"])
    True
    >>> contains_run(["开", "了", "心"], ["开", "心"])
    False
    """
    return f" {' '.join(run)} " in f" {' '.join(words)} "


def spaced_text(text: str) -> str:
    """Return a text whose words have blanks between them, for programs that split at blanks.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    str
        The words, joined by blanks. ASCII text is returned as it is: it has its blanks, and other
        programs know its punctuation.

    Examples
    --------
    >>> spaced_text("别走，好吗？")
    '别 走 好 吗'
    >>> spaced_text("Don't go, OK?")
    "Don't go, OK?"
    """
    if text.isascii():
        return text
    return " ".join(split_words(text))
