"""Where a stage's log goes."""

from __future__ import annotations

import logging
import sys

from selfemo_api.text.json_logs import JsonLines


def configure_logging(stage: str) -> None:
    """Send the root logger's records to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(stage=stage))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
