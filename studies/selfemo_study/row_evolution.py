"""The EmotionEvolution of a row, and the settings that a row's result follows from. Pure."""

from __future__ import annotations

import copy
from typing import Any

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.recipes import with_overrides
from selfemo_api.schema.assignment import assign
from selfemo_api.schema.validation import check
from selfemo_api.spec import ModelSpec, Precision, Start
from selfemo_jobs.prompts.prompt_texts import is_uri
from selfemo_study.study_config import Kind, Row, Study, StudyError, base_row

#: The data volume with the models that rows share, such as generation 0 of each seed.
MODELS_VOLUME = "study-models"
#: The data volume with the models before their warm start.
BASES_VOLUME = "study-bases"
#: Where the run of a row stores its results, below the folder of the row.
STORAGE_URI = "file://./store"
#: The results are read from `status.history`, which keeps only so many generations.
MAX_GENERATIONS = 9


def evolution_document(study: Study, row: Row, seed: int) -> dict[str, Any]:
    """Return a row's EmotionEvolution as a YAML document, with the row's changes.

    Parameters
    ----------
    study
        The study.
    row
        The row. Only an evolution or on-policy row has changes.
    seed
        The seed of the run.

    Raises
    ------
    StudyError
        If a change names a path that cannot be set.
    """
    spec: dict[str, Any] = copy.deepcopy(study.spec)
    for path, value in row.set.items():
        problem = assign(spec, path, value)
        if problem is not None:
            raise StudyError(f"row {row.name}: {problem}")
    uri = f"data://{MODELS_VOLUME}/{start_model_name(row, seed)}"
    return {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "EmotionEvolution",
        # one name for all rows: equal stages then have the same path below each row's folder
        "metadata": {"name": f"{study.name}-{study.headline}"},
        "spec": {
            **with_overrides(spec),
            "seed": seed,
            "model": {**spec.get("model", {}), "uri": uri},
            "storage": {"uri": STORAGE_URI},
        },
    }


def start_model_name(row: Row, seed: int) -> str:
    """Return the name of the shared model that a row starts from."""
    return f"seed-{seed}" if row.after is None else f"{row.after}-seed-{seed}"


def evolution_of(study: Study, row: Row, seed: int) -> EmotionEvolution:
    """Return a row's evolution. Raises StudyError where the API server would refuse it."""
    document = evolution_document(study, row, seed)
    problems = check(document)
    if problems:
        raise StudyError("; ".join(f"row {row.name}: {problem}" for problem in problems))
    return EmotionEvolution.model_validate(document)


def resumes(study: Study, row: Row, seed: int) -> bool:
    """Return whether a row's run resumes from generation 0's evaluation.

    Then `model.uri` is the model before the warm start, and both are known to the run. That is the
    case where a training may start from it: that of the row, or of the headline row. With the
    latter, all rows have the same models, and may reuse each other's stages.

    Parameters
    ----------
    study
        The study.
    row
        The row.
    seed
        The seed of the run.
    """
    rows = (row, study.row(study.headline))
    return any(evolution_of(study, r, seed).spec.training.start is Start.MODEL for r in rows)


def validation_problems(study: Study, row: Row) -> list[str]:
    """Return why a row would be refused, by the API server or by the warm start; empty if valid.

    Parameters
    ----------
    study
        The study.
    row
        The row.

    Raises
    ------
    StudyError
        If a change names a path that cannot be set.
    """
    problems = [str(problem) for problem in check(evolution_document(study, row, study.seeds[0]))]
    if not problems:
        spec = evolution_of(study, row, study.seeds[0]).spec
        if spec.stopping.max_generations > MAX_GENERATIONS:
            problems = [
                f"spec.stopping.maxGenerations: must be at most {MAX_GENERATIONS}: "
                "the status does not keep older generations"
            ]
        if row.kind not in (Kind.TFIDF, Kind.CONSTANT):
            shared = evolution_of(study, base_row(), study.seeds[0]).spec.model
            problems += _prompt_problems(shared)
    return [f"row {row.name}: {problem}" for problem in problems]


def _prompt_problems(model: ModelSpec) -> list[str]:
    """Return which prompts the command that trains generation 0 and the controls cannot use."""
    advice = "the warm start and the supervised rows are trained with a built-in prompt set"
    problems = []
    if model.prompt_templates:
        problems.append(f"spec.model.promptTemplates: {advice}: remove the field")
    if is_uri(model.prompts):
        problems.append(f"spec.model.prompts: {advice}: name one in place of {model.prompts}")
    return problems


def row_settings(study: Study, row: Row, seed: int) -> dict[str, Any]:
    """Return all settings that a row's result follows from.

    Two runs with equal settings have the same result on the same machine.

    Parameters
    ----------
    study
        The study.
    row
        The row.
    seed
        The seed of the run.
    """
    warm_start = study.warm_start.to_json()
    if study.warm_start.precision is Precision.FLOAT32:
        del warm_start["precision"]  # published rows are older than this option
    settings: dict[str, Any] = {
        "seed": seed,
        "base": study.base.to_json(),
        "warmStart": warm_start,
        "test": [source.to_json() for source in study.test],
        "spec": study.spec,
        "row": _own_settings(row),
    }
    steps_row = study.steps_row(row)
    if steps_row != row.name:
        settings["like"] = study.row(steps_row).to_json()["set"]
    if row.after is not None:
        settings["after"] = _own_settings(study.row(row.after))
    return settings


def _own_settings(row: Row) -> dict[str, Any]:
    """Return the settings of the row itself; its name, purpose and seeds change no result."""
    return {k: v for k, v in row.to_json().items() if k not in ("why", "name", "seeds")}
