"""Labels of any script and form, and utterances without one."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.dialogue_files import read, write_json, write_lines, write_table

from selfemo_api import dataset_labels as sets
from selfemo_api.dataset_labels import label_key
from selfemo_api.spec import DataFormat
from selfemo_jobs.errors import BadInput

SCRIPTS = ["no_emotion", "not sure", "Überraschung", "злость", "行复", "فرح", "ดีใจ", "İlgi", "ß"]


def labels_of(path: Path, labels: Any, kind: DataFormat | None = None, **options: Any) -> list[Any]:
    content = read(path, labels, kind, **options)
    return [turn.labels for dialogue in content.dialogues for turn in dialogue.turns]


@pytest.mark.parametrize("label", SCRIPTS)
@pytest.mark.parametrize(
    "change",
    [
        str,
        str.upper,
        str.casefold,
        lambda text: f"\t{text} ",
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: unicodedata.normalize("NFC", text),
    ],
)
def test_label_is_that_of_the_label_set(tmp_path: Path, label: str, change: Any) -> None:
    line = {"id": "a", "turns": [{"speaker": "A", "text": "Hi", "labels": [change(label)]}]}
    assert labels_of(write_lines(tmp_path / "d.jsonl", [line]), SCRIPTS) == [(label,)]
    rows = [{"text": "Hi", "label": change(label)}]
    assert labels_of(write_table(tmp_path / "d.csv", rows), SCRIPTS) == [(label,)]


def test_underscores_and_blanks_are_different(tmp_path: Path) -> None:
    line = {"id": "a", "turns": [{"speaker": "A", "text": "Hi", "labels": ["no emotion"]}]}
    path = write_lines(tmp_path / "d.jsonl", [line])
    with pytest.raises(BadInput, match="`labels` is `no emotion`, an unknown emotion"):
        read(path, ["no_emotion", "joy"])
    assert labels_of(path, ["no_emotion", "joy"], label_map={"No Emotion": "no_emotion"}) == [
        ("no_emotion",)
    ]


def test_the_same_label_in_other_letters_is_there_twice(tmp_path: Path) -> None:
    turn = {"speaker": "A", "text": "Hi", "labels": ["colère", "COLE\u0300RE"]}
    path = write_lines(tmp_path / "d.jsonl", [{"id": "a", "turns": [turn]}])
    with pytest.raises(BadInput, match=r"`turns\[0\].labels` contains an emotion twice"):
        read(path, ["colère"])


@given(st.text())
def test_key_of_a_key_is_itself(label: str) -> None:
    key = label_key(label)
    assert label_key(key) == key
    assert label_key(f" {unicodedata.normalize('NFD', label)} ") == key


def test_without_a_label_set_labels_keep_their_first_form(tmp_path: Path) -> None:
    rows = [{"text": "Hi", "label": label} for label in ("Wut", "wut", "高兴", "WUT")]
    assert labels_of(write_table(tmp_path / "d.csv", rows), None) == [
        ("Wut",),
        ("Wut",),
        ("高兴",),
        ("Wut",),
    ]


def test_label_that_the_map_renames_must_be_in_the_set(tmp_path: Path) -> None:
    path = write_table(tmp_path / "d.csv", [{"text": "Hi", "label": "fury"}])
    with pytest.raises(BadInput, match="`label` is `rage`, an unknown emotion"):
        read(path, ["anger", "joy"], label_map={"fury": "rage"})


class TestIemocap:
    def write(self, path: Path, labels: list[Any]) -> Path:
        sentences = [f"Sentence {i}." for i in range(len(labels))]
        dialogue = {"sentences": sentences, "genders": ["M"] * len(labels), "labels": labels}
        return write_json(path / "i.json", {"Ses04M_impro03": dialogue})

    @pytest.mark.parametrize("nothing", ["xxx", "XXX", -1, "-1", None, "", " "])
    @pytest.mark.parametrize("kind", [None, DataFormat.IEMOCAP])
    def test_turn_without_a_label_is_context(
        self, tmp_path: Path, nothing: Any, kind: DataFormat | None
    ) -> None:
        path = self.write(tmp_path, [5, nothing, "sad"])
        assert labels_of(path, sets.IEMOCAP, kind) == [("frustrated",), (), ("sad",)]

    def test_numbers_have_the_order_of_the_six_labels(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, [0, 1, 2, 3, 4, 5])
        shuffled = ["angry", "Frustrated", "happy", "neutral", "sad", "excited"]
        assert labels_of(path, shuffled) == [
            *(("happy",), ("sad",), ("neutral",), ("angry",), ("excited",), ("Frustrated",))
        ]

    @pytest.mark.parametrize("order", [["neutral", "happy", "sad", "angry"], ["happy", "sad"]])
    def test_numbers_of_another_set_need_the_map(self, tmp_path: Path, order: list[str]) -> None:
        path = self.write(tmp_path, [1, 0])
        with pytest.raises(BadInput) as caught:
            read(path, order)
        assert str(caught.value) == (
            f"{path.as_uri()}: `Ses04M_impro03.labels[0]` is 1: numbers refer to happy, sad, "
            "neutral, angry, excited, frustrated, and `dataset.labels` has other labels: "
            f'specify the label of each number in `dataset.labelMap`, for example "0": {order[0]}'
        )
        label_map = {str(number): label for number, label in enumerate(order)}
        assert labels_of(path, order, label_map=label_map) == [(order[1],), (order[0],)]

    def test_six_classes_joined_to_four(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, [4, 5, 2])
        joined = {"excited": "happy", "frustrated": "angry"}
        assert labels_of(path, ["neutral", "happy", "sad", "angry"], label_map=joined) == [
            ("happy",),
            ("angry",),
            ("neutral",),
        ]

    def test_short_names_by_the_map(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, ["hap", "oth"])
        label_map = {"hap": "happy", "oth": ""}
        assert labels_of(path, sets.IEMOCAP, label_map=label_map) == [("happy",), ()]

    def test_lines_of_instructerc_are_decided(self, tmp_path: Path) -> None:
        prompt = (
            "The following conversation noted between '### ###' involves several speakers. ### "
            '\t Speaker_1:"Leave me." ### Please select the emotional label of <Speaker_1> from <…>'
        )
        path = tmp_path / "train.json"
        path.write_text(json.dumps({"input": prompt, "target": "angry"}) + "\n")
        content = read(path, sets.IEMOCAP)
        assert content.kind is DataFormat.IEMOCAP
        assert content.dialogues[0].turns[0].labels == ("angry",)
