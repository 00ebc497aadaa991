"""The files of a source on this machine: one file, a folder, or several files by a pattern."""

from __future__ import annotations

import fnmatch
import glob
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from posixpath import commonpath
from urllib.parse import parse_qsl, unquote

from selfemo_jobs.datasets.text_files import SourceFile
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store.hashing import file_sha256, sha256
from selfemo_jobs.store.interface import object_uri

#: The endings of data files. Other files of a folder are left out.
DATA_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".parquet", ".arrow")
#: Files with such an ending that hold no data.
_NOT_DATA = frozenset(
    {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
)
_OPTIONS = re.compile(r"\?(?=(?:split|config|revision)=)")
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class SourceFiles:
    """The files of a source."""

    uri: str
    """The source's URI, as in the spec."""
    files: tuple[SourceFile, ...]
    """The files, at least one, in the order of their names."""
    label_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names of the numbers in a column, as the card of a Hugging Face dataset has them."""

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file; of several files, that of their names and hashes."""
        return self._hash_files()

    def content_sha256(self) -> str:
        """Return the SHA-256 of all that the dialogues follow from, as it is at this moment.

        The names of labels may come from the card of a dataset, which is not among the files.

        Raises
        ------
        Unavailable
            If a file was removed since the source was read.
        """
        try:
            digest = self._hash_files()
        except FileNotFoundError as error:
            raise _changed(self.uri) from error
        if not self.label_names:
            return digest
        names = {column: list(names) for column, names in self.label_names.items()}
        return sha256(f"{digest} {json.dumps(names, sort_keys=True)}".encode())

    def check_unchanged(self, digest: str) -> None:
        """Check that the source still has the content that it had before it was read.

        Parameters
        ----------
        digest
            The result of :meth:`content_sha256` before.

        Raises
        ------
        Unavailable
            If it has another content: some of what was read may be of either.
        """
        if self.content_sha256() != digest:
            raise _changed(self.uri)

    def _hash_files(self) -> str:
        if len(self.files) == 1:
            return file_sha256(self.files[0].path)
        lines = [f"{file_sha256(file.path)} {file.uri}\n" for file in self.files]
        return sha256("".join(lines).encode())


def _changed(uri: str) -> Unavailable:
    return Unavailable(f"{uri} changed while it was read; run the same command again")


@dataclass(frozen=True)
class SourceUri:
    """The parts of a source's URI."""

    base: str
    """The URI without options."""
    split: str | None = None
    """The split of a Hugging Face dataset, e.g. ``train``."""
    config: str | None = None
    """The configuration (subset) of a Hugging Face dataset."""
    revision: str | None = None
    """The revision on the hub: a branch, a tag or a commit."""

    @property
    def options(self) -> str:
        """The options as they are in a URI; empty if there are none."""
        pairs = [(k, getattr(self, k)) for k in ("config", "split", "revision") if getattr(self, k)]
        return "?" + "&".join(f"{key}={value}" for key, value in pairs) if pairs else ""


def parse_source_uri(uri: str) -> SourceUri:
    """Return the parts of a source's URI.

    Raises
    ------
    BadInput
        If an option is unknown or is there twice.

    Examples
    --------
    >>> parse_source_uri("hf://owner/name?split=train")
    SourceUri(base='hf://owner/name', split='train', config=None, revision=None)
    """
    base, *rest = _OPTIONS.split(uri, maxsplit=1)
    if not rest:
        return SourceUri(uri)
    pairs = parse_qsl(rest[0], keep_blank_values=True)
    options = dict(pairs)
    unknown = sorted(options.keys() - {"split", "config", "revision"})
    if unknown or len(options) != len(pairs) or not all(options.values()):
        raise BadInput(
            f"{uri}: only `split`, `config` and `revision` are allowed after `?`, each once"
        )
    return SourceUri(base, **options)


def is_pattern(name: str) -> bool:
    """Return whether a part of a URI's path stands for several names.

    Examples
    --------
    >>> is_pattern("train-*.jsonl"), is_pattern("train%2A.jsonl")
    (True, False)
    """
    return re.search(r"[*?\[]", name) is not None


def split_pattern(uri: str) -> tuple[str, str]:
    """Return the URI of the folder above a pattern, and the pattern; the pattern may be empty.

    Examples
    --------
    >>> split_pattern("data://mine/talk/part-*.csv")
    ('data://mine/talk', 'part-*.csv')
    """
    scheme, _, path = uri.partition("://")
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if i and is_pattern(part)), len(parts))
    return f"{scheme}://{'/'.join(parts[:first])}", "/".join(parts[first:])


def matching_files(folder: Path, pattern: str, uri: str, where: str | None = None) -> list[str]:
    """Return the names of the files below a folder that match a pattern, sorted.

    Parameters
    ----------
    folder
        The folder.
    pattern
        The pattern: ``*``, ``?``, ``[…]``, and ``**`` for any folders. It is percent-decoded; an
        encoded sign stands for itself.
    uri
        The source's URI, for messages.
    where
        The name of the folder, for messages. None: its path.

    Raises
    ------
    BadInput
        If no file matches, or the pattern leads out of the folder.
    """
    decoded = decode_pattern(pattern)
    if ".." in decoded.split("/"):
        raise BadInput(f"{uri} must not point outside its folder (`..`)")
    names = glob.glob(decoded, root_dir=folder, recursive=True)  # noqa: PTH207  (root_dir)
    files = sorted({Path(name).as_posix() for name in names if (folder / name).is_file()})
    if not files:
        raise BadInput(f"{uri}: no file matches the pattern in {where or folder}")
    return files


def matches_pattern(name: str, pattern: str) -> bool:
    """Return whether the path of an object matches a pattern, as :mod:`glob` reads it.

    Parameters
    ----------
    name
        The path, with slashes.
    pattern
        The pattern, percent-encoded.

    Examples
    --------
    >>> matches_pattern("train/a.csv", "train/*.csv"), matches_pattern("train/b/a.csv", "*.csv")
    (True, False)
    """
    return _match_parts(name.split("/"), decode_pattern(pattern).split("/"))


def _match_parts(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":  # any folders that are not hidden
        depth = next((i for i, n in enumerate(names) if n.startswith(".")), len(names))
        return any(_match_parts(names[i:], patterns[1:]) for i in range(depth + 1))
    if not names or (names[0].startswith(".") and not patterns[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(names[0], patterns[0]) and _match_parts(names[1:], patterns[1:])


def decode_pattern(pattern: str) -> str:
    """Return a pattern of a URI as :mod:`glob` reads it.

    Examples
    --------
    >>> decode_pattern("my%20talk%5B1%5D-*.csv")
    'my talk[[]1]-*.csv'
    """
    for code, literal in (("2A", "[*]"), ("3F", "[?]"), ("5B", "[[]")):
        pattern = re.sub(f"%{code}", literal, pattern, flags=re.IGNORECASE)
    return unquote(pattern)


def data_files(folder: Path, uri: str) -> list[str]:
    """Return the names of the data files below a folder, sorted.

    Raises
    ------
    BadInput
        If there are none.
    """
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = sorted(path.as_posix() for path in paths if is_data_file(path.as_posix()))
    if not names:
        raise BadInput(
            f"{uri}: {folder} contains no data file (supported extensions: "
            f"{', '.join(DATA_ENDINGS)}, each optionally followed by .gz)"
        )
    return names


def is_data_file(name: str) -> bool:
    """Return whether a file of a folder is one with data, by its name.

    Examples
    --------
    >>> is_data_file("data/train.csv.gz"), is_data_file("README.md"), is_data_file(".old/a.csv")
    (True, False, False)
    """
    parts = name.split("/")
    hidden = any(part.startswith((".", "_")) for part in parts)
    last = parts[-1].lower().removesuffix(".gz")
    return not hidden and last not in _NOT_DATA and last.endswith(DATA_ENDINGS)


def check_one_split(names: Iterable[str], uri: str) -> None:
    """Check that files are not of several splits: a test set must not be mixed with training data.

    Parameters
    ----------
    names
        The paths of the files below the source's folder.
    uri
        The source's URI, for messages.

    Raises
    ------
    BadInput
        If the names are of several splits.
    """
    words = {name: set(re.split(r"[^a-z]+", name.lower())) for name in names}
    example = {
        split: next(name for name in words if words[name].intersection(keywords))
        for split, keywords in _SPLIT_WORDS.items()
        if any(parts.intersection(keywords) for parts in words.values())
    }
    if len(example) > 1:
        examples = ", ".join(f"{split}: {name}" for split, name in example.items())
        raise BadInput(
            f"{uri} contains files of several splits ({examples}): select one with `?split=`, or "
            "its files with a pattern"
        )


def names_below(uris: Sequence[str]) -> list[str]:
    """Return the paths of files below the folder that has all of them, percent-decoded.

    A name whose bytes are not UTF-8 stays encoded.

    Parameters
    ----------
    uris
        The URIs of the files.

    Examples
    --------
    >>> names_below(["s3://b/talks/day%201.csv", "s3://b/talks/old/2.csv"])
    ['day 1.csv', 'old/2.csv']
    """
    paths = [PurePosixPath("/", uri.partition("://")[2] or uri) for uri in uris]
    folder = commonpath([path.parent for path in paths])
    return [_decoded(str(path.relative_to(folder))) for path in paths]


def _decoded(name: str) -> str:
    try:
        return unquote(name, errors="strict")
    except UnicodeDecodeError:
        return name


def source_files(uri: str, folder: Path, names: Sequence[str]) -> SourceFiles:
    """Return the files of a source.

    Parameters
    ----------
    uri
        The source's URI.
    folder
        The folder of the files on this machine.
    names
        The paths of the files below the folder, in order.
    """
    base = split_pattern(parse_source_uri(uri).base)[0].rstrip("/")
    files = tuple(SourceFile(folder / name, object_uri(base, name)) for name in names)
    return SourceFiles(uri, files)
