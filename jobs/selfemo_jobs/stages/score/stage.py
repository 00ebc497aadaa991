"""The score stage: the frozen judge reads the candidates, and each candidate gets its reward."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

from selfemo_api.seeds import derive_seed
from selfemo_api.stages import Stage
from selfemo_jobs.engines import open_engine
from selfemo_jobs.errors import BadRows
from selfemo_jobs.models.model_folder import model_sha256
from selfemo_jobs.models.stage_models import fetch_judge
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import Part, canonical_json, read_part, wrong_rows
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.schemas import CANDIDATES, LABEL_SETS, SCORED
from selfemo_jobs.runtime.tables import decode_table, load_table, put_table
from selfemo_jobs.stages.score.judge import JudgeReader
from selfemo_jobs.stages.score.kept_states import KeptStates, open_kept_states
from selfemo_jobs.stages.score.score_summary import (
    ScoreSummary,
    merge_summaries,
    score_metrics,
    score_report,
)
from selfemo_jobs.stages.score.scoring import score_candidates
from selfemo_jobs.store import join

log = logging.getLogger(__name__)

#: The suffix of tables among the parts.
TABLE = ".parquet"


def run_score(context: StageContext) -> StageOutput:
    """Score the parts of self-play. Parts that an earlier attempt scored are kept.

    Parameters
    ----------
    context
        The context of the stage.

    Raises
    ------
    BadInput
        If self-play's result is missing or was changed, or does not fit the spec.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    uri, manifest = context.parent(Stage.SELF_PLAY)
    judge = fetch_judge(context)
    inputs = {"judge": model_sha256(judge)}
    context = context.with_inputs(inputs)
    tables = [part for part in manifest.parts if part.path.endswith(TABLE)]
    parts: list[Part] = []
    summaries: list[ScoreSummary] = []
    with ExitStack() as stack:
        scorer = _Scorer(context, judge, stack, label_sets=LABEL_SETS in manifest.report)
        for done, candidates in enumerate(tables):
            stored = _load_scored(context, candidates.name)
            scored_parts, summary = stored or scorer.score(uri, candidates)
            parts += scored_parts
            summaries.append(summary)
            context.progress(done + 1, len(tables))
    total = merge_summaries(summaries)
    spec = context.config.spec
    if tables and not total.recognizer.groups + total.responder.groups:
        log.warning("no group is left: none of the recognizer's votes has an outcome")
    return StageOutput(
        parts=parts,
        rows=total.recognizer.rows + total.responder.rows,
        metrics=score_metrics(total, spec.reward),
        report=score_report(total, spec.dataset.labels, spec.reward),
        inputs=inputs,
    )


class _Scorer:
    """Scores parts. The judge's weights are loaded when the first part is scored."""

    def __init__(
        self, context: StageContext, judge: Path, stack: ExitStack, *, label_sets: bool
    ) -> None:
        self._context = context
        self._judge = judge
        self._label_sets = label_sets
        self._stack = stack
        self._reader: JudgeReader | None = None
        self._states: KeptStates | None = None

    def score(self, manifest_uri: str, candidates: Part) -> tuple[list[Part], ScoreSummary]:
        """Score a part and write its result. The part counts as scored where both files are there.

        Parameters
        ----------
        manifest_uri
            The URI of self-play's manifest.
        candidates
            The part of self-play.

        Returns
        -------
        tuple
            The parts that were written, and the summary of the scores.
        """
        context, spec = self._context, self._context.config.spec
        part_uri = join(manifest_uri.rsplit("/", 1)[0], candidates.path)
        data = read_part(context.store, manifest_uri, candidates)
        table = decode_table(data, part_uri, CANDIDATES)
        self._reader = self._reader or self._open_judge()
        seed = derive_seed(context.config.seed, candidates.name)
        try:
            scored = score_candidates(
                table,
                self._reader.read(table, seed, part_uri),
                labels=spec.dataset.labels,
                reward=spec.reward,
                group_size=spec.self_play.group_size,
                label_prior=spec.dataset.label_prior,
                seed=seed,
                uri=part_uri,
            )
        except BadRows as error:
            raise wrong_rows(str(error), part_uri) from error
        if self._states is not None:
            self._states.put(candidates.name)
        part = put_table(context, candidates.name, scored.table)
        summary = canonical_json(scored.summary.to_json())
        return [part, context.put_part(summary_path(part.path), summary)], scored.summary

    def _open_judge(self) -> JudgeReader:
        config, spec = self._context.config, self._context.config.spec
        longest = max(spec.reading_tokens, spec.self_play.max_tokens.recognizer)
        engine = open_engine(
            spec.self_play.engine,
            self._judge,
            engine_args=spec.self_play.engine_args,
            max_model_len=spec.model.max_prompt_tokens + longest,
            seed=config.seed,
        )
        self._stack.callback(engine.close)
        reader = JudgeReader(engine, spec, label_sets=self._label_sets)
        self._states = open_kept_states(self._context, engine, reader.max_tokens)
        if self._states is not None:
            reader.use_states(self._states.states)
        return reader


def summary_path(table_path: str) -> str:
    """Return the path of the summary of a scored table, without the hash of the summary itself.

    The table's hash is in it: two attempts may score a part differently, and a summary only belongs
    to its own table.
    """
    return table_path.removesuffix(TABLE) + ".tally.json"


def _load_scored(context: StageContext, name: str) -> tuple[list[Part], ScoreSummary] | None:
    """Return the scores of a part that an earlier attempt wrote, or None.

    Parameters
    ----------
    context
        The stage's context.
    name
        The part's name, the same in self-play's folder and in this stage's.
    """
    table = load_table(context, name, SCORED)
    if table is None:
        return None
    summary = context.load_part(summary_path(table[0].path), ScoreSummary.model_validate_json)
    return ([table[0], summary[0]], summary[1]) if summary else None


#: The parts of the spec that the scores follow from.
RELEVANT = (
    "dataset.labels",
    "dataset.labelPrior",
    "dataset.context",
    "model.revision",
    "model.prompts",
    "model.promptTemplates",
    "model.maxPromptTokens",
    "reward",
    "selfPlay.roles",
    "selfPlay.groupSize",
    "selfPlay.temperature",
    "selfPlay.topP",
    "selfPlay.maxTokens",
    "selfPlay.engine",
    "selfPlay.engineArgs",
    "training.trainLayers",
)

PROGRAM = StageProgram(stage=Stage.SCORE, work=run_score, relevant=RELEVANT)
