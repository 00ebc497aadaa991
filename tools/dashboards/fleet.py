"""The Fleet dashboard: all evolutions of the chosen namespaces."""

from __future__ import annotations

from tools.dashboards.board_types import (
    BLUE,
    GRAY,
    GREEN,
    LIGHT_GREEN,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Board,
    Kind,
    Link,
    Panel,
    Query,
    Row,
    Variable,
    state_code,
)

from selfemo_api.stages import STAGE_ORDER
from selfemo_api.status import Phase

_IN = 'namespace=~"$namespace"'
_STAGE = "|".join(stage.slug for stage in STAGE_ORDER)
_PODS = f'pod=~".+-g[0-9]{{3}}-({_STAGE})-[0-9]+-.+"'
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
_STAGE_COLORS = (GRAY, RED, BLUE, YELLOW, ORANGE, PURPLE, GREEN, LIGHT_GREEN)
STAGES = {
    n: (stage.value, color)
    for n, (stage, color) in enumerate(zip(STAGE_ORDER, _STAGE_COLORS, strict=True))
}


def phase_code(labels: str) -> str:
    """Return the expression of the phase as a number (see :data:`PHASES`)."""
    return state_code("selfemo_evolution_phase", labels, "phase", [p.value for p in Phase])


def stage_code(labels: str) -> str:
    """Return the expression of the current stage as a number (see :data:`STAGES`)."""
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
    """Return a panel of a DCGM metric.

    A scrape may rename DCGM's own labels, so there is a query for either name.
    """
    renamed = _PODS.replace("pod", "exported_pod")
    queries = [
        Query(f"avg by (namespace, pod) ({metric}{{{_IN}, {_PODS}}})", "{{namespace}}/{{pod}}"),
        Query(
            f"avg by (exported_namespace, exported_pod) ({metric}{{exported_{_IN}, {renamed}}})",
            "{{exported_namespace}}/{{exported_pod}}",
        ),
    ]
    text += " The metric comes from DCGM; the panel is empty if DCGM is not installed."
    return Panel(Kind.LINES, title, text, unit, queries, TO_EVOLUTION, bounds=(0.0, None))


_COLUMNS = {
    "namespace": ("Namespace", "string"),
    "name": ("Name", "string"),
    "Value #A": ("Generation", "none"),
    "Value #B": ("Last generation", "none"),
    "Value #C": ("F1", "percentunit"),
    "Value #D": ("Best F1", "percentunit"),
    "Value #E": ("Goal", "percentunit"),
    "Value #F": ("Without improvement", "none"),
    "Value #G": ("Reward", "none"),
    "Value #H": ("Failed attempts", "none"),
}
_TABLE = Panel(
    Kind.TABLE,
    "Evolutions",
    "The state of each evolution. The name links to its dashboard.",
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
    "All evolutions: their states, gains and costs.",
    [
        Variable(
            "namespace",
            "Namespace",
            "label_values(selfemo_evolution_info, namespace)",
            multi=True,
        )
    ],
    [
        Row(
            "Now",
            [
                _count(
                    "Running",
                    "Running|Pending",
                    "Evolutions that are running or about to start.",
                    BLUE,
                ),
                _count("Queued", "Queued", "Evolutions that wait in a Kueue queue.", YELLOW),
                _count("Suspended", "Suspended", "Evolutions that a user has suspended.", PURPLE),
                _count("Succeeded", "Succeeded", "Evolutions that have succeeded.", GREEN),
                _count("Collapsed", "Collapsed", "Evolutions beyond a collapse bound.", ORANGE),
                _count("Failed", "Failed", "Evolutions that have failed.", RED),
                _TABLE,
            ],
        ),
        Row(
            "States",
            [
                Panel(
                    Kind.STATES,
                    "Phase",
                    "The phase of each evolution.",
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
                    "The current stage of each evolution.",
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
                    "Weighted F1 of the best generation on the selection dataset.",
                    "percentunit",
                    [Query(_one("selfemo_evolution_best_f1_ratio"), "{{namespace}}/{{name}}")],
                    TO_EVOLUTION,
                ),
                Panel(
                    Kind.LINES,
                    "F1 gained per GPU-hour",
                    "F1 gained over the baseline, divided by the GPU time of successful stages.",
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
                    "GPU time of successful stages in the whole run.",
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
                    "Share of time in which the GPUs of a stage pod were busy.",
                    "percent",
                    "DCGM_FI_DEV_GPU_UTIL",
                ),
                _dcgm(
                    "GPU memory",
                    "Used memory of the GPUs of a stage pod.",
                    "mbytes",
                    "DCGM_FI_DEV_FB_USED",
                ),
                _dcgm(
                    "GPU power",
                    "Power draw of the GPUs of a stage pod.",
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
                    "Alerts of selfemo that are firing. Each has a page in docs/runbooks.",
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
