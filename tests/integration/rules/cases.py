"""Cases in which each alert fires, and in which it does not, for `promtool test rules`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Series = dict[str, str]
"""Series with their values in promtool's notation, one value per minute."""
EVOLUTION_LABELS = 'namespace="team",name="demo"'
EVOLUTION = {"namespace": "team", "name": "demo"}
#: The labels of a pod of the operator.
OPERATOR_LABELS = 'namespace="selfemo-system",job="selfemo-metrics",instance="{}"'
OPERATOR = {"namespace": "selfemo-system", "job": "selfemo-metrics"}


def evolution_series(name: str, *more: str) -> str:
    """Return the name of a series of the evolution, with its labels."""
    labels = ",".join((EVOLUTION_LABELS, 'instance="a"', *more))
    return f"selfemo_evolution_{name}{{{labels}}}"


def operator_series(name: str, instance: str = "a", *more: str) -> str:
    """Return the name of a series of an operator's pod, with its labels."""
    return f"selfemo_operator_{name}{{{','.join((OPERATOR_LABELS.format(instance), *more))}}}"


RUNNING = {evolution_series("phase", 'phase="Running"'): "1x1000"}


@dataclass(frozen=True)
class Case:
    """A case in which an alert fires, with similar cases in which it does not."""

    alert: str
    fires: Series
    at: str
    """The time at which it fires."""
    labels: dict[str, str]
    value: str
    """The value as its description contains it."""
    quiet: dict[str, Series]
    """Similar cases in which it does not fire at that time."""
    before: str
    """A time at which it does not yet fire, because of `for`. Empty: there is none."""

    def labeled(self, severity: str) -> dict[str, Any]:
        """Return all labels of the firing alert."""
        return {**self.labels, "severity": severity}


def _last_progress(minutes: int) -> Series:
    """Return a last progress at the epoch, and the duration of an earlier stage."""
    return {
        evolution_series("progress_timestamp_seconds"): "0x1000",
        evolution_series("stage_duration_seconds", 'stage="Train"'): f"{60 * minutes}x1000",
    }


def _watched(values: str, leads: int = 1) -> Series:
    """Return whether a namespace is watched, with its own label, and whether the operator leads."""
    series = operator_series("namespace_watched")
    return {
        series.replace(OPERATOR["namespace"], "team"): values,
        operator_series("leader"): f"{leads}x60",
    }


def _waiting(reason: str, until: str = "0x60") -> Series:
    return {evolution_series("condition", 'condition="Progressing"', f'reason="{reason}"'): until}


def _stalled(reason: str, value: int = 1) -> Series:
    return {
        evolution_series("condition", 'condition="Stalled"', f'reason="{reason}"'): f"{value}x60"
    }


def _leader(*values: int) -> Series:
    return {operator_series("leader", f"pod-{n}"): f"{value}x60" for n, value in enumerate(values)}


def _resync(age: str, leads: int = 1) -> Series:
    return {
        operator_series("leader"): f"{leads}x60",
        operator_series("resync_age_seconds"): age,
        operator_series("resync_period_seconds"): "60x60",
    }


def _reconciles(result: str, per_minute: float) -> Series:
    return {operator_series("reconciles_total", "a", f'result="{result}"'): f"0+{per_minute}x60"}


FAILING = {
    evolution_series("failed_attempts"): "2x60",
    evolution_series("stage", 'stage="Train"'): "1x60",
    evolution_series("stage", 'stage="Score"'): "0x60",
}
CASES = (
    Case(
        "SelfemoEvolutionStalled",
        {**RUNNING, **_last_progress(150)},
        "7h45m",
        EVOLUTION,
        "7h 45m 0s",
        {
            "it is suspended": {
                evolution_series("phase", 'phase="Running"'): "0x1000",
                **_last_progress(150),
            },
            "its stages are long": {**RUNNING, **_last_progress(160)},
            "it has made progress": {
                **RUNNING,
                **_last_progress(150),
                evolution_series("progress_timestamp_seconds"): "0x100 6000x900",
            },
        },
        before="7h35m",
    ),
    Case(
        "SelfemoEvolutionFailed",
        _stalled("BadInput"),
        "1m",
        {**EVOLUTION, "reason": "BadInput"},
        "",
        {"it is healthy": _stalled("Healthy", 0), "it collapsed": _stalled("Collapsed")},
        before="",
    ),
    Case(
        "SelfemoEvolutionCollapsed",
        {evolution_series("phase", 'phase="Collapsed"'): "0x9 1x60"},
        "11m",
        EVOLUTION,
        "",
        {"it failed for another reason": {evolution_series("phase", 'phase="Collapsed"'): "0x60"}},
        before="5m",
    ),
    Case(
        "SelfemoEvolutionF1Regressed",
        {
            evolution_series("best_f1_ratio"): "0.55x60",
            evolution_series("f1_ratio"): "0.55x9 0.525x60",
        },
        "11m",
        EVOLUTION,
        "2.5%",
        {
            "it is noise": {
                evolution_series("best_f1_ratio"): "0.55x60",
                evolution_series("f1_ratio"): "0.535x60",
            },
            "the run has ended": {
                evolution_series("best_f1_ratio"): "0.55x60",
                evolution_series("f1_ratio"): "0.55x9 0.525x60",
                # of another operator, which leads now
                evolution_series("completion_timestamp_seconds").replace(
                    '"a"', '"b"'
                ): "_x9 600x60",
            },
        },
        before="5m",
    ),
    Case(
        "SelfemoStageFailing",
        FAILING,
        "1m",
        {**EVOLUTION, "stage": "Train"},
        "2",
        {"it failed once": {**FAILING, evolution_series("failed_attempts"): "1x60"}},
        before="",
    ),
    Case(
        "SelfemoEvolutionPending",
        _waiting("Waiting"),
        "16m",
        EVOLUTION,
        "",
        {"a queue holds it": _waiting("Queued"), "it runs": _waiting("Running", "1x60")},
        before="14m",
    ),
    Case(
        "SelfemoOperatorDown",
        {operator_series("build_info"): "1x9 stale"},
        "16m",
        {},
        "",
        {
            "one replica is left": {
                operator_series("build_info"): "1x9 stale",
                operator_series("build_info", "b"): "1x60",
            }
        },
        before="13m",
    ),
    Case(
        "SelfemoOperatorNoLeader",
        _leader(0, 0),
        "6m",
        OPERATOR,
        "",
        {"one leads": _leader(0, 1)},
        before="4m",
    ),
    Case(
        "SelfemoOperatorResyncOld",
        _resync("0+60x60"),
        "10m",
        OPERATOR,
        "",
        {
            "it resyncs": _resync("30x60"),
            "it is on standby": _resync("-1x60", leads=0),
            "the period is long": {
                **_resync("0+60x60"),
                operator_series("resync_period_seconds"): "600x60",
            },
        },
        before="8m",
    ),
    Case(
        "SelfemoReconcileErrors",
        _reconciles("refused", 0.5),
        "45m",
        OPERATOR,
        "7.5",
        {"few errors": _reconciles("error", 0.2), "conflicts": _reconciles("conflict", 2)},
        before="10m",
    ),
    Case(
        "SelfemoEvolutionUnreadable",
        {operator_series("unreadable_evolutions"): "2x60"},
        "11m",
        OPERATOR,
        "2",
        {"all can be read": {operator_series("unreadable_evolutions"): "0x60"}},
        before="9m",
    ),
    Case(
        "SelfemoNamespaceUnwatched",
        _watched("0x60"),
        "11m",
        {"namespace": "team", "job": OPERATOR["job"]},
        "team",
        {
            "it is watched": _watched("1x60"),
            "the operator has lost the Lease": _watched("0x60", leads=0),
        },
        before="9m",
    ),
)
#: Recording rules: the input series, the expression, and the expected value.
RECORDED: tuple[tuple[Series, str, float], ...] = (
    (
        {
            evolution_series("best_f1_ratio"): "0.5x60",
            evolution_series("baseline_f1_ratio"): "0.3x60",
            evolution_series("gpu_seconds_total", 'stage="Train"'): "5400x60",
            evolution_series("gpu_seconds_total", 'stage="SelfPlay"'): "1800x60",
            # of another operator, from the time before it lost the Lease
            evolution_series("gpu_seconds_total", 'stage="Train"').replace('"a"', '"b"'): "5000x60",
        },
        "namespace_name:selfemo_evolution_f1_gain:per_gpu_hour",
        0.1,
    ),
    (
        {
            evolution_series("best_f1_ratio"): "0.5x60",
            evolution_series("baseline_f1_ratio"): "0.3x60",
            evolution_series("gpu_seconds_total", 'stage="Train"'): "0x60",
        },
        "count(namespace_name:selfemo_evolution_f1_gain:per_gpu_hour) or vector(0)",
        0.0,
    ),
)
