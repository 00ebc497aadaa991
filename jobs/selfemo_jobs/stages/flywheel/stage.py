"""The flywheel stage: it keeps the reliable groups of scored candidates, and adds replay."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import daft
import pyarrow as pa
import pyarrow.compute as pc

from selfemo_api.metrics import DROPPED, FlywheelMetric
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput, BadRows
from selfemo_jobs.rewards.diversity import label_entropy
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import rerun_advice
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.stages.flywheel.dataframe_runner import materialize, start_runner
from selfemo_jobs.stages.flywheel.emotion_limits import count_emotions
from selfemo_jobs.stages.flywheel.filters import Selection, select_groups
from selfemo_jobs.stages.flywheel.group_table import (
    count_groups,
    split_emotions,
    summarize_portions,
)
from selfemo_jobs.stages.flywheel.kept_rows import assign_parts, write_parts
from selfemo_jobs.stages.flywheel.replay import choose_replay
from selfemo_jobs.stages.flywheel.scored_rows import open_scored_rows

#: The folder below the scratch folder for copies of parts.
_INPUTS = "inputs"


@dataclass(frozen=True)
class _Source:
    """The groups that are kept of a manifest."""

    rows: daft.DataFrame
    """All rows of the manifest."""
    groups: daft.DataFrame
    """The groups that are kept."""
    sha256: str
    """The hash of the manifest."""
    count: int
    """The number of groups that are kept."""


def run_flywheel(context: StageContext) -> StageOutput:
    """Select the groups to train on, and write their rows.

    If no group is reliable, the result has no rows, and the metric ``kept`` is 0. This is not an
    error: the train stage then returns the policy unchanged.

    Parameters
    ----------
    context
        The context of the stage.

    Raises
    ------
    BadInput
        If an input is missing or broken, or no selection can satisfy the balance cap.
    Unavailable
        If the Ray cluster or the storage does not answer.
    """
    try:
        return _run(context)
    except BadRows as error:
        advice = rerun_advice(context.config.parents[Stage.SCORE.slug])
        raise BadInput(f"{error}: {advice}") from error


def _run(context: StageContext) -> StageOutput:
    config = context.config
    _refuse_impossible_cap(config.spec)
    start_runner(config.spec.flywheel)
    scored = open_scored_rows(context, config.parents[Stage.SCORE.slug], f"{_INPUTS}/score")
    rows = scored.read()
    imitation = config.spec.training.imitation > 0.0
    selection = select_groups(
        summarize_portions(rows, scored.portions()),
        rows,
        config.spec.flywheel,
        config.seed,
        label_prior=config.spec.flywheel_label_prior,
        imitation=imitation,
    )
    new = _Source(rows, selection.groups, scored.sha256, selection.funnel[-1]["after"])
    sources = [new, *_replay(context, selection)]
    kept = _collect(sources)
    with_parts = assign_parts(kept)
    parts = write_parts(
        context,
        [
            (source.rows, with_parts.filter(pc.equal(with_parts["source"], index)))
            for index, source in enumerate(sources)
            if source.count
        ],
    )
    shutil.rmtree(context.work / _INPUTS, ignore_errors=True)
    return StageOutput(
        parts=parts,
        rows=sum(part.rows or 0 for part in parts),
        metrics=_metrics(kept, selection, config.spec),
        report=_report(kept, selection, sources),
    )


def _refuse_impossible_cap(spec: EvolutionSpec) -> None:
    """Raise BadInput if the balance cap is too low for the number of labels."""
    share, labels = spec.flywheel.max_share, len(spec.dataset.labels)
    if share * labels < 1.0 - 1e-6:
        raise BadInput(
            f"`overrides.flywheel.maxShare` {share:g} cannot hold with {labels} labels: one of "
            f"them always has a fraction of {1 / labels:.3f} or more; raise `maxShare` to at "
            "least that"
        )


def _replay(context: StageContext, selection: Selection) -> list[_Source]:
    """Return the groups of earlier flywheels that are added, newest first, up to the quota."""
    config = context.config
    training = config.spec.training
    # an imitated answer is one more row of its group
    most_rows = training.batch_size - (training.imitation > 0)
    quota = int(config.spec.flywheel.replay * selection.funnel[-1]["after"] + 1e-9)
    present = selection.groups.select("group_id", "content")
    sources = []
    for index, uri in enumerate(config.replay):
        if quota <= 0:
            break
        earlier = open_scored_rows(context, uri, f"{_INPUTS}/replay-{index}")
        rows = earlier.read()
        groups = choose_replay(
            summarize_portions(rows, earlier.portions()),
            present,
            quota,
            config.seed,
            most_rows=most_rows,
        )
        count, _ = count_groups(groups)
        sources.append(_Source(rows, groups, earlier.sha256, count))
        present = materialize(present.concat(groups.select("group_id", "content")))
        quota -= count
    return sources


def _collect(sources: list[_Source]) -> pa.Table:
    """Return a row for each kept group, with the number of its source."""
    tables = []
    for index, source in enumerate(sources):
        table = source.groups.select("group_id", "role", "emotions", "rows").to_arrow()
        numbers = pa.array([index] * table.num_rows, pa.int32())
        tables.append(table.append_column("source", numbers))
    return pa.concat_tables(tables)


def _metrics(kept: pa.Table, selection: Selection, spec: EvolutionSpec) -> dict[str, float]:
    roles, labels = _counts(kept["role"]), _label_counts(kept)
    new, new_rows = selection.funnel[-1]["after"], selection.funnel[-1]["rowsAfter"]
    rows = pc.sum(kept["rows"]).as_py() or 0
    return {
        FlywheelMetric.CANDIDATES: selection.total_rows,
        FlywheelMetric.GROUPS: selection.total_groups,
        FlywheelMetric.KEPT: rows,
        FlywheelMetric.KEPT_GROUPS: kept.num_rows,
        FlywheelMetric.KEPT_RECOGNIZER: roles.get(Role.RECOGNIZER.value, 0),
        FlywheelMetric.KEPT_RESPONDER: roles.get(Role.RESPONDER.value, 0),
        FlywheelMetric.REPLAYED: kept.num_rows - new,
        FlywheelMetric.REPLAYED_CANDIDATES: rows - new_rows,
        **{DROPPED + s["filter"]: s["rowsBefore"] - s["rowsAfter"] for s in selection.funnel},
        FlywheelMetric.LABEL_ENTROPY: round(
            label_entropy([labels.get(e, 0) for e in spec.dataset.labels]), 9
        ),
        FlywheelMetric.KEPT_SHARE: round(new / selection.total_groups, 9)
        if selection.total_groups
        else 0.0,
    }


def _report(kept: pa.Table, selection: Selection, sources: list[_Source]) -> dict[str, object]:
    return {
        "funnel": selection.funnel,
        "labels": _label_counts(kept),
        "balanceCap": selection.caps,
        "replay": [{"manifest": s.sha256, "groups": s.count} for s in sources[1:]],
    }


def _label_counts(kept: pa.Table) -> dict[str, int]:
    """Return the number of kept groups that have each emotion."""
    sets = {split_emotions(emotions): n for emotions, n in _counts(kept["emotions"]).items()}
    return dict(sorted(count_emotions(sets).items()))


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value of a column occurs."""
    pairs = ((entry["values"], entry["counts"]) for entry in pc.value_counts(column).to_pylist())
    return dict(sorted(pairs))


#: The parts of the spec that the selection follows from. `flywheel.runner` and its address are not
#: among them: where the program runs changes no byte of the result.
RELEVANT = (
    "flywheel.minReward",
    "flywheel.consistency",
    "flywheel.keep",
    "flywheel.useLabelPrior",
    "flywheel.maxShare",
    "flywheel.replay",
    "flywheel.deduplicate",
    "dataset.labels",
    "dataset.labelPrior",
    "training.batchSize",
    "training.imitation",
)

PROGRAM = StageProgram(stage=Stage.FLYWHEEL, work=run_flywheel, relevant=RELEVANT)
