"""One training process: ``python -m selfemo_jobs.stages.train.worker --job FILE``.

torchrun starts it, and the stage starts torchrun. The stage starts the process of a training that
needs only one itself.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from selfemo_api.contract import ExitCode
from selfemo_api.stages import Stage
from selfemo_jobs.errors import StageError, Terminated
from selfemo_jobs.runtime.light_imports import skip_unused_imports
from selfemo_jobs.runtime.logging_setup import configure_logging
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_jobs.runtime.progress_metrics import serve_progress
from selfemo_jobs.runtime.sigterm import SigtermFlag
from selfemo_jobs.stages.train.worker_protocol import (
    ENV_GROUP,
    TrainFailure,
    TrainJob,
    local_rank,
    rank,
    write_json,
)
from selfemo_jobs.store.local_files import translate_os_error

log = logging.getLogger(__name__)


def main() -> int:
    """Run the process and return its exit code."""
    die_with_parent()
    configure_logging(Stage.TRAIN.value)
    parser = argparse.ArgumentParser(prog="python -m selfemo_jobs.stages.train.worker")
    parser.add_argument("--job", required=True, type=Path, help="JSON of a TrainJob")
    job = TrainJob.model_validate_json(parser.parse_args().job.read_bytes())
    if local_rank() == 0:
        serve_progress(Stage.TRAIN, job.evolution)
    sigterm = SigtermFlag()
    try:
        _train(job, sigterm)
    except Terminated:
        return ExitCode.TERMINATED
    except Exception as error:  # the last resort: the stage must report the reason
        if sigterm.received:  # the other processes are ending, so this one may fail anywhere
            log.info("failed after SIGTERM: %s", error)
            return ExitCode.TERMINATED
        if isinstance(error, StageError):
            _report_failure(job, error.kind, str(error))
            return error.exit_code
        log.exception("the process failed")
        known = translate_os_error(None, error)
        if known is not None:
            _report_failure(job, known.kind, str(known))
            return known.exit_code
        _report_failure(job, "Internal", f"{type(error).__name__}: {error}")
        return ExitCode.INTERNAL
    return ExitCode.OK


def _train(job: TrainJob, sigterm: SigtermFlag) -> None:
    skip_generation_imports()
    join_process_group(job)
    import torch.distributed as dist

    from selfemo_jobs.stages.train.training_loop import run_training

    run_training(job, sigterm)
    dist.destroy_process_group()


def skip_generation_imports() -> None:
    """Make the libraries believe that vLLM, scikit-learn, SciPy and MLflow are not installed.

    Transformers and TRL import the first three, and DeepSpeed's tuner MLflow, for what never
    happens here. These imports take half of the time of a start. Call it before any of them is
    imported.
    """
    sys.modules.setdefault("mlflow", None)  # type: ignore[arg-type] # what Python has for "no"
    from trl import import_utils

    skip_unused_imports()
    import_utils.is_vllm_available = lambda *_args, **_kwargs: False


def join_process_group(job: TrainJob) -> None:
    """Join the process group of a training.

    It must happen first. Otherwise a library creates a group with a backend that it selects itself.

    Parameters
    ----------
    job
        The training.
    """
    import deepspeed
    import torch

    # DeepSpeed would compile its CPU all-reduce for inference now, which takes minutes. Training
    # does not use it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

    on_gpu = job.resources.gpus_per_node > 0
    backend = "nccl" if on_gpu else "gloo"
    if on_gpu:
        torch.cuda.set_device(local_rank())
    if job.resources.nodes > 1:
        deepspeed.init_distributed(dist_backend=backend)
    else:  # torch's store of TCP listens on all addresses, whatever the address of the master
        deepspeed.init_distributed(
            dist_backend=backend,
            init_method=f"file://{_group_file()}",
            rank=rank(),
            world_size=job.resources.processes,
        )
    _configure_accelerate(backend)


def _group_file() -> str:
    """Return the file in which the processes meet; a new one for a process without a launcher."""
    return os.environ.get(ENV_GROUP) or f"{tempfile.mkdtemp(prefix='selfemo-group-')}/group"


def _configure_accelerate(backend: str) -> None:
    """Create Accelerate's state, which the training arguments then use (`use_configured_state`).

    Without it Accelerate assumes that a machine without a GPU has no other processes. If it is
    told to use the CPU, it trains without DeepSpeed.
    """
    from accelerate import PartialState

    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend=backend)
    del os.environ["ACCELERATE_USE_DEEPSPEED"]


def _report_failure(job: TrainJob, kind: str, error: str) -> None:
    """Write the reason of a failure to a file, where the stage reads it."""
    line = " ".join(error.split())[:1500]
    failure = TrainFailure(kind=kind, error=line, when=time.time_ns())
    write_json(job.failure_file(rank()), failure)


def _leave(code: int) -> NoReturn:
    """End the process without the interpreter's teardown. All results are written by now.

    DeepSpeed keeps references to process groups after they are destroyed. On a busy machine the
    threads of Gloo then abort the process during teardown, although the training succeeded
    (pytorch/pytorch#190489).
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
