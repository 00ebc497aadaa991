"""Logs as JSON lines, which log collectors and ``selfemo run`` read."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from selfemo_api.text.control_characters import json_text, printable_lines

#: The fields of a line that are not values of its message.
_FRAME = ("time", "level", "stage", "logger", "message", "traceback")


class JsonLines(logging.Formatter):
    """Formats a log record as one line of JSON.

    ``extra={"fields": {…}}`` in a logging call adds fields to its line.

    Parameters
    ----------
    constant
        Fields that every line has, for example ``stage="Train"``.
    """

    def __init__(self, **constant: str) -> None:
        super().__init__()
        self._constant = constant

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a log record, without a line break."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._constant,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json_text(line, default=str)


def readable(line: Mapping[str, Any]) -> str:
    """Return the content of a log line as human-readable text: the message, then its values.

    Parameters
    ----------
    line
        The fields of the line. Its time and its stage are left out.

    Examples
    --------
    >>> readable({"level": "info", "message": "progress", "done": 3, "loss": 0.012349})
    'progress done=3 loss=0.01235'
    >>> readable({"level": "warning", "message": "the disk is full"})
    'WARNING the disk is full'
    """
    level = str(line.get("level", "info"))
    parts = [] if level in ("info", "debug") else [level.upper()]
    parts.append(str(line.get("message", "")))
    parts += [f"{name}={_short(line[name])}" for name in line if name not in _FRAME]
    text = " ".join(parts)
    return f"{text}\n{line['traceback']}" if line.get("traceback") else text


def _short(value: Any) -> str:
    """Return a value of a log line as short text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


class ReadableLines(logging.Formatter):
    """Formats a log record as text for the user of a command."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a log record, without a line break at its end.

        Control characters in it are replaced.
        """
        return printable_lines(readable(json.loads(JsonLines().format(record))))
