"""``spec`` of an EmotionEvolution as a whole, with the rules across its parts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, Rule
from selfemo_api.spec.dataset import DatasetSpec
from selfemo_api.spec.evaluation import EvaluationSpec
from selfemo_api.spec.flywheel import FlywheelSpec
from selfemo_api.spec.kubernetes import Deadlines, FailurePolicy, PodTemplates, Queue
from selfemo_api.spec.model import ModelSpec, ResumeFrom
from selfemo_api.spec.reward import RewardSpec
from selfemo_api.spec.self_play import Engine, SelfPlaySpec
from selfemo_api.spec.stopping import EvolutionPolicy
from selfemo_api.spec.storage import StorageSpec
from selfemo_api.spec.training import TrainingSpec


def _labels_as_keys(field: str) -> Rule:
    """Return the rule that the keys of an optional map are exactly the labels.

    Parameters
    ----------
    field
        The dotted path of the map below ``spec``.
    """
    return Rule(
        f"!has(self.{field}) || "
        f"(size(self.{field}) == size(self.dataset.labels) && "
        f"self.dataset.labels.all(l, l in self.{field}))",
        f"the keys of `{field}` must be exactly the labels of `dataset.labels`",
    )


def _immutable(field: str, part: str = "", why: str = "") -> Rule:
    """Return the rule that an optional field is never added, removed or edited.

    Parameters
    ----------
    field
        The dotted path of the field below ``spec``.
    part
        The path of the part that is compared, below the field, for example ``.uri``. Empty: the
        whole field is compared.
    why
        The end of the message, for example the reason.
    """
    return Rule(
        f"has(self.{field}) == has(oldSelf.{field}) && "
        f"(!has(self.{field}) || self.{field}{part} == oldSelf.{field}{part})",
        f"`{field}` is immutable{why}",
    )


class EvolutionSpec(ApiModel):
    """The desired evolution: model, data, and how it learns, is measured and runs.

    An edit takes effect with the next generation. Edits of `podTemplate`, `queue`, `deadlines`,
    `failurePolicy` and the stopping rules of `evolution` take effect at once.
    """

    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """The seed of the run. All random choices follow from it, so that runs can be repeated."""
    model: ModelSpec
    """The model of the baseline (generation 0), and its prompts."""
    dataset: DatasetSpec
    """The label set, and the files of dialogues for self-play and evaluation."""
    storage: StorageSpec
    """Where results go: a folder, or a bucket of any S3 server."""
    self_play: SelfPlaySpec = SelfPlaySpec()
    """How the policy plays both roles over dialogues and produces groups of candidates."""
    reward: RewardSpec = RewardSpec()
    """How candidates are scored."""
    flywheel: FlywheelSpec = FlywheelSpec()
    """Which groups of candidates the next training learns from."""
    training: TrainingSpec = TrainingSpec()
    """How the policy is trained on the kept groups (SELF-GRPO)."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How a generation is measured."""
    evolution: EvolutionPolicy = EvolutionPolicy()
    """When the evolution stops, and which generations it builds on."""
    suspend: bool = False
    """Whether the evolution is suspended. If true, its pods stop at once, and completed work is
    kept. Set it to false to resume."""
    managed_by: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The name of the controller that manages this evolution. With the name of another controller,
    the operator ignores the evolution. Unset: the operator manages it."""
    queue: Queue | None = None
    """The Kueue queue of the stage Jobs. Unset: they are not queued."""
    failure_policy: FailurePolicy = FailurePolicy()
    """How often a stage is retried."""
    deadlines: Deadlines = Deadlines()
    """Limits in seconds for stages and for the whole run."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """The time in seconds after which a finished evolution is deleted. Unset: it is not deleted.
    Results in the storage remain, unless `storage.whenDeleted` is `Delete`."""
    history_limit: Annotated[int, Field(ge=1, le=10)] = 10
    """The number of generations in `status.history`, and the number of generations that replay
    reaches back. The manifests of all generations remain in the storage."""
    resume_from: ResumeFrom | None = None
    """A generation of another run, whose model becomes the baseline. Unset: `model.uri` is the
    baseline."""
    pod_template: PodTemplates = PodTemplates()
    """Templates of stage pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.seed == oldSelf.seed", "`seed` is immutable"),
        Rule("self.model.uri == oldSelf.model.uri", "`model.uri` is immutable"),
        _immutable("model.revision"),
        _immutable("resumeFrom", ".uri"),
        Rule("self.storage.uri == oldSelf.storage.uri", "`storage.uri` is immutable"),
        Rule("self.dataset.labels == oldSelf.dataset.labels", "`dataset.labels` is immutable"),
        _immutable("managedBy"),
        Rule(
            "(has(self.evaluation.selectionDataset) ? self.evaluation.selectionDataset : "
            "self.dataset.evaluation[0].name) == (has(oldSelf.evaluation.selectionDataset) ? "
            "oldSelf.evaluation.selectionDataset : oldSelf.dataset.evaluation[0].name)",
            "`evaluation.selectionDataset` (unset: the first of `dataset.evaluation`) is "
            "immutable: generations are compared on it",
        ),
        Rule(
            "!has(self.evaluation.selectionDataset) || "
            "self.dataset.evaluation.exists(s, s.name == self.evaluation.selectionDataset)",
            "`evaluation.selectionDataset` must be the name of a source in `dataset.evaluation`",
        ),
        Rule(
            "self.flywheel.runner != 'Ray' || has(self.flywheel.rayAddress)",
            "`flywheel.runner: Ray` requires `flywheel.rayAddress`",
        ),
        _labels_as_keys("flywheel.labelPrior"),
        _labels_as_keys("evaluation.labelPrior"),
        _immutable("evaluation.labelPrior", why=": generations are compared with it"),
        Rule(
            "self.training.batchSize % self.selfPlay.groupSize == 0",
            "`training.batchSize` must be a multiple of `selfPlay.groupSize`: no group is split",
        ),
    )

    @property
    def baseline_uri(self) -> str:
        """URI of the baseline: generation 0's model."""
        return self.resume_from.uri if self.resume_from else self.model.uri

    @property
    def reading_tokens(self) -> int:
        """The largest number of tokens of a reading of the judge."""
        return self.reward.judge.max_tokens or self.self_play.max_tokens.recognizer

    @property
    def selection_dataset(self) -> str:
        """The name of the evaluation source that decides promotion."""
        return self.evaluation.selection_dataset or self.dataset.evaluation[0].name

    @property
    def evaluation_engine(self) -> Engine:
        """The engine that generates the answers of the evaluation."""
        return self.evaluation.engine or self.self_play.engine
