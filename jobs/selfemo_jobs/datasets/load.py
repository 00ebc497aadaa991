"""Loads the dialogues of a source in any format."""

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
        The source: its format, and which of its dialogues are used (``firstDialogue``,
        ``maxDialogues``).
    labels
        The label set, ``dataset.labels``. Labels that are read must be in it.
    path
        The file on this machine; see :func:`datasets.fetch.fetch_source`.
    read_labels
        Whether utterances have their labels. If not, the field of the labels is not read: it may be
        missing, empty or wrong.

    Returns
    -------
    list of Dialogue
        At least one dialogue. Turns are in order; names and texts are on one line each.

    Raises
    ------
    BadInput
        If the file does not have the format, has no dialogue to use, or has an empty utterance, an
        id twice, a wrong encoding or an unknown emotion. The message names file, line and field.
    """
    dialogues = _READERS[source.format](path, source.uri, labels, read_labels=read_labels)
    if not dialogues:
        raise BadInput(f"{source.uri} has no dialogue")
    stop = None if source.max_dialogues is None else source.first_dialogue + source.max_dialogues
    selected = dialogues[source.first_dialogue : stop]
    if not selected:
        raise BadInput(
            f"{source.uri} has {len(dialogues)} dialogues: `firstDialogue` of source "
            f"`{source.name}` is {source.first_dialogue}, past the last"
        )
    return selected
