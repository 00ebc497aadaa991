"""``spec`` of an EmotionEvolution as a whole, with the rules across its parts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, JsonObject, Rule
from selfemo_api.spec.dataset import DatasetSpec
from selfemo_api.spec.evaluation import EvaluationSpec
from selfemo_api.spec.fields import EXPERT
from selfemo_api.spec.flywheel import FlywheelSpec
from selfemo_api.spec.kubernetes import Deadlines, FailurePolicy, PodTemplateEntry, Queue
from selfemo_api.spec.model import ModelSpec
from selfemo_api.spec.publishing import PublishUri, Tracker
from selfemo_api.spec.resources import ResourcesSpec
from selfemo_api.spec.reward import RewardSpec
from selfemo_api.spec.self_play import Engine, Role, SelfPlaySpec
from selfemo_api.spec.stopping import PromotionSpec, StoppingSpec
from selfemo_api.spec.storage import StorageSpec
from selfemo_api.spec.training import TrainingSpec
from selfemo_api.spec.warm_start import WarmStartSpec


def _immutable(field: str, part: str = "", why: str = "") -> Rule:
    """Return the rule that an optional field must not be added, removed or edited.

    Parameters
    ----------
    field
        The dotted path of the field below ``spec``.
    part
        The path of the part that is compared, below the field, for example ``.uri``. If empty,
        the whole field is compared.
    why
        The end of the message, for example the reason.
    """
    return Rule(
        f"has(self.{field}) == has(oldSelf.{field}) && "
        f"(!has(self.{field}) || self.{field}{part} == oldSelf.{field}{part})",
        f"`{field}` is immutable{why}",
    )


#: The name and the version of the default recipe.
DEFAULT_RECIPE = "small-v2"
#: The name of the first evaluation source, as CEL finds it. It filters indexes, one for each
#: possible source: the API server has no bound for the name of a filtered source, and rejects the
#: CRD because the comparison could cost too much.
_FIRST_EVALUATION = (
    f"{{0}}.dataset.sources[{list(range(32))}.filter(i, i < size({{0}}.dataset.sources) && "
    "{0}.dataset.sources[i].use == 'Evaluation')[0]].name"
)
#: The name of the selection dataset of a resolved spec, as CEL finds it.
_SELECTION = (
    "(has({0}.evaluation.selectionDataset) ? {0}.evaluation.selectionDataset : "
    f"{_FIRST_EVALUATION})"
)


class Ablation(StrEnum):
    """A part of the method that is left out, to measure what it contributes."""

    NONE = "None"
    RANDOM_REWARDS = "RandomRewards"
    PLAIN_IOU = "PlainIoU"
    UNWEIGHTED_GROUPS = "UnweightedGroups"
    SELF_GRADED = "SelfGraded"


class EvolutionSpec(ApiModel):
    """The desired evolution: the model, the data, and how it learns, is evaluated and runs.

    An edit takes effect with the next generation. Edits of `podTemplate`, `resources.accelerator`,
    `queue`, `deadlines`, `failurePolicy`, `suspend`, `ttlSecondsAfterFinished`,
    `promotion.onRegression: Stop` and, except for its collapse thresholds, `stopping` take effect
    immediately. Until the baseline is measured, an edit of a field that must be the same in all
    generations, such as the labels, also takes effect immediately, with all other edits.
    """

    recipe: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*-v[0-9]+$", max_length=63)] = (
        DEFAULT_RECIPE
    )
    """The name of a built-in recipe. When a generation begins, the recipe provides a value for each
    setting that is unset here. A recipe never changes: an improved recipe gets a new version.
    Defaults to the recipe with which small models improved in the studies."""
    overrides: JsonObject = {}
    """Replacements for values of the recipe that have no dedicated field, in the format of a recipe
    file, for example `{training: {epochs: 4}}`. A null restores the base value."""
    ablation: Ablation = Ablation.NONE
    """A part of the method to leave out. `RandomRewards` samples each reward at random, `PlainIoU`
    removes the smoothing of the reward, `UnweightedGroups` gives all groups the same weight, and
    with `SelfGraded` the policy is its own judge. `None` leaves nothing out."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """The random seed of the run. All random choices are derived from it, which makes runs
    reproducible."""
    model: ModelSpec
    """The model that an evolution starts from, and its prompts."""
    dataset: DatasetSpec
    """The label set, and the sources of dialogues for self-play and evaluation."""
    storage: StorageSpec
    """Where results go: a folder, or a bucket of any S3 server."""
    warm_start: WarmStartSpec = WarmStartSpec()
    """Supervised training on the labeled sources, which produces the model of generation 0."""
    self_play: SelfPlaySpec = SelfPlaySpec()
    """How the policy plays both roles over dialogues and produces groups of candidates."""
    reward: Annotated[RewardSpec, EXPERT] = RewardSpec()
    """How candidates are scored."""
    flywheel: FlywheelSpec = FlywheelSpec()
    """Which groups of candidates are used for the next training."""
    training: TrainingSpec = TrainingSpec()
    """How the policy is trained on the kept groups (SELF-GRPO)."""
    resources: ResourcesSpec = ResourcesSpec()
    """The nodes and accelerators of stages."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How a generation is evaluated."""
    stopping: StoppingSpec = StoppingSpec()
    """When an evolution stops. Edits take effect immediately."""
    promotion: PromotionSpec = PromotionSpec()
    """When a generation replaces the best one."""
    publish: PublishUri | None = None
    """The URI to which the best model is copied after each promotion: `hf://owner/name`,
    `s3://bucket/prefix` or `file:///folder`. The Hugging Face token is read from the `HF_TOKEN`
    environment variable of the `Publish` stage. If unset, models are stored only in the storage of
    the run."""
    trackers: Annotated[list[Tracker], Field(max_length=4)] = []
    """The experiment trackers that receive the metrics of each generation. Each tracker is
    configured by its own environment variables in the `Publish` stage, for example
    `MLFLOW_TRACKING_URI`. Defaults to no tracker, so that metrics leave the cluster only on
    request."""
    suspend: bool = False
    """Whether the evolution is suspended. If true, its pods stop immediately, and completed work is
    kept. Set it to false to resume."""
    managed_by: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The name of the controller that manages this evolution. If it is the name of another
    controller, the operator ignores the evolution. If unset, the operator manages it. `selfemo run`
    runs it in any case."""
    queue: Queue | None = None
    """The Kueue queue of the stage Jobs. If unset, the Jobs are not queued."""
    failure_policy: FailurePolicy = FailurePolicy()
    """How often a stage is retried."""
    deadlines: Deadlines = Deadlines()
    """Time limits in seconds for stages and for the whole run."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """The time in seconds after which a finished evolution is deleted. If unset, it is not deleted.
    Results in the storage are kept, unless `storage.whenDeleted` is `Delete`. `selfemo run` deletes
    nothing."""
    pod_template: Annotated[list[PodTemplateEntry], Field(max_length=16)] = []
    """Templates for stage pods, applied in order."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.seed == oldSelf.seed", "`seed` is immutable"),
        Rule("self.model.uri == oldSelf.model.uri", "`model.uri` is immutable"),
        _immutable("model.revision"),
        _immutable("model.resumeFrom"),
        Rule("self.storage.uri == oldSelf.storage.uri", "`storage.uri` is immutable"),
        _immutable("dataset.labels"),
        _immutable("dataset.preset"),
        _immutable("managedBy"),
        Rule(
            "has(self.dataset.sources) == has(oldSelf.dataset.sources) && "
            f"(!has(self.dataset.sources) || {_FIRST_EVALUATION.format('self')} == "
            f"{_FIRST_EVALUATION.format('oldSelf')})",
            "the selection dataset (the first source with `use: Evaluation`) is immutable: "
            "generations are compared on it",
        ),
        Rule(
            f"{_SELECTION.format('self')} == {_SELECTION.format('oldSelf')}",
            "`overrides.evaluation.selectionDataset` is immutable: generations are compared on it",
            resolved=True,
        ),
        Rule(
            "!has(self.dataset.labelPrior) || !has(self.dataset.labels) || "
            "(size(self.dataset.labelPrior) == size(self.dataset.labels) && "
            "self.dataset.labels.all(l, l in self.dataset.labelPrior))",
            "the keys of `dataset.labelPrior` must be exactly the labels of `dataset.labels`",
        ),
        Rule(
            "(has(self.evaluation) && has(self.evaluation.useLabelPrior)) == "
            "(has(oldSelf.evaluation) && has(oldSelf.evaluation.useLabelPrior)) && "
            "(!has(self.evaluation) || !has(self.evaluation.useLabelPrior) || "
            "(self.evaluation.useLabelPrior == oldSelf.evaluation.useLabelPrior))",
            "`evaluation.useLabelPrior` is immutable: scores must remain comparable",
        ),
        Rule(
            "!has(self.evaluation) || !has(self.evaluation.useLabelPrior) || "
            "!self.evaluation.useLabelPrior || "
            "(has(self.dataset.labelPrior) == has(oldSelf.dataset.labelPrior) && "
            "(!has(self.dataset.labelPrior) || "
            "self.dataset.labelPrior == oldSelf.dataset.labelPrior))",
            "`dataset.labelPrior` is immutable with `evaluation.useLabelPrior`: scores must remain "
            "comparable",
        ),
        Rule(
            "!has(self.evaluation.selectionDataset) || self.dataset.sources.exists(s, "
            "s.use == 'Evaluation' && s.name == self.evaluation.selectionDataset)",
            "`overrides.evaluation.selectionDataset` must be the name of a source with "
            "`use: Evaluation`",
            resolved=True,
        ),
        Rule(
            "self.flywheel.maxShare * double(size(self.dataset.labels)) >= 1.0 - 0.000001",
            "`overrides.flywheel.maxShare` must be at least 1 / the number of labels: at least one "
            "label is always that frequent",
            resolved=True,
        ),
        Rule(
            "self.flywheel.runner != 'Ray' || has(self.flywheel.rayAddress)",
            "`overrides.flywheel.runner: Ray` requires `overrides.flywheel.rayAddress`",
            resolved=True,
        ),
        Rule(
            "self.training.batchSize % self.selfPlay.groupSize == 0",
            "`training.batchSize` must be a multiple of `selfPlay.groupSize`: groups are not split",
            resolved=True,
        ),
        Rule(
            "self.training.imitation == 0.0 || self.training.batchSize > self.selfPlay.groupSize",
            "`training.batchSize` must be greater than `selfPlay.groupSize` with "
            "`training.imitation`: an imitated answer adds a row to its group",
            resolved=True,
        ),
        Rule(
            "self.training.batchSize % (self.training.microBatchSize * self.resources.nodes * "
            "(has(self.resources.processesPerNode) ? self.resources.processesPerNode : "
            "(self.resources.gpusPerNode > 0 ? self.resources.gpusPerNode : 1))) == 0",
            "`training.batchSize` must be a multiple of `training.microBatchSize` times the number "
            "of processes",
            resolved=True,
        ),
        Rule(
            "self.warmStart.steps == 0 || self.dataset.sources.exists(s, s.use == 'Labeled')",
            "`warmStart.steps` requires a source with `use: Labeled`: set "
            "`dataset.labeledDialogues`, or `warmStart.steps: 0`",
            resolved=True,
        ),
        Rule(
            "!(self.flywheel.useLabelPrior || self.evaluation.useLabelPrior) || "
            "has(self.dataset.labelPrior) || "
            "self.dataset.sources.exists(s, s.use == 'Labeled')",
            "`useLabelPrior` requires `dataset.labelPrior` or a source with `use: Labeled`",
            resolved=True,
        ),
    )

    @property
    def baseline_uri(self) -> str:
        """URI of the model that the evolution starts from, before a warm start."""
        return self.model.resume_from or self.model.uri

    @property
    def has_warm_start(self) -> bool:
        """Whether generation 0 has a warm start."""
        return self.warm_start.steps > 0

    @property
    def imitates_responses(self) -> bool:
        """Whether training imitates the responder's best responses."""
        plays = Role.RESPONDER in self.self_play.roles
        return plays and self.training.imitation > 0.0 and self.warm_start.responder_share > 0.0

    @property
    def roles_teach_each_other(self) -> bool:
        """Whether training also imitates the human turns.

        Both roles then play, and both have learned from a labeled subset. Without labels, the
        responder does not know what the labels mean by the names of the emotions.
        """
        plays_both = set(self.self_play.roles) == set(Role)
        return self.imitates_responses and plays_both and bool(self.dataset.labeled)

    @property
    def flywheel_label_prior(self) -> dict[str, float] | None:
        """The label prior that the flywheel uses, or None."""
        return self.dataset.label_prior if self.flywheel.use_label_prior else None

    @property
    def evaluation_label_prior(self) -> dict[str, float] | None:
        """The label prior that the evaluation of the selection dataset uses, or None."""
        return self.dataset.label_prior if self.evaluation.use_label_prior else None

    @property
    def reading_tokens(self) -> int:
        """The maximum number of tokens per judge sample."""
        return self.reward.judge.max_tokens or self.self_play.max_tokens.recognizer

    @property
    def selection_dataset(self) -> str:
        """The name of the evaluation source that decides promotion."""
        return self.evaluation.selection_dataset or self.dataset.evaluation[0].name

    @property
    def evaluation_engine(self) -> Engine:
        """The engine that generates the answers of the evaluation."""
        return self.evaluation.engine or self.self_play.engine

    @property
    def evaluation_engine_args(self) -> JsonObject:
        """The arguments of that engine: the same as in self-play if self-play uses it."""
        is_same = self.evaluation_engine is self.self_play.engine
        return dict(self.self_play.engine_args) if is_same else {}
