"""A response names its emotion: labels of any script and form."""

from __future__ import annotations

import pytest

from selfemo_jobs.rewards import find_faults
from selfemo_jobs.rewards.emotion_words import label_parts


def names(response: str, *labels: str) -> bool:
    return find_faults(response, (), labels, min_words=0, max_words=99).names_emotion


@pytest.mark.parametrize(
    ("response", "label"),
    [
        # scripts without blanks: the characters follow each other
        ("我今天真的很开心！", "开心"),
        ("气死我了，我好生气", "生气"),
        ("我很 happy 啊", "happy"),
        ("ＨＡＰＰＹ！", "happy"),
        ("喜びでいっぱいです", "喜び"),
        ("とても悲しくて泣いた", "悲しい"),
        ("今日は悲しい", "悲しい"),
        ("ｳﾚｼｲ気分", "ウレシイ"),
        ("ฉันดีใจมาก", "ดีใจ"),
        ("ຂ້ອຍດີໃຈຫຼາຍ", "ດີໃຈ"),
        ("ខ្ញុំសប្បាយណាស់", "សប្បាយ"),
        ("ပျော်တယ်", "ပျော်"),
        # scripts with blanks: endings, prefixes, marks that may be left out
        ("أنا أشعر بالحزن", "حزن"),
        ("هذا الحُزْنُ كبير", "حزن"),
        ("يا للفرحـــة", "فرحة"),
        ("אני מלא שמחה", "שמחה"),
        ("יש בי הַכַּעַס", "כעס"),
        ("मुझे बहुत खुशी है", "खुशी"),
        ("मैं दुखी हूँ", "दुख"),
        ("Какой страх, подумай", "страх"),
        ("Я полон радости", "радость"),
        ("정말 행복했습니다", "행복"),
        ("기쁨이 넘쳐요", "기쁨"),
        ("화 좀 내지 마", "화"),
        # blanks, underscores, hyphens and upper case in a label
        ("I am very, very happy", "very happy"),
        ("I am so happy and very glad", "very_happy"),
        ("He is self conscious", "Self-Conscious"),
        ("joyful and full of anger, mixed with disgust", "anger/disgust"),
        ("我非常开心，也很兴奋", "开心_兴奋"),
        ("我开心得 crazy", "crazy 开心"),
        ("I FEEL JOY", "Joy"),
        ("Tôi thấy buồn bã quá", "buồn bã"),
        ("Quelle cole\u0300re", "colère"),
        ("Grade A1 it is", "a1"),
        # a sign
        ("so 😀 today", "😀"),
    ],
)
def test_the_emotion_is_named(response: str, label: str) -> None:
    assert names(response, label)
    assert names(response, "other", label)


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("开了很久的心", "开心"),
        ("我想哭一场", "难过"),
        ("今天下雨", "happy"),
        ("喜んでいます", "喜び"),
        ("ใจดีมาก", "ดีใจ"),
        ("أنا بخير اليوم", "حزن"),
        ("купил страховку", "страх"),
        ("화요일에 만나요", "화"),
        ("Happy birthday to you", "very_happy"),
        ("so sad today", "😀"),
        ("", "开心"),
        ("？？？", "开心"),
    ],
)
def test_the_emotion_is_not_named(response: str, label: str) -> None:
    assert not names(response, label)


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("joy", (("joy",),)),
        ("Very_Happy now", (("very",), ("happy",), ("now",))),
        ("开心", (("开", "心"),)),
        ("开心-happy", (("开", "心"), ("happy",))),
        ("很happy了", (("很",), ("happy",), ("了",))),
        ("😀", ()),
        ("--", ()),
    ],
)
def test_the_parts_of_a_label(label: str, parts: tuple[tuple[str, ...], ...]) -> None:
    assert label_parts(label) == parts
