"""Compares several runs: scores, gains between their best models, settings and cost. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selfemo_jobs.report.gains import EvaluatedModel, ShownGain, gain_of
from selfemo_jobs.report.run_info import RunInfo
from selfemo_jobs.report.run_settings import manifest_settings, spec_settings
from selfemo_jobs.report.types import GenerationRow, Point, ReportData, Series
from selfemo_jobs.runtime.run_reader import StageRecord

#: The columns that two tables of the same utterances have in common.
_SHARED = ["dialogue_id", "utterance", "gold"]
#: Settings in which two runs differ without a meaning: where they write.
_PLACES = ("storage.uri", "publish")


@dataclass(frozen=True)
class LoadedRun:
    """What is read of one run."""

    info: RunInfo
    records: Sequence[StageRecord]
    data: ReportData
    """The content of the run's report."""
    results: Mapping[tuple[int, str], EvaluatedModel]
    """The stored results by generation and source."""


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison."""

    key: str
    """The letter of the run: A, B and so on."""
    name: str
    """The name of the evolution."""
    data: ReportData
    recipe: str
    """The name of the recipe; empty if it is unknown."""

    @property
    def title(self) -> str:
        """The letter and the name of the run's folder."""
        return f"{self.key}: {self.data.run}"

    @property
    def short_title(self) -> str:
        """The letter and the name of the evolution, for which a chart has space."""
        return f"{self.key}: {self.name}"

    @property
    def best(self) -> GenerationRow | None:
        """The row of the best generation; None before an evaluation."""
        return self.data.row(self.data.best)

    def fact(self, name: str) -> str:
        """Return a fact about the run with its items as text, or an empty text.

        Parameters
        ----------
        name
            The name of the fact.
        """
        facts = (f for f in self.data.facts.facts if f.name == name)
        return "; ".join(" ".join((f.value, ", ".join(f.items))).strip() for f in facts)


@dataclass(frozen=True)
class RunGain:
    """The gain of one run's best model over that of another, on the same file."""

    dataset: str
    """The name of the dataset in the first run."""
    first: str
    """The letter of the first run."""
    second: str
    """The letter of the second run."""
    gain: ShownGain
    """The F1 of the second run's best model minus that of the first's."""


@dataclass(frozen=True)
class SettingRow:
    """A setting in which runs differ."""

    path: str
    values: tuple[str, ...]
    """The value of each run as JSON; empty if it is unset."""


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side."""

    runs: tuple[ComparedRun, ...]
    datasets: tuple[str, ...] = ()
    """The names of the evaluation datasets, those of the first run first."""
    gains: tuple[RunGain, ...] = ()
    """The gain of each later run over the first, on each file that both were evaluated on."""
    not_paired: tuple[str, ...] = ()
    """A sentence for each pair of runs without a common file."""
    settings: tuple[SettingRow, ...] = ()
    all_settings: bool = False
    """Whether all settings were compared. Otherwise those that results depend on."""
    f1: Mapping[str, tuple[Series, ...]] = field(default_factory=dict)
    """Weighted F1 by generation, a line for each run, by dataset."""

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as a JSON object."""
        return {
            "runs": [_run_json(run) for run in self.runs],
            "gains": [
                {
                    "dataset": g.dataset,
                    "first": g.first,
                    "second": g.second,
                    "gain": round(g.gain.value, 6),
                    "low": g.gain.low,
                    "high": g.gain.high,
                    "otherUtterances": g.gain.other_utterances,
                }
                for g in self.gains
            ],
            "settings": {
                row.path: {
                    run.key: json.loads(value) if value else None
                    for run, value in zip(self.runs, row.values, strict=True)
                }
                for row in self.settings
            },
        }


def compare_runs(runs: Sequence[LoadedRun]) -> Comparison:
    """Return several runs side by side.

    Parameters
    ----------
    runs
        At least two runs. The first one is the one that the others are compared with.
    """
    compared = tuple(
        ComparedRun(
            key=chr(ord("A") + index),
            name=run.info.name,
            data=run.data,
            recipe=run.info.spec.recipe if run.info.spec else "",
        )
        for index, run in enumerate(runs)
    )
    datasets = tuple(dict.fromkeys(name for run in runs for name in run.data.datasets))
    gains: list[RunGain] = []
    without: list[str] = []
    for index in range(1, len(runs)):
        pair = (compared[0].key, compared[index].key)
        common = _gains(runs[0], runs[index], pair)
        gains += common
        if not common:
            without.append(
                f"{pair[1]} and {pair[0]} have no evaluation file in common: there is no paired "
                "gain."
            )
    has_specs = all(run.info.spec is not None for run in runs)
    return Comparison(
        runs=compared,
        datasets=datasets,
        gains=tuple(gains),
        not_paired=tuple(without),
        settings=_settings(runs, has_specs=has_specs),
        all_settings=has_specs,
        f1={name: _f1(compared, name) for name in datasets},
    )


def _gains(first: LoadedRun, second: LoadedRun, keys: tuple[str, str]) -> list[RunGain]:
    """Return the gains between the best models of two runs, on the files that they share."""
    gains = []
    for name in first.data.datasets:
        before = first.results.get((first.data.best or 0, name))
        if before is None or before.file_sha256 is None:
            continue
        others = sorted(second.data.datasets, key=lambda other: other != name)
        after = next(
            (
                result
                for other in others
                if (result := second.results.get((second.data.best or 0, other)))
                and result.file_sha256 == before.file_sha256
                and _same_utterances(before, result)
            ),
            None,
        )
        if after is not None:
            gains.append(RunGain(name, *keys, gain_of(before, after)))
    return gains


def _same_utterances(first: EvaluatedModel, second: EvaluatedModel) -> bool:
    """Return whether two models answered the same utterances, with the same labels to choose."""
    if {*first.labels} != {*second.labels}:
        return False
    if first.table is None or second.table is None:
        return first.score.utterances == second.score.utterances
    return bool(first.table.select(_SHARED).equals(second.table.select(_SHARED)))


def _settings(runs: Sequence[LoadedRun], *, has_specs: bool) -> tuple[SettingRow, ...]:
    """Return the settings in which the runs differ."""
    by_run = [
        spec_settings(run.info.spec)
        if has_specs and run.info.spec
        else manifest_settings(run.records)
        for run in runs
    ]
    rows = []
    for path in sorted({path for settings in by_run for path in settings}):
        values = [settings.get(path) for settings in by_run]
        if path not in _PLACES and any(value != values[0] for value in values):
            texts = ("" if value is None else _json(value) for value in values)
            rows.append(SettingRow(path, tuple(texts)))
    return tuple(rows)


def _f1(runs: Sequence[ComparedRun], dataset: str) -> tuple[Series, ...]:
    """Return weighted F1 by generation of each run on a dataset."""
    return tuple(
        Series(run.short_title, tuple(points))
        for run in runs
        if (points := [
            Point(row.generation, s.weighted_f1, s.weighted_f1_low, s.weighted_f1_high)
            for row in run.data.generations
            if (s := row.scores.get(dataset))
        ])
    )  # fmt: skip


def _run_json(run: ComparedRun) -> dict[str, Any]:
    """Return one run as a JSON object."""
    data = run.data
    return {
        "key": run.key,
        "run": data.run,
        "state": data.state,
        "recipe": run.recipe or None,
        "best": data.best,
        "generations": [
            {
                "generation": row.generation,
                "outcome": row.outcome,
                "scores": {
                    name: {
                        "weightedF1": s.weighted_f1,
                        "low": s.weighted_f1_low,
                        "high": s.weighted_f1_high,
                        "gain": gain.value if (gain := row.gains.get(name)) else None,
                        "gainLow": gain.low if gain else None,
                        "gainHigh": gain.high if gain else None,
                    }
                    for name, s in row.scores.items()
                },
            }
            for row in data.generations
        ],
        "seconds": data.facts.seconds,
        "gpuHours": data.facts.gpu_hours,
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
