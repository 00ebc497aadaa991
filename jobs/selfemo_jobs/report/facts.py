"""What was run: model, data, recipe, engine, machine, dates and cost. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from selfemo_api.metrics import CheckMetric
from selfemo_api.spec import EvolutionSpec, Use
from selfemo_api.stage_resources import gpus_of
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_api.text.formatting import duration
from selfemo_jobs.report.run_info import RunInfo
from selfemo_jobs.report.run_settings import (
    base_model,
    check_report,
    manifest_settings,
    source_uses,
)
from selfemo_jobs.runtime.run_reader import StageRecord

_USES: Mapping[str, str] = {
    Use.SELF_PLAY: "self-play, without labels",
    Use.LABELED: "training, with labels",
    Use.EVALUATION: "evaluation",
}


@dataclass(frozen=True)
class Fact:
    """One line of what was run."""

    name: str
    value: str
    items: tuple[str, ...] = ()
    """Values that are shown as a list behind the value: changed settings, or labels."""


@dataclass(frozen=True)
class SourceCounts:
    """One source of dialogues. Counts that are not stored are None."""

    name: str
    use: str
    uri: str
    dialogues: int | None
    utterances: int | None
    labeled: int | None
    """The number of utterances with a label."""
    reads_labels: bool
    """Whether the run reads its labels, for training or for scores."""


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage over all generations, without failed attempts."""

    stage: str
    runs: int
    seconds: float
    gpu_hours: float | None
    """The wall time times the number of GPUs, in hours; None if the number is unknown."""


@dataclass(frozen=True)
class RunFacts:
    """What was run."""

    facts: tuple[Fact, ...] = ()
    sources: tuple[SourceCounts, ...] = ()
    costs: tuple[StageCost, ...] = ()

    @property
    def seconds(self) -> float:
        """The wall time of all stages in seconds."""
        return sum(cost.seconds for cost in self.costs)

    @property
    def gpu_hours(self) -> float | None:
        """The GPU hours of all stages; None if the number of GPUs of a stage is unknown."""
        hours = [cost.gpu_hours for cost in self.costs]
        return sum(h for h in hours if h is not None) if None not in hours else None


def run_facts(records: Sequence[StageRecord], info: RunInfo) -> RunFacts:
    """Return what was run, as far as manifests and spec have it.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    info
        What is known besides the manifests.
    """
    settings = manifest_settings(records)
    sources = tuple(_sources(records, info.spec))
    facts = [
        *_model(records, info.spec, settings),
        *_labels(sources, settings, info.spec),
        *_recipe(info),
        *_engine(settings, info.spec),
        *_machine(records),
        *_versions(records),
        *_dates(records),
    ]
    return RunFacts(tuple(facts), sources, tuple(_costs(records, info.spec)))


def _model(
    records: Sequence[StageRecord], spec: EvolutionSpec | None, settings: Mapping[str, Any]
) -> Iterator[Fact]:
    uri = base_model(records, spec)
    if uri is None:
        return
    model = check_report(records).get("model") or {}
    parameters = _check_metric(records, CheckMetric.PARAMETERS)
    parts = [
        str(model["type"]) if "type" in model else "",
        f"{model['layers']} layers" if "layers" in model else "",
        f"{_size(parameters)} parameters" if parameters else "",
    ]
    details = ", ".join(part for part in parts if part)
    yield Fact("model", f"{uri} ({details})" if details else uri)
    prompts = spec.model.prompts if spec else settings.get("model.prompts")
    if prompts:
        yield Fact("prompts", str(prompts))


def _labels(
    sources: Sequence[SourceCounts], settings: Mapping[str, Any], spec: EvolutionSpec | None
) -> Iterator[Fact]:
    labels = spec.dataset.labels if spec else settings.get("dataset.labels") or ()
    if labels:
        yield Fact("labels", f"{len(labels)}:", tuple(labels))
    if not sources:
        return
    labeled = [source for source in sources if source.use == _USES[Use.LABELED]]
    if not labeled:
        yield Fact("labels read in training", "none; labels of the evaluation data give the scores")
        return
    parts = [
        " of ".join(
            part
            for part in (
                f"{s.dialogues} dialogues" if s.dialogues is not None else "",
                f"{s.name} ({s.labeled} labeled utterances)" if s.labeled else s.name,
            )
            if part
        )
        for s in labeled
    ]
    yield Fact("labels read in training", "; ".join(parts))


def _recipe(info: RunInfo) -> Iterator[Fact]:
    if info.spec is None:
        return
    differs = tuple(info.changes)
    if differs:
        count = f"{len(differs)} setting{'s' if len(differs) > 1 else ''}"
        yield Fact("recipe", f"{info.spec.recipe}, which differs in {count}:", differs)
    else:
        yield Fact("recipe", f"{info.spec.recipe}, without a change")
    yield Fact("seed", str(info.spec.seed))


def _engine(settings: Mapping[str, Any], spec: EvolutionSpec | None) -> Iterator[Fact]:
    engine = spec.self_play.engine.value if spec else settings.get("selfPlay.engine")
    if not engine:
        return
    evaluation = spec.evaluation_engine.value if spec else settings.get("evaluation.engine")
    other = f"; evaluation: {evaluation}" if evaluation and evaluation != engine else ""
    arguments = spec.self_play.engine_args if spec else {}
    details = f" {json.dumps(arguments)}" if arguments else ""
    yield Fact("engine", f"{engine}{details}{other}")


def _machine(records: Sequence[StageRecord]) -> Iterator[Fact]:
    """Yield each kind of machine; several, if the stages ran on several."""
    machines: dict[str, list[str]] = {}
    for record in records:
        machine = record.machine
        if not machine:
            continue
        names = [str(name) for name in machine.get("gpus") or ()]
        gpus = ", ".join(f"{names.count(n)} × {n}" for n in dict.fromkeys(names)) or "no GPU"
        cores = machine.get("cores")
        text = f"{machine.get('processor')}, {cores} core{'' if cores == 1 else 's'}, {gpus}"
        stages = machines.setdefault(text, [])
        if record.manifest.stage.value not in stages:
            stages.append(record.manifest.stage.value)
    for text, stages in machines.items():
        yield Fact("machine", text if len(machines) == 1 else f"{text} ({', '.join(stages)})")


def _versions(records: Sequence[StageRecord]) -> Iterator[Fact]:
    versions = library_versions(records)
    if versions:
        yield Fact("versions", "", tuple(f"{name} {text}" for name, text in versions.items()))


def library_versions(records: Sequence[StageRecord]) -> dict[str, str]:
    """Return the version of each library, or all of its versions if the stages had several.

    Parameters
    ----------
    records
        The finished stages of the run.
    """
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.manifest.versions.items():
            versions.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions[name])) for name in sorted(versions)}


def _dates(records: Sequence[StageRecord]) -> Iterator[Fact]:
    times = [(r.finished - (r.seconds or 0.0), r.finished) for r in records if r.finished]
    if times:
        began, ended = min(start for start, _ in times), max(end for _, end in times)
        text = f"{_date(began)} to {_date(ended)} UTC, {duration(ended - began)}"
        yield Fact("stages ran", text)


def _sources(records: Sequence[StageRecord], spec: EvolutionSpec | None) -> Iterator[SourceCounts]:
    counts = check_report(records).get("sources") or {}
    scored = {s.source: s.utterances for r in records for s in r.manifest.scores}
    for name, source in source_uses(records, spec).items():
        use = source["use"]
        limit = {"dialogues": source.get("limit")} if use == Use.LABELED else {}
        count = limit | (counts.get(name) or {})
        labeled = count.get("labeled", scored.get(name) if use == Use.EVALUATION else None)
        yield SourceCounts(
            name=name,
            use=_USES.get(use, str(use)),
            uri=source["uri"],
            dialogues=count.get("dialogues"),
            utterances=count.get("utterances"),
            labeled=None if use == Use.SELF_PLAY else labeled,
            reads_labels=use != Use.SELF_PLAY,
        )


def _costs(records: Sequence[StageRecord], spec: EvolutionSpec | None) -> Iterator[StageCost]:
    for stage in STAGE_ORDER:
        timed = [r for r in records if r.manifest.stage is stage and r.seconds is not None]
        if timed:
            hours = [_gpu_hours(record, stage, spec) for record in timed]
            yield StageCost(
                stage=stage.value,
                runs=len(timed),
                seconds=sum(r.seconds or 0.0 for r in timed),
                gpu_hours=sum(h for h in hours if h is not None) if None not in hours else None,
            )


def _gpu_hours(record: StageRecord, stage: Stage, spec: EvolutionSpec | None) -> float | None:
    """Return the GPU hours of a stage's successful attempt; None if the GPUs are unknown."""
    gpus = record.gpus
    if gpus is None and spec is not None:
        gpus = gpus_of(spec, stage)
    return None if gpus is None else gpus * (record.seconds or 0.0) / 3600


def _check_metric(records: Sequence[StageRecord], metric: CheckMetric) -> float | None:
    """Return a metric of the stage Check; None if it has not finished."""
    return next(
        (
            record.manifest.metrics.get(metric)
            for record in records
            if record.manifest.stage is Stage.CHECK
        ),
        None,
    )


def _size(count: float) -> str:
    """Return a number of parameters as text.

    Examples
    --------
    >>> _size(49_552_704), _size(7_600_000_000)
    ('49.6 million', '7.6 billion')
    """
    if count >= 1e9:
        return f"{count / 1e9:.3g} billion"
    return f"{count / 1e6:.3g} million" if count >= 1e6 else f"{count:.0f}"


def _date(seconds: float) -> str:
    """Return a time as text, in UTC, to the minute."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
