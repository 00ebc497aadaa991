"""The Fleet dashboard: all evolutions of the chosen namespaces."""

from __future__ import annotations

from tools.dashboards.board_types import (
    BLUE,
    GREEN,
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
)
from tools.dashboards.states import PHASES, STAGES, phase_code, stage_code
from tools.dashboards.variables import (
    CLUSTER,
    GPU_HOUR,
    GPU_PRICE,
    NO_PRICE,
    cluster_variable,
)

from selfemo_api.metrics import LIVE_PREFIX
from selfemo_api.stages import STAGE_ORDER

_IN = f'namespace=~"$namespace", {CLUSTER}'
_STAGE = "|".join(stage.slug for stage in STAGE_ORDER)
_PODS = f'pod=~".+-g[0-9]{{3}}-({_STAGE})-[0-9]+-.+"'
_EVOLUTION = "cluster, namespace, name"
_NAME = "{{namespace}}/{{name}} {{cluster}}"
_GPU = f"namespace_name:selfemo_evolution_gpu_seconds:sum{{{_IN}}}"
TO_EVOLUTION = Link("Evolution", "/d/selfemo-evolution?${__url_time_range}")
TO_OPERATOR = Link("Operator", "/d/selfemo-operator?${__url_time_range}")


def _one(metric: str) -> str:
    return f"max by ({_EVOLUTION}) ({metric}{{{_IN}}})"


def _live(metric: str) -> str:
    return f"{LIVE_PREFIX}{metric}{{{_IN}}}"


def _count(title: str, phases: str, text: str, color: str) -> Panel:
    expr = (
        f"sum(max by ({_EVOLUTION}, phase) "
        f'(selfemo_evolution_phase{{{_IN}, phase=~"{phases}"}})) or vector(0)'
    )
    threshold = [(1.0, color)]
    queries = [Query(expr, title)]
    return Panel(Kind.STAT, title, text, "none", queries, TO_EVOLUTION, 3, 4, thresholds=threshold)


def _dcgm(title: str, text: str, unit: str, metric: str) -> Panel:
    """Return a panel of a DCGM metric.

    A scrape may rename DCGM's own labels, so there is a query for either name.
    """
    renamed = _PODS.replace("pod", "exported_pod")
    queries = [
        Query(
            f"avg by (namespace, pod) ({metric}{{{_IN}, {_PODS}}})",
            "{{namespace}}/{{pod}}",
            optional=True,
        ),
        Query(
            f"avg by (exported_namespace, exported_pod) ({metric}{{exported_{_IN}, {renamed}}})",
            "{{exported_namespace}}/{{exported_pod}}",
            optional=True,
        ),
    ]
    text += " DCGM provides this metric; the panel is empty if DCGM is not installed."
    return Panel(Kind.LINES, title, text, unit, queries, TO_EVOLUTION, bounds=(0.0, None))


_COLUMNS = {
    "namespace": ("Namespace", "string"),
    "name": ("Name", "string"),
    "cluster": ("Cluster", "string"),
    "Value #A": ("Generation", "none"),
    "Value #B": ("Last generation", "none"),
    "Value #C": ("F1", "percentunit"),
    "Value #D": ("Best F1", "percentunit"),
    "Value #E": ("Goal", "percentunit"),
    "Value #F": ("Without improvement", "none"),
    "Value #G": ("Reward", "none"),
    "Value #H": ("Failed attempts", "none"),
    "Value #I": ("Replaced pods", "none"),
}
_TABLE = Panel(
    Kind.TABLE,
    "Evolutions",
    "The state of each evolution. The name links to its dashboard.",
    "none",
    [
        Query(_one(f"selfemo_evolution_{name}"), instant=True, optional="goal" in name)
        for name in (
            "generation",
            "max_generations",
            "f1_ratio",
            "best_f1_ratio",
            "goal_f1_ratio",
            "generations_without_improvement",
            "reward_mean",
            "failed_attempts",
            "replaced_pods",
        )
    ],
    TO_EVOLUTION,
    24,
    9,
    columns=_COLUMNS,
    cell_links={
        "Name": Link(
            "Evolution",
            "/d/selfemo-evolution?${prometheus_datasource:queryparam}&${cluster:queryparam}"
            "&var-namespace=${__data.fields.Namespace}&var-name=${__data.fields.Name}"
            "&${__url_time_range}",
        )
    },
)
_NOT_WATCHED = (
    f"count(min by (cluster, namespace) ("
    f"selfemo_operator_namespace_watched{{{_IN}}} and on (cluster, job, instance) "
    f'(selfemo_operator_leader{{namespace=~".*", {CLUSTER}}} == 1)) == 0) or vector(0)'
)
_RUNNING = Row(
    "Running stages",
    [
        Panel(
            Kind.GAUGES,
            "Progress",
            "Fraction of each running stage's work that is done, over the pods that run now. It "
            "falls when a pod ends, because the pod's work no longer counts. The stages' pods "
            "provide this metric (`metrics.podMonitor.enabled`).",
            "percentunit",
            [
                Query(
                    f"sum by ({_EVOLUTION}, stage) ({_live('done')})"
                    f" / sum by ({_EVOLUTION}, stage) ({_live('total')})",
                    "{{namespace}}/{{name}} {{stage}} {{cluster}}",
                    instant=True,
                )
            ],
            TO_EVOLUTION,
            bounds=(0.0, 1.0),
        ),
        Panel(
            Kind.GAUGES,
            "Time left",
            "Estimated time until each running stage's work is done, at its mean rate so far. The "
            "stages' pods provide this metric (`metrics.podMonitor.enabled`).",
            "s",
            [
                Query(
                    f"max by ({_EVOLUTION}, stage) (clamp_min({_live('remaining_seconds')}"
                    f" - (time() - {_live('progress_timestamp_seconds')}), 0))",
                    "{{namespace}}/{{name}} {{stage}} {{cluster}}",
                    instant=True,
                )
            ],
            TO_EVOLUTION,
            bounds=(0.0, None),
        ),
        Panel(
            Kind.LINES,
            "Tokens per second",
            "Tokens per second that self-play generates. The stages' pods provide this metric "
            "(`metrics.podMonitor.enabled`).",
            "short",
            [Query(f"sum by ({_EVOLUTION}) ({_live('tokens_per_second')})", _NAME)],
            TO_EVOLUTION,
            bounds=(0.0, None),
        ),
    ],
)

FLEET = Board(
    "selfemo-fleet",
    "selfemo / Fleet",
    "All evolutions: their states, gains and costs.",
    [
        cluster_variable("selfemo_evolution_info"),
        Variable(
            "namespace",
            "Namespace",
            f"label_values(selfemo_evolution_info{{{CLUSTER}}}, namespace)",
            multi=True,
        ),
        GPU_PRICE,
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
                _count("Queued", "Queued", "Evolutions that are waiting in a Kueue queue.", YELLOW),
                _count("Suspended", "Suspended", "Evolutions that a user has suspended.", PURPLE),
                _count("Succeeded", "Succeeded", "Evolutions that have succeeded.", GREEN),
                _count("Collapsed", "Collapsed", "Evolutions that have collapsed.", ORANGE),
                _count("Failed", "Failed", "Evolutions that have failed.", RED),
                Panel(
                    Kind.STAT,
                    "Not watched",
                    "Namespaces that the operator cannot list or watch. Their evolutions make no "
                    "progress, and may be missing here.",
                    "none",
                    [Query(_NOT_WATCHED, "Not watched")],
                    TO_OPERATOR,
                    3,
                    4,
                    thresholds=[(1.0, RED)],
                ),
                Panel(
                    Kind.STAT,
                    "Cost",
                    "GPU time of successful stages in all runs times the price per GPU hour.",
                    "none",
                    [Query(f"sum({_GPU}) / 3600 * on () {GPU_HOUR}", "Cost")],
                    TO_EVOLUTION,
                    3,
                    4,
                    decimals=2,
                    no_value=NO_PRICE,
                ),
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
                    [Query(phase_code(_IN), _NAME)],
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
                    [Query(stage_code(_IN), _NAME)],
                    TO_EVOLUTION,
                    12,
                    10,
                    states=STAGES,
                ),
            ],
        ),
        _RUNNING,
        Row(
            "Gain and cost",
            [
                Panel(
                    Kind.LINES,
                    "Best F1",
                    "Weighted F1 of the best generation on the selection dataset.",
                    "percentunit",
                    [Query(_one("selfemo_evolution_best_f1_ratio"), _NAME)],
                    TO_EVOLUTION,
                ),
                Panel(
                    Kind.LINES,
                    "F1 gained per GPU hour",
                    "F1 gained over the baseline, divided by the GPU time of successful stages.",
                    "percentunit",
                    [
                        Query(
                            f"namespace_name:selfemo_evolution_f1_gain:per_gpu_hour{{{_IN}}}",
                            _NAME,
                        )
                    ],
                    TO_EVOLUTION,
                ),
                Panel(
                    Kind.LINES,
                    "GPU time",
                    "GPU time of successful stages in the whole run.",
                    "s",
                    [Query(_GPU, _NAME)],
                    TO_EVOLUTION,
                ),
                Panel(
                    Kind.GAUGES,
                    "Cost by evolution",
                    "GPU time of successful stages in the whole run times the price per GPU hour.",
                    "none",
                    [
                        Query(
                            f"max by ({_EVOLUTION}) ({_GPU}) / 3600"
                            f" * on () group_left () {GPU_HOUR}",
                            _NAME,
                            instant=True,
                        )
                    ],
                    TO_EVOLUTION,
                    12,
                    decimals=2,
                    bounds=(0.0, None),
                    no_value=NO_PRICE,
                ),
                Panel(
                    Kind.GAUGES,
                    "F1 gained",
                    "Weighted F1 of the best generation minus the baseline's.",
                    "percentunit",
                    [
                        Query(
                            f"namespace_name:selfemo_evolution_f1_gain:ratio{{{_IN}}}",
                            _NAME,
                            instant=True,
                        )
                    ],
                    TO_EVOLUTION,
                    12,
                    decimals=2,
                ),
            ],
        ),
        Row(
            "GPU use",
            [
                _dcgm(
                    "GPU use",
                    "Percentage of time that the GPUs of a stage pod were busy.",
                    "percent",
                    "DCGM_FI_DEV_GPU_UTIL",
                ),
                _dcgm(
                    "GPU memory",
                    "Mean memory used per GPU of a stage pod.",
                    "mbytes",
                    "DCGM_FI_DEV_FB_USED",
                ),
                _dcgm(
                    "GPU power",
                    "Mean power draw per GPU of a stage pod.",
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
                    "Firing selfemo alerts. Each has a runbook in docs/runbooks.",
                    "none",
                    [
                        Query(
                            f"max by (alertname, {_EVOLUTION}) (ALERTS"
                            f'{{alertname=~"Selfemo.+", alertstate="firing", {CLUSTER}}})',
                            f"{{{{alertname}}}} {_NAME}",
                            optional=True,
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
