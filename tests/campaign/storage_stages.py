"""A generation of small stages with a fixed result, each attempt a process of its own.

The processes are forked from one that has imported everything, so that an attempt takes a fraction
of a second.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import struct
import sys
import traceback
from multiprocessing.process import BaseProcess
from pathlib import Path

from selfemo_api.contract import ENV_TERMINATION_LOG, ENV_WORK, StageConfig
from selfemo_api.spec import EvolutionSpec, StorageSpec
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.models.stage_models import fetch_policy, upload_model
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import MANIFEST, Part, read_part
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.store.hashing import file_sha256

RUN = "default/demo-00000000"
#: The stages of the generation. Each reads the one before.
CHAIN = (Stage.SELF_PLAY, Stage.SCORE, Stage.TRAIN, Stage.EVALUATE)
_PARTS = 3
_TENSOR = {"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def spec_of(storage: StorageSpec) -> EvolutionSpec:
    """Return the spec of the generation."""
    source = {"uri": "file:///nowhere/demo.jsonl", "format": "JSONL"}
    sources = [{"name": use, "use": use, **source} for use in ("SelfPlay", "Evaluation")]
    document = {
        "model": {"uri": "file:///nowhere/model", "prompts": "compact-v1"},
        "dataset": {
            "labels": ["joy", "anger"],
            "sources": [{**source, "name": source["name"].lower()} for source in sources],
        },
        "storage": storage.to_json(),
    }
    return EvolutionSpec.model_validate(document)


def config_of(stage: Stage, storage: StorageSpec, policy: str, *, repair: bool) -> StageConfig:
    """Return the configuration of a stage."""
    root = f"{storage.uri}/{RUN}"
    index = CHAIN.index(stage)
    parent = CHAIN[index - 1] if index else None
    spec = spec_of(storage)
    return StageConfig(
        stage=stage,
        run=RUN,
        generation=1,
        seed=1,
        spec=spec,
        policy_uri=policy,
        judge_uri=spec.model.uri,
        output=f"{root}/{stage_prefix(1, stage)}",
        parents={parent.slug: f"{root}/{stage_prefix(1, parent)}/{MANIFEST}"} if parent else {},
        repair=repair,
    )


def work(context: StageContext) -> StageOutput:
    """Do a stage: its content follows from what it reads alone."""
    stage = context.config.stage
    content = b""
    for uri in context.config.parents.values():
        manifest = context.parent(CHAIN[CHAIN.index(stage) - 1])[1]
        parts = [p for p in manifest.parts if p.path.endswith(".parquet")]
        content = b"".join(read_part(context.store, uri, part) for part in parts)
    if stage is Stage.TRAIN:
        return upload_model(context, _train(context.work / "trained", content), context.work, {})
    if stage is Stage.EVALUATE:
        content = file_sha256(fetch_policy(context) / "model.safetensors").encode()
    return StageOutput(_write_parts(context, content), rows=_PARTS)


def _write_parts(context: StageContext, content: bytes) -> list[Part]:
    parts = []
    for number in range(_PARTS):
        path = f"part-{number:05d}.parquet"
        stored = context.load_part(path, bytes)
        text = f"{context.config.stage.slug} {number} of ".encode() + content
        parts.append(stored[0] if stored else context.put_part(path, text))
    return parts


def _train(folder: Path, content: bytes) -> Path:
    """Write a model that follows from some bytes."""
    folder.mkdir(exist_ok=True)
    header = json.dumps(_TENSOR).encode()
    value = struct.pack("<ff", len(content), sum(content) % 1000)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + value)
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    return folder


class Launcher:
    """Starts attempts of the stages.

    Parameters
    ----------
    environment
        The variables of the attempts, with the keys of the storage.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, "boto3", "botocore.session"])

    def start(self, config: StageConfig, folder: Path) -> BaseProcess:
        """Start an attempt, with its scratch folder, log and termination message in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        text = config.model_dump_json(by_alias=True)
        process = self._context.Process(target=_attempt, args=(text, str(folder)))
        process.start()
        return process


def _attempt(text: str, folder: str) -> None:
    log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ[ENV_WORK] = f"{folder}/work"
    os.environ[ENV_TERMINATION_LOG] = f"{folder}/termination"
    config = StageConfig.model_validate_json(text)
    Path(folder, "config.json").write_text(text)
    program = StageProgram(stage=config.stage, work=work, relevant=("selfPlay.temperature",))
    code = 1
    try:
        code = program.main(["--config", f"{folder}/config.json"])
    except BaseException:  # noqa: BLE001 - the log is the only place for it
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)
