"""The Evolution dashboard: one evolution in detail."""

from __future__ import annotations

from typing import Any

from tools.dashboards.board_types import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Annotation,
    Board,
    Kind,
    Link,
    Panel,
    Query,
    Row,
    Variable,
)
from tools.dashboards.fleet import PHASES, STAGES, phase_code, stage_code

from selfemo_operator.controller.metrics.series import PREFIX

_OF = 'namespace="$namespace", name="$name"'
_TO_FLEET = Link("Fleet", "/d/selfemo-fleet?${__url_time_range}")
_TO_OPERATOR = Link("Operator", "/d/selfemo-operator?${__url_time_range}")


def _by(labels: str, metric: str) -> str:
    """Return the expression of a metric by some labels, from any operator."""
    return f"max by ({labels}) ({PREFIX}{metric}{{{_OF}}})"


def _one(metric: str) -> str:
    return f"max({PREFIX}{metric}{{{_OF}}})"


def _panel(
    kind: Kind, title: str, text: str, unit: str, queries: list[Query], **more: Any
) -> Panel:
    return Panel(kind, title, text, unit, queries, more.pop("link", _TO_FLEET), **more)


def _stat(title: str, text: str, unit: str, expr: str, **more: Any) -> Panel:
    queries = [Query(expr, title)]
    return _panel(Kind.STAT, title, text, unit, queries, width=4, height=4, **more)


_NOW = Row(
    "Now",
    [
        _stat("Phase", "The current phase.", "none", phase_code(_OF), states=PHASES),
        _stat(
            "Generation",
            "The current generation. 0 is the evaluation of the baseline.",
            "none",
            _one("generation"),
        ),
        _stat(
            "Best F1",
            "Weighted F1 of the best generation on the selection dataset.",
            "percentunit",
            _one("best_f1_ratio"),
            decimals=2,
        ),
        _stat(
            "F1 gained",
            "Weighted F1 of the best generation minus that of the baseline.",
            "percentunit",
            f"namespace_name:selfemo_evolution_f1_gain:ratio{{{_OF}}}",
            decimals=2,
        ),
        _stat(
            "Without improvement",
            "Generations since the best one. spec.stopping.patience limits them.",
            "none",
            _one("generations_without_improvement"),
            thresholds=[(1.0, YELLOW), (2.0, ORANGE)],
        ),
        _stat(
            "Without progress",
            "Time since the stage or attempt last changed. Empty while no progress is expected.",
            "s",
            f"namespace_name:selfemo_evolution_since_progress:seconds{{{_OF}}}",
            thresholds=[(21600.0, ORANGE)],
        ),
    ],
)
_F1 = Row(
    "F1",
    [
        _panel(
            Kind.LINES,
            "F1 by dataset",
            "Weighted F1 of the last evaluated generation on each dataset, the best F1 so far, the "
            "goal, and the current generation (right axis).",
            "percentunit",
            [
                Query(_by("dataset", "weighted_f1_ratio"), "{{dataset}}"),
                Query(_one("best_f1_ratio"), "best"),
                Query(_one("goal_f1_ratio"), "goal"),
                Query(_one("generation"), "generation"),
            ],
            width=12,
            height=10,
            right_axis=["generation"],
            dashed=["goal", "best"],
        ),
        _panel(
            Kind.LINES,
            "F1 by emotion",
            "F1 of each emotion in the last evaluated generation.",
            "percentunit",
            [Query(_by("dataset, emotion", "emotion_f1_ratio"), "{{dataset}} {{emotion}}")],
            width=12,
            height=10,
        ),
        _panel(
            Kind.LINES,
            "95 % interval",
            "The 95 % confidence interval of the weighted F1, by a bootstrap over dialogues.",
            "percentunit",
            [
                Query(_by("dataset", "weighted_f1_low_ratio"), "{{dataset}} low"),
                Query(_by("dataset", "weighted_f1_high_ratio"), "{{dataset}} high"),
            ],
        ),
        _panel(
            Kind.LINES,
            "Macro F1",
            "Mean F1 over the emotions. Rare emotions count as much as frequent ones.",
            "percentunit",
            [Query(_by("dataset", "macro_f1_ratio"), "{{dataset}}")],
        ),
        _panel(
            Kind.LINES,
            "Unparsable answers",
            "Share of answers that contain no label.",
            "percentunit",
            [Query(_by("dataset", "unparsable_ratio"), "{{dataset}}")],
            bounds=(0.0, None),
        ),
    ],
)
_LEARNING = Row(
    "Rewards and collapse",
    [
        _panel(
            Kind.HEATMAP,
            "Rewards",
            "Number of candidates of the last scored generation in each range of rewards. A range "
            "reaches from the label below it to its own label.",
            "short",
            [Query(_by("le", "reward_bucket"), "{{le}}")],
            width=12,
            height=9,
        ),
        _panel(
            Kind.LINES,
            "Reward",
            "Mean and median reward of the last scored generation.",
            "none",
            [
                Query(_one("reward_mean"), "mean"),
                Query(f"histogram_quantile(0.5, {_by('le', 'reward_bucket')})", "median"),
            ],
            width=12,
            height=9,
            decimals=3,
        ),
        _panel(
            Kind.LINES,
            "Labels",
            "Entropy of the predicted labels (1: all are equally frequent), and their divergence "
            "from the baseline's. A falling entropy or a rising divergence indicates a collapse.",
            "percentunit",
            [
                Query(_by("dataset", "label_entropy_ratio"), "{{dataset}} entropy"),
                Query(_by("dataset", "label_divergence_ratio"), "{{dataset}} divergence"),
            ],
            bounds=(0.0, 1.0),
        ),
        _panel(
            Kind.LINES,
            "Groups",
            "Mean consistency of the groups, and the share of groups whose rewards are all equal. "
            "Training cannot learn from those groups.",
            "percentunit",
            [
                Query(_one("consistency_ratio"), "consistency"),
                Query(_one("zero_variance_ratio"), "zero variance"),
            ],
            bounds=(0.0, 1.0),
        ),
        _panel(
            Kind.LINES,
            "Diversity of responses",
            "Share of distinct bigrams in the responses. If it falls, responses become similar.",
            "percentunit",
            [Query(_one("response_diversity_ratio"), "distinct bigrams")],
            bounds=(0.0, None),
        ),
    ],
)
_FUNNEL = Row(
    "Flywheel",
    [
        _panel(
            Kind.GAUGES,
            "Funnel",
            "Candidates from the last self-play to the last training: played, scored, dropped by "
            "each filter, replayed, and kept.",
            "short",
            [
                Query(_one("played_candidates"), "played", instant=True),
                Query(_one("scored_candidates"), "scored", instant=True),
                Query(_by("filter", "dropped_candidates"), "dropped: {{filter}}", instant=True),
                Query(_one("replayed_candidates"), "replayed", instant=True),
                Query(_one("kept_candidates"), "kept", instant=True),
            ],
            width=12,
            height=9,
            bounds=(0.0, None),
        ),
        _panel(
            Kind.LINES,
            "Kept and dropped",
            "Dropped and kept candidates over time.",
            "short",
            [
                Query(_by("filter", "dropped_candidates"), "dropped: {{filter}}"),
                Query(_one("kept_candidates"), "kept"),
            ],
            width=12,
            height=9,
            bounds=(0.0, None),
        ),
    ],
)
_STAGES = Row(
    "Stages",
    [
        _panel(
            Kind.STATES,
            "Stage",
            "The current stage.",
            "none",
            [Query(stage_code(_OF), "stage")],
            width=24,
            height=5,
            states=STAGES,
        ),
        _panel(
            Kind.LINES,
            "Durations",
            "Wall time of each stage when it last succeeded.",
            "s",
            [Query(_by("stage", "stage_duration_seconds"), "{{stage}}")],
            bounds=(0.0, None),
        ),
        _panel(
            Kind.BARS,
            "Failed attempts",
            "Failed attempts by stage and reason. `Disrupted`: the platform caused the failure.",
            "short",
            [
                Query(
                    "max by (stage, reason) "
                    f"(increase({PREFIX}stage_failures_total{{{_OF}}}[$__rate_interval]))",
                    "{{stage}} {{reason}}",
                )
            ],
            bounds=(0.0, None),
            link=_TO_OPERATOR,
        ),
        _panel(
            Kind.GAUGES,
            "Attempts",
            "Ended attempts of each stage in the whole run.",
            "short",
            [Query(_by("stage", "stage_attempts_total"), "{{stage}}", instant=True)],
            bounds=(0.0, None),
        ),
    ],
)
_COST = Row(
    "Cost",
    [
        _panel(
            Kind.GAUGES,
            "GPU time",
            "GPU time of successful attempts by stage, in the whole run.",
            "s",
            [Query(_by("stage", "gpu_seconds_total"), "{{stage}}", instant=True)],
            bounds=(0.0, None),
        ),
        _panel(
            Kind.LINES,
            "F1 gained per GPU-hour",
            "F1 gained over the baseline, divided by the GPU time of the run.",
            "percentunit",
            [Query(f"namespace_name:selfemo_evolution_f1_gain:per_gpu_hour{{{_OF}}}", "gain")],
        ),
        _panel(
            Kind.LINES,
            "Tokens",
            "Tokens that self-play generated, and tokens that training read, in the whole run.",
            "short",
            [
                Query(_one("generated_tokens_total"), "generated"),
                Query(_one("trained_tokens_total"), "trained"),
            ],
            bounds=(0.0, None),
        ),
    ],
)
EVOLUTION_BOARD = Board(
    "selfemo-evolution",
    "selfemo / Evolution",
    "One evolution: its scores, the signs of a collapse, its stages and its cost.",
    [
        Variable("namespace", "Namespace", "label_values(selfemo_evolution_info, namespace)"),
        Variable(
            "name", "Name", 'label_values(selfemo_evolution_info{namespace="$namespace"}, name)'
        ),
    ],
    [_NOW, _F1, _LEARNING, _FUNNEL, _STAGES, _COST],
    [
        Annotation(
            "Promoted",
            f"max(changes({PREFIX}best_generation{{{_OF}}}[$__rate_interval])) > 0",
            GREEN,
            "A generation was promoted",
        ),
        Annotation(
            "Not promoted",
            f"max(delta({PREFIX}generations_without_improvement{{{_OF}}}[$__rate_interval])) > 0",
            RED,
            "A generation was rolled back, or not promoted",
        ),
        Annotation(
            "Generation",
            f"max(changes({PREFIX}generation{{{_OF}}}[$__rate_interval])) > 0",
            BLUE,
            "A generation started",
        ),
    ],
)
