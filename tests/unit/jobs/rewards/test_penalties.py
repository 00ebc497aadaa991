"""The faults of a response that cost a penalty."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.dataset_labels import EMORYNLP, IEMOCAP, MELD
from selfemo_jobs.rewards import Faults, find_faults
from selfemo_jobs.rewards.penalties import names_any_label, repeated_share, split_words, word_forms

CONTEXT = ("Where were you last night?", "Oh no", "I was at the coffee house with Phoebe.")


def faults_of(response: str, intended: tuple[str, ...] = ("joy",)) -> Faults:
    return find_faults(response, CONTEXT, intended, min_words=2, max_words=8)


def test_an_ordinary_response_has_no_faults() -> None:
    assert faults_of("That's the best news ever!").count == 0


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("I am so ANGRY with you", "anger"),
        ("There's such anger here", "anger"),
        ("You're happier than me", "happy"),
        ("What a joyous day it is", "joy"),
        ("'Sad,' she said", "sadness"),
        ("It surprises me as well", "surprise"),
        ("I feel bored out there", "bored"),
        ("Such boredly talk it is", "bored"),
        ("You envied me for that", "envy"),
        ("I loved that so much", "love"),
        ("He is self conscious today", "self-conscious"),
    ],
)
def test_word_forms_name_the_emotion(response: str, label: str) -> None:
    assert faults_of(response, (label,)).names_emotion


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("Good morning madam, how nice", "mad"),
        ("The power went out again", "powerful"),
        ("I could kill you for this", "anger"),
        ("I am so angry with you", "joy"),
        ("That sadist of a teacher", "sad"),
        ("He is conscious of it now", "self-conscious"),
        ("We live in that house", "love"),
    ],
)
def test_other_words_do_not_name_the_emotion(response: str, label: str) -> None:
    assert not faults_of(response, (label,)).names_emotion


@pytest.mark.parametrize("label", [*MELD, *EMORYNLP, *IEMOCAP])
def test_every_published_label_names_itself(label: str) -> None:
    assert names_any_label(split_words(f"I feel {label}, you know"), [label])
    assert all(form.isalpha() for form in word_forms(label))


@pytest.mark.parametrize(
    ("response", "repeats"),
    [
        ("I was at the coffee house", True),
        ("Well, I was at the coffee house too!", True),
        ("Was it nice at the coffee house downtown then?", False),
        ("Was at the station", False),  # half of its n-grams, which is allowed
        ("oh, NO!", True),  # the whole of one turn
        ("Oh you", False),
        ("last night", False),  # two words of a turn are not a repetition
        ("", False),
    ],
)
def test_repeated_ngrams_of_the_context_are_a_fault(response: str, repeats: bool) -> None:
    assert faults_of(response).repeats_context is repeats


@pytest.mark.parametrize(
    ("response", "bad"),
    [
        ("", True),
        ("... !!", True),
        ("Yes.", True),
        ("Oh yes.", False),
        ("don’t don't", False),
        ("one two three four five six seven eight", False),
        ("one two three four five six seven eight nine", True),
    ],
)
def test_length_is_measured_in_words(response: str, bad: bool) -> None:
    assert faults_of(response).bad_length is bad


@given(st.lists(st.sampled_from("abcde"), max_size=12), st.lists(st.sampled_from("abcde")))
def test_repeated_share_is_between_0_and_1(words: list[str], turn: list[str]) -> None:
    assert 0.0 <= repeated_share(words, [turn]) <= 1.0
    assert repeated_share(words, [words]) == float(bool(words))
    assert repeated_share(words, []) == 0.0
    assert repeated_share(words, [turn, words]) >= repeated_share(words, [turn])


CHINESE = ("你昨天晚上到底去哪里了？", "好吧", "我和小红在咖啡馆里坐着。")


@pytest.mark.parametrize(
    ("response", "repeats"),
    [
        ("我和小红在咖啡馆里坐着", True),
        ("嗯，我和小红在咖啡馆里坐着呢！", True),
        ("你怎么现在才回来啊", False),
        ("咖啡馆里的人多不多", False),
        ("好吧！", True),  # the whole of one turn
        ("好的", False),
        ("咖啡", False),  # two characters of a turn are not a repetition
        ("？！", False),
    ],
)
def test_repeated_runs_of_characters_are_a_fault(response: str, repeats: bool) -> None:
    faults = find_faults(response, CHINESE, ("生气",), min_words=2, max_words=8)
    assert faults.repeats_context is repeats


@pytest.mark.parametrize(
    ("response", "bad"),
    [
        ("？！。", True),
        ("好", True),
        ("好的", False),
        ("好，走！", False),
        ("今天天气真不错", False),
        ("我们明天再说这件事吧", True),
        ("OK 好 3", False),
        ("ดี", True),
        ("ดีใจ", False),
        ("نعم", True),
        ("نعم، شكرًا", False),
        ("はい、どうぞ", False),
    ],
)
def test_length_is_measured_in_the_words_of_the_script(response: str, bad: bool) -> None:
    assert find_faults(response, (), ("joy",), min_words=2, max_words=8).bad_length is bad
