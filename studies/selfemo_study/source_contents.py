"""The content of the files that results follow from, so that a corrected file is noticed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from selfemo_api.spec import ModelSpec, StorageSpec
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.prompts.prompt_texts import is_uri
from selfemo_jobs.runtime.stage_prompts import read_prompt_file
from selfemo_jobs.store import open_store
from selfemo_jobs.store.hashing import sha256
from selfemo_study.data_volumes import DataVolumes


def source_hashes(uris: Iterable[str], volumes: DataVolumes) -> dict[str, str]:
    """Return the SHA-256 of the content of sources, by URI, as the stages compute it.

    Parameters
    ----------
    uris
        The URIs of the sources.
    volumes
        The data volumes.

    Raises
    ------
    BadInput
        If a source does not exist or may not be read.
    StudyError
        If a data volume is missing.
    """
    return {uri: _source_sha256(uri, volumes) for uri in sorted({*uris})}


def prompt_hashes(model: ModelSpec, volumes: DataVolumes) -> dict[str, str]:
    """Return the SHA-256 of the file of a prompt set, by URI; empty for a built-in set.

    Parameters
    ----------
    model
        The field ``spec.model``.
    volumes
        The data volumes.

    Raises
    ------
    BadInput
        If the file does not exist or may not be read.
    StudyError
        If a data volume is missing.
    """
    if not is_uri(model.prompts):
        return {}
    with TemporaryDirectory() as work:
        store = open_store(StorageSpec(uri=Path(work).as_uri()))
        return {model.prompts: sha256(read_prompt_file(volumes.local_uri(model.prompts), store))}


def _source_sha256(uri: str, volumes: DataVolumes) -> str:
    local, root = volumes.local_uri(uri), "/".join(uri.split("/", 3)[:3])
    local_root = volumes.local_uri(root)
    with TemporaryDirectory() as work:  # files of S3 are copied
        store = open_store(StorageSpec(uri=Path(work).as_uri()))
        found = fetch_source(local, store, Path(work))
        # of several files, the names count: those in the volume, wherever its folder is
        named = [
            dataclasses.replace(file, uri=file.uri.replace(local_root, root, 1))
            for file in found.files
        ]
        return dataclasses.replace(found, uri=uri, files=tuple(named)).content_sha256()
