"""More responses than the evaluations stored: generation 0 and the best answer more contexts.

Evaluate measures expression on few contexts, because it does so in every generation. A study has
time for more: the interval of a gain is then narrower, and rows whose responder does not play can
be measured, too. Contexts, prompts and draws are those of the product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from selfemo_api.seeds import derive_seed
from selfemo_api.spec import EvolutionSpec
from selfemo_api.text.files import write_atomically
from selfemo_jobs.engines import open_engine
from selfemo_jobs.evaluation.expression import expression_score
from selfemo_jobs.evaluation.expression_tables import RESPONSES
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.model_description import evaluation_arguments
from selfemo_jobs.runtime.tables import encode_table
from selfemo_jobs.stages.evaluate.expression import completion_tokens
from selfemo_jobs.stages.evaluate.expression_readings import (
    human_rows,
    human_targets,
    read_targets,
    reading_rows,
    respond,
    response_targets,
)
from selfemo_jobs.stages.evaluate.expression_sample import (
    HeldOutContext,
    draw_contexts,
    draw_human_turns,
)
from selfemo_study.data_volumes import load_dialogues
from selfemo_study.evolution_rows import starting_model
from selfemo_study.expression_files import StoredExpression
from selfemo_study.row_task import RowTask
from selfemo_study.study_config import StudyError
from selfemo_study.study_folders import model_path

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine


def answered_contexts(task: RowTask, contexts: int) -> list[StoredExpression]:
    """Return the responses of generation 0 and of the best generation to some contexts of dev.

    Responses that are in the row's folder already are used again.

    Parameters
    ----------
    task
        A finished evolution row.
    contexts
        The largest number of contexts.

    Returns
    -------
    list of StoredExpression
        Generation 0, and the best one if it is another.

    Raises
    ------
    StudyError
        If the row is not finished here, so that its models do not exist.
    """
    spec, baseline = task.spec, starting_model(task)
    labels, past = spec.dataset.labels, spec.dataset.context.past
    dialogues = load_dialogues(spec.dataset, task.dev_source, task.volumes, read_labels=True)
    drawn = draw_contexts(dialogues, contexts)
    humans = draw_human_turns(dialogues, labels, len(drawn))
    models = {0: baseline, **_best_model(task)}
    responses = {number: _responses(task, number, model, drawn) for number, model in models.items()}
    answered = []
    with opened_engine(baseline, spec) as judge:
        human = human_rows(humans, read_targets(judge, spec, human_targets(humans, past)))
        for number, table in responses.items():
            targets = response_targets(table, dialogues, past)
            rows = reading_rows(table, read_targets(judge, spec, targets))
            readings = pa.concat_tables([rows, human])
            score = expression_score(
                task.dev_source.name, labels, table, readings, resamples=0, seed=0
            )
            answered.append(StoredExpression(number, score, table, readings, dialogues))
    return answered


@contextmanager
def opened_engine(folder: Path, spec: EvolutionSpec) -> Iterator[TextEngine]:
    """Open the engine of the evaluation with a model, and free it at the end.

    Parameters
    ----------
    folder
        The folder of the model.
    spec
        The spec with the prompts, the labels and the engine.
    """
    longest = completion_tokens(load_tokenizer(folder), spec)
    engine = open_engine(
        spec.evaluation_engine,
        folder,
        engine_args=evaluation_arguments(spec),
        max_model_len=spec.model.max_prompt_tokens + longest,
        seed=0,  # draws have a seed of their own
    )
    try:
        yield engine
    finally:
        engine.close()


def _best_model(task: RowTask) -> dict[int, Path]:
    """Return the model of the best generation by its number; nothing if that is generation 0."""
    result = task.folder.read()
    if result is None:
        raise StudyError(f"{task.folder.path} is not finished: run the row first")
    if result.best == 0:
        return {}
    folder = model_path(task.folders.run(task.study, task.row, task.seed), result.best)
    if not folder.is_dir():
        raise StudyError(
            f"row {task.row.name}, seed {task.seed} has no model here: delete {task.folder.path} "
            "and run the row again"
        )
    return {result.best: folder.absolute()}


def _responses(task: RowTask, number: int, model: Path, contexts: list[HeldOutContext]) -> pa.Table:
    """Return the responses of a generation, generated where the row's folder has none."""
    file = task.folder.path / "expression" / f"{number:03d}-{len(contexts)}.parquet"
    if file.is_file():
        return pq.read_table(file, schema=RESPONSES)
    seed = derive_seed(task.spec.seed, "expression")
    with opened_engine(model, task.spec) as engine:
        table = respond(engine, task.spec, contexts, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, encode_table(table))
    return table
