"""Figures of dialogues, and findings: labels, repeats, overlaps, odd characters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.dialogue_files import dialogue, write_lines, write_table

from selfemo_api.spec import DatasetSpec, Use
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.inspect_dataset import inspect_dataset
from selfemo_jobs.datasets.inspection import (
    InspectedSource,
    Severity,
    Spread,
    inspect_dialogues,
)

LABELS = ["calm", "cross", "glad"]
LONG = [
    ("Ann", "I went to the market this morning.", "calm"),
    ("Bo", "Was there any bread left at all?", "calm"),
    ("Ann", "Not a single loaf, can you believe it?", "cross"),
    ("Bo", "Then let us bake our own.", "glad"),
]


def source(number: int, name: str, use: Use | None, *dialogues: Dialogue) -> InspectedSource:
    return InspectedSource(f"dataset.sources[{number}]", name, dialogues, use)


def findings(*sources: InspectedSource, labels: Sequence[str] | None = LABELS) -> list[str]:
    report = inspect_dialogues(sources, labels)
    return [f"{f.severity.value} {f}" for f in report.findings]


class TestFigures:
    def test_figures_of_a_source(self) -> None:
        talk = Dialogue("b", (Utterance("Ann", "好的，明天见！", ("glad", "calm")),))
        report = inspect_dialogues(
            [source(0, "train", Use.LABELED, dialogue("a", *LONG, ("Cy", "Well\u200b…")), talk)],
            LABELS,
        )
        (figures,) = report.sources
        assert (report.unit, figures.name, figures.use) == ("words", "train", "Labeled")
        assert (figures.dialogues, figures.turns, figures.speakers) == (2, 6, 3)
        assert figures.turns_per_dialogue == Spread(1, 3.0, 3.0, 5)
        assert figures.length == Spread(1, 6.5, 5.67, 8)
        assert figures.labels == {"calm": 3, "cross": 1, "glad": 2}
        assert list(figures.labels) == LABELS
        assert (figures.unlabeled, figures.several_labels) == (1, 1)
        assert figures.odd_characters == {"U+200B ZERO WIDTH SPACE": 1}

    def test_lengths_in_tokens(self) -> None:
        talk = source(0, "train", None, dialogue("a", ("A", "abc"), ("B", "defgh")))
        report = inspect_dialogues([talk], length=len)
        assert (report.unit, report.sources[0].length) == ("tokens", Spread(3, 4.0, 4.0, 5))

    def test_json_has_labels_as_they_are(self) -> None:
        talk = source(0, "s", None, dialogue("a", ("A", "Hi", "no_emotion")))
        value = inspect_dialogues([talk]).to_json()
        assert json.loads(json.dumps(value)) == value
        assert value["sources"][0]["labels"] == {"no_emotion": 1}
        assert value["sources"][0]["turnsPerDialogue"]["least"] == 1


class TestFindings:
    def test_good_sources_have_none(self) -> None:
        other = [
            ("Cy", "Did you feed the cats today?", "glad"),
            ("Di", "Of course, twice.", "cross"),
        ]
        assert (
            findings(
                source(0, "train", Use.SELF_PLAY, dialogue("a", *[t[:2] for t in LONG])),
                source(1, "dev", Use.EVALUATION, dialogue("a", *other, ("Cy", "Good.", "calm"))),
            )
            == []
        )

    @pytest.mark.parametrize(
        ("use", "what"),
        [(Use.EVALUATION, "an evaluation source"), (Use.LABELED, "a labeled source")],
    )
    def test_labels_that_are_needed(self, use: Use, what: str) -> None:
        plain = dialogue("a", ("A", "Hi"), ("B", "Ho"))
        assert findings(source(2, "s", use, plain)) == [
            f"Error dataset.sources[2]: no turn has a label, but {what} needs them"
        ]
        assert findings(source(2, "s", Use.SELF_PLAY, plain)) == []
        assert findings(source(2, "s", None, plain)) == []

    def test_labels_without_a_turn(self) -> None:
        talk = dialogue("a", ("A", "Hi", "calm"), ("B", "Ho", "calm"))
        assert findings(source(0, "dev", Use.EVALUATION, talk)) == [
            "Warning dataset.sources[0]: no turn has the label `cross`, `glad`"
        ]

    def test_labels_that_are_the_same(self) -> None:
        assert findings(labels=["Joy", "fear", "joy", "FEAR"]) == [
            "Error dataset.labels: `Joy` and `joy` are the same label: labels are not "
            "case-sensitive",
            "Error dataset.labels: `fear` and `FEAR` are the same label: labels are not "
            "case-sensitive",
        ]

    @pytest.mark.parametrize(
        ("first", "second"),
        [("joy", "Ｊｏｙ"), ("no emotion", "no\u00a0emotion"), ("\u263a", "\u263a\ufe0f")],
    )
    def test_labels_that_are_the_same_in_an_answer(self, first: str, second: str) -> None:
        assert findings(labels=[first, "fear", second]) == [
            f"Error dataset.labels: `{first}` and `{second}` are the same in an answer, where "
            "character widths, spaces and character variants are ignored: rename one of them"
        ]

    def test_dialogues_of_one_turn(self) -> None:
        talks = (dialogue("a", ("A", "Hi", "calm")), dialogue("b", ("A", "Ho", "calm")))
        assert findings(source(0, "train", Use.LABELED, *talks), labels=["calm"]) == [
            "Warning dataset.sources[0]: each dialogue has only one turn: prompts show no context"
        ]

    def test_repeated_dialogues(self) -> None:
        shouted = [(s.upper(), f"  {text.upper()}", label) for s, text, label in LONG]
        talks = (dialogue("a", *LONG), dialogue("b", *LONG[:3]), dialogue("c", *shouted))
        assert findings(source(0, "train", Use.LABELED, *talks)) == [
            "Warning dataset.sources[0]: 1 dialogue repeats an earlier one (the first: c, the same "
            "as a)"
        ]

    def test_dialogues_in_training_and_evaluation(self) -> None:
        longer = [("Ed", "Hello.", "glad"), *LONG[:3], ("Ed", "Oh my, oh my.", "glad")]
        train = source(0, "train", Use.SELF_PLAY, dialogue("t", *LONG))
        dev = source(1, "dev", Use.EVALUATION, dialogue("d", *longer))
        expected = (
            "Warning dataset.sources[1]: 1 dialogue is also in source `train`, in whole or with "
            "three turns in a row (the first: d, like t there): its scores are too good"
        )
        assert findings(train, dev) == [expected]
        assert findings(dev, train) == [expected]

    def test_two_evaluation_sources(self) -> None:
        dev, test = (source(i, n, Use.EVALUATION, dialogue(n, *LONG)) for i, n in enumerate("dt"))
        assert findings(dev, test) == [
            "Warning dataset.sources[1]: 1 dialogue is also in source `d`, in whole or with three "
            "turns in a row (the first: t, like d there)"
        ]

    def test_short_turns_are_alike_by_chance(self) -> None:
        greeting = [("A", "Hi.", "glad"), ("B", "Hello!", "calm"), ("A", "How are you?", "cross")]
        train = source(0, "train", Use.SELF_PLAY, dialogue("t", *greeting))
        dev = source(1, "dev", Use.EVALUATION, dialogue("d", *greeting, LONG[0]))
        assert findings(train, dev) == []

    def test_two_turns_in_a_row_are_alike_by_chance(self) -> None:
        train = source(0, "train", Use.SELF_PLAY, dialogue("t", *LONG))
        dev = source(1, "dev", Use.EVALUATION, dialogue("d", *LONG[2:], *LONG[:2]))
        assert findings(train, dev) == []


WORDS = st.sampled_from(["one two three four", "five six seven", "eight", "nine ten"])


@given(st.lists(st.lists(WORDS, min_size=1, max_size=5), min_size=1, max_size=4), st.data())
def test_a_copied_part_is_found(texts: list[list[str]], data: st.DataObject) -> None:
    """Compare with a search over all windows of three turns."""
    talks = [Dialogue(str(i), tuple(Utterance("A", t) for t in ts)) for i, ts in enumerate(texts)]
    cut = data.draw(st.integers(0, len(talks)))
    train = source(0, "train", Use.SELF_PLAY, *talks[:cut]) if cut else None
    dev = source(1, "dev", Use.EVALUATION, *talks[cut:]) if cut < len(talks) else None
    if train is None or dev is None:
        return

    def parts(turns: list[str]) -> set[tuple[str, ...]]:
        windows = {tuple(turns[i : i + 3]) for i in range(len(turns) - 2)} | {tuple(turns)}
        return {w for w in windows if sum(len(text.split()) for text in w) >= 8}

    seen: set[tuple[str, ...]] = set()
    for turns in texts[:cut]:
        if sum(len(text.split()) for text in turns) >= 8:
            seen |= parts(turns)
    known = {w for w in seen if len(w) == 3} | {tuple(t) for t in texts[:cut]} & seen
    count = sum(
        any(w in known and (len(w) == 3 or w == tuple(turns)) for w in parts(turns))
        for turns in texts[cut:]
    )
    report = inspect_dialogues([train, dev])
    overlaps = [f.message for f in report.findings if "also in source" in f.message]
    assert [int(message.split()[0]) for message in overlaps] == ([count] if count else [])


class TestDataset:
    def spec(self, folder: Path, **changes: Any) -> DatasetSpec:
        sources = [
            {"name": "train", "uri": f"file://{folder}/train.jsonl", "use": "SelfPlay"},
            {"name": "some", "uri": f"file://{folder}/train.jsonl", "use": "Labeled", "limit": 1},
            {"name": "dev", "uri": f"file://{folder}/dev.csv", "use": "Evaluation"},
        ]
        return DatasetSpec.model_validate({"labels": LABELS, "sources": sources, **changes})

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        keys = ("speaker", "text", "label")
        turns = [dict(zip(keys, turn, strict=True)) for turn in LONG]
        lines = [{"id": "a", "turns": turns}, {"id": "b", "turns": turns[::-1]}]
        write_lines(tmp_path / "train.jsonl", lines)
        row = {"Talk": "x", "speaker": "A", "text": "Fine, fine.", "label": "zufrieden"}
        write_table(tmp_path / "dev.csv", [row, {**row, "text": "No."}])
        return tmp_path

    def test_columns_map_offset_and_use(self, folder: Path) -> None:
        spec = self.spec(folder, columns={"dialogue": "Talk"}, labelMap={"Zufrieden": "glad"})
        report = inspect_dataset(spec, None, folder / "work")
        assert [(s.field, s.dialogues, sum(s.labels.values())) for s in report.sources] == [
            ("dataset.sources[0]", 2, 0),
            ("dataset.sources[1]", 1, 4),
            ("dataset.sources[2]", 1, 2),
        ]
        assert report.of(Severity.ERROR) == ()

    def test_all_problems_at_once(self, folder: Path) -> None:
        shutil.move(folder / "train.jsonl", folder / "gone.jsonl")
        spec = self.spec(folder, labelMap={"Zufrieden": "happy"})
        report = inspect_dataset(spec, None, folder / "work")
        errors = [str(finding) for finding in report.of(Severity.ERROR)]
        assert [error.partition(": ")[0] for error in errors] == [
            "dataset.labelMap[Zufrieden]",
            "dataset.sources[0]",
            "dataset.sources[1]",
            "dataset.sources[2]",
        ]
        assert errors[0].endswith(
            "`happy` is not in `dataset.labels`, which contains calm, cross, glad"
        )
        assert errors[1].endswith("train.jsonl does not exist")
        assert "`label` is `happy`, an unknown emotion" in errors[3]
        assert report.findings[:4] == report.of(Severity.ERROR)
