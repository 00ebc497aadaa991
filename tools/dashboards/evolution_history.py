"""Row of the Evolution dashboard: one table row and one bar for each generation.

The generation is a value of a series, not a label. So Grafana groups the points of a time range by
the evaluated generation. While that has a value, the stages of the next generation replace theirs
one after another. So the first point of each generation is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from tools.dashboards.board_types import Kind, Panel, Query, Row
from tools.dashboards.evolution_panels import OF, one, panel

from selfemo_api.stages import Stage

_GPU = f"namespace_name:selfemo_evolution_gpu_seconds:sum{{{OF}}}"
_STAGES = (Stage.SELF_PLAY, Stage.SCORE, Stage.FLYWHEEL, Stage.TRAIN, Stage.EVALUATE)

Column = tuple[str, str, str]
"""The title of a column, its unit and its expression."""


def _seconds(stage: Stage) -> str:
    return f'max(selfemo_evolution_stage_duration_seconds{{{OF}, stage="{stage.value}"}})'


def _by_generation(
    kind: Kind, title: str, text: str, unit: str, columns: Sequence[Column], **more: object
) -> Panel:
    expressions = [one("evaluated_generation"), *(expr for _, _, expr in columns)]
    names = [f"Value #{chr(ord('A') + number)}" for number in range(len(expressions))]
    titles = [("Generation", "none"), *((title, unit) for title, unit, _ in columns)]
    text += " The time range of the dashboard must contain the generations."
    return panel(
        kind,
        title,
        text,
        unit,
        [Query(expr, shown) for expr, (shown, _) in zip(expressions, titles, strict=True)],
        columns=dict(zip(names, titles, strict=True)),
        by_generation=True,
        **more,
    )


GENERATIONS = Row(
    "Generations",
    [
        _by_generation(
            Kind.TABLE,
            "Generations",
            "The evaluated generations: F1 on the selection dataset, rewards, training metrics, "
            "and the cumulative GPU hours of the run.",
            "none",
            [
                ("F1", "percentunit", one("f1_ratio")),
                ("Best F1", "percentunit", one("best_f1_ratio")),
                ("Reward", "none", one("reward_mean")),
                ("Consistency", "percentunit", one("consistency_ratio")),
                ("Kept", "short", one("kept_candidates")),
                ("Loss", "none", one("train_loss_mean")),
                ("KL", "none", one("train_kl")),
                ("Entropy", "none", one("train_entropy")),
                ("Diversity", "percentunit", one("response_diversity_ratio")),
                ("Completion tokens", "none", one("completion_tokens_mean")),
                ("GPU hours", "none", f"max({_GPU}) / 3600"),
            ],
            width=24,
            height=9,
            decimals=3,
        ),
        _by_generation(
            Kind.BAR_CHART,
            "F1 by generation",
            "Weighted F1 of each evaluated generation on the selection dataset, and the best so "
            "far.",
            "percentunit",
            [
                ("F1", "percentunit", one("f1_ratio")),
                ("Best F1", "percentunit", one("best_f1_ratio")),
            ],
        ),
        _by_generation(
            Kind.BAR_CHART,
            "Candidates by generation",
            "Candidates that self-play generated and that the flywheel kept.",
            "short",
            [
                ("Played", "short", one("played_candidates")),
                ("Kept", "short", one("kept_candidates")),
            ],
        ),
        _by_generation(
            Kind.BAR_CHART,
            "Time by generation",
            "Wall time of the stages of each generation.",
            "s",
            [(stage.value, "s", _seconds(stage)) for stage in _STAGES],
            stacked=True,
        ),
    ],
)
