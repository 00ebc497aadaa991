"""Writes dialogues in the formats that people have, and reads sources as stages do."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfemo_api.spec import DataFormat
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.dialogue_store import DialogueWriter, StoredDialogues
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.load import SourceContent, read_source
from selfemo_jobs.datasets.reading import ReadOptions


def dialogue(name: str, *turns: tuple[str, str, str] | tuple[str, str]) -> Dialogue:
    """Return a dialogue of (speaker, text) or (speaker, text, label)."""
    return Dialogue(name, tuple(Utterance(t[0], t[1], tuple(t[2:])) for t in turns))


def store_dialogues(dialogues: Iterable[Dialogue], folder: Path) -> StoredDialogues:
    """Write dialogues to a scratch file, as stages store their sources."""
    writer = DialogueWriter(folder)
    for one in dialogues:
        writer.add(one)
    return writer.finish()


def read(
    path: Path | str,
    labels: Sequence[str] | None = None,
    kind: DataFormat | None = None,
    *,
    read_labels: bool = True,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    work: Path = Path("/nonexistent"),
) -> SourceContent:
    """Return the content of a file, a folder or a URI."""
    uri = path if isinstance(path, str) else path.as_uri()
    options = ReadOptions(labels, read_labels, columns or {}, label_map or {})
    return read_source(fetch_source(uri, None, work), kind, options)


def turn_objects(dialogue: Dialogue, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the turns of a dialogue as objects with the names for speaker, text and labels."""
    speaker, text, label = names
    return [
        {speaker: t.speaker, text: t.text} | ({label: list(t.labels)} if t.labels else {})
        for t in dialogue.turns
    ]


def row_objects(dialogues: Sequence[Dialogue]) -> list[dict[str, Any]]:
    """Return the turns of dialogues as rows of a table, with at most one label each."""
    return [
        {
            "dialogue": dialogue.id,
            "turn": number,
            "speaker": turn.speaker,
            "text": turn.text,
            "label": ", ".join(turn.labels),
        }
        for dialogue in dialogues
        for number, turn in enumerate(dialogue.turns)
    ]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], separator: str = ",") -> Path:
    """Write rows as CSV."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(sink.getvalue(), encoding="utf-8", newline="")
    return path


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    """Write records as JSON Lines."""
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_json(path: Path, value: Any, indent: int | None = None) -> Path:
    """Write a JSON document."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def compressed(path: Path) -> Path:
    """Compress a file, and return the new one."""
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


def _nested(dialogues: Sequence[Dialogue], key: str, names: Sequence[str]) -> list[dict[str, Any]]:
    return [{"id": d.id, key: turn_objects(d, names)} for d in dialogues]


def _whole_nested(dialogues: Sequence[Dialogue]) -> list[dict[str, Any]]:
    return [
        {
            "id": d.id,
            "turns": [
                {"speaker": t.speaker, "text": t.text, "labels": list(t.labels)} for t in d.turns
            ],
        }
        for d in dialogues
    ]


_OWN = ("speaker", "text", "labels")
#: Writes dialogues in a format, and returns the file. The names are those of the tests.
WRITERS: dict[str, Callable[[Path, Sequence[Dialogue]], Path]] = {
    "csv": lambda folder, ds: write_table(folder / "d.csv", row_objects(ds)),
    "semicolons": lambda folder, ds: write_table(folder / "d.csv", row_objects(ds), ";"),
    "tsv": lambda folder, ds: write_table(folder / "d.tsv", row_objects(ds), "\t"),
    "jsonl": lambda folder, ds: write_lines(folder / "d.jsonl", _nested(ds, "turns", _OWN)),
    "list": lambda folder, ds: write_json(folder / "d.json", _nested(ds, "turns", _OWN)),
    "document": lambda folder, ds: write_json(folder / "d.json", _nested(ds, "turns", _OWN), 1),
    "rows": lambda folder, ds: write_lines(folder / "d.jsonl", row_objects(ds)),
    "chat": lambda folder, ds: write_lines(
        folder / "d.jsonl", _nested(ds, "messages", ("role", "content", "emotion"))
    ),
    "sharegpt": lambda folder, ds: write_json(
        folder / "d.json", _nested(ds, "conversations", ("from", "value", "label"))
    ),
    "parquet": lambda folder, ds: write_parquet(folder / "d.parquet", row_objects(ds)),
    "nested": lambda folder, ds: write_parquet(folder / "d.parquet", _whole_nested(ds)),
}
