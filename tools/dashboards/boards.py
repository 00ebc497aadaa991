"""The list of all dashboards."""

from __future__ import annotations

from tools.dashboards.board_types import Board
from tools.dashboards.evolution import EVOLUTION_BOARD
from tools.dashboards.fleet import FLEET
from tools.dashboards.operator import OPERATOR

BOARDS: tuple[Board, ...] = (FLEET, EVOLUTION_BOARD, OPERATOR)
