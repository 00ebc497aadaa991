"""Loads a source of any format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from selfemo_api.spec import DataFormat, Source
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.emorynlp import read_emorynlp
from selfemo_jobs.datasets.iemocap import read_iemocap
from selfemo_jobs.datasets.jsonl import read_jsonl
from selfemo_jobs.datasets.meld import read_meld
from selfemo_jobs.errors import BadInput


class _Reader(Protocol):
    def __call__(
        self, path: Path, file: str, labels: Sequence[str], *, read_labels: bool
    ) -> list[Dialogue]: ...


_READERS: dict[DataFormat, _Reader] = {
    DataFormat.MELD: read_meld,
    DataFormat.EMORYNLP: read_emorynlp,
    DataFormat.IEMOCAP: read_iemocap,
    DataFormat.JSONL: read_jsonl,
}


def load_source(
    source: Source, labels: Sequence[str], path: Path, *, read_labels: bool
) -> list[Dialogue]:
    """Return a source's dialogues in file order.

    Parameters
    ----------
    source
        Its format, and which of its dialogues to take (``firstDialogue``, ``maxDialogues``).
    labels
        ``dataset.labels``: labels that are read must be of these.
    path
        The file on this machine, see :func:`datasets.fetch.fetch_source`.
    read_labels
        False: the field that holds labels is not looked at, and may be missing, empty or wrong;
        utterances come without labels.

    Returns
    -------
    list of Dialogue
        At least one; turns in order, text and names on one line each.

    Raises
    ------
    BadInput
        One line that names the file, the line and the field: not the format, a missing column, an
        empty utterance or dialogue, an id there twice, broken encoding, an unknown emotion, or no
        dialogue left to take.
    """
    dialogues = _READERS[source.format](path, source.uri, labels, read_labels=read_labels)
    if not dialogues:
        raise BadInput(f"{source.uri} has no dialogue")
    stop = None if source.max_dialogues is None else source.first_dialogue + source.max_dialogues
    taken = dialogues[source.first_dialogue : stop]
    if not taken:
        raise BadInput(
            f"{source.uri} has {len(dialogues)} dialogues: `firstDialogue` of source "
            f"`{source.name}` is {source.first_dialogue}, past the last"
        )
    return taken
