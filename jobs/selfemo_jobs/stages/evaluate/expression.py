"""Measures expression: the policy responds to held-out contexts, and the baseline reads it.

The contexts are from the selection dataset, and nothing that decides about a generation follows
from the figures. The judge is the baseline's model in every generation: a judge that is replaced by
each promotion would measure with another scale. It does not sample its readings: the probabilities
of the emotions are exact.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from selfemo_api.contract import Earlier
from selfemo_api.results import ExpressionChange, ExpressionScore
from selfemo_api.seeds import derive_seed
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.engines import open_engine
from selfemo_jobs.errors import DamagedFiles
from selfemo_jobs.evaluation.expression import (
    expression_change,
    expression_score,
    rows_of_humans,
    shares_by_label,
)
from selfemo_jobs.evaluation.expression_tables import (
    READINGS,
    RESPONSES,
    readings_path,
    responses_path,
)
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.model_description import evaluation_arguments
from selfemo_jobs.prompts import prompt_set_of
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import Part, read_manifest, read_part
from selfemo_jobs.runtime.tables import decode_table, load_table, put_table
from selfemo_jobs.stages.evaluate.expression_readings import (
    human_rows,
    human_targets,
    read_targets,
    reading_rows,
    respond,
    response_sampling,
    response_targets,
)
from selfemo_jobs.stages.evaluate.expression_sample import (
    HeldOutContext,
    HumanTurn,
    draw_contexts,
    draw_human_turns,
    number_of_contexts,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from selfemo_jobs.engines.interface import TextEngine

log = logging.getLogger(__name__)


class Policy(Protocol):
    """The model that is evaluated. Its engine is opened when it is needed."""

    @property
    def sha256(self) -> str:
        """The hash of all files of the model."""
        ...

    @property
    def engine(self) -> TextEngine:
        """The engine with the model."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


@dataclass(frozen=True)
class Baseline:
    """The model that reads the responses."""

    folder: Path
    sha256: str
    """The hash of all files of the model."""


@dataclass(frozen=True)
class Sample:
    """What a generation is measured on."""

    source: str
    """The name of the selection dataset."""
    dialogues: Sequence[Dialogue]
    """All dialogues of the selection dataset."""
    contexts: Sequence[HeldOutContext]
    """The contexts that the responder answers."""
    humans: Sequence[HumanTurn]
    """The human turns that are read beside the responses."""
    responses: int
    """The number of responses: one to each context for each emotion."""


@dataclass(frozen=True)
class Expression:
    """The result of the measure."""

    parts: list[Part]
    score: ExpressionScore
    report: dict[str, Any]
    """What is too large for the termination message."""


@dataclass(frozen=True)
class _EarlierReadings:
    """The stored readings of an earlier generation, made by the same judge in the same way."""

    generation: int
    table: pa.Table


def plays_responder(spec: EvolutionSpec) -> bool:
    """Return whether there is expression to measure: whether the responder plays.

    Parameters
    ----------
    spec
        The evolution's spec.
    """
    return Role.RESPONDER in spec.self_play.roles


def completion_tokens(tokenizer: PreTrainedTokenizerBase, spec: EvolutionSpec) -> int:
    """Return the most tokens that follow a prompt when expression is measured.

    Parameters
    ----------
    tokenizer
        The model's tokenizer.
    spec
        The evolution's spec.
    """
    answers = prompt_set_of(spec.model).label_answers(tokenizer, spec.dataset.labels)
    longest_answer = max(map(len, answers))
    return max(spec.self_play.max_tokens.responder, longest_answer)


def draw_sample(spec: EvolutionSpec, source: str, dialogues: Sequence[Dialogue]) -> Sample:
    """Return what the generations of an evolution are measured on.

    Parameters
    ----------
    spec
        The evolution's spec.
    source
        The name of the selection dataset.
    dialogues
        Its dialogues, with their labels.
    """
    labels = spec.dataset.labels
    labeled = sum(bool(turn.labels) for dialogue in dialogues for turn in dialogue.turns)
    count = number_of_contexts(labeled, len(labels))
    contexts = draw_contexts(dialogues, count)
    humans = draw_human_turns(dialogues, labels, len(contexts))
    return Sample(source, dialogues, contexts, humans, len(contexts) * len(labels))


def measure_expression(
    context: StageContext, policy: Policy, baseline: Baseline, sample: Sample
) -> Expression:
    """Return how well the policy expresses emotions. Parts of an earlier attempt are kept.

    Parameters
    ----------
    context
        The context of the stage.
    policy
        The model that is evaluated. It is closed if another model is the judge.
    baseline
        The model that is the judge.
    sample
        What is answered and read.

    Raises
    ------
    BadInput
        If a prompt of the responder is too long even without context, or the judge cannot be
        loaded.
    Unavailable
        If the storage cannot be reached, or there is no memory for the judge, which may pass.
    """
    config, spec = context.config, context.config.spec
    seed = derive_seed(spec.seed, "expression")
    earlier = {name: _read_earlier(context, name, baseline, sample) for name in Earlier}
    path = responses_path(sample.source)
    responded = load_table(context, path, RESPONSES)
    if responded is None:
        table = respond(policy.engine, spec, sample.contexts, seed)
        responded = put_table(context, path, table), table
    path = readings_path(sample.source)
    read = load_table(context, path, READINGS)
    if read is None:
        table = _read(context, policy, baseline, sample, responded[1], earlier[Earlier.BASELINE])
        read = put_table(context, path, table), table
    labels, resamples = spec.dataset.labels, spec.evaluation.bootstrap
    score = expression_score(
        sample.source, labels, responded[1], read[1], resamples=resamples, seed=config.seed
    )
    changes: dict[Earlier, ExpressionChange | None] = {
        name: expression_change(
            before.table, read[1], before.generation, resamples=resamples, seed=config.seed
        )
        for name, before in earlier.items()
        if before is not None
    }
    return Expression(
        parts=[responded[0], read[0]],
        score=score.model_copy(
            update={
                "over_baseline": changes.get(Earlier.BASELINE),
                "over_best": changes.get(Earlier.BEST),
            }
        ),
        report=_settings(spec, baseline, sample)
        | {"humanByLabel": _known_shares(rows_of_humans(read[1]), labels)},
    )


def _read(
    context: StageContext,
    policy: Policy,
    baseline: Baseline,
    sample: Sample,
    responses: pa.Table,
    earlier: _EarlierReadings | None,
) -> pa.Table:
    """Return the judge's readings. Those of human turns are the baseline's own, where it has them.

    Parameters
    ----------
    context
        The context of the stage.
    policy
        The model that is evaluated.
    baseline
        The judge.
    sample
        What is read.
    responses
        The responses of the policy.
    earlier
        The readings of generation 0, or None.
    """
    spec = context.config.spec
    past = spec.dataset.context.past
    targets = response_targets(responses, sample.dialogues, past)
    stored = None if earlier is None else rows_of_humans(earlier.table)
    humans = human_targets(sample.humans, past) if stored is None else []
    engine = _judge_engine(context, policy, baseline)
    try:
        readings = read_targets(engine, spec, [*targets, *humans])
    finally:
        if baseline.sha256 != policy.sha256:
            engine.close()
    rows = reading_rows(responses, readings[: len(targets)])
    if stored is None:
        stored = human_rows(sample.humans, readings[len(targets) :])
    return pa.concat_tables([rows, stored]).combine_chunks()


def _judge_engine(context: StageContext, policy: Policy, baseline: Baseline) -> TextEngine:
    """Return the engine with the judge. A GPU has no room for two models: the policy is closed."""
    if baseline.sha256 == policy.sha256:
        return policy.engine
    policy.close()
    _release_gpu_memory()
    spec = context.config.spec
    tokenizer = load_tokenizer(baseline.folder)
    return open_engine(
        spec.evaluation_engine,
        baseline.folder,
        engine_args=evaluation_arguments(spec),
        max_model_len=spec.model.max_prompt_tokens + completion_tokens(tokenizer, spec),
        seed=context.config.seed,
    )


def _release_gpu_memory() -> None:
    """Give the memory of a closed engine back to the device: vLLM counts what is free there."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def _read_earlier(
    context: StageContext, name: Earlier, baseline: Baseline, sample: Sample
) -> _EarlierReadings | None:
    """Return the readings of an earlier generation; None if they cannot be compared.

    Readings that are missing or damaged do not stop the evaluation: what is lost is a comparison.
    """
    uri = context.config.earlier_evaluations.get(name)
    if uri is None:
        return None
    try:
        manifest, _ = read_manifest(context.store, uri)
        part = manifest.find_part(readings_path(sample.source))
        if part is None:  # the responder did not play then
            return None
        table = decode_table(read_part(context.store, uri, part), uri, READINGS)
    except DamagedFiles as error:
        log.warning("expression is not compared with an earlier generation: %s", error)
        return None
    settings = _settings(context.config.spec, baseline, sample)
    before = manifest.report.get("expression") or {}
    if any(before.get(key) != value for key, value in settings.items()):
        log.warning(
            "expression is not compared with generation %d: the responses were drawn or read with "
            "other settings",
            manifest.generation,
        )
        return None
    return _EarlierReadings(manifest.generation, table)


def _settings(spec: EvolutionSpec, baseline: Baseline, sample: Sample) -> dict[str, Any]:
    """Return what must be equal in two generations that are compared, for the manifest's report."""
    sampling = response_sampling(spec, 0)
    return {
        "judgeSha256": baseline.sha256,
        "temperature": sampling.temperature,
        "topP": sampling.top_p,
        "maxTokens": sampling.max_tokens,
        "contexts": len(sample.contexts),
        "humanTurns": len(sample.humans),
    }


def _known_shares(readings: pa.Table, labels: Sequence[str]) -> dict[str, float]:
    """Return the share of each label that has rows."""
    shares = zip(labels, shares_by_label(readings, labels), strict=True)
    return {label: share for label, share in shares if share is not None}
