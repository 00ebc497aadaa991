"""When each alert fires, and when it does not, as `promtool test rules` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Series = dict[str, str]
"""Series, with values in promtool's notation; one a minute."""
WHO = 'namespace="team",name="demo"'
OF = {"namespace": "team", "name": "demo"}
#: Two pods of one operator.
POD = 'namespace="selfemo-system",job="selfemo-metrics",instance="{}"'
AT = {"namespace": "selfemo-system", "job": "selfemo-metrics"}


def s(name: str, *more: str) -> str:
    """Return a series of the evolution."""
    labels = ",".join((WHO, 'instance="a"', *more))
    return f"selfemo_evolution_{name}{{{labels}}}"


def o(name: str, instance: str = "a", *more: str) -> str:
    """Return a series of an operator's pod."""
    return f"selfemo_operator_{name}{{{','.join((POD.format(instance), *more))}}}"


RUNNING = {s("phase", 'phase="Running"'): "1x1000"}


@dataclass(frozen=True)
class Case:
    """One alert, once firing and some times not."""

    alert: str
    fires: Series
    at: str
    """When it fires."""
    labels: dict[str, str]
    value: str
    """How its value is written, where its description has it."""
    quiet: dict[str, Series]
    """Near cases in which it does not fire at that time."""
    before: str
    """When it does not fire yet, or no more: `for` is over later."""

    def labeled(self, severity: str) -> dict[str, Any]:
        """Return all labels of the alert."""
        return {**self.labels, "severity": severity}


def _began(minutes: int) -> Series:
    """A stage whose last progress was at the epoch, and one of a length before it."""
    return {
        s("progress_timestamp_seconds"): "0x1000",
        s("stage_duration_seconds", 'stage="Train"'): f"{60 * minutes}x1000",
    }


def _waiting(reason: str, until: str = "0x60") -> Series:
    return {s("condition", 'condition="Progressing"', f'reason="{reason}"'): until}


def _stalled(reason: str, value: int = 1) -> Series:
    return {s("condition", 'condition="Stalled"', f'reason="{reason}"'): f"{value}x60"}


def _leader(*values: int) -> Series:
    return {o("leader", f"pod-{n}"): f"{value}x60" for n, value in enumerate(values)}


def _resync(age: str, leads: int = 1) -> Series:
    return {
        o("leader"): f"{leads}x60",
        o("resync_age_seconds"): age,
        o("resync_period_seconds"): "60x60",
    }


def _passes(result: str, per_minute: float) -> Series:
    return {o("reconciles_total", "a", f'result="{result}"'): f"0+{per_minute}x60"}


FAILING = {
    s("failed_attempts"): "2x60",
    s("stage", 'stage="Train"'): "1x60",
    s("stage", 'stage="Score"'): "0x60",
}
CASES = (
    Case(
        "SelfemoEvolutionStalled",
        {**RUNNING, **_began(150)},
        "7h45m",
        OF,
        "7h 45m 0s",
        {
            "it is suspended": {s("phase", 'phase="Running"'): "0x1000", **_began(150)},
            "its stages are long": {**RUNNING, **_began(160)},
            "it moved": {
                **RUNNING,
                **_began(150),
                s("progress_timestamp_seconds"): "0x100 6000x900",
            },
        },
        before="7h35m",
    ),
    Case(
        "SelfemoEvolutionFailed",
        _stalled("BadInput"),
        "1m",
        {**OF, "reason": "BadInput"},
        "",
        {"it is well": _stalled("Healthy", 0), "it collapsed": _stalled("Collapsed")},
        before="",
    ),
    Case(
        "SelfemoEvolutionCollapsed",
        {s("phase", 'phase="Collapsed"'): "0x9 1x60"},
        "11m",
        OF,
        "",
        {"it failed otherwise": {s("phase", 'phase="Collapsed"'): "0x60"}},
        before="5m",
    ),
    Case(
        "SelfemoEvolutionF1Regressed",
        {s("best_f1_ratio"): "0.55x60", s("f1_ratio"): "0.55x9 0.525x60"},
        "11m",
        OF,
        "2.5%",
        {"it is noise": {s("best_f1_ratio"): "0.55x60", s("f1_ratio"): "0.535x60"}},
        before="5m",
    ),
    Case(
        "SelfemoStageFailing",
        FAILING,
        "1m",
        {**OF, "stage": "Train"},
        "2",
        {"it failed once": {**FAILING, s("failed_attempts"): "1x60"}},
        before="",
    ),
    Case(
        "SelfemoEvolutionPending",
        _waiting("Waiting"),
        "16m",
        OF,
        "",
        {"a queue holds it": _waiting("Queued"), "it runs": _waiting("Running", "1x60")},
        before="14m",
    ),
    Case(
        "SelfemoOperatorDown",
        {o("build_info"): "1x9 stale"},
        "16m",
        {},
        "",
        {"one is left": {o("build_info"): "1x9 stale", o("build_info", "b"): "1x60"}},
        before="13m",
    ),
    Case(
        "SelfemoOperatorNoLeader",
        _leader(0, 0),
        "6m",
        AT,
        "",
        {"one leads": _leader(0, 1)},
        before="4m",
    ),
    Case(
        "SelfemoOperatorResyncOld",
        _resync("0+60x60"),
        "10m",
        AT,
        "",
        {
            "it lists": _resync("30x60"),
            "it stands by": _resync("-1x60", leads=0),
            "the period is long": {**_resync("0+60x60"), o("resync_period_seconds"): "600x60"},
        },
        before="8m",
    ),
    Case(
        "SelfemoReconcileErrors",
        _passes("refused", 0.5),
        "45m",
        AT,
        "7.5",
        {"few": _passes("error", 0.2), "two wanted the same": _passes("conflict", 2)},
        before="10m",
    ),
    Case(
        "SelfemoEvolutionUnreadable",
        {o("unreadable_evolutions"): "2x60"},
        "11m",
        AT,
        "2",
        {"all are read": {o("unreadable_evolutions"): "0x60"}},
        before="9m",
    ),
)
#: Recorded figures: what is there, the expression, and what it comes to.
RECORDED: tuple[tuple[Series, str, float], ...] = (
    (
        {
            s("best_f1_ratio"): "0.5x60",
            s("baseline_f1_ratio"): "0.3x60",
            s("gpu_seconds_total", 'stage="Train"'): "5400x60",
            s("gpu_seconds_total", 'stage="SelfPlay"'): "1800x60",
            # another operator's, of before it lost the Lease
            s("gpu_seconds_total", 'stage="Train"').replace('"a"', '"b"'): "5000x60",
        },
        "namespace_name:selfemo_evolution_f1_gain:per_gpu_hour",
        0.1,
    ),
    (
        {
            s("best_f1_ratio"): "0.5x60",
            s("baseline_f1_ratio"): "0.3x60",
            s("gpu_seconds_total", 'stage="Train"'): "0x60",
        },
        "count(namespace_name:selfemo_evolution_f1_gain:per_gpu_hour) or vector(0)",
        0.0,
    ),
)
