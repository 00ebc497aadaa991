"""The score stage: the frozen judge reads the candidates, and every candidate gets its reward."""

from __future__ import annotations

import logging
from contextlib import ExitStack

from selfemo_api.seeds import derive_seed
from selfemo_api.stages import Stage
from selfemo_jobs.engines import open_engine
from selfemo_jobs.models.stage_models import fetch_judge
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import Part, canonical, read_part
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.schemas import CANDIDATES, SCORED
from selfemo_jobs.runtime.tables import decode_table, load_table, put_table
from selfemo_jobs.stages.score.judge import JudgeReader
from selfemo_jobs.stages.score.scoring import score_candidates
from selfemo_jobs.stages.score.tally import Tally, combined, metrics_of, report_of
from selfemo_jobs.store import join

log = logging.getLogger(__name__)

TABLE = ".parquet"


def work(context: StageContext) -> StageOutput:
    """Score every part of self-play that an earlier attempt has not scored.

    Raises
    ------
    BadInput
        If self-play's result is not there, was changed, or does not fit the spec.
    """
    uri, manifest = context.parent(Stage.SELF_PLAY)
    tables = [part for part in manifest.parts if part.path.endswith(TABLE)]
    parts: list[Part] = []
    tallies: list[Tally] = []
    with ExitStack() as stack:
        scorer = _Scorer(context, stack)
        for done, candidates in enumerate(tables):
            stored = _load_scored(context, candidates.path)
            scored_parts, tally = stored or scorer.score(uri, candidates)
            parts += scored_parts
            tallies.append(tally)
            context.progress(done + 1, len(tables))
    total = combined(tallies)
    spec = context.config.spec
    if tables and not total.recognizer.groups + total.responder.groups:
        log.warning("no group is left: none of the recognizer's votes has an outcome")
    return StageOutput(
        parts=parts,
        rows=total.recognizer.rows + total.responder.rows,
        metrics=metrics_of(total, spec.reward),
        report=report_of(total, spec.dataset.labels, spec.reward),
    )


class _Scorer:
    """Scores parts; the judge is loaded for the first of them, and only then."""

    def __init__(self, context: StageContext, stack: ExitStack) -> None:
        self._context = context
        self._stack = stack
        self._reader: JudgeReader | None = None

    def score(self, manifest_uri: str, candidates: Part) -> tuple[list[Part], Tally]:
        """Score one part, and write the result: the tally last, since it marks the part as done."""
        context, spec = self._context, self._context.config.spec
        where = join(manifest_uri.rsplit("/", 1)[0], candidates.path)
        data = read_part(context.store, manifest_uri, candidates)
        table = decode_table(data, where, CANDIDATES)
        self._reader = self._reader or self._open()
        seed = derive_seed(context.config.seed, candidates.path)
        scored = score_candidates(
            table,
            self._reader.read(table, seed, where),
            labels=spec.dataset.labels,
            reward=spec.reward,
            group_size=spec.self_play.group_size,
            seed=seed,
            where=where,
        )
        parts = [
            put_table(context, candidates.path, scored.table),
            context.put_part(tally_path(candidates.path), canonical(scored.tally.to_json())),
        ]
        return parts, scored.tally

    def _open(self) -> JudgeReader:
        config, spec = self._context.config, self._context.config.spec
        engine = open_engine(
            spec.self_play.engine,
            fetch_judge(self._context),
            engine_args=spec.self_play.engine_args,
            max_model_len=spec.model.max_prompt_tokens + spec.reading_tokens,
            seed=config.seed,
        )
        self._stack.callback(engine.close)
        return JudgeReader(engine, spec)


def tally_path(table_path: str) -> str:
    """Return where a part's tally is."""
    return table_path.removesuffix(TABLE) + ".tally.json"


def _load_scored(context: StageContext, path: str) -> tuple[list[Part], Tally] | None:
    """Return what an earlier attempt made of a part of self-play, or None where it has to be made.

    Parameters
    ----------
    context
        The stage's context.
    path
        The part's path, the same in self-play's folder and in this stage's.
    """
    tally = context.load_part(tally_path(path), Tally.model_validate_json)
    table = load_table(context, path, SCORED) if tally else None
    return ([table[0], tally[0]], tally[1]) if table and tally else None


PROGRAM = StageProgram(
    stage=Stage.SCORE,
    work=work,
    relevant=(
        "dataset.labels",
        "dataset.context",
        "model.revision",
        "model.prompts",
        "model.maxPromptTokens",
        "reward",
        "selfPlay.groupSize",
        "selfPlay.temperature",
        "selfPlay.topP",
        "selfPlay.maxTokens",
        "selfPlay.engine",
        "selfPlay.engineArgs",
    ),
)
