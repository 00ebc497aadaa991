"""The log of a stage, JSON lines on standard error, and that of a command, text for people."""

from __future__ import annotations

import logging
import sys

from selfemo_api.text.json_logs import JsonLines, ReadableLines


def configure_logging(stage: str) -> None:
    """Write the root logger's records to standard error as JSON lines, with the stage's name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(stage=stage))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def configure_command_logging(*, quiet: bool = False, verbose: bool = False) -> None:
    """Write the root logger's records to standard error as text for people.

    Parameters
    ----------
    quiet
        Write only warnings and errors.
    verbose
        Write also what is only of use when a fault is looked for.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ReadableLines())
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=min(level, logging.WARNING), handlers=[handler], force=True)
    for name in ("selfemo_jobs", "selfemo_api"):
        logging.getLogger(name).setLevel(level)
    # the libraries report each request and each plugin
    logging.getLogger().setLevel(logging.INFO if verbose else logging.WARNING)
