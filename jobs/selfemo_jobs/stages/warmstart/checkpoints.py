"""Checkpoints of a warm start: safetensors and JSON. Nothing in them is unpickled or run.

A checkpoint is a folder with the trainer's state, the best weights so far, and a JSON file with the
evaluations and the hashes of the others. A folder whose files do not have these hashes was not
written to its end, and does not count.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from selfemo_jobs.store.hashing import file_sha256
from selfemo_jobs.store.local_files import replacing_folder, translated_errors, write_file

_PREFIX = "checkpoint-"
_STATE, _BEST, _RECORD = "state.safetensors", "best.safetensors", "checkpoint.json"


@dataclass(frozen=True)
class EvaluationPoint:
    """One evaluation on the selection dataset during a warm start."""

    step: int
    """The number of steps before it."""
    weighted_f1: float
    """The weighted F1, from 0 to 1."""
    loss: float | None
    """The mean loss of the steps since the evaluation before; None before the first step."""


@dataclass
class WarmStartState:
    """All that the rest of a warm start follows from."""

    trainer: Mapping[str, Tensor]
    """The state of the trainer, as tensors by name."""
    best: Mapping[str, Tensor]
    """The trained weights of the best evaluation, by name. Empty: those before the first step."""
    evaluations: list[EvaluationPoint] = field(default_factory=list)
    """The evaluations so far."""
    losses: list[float] = field(default_factory=list)
    """The loss of each step since the last evaluation."""


def save_checkpoint(folder: Path, step: int, state: WarmStartState) -> None:
    """Write a checkpoint, and then delete the others.

    Parameters
    ----------
    folder
        The folder with all checkpoints.
    step
        The number of steps that were made.
    state
        The state after these steps.
    """
    # a new name each time: an attempt that is killed here leaves the one before
    path = folder / f"{_PREFIX}{step:07d}-{len(state.evaluations):05d}"
    with translated_errors(path), replacing_folder(path) as new:
        save_file(dict(state.trainer), new / _STATE)
        save_file(dict(state.best), new / _BEST)
        record = {
            "evaluations": [asdict(point) for point in state.evaluations],
            "losses": state.losses,
            "sha256": {name: file_sha256(new / name) for name in (_STATE, _BEST)},
        }
        write_file(new / _RECORD, json.dumps(record).encode())
    for other in folder.glob(f"{_PREFIX}*"):
        if other != path:
            shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(folder: Path) -> WarmStartState | None:
    """Return the state of the newest whole checkpoint, or None.

    Parameters
    ----------
    folder
        The folder with all checkpoints, which need not exist.
    """
    for path in sorted(folder.glob(f"{_PREFIX}[0-9]*[0-9]"), reverse=True):
        try:
            record = json.loads((path / _RECORD).read_bytes())
            hashes = {name: file_sha256(path / name) for name in (_STATE, _BEST)}
        except (FileNotFoundError, ValueError):
            continue
        if record["sha256"] != hashes:
            continue
        return WarmStartState(
            trainer=load_file(path / _STATE),
            best=load_file(path / _BEST),
            evaluations=[EvaluationPoint(**point) for point in record["evaluations"]],
            losses=record["losses"],
        )
    return None
