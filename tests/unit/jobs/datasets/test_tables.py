"""Tables: columns, labels in cells, tables without a dialogue or a speaker, Parquet and Arrow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.dialogue_files import dialogue, read, write_parquet, write_table

from selfemo_api.spec import DataFormat
from selfemo_jobs.datasets.csv_files import HEAD_LINES
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.errors import BadInput

LABELS = ["calm", "cross", "glad"]


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        read(path, LABELS, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(path.as_uri())
    return message.removeprefix(path.as_uri())


ROWS = [
    {"Gespräch": "g1", "Nr": "2", "Wer": "Ina", "Satz": "Nein!", "Gefühl": "böse"},
    {"Gespräch": "g1", "Nr": "1", "Wer": "Tom", "Satz": "Kommst du?", "Gefühl": ""},
    {"Gespräch": "g2", "Nr": "1", "Wer": "Ina", "Satz": "Schön.", "Gefühl": "Froh"},
]
COLUMNS = {
    "dialogue": "Gespräch",
    "turn": "Nr",
    "speaker": "Wer",
    "text": "Satz",
    "label": "Gefühl",
}
NUMBERS = {"1": "cross", "2": "glad"}
LABEL_MAP = {"Böse": "cross", "froh": "glad"}


class TestColumns:
    def test_named_columns_and_mapped_labels(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.csv", ROWS)
        content = read(path, LABELS, columns=COLUMNS, label_map=LABEL_MAP)
        assert content.dialogues == [
            dialogue("g1", ("Tom", "Kommst du?"), ("Ina", "Nein!", "cross")),
            dialogue("g2", ("Ina", "Schön.", "glad")),
        ]

    @pytest.mark.parametrize(
        ("heading", "columns"),
        [("text,label,text", {}), ("Satz,label,Satz", {"text": "Satz"}), ("Role,text,Role", {})],
    )
    def test_a_column_that_is_read_is_there_once(
        self, heading: str, columns: dict[str, str], tmp_path: Path
    ) -> None:
        path = tmp_path / "t.csv"
        path.write_text(f"{heading}\nHi,glad,Ho\n")
        name = heading.partition(",")[0]
        expected = f": column `{name}` appears twice: rename one of them"
        assert refused(path, columns=columns) == expected

    def test_other_columns_may_be_there_twice(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("text,note,note,,\nHi,1,2,,\n")
        assert read(path, LABELS).dialogues == [dialogue("1", ("A", "Hi"))]

    def test_the_own_name_of_a_part_is_taken(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.csv", [{"content": "Ho", "text": "Hi", "label": "glad"}])
        assert read(path, LABELS).dialogues == [dialogue("1", ("A", "Hi", "glad"))]

    def test_common_names_need_no_map(self, tmp_path: Path) -> None:
        head = ("Conversation ID", "utterance_idx", "Role", "Utterance", "EMOTION")
        rows = [dict(zip(head, ("c", 1, "A", "Hi", "Glad"), strict=True))]
        assert read(write_table(tmp_path / "t.csv", rows), LABELS).dialogues == [
            dialogue("c", ("A", "Hi", "glad"))
        ]

    def test_own_name_wins_over_other_common_names(self, tmp_path: Path) -> None:
        rows = [{"dialogue": "d", "text": "Hi", "utterance": "raw", "speaker": "A", "role": "x"}]
        assert read(write_table(tmp_path / "t.csv", rows)).dialogues == [dialogue("d", ("A", "Hi"))]

    def test_named_column_wins_over_common_names(self, tmp_path: Path) -> None:
        rows = [{"dialogue": "d", "text": "raw", "clean": "Hi", "speaker": "A"}]
        path = write_table(tmp_path / "t.csv", rows)
        assert read(path, columns={"text": "clean"}).dialogues == [dialogue("d", ("A", "Hi"))]

    def test_named_columns_make_a_table_of_a_file_with_the_heading_of_meld(
        self, tmp_path: Path
    ) -> None:
        rows = [
            {
                "Utterance": "Hi",
                "Speaker": "A",
                "Dialogue_ID": "0",
                "Utterance_ID": "0",
                "Emotion": "joy",
                "Mood": "glad",
            }
        ]
        path = write_table(tmp_path / "m.csv", rows)
        assert read(path, ["joy", "sad"]).kind is DataFormat.MELD
        content = read(path, LABELS, columns={"label": "Mood"})
        assert content.kind is DataFormat.CSV
        assert content.dialogues == [dialogue("0", ("A", "Hi", "glad"))]

    def test_label_column_is_needed_only_if_labels_are_read(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.csv", [{"text": "Hi", "speaker": "A", "dialogue": "d"}])
        columns = {"label": "mood"}
        assert read(path, LABELS, read_labels=False, columns=columns).dialogues == [
            dialogue("d", ("A", "Hi"))
        ]
        assert refused(path, columns=columns).startswith(
            ": column `mood` of `dataset.columns.label` is missing"
        )

    def test_columns_of_other_sources_leave_published_files_alone(self, tmp_path: Path) -> None:
        rows = [{"Utterance": "Hi", "Speaker": "A", "Dialogue_ID": "0", "Utterance_ID": "0"}]
        path = write_table(tmp_path / "m.csv", rows)
        content = read(path, read_labels=False, columns={"text": "Satz"})
        assert (content.kind, len(content.dialogues)) == (DataFormat.MELD, 1)

    @pytest.mark.parametrize(
        ("head", "columns", "message"),
        [
            (("a", "b"), {}, ": no column contains the text: specify it in `dataset.columns.text`"),
            (
                ("text", "utterance2"),
                {"text": "say"},
                ": column `say` of `dataset.columns.text` is",
            ),
            (
                ("sentence", "utterance"),
                {},
                ": columns `sentence`, `utterance` could all be the text: specify one in "
                "`dataset.columns.text`",
            ),
            (
                ("text", "turn"),
                {},
                ": `turn` numbers the turns, but no column contains the dialo",
            ),
        ],
    )
    def test_columns_that_do_not_fit(
        self, tmp_path: Path, head: tuple[str, str], columns: dict[str, str], message: str
    ) -> None:
        path = write_table(tmp_path / "t.csv", [dict(zip(head, ("1", "2"), strict=True))])
        assert refused(path, columns=columns).startswith(message)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"text": " "}, " line 3: `text` is empty"),
            ({"speaker": ""}, " line 3: `speaker` is empty"),
            ({"turn": "b"}, " line 3: `turn` is `b`: it must be an integer"),
            ({"turn": "1"}, " line 3: `turn` 1 appears twice in dialogue d (first in line 2)"),
            ({"dialogue": ""}, " line 3: `dialogue` is empty"),
            ({"label": "furious"}, " line 3: `label` is `furious`, an unknown emotion"),
        ],
    )
    def test_bad_rows(self, tmp_path: Path, change: dict[str, str], message: str) -> None:
        row = {"dialogue": "d", "turn": "1", "speaker": "A", "text": "Hi", "label": "glad"}
        path = write_table(tmp_path / "t.csv", [row, row | {"turn": "2"} | change])
        assert refused(path).startswith(message)

    def test_file_without_a_heading(self, tmp_path: Path) -> None:
        path = tmp_path / "t.tsv"
        path.write_text("Great news!\tglad\teb1\nOh no.\tcross,calm\teb2\n")
        content = read(path, LABELS, columns={"text": "1", "label": "2", "dialogue": "3"})
        assert content.dialogues == [
            dialogue("eb1", ("A", "Great news!", "glad")),
            Dialogue("eb2", (Utterance("A", "Oh no.", ("cross", "calm")),)),
        ]

    def test_the_first_row_of_a_file_without_a_heading_has_the_number_of_a_column(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "t.csv"
        path.write_text("Great!,2\nOh no.,1\n")
        content = read(path, LABELS, columns={"text": "1", "label": "2"}, label_map=NUMBERS)
        assert [d.turns[0].text for d in content.dialogues] == ["Great!", "Oh no."]

    def test_numbers_as_the_heading(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("0,1\nGreat!,glad\n")
        content = read(path, LABELS, columns={"text": "0", "label": "1"})
        assert content.dialogues == [dialogue("1", ("A", "Great!", "glad"))]
        assert refused(path, columns={"text": "1", "label": "2"}).startswith(
            ": column `2` of `dataset.columns.label` is missing"
        )


class TestMissingParts:
    def test_rows_without_a_dialogue_are_dialogues(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.csv", [{"text": "Hi"}, {"text": "Bye"}])
        content = read(path)
        assert content.dialogues == [dialogue("1", ("A", "Hi")), dialogue("2", ("A", "Bye"))]
        assert [str(w.message) for w in content.warnings] == [
            "no column contains the dialogue (`dataset.columns.dialogue`): each of 2 rows is "
            "treated as a separate dialogue"
        ]

    def test_turns_without_speakers_alternate(self, tmp_path: Path) -> None:
        rows = [{"dialogue": d, "text": t} for d, t in (("x", "1"), ("y", "2"), ("x", "3"))]
        content = read(write_table(tmp_path / "t.csv", rows))
        assert content.dialogues == [
            dialogue("x", ("A", "1"), ("B", "3")),
            dialogue("y", ("A", "2")),
        ]
        assert [w.message for w in content.warnings] == [
            "1 dialogue has no speakers: its turns alternate between A and B"
        ]

    def test_rows_of_a_dialogue_need_not_be_together(self, tmp_path: Path) -> None:
        rows = [
            {"dialogue": d, "turn": n, "speaker": "S", "text": f"{d}{n}"}
            for d, n in (("x", "10"), ("y", "3"), ("x", "9"), ("y", "20"))
        ]
        assert read(write_table(tmp_path / "t.csv", rows)).dialogues == [
            dialogue("x", ("S", "x9"), ("S", "x10")),
            dialogue("y", ("S", "y3"), ("S", "y20")),
        ]


class TestLabelsInCells:
    @pytest.mark.parametrize(
        ("cell", "labels"),
        [
            ("glad", ("glad",)),
            (" GLAD ", ("glad",)),
            ("glad, cross", ("glad", "cross")),
            ("cross;glad", ("cross", "glad")),
            ("cross|glad|cross", ("cross", "glad")),
            ("['glad', 'calm']", ("glad", "calm")),
            ("", ()),
            ("  ", ()),
            ("[]", ()),
        ],
    )
    def test_cell(self, tmp_path: Path, cell: str, labels: tuple[str, ...]) -> None:
        rows = [
            {"text": "Hi", "label": cell, "speaker": "A"},
            {"text": "Ho", "label": "calm", "speaker": "A"},
        ]
        content = read(write_table(tmp_path / "t.csv", rows), LABELS)
        assert content.dialogues[0].turns[0].labels == labels

    def test_label_with_a_separator_of_its_own_is_one(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.csv", [{"text": "Hi", "label": "glad|calm"}])
        (read_dialogue,) = read(path, ["glad|calm", "glad", "calm"]).dialogues
        assert read_dialogue.turns[0].labels == ("glad|calm",)

    def test_map_joins_and_removes_labels(self, tmp_path: Path) -> None:
        rows = [{"text": "Hi", "label": "joy, love, other"}, {"text": "Ho", "label": "other"}]
        content = read(
            write_table(tmp_path / "t.csv", rows),
            LABELS,
            label_map={"joy": "glad", "love": "glad", "other": ""},
        )
        assert [d.turns[0].labels for d in content.dialogues] == [("glad",), ()]

    def test_unlabeled_turns_are_counted(self, tmp_path: Path) -> None:
        rows = [{"text": "Hi", "label": label} for label in ("glad", "", "", "calm")]
        warnings = read(write_table(tmp_path / "t.csv", rows), LABELS).warnings
        assert [w.message for w in warnings if w.kind == "Unlabeled"] == [
            "2 turns without a label are context only (first: line 3)"
        ]

    def test_numbers_need_the_map(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.csv", [{"text": "Hi", "label": "2"}])
        assert "`label` is `2`, an unknown emotion" in refused(path)
        assert "map them in `dataset.labelMap`" in refused(path)
        (read_dialogue,) = read(path, LABELS, label_map={"2": "glad"}).dialogues
        assert read_dialogue.turns[0].labels == ("glad",)


class TestSeparators:
    @pytest.mark.parametrize("separator", [";", "\t", "|"])
    def test_separator_follows_from_the_heading(self, tmp_path: Path, separator: str) -> None:
        rows = [{"dialogue": "1", "speaker": "A", "text": "Well, well, well; no."}]
        path = write_table(tmp_path / "t.txt", rows, separator)
        assert read(path).dialogues == [dialogue("1", ("A", "Well, well, well; no."))]

    @pytest.mark.parametrize("name", ["t.tsv", "t.tab", "t.TSV", "t.csv", "t.txt"])
    def test_commas_in_the_texts_of_a_file_without_a_heading(
        self, name: str, tmp_path: Path
    ) -> None:
        path = tmp_path / name
        path.write_text("Well, well, well\t2\nOh, no!\t1\n")
        content = read(path, LABELS, columns={"text": "1", "label": "2"}, label_map=NUMBERS)
        assert content.dialogues == [
            dialogue("1", ("A", "Well, well, well", "glad")),
            dialogue("2", ("A", "Oh, no!", "cross")),
        ]

    def test_the_number_of_the_only_column_is_a_label_in_the_first_row(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "t.csv"
        path.write_text("Hi there,1\nOh no,2\n")
        content = read(path, columns={"text": "1"})
        assert content.dialogues == [
            dialogue("1", ("A", "Hi there")),
            dialogue("2", ("A", "Oh no")),
        ]

    def test_numbers_may_be_the_names_of_a_heading(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text(",0,1\n0,a,Hi there\n")
        assert read(path, columns={"text": "1"}).dialogues == [dialogue("1", ("A", "Hi there"))]

    def test_one_column_with_commas(self, tmp_path: Path) -> None:
        path = tmp_path / "t.tsv"
        path.write_text("text\nWell, well\n")
        assert read(path).dialogues == [dialogue("1", ("A", "Well, well"))]

    def test_a_heading_with_more_commas_than_separators(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("Line, as said, raw;Mood\nWell;glad\nOh, no, no;cross\n")
        columns = {"text": "Line, as said, raw", "label": "Mood"}
        assert [d.turns[0].text for d in read(path, LABELS, columns=columns).dialogues] == [
            "Well",
            "Oh, no, no",
        ]

    def test_the_heading_has_the_named_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("Satz,Rolle;Notiz;Art\nHallo,Ina;x;y\nTja,Tom;z;y\n")
        content = read(path, columns={"text": "Satz"})
        assert [d.turns[0].text for d in content.dialogues] == ["Hallo", "Tja"]

    def test_a_quoted_text_where_the_first_lines_end(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        rows = "Well;glad;x\n" * (HEAD_LINES - 2)
        path.write_text(f'text;label;a, b, c, d\n{rows}"Oh\nno";cross;x\n')
        assert read(path, LABELS).dialogues[-1].turns[0].text == "Oh no"

    @pytest.mark.parametrize(
        ("name", "text", "columns", "message"),
        [
            (
                "t.tsv",
                "text\tlabel\nHi, you\n",
                {},
                " line 2: 1 fields, the header row has 2 (separated by tabs)",
            ),
            (
                "t.csv",
                "Hi,glad\nHi, you,glad\n",
                {"text": "1", "label": "2"},
                " line 2: 3 fields, the first row has 2 (separated by commas)",
            ),
        ],
    )
    def test_errors_name_the_separator(
        self, name: str, text: str, columns: dict[str, str], message: str, tmp_path: Path
    ) -> None:
        path = tmp_path / name
        path.write_text(text)
        assert refused(path, columns=columns) == message

    def test_published_layout_with_semicolons(self, tmp_path: Path) -> None:
        rows = [
            {
                "Utterance": "Oh, no.",
                "Speaker": "Ann",
                "Emotion": "fear",
                "Dialogue_ID": "4.0",
                "Utterance_ID": "0.0",
            }
        ]
        content = read(write_table(tmp_path / "t.csv", rows, ";"))
        assert content.kind is DataFormat.MELD
        assert content.dialogues == [dialogue("4", ("Ann", "Oh, no.", "fear"))]


class TestParquet:
    def test_numbers_and_missing_values(self, tmp_path: Path) -> None:
        rows = [
            {"conv_id": 5, "utterance_idx": 2.0, "speaker_idx": 1, "utterance": "b", "label": None},
            {"conv_id": 5, "utterance_idx": 1.0, "speaker_idx": 0, "utterance": "a", "label": 1.0},
        ]
        path = write_parquet(tmp_path / "t.parquet", rows)
        assert read(path, LABELS, label_map={"1": "calm"}).dialogues == [
            dialogue("5", ("0", "a", "calm"), ("1", "b"))
        ]

    def test_not_a_number_is_not_a_label(self, tmp_path: Path) -> None:
        rows = [{"text": "a", "label": 0.0}, {"text": "b", "label": math.nan}]
        content = read(write_parquet(tmp_path / "t.parquet", rows), LABELS, label_map={"0": "glad"})
        assert [d.turns[0].labels for d in content.dialogues] == [("glad",), ()]

    def test_errors_name_the_row(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "t.parquet", [{"text": "a"}, {"text": None}])
        assert refused(path) == " row 2: `text` is empty"

    @pytest.mark.parametrize("size", [4, 40, -9])
    def test_damaged_file(self, tmp_path: Path, size: int) -> None:
        path = write_parquet(tmp_path / "t.parquet", [{"text": "a"}])
        path.write_bytes(path.read_bytes()[:size])
        assert " is a damaged Parquet or Arrow file: " in refused(path)

    def test_text_with_the_name_of_a_table(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.parquet", [{"text": "a"}, {"text": "b"}])
        assert "is not a Parquet file: omit `format`" in refused(path, kind=DataFormat.PARQUET)

    def test_class_labels_have_their_names(self, tmp_path: Path) -> None:
        from datasets import ClassLabel, Dataset, Features, Sequence, Value

        names = ["calm", "cross", "glad"]
        features = Features(
            text=Value("string"), labels=Sequence(ClassLabel(names=names)), id=Value("string")
        )
        rows = {"text": ["a", "b", "c"], "labels": [[2, 0], [], [1]], "id": ["x", "y", "z"]}
        Dataset.from_dict(rows, features).to_parquet(str(tmp_path / "t.parquet"))
        content = read(tmp_path / "t.parquet", LABELS)
        assert [d.turns[0].labels for d in content.dialogues] == [("glad", "calm"), (), ("cross",)]
        mapped = read(
            tmp_path / "t.parquet", ["a", "b"], label_map=dict(zip(names, "aba", strict=True))
        )
        assert [d.turns[0].labels for d in mapped.dialogues] == [("a",), (), ("b",)]

    def test_class_label_out_of_range(self, tmp_path: Path) -> None:
        from datasets import ClassLabel, Features, Value

        features = Features(text=Value("string"), label=ClassLabel(names=["calm", "glad"]))
        table = pa.table({"text": ["a", "b"], "label": [-1, 2]}, schema=features.arrow_schema)
        pq.write_table(table, tmp_path / "t.parquet")
        message = refused(tmp_path / "t.parquet")
        assert message == " row 2: `label` is 2: the labels are 0 to 1"

    def test_parallel_lists(self, tmp_path: Path) -> None:
        from datasets import ClassLabel, Dataset, Features, Sequence, Value

        features = Features(
            dialog=Sequence(Value("string")), emotion=Sequence(ClassLabel(names=["calm", "glad"]))
        )
        rows = {"dialog": [["Hi .", "Hello !"], ["Out ."]], "emotion": [[0, 1], [-1]]}
        Dataset.from_dict(rows, features).to_parquet(str(tmp_path / "t.parquet"))
        content = read(tmp_path / "t.parquet", LABELS)
        assert content.dialogues == [
            dialogue("1", ("A", "Hi .", "calm"), ("B", "Hello !", "glad")),
            dialogue("2", ("A", "Out .")),
        ]

    def test_parallel_lists_of_other_lengths(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "t.parquet", [{"dialog": ["a", "b"], "emotion": ["calm"]}])
        assert refused(path) == " row 1: `emotion` has 1 items, `dialog` has 2"


class TestSavedDatasets:
    def save(self, folder: Path, **splits: list[str]) -> Path:
        from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

        features = Features(
            dialogue=Value("string"), text=Value("string"), label=ClassLabel(names=["calm", "glad"])
        )
        made = {
            name: Dataset.from_dict(
                {
                    "dialogue": [f"{name}{i // 2}" for i in range(len(texts))],
                    "text": texts,
                    "label": [i % 2 for i in range(len(texts))],
                },
                features,
            )
            for name, texts in splits.items()
        }
        saved = made["only"] if "only" in made else DatasetDict(made)
        saved.save_to_disk(str(folder), num_shards=None if "only" not in made else 2)
        return folder

    def test_one_split_in_several_files(self, tmp_path: Path) -> None:
        content = read(self.save(tmp_path / "saved", only=["a", "b", "c"]), LABELS)
        assert content.kind is DataFormat.HUGGING_FACE
        assert content.dialogues == [
            dialogue("only0", ("A", "a", "calm"), ("B", "b", "glad")),
            dialogue("only1", ("A", "c", "calm")),
        ]

    def test_named_split(self, tmp_path: Path) -> None:
        folder = self.save(tmp_path / "saved", train=["a"], test=["b"])
        for uri in (f"{folder.as_uri()}?split=test", f"{folder.as_uri()}/test"):
            assert read(uri, LABELS).dialogues == [dialogue("test0", ("A", "b", "calm"))]
        for uri in (folder.as_uri(), f"{folder.as_uri()}?split=dev"):
            with pytest.raises(
                BadInput, match=r"has the splits train, test: specify one, for example file:"
            ):
                read(uri, LABELS)
