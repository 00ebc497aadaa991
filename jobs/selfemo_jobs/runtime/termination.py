"""The termination message: how a stage reports its result to the operator or the local runner."""

from __future__ import annotations

import os
from pathlib import Path

from selfemo_api.contract import ENV_TERMINATION_LOG
from selfemo_api.results import (
    FailureMessage,
    ShardResult,
    StageResult,
    encode_message,
)
from selfemo_api.text.control_characters import escaped_json


def write_termination_message(result: StageResult | ShardResult | FailureMessage) -> None:
    """Write the termination message to its file, if there is a folder for it, and to stdout."""
    text = encode_message(result)
    path = Path(os.environ.get(ENV_TERMINATION_LOG, "/dev/termination-log"))
    if path.parent.is_dir():
        path.write_text(text)
    print(escaped_json(text), flush=True)
