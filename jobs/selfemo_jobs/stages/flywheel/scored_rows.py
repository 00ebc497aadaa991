"""Reads the flywheel's input: scored candidates, checked against their manifest, then read by Daft.

The hash of a part is computed in a stream. No file is ever held in memory as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import daft
import pyarrow as pa
import pyarrow.parquet as pq
from daft.io import IOConfig, S3Config

from selfemo_api.spec import FlywheelRunner, StorageSpec
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import (
    Part,
    changed_part,
    missing_part,
    read_manifest,
    wrong_rows,
)
from selfemo_jobs.runtime.schemas import ADDED, SCORED
from selfemo_jobs.runtime.tables import columns_to_fill
from selfemo_jobs.store import ObjectNotFound, join
from selfemo_jobs.store.folder import file_path
from selfemo_jobs.store.hashing import file_sha256

#: Number of rows whose groups are summarized at once. Their small columns take about a gigabyte.
PORTION_ROWS = 4_000_000


def literal_pattern(path: str) -> str:
    """Return the pattern that matches a path alone: Daft takes each path for a pattern.

    Examples
    --------
    >>> literal_pattern("/runs [1]/p*.parquet")
    '/runs [[]1]/p[*].parquet'
    """
    return re.sub(r"[*?\[{}]", r"[\g<0>]", path)


@dataclass(frozen=True)
class ScoredRows:
    """The scored candidates of one manifest, whose parts were checked."""

    paths: list[str]
    """Files that Daft reads: local paths, or URIs on S3 if the machines of a cluster read them."""
    sha256: str
    """SHA-256 of the manifest."""
    storage: StorageSpec
    """The storage, with the settings of its S3 service."""

    def read(self) -> daft.DataFrame:
        """Return the candidates as a lazy data frame.

        Returns
        -------
        daft.DataFrame
            The columns of :data:`selfemo_jobs.runtime.schemas.SCORED`. Columns that the files of an
            earlier version lack have their default values.
        """
        return self._read(self.paths)

    def portions(self) -> Iterator[daft.DataFrame]:
        """Yield the candidates in lazy data frames of limited size, each of whole files.

        Files on S3 are one portion: the machines of a cluster share them.
        """
        portion: list[str] = []
        rows = 0
        for path in self.paths:
            portion.append(path)
            rows += 0 if path.startswith("s3://") else pq.read_metadata(path).num_rows
            if rows >= PORTION_ROWS:
                yield self._read(portion)
                portion, rows = [], 0
        if portion or not self.paths:
            yield self._read(portion)

    def _read(self, paths: Sequence[str]) -> daft.DataFrame:
        if not paths:
            return daft.from_arrow(SCORED.empty_table())
        remote = paths[0].startswith("s3://")
        # the keys of S3, of which URIs have the percent-encoded form
        patterns = [literal_pattern(unquote(path) if remote else path) for path in paths]
        frame = daft.read_parquet(patterns, io_config=_io_config(self.storage) if remote else None)
        for name in columns_to_fill(frame.column_names, SCORED, paths[0]):
            dtype = daft.DataType.from_arrow_type(SCORED.field(name).type)
            frame = frame.with_column(name, daft.lit(ADDED[name]).cast(dtype))
        return frame.select(*SCORED.names)


def open_scored_rows(context: StageContext, manifest_uri: str, name: str) -> ScoredRows:
    """Check all parts of a manifest, and return where Daft reads them.

    Parameters
    ----------
    context
        The context of the stage.
    manifest_uri
        URI of the manifest of the Score stage or of an earlier flywheel.
    name
        Name of a folder below the scratch folder, for parts that must be copied to this machine.

    Returns
    -------
    ScoredRows
        The checked parts.

    Raises
    ------
    DamagedFiles
        If a part is missing, differs from the manifest, is not a whole Parquet file, or lacks a
        column.
    """
    manifest, digest = read_manifest(context.store, manifest_uri)
    in_process = context.config.spec.flywheel.runner is FlywheelRunner.IN_PROCESS
    paths = []
    for index, part in enumerate(manifest.parts):
        if not part.path.endswith(".parquet"):
            continue
        uri = join(manifest_uri.rsplit("/", 1)[0], part.path)
        local = uri.startswith("file://")
        path = file_path(uri) if local else context.work / name / f"{index:05d}.parquet"
        _check_part(context, manifest_uri, part, uri, path)
        if not local and not in_process:
            path.unlink()  # the machines of the cluster read it from S3
        if part.rows != 0:
            paths.append(str(path) if local or in_process else uri)
    return ScoredRows(paths, digest, context.config.spec.storage)


def _check_part(context: StageContext, manifest_uri: str, part: Part, uri: str, path: Path) -> None:
    try:
        digest = _fetch_and_hash(context, uri, path, part)
    except (ObjectNotFound, FileNotFoundError):
        raise missing_part(uri, manifest_uri) from None
    if digest != part.sha256:
        raise changed_part(uri, manifest_uri, digest, part)
    _check_schema(uri, path)


def _fetch_and_hash(context: StageContext, uri: str, path: Path, part: Part) -> str:
    """Return the SHA-256 of a part, which is copied to this machine if it is remote."""
    if not uri.startswith("file://"):
        if path.is_file() and file_sha256(path) == part.sha256:
            return part.sha256  # an earlier attempt has fetched it
        context.store.download(uri, path)
    return file_sha256(path)


def _check_schema(uri: str, path: Path) -> None:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise wrong_rows(f"{uri} is not a whole Parquet file ({error})", uri) from None
    later = columns_to_fill(schema.names, SCORED, uri)
    for column in SCORED:
        if column.name in later:
            continue
        dtype = schema.field(column.name).type
        if dtype != column.type:
            problem = f"{uri}: column `{column.name}` is {dtype}, not {column.type}"
            raise wrong_rows(problem, uri)


def _io_config(storage: StorageSpec) -> IOConfig:
    """Return Daft's S3 settings, with the credentials that boto3 uses on this machine."""
    import boto3  # only where it is needed

    credentials = boto3.Session().get_credentials()
    keys = credentials.get_frozen_credentials() if credentials is not None else None
    return IOConfig(
        s3=S3Config(
            region_name=storage.region,
            endpoint_url=storage.endpoint,
            key_id=keys.access_key if keys else None,
            access_key=keys.secret_key if keys else None,
            session_token=keys.token if keys else None,
            num_tries=storage.max_attempts,
            use_ssl=not (storage.endpoint or "").startswith("http://"),
            force_virtual_addressing=not storage.path_style and storage.endpoint is not None,
        )
    )
