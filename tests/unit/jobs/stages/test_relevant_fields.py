"""Which fields of the spec each stage's result follows from.

A stored result is used again only where those fields are unchanged (`StageProgram.relevant`). A
field that is missing there would let a stage use a result of other settings. So each leaf field of
the spec has a place: it is relevant to a stage, or it is listed here with the reason why the
stage's result does not follow from it. A new field fails the test until it has its place.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.jobs.stages.spec_fields import covering, leaf_fields
from tests.unit.jobs.stages.stage_programs import PROGRAMS, each_program

from selfemo_api import dataset_labels
from selfemo_api.api_model import ApiModel
from selfemo_api.contract import (
    ENV_SHARD,
    ENV_WORK,
    GenerationOutcome,
    RunOutcomes,
    StageConfig,
)
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage, stages_of
from selfemo_api.status import Best, Outcome
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.stages.train import stage as train_stage
from selfemo_jobs.stages.train.worker_protocol import TrainJob, TrainResult, write_json

DEMO = Path(__file__).resolve().parents[4] / "examples" / "demo"

_POD_TEMPLATE = (
    "image imagePullPolicy imagePullSecrets labels annotations nodeSelector tolerations affinity "
    "priorityClassName schedulerName runtimeClassName serviceAccountName volumes volumeMounts env "
    "resources securityContext envFrom initContainers resourceClaims topologySpreadConstraints "
    "dnsConfig hostAliases terminationGracePeriodSeconds"
)
#: The leaf fields of each part of the spec, written out: a new field is in none of them.
PARTS = {
    "": (
        "recipe overrides ablation seed suspend managedBy ttlSecondsAfterFinished publish trackers"
    ),
    "model": "uri revision resumeFrom prompts promptTemplates maxPromptTokens",
    "dataset": "preset uri labeledDialogues labels labelPrior columns labelMap",
    "dataset.sources": "name uri use format offset limit sample",
    "dataset.context": "past future",
    "warmStart": "steps patience evaluationSteps learningRate batchSize responderShare",
    "storage": (
        "uri endpoint region pathStyle checksums maxAttempts credentialsSecretRef.name whenDeleted "
        "keep"
    ),
    "selfPlay": (
        "shards dialogues targetsPerDialogue groupSize turns roles temperature topP "
        "maxTokens.recognizer maxTokens.responder engine engineArgs batchPrompts responderShare"
    ),
    "reward": (
        "signal smoothing consensus weights.alignment weights.consistency weights.format "
        "groupWeight minWords maxWords penalty"
    ),
    "reward.judge": "model samples maxTokens views.past views.future weight",
    "flywheel": (
        "minReward consistency.min consistency.max keep useLabelPrior maxShare replay "
        "deduplicate.exact deduplicate.near deduplicate.threshold runner rayAddress"
    ),
    "training": (
        "start imitation optimizer.learningRate optimizer.schedule optimizer.warmupRatio "
        "optimizer.maxGradNorm clip.low clip.high klBeta importanceCap epochs maxSteps batchSize "
        "microBatchSize precision gradientCheckpointing deepspeed.zeroStage deepspeed.offload "
        "lora.rank lora.alpha lora.dropout lora.targetModules trainLayers checkpointSteps"
    ),
    "resources": "accelerator nodes gpusPerNode processesPerNode",
    "evaluation": "selectionDataset useLabelPrior bootstrap engine batchSize multiLabel",
    "stopping": "maxGenerations goal patience",
    "stopping.collapse": "minEntropy maxDivergence maxZeroVariance minDiversity",
    "promotion": "minDelta onRegression",
    "queue": "name priorityClass",
    "failurePolicy": "maxAttempts maxDisruptions backoffSeconds",
    "deadlines": "stageActiveSeconds stagePendingSeconds runActiveSeconds",
    "podTemplate": "stages",
    "podTemplate.template": _POD_TEMPLATE,
}


def part(*names: str, without: str = "") -> set[str]:
    """Return the paths of the leaf fields of some parts of the spec, except for some of them."""
    paths = {f"{name}.{leaf}".strip(".") for name in names for leaf in PARTS[name].split()}
    return paths - set(without.split())


_PARENT = "The parent's manifest stands for it: its hash is part of what must be equal."
_LATER = "A later stage reads it."

#: Why a stage's result does not follow from a field, for all stages.
NO_STAGE: dict[str, set[str]] = {
    "The stage's own seed, which follows from it, is in the fingerprint.": {"seed"},
    "The URIs of the policy and the judge, which follow from it, are in the fingerprint.": {
        *("model.uri", "model.resumeFrom"),
    },
    "The spec is resolved: the settings that follow from it have their own values.": {
        *("recipe", "overrides", "ablation"),
        *("dataset.preset", "dataset.uri", "dataset.labeledDialogues"),
    },
    "Where data is stored changes no byte of it, and a run may be repeated elsewhere.": part(
        "storage", without="storage.keep"
    ),
    "The operator alone reads it: it decides which stages run, when, and how often.": part(
        "stopping",
        "stopping.collapse",
        "promotion",
        "failurePolicy",
        "deadlines",
        "",
        without="seed recipe overrides ablation publish trackers",
    ),
    "Where a pod runs changes no byte of the result.": part(
        "queue", "podTemplate", "podTemplate.template"
    )
    | {"resources.accelerator"},
}
_PUBLISHED = {"publish", "trackers", "storage.keep"}
_READING = part("dataset.sources") | {"dataset.columns", "dataset.labelMap"}
_PROCESSES = part("resources", without="resources.accelerator")
#: Why a stage's result does not follow from a field, by stage.
NOT_RELEVANT: dict[Stage, dict[str, set[str]]] = {
    Stage.CHECK: {
        "A problem in it fails the stage, which then has no result.": part(
            *("model", "dataset.context", "warmStart", "selfPlay", "reward", "reward.judge"),
            *("flywheel", "training", "evaluation"),
            without="model.uri model.resumeFrom model.revision",
        )
        | {"dataset.labelPrior"}
        | _PROCESSES,
    },
    Stage.WARM_START: {
        "It divides the work: a result does not depend on it.": {"training.checkpointSteps"},
        "A pod of a warm start has one GPU or none.": {
            *("resources.nodes", "resources.processesPerNode"),
        },
        "It measures F1 alone, without an interval.": {"evaluation.bootstrap"},
        _LATER: part(
            *("selfPlay", "reward", "reward.judge", "flywheel", "training"),
            without=(
                "selfPlay.engine selfPlay.engineArgs selfPlay.maxTokens.recognizer "
                "selfPlay.maxTokens.responder reward.judge.views.past reward.judge.views.future "
                "training.precision training.gradientCheckpointing training.microBatchSize "
                "training.trainLayers training.lora.rank training.lora.alpha training.lora.dropout "
                "training.lora.targetModules training.checkpointSteps"
            ),
        ),
    },
    Stage.SELF_PLAY: {
        "It is immutable, so all results of a run have the same one.": {"model.revision"},
        "An earlier stage reads it, and the policy's URI stands for it.": part("warmStart"),
        _LATER: (
            part("reward", "flywheel", "training", "evaluation")
            | {"reward.judge.model", "reward.judge.samples", "reward.judge.maxTokens"}
            | {"dataset.labelPrior"}
            | _PROCESSES
        ),
    },
    Stage.SCORE: {
        _PARENT: _READING
        | {
            *("selfPlay.shards", "selfPlay.dialogues", "selfPlay.targetsPerDialogue"),
            "selfPlay.responderShare",
            *("selfPlay.turns", "selfPlay.batchPrompts"),
        },
        "An earlier stage reads it, and the policy's URI stands for it.": part("warmStart"),
        _LATER: (
            part("flywheel", "training", "evaluation", without="training.trainLayers") | _PROCESSES
        ),
    },
    Stage.FLYWHEEL: {
        _PARENT: part(
            *("dataset.context", "selfPlay", "reward", "reward.judge", "warmStart"),
            "model",
            without="model.uri model.resumeFrom",
        )
        | _READING,
        "Where the program runs changes no byte of the result.": {
            *("flywheel.runner", "flywheel.rayAddress")
        },
        _LATER: part(*("training", "evaluation"), without="training.imitation training.batchSize")
        | _PROCESSES,
    },
    Stage.TRAIN: {
        _PARENT: part(
            *("dataset.context", "selfPlay", "flywheel", "reward", "reward.judge", "warmStart"),
            without=(
                "selfPlay.temperature selfPlay.roles selfPlay.maxTokens.responder "
                "warmStart.responderShare"
            ),
        )
        | _READING
        | {"dataset.labels", "dataset.labelPrior", "model.maxPromptTokens"},
        _LATER: part("evaluation"),
    },
    Stage.PUBLISH: {
        "The parents' manifests stand for it. Publish only shows and describes it.": part(
            *("model", "dataset", "dataset.context", "warmStart", "selfPlay", "reward"),
            *("reward.judge", "flywheel", "training", "evaluation"),
            without=(
                "model.uri model.resumeFrom dataset.preset dataset.uri dataset.labeledDialogues"
            ),
        )
        | _READING
        | _PROCESSES,
    },
    Stage.EVALUATE: {
        "It shapes the model that is measured, whose URI is in the fingerprint.": part(
            *("selfPlay", "reward", "reward.judge", "flywheel", "training", "warmStart"),
            without=(
                "selfPlay.engine selfPlay.engineArgs selfPlay.roles selfPlay.temperature "
                "selfPlay.topP selfPlay.maxTokens.recognizer selfPlay.maxTokens.responder"
            ),
        )
        | _PROCESSES,
    },
}
#: Fields that a stage reads all the same: to reach data, or to divide the work.
READ = {
    *part("storage", without="storage.whenDeleted storage.credentialsSecretRef.name"),
    *("model.uri", "model.revision"),  # the revision belongs to a model of this URI
    "training.checkpointSteps",
    *("flywheel.runner", "flywheel.rayAddress"),
    "dataset.sources.use",  # each stage finds its own sources by it
    "seed",  # Evaluate draws responses by it; the stage's own seed follows from it
    "resources.gpusPerNode",  # the record beside the manifest has the number of GPUs
}

#: Fields that the stages that train read for the description of the model. It is not part of the
#: result: no stage reads it, and its file is in no manifest.
DESCRIBED = {
    *("seed", "recipe", "dataset.labels", "dataset.preset", "model.prompts"),
    *("model.promptTemplates", "model.maxPromptTokens", "selfPlay.temperature", "selfPlay.topP"),
    *("selfPlay.engine", "selfPlay.engineArgs", "evaluation.engine", "evaluation.batchSize"),
    "evaluation.multiLabel",
    *("dataset.context.past", "dataset.sources.name", "dataset.sources.uri"),  # the model card
    "selfPlay.maxTokens.recognizer",
}


def reasons(stage: Stage) -> dict[str, str]:
    """Return the reason by field, for the fields that a stage's result does not follow from."""
    groups = [*NO_STAGE.items(), *NOT_RELEVANT[stage].items()]
    if stage is not Stage.PUBLISH:
        groups.append(("Publish alone uses it, after the result of this stage.", _PUBLISHED))
    return {path: reason for reason, paths in groups for path in paths}


def test_the_parts_have_the_fields_of_the_spec() -> None:
    fields = list(leaf_fields())
    written_out = part(*PARTS)
    assert sorted(written_out - set(fields)) == [], "no longer fields of the spec"
    assert sorted(set(fields) - written_out) == [], "new fields: give each its place"


@each_program
def test_each_field_is_relevant_or_has_a_reason_not_to_be(program: StageProgram) -> None:
    listed = reasons(program.stage)
    for path in leaf_fields():
        relevant = covering(path, program.relevant)
        assert relevant or path in listed, (
            f"`{path}` has no place in the stage {program.stage.value}: add it to the stage's "
            "`relevant` if the result follows from it, otherwise to NOT_RELEVANT with a reason"
        )
        assert not (relevant and path in listed), (
            f"`{path}` is relevant, and is not: {listed[path]}"
        )


@each_program
def test_each_relevant_path_is_a_part_of_the_spec(program: StageProgram) -> None:
    for path in program.relevant:
        assert any(covering(leaf, [path]) for leaf in leaf_fields()), path
    assert len({*program.relevant}) == len(program.relevant)


@contextmanager
def recorded_reads(spec: EvolutionSpec) -> Iterator[set[str]]:
    """Yield a set to which the path of each field that is read from a spec is added."""
    paths: dict[int, dict[str, str]] = {}

    def index(model: ApiModel, parent: str) -> None:
        paths[id(model)] = fields = {}
        for name, field in type(model).model_fields.items():
            fields[name] = path = f"{parent}{field.alias or name}"
            value = vars(model)[name]
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ApiModel):
                    index(item, f"{path}.")

    def read(model: ApiModel, name: str) -> Any:
        path = paths.get(id(model), {}).get(name)
        if path is not None:
            reads.add(path)
        return object.__getattribute__(model, name)

    reads: set[str] = set()
    index(spec, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ApiModel, "__getattribute__", read)
        yield reads


def train_without_processes(job: TrainJob, _file: Path) -> None:
    """Stand in for the processes that train: they are given the job, and no spec."""
    shutil.copytree(job.policy, job.model_folder)
    write_json(job.result_file, TrainResult(metrics={}))


def outcomes_of(config: StageConfig) -> RunOutcomes:
    """Return the outcomes after a generation that was promoted."""
    uri = config.output.replace("/publish", "/train/model")
    return RunOutcomes(
        best=Best(generation=1, f1=0.5, model_uri=uri),
        generations=[GenerationOutcome(generation=1, outcome=Outcome.PROMOTED, model_uri=uri)],
        baseline_uri=config.spec.model.uri,
        next_policy_uri=uri,
    )


def test_a_stage_reads_no_other_field(
    make_spec: Callable[..., EvolutionSpec],
    make_config: Callable[..., StageConfig],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A generation is run with most features on, and what each stage reads is recorded."""
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    monkeypatch.delenv(ENV_SHARD, raising=False)
    monkeypatch.setattr(train_stage, "launch", train_without_processes)
    train = {"name": "train", "use": "SelfPlay", "uri": f"file://{DEMO}/train.jsonl"}
    dev = {"name": "dev", "use": "Evaluation", "uri": f"file://{DEMO}/dev.jsonl", "limit": 4}
    shares = dict.fromkeys(dataset_labels.MELD, 1 / len(dataset_labels.MELD))
    spec = make_spec(
        model={"uri": tiny_model.as_uri()},
        dataset={
            "sources": [
                {**train, "limit": 4},
                {**train, "name": "labeled", "use": "Labeled", "limit": 2, "sample": 2},
                dev,
            ],
            "labelPrior": shares,
        },
        reward={"judge": {"samples": 2, "views": [{"past": 0}]}, "minWords": 1},
        flywheel={
            "minReward": -2.0,
            "consistency": {"min": 0, "max": 1},
            "maxShare": 1.0,
            "useLabelPrior": True,
        },
        training={"klBeta": 0.1, "imitation": 0.5},
        evaluation={"bootstrap": 5, "useLabelPrior": True},
        warmStart={"steps": 2, "evaluationSteps": 1, "batchSize": 4},
    )
    parents: dict[str, str] = {}
    for stage in (Stage.WARM_START, *stages_of(1)):
        (program,) = (p for p in PROGRAMS if p.stage is stage)
        generation = 0 if stage is Stage.WARM_START else 1
        config = make_config(stage, generation=generation, spec=spec, parents=parents)
        if stage is Stage.PUBLISH:
            config = config.model_copy(update={"outcomes": outcomes_of(config)})
        with recorded_reads(spec) as reads:
            result = program.run(config)
        assert isinstance(result, StageResult)
        if stage is Stage.PUBLISH:  # the report shows any field
            assert reads >= {"publish", "trackers", "storage.keep"}
            return
        assert result.rows > 0
        parents = {stage.slug: result.manifest} if generation else {}
        leaves = reads & set(leaf_fields())
        assert leaves & {leaf for leaf in leaf_fields() if covering(leaf, program.relevant)}
        others = {leaf for leaf in leaves if not covering(leaf, program.relevant)} - READ
        if stage in (Stage.WARM_START, Stage.TRAIN):
            others -= DESCRIBED
        assert not others, f"{stage.value} reads {sorted(others)}, which are not relevant to it"
