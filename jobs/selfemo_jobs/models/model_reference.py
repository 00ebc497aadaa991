"""Model references: what every command that uses a model takes, resolved to a local folder.

A reference is one of these:

- a folder with a model: a path or a ``file://``, ``data://`` or ``s3://`` URI;
- ``hf://owner/name`` or ``package://smollm2?layers=6``;
- the ``manifest.json`` of a training, a warm start or an evaluation, or a run's
  ``best/manifest.json``;
- the folder of a run: its best model;
- the YAML file of an evolution: the best model of its run, or that of a generation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from selfemo_api.contract import ENV_WORK
from selfemo_api.local_runs import absolute_uri
from selfemo_api.model_description import DESCRIPTION_FILE, ModelDescription, PromptSetting
from selfemo_api.spec import Context, MaxTokens, StorageSpec
from selfemo_jobs.datasets.label_set import check_label_set
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.best_manifest import BEST_PATH, is_best_manifest, parse_best_manifest
from selfemo_jobs.models.description_file import check_weights_match, read_description
from selfemo_jobs.models.evolution_reference import locate_evolution_model
from selfemo_jobs.models.fetch import fetch_model
from selfemo_jobs.models.model_description import (
    describe_labels,
    described_by_manifest,
    with_scores,
)
from selfemo_jobs.models.model_folder import check_model_folder
from selfemo_jobs.models.model_license import license_of
from selfemo_jobs.models.model_location import ModelLocation
from selfemo_jobs.models.package_model import SCHEME, fetch_package_model
from selfemo_jobs.models.position_limit import folder_limit
from selfemo_jobs.models.resume import is_manifest, resumed_model
from selfemo_jobs.models.run_models import check_not_removed
from selfemo_jobs.prompts.prompt_texts import PromptTexts, built_in_texts
from selfemo_jobs.runtime.manifest import MANIFEST, parse_manifest
from selfemo_jobs.store import ObjectNotFound, Store, join, open_store, store_for
from selfemo_jobs.store.volumes import local_path

#: The fewest tokens of a prompt that a description may have, as of `model.maxPromptTokens`.
_FEWEST_PROMPT_TOKENS = 32
_YAML = re.compile(r".+\.ya?ml")
#: The variables with which boto3 gets the URL of an S3 server.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class ReferenceOptions:
    """What a command line may add to a model reference."""

    labels: Sequence[str] = ()
    """The label set of a model whose folder has no description."""
    prompts: str = ""
    """The built-in prompt set of such a model. Empty: `chat-v1` if it has a chat template,
    `compact-v1` otherwise."""
    context: Context | None = None
    """The context of such a model. None: the default of `dataset.context`."""
    revision: str | None = None
    """The revision of a model on the hub."""
    generation: int | None = None
    """The generation of an evolution. None: the best one."""
    storage: StorageSpec | None = None
    """How ``s3://`` URIs are read: endpoint, region and addressing. None: as the environment says.
    Its URI is not used. An evolution has its own."""
    state: Path = Path(".selfemo")
    """The folder in which `selfemo run` stores the state of evolutions."""
    cache: Path | None = None
    """The folder for copies of models. None: see :func:`cache_folder`."""


class ResolvedModel(NamedTuple):
    """A model on this machine, ready to be used."""

    folder: Path
    """The folder of the model."""
    description: ModelDescription
    """The description of the model."""


def resolve_model(reference: str, options: ReferenceOptions | None = None) -> ResolvedModel:
    """Return the local folder of a model and its description. The files are checked.

    Parameters
    ----------
    reference
        The reference.
    options
        The options. None: the defaults.

    Raises
    ------
    BadInput
        If there is no such model, it may not be read, its files are not those of its description,
        or it has no description and no labels are given.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    options = options or ReferenceOptions()
    return fetch_located(locate_model(reference, options), options)


def locate_model(reference: str, options: ReferenceOptions | None = None) -> ModelLocation:
    """Return the place of a model, before it is copied.

    Parameters
    ----------
    reference
        The reference.
    options
        The options. None: the defaults.

    Raises
    ------
    BadInput
        If there is no such model, or it may not be read.
    Unavailable
        If the storage cannot be reached.
    """
    options = options or ReferenceOptions()
    path = Path(reference).expanduser()
    if _YAML.fullmatch(reference) and "://" not in reference and not path.is_dir():
        return locate_evolution_model(path, options.state, options.generation)
    if options.generation is not None:
        raise BadInput(
            "a generation can only be selected for the YAML file of an evolution, not for "
            f"{reference}"
        )
    uri = _uri(reference, path)
    store = _store(uri, options)
    if uri.startswith(("hf://", SCHEME)):
        return ModelLocation(uri, options.revision, store)
    if not is_manifest(uri):
        uri = _candidate(_with_folder(reference), uri, store)
    return _of_manifest(uri, store) if is_manifest(uri) else ModelLocation(uri, None, store)


def fetch_located(location: ModelLocation, options: ReferenceOptions) -> ResolvedModel:
    """Return the local folder of a located model and its description.

    Parameters and errors are those of :func:`resolve_model`.
    """
    cache = options.cache or cache_folder()
    if location.uri.startswith(SCHEME):
        folder = fetch_package_model(location.uri, cache / "models")
        check_model_folder(folder, location.uri)
    else:
        folder = fetch_model(location.uri, location.revision, location.store, cache)
    described = read_description(folder)
    if described is not None:
        check_weights_match(folder, described)
    description = described or location.description or _foreign(folder, location.uri, options)
    if described is None and not description.license:
        base = description.origin.base if description.origin else location.uri
        description = description.model_copy(update={"license": license_of(folder, base)})
    if location.scores and not description.scores:
        description = with_scores(description, location.scores)
    if options.labels and list(options.labels) != description.labels:
        raise BadInput(
            f"{location.uri} has its own labels ({', '.join(description.labels)}): omit the "
            "option for labels"
        )
    return ResolvedModel(folder, description)


def cache_folder() -> Path:
    """Return the folder for copies of models: ``$SELFEMO_WORK``, or one below the user's cache."""
    work = os.environ.get(ENV_WORK)
    if work:
        return Path(work)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "selfemo"


def _uri(reference: str, path: Path) -> str:
    """Return the URI of a reference that is a path or a URI. Raises BadInput."""
    if reference.startswith("data://"):
        return local_path(reference).as_uri()
    if "://" in reference:
        return absolute_uri(reference).rstrip("/")
    if not path.exists():
        local = path.absolute().as_uri()
        check_not_removed(local, open_store(StorageSpec(uri=local)))
        hint = ""
        if re.fullmatch(r"[\w.-]+/[\w.-]+", reference):
            hint = f"; a model on the Hub is hf://{reference}"
        raise BadInput(f"{reference} does not exist: specify the folder of a model or a run{hint}")
    return path.absolute().as_uri()


def _store(uri: str, options: ReferenceOptions) -> Store:
    """Return a store that reads a URI. Raises BadInput."""
    scheme = uri.partition("://")[0]
    if scheme not in {"file", "s3", "hf", "package"}:
        raise BadInput(
            f"{uri}: a model is a path, or a URI with file://, data://, s3://, hf:// or package://"
        )
    place = uri if scheme == "s3" else "file:///"
    if options.storage is None:
        # a server of one's own rarely has a host name for each bucket
        own_server = any(name in os.environ for name in _ENDPOINTS)
        return open_store(StorageSpec(uri=place, path_style=own_server))
    return open_store(options.storage.model_copy(update={"uri": place}))


def _with_folder(reference: str) -> str:
    """Return a reference for a message, with the folder in which that of a data volume is."""
    if not reference.startswith("data://"):
        return reference
    return f"{reference} ({local_path(reference)}; `--data NAME=FOLDER` sets another folder)"


def _candidate(reference: str, uri: str, store: Store) -> str:
    """Return the URI of a model's folder, or of the manifest in a folder of a run or of a stage.

    Parameters
    ----------
    reference
        The reference, for the message.
    uri
        The URI of the folder.
    store
        A store that reaches it.

    Raises
    ------
    BadInput
        If the folder has neither.
    """
    if store.exists(join(uri, "config.json")):
        return uri
    for name in (BEST_PATH, MANIFEST):
        if store.exists(join(uri, name)):
            return join(uri, name)
    check_not_removed(uri, store)
    if store.exists(uri):
        raise BadInput(f"{reference} is a file: specify the folder that contains config.json")
    if not store.list(uri):
        raise BadInput(f"{reference} does not exist or is empty")
    raise BadInput(
        f"{reference} is neither a model (it has no config.json) nor a run with a best model (it "
        f"has no {BEST_PATH})"
    )


def _of_manifest(uri: str, store: Store) -> ModelLocation:
    """Return the place of the model that a manifest is about. Raises BadInput."""
    reached = store_for(uri, store)
    model, revision = resumed_model(uri, reached)
    try:
        data = reached.get(uri)
    except ObjectNotFound:
        raise BadInput(f"{uri} was removed while it was read") from None
    if is_best_manifest(data):
        best = parse_best_manifest(data, uri)
        return ModelLocation(model, revision, reached, best.description)
    manifest = parse_manifest(data, uri)
    described = described_by_manifest(manifest)
    return ModelLocation(model, revision, reached, described, tuple(manifest.scores))


def _foreign(folder: Path, uri: str, options: ReferenceOptions) -> ModelDescription:
    """Return the description of a model that selfemo has not made. Raises BadInput."""
    labels = list(options.labels)
    if not labels:
        raise BadInput(
            f"{uri} has no {DESCRIPTION_FILE}, so its labels are not known: specify them, for "
            "example --labels neutral,joy,anger"
        )
    check_label_set(labels, "the labels of a model")
    name = options.prompts or ("chat-v1" if _has_chat_template(folder) else "compact-v1")
    most = _prompt_tokens(folder, uri, labels, built_in_texts(name))
    return describe_labels(labels, name, options.context or Context(), max_prompt_tokens=most)


def _prompt_tokens(folder: Path, uri: str, labels: Sequence[str], texts: PromptTexts) -> int:
    """Return how many tokens a prompt may have, so that the model can read a completion after it.

    It is the default of ``model.maxPromptTokens``, or less if the model has fewer positions. Raises
    BadInput if they are too few for any prompt.
    """
    setting = PromptSetting.model_fields["max_prompt_tokens"]
    limit, default = folder_limit(folder), int(setting.default)
    if limit is None:
        return default
    tokens, around = MaxTokens(), texts.texts["before"] + texts.texts["after"]
    # a text has at most a token for each byte, and a chat's answer ends with one more
    answers = (len(f"{around}{label}".encode()) + 1 for label in labels)
    most = min(default, limit - max(tokens.recognizer, tokens.responder, *answers))
    if most < _FEWEST_PROMPT_TOKENS:
        raise BadInput(f"{uri} supports {limit} tokens, too few for a prompt: use another model")
    return most


def _has_chat_template(folder: Path) -> bool:
    """Return whether the tokenizer of a model has a chat template."""
    if any(folder.glob("chat_template*")):
        return True
    try:
        return '"chat_template"' in (folder / "tokenizer_config.json").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
