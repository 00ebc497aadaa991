"""Rows of the Evolution dashboard: the stages' attempts, the cost, and where the results are."""

from __future__ import annotations

from tools.dashboards.board_types import Kind, Link, Query, Row
from tools.dashboards.evolution_panels import OF, TO_LOGS, TO_OPERATOR, by, one, panel, stat
from tools.dashboards.states import STAGES as STAGE_STATES
from tools.dashboards.states import stage_code
from tools.dashboards.variables import GPU_HOUR, NO_PRICE

from selfemo_operator.controller.metrics.series import PREFIX

_GPU = f"namespace_name:selfemo_evolution_gpu_seconds:sum{{{OF}}}"
_GAIN = f"namespace_name:selfemo_evolution_f1_gain:ratio{{{OF}}}"
_SUCCESSFUL = "Only successful attempts count: the GPU time of failed attempts is not recorded."
_FAILURES = f"{PREFIX}stage_failures_total{{{OF}}}"
_BEFORE = "offset $__rate_interval"
#: A reason has a series from its first failure on, and the increase of a new series is 0. So its
#: value counts, unless the series of the evolution are new too: its failures may be old then.
_FIRST_FAILURES = (
    f"(max by (stage, reason) ({_FAILURES})"
    f" unless max by (stage, reason) ({_FAILURES} {_BEFORE})"
    f" and on () group({PREFIX}info{{{OF}}} {_BEFORE}))"
)
_FURTHER_FAILURES = f"max by (stage, reason) (increase({_FAILURES}[$__rate_interval]))"

STAGES = Row(
    "Stages",
    [
        panel(
            Kind.STATES,
            "Stage",
            "The current stage.",
            "none",
            [Query(stage_code(OF), "stage")],
            width=24,
            height=5,
            states=STAGE_STATES,
            link=TO_LOGS,
        ),
        panel(
            Kind.LINES,
            "Durations",
            "Wall time of each stage when it last succeeded.",
            "s",
            [Query(by("stage", "stage_duration_seconds"), "{{stage}}")],
            width=6,
            bounds=(0.0, None),
        ),
        panel(
            Kind.BARS,
            "Failed attempts",
            "Failed attempts by stage and reason. `Disrupted` means that the platform caused the "
            "failure.",
            "short",
            [Query(f"{_FIRST_FAILURES} or {_FURTHER_FAILURES}", "{{stage}} {{reason}}")],
            width=6,
            bounds=(0.0, None),
            link=TO_LOGS,
        ),
        panel(
            Kind.LINES,
            "Replaced pods",
            "Pods of the current stage that the platform removed and that their Job recreated, for "
            "example after preemption or a node drain. Failed attempts are shown for comparison.",
            "short",
            [
                Query(one("replaced_pods"), "replaced pods"),
                Query(one("failed_attempts"), "failed attempts"),
            ],
            width=6,
            bounds=(0.0, None),
            link=TO_OPERATOR,
        ),
        panel(
            Kind.GAUGES,
            "Attempts",
            "Successful and failed attempts of each stage in the whole run.",
            "short",
            [Query(by("stage", "stage_attempts_total"), "{{stage}}", instant=True)],
            width=6,
            bounds=(0.0, None),
        ),
    ],
)

COST = Row(
    "Cost",
    [
        stat(
            "Cost",
            f"GPU time of the run times the price per GPU hour. {_SUCCESSFUL}",
            "none",
            f"max({_GPU}) / 3600 * on () {GPU_HOUR}",
            decimals=2,
            height=8,
            no_value=NO_PRICE,
        ),
        stat(
            "Cost per point of F1",
            "Cost of the run, divided by the percentage points of F1 gained over the baseline. "
            "Empty without a gain.",
            "none",
            f"max({_GPU}) / 3600 / (100 * (max({_GAIN}) > 0)) * on () {GPU_HOUR}",
            optional=True,
            decimals=2,
            height=8,
            no_value=NO_PRICE,
        ),
        panel(
            Kind.GAUGES,
            "Cost by stage",
            f"GPU time of each stage in the run times the price per GPU hour. {_SUCCESSFUL}",
            "none",
            [
                Query(
                    f"{by('stage', 'gpu_seconds_total')} / 3600 * on () group_left () {GPU_HOUR}",
                    "{{stage}}",
                    instant=True,
                )
            ],
            width=8,
            decimals=2,
            bounds=(0.0, None),
            no_value=NO_PRICE,
        ),
        panel(
            Kind.GAUGES,
            "GPU time",
            f"GPU time by stage in the whole run. {_SUCCESSFUL}",
            "s",
            [Query(by("stage", "gpu_seconds_total"), "{{stage}}", instant=True)],
            bounds=(0.0, None),
        ),
        panel(
            Kind.LINES,
            "F1 gained per GPU hour",
            "F1 gained over the baseline, divided by the GPU time of the run.",
            "percentunit",
            [Query(f"namespace_name:selfemo_evolution_f1_gain:per_gpu_hour{{{OF}}}", "gain")],
            width=12,
        ),
        panel(
            Kind.LINES,
            "Tokens",
            "Tokens that self-play generated and tokens that training read in the whole run.",
            "short",
            [
                Query(one("generated_tokens_total"), "generated"),
                Query(one("trained_tokens_total"), "trained"),
            ],
            width=12,
            bounds=(0.0, None),
        ),
    ],
)

#: Bucket and path of the run's folder, and the same for the report.
_PLACE = f'label_replace({PREFIX}info{{{OF}}}, "place", "$1", "uri", "[a-z0-9]+://(.+)")'
_REPORT = f'label_replace({_PLACE}, "report", "$1/report.html", "place", "(.+)")'
_OPEN = Link("Open", "${storage_site}${__value.raw}", new_tab=True)

RESULTS = Row(
    "Results",
    [
        panel(
            Kind.TABLE,
            "Model, storage and report",
            "The model of the spec, the selection dataset, the run's folder in the storage, and "
            "its report. The last two are links if a storage site is entered above.",
            "none",
            [Query(f"max by (model, dataset, uri, place, report) ({_REPORT})", instant=True)],
            width=24,
            height=4,
            columns={
                "model": ("Model", "string"),
                "dataset": ("Selection dataset", "string"),
                "uri": ("Folder", "string"),
                "place": ("Storage", "string"),
                "report": ("Report", "string"),
            },
            cell_links={"Storage": _OPEN, "Report": _OPEN},
            link=TO_LOGS,
        ),
    ],
)
