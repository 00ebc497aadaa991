"""The Fleet dashboard: all evolutions of some namespaces at once."""

from __future__ import annotations

from tools.dashboards.board_types import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Board,
    Choice,
    Kind,
    Link,
    Panel,
    Query,
    Row,
    state_code,
)

from selfemo_api.stages import STAGE_ORDER
from selfemo_api.status import Phase

_IN = 'namespace=~"$namespace"'
_PODS = 'pod=~".+-g[0-9]{3}-(selfplay|score|flywheel|train|evaluate)-[0-9]+-.+"'
TO_EVOLUTION = Link("Evolution", "/d/selfemo-evolution?${__url_time_range}")
TO_OPERATOR = Link("Operator", "/d/selfemo-operator?${__url_time_range}")
_PHASE_COLORS = {
    Phase.PENDING: GRAY,
    Phase.QUEUED: YELLOW,
    Phase.RUNNING: BLUE,
    Phase.SUSPENDED: PURPLE,
    Phase.SUCCEEDED: GREEN,
    Phase.COLLAPSED: ORANGE,
    Phase.FAILED: RED,
}
PHASES = {n: (phase.value, _PHASE_COLORS[phase]) for n, phase in enumerate(Phase)}
_STAGE_COLORS = (BLUE, YELLOW, ORANGE, PURPLE, GREEN)
STAGES = {
    n: (stage.value, color)
    for n, (stage, color) in enumerate(zip(STAGE_ORDER, _STAGE_COLORS, strict=True))
}


def phase_code(labels: str) -> str:
    """Return the phase as a number, see :data:`PHASES`."""
    return state_code("selfemo_evolution_phase", labels, "phase", [p.value for p in Phase])


def stage_code(labels: str) -> str:
    """Return the stage under way as a number, see :data:`STAGES`."""
    return state_code("selfemo_evolution_stage", labels, "stage", [s.value for s in STAGE_ORDER])


def _one(metric: str) -> str:
    return f"max by (namespace, name) ({metric}{{{_IN}}})"


def _count(title: str, phases: str, text: str, color: str) -> Panel:
    expr = (
        f"sum(max by (namespace, name, phase) "
        f'(selfemo_evolution_phase{{{_IN}, phase=~"{phases}"}})) or vector(0)'
    )
    threshold = [(1.0, color)]
    queries = [Query(expr, title)]
    return Panel(Kind.STAT, title, text, "none", queries, TO_EVOLUTION, 4, 4, thresholds=threshold)


def _dcgm(title: str, text: str, unit: str, metric: str) -> Panel:
    """DCGM's own labels may be renamed by the scrape: either way is taken."""
    renamed = _PODS.replace("pod", "exported_pod")
    queries = [
        Query(f"avg by (namespace, pod) ({metric}{{{_IN}, {_PODS}}})", "{{namespace}}/{{pod}}"),
        Query(
            f"avg by (exported_namespace, exported_pod) ({metric}{{exported_{_IN}, {renamed}}})",
            "{{exported_namespace}}/{{exported_pod}}",
        ),
    ]
    text += " From DCGM; empty where it is not installed."
    return Panel(Kind.LINES, title, text, unit, queries, TO_EVOLUTION, bounds=(0.0, None))


_COLUMNS = {
    "namespace": ("Namespace", "string"),
    "name": ("Name", "string"),
    "Value #A": ("Generation", "none"),
    "Value #B": ("Last generation", "none"),
    "Value #C": ("F1", "percentunit"),
    "Value #D": ("Best F1", "percentunit"),
    "Value #E": ("Goal", "percentunit"),
    "Value #F": ("Not better since", "none"),
    "Value #G": ("Reward", "none"),
    "Value #H": ("Failed attempts", "none"),
}
_TABLE = Panel(
    Kind.TABLE,
    "Evolutions",
    "Where each stands. The name leads to its own dashboard.",
    "none",
    [
        Query(_one(f"selfemo_evolution_{name}"), instant=True)
        for name in (
            "generation",
            "max_generations",
            "f1_ratio",
            "best_f1_ratio",
            "goal_f1_ratio",
            "generations_without_improvement",
            "reward_mean",
            "failed_attempts",
        )
    ],
    TO_EVOLUTION,
    24,
    9,
    columns=_COLUMNS,
    row_link="/d/selfemo-evolution?var-datasource=${datasource}"
    "&var-namespace=${__data.fields.Namespace}&var-name=${__data.fields.Name}&${__url_time_range}",
)

FLEET = Board(
    "selfemo-fleet",
    "selfemo / Fleet",
    "All evolutions: where they stand, what they gain, what they cost.",
    [
        Choice(
            "namespace",
            "Namespace",
            "label_values(selfemo_evolution_info, namespace)",
            several=True,
        )
    ],
    [
        Row(
            "Now",
            [
                _count("Running", "Running|Pending", "Evolutions at work, or about to be.", BLUE),
                _count("Queued", "Queued", "Evolutions that wait in a queue (Kueue).", YELLOW),
                _count("Suspended", "Suspended", "Evolutions that a person holds.", PURPLE),
                _count("Succeeded", "Succeeded", "Evolutions that came to their end.", GREEN),
                _count("Collapsed", "Collapsed", "Evolutions past a collapse bound.", ORANGE),
                _count("Failed", "Failed", "Evolutions that ended badly.", RED),
                _TABLE,
            ],
        ),
        Row(
            "States",
            [
                Panel(
                    Kind.STATES,
                    "Phase",
                    "What each evolution was doing.",
                    "none",
                    [Query(phase_code(_IN), "{{namespace}}/{{name}}")],
                    TO_EVOLUTION,
                    12,
                    10,
                    states=PHASES,
                ),
                Panel(
                    Kind.STATES,
                    "Stage",
                    "The stage under way.",
                    "none",
                    [Query(stage_code(_IN), "{{namespace}}/{{name}}")],
                    TO_EVOLUTION,
                    12,
                    10,
                    states=STAGES,
                ),
            ],
        ),
        Row(
            "Gain and cost",
            [
                Panel(
                    Kind.LINES,
                    "Best F1",
                    "Weighted F1 of the best generation, on the source that selects it.",
                    "percentunit",
                    [Query(_one("selfemo_evolution_best_f1_ratio"), "{{namespace}}/{{name}}")],
                    TO_EVOLUTION,
                ),
                Panel(
                    Kind.LINES,
                    "F1 gained for a GPU-hour",
                    "Best F1 less generation 0's, over the GPU time of stages that ended well.",
                    "percentunit",
                    [
                        Query(
                            f"namespace_name:selfemo_evolution_f1_gain:per_gpu_hour{{{_IN}}}",
                            "{{namespace}}/{{name}}",
                        )
                    ],
                    TO_EVOLUTION,
                ),
                Panel(
                    Kind.LINES,
                    "GPU time",
                    "GPU time of stages that ended well, over the whole run.",
                    "s",
                    [
                        Query(
                            f"namespace_name:selfemo_evolution_gpu_seconds:sum{{{_IN}}}",
                            "{{namespace}}/{{name}}",
                        )
                    ],
                    TO_EVOLUTION,
                ),
            ],
        ),
        Row(
            "GPU use",
            [
                _dcgm(
                    "GPU use",
                    "Time that a stage pod's GPUs were busy.",
                    "percent",
                    "DCGM_FI_DEV_GPU_UTIL",
                ),
                _dcgm(
                    "GPU memory",
                    "Memory that a stage pod's GPUs hold.",
                    "mbytes",
                    "DCGM_FI_DEV_FB_USED",
                ),
                _dcgm(
                    "GPU power",
                    "Power that a stage pod's GPUs draw.",
                    "watt",
                    "DCGM_FI_DEV_POWER_USAGE",
                ),
            ],
        ),
        Row(
            "Alerts",
            [
                Panel(
                    Kind.STATES,
                    "Alerts",
                    "selfemo's alerts that fired. Each has a page in docs/runbooks.",
                    "none",
                    [
                        Query(
                            "max by (alertname, namespace, name) "
                            '(ALERTS{alertname=~"Selfemo.+", alertstate="firing"})',
                            "{{alertname}} {{namespace}}/{{name}}",
                        )
                    ],
                    TO_OPERATOR,
                    24,
                    states={1: ("firing", RED)},
                )
            ],
        ),
    ],
    since="now-7d",
)
