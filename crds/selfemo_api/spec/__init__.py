"""``spec`` of an EmotionEvolution: the desired evolution.

Hyperparameters are JSON numbers with bounds. This deviates from the Kubernetes convention "no
floats" on purpose: every program that reads them is written in Python. The docstring of a field is
its description in the CRD. It ends with the reason for the base value, if there is one. The base
values are the values of the `paper-v1` recipe; the other recipe files explain their own values.
"""

from selfemo_api.spec.dataset import (
    Column,
    Context,
    DataFormat,
    DatasetSpec,
    Preset,
    Source,
    Use,
)
from selfemo_api.spec.evaluation import EvaluationSpec, MultiLabel
from selfemo_api.spec.evolution_spec import DEFAULT_RECIPE, Ablation, EvolutionSpec
from selfemo_api.spec.fields import Emotion, StorageUri, Uri
from selfemo_api.spec.flywheel import Band, Deduplicate, FlywheelRunner, FlywheelSpec
from selfemo_api.spec.kubernetes import (
    Deadlines,
    FailurePolicy,
    PodTemplate,
    PodTemplateEntry,
    Queue,
)
from selfemo_api.spec.model import ModelSpec
from selfemo_api.spec.publishing import PublishUri, Tracker
from selfemo_api.spec.resources import ResourcesSpec
from selfemo_api.spec.reward import (
    GroupWeight,
    JudgeModel,
    JudgeSpec,
    RewardSpec,
    RewardWeights,
    Signal,
    View,
)
from selfemo_api.spec.self_play import Engine, EngineArgs, MaxTokens, Role, SelfPlaySpec
from selfemo_api.spec.stopping import CollapseBounds, OnRegression, PromotionSpec, StoppingSpec
from selfemo_api.spec.storage import Keep, SecretReference, StorageSpec, WhenDeleted
from selfemo_api.spec.training import (
    Clip,
    DeepSpeedSpec,
    Lora,
    Offload,
    OptimizerSpec,
    Precision,
    Schedule,
    Start,
    TrainingSpec,
)
from selfemo_api.spec.warm_start import WarmStartSpec

__all__ = [
    "DEFAULT_RECIPE",
    "Ablation",
    "Band",
    "Clip",
    "CollapseBounds",
    "Column",
    "Context",
    "DataFormat",
    "DatasetSpec",
    "Deadlines",
    "Deduplicate",
    "DeepSpeedSpec",
    "Emotion",
    "Engine",
    "EngineArgs",
    "EvaluationSpec",
    "EvolutionSpec",
    "FailurePolicy",
    "FlywheelRunner",
    "FlywheelSpec",
    "GroupWeight",
    "JudgeModel",
    "JudgeSpec",
    "Keep",
    "Lora",
    "MaxTokens",
    "ModelSpec",
    "MultiLabel",
    "Offload",
    "OnRegression",
    "OptimizerSpec",
    "PodTemplate",
    "PodTemplateEntry",
    "Precision",
    "Preset",
    "PromotionSpec",
    "PublishUri",
    "Queue",
    "ResourcesSpec",
    "RewardSpec",
    "RewardWeights",
    "Role",
    "Schedule",
    "SecretReference",
    "SelfPlaySpec",
    "Signal",
    "Source",
    "Start",
    "StoppingSpec",
    "StorageSpec",
    "StorageUri",
    "Tracker",
    "TrainingSpec",
    "Uri",
    "Use",
    "View",
    "WarmStartSpec",
    "WhenDeleted",
]
