"""Every format: what is read, what is not, and what is refused with which words."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api import dataset_labels as sets
from selfemo_api.spec import DataFormat, Source, Use
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.load import load_source
from selfemo_jobs.errors import BadInput

MELD_HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode"


def source(path: Path, kind: DataFormat, **fields: Any) -> Source:
    return Source(name="src", uri=f"file://{path}", use=Use.EVALUATION, format=kind, **fields)


def load(
    path: Path, kind: DataFormat, labels: Any, *, read_labels: bool = True, **fields: Any
) -> list[Dialogue]:
    return load_source(source(path, kind, **fields), labels, path, read_labels=read_labels)


def meld(path: Path, rows: list[str], head: str = MELD_HEAD) -> Path:
    path.write_text("\r\n".join([head, *rows]) + "\r\n", encoding="utf-8", newline="")
    return path


@pytest.fixture
def meld_file(tmp_path: Path) -> Path:
    return meld(
        tmp_path / "m.csv",
        [
            "1,We won!,Ann,joy,positive,7,1,1,1",
            '2,"Did we, really?",Bob,Surprise,positive,7,0,1,1',
            "3,No.,Ann,neutral,neutral,3,0,1,1",
        ],
    )


def refused(path: Path, kind: DataFormat, labels: Any = sets.MELD, **fields: Any) -> str:
    with pytest.raises(BadInput) as caught:
        load(path, kind, labels, **fields)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"file://{path}")
    return message.removeprefix(f"file://{path}")


class TestPublishedFiles:
    @pytest.mark.parametrize(
        ("file", "kind", "labels", "utterances", "dialogues"),
        [
            ("meld/train_sent_emo.csv", DataFormat.MELD, sets.MELD, 9989, 1038),
            ("meld/dev_sent_emo.csv", DataFormat.MELD, sets.MELD, 1109, 114),
            ("meld/test_sent_emo.csv", DataFormat.MELD, sets.MELD, 2610, 280),
            ("emorynlp/emorynlp_train_final.csv", DataFormat.EMORYNLP, sets.EMORYNLP, 7551, 659),
            ("emorynlp/emorynlp_dev_final.csv", DataFormat.EMORYNLP, sets.EMORYNLP, 954, 89),
        ],
    )
    def test_counts(
        self,
        shared_data: Path,
        file: str,
        kind: DataFormat,
        labels: tuple[str, ...],
        utterances: int,
        dialogues: int,
    ) -> None:
        loaded = load(shared_data / file, kind, labels)
        turns = [turn for dialogue in loaded for turn in dialogue.turns]
        assert (len(turns), len(loaded)) == (utterances, dialogues)
        assert {label for turn in turns for label in turn.labels} == set(labels)

    def test_meld_test_labels(self, shared_data: Path) -> None:
        loaded = load(shared_data / "meld/test_sent_emo.csv", DataFormat.MELD, sets.MELD)
        gold = [turn.labels[0] for dialogue in loaded for turn in dialogue.turns]
        counts = [gold.count(label) for label in sets.MELD]
        assert counts == [1256, 281, 50, 208, 402, 68, 345]

    def test_first_and_most_dialogues(self, shared_data: Path) -> None:
        path = shared_data / "meld/dev_sent_emo.csv"
        everything = load(path, DataFormat.MELD, sets.MELD)
        part = load(path, DataFormat.MELD, sets.MELD, offset=10, limit=5)
        assert part == everything[10:15]
        assert everything[110:] == load(path, DataFormat.MELD, sets.MELD, offset=110)

    @pytest.mark.parametrize(
        ("file", "kind"),
        [
            ("meld/dev_sent_emo.csv", DataFormat.MELD),
            ("emorynlp/emorynlp_dev_final.csv", DataFormat.EMORYNLP),
        ],
    )
    def test_labels_are_not_read(
        self, shared_data: Path, tmp_path: Path, file: str, kind: DataFormat
    ) -> None:
        with (shared_data / file).open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
        plain = load(shared_data / file, kind, ("a", "b"), read_labels=False)
        assert all(not turn.labels for dialogue in plain for turn in dialogue.turns)
        emotions = [row["Emotion"] for row in rows]
        random.Random(0).shuffle(emotions)
        shuffled = [{**row, "Emotion": e} for row, e in zip(rows, emotions, strict=True)]
        blanked = [{**row, "Emotion": ""} for row in rows]
        removed = [{k: v for k, v in row.items() if k != "Emotion"} for row in rows]
        for changed in (shuffled, blanked, removed):
            path = tmp_path / "changed.csv"
            with path.open("w", newline="", encoding="utf-8") as opened:
                writer = csv.DictWriter(opened, list(changed[0]))
                writer.writeheader()
                writer.writerows(changed)
            assert load(path, kind, sets.MELD, read_labels=False) == plain


class TestMeld:
    def test_order_is_by_utterance_within_file_order(self, meld_file: Path) -> None:
        assert load(meld_file, DataFormat.MELD, sets.MELD) == [
            Dialogue(
                "7",
                (
                    Utterance("Bob", "Did we, really?", ("surprise",)),
                    Utterance("Ann", "We won!", ("joy",)),
                ),
            ),
            Dialogue("3", (Utterance("Ann", "No.", ("neutral",)),)),
        ]

    @pytest.mark.parametrize(
        "data",
        [
            "You\u2019re \u2014 \u201cit\u201d\u2026".encode(),
            b"\xef\xbb\xbfnot at the start",
            b"You\x92re \x97 \x93it\x94\x85",
            b"You\x92re \xe2\x80\x94 \x93it\xe2\x80\x9d\x85",
        ],
    )
    def test_mixed_encodings(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "m.csv"
        path.write_bytes(MELD_HEAD.encode() + b"\n1,%b,Ann,joy,positive,0,0,1,1\n" % data)
        (dialogue,) = load(path, DataFormat.MELD, sets.MELD)
        if b"not" not in data:
            assert dialogue.turns[0].text == "You’re — “it”…"

    def test_byte_order_mark(self, tmp_path: Path, meld_file: Path) -> None:
        path = tmp_path / "bom.csv"
        path.write_bytes(b"\xef\xbb\xbf" + meld_file.read_bytes())
        head = path.read_text(encoding="utf-8-sig").replace("Sr No.,Utterance", "Utterance,Sr No.")
        path.write_bytes(b"\xef\xbb\xbf" + head.encode())
        assert load(path, DataFormat.MELD, sets.MELD)

    @pytest.mark.parametrize("byte", [b"\x81", b"\xff", b"\xe9", b"\xc3", b"\xe2\x80"])
    def test_broken_encoding(self, tmp_path: Path, byte: bytes) -> None:
        path = tmp_path / "m.csv"
        path.write_bytes(
            MELD_HEAD.encode()
            + b"\n1,Hi,Ann,joy,positive,0,0,1,1\n2,caf%b,Ann,joy,positive,0,1,1,1\n" % byte
        )
        message = refused(path, DataFormat.MELD)
        assert message.startswith(f" line 3: byte 0x{byte[0]:02x} is not UTF-8")

    def test_utf16(self, tmp_path: Path) -> None:
        path = tmp_path / "m.csv"
        path.write_text(MELD_HEAD + "\n1,Hi,Ann,joy,positive,0,0,1,1\n", encoding="utf-16-le")
        assert "zero byte" in refused(path, DataFormat.MELD)

    @pytest.mark.parametrize("column", ["Utterance", "Speaker", "Emotion", "Dialogue_ID"])
    def test_missing_column(self, tmp_path: Path, column: str) -> None:
        path = meld(tmp_path / "m.csv", ["1,Hi,Ann,joy,x,0,0,1,1"], MELD_HEAD.replace(column, "X"))
        assert refused(path, DataFormat.MELD).startswith(f": column `{column}` is missing")

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("2, ,Ann,joy,x,0,1,1,1", " line 3: `Utterance` is empty"),
            ("2,Hi,,joy,x,0,1,1,1", " line 3: `Speaker` is empty"),
            ("2,Hi,Ann,joy,x,zero,1,1,1", " line 3: `Dialogue_ID` is `zero`"),
            ("2,Hi,Ann,joy,x,0,-1,1,1", " line 3: `Utterance_ID` is `-1`"),
            ("2,Hi,Ann,joy,x,0", " line 3: 6 fields, the header row has 9"),
            (
                "2,Hi,Ann,joy,x,0,0,1,1",
                " line 3: `Utterance_ID` 0 appears twice in dialogue 0",
            ),
            ('2,"Hi,Ann,joy,x,0,1,1,1', " line 3: not CSV: "),
            ("2,Hi,Ann,joi,x,0,1,1,1", " line 3: `Emotion` is `joi`, an unknown emotion: "),
        ],
    )
    def test_bad_rows(self, tmp_path: Path, row: str, message: str) -> None:
        path = meld(tmp_path / "m.csv", ["1,Hi,Ann,joy,x,0,0,1,1", row])
        assert refused(path, DataFormat.MELD).startswith(message)

    def test_empty_label_is_context(self, tmp_path: Path) -> None:
        path = meld(tmp_path / "m.csv", ["1,Hi,Ann,joy,x,0,0,1,1", "2,Well,Bo, ,x,0,1,1,1"])
        (dialogue,) = load(path, DataFormat.MELD, sets.MELD)
        assert [turn.labels for turn in dialogue.turns] == [("joy",), ()]

    def test_lines_are_counted_over_quoted_breaks(self, tmp_path: Path) -> None:
        rows = ['1,"Hi\r\nthere",Ann,joy,x,0,0,1,1', "2,,Ann,joy,x,0,1,1,1"]
        assert refused(meld(tmp_path / "m.csv", rows), DataFormat.MELD).startswith(" line 4: ")

    def test_quoted_breaks_become_blanks(self, tmp_path: Path) -> None:
        path = meld(tmp_path / "m.csv", ['1,"Hi \r\n there",Ann,joy,x,0,0,1,1'])
        assert load(path, DataFormat.MELD, sets.MELD)[0].turns[0].text == "Hi there"

    def test_a_turn_may_be_a_whole_transcript(self, tmp_path: Path) -> None:
        text = "word " * 40_000
        path = meld(tmp_path / "m.csv", [f"1,{text},Ann,joy,x,0,0,1,1"])
        assert load(path, DataFormat.MELD, sets.MELD)[0].turns[0].text == text.strip()

    def test_a_quote_that_is_not_closed_is_named(self, tmp_path: Path) -> None:
        rows = ["1,Hi,Ann,joy,x,0,0,1,1", '2,"Hi,Ann,joy,x,0,1,1,1', "3,Well,Ann,joy,x,0,2,1,1"]
        message = refused(meld(tmp_path / "m.csv", rows), DataFormat.MELD)
        assert message == (
            " line 3: not CSV: a quote in the row that begins here is not closed before the end "
            "of the file"
        )
        most = csv.field_size_limit(20)
        try:
            message = refused(meld(tmp_path / "m.csv", rows), DataFormat.MELD)
        finally:
            csv.field_size_limit(most)
        assert "line 3: not CSV: a field of the row that begins here has more than" in message

    def test_label_set_that_does_not_fit(self, meld_file: Path) -> None:
        message = refused(meld_file, DataFormat.MELD, ("happy", "sad", "neutral"))
        assert message == (
            " line 2: `Emotion` is `joy`, an unknown emotion: `dataset.labels` contains happy, "
            "sad, neutral. 2 of 3 labels do not match (joy: 1, surprise: 1): fix the file or "
            "`dataset.labels`, or map them in `dataset.labelMap`"
        )

    def test_past_the_last_dialogue(self, meld_file: Path) -> None:
        assert "has 2 dialogues" in refused(meld_file, DataFormat.MELD, offset=2)

    @pytest.mark.parametrize("text", ["", "\n \n", "\ufeff"])
    def test_empty_file(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "m.csv"
        path.write_text(text, encoding="utf-8")
        for kind in DataFormat:
            assert refused(path, kind) == " is empty"

    def test_heading_only(self, tmp_path: Path) -> None:
        assert "no other rows" in refused(meld(tmp_path / "m.csv", []), DataFormat.MELD)

    def test_missing_file(self, tmp_path: Path) -> None:
        assert "No such file" in refused(tmp_path / "none.csv", DataFormat.MELD)


class TestEmoryNLP:
    HEAD = "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode,Start_Time,End_Time"

    def write(self, path: Path, *rows: str) -> Path:
        return meld(path, list(rows), self.HEAD)

    def test_scenes_and_speakers(self, tmp_path: Path) -> None:
        path = self.write(
            tmp_path / "e.csv",
            "Hi!,\"['Ann Lee', 'Bob']\",Joyful,1,1,2,15,0,0",
            "Go.,['Ann Lee'],Mad,1,1,2,16,0,0",
        )
        assert load(path, DataFormat.EMORYNLP, sets.EMORYNLP) == [
            Dialogue("s2e15c1", (Utterance("Ann Lee and Bob", "Hi!", ("joyful",)),)),
            Dialogue("s2e16c1", (Utterance("Ann Lee", "Go.", ("mad",)),)),
        ]

    @pytest.mark.parametrize(
        "speaker", ["Ann", "[]", "[1]", "__import__('os')", "['Ann'", "{'Ann': 1}"]
    )
    def test_bad_speakers(self, tmp_path: Path, speaker: str) -> None:
        path = self.write(tmp_path / "e.csv", f'Hi!,"{speaker}",Joyful,1,1,2,15,0,0')
        message = refused(path, DataFormat.EMORYNLP, sets.EMORYNLP)
        assert message.startswith(f" line 2: `Speaker` is `{speaker}`")


class TestJsonl:
    DIALOGUE = {
        "id": "d1",
        "note": "ignored",
        "turns": [
            {"speaker": "Ann", "text": "We  won!", "labels": ["joy", "surprise"]},
            {"speaker": "Bob", "text": "Yes"},
        ],
    }

    def write(self, path: Path, *values: Any) -> Path:
        lines = [v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def test_reads(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "d.jsonl", self.DIALOGUE, "")
        (dialogue,) = load(path, DataFormat.JSONL, sets.MELD)
        assert dialogue == Dialogue(
            "d1",
            (Utterance("Ann", "We won!", ("joy", "surprise")), Utterance("Bob", "Yes")),
        )

    @pytest.mark.parametrize("labels", [None, "joy", [1], ["furious"], [], "absent"])
    def test_labels_are_not_read(self, tmp_path: Path, labels: Any) -> None:
        turn: dict[str, Any] = {"speaker": "Ann", "text": "Hi", "labels": labels}
        if labels == "absent":
            del turn["labels"]
        path = self.write(tmp_path / "d.jsonl", {"id": "d", "turns": [turn]})
        (dialogue,) = load(path, DataFormat.JSONL, sets.MELD, read_labels=False)
        assert dialogue == Dialogue("d", (Utterance("Ann", "Hi"),))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("{", " line 2: not JSON: "),
            ("[]", " line 2: must be an object"),
            ('{"id": "x", "id": "y", "turns": []}', " line 2: not JSON: `id` appears twice"),
            ('{"id": NaN}', " line 2: not JSON: NaN"),
            ({"turns": [{"speaker": "A", "text": "b"}]}, " line 2: `id` is missing"),
            (
                {"id": "d1", "turns": [{"speaker": "A", "text": "b"}]},
                " line 2: `id` d1 appears",
            ),
            ({"id": "x"}, " line 2: `turns` is missing"),
            ({"id": "x", "turns": []}, " line 2: `turns` is empty"),
            ({"id": "x", "turns": {}}, " line 2: `turns` must be a list"),
            ({"id": "x", "turns": [{"text": "b"}]}, " line 2: `turns[0].speaker` is missing"),
            (
                {"id": "x", "turns": [{"speaker": "A", "text": " "}]},
                " line 2: `turns[0].text` is empty",
            ),
            (
                {"id": "x", "turns": [{"speaker": "A", "text": 3}]},
                " line 2: `turns[0].text` must be text",
            ),
            (
                {"id": "x", "turns": [{"speaker": "A", "text": "b", "labels": "joy"}]},
                " line 2: `turns[0].labels` must be a list",
            ),
            (
                {"id": "x", "turns": [{"speaker": "A", "text": "b", "labels": ["joy", "Joy"]}]},
                " line 2: `turns[0].labels` contains an emotion twice",
            ),
            (
                {"id": "x", "turns": [{"speaker": "A", "text": "b", "labels": ["fury"]}]},
                " line 2: `labels` is `fury`, an unknown emotion",
            ),
            ('{"id": "x", "turns": [{"speaker": "A", "text": "\\ud800"}]}', " line 2: not JSON: "),
        ],
    )
    def test_bad_lines(self, tmp_path: Path, value: Any, message: str) -> None:
        path = self.write(tmp_path / "d.jsonl", self.DIALOGUE, value)
        assert refused(path, DataFormat.JSONL).startswith(message)

    def test_windows_1252_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "d.jsonl"
        path.write_bytes(b'{"id": "x", "turns": [{"speaker": "A", "text": "it\x92s"}]}')
        assert refused(path, DataFormat.JSONL).startswith(" line 1: byte 0x92 is not UTF-8")


class TestIemocap:
    BIOSERC = {
        "Ses01F_impro01": {"sentences": ["Hi.", "No!"], "genders": ["F", "M"], "labels": [2, 3]},
        "Ses05M_script01": {"sentences": ["Oh"], "genders": ["F"], "labels": [5]},
    }

    def write(self, path: Path, value: Any) -> Path:
        path.write_text(json.dumps(value), encoding="utf-8")
        return path

    @pytest.mark.parametrize("listed", [False, True])
    def test_bioserc(self, tmp_path: Path, listed: bool) -> None:
        value: Any = self.BIOSERC
        if listed:
            value = [{"s_id": name, **dialogue} for name, dialogue in value.items()]
        path = self.write(tmp_path / "i.json", value)
        assert load(path, DataFormat.IEMOCAP, sets.IEMOCAP) == [
            Dialogue(
                "Ses01F_impro01",
                (Utterance("Mary", "Hi.", ("neutral",)), Utterance("James", "No!", ("angry",))),
            ),
            Dialogue("Ses05M_script01", (Utterance("Elizabeth", "Oh", ("frustrated",)),)),
        ]

    @pytest.mark.parametrize("labels", [None, [9, "x"], [1]])
    def test_labels_are_not_read(self, tmp_path: Path, labels: Any) -> None:
        dialogue = dict(self.BIOSERC["Ses01F_impro01"], labels=labels)
        if labels is None:
            del dialogue["labels"]
        path = self.write(tmp_path / "i.json", {"Ses01F_impro01": dialogue})
        (loaded,) = load(path, DataFormat.IEMOCAP, ("a", "b"), read_labels=False)
        assert loaded.turns == (Utterance("Mary", "Hi."), Utterance("James", "No!"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"labels": [2]}, ": `Ses01F_impro01.labels` has 1 items, `sentences` has 2"),
            ({"labels": [2, 6]}, ": `Ses01F_impro01.labels[1]` must be 0 to 5 (happy, "),
            ({"labels": [2, True]}, ": `Ses01F_impro01.labels[1]` must be 0 to 5 (happy, "),
            ({"genders": ["F", "X"]}, ": `Ses01F_impro01.genders[1]` must be F or M"),
            ({"sentences": ["Hi", ""]}, ": `Ses01F_impro01.sentences[1]` is empty"),
            ({"sentences": []}, ": `Ses01F_impro01.sentences` is empty"),
        ],
    )
    def test_bad_dialogues(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        value = {"Ses01F_impro01": {**self.BIOSERC["Ses01F_impro01"], **change}}
        path = self.write(tmp_path / "i.json", value)
        assert refused(path, DataFormat.IEMOCAP, sets.IEMOCAP).startswith(message)

    def test_other_dialogue_names(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "i.json", {"d1": self.BIOSERC["Ses01F_impro01"]})
        assert "begin with Ses01 to Ses05" in refused(path, DataFormat.IEMOCAP, sets.IEMOCAP)

    def test_pickle(self, tmp_path: Path) -> None:
        path = tmp_path / "iemocap.pkl"
        path.write_bytes(b"\x80\x04K\x01.")
        assert "unpickling can run code" in refused(path, DataFormat.IEMOCAP, sets.IEMOCAP)

    @staticmethod
    def instructerc(turns: list[tuple[int, str]], target: str) -> dict[str, str]:
        shown = [f'\t Speaker_{speaker}:"{text}"' for speaker, text in turns]
        names = ", ".join(sets.IEMOCAP)
        return {
            "input": "Now you are expert of sentiment and emotional analysis. The following "
            "conversation noted between '### ###' involves several speakers. ### "
            f"{''.join(shown)} ### Please select the emotional label of "
            f"<{shown[-1][1:]}> from <{names}>:",
            "target": target,
        }

    @pytest.mark.parametrize("window", [1, 12])
    def test_instructerc(self, tmp_path: Path, window: int) -> None:
        dialogues = [
            [(0, 'He said "go".', "sad"), (1, "Oh", "happy"), (0, "Yes", "neutral")],
            [(1, "Hello", "neutral")],
        ]
        rows = [
            self.instructerc([t[:2] for t in d[max(i - window, 0) : i + 1]], d[i][2])
            for d in dialogues
            for i in range(len(d))
        ]
        path = tmp_path / "i.json"
        path.write_text("\n".join(json.dumps(row) for row in rows))
        assert load(path, DataFormat.IEMOCAP, sets.IEMOCAP) == [
            Dialogue(str(n), tuple(Utterance(f"Speaker_{s}", text, (e,)) for s, text, e in d))
            for n, d in enumerate(dialogues)
        ]
        path.write_text("\n".join(json.dumps(row) for row in rows[1:]))
        message = refused(path, DataFormat.IEMOCAP, sets.IEMOCAP)
        assert message.startswith(" line 1: `input` does not continue the previous line")
        path.write_text(json.dumps({"input": "What?", "target": "sad"}))
        message = refused(path, DataFormat.IEMOCAP, sets.IEMOCAP)
        assert message.startswith(" line 1: `input` is not InstructERC's")


@given(data=st.binary(max_size=200), kind=st.sampled_from(DataFormat), read=st.booleans())
def test_any_bytes_load_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: DataFormat, read: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(data)
    try:
        assert load(path, kind, sets.MELD, read_labels=read)
    except BadInput as error:
        assert "\n" not in str(error)


@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"])).filter(str.strip), min_size=1
    )
)
def test_any_text_comes_back_on_one_line(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(MELD_HEAD.split(","))
    for number, text in enumerate(texts):
        writer.writerow([number, text, "Ann", "joy", "x", 0, number, 1, 1])
    path = tmp_path_factory.mktemp("texts") / "m.csv"
    path.write_text(sink.getvalue(), encoding="utf-8", newline="")
    (dialogue,) = load(path, DataFormat.MELD, sets.MELD)
    assert [turn.text for turn in dialogue.turns] == [" ".join(text.split()) for text in texts]
