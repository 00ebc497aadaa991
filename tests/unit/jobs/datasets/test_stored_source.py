"""Sources in scratch files: equal to those that are read whole, and of bounded memory."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.dialogue_files import (
    WRITERS,
    compressed,
    dialogue,
    read,
    row_objects,
    store_dialogues,
    write_lines,
    write_parquet,
    write_table,
)

from selfemo_api.spec import DataFormat
from selfemo_jobs.datasets import dialogue_stream
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.dialogue_store import StoredDialogues
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.load import SourceContent
from selfemo_jobs.datasets.reading import ReadOptions
from selfemo_jobs.datasets.stored_source import StoredContent, store_content
from selfemo_jobs.errors import BadInput

LABELS = ("calm", "cross", "glad")
TALKS = [
    dialogue("a", ("Ann", "Where are the keys?", "calm"), ("Bo", "No idea,\u2028sorry.", "cross")),
    dialogue("b", ("Ann", "I found them!", "glad"), ("Bo", "哈哈，太好了！"), ("Ann", "»Ja«")),
    Dialogue("c", (Utterance("Bo", "Oh no", ("calm", "cross")),)),
]


@pytest.fixture(params=[0, 8 << 20], ids=["in-parts", "whole"])
def whole_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(dialogue_stream, "WHOLE_BYTES", request.param)
    return int(request.param)


def store(
    path: Path,
    work: Path,
    labels: Sequence[str] | None = LABELS,
    kind: DataFormat | None = None,
    *,
    read_labels: bool = True,
) -> StoredContent:
    files = fetch_source(path.as_uri(), None, work)
    return store_content(files, kind, ReadOptions(labels, read_labels), work)


def check_equal(stored: StoredContent, whole: SourceContent) -> None:
    assert list(stored.dialogues) == whole.dialogues
    assert (stored.kind, stored.warnings) == (whole.kind, whole.warnings)


@pytest.mark.usefixtures("whole_bytes")
class TestEqualToTheWholeSource:
    @pytest.mark.parametrize("name", sorted(WRITERS))
    @pytest.mark.parametrize("read_labels", [True, False])
    def test_formats(self, name: str, read_labels: bool, tmp_path: Path) -> None:
        path = WRITERS[name](tmp_path, TALKS)
        stored = store(path, tmp_path / "work", read_labels=read_labels)
        check_equal(stored, read(path, LABELS, read_labels=read_labels))
        assert stored.dialogues[2].turns[0].labels == (("calm", "cross") if read_labels else ())
        assert stored.dialogues.most_labels.tolist() == ([1, 1, 2] if read_labels else [0, 0, 0])
        assert stored.dialogues.turn_counts.tolist() == [2, 3, 1]

    def test_several_files_with_equal_ids(self, tmp_path: Path) -> None:
        folder = tmp_path / "talks"
        (folder / "old").mkdir(parents=True)
        write_lines(folder / "x.jsonl", [{"text": "I don?t", "label": "calm"}, {"text": "b"}])
        write_table(folder / "old" / "y.csv", [{"text": "c?s", "label": ""}])
        with pytest.raises(BadInput, match="contains files of several formats"):
            store(folder, tmp_path / "work")
        (folder / "old" / "y.csv").unlink()
        write_lines(folder / "old" / "y.jsonl", [{"text": "I can?t"}])
        stored = store(folder, tmp_path / "work")
        check_equal(stored, read(folder, LABELS))
        assert [one.id for one in stored.dialogues] == ["old/y.jsonl:1", "x.jsonl:1", "x.jsonl:2"]
        assert [one.id for one in stored.dialogues[1:]] == ["x.jsonl:1", "x.jsonl:2"]

    def test_names_in_ids_are_as_they_are(self, tmp_path: Path) -> None:
        folder = tmp_path / "talks"
        folder.mkdir()
        for name in ("day 1.jsonl", "对话.jsonl", os.fsdecode(b"\xff.jsonl")):
            write_lines(folder / name, [{"text": "Hi"}])
        stored = store(folder, tmp_path / "work")
        check_equal(stored, read(folder, LABELS))
        names = ["day 1.jsonl:1", "对话.jsonl:1", "%FF.jsonl:1"]
        assert [one.id for one in stored.dialogues] == names

    def test_numbers_of_labels_in_a_table(self, tmp_path: Path) -> None:
        from datasets import ClassLabel, Dataset, Features, Value

        kinds = Features(text=Value("string"), label=ClassLabel(names=list(LABELS)))
        Dataset.from_dict({"text": ["a", "b"], "label": [2, 0]}, kinds).to_parquet(
            tmp_path / "d.parquet"
        )
        stored = store(tmp_path / "d.parquet", tmp_path / "work")
        check_equal(stored, read(tmp_path / "d.parquet", LABELS))
        assert [one.turns[0].labels for one in stored.dialogues] == [("glad",), ("calm",)]

    def test_unknown_label(self, tmp_path: Path) -> None:
        path = WRITERS["csv"](tmp_path, TALKS)
        errors = []
        for act in (lambda: store(path, tmp_path, ("calm",)), lambda: read(path, ("calm",))):
            with pytest.raises(BadInput) as caught:
                act()
            errors.append(str(caught.value))
        assert errors[0] == errors[1]
        assert "an unknown emotion" in errors[0]

    def test_packed_files(self, tmp_path: Path) -> None:
        path = compressed(WRITERS["rows"](tmp_path, TALKS))
        check_equal(store(path, tmp_path / "work"), read(path, LABELS))

    def test_published_files(self, shared_data: Path, tmp_path: Path) -> None:
        labels = ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust")
        path = shared_data / "meld" / "dev_sent_emo.csv"
        check_equal(store(path, tmp_path, labels), read(path, labels))


class TestRowsThatAreApart:
    @pytest.fixture(autouse=True)
    def in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dialogue_stream, "WHOLE_BYTES", 0)
        monkeypatch.setattr(dialogue_stream, "HEAD_RECORDS", 2)

    def test_the_table_is_read_whole(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = tmp_path / "talks"
        folder.mkdir()
        rows = row_objects(TALKS)
        write_table(folder / "a.csv", rows)
        write_table(folder / "b.csv", [rows[0], *rows[2:], rows[1]])
        with caplog.at_level(logging.WARNING):
            stored = store(folder, tmp_path / "work")
        check_equal(stored, read(folder, LABELS))
        assert [one.id for one in stored.dialogues][:4] == [
            "a.csv:a",
            "a.csv:b",
            "a.csv:c",
            "b.csv:a",
        ]
        assert "b.csv line 7: rows of dialogue a also appear earlier" in caplog.text
        assert "the whole table is now read at once" in caplog.text

    def test_a_column_that_comes_late(self, tmp_path: Path) -> None:
        rows = [{"dialogue": f"{i}", "text": "Hi"} for i in range(4)]
        path = write_lines(tmp_path / "t.jsonl", [*rows[:3], {**rows[3], "label": "calm"}])
        stored = store(path, tmp_path / "work")
        check_equal(stored, read(path, LABELS))
        assert stored.dialogues[3].turns[0].labels == ("calm",)


def test_slices_of_stored_dialogues(tmp_path: Path) -> None:
    stored = store_dialogues(TALKS, tmp_path)
    assert stored[-1] == TALKS[2]
    assert list(stored[::-1]) == TALKS[::-1]
    assert stored[::-1].turn_counts.tolist() == [1, 3, 2]
    assert list(stored[1:][:1]) == [TALKS[1]]
    assert len(stored[3:]) == 0 and stored[3:].most_labels.tolist() == []
    with pytest.raises(IndexError):
        stored[3]


def test_the_scratch_file_has_no_name_and_is_freed(tmp_path: Path) -> None:
    def opened() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = opened()
    stored: StoredDialogues | None = store_dialogues(TALKS, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []
    assert opened() == before + 1
    del stored
    assert opened() == before


MEASURE = """
import sys
from pathlib import Path
from selfemo_api.spec import SelfPlaySpec
from selfemo_jobs.datasets import dialogue_stream
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.reading import ReadOptions
from selfemo_jobs.datasets.stored_source import store_content
from selfemo_jobs.stages.selfplay.episodes import SourceDialogues, plan_episodes, split_into_parts

dialogue_stream.WHOLE_BYTES = dialogue_stream.HEAD_BYTES = 1 << 20

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

def play(path):
    files = fetch_source(Path(path).as_uri(), None, Path(sys.argv[3]))
    content = store_content(files, None, ReadOptions(("joy",)), Path(sys.argv[3]))
    settings = SelfPlaySpec(targets_per_dialogue=2)
    plan = plan_episodes([SourceDialogues("s", content.dialogues, True)], settings, ["joy"], 1)
    parts = split_into_parts(plan, settings)
    return len(plan), sum(len(episode.dialogue.turns) for episode in parts[len(parts) // 2])

play(sys.argv[1])
before = peak()
episodes, turns = play(sys.argv[2])
print(episodes, turns > 0, peak() - before)
"""


@pytest.mark.parametrize("name", ["d.jsonl", "d.parquet"])
def test_a_shard_does_not_hold_its_sources(name: str, tmp_path: Path) -> None:
    def write(count: int) -> Path:
        path = tmp_path / f"{count}-{name}"
        rows = [
            {"dialogue": f"d{i // 4}", "text": f"{i} " + "word " * 600, "label": "joy"}
            for i in range(count)
        ]
        if name == "d.parquet":
            return write_parquet(path, rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    # 6 MB and 36 MB of text
    sources = [str(write(2_000)), str(write(12_000))]
    command = [sys.executable, "-c", MEASURE, *sources, str(tmp_path / "work")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    episodes, turns, growth = result.stdout.split()
    assert (episodes, turns) == ("6000", "True")
    # KiB: what libraries allocate varies. With all dialogues in memory, it is over 60,000.
    assert int(growth) < 36_000
