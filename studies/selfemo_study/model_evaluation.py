"""Evaluates a model with the product's own Evaluate stage, and keeps every answer.

An evaluation is stored under the hash of what it follows from: the model's files, the content of
the source and the settings. Rows that share a model therefore evaluate it once, and a corrected
source is evaluated again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from selfemo_api.contract import StageConfig
from selfemo_api.spec import EvolutionSpec, Role, Source, StorageSpec
from selfemo_api.stages import Stage
from selfemo_jobs.evaluation.prediction_table import (
    PREDICTIONS,
)
from selfemo_jobs.models.model_folder import model_hashes
from selfemo_jobs.runtime.fingerprint import relevant_settings
from selfemo_jobs.runtime.manifest import MANIFEST, canonical_json, read_manifest
from selfemo_jobs.runtime.tables import read_tables
from selfemo_jobs.stages.evaluate.stage import RELEVANT
from selfemo_jobs.store import open_store
from selfemo_jobs.store.hashing import sha256
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.measurements import Measurement, weighted_f1_of
from selfemo_study.source_contents import prompt_hashes, source_hashes
from selfemo_study.study_folders import StudyFolders, exclusive_lock
from selfemo_study.subprocesses import run_stage


def evaluate_model(
    model: Path, spec: EvolutionSpec, source: Source, folders: StudyFolders, volumes: DataVolumes
) -> Measurement:
    """Return a model's answers on a source; an earlier evaluation of the same is used.

    Parameters
    ----------
    model
        The model's folder.
    spec
        The spec with the prompts, the context and the engine.
    source
        The source of labeled dialogues.
    folders
        The study's folders.
    volumes
        The data volumes.

    Raises
    ------
    StudyError
        If the stage fails.
    """
    manifest = evaluation_manifest(model, spec, source, folders, volumes)
    spec = _evaluation_spec(spec, source, folders)
    folder = manifest.parent.parent
    digest = folder.name
    with exclusive_lock(folders.evaluations / f"{digest}.lock"):
        if not manifest.is_file():
            config = StageConfig(
                stage=Stage.EVALUATE,
                run=f"study/measure-{digest[:8]}",
                generation=0,
                seed=0,
                spec=spec,
                policy_uri=model.absolute().as_uri(),
                judge_uri=model.absolute().as_uri(),
                output=(folder / "result").as_uri(),
            )
            run_stage(config, folder, volumes)
    return read_evaluation(manifest, source.name, spec.dataset.labels)


def evaluation_manifest(
    model: Path, spec: EvolutionSpec, source: Source, folders: StudyFolders, volumes: DataVolumes
) -> Path:
    """Return the path of the manifest of a model's evaluation on a source.

    Parameters
    ----------
    model
        The model's folder.
    spec
        The spec with the prompts, the context and the engine.
    source
        The source of labeled dialogues.
    folders
        The study's folders.
    volumes
        The data volumes.
    """
    follows_from = {
        "model": model_hashes(model),
        **evaluation_settings(spec, source, folders, volumes),
    }
    digest = sha256(canonical_json(follows_from))[:16]
    return (folders.evaluations / digest).absolute() / "result" / MANIFEST


def evaluation_settings(
    spec: EvolutionSpec, source: Source, folders: StudyFolders, volumes: DataVolumes
) -> dict[str, Any]:
    """Return all that an evaluation follows from, but for the model, as a JSON object.

    Parameters
    ----------
    spec
        The spec with the prompts, the context and the engine.
    source
        The source of labeled dialogues.
    folders
        The study's folders.
    volumes
        The data volumes.

    Raises
    ------
    BadInput
        If the source does not exist or may not be read.
    """
    spec = _evaluation_spec(spec, source, folders)
    return {
        "settings": relevant_settings(spec, RELEVANT),
        "content": {
            **source_hashes([source.uri], volumes),
            **prompt_hashes(spec.model, volumes),
        },
    }


def read_evaluation(manifest: Path, source: str, labels: Sequence[str]) -> Measurement:
    """Return the answers that an Evaluate stage stored, checked against its manifest.

    Parameters
    ----------
    manifest
        The manifest of the stage.
    source
        The name of the source.
    labels
        The labels of the data set.
    """
    uri = manifest.absolute().as_uri()
    store = open_store(StorageSpec(uri=uri))
    whole, _ = read_manifest(store, uri)
    parts = [part for part in whole.parts if part.path.startswith(f"predictions/{source}/")]
    of_source = whole.model_copy(update={"parts": parts})
    table = pa.concat_tables(read_tables(store, uri, of_source, PREDICTIONS))
    run = json.loads((manifest.parent / "run.json").read_text())
    return Measurement(table, weighted_f1_of(table, labels), float(run["seconds"]))


def _evaluation_spec(spec: EvolutionSpec, source: Source, folders: StudyFolders) -> EvolutionSpec:
    """Return the spec with one evaluation source, and the storage of the study's evaluations."""
    changes: dict[str, Any] = {
        # expression is measured by the evolution itself, on dev
        "self_play": spec.self_play.model_copy(update={"roles": [Role.RECOGNIZER]}),
        "dataset": spec.dataset.model_copy(update={"sources": [*spec.dataset.self_play, source]}),
        "evaluation": spec.evaluation.model_copy(
            update={"selection_dataset": None, "use_label_prior": False, "bootstrap": 0}
        ),
        "storage": spec.storage.model_copy(update={"uri": folders.evaluations.absolute().as_uri()}),
    }
    return spec.model_copy(update=changes)
