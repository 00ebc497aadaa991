"""The gain of each generation over the baseline, with a paired interval where it can be computed.

All functions are pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from selfemo_api.results import SourceScore
from selfemo_api.stages import Stage
from selfemo_jobs.evaluation.paired_gain import DifferentUtterances, gain_between
from selfemo_jobs.report.answer_reader import Answers
from selfemo_jobs.runtime.manifest import Manifest
from selfemo_jobs.runtime.run_reader import StageRecord

#: The remark of a difference between two models that answered different utterances.
OTHER_UTTERANCES = "not a gain: the dataset was changed between the evaluations"


@dataclass(frozen=True)
class ShownGain:
    """A difference of two weighted F1, from -1 to 1."""

    value: float
    low: float | None = None
    """The lower end of the paired 95% interval; None without an interval."""
    high: float | None = None
    """The upper end of the paired 95% interval; None without an interval."""
    other_utterances: bool = False
    """Whether the two models answered different utterances, so that this is not a gain."""

    @property
    def direction(self) -> int:
        """1 or -1 if the interval leaves out 0; otherwise 0."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0.0) - (self.high < 0.0)

    def __str__(self) -> str:
        """Return the gain with its interval as text."""
        if self.other_utterances:
            return f"{self.value:+.4f} ({OTHER_UTTERANCES})"
        if self.low is None or self.high is None:
            return f"{self.value:+.4f}"
        return f"{self.value:+.4f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True)
class EvaluatedModel:
    """The stored results of one model on one source."""

    manifest: Manifest
    """The manifest of the evaluation."""
    score: SourceScore
    """The score on the source."""
    table: pa.Table | None
    """The answers; None if they are not stored."""

    @property
    def file_sha256(self) -> str | None:
        """The hash of the source's file; None if the manifest does not have it."""
        return _report(self.manifest, self.score.source).get("sha256")

    @property
    def labels(self) -> Sequence[str]:
        """The label set of the evaluation; empty if the manifest does not have it."""
        return _report(self.manifest, self.score.source).get("labels") or ()


def evaluated_models(
    records: Sequence[StageRecord], answers: Answers
) -> dict[tuple[int, str], EvaluatedModel]:
    """Return the stored results by generation and source.

    Parameters
    ----------
    records
        The finished stages of the run.
    answers
        The stored answers.
    """
    return {
        (record.manifest.generation, score.source): EvaluatedModel(
            record.manifest,
            score,
            answers.tables.get((record.manifest.generation, score.source)),
        )
        for record in records
        if record.manifest.stage is Stage.EVALUATE
        for score in record.manifest.scores
    }


def gains_over_baseline(
    results: Mapping[tuple[int, str], EvaluatedModel],
) -> dict[tuple[int, str], ShownGain]:
    """Return the gain of each generation after 0 over generation 0, by generation and source.

    Parameters
    ----------
    results
        The stored results by generation and source.
    """
    return {
        (generation, source): gain_of(results[0, source], result)
        for (generation, source), result in sorted(results.items())
        if generation > 0 and (0, source) in results
    }


def gain_of(first: EvaluatedModel, second: EvaluatedModel) -> ShownGain:
    """Return the gain of one model over another on the same source.

    Gain and interval are computed from the answers, with the number of resamples, the label prior
    and the seed of the first evaluation. There is no interval if answers are not stored: the gain
    is then the difference of the scores. If they are not about the same utterances, the result says
    so.

    Parameters
    ----------
    first, second
        The results of both models.
    """
    difference = ShownGain(second.score.weighted_f1 - first.score.weighted_f1)
    report = _report(first.manifest, first.score.source)
    labels = report.get("labels")
    evaluation = first.manifest.config.get("evaluation")
    resamples = evaluation.get("bootstrap", 0) if isinstance(evaluation, dict) else 0
    if first.table is None or second.table is None or not labels or not resamples:
        return difference
    try:
        gain = gain_between(
            first.table,
            second.table,
            labels,
            sets=first.score.jaccard is not None,
            label_prior=report.get("shares"),
            resamples=resamples,
            seed=first.manifest.seed,
        )
    except DifferentUtterances:
        return replace(difference, other_utterances=True)
    return ShownGain(gain.gain, gain.low, gain.high)


def _report(manifest: Manifest, source: str) -> Mapping[str, Any]:
    """Return what an evaluation reports about a source."""
    sources = manifest.report.get("sources")
    report = sources.get(source) if isinstance(sources, dict) else None
    return report if isinstance(report, dict) else {}
