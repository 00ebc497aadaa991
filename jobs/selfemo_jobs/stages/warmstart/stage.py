"""The warm start stage: supervised training on the labeled sources, before generation 0."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.metrics import ProgressField, WarmStartMetric
from selfemo_api.spec import EvolutionSpec, Source, View
from selfemo_api.stages import Stage
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.load import load_dialogues, require_labels
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.model_folder import model_sha256
from selfemo_jobs.models.stage_models import fetch_policy, upload_model
from selfemo_jobs.prompts import prompt_set_of
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.fingerprint import config_fingerprint
from selfemo_jobs.runtime.manifest import canonical_json
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.stages.warmstart.examples import Example, examples_of
from selfemo_jobs.stages.warmstart.options import TrainingOptions
from selfemo_jobs.store.hashing import sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from selfemo_jobs.stages.warmstart.early_stopping import WarmStartTraining
    from selfemo_jobs.stages.warmstart.selection import SelectionDataset

#: The parts of the spec that the trained model follows from.
RELEVANT = (
    "warmStart",
    "dataset.labels",
    "dataset.labelPrior",
    "dataset.sources.labeled",
    "dataset.sources.evaluation",
    "dataset.columns",
    "dataset.labelMap",
    "dataset.context",
    "model.revision",
    "model.prompts",
    "model.promptTemplates",
    "model.maxPromptTokens",
    "selfPlay.maxTokens.recognizer",
    "selfPlay.maxTokens.responder",
    "selfPlay.engine",
    "selfPlay.engineArgs",
    "reward.judge.views",
    "training.lora",
    "training.trainLayers",
    "training.precision",
    "training.gradientCheckpointing",
    "training.microBatchSize",
    "resources.gpusPerNode",
    "evaluation.selectionDataset",
    "evaluation.engine",
    "evaluation.useLabelPrior",
    "evaluation.multiLabel",
    "evaluation.batchSize",
)
#: What to do if the GPU has too little memory. There is no sharding: a warm start has one GPU.
_LESS_MEMORY = (
    "a warm start has one GPU for the model and its optimizer: set `training.lora` or "
    "`training.trainLayers`, or lower `training.microBatchSize`"
)


@dataclass(frozen=True)
class _Data:
    """What is learned from, and what is measured on."""

    recognizer: list[Example]
    responder: list[Example]
    utterances: int
    """The number of labeled utterances."""
    selection: SelectionDataset
    sources: dict[str, str]
    """The SHA-256 of the files of each source, by its name."""

    @property
    def sha256(self) -> str:
        """The hash of all examples and prompts."""
        return sha256(
            canonical_json(
                {
                    "recognizer": [asdict(example) for example in self.recognizer],
                    "responder": [asdict(example) for example in self.responder],
                    "selection": [asdict(prompt) for prompt in self.selection.prompts],
                }
            )
        )


def run_warm_start(context: StageContext) -> StageOutput:
    """Train the policy on the labeled sources until the selection dataset stops rising.

    Parameters
    ----------
    context
        The context of the stage.

    Returns
    -------
    StageOutput
        The model with the best weights. It is the policy itself if no step made it better.

    Raises
    ------
    BadInput
        If a source or the model cannot be used, or the loss is not finite.
    Terminated
        If SIGTERM arrived. The next attempt continues from a checkpoint.
    Unavailable
        If the storage or the hub cannot be reached.
    StageError
        If the memory of the GPU is too small.
    """
    from selfemo_jobs.models.memory_errors import memory_advice

    policy = fetch_policy(context)
    data = _load_data(context, load_tokenizer(policy))
    folder = _training_folder(context, policy, data)
    with memory_advice(_LESS_MEMORY):
        training = _train(context, policy, data, folder)
    trained = folder / "model" if training.best_weights else policy
    if training.best_weights:
        from selfemo_jobs.stages.warmstart.weights import write_trained

        write_trained(policy, context.config.spec.training, training.best_weights, trained)
    inputs = {f"source:{name}": digest for name, digest in data.sources.items()}
    inputs["policy"] = model_sha256(policy)
    return replace(
        upload_model(context, trained, policy, inputs),
        rows=data.utterances,
        metrics=_metrics(training, data),
        report={
            "selectionDataset": data.selection.name,
            "sources": data.sources,
            "evaluations": [
                {"step": point.step, "weightedF1": point.weighted_f1, "loss": point.loss}
                for point in training.evaluations
            ],
        },
    )


def _load_data(context: StageContext, tokenizer: PreTrainedTokenizerBase) -> _Data:
    """Return the examples and the selection dataset. Raises BadInput."""
    from selfemo_jobs.stages.warmstart.selection import selection_dataset, selection_source

    spec = context.config.spec
    prompts = prompt_set_of(spec.model)
    recognizer: list[Example] = []
    responder: list[Example] = []
    utterances, hashes = 0, {}
    for source in spec.dataset.labeled:
        hashes[source.name], dialogues = _load(context, source, "the warm start")
        try:
            recognized, replied = examples_of(
                dialogues,
                spec.dataset.labels,
                prompts,
                tokenizer,
                views=training_views(spec),
                past=spec.dataset.context.past,
                max_prompt_tokens=spec.model.max_prompt_tokens,
                max_response_tokens=spec.self_play.max_tokens.responder,
            )
        except BadInput as error:
            raise BadInput(f"{source.uri}: {error}") from None
        recognizer += recognized
        responder += replied
        utterances += sum(1 for d in dialogues for turn in d.turns if turn.labels)
    if not recognizer:
        raise BadInput("`warmStart.steps` requires a source with `use: Labeled`")
    selection = selection_source(spec)
    hashes[selection.name], dialogues = _load(context, selection, "an evaluation source")
    return _Data(
        recognizer, responder, utterances, selection_dataset(spec, dialogues, tokenizer), hashes
    )


def _load(context: StageContext, source: Source, use: str) -> tuple[str, list[Dialogue]]:
    """Return the hash of a source's files, and its dialogues. Raises BadInput."""
    files = fetch_source(source.uri, context.store, context.work)
    dialogues = load_dialogues(context.config.spec.dataset, source, files, read_labels=True)
    require_labels(dialogues, source.uri, use)
    return files.sha256, dialogues


def training_views(spec: EvolutionSpec) -> list[View]:
    """Return the views that the recognizer learns to read: the policy's own, and the judge's.

    Parameters
    ----------
    spec
        The spec of the evolution.
    """
    context = spec.dataset.context
    views: Sequence[View] = [View(past=context.past, future=context.future)]
    return list(dict.fromkeys([*views, *spec.reward.judge.views]))


def _training_folder(context: StageContext, policy: Path, data: _Data) -> Path:
    """Return the folder of the training's checkpoints.

    Its name has the hash of all that the training follows from. So a training only continues from
    its own checkpoints. The folders of other trainings are deleted.
    """
    follows_from = {
        "config": config_fingerprint(context.config, RELEVANT),
        "data": data.sha256,
        "model": model_sha256(policy),
    }
    folder = context.work / f"training-{sha256(canonical_json(follows_from))[:16]}"
    for other in context.work.glob("training-*"):
        if other != folder:
            shutil.rmtree(other)
    return folder


def _train(context: StageContext, policy: Path, data: _Data, folder: Path) -> WarmStartTraining:
    """Train the model until F1 stops rising; return the training with its best weights."""
    from selfemo_jobs.stages.warmstart.early_stopping import WarmStartTraining, constant_rate
    from selfemo_jobs.stages.warmstart.supervised_trainer import AT_ONCE, SupervisedTrainer
    from selfemo_jobs.stages.warmstart.weights import (
        load_for_training,
        precision_of,
        trained_layers,
    )

    config, spec = context.config, context.config.spec
    settings = spec.warm_start
    model = load_for_training(policy, spec, config.seed)
    trainer = SupervisedTrainer(
        model,
        data.recognizer,
        data.responder,
        TrainingOptions(
            steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            responder_share=settings.responder_share,
        ),
        pad=load_tokenizer(policy).pad_token_id,
        seed=config.seed,
        rate=lambda step: constant_rate(step, settings.steps),
        at_once=min(AT_ONCE, spec.training.micro_batch_size),
        precision=precision_of(spec),
        trained_layers=trained_layers(spec.training),
    )

    def report(step: int, fields: dict[ProgressField, float]) -> None:
        context.progress(step, settings.steps, fields)

    training = WarmStartTraining(
        trainer,
        settings,
        lambda: data.selection.weighted_f1(model, policy),
        folder / "checkpoints",
        spec.training.checkpoint_steps,
        report,
    )
    training.run()
    return training


def _metrics(training: WarmStartTraining, data: _Data) -> dict[str, float]:
    first, last = training.evaluations[0], training.evaluations[-1]
    return {
        WarmStartMetric.STEPS: float(last.step),
        WarmStartMetric.BEST_STEP: float(training.best.step),
        WarmStartMetric.UTTERANCES: float(data.utterances),
        WarmStartMetric.EXAMPLES: float(len(data.recognizer) + len(data.responder)),
        **({WarmStartMetric.LOSS: last.loss} if last.loss is not None else {}),
        WarmStartMetric.WEIGHTED_F1_BEFORE: first.weighted_f1,
        WarmStartMetric.WEIGHTED_F1: training.best.weighted_f1,
    }


PROGRAM = StageProgram(stage=Stage.WARM_START, work=run_warm_start, relevant=RELEVANT)
