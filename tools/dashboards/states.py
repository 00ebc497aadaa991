"""Phases and stages as numbers with colors, which state timelines show."""

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
    state_code,
)

from selfemo_api.stages import STAGE_ORDER
from selfemo_api.status import Phase

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
