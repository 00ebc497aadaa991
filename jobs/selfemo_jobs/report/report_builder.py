"""Derives the content of the report from the manifests. All functions are pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from selfemo_api.metrics import FlywheelMetric, ScoreMetric, SelfPlayMetric, TrainMetric
from selfemo_api.results import SourceScore
from selfemo_api.stages import STAGE_ORDER, Stage, next_stage
from selfemo_api.status import Outcome
from selfemo_jobs.report.answer_reader import Answers
from selfemo_jobs.report.collapse_indicators import collapse_indicators
from selfemo_jobs.report.examples import AnswerChanges, answer_changes
from selfemo_jobs.report.expression import expression_scores
from selfemo_jobs.report.facts import run_facts
from selfemo_jobs.report.gains import ShownGain, evaluated_models, gains_over_baseline
from selfemo_jobs.report.manifest_values import (
    confusions,
    dataset_values,
    entropy_series,
    f1_series,
    funnels,
    histograms,
    kept_labels,
    label_f1,
    metric_of,
    metric_points,
    metric_series,
    of_stage,
    scores_of,
    stage_metrics,
    stage_seconds,
)
from selfemo_jobs.report.run_info import OUTCOMES, RunInfo
from selfemo_jobs.report.sample_reader import ReplyPair, Sample
from selfemo_jobs.report.set_scores import set_scores
from selfemo_jobs.report.types import GenerationRow, ReportData
from selfemo_jobs.report.warm_start import warm_start_of
from selfemo_jobs.runtime.run_reader import StageRecord, recorded_outcomes

#: The place of a trained model below the storage; the group is the generation.
_TRAINED_MODEL = re.compile(r"/generations/(\d{3})/train/")


@dataclass(frozen=True)
class StoredTables:
    """What is read from the tables of a run, besides its manifests."""

    samples: Sequence[Sample] = ()
    """The groups of self-play to show."""
    replies: Sequence[ReplyPair] = ()
    """The replies of two generations to show."""
    answers: Answers = field(default_factory=Answers)
    """The answers of the evaluations."""


def build_report(
    records: Sequence[StageRecord], info: RunInfo, tables: StoredTables = StoredTables()
) -> ReportData:
    """Return the content of the page.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    info
        The name of the run, and what is known besides the manifests. An outcome that it does not
        contain is derived from the scores.
    tables
        What was read from the tables of the run.
    """
    by_key = {r.key: r for r in records}
    info = replace(info, outcomes={**recorded_outcomes(records), **info.outcomes})
    spec = info.spec
    dataset = _selection_dataset(records, info)
    by_dataset = scores_of(records)
    scores = {n: s[dataset] for n, s in by_dataset.items() if dataset in s}
    evaluated = tuple(sorted(scores))
    best = _best(scores, info)
    compared = _compared(scores, best)
    labels = dataset_values(records, dataset, "labels")
    if not labels and spec:
        labels = tuple(spec.dataset.labels)
    numbers = sorted({r.manifest.generation for r in records})
    gains = gains_over_baseline(evaluated_models(records, tables.answers))
    return ReportData(
        run=info.run,
        labels=labels,
        selection_dataset=dataset,
        goal=spec.stopping.goal if spec else None,
        facts=run_facts(records, info),
        generations=_generations(by_key, numbers, by_dataset, gains, dataset, info),
        best=best,
        compared=compared,
        pending=_pending(records, info),
        state=info.state,
        warm_start=warm_start_of(records),
        f1=f1_series(records, dataset),
        set_scores=set_scores(records, dataset),
        expression=expression_scores(records),
        rewards=metric_series(
            records,
            Stage.SCORE,
            (ScoreMetric.REWARD_MEAN, "reward"),
            (ScoreMetric.CONSISTENCY_MEAN, "consistency"),
        ),
        entropy=entropy_series(records, scores),
        label_f1=label_f1([scores[n] for n in evaluated], len(labels)),
        support=dataset_values(records, dataset, "support"),
        weighted_to_prior=bool(dataset_values(records, dataset, "shares")),
        evaluated=evaluated,
        confusions=confusions(by_key, dataset, best, evaluated),
        funnels=funnels(records),
        kept_labels=kept_labels(records),
        histograms=histograms(records),
        indicators=collapse_indicators(
            records,
            scores,
            spec.stopping.collapse if spec else None,
            imitation=spec is not None and spec.training.imitation > 0.0,
        ),
        generated_tokens=metric_points(records, Stage.SELF_PLAY, SelfPlayMetric.TOKENS),
        trained_tokens=metric_points(records, Stage.TRAIN, TrainMetric.TOKENS),
        stage_metrics=stage_metrics(by_key, numbers),
        seconds=stage_seconds(records),
        changes=_changes(tables.answers, compared, dataset, scores),
        samples=tuple(tables.samples),
        replies=tuple(tables.replies),
        records=tuple(records),
    )


def _selection_dataset(records: Sequence[StageRecord], info: RunInfo) -> str | None:
    """Return the name of the dataset that decides which generation is best.

    The selection dataset is first in each evaluation's scores.
    """
    names = [s.source for r in of_stage(records, Stage.EVALUATE) for s in r.manifest.scores]
    if info.spec and info.spec.selection_dataset in names:
        return info.spec.selection_dataset
    return names[0] if names else None


def _best(scores: Mapping[int, SourceScore], info: RunInfo) -> int | None:
    """Return the best generation: the recorded one, or otherwise the one with the highest F1."""
    if info.best in scores:
        return info.best
    return max(scores, key=lambda n: (scores[n].weighted_f1, -n), default=None)


def _compared(scores: Mapping[int, SourceScore], best: int | None) -> int | None:
    """Return the generation that is compared with generation 0.

    It is the best one, or the one with the highest F1 of the others if generation 0 is the best.
    """
    if 0 not in scores or best is None:
        return None
    if best > 0:
        return best
    return max(
        (n for n in scores if n > 0), key=lambda n: (scores[n].weighted_f1, -n), default=None
    )


def _changes(
    answers: Answers,
    compared: int | None,
    dataset: str | None,
    scores: Mapping[int, SourceScore],
) -> AnswerChanges | None:
    """Return what the compared generation answers differently on the selection dataset."""
    if compared is None or dataset is None:
        return None
    return answer_changes(answers, compared, dataset, sets=scores[0].jaccard is not None)


def _pending(records: Sequence[StageRecord], info: RunInfo) -> str:
    """Return a sentence about the next stage of a generation that is not finished."""
    if not records:
        return "No stage has finished yet."
    last = records[-1].manifest
    # Publish only copies what is finished. A generation that collapsed has no further stage.
    if last.stage in (Stage.EVALUATE, Stage.PUBLISH) or last.generation in info.outcomes:
        return ""
    if info.spec is None and last.stage is Stage.CHECK:
        return "Generation 0 is not finished."  # whether a warm start follows is in the resource
    warm_start = info.spec is None or info.spec.has_warm_start
    following = next_stage(last.generation, last.stage, warm_start=warm_start)
    if following is None:
        return ""
    return f"Generation {last.generation} is not finished: the next stage is {following.value}."


def _generations(
    by_key: Mapping[tuple[int, int], StageRecord],
    numbers: Sequence[int],
    scores: Mapping[int, Mapping[str, SourceScore]],
    gains: Mapping[tuple[int, str], ShownGain],
    dataset: str | None,
    info: RunInfo,
) -> tuple[GenerationRow, ...]:
    """Return a row for each generation, with the recorded outcome or one that the scores give."""
    rows, best = [], float("-inf")
    least = info.spec.promotion.min_delta if info.spec is not None else 0.0
    all_stages = {n: {s: by_key.get((n, i)) for i, s in enumerate(STAGE_ORDER)} for n in numbers}
    built_on = {
        n: _built_on(next((r for r in stages.values() if r), None), n)
        for n, stages in all_stages.items()
    }
    for number, stages in all_stages.items():
        by_dataset = scores.get(number, {})
        score = by_dataset.get(dataset or "")
        outcome = "unfinished"
        recorded = info.outcomes.get(number)
        if score:
            # as the planner decides: only a promoted model is the one to surpass
            better = number == 0 or score.weighted_f1 > best + least
            # a generation that is not better, and that the next one started from
            worse = OUTCOMES[Outcome.CONTINUED] if number in built_on.values() else "not better"
            outcome = "baseline" if number == 0 else "better" if better else worse
            if recorded is not None:
                better = recorded.outcome in (Outcome.BASELINE, Outcome.PROMOTED)
            if better:
                best = score.weighted_f1
        if recorded:
            outcome = OUTCOMES[recorded.outcome]
        rows.append(
            GenerationRow(
                generation=number,
                outcome=outcome,
                built_on=built_on[number],
                score=score,
                scores=by_dataset,
                gains={source: gain for (n, source), gain in gains.items() if n == number},
                reward=metric_of(stages[Stage.SCORE], ScoreMetric.REWARD_MEAN),
                consistency=metric_of(stages[Stage.SCORE], ScoreMetric.CONSISTENCY_MEAN),
                kept=metric_of(stages[Stage.FLYWHEEL], FlywheelMetric.KEPT),
                message=recorded.message if recorded else "",
            )
        )
    return tuple(rows)


def _built_on(first: StageRecord | None, number: int) -> int | None:
    """Return the generation whose model the first stage of a generation started from."""
    if first is None or number == 0:
        return None
    match = _TRAINED_MODEL.search(str(first.manifest.config.get("policyUri", "")) + "/")
    origin = int(match.group(1)) if match else 0
    return origin if origin < number else None
