"""The Evolution dashboard: one evolution in detail."""

from __future__ import annotations

from tools.dashboards.board_types import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Annotation,
    Board,
    Kind,
    Query,
    Row,
    Variable,
)
from tools.dashboards.evolution_cost import COST, RESULTS, STAGES
from tools.dashboards.evolution_expression import EXPRESSION
from tools.dashboards.evolution_history import GENERATIONS
from tools.dashboards.evolution_panels import OF, TO_LOGS, by, one, panel, stat
from tools.dashboards.evolution_training import LIVE, TRAINING
from tools.dashboards.states import PHASES, phase_code
from tools.dashboards.variables import (
    CLUSTER,
    GPU_PRICE,
    LOGS_SOURCE,
    STORAGE_SITE,
    cluster_variable,
)

from selfemo_operator.controller.metrics.series import PREFIX

_NOW = Row(
    "Now",
    [
        stat("Phase", "The current phase.", "none", phase_code(OF), states=PHASES),
        stat(
            "Generation",
            "The current generation. 0 is the evaluation of the baseline.",
            "none",
            one("generation"),
        ),
        stat(
            "Best F1",
            "Weighted F1 of the best generation on the selection dataset.",
            "percentunit",
            one("best_f1_ratio"),
            decimals=2,
        ),
        stat(
            "F1 gained",
            "Weighted F1 of the best generation minus the baseline's.",
            "percentunit",
            f"namespace_name:selfemo_evolution_f1_gain:ratio{{{OF}}}",
            decimals=2,
        ),
        stat(
            "Without improvement",
            "Number of generations since the best one, limited by spec.stopping.patience.",
            "none",
            one("generations_without_improvement"),
            thresholds=[(1.0, YELLOW), (2.0, ORANGE)],
        ),
        stat(
            "Without progress",
            "Time since the stage or attempt last changed. Empty while no progress is expected.",
            "s",
            f"namespace_name:selfemo_evolution_since_progress:seconds{{{OF}}}",
            thresholds=[(21600.0, ORANGE)],
        ),
    ],
)
_F1 = Row(
    "F1",
    [
        panel(
            Kind.LINES,
            "F1 by dataset",
            "Weighted F1 of the last evaluated generation on each dataset, the best F1 so far, the "
            "goal, and the current generation (right axis).",
            "percentunit",
            [
                Query(by("dataset", "weighted_f1_ratio"), "{{dataset}}"),
                Query(one("best_f1_ratio"), "best"),
                Query(one("goal_f1_ratio"), "goal", optional=True),
                Query(one("generation"), "generation"),
            ],
            width=12,
            height=10,
            right_axis=["generation"],
            dashed=["goal", "best"],
        ),
        panel(
            Kind.LINES,
            "F1 by emotion",
            "F1 of each emotion in the last evaluated generation.",
            "percentunit",
            [Query(by("dataset, emotion", "emotion_f1_ratio"), "{{dataset}} {{emotion}}")],
            width=12,
            height=10,
        ),
        panel(
            Kind.LINES,
            "95% confidence interval",
            "The 95% confidence interval of the weighted F1, from a bootstrap over dialogues.",
            "percentunit",
            [
                Query(by("dataset", "weighted_f1_low_ratio"), "{{dataset}} low"),
                Query(by("dataset", "weighted_f1_high_ratio"), "{{dataset}} high"),
            ],
            width=6,
        ),
        panel(
            Kind.LINES,
            "Macro F1",
            "Mean F1 over the emotions. Rare emotions count as much as frequent ones.",
            "percentunit",
            [Query(by("dataset", "macro_f1_ratio"), "{{dataset}}")],
            width=6,
        ),
        panel(
            Kind.LINES,
            "Label sets",
            "Scores of datasets whose utterances have several labels: micro F1, mean F1 of the "
            "utterances' label sets, and their mean intersection over union. Empty for other "
            "datasets.",
            "percentunit",
            [
                Query(by("dataset", f"{metric}_ratio"), f"{{{{dataset}}}} {name}", optional=True)
                for metric, name in (
                    ("micro_f1", "micro F1"),
                    ("samples_f1", "F1 of the sets"),
                    ("jaccard", "Jaccard"),
                )
            ],
            width=6,
        ),
        panel(
            Kind.LINES,
            "Unparsable answers",
            "Fraction of answers that contain no label.",
            "percentunit",
            [Query(by("dataset", "unparsable_ratio"), "{{dataset}}")],
            width=6,
            bounds=(0.0, None),
        ),
    ],
)
_LEARNING = Row(
    "Rewards and collapse",
    [
        panel(
            Kind.HEATMAP,
            "Rewards",
            "Number of candidates of the last scored generation in each reward range. A range "
            "extends from the label below it to its own label.",
            "short",
            [Query(by("le", "reward_bucket"), "{{le}}")],
            width=12,
            height=9,
        ),
        panel(
            Kind.LINES,
            "Reward",
            "Mean and median reward of the last scored generation.",
            "none",
            [
                Query(one("reward_mean"), "mean"),
                Query(f"histogram_quantile(0.5, {by('le', 'reward_bucket')})", "median"),
            ],
            width=12,
            height=9,
            decimals=3,
        ),
        panel(
            Kind.LINES,
            "Labels",
            "Entropy of the predicted labels (1 if all are equally frequent), and their divergence "
            "from the baseline's. Falling entropy or rising divergence indicates collapse.",
            "percentunit",
            [
                Query(by("dataset", "label_entropy_ratio"), "{{dataset}} entropy"),
                Query(by("dataset", "label_divergence_ratio"), "{{dataset}} divergence"),
            ],
            bounds=(0.0, 1.0),
        ),
        panel(
            Kind.LINES,
            "Groups",
            "Mean consistency of the groups, and the fraction of groups whose rewards are all "
            "equal. Training cannot learn from those groups.",
            "percentunit",
            [
                Query(one("consistency_ratio"), "consistency"),
                Query(one("zero_variance_ratio"), "zero variance"),
            ],
            bounds=(0.0, 1.0),
        ),
        panel(
            Kind.LINES,
            "Response diversity",
            "Fraction of distinct bigrams in the responses. If it falls, responses become similar.",
            "percentunit",
            [Query(one("response_diversity_ratio"), "distinct bigrams")],
            bounds=(0.0, None),
        ),
    ],
)
_FUNNEL = Row(
    "Flywheel",
    [
        panel(
            Kind.GAUGES,
            "Funnel",
            "Candidates from the last self-play to the last training: played, scored, dropped by "
            "each filter, replayed, and kept.",
            "short",
            [
                Query(one("played_candidates"), "played", instant=True),
                Query(one("scored_candidates"), "scored", instant=True),
                Query(by("filter", "dropped_candidates"), "dropped: {{filter}}", instant=True),
                Query(one("replayed_candidates"), "replayed", instant=True),
                Query(one("kept_candidates"), "kept", instant=True),
            ],
            width=12,
            height=9,
            bounds=(0.0, None),
        ),
        panel(
            Kind.LINES,
            "Kept and dropped",
            "Dropped and kept candidates over time.",
            "short",
            [
                Query(by("filter", "dropped_candidates"), "dropped: {{filter}}"),
                Query(one("kept_candidates"), "kept"),
            ],
            width=12,
            height=9,
            bounds=(0.0, None),
        ),
    ],
)
EVOLUTION_BOARD = Board(
    "selfemo-evolution",
    "selfemo / Evolution",
    "One evolution: its scores, collapse indicators, training, stages and cost.",
    [
        LOGS_SOURCE,
        cluster_variable("selfemo_evolution_info"),
        Variable(
            "namespace",
            "Namespace",
            f"label_values(selfemo_evolution_info{{{CLUSTER}}}, namespace)",
        ),
        Variable(
            "name",
            "Name",
            f'label_values(selfemo_evolution_info{{namespace="$namespace", {CLUSTER}}}, name)',
        ),
        GPU_PRICE,
        STORAGE_SITE,
    ],
    [
        *(_NOW, LIVE, _F1, GENERATIONS, EXPRESSION, _LEARNING),
        *(TRAINING, _FUNNEL, STAGES, COST, RESULTS),
    ],
    [
        Annotation(
            "Promoted",
            f"max(changes({PREFIX}best_generation{{{OF}}}[$__rate_interval])) > 0",
            GREEN,
            "A generation was promoted",
        ),
        Annotation(
            "Not promoted",
            f"max(delta({PREFIX}generations_without_improvement{{{OF}}}[$__rate_interval])) > 0",
            RED,
            "A generation was rolled back, or not promoted",
        ),
        Annotation(
            "Generation",
            f"max(changes({PREFIX}generation{{{OF}}}[$__rate_interval])) > 0",
            BLUE,
            "A generation started",
        ),
    ],
    links=[TO_LOGS],
)
