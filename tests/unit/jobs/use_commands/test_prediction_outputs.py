"""Each format of predictions, read back by other readers; control characters."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len

from selfemo_api.text.control_characters import json_text, visible
from selfemo_jobs.use_commands.prediction_outputs import OutputFormat, OutputLayout, open_writer
from selfemo_jobs.use_commands.prediction_rows import PredictedTurn
from selfemo_jobs.use_commands.terminal_text import cut

LABELS = ["joy", "no emotion"]
TURNS = [
    PredictedTurn("d1", 0, "Ann", 'We "won", at last', ["joy"], {"joy": 0.75, "no emotion": 0.25}),
    PredictedTurn(
        "d1", 1, "小明", "=哈哈 😀", ["no emotion", "joy"], {"joy": 1 / 3, "no emotion": 2 / 3}
    ),
    PredictedTurn(
        "d2", 0, "\x1b[31mBo", "a\x9b\x7f\u202eb\\x1b", ["joy"], {"joy": 1e-12, "no emotion": 1.0}
    ),
]


class Terminal(io.BytesIO):
    """A stream that reports that it is a terminal."""

    def isatty(self) -> bool:
        return True


def render(
    kind: OutputFormat,
    parts: list[list[PredictedTurn]],
    stream: io.BytesIO | None = None,
    **options: Any,
) -> bytes:
    stream = stream or io.BytesIO()
    writer = open_writer(stream, OutputLayout(kind, LABELS, **options))
    for part in parts:
        writer.write(part)
    writer.close()
    return stream.getvalue()


@pytest.mark.parametrize("kind", list(OutputFormat))
@pytest.mark.parametrize("probabilities", [True, False])
def test_parts_make_no_difference(kind: OutputFormat, probabilities: bool) -> None:
    whole = render(kind, [TURNS], probabilities=probabilities)
    if kind is not OutputFormat.TABLE:  # its columns are as wide as the first part needs
        assert render(kind, [TURNS[:1], [], TURNS[1:]], probabilities=probabilities) == whole
    assert render(kind, [TURNS], probabilities=probabilities) == whole


def test_json_is_one_document() -> None:
    document = json.loads(render(OutputFormat.JSON, [TURNS[:2], TURNS[2:]]))
    assert document["labels"] == LABELS
    assert document["predictions"] == [turn.to_json() for turn in TURNS]
    assert document["predictions"][1]["probabilities"] == {
        "joy": 0.333333333,
        "no emotion": 0.666666667,
    }
    assert json.loads(render(OutputFormat.JSON, [])) == {"labels": LABELS, "predictions": []}


def test_json_lines() -> None:
    lines = render(OutputFormat.JSONL, [TURNS]).decode().split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [turn.to_json() for turn in TURNS]
    bare = render(OutputFormat.JSONL, [TURNS[:1]], probabilities=False)
    assert "probabilities" in json.loads(bare)  # the turns have them: they were computed
    turn = PredictedTurn("d", 0, "A", "b", ["joy"])
    assert render(OutputFormat.JSONL, [[turn]], probabilities=False) == (
        b'{"dialogue": "d", "turn": 0, "speaker": "A", "text": "b", "labels": ["joy"]}\n'
    )


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(render(OutputFormat.CSV, [TURNS]).decode())))
    assert rows[1] == {
        "dialogue": "d1",
        "turn": "1",
        "speaker": "小明",
        "text": "=哈哈 😀",
        "labels": "no emotion, joy",
        "p_joy": "0.333333333",
        "p_no emotion": "0.666666667",
    }
    assert [row["text"] for row in rows] == [turn.text for turn in TURNS]
    heading = render(OutputFormat.CSV, [TURNS], probabilities=False).split(b"\n")[0]
    assert heading == b"dialogue,turn,speaker,text,labels"


def test_parquet() -> None:
    table = pq.read_table(io.BytesIO(render(OutputFormat.PARQUET, [TURNS])))
    assert table.to_pylist()[1] == {
        "dialogue": "d1",
        "turn": 1,
        "speaker": "小明",
        "text": "=哈哈 😀",
        "labels": ["no emotion", "joy"],
        "p_joy": 0.333333333,
        "p_no emotion": 0.666666667,
    }
    empty = pq.read_table(io.BytesIO(render(OutputFormat.PARQUET, [], probabilities=False)))
    assert empty.column_names == ["dialogue", "turn", "speaker", "text", "labels"]


def test_parquet_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfemo_jobs.use_commands.prediction_outputs._ROW_GROUP", 2)
    data = render(OutputFormat.PARQUET, [TURNS[:1], TURNS[1:], TURNS])
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.metadata.num_row_groups == 3
    assert file.read()["text"].to_pylist() == [turn.text for turn in TURNS * 2]


class TestTable:
    def test_not_a_terminal(self) -> None:
        assert render(OutputFormat.TABLE, [TURNS[:2]]).decode() == (
            "dialogue  turn  speaker  labels           p_joy  p_no emotion  text\n"
            'd1        0     Ann      joy              0.750  0.250         We "won", at last\n'
            "d1        1     小明     no emotion, joy  0.333  0.667         =哈哈 😀\n"
        )

    def test_without_probabilities(self) -> None:
        assert render(OutputFormat.TABLE, [TURNS[:1]], probabilities=False).decode() == (
            "dialogue  turn  speaker  labels  text\n"
            'd1        0     Ann      joy     We "won", at last\n'
        )

    @pytest.mark.parametrize("columns", [50, 80, 120])
    def test_lines_fit_into_a_terminal(self, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        long = PredictedTurn("d" * 99, 10, "S" * 99, "漢字" * 99, ["joy"], TURNS[0].probabilities)
        lines = render(OutputFormat.TABLE, [[*TURNS, long]], Terminal()).decode().splitlines()
        assert len(lines) == 5
        assert max(map(cell_len, lines)) <= columns
        assert ("p_joy" in lines[0]) == (columns == 120)
        assert ("  p  " in lines[0]) == (columns != 120)
        if columns == 80:
            assert lines[2].split()[3:6] == ["no", "emotion,", "joy"]
            assert "0.667" in lines[2]  # that of its first label

    def test_later_parts_may_be_wider(self) -> None:
        wide = PredictedTurn("dialogue-17", 0, "Ann", "Hi", ["joy"], TURNS[0].probabilities)
        line = render(OutputFormat.TABLE, [TURNS[:1], [wide]]).decode().splitlines()[2]
        assert line.split() == ["dialogue-17", "0", "Ann", "joy", "0.750", "0.250", "Hi"]


@pytest.mark.parametrize("kind", ["table", "json", "jsonl", "csv"])
def test_no_control_characters_reach_a_terminal(kind: str) -> None:
    text = render(OutputFormat(kind), [TURNS], Terminal()).decode()
    assert visible(text.replace("\n", "")) == text.replace("\n", "")
    assert "\\x1b[31m" in text or "\\u001b[31m" in text


def test_files_have_the_texts_unchanged() -> None:
    rows = list(csv.DictReader(io.StringIO(render(OutputFormat.CSV, [TURNS]).decode())))
    assert rows[2]["text"] == TURNS[2].text


def test_text_helpers() -> None:
    assert visible("a\tb\r\n\x00\u2028é😀") == "a\\tb\\r\\n\\x00\\u2028é😀"
    assert json.loads(json_text("a\x7f\u2066")) == "a\x7f\u2066"
    assert cut("漢字漢字", 5) == "漢字…"
    assert cut("漢字漢字", 4) == "漢…"
