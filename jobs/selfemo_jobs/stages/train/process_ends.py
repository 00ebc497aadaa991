"""Why a training ended early: from the exit codes of its processes and their reports."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence

from selfemo_api.contract import ENV_RENDEZVOUS, ExitCode
from selfemo_jobs.errors import BadInput, StageError, Unavailable
from selfemo_jobs.stages.train.worker_protocol import TrainFailure, TrainJob, read_failures

#: Parts of the errors of Gloo, NCCL and torch's store, in lower case, in a process whose peer has
#: ended. They do not say why it did.
_LOST_PEER = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "caused pair closure",
    "remote process exit",
    "communicator was aborted",
    "did the remote server shutdown or crash",
)
#: The errors of PyTorch's writer of files, which do not say why a file could not be written.
_NOT_WRITTEN = re.compile(
    r"PytorchStreamWriter failed writing|inline_container\S* \. unexpected pos"
)
#: Seconds after which torchrun kills the workers that the end of the first one has not ended.
_TORCHRUN_GRACE = 30
#: The exit code of a shell for a process that was killed, as by the kernel for its memory.
_KILLED = 128 + signal.SIGKILL
#: The same for one that ended itself. NCCL does so in a process that waits for a lost peer.
_ABORTED = 128 + signal.SIGABRT


def common_exit_code(ends: Sequence[tuple[int, int]]) -> int:
    """Return the exit code of torchrun after some of its workers failed.

    Parameters
    ----------
    ends
        The time at which torchrun noticed the end of each of these workers, in whole seconds, and
        its exit code, which is negative after a signal. They are in the order in which torchrun
        noticed them. It ends all others after the first.

    Returns
    -------
    int
        137 if one of them was killed, and not by torchrun. 143 if the first of them ended by
        SIGTERM, or as one does that has saved for it. If it ended by another signal, 128 and its
        number. Otherwise 1: what went wrong is in the files that the workers wrote.

    Examples
    --------
    >>> common_exit_code([(7, 1), (8, -9)]), common_exit_code([(7, 143), (37, -9)])
    (137, 143)
    """
    began, first = min(ends, key=lambda end: end[0])
    if any(code == -signal.SIGKILL and when < began + _TORCHRUN_GRACE for when, code in ends):
        return _KILLED
    if first in (ExitCode.TERMINATED, -signal.SIGTERM):
        return int(ExitCode.TERMINATED)
    return 128 - first if first < 0 else 1


def is_timeout(error: str) -> bool:
    """Return whether torchrun's error says that it waited too long for the other nodes.

    Examples
    --------
    >>> is_timeout("Timed out after 601 seconds waiting for clients. 1/2 clients joined.")
    True
    >>> is_timeout("The server socket has failed to listen on any local network address.")
    False
    """
    text = error.lower()
    return "timed out" in text or "timeout" in text


def stage_error(job: TrainJob, code: int) -> StageError:
    """Return the error of the stage after its processes ended with an exit code.

    Parameters
    ----------
    job
        The training. Its folder has the files in which the processes reported their failures.
    code
        The exit code of the only process, or of torchrun. It is 75 if the nodes did not meet.
    """
    failures = read_failures(job.folder)
    if code == ExitCode.UNAVAILABLE and not failures:
        return Unavailable(
            f"the {job.resources.nodes} nodes of the training did not meet within ten minutes: see "
            "whether the pods of all nodes run, what their logs say, and whether they reach "
            f"{os.environ.get(ENV_RENDEZVOUS)}"
        )
    has_peers = job.resources.processes > 1
    causes = [failure for failure in failures if not (has_peers and _lost_peer(failure))]
    if code in (_KILLED, -signal.SIGKILL):  # the others fail because of it, with any text
        causes = [failure for failure in causes if failure.kind != StageError.kind]
    if causes:
        return _error_of(causes[0])
    reported = f" ({failures[0].error})" if failures else ""
    has_lost_peer = code == _ABORTED or (code == 1 and bool(failures))
    if has_lost_peer and job.resources.nodes > 1:
        return Unavailable(
            f"a process of another node has ended{reported}: the logs of the other pods say why; "
            "the next attempt continues from the last checkpoint"
        )
    return StageError(
        f"a training process ended with code {code} without reporting an error{reported}; if the "
        "machine ran out of memory, lower `training.microBatchSize` or set "
        "`overrides.training.deepspeed.offload`"
    )


def _error_of(failure: TrainFailure) -> StageError:
    """Return the error that a process reported, as one of the stage."""
    if failure.kind == BadInput.kind:
        return BadInput(failure.error)
    if failure.kind == Unavailable.kind:
        return Unavailable(failure.error)
    if "out of memory" in failure.error.lower():
        return StageError(
            f"{failure.error} (lower `training.microBatchSize`, raise "
            "`overrides.training.deepspeed.zeroStage` or set "
            "`overrides.training.deepspeed.offload`)"
        )
    if _NOT_WRITTEN.search(failure.error):
        return Unavailable(
            f"a checkpoint could not be written ({failure.error}): free space on the disk of the "
            "scratch folder (SELFEMO_WORK), then run the same command again"
        )
    return StageError(failure.error)


def _lost_peer(failure: TrainFailure) -> bool:
    """Return whether a process failed only because another one had ended."""
    text = failure.error.lower()
    return failure.kind == StageError.kind and any(part in text for part in _LOST_PEER)
