"""The tables of ``selfemo run``: the plan before the run, the generations after it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.recipes import changed_settings
from selfemo_api.results import ExpressionScore, SourceScore
from selfemo_api.spec import EvolutionSpec, TrainingSpec
from selfemo_api.status import ConditionType, EvolutionStatus, GenerationRecord, Outcome

#: The text for each outcome of a generation.
OUTCOMES = {
    Outcome.BASELINE: "baseline",
    Outcome.PROMOTED: "promoted",
    Outcome.ROLLED_BACK: "rolled back",
    Outcome.CONTINUED: "continued, not better",
    Outcome.COLLAPSED: "collapsed",
}


def plan_table(evolution: EmotionEvolution) -> Table:
    """Return the table of what the run is going to do.

    Parameters
    ----------
    evolution
        The evolution to run.
    """
    table = Table(title=f"Evolution {evolution.metadata.name}", show_header=False, min_width=60)
    for name, value in _plan_rows(evolution.spec):
        table.add_row(name, value, style=None)
    return table


def plan_places(evolution: EmotionEvolution, state: Path) -> dict[str, str]:
    """Return where the files of a run are, by what they are.

    Parameters
    ----------
    evolution
        The evolution to run.
    state
        The evolution's state folder.
    """
    spec = evolution.spec
    return {"Model": spec.model.uri, "Results": spec.storage.uri, "State and logs": str(state)}


def _plan_rows(spec: EvolutionSpec) -> list[tuple[str, str]]:
    """Return name and value of each row of the plan."""
    self_play, training, stopping = spec.self_play, spec.training, spec.stopping
    goal = f", stop at F1 {stopping.goal:g}" if stopping.goal else ""
    warm_start = f"warm start (at most {spec.warm_start.steps} steps) > "
    changes = [f"{path}={json.dumps(value)}" for path, value in changed_settings(spec).items()]
    return [
        ("prompts", spec.model.prompts),
        ("recipe", spec.recipe),
        ("differs from the recipe", ", ".join(changes) or "nothing"),
        ("self-play datasets", ", ".join(s.name for s in spec.dataset.self_play)),
        ("labeled datasets", ", ".join(s.name for s in spec.dataset.labeled) or "none"),
        ("evaluation datasets", ", ".join(s.name for s in spec.dataset.evaluation)),
        ("selection dataset", spec.selection_dataset),
        ("generation 0", f"check > {warm_start if spec.has_warm_start else ''}evaluate"),
        (
            "each generation",
            f"self-play ({self_play.engine.value}, groups of {self_play.group_size}) > score > "
            f"flywheel > train ({spec.resources.processes} process(es), DeepSpeed ZeRO "
            f"{training.deepspeed.zero_stage}, {_trained_weights(training)}) > evaluate",
        ),
        (
            "generations",
            f"0 to {stopping.max_generations}, patience {stopping.patience}{goal}, "
            f"on regression {spec.promotion.on_regression.value}",
        ),
    ]


def _trained_weights(training: TrainingSpec) -> str:
    """Return which weights are trained."""
    if training.lora is not None and training.lora.rank > 0:
        return f"LoRA rank {training.lora.rank}"
    return f"last layers: {training.train_layers}" if training.train_layers else "all weights"


def shown_generations(
    status: EvolutionStatus, newest: int | None = None
) -> tuple[GenerationRecord, ...]:
    """Return generation 0, the best generation and the last ones, each once, by their number.

    The history has the last ten generations alone. Of an earlier one, the status knows the F1 on
    the selection dataset: its record here has no other figures.

    Parameters
    ----------
    status
        The status of the evolution.
    newest
        How many of the last generations are shown. None: all of the history.
    """
    first, best = status.baseline, status.best
    records: dict[int, GenerationRecord] = {}
    if best is not None:
        outcome = Outcome.PROMOTED if best.generation else Outcome.BASELINE
        records[best.generation] = GenerationRecord(
            generation=best.generation,
            outcome=outcome,
            f1=best.f1,
            scores=[],
            model_uri=best.model_uri,
        )
    if first is not None:
        records[0] = GenerationRecord(
            generation=0,
            outcome=Outcome.BASELINE,
            f1=first.weighted_f1,
            scores=[first],
            model_uri=status.baseline_uri or "",
        )
    oldest = 0 if newest is None else max(0, len(status.history) - newest)
    for number, record in enumerate(status.history):
        if number >= oldest or record.generation in records:
            records[record.generation] = record
    return tuple(records[generation] for generation in sorted(records))


def generation_table(
    evolution: EmotionEvolution, *, intervals: bool = True, newest: int | None = None
) -> Table:
    """Return the table of generations with their scores: the first, the best and the last ones.

    Parameters
    ----------
    evolution
        The evolution with its status.
    intervals
        Show the 95% interval of each F1. Without intervals the table is much narrower.
    newest
        How many of the last generations are shown. None: all of the history.
    """
    status = evolution.status
    table = Table(title=f"{evolution.metadata.name}: weighted F1 by generation")
    table.add_column("Generation" if intervals else "Gen", justify="right")
    table.add_column("Outcome", no_wrap=True)
    sources = [s.name for s in evolution.spec.dataset.evaluation]
    # one dataset alone, so that the table fits into a terminal: the report has the others
    selection = evolution.spec.selection_dataset
    records = shown_generations(status, newest)
    scores = [s for record in records for s in record.scores]
    by_sets = {s.source for s in scores if s.source == selection and s.jaccard is not None}
    for source in sources:
        table.add_column(f"F1 {source}", justify="right", no_wrap=True)
        if source in by_sets:
            table.add_column("Micro F1", justify="right")
            table.add_column("Jaccard", justify="right")
    has_expression = any(record.expression for record in records)
    columns = (*(("Expression",) if has_expression else ()), "Reward", "Kept", "Seconds")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    best = status.best.generation if status.best else None
    for record in records:
        star = " *" if record.generation == best else ""
        table.add_row(
            f"{record.generation}{star}",
            OUTCOMES[record.outcome],
            *(
                cell
                for s in sources
                for cell in _score_cells(record, s, s == selection, s in by_sets, intervals)
            ),
            *([_expression_cell(record, intervals=intervals)] if has_expression else []),
            "" if record.reward is None else f"{record.reward:.3f}",
            "" if record.kept is None else str(record.kept),
            f"{sum(record.stage_seconds.values()):.0f}" if record.stage_seconds else "",
        )
    brackets = "; in brackets: the 95% interval" if intervals else ""
    table.caption = f"* the best generation: the model to use{brackets}{_left_out(records)}"
    return table


def _left_out(records: Sequence[GenerationRecord]) -> str:
    """Return a line with how many generations a table leaves out; nothing if it has all."""
    count = records[-1].generation + 1 - len(records) if records else 0
    if not count:
        return ""
    return f"\nOmitted: {count} generation{'s' if count > 1 else ''} (see the report)"


def _score_cells(
    record: GenerationRecord, source: str, is_selection: bool, by_sets: bool, intervals: bool
) -> list[str]:
    """Return the scores of a generation on an evaluation dataset, or dashes.

    Parameters
    ----------
    record
        The generation.
    source
        The name of the dataset.
    is_selection
        Whether it is the selection dataset, whose F1 is known without its other scores.
    by_sets
        Whether the table has the figures of sets of labels for this dataset.
    intervals
        Show the 95% interval of the F1.
    """
    score = next((s for s in record.scores if s.source == source), None)
    if score is None:
        f1 = record.f1 if is_selection else None
        return ["-" if f1 is None else f"{f1:.4f}", *(["-"] * (2 if by_sets else 0))]
    cells = [format_f1(score) if intervals else f"{score.weighted_f1:.4f}"]
    if by_sets:
        figures = (score.micro_f1, score.jaccard)
        cells += ["-" if figure is None else f"{figure:.4f}" for figure in figures]
    return cells


def _expression_cell(record: GenerationRecord, *, intervals: bool) -> str:
    """Return the share of responses that are read as intended."""
    if record.expression is None:
        return ""
    return format_expression(record.expression, interval=intervals)


def format_expression(score: ExpressionScore, *, interval: bool = True) -> str:
    """Return the share of responses read as intended, with its 95% interval if there is one.

    Parameters
    ----------
    score
        The expression of a generation.
    interval
        Whether the interval is shown.
    """
    low, high = score.as_intended_low, score.as_intended_high
    if not interval or low is None or high is None:
        return f"{score.as_intended:.3f}"
    return f"{score.as_intended:.3f} [{low:.3f}, {high:.3f}]"


def format_f1(score: SourceScore) -> str:
    """Return weighted F1 with its 95% interval, if the score has one.

    Parameters
    ----------
    score
        The score of one evaluation dataset.
    """
    if score.weighted_f1_low is None or score.weighted_f1_high is None:
        return f"{score.weighted_f1:.4f}"
    low, high = score.weighted_f1_low, score.weighted_f1_high
    return f"{score.weighted_f1:.4f} [{low:.3f}, {high:.3f}]"


def format_set_figures(score: SourceScore) -> str:
    """Return the figures of sets of labels, or an empty text if the score has none.

    Parameters
    ----------
    score
        The score of one evaluation dataset.
    """
    if score.micro_f1 is None or score.jaccard is None:
        return ""
    return f"micro F1 {score.micro_f1:.4f}, Jaccard {score.jaccard:.4f}"


def summary(evolution: EmotionEvolution) -> dict[str, Any]:
    """Return the result of a run as an object for JSON. It has the last ten generations.

    Parameters
    ----------
    evolution
        The evolution with its status.
    """
    status = evolution.status
    condition = status.condition(ConditionType.SUCCEEDED)
    return {
        "name": evolution.metadata.name,
        "phase": status.phase.value,
        "reason": condition.reason if condition else "",
        "message": condition.message if condition else "",
        "best": status.best.to_json() if status.best else None,
        "baseline": status.baseline.to_json() if status.baseline else None,
        "generations": [record.to_json() for record in status.history],
    }
