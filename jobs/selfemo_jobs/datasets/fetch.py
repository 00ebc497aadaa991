"""Fetches the files of a source to this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from selfemo_api.text.files import is_stream
from selfemo_jobs.datasets.source_files import (
    SourceFiles,
    SourceUri,
    check_one_split,
    data_files,
    is_data_file,
    matches_pattern,
    matching_files,
    parse_source_uri,
    source_files,
    split_pattern,
)
from selfemo_jobs.datasets.text_files import SourceFile
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store import ObjectNotFound, Store, store_for
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.store.interface import object_name, object_uri
from selfemo_jobs.store.local_files import is_temporary, path_below, translated_errors
from selfemo_jobs.store.volumes import local_path


def fetch_source(uri: str, store: Store | None, work: Path) -> SourceFiles:
    """Return the files of a source on this machine.

    Parameters
    ----------
    uri
        The URI of a file, of a folder, or of several files by a pattern. ``file://`` and
        ``data://`` files are read in place; ``s3://`` files are copied below ``work``. Those of
        ``hf://`` are kept in the hub's own cache (``HF_HOME``).
    store
        The run's store. Its endpoint and options are used for ``s3://`` URIs. None refuses those.
    work
        The scratch folder. Files are copied each time, because they may have changed.

    Raises
    ------
    BadInput
        If there is no such file, it may not be read, or a folder has several splits.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    parsed = parse_source_uri(uri)
    if uri.startswith("hf://"):
        from selfemo_jobs.datasets.hub import hub_files  # its libraries are needed for it only

        return hub_files(uri, parsed, work)
    if not uri.startswith("s3://"):
        return _local_files(uri, parsed)
    if store is None:
        raise BadInput(f"{uri}: reading S3 requires storage options")
    return _files_in_store(uri, parsed, store_for(uri, store), work)


def _local_files(uri: str, parsed: SourceUri) -> SourceFiles:
    """Return the files of a `file://` or `data://` source."""
    path = local_path(parsed.base)
    with translated_errors(path):
        if path.is_file():
            return _readable(SourceFiles(uri, (SourceFile(path, uri),)))
        if path.is_dir():
            return _readable(_folder_files(uri, parsed, path))
        if is_stream(path):
            raise BadInput(f"{uri} is a pipe or a device: write its content to a file first")
        above, pattern = split_pattern(parsed.base)
        if not pattern:
            raise BadInput(f"{uri}: {path} does not exist")
        folder = local_path(above)
        return _readable(source_files(uri, folder, matching_files(folder, pattern, uri)))


def _readable(files: SourceFiles) -> SourceFiles:
    """Return files that this process may read. Raises BadInput for one that it may not."""
    for file in files.files:
        with translated_errors(file.path), file.path.open("rb"):
            pass
    return files


def _folder_files(uri: str, parsed: SourceUri, folder: Path) -> SourceFiles:
    """Return the files of a folder: of a saved dataset, of a split, or all of one kind."""
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        folder = _saved_split(uri, parsed, splits)
    if (folder / "state.json").is_file():
        return source_files(uri, folder, _saved_files(uri, folder / "state.json"))
    if parsed.split or parsed.config:
        from selfemo_jobs.datasets.hub import split_folder

        return split_folder(uri, parsed, folder)
    names = data_files(folder, uri)
    check_one_split(names, uri)
    return source_files(uri, folder, names)


def _saved_split(uri: str, parsed: SourceUri, file: Path) -> Path:
    """Return the folder of the split of a dataset that `datasets` saved with several splits."""
    splits = _json_list(uri, file, "splits")
    split = parsed.split or (splits[0] if len(splits) == 1 else None)
    if split not in splits:
        raise BadInput(
            f"{uri} has the splits {', '.join(splits)}: specify one, for example "
            f"{parsed.base}?split={splits[0]}"
        )
    return file.parent / split


def _saved_files(uri: str, file: Path) -> list[str]:
    """Return the names of the files of a dataset that `datasets` saved, in their order."""
    return _json_list(uri, file, "_data_files", "filename")


def _json_list(uri: str, file: Path, key: str, inner: str | None = None) -> list[str]:
    """Return a list of names in a JSON file of a saved dataset. Raises BadInput."""
    try:
        values = json.loads(file.read_bytes())[key]
        names = [value[inner] if inner else value for value in values]
    except (OSError, ValueError, KeyError, TypeError):
        names = []
    if not names or not all(isinstance(n, str) and re.fullmatch(r"[\w.-]+", n) for n in names):
        raise BadInput(f"{uri}: {file.name} does not belong to a saved dataset")
    return names


def _files_in_store(uri: str, parsed: SourceUri, store: Store, work: Path) -> SourceFiles:
    """Return the files of an `s3://` source, copied to this machine."""
    folder = work / "sources" / sha256(uri.encode())[:16]
    above, pattern = split_pattern(parsed.base)
    base = above.rstrip("/")
    if not pattern and not parsed.base.endswith("/"):
        path = path_below(folder, object_name(base, base.rpartition("/")[0]), uri)
        try:
            store.download(base, path)
        except ObjectNotFound:
            pass  # it may be a folder
        else:
            return SourceFiles(uri, (SourceFile(path, uri),))
    names = [object_name(info.uri, base) for info in store.list(base)]
    if pattern:
        names = [name for name in names if matches_pattern(name, pattern)]
        if not names:
            raise BadInput(f"{uri}: no object matches the pattern")
    elif not names:
        raise BadInput(f"{uri} does not exist")
    else:
        names = [name for name in names if is_data_file(name) or _describes(name)]
    _copy_files(store, base, names, folder)
    return source_files(uri, folder, names) if pattern else _folder_files(uri, parsed, folder)


def _copy_files(store: Store, base: str, names: Sequence[str], folder: Path) -> None:
    """Copy objects to a folder, and remove what an earlier copy left there.

    The names are those of the objects below the base. Whoever can write there has chosen them.
    """
    uris = {name: object_uri(base, name) for name in names}
    paths = {name: path_below(folder, name, uri) for name, uri in uris.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.rglob("*"):
        # it belongs to an earlier copy, unless another process is writing it
        is_old = path.relative_to(folder).as_posix() not in paths and not is_temporary(path.name)
        if is_old and path.is_file():
            path.unlink(missing_ok=True)
    for name, path in paths.items():
        try:
            store.download(uris[name], path)
        except ObjectNotFound:
            raise Unavailable(
                f"{uris[name]} was deleted while {base} was copied; run the same command again"
            ) from None


def _describes(name: str) -> bool:
    """Return whether a file describes a dataset: its splits, or the files of a saved one."""
    last = name.rpartition("/")[2]
    return last in {"README.md", "state.json", "dataset_dict.json", "dataset_infos.json"}
