"""Measures a model with the product's own Evaluate stage, and keeps every answer.

A measurement is kept by what it follows from (the model's bytes, the source, how it is asked), so
rows that share a model read it once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from selfemo_api.contract import StageConfig
from selfemo_api.spec import EvolutionSpec, Source, StorageSpec
from selfemo_api.stages import Stage
from selfemo_jobs.models.fetch import file_sha256
from selfemo_jobs.models.model_folder import is_model_file
from selfemo_jobs.runtime.fingerprint import value_at
from selfemo_jobs.runtime.manifest import MANIFEST, canonical, read_manifest, sha256
from selfemo_jobs.runtime.tables import read_tables
from selfemo_jobs.stages.evaluate.metrics import confusions
from selfemo_jobs.stages.evaluate.predictions import PREDICTIONS, answers_of
from selfemo_jobs.stages.evaluate.stage import RELEVANT
from selfemo_jobs.store import open_store
from selfemo_study.paths import Places, alone
from selfemo_study.programs import Data, run_stage
from selfemo_study.row_record import Measured
from selfemo_study.statistics import f1


def measure(
    model: Path, spec: EvolutionSpec, source: Source, places: Places, data: Data
) -> Measured:
    """Return a model's answers on a source, from an earlier measurement where there is one.

    Parameters
    ----------
    model
        The model's folder.
    spec
        How it is asked: prompts, context, engine.
    source
        What is read.

    Raises
    ------
    StudyError
        If the stage fails.
    """
    spec = _asking(spec, source, places)
    digest = sha256(canonical(_follows(model, spec)))[:16]
    folder = (places.measures / digest).absolute()
    with alone(places.measures / f"{digest}.lock"):
        manifest = folder / "result" / MANIFEST
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
            run_stage(config, folder, data)
    return stored(manifest, source.name, spec.dataset.labels)


def stored(manifest: Path, source: str, labels: Sequence[str]) -> Measured:
    """Return the answers that an Evaluate stage has stored, checked against its manifest."""
    uri = manifest.absolute().as_uri()
    store = open_store(StorageSpec(uri=uri))
    found, _ = read_manifest(store, uri)
    wanted = f"predictions/{source}/"
    mine = found.model_copy(update={"parts": [p for p in found.parts if p.path.startswith(wanted)]})
    table = pa.concat_tables(read_tables(store, uri, mine, PREDICTIONS))
    run = json.loads((manifest.parent / "run.json").read_text())
    return Measured(table, f1_of(table, labels), float(run["seconds"]))


def f1_of(table: pa.Table, labels: Sequence[str]) -> float:
    """Return the weighted F1 of answers."""
    return round(f1(confusions(answers_of(table, labels), len(labels))), 6)


def _asking(spec: EvolutionSpec, source: Source, places: Places) -> EvolutionSpec:
    """Return the spec with one evaluation source, and the measurements' own storage."""
    changes: dict[str, Any] = {
        "dataset": spec.dataset.model_copy(update={"evaluation": [source]}),
        "evaluation": spec.evaluation.model_copy(
            update={"selection_dataset": None, "label_prior": None, "bootstrap": 0}
        ),
        "storage": spec.storage.model_copy(update={"uri": places.measures.absolute().as_uri()}),
    }
    return spec.model_copy(update=changes)


def _follows(model: Path, spec: EvolutionSpec) -> dict[str, Any]:
    files = sorted(p for p in model.iterdir() if is_model_file(p.name))
    document = spec.to_json()
    settings = {path: value_at(document, path) for path in RELEVANT}
    return {"model": {p.name: file_sha256(p) for p in files}, "settings": settings}
