"""The log of a stage: JSON lines on standard error."""

from __future__ import annotations

import logging
import sys

from selfemo_api.text.json_logs import JsonLines


def configure_logging(stage: str) -> None:
    """Write the root logger's records to standard error as JSON lines, with the stage's name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(stage=stage))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
