"""The self-play stage: the policy plays both roles, which gives groups of candidates."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.metrics import ProgressField
from selfemo_api.seeds import derive_seed
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.source_files import SourceFiles
from selfemo_jobs.datasets.stored_source import store_source
from selfemo_jobs.engines import open_engine
from selfemo_jobs.models.model_folder import model_sha256
from selfemo_jobs.models.stage_models import fetch_policy
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import Part
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.schemas import CANDIDATES, LABEL_SETS
from selfemo_jobs.runtime.tables import load_table, put_table
from selfemo_jobs.stages.selfplay.episodes import (
    Episode,
    EpisodePlan,
    SourceDialogues,
    parts_of_shard,
    plan_episodes,
    split_into_parts,
)
from selfemo_jobs.stages.selfplay.metrics import (
    Counts,
    count_part,
    label_counts,
    sampled_share,
    self_play_metrics,
)
from selfemo_jobs.stages.selfplay.self_player import SelfPlayer

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine

log = logging.getLogger(__name__)


def run_self_play(context: StageContext) -> StageOutput:
    """Generate the candidates of this shard. Parts that an earlier attempt wrote are kept.

    Parameters
    ----------
    context
        The context of the stage.

    Returns
    -------
    StageOutput
        The parts of this shard, with their metrics.

    Raises
    ------
    BadInput
        If a source, the model or an argument of the engine is wrong.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    spec = context.config.spec
    sources, hashes = fetch_sources(context)
    policy = fetch_policy(context)
    inputs = {**hashes, "policy": model_sha256(policy)}
    context = context.with_inputs(inputs)
    plan = plan_generation(context, sources)
    parts = split_into_parts(plan, spec.self_play)
    sampled = sampled_share(spec.self_play, len(plan))
    numbers = parts_of_shard(len(parts), context.shard, context.shards)
    finished: list[Part] = []
    counts: dict[str, Counts] = {}
    missing = []
    for number in numbers:
        stored = load_table(context, part_path(number), CANDIDATES)
        if stored is None:
            missing.append(number)
        else:
            part, table = stored
            finished.append(part)
            counts[part.path] = count_part(table, sampled)
    if missing:
        engine = _open_engine(context, policy)
        try:
            finished += play_parts(context, engine, parts, missing, counts, sampled)
        finally:
            engine.close()
    label_sets = any(source.has_label_sets for source in sources)
    output = _output(finished, counts, spec.dataset.labels, label_sets=label_sets)
    return replace(output, inputs=inputs)


def fetch_sources(context: StageContext) -> tuple[list[SourceDialogues], dict[str, str]]:
    """Return the dialogues of all self-play sources, fetched to this machine, and their hashes.

    Parameters
    ----------
    context
        The context of the stage.

    Returns
    -------
    sources : list of SourceDialogues
        The dialogues.
    hashes : dict of str to str
        The SHA-256 of the content of each source, by ``source:<name>``.

    Raises
    ------
    BadInput
        If a source cannot be read.
    Unavailable
        If the storage cannot be reached, or a source changes while it is read.
    """
    spec = context.config.spec
    fetched: dict[str, tuple[SourceFiles, str]] = {}

    def fetch(uri: str) -> SourceFiles:
        files = fetch_source(uri, context.store, context.work)
        fetched[uri] = files, files.content_sha256()
        return files

    sources = read_sources(spec, fetch, context.work)
    for files, digest in fetched.values():
        files.check_unchanged(digest)
    return sources, {f"source:{s.name}": fetched[s.uri][1] for s in spec.dataset.self_play}


def plan_generation(context: StageContext, sources: Sequence[SourceDialogues]) -> EpisodePlan:
    """Return the episodes of the generation, for all shards together.

    Parameters
    ----------
    context
        The context of the stage.
    sources
        The dialogues of all self-play sources.
    """
    spec = context.config.spec
    return plan_episodes(sources, spec.self_play, spec.dataset.labels, context.config.seed)


def read_sources(
    spec: EvolutionSpec, locate: Callable[[str], SourceFiles | Path], work: Path
) -> list[SourceDialogues]:
    """Return the dialogues of all self-play sources, in scratch files.

    Parameters
    ----------
    spec
        The spec of the evolution.
    locate
        Returns the files at a URI on this machine.
    work
        The scratch folder.

    Raises
    ------
    BadInput
        If a source cannot be read.
    """
    return [
        SourceDialogues(
            source.name,
            store_source(
                spec.dataset, source, locate(source.uri), work, read_labels=source.use_labels
            ),
            source.use_labels,
            source.sample,
        )
        for source in spec.dataset.self_play
    ]


def part_path(number: int) -> str:
    """Return the path of a part below the stage's folder. It does not depend on the shard.

    Examples
    --------
    >>> part_path(3)
    'part-00003.parquet'
    """
    return f"part-{number:05d}.parquet"


def merge_shards(outputs: Sequence[StageOutput]) -> StageOutput:
    """Return the outputs of all shards as one, equal to the output of a single shard."""
    parts = [part for output in outputs for part in output.parts]
    counts: dict[str, Counts] = {}
    for output in outputs:
        counts.update(output.report["parts"])
    report = outputs[0].report
    return _output(parts, counts, list(report["labels"]), label_sets=LABEL_SETS in report)


def play_parts(
    context: StageContext,
    engine: TextEngine,
    parts: Mapping[int, Sequence[Episode]] | Sequence[Sequence[Episode]],
    missing: Sequence[int],
    counts: dict[str, Counts],
    sampled: float = 1.0,
) -> list[Part]:
    """Play the episodes of some parts; write and return the parts.

    Parameters
    ----------
    context
        The context of the stage.
    engine
        The engine, with the policy.
    parts
        The episodes of each part, by the part's number.
    missing
        The numbers of the parts to play.
    counts
        The counts of each part are added to it, by the part's path.
    sampled
        The share of the responses whose bigrams are counted.
    """
    config = context.config
    player = SelfPlayer(engine, config.spec, config.generation)
    written = []
    done, total, tokens = 0, sum(len(parts[n]) for n in missing), 0
    began = time.monotonic()
    for number in missing:
        rows = player.generate_candidates(parts[number], derive_seed(config.seed, "part", number))
        part = put_table(context, part_path(number), rows)
        counts[part.path] = count_part(rows, sampled)
        written.append(part)
        done += len(parts[number])
        tokens += counts[part.path]["tokens"]
        rate = tokens / max(time.monotonic() - began, 1e-9)
        context.progress(done, total, {ProgressField.TOKENS_PER_SECOND: round(rate, 1)})
    return written


def _open_engine(context: StageContext, policy: Path) -> TextEngine:
    spec = context.config.spec
    longest = spec.self_play.max_tokens
    return open_engine(
        spec.self_play.engine,
        policy,
        engine_args=spec.self_play.engine_args,
        max_model_len=spec.model.max_prompt_tokens + max(longest.recognizer, longest.responder),
        seed=context.config.seed,
    )


def _output(
    parts: Sequence[Part], counts: dict[str, Counts], labels: Sequence[str], *, label_sets: bool
) -> StageOutput:
    """Return the output with some parts.

    Parameters
    ----------
    parts
        The parts, in any order.
    counts
        The counts of each part, by its path.
    labels
        The label set.
    label_sets
        Whether a labeled turn of a source has several labels.
    """
    return StageOutput(
        parts=sorted(parts, key=lambda part: part.path),
        rows=sum(part.rows or 0 for part in parts),
        metrics=self_play_metrics(counts, labels),
        report={
            "labels": label_counts(counts, labels),
            "parts": {path: counts[path] for path in sorted(counts)},
            **({LABEL_SETS: True} if label_sets else {}),
        },
    )


#: The parts of the spec that the candidates follow from. The engine and its arguments may change
#: them.
RELEVANT = (
    "dataset.labels",
    "dataset.sources.selfPlay",
    "dataset.columns",
    "dataset.labelMap",
    "dataset.context",
    "selfPlay",
    "reward.judge.views",
    "reward.judge.weight",
    "model.prompts",
    "model.promptTemplates",
    "model.maxPromptTokens",
)

PROGRAM = StageProgram(
    stage=Stage.SELF_PLAY,
    work=run_self_play,
    relevant=RELEVANT,
    merge=merge_shards,
)
