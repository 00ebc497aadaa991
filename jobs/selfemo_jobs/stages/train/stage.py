"""The train stage: SELF-GRPO on the groups that the flywheel kept.

This process reads the rows and the models, starts the processes that train, and publishes the
trained model. It never imports torch itself.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

from selfemo_api.contract import ENV_RENDEZVOUS
from selfemo_api.metrics import TrainMetric
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput, BadRows
from selfemo_jobs.models.model_folder import model_sha256, read_model_config
from selfemo_jobs.models.stage_models import fetch_judge, fetch_policy, upload_model
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.fingerprint import config_fingerprint
from selfemo_jobs.runtime.manifest import canonical_json, read_manifest, rerun_advice
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.runtime.step_curve import STEP_CURVE
from selfemo_jobs.runtime.tables import read_tables
from selfemo_jobs.stages.train.best_responses import BestResponses
from selfemo_jobs.stages.train.collected_rows import CollectedRows
from selfemo_jobs.stages.train.launch import launch
from selfemo_jobs.stages.train.rollout_files import write_rollouts
from selfemo_jobs.stages.train.spoken_turns import SpokenTurns
from selfemo_jobs.stages.train.worker_protocol import TrainJob, TrainResult, write_json
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.store.local_files import translated_errors

log = logging.getLogger(__name__)

#: The parts of the spec that the trained model follows from.
RELEVANT = (
    "training",
    "warmStart.responderShare",
    "resources.nodes",
    "resources.gpusPerNode",
    "resources.processesPerNode",
    "selfPlay.roles",
    "selfPlay.temperature",
    "selfPlay.maxTokens.responder",
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
    uri, manifest = context.parent(Stage.FLYWHEEL)
    policy = fetch_policy(context)
    # rows that cannot be used are refused before any process is started
    rows_folder = context.work / f"rows-{context.shard}"
    tables = read_tables(context.store, uri, manifest, SCORED)
    spec = context.config.spec
    imitated: list[CollectedRows] = []
    if spec.imitates_responses:
        imitated.append(BestResponses(context.work / f"imitated-{context.shard}"))
    if spec.roles_teach_each_other:
        imitated.append(SpokenTurns(context.work / f"imitated-{context.shard}"))
    for collector in imitated:
        tables = collector.collected(tables)
    try:
        rows = write_rollouts(tables, rows_folder, _vocabulary(policy))
    except BadRows as error:
        raise BadInput(f"{error}: {rerun_advice(uri)}") from error
    if rows == 0:
        log.info("no group was kept: the policy is handed on unchanged")
        inputs = {"policy": model_sha256(policy)}
        output = StageOutput(inputs=inputs)
        if context.shard == 0:
            output = upload_model(context, policy, policy, inputs)
        return replace(output, metrics={TrainMetric.STEPS: 0.0})
    for collector in imitated:
        collector.write(rows_folder)
    reference = _fetch_reference(context)
    inputs = _model_hashes(policy, reference)
    job = _job(context, policy, reference, inputs)
    single_node = context.shards == 1
    published = None if single_node else context.with_inputs(inputs).find_output(0)
    if published is not None:
        return published if context.shard == 0 else StageOutput(inputs=inputs)
    # Nodes train together or not at all. A result of before is used where no other node waits.
    if not (job.result_file.is_file() and _others_have_ended(context.with_inputs(inputs))):
        job.result_file.unlink(missing_ok=True)
        launch(job, _write_job(job, rows_folder))
    if context.shard != 0:  # the first node publishes the model
        return StageOutput(inputs=inputs, report=_meeting())
    result = TrainResult.model_validate_json(job.result_file.read_bytes())
    return replace(
        upload_model(context, job.model_folder, policy, inputs),
        rows=rows,
        metrics=result.metrics,
        report={STEP_CURVE: result.steps},
    )


def _others_have_ended(context: StageContext) -> bool:
    """Return whether all other nodes have ended, after they trained with this one.

    They may have done so in an earlier attempt. In this one, they then wait for this node.
    """
    outputs = [context.find_output(node) for node in range(1, context.shards)]
    return all(output is not None and output.report == _meeting() for output in outputs)


def _meeting() -> dict[str, str | None]:
    """Return what names the attempt in a node's output: where its nodes meet."""
    return {"rendezvous": os.environ.get(ENV_RENDEZVOUS)}


def _fetch_reference(context: StageContext) -> Path | None:
    """Return the folder of the model that the KL term refers to; None: the policy, or no term."""
    config = context.config
    if config.spec.training.kl_beta > 0 and config.judge_uri != config.policy_uri:
        return fetch_judge(context)
    return None


def _model_hashes(policy: Path, reference: Path | None) -> dict[str, str]:
    """Return the SHA-256 of each model that the training follows from."""
    hashes = {"policy": model_sha256(policy)}
    return hashes if reference is None else hashes | {"reference": model_sha256(reference)}


def _job(
    context: StageContext, policy: Path, reference: Path | None, models: dict[str, str]
) -> TrainJob:
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
    reference
        The folder of the model that the KL term refers to.
    models
        The hashes of both.
    """
    config, spec, training = context.config, context.config.spec, context.config.spec.training
    follows_from = {
        "config": config_fingerprint(config, RELEVANT),
        "kept": read_manifest(context.store, config.parents[Stage.FLYWHEEL.slug])[1],
        "models": models,
    }
    digest = sha256(canonical_json(follows_from))[:16]
    for other in context.work.glob(f"job-*-{context.shard}"):
        if other.name != f"job-{digest}-{context.shard}":
            shutil.rmtree(other)
    return TrainJob(
        evolution=config.evolution,
        training=training,
        resources=config.spec.resources,
        seed=config.seed,
        prompts=config.spec.model.prompts,
        prompt_templates=config.spec.model.prompt_templates,
        responder_share=spec.warm_start.responder_share if spec.imitates_responses else 0.0,
        labels=spec.dataset.labels,
        max_prompt_tokens=spec.model.max_prompt_tokens,
        max_response_tokens=spec.self_play.max_tokens.responder,
        temperature=config.spec.self_play.temperature,
        folder=context.work / f"job-{digest}-{context.shard}",
        policy=policy,
        reference=reference,
    )


def _write_job(job: TrainJob, rows_folder: Path) -> Path:
    """Write a job to its folder, and move its rows there; return the path of the job's file."""
    with translated_errors(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(job.rows_folder, ignore_errors=True)
        rows_folder.rename(job.rows_folder)
    file = job.folder / "job.json"
    write_json(file, job)
    return file


def _vocabulary(policy: Path) -> int | None:
    """Return the size of a model's vocabulary, or None if its configuration does not have it."""
    config = read_model_config(policy)
    size = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    return int(size) if size is not None else None


PROGRAM = StageProgram(stage=Stage.TRAIN, work=run_train, relevant=RELEVANT)
