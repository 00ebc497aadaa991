"""Fetches a model to this machine, checks it, and loads it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_jobs.errors import BadInput, DamagedFiles, Unavailable, error_line
from selfemo_jobs.models.description_file import described_hashes
from selfemo_jobs.models.load_errors import passing_load_error
from selfemo_jobs.models.model_folder import (
    DESCRIPTION_FILES,
    MODEL_FILES,
    NOTICE_FILES,
    check_model_folder,
    is_copied_file,
    is_model_file,
    read_model_config,
)
from selfemo_jobs.models.model_weights import OTHER_FORMAT
from selfemo_jobs.models.package_model import SCHEME, fetch_package_model
from selfemo_jobs.models.resume import is_manifest, resumed_model
from selfemo_jobs.models.run_models import check_not_removed, parse_run_model
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, Part, read_manifest
from selfemo_jobs.runtime.scratch import scratch_folder
from selfemo_jobs.store import ObjectInfo, ObjectNotFound, Store, join, objects_below, store_for
from selfemo_jobs.store.hashing import file_sha256, sha256
from selfemo_jobs.store.hub import translated_hub_errors
from selfemo_jobs.store.local_files import is_temporary, path_below
from selfemo_jobs.store.volumes import local_path

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


#: The errors that Transformers raises for weights that it cannot load, and those of the machine.
_LOAD_ERRORS = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, ZeroDivisionError, MemoryError),
)


def fetch_model(uri: str, revision: str | None, store: Store, work: Path) -> Path:
    """Return a local folder with a model, checked to be whole.

    A model that a train stage made is compared with that stage's manifest: the size and the SHA-256
    of every file.

    Parameters
    ----------
    uri
        One of these:

        - ``file:///folder`` or ``data://volume/folder``: the folder is used in place.
        - ``s3://bucket/prefix``: the model is copied below ``work``. Files that are there are kept.
        - ``hf://owner/name``: the model is kept in the hub's own cache (``HF_HOME``).
        - ``package://smollm2?layers=N``: the model is made once, below the scratch folder of all
          stages.
        - the ``manifest.json`` of another run's generation, or that run's
          ``best/manifest.json``: the model that it is about.
    revision
        A hub revision: branch, tag or commit. It is used for ``hf://`` alone; a manifest has the
        revision of its own model.
    store
        The run's store. Its endpoint and options are used for ``s3://`` URIs.
    work
        The scratch folder. If it outlives an attempt, an interrupted copy continues.

    Raises
    ------
    BadInput
        If there is no such model, it may not be read, or it is not whole.
    Unavailable
        If the storage or the hub cannot be reached, or another model took its place meanwhile.
    """
    if is_manifest(uri):
        uri, revision = resumed_model(uri, store)
    try:
        return _fetch(uri, revision, store, work)
    except BadInput:
        check_not_removed(uri, store)  # it tells why the model is missing
        raise


def _fetch(uri: str, revision: str | None, store: Store, work: Path) -> Path:
    if uri.startswith("hf://"):
        folder = _from_hub(uri, revision)
    elif uri.startswith("s3://"):
        folder = _from_store(uri, store_for(uri, store), work)
    elif uri.startswith(SCHEME):
        folder = fetch_package_model(uri, scratch_folder() / "models")
    else:
        folder = local_path(uri)
        if folder.is_dir() and uri.startswith("file://"):
            _check_parts(folder, _manifest_parts(uri, store_for(uri, store)), uri)
    try:
        check_model_folder(folder, uri)
    except BadInput as error:
        raise _incomplete(uri, str(error)) from None
    return folder


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return a model's tokenizer. Without a padding token, it pads with its end token.

    Parameters
    ----------
    folder
        The model's folder.

    Raises
    ------
    BadInput
        If the folder has no tokenizer, or it cannot be read.
    """
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        raise BadInput(
            f"{folder} contains no tokenizer (tokenizer.json, tokenizer.model or vocab.json)"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    # a broken file can raise any error (those of the Rust library are bare Exceptions)
    except Exception as error:
        passing = passing_load_error(folder, error)
        raise passing or BadInput(
            f"{folder}: the tokenizer cannot be read: {error_line(error)}"
        ) from error
    if tokenizer.eos_token_id is None:
        raise BadInput(f"{folder}: the tokenizer has no end token: set `eos_token`")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Return a causal language model on the CPU, in evaluation mode.

    Only safetensors files are read, and no code of the model's own is run.

    Parameters
    ----------
    folder
        The model's folder.
    dtype
        The type of the weights.

    Raises
    ------
    BadInput
        If ``config.json`` is broken or of an unknown type, or the weights do not fit it.
    Unavailable
        If the memory or the file system is not available, which may pass.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from selfemo_jobs.acceleration.last_layer import contiguous_head

    model_type = read_model_config(folder)["model_type"]
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    # the validation errors of library versions have no common base class
    except Exception as error:
        passing = passing_load_error(folder, error)
        raise passing or BadInput(
            f"{folder}/config.json: `model_type` {model_type}: {error_line(error)}"
        ) from error
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except ImportError as error:  # of a library that this kind of weights needs
        raise BadInput(f"{folder}: {error_line(error)}") from error
    except _LOAD_ERRORS as error:
        passing = passing_load_error(folder, error)
        raise passing or BadInput(
            f"{folder}: the weights do not fit config.json: {error_line(error)}"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:  # they would be initialized at random
        raise BadInput(
            f"{folder}: the weights lack {missing[0]} ({len(missing)} in total), which "
            "config.json requires"
        )
    loaded: PreTrainedModel = model.eval()
    contiguous_head(loaded)
    return loaded


def move_model(model: PreTrainedModel, device: torch.device, folder: Path) -> PreTrainedModel:
    """Return a model on a device.

    Parameters
    ----------
    model
        The model.
    device
        The device.
    folder
        The model's folder, for the message.

    Raises
    ------
    Unavailable
        If the device is busy, sick or has no memory left, which may pass.
    """
    try:
        return model.to(device)
    except RuntimeError as error:
        passing = passing_load_error(folder, error)
        if passing is None:
            raise
        raise passing from error


def _from_hub(uri: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with translated_hub_errors(uri, revision, "model"):
        return Path(
            snapshot_download(
                uri.removeprefix("hf://"),
                revision=revision,
                allow_patterns=[*MODEL_FILES, *NOTICE_FILES, *sorted(DESCRIPTION_FILES)],
                # folders have other formats and examples
                ignore_patterns=["*/*", OTHER_FORMAT],
            )
        )


def _from_store(uri: str, store: Store, work: Path) -> Path:
    files = _listed(uri, store)
    if not any(is_model_file(name) for name in files):
        raise _incomplete(uri, f"{uri} does not exist or contains no model files")
    folder = work / "models" / sha256(uri.encode())[:16]
    expected = _manifest_parts(uri, store)
    _remove_others(folder, files)
    # the description comes first: its hashes show which files an earlier attempt copied
    for name, info in sorted(files.items(), key=lambda item: (is_model_file(item[0]), item[0])):
        path = path_below(folder, name, info.uri)
        if is_model_file(name) and _is_copied(path, info, expected):
            continue
        try:
            store.download(info.uri, path)
            os.utime(path, (info.modified, info.modified))
        except ObjectNotFound:
            if parse_run_model(uri) is not None:
                problem = f"{info.uri} was deleted while the model was copied"
                raise _incomplete(uri, problem) from None
            raise _changed(uri, name) from None
    _check_parts(folder, expected, uri)
    if not expected:  # only the times show that another model took its place meanwhile
        _check_unchanged(uri, files, _listed(uri, store))
    return folder


def _listed(uri: str, store: Store) -> dict[str, ObjectInfo]:
    """Return the stored files that are copied with a model, by name."""
    return {n: info for n, info in objects_below(store, uri).items() if is_copied_file(n)}


def _remove_others(folder: Path, files: Mapping[str, ObjectInfo]) -> None:
    """Remove the files of an earlier model at the same URI from its local folder.

    It comes before the copy: the hashes in an earlier description are not those of this model.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        # another process may be writing a temporary file
        if path.name not in files and not is_temporary(path.name):
            path.unlink(missing_ok=True)


def _check_unchanged(
    uri: str, before: Mapping[str, ObjectInfo], after: Mapping[str, ObjectInfo]
) -> None:
    """Check that a model has the files that it had before it was copied. Raises Unavailable."""
    for name in sorted({*before, *after}):
        pair = (before.get(name), after.get(name))
        if len({info and (info.size, info.modified) for info in pair}) > 1:
            raise _changed(uri, name)


def _changed(uri: str, name: str) -> Unavailable:
    """Return the error of a model that was replaced while it was copied."""
    return Unavailable(
        f"{uri} changed while it was copied ({name}); run the same command again when all of its "
        "files are in place"
    )


def _is_copied(path: Path, info: ObjectInfo, expected: dict[str, Part]) -> bool:
    """Return whether an earlier attempt copied a file: a copy is whole or not there.

    A copy has the time of the stored file. Weights of one architecture have the same size whatever
    they were trained on, so the time tells a model that was replaced where no hash does.

    Parameters
    ----------
    path
        The local path.
    info
        The stored file.
    expected
        The model's files by name, as a manifest lists them. Empty: there is none, and the files are
        compared with the model's description, if there is one.
    """
    if not path.is_file():
        return False
    status = path.stat()
    if status.st_size != info.size:
        return False
    if path.name in expected:
        return _matches(path, expected[path.name])
    digest = described_hashes(path.parent).get(path.name)
    if digest is None:
        return int(status.st_mtime) == int(info.modified)
    return digest == file_sha256(path)


def _manifest_parts(uri: str, store: Store) -> dict[str, Part]:
    """Return a model's files as the train stage's manifest lists them; empty without a manifest."""
    parent, _, folder = uri.rstrip("/").rpartition("/")
    if parent.count("/") < 3:
        return {}  # no stage writes to the root of a bucket or of the file system
    manifest_uri = join(parent, MANIFEST)
    try:
        if json.loads(store.get(manifest_uri)).get("kind") != Manifest.model_fields["kind"].default:
            return {}
    except (ObjectNotFound, ValueError, AttributeError):
        return {}  # there is no manifest, or another file with its name
    except BadInput:
        if parse_run_model(uri) is not None:
            raise
        return {}  # the right to read a model need not extend to what is beside it
    manifest, _ = read_manifest(store, manifest_uri)
    start = folder + "/"
    parts = {p.path.removeprefix(start): p for p in manifest.parts if p.path.startswith(start)}
    return {name: part for name, part in parts.items() if is_model_file(name)}


def _check_parts(folder: Path, expected: dict[str, Part], uri: str) -> None:
    """Check that a model's files are those of a manifest. Raises DamagedFiles."""
    for name, part in sorted(expected.items()):
        path = folder / name
        if not path.is_file():
            problem = f"{uri}/{name} is missing, although the manifest next to it lists it"
        elif not _matches(path, part):
            problem = f"{uri}/{name} does not match the manifest next to it"
        else:
            continue
        raise DamagedFiles(problem, join(uri.rstrip("/").rpartition("/")[0], MANIFEST))


def _incomplete(uri: str, problem: str) -> BadInput:
    """Return the error of a model that is not whole. A stage may be able to make it again."""
    model = parse_run_model(uri)
    if model is None or not uri.startswith(("file://", "s3://")):
        return BadInput(problem)
    return DamagedFiles(problem, join(model.stage_uri, MANIFEST))


def _matches(path: Path, part: Part) -> bool:
    """Return whether a file is the one of a manifest."""
    return path.stat().st_size == part.size and file_sha256(path) == part.sha256
