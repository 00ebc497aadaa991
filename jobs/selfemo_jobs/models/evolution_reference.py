"""The best model of an evolution that a YAML file describes, or the model of a generation."""

from __future__ import annotations

import re
from pathlib import Path

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.local_runs import STATE_FILE, absolute_spec, local_uid
from selfemo_api.model_description import ModelDescription, Origin
from selfemo_api.schema.validation import load_evolution
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.errors import BadInput, error_line
from selfemo_jobs.models.best_manifest import BEST_PATH, best_uri, read_best_manifest
from selfemo_jobs.models.model_description import describe_spec
from selfemo_jobs.models.model_location import ModelLocation
from selfemo_jobs.models.resume import is_manifest, resumed_model
from selfemo_jobs.prompts.prompt_texts import is_uri, parse_prompt_file
from selfemo_jobs.runtime.manifest import MANIFEST, read_manifest
from selfemo_jobs.runtime.stage_prompts import read_prompt_file
from selfemo_jobs.store import Store, join, open_store


def locate_evolution_model(file: Path, state: Path, generation: int | None) -> ModelLocation:
    """Return the place of the best model of an evolution, or of the model of a generation.

    The state of a run on this machine is read first, and then the storage.

    Parameters
    ----------
    file
        The YAML file of the evolution.
    state
        The folder in which `selfemo run` stores the state of evolutions.
    generation
        The number of the generation. None: the best one.

    Raises
    ------
    BadInput
        If the run is not found, or it has no such model.
    InvalidEvolution
        If the file is not valid.
    Unavailable
        If the storage cannot be reached.
    """
    requested = load_evolution(file)
    stored = stored_evolution(requested, state)
    evolution = stored or requested
    spec = absolute_spec(evolution.spec)
    store = open_store(spec.storage)
    best = stored.status.best if stored else None
    if stored is not None and best is not None and generation is None:
        uri, revision = best.model_uri, None
        if is_manifest(uri):
            uri, revision = resumed_model(uri, store)
        elif uri == spec.model.uri:
            revision = spec.model.revision
        history = stored.status.history
        scores = next((r.scores for r in history if r.generation == best.generation), [])
        described = _description(spec, store, stored.run, best.generation, uri)
        return ModelLocation(uri, revision, store, described, tuple(scores))
    run = run_folder(file, evolution, store)
    run_uri = join(spec.storage.uri, run)
    if generation is None:
        manifest_uri = best_uri(run_uri)
        if not store.exists(manifest_uri):
            raise BadInput(_no_best(file, run_uri))
        content, _ = read_best_manifest(store, manifest_uri)
        uri, revision = resumed_model(manifest_uri, store)
        described = content.description or _description(spec, store, run, content.generation, uri)
        return ModelLocation(uri, revision, store, described)
    manifest_uri = join(run_uri, stage_prefix(generation, Stage.EVALUATE), MANIFEST)
    if not store.exists(manifest_uri):
        raise BadInput(
            f"{file}: generation {generation} has no evaluation: {manifest_uri} does not exist"
        )
    uri, revision = resumed_model(manifest_uri, store)
    scores = read_manifest(store, manifest_uri)[0].scores
    described = _description(spec, store, run, generation, uri)
    return ModelLocation(uri, revision, store, described, tuple(scores))


def stored_evolution(requested: EmotionEvolution, state: Path) -> EmotionEvolution | None:
    """Return the evolution of a file with its status, from the state of a run on this machine.

    Parameters
    ----------
    requested
        The evolution of the file.
    state
        The folder in which `selfemo run` stores the state of evolutions.

    Returns
    -------
    EmotionEvolution or None
        None if there is no such run on this machine.

    Raises
    ------
    BadInput
        If the state cannot be read.
    """
    metadata = requested.metadata
    return read_state(state / metadata.namespace / metadata.name / STATE_FILE)


def read_state(path: Path) -> EmotionEvolution | None:
    """Return the evolution in the file of a state folder, or None if there is no such file.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    BadInput
        If it cannot be read.
    """
    try:
        return EmotionEvolution.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error_line(error)
        raise BadInput(f"{path} cannot be read: {reason}") from None


def run_folder(file: Path, evolution: EmotionEvolution, store: Store) -> str:
    """Return the folder of an evolution's run in the storage.

    A run on a cluster has a uid that the file does not contain. It is then found by its name.

    Parameters
    ----------
    file
        The YAML file of the evolution, for messages.
    evolution
        The evolution.
    store
        The store of the run.

    Raises
    ------
    BadInput
        If there is no run of this name, or there are several.
    """
    metadata = evolution.metadata
    uid = metadata.uid[:8] or local_uid(metadata.namespace, metadata.name)
    known = f"{metadata.namespace}/{metadata.name}-{uid}"
    root = store.storage.uri
    if metadata.uid or store.exists(best_uri(join(root, known))):
        return known
    folder = join(root, metadata.namespace)
    pattern = re.compile(
        re.escape(folder) + f"/({re.escape(metadata.name)}-[0-9a-f]{{8}})/generations/.*"
    )
    matches = (pattern.fullmatch(info.uri) for info in store.list(folder))
    names = sorted({match[1] for match in matches if match})
    if not names:
        raise BadInput(_no_best(file, join(root, known)))
    if len(names) > 1:
        raise BadInput(
            f"{file}: {folder} contains several runs with this name ({', '.join(names)}): "
            "specify the folder of one of them"
        )
    return f"{metadata.namespace}/{names[0]}"


def _no_best(file: Path, run_uri: str) -> str:
    return (
        f"{file}: its run has no best model yet: there is no state of a run on this machine, and "
        f"{run_uri}/{BEST_PATH} does not exist. Start `selfemo run {file}`, or specify the state "
        "folder of the run"
    )


def _description(
    spec: EvolutionSpec, store: Store, run: str, generation: int, uri: str
) -> ModelDescription:
    """Return what is known about a model whose folder has no description. Raises BadInput.

    Parameters
    ----------
    spec
        The spec of the evolution.
    store
        The store of the run, from which prompts are read if they are a file on S3.
    run
        The folder of the run in the storage.
    generation
        The generation of the model.
    uri
        The URI of the model. It has no origin if the run did not make it.
    """
    prompts = spec.model.prompts
    texts = None
    if is_uri(prompts):
        texts = parse_prompt_file(read_prompt_file(prompts, store), prompts)
        texts = texts.with_texts(spec.model.prompt_templates)
    described = describe_spec(spec, texts)
    folder = re.search(rf"/{re.escape(run)}/generations/[0-9]+/(warmstart|train)/model$", uri)
    if folder is None:
        return described
    origin = Origin(
        run=run,
        storage=spec.storage.uri,
        generation=generation,
        stage=(Stage.WARM_START if folder[1] == Stage.WARM_START.slug else Stage.TRAIN).value,
        base=spec.model.uri,
        revision=spec.model.revision,
        recipe=spec.recipe,
        seed=spec.seed,
    )
    return described.model_copy(update={"origin": origin})
