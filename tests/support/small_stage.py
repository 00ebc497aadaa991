"""A small stage as a real program: what it writes differs from attempt to attempt.

``python -m tests.support.small_stage --config FILE`` writes three parts, or a model for the stage
Train. Its environment decides what it does:

- ``SMALL_WRITER``: the name of the attempt, which is in all of its content;
- ``SMALL_PAUSE``: a folder. After its first part, or before its model, the program makes the file
  ``<writer>.paused`` there and stops itself (SIGSTOP): its node seems to be dead.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from selfemo_api.contract import StageConfig
from selfemo_api.stages import Stage
from selfemo_jobs.models.stage_models import upload_model
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import Part
from selfemo_jobs.runtime.program import StageProgram

PARTS = 3
#: The spec's fields that the result follows from.
RELEVANT = ("selfPlay.temperature",)


def pause_once() -> None:
    """Stop this process once, if the environment asks for it."""
    folder = os.environ.get("SMALL_PAUSE")
    if not folder:
        return
    mark = Path(folder, f"{os.environ['SMALL_WRITER']}.paused")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGSTOP)


def write_parts(context: StageContext) -> StageOutput:
    """Write the parts that no attempt has written yet."""
    writer = os.environ.get("SMALL_WRITER", "")
    parts: list[Part] = []
    for number in range(PARTS):
        path = f"part-{number:05d}.parquet"
        stored = context.load_part(path, bytes)
        if stored is not None:
            parts.append(stored[0])
            continue
        if number:
            pause_once()
        parts.append(context.put_part(path, f"{writer} {number}".encode()))
    return StageOutput(parts, rows=PARTS)


def write_model(context: StageContext) -> StageOutput:
    """Write a model, as the stages that train do."""
    folder = context.work / f"model-of-{os.environ['SMALL_WRITER']}"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(os.environ["SMALL_WRITER"])
    pause_once()
    return upload_model(context, folder, folder, {})


def program(config: StageConfig) -> StageProgram:
    """Return the program of a configuration's stage."""
    work = write_model if config.stage is Stage.TRAIN else write_parts
    return StageProgram(stage=config.stage, work=work, relevant=RELEVANT)


if __name__ == "__main__":
    parsed = StageConfig.model_validate_json(Path(sys.argv[2]).read_bytes())
    sys.exit(program(parsed).main(sys.argv[1:]))
