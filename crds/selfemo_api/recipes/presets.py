"""The published datasets that ``dataset.preset`` names: labels, files and sizes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

from selfemo_api import dataset_labels
from selfemo_api.spec import DataFormat, Preset, Use


@dataclass(frozen=True)
class PublishedDataset:
    """A published dataset.

    Parameters
    ----------
    labels
        Its label set.
    format
        The format of its files.
    files
        The file names of its parts ``train``, ``dev`` and ``test``, as published.
    labeled
        A tenth of its training dialogues: the labeled subset, unless the resource sets another.
    """

    labels: tuple[str, ...]
    format: DataFormat
    files: dict[str, str]
    labeled: int


#: The published datasets. MELD has 1,038 training dialogues, EmoryNLP 659 and IEMOCAP 108.
PUBLISHED = {
    Preset.MELD: PublishedDataset(
        dataset_labels.MELD,
        DataFormat.MELD,
        {"train": "train_sent_emo.csv", "dev": "dev_sent_emo.csv", "test": "test_sent_emo.csv"},
        104,
    ),
    Preset.EMORYNLP: PublishedDataset(
        dataset_labels.EMORYNLP,
        DataFormat.EMORYNLP,
        {
            "train": "emorynlp_train_final.csv",
            "dev": "emorynlp_dev_final.csv",
            "test": "emorynlp_test_final.csv",
        },
        66,
    ),
    Preset.IEMOCAP: PublishedDataset(
        dataset_labels.IEMOCAP,
        DataFormat.IEMOCAP,
        {"train": "iemocap.train.json", "dev": "iemocap.valid.json", "test": "iemocap.test.json"},
        11,
    ),
}


def with_preset(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return ``spec.dataset`` with the labels and sources of its preset where they are unset.

    Parameters
    ----------
    dataset
        The JSON of ``spec.dataset``. It is not changed.

    Examples
    --------
    >>> dataset = with_preset({"preset": "MELD", "uri": "data://meld"})
    >>> [(source["name"], source["use"]) for source in dataset["sources"]]
    [('train', 'SelfPlay'), ('dev', 'Evaluation'), ('test', 'Evaluation')]
    """
    preset, uri = dataset.get("preset"), dataset.get("uri")
    if not isinstance(preset, str) or preset not in {*Preset} or not isinstance(uri, str):
        return dataset
    published = PUBLISHED[Preset(preset)]
    sources = [
        {
            "name": part,
            "uri": f"{uri.rstrip('/')}/{file}",
            "use": (Use.SELF_PLAY if part == "train" else Use.EVALUATION).value,
            "format": published.format.value,
        }
        for part, file in published.files.items()
    ]
    given = {
        "labels": list(published.labels),
        "sources": sources,
        "labeledDialogues": 0 if "sources" in dataset else published.labeled,
    }
    return {**given, **dataset}


def with_labeled_dialogues(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return ``spec.dataset`` with its labeled dialogues as a separate source.

    The first source with ``use: SelfPlay`` is divided: its first ``labeledDialogues`` dialogues
    become a source with ``use: Labeled``, and all of them are used in each generation.

    Parameters
    ----------
    dataset
        The JSON of ``spec.dataset``. It is not changed.

    Examples
    --------
    >>> train = {"name": "train", "uri": "data://mine/train.jsonl", "use": "SelfPlay"}
    >>> dataset = with_labeled_dialogues({"labeledDialogues": 60, "sources": [train]})
    >>> [(source["use"], source.get("offset")) for source in dataset["sources"]]
    [('SelfPlay', 60), ('Labeled', 0)]
    """
    count, sources = dataset.get("labeledDialogues"), dataset.get("sources")
    if not _is_integer(count) or count < 1 or not isinstance(sources, list):
        return dataset
    index = next((i for i, source in enumerate(sources) if _is_for_self_play(source)), None)
    if index is None:
        return dataset
    source = sources[index]
    name, limit = source.get("name"), source.get("limit")
    offset = source["offset"] if _is_integer(source.get("offset")) else 0
    labeled = {
        **source,
        "name": f"{name[:55]}-labeled" if isinstance(name, str) else name,
        "use": Use.LABELED.value,
        "offset": offset,
        "limit": count,
        "sample": count,
    }
    rest = {**source, "offset": offset + count}
    if _is_integer(limit):
        rest["limit"] = limit - count
    divided = [*sources[:index], rest, labeled, *sources[index + 1 :]]
    return {**dataset, "sources": divided, "labeledDialogues": 0}


def _is_for_self_play(source: Any) -> bool:
    return isinstance(source, dict) and source.get("use") == Use.SELF_PLAY.value


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
