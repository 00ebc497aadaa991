"""``spec`` of an EmotionEvolution: what a person asks for.

Hyper-parameters are JSON numbers with bounds (a deliberate deviation from Kubernetes' "no floats":
every consumer is Python). Each default has its reason beside it.
"""

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


def _names_each_label(field: str) -> Rule:
    """Return the rule that an optional map has each label for a key, and no other."""
    return Rule(
        f"!has(self.{field}) || "
        f"(size(self.{field}) == size(self.dataset.labels) && "
        f"self.dataset.labels.all(l, l in self.{field}))",
        f"`{field}` must name each of `dataset.labels`, and nothing else",
    )


def _immutable(field: str, part: str = "", why: str = "") -> Rule:
    """Return the rule that an optional field, or a part of it, is neither set, removed nor edited.

    Parameters
    ----------
    field
        Its path.
    part
        What is compared of it, e.g. ``.uri``; empty: all.
    why
        Ends the message.
    """
    return Rule(
        f"has(self.{field}) == has(oldSelf.{field}) && "
        f"(!has(self.{field}) || self.{field}{part} == oldSelf.{field}{part})",
        f"`{field}` is immutable{why}",
    )


class EvolutionSpec(ApiModel):
    """What a person asks for."""

    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """All randomness follows from it."""
    model: ModelSpec
    dataset: DatasetSpec
    storage: StorageSpec
    self_play: SelfPlaySpec = SelfPlaySpec()
    reward: RewardSpec = RewardSpec()
    flywheel: FlywheelSpec = FlywheelSpec()
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    evolution: EvolutionPolicy = EvolutionPolicy()
    suspend: bool = False
    """Stop at once without losing what is done; set back to false to go on."""
    managed_by: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Another controller's name: the operator then leaves this evolution alone."""
    queue: Queue | None = None
    failure_policy: FailurePolicy = FailurePolicy()
    deadlines: Deadlines = Deadlines()
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Delete the evolution this long after its end. Unset: never (S3 data always stays)."""
    history_limit: Annotated[int, Field(ge=1, le=10)] = 10
    """Generations kept in `status.history`, and as far back as replay reaches; the manifests hold
    all of them."""
    resume_from: ResumeFrom | None = None
    pod_template: PodTemplates = PodTemplates()

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
            "`evaluation.selectionDataset` must name a source of `dataset.evaluation`",
        ),
        Rule(
            "self.flywheel.runner != 'Ray' || has(self.flywheel.rayAddress)",
            "`flywheel.rayAddress` must be given with `flywheel.runner: Ray`",
        ),
        _names_each_label("flywheel.labelPrior"),
        _names_each_label("evaluation.labelPrior"),
        _immutable("evaluation.labelPrior", why=": generations are compared by them"),
        Rule(
            "self.training.batchSize % self.selfPlay.groupSize == 0",
            "`training.batchSize` must be a multiple of `selfPlay.groupSize`: groups stay whole",
        ),
    )

    @property
    def baseline_uri(self) -> str:
        """URI of the baseline: generation 0's model."""
        return self.resume_from.uri if self.resume_from else self.model.uri

    @property
    def reading_tokens(self) -> int:
        """Longest reading of the judge."""
        return self.reward.judge.max_tokens or self.self_play.max_tokens.recognizer

    @property
    def selection_dataset(self) -> str:
        """Name of the evaluation source that decides promotion."""
        return self.evaluation.selection_dataset or self.dataset.evaluation[0].name

    @property
    def evaluation_engine(self) -> Engine:
        """The engine that evaluates."""
        return self.evaluation.engine or self.self_play.engine
