"""Recognizer and responder take what a caller has, and give what the commands give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import selfemo
from selfemo import Dialogue, Model, Recognizer, Responder, Turn

LABELS = ["joy", "anger", "neutral"]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model(tiny_model, labels=LABELS)


@pytest.fixture(scope="module")
def recognizer(model: Model) -> Iterator[Recognizer]:
    with Recognizer(model, engine_args={"batch_size": 4}) as opened:
        yield opened


def test_labels_that_are_one_text_are_refused(tiny_model: Path) -> None:
    with pytest.raises(TypeError, match="must be a list, not a string"):
        Model(tiny_model, labels="neutral,joy")


def test_every_form_of_a_turn_gives_the_same(recognizer: Recognizer) -> None:
    texts = recognizer.predict(["Ann: We won!", "Bo: At last."])
    pairs = recognizer.predict([("Ann", "We won!"), ("Bo", "At last.")])
    turns = recognizer.predict([Turn("Ann", "We won!"), Turn("Bo", "At last.")])
    assert texts == pairs == turns
    assert [(p.speaker, p.text, p.utterance) for p in texts] == [
        ("Ann", "We won!", 0),
        ("Bo", "At last.", 1),
    ]


def test_probabilities_are_over_the_labels(recognizer: Recognizer) -> None:
    prediction = recognizer.predict("Ann: We won!")
    assert list(prediction.probabilities) == recognizer.labels == LABELS
    assert sum(prediction.probabilities.values()) == pytest.approx(1.0)
    assert prediction.label in LABELS
    assert prediction.speaker == "Ann"
    assert recognizer.predict("We won!", probabilities=False).probabilities == {}


def test_dialogues_are_read_together_and_stay_apart(recognizer: Recognizer) -> None:
    first, second = ["Ann: We won!", "Bo: At last."], ["Cem: It is late."]
    both = recognizer.predict([Dialogue(first, "a"), Dialogue(second, "b")])
    assert [[p.dialogue_id for p in d] for d in both] == [["a", "a"], ["b"]]
    assert [[p.text for p in d] for d in both] == [["We won!", "At last."], ["It is late."]]
    assert [p.labels for p in both[0]] == [p.labels for p in recognizer.predict(first)]


def test_an_empty_dialogue_has_no_prediction(recognizer: Recognizer) -> None:
    assert recognizer.predict([]) == []
    assert recognizer.predict([Dialogue([]), Dialogue(["Hi"])])[0] == []


def test_files_are_read_as_the_command_reads_them(recognizer: Recognizer, tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_text("Ann: We won!\nBo: At last.\n\nCem: It is late.\n")
    dialogues = selfemo.read_dialogues(tmp_path / "talk.txt")
    assert dialogues == [
        Dialogue([Turn("Ann", "We won!"), Turn("Bo", "At last.")], "1"),
        Dialogue([Turn("Cem", "It is late.")], "2"),
    ]
    assert len(recognizer.predict(dialogues)) == 2
    with pytest.raises(selfemo.BadInput, match="no-such-file"):
        selfemo.read_dialogues(tmp_path / "no-such-file.jsonl")


def test_wrong_turns_are_refused(recognizer: Recognizer) -> None:
    with pytest.raises(selfemo.BadInput, match="empty"):
        recognizer.predict("  ")
    with pytest.raises(selfemo.BadInput, match="'Ann' has no text"):
        recognizer.predict([("Ann", " ")])
    with pytest.raises(selfemo.BadInput, match="has no speaker, but the first line has one"):
        recognizer.predict(["Ann: We won!", "At last."])
    with pytest.raises(TypeError, match="not 3"):
        recognizer.predict([3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="all be strings, or all have a speaker"):
        recognizer.predict(["Hi", ("Bo", "Hello")])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="all entries must be dialogues"):
        recognizer.predict([Dialogue(["Hi"]), "Hello"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="must be a list, not a string"):
        recognizer.predict([Dialogue("Hi")])  # type: ignore[arg-type]


def test_replies_repeat_with_their_seed(model: Model, recognizer: Recognizer) -> None:
    with Responder(model, judge=recognizer) as responder:
        turns = ["Ann: We won!", "Bo: At last."]
        replies = responder.reply(turns, emotion="joy", n=3, seed=7)
        assert replies == responder.reply(turns, emotion="joy", n=3, seed=7)
        assert replies == responder.reply(turns, emotion="joy", n=3, seed=7, speaker="Ann")
        assert replies != responder.reply(turns, emotion="joy", n=3, seed=8)
        assert len(replies) == 3
        assert set(replies[0].reading) == set(responder.labels)
        with pytest.raises(selfemo.BadInput, match="rage is not a label"):
            responder.reply(turns, emotion="rage")
        with pytest.raises(selfemo.BadInput, match="at least one turn"):
            responder.reply([], emotion="joy")


def test_a_model_that_is_not_there_is_told() -> None:
    with pytest.raises(selfemo.BadInput, match="no-such-model does not exist"):
        Recognizer("no-such-model")


def test_a_model_without_a_description_needs_labels(tiny_model: Path) -> None:
    with pytest.raises(selfemo.BadInput, match="labels are not known"):
        Recognizer(tiny_model)


def test_an_iterator_is_read_once(recognizer: Recognizer) -> None:
    texts = ["Ann: We won!", "Bo: At last."]
    assert recognizer.predict(text for text in texts) == recognizer.predict(texts)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not a single Turn"):
        recognizer.predict(Turn("Ann", "We won!"))  # type: ignore[call-overload]


@pytest.mark.parametrize("turn", ["hi " + chr(0xDCE9), ("Ann", "hi " + chr(0xDCE9))])
def test_half_of_a_surrogate_pair_is_refused(turn: object, recognizer: Recognizer) -> None:
    with pytest.raises(selfemo.BadInput, match="unpaired surrogate"):
        recognizer.predict([turn])  # type: ignore[list-item]
