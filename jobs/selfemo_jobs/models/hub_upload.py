"""Uploads a model to the Hugging Face Hub, as one commit.

The library finds the token itself: `HF_TOKEN`, or the login of `hf auth login`. It is never read
here, and no message has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.model_description import DESCRIPTION_FILE, ModelDescription
from selfemo_jobs.errors import BadInput, error_line
from selfemo_jobs.models.description_file import parse_description
from selfemo_jobs.models.model_folder import is_copied_file, is_notice
from selfemo_jobs.models.model_places import HubFiles
from selfemo_jobs.store.hub import translated_hub_errors

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

_HUB = "hf://"
#: Files that the hub makes, and those that people add to a repository of a model.
LEFT_ALONE = (".gitattributes", ".gitignore", "LICENSE", "LICENSE.md", "LICENSE.txt")


def upload_to_hub(
    files: Mapping[str, Path],
    texts: Mapping[str, bytes],
    uri: str,
    description: ModelDescription,
    *,
    overwrite: bool,
    private: bool,
) -> int:
    """Upload the files of a model as one commit; return how many files it has.

    The repository is made where it does not exist. A file that the hub has already is not sent
    again, so that an interrupted upload continues.

    Parameters
    ----------
    files
        The local path of each file of the model, by name.
    texts
        The bytes of the description and the card, by name.
    uri
        The URI of the repository: ``hf://owner/name``.
    description
        The description, with the hashes of the files.
    overwrite
        Whether another model in the repository is replaced.
    private
        Whether a repository that is made is private.

    Raises
    ------
    BadInput
        If there is no token, it may not write there, or another model is there.
    Unavailable
        If the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    check_hub_target(uri)
    api = HfApi()
    repository = uri.removeprefix(_HUB)
    with translated_hub_errors(uri, None, "model"):
        api.create_repo(repository, private=private or None, repo_type="model", exist_ok=True)
    present = HubFiles(uri, None)
    stored = _stored(present, uri)
    if stored is None or stored.weights_sha256 != description.weights_sha256:
        _check_replaceable(present, stored, uri, overwrite=overwrite)
    operations = _operations(files, texts, present, stored, description)
    if operations:
        _commit(api, repository, operations, uri)
    return len(operations)


def check_hub_target(uri: str) -> None:
    """Check the name of a repository, and that there is a token. The hub is not asked.

    Parameters
    ----------
    uri
        The URI of the repository: ``hf://owner/name``.

    Raises
    ------
    BadInput
        If the name is not valid, or there is no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    repository = uri.removeprefix(_HUB)
    try:
        validate_repo_id(repository)
    except HFValidationError:
        repository = ""
    if repository.count("/") != 1:
        raise BadInput(f"{uri} must be hf://owner/name")
    if get_token() is None:
        raise BadInput(
            f"{uri}: the Hub requires a token to write: set HF_TOKEN, or run `hf auth login`"
        )


def _stored(present: HubFiles, uri: str) -> ModelDescription | None:
    """Return the description in a repository, or None if there is none that can be read."""
    if DESCRIPTION_FILE not in present.names:
        return None
    data = present.start(DESCRIPTION_FILE, max(1, present.size(DESCRIPTION_FILE)))
    try:
        return parse_description(data, f"{uri}/{DESCRIPTION_FILE}")
    except BadInput:
        return None


def _check_replaceable(
    present: HubFiles, stored: ModelDescription | None, uri: str, *, overwrite: bool
) -> None:
    """Raise BadInput if a repository has files, and they are not to be replaced."""
    names = [name for name in present.names if name not in LEFT_ALONE and name != "README.md"]
    if names and not overwrite:
        what = "another model" if stored is not None else f"other files ({names[0]})"
        raise BadInput(f"{uri} contains {what}: choose another destination, or use --overwrite")


def _operations(
    files: Mapping[str, Path],
    texts: Mapping[str, bytes],
    present: HubFiles,
    stored: ModelDescription | None,
    description: ModelDescription,
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Return what a commit has to change so that the repository has exactly these files.

    Files of an earlier model are deleted. All others, for example a license, are left alone.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    same = stored is not None and stored.weights_sha256 == description.weights_sha256
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for name, path in sorted(files.items()):
        if same and name in present.names and present.size(name) == path.stat().st_size:
            continue
        operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path)))
    for name, text in sorted(texts.items()):
        there = name in present.names and present.size(name) == len(text)
        if there and present.start(name, len(text)) == text:
            continue
        operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=text))
    known = {*files, *texts, *LEFT_ALONE}
    operations += [
        CommitOperationDelete(path_in_repo=name)
        for name in present.names
        if name not in known
        and not is_notice(name)  # the owner may have added it
        and (is_copied_file(name) or name.endswith(".gguf"))
    ]
    return operations


def _commit(
    api: HfApi,
    repository: str,
    operations: list[CommitOperationAdd | CommitOperationDelete],
    uri: str,
) -> None:
    """Make a commit. Raises BadInput and Unavailable."""
    try:
        with translated_hub_errors(uri, None, "model"):
            api.create_commit(
                repository, operations, commit_message="Model of selfemo", repo_type="model"
            )
    except ValueError as error:  # it refuses the front matter of the card
        reason = error_line(error)
        raise BadInput(f"{uri}: the Hub rejects the model: {reason}") from None
