"""The train stage: SELF-GRPO on the groups that the flywheel kept.

This process reads the rows and the models, starts the processes that train, and publishes the
trained model. It never imports torch itself.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from selfemo_api.metrics import TrainMetric
from selfemo_api.stages import Stage
from selfemo_jobs.models.model_folder import model_sha256, read_model_config
from selfemo_jobs.models.stage_models import MODEL, fetch_judge, fetch_policy, upload_model
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.fingerprint import config_fingerprint
from selfemo_jobs.runtime.manifest import canonical_json, read_manifest
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.runtime.step_curve import STEP_CURVE
from selfemo_jobs.runtime.tables import read_tables
from selfemo_jobs.stages.train.launch import launch
from selfemo_jobs.stages.train.rollout_data import RolloutData, training_columns
from selfemo_jobs.stages.train.worker_protocol import TrainJob, TrainResult, write_json
from selfemo_jobs.store import join
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.store.local_files import translated_errors

log = logging.getLogger(__name__)

#: The parts of the spec that the trained model follows from.
RELEVANT = (
    "training",
    "resources.nodes",
    "resources.gpusPerNode",
    "resources.processesPerNode",
    "selfPlay.temperature",
    "model.revision",
    "model.prompts",
    "model.promptTemplates",
)


def run_train(context: StageContext) -> StageOutput:
    """Train the policy, or do this node's part of it.

    Parameters
    ----------
    context
        The context of the stage. Each node of a training is a shard.

    Returns
    -------
    StageOutput
        The trained model, for the first node. The output of the other nodes is empty.

    Raises
    ------
    BadInput
        If a row or a model cannot be used, or the loss is not finite.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    config = context.config
    uri, manifest = context.parent(Stage.FLYWHEEL)
    table = training_columns(read_tables(context.store, uri, manifest, SCORED))
    policy = fetch_policy(context)
    if table.num_rows == 0:
        log.info("no group was kept: the policy is handed on unchanged")
        parts = upload_model(context, policy, policy) if context.shard == 0 else []
        return StageOutput(
            parts, metrics={TrainMetric.STEPS: 0.0}, model_uri=join(config.output, MODEL)
        )
    # rows that cannot be used are refused before any process is started
    RolloutData.from_table(table, _vocabulary(policy))
    job = _job(context, policy)
    single_node = context.shards == 1
    model_uri = join(config.output, MODEL)
    published = None if single_node else context.find_output(0)
    if published is not None:
        return published if context.shard == 0 else StageOutput()
    # Nodes train together or not at all. Only a single node may use its own result of before.
    if not (single_node and job.result_file.is_file()):
        job.result_file.unlink(missing_ok=True)
        launch(job, _write_job(job, table))
    if context.shard != 0:
        return StageOutput()  # the first node publishes the model
    result = TrainResult.model_validate_json(job.result_file.read_bytes())
    return StageOutput(
        parts=upload_model(context, job.model_folder, policy),
        rows=table.num_rows,
        metrics=result.metrics,
        model_uri=model_uri,
        report={STEP_CURVE: result.steps},
    )


def _job(context: StageContext, policy: Path) -> TrainJob:
    """Return the job of the training processes.

    The name of its folder has the hash of all that the training follows from. So a training only
    continues from its own checkpoints. The folders of other trainings are deleted: the spec was
    edited, or an earlier stage ran again.

    Parameters
    ----------
    context
        The context of the stage.
    policy
        The folder of the model to train.
    """
    config, training = context.config, context.config.spec.training
    reference = None
    if training.kl_beta > 0 and config.judge_uri != config.policy_uri:
        reference = fetch_judge(context)
    follows_from = {
        "config": config_fingerprint(config, RELEVANT),
        "kept": read_manifest(context.store, config.parents[Stage.FLYWHEEL.slug])[1],
        "models": [model_sha256(folder) for folder in (policy, reference) if folder is not None],
    }
    digest = sha256(canonical_json(follows_from))[:16]
    for other in context.work.glob(f"job-*-{context.shard}"):
        if other.name != f"job-{digest}-{context.shard}":
            shutil.rmtree(other)
    return TrainJob(
        training=training,
        resources=config.spec.resources,
        seed=config.seed,
        prompts=config.spec.model.prompts,
        prompt_templates=config.spec.model.prompt_templates,
        temperature=config.spec.self_play.temperature,
        folder=context.work / f"job-{digest}-{context.shard}",
        policy=policy,
        reference=reference,
    )


def _write_job(job: TrainJob, table: pa.Table) -> Path:
    """Write a job and its rows to the job's folder; return the path of the job's file."""
    with translated_errors(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, job.rows_file)
    file = job.folder / "job.json"
    write_json(file, job)
    return file


def _vocabulary(policy: Path) -> int | None:
    """Return the size of a model's vocabulary, or None if its configuration does not have it."""
    config = read_model_config(policy)
    size = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    return int(size) if size is not None else None


PROGRAM = StageProgram(stage=Stage.TRAIN, work=run_train, relevant=RELEVANT)
