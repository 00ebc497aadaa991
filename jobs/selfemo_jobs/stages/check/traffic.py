"""What a run does to its storage and to the API server. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from selfemo_api.spec import EvolutionSpec, Keep, Precision
from selfemo_api.stage_resources import pods_of
from selfemo_api.stages import Stage, stages_of
from selfemo_jobs.stages.check.token_counts import (
    expression_responses,
    groups_of,
    kept_groups,
    self_play_tokens,
)
from selfemo_jobs.stages.check.workload import Workload

#: The bytes of a part of a multipart request, as :mod:`selfemo_jobs.store.s3` has it.
_PART_BYTES = 16 << 20
#: The prompts of a part of Evaluate, as :mod:`selfemo_jobs.inference.targets` has it.
_PART_PROMPTS = 1024
#: The rows of a part of the flywheel, as :mod:`selfemo_jobs.stages.flywheel.kept_rows` has it.
_KEPT_ROWS = 65_536
#: Bytes of a row in the parts of a stage: without, and for each token of its completion. Counted in
#: the recorded runs of the tests (Parquet with zstd).
_ROW_BYTES = {Stage.SELF_PLAY: (75.0, 4.0), Stage.SCORE: (85.0, 5.0), Stage.FLYWHEEL: (60.0, 10.0)}
#: Bytes of an evaluated utterance: its answer, and its dialogue.
_ANSWER_BYTES = 34.0
#: Bytes of the objects of a stage beside its parts: manifest, record, description, report.
_STAGE_BYTES = 12_000.0
#: The operator's writes for each stage: statuses, the Job and events. Twelve a generation.
_WRITES_PER_STAGE = 2
#: Requests of S3 by stage: for its manifests, records and inputs, and for each of its parts.
#: Counted by `benchmarks/s3_requests.py`.
STAGE_REQUESTS: Mapping[Stage, tuple[float, float]] = {
    Stage.CHECK: (13.0, 0.0),
    Stage.WARM_START: (15.0, 0.0),
    Stage.SELF_PLAY: (24.0, 3.0),
    Stage.SCORE: (26.0, 6.0),
    Stage.FLYWHEEL: (9.0, 2.0),
    Stage.TRAIN: (39.0, 0.0),
    Stage.EVALUATE: (57.0, 2.0),
    Stage.PUBLISH: (67.0, 0.0),
}


@dataclass(frozen=True)
class Traffic:
    """What a run does to its storage and to the API server."""

    stored_bytes: float = 0.0
    """The bytes that a run leaves, with ``storage.keep``."""
    written_bytes: float = 0.0
    """The bytes that it writes, those of removed models included."""
    read_bytes: float = 0.0
    """The bytes that its stages read."""
    requests: float = 0.0
    """The requests of S3."""
    jobs: int = 0
    """The Jobs that are created, without retries."""
    pods: int = 0
    """Their pods."""
    api_writes: int = 0
    """The operator's writes."""


def weight_bytes(spec: EvolutionSpec) -> int:
    """Return the bytes of a stored weight: as training writes them."""
    on_gpu = spec.resources.gpus_per_node > 0
    return 2 if on_gpu and spec.training.precision is Precision.BFLOAT16 else 4


def parts_of(spec: EvolutionSpec, work: Workload) -> dict[Stage, int]:
    """Return the number of parts of each stage in a generation.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    """
    play = spec.self_play
    size = max(1, play.batch_prompts // (len(play.roles) * play.turns))
    parts = math.ceil(work.episodes / size)
    return {
        Stage.SELF_PLAY: parts,
        Stage.SCORE: parts,
        Stage.FLYWHEEL: max(1, math.ceil(_kept_rows(spec, work) / _KEPT_ROWS)),
        Stage.EVALUATE: math.ceil(work.evaluated / _PART_PROMPTS),
    }


def run_traffic(spec: EvolutionSpec, work: Workload, parameters: int) -> Traffic:
    """Return what a run does to its storage and to the API server, without retries.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    parameters
        The number of the model's parameters.
    """
    generations, warm = spec.stopping.max_generations, spec.has_warm_start
    model = float(parameters * weight_bytes(spec))
    rows = _row_bytes(spec, work)
    each = sum(rows.values()) + work.evaluated * _ANSWER_BYTES + 6 * _STAGE_BYTES
    models = generations + (1 if warm else 0)
    kept = models if spec.storage.keep is Keep.ALL else min(models, 2)
    # self-play, score, train and evaluate fetch a model; with expression, evaluate the baseline too
    each_fetches = 5 if expression_responses(spec, work) else 4
    fetched = each_fetches * generations + 1 + (1 if warm else 0)
    parts = parts_of(spec, work)
    parts[Stage.FLYWHEEL] = parts[Stage.SCORE]  # it reads each of them
    pieces = math.ceil(model / _PART_BYTES)
    requests = float(models * pieces + fetched * pieces)
    for generation in (0, *([1] * generations)):
        for stage in stages_of(generation, warm_start=warm):
            fixed, per_part = STAGE_REQUESTS[stage]
            requests += fixed + per_part * parts.get(stage, 0)
    all_stages = [
        stage
        for generation in range(generations + 1)
        for stage in stages_of(generation, warm_start=warm)
    ]
    stages = len(all_stages)
    small = generations * each + 4 * _STAGE_BYTES
    return Traffic(
        stored_bytes=kept * model + small,
        written_bytes=models * model + small,
        read_bytes=fetched * model + generations * sum(rows.values()),
        requests=requests,
        jobs=stages,
        pods=sum(pods_of(spec, stage) for stage in all_stages),
        api_writes=_WRITES_PER_STAGE * stages,
    )


def _kept_rows(spec: EvolutionSpec, work: Workload) -> float:
    """Return the number of rows that the flywheel keeps in a generation."""
    return sum(kept_groups(spec, work).values()) * spec.self_play.group_size


def _row_bytes(spec: EvolutionSpec, work: Workload) -> dict[Stage, float]:
    """Return the bytes of the rows of each stage in a generation."""
    size = spec.self_play.group_size
    rows = sum(groups_of(spec, work).values()) * size
    tokens = self_play_tokens(spec, work).generated
    share = _kept_rows(spec, work) / max(rows, 1)
    return {
        stage: (rows * fixed + tokens * per_token) * (share if stage is Stage.FLYWHEEL else 1.0)
        for stage, (fixed, per_token) in _ROW_BYTES.items()
    }
