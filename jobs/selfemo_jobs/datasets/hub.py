"""Datasets of the Hugging Face Hub, and folders with their layout.

Only data files are read. Loading scripts are not run, and pickles are refused.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfemo_jobs.datasets.arrow_files import feature_names
from selfemo_jobs.datasets.source_files import (
    SourceFiles,
    SourceUri,
    is_data_file,
    matching_files,
    source_files,
)
from selfemo_jobs.datasets.text_files import SourceFile
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.store.hub import translated_hub_errors
from selfemo_jobs.store.local_files import path_below

log = logging.getLogger(__name__)

_REPOSITORY = re.compile(r"hf://(?:datasets/)?([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?")
#: The files that describe a dataset: its configurations, splits and features.
_CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")


def hub_files(uri: str, parsed: SourceUri, work: Path) -> SourceFiles:
    """Return the files of a dataset on the hub, which are kept in the hub's own cache.

    Parameters
    ----------
    uri
        The source's URI: ``hf://owner/name``, perhaps with ``?split=train``, or with the path or
        pattern of files below it.
    parsed
        The parts of the URI.
    work
        The scratch folder.

    Raises
    ------
    BadInput
        If there is no such dataset, split or file, or it may not be read.
    Unavailable
        If the hub cannot be reached.
    """
    from huggingface_hub import HfApi, hf_hub_download

    match = _REPOSITORY.fullmatch(parsed.base.rstrip("/"))
    if match is None:
        raise BadInput(f"{uri} must be hf://owner/name, e.g. hf://owner/name?split=train")
    name, revision, pattern = match[1], match[2] or parsed.revision, match[3]
    with translated_hub_errors(uri, revision, "dataset"):
        info = HfApi().dataset_info(name, revision=revision)
    files = [sibling.rfilename for sibling in info.siblings or ()]
    log.info("%s is at commit %s", uri, info.sha)

    def download(file: str) -> Path:
        with translated_hub_errors(uri, revision, "dataset"):
            return Path(hf_hub_download(name, file, repo_type="dataset", revision=info.sha))

    layout = work / "sources" / sha256(f"{uri}@{info.sha}".encode())[:16]
    cards = {card: download(card) for card in _CARDS if card in files and not pattern}
    _write_layout(layout, files, cards, uri)
    label_names: Mapping[str, Sequence[str]] = {}
    if pattern:
        names = matching_files(layout, pattern, uri, "the dataset")
    else:
        names, label_names = split_files(layout, parsed, uri)
    base = f"hf://{name}"
    return SourceFiles(
        uri, tuple(SourceFile(download(file), f"{base}/{file}") for file in names), label_names
    )


def split_folder(uri: str, parsed: SourceUri, folder: Path) -> SourceFiles:
    """Return the files of one split of a folder that has the layout of a dataset on the hub.

    Parameters
    ----------
    uri
        The source's URI, with ``split`` or ``config``.
    parsed
        The parts of the URI.
    folder
        The folder on this machine.

    Raises
    ------
    BadInput
        If the folder has no such split.
    """
    names, label_names = split_files(folder, parsed, uri)
    files = source_files(uri, folder, names)
    return SourceFiles(uri, files.files, label_names)


def split_files(
    folder: Path, parsed: SourceUri, uri: str
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the paths of a split's files below a folder, and the names of its class labels.

    The ``datasets`` library decides which files a split has, by the card of the dataset
    (``README.md``) or by their names. It reads no data here.

    Raises
    ------
    BadInput
        If the folder has no data file, no such configuration or no such split, or has several
        splits and the URI names none.
    """
    from datasets import load_dataset_builder

    if not any(is_data_file(path.relative_to(folder).as_posix()) for path in folder.rglob("*")):
        raise BadInput(
            f"{uri} has no supported data file (JSON, CSV, Parquet or Arrow), and loading "
            "scripts are not run: try the option `revision=refs/convert/parquet`"
        )
    try:
        # the builder locks a cache, and the folder may be read-only
        with tempfile.TemporaryDirectory() as cache:
            builder: Any = load_dataset_builder(str(folder), name=parsed.config, cache_dir=cache)
    # the library's errors have no common base class
    except Exception as error:
        reason = " ".join(str(error).replace(str(folder), "the dataset").split())[:300]
        raise BadInput(f"{uri}: the files of the dataset are ambiguous: {reason}") from error
    splits = {str(split): paths for split, paths in (builder.config.data_files or {}).items()}
    split = parsed.split or (next(iter(splits)) if len(splits) == 1 else None)
    if split not in splits:
        options = f"config={parsed.config}&" if parsed.config else ""
        problem = f"has no split {split}; it has" if split else "has the splits"
        raise BadInput(
            f"{uri} {problem} {', '.join(splits)}: specify one, for example "
            f"{parsed.base}?{options}split={next(iter(splits))}"
        )
    root = folder.resolve()
    paths = [Path(path) for path in splits[split]]
    outside = next((path for path in paths if not path.is_relative_to(root)), None)
    if outside is not None:
        raise BadInput(f"{uri}: the dataset card refers to a file outside the dataset: {outside}")
    names = sorted(path.relative_to(root).as_posix() for path in paths)
    names = [name for name in names if is_data_file(name)]
    if not names:
        raise BadInput(f"{uri}: split {split} has no supported data file")
    return names, feature_names(builder.info.features or {})


def _write_layout(folder: Path, names: Sequence[str], cards: Mapping[str, Path], uri: str) -> None:
    """Write a folder with an empty file for each data file of a dataset, and with its card.

    So the ``datasets`` library can find the files of a split before any of them is fetched.
    """
    for name in filter(is_data_file, names):
        path = path_below(folder, name, f"{uri}: {name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder.mkdir(parents=True, exist_ok=True)
    for name, card in cards.items():
        (folder / name).write_bytes(card.read_bytes())
