"""One process of a training: ``python -m selfemo_jobs.stages.train.worker --job FILE``.

torchrun starts it (a training of one process has no torchrun); the stage started that.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from selfemo_api.contract import ExitCode
from selfemo_api.stages import Stage
from selfemo_jobs.errors import StageError, Terminated
from selfemo_jobs.runtime.logging_setup import configure_logging
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_jobs.runtime.progress_metrics import serve_progress
from selfemo_jobs.stages.train.sigterm import SigtermFlag
from selfemo_jobs.stages.train.worker_protocol import (
    TrainFailure,
    TrainJob,
    local_rank,
    rank,
    write_json,
)

log = logging.getLogger(__name__)


def main() -> int:
    """Run the process and return its exit code."""
    die_with_parent()
    configure_logging(Stage.TRAIN.value)
    if local_rank() == 0:
        serve_progress(Stage.TRAIN)
    parser = argparse.ArgumentParser(prog="python -m selfemo_jobs.stages.train.worker")
    parser.add_argument("--job", required=True, type=Path, help="JSON of a TrainJob")
    job = TrainJob.model_validate_json(parser.parse_args().job.read_bytes())
    sigterm = SigtermFlag()
    try:
        _work(job, sigterm)
    except Terminated:
        return ExitCode.TERMINATED
    except StageError as error:
        _say(job, error.kind, str(error))
        return error.exit_code
    except Exception as error:  # the last resort: the stage must learn why
        log.exception("the process failed")
        _say(job, "Internal", f"{type(error).__name__}: {error}")
        return ExitCode.INTERNAL
    return ExitCode.OK


def _work(job: TrainJob, sigterm: SigtermFlag) -> None:
    leave_generation_out()
    _join_group(job)
    import torch.distributed as dist

    from selfemo_jobs.stages.train.training_loop import run_training

    run_training(job, sigterm)
    dist.destroy_process_group()


def leave_generation_out() -> None:
    """Have the libraries take vLLM and scikit-learn for absent, before they look for them.

    They import them for generation, which never happens here, and that is half of a start.
    """
    from transformers import utils
    from trl import import_utils

    utils.is_sklearn_available = lambda: False
    import_utils.is_vllm_available = lambda *_args, **_kwargs: False


def _join_group(job: TrainJob) -> None:
    """Join the process group before anyone else makes one with a backend of its own choice."""
    import deepspeed
    import torch

    # Its all-reduce for inference on a CPU would be compiled now (minutes); training has no use
    # for it, and an image has no compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

    on_gpu = job.training.gpus_per_node > 0
    backend = "nccl" if on_gpu else "gloo"
    if on_gpu:
        torch.cuda.set_device(local_rank())
    if "TORCHELASTIC_RUN_ID" in os.environ:
        deepspeed.init_distributed(dist_backend=backend)
    else:
        meeting = job.folder / "group"
        meeting.unlink(missing_ok=True)  # of an attempt that was killed
        deepspeed.init_distributed(
            dist_backend=backend, init_method=f"file://{meeting}", rank=0, world_size=1
        )
    _tell_accelerate(backend)


def _tell_accelerate(backend: str) -> None:
    """Make Accelerate's state, which the training arguments then find (`use_configured_state`).

    Left to itself it takes a machine without a GPU for one without other processes, unless told
    to use the CPU, and then it trains without DeepSpeed.
    """
    from accelerate import PartialState

    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend=backend)
    del os.environ["ACCELERATE_USE_DEEPSPEED"]


def _say(job: TrainJob, kind: str, error: str) -> None:
    line = " ".join(error.split())[:1500]
    write_json(job.failure(rank()), TrainFailure(kind=kind, error=line, when=time.time_ns()))


if __name__ == "__main__":
    sys.exit(main())
