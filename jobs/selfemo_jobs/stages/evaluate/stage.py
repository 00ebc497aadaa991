"""The evaluate stage: the policy labels each labeled utterance greedily, and is scored."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from selfemo_api.comparison import changed_dataset
from selfemo_api.metrics import EvaluateMetric, ProgressField
from selfemo_api.results import SourceScore
from selfemo_api.spec import EvolutionSpec, Source
from selfemo_api.stages import Stage
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.json_lines import to_json_lines
from selfemo_jobs.datasets.load import load_dialogues, require_labels
from selfemo_jobs.engines import open_engine
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.errors import BadInput
from selfemo_jobs.evaluation.prediction_table import (
    PREDICTIONS,
    dialogues_path,
    predictions_prefix,
)
from selfemo_jobs.evaluation.scoring import (
    compared_labels,
    compares_sets,
    prediction_counts,
    score_predictions,
)
from selfemo_jobs.inference.predictions import (
    LabeledPrompt,
    greedy_sampling,
    labeled_prompts,
    prediction_table,
)
from selfemo_jobs.inference.targets import PART_PROMPTS
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.model_description import evaluation_arguments
from selfemo_jobs.models.model_folder import model_sha256
from selfemo_jobs.models.stage_models import fetch_baseline, fetch_policy
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import Part
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.tables import load_table, put_table
from selfemo_jobs.stages.evaluate.expression import (
    Baseline,
    Sample,
    completion_tokens,
    draw_sample,
    measure_expression,
    plays_responder,
)
from selfemo_jobs.store.hashing import sha256

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine

#: The parts of the spec that the scores follow from.
RELEVANT = (
    "dataset.labels",
    "dataset.labelPrior",
    "dataset.sources.evaluation",
    "dataset.columns",
    "dataset.labelMap",
    "dataset.context",
    "model.revision",
    "model.prompts",
    "model.promptTemplates",
    "model.maxPromptTokens",
    "selfPlay.roles",
    "selfPlay.temperature",
    "selfPlay.topP",
    "selfPlay.maxTokens",
    "selfPlay.engine",
    "selfPlay.engineArgs",
    "evaluation",
)


@dataclass(frozen=True)
class _Source:
    """An evaluation source with the prompts of its labeled utterances."""

    source: Source
    sha256: str
    """The hash of the source's file."""
    dialogues: list[Dialogue]
    prompts: list[LabeledPrompt]
    sets: bool
    """Whether the labels of its utterances are compared as sets."""

    def parts(self) -> Iterator[tuple[int, list[LabeledPrompt]]]:
        """Yield the number and the prompts of each part: the most that a killed attempt loses."""
        for start in range(0, len(self.prompts), PART_PROMPTS):
            yield start // PART_PROMPTS, self.prompts[start : start + PART_PROMPTS]


class _Model:
    """The policy. Its weights are loaded when the first prompt has to be answered."""

    def __init__(self, context: StageContext) -> None:
        config = context.config
        self._spec = config.spec
        self._seed = config.seed
        self.folder = fetch_policy(context)
        self.tokenizer = load_tokenizer(self.folder)
        self._engine: TextEngine | None = None

    @cached_property
    def sha256(self) -> str:
        """The hash of all files of the model."""
        return model_sha256(self.folder)

    @property
    def sampling(self) -> Sampling:
        """The parameters of greedy sampling."""
        spec = self._spec
        return greedy_sampling(spec.model, spec.self_play.max_tokens.recognizer)

    @property
    def engine(self) -> TextEngine:
        """The engine with the model."""
        if self._engine is None:
            longest = self.sampling.max_tokens
            if plays_responder(self._spec):
                longest = max(longest, completion_tokens(self.tokenizer, self._spec))
            self._engine = open_engine(
                self._spec.evaluation_engine,
                self.folder,
                engine_args=evaluation_arguments(self._spec),
                max_model_len=self._spec.model.max_prompt_tokens + longest,
                seed=self._seed,
            )
        return self._engine

    def answer(self, prompts: list[LabeledPrompt], labels: list[str]) -> pa.Table:
        """Return the predictions for prompts as a table.

        Parameters
        ----------
        prompts
            The prompts.
        labels
            The label set.
        """
        completions = self.engine.generate([p.prompt_ids for p in prompts], self.sampling)
        return prediction_table(prompts, [group[0] for group in completions], labels)

    def close(self) -> None:
        """Free the model, if it was loaded."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None


def run_evaluate(context: StageContext) -> StageOutput:
    """Label the utterances of all evaluation sources, and score the answers.

    Parameters
    ----------
    context
        The context of the stage.

    Returns
    -------
    StageOutput
        The predictions, and the scores of each source. The selection dataset is first.

    Raises
    ------
    BadInput
        If a source or the model cannot be read, a source has no labels, no emotion of the selection
        dataset has a share above 0 in the label prior, or the files of the selection dataset have
        changed since the baseline was measured.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    spec = context.config.spec
    loaded = [(source, *_load(context, source)) for source in spec.dataset.evaluation]
    model = _Model(context)
    inputs = {f"source:{source.name}": digest for source, digest, _ in loaded}
    inputs["policy"] = model.sha256
    baseline = _baseline(context, model)
    if baseline is not None:
        inputs["baseline"] = baseline.sha256
    sources = []
    for source, digest, dialogues in loaded:
        try:
            prompts = labeled_prompts(
                dialogues, spec.dataset.labels, spec.dataset.context, spec.model, model.tokenizer
            )
        except BadInput as error:
            raise BadInput(f"{source.uri}: {error}") from None
        gold = [prompt.gold for prompt in prompts]
        sets = compares_sets(spec.evaluation.multi_label, gold)
        prior = _label_prior(spec, source.name)
        if prior and not _any_has_weight([compared_labels(g, sets=sets) for g in gold], prior):
            raise BadInput(
                f"{source.uri}: no utterance's emotion has a share above 0 in `dataset.labelPrior`"
            )
        sources.append(_Source(source, digest, dialogues, prompts, sets))
    try:
        output = _evaluate_sources(context.with_inputs(inputs), model, sources, baseline)
    finally:
        model.close()
    return replace(output, inputs=inputs)


def _baseline(context: StageContext, model: _Model) -> Baseline | None:
    """Return the model that reads responses, or None if there are none to read."""
    config = context.config
    if not plays_responder(config.spec):
        return None
    if config.baseline_uri in (None, config.policy_uri):
        return Baseline(model.folder, model.sha256)
    folder = fetch_baseline(context)
    return Baseline(folder, model_sha256(folder))


def _load(context: StageContext, source: Source) -> tuple[str, list[Dialogue]]:
    """Return the hash of a source's file, and its dialogues. Raises BadInput."""
    files = fetch_source(source.uri, context.store, context.work)
    spec, baseline = context.config.spec, context.config.baseline
    if source.name == spec.selection_dataset and baseline is not None:
        problem = changed_dataset(source.uri, baseline.sha256, files.sha256)
        if problem is not None:
            raise BadInput(problem)
    dialogues = load_dialogues(context.config.spec.dataset, source, files, read_labels=True)
    require_labels(dialogues, source.uri)
    return files.sha256, dialogues


def _evaluate_sources(
    context: StageContext, model: _Model, sources: list[_Source], baseline: Baseline | None
) -> StageOutput:
    """Return the output of the stage."""
    spec = context.config.spec
    rows, done = sum(len(s.prompts) for s in sources), 0
    sample = _sample(spec, sources) if baseline else None
    total = rows + (sample.responses if sample else 0)
    parts: list[Part] = []
    scores: list[SourceScore] = []
    reports: dict[str, Any] = {}
    malformed: dict[str, float] = {}
    for source in sources:
        name, tables = source.source.name, []
        parts.append(_put_dialogues(context, source))
        for number, prompts in source.parts():
            part, table = _predictions(context, model, name, number, prompts)
            parts.append(part)
            tables.append(table)
            done += len(prompts)
            context.progress(done, total)
        table = pa.concat_tables(tables)
        score = _score(context, source, table)
        if name == spec.selection_dataset:
            score = score.model_copy(update={"sha256": source.sha256})
        scores.append(score)
        malformed[name] = 1.0 - float(pc.mean(table["well_formed"]).as_py())
        reports[name] = _report(table, spec, source) | {"sha256": source.sha256}
        context.progress(done, total, {ProgressField.WEIGHTED_F1: score.weighted_f1})
    scores.sort(key=lambda s: s.source != spec.selection_dataset)  # the selection dataset is first
    expression = None
    if baseline and sample:
        expression = measure_expression(context, model, baseline, sample)
        context.progress(total, total)
    return StageOutput(
        parts=[*parts, *(expression.parts if expression else [])],
        rows=rows,
        metrics=_metrics(scores[0], malformed[scores[0].source]),
        scores=scores,
        expression=expression.score if expression else None,
        report={
            "sources": reports,
            "modelSha256": model.sha256,
            **({"expression": expression.report} if expression else {}),
        },
    )


def _sample(spec: EvolutionSpec, sources: list[_Source]) -> Sample:
    """Return what expression is measured on: contexts of the selection dataset."""
    selection = next(s for s in sources if s.source.name == spec.selection_dataset)
    return draw_sample(spec, selection.source.name, selection.dialogues)


def _put_dialogues(context: StageContext, source: _Source) -> Part:
    """Write the dialogues that were evaluated, with which the predictions can be read later."""
    data = gzip.compress(to_json_lines(source.dialogues), mtime=0)
    return context.put_part(dialogues_path(source.source.name), data)


def _predictions(
    context: StageContext, model: _Model, source: str, number: int, prompts: list[LabeledPrompt]
) -> tuple[Part, pa.Table]:
    """Return a part with its table. A part that an earlier attempt wrote is loaded.

    The part's path has a hash of all that the predictions follow from. So a part is not loaded if a
    source or the model was changed since then.

    Parameters
    ----------
    context
        The context of the stage.
    model
        The policy.
    source
        The name of the source.
    number
        The number of the part.
    prompts
        The prompts of the part.
    """
    spec = context.config.spec
    follows_from = {
        "model": model.sha256,
        "sampling": vars(model.sampling),
        "engine": [spec.evaluation_engine.value, evaluation_arguments(spec)],
        "labels": spec.dataset.labels,
        "asked": [vars(prompt) for prompt in prompts],  # the key is part of the hash
    }
    digest = sha256(json.dumps(follows_from, sort_keys=True).encode())
    path = f"{predictions_prefix(source)}part-{number:05d}-{digest[:12]}.parquet"
    stored = load_table(context, path, PREDICTIONS)
    if stored is not None:
        return stored
    table = model.answer(prompts, spec.dataset.labels)
    return put_table(context, path, table), table


def _score(context: StageContext, source: _Source, table: pa.Table) -> SourceScore:
    """Return the score of a source from the table of its predictions."""
    spec, name = context.config.spec, source.source.name
    return score_predictions(
        name,
        spec.dataset.labels,
        table,
        sets=source.sets,
        label_prior=_label_prior(spec, name),
        resamples=spec.evaluation.bootstrap,
        seed=context.config.seed,
    )


def _label_prior(spec: EvolutionSpec, source: str) -> dict[str, float] | None:
    """Return the label prior of a source. Only the selection dataset has one."""
    return spec.evaluation_label_prior if source == spec.selection_dataset else None


def _any_has_weight(gold: Sequence[Sequence[str]], prior: Mapping[str, float]) -> bool:
    """Return whether an utterance has only labels whose share in the label prior is above 0."""
    return any(all(prior[label] > 0.0 for label in labels) for labels in gold)


def _report(table: pa.Table, spec: EvolutionSpec, source: _Source) -> dict[str, Any]:
    """Return the counts of a source's predictions, and the label prior if there is one."""
    labels, prior = spec.dataset.labels, _label_prior(spec, source.source.name)
    return {
        "labels": list(labels),
        **prediction_counts(labels, table, sets=source.sets, label_prior=prior),
        **({"shares": prior} if prior else {}),
    }


def _metrics(score: SourceScore, malformed: float) -> dict[str, float]:
    """Return the metrics of the selection dataset.

    Parameters
    ----------
    score
        Its score.
    malformed
        The share of its answers that are not well formed.
    """
    return {
        EvaluateMetric.WEIGHTED_F1: score.weighted_f1,
        EvaluateMetric.STRICT_WEIGHTED_F1: score.strict_weighted_f1,
        EvaluateMetric.MACRO_F1: score.macro_f1,
        EvaluateMetric.ACCURACY: score.accuracy,
        EvaluateMetric.UNPARSABLE: score.unparsable,
        EvaluateMetric.MALFORMED: round(malformed, 6),
        EvaluateMetric.LABEL_ENTROPY: score.label_entropy,
    }


PROGRAM = StageProgram(stage=Stage.EVALUATE, work=run_evaluate, relevant=RELEVANT)
