"""What ``selfemo run`` prints: the plan before, the generations after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.results import SourceScore
from selfemo_api.spec import EvolutionSpec
from selfemo_api.status import ConditionType, GenerationRecord, Outcome

#: A word for people for each outcome.
OUTCOMES = {
    Outcome.BASELINE: "as given",
    Outcome.PROMOTED: "promoted",
    Outcome.ROLLED_BACK: "rolled back",
    Outcome.CONTINUED: "kept, not better",
    Outcome.COLLAPSED: "collapsed",
}


def plan_table(evolution: EmotionEvolution, state: Path) -> Table:
    """Return what is going to happen."""
    spec = evolution.spec
    table = Table(title=f"Evolution {evolution.metadata.name}", show_header=False, min_width=60)
    for name, value in _plan_rows(spec, state):
        table.add_row(name, value, style=None)
    return table


def _plan_rows(spec: EvolutionSpec, state: Path) -> list[tuple[str, str]]:
    play, training = spec.self_play, spec.training
    policy = spec.evolution
    goal = f", stop at F1 {policy.goal.f1:g}" if policy.goal else ""
    adapters = f"LoRA rank {training.lora.rank}" if training.lora else "full weights"
    return [
        ("model", f"{spec.model.uri} (prompts {spec.model.prompts})"),
        (
            "self-play from",
            ", ".join(f"{s.name} ({s.format.value})" for s in spec.dataset.self_play),
        ),
        (
            "labels read there",
            "no"
            if not any(s.use_labels for s in spec.dataset.self_play)
            else "yes, by `useLabels`",
        ),
        (
            "evaluated on",
            ", ".join(f"{s.name} ({s.format.value})" for s in spec.dataset.evaluation),
        ),
        ("best chosen by", spec.selection_dataset),
        (
            "each generation",
            f"self-play ({play.engine.value}, groups of {play.group_size}) > score > flywheel > "
            f"train ({training.processes} process(es), DeepSpeed ZeRO "
            f"{training.deepspeed.zero_stage}, {adapters}) > evaluate",
        ),
        (
            "generations",
            f"0 to {policy.max_generations}, patience {policy.patience}{goal}, "
            f"a worse one: {policy.on_regression.value}",
        ),
        ("results", spec.storage.uri),
        ("state and logs", str(state)),
    ]


def generation_table(evolution: EmotionEvolution, *, intervals: bool = True) -> Table:
    """Return the generations with their figures; without intervals it is a good deal narrower."""
    status = evolution.status
    table = Table(title=f"{evolution.metadata.name}: weighted F1 by generation")
    table.add_column("Generation" if intervals else "Gen", justify="right")
    table.add_column("Outcome", no_wrap=True)
    sources = [s.name for s in evolution.spec.dataset.evaluation]
    for source in sources:
        table.add_column(f"F1 {source}", justify="right", no_wrap=True)
    for name in ("Reward", "Kept", "Seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    best = status.best.generation if status.best else None
    for entry in status.history:
        star = " *" if entry.generation == best else ""
        table.add_row(
            f"{entry.generation}{star}",
            OUTCOMES[entry.outcome],
            *(_score(entry, source, intervals) for source in sources),
            "" if entry.reward is None else f"{entry.reward:.3f}",
            "" if entry.kept is None else str(entry.kept),
            f"{sum(entry.stage_seconds.values()):.0f}",
        )
    brackets = "; brackets: 95 % interval" if intervals else ""
    table.caption = f"* the best, kept as the model to use{brackets}"
    return table


def _score(entry: GenerationRecord, source: str, intervals: bool) -> str:
    score = next((s for s in entry.scores if s.source == source), None)
    if score is None:
        return "-"
    return with_interval(score) if intervals else f"{score.weighted_f1:.4f}"


def with_interval(score: SourceScore) -> str:
    """Return weighted F1 with its 95 % interval, where that is known."""
    if score.weighted_f1_low is None or score.weighted_f1_high is None:
        return f"{score.weighted_f1:.4f}"
    low, high = score.weighted_f1_low, score.weighted_f1_high
    return f"{score.weighted_f1:.4f} [{low:.3f}, {high:.3f}]"


def summary(evolution: EmotionEvolution) -> dict[str, Any]:
    """Return the same as JSON."""
    status = evolution.status
    condition = status.condition(ConditionType.SUCCEEDED)
    return {
        "name": evolution.metadata.name,
        "phase": status.phase.value,
        "reason": condition.reason if condition else "",
        "message": condition.message if condition else "",
        "best": status.best.to_json() if status.best else None,
        "generations": [entry.to_json() for entry in status.history],
    }
