"""The same dialogues in every format are read as the same dialogues."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.dialogue_files import WRITERS, compressed, dialogue, read

from selfemo_api import dataset_labels as sets
from selfemo_api.spec import DataFormat
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance

LABELS = ["no_emotion", "no emotion", "Wut", "joie mêlée", "高兴", "fear-ish"]
DIALOGUES = [
    dialogue("a1", ("Ana", "We won, didn’t we?", "joie mêlée"), ("Bo", "Yes; all 3!", "高兴")),
    dialogue("7", ("小明", "我不知道。", "no_emotion"), ("Ana", "Ah…"), ("小明", "好", "Wut")),
    dialogue("x:2", ("Ana", 'She said "go".', "no emotion")),
]

KINDS = {
    **dict.fromkeys(("csv", "semicolons", "tsv"), DataFormat.CSV),
    **dict.fromkeys(("jsonl", "list", "document", "rows", "chat", "sharegpt"), DataFormat.JSONL),
    **dict.fromkeys(("parquet", "nested"), DataFormat.PARQUET),
}

#: The SHA-256 of the dialogues of each published file, as JSON. No change of a reader changes it.
PUBLISHED = {
    "meld/train_sent_emo.csv": "f417ef951482ab6d04ce0024ed5a93dfe2ad3e1c4a2e84fbcbc97a7d14e35acb",
    "meld/dev_sent_emo.csv": "ff36b9c41c511ba15bf8651ac058cae9729869d5fef49a86b630fbbead9ee846",
    "meld/test_sent_emo.csv": "a2bb5f026f6c3d8f414f49f50b718d0bf473914a4a49d9b44aa7531fdfec4416",
    "emorynlp/emorynlp_train_final.csv": (
        "0ac6307ff5fd98fc7cbc805a80a26bcc2a912f9b04566edaa00d49a29ba968c6"
    ),
    "emorynlp/emorynlp_dev_final.csv": (
        "67fa68ead8786be3261a4ea6d1cdfbec54d38b7cec6f36533fcf40215c69b1e5"
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_is_decided_and_read(tmp_path: Path, writer: str, packed: bool) -> None:
    path = WRITERS[writer](tmp_path, DIALOGUES)
    content = read(compressed(path) if packed else path, LABELS)
    assert content.kind is KINDS[writer]
    assert content.dialogues == DIALOGUES
    assert read(path, LABELS, KINDS[writer]).dialogues == DIALOGUES


@pytest.mark.parametrize("writer", WRITERS)
def test_labels_are_not_read(tmp_path: Path, writer: str) -> None:
    path = WRITERS[writer](tmp_path, DIALOGUES)
    plain = [
        Dialogue(d.id, tuple(Utterance(t.speaker, t.text) for t in d.turns)) for d in DIALOGUES
    ]
    assert read(path, ["other", "labels"], read_labels=False).dialogues == plain


@pytest.mark.parametrize("writer", WRITERS)
def test_unknown_labels_are_counted_in_every_format(tmp_path: Path, writer: str) -> None:
    path = WRITERS[writer](tmp_path, DIALOGUES)
    with pytest.raises(Exception, match=r"unknown emotion: .* 2 of 5 labels do not match"):
        read(path, ["No_Emotion", "no emotion", "高兴"])


@pytest.mark.parametrize("file", PUBLISHED)
def test_published_files_load_to_the_same_dialogues(shared_data: Path, file: str) -> None:
    labels = sets.MELD if "meld" in file else sets.EMORYNLP
    content = read(shared_data / file, labels)
    values = [[d.id, [[t.speaker, t.text, t.labels] for t in d.turns]] for d in content.dialogues]
    assert content.kind is (DataFormat.MELD if "meld" in file else DataFormat.EMORYNLP)
    assert hashlib.sha256(json.dumps(values).encode()).hexdigest() == PUBLISHED[file]
    assert {warning.kind for warning in content.warnings} <= {"LostApostrophes"}


ONE_LINE = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
    .map(lambda text: " ".join(text.split()))
    .filter(bool)
)
TURNS = st.builds(
    Utterance,
    ONE_LINE,
    ONE_LINE,
    st.lists(st.sampled_from(LABELS), max_size=3, unique=True).map(tuple),
)


@given(
    turns=st.dictionaries(
        ONE_LINE, st.lists(TURNS, min_size=1, max_size=3), min_size=1, max_size=3
    ),
    writer=st.sampled_from(sorted(WRITERS)),
)
def test_any_dialogues_come_back(
    tmp_path_factory: pytest.TempPathFactory, turns: dict[str, list[Utterance]], writer: str
) -> None:
    dialogues = [Dialogue(name, tuple(values)) for name, values in turns.items()]
    path = WRITERS[writer](tmp_path_factory.mktemp("any"), dialogues)
    assert read(path, LABELS).dialogues == dialogues
    assert read(path, LABELS) == read(path, LABELS)


@example(data=b"\x1c", ending="")
@given(data=st.binary(max_size=300), ending=st.sampled_from(["", ".csv", ".json", ".gz", ".tsv"]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, ending: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"f{ending}"
    path.write_bytes(data)
    try:
        assert read(path).dialogues
    except Exception as error:  # noqa: BLE001
        assert type(error).__name__ == "BadInput", repr(error)
        assert "\n" not in str(error)
