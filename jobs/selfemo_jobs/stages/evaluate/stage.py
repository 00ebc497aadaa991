"""The evaluate stage: reads every labeled utterance greedily and says how well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from selfemo_api.metrics import EvaluateMetric, ProgressField
from selfemo_api.results import SourceScore
from selfemo_api.spec import Engine, EvolutionSpec, Source
from selfemo_api.stages import Stage
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.load import load_source
from selfemo_jobs.engines import open_engine
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.model_folder import model_sha256
from selfemo_jobs.models.stage_models import fetch_policy
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import Part
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.tables import load_table, put_table
from selfemo_jobs.stages.evaluate.metrics import confusion_matrices, score_source
from selfemo_jobs.stages.evaluate.predictions import (
    PREDICTIONS,
    LabeledPrompt,
    greedy_sampling,
    labeled_prompts,
    prediction_table,
    read_predictions,
)
from selfemo_jobs.store.hashing import file_sha256, sha256

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine

#: What the figures follow from.
RELEVANT = (
    "dataset.labels",
    "dataset.evaluation",
    "dataset.context",
    "model.revision",
    "model.prompts",
    "model.maxPromptTokens",
    "selfPlay.maxTokens.recognizer",
    "selfPlay.engine",
    "selfPlay.engineArgs",
    "evaluation",
)
#: Utterances in one part file: what a killed attempt loses at most. Prompts are put into batches
#: by length within a block, so a smaller one would pad more.
BLOCK = 1024


@dataclass(frozen=True)
class _Source:
    """An evaluation source, ready to be asked."""

    source: Source
    sha256: str
    """Of the file."""
    asked: list[LabeledPrompt]

    def blocks(self) -> Iterator[tuple[int, list[LabeledPrompt]]]:
        """Yield the number and the questions of each part."""
        for start in range(0, len(self.asked), BLOCK):
            yield start // BLOCK, self.asked[start : start + BLOCK]


class _Model:
    """The policy; its weights are loaded only if there is something left to ask."""

    def __init__(self, context: StageContext) -> None:
        config = context.config
        self._spec = config.spec
        self._seed = config.seed
        self.folder = fetch_policy(context)
        self.tokenizer = load_tokenizer(self.folder)
        self._engine: TextEngine | None = None

    @cached_property
    def sha256(self) -> str:
        """Hash of all files of the model."""
        return model_sha256(self.folder)

    @property
    def sampling(self) -> Sampling:
        """Greedy."""
        spec = self._spec
        return greedy_sampling(spec.model.prompts, spec.self_play.max_tokens.recognizer)

    def answer(self, asked: list[LabeledPrompt], labels: list[str]) -> pa.Table:
        """Return the answers to questions as a table."""
        if self._engine is None:
            self._engine = open_engine(
                self._spec.evaluation_engine,
                self.folder,
                engine_args=engine_args(self._spec),
                max_model_len=self._spec.model.max_prompt_tokens + self.sampling.max_tokens,
                seed=self._seed,
            )
        completions = self._engine.generate([q.prompt_ids for q in asked], self.sampling)
        return prediction_table(asked, [group[0] for group in completions], labels)

    def close(self) -> None:
        """Free what was loaded."""
        if self._engine is not None:
            self._engine.close()


def engine_args(spec: EvolutionSpec) -> dict[str, Any]:
    """Return what the evaluation's engine is given.

    ``selfPlay.engineArgs`` are for self-play's engine: another one does not know them. vLLM makes
    its own batches; the Transformers engine takes ``evaluation.batchSize``.
    """
    same = spec.evaluation_engine == spec.self_play.engine
    arguments = dict(spec.self_play.engine_args) if same else {}
    if spec.evaluation_engine is Engine.TRANSFORMERS:
        arguments["batch_size"] = spec.evaluation.batch_size
    return arguments


def evaluate(context: StageContext) -> StageOutput:
    """Do the stage.

    Raises
    ------
    BadInput
        If a source or the model cannot be read, a source has no labels, or the selecting one none
        with a share.
    """
    spec = context.config.spec
    dialogues = [(source, *_load(context, source)) for source in spec.dataset.evaluation]
    model = _Model(context)
    sources = []
    for source, digest, loaded in dialogues:
        try:
            asked = labeled_prompts(
                loaded, spec.dataset.labels, spec.dataset.context, spec.model, model.tokenizer
            )
        except BadInput as error:
            raise BadInput(f"{source.uri}: {error}") from None
        shares = _shares(spec, source.name)
        if shares and not any(shares[question.gold] for question in asked):
            raise BadInput(
                f"{source.uri}: no utterance's emotion has a share above 0 in "
                "`evaluation.labelPrior`"
            )
        sources.append(_Source(source, digest, asked))
    try:
        return _read_all(context, model, sources)
    finally:
        model.close()


def _load(context: StageContext, source: Source) -> tuple[str, list[Any]]:
    path = fetch_source(source.uri, context.store, context.work)
    labels = context.config.spec.dataset.labels
    dialogues = load_source(source, labels, path, read_labels=True)
    if not any(turn.labels for dialogue in dialogues for turn in dialogue.turns):
        raise BadInput(f"{source.uri} has no labels: an evaluation source needs them")
    return file_sha256(path), dialogues


def _read_all(context: StageContext, model: _Model, sources: list[_Source]) -> StageOutput:
    spec = context.config.spec
    total, done = sum(len(s.asked) for s in sources), 0
    parts: list[Part] = []
    scores: list[SourceScore] = []
    reports: dict[str, Any] = {}
    malformed: dict[str, float] = {}
    for source in sources:
        name, tables = source.source.name, []
        for number, asked in source.blocks():
            part, table = _block(context, model, name, number, asked)
            parts.append(part)
            tables.append(table)
            done += len(asked)
            context.progress(done, total)
        table = pa.concat_tables(tables)
        found = _score(context, name, table)
        scores.append(found)
        malformed[name] = 1.0 - float(pc.mean(table["well_formed"]).as_py())
        reports[name] = _report(table, spec, name) | {"sha256": source.sha256}
        context.progress(done, total, {ProgressField.WEIGHTED_F1: found.weighted_f1})
    scores.sort(key=lambda s: s.source != spec.selection_dataset)  # the selecting source first
    return StageOutput(
        parts=parts,
        rows=total,
        metrics=_metrics(scores[0], malformed[scores[0].source]),
        scores=scores,
        report={"sources": reports, "modelSha256": model.sha256},
    )


def _block(
    context: StageContext, model: _Model, source: str, number: int, asked: list[LabeledPrompt]
) -> tuple[Part, pa.Table]:
    """Return a part with its table: an earlier attempt's, or made now.

    The path holds a hash of all that the answers follow from: a file or a model that was mended
    between two attempts is never answered with what the old one said.
    """
    spec = context.config.spec
    follows_from = {
        "model": model.sha256,
        "sampling": vars(model.sampling),
        "engine": [spec.evaluation_engine.value, engine_args(spec)],
        "labels": spec.dataset.labels,
        "asked": [vars(q) for q in asked],
    }
    digest = sha256(json.dumps(follows_from, sort_keys=True).encode())
    path = f"predictions/{source}/part-{number:05d}-{digest[:12]}.parquet"
    stored = load_table(context, path, PREDICTIONS)
    if stored is not None:
        return stored
    table = model.answer(asked, spec.dataset.labels)
    return put_table(context, path, table), table


def _score(context: StageContext, name: str, table: pa.Table) -> SourceScore:
    spec = context.config.spec
    return score_source(
        name,
        spec.dataset.labels,
        read_predictions(table, spec.dataset.labels),
        label_prior=_shares(spec, name),
        resamples=spec.evaluation.bootstrap,
        seed=context.config.seed,
    )


def _shares(spec: EvolutionSpec, source: str) -> dict[str, float] | None:
    """Return the shares that a source's emotions are weighed to, None for all but the selecting."""
    return spec.evaluation.label_prior if source == spec.selection_dataset else None


def _report(table: pa.Table, spec: EvolutionSpec, source: str) -> dict[str, Any]:
    """Return counts, and the shares that the figures are weighed to, where they are."""
    labels = spec.dataset.labels
    confusion = confusion_matrices(read_predictions(table, labels), len(labels)).sum(axis=0)
    shares = _shares(spec, source)
    return {
        "labels": list(labels),
        "confusion": confusion.tolist(),
        "support": confusion.sum(axis=1).tolist(),
        **({"shares": shares} if shares else {}),
    }


def _metrics(selecting: SourceScore, malformed: float) -> dict[str, float]:
    return {
        EvaluateMetric.WEIGHTED_F1: selecting.weighted_f1,
        EvaluateMetric.STRICT_WEIGHTED_F1: selecting.strict_weighted_f1,
        EvaluateMetric.MACRO_F1: selecting.macro_f1,
        EvaluateMetric.ACCURACY: selecting.accuracy,
        EvaluateMetric.UNPARSABLE: selecting.unparsable,
        EvaluateMetric.MALFORMED: round(malformed, 6),
        EvaluateMetric.LABEL_ENTROPY: selecting.label_entropy,
    }


PROGRAM = StageProgram(stage=Stage.EVALUATE, work=evaluate, relevant=RELEVANT)
