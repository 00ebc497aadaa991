"""JSON: chat messages, documents given as lines, keys of labels, and what is explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.dialogue_files import dialogue, read, write_json, write_lines

from selfemo_api.spec import DataFormat
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


def own(name: str, **turn: Any) -> dict[str, Any]:
    return {"id": name, "turns": [{"speaker": "A", "text": "Hi", **turn}]}


class TestChat:
    def test_messages_of_the_system_and_of_tools_are_left_out(self, tmp_path: Path) -> None:
        messages = [
            {"role": "system", "content": "You are kind."},
            {"role": "user", "content": "I lost my key", "emotion": "cross"},
            {"role": "assistant", "content": None, "tool_calls": [{"name": "look"}]},
            {"role": "tool", "content": "{}"},
            {"role": "assistant", "content": "Oh no.", "emotion": None},
        ]
        content = read(write_lines(tmp_path / "c.jsonl", [{"messages": messages}]), LABELS)
        assert content.dialogues == [
            dialogue("1", ("user", "I lost my key", "cross"), ("assistant", "Oh no."))
        ]
        assert [w.message for w in content.warnings if w.kind == "SkippedMessages"] == [
            "3 system or tool messages are omitted (first: line 1)"
        ]

    def test_name_is_the_speaker_where_there_is_one(self, tmp_path: Path) -> None:
        messages = [{"role": "user", "name": "Ida", "content": [{"type": "text", "text": "Hi"}]}]
        path = write_lines(tmp_path / "c.jsonl", [{"conversation_id": 4, "messages": messages}])
        assert read(path).dialogues == [dialogue("4", ("Ida", "Hi"))]

    def test_other_names_by_the_columns(self, tmp_path: Path) -> None:
        lines = [{"key": "k1", "dialogue": [{"who": "Ida", "said": "Hi", "felt": "glad"}]}]
        content = read(
            write_lines(tmp_path / "c.jsonl", lines),
            LABELS,
            columns={"dialogue": "key", "speaker": "who", "text": "said", "label": "felt"},
        )
        assert content.dialogues == [dialogue("k1", ("Ida", "Hi", "glad"))]

    def test_only_a_system_message(self, tmp_path: Path) -> None:
        path = write_lines(
            tmp_path / "c.jsonl", [{"messages": [{"role": "system", "content": "Hi"}]}]
        )
        assert refused(path) == " line 1: `messages` contains no message of a speaker"

    def test_message_without_a_role(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "c.jsonl", [{"messages": [{"content": "Hi"}]}])
        assert refused(path) == " line 1: `messages[0].speaker` is missing"

    def test_id_that_is_there_twice(self, tmp_path: Path) -> None:
        line = {"conversation_id": "k", "messages": [{"role": "user", "content": "Hi"}]}
        path = write_lines(tmp_path / "c.jsonl", [line, line])
        assert refused(path) == " line 2: `conversation_id` k appears twice (first: line 1)"

    @pytest.mark.parametrize("numbered_first", [True, False])
    def test_id_that_is_the_number_of_a_record_without_one(
        self, numbered_first: bool, tmp_path: Path
    ) -> None:
        messages = [{"role": "user", "content": "Hi"}]
        numbered, named = {"messages": messages}, {"id": "1", "messages": messages}
        lines = [numbered, named] if numbered_first else [{**named, "id": "2"}, numbered]
        path = write_lines(tmp_path / "c.jsonl", lines)
        assert "is the number of a record without an id: set an id for all" in refused(path)

    @pytest.mark.parametrize("role", [{"name": "Ann"}, ["user"], 7])
    def test_role_that_is_not_a_text(self, role: Any, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "c.jsonl", [{"messages": [{"from": role, "text": "Hi"}]}])
        if role == 7:
            assert read(path).dialogues == [dialogue("1", ("7", "Hi"))]
        else:
            assert "`messages[0].from`" in refused(path)


class TestDocuments:
    @pytest.mark.parametrize("indent", [None, 0, 2])
    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("kind", [None, DataFormat.JSONL])
    def test_list_of_dialogues(
        self, tmp_path: Path, indent: int | None, count: int, kind: DataFormat | None
    ) -> None:
        path = write_json(tmp_path / "d.jsonl", [own(str(i)) for i in range(count)], indent)
        expected = [dialogue(str(i), ("A", "Hi")) for i in range(count)]
        assert read(path, LABELS, kind).dialogues == expected

    @pytest.mark.parametrize("indent", [None, 0, 4])
    def test_one_dialogue_over_lines(self, tmp_path: Path, indent: int | None) -> None:
        path = write_json(tmp_path / "d.json", own("a", label="glad"), indent)
        assert read(path, LABELS).dialogues == [dialogue("a", ("A", "Hi", "glad"))]

    def test_list_with_an_item_in_each_line(self, tmp_path: Path) -> None:
        path = tmp_path / "d.json"
        for items in ([own("a")], [own("a"), own("b")]):
            path.write_text("[\n" + ",\n".join(json.dumps(item) for item in items) + "\n]\n")
            assert len(read(path).dialogues) == len(items)

    def test_errors_in_a_document_name_the_item(self, tmp_path: Path) -> None:
        path = write_json(tmp_path / "d.json", [own("a"), own("b", text="")], 2)
        assert refused(path) == ": `[1].turns[0].text` is empty"

    def test_error_of_syntax_names_the_line_of_the_document(self, tmp_path: Path) -> None:
        text = json.dumps([own("a"), own("b")], indent=1).replace('"text": "Hi"', '"text": Hi', 1)
        path = tmp_path / "d.json"
        path.write_text(text)
        line = 1 + next(i for i, part in enumerate(text.split("\n")) if '"text": Hi' in part)
        assert refused(path).startswith(f" line {line}: not JSON: ")

    def test_error_in_the_first_of_several_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "d.jsonl"
        path.write_text(json.dumps(own("a"))[:-2] + "\n" + json.dumps(own("b")) + "\n")
        assert refused(path).startswith(" line 1: not JSON: ")

    def test_dialogues_below_a_name_are_explained(self, tmp_path: Path) -> None:
        path = write_json(tmp_path / "d.json", {"data": [own("a")], "version": 1}, 2)
        assert refused(path) == (
            ": `turns` is missing: a dialogue must have `turns`, `messages` or another list of "
            "turns"
        )

    def test_json_where_a_table_is_expected(self, tmp_path: Path) -> None:
        for number, value in enumerate(([own("a")], own("a"))):
            path = write_json(tmp_path / f"{number}.csv", value, 1)
            for kind in (None, DataFormat.CSV, DataFormat.MELD, DataFormat.EMORYNLP):
                assert refused(path, kind=kind) == (
                    " is JSON, not CSV: omit `format`, or set it to `JSONL`, and use a JSON "
                    "file extension"
                )

    @pytest.mark.parametrize("kind", [None, DataFormat.EMORYNLP, DataFormat.JSONL])
    def test_json_of_emorynlp_is_explained(self, tmp_path: Path, kind: DataFormat | None) -> None:
        scene = {"scene_id": "s02_e01_c02", "utterances": [{"transcript": "No.", "emotion": "Mad"}]}
        season = {"season_id": "s02", "episodes": [{"episode_id": "s02_e01", "scenes": [scene]}]}
        for number, value in enumerate((season, [season], season["episodes"])):
            path = write_json(tmp_path / f"{number}.json", value, number or None)
            assert refused(path, kind=kind) == (
                " is the JSON format of EmoryNLP's own repository, which is not supported: use "
                "the files `emorynlp_*_final.csv` of MELD's repository, or convert it to JSON "
                "Lines"
            )


class TestLabelKeys:
    @pytest.mark.parametrize("key", ["label", "labels", "emotion", "emotions", "Emotion"])
    @pytest.mark.parametrize("value", [["Glad"], "glad"])
    def test_common_keys(self, tmp_path: Path, key: str, value: Any) -> None:
        path = write_lines(tmp_path / "d.jsonl", [own("a", **{key: value})])
        if (key, value) == ("labels", "glad"):
            assert refused(path) == " line 1: `turns[0].labels` must be a list"
        else:
            assert read(path, LABELS).dialogues == [dialogue("a", ("A", "Hi", "glad"))]

    def test_labels_win_over_other_keys(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "d.jsonl", [own("a", emotion="x", labels=["glad"])])
        assert read(path, LABELS).dialogues == [dialogue("a", ("A", "Hi", "glad"))]
        path = write_lines(tmp_path / "d.jsonl", [own("a", emotion="x", labels=None)])
        assert read(path, LABELS).dialogues == [dialogue("a", ("A", "Hi"))]

    def test_two_other_keys_are_named(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "d.jsonl", [own("a", emotion="glad", label=1)])
        assert refused(path) == (
            " line 1: `turns[0]` has `emotion` and `label`: specify the key of the labels in "
            "`dataset.columns.label`"
        )
        content = read(path, LABELS, columns={"label": "emotion"})
        assert content.dialogues == [dialogue("a", ("A", "Hi", "glad"))]

    @pytest.mark.parametrize("value", [True, 1.5, {"glad": 1}, [["glad"]], [{}]])
    def test_values_that_are_not_labels(self, tmp_path: Path, value: Any) -> None:
        path = write_lines(tmp_path / "d.jsonl", [own("a", label=value)])
        assert refused(path).startswith(" line 1: `turns[0].label")
        assert refused(path).endswith(" must be text")

    def test_several_labels_and_numbers(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "d.jsonl", [own("a", labels=[3, "cross"])])
        content = read(path, LABELS, label_map={"3": "calm"})
        assert content.dialogues == [Dialogue("a", (Utterance("A", "Hi", ("calm", "cross")),))]


def test_columns_of_a_table_leave_json_alone(tmp_path: Path) -> None:
    columns = {"dialogue": "talk", "speaker": "who", "text": "said", "label": "mood"}
    path = write_lines(tmp_path / "d.jsonl", [own("a", labels=["glad"])])
    assert read(path, LABELS, columns=columns).dialogues == [dialogue("a", ("A", "Hi", "glad"))]


class TestRowsOfJson:
    def test_lines_of_which_each_is_a_turn(self, tmp_path: Path) -> None:
        lines = [
            {"conv_id": "c", "turn": 1, "speaker": "A", "text": "Hi", "label": "glad"},
            {"conv_id": "c", "turn": 0, "speaker": "B", "text": "Ho"},
        ]
        assert read(write_lines(tmp_path / "d.jsonl", lines), LABELS).dialogues == [
            dialogue("c", ("B", "Ho"), ("A", "Hi", "glad"))
        ]

    def test_parallel_lists(self, tmp_path: Path) -> None:
        lines = [
            {"id": "p", "utterances": ["Hi", "Ho"], "speakers": ["A", "B"], "emotions": [0, 1]}
        ]
        content = read(
            write_lines(tmp_path / "d.jsonl", lines),
            LABELS,
            columns={"speaker": "speakers"},
            label_map={"0": "calm", "1": ""},
        )
        assert content.dialogues == [dialogue("p", ("A", "Hi", "calm"), ("B", "Ho"))]

    def test_numbers_as_names(self, tmp_path: Path) -> None:
        lines = [{"id": 12, "turns": [{"speaker": 0, "text": "Hi"}]}]
        assert read(write_lines(tmp_path / "d.jsonl", lines)).dialogues == [
            dialogue("12", ("0", "Hi"))
        ]
