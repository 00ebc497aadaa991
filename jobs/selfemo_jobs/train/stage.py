"""The Train stage: fetches what training needs, starts its processes, publishes the model."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

from selfemo_api.contract import ENV_SHARD, ExitCode
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput, Terminated, Unavailable
from selfemo_jobs.manifest import Part
from selfemo_jobs.models.fetch import fetch_model
from selfemo_jobs.models.folder import is_model_file
from selfemo_jobs.runtime import StageContext, StageOutput, StageProgram
from selfemo_jobs.store import join
from selfemo_jobs.tables import SCORED, read_tables
from selfemo_jobs.train.task import ERROR, FIGURES, TrainFigures, TrainTask, WorkerError

log = logging.getLogger(__name__)

#: Where the first of several nodes listens: `host:port`.
ENV_RENDEZVOUS = "SELFEMO_RENDEZVOUS"
MODEL = "model"


def train(context: StageContext) -> StageOutput:
    """Train the policy on what the flywheel kept, and publish the model.

    Where nothing was kept there is nothing to learn: the policy is published as it is.
    """
    config = context.config
    spec = config.spec
    policy = fetch_model(config.policy_uri, spec.model.revision, context.store, context.work)
    rows = _fetch_rows(context)
    if not rows:
        log.warning("the flywheel kept nothing: the model stays as it is")
        return _publish(context, policy, policy, TrainFigures(steps=0, tokens=0))
    anchor = None
    if spec.training.kl_beta > 0.0:
        folder = fetch_model(config.anchor_uri, spec.model.revision, context.store, context.work)
        anchor = str(folder)
    task = TrainTask(
        training=spec.training,
        policy=str(policy),
        anchor=anchor,
        rows=[str(path) for path in rows],
        temperature=spec.self_play.temperature,
        group_size=spec.self_play.group_size,
        seed=config.seed,
        work=str(context.work),
    )
    if not (task.folder / FIGURES).is_file():
        _run(task, spec)
    if not _is_first_node():
        return StageOutput()
    figures = TrainFigures.model_validate_json((task.folder / FIGURES).read_bytes())
    return _publish(context, _whole_model(task, policy), policy, figures)


def _fetch_rows(context: StageContext) -> list[Path]:
    """Write the flywheel's rows, checked, into the work folder; return the files that have any."""
    uri, manifest = context.parent(Stage.FLYWHEEL)
    found = []
    for index, table in enumerate(read_tables(context.store, uri, manifest, SCORED)):
        path = context.work / f"rows-{index:05d}.parquet"
        if table.num_rows:
            pq.write_table(table, path)
            found.append(path)
    return found


def _run(task: TrainTask, spec: EvolutionSpec) -> None:
    """Start the processes and wait for them.

    Raises
    ------
    BadInput, Unavailable, RuntimeError
        As the worker that failed first says.
    Terminated
        On SIGTERM, once the workers have saved a checkpoint.
    """
    folder = task.folder
    (folder / ERROR).unlink(missing_ok=True)
    path = folder / "task.json"
    path.write_text(task.model_dump_json(by_alias=True))
    process = subprocess.Popen(_command(spec, path), env=_environment(spec), stdout=sys.stderr)
    try:
        code = process.wait()
    except Terminated:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if code == 0:
        return
    if (folder / ERROR).is_file():
        error = WorkerError.model_validate_json((folder / ERROR).read_bytes())
        raise {BadInput.kind: BadInput, Unavailable.kind: Unavailable}.get(
            error.kind, RuntimeError
        )(error.message)
    if code in (ExitCode.TERMINATED, -signal.SIGTERM):
        raise Terminated("a training process was ended; the same command goes on from here")
    raise RuntimeError(f"training exited with {code}; its traceback is above in this log")


def _command(spec: EvolutionSpec, task: Path) -> list[str]:
    training = spec.training
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    launcher += ["--nproc-per-node", str(training.local_processes), "--max-restarts", "0"]
    if training.nodes == 1:
        launcher += ["--standalone"]
    else:
        where = os.environ.get(ENV_RENDEZVOUS)
        if where is None:
            raise BadInput(f"`training.nodes` is {training.nodes}, but {ENV_RENDEZVOUS} is not set")
        host, _, port = where.rpartition(":")
        launcher += ["--nnodes", str(training.nodes), "--node-rank", os.environ.get(ENV_SHARD, "0")]
        launcher += ["--master-addr", host, "--master-port", port]
    return [*launcher, "-m", "selfemo_jobs.train.worker", str(task)]


def _environment(spec: EvolutionSpec) -> Mapping[str, str]:
    found = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    if spec.training.gpus_per_node == 0:
        # The same number of threads in every attempt: sums of floats depend on it.
        cores = os.cpu_count() or 1
        threads = max(1, cores // spec.training.local_processes)
        found |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(threads)}
        found["CUDA_VISIBLE_DEVICES"] = ""
    return found


def _is_first_node() -> bool:
    return os.environ.get(ENV_SHARD, "0") == "0"


def _whole_model(task: TrainTask, policy: Path) -> Path:
    """Return the folder with the trained model's full weights; an adapter is merged."""
    if task.training.lora is None:
        return task.model
    from peft import PeftModel

    from selfemo_jobs.models.fetch import load_model

    merged = task.folder / "merged"
    model = PeftModel.from_pretrained(load_model(policy, _dtype(policy)), task.model)
    model.merge_and_unload().save_pretrained(merged)
    return merged


def _dtype(folder: Path):  # type: ignore[no-untyped-def]
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return config.dtype or torch.float32


def _publish(
    context: StageContext, model: Path, policy: Path, figures: TrainFigures
) -> StageOutput:
    """Store the model's files: the trained weights, everything else as the policy has it."""
    chosen = {p.name: p for p in sorted(policy.iterdir()) if is_model_file(p.name)}
    weights = [
        p for p in sorted(model.iterdir()) if p.name.endswith((".safetensors", ".index.json"))
    ]
    chosen = {n: p for n, p in chosen.items() if not n.endswith((".safetensors", ".index.json"))}
    chosen |= {p.name: p for p in weights}
    parts = []
    for number, (name, path) in enumerate(sorted(chosen.items())):
        parts.append(_upload(context, f"{MODEL}/{name}", path))
        context.progress(number + 1, len(chosen))
    metrics = {"steps": figures.steps, "tokens": figures.tokens, **figures.metrics}
    return StageOutput(
        parts=parts,
        rows=figures.steps,
        metrics={name: float(value) for name, value in metrics.items()},
        model_uri=join(context.config.output, MODEL),
    )


def _upload(context: StageContext, name: str, path: Path) -> Part:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    part = Part(path=name, sha256=digest, size=path.stat().st_size)
    context.store.upload(path, join(context.config.output, name))
    return part


PROGRAM = StageProgram(
    stage=Stage.TRAIN,
    work=train,
    relevant=("training", "selfPlay.temperature", "selfPlay.groupSize"),
)
