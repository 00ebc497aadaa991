"""Reads the prompt set of a stage once, from wherever it is, and puts its texts into the spec.

All that the stage starts, on this machine or on another, then has the same texts, and needs no
storage to read them.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfemo_api.contract import StageConfig
from selfemo_api.spec import ModelSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.prompts import PromptSet, parse_prompt_set, prompt_set_of
from selfemo_jobs.prompts.loader import compile_prompt_set
from selfemo_jobs.prompts.prompt_texts import MAX_FILE, PromptTexts, is_uri, parse_prompt_file
from selfemo_jobs.store import ObjectNotFound, Store, store_for
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.store.volumes import local_path

#: The field that names the prompt set, as a dotted path of the spec.
PROMPTS_FIELD = "model.prompts"


@dataclass(frozen=True)
class StagePrompts:
    """A stage's configuration with the texts of its prompts, and what identifies them."""

    config: StageConfig
    """The configuration. If ``model.prompts`` was a URI, the texts of the file are in
    ``model.promptTemplates``, and ``model.prompts`` names the built-in set of the same kind."""
    sha256: str | None
    """The hash of the file's bytes. None for a built-in set, which never changes."""


def fetch_prompts(config: StageConfig, store: Store) -> StagePrompts:
    """Return a stage's configuration with the texts of its prompts.

    Parameters
    ----------
    config
        The stage's configuration.
    store
        The run's store, with whose options an ``s3://`` file is read.

    Raises
    ------
    BadInput
        If there is no such file, or one of its texts cannot be used.
    Unavailable
        If the storage cannot be reached.
    """
    model = config.spec.model
    if not is_uri(model.prompts):
        return StagePrompts(config, None)
    data = read_prompt_file(model.prompts, store)
    texts = parse_prompt_file(data, model.prompts).with_texts(model.prompt_templates)
    compile_prompt_set(texts)  # the messages name the file
    changes = {"prompts": _base_of(texts), "prompt_templates": dict(texts.texts)}
    spec = config.spec.model_copy(update={"model": model.model_copy(update=changes)})
    return StagePrompts(config.model_copy(update={"spec": spec}), sha256(data))


def load_prompts(model: ModelSpec, store: Store) -> PromptSet:
    """Return the prompt set of a spec, wherever it is.

    Parameters
    ----------
    model
        The field ``spec.model``.
    store
        The run's store, with whose options an ``s3://`` file is read.

    Raises
    ------
    BadInput
        If there is no such set or file, or one of its texts cannot be used.
    Unavailable
        If the storage cannot be reached.
    """
    if not is_uri(model.prompts):
        return prompt_set_of(model)
    data = read_prompt_file(model.prompts, store)
    return parse_prompt_set(data, model.prompts, model.prompt_templates)


def read_prompt_file(uri: str, store: Store | None) -> bytes:
    """Return the bytes of a prompt set's file, at most one more than it may have.

    Parameters
    ----------
    uri
        A ``file://``, ``data://`` or ``s3://`` URI.
    store
        The run's store, with whose options an ``s3://`` file is read. None refuses those.

    Raises
    ------
    BadInput
        If there is no such file, or it cannot be read.
    Unavailable
        If the storage cannot be reached.
    """
    where = f"`model.prompts` is {uri}"
    if not uri.startswith("s3://"):
        path = local_path(uri)
        try:
            with path.open("rb") as file:
                return file.read(MAX_FILE + 1)
        except FileNotFoundError:
            raise BadInput(f"{where}: {path} does not exist") from None
        except OSError as error:
            raise BadInput(f"{where}: {path}: {error.strerror}") from None
    if store is None:
        raise BadInput(f"{where}: reading S3 requires storage options")
    try:
        return store_for(uri, store).get_start(uri, MAX_FILE + 1)
    except ObjectNotFound:
        raise BadInput(f"{where}: the file does not exist") from None


def _base_of(texts: PromptTexts) -> str:
    """Return the built-in set of the same kind: all of its texts are replaced."""
    return "chat-v1" if texts.chat else "compact-v1"
