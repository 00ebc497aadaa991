"""``spec`` of an EmotionEvolution: what a person asks for.

Hyper-parameters are JSON numbers with bounds (a deliberate deviation from Kubernetes' "no floats":
every consumer is Python). Each default has its reason beside it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, WithJsonSchema

from selfemo_api.base import ApiModel, DnsLabel, Rule, Share, ShortText
from selfemo_api.flywheel import FlywheelSpec
from selfemo_api.podtemplate import Deadlines, FailurePolicy, PodTemplates, Queue
from selfemo_api.reward import RewardSpec
from selfemo_api.training import TrainingSpec

Emotion = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z][a-z-]*$")]
Uri = Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^(hf|s3|file|data)://[^\s]+$")]
StorageUri = Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^(s3|file)://[^\s]+$")]


def _refuse_remote_code(arguments: dict[str, Any]) -> dict[str, Any]:
    if arguments.get("trust_remote_code", False) is not False:
        raise ValueError("`trust_remote_code` must be false: a model's own code is never run")
    return arguments


#: What an engine is given as it is. CEL cannot look into unknown fields, so the schema itself
#: refuses the one that would run a model's code.
EngineArgs = Annotated[
    dict[str, Any],
    AfterValidator(_refuse_remote_code),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"trust_remote_code": {"type": "boolean", "enum": [False]}},
            "x-kubernetes-preserve-unknown-fields": True,
        }
    ),
]


class DataFormat(StrEnum):
    """How a source is laid out."""

    MELD = "MELD"
    EMORYNLP = "EmoryNLP"
    IEMOCAP = "IEMOCAP"
    JSONL = "JSONL"


class Engine(StrEnum):
    """What generates text."""

    VLLM = "VLLM"
    TRANSFORMERS = "Transformers"


class Role(StrEnum):
    """The two roles of SELF-EMO."""

    RECOGNISER = "Recogniser"
    RESPONDER = "Responder"


class WhenDeleted(StrEnum):
    """What becomes of a run's data when its EmotionEvolution is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class OnRegression(StrEnum):
    """What follows a generation that is worse than the best."""

    ROLL_BACK = "RollBack"
    CONTINUE = "Continue"
    STOP = "Stop"


class ModelSpec(ApiModel):
    """The model as given: generation 0."""

    uri: Uri
    """`hf://owner/name`, `s3://bucket/prefix`, `file:///folder` or `data://volume/folder`; weights
    in safetensors only."""
    revision: ShortText | None = None
    """A hub revision; give a commit for a run that can be repeated."""
    prompts: Annotated[str, Field(pattern=r"^[a-z]+-v[0-9]+$", max_length=32)] = "chat-v1"
    """The prompt set, versioned with the code: `chat-v1` for instruction-tuned models, the common
    case; `compact-v1` for small ones."""
    max_prompt_tokens: Annotated[int, Field(ge=32, le=32768)] = 1024
    """Longer prompts lose their oldest turns. 1024 holds MELD's longest dialogues with room."""


class Source(ApiModel):
    """One file of dialogues."""

    name: DnsLabel
    """Names the source in metrics and reports."""
    uri: Uri
    """The file. `data://volume/path` is looked up in the mounted data volumes."""
    format: DataFormat
    use_labels: bool = False
    """Let self-play read this source's labels as gold. Off: the evolution is label-free."""
    first_dialogue: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Skip this many dialogues (in file order), e.g. those that the warm start has seen."""
    max_dialogues: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Take at most this many dialogues. Unset: all."""
    draw: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Self-play draws this many of them each generation, whatever `selfPlay.dialogues` says. Unset:
    they share `selfPlay.dialogues` with the other sources."""


class Context(ApiModel):
    """How much of the dialogue the recogniser sees around the target utterance."""

    past: Annotated[int, Field(ge=0, le=64)] = 5
    """Turns before the target; five is what BiosERC and PRC-Emo use."""
    future: Annotated[int, Field(ge=0, le=64)] = 0
    """Turns after the target. 0: only the past is known, as in a live conversation."""


class DatasetSpec(ApiModel):
    """Where dialogues come from."""

    labels: Annotated[list[Emotion], Field(min_length=2, max_length=64)]
    """The emotions, all lower case."""
    self_play: Annotated[list[Source], Field(min_length=1, max_length=16)]
    """Unlabelled dialogues that self-play starts from."""
    evaluation: Annotated[list[Source], Field(min_length=1, max_length=16)]
    """Labelled dialogues. The first (or `spec.evaluation.select`) chooses the best generation."""
    context: Context = Context()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.labels.all(l, self.labels.exists_one(m, m == l))", "`labels` must not repeat"),
        Rule(
            "self.selfPlay.all(s, self.selfPlay.exists_one(t, t.name == s.name))",
            "`selfPlay` must name each source once",
        ),
        Rule(
            "self.evaluation.all(s, self.evaluation.exists_one(t, t.name == s.name))",
            "`evaluation` must name each source once",
        ),
    )


class SecretReference(ApiModel):
    """A Secret in the evolution's namespace; the operator never reads it."""

    name: DnsLabel


class StorageSpec(ApiModel):
    """Where results go: a folder or any S3."""

    uri: StorageUri
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=1024)] | None = None
    """For an S3 that is not AWS."""
    region: ShortText | None = None
    path_style: bool = False
    """Address buckets by path, as many self-hosted S3 servers need."""
    checksums: Annotated[str, Field(pattern=r"^(WhenSupported|WhenRequired)$")] = "WhenSupported"
    """`WhenRequired` for S3 servers that refuse boto3's default checksums."""
    max_attempts: Annotated[int, Field(ge=1, le=50)] = 8
    """Tries for each request; eight with back-off rides out about a minute without S3."""
    credentials_secret_ref: SecretReference | None = None
    """Keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. Unset: the pod's own identity."""
    when_deleted: WhenDeleted = WhenDeleted.RETAIN
    """Retained, since models are dear. `Delete`: on Kubernetes a Job removes the run's folder once
    the EmotionEvolution is gone; on one machine nothing does."""


class MaxTokens(ApiModel):
    """Longest completions by role."""

    recogniser: Annotated[int, Field(ge=1, le=4096)] = 16
    """Label names only; 16 tokens hold three of them."""
    responder: Annotated[int, Field(ge=1, le=4096)] = 48
    """One utterance: MELD's 99th percentile is 31 words."""


class SelfPlaySpec(ApiModel):
    """Both roles play; groups of candidates come out."""

    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods that play side by side. One fits a single machine."""
    dialogues: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Dialogues drawn each generation. Unset: all of the sources."""
    targets_per_dialogue: Annotated[int, Field(ge=1, le=256)] = 2
    """Utterances of a dialogue that are played from; two keeps neighbours from crowding a batch."""
    group_size: Annotated[int, Field(ge=2, le=256)] = 8
    """Candidates for each prompt (G); TRL's and DeepSeek's usual eight."""
    turns: Annotated[int, Field(ge=1, le=16)] = 1
    """How often a chosen response is appended and the roles go on."""
    roles: Annotated[list[Role], Field(min_length=1, max_length=2)] = [
        Role.RECOGNISER,
        Role.RESPONDER,
    ]
    """Which roles play. Both, as in SELF-EMO; one alone is an ablation."""
    temperature: Annotated[float, Field(gt=0.0, le=5.0)] = 1.0
    """1.0 samples the model's own distribution, which the importance weights assume."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """1.0 for the same reason."""
    max_tokens: MaxTokens = MaxTokens()
    engine: Engine = Engine.VLLM
    """`VLLM` is the product's engine; `Transformers` serves where no vLLM build fits."""
    engine_args: EngineArgs = Field(default_factory=dict)
    """Passed to the engine as they are (e.g. `gpu_memory_utilization`)."""
    batch_prompts: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Prompts in one part file: the unit of resuming."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.roles.all(r, self.roles.exists_one(s, s == r))", "`roles` must not repeat"),
    )


class EvaluationSpec(ApiModel):
    """How a generation is measured."""

    select: DnsLabel | None = None
    """The evaluation source that decides promotion. Unset: the first."""
    shares: Annotated[dict[str, Share], Field(min_length=2, max_length=64)] | None = None
    """The share of each emotion where the model is to be used. The selecting source's utterances
    then weigh as much as it takes for its emotions to have these shares: F1 (weighted, strict,
    macro, by label), accuracy and the interval are those of such a source. Other sources count as
    they come. Unset: so does the selecting one. For a source whose emotions are spread otherwise,
    which can promote a model that is worse in use (docs/studies); worth it only where the shares
    are well known."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Resamples (of whole dialogues) for the 95 % interval; 1000 fix its second digit."""
    engine: Engine | None = None
    """Unset: the engine of self-play."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32


class Goal(ApiModel):
    """Stop when reached."""

    f1: Annotated[float, Field(gt=0.0, le=1.0)]
    """Weighted F1 on the selecting source."""


class CollapseBounds(ApiModel):
    """Past one of these the run is `Collapsed` and rolled back."""

    min_entropy: Share = 0.35
    """Normalised entropy of the predicted labels, as a share of generation 0's. In the learning
    studies every promoted generation had more than 1, random rewards 0.63 at least; in both runs
    made to collapse it fell to 0.00 at once."""
    max_divergence: Share = 0.3
    """Jensen-Shannon divergence (base 2) of predicted labels from generation 0's. In the studies at
    most 0.09, with random rewards 0.26; 0.76 and 1.00 in the collapses. An evolution may mend a
    skewed generation 0: hence the room."""
    max_zero_variance: Share = 0.98
    """Share of groups whose rewards are all equal: they teach nothing. Above 0.98 a step of 28
    groups, as the study's, has less than one that does."""
    min_diversity: Share = 0.02
    """Distinct bigrams over all bigrams of the responses. One response said n times has 1/n; the
    demo's few hundred have 0.88, and more of them have less."""


class EvolutionPolicy(ApiModel):
    """How long it goes on, and what is kept."""

    max_generations: Annotated[int, Field(ge=1, le=999)] = 4
    """Label-free runs gain in the first few rounds and degrade after (R-Zero: 3-4)."""
    goal: Goal | None = None
    patience: Annotated[int, Field(ge=1, le=999)] = 2
    """Generations without a better F1 before the run is `Plateaued`."""
    min_delta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """F1 must rise by more than this to count as better."""
    on_regression: OnRegression = OnRegression.ROLL_BACK
    """A worse generation is not built upon."""
    collapse: CollapseBounds = CollapseBounds()


class ResumeFrom(ApiModel):
    """Start from a generation of another run."""

    uri: StorageUri
    """The `evaluate/manifest.json` or `train/manifest.json` of one of its generations: its model is
    generation 0 here, in place of `model.uri`."""


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
            "(has(self.evaluation.select) ? self.evaluation.select : "
            "self.dataset.evaluation[0].name) == (has(oldSelf.evaluation.select) ? "
            "oldSelf.evaluation.select : oldSelf.dataset.evaluation[0].name)",
            "`evaluation.select` (unset: the first of `dataset.evaluation`) is immutable: "
            "generations are compared on it",
        ),
        Rule(
            "!has(self.evaluation.select) || "
            "self.dataset.evaluation.exists(s, s.name == self.evaluation.select)",
            "`evaluation.select` must name a source of `dataset.evaluation`",
        ),
        Rule(
            "self.flywheel.runner != 'Ray' || has(self.flywheel.rayAddress)",
            "`flywheel.rayAddress` must be given with `flywheel.runner: Ray`",
        ),
        _names_each_label("flywheel.expected"),
        _names_each_label("evaluation.shares"),
        _immutable("evaluation.shares", why=": generations are compared by them"),
        Rule(
            "self.training.batchSize % self.selfPlay.groupSize == 0",
            "`training.batchSize` must be a multiple of `selfPlay.groupSize`: groups stay whole",
        ),
    )

    @property
    def reading_tokens(self) -> int:
        """Longest reading of the anchor."""
        return self.reward.recogniser.max_tokens or self.self_play.max_tokens.recogniser

    @property
    def selecting_source(self) -> str:
        """Name of the evaluation source that decides promotion."""
        return self.evaluation.select or self.dataset.evaluation[0].name

    @property
    def evaluation_engine(self) -> Engine:
        """The engine that evaluates."""
        return self.evaluation.engine or self.self_play.engine
