"""The SelfPlay stage: the policy episodes both roles; groups of candidates come out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.contract import StageConfig
from selfemo_api.metrics import ProgressField
from selfemo_api.seeds import derive_seed
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.load import load_source
from selfemo_jobs.engines import open_engine
from selfemo_jobs.models.stage_models import fetch_policy
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import Part
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.schemas import CANDIDATES
from selfemo_jobs.runtime.tables import load_table, put_table
from selfemo_jobs.stages.selfplay.episodes import (
    Episode,
    SourceDialogues,
    parts_of_shard,
    plan_episodes,
    split_into_parts,
)
from selfemo_jobs.stages.selfplay.metrics import Counts, count_part, label_counts, self_play_metrics
from selfemo_jobs.stages.selfplay.self_player import SelfPlayer

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine

log = logging.getLogger(__name__)


def run_self_play(context: StageContext) -> StageOutput:
    """Do the stage, or this shard's share of it. Parts that are there are kept.

    Raises
    ------
    BadInput
        If a source, the model or the engine's arguments are at fault.
    Unavailable
        If the storage stayed away.
    """
    parts = split_into_parts(plan(context), context.config.spec.self_play)
    mine = parts_of_shard(len(parts), context.shard, context.shards)
    done: list[Part] = []
    counts: dict[str, Counts] = {}
    missing = []
    for number in mine:
        stored = load_table(context, part_path(number), CANDIDATES)
        if stored is None:
            missing.append(number)
        else:
            part, table = stored
            done.append(part)
            counts[part.path] = count_part(table)
    if missing:
        engine = _open(context)
        try:
            done += play_parts(context, engine, dict(enumerate(parts)), missing, counts)
        finally:
            engine.close()
    return _output(done, counts, context.config)


def plan(context: StageContext) -> list[Episode]:
    """Return the generation's episodes, over all shards."""
    spec = context.config.spec
    sources = read_sources(spec, lambda uri: fetch_source(uri, context.store, context.work))
    return plan_episodes(sources, spec.self_play, spec.dataset.labels, context.config.seed)


def read_sources(spec: EvolutionSpec, locate: Callable[[str], Path]) -> list[SourceDialogues]:
    """Return what self-play is drawn from, read from where each URI's file is."""
    labels = spec.dataset.labels
    return [
        SourceDialogues(
            source.name,
            load_source(source, labels, locate(source.uri), read_labels=source.use_labels),
            source.use_labels,
            source.draw,
        )
        for source in spec.dataset.self_play
    ]


def part_path(number: int) -> str:
    """Return a part's path below the stage's folder; the same whichever shard episodes it."""
    return f"part-{number:05d}.parquet"


def join_shards(outputs: Sequence[StageOutput]) -> StageOutput:
    """Return all shards' outputs as one: what a single shard would have made."""
    parts = sorted((p for output in outputs for p in output.parts), key=lambda p: p.path)
    counts: dict[str, Counts] = {}
    for output in outputs:
        counts.update(output.report["parts"])
    return _joined(parts, counts, list(outputs[0].report["labels"]))


def play_parts(
    context: StageContext,
    engine: TextEngine,
    parts: Mapping[int, Sequence[Episode]],
    missing: Sequence[int],
    counts: dict[str, Counts],
) -> list[Part]:
    """Episode the missing parts and return them; their counts are added to ``counts`` by path."""
    config = context.config
    player = SelfPlayer(engine, config.spec, config.generation)
    made = []
    done, total, tokens = 0, sum(len(parts[n]) for n in missing), 0
    began = time.monotonic()
    for number in missing:
        rows = player.generate_candidates(parts[number], derive_seed(config.seed, "part", number))
        part = put_table(context, part_path(number), rows)
        counts[part.path] = count_part(rows)
        made.append(part)
        done += len(parts[number])
        tokens += counts[part.path]["tokens"]
        rate = tokens / max(time.monotonic() - began, 1e-9)
        context.progress(done, total, {ProgressField.TOKENS_PER_SECOND: round(rate, 1)})
    return made


def _open(context: StageContext) -> TextEngine:
    spec = context.config.spec
    longest = spec.self_play.max_tokens
    return open_engine(
        spec.self_play.engine,
        fetch_policy(context),
        engine_args=spec.self_play.engine_args,
        max_model_len=spec.model.max_prompt_tokens + max(longest.recognizer, longest.responder),
        seed=context.config.seed,
    )


def _output(parts: Sequence[Part], counts: dict[str, Counts], config: StageConfig) -> StageOutput:
    return _joined(sorted(parts, key=lambda p: p.path), counts, config.spec.dataset.labels)


def _joined(parts: Sequence[Part], counts: dict[str, Counts], labels: Sequence[str]) -> StageOutput:
    return StageOutput(
        parts=list(parts),
        rows=sum(part.rows or 0 for part in parts),
        metrics=self_play_metrics(counts, labels),
        report={
            "labels": label_counts(counts, labels),
            "parts": {path: counts[path] for path in sorted(counts)},
        },
    )


#: The number of shards changes no byte of the parts, but the engine and its arguments may.
RELEVANT = (
    "dataset.labels",
    "dataset.selfPlay",
    "dataset.context",
    "selfPlay",
    "reward.judge.views",
    "reward.judge.weight",
    "model.prompts",
    "model.maxPromptTokens",
)

PROGRAM = StageProgram(
    stage=Stage.SELF_PLAY,
    work=run_self_play,
    relevant=RELEVANT,
    merge=join_shards,
)
